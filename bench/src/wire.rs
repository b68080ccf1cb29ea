//! The client protocol as the load generator needs it: headers and greetings as the engine's
//! records, bodies field by field, so that nothing is allocated for them.
//!
//! A request is appended to a connection's output. A reply is looked at where it was received;
//! what does not decode is an error, never a panic.

use engine::error_code::ErrorCode;
use engine::ids::{SessionId, Xid};
use engine::jute::{DecodeError, Reader, Writer};
use engine::op::OpCode;
use engine::records::{ConnectRequest, ConnectResponse, ReplyHeader, RequestHeader, write_request};
use engine::stat::WIRE_STAT_BYTES;

/// Bytes of a frame's length.
pub const LENGTH_BYTES: usize = 4;
/// The longest reply that is believed: larger lengths are a lie or another protocol.
pub const REPLY_BYTES_MAX: usize = 64 << 20;

/// Takes the header off a reply's frame (without its length); gives the body too.
pub fn split_reply(frame: &[u8]) -> Option<(ReplyHeader, &[u8])> {
    let mut reader = Reader::new(frame);
    let header = ReplyHeader::read(&mut reader).ok()?;
    Some((header, reader.rest()))
}

/// What one connection asks for at its first frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Handshake {
    /// The last zxid this client has seen.
    pub last_zxid: i64,
    /// The session timeout asked for, milliseconds.
    pub timeout_ms: i32,
    /// The session to re-attach, or 0.
    pub session: i64,
    /// Its password.
    pub password: [u8; 16],
}

impl Handshake {
    /// Appends the ConnectRequest's frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let request = ConnectRequest {
            last_zxid_seen: self.last_zxid,
            session: SessionId(self.session),
            password: &self.password,
            ..ConnectRequest::new_session(self.timeout_ms)
        };
        request.write(out);
    }
}

/// What the server answered to a [`Handshake`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The timeout that holds; 0: the session is over.
    pub timeout_ms: i32,
    /// The session.
    pub session: i64,
    /// What it takes to re-attach it.
    pub password: [u8; 16],
}

impl Welcome {
    /// Appends the ConnectResponse's frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let response = ConnectResponse {
            protocol_version: 0,
            timeout_ms: self.timeout_ms,
            session: SessionId(self.session),
            password: &self.password,
            read_only: Some(false),
        };
        response.write(out);
    }

    /// Decodes a ConnectResponse.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let ConnectResponse { timeout_ms, session, password, .. } = ConnectResponse::decode(frame)?;
        let value = password.len() as i64;
        let wrong_length = |_| DecodeError::BadValue { what: "length of passwd", value };
        let password = password.try_into().map_err(wrong_length)?;
        Ok(Self { timeout_ms, session: session.0, password })
    }
}

/// Appends one request's frame; `body` appends its record.
pub fn request(out: &mut Vec<u8>, xid: Xid, op: OpCode, body: impl FnOnce(&mut Writer<'_>)) {
    write_request(out, RequestHeader { xid, op: op.to_wire() }, body);
}

/// The ACL list that gives everything to everyone.
pub fn open_acl(writer: &mut Writer<'_>) {
    writer.count(1);
    writer.i32(31);
    writer.string("world");
    writer.string("anyone");
}

/// A CreateRequest: `flags` 0 persistent, 1 ephemeral.
pub fn create_body(writer: &mut Writer<'_>, path: &[u8], data: &[u8], flags: i32) {
    writer.buf(path);
    writer.buf(data);
    open_acl(writer);
    writer.i32(flags);
}

/// A DeleteRequest for any version.
pub fn delete_body(writer: &mut Writer<'_>, path: &[u8]) {
    writer.buf(path);
    writer.i32(-1);
}

/// A SetDataRequest for any version.
pub fn set_body(writer: &mut Writer<'_>, path: &[u8], data: &[u8]) {
    writer.buf(path);
    writer.buf(data);
    writer.i32(-1);
}

/// The body of exists, getData, getChildren and getChildren2.
pub fn read_body(writer: &mut Writer<'_>, path: &[u8], watch: bool) {
    writer.buf(path);
    writer.bool(watch);
}

/// Starts one operation of a multi.
pub fn multi_header(writer: &mut Writer<'_>, op: OpCode) {
    writer.i32(op.to_wire());
    writer.bool(false);
    writer.i32(-1);
}

/// Ends a multi.
pub fn multi_end(writer: &mut Writer<'_>) {
    writer.i32(-1);
    writer.bool(true);
    writer.i32(-1);
}

/// A reply's results in a multi: how many there are, and the first error among them.
pub fn multi_results(body: &[u8]) -> Result<(u32, i32), DecodeError> {
    let mut reader = Reader::new(body);
    let (mut count, mut first_error) = (0, 0);
    loop {
        let (op, done, err) = (reader.i32()?, reader.bool()?, reader.i32()?);
        if done {
            return Ok((count, first_error));
        }
        count += 1;
        match OpCode::from_wire(op) {
            Some(OpCode::Create) => drop(reader.buf()?),
            Some(OpCode::Create2) => {
                reader.buf()?;
                reader.take(WIRE_STAT_BYTES)?;
            }
            Some(OpCode::SetData) => drop(reader.take(WIRE_STAT_BYTES)?),
            Some(OpCode::Delete | OpCode::Check) => {}
            Some(OpCode::Error) => {
                reader.i32()?;
                if first_error == 0 {
                    first_error = err;
                }
            }
            _ => return Err(DecodeError::BadValue { what: "multi op", value: op.into() }),
        }
    }
}

/// An error code in words, for people.
pub fn error_name(code: i32) -> String {
    ErrorCode::from_wire(code).map_or_else(|| format!("error {code}"), |code| code.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_header_splits_off_its_frame() {
        let frame = [0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0x9b, 9];
        let (header, body) = split_reply(&frame).unwrap();
        assert_eq!(header, ReplyHeader { xid: Xid(7), zxid: 0x1_0000_0002, err: -101 });
        assert_eq!(body, [9]);
        assert!(split_reply(&frame[..15]).is_none());
    }

    #[test]
    fn results_of_a_multi_are_counted_and_its_error_found() {
        let mut body = Vec::new();
        let mut writer = Writer::new(&mut body);
        for (op, err) in [(OpCode::Delete, 0), (OpCode::Error, -101), (OpCode::Error, -2)] {
            writer.i32(op.to_wire());
            writer.bool(false);
            writer.i32(err);
            if op == OpCode::Error {
                writer.i32(err);
            }
        }
        multi_end(&mut writer);
        assert_eq!(multi_results(&body), Ok((3, -101)));
        assert!(multi_results(&body[..20]).is_err());
    }
}
