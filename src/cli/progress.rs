//! A line on the terminal that tells how far a long run has come. Nothing is printed where nobody looks (standard error is no terminal).

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Between two prints.
const PAUSE: Duration = Duration::from_millis(100);
/// Cells of the bar.
const CELLS: u64 = 30;

/// A progress line; gone when dropped.
pub struct Progress {
    what: &'static str,
    total: u64,
    printed: Option<Instant>,
    terminal: bool,
}

impl Progress {
    /// Of `what`, towards `total` (0 = not known).
    pub fn new(what: &'static str, total: u64) -> Self {
        Self { what, total, printed: None, terminal: std::io::stderr().is_terminal() }
    }

    /// Tells that `done` of the total is done.
    pub fn at(&mut self, done: u64) {
        if !self.terminal || self.printed.is_some_and(|at| at.elapsed() < PAUSE) {
            return;
        }
        self.printed = Some(Instant::now());
        let _ = write!(std::io::stderr().lock(), "\r\x1b[K{}", self.line(done));
    }

    fn line(&self, done: u64) -> String {
        if self.total == 0 {
            return format!("{}: {done}", self.what);
        }
        let of = |whole: u64| u64::try_from(u128::from(done.min(self.total)) * u128::from(whole) / u128::from(self.total)).unwrap_or(whole);
        let full = usize::try_from(of(CELLS)).unwrap_or(0);
        let rest = usize::try_from(CELLS).unwrap_or(0).saturating_sub(full);
        format!("{}: [{}{}] {:>3} %", self.what, "#".repeat(full), ".".repeat(rest), of(100))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.printed.is_some() {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_and_never_overflows() {
        let progress = Progress::new("x", 200);
        assert!(progress.line(0).contains("  0 %"));
        assert!(progress.line(100).contains(&format!("[{}{}]  50 %", "#".repeat(15), ".".repeat(15))));
        assert!(progress.line(u64::MAX).contains("100 %"));
        assert_eq!(Progress::new("x", 0).line(7), "x: 7");
    }
}
