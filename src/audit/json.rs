//! RFC 8785 canonical JSON for closed schemas: one table per object gives its struct, its writer, its strict reader and its documentation.
//!
//! Invariants
//! - Keys are written in the order of RFC 8785 section 3.2.3 because the table is in that order (tests check); absent values are left out.
//! - No string of the schema needs an escape: each type's character set is a subset of printable ASCII without `"` and `\`.
//! - Integers are below 2^53, so every JSON reader sees the same number.
//! - A reader may be lenient where writing the value again gives other bytes; [`super::entry::Entry::parse`] compares the two.

use std::net::IpAddr;

use crate::base::time::Timestamp;
use crate::base::{hex, id};

/// The largest integer that every JSON reader keeps exactly.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

/// A value with one canonical text.
pub(super) trait Json: Sized {
    /// Appends the canonical text.
    fn put(&self, out: &mut String);
    /// Reads it back; `None` if something else stands there.
    fn get(from: &mut Cursor<'_>) -> Option<Self>;
}

/// A value that is written as a JSON string without escapes.
pub(super) trait Text: Sized {
    /// Appends the string's characters.
    fn put_text(&self, out: &mut String);
    /// Reads them back, strictly.
    fn from_text(text: &str) -> Option<Self>;
}

/// A field's value that may be left out.
pub(super) trait Optional: Default {
    /// Whether it is left out.
    fn absent(&self) -> bool;
}

/// Where reading stands in a line.
pub(super) struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(line: &'a str) -> Self {
        Self { rest: line }
    }

    /// Bytes not yet read.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// Passes `text`, which must stand here.
    pub(super) fn pass(&mut self, text: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }

    /// Passes `open`, then `"key":`, if they stand here.
    pub(super) fn key(&mut self, open: char, key: &str) -> bool {
        let after = |rest: &'a str| rest.strip_prefix(open)?.strip_prefix('"')?.strip_prefix(key)?.strip_prefix("\":");
        after(self.rest).map(|rest| self.rest = rest).is_some()
    }

    /// Reads a string up to its closing quote.
    pub(super) fn string(&mut self) -> Option<&'a str> {
        let (text, rest) = self.rest.strip_prefix('"')?.split_once('"')?;
        self.rest = rest;
        Some(text)
    }
}

/// Declares an object: `"key" field one|opt Type;` rows in canonical order.
macro_rules! object {
    ($(#[$about:meta])* $name:ident { $($(#[doc = $text:literal])+ $key:literal $field:ident $presence:ident $kind:ty;)+ }) => {
        $(#[$about])*
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct $name { $($(#[doc = $text])+ pub $field: $kind,)+ }

        impl $name {
            /// Key, whether it may be absent, and meaning of each field, in canonical order.
            pub const FIELDS: &'static [(&'static str, bool, &'static str)] = &[$(($key, object!(@maybe $presence), concat!($($text),+)),)+];
        }

        impl $crate::audit::json::Json for $name {
            fn put(&self, out: &mut String) {
                let mut open = '{';
                $(if !object!(@absent $presence self.$field) {
                    out.push(std::mem::replace(&mut open, ','));
                    out.push_str(concat!("\"", $key, "\":"));
                    $crate::audit::json::Json::put(&self.$field, out);
                })+
                out.push('}');
            }

            fn get(from: &mut $crate::audit::json::Cursor<'_>) -> Option<Self> {
                let mut open = '{';
                $(let $field = if from.key(open, $key) {
                    open = ',';
                    $crate::audit::json::Json::get(from)?
                } else {
                    object!(@missing $presence)
                };)+
                (open == ',').then_some(())?;
                from.pass("}")?;
                Some(Self { $($field),+ })
            }
        }
    };
    (@maybe one) => { false };
    (@maybe opt) => { true };
    (@absent one $value:expr) => { false };
    (@absent opt $value:expr) => { $crate::audit::json::Optional::absent(&$value) };
    (@missing one) => { return None };
    (@missing opt) => { Default::default() };
}
pub(super) use object;

impl<T: Text> Json for T {
    fn put(&self, out: &mut String) {
        out.push('"');
        self.put_text(out);
        out.push('"');
    }

    fn get(from: &mut Cursor<'_>) -> Option<Self> {
        T::from_text(from.string()?)
    }
}

impl<T: Json> Json for Option<T> {
    fn put(&self, out: &mut String) {
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn get(from: &mut Cursor<'_>) -> Option<Self> {
        T::get(from).map(Some)
    }
}

impl<T> Optional for Option<T> {
    fn absent(&self) -> bool {
        self.is_none()
    }
}

impl<T: Json> Json for Vec<T> {
    fn put(&self, out: &mut String) {
        let mut open = '[';
        for value in self {
            out.push(std::mem::replace(&mut open, ','));
            value.put(out);
        }
        out.push_str(if self.is_empty() { "[]" } else { "]" });
    }

    fn get(from: &mut Cursor<'_>) -> Option<Self> {
        let mut values = Vec::new();
        if from.pass("[]").is_some() {
            return Some(values);
        }
        from.pass("[")?;
        loop {
            values.push(T::get(from)?);
            if from.pass(",").is_none() {
                from.pass("]")?;
                return Some(values);
            }
        }
    }
}

impl<T> Optional for Vec<T> {
    fn absent(&self) -> bool {
        self.is_empty()
    }
}

impl Json for bool {
    fn put(&self, out: &mut String) {
        out.push_str(if *self { "true" } else { "false" });
    }

    fn get(from: &mut Cursor<'_>) -> Option<Self> {
        Some(from.pass("true").is_some() || from.pass("false").map(|()| false)?)
    }
}

impl Json for u64 {
    /// A number that JSON cannot keep (no count or time of ours is one) is written as [`INTEGER_MAX`].
    fn put(&self, out: &mut String) {
        let mut digits = [b'0'; 16];
        let (mut value, mut at) = ((*self).min(INTEGER_MAX), digits.len());
        while value > 0 || at == digits.len() {
            at -= 1;
            digits[at] += u8::try_from(value % 10).expect("a digit");
            value /= 10;
        }
        out.extend(digits[at..].iter().map(|digit| char::from(*digit)));
    }

    fn get(from: &mut Cursor<'_>) -> Option<Self> {
        let end = from.rest.bytes().take(17).take_while(u8::is_ascii_digit).count();
        let value = from.rest[..end].parse().ok()?;
        from.rest = &from.rest[end..];
        (value <= INTEGER_MAX).then_some(value)
    }
}

macro_rules! small_integers {
    ($($kind:ty)*) => {$(
        impl Json for $kind {
            fn put(&self, out: &mut String) {
                u64::from(*self).put(out);
            }

            fn get(from: &mut Cursor<'_>) -> Option<Self> {
                u64::get(from)?.try_into().ok()
            }
        }
    )*};
}
small_integers!(u16 u32);

/// The digits of a byte in lower-case hexadecimal.
const fn digits(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[(byte >> 4) as usize], DIGITS[(byte & 15) as usize]]
}

/// Appends bytes in lower-case hexadecimal.
pub(super) fn put_hex(bytes: &[u8], out: &mut String) {
    out.extend(bytes.iter().flat_map(|byte| digits(*byte)).map(char::from));
}

/// Appends a UUID (RFC 9562), without the allocations of its `Display`. A line has half a dozen of them, so it is put together first.
pub(super) fn put_uuid(bytes: &[u8; 16], out: &mut String) {
    let (mut text, mut at) = ([b'-'; 36], 0);
    for (place, byte) in bytes.iter().enumerate() {
        at += usize::from(matches!(place, 4 | 6 | 8 | 10));
        text[at..at + 2].copy_from_slice(&digits(*byte));
        at += 2;
    }
    out.push_str(std::str::from_utf8(&text).expect("digits and dashes are ASCII"));
}

macro_rules! uuids {
    ($($kind:ty)*) => {$(
        impl Text for $kind {
            fn put_text(&self, out: &mut String) {
                put_uuid(self.bytes(), out);
            }

            fn from_text(text: &str) -> Option<Self> {
                <$kind>::parse(text)
            }
        }
    )*};
}
uuids!(id::TenantId id::SubjectId id::CredentialId id::OperationId id::BootId id::InstanceId id::FileId id::LogId);

/// Fixed-length bytes, in lower-case hexadecimal.
impl<const N: usize> Text for [u8; N] {
    fn put_text(&self, out: &mut String) {
        put_hex(self, out);
    }

    fn from_text(text: &str) -> Option<Self> {
        hex::decode(text)?.try_into().ok()
    }
}

macro_rules! displayed {
    ($($kind:ty: $parse:expr;)*) => {$(
        impl Text for $kind {
            fn put_text(&self, out: &mut String) {
                use std::fmt::Write as _;
                let _ = write!(out, "{self}");
            }

            fn from_text(text: &str) -> Option<Self> {
                $parse(text)
            }
        }
    )*};
}
displayed! {
    Timestamp: Timestamp::parse;
    IpAddr: |text: &str| text.parse().ok();
}
