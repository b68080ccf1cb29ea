//! Writes, error by error, in the order in which ZooKeeper checks.

use super::script::{SESSION, Script, encode};
use super::*;
use crate::acl::ALL;
use crate::limits::TTL_MS_MAX;
use crate::records::multi::MultiOp;
use crate::records::{MultiHeader, ReplyHeader};

const READ_ONLY: &str = "acl=1/world/anyone";

#[test]
fn each_kind_of_creation_answers_in_its_way() {
    Script::new().check(&[
        ("create /a x", "/a"),
        ("create2 /a/b xyz", "/a/b v0 c0 a0 3B 0kids"),
        ("create2 /a/e flags=1", "/a/e v0 c0 a0 e 0B 0kids"),
        ("container /c", "/c v0 c0 a0 0B 0kids"),
        ("container /c/s flags=2", "/c/s0000000000 v0 c0 a0 0B 0kids"),
        ("ttl /t flags=5 ttl=1000", "/t v0 c0 a0 0B 0kids"),
        ("ttl /t/s- flags=6 ttl=1000", "/t/s-0000000000 v0 c0 a0 0B 0kids"),
        ("create /plain flags=4", "/plain"),
        ("set /a xy", "v1 c2 a0 2B 2kids"),
    ]);
}

#[test]
fn the_owner_is_what_the_type_and_the_flags_make_it() {
    let mut script = Script::new();
    let mut owner = |request: &str| {
        let path = script.run(request);
        let path = path.split(' ').next().unwrap();
        tree::znode(script.tree.view(), path).unwrap().owner()
    };
    assert_eq!(owner("create /p"), Owner::Persistent);
    assert_eq!(owner("create /e flags=1"), Owner::Ephemeral(SESSION));
    assert_eq!(owner("create2 /s flags=3"), Owner::Ephemeral(SESSION));
    assert_eq!(owner("create /c flags=4"), Owner::Persistent);
    assert_eq!(owner("container /d flags=0"), Owner::Container);
    assert_eq!(owner("container /f flags=1"), Owner::Container);
    assert_eq!(owner("ttl /t flags=5 ttl=9"), Owner::Ttl(9));
}

#[test]
fn sequential_names_count_the_creations_below_the_parent() {
    Script::new().check(&[
        ("create /q", "/q"),
        ("create /q/n flags=2", "/q/n0000000000"),
        ("create /q/x", "/q/x"),
        ("delete /q/x", "ok"),
        ("create /q/n flags=3", "/q/n0000000002"),
        ("create /q/ flags=2", "/q/0000000003"),
        ("create / flags=2", "/0000000001"),
    ]);
}

#[test]
fn a_creation_is_checked_in_this_order() {
    let mut script = Script::new();
    script.check(&[
        ("create /e flags=1", "/e"),
        (&format!("create /r {READ_ONLY}"), "/r"),
        ("create /r2 acl=1/ip/127.0.0.2", "/r2"),
        // The flags, before the path.
        ("create no-slash flags=7", "-8"),
        ("create no-slash flags=-1", "-8"),
        // The path has no parent.
        ("create no-slash acl=", "-8"),
        ("create /nul\0 acl=", "-8"),
        // The ACL list, before the parent is looked for.
        ("create /none/a acl=", "-114"),
        ("create /none/a acl=31/auth/", "-114"),
        ("create /none/a acl=31/sasl/u", "-114"),
        ("create relative/a", "-101"),
        ("create /none/a", "-101"),
        ("create /a//b", "-101"),
        // Permission on the parent, before the path is looked at closely.
        ("create /r/..", "-102"),
        ("create /r2/a", "-102"),
        ("create //a", "-8"),
        ("create /..", "-8"),
        ("create /e/", "-8"),
        ("create /\u{1f600}", "-8"),
        ("create /e", "-110"),
        ("create /", "-110"),
        ("create /zookeeper", "-110"),
        // The parent is ephemeral.
        ("create /e/a", "-108"),
        ("create /e/a flags=2", "-108"),
    ]);
}

#[test]
fn a_ttl_goes_with_its_modes_only() {
    let most = format!("ttl /m flags=5 ttl={TTL_MS_MAX}");
    let too_much = format!("ttl /n flags=5 ttl={}", TTL_MS_MAX + 1);
    Script::new().check(&[
        ("create /a flags=5", "-8"),
        ("create2 /a flags=6", "-8"),
        ("container /a flags=5", "-8"),
        ("ttl /a flags=0 ttl=5", "-8"),
        ("ttl /a flags=0 ttl=-1", "-8"),
        ("ttl /a flags=4 ttl=5", "-8"),
        ("ttl /a flags=1 ttl=-1", "-8"),
        ("ttl /a flags=5 ttl=0", "-8"),
        ("ttl /a flags=5 ttl=-1", "-8"),
        (&too_much, "-8"),
        (&most, "/m v0 c0 a0 0B 0kids"),
    ]);
    Script::with_rules(Rules::default()).check(&[
        ("ttl /a flags=5 ttl=5", "-6"),
        ("create /a flags=5", "-6"),
        ("ttl /a flags=0 ttl=-1", "-8"),
    ]);
}

#[test]
fn a_deletion_is_checked_in_this_order() {
    Script::new().check(&[
        ("create /a", "/a"),
        ("create /a/b", "/a/b"),
        (&format!("create /r {READ_ONLY}"), "/r"),
        ("delete no-slash", "-8"),
        ("delete /nul\0", "-8"),
        ("delete /", "-8"),
        ("delete /zookeeper", "-8"),
        ("delete /zookeeper/quota", "-8"),
        ("delete /zookeeper/config", "-8"),
        ("delete /none/a", "-101"),
        ("delete relative/a", "-101"),
        // Permission on the parent, before the znode is looked for.
        ("delete /r/none", "-102"),
        ("delete /none", "-101"),
        ("delete /a/", "-101"),
        ("delete /a v=5", "-103"),
        ("delete /a v=0", "-111"),
        ("delete /a/b v=0", "ok"),
        ("delete /a", "ok"),
        ("delete /r", "ok"),
    ]);
}

#[test]
fn new_data_is_checked_in_this_order() {
    Script::new().check(&[
        ("create /a", "/a"),
        (&format!("create /r {READ_ONLY}"), "/r"),
        ("set relative x", "-8"),
        ("set /a/ x", "-8"),
        ("set /none x", "-101"),
        ("set /r x v=9", "-102"),
        ("set /a x v=9", "-103"),
        ("set /a x v=0", "v1 c0 a0 1B 0kids"),
        ("set /a v=1", "v2 c0 a0 0B 0kids"),
        ("set / x", "v1 c1 a0 1B 3kids"),
    ]);
}

#[test]
fn a_new_acl_list_is_checked_in_this_order() {
    let mut script = Script::new();
    script.check(&[
        ("create /a", "/a"),
        (&format!("create /r {READ_ONLY}"), "/r"),
        ("acl relative acl=", "-8"),
        ("acl /none acl=", "-114"),
        ("acl /none", "-101"),
        ("acl /r v=9", "-102"),
        ("acl /a v=9", "-103"),
        ("acl /a acl=31/auth/", "-114"),
        ("acl /a acl=31/ip/10.0.0.0/8 v=0", "v0 c0 a1 0B 0kids"),
        ("acl /a", "-102"),
        ("set /a x", "-102"),
    ]);
    script.ids.push(Id::new("super", ""));
    script.check(&[("acl /a v=1", "v0 c0 a2 0B 0kids")]);
    script.ids[1] = Id::new("digest", "u:h");
    script.check(&[("acl /a acl=31/auth/ v=2", "v0 c0 a3 0B 0kids")]);
    let id = tree::znode(script.tree.view(), "/a").unwrap().acl();
    let expect = AclBytes::encode(&[crate::acl::Acl { perms: ALL, id: script.ids[1].clone() }]);
    assert_eq!(tree::acl(script.tree.view(), id), expect);
}

#[test]
fn what_is_not_for_clients_or_not_here_is_refused() {
    let mut script = Script::new();
    let check = encode("check /zookeeper");
    assert_eq!(script.execute(check.0, &check.1), Err(-6));
    assert_eq!(script.execute(OpCode::DeleteContainer, b"\0\0\0\x02/a"), Err(-6));
    let reconfig = [&[0xff; 12][..], &[0xff; 8]].concat();
    assert_eq!(script.execute(OpCode::Reconfig, &reconfig), Err(-123));
    assert_eq!(script.execute(OpCode::Reconfig, &reconfig[1..]), Err(-5));
    script.rules.reconfig_enabled = true;
    assert_eq!(script.execute(OpCode::Reconfig, &reconfig), Err(-6));
}

#[test]
fn an_error_is_a_transaction_without_a_digest() {
    let mut script = Script::new();
    assert_eq!(script.run("delete /none"), "-101");
    let decoded = codec::decode(&script.txn).unwrap();
    assert_eq!((decoded.txn, decoded.digest), (Txn::Error(TxnError(-101)), None));
    assert_eq!(script.effects, Effects::new());
}

#[test]
fn a_multi_is_answered_operation_by_operation() {
    let mut script = Script::new();
    script.check(&[
        (
            "multi create /m x; check /m v=0; create2 /m/a; set /m yy v=0; check /m v=1; \
             create /m/s flags=2; delete /m/a; container /m/c; ttl /m/t flags=5 ttl=9",
            "/m; ok; /m/a v0 c0 a0 0B 0kids; v1 c1 a0 2B 1kids; ok; /m/s0000000001; ok; \
             /m/c v0 c0 a0 0B 0kids; /m/t v0 c0 a0 0B 0kids",
        ),
        ("multi ", ""),
        // The mode of containers, and createTTL with another mode.
        ("multi create /c flags=4", "/c v0 c0 a0 0B 0kids"),
        ("multi ttl /p flags=0 ttl=7", "/p"),
        ("multi ttl /q flags=9 ttl=7", "-8"),
    ]);
    let owner = tree::znode(script.tree.view(), "/c").unwrap().owner();
    assert_eq!(owner, Owner::Container);
}

#[test]
fn a_failed_multi_leaves_nothing() {
    let mut script = Script::new();
    script.check(&[("create /a", "/a"), ("create /a/n flags=2", "/a/n0000000000")]);
    let before = script.tree.digest();
    script.check(&[
        ("multi create /a/b; set /a x; delete /a v=7; create /a/c", "0; 0; -103; -2"),
        ("multi create /x flags=1; create /x/y", "0; -108"),
        ("multi delete /a/n0000000000; delete /a; delete /a", "0; 0; -101"),
        ("multi check /none v=0; create /z", "-101; -2"),
    ]);
    assert_eq!(script.tree.digest(), before);
    assert_eq!(script.effects, Effects::new());
    let decoded = codec::decode(&script.txn).unwrap();
    let errors = vec![Txn::Error(TxnError(-101)), Txn::Error(TxnError(-2))];
    assert_eq!(decoded.txn, Txn::Multi(errors));
    assert!(decoded.digest.is_some());
    // The name after the failed one is the one that it would have had.
    script.check(&[("create /a/n flags=2", "/a/n0000000001")]);
}

#[test]
fn a_failed_multi_is_as_on_a_real_wire() {
    let mut script = Script::new();
    script.check(&[("multi create /a; delete /zookeeper v=9; create /b", "0; -8; -2")]);
    script.run("create /v");
    script.run("multi create /a; delete /v v=9; create /b");
    let mut wire = vec![0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    wire.extend([0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0x99, 0xff, 0xff, 0xff, 0x99]);
    wire.extend([0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff, 0xfe]);
    wire.extend([0xff, 0xff, 0xff, 0xff, 1, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(script.reply[4 + 16..], wire);
}

#[test]
fn what_cannot_be_decoded_is_no_transaction() {
    let mut script = Script::new();
    let before = script.tree.applied();
    for (request, cut) in [("create /a x", 3), ("delete /a", 1), ("set /a x", 4), ("acl /a", 5)] {
        let (op, body) = encode(request);
        assert_eq!(script.execute(op, &body[..body.len() - cut]), Err(-5), "{request}");
    }
    for op in [OpCode::Delete, OpCode::SetData, OpCode::SetAcl, OpCode::Create] {
        assert_eq!(script.execute(op, &[0xff; 7]), Err(-5), "{op:?}");
    }
    assert_eq!(script.tree.applied(), before);
}

#[test]
fn a_multi_that_cannot_be_decoded_and_a_null_path_are_transactions() {
    let mut script = Script::new();
    let before = script.tree.applied();
    script.check(&[
        ("multi create /a flags=5", "-5"),
        ("multi create /a flags=9", "-5"),
        ("multi create /a; get /a", "-5"),
        ("multi get /a; ls /a", "-5"),
    ]);
    let null_path = [&[0xff; 4][..], &[0; 4]].concat();
    assert_eq!(script.execute(OpCode::Delete, &null_path), Err(-5));
    let null_path = [0xff; 12];
    assert_eq!(script.execute(OpCode::SetData, &null_path), Err(-8));
    assert_eq!(script.execute(OpCode::SetAcl, &null_path), Err(-8));
    // The flags come first.
    let create = |flags: i32| [&null_path[..], &flags.to_be_bytes()].concat();
    assert_eq!(script.execute(OpCode::Create, &create(7)), Err(-8));
    assert_eq!(script.execute(OpCode::Create, &create(0)), Err(-5));
    assert_eq!(script.tree.applied(), Zxid(before.0 + 9));
}

#[test]
fn hard_quotas_refuse_what_grows_beyond_them() {
    let mut script = Script::new();
    script.rules.enforce_quota = true;
    script.check(&[
        ("create /q", "/q"),
        ("create /zookeeper/quota/q", "/zookeeper/quota/q"),
        (
            "create /zookeeper/quota/q/zookeeper_limits \
             count=-1,bytes=-1=;byteHardLimit=5;countHardLimit=3",
            "/zookeeper/quota/q/zookeeper_limits",
        ),
        (
            "create /zookeeper/quota/q/zookeeper_stats count=1,bytes=0",
            "/zookeeper/quota/q/zookeeper_stats",
        ),
        ("create /q/a xxx", "/q/a"),
        ("create /q/b xxx", "-125"),
        ("set /q/a xxxxxx", "-125"),
        ("set /q/a xxxxxx v=9", "-125"),
        ("set /q/a xxxxx", "v1 c0 a0 5B 0kids"),
        ("create /q/b", "/q/b"),
        ("create /q/c", "-125"),
        ("multi delete /q/b; create /q/c; create /q/d", "0; 0; -125"),
        ("multi delete /q/b; create /q/c", "ok; /q/c"),
        ("create /other xxxxxxxxx", "/other"),
        // Limits that are none.
        ("create /zookeeper/quota/other", "/zookeeper/quota/other"),
        (
            "create /zookeeper/quota/other/zookeeper_limits many",
            "/zookeeper/quota/other/zookeeper_limits",
        ),
        ("create /other/a", "-5"),
    ]);
    script.rules.enforce_quota = false;
    script.check(&[("set /q/a xxxxxx", "v2 c0 a0 6B 0kids"), ("create /other/a", "/other/a")]);
}

#[test]
fn a_multi_that_grows_out_of_proportion_is_refused() {
    let mut script = Script::new();
    let user = "u".repeat(1000);
    script.ids.extend((0..1000).map(|n| Id::new("digest", format!("{user}{n}:h"))));
    let create = |n: usize| format!("create /n{n} acl=31/auth/");
    let requests: Vec<_> = (0..5).map(create).collect();
    let errors = script.run(&format!("multi {}", requests.join("; ")));
    assert_eq!(errors, "-5");
    assert_eq!(script.run(&create(0)), "/n0");
}

#[test]
fn closing_a_session_lists_its_ephemerals() {
    let mut script = Script::new();
    script.check(&[
        ("create /a", "/a"),
        ("create /a/e flags=1", "/a/e"),
        ("create /b flags=1", "/b"),
    ]);
    script.call(close_session);
    let decoded = codec::decode(&script.txn).unwrap();
    let Txn::CloseSession { ephemerals: Some(mut paths) } = decoded.txn else { panic!() };
    paths.sort();
    assert_eq!(paths, ["/a/e", "/b"]);
    assert!(tree::znode(script.tree.view(), "/b").is_none());
    assert_eq!(tree::session(script.tree.view(), SESSION), None);
    let header = ReplyHeader::read(&mut Reader::new(&script.reply[4..])).unwrap();
    assert_eq!((header.zxid, header.err), (script.tree.applied().to_wire(), 0));
}

#[test]
fn closing_a_session_with_too_many_ephemerals_lists_none() {
    let mut script = Script::new();
    script.rules.packet_bytes_max = 20;
    script.check(&[("create /long-name flags=1", "/long-name")]);
    script.check(&[("create /long-name2 flags=1", "/long-name2")]);
    script.call(close_session);
    let decoded = codec::decode(&script.txn).unwrap();
    let expect = (Txn::CloseSession { ephemerals: None }, None);
    assert_eq!((decoded.txn, decoded.digest), expect);
    assert!(tree::znode(script.tree.view(), "/long-name2").is_none());
}

#[test]
fn the_server_deletes_only_what_nobody_needs() {
    let mut script = Script::new();
    script.check(&[
        ("container /c", "/c v0 c0 a0 0B 0kids"),
        ("container /full", "/full v0 c0 a0 0B 0kids"),
        ("create /full/child", "/full/child"),
        ("ttl /t flags=5 ttl=1", "/t v0 c0 a0 0B 0kids"),
        ("create /p", "/p"),
    ]);
    let mut delete = |path: &str| {
        script.call(|tree, context, txns, effects, _| {
            delete_container(tree, context, path, txns, effects);
        });
        codec::decode(&script.txn).unwrap().txn.op()
    };
    assert_eq!(delete("/c"), OpCode::DeleteContainer);
    assert_eq!(delete("/t"), OpCode::DeleteContainer);
    for path in ["/full", "/p", "/none"] {
        assert_eq!(delete(path), OpCode::Error);
    }
}

#[test]
fn a_refusal_is_an_error_transaction_and_its_reply() {
    let mut script = Script::new();
    script.call(|tree, context, txns, effects, replies| {
        refuse(tree, context, ErrorCode::SessionMoved, txns, effects, replies);
    });
    let decoded = codec::decode(&script.txn).unwrap();
    assert_eq!(decoded.txn, Txn::Error(TxnError(-118)));
    assert_eq!(script.reply.len(), 4 + 16);
}

#[test]
fn a_sync_answers_its_path_and_takes_no_zxid() {
    let mut out = Vec::new();
    sync(Xid(3), Zxid(9), b"\0\0\0\x02/a", &mut out);
    let (header, body) = out[4..].split_at(16);
    let expect = ReplyHeader { xid: Xid(3), zxid: 9, err: 0 };
    assert_eq!(ReplyHeader::read(&mut Reader::new(header)), Ok(expect));
    assert_eq!(body, b"\0\0\0\x02/a");
    out.clear();
    sync(Xid(3), Zxid(9), &[0xff; 4], &mut out);
    assert_eq!(out[4 + 16..], [0xff; 4]);
    out.clear();
    sync(Xid(3), Zxid(9), b"\0\0", &mut out);
    let expect = ReplyHeader { xid: Xid(3), zxid: 9, err: -5 };
    assert_eq!(ReplyHeader::read(&mut Reader::new(&out[4..])), Ok(expect));
    assert_eq!(out.len(), 4 + 16);
}

/// Bytes from a seed; splitmix64.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[test]
fn no_body_breaks_the_server() {
    let seeds = [
        "create /a x",
        "create /zookeeper/quota/a",
        "create2 /a/b flags=3",
        "ttl /t flags=5 ttl=9",
        "container /c flags=2",
        "set /a yyy",
        "set / yyy",
        "acl /a acl=31/world/anyone,3/ip/10.0.0.0/8,1/auth/",
        "delete /a",
        "delete /zookeeper/quota/a",
        "multi create /m flags=2; check /a v=0; set /a z; delete /a",
        "multi create /zookeeper/quota/a/zookeeper_limits count=1,bytes=2; create /a/b x",
        "multi ttl /t2 flags=6 ttl=3; container /c2",
    ];
    let mut script = Script::new();
    script.rules.enforce_quota = true;
    let mut noise = Noise(1);
    let mut accepted = 0;
    for round in 0..30_000 {
        let (op, mut body) = encode(seeds[noise.next() as usize % seeds.len()]);
        for _ in 0..round % 4 {
            let at = noise.next() as usize % body.len();
            match noise.next() % 4 {
                0 => body[at] = noise.next() as u8,
                1 => body[at] = [0, 1, 0x7f, 0x80, 0xff, b'/', b'.'][noise.next() as usize % 7],
                2 => body.truncate(at.max(1)),
                _ => body.insert(at, noise.next() as u8),
            }
        }
        accepted += usize::from(script.execute(op, &body).is_ok());
    }
    assert!(accepted > 3_000, "{accepted} of 30000 do something");
}

#[test]
fn a_multi_can_be_as_long_as_its_packet() {
    let mut script = Script::new();
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    let check = MultiOp::Check(VersionedPath { path: "/".into(), version: -1 });
    for _ in 0..50_000 {
        check.write(&mut writer);
    }
    MultiHeader::END.write(&mut writer);
    let reply = script.execute(OpCode::Multi, &body).unwrap();
    assert_eq!(reply.len(), 50_001 * 9);
}
