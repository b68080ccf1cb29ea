//! Limits that a server is started with: what is beyond them waits or is refused, with the
//! documented answer; nothing is lost, and nobody else is kept waiting.

use std::time::Instant;

use engine::acl::{ALL, Acl, AclBytes, Id};
use engine::error_code::ErrorCode;
use engine::jute::Writer;
use engine::op::OpCode;
use engine::records::{AUTH_XID, NewNodeRequest, PING_XID, multi::MultiOp};
use tempfile::TempDir;

use super::client::{
    Client, EPHEMERAL, PERSISTENT, new_node, new_session, path_watch, set_data, versioned,
    write_multi,
};
use super::ensemble::Ensemble;
use super::server::{DEADLINE, Server, Setup};

const VALUE_BYTES: usize = 200_000;

fn value(number: usize) -> Vec<u8> {
    vec![number as u8; VALUE_BYTES]
}

/// Creates large znodes until that is refused: how many there are.
fn fill(client: &mut Client) -> usize {
    for number in 0..100 {
        match client.create(&format!("/large{number}"), &value(number), PERSISTENT).err {
            0 => {}
            error => {
                assert_eq!(error, ErrorCode::SystemError.to_wire());
                return number;
            }
        }
    }
    panic!("more fits in than the limit allows");
}

/// What grows is refused, and what does not is not.
fn check_full(server: &Server, client: &mut Client, count: usize) {
    let refusal = ErrorCode::SystemError.to_wire();
    assert_eq!(client.create("/small", b"", PERSISTENT).err, refusal);
    assert_eq!(client.set_data("/kept", b"123456").err, refusal);
    assert_eq!(client.set_data("/kept", b"54321").err, 0, "it does not grow");
    let both = [
        MultiOp::Delete(versioned("/kept")),
        MultiOp::Create(OpCode::Create, new_node("/small", b"", PERSISTENT)),
    ];
    assert_eq!(client.call(OpCode::Multi, |writer| write_multi(writer, &both)).err, refusal);
    assert_eq!(client.data("/kept"), Ok(b"54321".to_vec()));
    for number in 0..count {
        assert_eq!(client.data(&format!("/large{number}")), Ok(value(number)));
    }
    let absent = [format!("/large{count}"), "/small".to_owned()];
    for path in absent {
        assert_eq!(client.exists(&path, false).err, ErrorCode::NoNode.to_wire());
    }
    // Sessions begin and end.
    let mut other = server.client();
    assert_eq!(other.exists("/kept", false).err, 0);
    assert_eq!(other.call(OpCode::CloseSession, |_| {}).err, 0);
    assert!(other.is_closed());
}

#[test]
fn a_tree_beyond_its_memory_limit_grows_again_when_enough_was_deleted() {
    for (backend, cores) in [("io_uring", 2), ("epoll", 1)] {
        let folder = TempDir::new().unwrap();
        let setup = Setup::new(backend, cores, folder.path()).with("ringkeeper.memoryLimitMb=4");
        let mut server = setup.start();
        let mut leaving = server.client();
        let mut client = server.client();
        assert_eq!(client.create("/kept", b"12345", PERSISTENT).err, 0);
        assert_eq!(leaving.create("/leaving", &value(0), EPHEMERAL).err, 0);
        let count = fill(&mut client);
        server.wait_for("memory limit reached");
        check_full(&server, &mut client, count);
        // The limit says nothing against a start beyond it.
        server.killer()();
        drop(server.wait());
        let server = setup.start();
        let mut client = server.client();
        let mut leaving = Client::connect(server.address, &leaving.session.reattach()).unwrap();
        check_full(&server, &mut client, count);
        assert_eq!(leaving.call(OpCode::CloseSession, |_| {}).err, 0);
        assert_eq!(client.exists("/leaving", false).err, ErrorCode::NoNode.to_wire());
        for number in 0..count / 2 {
            assert_eq!(client.delete(&format!("/large{number}")).err, 0);
        }
        // Their memory is free when no core shows a version any more that has them.
        for number in 0..count / 2 {
            client.create_until_accepted(&format!("/again{number}"), &value(number));
        }
        server.terminate();
    }
}

/// A connection in the place of one that has left, which the server sees some time later.
fn connect_in_place(server: &Server) -> Client {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(client) = Client::connect(server.address, &new_session()) {
            return client;
        }
        assert!(Instant::now() < deadline, "the place is never given to another");
    }
}

/// There may be four connections, whoever asks.
fn check_four(setup: &Setup, reason: &str) {
    let mut server = setup.start();
    // One that has no session is one as well.
    let silent = server.stream();
    let mut clients: Vec<_> = (0..3).map(|_| server.client()).collect();
    // Wherever a connection goes to, all are counted.
    for _ in 0..6 {
        assert!(Client::connect(server.address, &new_session()).is_none());
    }
    let line = server.wait_for("connection refused");
    assert!(line.contains(reason), "{line}");
    drop(clients.pop());
    clients.push(connect_in_place(&server));
    assert!(Client::connect(server.address, &new_session()).is_none(), "it was one place");
    drop(silent);
    clients.push(connect_in_place(&server));
    assert!(Client::connect(server.address, &new_session()).is_none(), "it was one place");
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.create(&format!("/n{number}"), b"", PERSISTENT).err, 0);
    }
    assert_eq!(clients[0].children("/"), ["n0", "n1", "n2", "n3", "zookeeper"]);
}

#[test]
fn a_server_has_so_many_connections_and_no_more() {
    for (backend, cores) in [("io_uring", 2), ("epoll", 3)] {
        let folder = TempDir::new().unwrap();
        let setup = Setup::new(backend, cores, folder.path()).with("maxClientCnxns=0");
        check_four(&setup.with("maxCnxns=4"), "4 are there, which is maxCnxns");
    }
}

#[test]
fn an_address_has_so_many_connections_and_no_more() {
    for (backend, cores) in [("io_uring", 2), ("epoll", 3)] {
        let folder = TempDir::new().unwrap();
        let setup = Setup::new(backend, cores, folder.path()).with("maxClientCnxns=4");
        check_four(&setup, "4 are there from this address, which is maxClientCnxns");
    }
}

/// Writes, reads and pings, all of them sent before the first reply is read.
fn pipeline(client: &mut Client, path: &str, rounds: usize) {
    let mut expected = Vec::new();
    for round in 0..rounds {
        let value = round.to_be_bytes();
        let put = |writer: &mut Writer<'_>| set_data(path, &value).write(writer);
        expected.push((client.put(OpCode::SetData, put), None));
        let get = |writer: &mut Writer<'_>| path_watch(path, false).write(writer);
        expected.push((client.put(OpCode::GetData, get), Some(value)));
        client.put_ping();
        expected.push((PING_XID, None));
    }
    client.flush();
    for (xid, value) in expected {
        let reply = client.receive();
        assert_eq!((reply.xid, reply.err), (xid, 0));
        if let Some(value) = value {
            assert_eq!(reply.body[4..4 + value.len()], value, "a read sees the write before");
        }
    }
}

#[test]
fn who_pipelines_beyond_the_outstanding_limit_gets_all_replies_in_order() {
    const LIMIT: u64 = 4;
    const PIPELINING: usize = 4;
    for (backend, cores) in [("io_uring", 2), ("epoll", 2)] {
        let folder = TempDir::new().unwrap();
        let server = Setup::new(backend, cores, folder.path())
            .with(&format!("globalOutstandingLimit={LIMIT}"))
            .with("4lw.commands.whitelist=mntr")
            .start();
        let mut bystander = server.client();
        std::thread::scope(|scope| {
            for number in 0..PIPELINING {
                let mut client = server.client();
                let path = format!("/pipelined{number}");
                assert_eq!(client.create(&path, b"", PERSISTENT).err, 0);
                scope.spawn(move || pipeline(&mut client, &path, 300));
            }
            // Each connection may have one request beyond the limit.
            let most = LIMIT + PIPELINING as u64 + 1;
            for number in 0..20 {
                assert_eq!(bystander.create(&format!("/n{number}"), b"", PERSISTENT).err, 0);
                let outstanding = server.metric("zk_outstanding_requests");
                assert!(outstanding <= most, "{outstanding} are under way");
            }
        });
        assert_eq!(server.metric("zk_outstanding_requests"), 0);
        assert!(server.metric("zk_request_throttle_wait_count") > 0, "nobody had to wait");
    }
}

/// Waits until a server has exactly so many requests under way.
fn until_outstanding(server: &Server, count: u64) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let outstanding = server.metric("zk_outstanding_requests");
        assert!(outstanding <= count, "{outstanding} are under way");
        if outstanding == count {
            return;
        }
        assert!(Instant::now() < deadline, "{outstanding} are under way, and not {count}");
    }
}

/// The quorum does not answer for a while, so writes that were taken stay under way.
fn check_stalled(backend: &'static str) {
    let settings = ["globalOutstandingLimit=8", "syncLimit=400", "maxSessionTimeout=60000"];
    let ensemble = Ensemble::start_with(backend, 3, 3, &settings);
    let leader = ensemble.leader();
    let server = ensemble.server(leader);
    let [mut first, mut second, mut reading] = [(); 3].map(|()| server.client());
    for path in ["/first", "/second"] {
        assert_eq!(reading.create(path, b"", PERSISTENT).err, 0);
    }
    let others = (0..3).filter(|index| *index != leader);
    others.clone().for_each(|other| ensemble.server(other).freeze());
    let put = |client: &mut Client, path: &str| -> Vec<_> {
        let mut data = |number: u8| {
            client.put(OpCode::SetData, |writer| set_data(path, &[number]).write(writer))
        };
        (0..200).map(&mut data).collect()
    };
    let of_first = put(&mut first, "/first");
    first.flush();
    until_outstanding(server, 8);
    // Who has none may have one.
    let of_second = put(&mut second, "/second");
    second.flush();
    until_outstanding(server, 9);
    for _ in 0..50 {
        assert_eq!(reading.data("/first"), Ok(Vec::new()));
    }
    assert_eq!(server.metric("zk_outstanding_requests"), 9);
    others.for_each(|other| ensemble.server(other).thaw());
    for (client, xids) in [(&mut first, of_first), (&mut second, of_second)] {
        for xid in xids {
            let reply = client.receive();
            assert_eq!((reply.xid, reply.err), (xid, 0));
        }
    }
    assert_eq!(reading.data("/first"), Ok(vec![199]));
    assert_eq!(reading.data("/second"), Ok(vec![199]));
}

#[test]
fn writes_that_nobody_commits_fill_the_limit_and_reads_of_others_go_on() {
    for backend in ["io_uring", "epoll"] {
        check_stalled(backend);
    }
}

#[test]
fn acls_are_not_checked_where_they_are_to_be_skipped() {
    let folder = TempDir::new().unwrap();
    let setup = Setup::new("epoll", 1, folder.path());
    let server = setup.start();
    let nobody = AclBytes::encode(&[Acl { perms: ALL, id: Id::new("digest", "nobody:x") }]);
    let node = NewNodeRequest { acl: nobody, ..new_node("/private", b"secret", PERSISTENT) };
    let mut client = server.client();
    assert_eq!(client.call(OpCode::Create, |writer| node.write(writer)).err, 0);
    let refused = Err(ErrorCode::NoAuth.to_wire());
    assert_eq!(client.data("/private"), refused);
    server.terminate();
    for (skips, expected) in [("yes", Ok(b"secret".to_vec())), ("no", refused)] {
        let server = setup.clone().with(&format!("skipACL={skips}")).start();
        assert_eq!(server.client().data("/private"), expected, "skipACL={skips}");
        server.terminate();
    }
}

/// The answer to somebody who has not authenticated, and the end of the connection.
fn check_turned_away(client: &mut Client, op: OpCode, body: impl Fn(&mut Writer<'_>)) {
    let xid = client.put(op, &body);
    client.put(op, &body);
    client.flush();
    let reply = client.receive();
    let code = ErrorCode::SessionClosedRequireAuth.to_wire();
    assert_eq!((reply.xid, reply.err, reply.zxid), (xid, code, 0));
    assert_eq!((code, reply.body.len()), (-124, 0));
    assert_eq!(client.try_receive(), None, "the first request is answered, and no other");
}

fn authenticate(client: &mut Client) {
    client.put_auth("digest", b"alice:secret");
    client.flush();
    let reply = client.receive();
    assert_eq!((reply.xid, reply.err, reply.zxid), (AUTH_XID, 0, 0));
}

// Compat: AuthenticationHelper.enforceAuthentication
#[test]
fn who_must_authenticate_and_has_not_is_told_so() {
    for (backend, cores) in [("io_uring", 2), ("epoll", 1)] {
        let folder = TempDir::new().unwrap();
        let setup = Setup::new(backend, cores, folder.path()).with("enforce.auth.enabled=true");
        let server = setup.with("enforce.auth.schemes=digest").start();
        let create = |path| move |writer: &mut Writer<'_>| new_node(path, b"", 0).write(writer);
        let read = |writer: &mut Writer<'_>| path_watch("/", false).write(writer);
        check_turned_away(&mut server.client(), OpCode::Create, create("/never"));
        check_turned_away(&mut server.client(), OpCode::GetData, read);
        check_turned_away(&mut server.client(), OpCode::Ping, |_| {});
        let mut failed = server.client();
        failed.put_auth("nonesuch", b"");
        failed.flush();
        let reply = failed.receive();
        assert_eq!((reply.xid, reply.err), (AUTH_XID, ErrorCode::AuthFailed.to_wire()));
        assert!(failed.is_closed());
        // One that has is served, from the request behind the packet on.
        let mut client = server.client();
        client.put_auth("digest", b"alice:secret");
        let xid = client.put(OpCode::Create, create("/there"));
        client.flush();
        assert_eq!((client.receive().xid, client.receive().xid), (AUTH_XID, xid));
        assert_eq!(client.children("/"), ["there", "zookeeper"]);
        // It is the connection that was closed: the session is still there, also after a request
        // to end it.
        let mut closing = server.client();
        check_turned_away(&mut closing, OpCode::CloseSession, |_| {});
        let session = closing.session;
        let mut back = Client::connect(server.address, &session.reattach()).unwrap();
        assert_eq!(back.session, session);
        authenticate(&mut back);
        assert_eq!(back.create("/back", b"", EPHEMERAL).err, 0);
        // On another connection it says again who it is.
        let mut next = Client::connect(server.address, &session.reattach()).unwrap();
        check_turned_away(&mut next, OpCode::GetData, read);
        assert_eq!(client.children("/"), ["back", "there", "zookeeper"]);
    }
}
