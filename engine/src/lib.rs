//! ringkeeper's core: formats, state and protocols as machines without I/O.
//!
//! Nothing here reads a clock, starts a thread, opens a socket or draws ambient randomness. Time,
//! bytes, completions and seeds come in as arguments; effects go out as values. Layers, lowest
//! first; a module uses its own layer and those that stand before it in this list:

// Words.
pub mod collections;
pub mod error_code;
pub mod ids;
pub mod limits;
pub mod metrics;
pub mod path;
pub mod time;
pub mod zxid;

// Bytes.
pub mod jute;

// Records.
pub mod acl;
pub mod op;
pub mod records;
pub mod stat;
pub mod txn;

// The versioned map, and its files.
pub mod btree;
pub mod pages;
pub mod snapshot;

// The state.
pub mod keyspace;
pub mod tree;
pub mod zookeeper_files;

// Who may talk to us, and for how long.
pub mod auth;
pub mod session;

// Requests: who may do what, writes on the leader's head, reads on a version.
pub mod permission;
pub mod prep;
pub mod read;
pub mod rules;

// What is on disk.
pub mod disk;
pub mod epochs;
pub mod manifest;
pub mod recovery;
pub mod slots;
pub mod txnlog;

// The machines that are driven from outside, and what passes between them.
pub mod client_core;
pub mod order;
pub mod replica;
pub mod watch;
pub mod zab;

// A whole server.
pub mod quorum_peer;

#[cfg(test)]
mod format_document;
