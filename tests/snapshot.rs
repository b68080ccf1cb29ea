//! Snapshot files: what is written comes back, and what is damaged is refused.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use engine::btree::{Map, Version, View};
use engine::pages::PAGE_BYTES;
use engine::snapshot::format::SUPERBLOCK_BYTES;
use engine::snapshot::{Snapshot, SnapshotError, SnapshotWriter};
use engine::zxid::Zxid;
use fastrand::Rng;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

const BLOCK_BYTES: usize = 16 * PAGE_BYTES;

/// A map and its model: short and long keys, small and large values.
fn sample(seed: u64, entries: u32) -> (Map, Model) {
    let mut rng = Rng::with_seed(seed);
    let (mut map, mut model) = (Map::new(), Model::new());
    for number in 0..entries {
        let mut key = format!("/some/directory/{}", rng.u32(..)).into_bytes();
        if number % 50 == 0 {
            key.resize(500, b'k');
        }
        let length = match number % 100 {
            0 => rng.usize(1_000..20_000),
            1 if number % 1_000 == 1 => rng.usize(60_000..3_000_000),
            _ => rng.usize(0..200),
        };
        let value = vec![rng.u8(..); length];
        map.put(&key, &value);
        model.insert(key, value);
    }
    (map, model)
}

fn bytes_of(version: Version, piece: usize) -> Vec<u8> {
    let mut writer = SnapshotWriter::new(version);
    let mut file = Vec::new();
    loop {
        let mut out = Vec::new();
        let more = writer.fill(&mut out, piece);
        file.append(&mut out);
        if !more {
            return file;
        }
    }
}

fn open(bytes: &[u8]) -> Result<Snapshot, SnapshotError> {
    let mut file: File = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Snapshot::open(&file)
}

fn compare(view: &impl View, model: &Model) {
    let mut cursor = view.cursor(&[]);
    for (key, value) in model {
        let (found, bytes) = cursor.next_entry().expect("the map has all entries");
        assert_eq!(found, key);
        assert!(bytes.as_ref() == value, "another value at {key:?}");
        assert!(view.get(key).as_deref() == Some(value));
    }
    assert!(cursor.next_entry().is_none());
}

#[test]
fn what_is_written_comes_back() {
    for (seed, entries) in [(1, 0), (2, 1), (3, 40), (4, 3_000), (5, 60_000)] {
        let (mut map, model) = sample(seed, entries);
        let version = map.freeze(Zxid(77));
        let bytes = bytes_of(version.clone(), 1 << 20);
        let snapshot = open(&bytes).unwrap();
        assert_eq!(snapshot.zxid(), Zxid(77));
        snapshot.check_all().unwrap();
        let mut opened = Map::open(snapshot);
        compare(&opened, &model);
        let reopened = opened.freeze(Zxid(77));
        assert_eq!(reopened.check().unwrap(), version.check().unwrap());
        // The same pages give the same bytes, however they are asked for.
        assert!(bytes_of(reopened, 1) == bytes);
        assert!(bytes_of(version, usize::MAX) == bytes);
    }
}

#[test]
fn an_opened_map_can_be_written_to() {
    for load in [false, true] {
        let (mut map, mut model) = sample(6, 20_000);
        let snapshot = open(&bytes_of(map.freeze(Zxid(1)), 1 << 16)).unwrap();
        let mut map = Map::open(snapshot);
        let first = map.freeze(Zxid(1));
        let original = model.clone();
        let mut loader = map.loader();
        let mut rng = Rng::with_seed(9);
        let keys: Vec<Vec<u8>> = model.keys().cloned().collect();
        for turn in 0..30_000 {
            let key = rng.choice(&keys).unwrap();
            if rng.bool() {
                assert_eq!(map.delete(key), model.remove(key).is_some());
            } else {
                map.put(key, b"new");
                model.insert(key.clone(), b"new".to_vec());
            }
            if turn % 100 == 0 {
                map.freeze(Zxid(2));
                if load {
                    loader.step().unwrap();
                }
            }
        }
        compare(&map, &model);
        compare(&first, &original);
        map.rollback(&first);
        compare(&map, &original);
        drop(first);
        for key in original.keys() {
            assert!(map.delete(key));
        }
        map.freeze(Zxid(3));
        let stats = map.page_stats();
        assert_eq!((stats.used, stats.waiting), (1, 0), "{stats:?}");
    }
}

#[test]
fn loaded_pages_are_used_again() {
    let (mut map, model) = sample(7, 30_000);
    let bytes = bytes_of(map.freeze(Zxid(1)), 1 << 16);
    let mut map = Map::open(open(&bytes).unwrap());
    let mut loader = map.loader();
    while loader.step().unwrap() {}
    for round in 0..3_u64 {
        for key in model.keys() {
            map.put(key, &round.to_le_bytes());
        }
        map.freeze(Zxid(round));
    }
    let stats = map.page_stats();
    let pages = bytes.len() / PAGE_BYTES;
    assert!(stats.used + stats.free <= pages + pages / 10, "{stats:?}, {pages} pages in the file");
}

#[test]
fn the_file_is_let_go_when_nobody_is_in_it_any_more() {
    let (mut map, mut model) = sample(8, 30_000);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    fs::write(&path, bytes_of(map.freeze(Zxid(1)), 1 << 16)).unwrap();
    let is_mapped =
        || fs::read_to_string("/proc/self/maps").unwrap().contains(path.to_str().unwrap());
    let mut map = Map::open(Snapshot::open(&File::open(&path).unwrap()).unwrap());
    let mut loader = map.loader();
    let first = map.freeze(Zxid(1));
    let original = model.clone();
    while loader.step().unwrap() {}
    map.put(b"/new", b"");
    model.insert(b"/new".to_vec(), Vec::new());
    map.freeze(Zxid(2));
    assert!(!loader.step().unwrap());
    assert!(is_mapped(), "for the first version");
    compare(&first, &original);
    drop(first);
    map.freeze(Zxid(3));
    assert!(!loader.step().unwrap());
    assert!(!is_mapped());
    compare(&map, &model);
}

/// A snapshot of format version 1, as it was written on 2026-11-27, and what it holds.
#[test]
fn the_golden_snapshot_is_read_and_would_be_written() {
    let (mut map, mut model) = (Map::new(), Model::new());
    for number in 0..300_usize {
        let (key, length) = (format!("/golden/{number:06}").into_bytes(), number * number % 211);
        let length = if number == 150 { 20_000 } else { length };
        let value = vec![number as u8; length];
        map.put(&key, &value);
        model.insert(key, value);
    }
    let written = bytes_of(map.freeze(Zxid(0x1_0000_0007)), 1 << 20);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/snapshot-1");
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        fs::write(&path, &written).unwrap();
    }
    let golden = fs::read(path).unwrap();
    let snapshot = open(&golden).unwrap();
    assert_eq!(snapshot.zxid(), Zxid(0x1_0000_0007));
    compare(&Map::open(snapshot), &model);
    assert!(golden == written, "another file is written today");
}

#[test]
fn a_truncated_file_is_refused() {
    let (mut map, _) = sample(8, 5_000);
    let bytes = bytes_of(map.freeze(Zxid(1)), 1 << 16);
    let mut rng = Rng::with_seed(1);
    assert!(open(&bytes[1..]).is_err());
    for _ in 0..50 {
        let length = rng.usize(1..bytes.len());
        assert!(open(&bytes[..length]).is_err(), "{length} bytes");
        let whole_pages = length / PAGE_BYTES * PAGE_BYTES;
        assert!(whole_pages == 0 || open(&bytes[..whole_pages]).is_err(), "{whole_pages} bytes");
    }
}

#[test]
fn any_flipped_bit_is_found_and_named() {
    let (mut map, _) = sample(9, 3_000);
    let good = bytes_of(map.freeze(Zxid(1)), 1 << 16);
    let mut rng = Rng::with_seed(2);
    for _ in 0..200 {
        let mut bytes = good.clone();
        let at = rng.usize(..bytes.len());
        bytes[at] ^= 1 << rng.u8(..8);
        let error = open(&bytes).and_then(|snapshot| snapshot.check_all()).unwrap_err();
        let block = at / BLOCK_BYTES * BLOCK_BYTES;
        let message = error.to_string();
        let in_pages = matches!(error, SnapshotError::BlockDamaged { .. });
        assert!(!in_pages || message.contains(&format!("offset {block}:")), "{at}: {message}");
    }
}

/// Makes the checksums of a damaged file right, so that only the pages themselves can tell.
fn forge(bytes: &mut [u8]) {
    let superblock = bytes.len() - SUPERBLOCK_BYTES;
    let pages = u32::from_le_bytes(*bytes[superblock + 32..].first_chunk().unwrap()) as usize;
    let table = pages * PAGE_BYTES;
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

/// Reads and writes all over a map, as far as it gets.
fn use_all(mut map: Map, rng: &mut Rng) {
    let version = map.freeze(Zxid(1));
    let mut cursor = version.cursor(&[]);
    while let Some((key, value)) = cursor.next_entry() {
        std::hint::black_box((key.len(), value.len()));
    }
    for _ in 0..200 {
        let key = format!("/some/directory/{}", rng.u32(..)).into_bytes();
        std::hint::black_box(map.get(&key).is_some());
        map.put(&key, &vec![1; rng.usize(0..3_000)]);
        let near = map.cursor(&key).next_entry().map(|(key, _)| key.to_vec());
        std::hint::black_box(near.is_some_and(|near| map.delete(&near)));
    }
    std::hint::black_box(version.check().is_ok());
}

/// A forged file is refused, or it is read without harm; a page that turns out to be senseless
/// later ends in a panic (which ends the process).
#[test]
fn a_forged_file_does_no_harm() {
    let (mut map, _) = sample(10, 2_000);
    let good = bytes_of(map.freeze(Zxid(1)), 1 << 16);
    let pages = good.len() / PAGE_BYTES - 2;
    let mut rng = Rng::with_seed(3);
    let mut refused = 0;
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for round in 0..1_000 {
        let mut bytes = good.clone();
        for _ in 0..rng.usize(1..4) {
            // Headers and slots are where it hurts; the root concerns everybody.
            let page = if rng.bool() { pages - 1 } else { rng.usize(..pages) };
            let end = if rng.bool() { 40 } else { PAGE_BYTES };
            let at = page * PAGE_BYTES + rng.usize(8..end);
            bytes[at] = if rng.bool() { rng.u8(..) } else { bytes[at] ^ (1 << rng.u8(..8)) };
        }
        forge(&mut bytes);
        let snapshot = open(&bytes).unwrap();
        refused += u32::from(snapshot.check_all().is_err());
        // Even a file that was refused, or not looked at, must not do more than panic.
        let ended = catch_unwind(AssertUnwindSafe(|| use_all(Map::open(snapshot), &mut rng)));
        std::hint::black_box((round, ended.is_ok()));
    }
    std::panic::set_hook(hook);
    assert!(refused > 300, "{refused} of 1000 forgeries were refused by looking at pages alone");
}
