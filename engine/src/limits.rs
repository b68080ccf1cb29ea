//! Every limit that is not configurable, and the relations between them.

/// Largest client packet by default (`jute.maxbuffer`), bytes.
pub const PACKET_BYTES_MAX_DEFAULT: usize = 0xf_ffff;

/// Longest session password that a ConnectRequest may carry, bytes. Real ones have 16.
pub const PASSWORD_BYTES: usize = 16;

/// Largest TTL of a znode with extended types, milliseconds (40 bits).
pub const TTL_MS_MAX: i64 = 0xff_ffff_ffff;
