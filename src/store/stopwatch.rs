//! How long the asking thread waited for commits, so that benches can tell work from waiting. In the product nothing is measured.

#[cfg(feature = "bench-internals")]
thread_local!(static WAITED: std::cell::Cell<std::time::Duration> = const { std::cell::Cell::new(std::time::Duration::ZERO) });

/// Waits, as part of the thread's time of waiting.
#[cfg(feature = "bench-internals")]
pub fn waiting<T>(wait: impl FnOnce() -> T) -> T {
    let since = std::time::Instant::now();
    let end = wait();
    WAITED.set(WAITED.get() + since.elapsed());
    end
}

/// Waits.
#[cfg(not(feature = "bench-internals"))]
pub fn waiting<T>(wait: impl FnOnce() -> T) -> T {
    wait()
}

/// The thread's time of waiting since this was last asked.
#[cfg(feature = "bench-internals")]
pub fn take() -> std::time::Duration {
    WAITED.take()
}
