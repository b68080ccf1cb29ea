//! The tree against a model of plain maps: random transactions, also such as do not fit.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "tree_model/model.rs"]
mod model;

use std::borrow::Cow;

use engine::acl::{Acl, AclBytes, Id};
use engine::btree::View;
use engine::ids::Xid;
use engine::time::WallTime;
use engine::tree::{self, CONTAINER_OWNER, Effects, Outcome, OwnerMode, Tree};
use engine::txn::{NewNode, Txn, TxnError, TxnHeader};
use engine::zxid::Zxid;

use model::{Fired, Model, Node, SESSIONS};

const OPERATIONS: u64 = 200_000;
/// How often everything is compared, and the digest computed from nothing.
const COMPARE_EVERY: u64 = 500;

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }

    /// A path of up to four names, some of them long, some not ASCII, few different ones.
    fn path(&mut self) -> Cow<'static, str> {
        if self.below(50) == 0 {
            let odd = ["/zookeeper", "/zookeeper/config", "/zookeeper/x", "/a//b", "/a/"];
            return odd[self.below(odd.len() as u64) as usize].into();
        }
        let mut path = String::new();
        for _ in 0..=self.below(4) {
            path.push('/');
            match self.below(10) {
                0 => path.push_str(&"long".repeat(130)),
                1 => path.push_str(&"l".repeat(240)),
                2 => path.push('\u{e9}'),
                name => path.push((b'a' + name as u8) as char),
            }
        }
        path.into()
    }

    /// Mostly one that is so deep that a delete does not take the whole tree along.
    fn deep_path(&mut self) -> Cow<'static, str> {
        let path = self.path();
        let is_deep = path.matches('/').count() > 2;
        if is_deep || self.below(30) == 0 { path } else { self.deep_path() }
    }

    fn data(&mut self) -> Option<Cow<'static, [u8]>> {
        let bytes = match self.below(10) {
            0 => return None,
            1 => 0,
            2 => 3000,
            3 => 960 + self.below(2),
            _ => self.below(40),
        };
        Some(vec![self.next() as u8; bytes as usize].into())
    }

    fn acl(&mut self) -> AclBytes<'static> {
        let perms = self.below(12) as i32;
        if perms == 0 {
            let null = [0xff; 4];
            let mut reader = engine::jute::Reader::new(&null);
            return AclBytes::read(&mut reader).unwrap().into_owned();
        }
        AclBytes::encode(&[Acl { perms, id: Id::new("world", "anyone") }])
    }

    fn node(&mut self) -> NewNode<'static> {
        let parent_cversion = if self.below(2) == 0 { -1 } else { self.below(40) as i32 };
        NewNode { path: self.path(), data: self.data(), acl: self.acl(), parent_cversion }
    }

    fn set_path(&mut self) -> Cow<'static, str> {
        if self.below(40) == 0 { "/".into() } else { self.path() }
    }

    fn txn(&mut self) -> Txn<'static> {
        match self.below(40) {
            0 => Txn::CreateSession { timeout_ms: self.below(9000) as i32 },
            1 => {
                let listed = self.below(2) == 0;
                let count = self.below(5);
                let ephemerals = listed.then(|| (0..count).map(|_| self.deep_path()).collect());
                Txn::CloseSession { ephemerals }
            }
            2 => Txn::Error(TxnError(-(self.below(120) as i32))),
            3..=5 => {
                let count = self.below(5);
                Txn::Multi((0..count).map(|_| self.txn_in_multi()).collect())
            }
            6..=8 => {
                let (path, acl) = (self.set_path(), self.acl());
                Txn::SetAcl { path, acl, aversion: self.below(9) as i32 - 1 }
            }
            _ => self.txn_in_multi(),
        }
    }

    fn txn_in_multi(&mut self) -> Txn<'static> {
        let node = self.node();
        match self.below(20) {
            0..=6 => {
                let (with_stat, ephemeral) = (self.below(2) == 0, self.below(4) == 0);
                Txn::Create { with_stat, node, ephemeral }
            }
            7 => Txn::CreateContainer { node },
            8 => Txn::CreateTtl { node, ttl_ms: 1 + self.below(100) as i64 },
            9..=12 => Txn::Delete { path: self.deep_path(), container: self.below(5) == 0 },
            13 if self.below(4) == 0 => Txn::Error(TxnError(-101)),
            14 => Txn::Check { path: self.path(), version: 0 },
            _ => {
                let (path, data) = (self.set_path(), self.data());
                Txn::SetData { path, data, version: self.below(9) as i32 - 1, reconfig: false }
            }
        }
    }
}

/// Both, and what is needed to step them.
struct Pair {
    tree: Tree,
    model: Model,
    effects: Effects,
    random: Random,
    zxid: u64,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let (tree, model) = (Tree::new(OwnerMode::Extended), Model::new());
        Self { tree, model, effects: Effects::new(), random: Random(seed), zxid: 0 }
    }

    fn step(&mut self) {
        // Now and then a transaction comes again, as in a fuzzy replay.
        self.zxid = if self.random.below(100) == 0 { self.zxid / 2 } else { self.zxid + 1 };
        let header = TxnHeader {
            session: SESSIONS[self.random.below(3) as usize],
            cxid: Xid(1),
            zxid: Zxid(self.zxid),
            time: WallTime(1_795_000_000_000 + self.zxid as i64),
        };
        let txn = self.random.txn();
        self.try_and_undo(&header, &txn);
        self.effects.clear();
        let outcome = self.tree.apply(&header, &txn, &mut self.effects);
        let expect = self.model.apply(&header, &txn);
        assert_eq!(outcome, expect, "{txn:?}");
        assert_eq!(fired(&self.tree, &self.effects), self.model.fired, "{txn:?}");
    }

    /// What a multi that fails half way does must leave no trace.
    fn try_and_undo(&mut self, header: &TxnHeader, txn: &Txn<'_>) {
        if self.random.below(20) != 0 {
            return;
        }
        let before = (self.tree.digest(), self.tree.counters(), self.tree.applied());
        let savepoint = self.tree.savepoint(&self.effects);
        for txn in [&self.random.txn(), txn, &self.random.txn()] {
            self.tree.apply(header, txn, &mut self.effects);
        }
        self.tree.rollback_to(savepoint, &mut self.effects);
        assert_eq!((self.tree.digest(), self.tree.counters(), self.tree.applied()), before);
    }

    fn compare(&mut self) {
        assert_eq!(self.tree.digest(), self.model.digest());
        let version = self.tree.freeze();
        compare_nodes(&version, &self.model);
        let counters = self.tree.counters();
        assert_eq!(tree::counters(&version), counters);
        assert_eq!(counters.znode_count, self.model.nodes.len() as u64 + 1);
        assert_eq!(counters.data_bytes, self.model.data_bytes as u64);
        assert_eq!(counters.sessions_count, self.model.sessions.len() as u64);
        let mut ephemerals = 0;
        for session in SESSIONS {
            let mut paths = read_paths(tree::ephemerals(&version, session));
            ephemerals += paths.len() as u64;
            paths.sort();
            assert_eq!(paths, self.model.owned(|owner| owner == session.0));
            let timeout = tree::session(&version, session);
            assert_eq!(timeout, self.model.sessions.get(&session.0).copied());
        }
        assert_eq!(counters.ephemerals_count, ephemerals);
        let mut containers = read_paths(tree::containers(&version));
        assert_eq!(read_step_by_step(&version), containers);
        containers.sort();
        assert_eq!(containers, self.model.owned(|owner| owner == CONTAINER_OWNER));
        let mut ttls = read_paths(tree::ttls(&version));
        ttls.sort();
        assert_eq!(ttls, self.model.owned(|owner| owner < 0 && owner != CONTAINER_OWNER));
    }
}

fn compare_nodes(view: &impl View, model: &Model) {
    for (path, expect) in &model.nodes {
        let znode = tree::znode(view, path).unwrap_or_else(|| panic!("{path} is missing"));
        let mut names = std::collections::BTreeSet::new();
        let mut children = tree::children(view, path);
        while let Some(name) = children.next_name() {
            assert!(names.insert(name.to_owned()), "{name} comes twice");
        }
        assert_eq!(znode.wire_stat(), expect.wire_stat(), "{path}");
        let found = Node {
            stat: *znode.stat(),
            acl: tree::acl(view, znode.acl()).as_bytes().to_vec(),
            data: znode.into_data(view).map(Cow::into_owned),
            children: names,
        };
        assert_eq!(&found, expect, "{path}");
    }
    for path in ["/", "/d", "/d/e", "/nothing"] {
        let below = if path == "/" { path.into() } else { format!("{path}/") };
        let count = model.nodes.keys().filter(|path| path.starts_with(&below)).count();
        assert_eq!(tree::descendants_count(view, path), count as u64, "{path}");
    }
}

fn read_paths(mut paths: tree::Paths<'_>) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(path) = paths.next_path() {
        all.push(path.to_owned());
    }
    all
}

/// The containers, the walk begun anew behind each.
fn read_step_by_step(version: &impl View) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    loop {
        let mut paths = tree::containers(version);
        if let Some(last) = all.last() {
            paths.go_behind(version, last);
        }
        match paths.next_path() {
            Some(path) => all.push(path.to_owned()),
            None => return all,
        }
    }
}

fn fired(tree: &Tree, effects: &Effects) -> Vec<Fired> {
    let of = |trigger: &tree::Trigger| {
        let acl = tree::acl(tree.view(), trigger.acl).as_bytes().to_vec();
        (trigger.event, effects.path(trigger).to_owned(), acl)
    };
    effects.triggers.iter().map(of).collect()
}

#[test]
fn random_transactions_do_what_the_model_does() {
    let mut pair = Pair::new(1);
    for operation in 0..OPERATIONS {
        pair.step();
        if operation % COMPARE_EVERY == 0 {
            pair.compare();
        }
    }
    pair.compare();
    assert!(pair.model.nodes.len() > 100, "{} znodes", pair.model.nodes.len());
}

#[test]
fn another_mode_decodes_the_owners_again() {
    let mut pair = Pair::new(2);
    for _ in 0..5_000 {
        pair.step();
    }
    let old = pair.tree.freeze();
    let ttls = read_paths(tree::ttls(&old));
    assert!(!ttls.is_empty());
    let plain = reopened(pair.tree, OwnerMode::Plain);
    assert_eq!(read_paths(tree::ttls(plain.view())), Vec::<String>::new());
    assert_eq!(
        plain.counters().ephemerals_count,
        tree::counters(&old).ephemerals_count + ttls.len() as u64
    );
    let mut extended = reopened(plain, OwnerMode::Extended);
    assert_eq!(read_paths(tree::ttls(extended.view())), ttls);
    assert_eq!(tree::counters(&extended.freeze()), tree::counters(&old));
    compare_nodes(extended.view(), &pair.model);
}

#[test]
fn a_tree_returns_to_a_version() {
    let mut pair = Pair::new(3);
    for _ in 0..2_000 {
        pair.step();
    }
    let version = pair.tree.freeze();
    let (model, zxid) = (pair.model.clone(), pair.zxid);
    for _ in 0..500 {
        pair.step();
    }
    pair.tree.return_to(&version);
    (pair.model, pair.zxid) = (model, zxid);
    pair.compare();
    for _ in 0..500 {
        pair.step();
    }
    pair.compare();
}

/// As after a restart.
fn reopened(mut tree: Tree, mode: OwnerMode) -> Tree {
    tree.freeze();
    Tree::open(tree.into_map(), mode).unwrap()
}

#[test]
fn an_outcome_is_small() {
    assert!(size_of::<Outcome>() <= 80);
}
