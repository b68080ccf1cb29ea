//! The stages of the write path, and the line about a group that took too long on it.
//!
//! ```text
//!   opened ── queue ──> sealed ── log ──> committed ── publish ──> with the clients' cores
//! ```
//!
//! The last instant is the driver's to tell: publication is what it does about an output.

use std::time::Duration;

use super::{Config, Replica};
use crate::time::Instant;

/// When a group went through the stages of the write path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupTimes {
    /// Its first request was prepared.
    pub opened: Instant,
    /// Its frame went to the log.
    pub sealed: Instant,
    /// It was durable here and, in an ensemble, committed.
    pub committed: Instant,
}

/// How long a group spent in each stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stages {
    queue: Duration,
    log: Duration,
    publish: Duration,
}

impl GroupTimes {
    fn stages(self, published: Instant) -> Stages {
        Stages {
            queue: self.sealed.since(self.opened),
            log: self.committed.since(self.sealed),
            publish: published.since(self.committed),
        }
    }
}

impl Stages {
    fn are_slow(self, config: &Config) -> bool {
        let all = self.queue + self.log + self.publish;
        config.slow_write.is_some_and(|slow| all >= slow) || self.log >= config.slow_sync
    }
}

impl Replica {
    /// A group of [`super::Output::Publish`] is with the clients' cores: if it took too long until
    /// then, the server's log gets the time of each stage.
    pub fn on_published(&self, times: GroupTimes, published: Instant) {
        let stages = times.stages(published);
        if stages.are_slow(&self.config) {
            let Stages { queue, log, publish } = stages;
            let (queue_ms, log_ms) = (queue.as_millis(), log.as_millis());
            let publish_ms = publish.as_millis();
            tracing::warn!(queue_ms, log_ms, publish_ms, "slow writes");
        }
    }
}

#[cfg(test)]
mod tests;
