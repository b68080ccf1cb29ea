//! The first message of a connection at the election port: who has dialled, and where to dial back.
//!
//! ```text
//!   i64 protocol   -65536: one address; -65535: a list, joined by '|'
//!   i64 id         of the server that dialled; i64::MAX: an observer that has none
//!   i32 length     1..=2048
//!   bytes          host:port of its election port
//! ```
//!
//! The oldest form is the id alone, and not negative: that is how it is told from the others.

use crate::ids::ServerId;
use crate::jute::{DecodeError, Reader, Writer};

/// An observer that has no id of its own calls itself so.
///
// Compat: QuorumPeer.OBSERVER_ID
pub const ANONYMOUS: ServerId = ServerId(i64::MAX);

const ONE_ADDRESS: i64 = -65_536;
const MANY_ADDRESSES: i64 = -65_535;
const ADDRESSES_BYTES_MAX: usize = 2048;

/// Who has dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The id that it says it has.
    pub id: ServerId,
    /// How many bytes the message took; others may follow.
    pub bytes: usize,
}

impl Hello {
    /// Reads the message from what has come so far. [`DecodeError::UnexpectedEnd`] means that the
    /// rest has yet to come: unlike ZooKeeper's, our reader takes it in pieces.
    ///
    /// Its address is checked, but not used: members are dialled where the configuration says.
    ///
    // Compat: QuorumCnxManager.handleConnection, InitialMessage.parse
    pub fn decode(received: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(received);
        let first = reader.i64()?;
        if first >= 0 {
            return Ok(Self { id: ServerId(first), bytes: 8 });
        }
        if first != ONE_ADDRESS && first != MANY_ADDRESSES {
            return Err(DecodeError::BadValue { what: "protocol version", value: first });
        }
        let id = ServerId(reader.i64()?);
        let length = reader.i32()?;
        let bytes = usize::try_from(length).unwrap_or(0);
        if bytes == 0 || bytes > ADDRESSES_BYTES_MAX {
            return Err(DecodeError::BadValue { what: "address length", value: length.into() });
        }
        let text = crate::jute::reader::text(reader.take(bytes)?);
        if !are_addresses(&text) {
            return Err(DecodeError::BadValue { what: "address", value: id.0 });
        }
        Ok(Self { id, bytes: received.len() - reader.rest().len() })
    }

    /// The message of the server `id`, whose election port is at `addresses`: one, or several
    /// joined by `|`. It must leave in one piece: ZooKeeper reads it with a single call.
    ///
    // Compat: QuorumCnxManager.startConnection
    pub fn encode(id: ServerId, addresses: &str) -> Vec<u8> {
        assert!((1..=ADDRESSES_BYTES_MAX).contains(&addresses.len()));
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        writer.i64(if addresses.contains('|') { MANY_ADDRESSES } else { ONE_ADDRESS });
        writer.i64(id.0);
        writer.string(addresses);
        bytes
    }
}

/// Whether every part is `host:port` or `[host]:port`; empty parts at the end do not count.
fn are_addresses(text: &str) -> bool {
    let mut parts = text.trim_end_matches('|').split('|');
    parts.all(|part| {
        let (host, port) = match part.strip_prefix('[') {
            Some(rest) => rest.split_once("]:").unwrap_or_default(),
            None => part.split_once(':').unwrap_or_default(),
        };
        !host.is_empty() && port.parse::<u16>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_java_writes_it() {
        let bytes = Hello::encode(ServerId(3), "127.0.0.1:26523");
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let expect = "ffffffffffff000000000000000000030000000f3132372e302e302e313a3236353233";
        assert_eq!(hex.concat(), expect);
        assert_eq!(Hello::encode(ServerId(3), "a:1|b:2")[..8], (-65_535_i64).to_be_bytes());
    }

    #[test]
    fn it_is_read_in_pieces_and_what_follows_is_left() {
        for addresses in ["127.0.0.1:26523", "a:1|[::1]:2", "a:1||"] {
            let mut bytes = Hello::encode(ServerId(3), addresses);
            for len in 0..bytes.len() {
                let cut = Hello::decode(&bytes[..len]);
                assert!(matches!(cut, Err(DecodeError::UnexpectedEnd { .. })), "{len} bytes");
            }
            let hello = Hello { id: ServerId(3), bytes: bytes.len() };
            bytes.extend_from_slice(b"next");
            assert_eq!(Hello::decode(&bytes), Ok(hello));
        }
        let oldest = [0, 0, 0, 0, 0, 0, 0, 5, 0, 0];
        assert_eq!(Hello::decode(&oldest), Ok(Hello { id: ServerId(5), bytes: 8 }));
        assert_eq!(Hello::decode(&i64::MAX.to_be_bytes()).unwrap().id, ANONYMOUS);
    }

    #[track_caller]
    fn check_refused(protocol: i64, length: i32, text: &[u8]) {
        let mut bytes = protocol.to_be_bytes().to_vec();
        bytes.extend_from_slice(&3_i64.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(text);
        let decoded = Hello::decode(&bytes);
        assert!(matches!(decoded, Err(DecodeError::BadValue { .. })), "{decoded:?}");
    }

    #[test]
    fn strangers_are_refused() {
        for protocol in [-1, i64::MIN, -65_534, -65_537] {
            check_refused(protocol, 3, b"a:1");
        }
        for length in [0, -1, i32::MIN, 2049, i32::MAX] {
            check_refused(ONE_ADDRESS, length, b"");
        }
        for text in ["a", "a:", ":1", "a:x", "a:1|", "a:65536", "a:-1", "a:1|b", "|a:1", "[::1]1"] {
            if text != "a:1|" {
                check_refused(MANY_ADDRESSES, text.len() as i32, text.as_bytes());
            }
        }
        check_refused(ONE_ADDRESS, 2, &[0xff, 0xff]);
    }
}
