//! What this server calls itself. Clients and scripts read ZooKeeper's version from the front of
//! this text to decide what they may use, so the front is the version that ringkeeper behaves as.

/// The full version, in ZooKeeper's form `VERSION-REVISION, built on DATE`.
pub const FULL: &str =
    concat!("3.9.3-ringkeeper.", env!("CARGO_PKG_VERSION"), ", built on 2026-11-23 00:00 UTC");

/// ringkeeper's own version.
pub const RINGKEEPER: &str = env!("CARGO_PKG_VERSION");
