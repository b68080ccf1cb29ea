//! Agreement between servers: election, discovery, synchronization, broadcast.
//!
//! ```text
//!   links in  ──> election ──decided──> leader: discovery, synchronization, proposals, commits
//!   (bytes)          ^                  learner: follower or observer of such a leader
//!                    └───── lost ───────┘
//! ```
//!
//! The wires are ZooKeeper's own, byte for byte; see `docs/protocol.md`.

pub mod data;
pub mod election;
pub mod hello;
pub mod leader;
pub mod learner;
pub mod link;
pub mod log_reading;
pub mod members;
pub mod notification;
pub mod outbox;
pub mod packet;
pub mod vote;
