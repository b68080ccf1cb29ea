//! The versioned map against a `BTreeMap`: random operations, held versions, rollbacks.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::btree::{KEY_BYTES_MAX, Map, Version, View};
use engine::zxid::Zxid;
use fastrand::Rng;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a run is made of. Small values keep long runs short.
#[derive(Clone, Copy)]
struct Options {
    seed: u64,
    operations: u32,
    /// Distinct names; the map has about half as many entries.
    names: u32,
    /// One value in so many is large.
    large_one_in: u32,
    large_bytes_max: usize,
    held_max: usize,
}

const USUAL: Options = Options {
    seed: 1,
    operations: 300_000,
    names: 6_000,
    large_one_in: 200,
    large_bytes_max: 40_000,
    held_max: 8,
};

struct Run {
    rng: Rng,
    options: Options,
    map: Map,
    model: Arc<Model>,
    held: Vec<(Version, Arc<Model>)>,
    /// Held versions that a rollback dropped: they can be read, and that is all.
    abandoned: Vec<(Version, Arc<Model>)>,
    zxid: u64,
    /// Out of 100 writes, how many are deletes: goes up and down, so that the map does too.
    deletes: u32,
}

fn check(options: Options) {
    let mut run = Run {
        rng: Rng::with_seed(options.seed),
        options,
        map: Map::new(),
        model: Arc::default(),
        held: Vec::new(),
        abandoned: Vec::new(),
        zxid: 0,
        deletes: 30,
    };
    for operation in 0..options.operations {
        run.step();
        if operation % (options.operations / 10) == 0 {
            run.deletes = run.rng.u32(10..90);
            run.audit();
        }
    }
    run.finish();
}

impl Run {
    fn step(&mut self) {
        match self.rng.u32(0..1000) {
            0..5 => self.freeze(),
            5..7 => {
                if !self.held.is_empty() {
                    let index = self.rng.usize(0..self.held.len());
                    self.held.swap_remove(index);
                    self.abandoned.pop();
                    self.map.reclaim();
                }
            }
            7 => self.roll_back(),
            8..12 => self.scan(),
            12..100 => {
                let key = self.key();
                let expected = self.model.get(&key).map(Vec::as_slice);
                assert_eq!(self.map.get(&key).as_deref(), expected);
            }
            _ if self.rng.u32(0..100) < self.deletes => {
                let key = self.key();
                let there = Arc::make_mut(&mut self.model).remove(&key).is_some();
                assert_eq!(self.map.delete(&key), there);
            }
            _ => {
                let (key, value) = (self.key(), self.value());
                self.look_some(&key);
                self.map.put(&key, &value);
                Arc::make_mut(&mut self.model).insert(key, value);
            }
        }
    }

    /// Looks up the key, others, or none, and may write one of the others: what the map remembers
    /// of where it has been must never lead a put to a wrong place.
    fn look_some(&mut self, key: &[u8]) {
        for _ in 0..self.rng.u32(0..3) {
            let other = if self.rng.bool() { key.to_vec() } else { self.key() };
            let expected = self.model.get(&other).map(Vec::as_slice);
            assert_eq!(self.map.get(&other).as_deref(), expected);
            match self.rng.u32(0..1000) {
                0..100 => {
                    let value = self.value();
                    self.map.put(&other, &value);
                    Arc::make_mut(&mut self.model).insert(other, value);
                }
                100..200 => {
                    let there = Arc::make_mut(&mut self.model).remove(&other).is_some();
                    assert_eq!(self.map.delete(&other), there);
                }
                200..203 => self.freeze(),
                203 => self.roll_back(),
                _ => {}
            }
        }
    }

    fn key(&mut self) -> Vec<u8> {
        let number = self.rng.u32(0..self.options.names);
        match number % 8 {
            // Directories of numbered names, as most trees have them.
            0..4 => format!("/app/{}/node-{number:010}", number % 5).into_bytes(),
            // Names that end within the four bytes that are compared first, and zeros.
            4 => number.to_be_bytes()[..1 + number as usize % 4].to_vec(),
            5 => vec![0; number as usize % 40],
            // Long names that differ late.
            6 => {
                let mut key = vec![b'x'; KEY_BYTES_MAX - 4 - number as usize % 3];
                key.extend_from_slice(&number.to_be_bytes());
                key.truncate(KEY_BYTES_MAX);
                key
            }
            // Names that differ early and are long.
            _ => {
                let mut key = number.to_le_bytes().to_vec();
                key.resize(4 + number as usize % (KEY_BYTES_MAX - 4), b'y');
                key
            }
        }
    }

    fn value(&mut self) -> Vec<u8> {
        let length = if self.rng.u32(0..self.options.large_one_in) == 0 {
            self.rng.usize(1_000..self.options.large_bytes_max)
        } else if self.rng.u32(0..20) == 0 {
            self.rng.usize(1_000..1_050)
        } else {
            self.rng.usize(0..200)
        };
        let byte = self.rng.u8(..);
        (0..length).map(|index| byte.wrapping_add((index / 251) as u8)).collect()
    }

    fn freeze(&mut self) {
        self.zxid += 1;
        let version = self.map.freeze(Zxid(self.zxid));
        assert_eq!(version.zxid(), Zxid(self.zxid));
        assert!(self.held.iter().all(|(held, _)| held.number() < version.number()));
        if self.held.len() < self.options.held_max {
            self.held.push((version, Arc::clone(&self.model)));
        }
    }

    fn roll_back(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let index = self.rng.usize(0..self.held.len());
        let (version, model) = self.held[index].clone();
        self.map.rollback(&version);
        self.model = model;
        // Newer ones stay held for a while, as by a reader that has not heard of it yet.
        let newer = |held: &(Version, Arc<Model>)| held.0.number() > version.number();
        self.abandoned.extend(self.held.extract_if(.., |held| newer(held)));
        self.abandoned.truncate(self.options.held_max);
    }

    fn scan(&mut self) {
        let from = self.key();
        let mut cursor = self.map.cursor(&from);
        let mut expected = self.model.range(from..);
        for _ in 0..self.rng.u32(1..100) {
            let (found, expected) = (cursor.next_entry(), expected.next());
            let expected = expected.map(|(key, value)| (key.as_slice(), value.as_slice()));
            assert_eq!(found.as_ref().map(|(key, value)| (*key, value.as_ref())), expected);
            if expected.is_none() {
                break;
            }
        }
    }

    /// Everything that can be checked at any time.
    fn audit(&mut self) {
        compare(&self.map, &self.model);
        for (version, model) in self.held.iter().chain(&self.abandoned) {
            compare(version, model);
            let stats = version.check().unwrap();
            assert_eq!(stats.entries, model.len());
        }
        self.zxid += 1;
        let tree = self.map.freeze(Zxid(self.zxid)).check().unwrap();
        let pages = self.map.page_stats();
        assert_eq!(pages.used - pages.waiting, tree.pages, "{pages:?} {tree:?}");
    }

    /// When nobody holds anything, no page waits; when nothing is left, one page is in use.
    fn finish(&mut self) {
        self.audit();
        self.held.clear();
        self.abandoned.clear();
        self.audit();
        assert_eq!(self.map.page_stats().waiting, 0);
        for key in self.model.keys() {
            assert!(self.map.delete(key));
        }
        self.model = Arc::default();
        self.audit();
        self.map.reclaim();
        assert_eq!(self.map.page_stats().used, 1);
    }
}

fn compare(view: &impl View, model: &Model) {
    let mut cursor = view.cursor(&[]);
    for (key, value) in model {
        let (found, bytes) = cursor.next_entry().expect("the map has all entries");
        assert_eq!((found, bytes.as_ref()), (key.as_slice(), value.as_slice()));
        assert_eq!(view.get(key).as_deref(), Some(value.as_slice()));
    }
    assert!(cursor.next_entry().is_none());
}

#[test]
fn small_maps_behave_like_the_model() {
    for seed in 0..20 {
        check(Options { seed, operations: 5_000, names: 200, ..USUAL });
    }
}

#[test]
fn a_map_of_thousands_behaves_like_the_model() {
    check(USUAL);
}

#[test]
fn a_map_without_held_versions_behaves_like_the_model() {
    check(Options { seed: 2, operations: 400_000, names: 30_000, held_max: 1, ..USUAL });
}

#[test]
fn many_held_versions_behave_like_the_model() {
    check(Options { seed: 3, held_max: 60, ..USUAL });
}

#[test]
fn very_large_values_behave_like_the_model() {
    let options = Options { seed: 4, operations: 3_000, names: 60, large_one_in: 10, ..USUAL };
    check(Options { large_bytes_max: 5_000_000, ..options });
}
