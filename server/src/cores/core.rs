//! The loop of one core: ring events to its clients' machine, the machine's outputs to the ring.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use engine::client_core::{ClientCore, Input, Output};
use engine::collections::FastSet;
use engine::disk::AlignedBuf;
use engine::ids::{ConnectionId, CoreId};
use engine::order::Batch;
use engine::time::{Instant, Rarely, WallTime};

use super::failure::CoreError;
use super::mailbox::{Shared, ToCore, ToOrdering};
use super::ordering::{Ordering, Written};
use super::report;
use crate::clock::Clock;
use crate::disk::FrameWrite;
use crate::ring::{Handler, ListenerId, Ring, Slot};

/// One core.
pub(super) struct Core {
    ring: Ring,
    events: Events,
    listeners: Vec<ListenerId>,
    refusals: Rarely,
}

/// The part of a core that a turn of the ring may use.
pub(super) struct Events {
    pub(super) id: CoreId,
    pub(super) clients: ClientCore,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
    pub(super) now: Instant,
    /// When the turn began.
    began: Instant,
    outputs: Vec<Output>,
    /// A batch that was taken from the mailbox and is not published yet.
    ahead: Option<Arc<Batch>>,
    /// The last batch that the clients' machine knows of.
    batch: u64,
    /// Messages that wait behind batches that are not published yet.
    messages: Vec<ToCore>,
    /// Who is on the other side, to count the connection out, and since when.
    peers: HashMap<u32, (IpAddr, WallTime)>,
    accepted: Vec<(OwnedFd, SocketAddr)>,
    /// Frames of the log that are done; on the ordering core only.
    pub(super) written: Vec<Written>,
    /// Nothing more is taken from clients: what is ordered becomes durable, then the core ends.
    stopping: bool,
    /// Whether this core gets batches without replies for it.
    interested: bool,
    collecting: Option<Collecting>,
}

/// A collection: it is answered when a turn that does not wait hears of nobody who was not heard
/// before. Sockets are served in turn, so whoever is busy keeps nobody from being heard.
#[derive(Debug)]
struct Collecting {
    round: u64,
    heard: FastSet<u32>,
    /// Whether this turn has heard of somebody else.
    goes_on: bool,
}

impl Core {
    /// `batch` is the last one that `clients` know of.
    pub(super) fn new(
        id: CoreId,
        ring: Ring,
        (clients, batch): (ClientCore, u64),
        shared: Arc<Shared>,
        clock: Clock,
    ) -> Self {
        let events = Events {
            id,
            clients,
            shared,
            clock,
            now: clock.instant(),
            began: clock.instant(),
            outputs: Vec::new(),
            ahead: None,
            batch,
            messages: Vec::new(),
            peers: HashMap::new(),
            accepted: Vec::new(),
            written: Vec::new(),
            stopping: false,
            interested: false,
            collecting: None,
        };
        Self { ring, events, listeners: Vec::new(), refusals: Rarely::default() }
    }

    pub(super) fn listen(&mut self, listener: TcpListener) -> io::Result<()> {
        self.listeners.push(self.ring.listen(listener)?);
        Ok(())
    }

    /// Runs whenever there is something to read from `descriptor`.
    pub(super) fn watch(&mut self, descriptor: OwnedFd) {
        self.ring.watch(descriptor);
    }

    /// Serves until told to stop, and, on the ordering core, until what was ordered is durable, and
    /// committed where that can be.
    pub(super) fn run(&mut self, mut ordering: Option<&mut Ordering>) -> Result<(), CoreError> {
        loop {
            self.events.shared.pulse.answer(self.events.id);
            let timeout = match &mut self.events.collecting {
                Some(collecting) => {
                    collecting.goes_on = false;
                    Some(Duration::ZERO)
                }
                None => self.timeout(ordering.as_deref()),
            };
            if self.events.interested && !self.events.clients.needs_all_batches() {
                self.events.interested = false;
                self.events.shared.lower_interest(self.events.id);
            }
            self.ring.turn(timeout, &mut self.events)?;
            self.events.now = self.events.clock.instant();
            self.events.catch_up();
            self.events.answer_collection();
            self.place_accepted();
            self.take_messages(ordering.as_deref_mut());
            self.events.step(Input::Tick);
            if let Some(ordering) = &mut ordering {
                ordering.turn(&mut self.events)?;
            }
            self.finish_turn(ordering.as_deref_mut())?;
            let took = self.events.clock.instant().since(self.events.began);
            self.events.clients.note_turn(took);
            if self.events.stopping && ordering.as_deref().is_none_or(Ordering::is_at_rest) {
                return Ok(());
            }
        }
    }

    fn timeout(&self, ordering: Option<&Ordering>) -> Option<Duration> {
        let ordering = ordering.and_then(Ordering::next_timeout);
        let next = [self.events.clients.next_timeout(), ordering].into_iter().flatten().min();
        next.map(|at| at.since(self.events.clock.instant()))
    }

    /// Executes what the turn has led to. On the ordering core, submissions of its own clients may
    /// publish at once and so lead to more.
    fn finish_turn(&mut self, mut ordering: Option<&mut Ordering>) -> io::Result<()> {
        let mut replies = 0;
        loop {
            let Events { clients, outputs, now, .. } = &mut self.events;
            clients.finish_turn(*now, outputs);
            if let Some(ordering) = &mut ordering {
                let is_send = |output: &&Output| matches!(output, Output::Send(..));
                replies += outputs.iter().filter(is_send).count();
                // Other members' disks are to work while ours does. What goes to them without a
                // frame, commits for the most part, need not delay replies that are not more.
                let writes = !ordering.writes.is_empty();
                if writes || replies > ordering.unsent_links() {
                    ordering.flush_links();
                }
                for FrameWrite { file, offset, buffer, token } in ordering.writes.drain(..) {
                    self.ring.submit_write(file, offset, buffer, token);
                }
                // Submitted with sends that follow, which take their time, a frame would get to the
                // disk behind the last of them. Without any, the next turn submits it at once.
                if writes && !self.events.outputs.is_empty() {
                    self.ring.submit()?;
                }
            }
            if self.events.outputs.is_empty() {
                break;
            }
            let mut outputs = std::mem::take(&mut self.events.outputs);
            for output in outputs.drain(..) {
                self.execute(output, &mut ordering);
            }
            self.events.outputs = outputs;
            if let Some(ordering) = &mut ordering {
                ordering.finish_turn(&mut self.events);
            }
        }
        if let Some(ordering) = ordering
            && ordering.unsent_links() > 0
        {
            if replies > 0 {
                self.ring.submit()?;
            }
            ordering.flush_links();
        }
        Ok(())
    }

    fn execute(&mut self, output: Output, ordering: &mut Option<&mut Ordering>) {
        match output {
            Output::Send(id, bytes) => {
                if let Err(buffer) = self.ring.send(slot_of(id), bytes) {
                    self.events.step(Input::Sent(id, buffer));
                }
            }
            Output::Close(id) => {
                self.ring.close_after_send(slot_of(id));
                self.events.count_out(id.slot);
            }
            Output::Pause(id) => self.ring.pause_reading(slot_of(id)),
            Output::Resume(id) => self.ring.resume_reading(slot_of(id)),
            Output::Submit(submission) => match ordering {
                Some(ordering) => ordering.submit(submission),
                None => self.events.shared.send_to_ordering(ToOrdering::Submission(submission)),
            },
            Output::FourLetter(id, word, rest) => report::ask(&self.events, id, word, &rest),
        }
    }

    fn place_accepted(&mut self) {
        for (socket, peer) in std::mem::take(&mut self.events.accepted) {
            let shared = Arc::clone(&self.events.shared);
            if let Err(refusal) = shared.admission.enter(peer.ip()) {
                if let Some(unsaid) = self.refusals.say(self.events.now) {
                    tracing::warn!(client = %peer, unsaid, "connection refused: {refusal}");
                }
                continue;
            }
            let core = shared.least_loaded();
            shared.mailbox(core).connections.fetch_add(1, Relaxed);
            if core == self.events.id {
                self.adopt(socket, peer);
            } else {
                shared.send(core, ToCore::Adopt(socket, peer));
            }
        }
    }

    fn adopt(&mut self, socket: OwnedFd, peer: SocketAddr) {
        match self.ring.adopt(socket) {
            Ok(slot) => {
                let id = self.events.connection_of(slot);
                self.events.peers.insert(id.slot, (peer.ip(), self.events.clock.now().wall));
                self.events.step(Input::Accepted(id, peer));
            }
            Err(err) => {
                tracing::warn!(client = %peer, "connection dropped: {err}");
                self.events.shared.admission.leave(peer.ip());
                self.events.shared.mailbox(self.events.id).connections.fetch_sub(1, Relaxed);
            }
        }
    }

    fn take_messages(&mut self, mut ordering: Option<&mut Ordering>) {
        for message in std::mem::take(&mut self.events.messages) {
            match message {
                ToCore::Adopt(socket, peer) => self.adopt(socket, peer),
                ToCore::Batch(_) | ToCore::Service(_) => {
                    unreachable!("they are taken where order matters")
                }
                ToCore::Collect(round) => self.events.begin_collection(round),
                ToCore::Report(collector) => {
                    report::add_part(&mut self.events, ordering.as_deref_mut(), &collector);
                }
                ToCore::Answer(id, text) => self.events.step(Input::Answer(id, text)),
                ToCore::Stop => {
                    self.events.stopping = true;
                    for listener in self.listeners.drain(..) {
                        self.ring.unlisten(listener);
                    }
                }
            }
        }
    }
}

impl Events {
    /// Passes an input to the clients' machine.
    pub(super) fn step(&mut self, input: Input<'_>) {
        self.clients.step(self.now, input, &mut self.outputs);
    }

    /// Passes a batch that this thread has just published itself.
    pub(super) fn deliver(&mut self, batch: Arc<Batch>) {
        self.batch = batch.number;
        self.step(Input::Batch(batch));
    }

    /// Brings the clients' machine to what is published: see the header of [`super::mailbox`].
    pub(super) fn catch_up(&mut self) {
        let published = self.shared.published();
        while let Some(message) = self.next_message() {
            match message {
                ToCore::Batch(batch) if batch.number > published.batch => {
                    self.ahead = Some(batch);
                    break;
                }
                ToCore::Batch(batch) if batch.number <= self.batch => {}
                ToCore::Batch(batch) => self.deliver(batch),
                // Before what is published next is seen: it may be a state that clients, parked
                // meanwhile, must not be told of yet.
                ToCore::Service(service) => self.step(Input::Service(service)),
                other => self.messages.push(other),
            }
        }
        if self.batch < published.batch {
            self.batch = published.batch;
            let version = published.version.clone();
            self.step(Input::Published(version, published.batch));
        }
    }

    /// Who asks anew wants no answer to an earlier round.
    fn begin_collection(&mut self, round: u64) {
        let (heard, goes_on) = (FastSet::default(), true);
        self.collecting = Some(Collecting { round, heard, goes_on });
    }

    fn answer_collection(&mut self) {
        if let Some(collecting) = self.collecting.take_if(|collecting| !collecting.goes_on) {
            self.step(Input::Collected(collecting.round));
        }
    }

    fn next_message(&mut self) -> Option<ToCore> {
        match self.ahead.take() {
            Some(batch) => Some(ToCore::Batch(batch)),
            None => self.shared.receive(self.id),
        }
    }

    fn connection_of(&self, slot: Slot) -> ConnectionId {
        ConnectionId { core: self.id, slot: slot.index() as u32, generation: slot.generation() }
    }

    /// When a connection was accepted.
    pub(super) fn since(&self, id: ConnectionId) -> Option<WallTime> {
        self.peers.get(&id.slot).map(|(_, since)| *since)
    }

    /// A connection is gone: one less here and from its address.
    fn count_out(&mut self, slot: u32) {
        if let Some((address, _)) = self.peers.remove(&slot) {
            self.shared.admission.leave(address);
            self.shared.mailbox(self.id).connections.fetch_sub(1, Relaxed);
        }
    }
}

impl Handler for Events {
    fn on_begin(&mut self) {
        self.began = self.clock.instant();
    }

    fn on_accept(&mut self, _listener: ListenerId, socket: OwnedFd, peer: SocketAddr) {
        self.accepted.push((socket, peer));
    }

    fn on_accept_paused(&mut self, _listener: ListenerId, error: &io::Error) {
        tracing::error!("no connections for a moment: {error}; raise the limit (ulimit -n)");
    }

    fn on_received(&mut self, slot: Slot, bytes: &[u8]) {
        if self.stopping {
            return;
        }
        self.now = self.clock.instant();
        if let Some(collecting) = &mut self.collecting {
            collecting.goes_on |= collecting.heard.insert(slot.index() as u32);
        }
        if !self.interested {
            self.interested = true;
            self.shared.raise_interest(self.id);
        }
        // These bytes have come: what their sender may know of is published.
        if self.shared.published_batch() != self.batch {
            self.catch_up();
        }
        let id = self.connection_of(slot);
        self.step(Input::Received(id, bytes));
    }

    fn on_eof(&mut self, slot: Slot) {
        let id = self.connection_of(slot);
        self.step(Input::Eof(id));
    }

    fn on_sent(&mut self, slot: Slot, buffer: Vec<u8>) {
        let id = self.connection_of(slot);
        self.step(Input::Sent(id, buffer));
    }

    fn on_closed(&mut self, slot: Slot, _error: io::Error) {
        let id = self.connection_of(slot);
        self.count_out(id.slot);
        self.step(Input::Closed(id));
    }

    fn on_written(&mut self, token: u64, buffer: AlignedBuf, result: io::Result<()>) {
        self.written.push(Written { token, buffer, result });
    }

    fn on_wake(&mut self) {}
}

fn slot_of(id: ConnectionId) -> Slot {
    Slot::new(id.slot, id.generation)
}

#[cfg(test)]
mod tests;
