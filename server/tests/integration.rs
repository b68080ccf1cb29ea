//! The real binary under real clients: what a user of the server relies on, seen from outside.
//!
//! Each test starts its own server, on a free port and in a directory of its own, and talks to it
//! over sockets. Nothing sleeps: a test waits for a line of the log, for bytes, or for the end of
//! a process, with a deadline that only a defect reaches.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "test code fails and reports so")]

#[path = "integration/backup.rs"]
mod backup;
#[path = "integration/client.rs"]
mod client;
#[path = "integration/crash.rs"]
mod crash;
#[path = "integration/dev_ensemble.rs"]
mod dev_ensemble;
#[path = "integration/disk_full.rs"]
mod disk_full;
#[path = "integration/ensemble.rs"]
mod ensemble;
#[path = "integration/hostile.rs"]
mod hostile;
#[path = "integration/largest.rs"]
mod largest;
#[path = "integration/library.rs"]
mod library;
#[path = "integration/limits.rs"]
mod limits;
#[path = "integration/server.rs"]
mod server;
#[path = "integration/sessions.rs"]
mod sessions;
#[path = "integration/start.rs"]
mod start;

/// Says that a test does not look at anything, and why. With `NO_SKIPS`, that is a failure.
fn skip(reason: &str) {
    assert!(std::env::var_os("NO_SKIPS").is_none(), "it is to be looked at, but {reason}");
    eprintln!("skipped: {reason}");
}
