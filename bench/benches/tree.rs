//! Applying transactions to a tree of a million znodes, and reading it.
//!
//! Paths have 30 bytes, data 100; versions are frozen every 64 transactions, as in group commit.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use engine::acl::{ALL, Acl, AclBytes, Id};
use engine::ids::{SessionId, Xid};
use engine::time::WallTime;
use engine::tree::{self, Effects, OwnerMode, Tree};
use engine::txn::{NewNode, Txn, TxnHeader};
use engine::zxid::Zxid;
use fastrand::Rng;

const ZNODES: u32 = 1_000_000;
const CHILDREN: u32 = 1_000;
const GROUP: u64 = 64;
const DATA: [u8; 100] = [7; 100];

/// A tree, and what its next transaction needs.
struct Fixture {
    tree: Tree,
    effects: Effects,
    acl: AclBytes<'static>,
    zxid: u64,
    created: u32,
    rng: Rng,
}

fn directory(number: u32) -> String {
    format!("/services-{number:04}")
}

fn path(number: u32) -> String {
    format!("{}/node-{number:010}", directory(number / CHILDREN))
}

impl Fixture {
    fn new() -> Self {
        let acl = AclBytes::encode(&[Acl { perms: ALL, id: Id::new("world", "anyone") }]);
        let tree = Tree::new(OwnerMode::Extended);
        let (effects, rng) = (Effects::new(), Rng::with_seed(7));
        let zxid = Zxid::new(engine::zxid::Epoch(1), 0).0;
        let mut fixture = Self { tree, effects, acl, zxid, created: 0, rng };
        for number in 0..ZNODES / CHILDREN {
            fixture.create(&directory(number));
        }
        for number in 0..ZNODES {
            fixture.create(&path(number));
        }
        fixture
    }

    fn apply(&mut self, txn: &Txn<'_>) {
        self.zxid += 1;
        if self.zxid.is_multiple_of(GROUP) {
            self.effects.clear();
            black_box(self.tree.freeze());
        }
        let time = WallTime(1_795_000_000_000 + (self.zxid / 20).cast_signed());
        let session = SessionId(0x0100_0000_0000_0001);
        let header = TxnHeader { session, cxid: Xid(1), zxid: Zxid(self.zxid), time };
        black_box(self.tree.apply(&header, txn, &mut self.effects));
    }

    fn create(&mut self, path: &str) {
        let data = Some(DATA[..].into());
        let node = NewNode { path: path.into(), data, acl: self.acl.clone(), parent_cversion: -1 };
        self.apply(&Txn::Create { with_stat: false, node, ephemeral: false });
    }

    fn set_data(&mut self, path: &str) {
        let data = Some(DATA[..].into());
        self.apply(&Txn::SetData { path: path.into(), data, version: 1, reconfig: false });
    }

    fn random_path(&mut self) -> String {
        path(self.rng.u32(0..ZNODES))
    }

    /// One that was not there before, below any of the parents.
    fn new_path(&mut self) -> String {
        self.created += 1;
        let parent = directory(self.rng.u32(0..ZNODES / CHILDREN));
        format!("{parent}/new-{:010}", self.created)
    }
}

fn writes(criterion: &mut Criterion, fixture: &mut Fixture) {
    let mut group = criterion.benchmark_group("tree");
    group.throughput(Throughput::Elements(1));
    let mut paths = Rng::with_seed(3);
    group.bench_function("set_data, random", |bencher| {
        let setup = || path(paths.u32(0..ZNODES));
        bencher.iter_batched(setup, |path| fixture.set_data(&path), BatchSize::LargeInput);
    });
    group.bench_function("create and delete, random parents", |bencher| {
        bencher.iter(|| {
            let path = fixture.new_path();
            fixture.create(&path);
            fixture.apply(&Txn::Delete { path: path.into(), container: false });
        });
    });
    group.bench_function("create and delete, one parent with 1 MiB of data", |bencher| {
        let large = vec![7; 1 << 20];
        fixture.create("/large");
        let data = Some(large[..].into());
        fixture.apply(&Txn::SetData { path: "/large".into(), data, version: 1, reconfig: false });
        bencher.iter(|| {
            fixture.create("/large/child");
            fixture.apply(&Txn::Delete { path: "/large/child".into(), container: false });
        });
    });
}

fn reads(criterion: &mut Criterion, fixture: &mut Fixture) {
    let version = fixture.tree.freeze();
    let mut group = criterion.benchmark_group("tree");
    group.throughput(Throughput::Elements(1));
    group.bench_function("znode and data, random", |bencher| {
        let read = |path: String| {
            let znode = tree::znode(&version, &path).expect("it was created");
            black_box(znode.into_data(&version).map(|data| data.len()));
        };
        bencher.iter_batched(|| fixture.random_path(), read, BatchSize::LargeInput);
    });
    group.throughput(Throughput::Elements(u64::from(CHILDREN)));
    group.bench_function("children, 1000", |bencher| {
        bencher.iter(|| {
            let mut children = tree::children(&version, "/services-0500");
            let mut bytes = 0;
            while let Some(name) = children.next_name() {
                bytes += name.len();
            }
            black_box(bytes);
        });
    });
}

fn all(criterion: &mut Criterion) {
    let mut fixture = Fixture::new();
    reads(criterion, &mut fixture);
    writes(criterion, &mut fixture);
}

criterion_group!(benches, all);
criterion_main!(benches);
