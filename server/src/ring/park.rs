//! How a thread that waits in the kernel is woken by another one, without a lost wake-up and
//! without a system call if it does not wait.
//!
//! ```text
//!            park()              wake(): must signal
//! Running ----------> Parked ----------------------> Woken
//!    ^ \___________________________________________> Woken
//!    |                wake(): nothing else to do        |
//!    \__________________________________________________/
//!                         unpark()
//! ```
//!
//! A wake-up that arrives while the thread runs makes its next `park` fail, so the thread looks at
//! its inbox again before it waits. One that arrives while it waits finds `Parked` and signals the
//! descriptor the thread waits on. What was written before `wake` is visible after the `unpark`
//! that reports it (release and acquire on the state).

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

#[cfg(feature = "loom")]
use loom::sync::atomic::{AtomicU8, Ordering};
#[cfg(not(feature = "loom"))]
use std::sync::atomic::{AtomicU8, Ordering};

const RUNNING: u8 = 0;
const PARKED: u8 = 1;
const WOKEN: u8 = 2;

/// State of one thread that parks.
#[derive(Debug)]
pub(crate) struct Park {
    state: AtomicU8,
}

impl Park {
    pub(crate) fn new() -> Self {
        Self { state: AtomicU8::new(RUNNING) }
    }

    /// Announces that the thread is about to wait; false if it must not, because it was woken.
    pub(crate) fn park(&self) -> bool {
        self.state.compare_exchange(RUNNING, PARKED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The thread runs again; true if it was woken since the last `unpark`.
    pub(crate) fn unpark(&self) -> bool {
        self.state.swap(RUNNING, Ordering::AcqRel) == WOKEN
    }

    /// Asks the thread to run; true if it waits and has to be signalled.
    pub(crate) fn wake(&self) -> bool {
        self.state.swap(WOKEN, Ordering::AcqRel) == PARKED
    }
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) park: Park,
    /// An eventfd. It is watched for edges and never read: its counter would overflow after
    /// 2^64 - 2 signals.
    pub(super) signal: OwnedFd,
}

/// Wakes one ring's `turn` from any thread.
#[derive(Clone)]
pub struct Waker {
    shared: Arc<Shared>,
}

impl Waker {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Makes the ring's `turn` return, or the next one not wait. Costs one atomic operation if the
    /// ring does not wait.
    pub fn wake(&self) {
        if self.shared.park.wake() {
            let written = rustix::io::write(&self.shared.signal, &1u64.to_le_bytes());
            // Zero bytes of eight are never written, and the counter cannot be full.
            assert_eq!(written, Ok(8), "the eventfd of a ring takes every signal");
        }
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Waker")
    }
}

/// All interleavings of wakers and the thread that parks, tried by
/// `cargo test -p ringkeeper --lib --features loom loom_tests`.
#[cfg(all(test, feature = "loom"))]
mod loom_tests {
    use loom::sync::atomic::AtomicUsize;
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    use super::{Ordering, Park};

    /// What the eventfd is to the thread: a signal is kept until a wait has seen it.
    struct Signal {
        is_raised: Mutex<bool>,
        raised: Condvar,
    }

    impl Signal {
        fn raise(&self) {
            *self.is_raised.lock().unwrap() = true;
            self.raised.notify_one();
        }

        fn wait(&self) {
            let mut is_raised = self.is_raised.lock().unwrap();
            while !*is_raised {
                is_raised = self.raised.wait(is_raised).unwrap();
            }
            *is_raised = false;
        }
    }

    struct Thread {
        park: Park,
        signal: Signal,
        messages: AtomicUsize,
    }

    /// A thread that looks at its inbox only when it is told to sees every message: if a wake-up
    /// could be lost, some interleaving would wait for ever, which loom reports.
    #[test]
    fn no_wake_up_is_lost() {
        const WAKERS: usize = 2;
        loom::model(|| {
            let signal = Signal { is_raised: Mutex::new(false), raised: Condvar::new() };
            let parked = Thread { park: Park::new(), signal, messages: AtomicUsize::new(0) };
            let parked = Arc::new(parked);
            for _ in 0..WAKERS {
                let parked = Arc::clone(&parked);
                thread::spawn(move || {
                    // Nothing but the state of `park` orders the message.
                    parked.messages.fetch_add(1, Ordering::Relaxed);
                    if parked.park.wake() {
                        parked.signal.raise();
                    }
                });
            }
            let mut seen = 0;
            while seen < WAKERS {
                if parked.park.park() {
                    parked.signal.wait();
                }
                if parked.park.unpark() {
                    seen = parked.messages.load(Ordering::Relaxed);
                }
            }
        });
    }
}
