//! What leader and learner share: what they want done, what they can't go on without, and times.

use std::time::Duration;

use super::data::DataOp;
use super::link::LinkOp;
use super::log_reading::LogOp;
use crate::order::Service;
use crate::replica;

/// What a role wants done.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Of the links.
    pub links: Vec<LinkOp>,
    /// Of the data beside the log.
    pub data: Vec<DataOp>,
    /// Of the log's files, to be read again.
    pub logs: Vec<LogOp>,
    /// What the replica wants meanwhile.
    pub replica: Vec<replica::Output>,
    /// What clients get from here on.
    pub service: Vec<Service>,
}

/// The role is over, and why: the server looks for a leader again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Lost(pub &'static str);

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The unit.
    pub tick: Duration,
    /// Ticks until learners must be synchronized.
    pub init_limit: u32,
    /// Ticks that leader and learner may be silent.
    pub sync_limit: u32,
}

impl Timing {
    /// How long discovery and synchronization may take.
    pub fn init(self) -> Duration {
        self.tick * self.init_limit
    }

    /// How long nothing may be heard.
    pub fn sync(self) -> Duration {
        self.tick * self.sync_limit
    }
}
