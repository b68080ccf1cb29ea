//! One writer and several readers of the versioned map, all running: every version that a reader
//! has is whole, and stays so while the writer uses pages again.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use engine::btree::{Map, Version, View};
use engine::snapshot::SnapshotWriter;
use engine::zxid::Zxid;
use fastrand::Rng;

const ENTRIES: u32 = 3_000;
const GROUPS: u64 = 3_000;
const READERS: u64 = 3;

fn key(number: u32) -> Vec<u8> {
    format!("/threads/{number:06}").into_bytes()
}

/// A value that says of which group and key it is, all over: bytes of another page would show.
fn value(group: u64, number: u32, length: usize) -> Vec<u8> {
    let word = (group << 20 | u64::from(number)).to_le_bytes();
    word.iter().copied().cycle().take(length.max(8)).collect()
}

/// Every value is of its key, and of a group that is not after the version's.
fn check_whole(version: &Version) {
    let mut cursor = version.cursor(&[]);
    let mut newest = 0;
    let mut count = 0;
    while let Some((key_found, bytes)) = cursor.next_entry() {
        let word = u64::from_le_bytes(*bytes.first_chunk().unwrap());
        let (group, number) = (word >> 20, (word & 0xf_ffff) as u32);
        assert_eq!(key_found, key(number));
        assert!(bytes.as_ref() == value(group, number, bytes.len()));
        newest = newest.max(group);
        count += 1;
    }
    // Each group writes a key at least, and nothing after it was there when it was frozen.
    assert_eq!(newest, version.zxid().0);
    assert!(count <= ENTRIES);
}

fn read(versions: &Receiver<Version>, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut slow = Vec::new();
    for version in versions {
        check_whole(&version);
        // Some versions stay for a while, as a snapshot's does, and clones go their own ways.
        if rng.u32(..20) == 0 {
            slow.push(version.clone());
        }
        if slow.len() > 3 {
            check_whole(&slow.swap_remove(rng.usize(..slow.len())));
        }
        if rng.u32(..100) == 0 {
            let mut out = Vec::new();
            let mut writer = SnapshotWriter::new(version);
            while writer.fill(&mut out, usize::MAX) {}
        }
    }
}

fn write(readers: &[SyncSender<Version>]) -> Map {
    let mut rng = Rng::with_seed(0);
    let mut map = Map::new();
    for group in 1..=GROUPS {
        for _ in 0..rng.u32(1..60) {
            let number = rng.u32(..ENTRIES);
            if rng.u32(..4) == 0 {
                map.delete(&key(number));
            } else {
                let length = if rng.u32(..50) == 0 { 9_000 } else { rng.usize(8..300) };
                map.put(&key(number), &value(group, number, length));
            }
        }
        map.put(&key(0), &value(group, 0, 8));
        let version = map.freeze(Zxid(group));
        for reader in readers {
            // A reader that lags skips versions.
            drop(reader.try_send(version.clone()));
        }
    }
    map
}

#[test]
fn readers_see_whole_versions_while_the_writer_writes() {
    let mut map = thread::scope(|scope| {
        let mut senders = Vec::new();
        for seed in 0..READERS {
            let (sender, receiver) = sync_channel(4);
            senders.push(sender);
            scope.spawn(move || read(&receiver, seed));
        }
        write(&senders)
    });
    map.reclaim();
    assert_eq!(map.page_stats().waiting, 0);
    assert_eq!(map.page_stats().versions, 1);
}

#[test]
fn memory_is_provided_ahead_while_the_writer_writes() {
    let mut map = Map::new();
    let growth = map.growth();
    thread::scope(|scope| {
        scope.spawn(move || {
            // A kernel that can't provide memory ahead says so once.
            for _ in 0..50 {
                if growth.grow(8 << 20).is_err() {
                    break;
                }
                thread::yield_now();
            }
        });
        for number in 0..40_000 {
            map.put(&key(number), &value(1, number, 300));
        }
    });
    let version = map.freeze(Zxid(1));
    assert_eq!(version.check().unwrap().entries, 40_000);
}
