//! Edges of the map that random operations meet rarely, and damage that a check must find.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::check;
use super::node::{Node, VALUE_INLINE_MAX};
use super::overflow::DATA_BYTES;
use super::*;
use crate::pages::body_of;

fn key(number: u32) -> Vec<u8> {
    format!("/directory/{number:08}").into_bytes()
}

fn filled(numbers: impl Iterator<Item = u32>) -> Map {
    let mut map = Map::new();
    for number in numbers {
        map.put(&key(number), &[number as u8; 100]);
    }
    map
}

/// How full the leaves are, in percent.
fn fill_percent(map: &mut Map) -> usize {
    let stats = map.freeze(Zxid(1)).check().unwrap();
    stats.leaf_bytes * 100 / (stats.leaves * node::ROOM)
}

#[test]
fn values_of_any_length_come_back() {
    let lengths = [
        0,
        1,
        VALUE_INLINE_MAX - 1,
        VALUE_INLINE_MAX,
        VALUE_INLINE_MAX + 1,
        DATA_BYTES - 1,
        DATA_BYTES,
        DATA_BYTES + 1,
        16 * DATA_BYTES,
        16 * DATA_BYTES + 1,
        1_021 * DATA_BYTES + 1,
        16 * 1_021 * DATA_BYTES + 1,
    ];
    let mut map = filled(0..100);
    let baseline = map.page_stats().used;
    for length in lengths {
        for before in [0, 700, 5_000] {
            let value: Vec<u8> = (0..length).map(|index| (index / 3) as u8).collect();
            map.put(&key(50), &vec![9; before]);
            map.put(&key(50), &value);
            assert!(map.get(&key(50)).unwrap() == value, "{length} bytes after {before}");
            let stats = map.freeze(Zxid(1)).check().unwrap();
            assert_eq!(stats.entries, 100);
        }
    }
    map.put(&key(50), &[50; 100]);
    map.freeze(Zxid(2));
    assert!(map.page_stats().used <= baseline + 2, "{:?}", map.page_stats());
}

#[test]
fn keys_that_end_in_zeros_are_ordered() {
    let mut keys: Vec<Vec<u8>> = (0..12).map(|zeros| vec![0; zeros]).collect();
    keys.extend((0..12).map(|zeros| [&b"a"[..], &vec![0; zeros]].concat()));
    keys.extend((0..12).map(|zeros| [&b"abcd"[..], &vec![0; zeros], b"x"].concat()));
    keys.sort();
    let mut map = Map::new();
    for key in keys.iter().rev().chain(&keys) {
        map.put(key, key);
    }
    let mut cursor = map.cursor(&[]);
    for key in &keys {
        assert_eq!(cursor.next_entry().unwrap().0, key);
        assert_eq!(map.get(key).unwrap(), *key);
    }
    assert!(cursor.next_entry().is_none());
}

#[test]
fn a_key_over_the_limit_is_a_bug_of_the_caller() {
    let mut map = Map::new();
    map.put(&[1; KEY_BYTES_MAX], b"longest");
    assert_eq!(map.get(&[1; KEY_BYTES_MAX]).unwrap().as_ref(), b"longest");
    let put = || map.put(&[1; KEY_BYTES_MAX + 1], b"too long");
    assert!(catch_unwind(AssertUnwindSafe(put)).is_err());
}

#[test]
fn pages_are_well_filled() {
    let ordered = fill_percent(&mut filled(0..50_000));
    assert!(ordered >= 90, "{ordered} % when keys come in order");
    // A multiplicative step visits all numbers below a power of two in a scattered order.
    let scattered = (0..1_u32 << 16).map(|number| number.wrapping_mul(40_503) & 0xffff);
    let random = fill_percent(&mut filled(scattered));
    assert!(random >= 76, "{random} % when they do not");
    // Several directories that grow at their ends, in turn.
    let turns = (0..50_000).map(|number| number % 10 * 1_000_000 + number / 10);
    let directories = fill_percent(&mut filled(turns));
    assert!(directories >= 85, "{directories} % when they do so in several places");
}

#[test]
fn a_cursor_begins_anywhere() {
    let map = filled((0..2_000).map(|number| number * 2));
    for from in (0..4_001).step_by(7) {
        let found = map.cursor(&key(from)).next_entry().map(|(key, _)| key.to_vec());
        let expected = from.next_multiple_of(2);
        assert_eq!(found, (expected < 4_000).then(|| key(expected)), "from {from}");
    }
    assert!(map.cursor(b"0").next_entry().is_none());
    assert_eq!(map.cursor(b"").next_entry().unwrap().0, key(0));
}

/// Damages a sound map and says what the check finds.
#[track_caller]
fn check(damage: impl FnOnce(&mut Map, u32), expect: &str) {
    let mut map = filled(0..500);
    map.put(&key(3), &vec![1; 200_000]);
    check::tree(map.root()).unwrap();
    // The leaf that has key 3, which is the first one.
    let leaf = map.root().node().child(0);
    damage(&mut map, leaf);
    let error = check::tree(map.root()).unwrap_err();
    assert!(error.to_string().contains(expect), "{error}");
}

fn node(map: &Map, page: u32) -> Node<'_> {
    Node::new(body_of(map.tree.store.page(page)))
}

#[test]
fn a_check_finds_damage() {
    let edit = |map: &mut Map, page, at: usize, value: u8| map.tree.store.edit(page)[at] = value;
    check(|map, leaf| edit(map, leaf, 0, 7), "it is of kind 7");
    // A leaf that says that it is a branch has no children as values.
    check(|map, leaf| edit(map, leaf, 1, 5), "entry 0 has a malformed value");
    check(|map, leaf| edit(map, leaf, 3, 1), "its contents reach over their bounds");
    check(|map, leaf| edit(map, leaf, 5, 0xff), "its contents reach over their bounds");
    check(
        |map, leaf| {
            let live = node(map, leaf).live();
            edit(map, leaf, 8, live as u8 ^ 1);
        },
        "bytes in use, and there are",
    );
    check(
        |map, leaf| {
            let slot = node::HEADER_BYTES + node(map, leaf).prefix().len();
            edit(map, leaf, slot, 0xff);
        },
        "is out of order",
    );
    check(
        |map, leaf| {
            let other = map.root().node().child(1);
            map.tree.store.edit(map.tree.root)[12..16].copy_from_slice(&other.to_le_bytes());
            assert_ne!(leaf, other);
        },
        "is out of order",
    );
    check(
        |map, leaf| {
            // The length of the large value, in its reference.
            let cell = node(map, leaf).cell(3);
            assert!(cell.large);
            let at = node(map, leaf).offset(3) + node::CELL_HEADER_BYTES + cell.rest.len();
            let low = map.tree.store.edit(leaf)[at];
            edit(map, leaf, at, low - 1);
        },
        "the value of entry 3 has another length than it says",
    );
}
