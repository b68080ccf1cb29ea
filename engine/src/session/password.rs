//! Session passwords. ZooKeeper derives them from the session id, so they prove nothing but that
//! the client was once told the id; what counts is that any server of the ensemble derives the
//! same 16 bytes.

use std::fmt;

use crate::ids::SessionId;
use crate::limits::PASSWORD_BYTES;

/// Mixed into the seed, so that a password differs from what the bare id would give.
const SECRET: i64 = 0xB341_5C00;

/// The 16 bytes that a client shows to take its session up again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionPassword([u8; PASSWORD_BYTES]);

impl SessionPassword {
    /// What a refused client is told instead of a password.
    pub const NONE: Self = Self([0; PASSWORD_BYTES]);

    /// The password of `session`.
    // Compat: ZooKeeperServer.generatePasswd
    pub fn of(session: SessionId) -> Self {
        let mut random = JavaRandom::new(session.0 ^ SECRET);
        let mut bytes = [0; PASSWORD_BYTES];
        let (words, rest) = bytes.as_chunks_mut::<4>();
        debug_assert!(rest.is_empty());
        for word in words {
            *word = random.next_i32().to_le_bytes();
        }
        Self(bytes)
    }

    /// Whether `shown` opens `session`. Session 0 is none, so nothing opens it.
    // Compat: ZooKeeperServer.checkPasswd
    pub fn opens(session: SessionId, shown: &[u8]) -> bool {
        session != SessionId::NONE && Self::of(session).0 == shown
    }

    /// The bytes, as the wire carries them.
    pub fn as_bytes(&self) -> &[u8; PASSWORD_BYTES] {
        &self.0
    }
}

impl fmt::Debug for SessionPassword {
    /// Keeps passwords out of logs: they are no secret, but they look like one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionPassword(..)")
    }
}

/// The linear congruential generator of `java.util.Random`: 48 bits of state, of which the upper
/// 32 come out.
struct JavaRandom {
    state: u64,
}

impl JavaRandom {
    const MULTIPLIER: u64 = 0x5_DEEC_E66D;
    const INCREMENT: u64 = 0xB;
    const MASK: u64 = (1 << 48) - 1;

    fn new(seed: i64) -> Self {
        Self { state: (seed.cast_unsigned() ^ Self::MULTIPLIER) & Self::MASK }
    }

    fn next_i32(&mut self) -> i32 {
        let next = self.state.wrapping_mul(Self::MULTIPLIER).wrapping_add(Self::INCREMENT);
        self.state = next & Self::MASK;
        (self.state >> 16) as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(session: u64, password: u128) {
        let session = SessionId(session.cast_signed());
        let expected = password.to_be_bytes();
        assert_eq!(SessionPassword::of(session).as_bytes(), &expected);
        assert!(SessionPassword::opens(session, &expected));
    }

    #[test]
    fn passwords_are_those_of_java_util_random() {
        // From a JVM: new Random(id ^ 0xB3415C00L).nextBytes(new byte[16]).
        check(0x0100_0023_f5df_0001, 0xe67f_ef68_046f_a399_5ef8_e67a_2165_df43);
        check(1, 0x054c_c74a_3732_7db2_15e7_02e2_0c73_f005);
        check(u64::MAX, 0x20f6_2cb5_648d_c2d7_7147_1c8a_2486_a9ee);
    }

    #[test]
    fn the_top_16_bits_of_the_id_do_not_matter() {
        // The generator keeps 48 bits of its seed; a quirk that peers share.
        check(0xff00_0000_0000_0001, 0x054c_c74a_3732_7db2_15e7_02e2_0c73_f005);
    }

    #[test]
    fn another_length_or_another_byte_opens_nothing() {
        let session = SessionId(1);
        let mut bytes = *SessionPassword::of(session).as_bytes();
        assert!(!SessionPassword::opens(session, &[]));
        assert!(!SessionPassword::opens(session, &bytes[..15]));
        bytes[15] ^= 1;
        assert!(!SessionPassword::opens(session, &bytes));
    }

    #[test]
    fn session_zero_has_no_password() {
        let bytes = *SessionPassword::of(SessionId::NONE).as_bytes();
        assert!(!SessionPassword::opens(SessionId::NONE, &bytes));
    }
}
