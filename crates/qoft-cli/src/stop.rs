//! Signals that ask the program to stop: Ctrl-C, `SIGTERM`, `SIGHUP`.
//!
//! The program ends at once, without what it was writing, unless it is in a section that
//! [`Graceful`] marks: that sees [`requested`] and comes to an end by itself. A second signal ends
//! that, too. The exit code is 128 and the number of the signal, as shells have it. Signals that the
//! program was told to ignore stay ignored: `nohup`, and jobs in the background of scripts.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use crate::exit::end;
use crate::print::errln;

static REQUESTED: AtomicBool = AtomicBool::new(false);
static GRACEFUL: AtomicBool = AtomicBool::new(false);
static INTERRUPTIBLE: AtomicBool = AtomicBool::new(false);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// What the process exits with because of Ctrl-C.
const INTERRUPT: i32 = 130;
/// What the process exits with because of the first signal.
static CODE: AtomicI32 = AtomicI32::new(130);

/// Becomes true with the first signal.
pub fn requested() -> &'static AtomicBool {
    &REQUESTED
}

/// The work was left because of a signal, after everything was said about it.
#[derive(Debug)]
pub struct Stopped;

impl Stopped {
    /// What the process exits with.
    pub fn code() -> u8 {
        u8::try_from(CODE.load(Ordering::SeqCst)).unwrap_or(130)
    }
}

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("stopped")
    }
}

impl std::error::Error for Stopped {}

/// A section of the program that ends by itself when it is asked to.
pub struct Graceful;

impl Graceful {
    /// Begins the section, which ends when the value is dropped.
    pub fn begin() -> Self {
        GRACEFUL.store(true, Ordering::SeqCst);
        Self
    }
}

impl Drop for Graceful {
    fn drop(&mut self) {
        GRACEFUL.store(false, Ordering::SeqCst);
    }
}

/// A section of the program that Ctrl-C ends, and not the program.
pub struct Interruptible;

impl Interruptible {
    /// Begins the section, which ends when the value is dropped.
    pub fn begin() -> Self {
        INTERRUPTED.store(false, Ordering::SeqCst);
        INTERRUPTIBLE.store(true, Ordering::SeqCst);
        Self
    }

    /// Whether there was a Ctrl-C.
    pub fn was_interrupted(&self) -> bool {
        INTERRUPTED.load(Ordering::SeqCst)
    }
}

impl Drop for Interruptible {
    fn drop(&mut self) {
        INTERRUPTIBLE.store(false, Ordering::SeqCst);
    }
}

/// What a signal does.
fn stop(code: i32) {
    let spared = code == INTERRUPT && INTERRUPTIBLE.load(Ordering::SeqCst);
    if spared && !INTERRUPTED.swap(true, Ordering::SeqCst) {
        return;
    }
    if REQUESTED.load(Ordering::SeqCst) || !GRACEFUL.load(Ordering::SeqCst) {
        end(code);
    }
    CODE.store(code, Ordering::SeqCst);
    REQUESTED.store(true, Ordering::SeqCst);
    // Standard error may be a pipe that nobody reads; the next signal must not wait for it.
    std::thread::spawn(|| errln!("\nstopping; once more to stop at once"));
}

/// Has signals handled from now on. Call it before there are other threads: they inherit that these
/// signals wait for the one thread that takes them.
#[cfg(unix)]
pub fn watch() {
    use nix::sys::signal::{SigSet, Signal};
    let ignored = ignored();
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        if ignored >> (signal as u32 - 1) & 1 == 0 {
            signals.add(signal);
        }
    }
    // Without it, signals end the process as they do by default.
    if signals.thread_block().is_err() {
        return;
    }
    std::thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            stop(128 + signal as i32);
        }
    });
}

/// The signals that are ignored, as bits from the lowest one on; none where the system does not tell.
#[cfg(unix)]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// Has Ctrl-C handled from now on.
#[cfg(not(unix))]
pub fn watch() {
    // A second handler in one process is refused; the first one then keeps working.
    let _ = ctrlc::set_handler(|| stop(INTERRUPT));
}
