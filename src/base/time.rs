//! Time: milliseconds since 1970 UTC, and the clock that gives them.
//!
//! Invariants
//! - Only [`Clock`] reads the system clock, so a test can hold it still.
//! - A [`Timestamp`] prints exactly as JavaScript's `toISOString` does: `2026-11-21T08:00:00.000Z`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z, within years 1970 to 9999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Timestamp(u64);

/// 9999-12-30T22:00:00.999Z: the last moment that every RFC 3339 offset can still express (and that `jiff` reads).
const MS_MAX: u64 = 253_402_207_200_999;

/// Whether `text` has the form of RFC 3339 section 5.6: ISO 8601 knows many more, of which some mean another time to another reader.
fn is_rfc_3339(text: &[u8]) -> bool {
    let fits = |text: &[u8], form: &[u8]| {
        let stands = |(byte, form): (&u8, &u8)| match form {
            b'0' => byte.is_ascii_digit(),
            b'T' => b"Tt ".contains(byte),
            b'+' => b"+-".contains(byte),
            sign => byte == sign,
        };
        text.len() == form.len() && text.iter().zip(form).all(stands)
    };
    let Some((whole, rest)) = text.split_at_checked(b"0000-00-00T00:00:00".len()) else { return false };
    let digits = rest.strip_prefix(b".").map_or(0, |part| part.iter().take_while(|byte| byte.is_ascii_digit()).count());
    let (point, offset) = (rest.first() == Some(&b'.'), &rest[digits + usize::from(digits > 0)..]);
    let hours = offset.get(1..3).is_some_and(|hours| hours < b"24".as_slice());
    fits(whole, b"0000-00-00T00:00:00") && point == (digits > 0) && (matches!(offset, b"Z" | b"z") || hours && fits(offset, b"+00:00"))
}

/// The moment that `text` names (RFC 3339). A leap second, which ends a month of UTC (section 5.7), is the second before it.
fn moment(text: &str) -> Option<jiff::Timestamp> {
    let moment: jiff::Timestamp = Some(text).filter(|text| is_rfc_3339(text.as_bytes()))?.parse().ok()?;
    // `jiff` takes `:60` in any minute.
    let leap = text.as_bytes()[17..19] == *b"60";
    let next = jiff::tz::TimeZone::UTC.to_datetime(moment.checked_add(jiff::SignedDuration::from_secs(i64::from(leap))).ok()?);
    let ends_a_month = next.day() == 1 && (next.hour(), next.minute(), next.second()) == (0, 0, 0);
    (!leap || ends_a_month).then_some(moment)
}

impl Timestamp {
    /// The moment `ms` milliseconds after 1970 began; later than year 9999 is cut to its end.
    pub fn from_ms(ms: u64) -> Self {
        Self(ms.min(MS_MAX))
    }

    /// Milliseconds since 1970 began.
    pub fn ms(self) -> u64 {
        self.0
    }

    /// Reads an RFC 3339 timestamp with any offset; finer parts than a millisecond are cut. `None` if it is not one or lies before 1970.
    pub fn parse(text: &str) -> Option<Self> {
        let ms = u64::try_from(moment(text)?.as_millisecond()).ok()?;
        (ms <= MS_MAX).then_some(Self(ms))
    }

    /// When the file was last written to; the beginning of time if the system does not say.
    pub fn modified(about: &std::fs::Metadata) -> Self {
        let since = about.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        Self::default().plus(since.unwrap_or_default())
    }

    /// Whether `text` is an RFC 3339 timestamp that [`Timestamp::parse`] cannot hold because it lies before 1970.
    pub fn is_too_early(text: &str) -> bool {
        moment(text).is_some_and(|moment| moment.as_millisecond() < 0)
    }

    /// So much earlier; the beginning of time at the least.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` it is; nothing if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The moment `by` after this one.
    pub fn plus(self, by: Duration) -> Self {
        Self::from_ms(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Civil from days: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
        let (days, ms) = (self.0 / 86_400_000, self.0 % 86_400_000);
        let z = days + 719_468;
        let (era, doe) = (z / 146_097, z % 146_097);
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = doy - (153 * mp + 2) / 5 + 1;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + u64::from(month <= 2);
        let parts = [
            (year, 4, b'-'),
            (month, 2, b'-'),
            (day, 2, b'T'),
            (ms / 3_600_000, 2, b':'),
            (ms / 60_000 % 60, 2, b':'),
            (ms / 1000 % 60, 2, b'.'),
            (ms % 1000, 3, b'Z'),
        ];
        let (mut text, mut at) = ([0; 24], 0);
        for (mut number, digits, end) in parts {
            for place in text[at..at + digits].iter_mut().rev() {
                *place = b'0' + u8::try_from(number % 10).expect("a digit");
                number /= 10;
            }
            at += digits;
            text[at] = end;
            at += 1;
        }
        f.write_str(std::str::from_utf8(&text).expect("digits and marks are ASCII"))
    }
}

/// This thread's processor time since its start, as the kernel counts it: other processes do not disturb it as they do a clock.
pub fn processor_time() -> Duration {
    // A clock, not /proc: the kernel's lock lets nothing of that be read.
    rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

/// The wall clock and the monotonic clock. Clones of a manual clock share one setting.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    /// `u64::MAX`: follow the system; else the milliseconds set by a test.
    manual: Arc<AtomicU64>,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self { started: Instant::now(), manual: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// A clock that stands at `at` until [`Clock::set`].
    pub fn manual(at: Timestamp) -> Self {
        Self { started: Instant::now(), manual: Arc::new(AtomicU64::new(at.0)) }
    }

    /// Sets a manual clock; a system clock becomes manual.
    pub fn set(&self, to: Timestamp) {
        self.manual.store(to.0, Ordering::SeqCst);
    }

    /// Wall time now.
    #[allow(clippy::disallowed_methods, reason = "the only reader of the system clock")]
    pub fn now(&self) -> Timestamp {
        match self.manual.load(Ordering::SeqCst) {
            u64::MAX => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
                Timestamp::from_ms(u64::try_from(since.as_millis()).unwrap_or(MS_MAX))
            }
            ms => Timestamp(ms),
        }
    }

    /// Milliseconds since this clock was made; never steps back.
    pub fn mono_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_prints_as_javascript_does_and_reads_back() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_301_176_123, "2026-11-21T22:46:16.123Z"),
            (MS_MAX, "9999-12-30T22:00:00.999Z"),
        ] {
            assert_eq!(Timestamp::from_ms(ms).to_string(), text);
            assert_eq!(Timestamp::parse(text), Some(Timestamp::from_ms(ms)));
        }
        assert_eq!(Timestamp::parse("2026-11-21T23:46:16.123+01:00"), Some(Timestamp::from_ms(1_795_301_176_123)));
        assert_eq!(Timestamp::parse("1969-12-31T23:59:59Z"), None);
        assert_eq!(Timestamp::parse("yesterday"), None);
        for (text, early) in [
            ("1969-12-31T23:59:59.999Z", true),
            ("1970-01-01T00:30:00+01:00", true),
            ("1970-01-01T00:00:00Z", false),
            ("1952-03-04", false),
        ] {
            assert_eq!(Timestamp::is_too_early(text), early, "{text}");
        }
    }

    /// A 60th second was taken in any minute.
    #[test]
    fn a_leap_second_ends_a_month_of_utc() {
        for (good, is) in [
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.000Z"),
            ("2016-12-31T23:59:60.5Z", "2016-12-31T23:59:59.500Z"),
            ("1990-12-31T15:59:60-08:00", "1990-12-31T23:59:59.000Z"),
            ("2024-03-01T01:59:60+02:00", "2024-02-29T23:59:59.000Z"),
        ] {
            assert_eq!(Timestamp::parse(good).map(|at| at.to_string()).as_deref(), Some(is), "{good}");
        }
        for bad in [
            "2026-06-30T12:00:60Z",
            "2016-12-31T23:58:60Z",
            "2016-12-30T23:59:60Z",
            "2016-12-31T23:59:60+01:00",
            "2016-12-31T23:59:61Z",
            "2024-02-28T23:59:60Z",
        ] {
            assert_eq!(Timestamp::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_timestamp_has_the_form_of_rfc_3339_and_no_other() {
        for good in [
            "2024-06-30T12:00:00Z",
            "2024-06-30t12:00:00z",
            "2024-06-30 12:00:00Z",
            "2024-06-30T14:00:00.000000000+02:00",
            "2024-06-29T12:01:00-23:59",
        ] {
            assert_eq!(Timestamp::parse(good).map(|at| at.to_string()).as_deref(), Some("2024-06-30T12:00:00.000Z"), "{good}");
        }
        // Whole families of ISO 8601 were taken, and offsets of more than a day.
        for bad in [
            "20240630T120000Z",
            "2024-06-30T12Z",
            "2024-06-30T12:00Z",
            "2024-06-30T12:00:00+05",
            "2024-06-30T12:00:00+0530",
            "2024-06-30T12:00:00+05:30:15",
            "2024-06-30T12:00:00+25:00",
            "2024-06-30T12:00:00+24:00",
            "2024-06-30T12:00:00+02:60",
            "2024-06-30T12:00:00Z[UTC]",
            "2024-06-30T12:00:00+02:00[Europe/Berlin]",
            "2024-06-30T12:00:00,5Z",
            "2024-06-30T12:00:00.Z",
            "2024-06-30T12:00:00.1234567890Z",
            "+002024-06-30T12:00:00Z",
            "2024-02-30T12:00:00Z",
            "2024-06-30T24:00:00Z",
            "2024-06-30T12:00:00",
            "2024-06-30T12:00:0\u{660}Z",
            "",
        ] {
            assert_eq!(Timestamp::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_manual_clock_stands_still_and_is_shared() {
        let clock = Clock::manual(Timestamp::from_ms(5));
        let other = clock.clone();
        other.set(Timestamp::from_ms(9));
        assert_eq!(clock.now().ms(), 9);
    }
}
