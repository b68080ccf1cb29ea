//! The jute form of transactions, byte for byte ZooKeeper's: header, record, digest.

use std::borrow::Cow;

use super::{NewNode, Txn, TxnError, TxnHeader};
use crate::acl::AclBytes;
use crate::ids::{SessionId, Xid};
use crate::jute::{DecodeError, Reader, Writer};
use crate::op::OpCode;
use crate::time::WallTime;
use crate::zxid::Zxid;

/// The digest version that servers of 3.9 write and check.
pub const DIGEST_VERSION: i32 = 2;

/// Its version and the digest.
const DIGEST_BYTES: usize = 12;

/// Bytes of an encoded header, its type included.
pub const HEADER_BYTES: usize = 32;

/// A decoded transaction: header, change, and the tree's digest after it if the record has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// Who, when, which zxid.
    pub header: TxnHeader,
    /// What.
    pub txn: Txn<'a>,
    /// Version and digest of the tree after the change.
    pub digest: Option<(i32, u64)>,
}

/// Appends header, record and digest. Error transactions carry no digest.
pub fn encode(header: &TxnHeader, txn: &Txn<'_>, digest: Option<u64>, out: &mut Vec<u8>) {
    let mut writer = Writer::new(out);
    writer.i64(header.session.0);
    writer.i32(header.cxid.0);
    writer.i64(header.zxid.to_wire());
    writer.i64(header.time.0);
    writer.i32(txn.op().to_wire());
    encode_record(txn, &mut writer);
    if let Some(digest) = digest {
        encode_digest(digest, &mut writer);
    }
}

fn encode_digest(digest: u64, writer: &mut Writer<'_>) {
    writer.i32(DIGEST_VERSION);
    writer.i64(digest.cast_signed());
}

/// A part of a multi: its type, and its record as a buffer.
fn encode_part(txn: &Txn<'_>, writer: &mut Writer<'_>) {
    writer.i32(txn.op().to_wire());
    let part = writer.begin_part();
    encode_record(txn, writer);
    writer.end_part(part);
}

/// Encodes a multi part by part, while it is being prepared.
#[derive(Debug)]
#[must_use = "a multi that is not ended has no parts"]
pub struct MultiEncoder {
    count_at: usize,
    count: usize,
}

impl MultiEncoder {
    /// Appends the header.
    pub fn begin(header: &TxnHeader, out: &mut Vec<u8>) -> Self {
        encode(header, &Txn::Multi(Vec::new()), None, out);
        Self { count_at: out.len() - 4, count: 0 }
    }

    /// Appends a part.
    pub fn push(&mut self, txn: &Txn<'_>, out: &mut Vec<u8>) {
        self.count += 1;
        encode_part(txn, &mut Writer::new(out));
    }

    /// Ends the multi with the tree's digest after it.
    pub fn end(self, digest: u64, out: &mut Vec<u8>) {
        let count = i32::try_from(self.count).expect("the parts are in memory");
        out[self.count_at..self.count_at + 4].copy_from_slice(&count.to_be_bytes());
        encode_digest(digest, &mut Writer::new(out));
    }
}

/// Decodes what [`encode`] wrote, or what a server of any version since 3.4 did.
pub fn decode(bytes: &[u8]) -> Result<Decoded<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let header = decode_header(&mut reader)?;
    let kind = reader.i32()?;
    let txn = decode_record(kind, &mut reader)?;
    let digest =
        if reader.is_empty() { None } else { Some((reader.i32()?, reader.i64()?.cast_unsigned())) };
    Ok(Decoded { header, txn, digest })
}

fn decode_header(reader: &mut Reader<'_>) -> Result<TxnHeader, DecodeError> {
    let session = SessionId(reader.i64()?);
    let cxid = Xid(reader.i32()?);
    let zxid = reader.i64()?;
    let zxid = Zxid::from_wire(zxid).ok_or(DecodeError::BadValue { what: "zxid", value: zxid })?;
    Ok(TxnHeader { session, cxid, zxid, time: WallTime(reader.i64()?) })
}

/// When an encoded transaction was made.
pub fn made_at(bytes: &[u8]) -> Result<WallTime, DecodeError> {
    Ok(decode_header(&mut Reader::new(bytes))?.time)
}

fn encode_record(txn: &Txn<'_>, writer: &mut Writer<'_>) {
    match txn {
        Txn::Create { node, ephemeral, .. } => {
            encode_node(node, writer);
            writer.bool(*ephemeral);
            writer.i32(node.parent_cversion);
        }
        Txn::CreateContainer { node } => {
            encode_node(node, writer);
            writer.i32(node.parent_cversion);
        }
        Txn::CreateTtl { node, ttl_ms } => {
            encode_node(node, writer);
            writer.i32(node.parent_cversion);
            writer.i64(*ttl_ms);
        }
        Txn::Delete { path, .. } => writer.string(path),
        Txn::SetData { path, data, version, .. } => {
            writer.string(path);
            writer.buf_or_null(data.as_deref());
            writer.i32(*version);
        }
        Txn::SetAcl { path, acl, aversion } => {
            writer.string(path);
            writer.bytes(acl.as_bytes());
            writer.i32(*aversion);
        }
        Txn::Check { path, version } => {
            writer.string(path);
            writer.i32(*version);
        }
        Txn::CreateSession { timeout_ms } => writer.i32(*timeout_ms),
        Txn::CloseSession { ephemerals: None } => {}
        Txn::CloseSession { ephemerals: Some(paths) } => {
            writer.count(paths.len());
            for path in paths {
                writer.string(path);
            }
        }
        Txn::Error(TxnError(code)) => writer.i32(*code),
        Txn::Multi(txns) => {
            writer.count(txns.len());
            for txn in txns {
                encode_part(txn, writer);
            }
        }
    }
}

fn encode_node(node: &NewNode<'_>, writer: &mut Writer<'_>) {
    writer.string(&node.path);
    writer.buf_or_null(node.data.as_deref());
    writer.bytes(node.acl.as_bytes());
}

fn decode_record<'a>(kind: i32, reader: &mut Reader<'a>) -> Result<Txn<'a>, DecodeError> {
    let bad_kind = DecodeError::BadValue { what: "transaction type", value: i64::from(kind) };
    let op = OpCode::from_wire(kind).ok_or(bad_kind)?;
    Ok(match op {
        OpCode::Create | OpCode::Create2 => {
            let mut node = decode_node(reader)?;
            let ephemeral = reader.bool()?;
            // Compat: FileTxnLog reads CreateTxnV0, which ends here, where servers before 3.4
            // wrote the log.
            node.parent_cversion = if reader.is_empty() { -1 } else { reader.i32()? };
            Txn::Create { with_stat: op == OpCode::Create2, node, ephemeral }
        }
        OpCode::CreateContainer => {
            let mut node = decode_node(reader)?;
            node.parent_cversion = reader.i32()?;
            Txn::CreateContainer { node }
        }
        OpCode::CreateTtl => {
            let mut node = decode_node(reader)?;
            node.parent_cversion = reader.i32()?;
            Txn::CreateTtl { node, ttl_ms: reader.i64()? }
        }
        OpCode::Delete | OpCode::DeleteContainer => {
            Txn::Delete { path: reader.string("path")?, container: op == OpCode::DeleteContainer }
        }
        OpCode::SetData | OpCode::Reconfig => Txn::SetData {
            path: reader.string("path")?,
            data: reader.buf()?.map(Cow::Borrowed),
            version: reader.i32()?,
            reconfig: op == OpCode::Reconfig,
        },
        OpCode::SetAcl => Txn::SetAcl {
            path: reader.string("path")?,
            acl: AclBytes::read(reader)?,
            aversion: reader.i32()?,
        },
        OpCode::Check => Txn::Check { path: reader.string("path")?, version: reader.i32()? },
        OpCode::CreateSession => Txn::CreateSession { timeout_ms: reader.i32()? },
        OpCode::CloseSession => Txn::CloseSession { ephemerals: decode_ephemerals(reader)? },
        OpCode::Error => Txn::Error(TxnError(reader.i32()?)),
        OpCode::Multi => decode_multi(reader)?,
        _ => return Err(bad_kind),
    })
}

fn decode_node<'a>(reader: &mut Reader<'a>) -> Result<NewNode<'a>, DecodeError> {
    Ok(NewNode {
        path: reader.string("path")?,
        data: reader.buf()?.map(Cow::Borrowed),
        acl: AclBytes::read(reader)?,
        parent_cversion: -1,
    })
}

fn decode_ephemerals<'a>(
    reader: &mut Reader<'a>,
) -> Result<Option<Vec<Cow<'a, str>>>, DecodeError> {
    // Compat: with closeSessionTxn.enabled=false ZooKeeper writes no record, but the digest behind
    // it. A list as short as that has two empty paths, and there are none.
    let is_digest =
        |rest: &[u8]| rest.len() == DIGEST_BYTES && rest.starts_with(&DIGEST_VERSION.to_be_bytes());
    if reader.is_empty() || is_digest(reader.rest()) {
        return Ok(None);
    }
    let count = reader.count(4)?.unwrap_or(0);
    let paths = (0..count).map(|_| reader.string("path")).collect::<Result<_, _>>()?;
    Ok(Some(paths))
}

fn decode_multi<'a>(reader: &mut Reader<'a>) -> Result<Txn<'a>, DecodeError> {
    let count = reader.count(8)?.unwrap_or(0);
    let mut txns = Vec::with_capacity(count);
    for _ in 0..count {
        let kind = reader.i32()?;
        if kind == OpCode::Multi.to_wire() {
            let value = i64::from(kind);
            return Err(DecodeError::BadValue { what: "transaction type in a multi", value });
        }
        let record = reader.buf()?.ok_or(DecodeError::Null("transaction in a multi"))?;
        txns.push(decode_record(kind, &mut Reader::new(record))?);
    }
    Ok(Txn::Multi(txns))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::{ALL, Acl, Id};

    const HEADER: TxnHeader = TxnHeader {
        session: SessionId(0x0100_0000_0000_0001),
        cxid: Xid(3),
        zxid: Zxid(0x1_0000_0002),
        time: WallTime(1_700_000_000_000),
    };

    #[track_caller]
    fn check(txn: Txn<'_>, record_bytes: usize) {
        let mut bytes = Vec::new();
        encode(&HEADER, &txn, Some(7), &mut bytes);
        assert_eq!(bytes.len(), HEADER_BYTES + record_bytes + DIGEST_BYTES);
        let digest = Some((DIGEST_VERSION, 7));
        assert_eq!(decode(&bytes), Ok(Decoded { header: HEADER, txn, digest }));
    }

    fn node() -> NewNode<'static> {
        NewNode {
            path: "/w0".into(),
            data: Some(Cow::Borrowed(b"x")),
            acl: AclBytes::encode(&[Acl { perms: ALL, id: Id::new("world", "anyone") }]),
            parent_cversion: 1,
        }
    }

    #[test]
    fn each_kind_survives_its_encoding() {
        check(Txn::Create { with_stat: false, node: node(), ephemeral: false }, 44);
        check(Txn::CreateTtl { node: node(), ttl_ms: 5 }, 51);
        check(Txn::Delete { path: "/a".into(), container: true }, 6);
        check(Txn::CreateSession { timeout_ms: 10_000 }, 4);
        check(Txn::CloseSession { ephemerals: Some(Vec::new()) }, 4);
        check(Txn::CloseSession { ephemerals: Some(vec!["/a".into(), "/b".into()]) }, 4 + 2 * 6);
        check(Txn::CloseSession { ephemerals: None }, 0);
        let create = Txn::Create { with_stat: true, node: node(), ephemeral: true };
        check(Txn::Multi(vec![create, Txn::Error(TxnError(-2))]), 4 + 8 + 44 + 8 + 4);
    }

    #[test]
    fn an_error_has_no_digest() {
        let mut bytes = Vec::new();
        encode(&HEADER, &Txn::Error(TxnError(-118)), None, &mut bytes);
        assert_eq!(bytes.len(), HEADER_BYTES + 4);
        assert_eq!(decode(&bytes).unwrap().digest, None);
    }

    #[test]
    fn a_multi_part_by_part_is_a_multi() {
        let parts = vec![Txn::Create { with_stat: true, node: node(), ephemeral: true }];
        let mut expect = b"before".to_vec();
        let mut out = expect.clone();
        let mut encoder = MultiEncoder::begin(&HEADER, &mut out);
        encoder.push(&parts[0], &mut out);
        encoder.end(7, &mut out);
        encode(&HEADER, &Txn::Multi(parts), Some(7), &mut expect);
        assert_eq!(out, expect);
    }

    #[test]
    fn a_multi_in_a_multi_is_refused() {
        let mut bytes = Vec::new();
        encode(&HEADER, &Txn::Multi(vec![Txn::Multi(Vec::new())]), None, &mut bytes);
        assert!(decode(&bytes).is_err());
    }
}
