//! Records of the client protocol: requests, decoded as borrows of the packet, and replies,
//! written as whole frames.
//!
//! A frame is `i32 length` and as many bytes. A request body starts with a [`RequestHeader`], a
//! reply with a reply header; a reply that carries an error ends there. Records have no length of
//! their own: bytes behind the last field are ignored, as in ZooKeeper.

pub mod connect;
pub mod multi;
pub mod request;
pub mod watch;

use crate::ids::Xid;
use crate::jute::writer::Part;
use crate::jute::{DecodeError, Reader, Writer};
use crate::op::OpCode;
use crate::zxid::Zxid;

pub use connect::{ConnectRequest, ConnectResponse};
pub use multi::{MultiHeader, MultiOps};
pub use request::{AuthPacket, NewNodeRequest, Reconfig, SetAcl, SetData, VersionedPath};
pub use watch::{Modes, PathWatch, SetWatches, WatchEvent, WatchKind};

/// Xid of a notification.
pub const NOTIFICATION_XID: Xid = Xid(-1);
/// Xid that clients give to a ping.
pub const PING_XID: Xid = Xid(-2);
/// Xid that clients give to an auth packet.
pub const AUTH_XID: Xid = Xid(-4);
/// Xid that clients give to setWatches.
pub const SET_WATCHES_XID: Xid = Xid(-8);

/// What every request but the first of a connection starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The client's number for it.
    pub xid: Xid,
    /// What it asks for; see [`op_class`].
    pub op: i32,
}

impl RequestHeader {
    /// Takes the header that `reader` is at.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { xid: Xid(reader.i32()?), op: reader.i32()? })
    }

    /// Appends the header.
    pub fn write(&self, writer: &mut Writer<'_>) {
        writer.i32(self.xid.0);
        writer.i32(self.op);
    }
}

/// What every reply but the first of a connection starts with, and every notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHeader {
    /// The request's number, or [`NOTIFICATION_XID`].
    pub xid: Xid,
    /// The write's zxid, or the last one that the server has processed; in the wire's form, for
    /// there is -1 too.
    pub zxid: i64,
    /// 0, or an [`ErrorCode`](crate::error_code::ErrorCode).
    pub err: i32,
}

/// Bytes of an encoded [`ReplyHeader`].
pub const REPLY_HEADER_BYTES: usize = 16;

impl ReplyHeader {
    /// Takes the header that `reader` is at.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { xid: Xid(reader.i32()?), zxid: reader.i64()?, err: reader.i32()? })
    }

    /// Appends the header.
    pub fn write(&self, writer: &mut Writer<'_>) {
        writer.i32(self.xid.0);
        writer.i64(self.zxid);
        writer.i32(self.err);
    }
}

/// How the server treats a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpClass {
    /// Answered by the client's core from a version.
    Read(OpCode),
    /// Ordered: goes to the ordering core. All but `sync` take a zxid.
    Write(OpCode),
    /// Concerns the connection alone and is handled as it arrives.
    Local(OpCode),
    /// Answered with Unimplemented and the zxid -1.
    Unknown,
}

/// How the server treats requests of type `op`.
///
// Compat: Request.isValid - check alone is not a request. createSession and deleteContainer are
// there, but no client sends them, and what they would do is not for clients: refused as unknown.
pub fn op_class(op: i32) -> OpClass {
    let Some(op) = OpCode::from_wire(op) else {
        return OpClass::Unknown;
    };
    match op {
        OpCode::Exists
        | OpCode::GetData
        | OpCode::GetAcl
        | OpCode::GetChildren
        | OpCode::GetChildren2
        | OpCode::Ping
        | OpCode::CheckWatches
        | OpCode::RemoveWatches
        | OpCode::MultiRead
        | OpCode::SetWatches
        | OpCode::SetWatches2
        | OpCode::GetEphemerals
        | OpCode::GetAllChildrenNumber
        | OpCode::AddWatch
        | OpCode::WhoAmI => OpClass::Read(op),
        OpCode::Create
        | OpCode::Create2
        | OpCode::CreateContainer
        | OpCode::CreateTtl
        | OpCode::Delete
        | OpCode::SetData
        | OpCode::SetAcl
        | OpCode::Multi
        | OpCode::Reconfig
        | OpCode::Sync
        | OpCode::CloseSession => OpClass::Write(op),
        OpCode::Auth | OpCode::Sasl => OpClass::Local(op),
        OpCode::Notification
        | OpCode::Check
        | OpCode::DeleteContainer
        | OpCode::CreateSession
        | OpCode::Error => OpClass::Unknown,
    }
}

/// Begins a reply frame, the header included; the body comes next, then
/// [`end_part`](Writer::end_part).
pub fn begin_reply(writer: &mut Writer<'_>, xid: Xid, zxid: i64, err: i32) -> Part {
    let frame = writer.begin_part();
    ReplyHeader { xid, zxid, err }.write(writer);
    frame
}

/// Appends a reply frame without a body: an error, or the answer of what has no result.
pub fn write_bare_reply(out: &mut Vec<u8>, xid: Xid, zxid: i64, err: i32) {
    let mut writer = Writer::new(out);
    let frame = begin_reply(&mut writer, xid, zxid, err);
    writer.end_part(frame);
}

/// Appends the frame that answers a good `sync`: the path that came with it, null too.
pub fn write_sync_reply(out: &mut Vec<u8>, xid: Xid, zxid: Zxid, path: Option<&str>) {
    let mut writer = Writer::new(out);
    let frame = begin_reply(&mut writer, xid, zxid.to_wire(), 0);
    match path {
        Some(path) => writer.echo(path),
        None => writer.buf_or_null(None),
    }
    writer.end_part(frame);
}

/// Appends the frame of a request; `body` appends its record.
pub fn write_request(out: &mut Vec<u8>, header: RequestHeader, body: impl FnOnce(&mut Writer<'_>)) {
    let mut writer = Writer::new(out);
    let frame = writer.begin_part();
    header.write(&mut writer);
    body(&mut writer);
    writer.end_part(frame);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_and_its_reply_are_as_on_a_real_wire() {
        let mut out = Vec::new();
        let ping = RequestHeader { xid: PING_XID, op: OpCode::Ping.to_wire() };
        write_request(&mut out, ping, |_| {});
        assert_eq!(out, [0, 0, 0, 8, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 11]);
        out.clear();
        write_bare_reply(&mut out, PING_XID, 7, 0);
        let body = [0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0];
        assert_eq!((out[..4].as_ref(), out[4..].as_ref()), ([0, 0, 0, 16].as_ref(), body.as_ref()));
        assert_eq!(body.len(), REPLY_HEADER_BYTES);
    }

    #[test]
    fn headers_survive_their_encoding() {
        let mut out = Vec::new();
        let request = RequestHeader { xid: Xid(5), op: 999 };
        let reply = ReplyHeader { xid: Xid(5), zxid: -1, err: -6 };
        request.write(&mut Writer::new(&mut out));
        reply.write(&mut Writer::new(&mut out));
        let mut reader = Reader::new(&out);
        assert_eq!(RequestHeader::read(&mut reader), Ok(request));
        assert_eq!(ReplyHeader::read(&mut reader), Ok(reply));
    }

    #[test]
    fn what_no_client_may_ask_is_unknown() {
        assert_eq!(op_class(4), OpClass::Read(OpCode::GetData));
        assert_eq!(op_class(14), OpClass::Write(OpCode::Multi));
        assert_eq!(op_class(100), OpClass::Local(OpCode::Auth));
        for op in [0, 10, 13, 20, 23, 500, -1, -10, i32::MIN] {
            assert_eq!(op_class(op), OpClass::Unknown, "{op}");
        }
    }
}
