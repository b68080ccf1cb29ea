//! SIGTERM and SIGINT, as a call on a thread of their own. The first asks the server to stop in
//! good order; whoever sends a second one does not want to wait, and the process ends at once.

use std::ffi::c_int;
use std::fs;
use std::io;
use std::ops::ControlFlow;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use crate::threads;

/// A request to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The first signal: finish what is under way.
    Soon,
    /// Another one, this: end now.
    Now(c_int),
}

/// Ends the process at once, as the signal does where nobody handles it.
pub fn end(signal: c_int) -> ! {
    drop(low_level::emulate_default_handler(signal));
    unreachable!("signals that are watched end a process")
}

/// From now on, calls `on_stop` for each signal. It runs on an ordinary thread, so it may do
/// anything that does not take long, such as waking a core. It says whether to go on waiting for
/// signals.
pub fn watch(on_stop: impl FnMut(Stop) -> ControlFlow<()> + Send + 'static) -> io::Result<()> {
    watch_these(&[SIGTERM, SIGINT], on_stop)
}

/// The same, and SIGHUP too: for a process that has to clean up when its terminal is closed.
///
/// One that is to outlive its terminal (`nohup`) is started with SIGHUP ignored, and goes on
/// ignoring it.
pub fn watch_with_hangup(
    on_stop: impl FnMut(Stop) -> ControlFlow<()> + Send + 'static,
) -> io::Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    let all = [SIGTERM, SIGINT, SIGHUP];
    watch_these(if is_ignored(&status, SIGHUP) { &all[..2] } else { &all }, on_stop)
}

fn watch_these(
    list: &[c_int],
    mut on_stop: impl FnMut(Stop) -> ControlFlow<()> + Send + 'static,
) -> io::Result<()> {
    let mut signals = Signals::new(list)?;
    let wait = move || {
        let mut is_first = true;
        for signal in signals.forever() {
            tracing::info!(signal = low_level::signal_name(signal), "asked to stop");
            if signal == SIGHUP && !is_first {
                // A terminal that is closed may say so twice, the shell and the kernel.
                continue;
            }
            let stop = if is_first { Stop::Soon } else { Stop::Now(signal) };
            if on_stop(stop).is_break() {
                break;
            }
            is_first = false;
        }
    };
    threads::start("signals", wait)?;
    Ok(())
}

/// Whether a process with this `/proc/PID/status` ignores a signal.
fn is_ignored(status: &str, signal: c_int) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use signal_hook::consts::SIGPIPE;

    use super::*;

    #[test]
    fn the_first_signal_asks_and_the_second_insists() {
        let (sender, receiver) = mpsc::channel();
        watch(move |stop| {
            sender.send(stop).unwrap();
            if stop == Stop::Soon { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .unwrap();
        low_level::raise(SIGTERM).unwrap();
        assert_eq!(receiver.recv(), Ok(Stop::Soon));
        low_level::raise(SIGINT).unwrap();
        assert_eq!(receiver.recv(), Ok(Stop::Now(SIGINT)));
        assert!(receiver.recv().is_err(), "the thread has ended");
    }

    #[test]
    fn ignored_signals_are_bits_of_a_mask_that_begins_with_1() {
        let status = "SigBlk:\t0000000000000001\nSigIgn:\t0000000000001002\n";
        let ignored: Vec<_> = (1..=64).filter(|signal| is_ignored(status, *signal)).collect();
        assert_eq!(ignored, [SIGINT, SIGPIPE]);
        assert!(!is_ignored("", SIGHUP));
    }
}
