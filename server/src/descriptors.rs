//! File descriptors: as many as the system gives, and who may have how many of them.
//!
//! Whoever connects takes one. If clients could take all of them, the server could not open the
//! next file of its log, and would end. So a part is kept for the server, a part is what other
//! members may take at its peer ports, and clients get the rest.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The server's own part: files, sockets, and those on their way out. A sixteenth of all, within
/// these bounds.
const OWN_MIN: usize = 64;
const OWN_MAX: usize = 1024;
/// Of each core beside that: its ring, and what wakes it.
const OWN_PER_CORE: usize = 4;
/// What other members may take: a quarter of all, and no more than this.
const PEERS_MAX: usize = 1024;

/// How many each may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// The limit of the process.
    pub limit: usize,
    /// Connections of clients; 0 where there is too little even for the server itself.
    pub clients: usize,
}

impl Shares {
    /// The shares of a server; others connect to it if it `is_member`. All who wait to be accepted,
    /// a `backlog`, may have one for a moment before those of them who are too many are refused.
    pub fn of(limit: usize, cores: usize, is_member: bool, backlog: usize) -> Self {
        let own = own(limit) + cores * OWN_PER_CORE + backlog;
        let peers = if is_member { peers_most(limit) } else { 0 };
        Self { limit, clients: limit.saturating_sub(own + peers) }
    }
}

fn own(limit: usize) -> usize {
    (limit / 16).clamp(OWN_MIN, OWN_MAX)
}

/// How many connections that the server is done with each core may keep open until their other
/// ends are closed: half of the server's own part on all cores together.
pub fn lingering_most(limit: usize, cores: usize) -> usize {
    (own(limit) / 2 / cores).max(1)
}

/// How many connections other members may have to this one.
pub fn peers_most(limit: usize) -> usize {
    PEERS_MAX.min(limit / 4)
}

/// How many descriptors the process may have.
pub fn limit() -> usize {
    let current = getrlimit(Resource::Nofile).current;
    current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// Raises the limit as far as the process may raise it by itself.
// Compat: the JVM does the same at its start (-XX:+MaxFDLimit).
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::debug!(?current, ?maximum, "the limit of open files is raised"),
        Err(error) => tracing::warn!("the limit of open files cannot be raised: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(limit: usize, cores: usize, is_member: bool, clients: usize) {
        assert_eq!(Shares::of(limit, cores, is_member, 50), Shares { limit, clients });
    }

    #[test]
    fn clients_get_what_the_server_and_other_members_do_not_need() {
        check(1024, 2, false, 1024 - 64 - 8 - 50);
        check(1024, 2, true, 1024 - 64 - 8 - 50 - 256);
        check(20_000, 4, true, 20_000 - 1024 - 16 - 50 - 1024);
        check(8192, 4, true, 8192 - 512 - 16 - 50 - 1024);
        check(1 << 20, 4, false, (1 << 20) - 1024 - 16 - 50);
        check(usize::MAX, 1, true, usize::MAX - 1024 - 4 - 50 - 1024);
        check(60, 1, false, 0);
    }

    #[test]
    fn connections_on_their_way_out_leave_half_of_the_servers_part() {
        let most = [(1024, 2), (20_000, 4), (1 << 20, 4), (60, 256)];
        assert_eq!(most.map(|(limit, cores)| lingering_most(limit, cores)), [16, 128, 128, 1]);
    }

    #[test]
    fn the_limit_is_raised_to_what_the_process_may_have() {
        raise_limit();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
        assert!(limit() > 0);
    }
}
