//! Hash containers with a fixed hasher, for looking up only.
//!
//! Their iteration order means nothing, so nothing may iterate them: `iter_over_hash_type` is
//! denied across the workspace. Whatever is iterated lives in a `BTreeMap` or a `Vec`.

use std::hash::{BuildHasherDefault, Hasher};

/// A hash map for looking up, never for iterating.
#[expect(clippy::disallowed_types, reason = "the alias that everyone else uses")]
pub type FastMap<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<FastHasher>>;

/// The same for keys that clients choose: no two of them can be made to fall together on purpose.
#[expect(clippy::disallowed_types, reason = "the alias that everyone else uses")]
pub type KeyedMap<K, V> = std::collections::HashMap<K, V>;

/// A hash set for looking up, never for iterating.
#[expect(clippy::disallowed_types, reason = "the alias that everyone else uses")]
pub type FastSet<K> = std::collections::HashSet<K, BuildHasherDefault<FastHasher>>;

/// Multiply-and-rotate over eight bytes at a time. It is easy to find keys that collide, so it is
/// for those that the server itself gives.
#[derive(Clone, Copy, Debug, Default)]
pub struct FastHasher {
    state: u64,
}

const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

impl FastHasher {
    fn mix(&mut self, word: u64) {
        self.state = (self.state.rotate_left(5) ^ word).wrapping_mul(MULTIPLIER);
    }
}

impl Hasher for FastHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.mix(u64::from_le_bytes(last));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }

    fn finish(&self) -> u64 {
        // The map takes its bucket from the low bits and its tag from the high ones.
        self.state ^ (self.state >> 32)
    }
}
