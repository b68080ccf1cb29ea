//! The streams of multi and multiRead: headers between records, and a last header that says so.

use std::borrow::Cow;

use super::{NewNodeRequest, PathWatch, SetData, VersionedPath};
use crate::jute::{DecodeError, Reader, Writer};
use crate::op::OpCode;

/// Stands before each record of the stream and at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MultiHeader {
    /// The type of the record that follows; -1 in front of an error and at the end.
    pub op: i32,
    /// Whether this is the end.
    pub done: bool,
    /// The error that follows, or 0; -1 at the end and in requests.
    pub err: i32,
}

impl MultiHeader {
    /// The last header of a stream.
    pub const END: Self = Self { op: -1, done: true, err: -1 };

    /// Takes the header that `reader` is at.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { op: reader.i32()?, done: reader.bool()?, err: reader.i32()? })
    }

    /// Appends the header.
    pub fn write(self, writer: &mut Writer<'_>) {
        writer.i32(self.op);
        writer.bool(self.done);
        writer.i32(self.err);
    }

    /// Appends the header of a good result of type `op`.
    pub fn write_result(op: OpCode, writer: &mut Writer<'_>) {
        Self { op: op.to_wire(), done: false, err: 0 }.write(writer);
    }

    /// Appends the result of an operation that failed, or that fell with another one.
    pub fn write_error(err: i32, writer: &mut Writer<'_>) {
        Self { op: OpCode::Error.to_wire(), done: false, err }.write(writer);
        writer.i32(err);
    }
}

/// One operation of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MultiOp<'a> {
    /// Any of the four kinds of creation.
    Create(OpCode, NewNodeRequest<'a>),
    /// Delete.
    Delete(VersionedPath<'a>),
    /// Set data.
    SetData(SetData<'a>),
    /// Compare the version.
    Check(VersionedPath<'a>),
    /// Read the data; only in multiRead.
    GetData(Cow<'a, str>),
    /// Read the names of the children; only in multiRead.
    GetChildren(Cow<'a, str>),
}

impl<'a> MultiOp<'a> {
    /// Takes the record of type `op`.
    pub fn read(op: i32, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let unknown = DecodeError::BadValue { what: "type in a multi", value: i64::from(op) };
        let op = OpCode::from_wire(op).ok_or(unknown)?;
        Ok(match op {
            OpCode::Create | OpCode::Create2 | OpCode::CreateContainer => {
                Self::Create(op, NewNodeRequest::read(reader, false)?)
            }
            OpCode::CreateTtl => Self::Create(op, NewNodeRequest::read(reader, true)?),
            OpCode::Delete => Self::Delete(VersionedPath::read(reader)?),
            OpCode::SetData => Self::SetData(SetData::read(reader)?),
            OpCode::Check => Self::Check(VersionedPath::read(reader)?),
            OpCode::GetData => Self::GetData(PathWatch::read(reader)?.path),
            OpCode::GetChildren => Self::GetChildren(PathWatch::read(reader)?.path),
            _ => return Err(unknown),
        })
    }

    /// Whether it changes nothing.
    pub fn is_read(&self) -> bool {
        matches!(self, Self::GetData(_) | Self::GetChildren(_))
    }

    /// Appends header and record.
    pub fn write(&self, writer: &mut Writer<'_>) {
        let mut header =
            |op: OpCode| MultiHeader { op: op.to_wire(), done: false, err: -1 }.write(writer);
        match self {
            Self::Create(op, request) => {
                header(*op);
                request.write(writer);
            }
            Self::Delete(request) => {
                header(OpCode::Delete);
                request.write(writer);
            }
            Self::SetData(request) => {
                header(OpCode::SetData);
                request.write(writer);
            }
            Self::Check(request) => {
                header(OpCode::Check);
                request.write(writer);
            }
            Self::GetData(path) => {
                header(OpCode::GetData);
                PathWatch { path: Cow::Borrowed(path), watch: false }.write(writer);
            }
            Self::GetChildren(path) => {
                header(OpCode::GetChildren);
                PathWatch { path: Cow::Borrowed(path), watch: false }.write(writer);
            }
        }
    }
}

/// The operations of one packet, its form checked.
#[derive(Clone, Debug)]
pub struct MultiOps<'a> {
    bytes: &'a [u8],
    count: usize,
    kind: Kind,
}

/// What a packet holds; the two don't mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Empty,
    /// Operations that change something, and checks.
    Writes,
    /// Reads.
    Reads,
}

impl<'a> MultiOps<'a> {
    /// Checks every record of the packet `body`.
    ///
    // Compat: MultiOperationRecord.deserialize - one bad record spoils the packet; so do a read
    // among writes, and a creation (other than by createTTL) whose flag is unknown or for TTL, or
    // whose ACL list is null. A null path is noticed when all has been decoded.
    pub fn read(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut ops = Self { bytes: body, count: 0, kind: Kind::Empty };
        let mut null_path = None;
        let mut reader = Reader::new(body);
        loop {
            let header = MultiHeader::read(&mut reader)?;
            if header.done {
                break;
            }
            let op = match MultiOp::read(header.op, &mut reader) {
                Err(null @ DecodeError::Null(_)) => {
                    skip_behind_path(header.op, &mut reader)?;
                    null_path = Some(null);
                    continue;
                }
                op => op?,
            };
            if let MultiOp::Create(op, request) = &op {
                check_creation(*op, request)?;
                if request.path.is_none() {
                    null_path = Some(DecodeError::Null("path"));
                }
            }
            let kind = if op.is_read() { Kind::Reads } else { Kind::Writes };
            if ops.kind != Kind::Empty && ops.kind != kind {
                let value = ops.count as i64;
                return Err(DecodeError::BadValue { what: "reads and writes mix at", value });
            }
            ops.kind = kind;
            ops.count += 1;
        }
        null_path.map_or(Ok(ops), Err)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// What they are.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The operations, in order.
    pub fn iter(&self) -> impl Iterator<Item = MultiOp<'a>> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        (0..self.count).map(move |_| {
            let op = next_op(&mut reader).expect("checked when it was read");
            op.expect("counted when it was read")
        })
    }
}

/// What [`DecodeError::Null`] says of a creation without an ACL list.
pub const NULL_ACL: &str = "ACL list in a multi";

// Compat: CreateOptions
fn check_creation(op: OpCode, request: &NewNodeRequest<'_>) -> Result<(), DecodeError> {
    if op == OpCode::CreateTtl {
        return Ok(());
    }
    // A null list is noticed before a mode that asks for a TTL, and costs no zxid.
    let value = i64::from(request.flags);
    let bad_flag = DecodeError::BadValue { what: "flag in a multi", value };
    match request.flags {
        0..=6 if request.acl.is_null() => Err(DecodeError::Null(NULL_ACL)),
        0..=4 => Ok(()),
        _ => Err(bad_flag),
    }
}

/// Takes what follows a null path in the record of type `op`.
fn skip_behind_path(op: i32, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    match OpCode::from_wire(op) {
        Some(OpCode::GetData | OpCode::GetChildren) => reader.bool().map(|_| ()),
        Some(OpCode::SetData) => reader.buf().and_then(|_| reader.i32()).map(|_| ()),
        _ => reader.i32().map(|_| ()),
    }
}

fn next_op<'a>(reader: &mut Reader<'a>) -> Result<Option<MultiOp<'a>>, DecodeError> {
    let header = MultiHeader::read(reader)?;
    if header.done {
        return Ok(None);
    }
    MultiOp::read(header.op, reader).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::AclBytes;

    fn encode(ops: &[MultiOp<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        for op in ops {
            op.write(&mut writer);
        }
        MultiHeader::END.write(&mut writer);
        out
    }

    fn create(op: OpCode, flags: i32) -> MultiOp<'static> {
        let ttl_ms = (op == OpCode::CreateTtl).then_some(5);
        let acl = AclBytes::encode(&[]);
        MultiOp::Create(
            op,
            NewNodeRequest { path: Some("/a".into()), data: None, acl, flags, ttl_ms },
        )
    }

    fn delete() -> MultiOp<'static> {
        MultiOp::Delete(VersionedPath { path: "/a".into(), version: 1 })
    }

    #[test]
    fn operations_survive_their_encoding() {
        let check = MultiOp::Check(VersionedPath { path: "/a".into(), version: 1 });
        let set = MultiOp::SetData(SetData { path: "/a".into(), data: Some(b"x"), version: -1 });
        let ops = [create(OpCode::CreateTtl, 99), create(OpCode::Create, 4), delete(), check, set];
        let bytes = encode(&ops);
        let read = MultiOps::read(&bytes).unwrap();
        assert_eq!((read.kind(), read.count()), (Kind::Writes, ops.len()));
        assert_eq!(read.iter().collect::<Vec<_>>(), ops);
        let reads = [MultiOp::GetData("/a".into()), MultiOp::GetChildren("/b".into())];
        let bytes = encode(&reads);
        let read = MultiOps::read(&bytes).unwrap();
        assert_eq!((read.kind(), read.iter().collect::<Vec<_>>()), (Kind::Reads, reads.to_vec()));
    }

    #[test]
    fn the_end_is_as_on_a_real_wire() {
        let bytes = encode(&[]);
        assert_eq!(bytes, [0xff, 0xff, 0xff, 0xff, 1, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(MultiOps::read(&bytes).unwrap().kind(), Kind::Empty);
    }

    #[test]
    fn one_bad_record_spoils_the_packet() {
        let refused = |ops: &[MultiOp<'_>]| MultiOps::read(&encode(ops)).is_err();
        assert!(refused(&[delete(), MultiOp::GetData("/a".into())]));
        assert!(refused(&[MultiOp::GetData("/a".into()), delete()]));
        assert!(refused(&[create(OpCode::Create2, 5)]));
        assert!(refused(&[create(OpCode::Create, 7)]));
        let mut null_acl = encode(&[create(OpCode::Create, 0)]);
        // Behind the header, the path and the null data.
        null_acl[19..23].fill(0xff);
        assert_eq!(MultiOps::read(&null_acl).unwrap_err(), DecodeError::Null(NULL_ACL));
        null_acl[26] = 5;
        assert_eq!(MultiOps::read(&null_acl).unwrap_err(), DecodeError::Null(NULL_ACL));
        null_acl[26] = 7;
        assert_ne!(MultiOps::read(&null_acl).unwrap_err(), DecodeError::Null(NULL_ACL));
        null_acl[26] = 0;
        null_acl[3] = 21;
        let ttl = [&null_acl[..27], &[0; 8], &null_acl[27..]].concat();
        assert!(MultiOps::read(&ttl).is_ok());
        // A null path, in whatever record, is noticed after a null list further on.
        let null_path = |op: u8, rest: &[u8]| [&[0, 0, 0, op, 0][..], &[0xff; 8], rest].concat();
        null_acl[3] = 1;
        for (op, rest) in [(2, &[0; 4][..]), (5, &[0; 8]), (13, &[0; 4]), (4, &[1]), (8, &[1])] {
            let alone = [null_path(op, rest), encode(&[])].concat();
            let null = MultiOps::read(&alone).unwrap_err();
            assert!(matches!(null, DecodeError::Null(what) if what != NULL_ACL));
            let both = [null_path(op, rest), null_acl.clone()].concat();
            assert_eq!(MultiOps::read(&both).unwrap_err(), DecodeError::Null(NULL_ACL));
        }
        let mut unknown = encode(&[delete()]);
        unknown[3] = 99;
        assert!(MultiOps::read(&unknown).is_err());
        assert!(MultiOps::read(&encode(&[delete()])[..20]).is_err());
        assert!(MultiOps::read(&[]).is_err());
    }
}
