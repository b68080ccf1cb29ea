//! Sessions: they move between connections and cores, end when nobody is heard, and keep order.

use std::net::Shutdown;

use engine::error_code::ErrorCode;
use engine::ids::{SessionId, Xid};
use engine::op::OpCode;
use engine::records::{ConnectRequest, PING_XID};

use super::client::{Client, EPHEMERAL, PERSISTENT, new_node, new_session, path_watch, set_data};
use super::server::{Server, Setup};

const NODE_DELETED: i32 = 2;

#[test]
fn a_session_moves_between_connections_and_cores() {
    for (backend, cores) in [("io_uring", 3), ("epoll", 2)] {
        let (server, _folder) = Server::fresh(backend, cores);
        let mut observer = server.client();
        let mut client = server.client();
        assert_eq!(client.create("/mine", b"", EPHEMERAL).err, 0);
        let mut others = Vec::new();
        for moves in 0..6 {
            // One more connection, so that the next one goes to another core.
            others.push(server.client());
            let mut next = Client::connect(server.address, &client.session.reattach()).unwrap();
            assert_eq!(next.session, client.session);
            assert!(client.is_closed(), "the old connection is closed");
            assert_eq!(next.set_data("/mine", &[moves]).err, 0);
            assert_eq!(observer.data("/mine"), Ok(vec![moves]));
            client = next;
        }
        client.flush();
    }
}

#[test]
fn what_the_old_connection_had_not_got_ordered_is_dropped_for_good() {
    for (backend, cores) in [("io_uring", 2), ("epoll", 3)] {
        let (server, _folder) = Server::fresh(backend, cores);
        let mut observer = server.client();
        let mut client = server.client();
        for round in 0..5 {
            let root = format!("/round{round}");
            assert_eq!(observer.create(&root, b"", PERSISTENT).err, 0);
            for number in 0..300 {
                let path = format!("{root}/{number:04}");
                client.put(OpCode::Create, |writer| new_node(&path, b"", 0).write(writer));
            }
            client.flush();
            let mut next = Client::connect(server.address, &client.session.reattach()).unwrap();
            let there = next.children(&root);
            let mut acknowledged = 0;
            while let Some(reply) = client.try_receive() {
                assert_eq!(reply.err, 0);
                acknowledged += 1;
            }
            assert!(acknowledged <= there.len(), "{acknowledged} of {} were told", there.len());
            let expected: Vec<_> = (0..there.len()).map(|number| format!("{number:04}")).collect();
            assert_eq!(there, expected, "writes of a connection are ordered without gaps");
            assert_eq!(observer.call(OpCode::Sync, |writer| writer.string("/")).err, 0);
            assert_eq!(observer.children(&root), there, "nothing comes after the move");
            client = next;
        }
    }
}

#[test]
fn a_wrong_password_or_an_unknown_session_is_refused() {
    let (server, _folder) = Server::fresh("io_uring", 2);
    let mut client = server.client();
    let refused = |request: ConnectRequest<'_>| {
        let mut answered = Client::connect(server.address, &request).unwrap();
        let session = answered.session.clone();
        assert_eq!((session.id, session.timeout_ms), (SessionId::NONE, 0));
        assert_eq!(session.password, [0; 16]);
        assert!(answered.is_closed());
    };
    refused(ConnectRequest { password: &[7; 16], ..client.session.reattach() });
    refused(ConnectRequest { password: &[], ..client.session.reattach() });
    let unknown = SessionId(client.session.id.0 + 1);
    refused(ConnectRequest { session: unknown, ..client.session.reattach() });
    assert_eq!(client.create("/still-mine", b"", EPHEMERAL).err, 0);
}

#[test]
fn a_session_that_nobody_hears_of_expires_and_its_ephemerals_go() {
    for (backend, cores) in [("io_uring", 2), ("epoll", 1)] {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup::new(backend, cores, folder.path());
        let server = setup.with("tickTime=100").with("maxSessionTimeout=60000").start();
        let mut observer = server.client();
        let mut pinging =
            Client::connect(server.address, &ConnectRequest { timeout_ms: 1_000, ..new_session() })
                .unwrap();
        let short = ConnectRequest { timeout_ms: 1, ..new_session() };
        let mut silent = Client::connect(server.address, &short).unwrap();
        assert_eq!((silent.session.timeout_ms, pinging.session.timeout_ms), (200, 1_000));
        assert_eq!(pinging.create("/pinging", b"", EPHEMERAL).err, 0);
        assert_eq!(silent.create("/silent", b"", EPHEMERAL).err, 0);
        assert_eq!(observer.exists("/silent", true).err, 0);
        // Still connected, as a client is whose process was stopped.
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let event = observer.receive().event();
                done.send(event).unwrap();
            });
            let event = loop {
                pinging.put_ping();
                pinging.flush();
                assert_eq!(pinging.receive().xid, PING_XID);
                if let Ok(event) = ended.try_recv() {
                    break event;
                }
            };
            assert_eq!(event, (NODE_DELETED, "/silent".to_owned()));
        });
        assert!(silent.is_closed());
        let answer = Client::connect(server.address, &silent.session.reattach()).unwrap();
        assert_eq!(answer.session.id, SessionId::NONE, "it has expired");
        assert_eq!(observer.exists("/pinging", false).err, 0);
    }
}

#[test]
fn a_broken_connection_does_not_end_its_session() {
    let (server, _folder) = Server::fresh("epoll", 2);
    let mut client = server.client();
    assert_eq!(client.create("/mine", b"", EPHEMERAL).err, 0);
    client.shutdown(Shutdown::Both);
    let mut next = Client::connect(server.address, &client.session.reattach()).unwrap();
    assert_eq!(next.session.id, client.session.id);
    assert_eq!(next.exists("/mine", false).err, 0);
}

#[test]
fn a_closed_session_is_answered_closed_and_gone() {
    for (backend, cores) in [("io_uring", 2), ("epoll", 2)] {
        let (server, _folder) = Server::fresh(backend, cores);
        let mut observer = server.client();
        let mut client = server.client();
        assert_eq!(client.create("/mine", b"", EPHEMERAL).err, 0);
        assert_eq!(observer.exists("/mine", true).err, 0);
        let last = client.put(OpCode::CloseSession, |_| {});
        // What comes behind it is not executed.
        client.put(OpCode::Create, |writer| new_node("/late", b"", PERSISTENT).write(writer));
        client.flush();
        let reply = client.receive();
        assert_eq!((reply.xid, reply.err), (last, 0));
        assert_eq!(client.try_receive(), None);
        assert_eq!(observer.receive().event(), (NODE_DELETED, "/mine".to_owned()));
        let answer = Client::connect(server.address, &client.session.reattach()).unwrap();
        assert_eq!(answer.session.id, SessionId::NONE);
        assert_eq!(observer.exists("/late", false).err, ErrorCode::NoNode.to_wire());
    }
}

#[test]
fn replies_come_in_the_order_of_requests_pings_too() {
    for (backend, cores) in [("io_uring", 2), ("epoll", 2)] {
        let (server, _folder) = Server::fresh(backend, cores);
        let _on_the_first_core = server.client();
        let mut client = server.client();
        assert_eq!(client.create("/a", b"", PERSISTENT).err, 0);
        let mut expected = Vec::new();
        for number in 0..200 {
            let value = format!("{number}").into_bytes();
            let put = |writer: &mut engine::jute::Writer<'_>| {
                set_data("/a", &value).write(writer);
            };
            expected.push((client.put(OpCode::SetData, put), None));
            let get = |writer: &mut engine::jute::Writer<'_>| path_watch("/a", false).write(writer);
            expected.push((client.put(OpCode::GetData, get), Some(value.clone())));
            client.put_ping();
            expected.push((PING_XID, None));
        }
        client.flush();
        let mut last: i64 = 0;
        for (xid, value) in expected {
            let reply = client.receive();
            assert_eq!((reply.xid, reply.err), (xid, 0));
            assert!(reply.zxid >= last, "the zxid that a client sees never goes back");
            last = reply.zxid;
            if let Some(value) = value {
                assert_eq!(reply.body[4..4 + value.len()], value, "a read sees the write before");
            }
        }
    }
}

#[test]
fn a_client_that_has_seen_more_than_the_server_is_turned_away() {
    let (server, _folder) = Server::fresh("io_uring", 1);
    let zxid = server.client().create("/a", b"", PERSISTENT).zxid;
    let ahead = |last_zxid_seen| {
        let request = ConnectRequest { last_zxid_seen, ..new_session() };
        Client::connect(server.address, &request).is_none()
    };
    assert!(ahead(zxid + 1_000));
    assert!(ahead(i64::MAX));
    assert!(!ahead(zxid));
}

#[test]
fn the_read_only_byte_is_answered_when_it_was_sent() {
    let (server, _folder) = Server::fresh("epoll", 1);
    for (sent, answered) in [(None, None), (Some(false), Some(false)), (Some(true), Some(false))] {
        let request = ConnectRequest { read_only: sent, ..new_session() };
        let mut client = Client::connect(server.address, &request).unwrap();
        assert_eq!(client.session.read_only, answered);
        assert_eq!(client.exists("/", false).xid, Xid(1));
    }
}
