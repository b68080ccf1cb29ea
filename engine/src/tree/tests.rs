//! Tests of the tree as a whole: transactions in, outcomes, triggers and state out.

use super::*;
use crate::acl::{ALL, Acl, AclBytes, Id};
use crate::btree::View;
use crate::ids::{SessionId, Xid};
use crate::time::WallTime;
use crate::txn::{NewNode, TxnError};

/// Applies transactions with ascending zxids, and notes what comes out.
struct Fixture {
    tree: Tree,
    zxid: u64,
    effects: Effects,
}

const SESSION: SessionId = SessionId(0x0100_0000_0000_0001);

impl Fixture {
    fn new() -> Self {
        Self { tree: Tree::new(OwnerMode::Extended), zxid: 0, effects: Effects::new() }
    }

    fn apply(&mut self, txn: &Txn<'_>) -> Outcome {
        self.zxid += 1;
        self.effects.clear();
        let time = WallTime(1_000 + self.zxid as i64);
        let header = TxnHeader { session: SESSION, cxid: Xid(1), zxid: Zxid(self.zxid), time };
        self.tree.apply(&header, txn, &mut self.effects)
    }

    /// The outcome in short: a stat, or an error.
    fn outcome(&mut self, txn: &Txn<'_>) -> String {
        brief(&self.apply(txn))
    }

    /// The triggers of the last transaction.
    fn triggers(&self) -> Vec<(EventType, &str)> {
        let of = |trigger| self.effects.path(trigger);
        self.effects.triggers.iter().map(|trigger| (trigger.event, of(trigger))).collect()
    }

    fn stat(&self, path: &str) -> String {
        znode(self.tree.view(), path).map_or("none".into(), |znode| brief_stat(&znode.wire_stat()))
    }

    fn data(&self, path: &str) -> Option<Vec<u8>> {
        let view = self.tree.view();
        znode(view, path).unwrap().into_data(view).map(std::borrow::Cow::into_owned)
    }

    fn children(&self, path: &str) -> Vec<String> {
        let mut names = Vec::new();
        let mut children = children(self.tree.view(), path);
        while let Some(name) = children.next_name() {
            names.push(name.to_owned());
        }
        names
    }
}

fn brief(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Created(stat) => format!("created {}", brief_stat(stat)),
        Outcome::DataSet(stat) => format!("set {}", brief_stat(stat)),
        Outcome::AclSet(stat) => format!("acl {}", brief_stat(stat)),
        Outcome::Deleted => "deleted".into(),
        Outcome::Checked => "checked".into(),
        Outcome::SessionCreated => "session created".into(),
        Outcome::SessionClosed => "session closed".into(),
        Outcome::Error(code) => format!("error {code}"),
        Outcome::Multi(outcomes) => outcomes.iter().map(brief).collect::<Vec<_>>().join(" | "),
    }
}

fn brief_stat(wire: &crate::stat::WireStat) -> String {
    let stat = &wire.stat;
    format!(
        "c{} m{} p{} v{} cv{} av{} o{:x} len{} n{}",
        stat.czxid.0,
        stat.mzxid.0,
        stat.pzxid.0,
        stat.version,
        stat.cversion,
        stat.aversion,
        stat.ephemeral_owner,
        wire.data_length,
        wire.num_children
    )
}

fn world(perms: i32) -> AclBytes<'static> {
    AclBytes::encode(&[Acl { perms, id: Id::new("world", "anyone") }])
}

fn node(path: &str, parent_cversion: i32) -> NewNode<'_> {
    NewNode { path: path.into(), data: Some(b"data"[..].into()), acl: world(ALL), parent_cversion }
}

fn create(path: &str, parent_cversion: i32) -> Txn<'_> {
    Txn::Create { with_stat: false, node: node(path, parent_cversion), ephemeral: false }
}

fn create_ephemeral(path: &str) -> Txn<'_> {
    Txn::Create { with_stat: false, node: node(path, -1), ephemeral: true }
}

fn delete(path: &str) -> Txn<'_> {
    Txn::Delete { path: path.into(), container: false }
}

fn set_data<'a>(path: &'a str, data: &'a [u8], version: i32) -> Txn<'a> {
    Txn::SetData { path: path.into(), data: Some(data.into()), version, reconfig: false }
}

#[test]
fn a_fresh_tree_is_zookeepers() {
    let fixture = Fixture::new();
    assert_eq!(fixture.tree.digest(), 0x51c6_d660);
    let expect =
        Counters { znode_count: 5, data_bytes: 44, ephemerals_count: 0, sessions_count: 0 };
    assert_eq!(fixture.tree.counters(), expect);
    assert_eq!(fixture.children("/"), ["zookeeper"]);
    assert_eq!(fixture.children("/zookeeper"), ["config", "quota"]);
    assert_eq!(fixture.stat("/"), "c0 m0 p0 v0 cv-1 av0 o0 len0 n1");
    assert_eq!(fixture.stat("/zookeeper/config"), "c0 m0 p0 v0 cv0 av-1 o0 len0 n0");
}

#[test]
fn creates_deletes_and_sets_leave_zookeepers_stats() {
    let mut f = Fixture::new();
    assert_eq!(f.outcome(&create("/a", 1)), "created c1 m1 p1 v0 cv0 av0 o0 len4 n0");
    assert_eq!(f.stat("/"), "c0 m0 p1 v0 cv0 av0 o0 len0 n2");
    assert_eq!(f.outcome(&create("/a/b", -1)), "created c2 m2 p2 v0 cv0 av0 o0 len4 n0");
    assert_eq!(f.outcome(&create("/a/c", 2)), "created c3 m3 p3 v0 cv0 av0 o0 len4 n0");
    assert_eq!(f.stat("/a"), "c1 m1 p3 v0 cv2 av0 o0 len4 n2");
    assert_eq!(f.outcome(&delete("/a/b")), "deleted");
    assert_eq!(f.stat("/a"), "c1 m1 p4 v0 cv3 av0 o0 len4 n1");
    assert_eq!(f.outcome(&set_data("/a", b"123456", 1)), "set c1 m5 p4 v1 cv3 av0 o0 len6 n1");
    let set_acl = Txn::SetAcl { path: "/a".into(), acl: world(1), aversion: 1 };
    assert_eq!(f.outcome(&set_acl), "acl c1 m5 p4 v1 cv3 av1 o0 len6 n1");
    assert_eq!(f.tree.applied(), Zxid(6));
}

#[test]
fn what_does_not_fit_changes_what_datatree_changes() {
    let mut f = Fixture::new();
    assert_eq!(f.outcome(&create("/x/y", 1)), "error -101");
    assert_eq!(f.outcome(&delete("/x")), "error -101");
    assert_eq!(f.stat("/"), "c0 m0 p2 v0 cv-1 av0 o0 len0 n1");
    assert_eq!(f.outcome(&set_data("/x", b"", 1)), "error -101");
    f.apply(&create("/a", 1));
    assert_eq!(f.outcome(&create("/a", 9)), "error -110");
    assert_eq!(f.stat("/"), "c0 m0 p5 v0 cv16 av0 o0 len0 n2");
    let create2 = Txn::Create { with_stat: true, node: node("/a", 20), ephemeral: false };
    assert_eq!(f.outcome(&create2), "error -110");
    assert_eq!(f.stat("/"), "c0 m0 p5 v0 cv16 av0 o0 len0 n2");
    for path in ["", "/", "a", "//a", "a/b"] {
        assert_eq!(f.outcome(&create(path, -1)), "error -101", "{path:?}");
        assert_eq!(f.outcome(&delete(path)), "error -101");
    }
}

#[test]
fn triggers_fire_in_order() {
    use EventType::{NodeChildrenChanged, NodeCreated, NodeDataChanged, NodeDeleted};
    let mut f = Fixture::new();
    f.apply(&create("/a", 1));
    assert_eq!(f.triggers(), [(NodeCreated, "/a"), (NodeChildrenChanged, "/")]);
    f.apply(&create("/a/b", 1));
    assert_eq!(f.triggers(), [(NodeCreated, "/a/b"), (NodeChildrenChanged, "/a")]);
    f.apply(&set_data("/", b"x", 1));
    assert_eq!(f.triggers(), [(NodeDataChanged, "/")]);
    f.apply(&delete("/a/b"));
    assert_eq!(f.triggers(), [(NodeDeleted, "/a/b"), (NodeChildrenChanged, "/a")]);
    f.apply(&delete("/a/b"));
    assert_eq!(f.triggers(), []);
}

#[test]
fn a_multi_with_an_error_does_nothing() {
    let mut f = Fixture::new();
    let digest = f.tree.digest();
    let txns = vec![create("/a", 1), Txn::Error(TxnError(-101)), delete("/zookeeper")];
    assert_eq!(f.outcome(&Txn::Multi(txns)), "error 0 | error -101 | error -2");
    assert_eq!((f.tree.digest(), f.stat("/a")), (digest, "none".into()));
    let check = Txn::Check { path: "/a".into(), version: 0 };
    let txns = vec![create("/a", 1), check, delete("/a")];
    let expect = "created c2 m2 p2 v0 cv0 av0 o0 len4 n0 | checked | deleted";
    assert_eq!(f.outcome(&Txn::Multi(txns)), expect);
}

#[test]
fn a_session_takes_its_ephemerals_along() {
    let mut f = Fixture::new();
    assert_eq!(f.outcome(&Txn::CreateSession { timeout_ms: 5 }), "session created");
    assert_eq!(session(f.tree.view(), SESSION), Some(5));
    f.apply(&create_ephemeral("/e1"));
    f.apply(&create_ephemeral("/e2"));
    assert_eq!(f.tree.counters().ephemerals_count, 2);
    assert_eq!(f.stat("/e1"), "c2 m2 p2 v0 cv0 av0 o100000000000001 len4 n0");
    let listed = Txn::CloseSession { ephemerals: Some(vec!["/e2".into(), "/gone".into()]) };
    assert_eq!(f.outcome(&listed), "session closed");
    let paths: Vec<&str> = f.triggers().into_iter().map(|(_, path)| path).collect();
    assert_eq!(paths, ["/e2", "/", "/e1", "/"]);
    assert_eq!(f.tree.counters(), Fixture::new().tree.counters());
    assert_eq!(session(f.tree.view(), SESSION), None);
}

#[test]
fn quota_statistics_follow_in_javas_text() {
    let mut f = Fixture::new();
    for path in ["/a", "/a/b", "/zookeeper/quota/a"] {
        f.apply(&create(path, -1));
    }
    let limits = |f: &mut Fixture, text: &'static str| {
        let mut node = node("/zookeeper/quota/a/zookeeper_limits", -1);
        node.data = Some(text.as_bytes().into());
        f.apply(&Txn::Create { with_stat: false, node, ephemeral: false });
    };
    limits(&mut f, "count=3,bytes=-1=;byteHardLimit=20;countHardLimit=3");
    let stats = "/zookeeper/quota/a/zookeeper_stats";
    f.apply(&create(stats, -1));
    let digest = f.tree.digest();
    let read = |f: &Fixture| String::from_utf8(f.data(stats).unwrap()).unwrap();
    assert_eq!(read(&f), "count=2,bytes=8");
    assert_eq!(f.tree.check_quota("/a/c", 12, 1), Ok(()));
    assert_eq!(f.tree.check_quota("/a/c", 13, 1), Err(ErrorCode::QuotaExceeded));
    assert_eq!(f.tree.check_quota("/a/c", 0, 2), Err(ErrorCode::QuotaExceeded));
    assert_eq!(f.tree.check_quota("/b", 1000, 2), Ok(()));
    f.apply(&create("/a/c", -1));
    f.apply(&set_data("/a", b"", 1));
    assert_eq!(read(&f), "count=3,bytes=8");
    f.apply(&delete("/a/c"));
    f.apply(&set_data("/a", b"data", 2));
    assert_eq!(read(&f), "count=2,bytes=8");
    assert_ne!(f.tree.digest(), digest);
    assert_eq!(f.stat(stats), "c5 m5 p5 v0 cv0 av0 o0 len15 n0");
    f.apply(&delete("/zookeeper/quota/a/zookeeper_limits"));
    f.apply(&delete("/a/b"));
    assert_eq!(read(&f), "count=2,bytes=8");
    limits(&mut f, "count=9,bytes=-1");
    f.apply(&set_data(stats, b"many", 1));
    assert_eq!(f.tree.check_quota("/a/c", 1, 0), Ok(()), "nobody reads them without a limit");
    assert_eq!(f.tree.check_quota("/a/c", 1, 1), Err(ErrorCode::MarshallingError));
}

#[test]
fn a_quota_counts_what_is_below_at_any_depth_and_however_long_its_path_is() {
    let mut f = Fixture::new();
    let long = format!("/a/b/{}", "n".repeat(600));
    let below = format!("{long}/c");
    for path in ["/a", "/a/b", &long, &below, "/ab", "/zookeeper/quota/a"] {
        f.apply(&create(path, -1));
    }
    f.apply(&create("/zookeeper/quota/a/zookeeper_limits", -1));
    f.apply(&create("/zookeeper/quota/a/zookeeper_stats", -1));
    let stats = f.data("/zookeeper/quota/a/zookeeper_stats").unwrap();
    assert_eq!(stats, b"count=4,bytes=16");
    assert_eq!(descendants_count(f.tree.view(), "/a"), 3);
}

#[test]
fn many_lists_that_nobody_uses_are_dropped_in_pieces() {
    let mut f = Fixture::new();
    for number in 0..5_000 {
        come_and_go(&mut f, number);
    }
    let mut before = count_lists(&f);
    for _ in 0..3 {
        drop(f.tree.freeze());
        let left = count_lists(&f);
        assert!(left < before && before - left <= 2_048, "{} in one turn", before - left);
        before = left;
    }
    assert!(before < 100, "{before} are left");
}

/// Znodes that come and go, each with a list of its own, in a tree that makes marking slow.
#[test]
fn lists_that_nobody_uses_stay_few_while_new_ones_come() {
    let mut f = Fixture::new();
    for number in 0..40_000 {
        f.apply(&create(&format!("/{number}"), -1));
    }
    let mut most = 0;
    for number in 0..40_000 {
        come_and_go(&mut f, number);
        drop(f.tree.freeze());
        if number % 1_000 == 999 {
            most = most.max(count_lists(&f));
        }
    }
    assert!(most < 8_000, "{most} lists at once");
}

/// A znode with a list of its own, which nobody uses any more then.
fn come_and_go(f: &mut Fixture, number: usize) {
    let mut node = node("/n", -1);
    let id = Id::new("digest", format!("user{number}:x"));
    node.acl = AclBytes::encode(&[Acl { perms: ALL, id }]);
    f.apply(&Txn::Create { with_stat: false, node, ephemeral: false });
    f.apply(&delete("/n"));
}

fn count_lists(f: &Fixture) -> usize {
    let mut lists = acl_lists(f.tree.view());
    std::iter::from_fn(|| lists.next_list()).count()
}

#[test]
fn which_paths_have_a_quota_is_what_a_restart_would_find() {
    let mut f = Fixture::new();
    let other = "/zookeeper/quota/a/ ";
    for path in ["/zookeeper/quota/a", "/zookeeper/quota/a/zookeeper_limits", other] {
        f.apply(&create(path, -1));
    }
    let limits = format!("{other}/zookeeper_limits");
    for txn in [create(&limits, -1), delete(&limits)] {
        f.apply(&txn);
        assert_eq!(f.tree.quotas.paths, Quotas::load(f.tree.view()).paths);
    }
    assert_eq!(f.tree.quotas.nearest("/a/b"), Some("/a"));
}

#[test]
fn a_rollback_takes_back_state_triggers_quotas_and_lists() {
    let mut f = Fixture::new();
    f.apply(&create("/a", 1));
    let before = f.tree.freeze();
    let (digest, counters) = (f.tree.digest(), f.tree.counters());
    let savepoint = f.tree.savepoint(&f.effects);
    let zxid = f.zxid;
    for txn in [
        create("/zookeeper/quota/a", -1),
        create("/zookeeper/quota/a/zookeeper_limits", -1),
        Txn::SetAcl { path: "/a".into(), acl: world(1), aversion: 1 },
        delete("/a"),
    ] {
        f.apply(&txn);
    }
    f.zxid = zxid;
    f.tree.rollback_to(savepoint, &mut f.effects);
    assert_eq!((f.tree.digest(), f.tree.counters()), (digest, counters));
    assert_eq!(f.tree.quotas.nearest("/a"), None);
    let after = f.tree.freeze();
    assert_eq!(entries(&before), entries(&after));
    let list = AclBytes::encode(&[Acl { perms: 1, id: Id::new("ip", "::1") }]);
    f.apply(&Txn::SetAcl { path: "/a".into(), acl: list.clone(), aversion: 1 });
    let view = f.tree.view();
    assert_eq!(acl(view, znode(view, "/a").unwrap().acl()), list);
}

/// Every key and value of a view.
fn entries(view: &impl View) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut entries = Vec::new();
    let mut cursor = view.cursor(b"");
    while let Some((key, value)) = cursor.next_entry() {
        entries.push((key.to_vec(), value.to_vec()));
    }
    entries
}

#[test]
fn data_moves_out_of_the_value_and_back() {
    let mut f = Fixture::new();
    let mut null = node("/a", -1);
    null.data = None;
    f.apply(&Txn::Create { with_stat: false, node: null, ephemeral: false });
    assert_eq!(f.data("/a"), None);
    let entries_before = entries(f.tree.view()).len();
    let large = vec![7; 100_000];
    for (data, more) in [(&large[..], 1), (&large[..961], 1), (&large[..960], 0), (&[], 0)] {
        f.apply(&set_data("/a", data, 1));
        f.apply(&create("/a/b", -1));
        f.apply(&delete("/a/b"));
        assert_eq!(f.data("/a").as_deref(), Some(data));
        assert_eq!(entries(f.tree.view()).len() - entries_before, more);
    }
    f.apply(&set_data("/a", &large, 1));
    f.apply(&delete("/a"));
    assert_eq!(entries(f.tree.view()).len(), entries_before - 1);
}

#[test]
fn a_multi_stops_at_what_no_multi_has() {
    let mut f = Fixture::new();
    let set_acl = Txn::SetAcl { path: "/a".into(), acl: world(1), aversion: 1 };
    let txns = vec![create("/a", 1), set_acl, create("/b", 2)];
    let expect = "created c1 m1 p1 v0 cv0 av0 o0 len4 n0";
    assert_eq!(f.outcome(&Txn::Multi(txns)), expect);
    assert_eq!((f.stat("/b"), f.tree.applied()), ("none".into(), Zxid(1)));
}

#[test]
fn a_ttl_that_is_none_creates_nothing() {
    let mut f = Fixture::new();
    for ttl_ms in [0, -1, i64::MAX] {
        assert_eq!(f.outcome(&Txn::CreateTtl { node: node("/a", 1), ttl_ms }), "error -8");
    }
    assert_eq!(f.tree.digest(), 0x51c6_d660);
    f.apply(&Txn::CreateTtl { node: node("/a", 1), ttl_ms: 9 });
    assert_eq!(znode(f.tree.view(), "/a").unwrap().owner(), Owner::Ttl(9));
    assert_eq!(f.stat("/a"), "c4 m4 p4 v0 cv0 av0 o0 len4 n0");
}

#[test]
fn the_configuration_is_written_outside_of_transactions() {
    let mut f = Fixture::new();
    f.tree.set_ensemble_config(b"server.1=x", Zxid(0x10), 5);
    assert_eq!(f.stat("/zookeeper/config"), "c0 m16 p0 v-1 cv0 av-1 o0 len10 n0");
    assert_eq!((f.tree.digest(), f.tree.applied()), (0x51c6_d660, Zxid::ZERO));
}

#[test]
fn a_deep_path_has_its_children() {
    let mut f = Fixture::new();
    let mut path = String::new();
    for depth in 0..600 {
        f.apply(&create(&format!("{path}/b"), -1));
        path.push_str(if depth == 500 { "/a-name-that-is-longer" } else { "/a" });
        f.apply(&create(&path, -1));
    }
    let mut parent = "/";
    for end in path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]) {
        let mut names = f.children(parent);
        names.retain(|name| name != "zookeeper");
        let before = if parent == "/" { 0 } else { parent.len() };
        assert_eq!(names, [&path[before + 1..end], "b"], "{parent}");
        parent = &path[..end];
    }
    assert_eq!(descendants_count(f.tree.view(), "/"), 1200 + 3);
    assert_eq!(descendants_count(f.tree.view(), "/a"), 1198);
    f.apply(&delete("/a"));
    assert_eq!(descendants_count(f.tree.view(), "/"), 1 + 3);
    assert_eq!(f.tree.counters().znode_count, 6);
}
