//! The first request of a connection and its answer.

use crate::ids::SessionId;
use crate::jute::{DecodeError, Reader, Writer};

/// Opens a session, or attaches the connection to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectRequest<'a> {
    /// Always 0 so far.
    pub protocol_version: i32,
    /// The last zxid that the client has seen; a server that is behind it refuses. In the wire's
    /// form, because foreign bytes can be negative.
    pub last_zxid_seen: i64,
    /// The session timeout that the client would like.
    pub timeout_ms: i32,
    /// The session to attach to, or none to open one.
    pub session: SessionId,
    /// The session's password; empty where null came.
    pub password: &'a [u8],
    /// Whether a read-only server will do. None if the byte is not there: clients before 3.4.
    pub read_only: Option<bool>,
}

impl ConnectRequest<'static> {
    /// What a client of today that knows nothing yet opens a session with.
    #[must_use]
    pub const fn new_session(timeout_ms: i32) -> Self {
        Self {
            protocol_version: 0,
            last_zxid_seen: 0,
            timeout_ms,
            session: SessionId::NONE,
            password: &[0; 16],
            read_only: Some(false),
        }
    }
}

impl<'a> ConnectRequest<'a> {
    /// Decodes the body of a connection's first frame.
    ///
    // Compat: ConnectRequest.deserialize - the last byte is optional, and asks for one in the
    // response if it is there.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        Ok(Self {
            protocol_version: reader.i32()?,
            last_zxid_seen: reader.i64()?,
            timeout_ms: reader.i32()?,
            session: SessionId(reader.i64()?),
            password: reader.buf()?.unwrap_or_default(),
            read_only: if reader.is_empty() { None } else { Some(reader.bool()?) },
        })
    }

    /// Appends the whole frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        let frame = writer.begin_part();
        writer.i32(self.protocol_version);
        writer.i64(self.last_zxid_seen);
        writer.i32(self.timeout_ms);
        writer.i64(self.session.0);
        writer.buf(self.password);
        if let Some(read_only) = self.read_only {
            writer.bool(read_only);
        }
        writer.end_part(frame);
    }
}

/// Answers a [`ConnectRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectResponse<'a> {
    /// Always 0 so far.
    pub protocol_version: i32,
    /// The negotiated timeout; 0 if the session is not there or the password is wrong.
    pub timeout_ms: i32,
    /// The session, or none.
    pub session: SessionId,
    /// Its password, 16 bytes.
    pub password: &'a [u8],
    /// Whether the server is read-only; only for a client that sent this byte too.
    pub read_only: Option<bool>,
}

impl<'a> ConnectResponse<'a> {
    /// What a client gets whose session is over, or who has a wrong password.
    pub fn refusal(read_only: Option<bool>) -> ConnectResponse<'static> {
        ConnectResponse {
            protocol_version: 0,
            timeout_ms: 0,
            session: SessionId::NONE,
            password: &[0; 16],
            read_only,
        }
    }

    /// Decodes the body of the first frame that a server sends.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        Ok(Self {
            protocol_version: reader.i32()?,
            timeout_ms: reader.i32()?,
            session: SessionId(reader.i64()?),
            password: reader.buf()?.unwrap_or_default(),
            read_only: if reader.is_empty() { None } else { Some(reader.bool()?) },
        })
    }

    /// Appends the whole frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        let frame = writer.begin_part();
        writer.i32(self.protocol_version);
        writer.i32(self.timeout_ms);
        writer.i64(self.session.0);
        writer.buf(self.password);
        if let Some(read_only) = self.read_only {
            writer.bool(read_only);
        }
        writer.end_part(frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW_SESSION: ConnectRequest<'_> = ConnectRequest::new_session(10_000);

    #[test]
    fn a_request_is_as_on_a_real_wire() {
        let mut out = Vec::new();
        NEW_SESSION.write(&mut out);
        let mut wire = vec![0, 0, 0, 0x2d];
        wire.extend([0; 12]);
        wire.extend([0, 0, 0x27, 0x10]);
        wire.extend([0; 8]);
        wire.extend([0, 0, 0, 16]);
        wire.extend([0; 17]);
        assert_eq!(out, wire);
        assert_eq!(ConnectRequest::decode(&wire[4..]), Ok(NEW_SESSION));
    }

    #[test]
    fn the_last_byte_is_optional() {
        let old = ConnectRequest { read_only: None, password: &[], ..NEW_SESSION };
        let mut out = Vec::new();
        old.write(&mut out);
        assert_eq!(ConnectRequest::decode(&out[4..]), Ok(old));
        let null_password = [&out[4..28], &[0xff; 4]].concat();
        assert_eq!(ConnectRequest::decode(&null_password), Ok(old));
        assert!(ConnectRequest::decode(&out[4..out.len() - 1]).is_err());
    }

    #[test]
    fn a_refusal_is_as_on_a_real_wire() {
        let mut out = Vec::new();
        ConnectResponse::refusal(Some(false)).write(&mut out);
        let mut wire = vec![0, 0, 0, 37];
        wire.extend([0; 16]);
        wire.extend([0, 0, 0, 16]);
        wire.extend([0; 17]);
        assert_eq!(out, wire);
        let refusal = ConnectResponse::refusal(Some(false));
        assert_eq!(ConnectResponse::decode(&wire[4..]), Ok(refusal));
        out.clear();
        ConnectResponse::refusal(None).write(&mut out);
        assert_eq!(out.len(), 4 + 36);
    }
}
