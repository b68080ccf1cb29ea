//! The largest transactions that limits allow, alone and many at once: each gets its place in the
//! log, whatever asked for it.

use std::borrow::Cow;
use std::time::Duration;

use engine::acl::{ALL, Acl, AclBytes, Id};
use engine::auth::identities::IDENTITIES_MAX;
use engine::error_code::ErrorCode;
use engine::ids::{ConnectionId, SessionId, Xid};
use engine::jute::{Reader, Writer};
use engine::op::OpCode;
use engine::records::{
    MultiHeader, NewNodeRequest, PathWatch, ReplyHeader, RequestHeader, multi::MultiOp,
    write_request,
};
use engine::rules::{OUTPUT_BYTES_MAX, Rules};
use engine::time::WallTime;
use engine::tree::{Effects, OwnerMode, Tree};
use engine::txn::{NewNode, Txn, TxnHeader};
use engine::zxid::Zxid;
use tests::sim::cores::Server;

/// Together more than the log keeps in one segment by default.
const MANY: i64 = 80;
/// Nearly a packet.
const NAME_BYTES: usize = 1_000_000;

fn open_acl() -> AclBytes<'static> {
    AclBytes::encode(&[Acl { perms: ALL, id: Id::new("world", "anyone") }])
}

/// Applies transactions to a tree, one after the other.
struct Planter(Tree);

impl Planter {
    fn apply(&mut self, session: i64, txn: &Txn<'_>) {
        let header = TxnHeader {
            session: SessionId(session),
            cxid: Xid(0),
            zxid: Zxid(self.0.applied().0 + 1),
            time: WallTime(1),
        };
        self.0.apply(&header, txn, &mut Effects::new());
    }
}

fn node(path: String) -> NewNode<'static> {
    NewNode { path: Cow::Owned(path), data: None, acl: open_acl(), parent_cversion: -1 }
}

fn long_name(number: i64) -> String {
    format!("/{}{number}", "n".repeat(NAME_BYTES))
}

/// Everything that can happen happens, and all of it becomes durable.
fn run_out(server: &mut Server) {
    // In steps that a server takes: time that passes at once counts for nobody.
    for _ in 0..600 {
        server.advance(Duration::from_millis(400));
        server.tick();
        server.settle();
    }
}

#[test]
fn sessions_with_large_ephemerals_may_expire_all_at_once() {
    let mut planter = Planter(Tree::new(OwnerMode::Plain));
    for session in 1..=MANY {
        planter.apply(session, &Txn::CreateSession { timeout_ms: 10_000 });
        let node = node(long_name(session));
        planter.apply(session, &Txn::Create { with_stat: false, node, ephemeral: true });
    }
    let mut server = Server::with_tree(1, 2, planter.0);
    run_out(&mut server);
    assert_eq!(server.counters().ephemerals_count, 0);
}

#[test]
fn containers_with_large_names_may_go_all_at_once() {
    let mut planter = Planter(Tree::new(OwnerMode::Plain));
    let before = planter.0.counters().znode_count;
    for number in 1..=MANY {
        planter.apply(1, &Txn::CreateContainer { node: node(long_name(number)) });
        let child = node(long_name(number) + "/c");
        let path = child.path.clone();
        planter.apply(1, &Txn::Create { with_stat: false, node: child, ephemeral: false });
        planter.apply(1, &Txn::Delete { path, container: false });
    }
    let mut server = Server::with_tree(1, 2, planter.0);
    run_out(&mut server);
    assert_eq!(server.counters().znode_count, before);
}

fn request(op: OpCode, body: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_request(&mut bytes, RequestHeader { xid: Xid(1), op: op.to_wire() }, body);
    bytes
}

/// A creation whose packet has just this many bytes behind its length.
fn create(path: &str, packet_bytes: usize) -> Vec<u8> {
    let creation = |data: &[u8]| {
        let (path, data) = (Some(Cow::Borrowed(path)), Some(data));
        let request_body = NewNodeRequest { path, data, acl: open_acl(), flags: 0, ttl_ms: None };
        request(OpCode::Create, |writer| request_body.write(writer))
    };
    let data = vec![b'd'; packet_bytes + 4 - creation(&[]).len()];
    creation(&data)
}

fn get_data(path: &str) -> Vec<u8> {
    let record = PathWatch { path: path.into(), watch: false };
    request(OpCode::GetData, |writer| record.write(writer))
}

/// The error of the last reply that a client got.
fn last_error(server: &Server, client: ConnectionId) -> i32 {
    let (_, bytes) = server.received.iter().rev().find(|(id, _)| *id == client).unwrap();
    ReplyHeader::read(&mut Reader::new(&bytes[4..])).unwrap().err
}

#[test]
fn the_largest_packet_that_the_configuration_allows_is_written() {
    for packet_bytes_max in [1_024, 0xf_ffff, 96 << 20] {
        let rules = Rules { packet_bytes_max, ..Rules::default() };
        let tree = Tree::new(OwnerMode::Plain);
        let mut server = Server::with_rules(1, 1, tree, rules);
        let client = server.connect_with_session(0);
        let before = server.counters().znode_count;
        server.receive(client, &create("/largest", packet_bytes_max));
        server.settle();
        assert_eq!(last_error(&server, client), 0);
        assert_eq!(server.counters().znode_count, before + 1);
        server.receive(client, &get_data("/largest"));
        server.settle();
        assert_eq!(last_error(&server, client), 0);
        server.receive(client, &create("/beyond", packet_bytes_max + 1));
        server.settle();
        assert_eq!(server.counters().znode_count, before + 1);
        assert_eq!(server.closed, [client]);
    }
}

#[test]
fn a_list_of_children_beyond_what_a_connection_may_have_on_its_way_is_refused() {
    let mut planter = Planter(Tree::new(OwnerMode::Plain));
    let children = (OUTPUT_BYTES_MAX / 2 / NAME_BYTES) as i64;
    for number in 0..=children {
        let node = node(long_name(number));
        planter.apply(1, &Txn::Create { with_stat: false, node, ephemeral: false });
    }
    let mut server = Server::with_tree(1, 1, planter.0);
    let client = server.connect_with_session(0);
    for (op, watch) in [(OpCode::GetChildren, true), (OpCode::GetChildren2, false)] {
        let record = PathWatch { path: "/".into(), watch };
        server.receive(client, &request(op, |writer| record.write(writer)));
        server.settle();
        assert_eq!(last_error(&server, client), ErrorCode::MarshallingError.to_wire());
    }
    assert_eq!(server.watches_count(), 0);
    let (path, version) = (long_name(0), -1);
    server.receive(
        client,
        &request(OpCode::Delete, |writer| {
            writer.string(&path);
            writer.i32(version);
        }),
    );
    let record = PathWatch { path: "/".into(), watch: false };
    server.receive(client, &request(OpCode::GetChildren, |writer| record.write(writer)));
    server.settle();
    assert_eq!(last_error(&server, client), 0, "short enough now");
    assert!(server.closed.is_empty());
}

#[test]
fn a_connection_has_so_many_identities_and_no_more() {
    let mut server = Server::new(1, 1);
    let client = server.connect_with_session(0);
    let add = |server: &mut Server, number: usize| {
        let packet = request(OpCode::Auth, |writer| {
            writer.i32(0);
            writer.string("digest");
            writer.buf(format!("u{number}:password").as_bytes());
        });
        server.receive(client, &packet);
        server.settle();
        last_error(server, client)
    };
    // Its address is the first.
    for number in 1..IDENTITIES_MAX {
        assert_eq!(add(&mut server, number), 0);
    }
    assert_eq!((add(&mut server, 1), &server.closed[..]), (0, &[][..]));
    assert_eq!(add(&mut server, IDENTITIES_MAX), ErrorCode::AuthFailed.to_wire());
    assert_eq!(server.closed, [client]);
}

/// A packet of reads can ask for any number of times its own size.
#[test]
fn an_answer_without_bound_is_an_error() {
    let mut server = Server::new(1, 1);
    let client = server.connect_with_session(0);
    server.receive(client, &create("/largest", 0xf_ffff));
    server.settle();
    let reads = |count: usize| {
        request(OpCode::MultiRead, |writer| {
            for _ in 0..count {
                MultiOp::GetData("/largest".into()).write(writer);
            }
            MultiHeader::END.write(writer);
        })
    };
    server.receive(client, &reads(8));
    server.settle();
    assert_eq!(last_error(&server, client), 0);
    server.receive(client, &reads(30_000));
    server.settle();
    assert_eq!(last_error(&server, client), -5);
    server.receive(client, &get_data("/largest"));
    server.settle();
    assert_eq!((last_error(&server, client), &server.closed[..]), (0, &[][..]));
}
