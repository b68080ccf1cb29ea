//! Thread per core: each has a ring, its clients' machine and a mailbox. One of them, the ordering
//! core, has the replica and the log too.
//!
//! ```text
//!   ordering core                                      any core
//!   -------------                                      --------
//!   replica publishes a batch:
//!     append it to mailboxes of interested cores       before a turn's reads: load `published`,
//!     store `published`                                take batches up to it, adopt its version
//!     wake the cores it was sent to                    clients: reads, replies, events
//!     only now: own clients, replies                   submissions --> ordering mailbox
//! ```
//!
//! A core without watches that waits for no reply needs no batch: it adopts the published version
//! when it next runs. `Interest` is how it says so; see [`mailbox`].

mod admission;
mod core;
mod failure;
mod interest;
mod mailbox;
mod metrics;
mod ordering;
mod report;
mod watchdog;

use std::net::TcpListener;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use engine::btree::Version;
use engine::client_core::{self, ClientCore};
use engine::disk::DiskOp;
use engine::ids::CoreId;
use engine::quorum_peer::QuorumPeer;
use engine::replica::SnapshotWritten;
use engine::zxid::Zxid;

use crate::clock::Clock;
use crate::disk::Disk;
use crate::disk::data_dir::DataDir;
use crate::door;
use crate::ensemble::Apparatus;
use crate::memory::Memory;
use crate::ring::{self, Backend, Ring, Waker};
use crate::snapshots::Snapshots;
use crate::threads;

pub use admission::Limits;
pub use failure::{CoreError, CoreFailure};
pub use interest::CORES_MAX;
pub use report::Facts;
pub use watchdog::Patience;

use self::core::Core;
use failure::{Report, Reporter};
use mailbox::{Mailbox, Published, Shared, ToCore, ToOrdering};
use ordering::Ordering;

/// What the cores are started with.
#[derive(Debug)]
pub struct Plan {
    /// How many cores there are.
    pub cores: u16,
    /// Which interface of the kernel they use.
    pub backend: Backend,
    /// Sizes of their rings.
    pub ring: ring::Config,
    /// What their clients may do.
    pub clients: client_core::Config,
    /// How many connections there may be.
    pub limits: Limits,
    /// What four-letter words tell about the server as a whole.
    pub facts: Facts,
    /// How long a core may be busy with one turn.
    pub patience: Patience,
}

/// What the ordering core does besides serving clients.
pub struct Duty {
    /// The machine of the whole server.
    pub peer: QuorumPeer,
    /// What it wanted from the disk when it was made.
    pub pending: Vec<DiskOp>,
    /// Starts what works beside the cores; it tells the completions what is finished.
    pub background: Box<dyn FnOnce(Completions) -> Result<Background, CoreError> + Send>,
    /// Where clients connect.
    pub listeners: Vec<TcpListener>,
}

/// What works beside the ordering core.
#[derive(Debug)]
pub struct Background {
    /// Executes what the log wants.
    pub disk: Disk,
    /// Writes snapshots.
    pub snapshots: Snapshots,
    /// What else lives as long as it.
    pub beside: Beside,
}

/// What lives as long as the ordering core.
#[derive(Debug)]
pub enum Beside {
    /// Memory for the tree; the data directory.
    Alone(Memory, DataDir),
    /// Links and data of a member of an ensemble.
    Member(Box<Apparatus>),
}

/// Tells the ordering core, from any thread, what is finished.
#[derive(Clone, Debug)]
pub struct Completions {
    shared: Arc<Shared>,
}

impl Completions {
    /// The disk has finished something.
    pub fn wake(&self) {
        self.shared.wake_ordering();
    }

    /// A snapshot is on disk under its final name, or failed.
    pub fn snapshot(&self, result: Result<SnapshotWritten, Zxid>, took: Duration) {
        self.shared.send_to_ordering(ToOrdering::SnapshotDone(result, took));
    }
}

/// Asks the cores to stop.
#[derive(Clone, Debug)]
pub struct Stopper {
    shared: Arc<Shared>,
}

impl Stopper {
    /// No more connections; what is ordered is made durable; then the cores end.
    pub fn stop(&self) {
        self.shared.send_to_all(|| ToCore::Stop);
    }
}

/// Tells others than cores what was published.
#[derive(Clone, Debug)]
pub struct Publications {
    shared: Arc<Shared>,
}

impl door::State for Publications {
    fn published(&self) -> Version {
        self.shared.published().version.clone()
    }
}

/// The running cores.
#[derive(Debug)]
pub struct Cores {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    reports: mpsc::Receiver<Report>,
}

impl Cores {
    /// Starts the threads; connections are accepted as soon as all cores run.
    pub fn start(plan: Plan, clock: Clock, duty: Duty) -> Result<Self, CoreFailure> {
        let clients = Arc::new(plan.clients);
        let version = duty.peer.replica().published().clone();
        let published = Published { batch: duty.peer.replica().batches(), version };
        let (wakers, rings) = mpsc::channel();
        let (reporting, reports) = mpsc::channel();
        let mut duty = Some(duty);
        let mut starts = Vec::new();
        let mut threads = Vec::new();
        for core in (0..plan.cores).map(CoreId) {
            let (start, shared) = mpsc::channel();
            starts.push(start);
            let seed = Seed {
                id: core,
                backend: plan.backend,
                ring: plan.ring.clone(),
                clients: Arc::clone(&clients),
                clock,
                wakers: wakers.clone(),
                shared,
                duty: duty.take(),
            };
            let reporter = Reporter::new(core, reporting.clone());
            let run = move || seed.grow(reporter);
            let thread = threads::start(format!("core-{}", core.0), run);
            threads.push(thread.map_err(|error| CoreFailure { core, error: error.into() })?);
        }
        drop(wakers);
        let mut rings: Vec<_> = rings.iter().collect();
        rings.sort_by_key(|(id, _)| *id);
        if rings.len() < usize::from(plan.cores) {
            drop((starts, reporting));
            return Err(failure::first(&reports));
        }
        let mailboxes = rings.into_iter().map(|(_, waker)| Mailbox::new(waker)).collect();
        let shared = Arc::new(Shared::new(mailboxes, published, plan.limits, plan.facts));
        for start in starts {
            // A core that has failed since is found by `join`.
            drop(start.send(Arc::clone(&shared)));
        }
        watchdog::start(plan.patience, clock, &shared, reporting)
            .map_err(|error| CoreFailure { core: CoreId(0), error: error.into() })?;
        Ok(Self { shared, threads, reports })
    }

    /// What stops the cores, from any thread.
    pub fn stopper(&self) -> Stopper {
        Stopper { shared: Arc::clone(&self.shared) }
    }

    /// What was published, at any time.
    pub fn publications(&self) -> Publications {
        Publications { shared: Arc::clone(&self.shared) }
    }

    /// Waits for the end of all cores, or for the first failure. Other cores go on after that,
    /// until the process ends.
    pub fn join(self) -> Result<(), CoreFailure> {
        failure::wait(&self.reports, self.threads.len())?;
        for thread in self.threads {
            thread.join().expect("it has said that it ended well");
        }
        Ok(())
    }
}

/// What a thread needs to become a core.
struct Seed {
    id: CoreId,
    backend: Backend,
    ring: ring::Config,
    clients: Arc<client_core::Config>,
    clock: Clock,
    wakers: mpsc::Sender<(CoreId, Waker)>,
    shared: mpsc::Receiver<Arc<Shared>>,
    duty: Option<Duty>,
}

impl Seed {
    /// Runs the core. Of a failure is told before what it has is given up: that may have to wait
    /// for a disk that does not answer any more.
    fn grow(self, reporter: Reporter) {
        let id = self.id;
        let mut grown = match self.prepare() {
            Ok(grown) => grown,
            Err(error) => return reporter.report(Err(error)),
        };
        let result = grown.core.run(grown.ordering.as_mut());
        let Grown { core, ordering, shared } = grown;
        if result.is_ok() {
            // The watchdog sees to it that this comes to its end.
            drop((core, ordering));
            shared.pulse.end(id);
            return reporter.report(result);
        }
        shared.pulse.end(id);
        reporter.report(result);
    }

    fn prepare(self) -> Result<Grown, CoreError> {
        let ring = Ring::new(self.backend, &self.ring)?;
        self.wakers.send((self.id, ring.waker())).map_err(|_| CoreError::Another)?;
        drop(self.wakers);
        let shared = self.shared.recv().map_err(|_| CoreError::Another)?;
        let (clients, batch) = {
            // Let go before the core runs: what is held keeps its pages, for as long as that is.
            let published = shared.published();
            let (version, batch) = (published.version.clone(), published.batch);
            (ClientCore::new(self.id, self.clients, version, batch), batch)
        };
        let completions = Completions { shared: Arc::clone(&shared) };
        let mut core = Core::new(self.id, ring, (clients, batch), Arc::clone(&shared), self.clock);
        let mut ordering = None;
        if let Some(duty) = self.duty {
            let background = (duty.background)(completions)?;
            let made = Ordering::new(duty.peer, background, duty.pending);
            if let Some(links) = made.links()? {
                core.watch(links);
            }
            ordering = Some(made);
            for listener in duty.listeners {
                core.listen(listener)?;
            }
        }
        Ok(Grown { core, ordering, shared })
    }
}

/// A core that can run.
struct Grown {
    core: Core,
    ordering: Option<Ordering>,
    shared: Arc<Shared>,
}
