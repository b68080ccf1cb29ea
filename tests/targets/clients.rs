//! What clients send, through the whole of a server of one core.

use engine::ids::{ConnectionId, Xid};
use engine::jute::Reader;
use engine::records::{ReplyHeader, RequestHeader, write_request};

use super::input::Input;
use crate::sim::cores::Server;

/// Types of requests, by a byte of the input.
const OPS: [i32; 30] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 100, 101, 102, 103,
    104, 105, 106, 107, -11,
];

/// Bytes on a connection that has just been made.
pub(super) fn connect(input: &[u8]) {
    let mut server = Server::new(0, 1);
    let id = server.connect(0);
    let mut input = Input(input);
    while !input.is_empty() {
        let piece = input.piece();
        server.receive(id, piece);
        server.settle();
    }
    check_frames(&server, id);
}

/// Requests of two sessions: each piece of the input is the body of one.
pub(super) fn requests(input: &[u8]) {
    let mut server = Server::new(0, 1);
    let clients = [0, 0].map(|core| server.connect_with_session(core));
    let mut input = Input(input);
    let mut xid = 0;
    while !input.is_empty() && server.closed.is_empty() {
        let (kind, op) = (input.u8(), input.u8());
        let client = clients[usize::from(kind & 1)];
        xid += 1;
        let mut bytes = Vec::new();
        let op = OPS.get(usize::from(op)).copied().unwrap_or_else(|| i32::from(op));
        let header = RequestHeader { xid: Xid(xid), op };
        write_request(&mut bytes, header, |writer| writer.bytes(input.piece()));
        server.receive(client, &bytes);
        if kind & 2 == 0 {
            server.settle();
        }
    }
    server.settle();
    clients.iter().for_each(|client| check_frames(&server, *client));
    server.check_tree();
}

/// What a connection was sent is the answer to its ConnectRequest and whole replies.
fn check_frames(server: &Server, client: ConnectionId) {
    let sent = server.received.iter().filter(|(id, _)| *id == client);
    let bytes: Vec<u8> = sent.flat_map(|(_, bytes)| bytes.iter().copied()).collect();
    let mut reader = Reader::new(&bytes);
    let mut is_first = true;
    while !reader.is_empty() {
        let frame = reader.buf().expect("a whole frame").expect("frames are not null");
        if !is_first {
            ReplyHeader::read(&mut Reader::new(frame)).expect("a reply");
        }
        is_first = false;
    }
}
