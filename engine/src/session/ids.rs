//! The allocator of session ids, one per server.
//!
//! An id is the server's id in the top byte and a number below it. The number starts at the
//! milliseconds of the server's start, shifted up by 16 bits, and counts from there; so a server
//! that restarts begins above what it gave out before, as long as it opened fewer than 65,536
//! sessions per millisecond and its clock did not go back. ZooKeeper leaves it at that. Here the
//! allocator is also told which sessions are open, in the recovered state and by a leader's log,
//! and starts above the largest of its own server. If the clock went back over a restart, ids of
//! closed sessions may come again.
//!
//! Invariants:
//!
//!   * an id is given out only if the caller says that no session has it
//!   * ids of one server ascend until the number wraps at 2^56, as it does once in 34 years (40
//!     bits of milliseconds); around that moment the question to the caller protects

use crate::ids::SessionId;
use crate::tree::CONTAINER_OWNER;

/// Where the server's id stands in a session id.
const SERVER_SHIFT: u32 = 56;

/// The bits below the server's id.
const NUMBER_MASK: u64 = (1 << SERVER_SHIFT) - 1;

/// Gives out session ids for one server.
#[derive(Clone, Debug)]
pub struct SessionIds {
    server: u8,
    /// The number of the next id to try.
    next: u64,
}

impl SessionIds {
    /// An allocator for server `server`, started at `now_ms`. ZooKeeper takes milliseconds of a
    /// clock that restarts with the host; wall time does the same and keeps ids apart over
    /// reboots.
    // Compat: SessionTrackerImpl.initializeNextSessionId
    pub fn new(server: u8, now_ms: i64) -> Self {
        Self { server, next: (now_ms.cast_unsigned() << 24) >> 8 & NUMBER_MASK }
    }

    /// Takes note of an id that is in use or was: what comes next is larger, if it is one of this
    /// server's.
    pub fn observe(&mut self, session: SessionId) {
        let number = session.0.cast_unsigned() & NUMBER_MASK;
        if self.is_own(session) && number >= self.next {
            self.next = (number + 1) & NUMBER_MASK;
        }
    }

    /// Whether an id is one of this server's.
    pub fn is_own(&self, session: SessionId) -> bool {
        session.0.cast_unsigned() >> SERVER_SHIFT == u64::from(self.server)
    }

    /// The next id, which is none of those that `is_taken` knows.
    pub fn allocate(&mut self, is_taken: impl Fn(SessionId) -> bool) -> SessionId {
        loop {
            let bits = u64::from(self.server) << SERVER_SHIFT | self.next;
            let session = SessionId(bits.cast_signed());
            self.next = (self.next + 1) & NUMBER_MASK;
            // Who owned a znode with the latter would make a container of it.
            let reserved = session == SessionId::NONE || session.0 == CONTAINER_OWNER;
            if !reserved && !is_taken(session) {
                return session;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(bits: u64) -> SessionId {
        SessionId(bits.cast_signed())
    }

    #[track_caller]
    fn check(server: u8, now_ms: i64, known: &[u64], expected: &[u64]) {
        let mut ids = SessionIds::new(server, now_ms);
        for &bits in known {
            ids.observe(session(bits));
        }
        let given: Vec<_> = expected.iter().map(|_| ids.allocate(|_| false)).collect();
        let expected: Vec<_> = expected.iter().map(|&bits| session(bits)).collect();
        assert_eq!(given, expected);
    }

    #[test]
    fn the_first_id_has_the_form_of_zookeepers() {
        check(1, 0x23f_5df, &[], &[0x0100_0023_f5df_0000, 0x0100_0023_f5df_0001]);
    }

    #[test]
    fn milliseconds_beyond_40_bits_do_not_touch_the_server_id() {
        check(3, 0x1234_5678_9abc, &[], &[0x0334_5678_9abc_0000]);
        check(0xff, -1, &[], &[0xffff_ffff_ffff_0000]);
    }

    #[test]
    fn a_known_id_of_this_server_pushes_the_next_one_up() {
        check(1, 5, &[0x0100_0000_0009_0007, 0x0100_0000_0008_0000], &[0x0100_0000_0009_0008]);
    }

    #[test]
    fn a_known_id_below_the_clock_and_those_of_other_servers_change_nothing() {
        check(1, 5, &[0x0100_0000_0003_ffff, 0x0200_0000_0009_0007], &[0x0100_0000_0005_0000]);
    }

    #[test]
    fn ids_that_mean_something_else_are_never_given_out() {
        check(0, 0, &[], &[1]);
        check(0x80, 0, &[], &[0x8000_0000_0000_0001]);
    }

    #[test]
    fn the_last_number_is_followed_by_the_first_that_is_free() {
        let mut ids = SessionIds::new(2, 0);
        ids.observe(session(0x02ff_ffff_ffff_ffff));
        let taken = [0x0200_0000_0000_0000, 0x0200_0000_0000_0001].map(session);
        assert_eq!(ids.allocate(|id| taken.contains(&id)), session(0x0200_0000_0000_0002));
    }
}
