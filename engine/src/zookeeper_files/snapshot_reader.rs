//! Reads a snapshot file: header, tree, and a checksum after each part.

use std::io::{self, Read};

use crate::jute::{DecodeError, Reader};
use crate::tree::{AclId, OwnerMode, Tree};
use crate::zxid::Zxid;

use super::names::Compression;
use super::stream::{PIECE_BYTES, Stream};
use super::tree_reader::{TreeReadError, TreeRecords, TreeSink, TreeSoFar};
use super::{END_PATH, FILE_VERSION, SNAPSHOT_MAGIC, snappy};

/// Why a file is not a snapshot that can be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It could not be read, or not be unpacked.
    #[error("reading: {0}")]
    Io(#[from] io::Error),
    /// It begins with something else.
    #[error("the first word is {0:#010x}, not that of a snapshot")]
    Magic(i32),
    /// What is in it is not a tree.
    #[error("at offset {offset}: {error}")]
    Tree {
        /// Where the record begins, after unpacking.
        offset: u64,
        /// What is wrong with it.
        error: TreeReadError,
    },
    /// A checksum does not fit what is in front of it.
    #[error("at offset {offset}: checksum {expected:#x}, but the bytes have {got:#x}")]
    Checksum {
        /// Where the checksum is, after unpacking.
        offset: u64,
        /// What it says.
        expected: i64,
        /// What the bytes have.
        got: u32,
    },
    /// The file ends too early, or goes on behind its end.
    #[error("{bytes} bytes behind the tree are no digest and no zxid")]
    Tail {
        /// How many.
        bytes: usize,
    },
}

/// The digest of the tree as of a zxid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeDigest {
    /// As of which transaction.
    pub zxid: Zxid,
    /// How it is computed; ours is 2.
    pub version: i32,
    /// The digest.
    pub digest: u64,
}

/// A snapshot in memory. It may show parts of transactions after its zxid.
#[derive(Debug)]
pub struct Loaded {
    /// The tree.
    pub tree: Tree,
    /// What its digest was when writing it had ended: with this transaction it is whole.
    pub digest: Option<TreeDigest>,
    /// Znodes whose ACL list the file has not, and the list that denies everything in its place.
    pub unknown_acls: Vec<(String, AclId)>,
}

/// Reads a snapshot that comes in pieces.
#[derive(Debug)]
pub struct SnapshotReader {
    records: SnapshotRecords<TreeSoFar>,
}

/// The records of a snapshot that comes in pieces, with its checks, whoever takes them.
#[derive(Debug)]
pub struct SnapshotRecords<S> {
    stream: Stream,
    tree: TreeRecords,
    sink: S,
    next: Next,
}

/// What a snapshot has behind its tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// What the digest was when writing it had ended.
    pub digest: Option<TreeDigest>,
    /// The last transaction when writing ended.
    pub last_zxid: Option<Zxid>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Header,
    Tree,
    Seal,
    Tail,
}

/// Bytes of a checksum and the path behind it.
const SEAL_BYTES: usize = 13;
const LAST_ZXID_BYTES: usize = 8 + SEAL_BYTES;
/// The longest tail: a digest of the old form is text.
const TAIL_BYTES_MAX: usize = 1024;

/// The last bytes of a snapshot that is not packed.
const WHOLE_END: [u8; 5] = [0, 0, 0, 1, b'/'];

/// Whether a file is worth reading, by its first and last bytes: servers pass over the others.
pub fn looks_whole(compression: Compression, first: &[u8], last: &[u8]) -> bool {
    // Compat: SnapStream.isValidSnapshot.
    match compression {
        Compression::None => last.ends_with(&WHOLE_END),
        Compression::Gzip => first.starts_with(&[0x1f, 0x8b]),
        Compression::Snappy => first.starts_with(&snappy::MAGIC),
    }
}

impl SnapshotReader {
    /// A reader at the beginning of a file.
    pub fn new(mode: OwnerMode) -> Self {
        let mut tree = TreeSoFar::new(mode);
        tree.unknown_acls = Some(Vec::new());
        Self { records: SnapshotRecords::new(tree) }
    }

    /// Reads a whole file, packed or not. `zxid` is that of its name.
    pub fn load(
        file: impl Read,
        compression: Compression,
        zxid: Zxid,
        mode: OwnerMode,
    ) -> Result<Loaded, SnapshotError> {
        let mut reader = Self::new(mode);
        reader.records.push_all(file, compression)?;
        reader.finish(zxid)
    }

    /// Takes more of the file, unpacked.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.records.push(bytes)
    }

    /// At the end of the file: checks that it is one. `zxid` is that of its name.
    pub fn finish(self, zxid: Zxid) -> Result<Loaded, SnapshotError> {
        let offset = self.records.stream.taken();
        let (mut tree, Tail { digest, .. }) = self.records.finish()?;
        let unknown_acls = tree.unknown_acls.take().unwrap_or_default();
        let tree = tree.finish(zxid);
        let tree = tree.map_err(|error| SnapshotError::Tree { offset, error })?;
        Ok(Loaded { tree, digest, unknown_acls })
    }
}

impl<S: TreeSink> SnapshotRecords<S> {
    /// Records from the beginning of a file go to `sink`.
    pub fn new(sink: S) -> Self {
        Self { stream: Stream::new(), tree: TreeRecords::new(), sink, next: Next::Header }
    }

    /// Takes the whole file, packed or not.
    pub fn push_all(
        &mut self,
        file: impl Read,
        compression: Compression,
    ) -> Result<(), SnapshotError> {
        match compression {
            Compression::None => self.push_unpacked(file),
            Compression::Gzip => self.push_unpacked(flate2::read::MultiGzDecoder::new(file)),
            Compression::Snappy => self.push_unpacked(snappy::SnappyReader::new(file)),
        }
    }

    /// Who takes the records.
    pub fn sink(&mut self) -> &mut S {
        &mut self.sink
    }

    /// Takes more of the file, unpacked.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.stream.push(bytes);
        if self.next == Next::Header && !self.read_header()? {
            return Ok(());
        }
        if self.next == Next::Tree {
            let whole = self.tree.read(&mut self.stream, &mut self.sink);
            let offset = self.stream.taken();
            if !whole.map_err(|error| SnapshotError::Tree { offset, error })? {
                return Ok(());
            }
            self.next = Next::Seal;
        }
        if self.next == Next::Seal && self.stream.rest().len() >= SEAL_BYTES {
            self.check_seal()?;
            self.next = Next::Tail;
        }
        let left = self.stream.rest().len();
        if self.next == Next::Tail && left > TAIL_BYTES_MAX {
            return Err(SnapshotError::Tail { bytes: left });
        }
        Ok(())
    }

    /// At the end of the file: checks that it is one.
    pub fn finish(mut self) -> Result<(S, Tail), SnapshotError> {
        let offset = self.stream.taken();
        let left = self.stream.rest().len();
        if self.next != Next::Tail {
            let end = DecodeError::UnexpectedEnd { needed: left + 1, left };
            return Err(SnapshotError::Tree { offset, error: end.into() });
        }
        // Compat: FileSnap.deserialize, where the settings of the reader say what there is. Here
        // the length does.
        let mut tail = Tail::default();
        if left > LAST_ZXID_BYTES {
            tail.digest = Some(self.take_from_tail(read_digest)?);
            self.check_seal()?;
        }
        if !self.stream.rest().is_empty() {
            let last = self.take_from_tail(read_zxid)?;
            tail.last_zxid = Zxid::from_wire(last);
            self.check_seal()?;
        }
        match self.stream.rest().len() {
            0 => Ok((self.sink, tail)),
            bytes => Err(SnapshotError::Tail { bytes }),
        }
    }

    fn push_unpacked(&mut self, mut file: impl Read) -> Result<(), SnapshotError> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match file.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(bytes) => self.push(&piece[..bytes])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn read_header(&mut self) -> Result<bool, SnapshotError> {
        let header = self.stream.take(|reader| {
            // Compat: FileSnap.deserialize asks for the magic word only.
            let magic = reader.i32()?;
            reader.i32()?;
            reader.i64()?;
            Ok::<_, DecodeError>(magic)
        });
        match header {
            Ok(Some(SNAPSHOT_MAGIC)) => {
                self.next = Next::Tree;
                Ok(true)
            }
            Ok(Some(magic)) => Err(SnapshotError::Magic(magic)),
            Ok(None) | Err(_) => Ok(false),
        }
    }

    /// Compat: SnapStream.checkSealIntegrity; the path is read and not looked at.
    fn check_seal(&mut self) -> Result<(), SnapshotError> {
        let offset = self.stream.taken();
        let got = self.stream.adler();
        let expected = self.take_from_tail(|reader| {
            let checksum = reader.i64()?;
            reader.ustr()?;
            Ok(checksum)
        })?;
        if expected != i64::from(got) {
            return Err(SnapshotError::Checksum { offset, expected, got });
        }
        Ok(())
    }

    fn take_from_tail<T>(
        &mut self,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, DecodeError>,
    ) -> Result<T, SnapshotError> {
        let bytes = self.stream.rest().len();
        match self.stream.take(read) {
            Ok(Some(value)) => Ok(value),
            Ok(None) | Err(_) => Err(SnapshotError::Tail { bytes }),
        }
    }
}

fn read_zxid(reader: &mut Reader<'_>) -> Result<i64, DecodeError> {
    reader.i64()
}

/// Compat: ZxidDigest.deserialize; below version 2 the digest is text.
fn read_digest(reader: &mut Reader<'_>) -> Result<TreeDigest, DecodeError> {
    let zxid = Zxid(reader.i64()?.cast_unsigned());
    let version = reader.i32()?;
    let digest = if version < FILE_VERSION {
        let text = reader.ustr()?.unwrap_or_default();
        let bad = DecodeError::BadValue { what: "digest version", value: i64::from(version) };
        if text.is_empty() { 0 } else { u64::from_str_radix(&text, 16).map_err(|_| bad)? }
    } else {
        reader.i64()?.cast_unsigned()
    };
    Ok(TreeDigest { zxid, version, digest })
}

/// Writes what ends a part; kept beside the reader, which must agree.
pub(super) fn seal(checksum: u32, out: &mut Vec<u8>) {
    let mut writer = crate::jute::Writer::new(out);
    writer.i64(i64::from(checksum));
    writer.string(END_PATH);
}
