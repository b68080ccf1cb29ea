//! Reads, error by error, with the watches that they leave.

use std::collections::BTreeMap;

use super::*;
use crate::acl::{Acl, AclBytes};
use crate::prep::script::{SESSION, Script, describe_stat, encode};
use crate::records::{
    MultiHeader, NOTIFICATION_XID, PING_XID, PathWatch, ReplyHeader, WatchEvent, WatchKind,
};

const XID: Xid = Xid(9);

/// The watches of one connection, as the core's table would hold them.
#[derive(Default)]
struct Table(BTreeMap<String, Modes>);

impl Watches for Table {
    fn add(&mut self, modes: Modes, path: &str) {
        let old = self.0.entry(path.to_owned()).or_default();
        *old = old.with(modes);
    }

    fn remove(&mut self, modes: Modes, path: &str) -> bool {
        let Some(old) = self.0.get_mut(path).filter(|old| old.has_any(modes)) else {
            return false;
        };
        *old = old.without(modes);
        true
    }

    fn contains(&self, modes: Modes, path: &str) -> bool {
        self.0.get(path).is_some_and(|old| old.has_any(modes))
    }
}

/// A connection to a server in some state.
struct Client {
    server: Script,
    watches: Table,
    out: Vec<u8>,
}

impl Client {
    fn new(requests: &[&str]) -> Self {
        let mut server = Script::new();
        for request in requests {
            let answer = server.run(request);
            assert!(!answer.starts_with('-'), "{request}: {answer}");
        }
        Self { server, watches: Table::default(), out: Vec::new() }
    }

    /// Sends a body; the last frame's body, or the error.
    fn ask(&mut self, op: OpCode, body: &[u8]) -> Result<Vec<u8>, i32> {
        let (header, body) = self.frames(op, body).pop().unwrap();
        let xid = if op == OpCode::Ping { PING_XID } else { XID };
        assert_eq!((header.xid, header.zxid), (xid, self.server.tree.applied().to_wire()));
        if header.err == 0 { Ok(body) } else { Err(header.err) }
    }

    fn frames(&mut self, op: OpCode, body: &[u8]) -> Vec<(ReplyHeader, Vec<u8>)> {
        let version = self.server.tree.freeze();
        let context = ReadContext {
            session: SESSION,
            xid: XID,
            ids: &self.server.ids,
            last_zxid: version.zxid(),
            rules: &self.server.rules,
            verdicts: &Verdicts::default(),
        };
        self.out.clear();
        answer(&version, &context, op, body, &mut self.watches, &mut self.out);
        let mut frames = Vec::new();
        let mut reader = Reader::new(&self.out);
        while !reader.is_empty() {
            let mut frame = Reader::new(reader.buf().unwrap().unwrap());
            frames.push((ReplyHeader::read(&mut frame).unwrap(), frame.rest().to_vec()));
        }
        frames
    }

    fn path_watch(&mut self, op: OpCode, path: &str, watch: bool) -> Result<Vec<u8>, i32> {
        let mut body = Vec::new();
        PathWatch { path: path.into(), watch }.write(&mut Writer::new(&mut body));
        self.ask(op, &body)
    }

    fn kind(&mut self, op: OpCode, path: &str, kind: i32) -> Result<Vec<u8>, i32> {
        let mut body = Vec::new();
        WatchKind { path: path.into(), kind }.write(&mut Writer::new(&mut body));
        self.ask(op, &body)
    }

    fn path(&mut self, op: OpCode, path: &str) -> Result<Vec<u8>, i32> {
        let mut body = Vec::new();
        Writer::new(&mut body).string(path);
        self.ask(op, &body)
    }

    fn modes(&self, path: &str) -> Modes {
        self.watches.0.get(path).copied().unwrap_or_default()
    }
}

/// `DATA`, `stat`: what getData answers.
fn data_and_stat(body: &[u8]) -> (Option<Vec<u8>>, String) {
    let mut reader = Reader::new(body);
    let data = reader.buf().unwrap().map(<[u8]>::to_vec);
    let stat = describe_stat(&mut reader);
    assert!(reader.is_empty());
    (data, stat)
}

fn names(reader: &mut Reader<'_>) -> Vec<String> {
    let count = reader.count(4).unwrap().unwrap();
    (0..count).map(|_| reader.string("name").unwrap().into_owned()).collect()
}

#[test]
fn get_data_gives_data_and_stat() {
    let big = "x".repeat(10_000);
    let create_big = format!("create /big {big}");
    let mut client = Client::new(&["create /a xyz", "create /null", &create_big]);
    let get = |client: &mut Client, path| {
        client.path_watch(OpCode::GetData, path, false).map(|body| data_and_stat(&body))
    };
    let stat = |text: &str| String::from(text);
    assert_eq!(get(&mut client, "/a"), Ok((Some(b"xyz".to_vec()), stat("v0 c0 a0 3B 0kids"))));
    assert_eq!(get(&mut client, "/null"), Ok((None, stat("v0 c0 a0 0B 0kids"))));
    let expect = (Some(big.into_bytes()), stat("v0 c0 a0 10000B 0kids"));
    assert_eq!(get(&mut client, "/big"), Ok(expect));
    assert_eq!(get(&mut client, "").map(|(data, _)| data), Ok(Some(Vec::new())));
    for path in ["/none", "relative", "/a/", "/\u{1f600}", "//"] {
        assert_eq!(get(&mut client, path), Err(-101), "{path}");
    }
}

#[test]
fn a_good_answer_leaves_its_watch_and_an_error_does_not() {
    let mut client = Client::new(&["create /a", "create /secret acl=2/world/anyone"]);
    for (op, modes) in [
        (OpCode::GetData, Modes::DATA),
        (OpCode::Exists, Modes::DATA),
        (OpCode::GetChildren, Modes::CHILD),
        (OpCode::GetChildren2, Modes::CHILD),
    ] {
        client.watches = Table::default();
        client.path_watch(op, "/a", false).unwrap();
        assert_eq!(client.modes("/a"), Modes::NONE);
        client.path_watch(op, "/a", true).unwrap();
        assert_eq!(client.modes("/a"), modes, "{op:?}");
        assert_eq!(client.path_watch(op, "/secret", true), Err(-102));
        assert_eq!(client.modes("/secret"), Modes::NONE);
        assert_eq!(client.path_watch(op, "/none", true), Err(-101));
        let waits = if op == OpCode::Exists { Modes::DATA } else { Modes::NONE };
        assert_eq!(client.modes("/none"), waits, "{op:?}");
    }
    assert_eq!(client.path_watch(OpCode::Exists, "/\0", true), Err(-8));
    assert_eq!(client.path_watch(OpCode::GetData, "/\0", true), Err(-101));
}

#[test]
fn children_come_with_or_without_the_stat() {
    let mut client = Client::new(&["create /a x", "create /a/c", "create /a/b", "create /a/b/d"]);
    let body = client.path_watch(OpCode::GetChildren, "/a", false).unwrap();
    let mut reader = Reader::new(&body);
    let mut found = names(&mut reader);
    found.sort();
    assert_eq!((found, reader.is_empty()), (vec!["b".into(), "c".into()], true));
    let body = client.path_watch(OpCode::GetChildren2, "/a", false).unwrap();
    let mut reader = Reader::new(&body);
    assert_eq!(names(&mut reader).len(), 2);
    assert_eq!(describe_stat(&mut reader), "v0 c2 a0 1B 2kids");
    let body = client.path_watch(OpCode::GetChildren, "/", false).unwrap();
    assert_eq!(names(&mut Reader::new(&body)).len(), 2);
}

#[test]
fn many_children_are_answered_in_one_walk() {
    let mut client = Client::new(&["create /a"]);
    for _ in 0..20_000 {
        client.server.run("create /a/n flags=2");
    }
    let body = client.path_watch(OpCode::GetChildren, "/a", false).unwrap();
    assert_eq!(names(&mut Reader::new(&body)).len(), 20_000);
}

#[test]
fn the_acl_list_is_masked_unless_one_may_change_it() {
    let list = "1/ip/127.0.0.1,16/digest/u:hash,2/digest/v:hash";
    let mut client = Client::new(&[&format!("create /a acl={list}"), "create /b acl=2/ip/::1"]);
    let read = |client: &mut Client| {
        let body = client.path(OpCode::GetAcl, "/a").unwrap();
        let mut reader = Reader::new(&body);
        let list = AclBytes::read(&mut reader).unwrap().decode();
        assert_eq!(describe_stat(&mut reader), "v0 c0 a0 0B 0kids");
        list.into_iter().map(|Acl { id, .. }| id.id).collect::<Vec<_>>()
    };
    assert_eq!(read(&mut client), ["127.0.0.1", "u:x", "v:x"]);
    client.server.ids.push(Id::new("digest", "u:hash"));
    assert_eq!(read(&mut client), ["127.0.0.1", "u:hash", "v:hash"]);
    assert_eq!(client.path(OpCode::GetAcl, "/b"), Err(-102));
    assert_eq!(client.path(OpCode::GetAcl, "/none"), Err(-101));
    let root = client.path(OpCode::GetAcl, "/").unwrap();
    assert!(AclBytes::read(&mut Reader::new(&root)).unwrap().is_open());
}

#[test]
fn all_znodes_below_are_counted() {
    let mut client = Client::new(&[
        "create /a",
        "create /ab",
        "create /a/b",
        "create /a/b/c",
        "create /secret acl=2/world/anyone",
    ]);
    let mut count = |path| {
        let body = client.path(OpCode::GetAllChildrenNumber, path)?;
        Ok(Reader::new(&body).i32().unwrap())
    };
    assert_eq!(count("/a"), Ok(2));
    assert_eq!(count("/a/b/c"), Ok(0));
    // Three of ZooKeeper's own.
    assert_eq!(count("/"), Ok(5 + 3));
    assert_eq!(count(""), Ok(5 + 3 + 1));
    assert_eq!(count("/none"), Err(-101));
    assert_eq!(count("/secret"), Err(-102));
}

#[test]
fn ephemerals_of_the_session_by_the_start_of_their_path() {
    let mut client =
        Client::new(&["create /a", "create /a/e flags=1", "create /ab flags=1", "create /c"]);
    client.server.session = SessionId(1);
    client.server.run("create /other flags=1");
    let mut list = |prefix: Option<&str>| {
        let mut body = Vec::new();
        Writer::new(&mut body).buf_or_null(prefix.map(str::as_bytes));
        let body = client.ask(OpCode::GetEphemerals, &body).unwrap();
        let mut names = names(&mut Reader::new(&body));
        names.sort();
        names
    };
    for all in [None, Some(""), Some("/"), Some(" / \t")] {
        assert_eq!(list(all), ["/a/e", "/ab"], "{all:?}");
    }
    assert_eq!(list(Some("/a")), ["/a/e", "/ab"]);
    assert_eq!(list(Some("/a/")), ["/a/e"]);
    assert!(list(Some("/b")).is_empty());
}

#[test]
fn who_am_i_tells_users_without_hashes() {
    let mut client = Client::new(&[]);
    client.server.ids.push(Id::new("digest", "u:hash"));
    client.server.ids.push(Id::new("super", ""));
    let body = client.ask(OpCode::WhoAmI, &[]).unwrap();
    let mut reader = Reader::new(&body);
    assert_eq!(reader.i32(), Ok(3));
    let mut next = || reader.string("text").unwrap().into_owned();
    assert_eq!([next(), next()], ["ip", "127.0.0.1"]);
    assert_eq!([next(), next()], ["digest", "u"]);
    assert_eq!([next(), next()], ["super", ""]);
}

#[test]
fn a_ping_has_the_xid_of_pings() {
    assert_eq!(Client::new(&[]).ask(OpCode::Ping, &[]), Ok(Vec::new()));
}

#[test]
fn persistent_watches_are_added_checked_and_removed() {
    let mut client = Client::new(&[]);
    assert_eq!(client.kind(OpCode::AddWatch, "/none", 0), Ok(vec![0; 4]));
    assert_eq!(client.kind(OpCode::AddWatch, "/none", 1), Ok(vec![0; 4]));
    assert_eq!(client.kind(OpCode::AddWatch, "/none", 2), Err(-5));
    assert_eq!(client.modes("/none"), Modes::PERSISTENT.with(Modes::RECURSIVE));
    let mut check = |op, kind, expect| {
        assert_eq!(client.kind(op, "/none", kind).map(|body| body.len()), expect, "{op:?} {kind}");
    };
    for (kind, expect) in
        [(1, Err(-121)), (2, Err(-121)), (3, Ok(0)), (4, Ok(0)), (5, Ok(0)), (6, Err(-5))]
    {
        check(OpCode::CheckWatches, kind, expect);
    }
    check(OpCode::RemoveWatches, 0, Err(-5));
    check(OpCode::RemoveWatches, 1, Err(-121));
    check(OpCode::RemoveWatches, 4, Ok(0));
    check(OpCode::RemoveWatches, 4, Err(-121));
    check(OpCode::CheckWatches, 5, Ok(0));
    check(OpCode::RemoveWatches, 3, Ok(0));
    check(OpCode::CheckWatches, 3, Err(-121));
}

#[test]
fn set_watches_tells_what_was_missed_before_it_answers() {
    let mut client = Client::new(&["create /old", "create /old2", "create /set", "create /kids"]);
    let relative = client.server.tree.applied().to_wire();
    client.server.check(&[("set /set x", "v1 c0 a0 1B 0kids"), ("create /kids/k", "/kids/k")]);
    let lists: [&[&str]; 5] = [
        &["/old", "/set", "/gone"],
        &["/old", "/missing"],
        &["/old2", "/kids", "/gone2"],
        &["/p"],
        &["/r"],
    ];
    let body = |count: usize| {
        let mut body = Vec::new();
        let mut writer = Writer::new(&mut body);
        writer.i64(relative);
        for list in &lists[..count] {
            writer.count(list.len());
            for path in *list {
                writer.string(path);
            }
        }
        body
    };
    let mut frames = client.frames(OpCode::SetWatches2, &body(5));
    let zxid = client.server.tree.applied().to_wire();
    assert_eq!(frames.pop(), Some((ReplyHeader { xid: XID, zxid, err: 0 }, Vec::new())));
    let events: Vec<_> = frames
        .iter()
        .map(|(header, body)| {
            let expect = ReplyHeader { xid: NOTIFICATION_XID, zxid: -1, err: 0 };
            assert_eq!(*header, expect);
            let event = WatchEvent::read(&mut Reader::new(body)).unwrap();
            (event.kind, event.path.into_owned())
        })
        .collect();
    let expect = [(3, "/set"), (2, "/gone"), (1, "/old"), (4, "/kids"), (2, "/gone2")];
    assert_eq!(events, expect.map(|(kind, path)| (kind, String::from(path))));
    let watched: Vec<_> = client.watches.0.iter().map(|(path, modes)| (&**path, *modes)).collect();
    let expect = [
        ("/missing", Modes::DATA),
        ("/old", Modes::DATA),
        ("/old2", Modes::CHILD),
        ("/p", Modes::PERSISTENT),
        ("/r", Modes::RECURSIVE),
    ];
    assert_eq!(watched, expect);
    client.watches = Table::default();
    assert_eq!(client.frames(OpCode::SetWatches, &body(3)).len(), 6);
    assert_eq!(client.watches.0.len(), 3);
}

#[test]
fn reads_of_a_multi_fail_each_for_itself() {
    let mut client = Client::new(&["create /a x", "create /a/b", "create /s acl=2/world/anyone"]);
    let (_, body) = encode("multi get /a; get /none; ls /a; ls /s; get /a/b");
    let reply = client.ask(OpCode::MultiRead, &body).unwrap();
    let mut reader = Reader::new(&reply);
    let mut next = |op: i32, err: i32| {
        assert_eq!(MultiHeader::read(&mut reader), Ok(MultiHeader { op, done: false, err }));
        match op {
            4 => {
                let data = reader.buf().unwrap().map(<[u8]>::to_vec);
                format!("{data:?} {}", describe_stat(&mut reader))
            }
            8 => names(&mut reader).join(" "),
            _ => reader.i32().unwrap().to_string(),
        }
    };
    assert_eq!(next(4, 0), "Some([120]) v0 c1 a0 1B 1kids");
    assert_eq!(next(-1, -101), "-101");
    assert_eq!(next(8, 0), "b");
    assert_eq!(next(-1, -102), "-102");
    assert_eq!(next(4, 0), "None v0 c0 a0 0B 0kids");
    assert_eq!(MultiHeader::read(&mut reader), Ok(MultiHeader::END));
    assert!(reader.is_empty());
}

#[test]
fn a_multi_read_of_nothing_or_of_writes() {
    let end = [0xff, 0xff, 0xff, 0xff, 1, 0xff, 0xff, 0xff, 0xff];
    let mut client = Client::new(&[]);
    assert_eq!(client.ask(OpCode::MultiRead, &end), Ok(end.to_vec()));
    let (_, body) = encode("multi create /a");
    let (header, body) = client.frames(OpCode::MultiRead, &body).remove(0);
    assert_eq!((header.err, body), (-5, end.to_vec()));
    let (_, body) = encode("multi get /a; create /a");
    assert_eq!(client.ask(OpCode::MultiRead, &body), Err(-5));
    assert_eq!(client.out.len(), 4 + 16);
}

#[test]
fn what_cannot_be_decoded_is_a_marshalling_error() {
    let reads = [
        OpCode::GetData,
        OpCode::Exists,
        OpCode::GetChildren,
        OpCode::GetChildren2,
        OpCode::GetAcl,
        OpCode::GetAllChildrenNumber,
        OpCode::MultiRead,
        OpCode::SetWatches,
        OpCode::SetWatches2,
        OpCode::AddWatch,
        OpCode::CheckWatches,
        OpCode::RemoveWatches,
        OpCode::GetEphemerals,
    ];
    let mut client = Client::new(&[]);
    for op in reads {
        assert_eq!(client.ask(op, &[0, 0]), Err(-5), "{op:?}");
        // A null path; to getEphemerals that is all of them.
        let expect = if op == OpCode::GetEphemerals { Ok(vec![0; 4]) } else { Err(-5) };
        assert_eq!(client.ask(op, &[0xff; 5]), expect, "{op:?}");
    }
    assert_eq!(client.ask(OpCode::Create, &[]), Err(-6));
}

#[test]
fn no_body_breaks_a_read() {
    let mut client = Client::new(&["create /a x", "create /a/b", "create /a/e flags=1"]);
    let mut bodies = vec![encode("multi get /a; ls /a/b; get /none").1];
    for path in ["/a", "/", "", "/a/b", "/none"] {
        let mut body = Vec::new();
        PathWatch { path: path.into(), watch: true }.write(&mut Writer::new(&mut body));
        body.extend([0, 0, 3]);
        bodies.push(body);
        let mut body = vec![0; 8];
        for _ in 0..5 {
            let mut writer = Writer::new(&mut body);
            writer.count(1);
            writer.string(path);
        }
        bodies.push(body);
    }
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    for round in 0..20_000 {
        let mut body = bodies[random(bodies.len())].clone();
        for _ in 0..round % 4 {
            let at = random(body.len());
            match random(3) {
                0 => body[at] = random(256) as u8,
                1 => body.truncate(at.max(1)),
                _ => body.insert(at, random(256) as u8),
            }
        }
        let op = OpCode::ALL[random(OpCode::ALL.len())];
        let frames = client.frames(op, &body);
        assert_ne!(frames.last().unwrap().0.xid, NOTIFICATION_XID);
    }
}
