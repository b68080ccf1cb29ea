//! Which cores get a batch, and in which order that is decided and a version is published.
//!
//! ```text
//!   publisher                                   core
//!   for each core: addressed or interested?     raise interest
//!     then append                               -- fence --
//!   store `published`                           load `published`, adopt it
//!   -- fence --                                 read, register watches
//!   for each core passed over: interested       ...
//!     after all? then append                    lower interest when nothing needs batches
//!   wake those that were appended to            park
//! ```
//!
//! Of the two fences one comes first. If it is the core's, the publisher's second look sees the
//! interest, and the batch comes, though late. If it is the publisher's, the core's load sees the
//! new version: its reads see what the batch would have told. A batch that comes late so is older
//! than what the core has adopted, or just that; the core drops it.

#[cfg(feature = "loom")]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(feature = "loom"))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam_utils::CachePadded;

/// Whether a core wants batches without replies for it.
#[derive(Debug)]
pub(super) struct Interest(CachePadded<AtomicBool>);

/// One core, as whoever publishes sees it.
pub(super) trait Inbox {
    /// What is published.
    type Batch;

    fn interest(&self) -> &Interest;

    /// Appends to what the core takes in order.
    fn append(&self, batch: &Self::Batch);

    /// Has the core look at what was appended.
    fn wake(&self);
}

impl Interest {
    /// None.
    pub(super) fn new() -> Self {
        Self(CachePadded::new(AtomicBool::new(false)))
    }

    /// The core is about to look at what is published: from here on it gets every batch.
    pub(super) fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The core is about to park, and needs no batch.
    pub(super) fn lower(&self) {
        self.0.store(false, Ordering::Release);
    }

    fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Publishes a batch to all cores but `own`; `store` makes its version the published one.
pub(super) fn publish<I: Inbox>(
    inboxes: &[I],
    own: usize,
    batch: &I::Batch,
    is_addressed: impl Fn(usize) -> bool,
    store: impl FnOnce(),
) {
    let others = || inboxes.iter().enumerate().filter(|(core, _)| *core != own);
    let mut sent = CoreSet::default();
    for (core, inbox) in others() {
        if is_addressed(core) || inbox.interest().is_raised() {
            inbox.append(batch);
            sent.insert(core);
        }
    }
    store();
    fence(Ordering::SeqCst);
    for (core, inbox) in others() {
        if !sent.contains(core) && inbox.interest().is_raised() {
            inbox.append(batch);
            sent.insert(core);
        }
        if sent.contains(core) {
            inbox.wake();
        }
    }
}

/// A small set of cores.
#[derive(Clone, Copy, Debug, Default)]
struct CoreSet([u64; 4]);

/// The most cores that a server can have.
pub const CORES_MAX: u16 = 256;

impl CoreSet {
    fn insert(&mut self, core: usize) {
        self.0[core / 64] |= 1 << (core % 64);
    }

    fn contains(self, core: usize) -> bool {
        self.0[core / 64] & (1 << (core % 64)) != 0
    }
}

/// All interleavings of a publisher and a core, tried by
/// `cargo test -p ringkeeper --lib --features loom loom_tests`.
#[cfg(all(test, feature = "loom"))]
mod loom_tests {
    use std::collections::VecDeque;

    use loom::sync::atomic::AtomicU64;
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    use super::{Inbox, Interest, Ordering, publish};
    use crate::ring::Park;

    /// A core's side of what is shared, and what its ring would wait on.
    struct Place {
        interest: Interest,
        queue: Mutex<VecDeque<u64>>,
        park: Park,
        is_signalled: Mutex<bool>,
        signalled: Condvar,
    }

    struct Server {
        /// The publisher's own place, which nothing is sent to, and the core's.
        places: [Place; 2],
        published: AtomicU64,
        /// The last write that a client was told of.
        told: AtomicU64,
    }

    impl Place {
        fn new() -> Self {
            Self {
                interest: Interest::new(),
                queue: Mutex::new(VecDeque::new()),
                park: Park::new(),
                is_signalled: Mutex::new(false),
                signalled: Condvar::new(),
            }
        }

        fn wait(&self) {
            if self.park.park() {
                let mut is_signalled = self.is_signalled.lock().unwrap();
                while !*is_signalled {
                    is_signalled = self.signalled.wait(is_signalled).unwrap();
                }
                *is_signalled = false;
            }
            self.park.unpark();
        }
    }

    impl Inbox for Place {
        type Batch = u64;

        fn interest(&self) -> &Interest {
            &self.interest
        }

        fn append(&self, batch: &u64) {
            self.queue.lock().unwrap().push_back(*batch);
        }

        fn wake(&self) {
            if self.park.wake() {
                *self.is_signalled.lock().unwrap() = true;
                self.signalled.notify_one();
            }
        }
    }

    impl Server {
        fn start() -> Arc<Self> {
            Arc::new(Self {
                places: [Place::new(), Place::new()],
                published: AtomicU64::new(0),
                told: AtomicU64::new(0),
            })
        }

        fn publish(&self, batch: u64) {
            let store = || self.published.store(batch, Ordering::Release);
            publish(&self.places, 0, &batch, |_| false, store);
            self.told.store(batch, Ordering::Relaxed);
        }
    }

    /// The core, as `Events::catch_up` has it.
    struct Core {
        server: Arc<Server>,
        batch: u64,
        /// A batch that is not published yet.
        ahead: Option<u64>,
        delivered: Vec<u64>,
    }

    impl Core {
        fn new(server: &Arc<Server>) -> Self {
            Self { server: Arc::clone(server), batch: 0, ahead: None, delivered: Vec::new() }
        }

        fn place(&self) -> &Place {
            &self.server.places[1]
        }

        fn catch_up(&mut self) {
            let published = self.server.published.load(Ordering::Acquire);
            loop {
                let next = self.ahead.take();
                let next = next.or_else(|| self.place().queue.lock().unwrap().pop_front());
                match next {
                    None => break,
                    Some(batch) if batch > published => {
                        self.ahead = Some(batch);
                        break;
                    }
                    Some(batch) if batch <= self.batch => {}
                    Some(batch) => {
                        self.batch = batch;
                        self.delivered.push(batch);
                    }
                }
            }
            self.batch = self.batch.max(published);
        }
    }

    const BATCHES: u64 = 2;

    fn run(core: impl Fn(Core) + Sync + Send + 'static) {
        let core = std::sync::Arc::new(core);
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(4);
        model.check(move || {
            let server = Server::start();
            let of_core = Core::new(&server);
            let core = std::sync::Arc::clone(&core);
            let running = thread::spawn(move || core(of_core));
            (1..=BATCHES).for_each(|batch| server.publish(batch));
            running.join().unwrap();
        });
    }

    /// A core that was parked without interest reads and leaves a watch: it sees what clients were
    /// told of, and each later batch comes, once, in order, with a wake-up.
    #[test]
    fn a_watch_misses_nothing_that_its_read_did_not_see() {
        run(|mut core| {
            let told = core.server.told.load(Ordering::Relaxed);
            core.place().interest.raise();
            core.catch_up();
            assert!(core.batch >= told, "a read from before what was told");
            let (seen, first) = (core.batch, core.delivered.len());
            while core.batch < BATCHES {
                core.place().wait();
                core.catch_up();
            }
            let delivered = &core.delivered[first..];
            assert!(delivered.iter().copied().eq(seen + 1..=BATCHES), "{seen}: {delivered:?}");
        });
    }

    /// Interest that comes and goes: no read goes back, and what comes late is dropped.
    #[test]
    fn a_core_that_parks_in_between_never_goes_back() {
        run(|mut core| {
            for _ in 0..2 {
                let told = core.server.told.load(Ordering::Relaxed);
                let before = core.batch;
                core.place().interest.raise();
                core.catch_up();
                assert!(core.batch >= told.max(before));
                core.place().interest.lower();
            }
            assert!(core.delivered.is_sorted_by(|one, other| one < other));
        });
    }
}
