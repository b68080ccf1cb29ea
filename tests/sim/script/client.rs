//! Clients of the script: sessions, and what they ask for.

use std::sync::Arc;

use engine::acl::Id;
use engine::ids::{ConnectionId, CoreId, SessionId, Xid};
use engine::jute::Writer;
use engine::op::OpCode;
use engine::order::{Batch, Connect, Order, ReplyKind, Request, Submission};

use super::server::Event;
use super::{Ensemble, HOP};

/// Sessions end when nothing is heard for this long, unless the script says otherwise.
const TIMEOUT_MS: i32 = 8_000;
const EPHEMERAL: i32 = 1;

/// A client, connected to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    server: usize,
    connection: ConnectionId,
    session: SessionId,
}

/// What a server knows of a client.
pub(super) struct Connection {
    id: ConnectionId,
    pub(super) session: Option<SessionId>,
    pub(super) is_alive: bool,
    /// It was told that there is no such session.
    is_refused: bool,
    /// Number and error of each reply.
    replies: Vec<(i32, i32)>,
    asked: Vec<Option<String>>,
}

impl Ensemble {
    /// A client opens a session at a server.
    #[track_caller]
    pub fn connect(&mut self, server: usize) -> Client {
        self.connect_for(server, TIMEOUT_MS)
    }

    /// The same, with a timeout in milliseconds.
    #[track_caller]
    pub fn connect_for(&mut self, server: usize, timeout_ms: i32) -> Client {
        self.attach(server, SessionId::NONE, timeout_ms)
    }

    /// A client goes to another server with its session. Nobody tells the old one.
    #[track_caller]
    pub fn move_to(&mut self, client: Client, server: usize) -> Client {
        self.move_for(client, server, TIMEOUT_MS)
    }

    /// The same, with another timeout, in milliseconds.
    #[track_caller]
    pub fn move_for(&mut self, client: Client, server: usize, timeout_ms: i32) -> Client {
        self.attach(server, client.session, timeout_ms)
    }

    /// The connection of a client breaks, and its server notices.
    pub fn disconnect(&mut self, client: Client) {
        let Client { server, connection, session } = client;
        let mut submission = Submission::new(CoreId(0));
        submission.orders.push(Order::Disconnected { connection, session });
        self.at_server(server, HOP, Event::Submit(submission));
    }

    /// The same, but does not wait for the server's answer.
    pub fn begin_to_move(&mut self, client: Client, server: usize) -> Client {
        self.begin_to_move_for(client, server, TIMEOUT_MS)
    }

    /// The same, with a timeout in milliseconds.
    pub fn begin_to_move_for(&mut self, client: Client, server: usize, timeout_ms: i32) -> Client {
        self.begin_to_attach(server, client.session, timeout_ms)
    }

    #[track_caller]
    fn attach(&mut self, server: usize, session: SessionId, timeout_ms: i32) -> Client {
        let mut client = self.begin_to_attach(server, session, timeout_ms);
        self.run_until("a session is open", |e| e.is_attached(client));
        client.session = self.at_client(client).session.expect("it is open");
        client
    }

    fn begin_to_attach(&mut self, server: usize, session: SessionId, timeout_ms: i32) -> Client {
        self.connections += 1;
        let connection =
            ConnectionId { core: CoreId(0), slot: self.connections, generation: self.connections };
        let process = self.servers[server].process.as_mut().expect("it runs");
        process.connections.push(Connection {
            id: connection,
            session: None,
            is_alive: true,
            is_refused: false,
            replies: Vec::new(),
            asked: Vec::new(),
        });
        let mut submission = Submission::new(CoreId(0));
        let connect = Connect { connection, session, genuine: true, timeout_ms };
        submission.orders.push(Order::Connect(connect));
        self.at_server(server, HOP, Event::Submit(submission));
        Client { server, connection, session }
    }

    /// Whether its server has given a client a session.
    pub fn is_attached(&self, client: Client) -> bool {
        self.at_client(client).session.is_some()
    }

    /// Nothing is heard of a client any more.
    pub fn fall_silent(&mut self, client: Client) {
        let connection = self.connection(client.server, client.connection);
        connection.expect("it is connected").is_alive = false;
    }

    /// Asks for a znode to be created; the number of the request.
    pub fn create(&mut self, client: Client, path: &str) -> i32 {
        self.create_with(client, path, b"data")
    }

    /// The same, with this data.
    pub fn create_with(&mut self, client: Client, path: &str, data: &[u8]) -> i32 {
        self.ask(client, OpCode::Create, &create_body(path, data, 0), Some(path.to_owned()))
    }

    /// Asks for a znode that goes with the session.
    pub fn create_ephemeral(&mut self, client: Client, path: &str) -> i32 {
        self.ask(client, OpCode::Create, &create_body(path, b"", EPHEMERAL), None)
    }

    /// Whether the server has not closed the connection.
    pub fn is_connected(&self, client: Client) -> bool {
        self.at_client(client).is_alive
    }

    /// Whether its server has told it that there is no such session.
    pub fn is_refused(&self, client: Client) -> bool {
        self.at_client(client).is_refused
    }

    /// Asks for a sync; the number of the request.
    pub fn sync(&mut self, client: Client) -> i32 {
        let mut body = Vec::new();
        Writer::new(&mut body).string("/");
        self.ask(client, OpCode::Sync, &body, None)
    }

    /// Asks for the session to be closed.
    pub fn close(&mut self, client: Client) -> i32 {
        self.ask(client, OpCode::CloseSession, &[], None)
    }

    /// Creates a znode, and waits until that is acknowledged.
    #[track_caller]
    pub fn write(&mut self, client: Client, path: &str) {
        let xid = self.create(client, path);
        self.run_until("the write is acknowledged", |e| e.answer(client, xid).is_some());
        assert_eq!(self.answer(client, xid), Some(0), "{path}");
    }

    /// The error code of the answer, 0 being none; nothing if there is no answer.
    pub fn answer(&self, client: Client, xid: i32) -> Option<i32> {
        let replies = &self.find_client(client)?.replies;
        replies.iter().find(|(found, _)| *found == xid).map(|(_, code)| *code)
    }

    fn ask(&mut self, client: Client, op: OpCode, body: &[u8], path: Option<String>) -> i32 {
        let connection = self.connection(client.server, client.connection);
        let asked = &mut connection.expect("it is connected").asked;
        asked.push(path);
        let xid = asked.len() as i32;
        let mut submission = Submission::new(CoreId(0));
        submission.bodies = body.to_vec();
        submission.orders.push(Order::Request(Request {
            connection: client.connection,
            session: client.session,
            xid: Xid(xid),
            op,
            body: 0..body.len(),
            ids: Arc::from([Id::new("ip", "127.0.0.1")]),
            cut: false,
        }));
        self.at_server(client.server, HOP, Event::Submit(submission));
        xid
    }

    fn at_client(&self, client: Client) -> &Connection {
        self.find_client(client).expect("its server runs")
    }

    fn find_client(&self, client: Client) -> Option<&Connection> {
        let process = self.servers[client.server].process.as_ref()?;
        process.connections.iter().find(|found| found.id == client.connection)
    }

    fn connection(&mut self, server: usize, id: ConnectionId) -> Option<&mut Connection> {
        let process = self.servers[server].process.as_mut()?;
        process.connections.iter_mut().find(|found| found.id == id)
    }

    /// A server closes the connections of all of its clients.
    pub(super) fn close_connections(&mut self, index: usize) {
        let Some(process) = &mut self.servers[index].process else { return };
        let mut submission = Submission::new(CoreId(0));
        for open in process.connections.iter_mut().filter(|connection| connection.is_alive) {
            open.is_alive = false;
            let gone = |session| Order::Disconnected { connection: open.id, session };
            submission.orders.extend(open.session.map(gone));
        }
        self.at_server(index, HOP, Event::Submit(submission));
    }

    pub(super) fn publish(&mut self, index: usize, batch: &Batch) {
        let items = batch.segments.iter().flat_map(|segment| &segment.items);
        for reply in items.filter_map(|item| item.reply.as_ref()) {
            let Some(connection) = self.connection(index, reply.connection) else { continue };
            match &reply.kind {
                ReplyKind::Attached { session, .. } => connection.session = Some(*session),
                ReplyKind::Close => connection.is_alive = false,
                ReplyKind::Refused => {
                    (connection.is_alive, connection.is_refused) = (false, true);
                }
                ReplyKind::Frame { frame, xid, .. } => {
                    let frame = &batch.replies[frame.clone()];
                    let code = i32::from_be_bytes(frame[16..20].try_into().unwrap());
                    connection.replies.push((xid.0, code));
                    let path = connection.asked[xid.0 as usize - 1].take();
                    self.acknowledged.extend(path.filter(|_| code == 0));
                }
            }
        }
    }
}

/// A request to create a znode that anybody may do anything with.
pub fn create_body(path: &str, data: &[u8], flags: i32) -> Vec<u8> {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    writer.string(path);
    writer.buf(data);
    writer.count(1);
    writer.i32(31);
    writer.string("world");
    writer.string("anyone");
    writer.i32(flags);
    body
}
