//! A tree that is given new ACL lists without end has few of them: those that znodes have, and a
//! bounded number beside them. Versions and triggers resolve theirs all the same.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::borrow::Cow;
use std::collections::BTreeMap;

use engine::acl::{Acl, AclBytes, Id, READ};
use engine::btree::Version;
use engine::ids::{SessionId, Xid};
use engine::time::WallTime;
use engine::tree::{self, Effects, OwnerMode, Tree};
use engine::txn::{NewNode, Txn, TxnError, TxnHeader};
use engine::zxid::Zxid;
use fastrand::Rng;

/// Distinct lists that are set.
const LISTS: usize = if cfg!(debug_assertions) { 50_000 } else { 1_000_000 };
/// Znodes that have them.
const ZNODES: usize = 500;
/// Lists that may be there beside those in use: fewer than this are not worth a sweep, and while
/// one is under way, others come.
const IDLE_LISTS_MAX: usize = 4096;
/// Versions that are held while lists come and go.
const HELD_MAX: usize = 6;

fn list(number: usize) -> AclBytes<'static> {
    AclBytes::encode(&[Acl { perms: READ, id: Id::new("digest", format!("user{number}:x")) }])
}

fn path(znode: usize) -> String {
    // Some paths are too long for a key.
    if znode.is_multiple_of(50) {
        format!("/{znode}{}", "x".repeat(600))
    } else {
        format!("/{znode}")
    }
}

/// The list that each znode has.
type Model = BTreeMap<usize, usize>;

struct Churn {
    tree: Tree,
    zxid: u64,
    model: Model,
    effects: Effects,
    /// The list of each trigger for a znode of the model, in order.
    expected: Vec<(String, usize)>,
    published: Version,
    published_model: Model,
    held: Vec<(Version, Model)>,
}

impl Churn {
    fn new() -> Self {
        let mut tree = Tree::new(OwnerMode::Plain);
        let published = tree.freeze();
        let (model, effects) = (Model::new(), Effects::new());
        let (expected, held) = (Vec::new(), Vec::new());
        let published_model = Model::new();
        Self { tree, zxid: 0, model, effects, expected, published, published_model, held }
    }

    fn apply(&mut self, txn: &Txn<'_>) {
        self.zxid += 1;
        let header = TxnHeader {
            session: SessionId(1),
            cxid: Xid(1),
            zxid: Zxid(self.zxid),
            time: WallTime(1),
        };
        self.tree.apply(&header, txn, &mut self.effects);
    }

    fn create(&mut self, znode: usize, number: usize) {
        self.model.insert(znode, number);
        self.expected.push((path(znode), number));
        let txn = create(znode, number);
        self.apply(&txn);
    }

    fn delete(&mut self, znode: usize) {
        let number = self.model.remove(&znode).unwrap();
        self.expected.push((path(znode), number));
        self.apply(&Txn::Delete { path: path(znode).into(), container: false });
    }

    fn set(&mut self, znode: usize, number: usize) {
        self.model.insert(znode, number);
        self.apply(&Txn::SetAcl { path: path(znode).into(), acl: list(number), aversion: 1 });
    }

    /// A multi of a new list that is undone again.
    fn fail(&mut self, znode: usize, number: usize) {
        let savepoint = self.tree.savepoint(&self.effects);
        let zxid = self.zxid;
        let acl = list(number);
        self.apply(&Txn::SetAcl { path: path(znode).into(), acl, aversion: 1 });
        self.tree.rollback_to(savepoint, &mut self.effects);
        self.zxid = zxid;
        self.apply(&Txn::Error(TxnError(-101)));
    }

    fn freeze(&mut self) {
        self.published = self.tree.freeze();
        self.published_model = self.model.clone();
        let mut expected = self.expected.drain(..);
        for trigger in &self.effects.triggers {
            if self.effects.path(trigger) == "/" {
                continue;
            }
            let (path, number) = expected.next().unwrap();
            assert_eq!(self.effects.path(trigger), path);
            assert_eq!(tree::acl(&self.published, trigger.acl), list(number));
        }
        assert!(expected.next().is_none());
        drop(expected);
        self.effects.clear();
    }

    /// What was done since the last freeze was never committed.
    fn lose(&mut self) {
        self.tree.return_to(&self.published);
        self.zxid = self.published.zxid().0;
        self.model = self.published_model.clone();
        self.effects.clear();
        self.expected.clear();
    }

    fn lists_count(&self) -> usize {
        let mut lists = tree::acl_lists(self.tree.view());
        std::iter::from_fn(|| lists.next_list()).count()
    }
}

fn create(znode: usize, number: usize) -> Txn<'static> {
    Txn::Create {
        with_stat: true,
        node: NewNode {
            path: Cow::Owned(path(znode)),
            data: None,
            acl: list(number),
            parent_cversion: -1,
        },
        ephemeral: false,
    }
}

fn check_version(version: &Version, model: &Model) {
    for (znode, number) in model {
        let znode = tree::znode(version, &path(*znode)).unwrap();
        assert_eq!(tree::acl(version, znode.acl()), list(*number));
    }
}

#[test]
fn lists_that_no_znode_has_are_dropped_and_nobody_misses_them() {
    let mut random = Rng::with_seed(7);
    let mut churn = Churn::new();
    let mut number = 0;
    let mut most = 0;
    while number < LISTS {
        for _ in 0..random.usize(1..200) {
            let znode = random.usize(..ZNODES);
            // Now and then a list of before comes back, dropped or not.
            let list = if random.u8(..16) == 0 { random.usize(..=number) } else { number };
            number += 1;
            match random.u8(..10) {
                _ if !churn.model.contains_key(&znode) => churn.create(znode, list),
                0 => churn.delete(znode),
                1 => churn.fail(znode, list),
                _ => churn.set(znode, list),
            }
        }
        if random.u8(..20) == 0 {
            churn.lose();
        }
        churn.freeze();
        if random.u8(..50) == 0 {
            churn.held.push((churn.published.clone(), churn.model.clone()));
            if churn.held.len() > HELD_MAX {
                let (version, model) = churn.held.swap_remove(random.usize(..HELD_MAX));
                check_version(&version, &model);
            }
        }
        if random.u8(..10) == 0 {
            most = most.max(churn.lists_count());
        }
    }
    check_version(&churn.published, &churn.model);
    churn.published.check().unwrap();
    assert!(most < ZNODES + IDLE_LISTS_MAX, "{most} lists for {ZNODES} znodes");
}

#[test]
fn a_tree_of_many_znodes_with_few_lists_does_not_sweep_for_each_new_one() {
    let mut churn = Churn::new();
    for znode in 0..20_000 {
        churn.create(znode, znode % 3);
    }
    for number in 0..1_200 {
        churn.set(number, 10 + number);
        churn.freeze();
    }
    // One list for each of 16 znodes may be idle: none was dropped, and 1,200 less 3 are on znodes.
    assert!(churn.lists_count() >= 1_203, "{}", churn.lists_count());
    for number in 0..4_000 {
        churn.set(1, 2_000 + number);
        churn.freeze();
    }
    let count = churn.lists_count();
    assert!(count < 1_203 + 3_000, "{count} lists");
    check_version(&churn.published, &churn.model);
}

#[test]
fn a_sweep_that_takes_many_freezes_spares_lists_that_znodes_get_meanwhile() {
    // More than one freeze may look at, whatever was saved up.
    const MANY: usize = 80_000;
    let mut random = Rng::with_seed(11);
    let mut churn = Churn::new();
    for znode in 0..MANY {
        churn.create(znode, 0);
    }
    for number in 1..8_000 {
        // One new list pays for a small part of the walk.
        churn.set(random.usize(..MANY), number);
        churn.freeze();
        if number % 2_000 == 0 {
            check_version(&churn.published, &churn.model);
        }
    }
    check_version(&churn.published, &churn.model);
    assert!(churn.lists_count() < 8_000, "some were replaced, and are gone");
}
