//! Snapshot files: the page store of one version, written out; mapped, it is a page store again.
//!
//! Nothing is decoded when a snapshot is opened, so recovery does not take longer because the
//! tree is larger, but for reading the bytes once to check them. `docs/format.md` has the layout.

pub mod format;
mod writer;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use thiserror::Error;

pub use writer::SnapshotWriter;

use crate::btree::{CheckError, check_file_page};
use crate::pages::{BLOCK_BYTES, BLOCK_PAGES, Mapped, PAGE_BYTES, block_checksum};
use crate::zxid::Zxid;
use format::{Layout, SUPERBLOCK_BYTES, Superblock};

/// Why a snapshot file is not usable.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The file could not be read or mapped.
    #[error("the file could not be read")]
    Io(#[from] io::Error),
    /// The file does not end with a superblock: it was not written to its end, or is no snapshot.
    #[error("no superblock at offset {offset}")]
    NoSuperblock {
        /// Where it should be.
        offset: u64,
    },
    /// The superblock is damaged.
    #[error("superblock at offset {offset}: checksum {found:#010x} instead of {said:#010x}")]
    SuperblockDamaged {
        /// Where the superblock is.
        offset: u64,
        /// The checksum that it holds.
        said: u32,
        /// The checksum of its bytes.
        found: u32,
    },
    /// The file is of a format that this program does not read.
    #[error("format version {version}, features {features:#x}, pages of {page_bytes} bytes")]
    Unsupported {
        /// Its format version.
        version: u32,
        /// Its feature bits.
        features: u64,
        /// Its page size.
        page_bytes: u32,
    },
    /// The superblock says something that does not fit the file.
    #[error("{pages} pages with root {root} do not make a file of {length} bytes")]
    Length {
        /// Number of pages.
        pages: u32,
        /// The root page.
        root: u32,
        /// Bytes of the file.
        length: u64,
    },
    /// The table of checksums is damaged.
    #[error("checksums at offset {offset}: checksum {found:#010x} instead of {said:#010x}")]
    ChecksumsDamaged {
        /// Where the table is.
        offset: u64,
        /// The checksum that the superblock has.
        said: u32,
        /// The checksum of the table's bytes.
        found: u32,
    },
    /// A block of pages is damaged.
    #[error("block at offset {offset}: checksum {found:#010x} instead of {said:#010x}")]
    BlockDamaged {
        /// Where the block is.
        offset: u64,
        /// The checksum that the table has.
        said: u32,
        /// The checksum of the block's bytes.
        found: u32,
    },
    /// A page is malformed though its checksum is right: a bug wrote it, or malice.
    #[error(transparent)]
    Page(#[from] CheckError),
}

impl SnapshotError {
    /// Where in the file it was found.
    pub fn offset(&self) -> u64 {
        match self {
            Self::NoSuperblock { offset }
            | Self::SuperblockDamaged { offset, .. }
            | Self::ChecksumsDamaged { offset, .. }
            | Self::BlockDamaged { offset, .. } => *offset,
            Self::Length { length, .. } => length.saturating_sub(SUPERBLOCK_BYTES as u64),
            Self::Io(_) | Self::Unsupported { .. } | Self::Page(_) => 0,
        }
    }
}

/// A mapped snapshot file. Its superblock is good; its blocks are to be checked before use.
pub struct Snapshot {
    mapped: Mapped,
    superblock: Superblock,
}

impl Snapshot {
    /// Maps a file and checks its superblock and its table of checksums.
    ///
    /// The file must not be changed by anybody as long as it is mapped.
    pub fn open(file: &File) -> Result<Self, SnapshotError> {
        let length = file.metadata()?.len();
        let (superblock, checksums) =
            read_end(length, |bytes, offset| file.read_exact_at(bytes, offset))?;
        let mapped = Mapped::map(file, superblock.pages, checksums)?;
        Ok(Self { mapped, superblock })
    }

    /// The last transaction that the snapshot includes.
    pub fn zxid(&self) -> Zxid {
        self.superblock.zxid
    }

    /// How many pages it has.
    pub fn pages(&self) -> u32 {
        self.superblock.pages
    }

    /// The number of the root page.
    pub fn root(&self) -> u32 {
        self.superblock.root
    }

    /// How many blocks there are to check.
    pub fn blocks(&self) -> u32 {
        Layout::of(self.superblock.pages).blocks
    }

    /// Where a block is in the file: offset and length.
    pub fn block_place(&self, block: u32) -> (u64, usize) {
        let first = block * BLOCK_PAGES;
        let pages = BLOCK_PAGES.min(self.superblock.pages - first);
        (u64::from(block) * BLOCK_BYTES as u64, pages as usize * PAGE_BYTES)
    }

    /// Checks one block as it is mapped. Any threads may check any blocks at the same time.
    pub fn check(&self, block: u32) -> Result<(), SnapshotError> {
        self.check_bytes(block, self.mapped.block(block))
    }

    /// Checks one block as the caller has read it. Reading is how to find out about a disk error
    /// that would end the process if the mapping ran into it.
    pub fn check_bytes(&self, block: u32, bytes: &[u8]) -> Result<(), SnapshotError> {
        assert_eq!(bytes.len(), self.mapped.block(block).len(), "the bytes of block {block}");
        let found = block_checksum(bytes);
        let said = self.mapped.checksum(block);
        if found != said {
            let (offset, _) = self.block_place(block);
            return Err(SnapshotError::BlockDamaged { offset, said, found });
        }
        let first = block * BLOCK_PAGES;
        for (page, number) in bytes.as_chunks::<PAGE_BYTES>().0.iter().zip(first..) {
            check_file_page(number, page, number == self.superblock.root)?;
        }
        Ok(())
    }

    /// Checks everything, here and now.
    pub fn check_all(&self) -> Result<(), SnapshotError> {
        (0..self.blocks()).try_for_each(|block| self.check(block))
    }

    /// The mapped pages and the root's number.
    pub(crate) fn into_pages(self) -> (Mapped, u32) {
        (self.mapped, self.superblock.root)
    }
}

/// What stands behind the pages: the superblock, and the checksums of all blocks. It is read, not
/// touched through a mapping: a bad disk is then an error and not a signal.
fn read_end(
    length: u64,
    read: impl Fn(&mut [u8], u64) -> io::Result<()>,
) -> Result<(Superblock, Vec<u32>), SnapshotError> {
    let offset = length.saturating_sub(SUPERBLOCK_BYTES as u64);
    let mut block = [0; SUPERBLOCK_BYTES];
    if length < SUPERBLOCK_BYTES as u64 {
        return Err(SnapshotError::NoSuperblock { offset });
    }
    read(&mut block, offset)?;
    let superblock = Superblock::decode(&block, offset)?;
    let Superblock { pages, root, table_checksum: said, .. } = superblock;
    let layout = Layout::of(pages);
    if layout.length != length || root >= pages {
        return Err(SnapshotError::Length { pages, root, length });
    }
    let mut table = vec![0; layout.superblock - layout.table];
    let offset = layout.table as u64;
    read(&mut table, offset)?;
    let found = crc32c::crc32c(&table);
    if found != said {
        return Err(SnapshotError::ChecksumsDamaged { offset, said, found });
    }
    let words = table.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word));
    Ok((superblock, words.take(layout.blocks as usize).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btree::Map;

    #[test]
    fn a_bad_sector_behind_the_pages_is_an_error_and_no_signal() {
        let mut writer = SnapshotWriter::new(Map::new().freeze(Zxid(1)));
        let mut file = Vec::new();
        assert!(!writer.fill(&mut file, usize::MAX), "all of it");
        let read_end_but = |bad: Option<usize>| {
            read_end(file.len() as u64, |bytes, offset| {
                let offset = offset as usize;
                if bad.is_some_and(|bad| (offset..offset + bytes.len()).contains(&bad)) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                bytes.copy_from_slice(&file[offset..offset + bytes.len()]);
                Ok(())
            })
        };
        let (superblock, checksums) = read_end_but(None).unwrap();
        assert_eq!((superblock.zxid, checksums.len()), (Zxid(1), 1));
        let layout = Layout::of(superblock.pages);
        for bad in [layout.table, layout.superblock] {
            let error = read_end_but(Some(bad)).unwrap_err();
            assert!(matches!(error, SnapshotError::Io(_)), "{error}");
        }
    }
}
