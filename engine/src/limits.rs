//! Limits on what comes from outside that more than one module needs, and the relations between
//! them.

/// Largest client packet by default (`jute.maxbuffer`), bytes.
pub const PACKET_BYTES_MAX_DEFAULT: usize = 0xf_ffff;

/// The most that `jute.maxbuffer` may be, bytes: all records that come of a packet can be read.
pub const PACKET_BYTES_MOST: usize = 100 << 20;

/// The longest record that is waited for where records come in pieces, bytes.
pub const RECORD_BYTES_MAX: usize = 256 << 20;

// A transaction may have twice as much as its request, and a header.
const _: () = assert!(2 * PACKET_BYTES_MOST + (1 << 20) <= RECORD_BYTES_MAX);

/// Length of a session's password, bytes.
pub const PASSWORD_BYTES: usize = 16;

/// Largest TTL of a znode with extended types, milliseconds (40 bits).
pub const TTL_MS_MAX: i64 = 0xff_ffff_ffff;
