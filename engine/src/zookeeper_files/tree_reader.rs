//! Reads sessions, ACL lists and znodes as snapshots and SNAP streams have them.

use crate::acl::AclBytes;
use crate::collections::FastMap;
use crate::ids::SessionId;
use crate::jute::{DecodeError, Reader};
use crate::stat::Stat;
use crate::tree::{AclId, ImportError, OwnerMode, Tree, TreeBuilder};
use crate::zxid::Zxid;

use super::stream::{AsDecodeError, Stream};
use super::{END_PATH, OPEN_INDEX};

/// Why bytes are not those of a tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeReadError {
    /// A record has not the form that it should have.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// The records are not those of a tree.
    #[error("{0}")]
    Import(#[from] ImportError),
}

impl AsDecodeError for TreeReadError {
    fn as_decode_error(&self) -> Option<DecodeError> {
        match self {
            Self::Decode(error) => Some(*error),
            Self::Import(_) => None,
        }
    }
}

/// Takes the records of a tree, in the order in which they come.
pub trait TreeSink {
    /// A session, with its timeout.
    fn session(&mut self, session: SessionId, timeout_ms: i32);

    /// An ACL list, with the index that znodes name it by.
    fn acl(&mut self, index: i64, list: &AclBytes<'_>);

    /// A znode, which comes behind its parent in a tree that is one.
    fn znode(&mut self, znode: &ZnodeRecord<'_>) -> Result<(), ImportError>;
}

/// A znode as files have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZnodeRecord<'a> {
    /// The root's is empty.
    pub path: &'a str,
    /// Its data; none and empty are different.
    pub data: Option<&'a [u8]>,
    /// Which of the lists it has.
    pub acl_index: i64,
    /// Its stat.
    pub stat: Stat,
}

/// Reads a tree out of a stream.
#[derive(Debug)]
pub struct TreeReader {
    records: TreeRecords,
    tree: TreeSoFar,
}

/// The records of a tree, whoever takes them.
#[derive(Debug)]
pub(super) struct TreeRecords {
    next: Next,
}

/// A tree that is being put together.
#[derive(Debug)]
pub(super) struct TreeSoFar {
    builder: TreeBuilder,
    /// Ids of the lists by the index that they have in the stream.
    acls: FastMap<i64, AclId>,
    /// Znodes with a list that the stream has not: it is fuzzy, and the replay of the log brings
    /// the lists. Until then nobody may touch these znodes; what they have instead is beside them.
    /// Kept where somebody will want to know.
    pub(super) unknown_acls: Option<Vec<(String, AclId)>>,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    SessionsCount,
    Sessions(u32),
    AclsCount,
    Acls(u32),
    Znode,
    Nothing,
}

/// Bytes of the record `StatPersisted`.
const STAT_BYTES: usize = 60;

impl TreeReader {
    /// A reader at the beginning of a tree.
    pub fn new(mode: OwnerMode) -> Self {
        Self { records: TreeRecords::new(), tree: TreeSoFar::new(mode) }
    }

    /// Takes what is there; true when the tree is complete. What follows it stays in the stream.
    pub fn read(&mut self, stream: &mut Stream) -> Result<bool, TreeReadError> {
        self.records.read(stream, &mut self.tree)
    }

    /// The tree, if it is complete, with `applied` as its last transaction.
    pub fn finish(self, applied: Zxid) -> Result<Tree, TreeReadError> {
        if self.records.next != Next::Nothing {
            return Err(DecodeError::UnexpectedEnd { needed: 1, left: 0 }.into());
        }
        self.tree.finish(applied)
    }
}

impl TreeSoFar {
    pub(super) fn new(mode: OwnerMode) -> Self {
        Self { builder: TreeBuilder::new(mode), acls: FastMap::default(), unknown_acls: None }
    }

    pub(super) fn finish(self, applied: Zxid) -> Result<Tree, TreeReadError> {
        Ok(self.builder.finish(applied)?)
    }
}

impl TreeSink for TreeSoFar {
    fn session(&mut self, session: SessionId, timeout_ms: i32) {
        self.builder.session(session, timeout_ms);
    }

    fn acl(&mut self, index: i64, list: &AclBytes<'_>) {
        self.acls.insert(index, self.builder.acl(list));
    }

    fn znode(&mut self, znode: &ZnodeRecord<'_>) -> Result<(), ImportError> {
        let acl = match self.acls.get(&znode.acl_index) {
            Some(&acl) => acl,
            None if znode.acl_index == OPEN_INDEX => AclId::OPEN,
            None => {
                let denied = self.builder.unknown_acl();
                if let Some(unknown) = &mut self.unknown_acls {
                    unknown.push((znode.path.to_owned(), denied));
                }
                denied
            }
        };
        self.builder.znode(znode.path, znode.data, acl, znode.stat)
    }
}

impl TreeRecords {
    pub(super) fn new() -> Self {
        Self { next: Next::SessionsCount }
    }

    /// Passes on what is there; true when the tree is complete.
    pub(super) fn read(
        &mut self,
        stream: &mut Stream,
        sink: &mut impl TreeSink,
    ) -> Result<bool, TreeReadError> {
        while self.next != Next::Nothing {
            match stream.take(|reader| self.read_record(reader, sink))? {
                Some(next) => self.next = next,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    fn read_record(
        &self,
        reader: &mut Reader<'_>,
        sink: &mut impl TreeSink,
    ) -> Result<Next, TreeReadError> {
        // Compat: SerializeUtils.deserializeSnapshot, ReferenceCountedACLCache.deserialize.
        let after_session = |left| if left == 0 { Next::AclsCount } else { Next::Sessions(left) };
        let after_acl = |left| if left == 0 { Next::Znode } else { Next::Acls(left) };
        Ok(match self.next {
            Next::SessionsCount => after_session(read_count(reader)?),
            Next::AclsCount => after_acl(read_count(reader)?),
            Next::Sessions(left) => {
                let (session, timeout_ms) = (SessionId(reader.i64()?), reader.i32()?);
                sink.session(session, timeout_ms);
                after_session(left - 1)
            }
            Next::Acls(left) => {
                let index = reader.i64()?;
                let list = read_list(reader)?;
                sink.acl(index, &list);
                after_acl(left - 1)
            }
            Next::Znode => read_znode(reader, sink)?,
            Next::Nothing => Next::Nothing,
        })
    }
}

fn read_znode(reader: &mut Reader<'_>, sink: &mut impl TreeSink) -> Result<Next, TreeReadError> {
    // Compat: DataTree.deserialize.
    let path = reader.string("path")?;
    if path == END_PATH {
        return Ok(Next::Nothing);
    }
    let data = reader.buf()?;
    let acl_index = reader.i64()?;
    let stat = read_stat(reader)?;
    sink.znode(&ZnodeRecord { path: &path, data, acl_index, stat })?;
    Ok(Next::Znode)
}

/// A count; Java takes a negative one for none.
fn read_count(reader: &mut Reader<'_>) -> Result<u32, DecodeError> {
    Ok(u32::try_from(reader.i32()?).unwrap_or(0))
}

/// An ACL list; a null one is not allowed here.
fn read_list<'a>(reader: &mut Reader<'a>) -> Result<AclBytes<'a>, DecodeError> {
    let mut ahead = Reader::new(reader.rest());
    if ahead.i32()? == -1 {
        return Err(DecodeError::Null("ACL list"));
    }
    AclBytes::read(reader)
}

/// The record `StatPersisted`.
fn read_stat(reader: &mut Reader<'_>) -> Result<Stat, DecodeError> {
    if reader.rest().len() < STAT_BYTES {
        let left = reader.rest().len();
        return Err(DecodeError::UnexpectedEnd { needed: STAT_BYTES, left });
    }
    let zxid = |reader: &mut Reader<'_>| Ok::<_, DecodeError>(Zxid(reader.i64()?.cast_unsigned()));
    Ok(Stat {
        czxid: zxid(reader)?,
        mzxid: zxid(reader)?,
        ctime_ms: reader.i64()?,
        mtime_ms: reader.i64()?,
        version: reader.i32()?,
        cversion: reader.i32()?,
        aversion: reader.i32()?,
        ephemeral_owner: reader.i64()?,
        pzxid: zxid(reader)?,
    })
}
