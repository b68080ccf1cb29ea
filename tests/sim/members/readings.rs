//! Reading the log's files for learners.

use std::collections::VecDeque;

use engine::disk::Volume;
use engine::txnlog::history::{Place, Run};
use engine::zab::log_reading::{LogDone, LogOp, Stretch, feed, locate};

use super::{DISK, Event, World};
use crate::sim::ensemble::store::Store;

impl World {
    /// Does what a leader wants of its log's files.
    pub(super) fn read_log(&mut self, index: usize, op: LogOp) {
        let readings = &mut self.servers[index].as_mut().unwrap().readings;
        let done = match op {
            LogOp::Open(stretch) => {
                let (place, runs) = read(&mut self.stores[index], &stretch);
                self.counts.readings += u64::from(place != Place::Unknown);
                readings.insert(stretch.link, runs);
                LogDone::Opened(stretch.link, place)
            }
            LogOp::Next(link) => {
                let run = readings.get_mut(&link).and_then(VecDeque::pop_front);
                run.map_or(LogDone::Failed(link), |run| LogDone::Piece(link, run))
            }
            LogOp::Close(link) => {
                readings.remove(&link);
                return;
            }
        };
        self.at(index, DISK, Event::Read(done));
    }

    /// Damages the files of a server's log, all that was written so far.
    pub fn damage_log(&mut self, index: usize) {
        let log = &mut self.stores[index].generation().log;
        for name in log.list().unwrap() {
            log.damage(&name, |bytes| bytes[4096..].fill(7));
        }
    }
}

fn read(store: &mut Store, stretch: &Stretch) -> (Place, VecDeque<Run>) {
    let log = &store.generation().log;
    let place = locate(log, stretch, || true).unwrap_or(Place::Unknown);
    let mut runs = VecDeque::new();
    if let Place::Behind(from) | Place::Cut(from) = place {
        let all = feed(log, from, stretch.until, |run| {
            runs.push_back(run);
            true
        });
        all.unwrap();
    }
    (place, runs)
}
