//! Which pages the versioned map keeps: for each held version those it sees, and no others.

use engine::btree::{Map, Version, View};
use engine::zxid::Zxid;
use fastrand::Rng;

const ENTRIES: u32 = 20_000;

fn key(number: u32) -> [u8; 4] {
    number.wrapping_mul(0x9e37_79b9).to_be_bytes()
}

fn filled() -> Map {
    let mut map = Map::new();
    for number in 0..ENTRIES {
        map.put(&key(number), &[1; 100]);
    }
    map.freeze(Zxid(1));
    map
}

/// Updates so many random entries, in groups of 50, each frozen and held by a reader that is
/// two groups behind.
fn churn(map: &mut Map, updates: u32, rng: &mut Rng) {
    let mut reader = Vec::new();
    for update in 0..updates {
        map.put(&key(rng.u32(0..ENTRIES)), &[rng.u8(..); 100]);
        if update % 50 == 0 {
            reader.push(map.freeze(Zxid(2)));
            if reader.len() > 2 {
                reader.remove(0);
            }
        }
    }
    drop(reader);
    map.freeze(Zxid(3));
    map.reclaim();
}

/// Pages in use, with the oldest version held for `updates` updates.
fn used_with_a_slow_holder(updates: u32) -> (usize, usize) {
    let mut map = filled();
    let baseline = map.page_stats().used;
    let slow = map.freeze(Zxid(1));
    churn(&mut map, updates, &mut Rng::with_seed(1));
    let used = map.page_stats().used;
    assert_eq!(slow.cursor(&[]).next_entry().unwrap().1.as_ref(), [1; 100]);
    (baseline, used)
}

#[test]
fn a_version_held_for_long_costs_one_copy_at_most() {
    for updates in [20_000, 200_000, 400_000] {
        let (baseline, used) = used_with_a_slow_holder(updates);
        assert!(used <= 2 * baseline + 300, "{used} pages in use, {baseline} at first");
    }
}

#[test]
fn pages_come_back_when_versions_go() {
    let mut map = filled();
    let baseline = map.page_stats().used;
    let mut rng = Rng::with_seed(2);
    let mut held: Vec<Version> = Vec::new();
    for round in 0..10 {
        for _ in 0..20 {
            churn(&mut map, 200, &mut rng);
            held.push(map.freeze(Zxid(round)));
        }
        assert!(map.page_stats().waiting > 0);
        // In any order: oldest first, newest first, at random.
        while !held.is_empty() {
            let before = map.page_stats();
            drop(held.remove(match round % 3 {
                0 => 0,
                1 => held.len() - 1,
                _ => rng.usize(..held.len()),
            }));
            map.reclaim();
            assert!(map.page_stats().used <= before.used);
        }
        map.freeze(Zxid(round));
        let stats = map.page_stats();
        assert_eq!(stats.waiting, 0, "{stats:?}");
        assert!(stats.used <= baseline + baseline / 10, "{stats:?}, {baseline} at first");
    }
}

#[test]
fn a_map_that_shrinks_gives_its_pages_back() {
    let mut map = filled();
    let full = map.page_stats().used;
    for number in 0..ENTRIES {
        if number % 10 != 0 {
            assert!(map.delete(&key(number)));
        }
    }
    map.freeze(Zxid(2));
    let used = map.page_stats().used;
    assert!(used < full / 4, "{used} of {full} pages in use for a tenth of the entries");
    for number in (0..ENTRIES).step_by(10) {
        assert!(map.delete(&key(number)));
    }
    map.freeze(Zxid(3));
    assert_eq!(map.page_stats().used, 1);
}

#[test]
fn a_rollback_gives_back_what_was_written_since() {
    let mut map = filled();
    let mut rng = Rng::with_seed(3);
    let version = map.freeze(Zxid(2));
    let before = map.page_stats();
    for _ in 0..5 {
        churn(&mut map, 1_000, &mut rng);
        for number in 0..100 {
            map.put(&key(number), &[3; 50_000]);
        }
        let abandoned = map.freeze(Zxid(4));
        map.rollback(&version);
        assert_eq!(map.page_stats().used - map.page_stats().waiting, before.used - before.waiting);
        assert_eq!(abandoned.get(&key(7)).unwrap().len(), 50_000);
        drop(abandoned);
        map.freeze(Zxid(2));
        assert_eq!(map.page_stats().used, before.used);
        assert_eq!(map.get(&key(7)).unwrap().as_ref(), [1; 100]);
    }
}

#[test]
fn version_numbers_are_not_used_again_after_a_rollback() {
    let mut map = Map::new();
    let first = map.freeze(Zxid(1));
    map.put(b"a", b"1");
    let second = map.freeze(Zxid(2));
    map.rollback(&first);
    assert_eq!(map.get(b"a"), None);
    map.put(b"a", b"2");
    let third = map.freeze(Zxid(2));
    assert!(third.number() > second.number());
    assert_eq!(second.get(b"a").as_deref(), Some(&b"1"[..]));
    assert_eq!(third.get(b"a").as_deref(), Some(&b"2"[..]));
}
