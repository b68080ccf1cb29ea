//! The cores of a simulated server: batches to them, submissions and replies from them.

use std::sync::Arc;

use engine::client_core;
use engine::ids::CoreId;
use engine::order::Batch;
use engine::time::Instant;

use super::{Core, Event, Host, Message};
use crate::sim::ensemble::{self, MS, Planted, US, World, planted};

impl World {
    /// As the server does it: cores that wait for nothing are passed over.
    pub(super) fn publish(&mut self, index: usize, mut batch: Arc<Batch>) {
        self.tell(|| {
            let items = batch.segments.iter().flat_map(|segment| &segment.items);
            let items: Vec<_> = items.map(|item| (item.zxid, &item.reply)).collect();
            let number = batch.number;
            let zxid = batch.version().zxid();
            format!("server {}: publishes {number} to {zxid} {items:?}", index + 1)
        });
        self.checks.on_batch(index, &batch);
        planted::at_publication(self.options.planted, &mut batch, &mut self.random);
        let process = self.hosts[index].process.as_mut().expect("it runs");
        let mut concerned = Vec::new();
        for (number, core) in process.cores.iter_mut().enumerate() {
            let core_id = CoreId(number as u16);
            if batch.has_replies_for(core_id) || core.clients.needs_all_batches() {
                core.inbox.push_back(Message::Batch(Arc::clone(&batch)));
                concerned.push(number as u16);
            }
        }
        process.version = batch.version().clone();
        if self.options.planted == Some(Planted::ReplyBeforePublish) {
            process.late.push_back(batch);
            let life = self.hosts[index].life;
            self.at(3 * MS, ensemble::Event::Host(index, life, Event::Late));
        } else {
            process.published = Some(batch);
        }
        for core in concerned {
            self.wake_core(index, core);
        }
    }

    pub(super) fn send_to_cores(&mut self, index: usize, message: impl Fn() -> Message) {
        let process = self.hosts[index].process.as_mut().expect("it runs");
        for core in &mut process.cores {
            core.inbox.push_back(message());
        }
        for core in 0..self.options.cores {
            self.wake_core(index, core);
        }
    }

    fn wake_core(&mut self, index: usize, core: u16) {
        let (delay, life) = (1 + self.random.any() % (100 * US), self.hosts[index].life);
        self.at(delay, ensemble::Event::Host(index, life, Event::Core(core)));
    }

    /// A turn of a client core.
    pub(super) fn run_core(
        &mut self,
        index: usize,
        number: u16,
        act: impl FnOnce(&mut Core, Instant),
    ) {
        let host = &mut self.hosts[index];
        let now = host.time(self.now).instant;
        let process = host.process.as_mut().expect("it runs");
        let published = process.published.clone();
        let core = &mut process.cores[usize::from(number)];
        let late = self.options.planted == Some(Planted::ReplyBeforePublish);
        core.catch_up(now, published.as_ref(), late);
        act(core, now);
        if core.clients.next_timeout().is_some_and(|at| at <= now) {
            core.clients.step(now, client_core::Input::Tick, &mut core.outputs);
        }
        core.clients.finish_turn(now, &mut core.outputs);
        let outputs = std::mem::take(&mut core.outputs);
        let wake = core.clients.next_timeout().map(|at| at.as_nanos().max(now.as_nanos() + 1));
        let wake = wake.filter(|at| *at < core.wakes_at || core.wakes_at <= now.as_nanos());
        if let Some(at) = wake {
            core.wakes_at = at;
            let life = host.life;
            let event = ensemble::Event::Host(index, life, Event::Core(number));
            let delay = host.clock.delay_until(self.now, Instant::from_nanos(at));
            self.at(delay, event);
        }
        for output in outputs {
            self.execute_core(index, output);
        }
    }

    fn execute_core(&mut self, index: usize, output: client_core::Output) {
        match output {
            client_core::Output::Send(id, bytes) => {
                let bytes = planted::at_client(self.options.planted, bytes);
                self.send_to_client(index, id, Some(bytes.clone()));
                let (delay, life) = (self.hop(), self.hosts[index].life);
                self.at(delay, ensemble::Event::Host(index, life, Event::Sent(id, bytes)));
            }
            client_core::Output::Close(id) => self.send_to_client(index, id, None),
            client_core::Output::Submit(submission) => {
                let delay = 1 + self.random.any() % (100 * US);
                let delay = self.hosts[index].in_order(submission.core, self.now, delay);
                let life = self.hosts[index].life;
                let event = Event::Submission(submission);
                self.at(delay, ensemble::Event::Host(index, life, event));
            }
            client_core::Output::Pause(_) | client_core::Output::Resume(_) => {}
            client_core::Output::FourLetter(..) => unreachable!("nobody asks for one"),
        }
    }
}

impl Host {
    /// Submissions of one core do not overtake each other.
    fn in_order(&mut self, core: CoreId, now: u64, delay: u64) -> u64 {
        let process = self.process.as_mut().expect("it runs");
        let core = &mut process.cores[usize::from(core.0)];
        core.submitted_at = core.submitted_at.max(now + delay) + 1;
        core.submitted_at - now
    }
}

impl Core {
    fn catch_up(&mut self, now: Instant, published: Option<&Arc<Batch>>, late: bool) {
        let number = published.map_or(0, |batch| batch.number);
        while let Some(message) = self.inbox.pop_front() {
            let input = match message {
                Message::Batch(batch) => {
                    assert!(late || batch.number <= number, "a batch before its publication");
                    self.batch = batch.number;
                    client_core::Input::Batch(batch)
                }
                Message::Collect(round) => client_core::Input::Collected(round),
                Message::Service(service) => client_core::Input::Service(service),
            };
            self.clients.step(now, input, &mut self.outputs);
        }
        if self.batch < number {
            self.batch = number;
            let version = published.expect("there is one").version().clone();
            let input = client_core::Input::Published(version, number);
            self.clients.step(now, input, &mut self.outputs);
        }
    }
}
