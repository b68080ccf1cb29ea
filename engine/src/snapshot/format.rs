//! The bytes of a snapshot file, but for its pages. `docs/format.md` explains them.
//!
//! ```text
//!   pages | checksum of each block of 16 pages, u32, zero-padded to a page | superblock
//! ```

use super::SnapshotError;
use crate::pages::{BLOCK_PAGES, PAGE_BYTES};
use crate::zxid::Zxid;

/// A snapshot file ends with a block that begins with this.
pub const MAGIC: [u8; 8] = *b"RINGSNAP";
/// The format that is written.
pub const FORMAT_VERSION: u32 = 1;
/// Features that a reader must know; none yet.
pub const FEATURES_KNOWN: u64 = 0;
/// Bytes of the superblock.
pub const SUPERBLOCK_BYTES: usize = PAGE_BYTES;
/// Bytes of a checksum.
pub const CHECKSUM_BYTES: usize = 4;

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = 8;
const PAGE_BYTES_AT: usize = 12;
const FEATURES_AT: usize = 16;
const ZXID_AT: usize = 24;
const PAGES_AT: usize = 32;
const ROOT_AT: usize = 36;
const TABLE_CHECKSUM_AT: usize = 40;
const CHECKSUM_AT: usize = SUPERBLOCK_BYTES - CHECKSUM_BYTES;

/// Where things are in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) blocks: u32,
    pub(super) table: usize,
    pub(super) superblock: usize,
    pub(super) length: u64,
}

impl Layout {
    pub(super) fn of(pages: u32) -> Self {
        let blocks = pages.div_ceil(BLOCK_PAGES);
        let table = pages as usize * PAGE_BYTES;
        let table_bytes = (blocks as usize * CHECKSUM_BYTES).next_multiple_of(PAGE_BYTES);
        let superblock = table + table_bytes;
        Self { blocks, table, superblock, length: (superblock + SUPERBLOCK_BYTES) as u64 }
    }
}

/// What the last block of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) zxid: Zxid,
    pub(super) pages: u32,
    pub(super) root: u32,
    pub(super) table_checksum: u32,
}

fn u32_at(block: &[u8; SUPERBLOCK_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(*block[at..].first_chunk().expect("a field is within the superblock"))
}

fn u64_at(block: &[u8; SUPERBLOCK_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(*block[at..].first_chunk().expect("a field is within the superblock"))
}

impl Superblock {
    pub(super) fn encode(&self) -> [u8; SUPERBLOCK_BYTES] {
        let mut block = [0; SUPERBLOCK_BYTES];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(MAGIC_AT, &MAGIC);
        put(VERSION_AT, &FORMAT_VERSION.to_le_bytes());
        put(PAGE_BYTES_AT, &(PAGE_BYTES as u32).to_le_bytes());
        put(FEATURES_AT, &FEATURES_KNOWN.to_le_bytes());
        put(ZXID_AT, &self.zxid.0.to_le_bytes());
        put(PAGES_AT, &self.pages.to_le_bytes());
        put(ROOT_AT, &self.root.to_le_bytes());
        put(TABLE_CHECKSUM_AT, &self.table_checksum.to_le_bytes());
        let checksum = crc32c::crc32c(&block[..CHECKSUM_AT]);
        block[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        block
    }

    /// Reads the block found at `offset` of a file.
    pub(super) fn decode(
        block: &[u8; SUPERBLOCK_BYTES],
        offset: u64,
    ) -> Result<Self, SnapshotError> {
        if block[MAGIC_AT..VERSION_AT] != MAGIC {
            return Err(SnapshotError::NoSuperblock { offset });
        }
        // The version comes before the checksum: a later format may have the checksum elsewhere.
        let version = u32_at(block, VERSION_AT);
        let page_bytes = u32_at(block, PAGE_BYTES_AT);
        let features = u64_at(block, FEATURES_AT);
        let unsupported = SnapshotError::Unsupported { version, features, page_bytes };
        let (said, found) = (u32_at(block, CHECKSUM_AT), crc32c::crc32c(&block[..CHECKSUM_AT]));
        let damaged = SnapshotError::SuperblockDamaged { offset, said, found };
        if version != FORMAT_VERSION {
            let mut ours = *block;
            ours[VERSION_AT..PAGE_BYTES_AT].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
            // Of this format after all, but for a damaged number.
            let is_ours = said == crc32c::crc32c(&ours[..CHECKSUM_AT]);
            return Err(if is_ours { damaged } else { unsupported });
        }
        if said != found {
            return Err(damaged);
        }
        if features & !FEATURES_KNOWN != 0 || page_bytes as usize != PAGE_BYTES {
            return Err(unsupported);
        }
        Ok(Self {
            zxid: Zxid(u64_at(block, ZXID_AT)),
            pages: u32_at(block, PAGES_AT),
            root: u32_at(block, ROOT_AT),
            table_checksum: u32_at(block, TABLE_CHECKSUM_AT),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUPERBLOCK: Superblock =
        Superblock { zxid: Zxid(0x1_0000_0002), pages: 33, root: 32, table_checksum: 0xdead_beef };

    #[test]
    fn a_superblock_comes_back() {
        assert_eq!(Superblock::decode(&SUPERBLOCK.encode(), 0).unwrap(), SUPERBLOCK);
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let good = SUPERBLOCK.encode();
        for bit in (0..SUPERBLOCK_BYTES * 8).step_by(7) {
            let mut block = good;
            block[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&block, 0).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_later_format_is_named() {
        let mut block = SUPERBLOCK.encode();
        block[VERSION_AT] = 2;
        let error = Superblock::decode(&block, 0).unwrap_err().to_string();
        assert!(error.starts_with("superblock at offset 0"), "a damaged number: {error}");
        let checksum = crc32c::crc32c(&block[..CHECKSUM_AT]);
        block[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        let error = Superblock::decode(&block, 0).unwrap_err();
        assert_eq!(error.to_string(), "format version 2, features 0x0, pages of 4096 bytes");
    }

    #[test]
    fn what_this_reader_does_not_know_is_named() {
        let refused = |at: usize, to: u8| {
            let mut block = SUPERBLOCK.encode();
            block[at] = to;
            let error = Superblock::decode(&block, 0).unwrap_err();
            assert!(matches!(error, SnapshotError::SuperblockDamaged { .. }), "{error}");
            let checksum = crc32c::crc32c(&block[..CHECKSUM_AT]);
            block[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
            Superblock::decode(&block, 0).unwrap_err().to_string()
        };
        let features =
            |features| format!("format version 1, features {features}, pages of 4096 bytes");
        assert_eq!(refused(FEATURES_AT, 5), features("0x5"));
        assert_eq!(refused(FEATURES_AT + 7, 0x80), features("0x8000000000000000"));
        let page_bytes = refused(PAGE_BYTES_AT + 1, 0x20);
        assert_eq!(page_bytes, "format version 1, features 0x0, pages of 8192 bytes");
    }

    #[test]
    fn the_table_is_padded() {
        let layout =
            |blocks, table, superblock, length| Layout { blocks, table, superblock, length };
        assert_eq!(Layout::of(1), layout(1, 4096, 8192, 12_288));
        assert_eq!(Layout::of(16), layout(1, 65_536, 69_632, 73_728));
        assert_eq!(Layout::of(17), layout(2, 69_632, 73_728, 77_824));
        let pages = 16 * 1025;
        let table = pages as usize * 4096;
        assert_eq!(Layout::of(pages).superblock, table + 8192);
    }

    /// The document and the code say the same.
    #[test]
    fn the_document_has_the_offsets() {
        let zero_from = TABLE_CHECKSUM_AT + CHECKSUM_BYTES;
        let fields = [
            (MAGIC_AT, 8, "magic"),
            (VERSION_AT, 4, "format version"),
            (PAGE_BYTES_AT, 4, "page size"),
            (FEATURES_AT, 8, "features"),
            (ZXID_AT, 8, "zxid"),
            (PAGES_AT, 4, "pages"),
            (ROOT_AT, 4, "root"),
            (TABLE_CHECKSUM_AT, CHECKSUM_BYTES, "table checksum"),
            (zero_from, CHECKSUM_AT - zero_from, "zero"),
            (CHECKSUM_AT, CHECKSUM_BYTES, "checksum"),
        ];
        crate::format_document::assert_fields("### Superblock", &fields);
    }
}
