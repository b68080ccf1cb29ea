//! A client made of a socket and the record formats, for what no library would do.

use std::borrow::Cow;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Instant;

use engine::acl::{ALL, Acl, AclBytes, Id};
use engine::ids::{SessionId, Xid};
use engine::jute::{Reader, Writer};
use engine::op::OpCode;
use engine::records::{
    AUTH_XID, AuthPacket, ConnectRequest, ConnectResponse, MultiHeader, NOTIFICATION_XID,
    NewNodeRequest, PING_XID, PathWatch, ReplyHeader, RequestHeader, SetData, VersionedPath,
    WatchEvent, multi::MultiOp, write_request,
};

use super::server::DEADLINE;

/// The flags of creation modes.
pub(crate) const PERSISTENT: i32 = 0;
pub(crate) const EPHEMERAL: i32 = 1;
pub(crate) const PERSISTENT_SEQUENTIAL: i32 = 2;

/// A session as its client keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) password: Vec<u8>,
    pub(crate) timeout_ms: i32,
    pub(crate) read_only: Option<bool>,
}

/// A reply or a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) xid: Xid,
    pub(crate) zxid: i64,
    pub(crate) err: i32,
    pub(crate) body: Vec<u8>,
}

/// A connection that serves a session.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    pub(crate) session: Session,
    xid: i32,
    output: Vec<u8>,
}

/// What a client asks with that wants a new session.
pub(crate) fn new_session() -> ConnectRequest<'static> {
    ConnectRequest::new_session(30_000)
}

impl Session {
    /// What a client asks with that moves to another connection.
    pub(crate) fn reattach(&self) -> ConnectRequest<'_> {
        ConnectRequest {
            session: self.id,
            password: &self.password,
            timeout_ms: self.timeout_ms,
            ..new_session()
        }
    }
}

impl Client {
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::connect(address, &new_session()).expect("a new session is not refused")
    }

    /// Connects with this request; none if the server closes the connection in place of an answer.
    pub(crate) fn connect(address: SocketAddr, request: &ConnectRequest<'_>) -> Option<Self> {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut frame = Vec::new();
        request.write(&mut frame);
        stream.write_all(&frame).unwrap();
        let body = read_frame(&mut stream)?;
        let answer = ConnectResponse::decode(&body).unwrap();
        let session = Session {
            id: answer.session,
            password: answer.password.to_vec(),
            timeout_ms: answer.timeout_ms,
            read_only: answer.read_only,
        };
        Some(Self { stream, session, xid: 0, output: Vec::new() })
    }

    /// Breaks the connection.
    pub(crate) fn shutdown(&mut self, how: Shutdown) {
        self.stream.shutdown(how).unwrap();
    }

    /// Keeps a request for [`Client::flush`].
    pub(crate) fn put(&mut self, op: OpCode, body: impl FnOnce(&mut Writer<'_>)) -> Xid {
        self.xid += 1;
        self.put_as(Xid(self.xid), op.to_wire(), body);
        Xid(self.xid)
    }

    pub(crate) fn put_as(&mut self, xid: Xid, op: i32, body: impl FnOnce(&mut Writer<'_>)) {
        write_request(&mut self.output, RequestHeader { xid, op }, body);
    }

    pub(crate) fn put_ping(&mut self) {
        self.put_as(PING_XID, OpCode::Ping.to_wire(), |_| {});
    }

    /// Keeps an auth packet for [`Client::flush`]; its reply has [`AUTH_XID`].
    pub(crate) fn put_auth(&mut self, scheme: &str, auth: &[u8]) {
        let packet = AuthPacket { scheme: Some(scheme.into()), auth: Some(auth) };
        self.put_as(AUTH_XID, OpCode::Auth.to_wire(), |writer| packet.write(writer));
    }

    /// Sends what was put; whether the server took it.
    pub(crate) fn try_flush(&mut self) -> bool {
        let sent = self.stream.write_all(&self.output).is_ok();
        self.output.clear();
        sent
    }

    pub(crate) fn flush(&mut self) {
        assert!(self.try_flush(), "the server has closed the connection");
    }

    /// Sends bytes that need not be a request.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
        self.try_flush();
    }

    /// The next reply or notification; none after the end of the connection.
    pub(crate) fn try_receive(&mut self) -> Option<Reply> {
        let frame = read_frame(&mut self.stream)?;
        let mut reader = Reader::new(&frame);
        let ReplyHeader { xid, zxid, err } = ReplyHeader::read(&mut reader).unwrap();
        Some(Reply { xid, zxid, err, body: reader.rest().to_vec() })
    }

    pub(crate) fn receive(&mut self) -> Reply {
        self.try_receive().expect("the server has closed the connection")
    }

    /// A request and its reply.
    pub(crate) fn call(&mut self, op: OpCode, body: impl FnOnce(&mut Writer<'_>)) -> Reply {
        let xid = self.put(op, body);
        self.flush();
        let reply = self.receive();
        assert_eq!(reply.xid, xid);
        reply
    }

    pub(crate) fn create(&mut self, path: &str, data: &[u8], flags: i32) -> Reply {
        self.call(OpCode::Create, |writer| new_node(path, data, flags).write(writer))
    }

    /// Tries to create a znode until that is not refused any more.
    pub(crate) fn create_until_accepted(&mut self, path: &str, data: &[u8]) {
        let deadline = Instant::now() + DEADLINE;
        while self.create(path, data, PERSISTENT).err != 0 {
            assert!(Instant::now() < deadline, "there is no room for ever");
        }
    }

    pub(crate) fn set_data(&mut self, path: &str, data: &[u8]) -> Reply {
        self.call(OpCode::SetData, |writer| set_data(path, data).write(writer))
    }

    pub(crate) fn delete(&mut self, path: &str) -> Reply {
        self.call(OpCode::Delete, |writer| versioned(path).write(writer))
    }

    pub(crate) fn exists(&mut self, path: &str, watch: bool) -> Reply {
        self.call(OpCode::Exists, |writer| path_watch(path, watch).write(writer))
    }

    /// The data of a znode, or the error.
    pub(crate) fn data(&mut self, path: &str) -> Result<Vec<u8>, i32> {
        let reply = self.call(OpCode::GetData, |writer| path_watch(path, false).write(writer));
        match reply.err {
            0 => Ok(Reader::new(&reply.body).buf().unwrap().unwrap_or_default().to_vec()),
            err => Err(err),
        }
    }

    /// The names of the children, sorted.
    pub(crate) fn children(&mut self, path: &str) -> Vec<String> {
        let reply = self.call(OpCode::GetChildren, |writer| path_watch(path, false).write(writer));
        assert_eq!(reply.err, 0, "{path}");
        let mut reader = Reader::new(&reply.body);
        let count = reader.i32().unwrap();
        let name = |_| reader.string("name").unwrap().into_owned();
        let mut names: Vec<_> = (0..count).map(name).collect();
        names.sort_unstable();
        names
    }

    /// Whether the server closes the connection; what still comes before is passed over.
    pub(crate) fn is_closed(&mut self) -> bool {
        while self.try_receive().is_some() {}
        true
    }
}

impl Reply {
    /// Kind and path of a notification.
    pub(crate) fn event(&self) -> (i32, String) {
        assert_eq!(self.xid, NOTIFICATION_XID);
        let event = WatchEvent::read(&mut Reader::new(&self.body)).unwrap();
        (event.kind, event.path.into_owned())
    }
}

pub(crate) fn open_acl() -> AclBytes<'static> {
    AclBytes::encode(&[Acl { perms: ALL, id: Id::new("world", "anyone") }])
}

pub(crate) fn new_node<'a>(path: &'a str, data: &'a [u8], flags: i32) -> NewNodeRequest<'a> {
    let path = Some(Cow::Borrowed(path));
    NewNodeRequest { path, data: Some(data), acl: open_acl(), flags, ttl_ms: None }
}

pub(crate) fn set_data<'a>(path: &'a str, data: &'a [u8]) -> SetData<'a> {
    SetData { path: path.into(), data: Some(data), version: -1 }
}

pub(crate) fn versioned(path: &str) -> VersionedPath<'_> {
    VersionedPath { path: path.into(), version: -1 }
}

pub(crate) fn path_watch(path: &str, watch: bool) -> PathWatch<'_> {
    PathWatch { path: path.into(), watch }
}

/// Writes the body of a multi.
pub(crate) fn write_multi(writer: &mut Writer<'_>, ops: &[MultiOp<'_>]) {
    for op in ops {
        op.write(writer);
    }
    MultiHeader::END.write(writer);
}

/// The body of the next frame; none if the peer has closed or reset the connection.
fn read_frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    read_exact(stream, &mut length)?;
    let mut body = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
    read_exact(stream, &mut body)?;
    Some(body)
}

fn read_exact(stream: &mut TcpStream, into: &mut [u8]) -> Option<()> {
    match stream.read_exact(into) {
        Ok(()) => Some(()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("the server neither answers nor closes the connection")
        }
        Err(_) => None,
    }
}
