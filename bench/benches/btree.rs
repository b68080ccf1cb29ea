//! The versioned map at a million entries: what the design promises of it, measured.
//!
//! Entries are like znodes: paths of 30 bytes behind a key space byte and a depth, values of 125.

use std::hint::black_box;
use std::io::Write;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use engine::btree::{Map, View};
use engine::snapshot::{Snapshot, SnapshotWriter};
use engine::zxid::Zxid;
use fastrand::Rng;

const ENTRIES: u32 = 1_000_000;
const VALUE_BYTES: usize = 125;
const BATCHES: [u64; 4] = [1, 8, 64, 512];

fn key(number: u32) -> Vec<u8> {
    let directory = number % 1000;
    format!("z\u{3}/app/services-{directory:04}/n{number:010}").into_bytes()
}

fn value(rng: &mut Rng) -> Vec<u8> {
    std::iter::repeat_with(|| rng.u8(..)).take(VALUE_BYTES).collect()
}

/// A map of all entries, written in groups of 64.
fn filled(order: &[u32]) -> Map {
    let mut rng = Rng::with_seed(7);
    let mut map = Map::new();
    for (number, zxid) in order.iter().zip(1..) {
        map.put(&key(*number), &value(&mut rng));
        if zxid % 64 == 0 {
            map.freeze(Zxid(zxid));
        }
    }
    map
}

fn ordered() -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..ENTRIES).collect();
    numbers.sort_by_key(|number| key(*number));
    numbers
}

fn shuffled() -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..ENTRIES).collect();
    Rng::with_seed(3).shuffle(&mut numbers);
    numbers
}

fn report_memory(what: &str, map: &mut Map) {
    let pages = map.page_stats();
    let tree = map.freeze(Zxid(u64::MAX)).check().expect("the tree is sound");
    println!(
        "{what}: {:.1} bytes for each entry, leaves {:.0} % full, {} levels",
        (pages.used - pages.waiting) as f64 * 4096.0 / f64::from(ENTRIES),
        tree.leaf_bytes as f64 * 100.0 / (tree.leaves as f64 * 4072.0),
        tree.levels,
    );
}

fn reads(criterion: &mut Criterion, map: &mut Map) {
    let version = map.freeze(Zxid(u64::MAX));
    let mut rng = Rng::with_seed(1);
    let mut group = criterion.benchmark_group("map");
    group.throughput(Throughput::Elements(1));
    let keys: Vec<Vec<u8>> = (0..1 << 16).map(|_| key(rng.u32(0..ENTRIES))).collect();
    let mut turn = 0;
    group.bench_function("get", |bencher| {
        bencher.iter(|| {
            turn = (turn + 1) % keys.len();
            black_box(version.get(&keys[turn]).expect("all keys are there").len())
        });
    });
    group.throughput(Throughput::Elements(1000));
    group.bench_function("list 1000", |bencher| {
        let directory = b"z\x03/app/services-0500/";
        bencher.iter(|| {
            let mut cursor = version.cursor(directory);
            let mut bytes = 0;
            while let Some((key, _)) = cursor.next_entry() {
                if !key.starts_with(directory) {
                    break;
                }
                bytes += key.len();
            }
            black_box(bytes)
        });
    });
    group.finish();
}

fn writes(criterion: &mut Criterion, map: &mut Map) {
    let mut rng = Rng::with_seed(2);
    let mut group = criterion.benchmark_group("map, updates by batch");
    let values: Vec<Vec<u8>> = (0..64).map(|_| value(&mut rng)).collect();
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(batch.to_string(), |bencher| {
            bencher.iter_batched(
                || (0..batch).map(|_| key(rng.u32(0..ENTRIES))).collect::<Vec<_>>(),
                |keys| {
                    for (key, value) in keys.iter().zip(values.iter().cycle()) {
                        map.put(key, value);
                    }
                    map.freeze(Zxid(1));
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn snapshots(criterion: &mut Criterion, map: &mut Map) {
    let version = map.freeze(Zxid(1));
    let mut bytes = Vec::new();
    let mut writer = SnapshotWriter::new(version.clone());
    while writer.fill(&mut bytes, usize::MAX) {}
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(&bytes).expect("room for a snapshot");
    let mut group = criterion.benchmark_group("snapshot");
    group.sample_size(10).throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("write to memory", |bencher| {
        let mut piece = Vec::with_capacity(2 << 20);
        bencher.iter(|| {
            let mut writer = SnapshotWriter::new(version.clone());
            while writer.fill(&mut piece, 1 << 20) {
                piece.clear();
            }
        });
    });
    group.bench_function("map and check on one thread", |bencher| {
        bencher.iter(|| {
            let snapshot = Snapshot::open(&file).expect("the snapshot is good");
            snapshot.check_all().expect("the snapshot is good");
            black_box(Map::open(snapshot).get(&key(1)).is_some())
        });
    });
    group.finish();
}

fn btree(criterion: &mut Criterion) {
    report_memory("in order", &mut filled(&ordered()));
    let mut map = filled(&shuffled());
    report_memory("at random", &mut map);
    reads(criterion, &mut map);
    writes(criterion, &mut map);
    snapshots(criterion, &mut map);
}

criterion_group!(benches, btree);
criterion_main!(benches);
