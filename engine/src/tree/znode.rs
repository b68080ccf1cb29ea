//! Znode: the value of a znode in the map, and what readers see of it.
//!
//! Layout: a flag byte; then varints: czxid, ctime, ACL id; and, where a flag says so, the owner
//! (8 bytes), what setData changed (mzxid and mtime as differences, version), what children
//! changed (pzxid as a difference, cversion, count), aversion, length and checksum of data that is
//! kept apart. The rest of the value is the data. Most znodes have 13 bytes in front of their data.

use std::borrow::Cow;

use crate::btree::View;
use crate::keyspace::{self, Key, Spot};
use crate::stat::{Stat, WireStat};
use crate::zxid::Zxid;

use super::AclId;
use super::digest;
use super::owner::{Owner, OwnerKind};
use super::path;

/// Data longer than this is kept in an entry of its own, so that a change of the stat (a child
/// comes or goes) never copies it.
pub(super) const INLINE_DATA_BYTES_MAX: usize = 960;

const FLAG_NULL: u8 = 1 << 2;
const FLAG_APART: u8 = 1 << 3;
const FLAG_SET: u8 = 1 << 4;
const FLAG_CHILDREN: u8 = 1 << 5;
const FLAG_AVERSION: u8 = 1 << 6;

/// Where a znode's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// There is none.
    Null,
    /// In the value.
    Inline,
    /// In an entry of its own.
    Apart {
        /// Its length.
        bytes: u32,
        /// CRC32 of path and data: what the digest goes on from when only the stat changes.
        crc: u32,
    },
}

/// All of a znode but its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) stat: Stat,
    pub(super) kind: OwnerKind,
    pub(super) acl: AclId,
    pub(super) num_children: u32,
    pub(super) form: Form,
}

/// A znode as a reader finds it.
#[derive(Clone, Debug)]
pub struct Znode<'a> {
    head: Head,
    key: DataKey<'a>,
}

/// How to come to the data.
#[derive(Clone)]
enum DataKey<'a> {
    /// It begins so far into the value.
    Inline(Cow<'a, [u8]>, usize),
    /// It is the value of this key; boxed because few znodes need it.
    Apart(Box<Key>),
    /// There is none.
    Null,
}

impl std::fmt::Debug for DataKey<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Inline(..) => "inline",
            Self::Apart(..) => "apart",
            Self::Null => "null",
        })
    }
}

/// Looks a znode up.
pub fn znode<'a>(view: &'a (impl View + ?Sized), path: &str) -> Option<Znode<'a>> {
    let Spot::Occupied { key, value } = keyspace::locate_znode(view, path::canonical(path)) else {
        return None;
    };
    let (head, at) = Head::of(&key, &value);
    let key = match head.form {
        Form::Null => DataKey::Null,
        Form::Inline => DataKey::Inline(value, at),
        Form::Apart { .. } => DataKey::Apart(Box::new(key.data_key())),
    };
    Some(Znode { head, key })
}

/// Length of the data of a znode, from its value, without the path of one with a hashed key.
pub(super) fn stored_data_bytes(value: &[u8]) -> usize {
    let mut reader = Values { bytes: value };
    let head = Head::decode(&mut reader).expect("values in the map are our own");
    head.data_bytes(reader.bytes)
}

impl<'a> Znode<'a> {
    /// The stat as it is stored.
    pub fn stat(&self) -> &Stat {
        &self.head.stat
    }

    /// The stat as clients see it.
    pub fn wire_stat(&self) -> WireStat {
        self.head.wire_stat(self.data_bytes())
    }

    /// The ACL list.
    pub fn acl(&self) -> AclId {
        self.head.acl
    }

    /// With what it goes.
    pub fn owner(&self) -> Owner {
        self.head.owner()
    }

    /// Count of its children.
    pub fn children_count(&self) -> u32 {
        self.head.num_children
    }

    /// Length of its data; 0 if that is null.
    pub fn data_bytes(&self) -> usize {
        match &self.key {
            DataKey::Inline(value, at) => value.len() - at,
            _ => self.head.data_bytes(b""),
        }
    }

    /// Its data, from the view that it was found in.
    pub fn into_data(self, view: &'a (impl View + ?Sized)) -> Option<Cow<'a, [u8]>> {
        match self.key {
            DataKey::Null => None,
            DataKey::Inline(Cow::Borrowed(value), at) => Some(Cow::Borrowed(&value[at..])),
            DataKey::Inline(Cow::Owned(mut value), at) => {
                value.drain(..at);
                Some(Cow::Owned(value))
            }
            DataKey::Apart(key) => {
                Some(view.get(key.as_bytes()).expect("data kept apart is written with its znode"))
            }
        }
    }
}

impl Head {
    /// Decodes the value of `key`; also says where inline data begins.
    pub(super) fn of(key: &Key, value: &[u8]) -> (Self, usize) {
        let rest = if key.is_long_znode() { keyspace::stored_path(value).1 } else { value };
        let mut reader = Values { bytes: rest };
        let head = Self::decode(&mut reader).expect("values in the map are our own");
        (head, value.len() - reader.bytes.len())
    }

    fn decode(reader: &mut Values<'_>) -> Option<Self> {
        let flags = reader.byte()?;
        let czxid = reader.unsigned()?;
        let ctime_ms = reader.signed()?;
        let acl = AclId(u32::try_from(reader.unsigned()?).ok()?);
        let mut stat = Stat {
            czxid: Zxid(czxid),
            mzxid: Zxid(czxid),
            pzxid: Zxid(czxid),
            ctime_ms,
            mtime_ms: ctime_ms,
            ..Stat::default()
        };
        let kind = OwnerKind::from_bits(flags);
        if kind != OwnerKind::Persistent {
            let (owner, rest) = reader.bytes.split_first_chunk::<8>()?;
            stat.ephemeral_owner = i64::from_be_bytes(*owner);
            reader.bytes = rest;
        }
        if flags & FLAG_SET != 0 {
            stat.mzxid = Zxid(czxid.wrapping_add(reader.signed()?.cast_unsigned()));
            stat.mtime_ms = ctime_ms.wrapping_add(reader.signed()?);
            stat.version = i32::try_from(reader.signed()?).ok()?;
        }
        let mut num_children = 0;
        if flags & FLAG_CHILDREN != 0 {
            stat.pzxid = Zxid(czxid.wrapping_add(reader.signed()?.cast_unsigned()));
            stat.cversion = i32::try_from(reader.signed()?).ok()?;
            num_children = u32::try_from(reader.unsigned()?).ok()?;
        }
        if flags & FLAG_AVERSION != 0 {
            stat.aversion = i32::try_from(reader.signed()?).ok()?;
        }
        let form = if flags & FLAG_APART != 0 {
            let bytes = u32::try_from(reader.unsigned()?).ok()?;
            let (crc, rest) = reader.bytes.split_first_chunk::<4>()?;
            reader.bytes = rest;
            Form::Apart { bytes, crc: u32::from_be_bytes(*crc) }
        } else if flags & FLAG_NULL != 0 {
            Form::Null
        } else {
            Form::Inline
        };
        Some(Self { stat, kind, acl, num_children, form })
    }

    /// Appends the head; inline data is to follow.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let stat = &self.stat;
        let flags_at = out.len();
        let mut flags = self.kind as u8;
        out.push(0);
        push_unsigned(stat.czxid.0, out);
        push_signed(stat.ctime_ms, out);
        push_unsigned(u64::from(self.acl.0), out);
        if self.kind != OwnerKind::Persistent {
            out.extend_from_slice(&stat.ephemeral_owner.to_be_bytes());
        }
        if (stat.mzxid, stat.mtime_ms, stat.version) != (stat.czxid, stat.ctime_ms, 0) {
            flags |= FLAG_SET;
            push_signed(stat.mzxid.0.wrapping_sub(stat.czxid.0).cast_signed(), out);
            push_signed(stat.mtime_ms.wrapping_sub(stat.ctime_ms), out);
            push_signed(i64::from(stat.version), out);
        }
        if (stat.pzxid, stat.cversion, self.num_children) != (stat.czxid, 0, 0) {
            flags |= FLAG_CHILDREN;
            push_signed(stat.pzxid.0.wrapping_sub(stat.czxid.0).cast_signed(), out);
            push_signed(i64::from(stat.cversion), out);
            push_unsigned(u64::from(self.num_children), out);
        }
        if stat.aversion != 0 {
            flags |= FLAG_AVERSION;
            push_signed(i64::from(stat.aversion), out);
        }
        match self.form {
            Form::Null => flags |= FLAG_NULL,
            Form::Inline => {}
            Form::Apart { bytes, crc } => {
                flags |= FLAG_APART;
                push_unsigned(u64::from(bytes), out);
                out.extend_from_slice(&crc.to_be_bytes());
            }
        }
        out[flags_at] = flags;
    }

    /// Length of the data, given what is inline.
    pub(super) fn data_bytes(&self, inline: &[u8]) -> usize {
        match self.form {
            Form::Null => 0,
            Form::Inline => inline.len(),
            Form::Apart { bytes, .. } => bytes as usize,
        }
    }

    /// The znode's part of the tree's digest.
    pub(super) fn digest(&self, path: &str, inline: &[u8]) -> u64 {
        self.digest_behind(self.digest_prefix(path, inline))
    }

    /// What is the same in all digests of a znode with this data; none if it does not count.
    pub(super) fn digest_prefix(&self, path: &str, inline: &[u8]) -> Option<u32> {
        digest::counts(path).then(|| match self.form {
            Form::Null | Form::Inline => digest::prefix(path, Some(inline)),
            Form::Apart { crc, .. } => crc,
        })
    }

    /// The digest that begins with this.
    pub(super) fn digest_behind(&self, prefix: Option<u32>) -> u64 {
        prefix.map_or(0, |prefix| digest::of(prefix, &self.stat))
    }

    /// With what the znode goes.
    pub(super) fn owner(&self) -> Owner {
        self.kind.with(self.stat.ephemeral_owner)
    }

    /// The stat as clients see it.
    pub(super) fn wire_stat(&self, data_bytes: usize) -> WireStat {
        // Compat: DataNode.copyStat.
        let num_children = self.num_children.cast_signed();
        let mut stat = self.stat;
        stat.cversion = stat.cversion.wrapping_mul(2).wrapping_sub(num_children);
        if self.kind != OwnerKind::Ephemeral {
            stat.ephemeral_owner = 0;
        }
        let data_length = i32::try_from(data_bytes).unwrap_or(i32::MAX);
        WireStat { stat, data_length, num_children }
    }
}

/// Reads the parts of a value.
struct Values<'a> {
    bytes: &'a [u8],
}

impl Values<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(byte)
    }

    /// Seven bits per byte, lowest first; the top bit says that more follow.
    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0;
        let mut shift = 0;
        loop {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
            shift += 7;
            if shift >= 64 {
                return None;
            }
        }
    }

    /// Zigzag, so that small negative numbers are short too.
    fn signed(&mut self) -> Option<i64> {
        let value = self.unsigned()?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }
}

fn push_unsigned(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn push_signed(value: i64, out: &mut Vec<u8>) {
    push_unsigned(((value << 1) ^ (value >> 63)).cast_unsigned(), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(head: Head, expect_bytes: usize) {
        let mut bytes = Vec::new();
        head.encode(&mut bytes);
        assert_eq!(bytes.len(), expect_bytes, "{bytes:x?}");
        let mut reader = Values { bytes: &bytes };
        assert_eq!(Head::decode(&mut reader), Some(head));
        assert!(reader.bytes.is_empty());
        for len in 0..bytes.len() {
            assert_eq!(Head::decode(&mut Values { bytes: &bytes[..len] }), None);
        }
    }

    fn fresh() -> Head {
        let zxid = Zxid(0x3_0001_2345);
        let time = 1_795_000_000_000;
        let stat = Stat {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime_ms: time,
            mtime_ms: time,
            ..Stat::default()
        };
        let kind = OwnerKind::Persistent;
        Head { stat, kind, acl: AclId(1), num_children: 0, form: Form::Inline }
    }

    #[test]
    fn a_head_survives_its_encoding_and_is_small() {
        check(fresh(), 13);
        check(Head { form: Form::Null, ..fresh() }, 13);
        check(Head { form: Form::Apart { bytes: 1 << 20, crc: 7 }, ..fresh() }, 20);
        let mut set = fresh();
        set.stat.mzxid.0 += 100_000;
        set.stat.mtime_ms += 60_000;
        set.stat.version = 9;
        check(set, 20);
        let mut parent = fresh();
        parent.stat.pzxid.0 += 5;
        parent.stat.cversion = 1000;
        parent.num_children = 1000;
        check(parent, 18);
        let mut ephemeral = fresh();
        ephemeral.kind = OwnerKind::Ephemeral;
        ephemeral.stat.ephemeral_owner = 0x1000_0000_0000_0001;
        check(ephemeral, 21);
    }

    #[test]
    fn extremes_survive() {
        let stat = Stat {
            czxid: Zxid(u64::MAX),
            mzxid: Zxid(0),
            pzxid: Zxid(1),
            ctime_ms: i64::MIN,
            mtime_ms: i64::MAX,
            version: i32::MIN,
            cversion: i32::MAX,
            aversion: -1,
            ephemeral_owner: i64::MIN,
        };
        let form = Form::Apart { bytes: u32::MAX, crc: u32::MAX };
        let kind = OwnerKind::Container;
        let head = Head { stat, kind, acl: AclId(u32::MAX), num_children: u32::MAX, form };
        let mut bytes = Vec::new();
        head.encode(&mut bytes);
        assert_eq!(Head::decode(&mut Values { bytes: &bytes }), Some(head));
    }

    #[test]
    fn clients_see_changes_of_children_and_sessions_only() {
        let mut head = fresh();
        head.stat.cversion = 2;
        head.num_children = 1;
        head.kind = OwnerKind::Container;
        head.stat.ephemeral_owner = i64::MIN;
        let wire = head.wire_stat(3);
        let seen = (wire.stat.cversion, wire.stat.ephemeral_owner, wire.data_length);
        assert_eq!((seen, wire.num_children), ((3, 0, 3), 1));
        head.kind = OwnerKind::Ephemeral;
        assert_eq!(head.wire_stat(0).stat.ephemeral_owner, i64::MIN);
    }
}
