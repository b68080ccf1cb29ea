//! Reading the log's files for learners: all at once, delivered as it is asked for, or not.

use engine::txnlog::history::Place;
use engine::zab::log_reading::{LogDone, LogOp, Stretch, feed, locate};

use super::Event;
use crate::sim::ensemble::{self, World};

impl World {
    /// Does what a leader wants of its log's files.
    pub(super) fn read_log(&mut self, index: usize, op: LogOp) {
        let breaks = self.faulty && self.random.percent(3);
        let done = match op {
            LogOp::Open(stretch) if !breaks => self.open_log(index, &stretch),
            LogOp::Open(Stretch { link, .. }) => LogDone::Failed(link),
            LogOp::Next(link) => {
                let process = self.hosts[index].process.as_mut().expect("it runs");
                let runs = process.readings.get_mut(&link).filter(|_| !breaks);
                let run = runs.and_then(std::collections::VecDeque::pop_front);
                run.map_or(LogDone::Failed(link), |run| LogDone::Piece(link, run))
            }
            LogOp::Close(link) => {
                self.hosts[index].process.as_mut().expect("it runs").readings.remove(&link);
                return;
            }
        };
        let (delay, life) = (self.disk_delay(index), self.hosts[index].life);
        self.at(delay, ensemble::Event::Host(index, life, Event::Read(done)));
    }

    fn open_log(&mut self, index: usize, stretch: &Stretch) -> LogDone {
        let host = &mut self.hosts[index];
        let log = &host.store.generation().log;
        let place = locate(log, stretch, || true).unwrap_or(Place::Unknown);
        let mut runs = std::collections::VecDeque::new();
        if let Place::Behind(from) | Place::Cut(from) = place {
            let fed = feed(log, from, stretch.until, |run| {
                runs.push_back(run);
                true
            });
            match fed {
                // The learner gets what is in front of the damage.
                Err(error) if host.medium.explains(&error) => {}
                fed => fed.expect("what was found to be there can be read"),
            }
            self.stats.readings += 1;
        }
        host.process.as_mut().expect("it runs").readings.insert(stretch.link, runs);
        LogDone::Opened(stretch.link, place)
    }
}
