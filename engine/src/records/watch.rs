//! Bodies of the requests that read or concern watches, and the event that a watch gives.

use std::borrow::Cow;

use super::{NOTIFICATION_XID, begin_reply};
use crate::jute::{DecodeError, Reader, Writer};

/// A set of watch modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modes(u8);

impl Modes {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// One-shot, for creation, deletion and data; left by getData and exists.
    pub const DATA: Self = Self(1);
    /// One-shot, for the list of children and deletion; left by getChildren.
    pub const CHILD: Self = Self(2);
    /// Stays; for data, deletion and the list of children.
    pub const PERSISTENT: Self = Self(4);
    /// Stays; for data, creation and deletion of the whole subtree.
    pub const RECURSIVE: Self = Self(8);
    /// Every mode.
    pub const ANY: Self = Self(15);

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the sets share a mode.
    pub const fn has_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// How many watches ZooKeeper counts for it: one per table.
    ///
    // Compat: DataTree.getWatchCount - persistent watches are in both tables, recursive ones with
    // the data watches only.
    pub const fn count(self) -> usize {
        let data = self.has_any(Self::DATA.with(Self::PERSISTENT).with(Self::RECURSIVE));
        let child = self.has_any(Self::CHILD.with(Self::PERSISTENT));
        data as usize + child as usize
    }

    /// What `AddWatchRequest` means by this number.
    pub const fn from_add_mode(mode: i32) -> Option<Self> {
        match mode {
            0 => Some(Self::PERSISTENT),
            1 => Some(Self::RECURSIVE),
            _ => None,
        }
    }

    /// What `CheckWatchesRequest` and `RemoveWatchesRequest` mean by this number.
    pub const fn from_watcher_type(watcher_type: i32) -> Option<Self> {
        match watcher_type {
            1 => Some(Self::CHILD),
            2 => Some(Self::DATA),
            3 => Some(Self::ANY),
            4 => Some(Self::PERSISTENT),
            5 => Some(Self::RECURSIVE),
            _ => None,
        }
    }
}

/// A path, and whether to leave a watch (`ExistsRequest`, `GetDataRequest`, `GetChildrenRequest`,
/// `GetChildren2Request`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathWatch<'a> {
    /// The path.
    pub path: Cow<'a, str>,
    /// Whether to leave a watch.
    pub watch: bool,
}

impl<'a> PathWatch<'a> {
    /// Takes the record that `reader` is at.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { path: reader.string("path")?, watch: reader.bool()? })
    }

    /// Appends the record.
    pub fn write(&self, writer: &mut Writer<'_>) {
        writer.string(&self.path);
        writer.bool(self.watch);
    }
}

/// A path and the number of a kind of watch: a watcher type in `CheckWatchesRequest` and
/// `RemoveWatchesRequest`, a mode in `AddWatchRequest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchKind<'a> {
    /// The path.
    pub path: Cow<'a, str>,
    /// The number; whatever the client wrote.
    pub kind: i32,
}

impl<'a> WatchKind<'a> {
    /// Takes the record that `reader` is at.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { path: reader.string("path")?, kind: reader.i32()? })
    }

    /// Appends the record.
    pub fn write(&self, writer: &mut Writer<'_>) {
        writer.string(&self.path);
        writer.i32(self.kind);
    }
}

/// Watches to have again after a reconnect (`SetWatches`, `SetWatches2`).
#[derive(Clone, Debug)]
pub struct SetWatches<'a> {
    /// The last zxid that the client has seen: what changed after it is told at once. In the
    /// wire's form, because foreign bytes can be negative.
    pub relative_zxid: i64,
    /// For changes of the data of znodes that there were.
    pub data: Paths<'a>,
    /// For the creation of znodes that there were not.
    pub exist: Paths<'a>,
    /// For changes of the list of children.
    pub child: Paths<'a>,
    /// Persistent ones.
    pub persistent: Paths<'a>,
    /// Persistent ones for a whole subtree.
    pub persistent_recursive: Paths<'a>,
}

impl<'a> SetWatches<'a> {
    /// Takes a `SetWatches`, or a `SetWatches2`, which has the last two lists.
    pub fn read(reader: &mut Reader<'a>, with_persistent: bool) -> Result<Self, DecodeError> {
        let mut set_watches = Self {
            relative_zxid: reader.i64()?,
            data: Paths::read(reader)?,
            exist: Paths::read(reader)?,
            child: Paths::read(reader)?,
            persistent: Paths::default(),
            persistent_recursive: Paths::default(),
        };
        if with_persistent {
            set_watches.persistent = Paths::read(reader)?;
            set_watches.persistent_recursive = Paths::read(reader)?;
        }
        Ok(set_watches)
    }
}

/// A list of paths inside a packet, its form checked.
#[derive(Clone, Debug, Default)]
pub struct Paths<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Paths<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = reader.count(4)?.ok_or(DecodeError::Null("list of paths"))?;
        let start = reader.rest();
        for _ in 0..count {
            reader.buf()?.ok_or(DecodeError::Null("path"))?;
        }
        Ok(Self { count, bytes: &start[..start.len() - reader.rest().len()] })
    }

    /// The paths, in the client's order.
    pub fn iter(&self) -> impl Iterator<Item = Cow<'a, str>> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        (0..self.count).map(move |_| reader.string("path").expect("checked when it was read"))
    }
}

/// What a watch has to tell (`WatcherEvent`); the client's state in it is always SyncConnected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent<'a> {
    /// The event's number.
    pub kind: i32,
    /// Where it happened.
    pub path: Cow<'a, str>,
}

/// The state that a connected client is told with every event.
const SYNC_CONNECTED: i32 = 3;

impl<'a> WatchEvent<'a> {
    /// Appends the whole frame of a notification. `zxid` is the transaction's, or -1 for what
    /// setWatches found out.
    pub fn write_notification(&self, zxid: i64, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        let frame = begin_reply(&mut writer, NOTIFICATION_XID, zxid, 0);
        writer.i32(self.kind);
        writer.i32(SYNC_CONNECTED);
        writer.echo(&self.path);
        writer.end_part(frame);
    }

    /// Takes the record that `reader` is at, behind the notification's header.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let kind = reader.i32()?;
        reader.i32()?;
        Ok(Self { kind, path: reader.string("path")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::ReplyHeader;

    #[test]
    fn a_notification_is_as_on_a_real_wire() {
        let event = WatchEvent { kind: 3, path: "/p".into() };
        let mut out = Vec::new();
        event.write_notification(31, &mut out);
        let mut wire = vec![0, 0, 0, 30, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0x1f];
        wire.extend([0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 2, b'/', b'p']);
        assert_eq!(out, wire);
        let mut reader = Reader::new(&out[4..]);
        let header = ReplyHeader { xid: NOTIFICATION_XID, zxid: 31, err: 0 };
        assert_eq!(ReplyHeader::read(&mut reader), Ok(header));
        assert_eq!(WatchEvent::read(&mut reader), Ok(event));
    }

    #[test]
    fn set_watches_lends_its_lists() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.i64(9);
        for list in [["/a", "/b"].as_slice(), &[], &["/c"], &["/d"], &["/e"]] {
            writer.count(list.len());
            for path in list {
                writer.string(path);
            }
        }
        let set = SetWatches::read(&mut Reader::new(&out), true).unwrap();
        let lists = [set.data, set.exist, set.child, set.persistent, set.persistent_recursive];
        let found: Vec<_> = lists.iter().map(|list| list.iter().collect::<Vec<_>>()).collect();
        assert_eq!(found, [vec!["/a", "/b"], vec![], vec!["/c"], vec!["/d"], vec!["/e"]]);
        let old = SetWatches::read(&mut Reader::new(&out), false).unwrap();
        assert_eq!((old.relative_zxid, old.persistent.iter().count()), (9, 0));
    }

    #[test]
    fn a_null_list_and_a_count_beyond_the_packet_are_refused() {
        let read = |list: [u8; 4]| {
            let bytes = [&[0; 8], list.as_slice()].concat();
            SetWatches::read(&mut Reader::new(&bytes), false).map(|_| ())
        };
        assert_eq!(read([0xff; 4]), Err(DecodeError::Null("list of paths")));
        assert!(read([0x7f, 0xff, 0xff, 0xff]).is_err());
    }
}
