//! A small blocking client: one request at a time, or a pipeline of many of one sort.
//!
//! For preparing and checking what is measured, never for measuring.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use engine::error_code::ErrorCode;
use engine::ids::Xid;
use engine::jute::{Reader, Writer};
use engine::op::OpCode;
use engine::records::{NOTIFICATION_XID, ReplyHeader};

use crate::wire::{self, Handshake, REPLY_BYTES_MAX, Welcome};

/// How long one reply may take.
const REPLY_WAIT: Duration = Duration::from_secs(60);
/// The session timeout of a probe, milliseconds.
const PROBE_SESSION_MS: i32 = 10_000;
/// Requests of a pipeline that are under way together.
const PIPELINE_DEPTH: usize = 512;

/// A session over one blocking connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    /// The session.
    pub session: Welcome,
    out: Vec<u8>,
    inbox: Vec<u8>,
    at: usize,
    next_xid: i32,
}

/// A reply: the header, and the body that goes with error 0.
#[derive(Debug)]
pub struct Reply {
    /// zxid and error.
    pub header: ReplyHeader,
    /// The response's record.
    pub body: Vec<u8>,
}

impl Client {
    /// Opens a session.
    pub fn connect(address: SocketAddr, timeout: Duration) -> anyhow::Result<Self> {
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        Self::open(address, Handshake { timeout_ms, ..Handshake::default() }, REPLY_WAIT)
    }

    /// Opens a session and reads the root, each within `wait`: is there a server?
    pub fn probe(address: SocketAddr, wait: Duration) -> anyhow::Result<()> {
        let handshake = Handshake { timeout_ms: PROBE_SESSION_MS, ..Handshake::default() };
        let mut client = Self::open(address, handshake, wait)?;
        client.ask(OpCode::Exists, |w| wire::read_body(w, b"/", false))?;
        client.close()
    }

    fn open(address: SocketAddr, handshake: Handshake, wait: Duration) -> anyhow::Result<Self> {
        let client = Self::attach(address, handshake, wait)?;
        ensure!(client.session.session != 0, "{address} says that the session is over");
        Ok(client)
    }

    /// Opens a session or attaches to one that there is, each reply within `reply_wait`. What it
    /// gives has session 0 if the server says that the session is over.
    pub fn attach(
        address: SocketAddr,
        handshake: Handshake,
        reply_wait: Duration,
    ) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(reply_wait))?;
        let session = Welcome { timeout_ms: 0, session: 0, password: [0; 16] };
        let (out, inbox) = (Vec::new(), Vec::new());
        let mut client = Self { stream, session, out, inbox, at: 0, next_xid: 0 };
        handshake.encode(&mut client.out);
        client.send()?;
        let range = client.frame().with_context(|| format!("{address} gives no session"))?;
        client.session = Welcome::decode(&client.inbox[range])?;
        Ok(client)
    }

    /// From now on a reply may take this long.
    pub fn set_reply_wait(&self, wait: Duration) -> anyhow::Result<()> {
        Ok(self.stream.set_read_timeout(Some(wait))?)
    }

    /// Waits until this server shows what was committed before.
    pub fn sync(&mut self) -> anyhow::Result<()> {
        self.ask(OpCode::Sync, |w| w.string("/")).map(drop)
    }

    /// Sends one request and waits for its reply; events before it are dropped.
    pub fn call(
        &mut self,
        op: OpCode,
        body: impl FnOnce(&mut Writer<'_>),
    ) -> anyhow::Result<Reply> {
        self.next_xid += 1;
        let xid = Xid(self.next_xid);
        wire::request(&mut self.out, xid, op, body);
        self.send()?;
        let (header, range) = self.reply(xid)?;
        Ok(Reply { header, body: self.inbox[range].to_vec() })
    }

    /// [`Client::call`], with an error code as an error.
    pub fn ask(
        &mut self,
        op: OpCode,
        body: impl FnOnce(&mut Writer<'_>),
    ) -> anyhow::Result<Vec<u8>> {
        let reply = self.call(op, body)?;
        match reply.header.err {
            0 => Ok(reply.body),
            err => bail!("{op:?} was refused: {}", wire::error_name(err)),
        }
    }

    /// Sends `count` requests, many under way together, and hands each reply to `judge`.
    pub fn pipeline(
        &mut self,
        count: u64,
        mut encode: impl FnMut(u64, Xid, &mut Vec<u8>),
        mut judge: impl FnMut(u64, ReplyHeader, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let first_xid = self.next_xid.wrapping_add(1);
        let xid_of = |number: u64| first_xid.wrapping_add(number as i32) & i32::MAX;
        let (mut sent, mut answered) = (0, 0);
        while answered < count {
            while sent < count && sent - answered < PIPELINE_DEPTH as u64 {
                encode(sent, Xid(xid_of(sent)), &mut self.out);
                sent += 1;
            }
            self.send()?;
            // A batch at a time, so that sends and receives stay large.
            let until = if sent == count { count } else { answered + PIPELINE_DEPTH as u64 / 2 };
            while answered < until {
                let (header, range) = self.reply(Xid(xid_of(answered)))?;
                judge(answered, header, &self.inbox[range])?;
                answered += 1;
            }
        }
        self.next_xid = xid_of(count);
        Ok(())
    }

    /// Creates a persistent znode; it may be there already.
    pub fn ensure_path(&mut self, path: &str) -> anyhow::Result<()> {
        for (at, _) in path.match_indices('/').skip(1).chain([(path.len(), "")]) {
            let part = &path.as_bytes()[..at];
            let reply = self.call(OpCode::Create, |w| wire::create_body(w, part, b"", 0))?;
            let err = reply.header.err;
            let known = err == 0 || err == ErrorCode::NodeExists.to_wire();
            ensure!(known, "cannot create {path}: {}", wire::error_name(err));
        }
        Ok(())
    }

    /// Names of the children; none if the znode is not there.
    pub fn children(&mut self, path: &str) -> anyhow::Result<Vec<String>> {
        let op = OpCode::GetChildren;
        let reply = self.call(op, |w| wire::read_body(w, path.as_bytes(), false))?;
        match reply.header.err {
            0 => {}
            err if err == ErrorCode::NoNode.to_wire() => return Ok(Vec::new()),
            err => bail!("cannot list {path}: {}", wire::error_name(err)),
        }
        let mut reader = Reader::new(&reply.body);
        let count = reader.count(4)?.unwrap_or(0);
        (0..count).map(|_| Ok(reader.string("child")?.into_owned())).collect()
    }

    /// Deletes a znode and all below it, depth first.
    pub fn delete_tree(&mut self, path: &str) -> anyhow::Result<()> {
        let names = self.children(path)?;
        let mut left = Vec::new();
        let paths: Vec<_> = names.iter().map(|name| format!("{path}/{name}")).collect();
        self.pipeline(
            paths.len() as u64,
            |number, xid, out| {
                let child = paths[number as usize].as_bytes();
                wire::request(out, xid, OpCode::Delete, |w| wire::delete_body(w, child));
            },
            |number, header, _| {
                if header.err == ErrorCode::NotEmpty.to_wire() {
                    left.push(number as usize);
                }
                Ok(())
            },
        )?;
        for index in left {
            self.delete_tree(&paths[index])?;
        }
        self.call(OpCode::Delete, |w| wire::delete_body(w, path.as_bytes()))?;
        Ok(())
    }

    /// Closes the session.
    pub fn close(mut self) -> anyhow::Result<()> {
        self.call(OpCode::CloseSession, |_| {})?;
        Ok(())
    }

    /// The connection, to watch it end.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    fn send(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// The reply to `xid`: its header, and where its body lies in the inbox.
    fn reply(&mut self, xid: Xid) -> anyhow::Result<(ReplyHeader, std::ops::Range<usize>)> {
        loop {
            let range = self.frame()?;
            let (header, body) =
                wire::split_reply(&self.inbox[range.clone()]).context("a reply is too short")?;
            if header.xid == NOTIFICATION_XID {
                continue;
            }
            ensure!(header.xid == xid, "reply {} where {} is next", header.xid.0, xid.0);
            return Ok((header, range.end - body.len()..range.end));
        }
    }

    /// Where the next frame lies in the inbox.
    fn frame(&mut self) -> anyhow::Result<std::ops::Range<usize>> {
        self.fill(4)?;
        let length = &self.inbox[self.at..self.at + 4];
        let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        ensure!(length <= REPLY_BYTES_MAX, "a frame of {length} bytes");
        self.fill(4 + length)?;
        let start = self.at + 4;
        self.at = start + length;
        Ok(start..self.at)
    }

    /// Receives until `count` bytes lie ahead.
    fn fill(&mut self, count: usize) -> anyhow::Result<()> {
        if self.at == self.inbox.len() {
            self.inbox.clear();
            self.at = 0;
        }
        let mut chunk = [0; 64 << 10];
        while self.inbox.len() - self.at < count {
            match self.stream.read(&mut chunk)? {
                0 => bail!("the server closed the connection"),
                received => self.inbox.extend_from_slice(&chunk[..received]),
            }
        }
        Ok(())
    }
}
