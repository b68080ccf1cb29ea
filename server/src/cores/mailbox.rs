//! What passes between threads: one mailbox per core, one for the ordering core's other duties,
//! and the published version.
//!
//! The promise that this file keeps: once a client has been told of a write, no core of this
//! server answers a read from before it. A publisher appends the batch to the mailboxes, then
//! stores `published`, and only then lets replies go. A core loads `published` after it has taken
//! a read off its socket and before it answers, and takes its batches up to there.
//!
//! A batch is not appended for a core that neither waits for one of its replies nor has interest.
//! A core raises its interest before it looks at `published`, and lowers it when it parks without
//! watches and without requests in hand (a read behind a write of its own connection may leave a
//! watch). [`interest`] has the protocol.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_queue::SegQueue;
use crossbeam_utils::CachePadded;
use engine::btree::Version;
use engine::ids::{ConnectionId, CoreId};
use engine::order::{Batch, Service, Submission};
use engine::replica::SnapshotWritten;
use engine::zxid::Zxid;

use super::admission::{Admission, Limits};
use super::interest::{self, Inbox, Interest};
use super::report::{Collector, Facts};
use super::watchdog::Pulse;
use crate::ring::Waker;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// A message to a core.
#[derive(Debug)]
pub(crate) enum ToCore {
    /// A committed group.
    Batch(Arc<Batch>),
    /// A connection to serve.
    Adopt(OwnedFd, SocketAddr),
    /// What clients get from now on.
    Service(Service),
    /// Tell the ordering core what was heard of sessions.
    Collect(u64),
    /// Add this core's part to a report.
    Report(Arc<Collector>),
    /// The answer to a four-letter word.
    Answer(ConnectionId, Vec<u8>),
    /// Stop.
    Stop,
}

/// A message to the ordering core alone.
#[derive(Debug)]
pub(crate) enum ToOrdering {
    /// What a turn of a core wants ordered.
    Submission(Submission),
    /// A snapshot is on disk, or failed, after this time.
    SnapshotDone(Result<SnapshotWritten, Zxid>, Duration),
}

/// The last published group and its version.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) batch: u64,
    pub(crate) version: Version,
}

/// One core's inbox.
#[derive(Debug)]
pub(crate) struct Mailbox {
    queue: SegQueue<ToCore>,
    waker: Waker,
    interest: Interest,
    /// Connections that the core has or was sent.
    pub(crate) connections: AtomicUsize,
}

/// What all cores share.
#[derive(Debug)]
pub(crate) struct Shared {
    mailboxes: Vec<Mailbox>,
    ordering: SegQueue<ToOrdering>,
    published_batch: CachePadded<AtomicU64>,
    published: ArcSwap<Published>,
    pub(crate) admission: Admission,
    pub(crate) facts: Facts,
    pub(super) pulse: Pulse,
}

impl Mailbox {
    pub(crate) fn new(waker: Waker) -> Self {
        Self {
            queue: SegQueue::new(),
            waker,
            interest: Interest::new(),
            connections: AtomicUsize::new(0),
        }
    }
}

impl Inbox for Mailbox {
    type Batch = Arc<Batch>;

    fn interest(&self) -> &Interest {
        &self.interest
    }

    fn append(&self, batch: &Arc<Batch>) {
        self.queue.push(ToCore::Batch(Arc::clone(batch)));
    }

    fn wake(&self) {
        self.waker.wake();
    }
}

impl Shared {
    pub(crate) fn new(
        mailboxes: Vec<Mailbox>,
        published: Published,
        limits: Limits,
        facts: Facts,
    ) -> Self {
        Self {
            pulse: Pulse::new(mailboxes.len()),
            mailboxes,
            ordering: SegQueue::new(),
            published_batch: CachePadded::new(AtomicU64::new(published.batch)),
            published: ArcSwap::from_pointee(published),
            admission: Admission::new(limits),
            facts,
        }
    }

    pub(crate) fn cores_count(&self) -> usize {
        self.mailboxes.len()
    }

    pub(crate) fn mailbox(&self, core: CoreId) -> &Mailbox {
        &self.mailboxes[usize::from(core.0)]
    }

    /// Appends to a core's inbox and wakes it.
    pub(crate) fn send(&self, core: CoreId, message: ToCore) {
        let mailbox = self.mailbox(core);
        mailbox.queue.push(message);
        mailbox.waker.wake();
    }

    /// Appends the same to every core's inbox.
    pub(crate) fn send_to_all(&self, message: impl Fn() -> ToCore) {
        for core in 0..self.mailboxes.len() {
            self.send(CoreId(core as u16), message());
        }
    }

    /// Takes the next message of a core.
    pub(crate) fn receive(&self, core: CoreId) -> Option<ToCore> {
        self.mailbox(core).queue.pop()
    }

    /// Appends to the ordering core's own inbox and wakes it. Core 0 is the ordering core.
    pub(crate) fn send_to_ordering(&self, message: ToOrdering) {
        self.ordering.push(message);
        self.mailboxes[0].waker.wake();
    }

    /// Makes the ordering core look at what only it looks at.
    pub(crate) fn wake_ordering(&self) {
        self.mailboxes[0].waker.wake();
    }

    /// Makes every core take a turn.
    pub(super) fn wake_all(&self) {
        self.mailboxes.iter().for_each(|mailbox| mailbox.waker.wake());
    }

    /// Takes the next message of the ordering core.
    pub(crate) fn receive_ordering(&self) -> Option<ToOrdering> {
        self.ordering.pop()
    }

    /// The core with the fewest connections; of several the first, which is the ordering core, so
    /// that a lone client has no hop between cores.
    pub(crate) fn least_loaded(&self) -> CoreId {
        let load = |core: &usize| self.mailboxes[*core].connections.load(Ordering::Relaxed);
        let core = (0..self.mailboxes.len()).min_by_key(load).expect("there is a core");
        CoreId(core as u16)
    }

    /// Makes a committed group visible. When this returns, replies may leave.
    pub(crate) fn publish(&self, own: CoreId, batch: &Arc<Batch>) {
        let is_addressed = |core| batch.has_replies_for(CoreId(core as u16));
        interest::publish(&self.mailboxes, usize::from(own.0), batch, is_addressed, || {
            let version = batch.version().clone();
            self.published.store(Arc::new(Published { batch: batch.number, version }));
            self.published_batch.store(batch.number, Ordering::Release);
        });
    }

    /// The number of the last published group: cheap, for every read.
    pub(crate) fn published_batch(&self) -> u64 {
        self.published_batch.load(Ordering::Acquire)
    }

    /// The last published group.
    pub(crate) fn published(&self) -> Arc<Published> {
        self.published.load_full()
    }

    /// Says that `core` runs: from here on it gets every batch.
    pub(crate) fn raise_interest(&self, core: CoreId) {
        self.mailbox(core).interest.raise();
    }

    /// Says that `core` is about to park, with neither watches nor requests in hand.
    pub(crate) fn lower_interest(&self, core: CoreId) {
        self.mailbox(core).interest.lower();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use engine::tree::{OwnerMode, Tree};

    use super::*;
    use crate::four_letter::Whitelist;
    use crate::four_letter::report::{ConfigReport, EnvironmentReport};
    use crate::ring::{Backend, Config, Ring};
    use crate::storage::OpeningTimes;

    /// What cores share that have just been started with this version.
    pub(crate) fn shared(mailboxes: Vec<Mailbox>, version: Version) -> Shared {
        let facts = Facts {
            whitelist: Whitelist::default(),
            config: ConfigReport::default(),
            environment: EnvironmentReport::default(),
            opening: OpeningTimes::default(),
            trace_mask: AtomicU64::new(0),
        };
        let limits = Limits { per_address: 0, total: 0, descriptors: 10 };
        Shared::new(mailboxes, Published { batch: 0, version }, limits, facts)
    }

    #[test]
    fn the_next_connection_is_for_the_core_with_the_fewest_and_of_several_for_the_first() {
        let ring = Ring::new(Backend::Epoll, &Config::default()).unwrap();
        let mailboxes = (0..3).map(|_| Mailbox::new(ring.waker())).collect();
        let shared = shared(mailboxes, Tree::new(OwnerMode::Plain).freeze());
        for (connections, least) in [
            ([0, 0, 0], 0),
            ([1, 0, 0], 1),
            ([2, 2, 1], 2),
            ([3, 1, 1], 1),
            ([1, 9, 1], 0),
            ([4, 4, 4], 0),
        ] {
            for (mailbox, count) in shared.mailboxes.iter().zip(connections) {
                mailbox.connections.store(count, Ordering::Relaxed);
            }
            assert_eq!(shared.least_loaded(), CoreId(least), "{connections:?}");
        }
    }
}
