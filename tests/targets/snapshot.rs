//! Our own snapshot files: mapped, checked, read and written to.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use engine::btree::{Map, View};
use engine::pages::PAGE_BYTES;
use engine::snapshot::format::SUPERBLOCK_BYTES;
use engine::snapshot::{Snapshot, SnapshotWriter};
use engine::zxid::Zxid;

use super::input::Input;

const BLOCK_BYTES: usize = 16 * PAGE_BYTES;

/// A good file of a few pages: three levels would be many more, so keys are long.
fn sample() -> Vec<u8> {
    let mut map = Map::new();
    for number in 0..60_u32 {
        let mut key = format!("/some/directory/{:05}", number * 7919 % 10_000).into_bytes();
        if number % 2 == 0 {
            key.resize(500, b'k');
        }
        let length = if number % 20 == 0 { 100_000 } else { number as usize * 20 };
        map.put(&key, &vec![number as u8; length]);
    }
    let mut file = Vec::new();
    let mut writer = SnapshotWriter::new(map.freeze(Zxid(1)));
    while writer.fill(&mut file, usize::MAX) {}
    file
}

/// Makes the checksums of a changed file right, so that only the pages themselves can tell.
fn forge(bytes: &mut [u8]) {
    let superblock = bytes.len() - SUPERBLOCK_BYTES;
    let pages = u32::from_le_bytes(*bytes[superblock + 32..].first_chunk().unwrap()) as usize;
    let table = pages * PAGE_BYTES;
    if table >= superblock || superblock < table + pages.div_ceil(16) * 4 {
        return;
    }
    for block in 0..pages.div_ceil(16) {
        let end = table.min((block + 1) * BLOCK_BYTES);
        let checksum = crc32c::crc32c(&bytes[block * BLOCK_BYTES..end]);
        bytes[table + block * 4..][..4].copy_from_slice(&checksum.to_le_bytes());
    }
    let checksum = crc32c::crc32c(&bytes[table..superblock]);
    bytes[superblock + 40..][..4].copy_from_slice(&checksum.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[superblock..superblock + 4092]);
    bytes[superblock + 4092..].copy_from_slice(&checksum.to_le_bytes());
}

/// Reads and writes all over a map, as far as it gets. Pages that make no sense end it: a server
/// ends there, too.
fn use_all(mut map: Map, input: &mut Input<'_>) {
    let version = map.freeze(Zxid(1));
    let mut cursor = version.cursor(&[]);
    // A file may name a page many times.
    for _ in 0..1_000 {
        let Some((key, value)) = cursor.next_entry() else { break };
        std::hint::black_box((key.len(), value.len()));
    }
    for _ in 0..20 {
        let key = format!("/some/directory/{:05}", input.u16() % 10_000).into_bytes();
        std::hint::black_box(map.get(&key).is_some());
        map.put(&key, &vec![1; usize::from(input.u8()) * 8]);
        let near = map.cursor(&key).next_entry().map(|(key, _)| key.to_vec());
        std::hint::black_box(near.is_some_and(|near| map.delete(&near)));
    }
    std::hint::black_box(version.check().is_ok());
}

/// A good file with changes, or whatever the input is.
pub(super) fn read(input: &[u8]) {
    let mut input = Input(input);
    let kind = input.u8();
    let mut bytes = if kind & 1 == 0 { sample() } else { input.0.to_vec() };
    if kind & 1 == 0 {
        let pages = bytes.len() / PAGE_BYTES;
        for _ in 0..1 + kind / 4 % 8 {
            // The last pages are branches, what hurts most is at the beginning of a page.
            let page = usize::from(input.u16());
            let page = if page & 1 == 0 { page / 2 % pages } else { pages - 1 - page / 2 % 8 };
            let at = usize::from(input.u16());
            let at = if at & 1 == 0 { at / 2 % 40 } else { at / 2 % PAGE_BYTES };
            bytes[page * PAGE_BYTES + at] ^= input.u8();
        }
    }
    if kind & 2 == 0 && bytes.len() > SUPERBLOCK_BYTES {
        forge(&mut bytes);
    }
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    let Ok(snapshot) = Snapshot::open(&file) else { return };
    std::hint::black_box(snapshot.check_all().is_ok());
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let ended = catch_unwind(AssertUnwindSafe(|| use_all(Map::open(snapshot), &mut input)));
    std::hint::black_box(ended.is_ok());
    std::panic::set_hook(hook);
}
