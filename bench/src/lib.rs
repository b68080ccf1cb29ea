//! ringkeeper-bench: measures any server that speaks ZooKeeper's client protocol.
//!
//! The load generator is a handful of threads, each with its own poller and its own connections;
//! requests are encoded into one buffer per connection and sent with one call per wake. What is
//! measured is judged too: order, errors, lengths and contents of the replies.

// Bytes.
pub mod client;
pub mod connection;
pub mod crowd;
pub mod poller;
pub mod wire;

// Figures.
pub mod cpu;
pub mod progress;
pub mod recorder;

// Servers.
pub mod ensemble;
pub mod plan;
pub mod ports;
pub mod relay;
pub mod server;

// Commands.
pub mod compare;
pub mod failover;
pub mod fill;
pub mod limits;
pub mod load;
pub mod recovery;
pub mod sessions;
pub mod soak;
pub mod watch;

// Outside.
pub mod cli;
pub mod output;
