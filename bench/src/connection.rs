//! One non-blocking client connection: connecting, greeting, bytes in and out, session.
//!
//! Invariants:
//!
//!   * requests gather in `out` and leave with one send per wake; what the kernel does not take
//!     stays there until the poller reports room
//!   * a lost connection keeps its session: the next greeting re-attaches it
//!   * what is left of an incomplete frame is kept, whole frames never are

use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use crate::poller::{Interest, Poller, Ready};
use crate::wire::{Handshake, LENGTH_BYTES, REPLY_BYTES_MAX, Welcome};

/// Bytes received at most by one call.
const RECEIVE_BYTES: usize = 256 << 10;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No socket.
    Down,
    /// The socket is not open yet.
    Connecting,
    /// The ConnectRequest is under way.
    Greeting,
    /// Requests may be sent.
    Up,
}

/// Why a connection went away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum Loss {
    /// The peer closed it.
    Closed,
    /// The kernel reported an error.
    Failed,
    /// The server says that the session is over.
    Expired,
    /// What came is not the protocol.
    Garbage,
}

/// A connection to one of several servers, and its session.
#[derive(Debug)]
pub struct Connection {
    /// The caller's number: what the poller reports.
    pub key: u64,
    /// Where it stands.
    pub state: State,
    /// Requests that have not left yet.
    pub out: Vec<u8>,
    /// The session, once there is one.
    pub session: Handshake,
    socket: Option<OwnedFd>,
    inbox: Vec<u8>,
}

impl Connection {
    /// A connection that is down and has no session.
    pub fn new(key: u64, timeout_ms: i32) -> Self {
        let session = Handshake { timeout_ms, ..Handshake::default() };
        Self { key, state: State::Down, out: Vec::new(), session, socket: None, inbox: Vec::new() }
    }

    /// The server's end of a connection, for those who play a server: greeting, without session.
    pub fn accept(key: u64, poller: &Poller, stream: TcpStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        poller.add(&stream, key, Interest::Edges)?;
        let socket = Some(OwnedFd::from(stream));
        Ok(Self { socket, state: State::Greeting, ..Self::new(key, 0) })
    }

    /// Starts to connect; the poller tells when it is done.
    pub fn dial(&mut self, poller: &Poller, address: SocketAddr) -> std::io::Result<()> {
        self.hang_up();
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        match net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        poller.add(&socket, self.key, Interest::Edges)?;
        self.socket = Some(socket);
        self.state = State::Connecting;
        Ok(())
    }

    /// Closes the socket, which takes it out of the poller too.
    pub fn hang_up(&mut self) {
        self.socket = None;
        self.state = State::Down;
        self.out.clear();
        self.inbox.clear();
    }

    /// To be called when the poller reports this connection while it is connecting.
    pub fn on_connected(&mut self) -> Result<(), Loss> {
        let socket = self.socket.as_ref().ok_or(Loss::Failed)?;
        match sockopt::socket_error(socket) {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(Loss::Failed),
        }
        self.state = State::Greeting;
        self.session.encode(&mut self.out);
        self.flush()
    }

    /// Takes the answer to the greeting.
    pub fn on_welcome(&mut self, frame: &[u8]) -> Result<Welcome, Loss> {
        let welcome = Welcome::decode(frame).map_err(|_| Loss::Garbage)?;
        if welcome.session == 0 || welcome.timeout_ms <= 0 {
            self.session.session = 0;
            self.session.password = [0; 16];
            return Err(Loss::Expired);
        }
        self.session.session = welcome.session;
        self.session.password = welcome.password;
        self.state = State::Up;
        Ok(welcome)
    }

    /// Sends what has gathered, in one call; the rest waits for room.
    pub fn flush(&mut self) -> Result<(), Loss> {
        let Some(socket) = &self.socket else { return Err(Loss::Failed) };
        if self.out.is_empty() {
            return Ok(());
        }
        match net::send(socket, &self.out, net::SendFlags::NOSIGNAL) {
            Ok(sent) if sent == self.out.len() => self.out.clear(),
            Ok(sent) => drop(self.out.drain(..sent)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return Err(Loss::Failed),
        }
        Ok(())
    }

    /// Receives once: `buf` then begins with what was left of the frame before. Whether there may
    /// be more, which the poller will not report again.
    pub fn receive(&mut self, ready: Ready, buf: &mut Vec<u8>) -> Result<bool, Loss> {
        let Some(socket) = &self.socket else { return Err(Loss::Failed) };
        buf.clear();
        buf.append(&mut self.inbox);
        buf.reserve(RECEIVE_BYTES);
        let room = buf.capacity() - buf.len();
        match net::recv(socket, spare_capacity(buf), net::RecvFlags::empty()) {
            Ok((0, _)) => Err(Loss::Closed),
            Ok((received, _)) => Ok(received == room || ready.is_ended),
            Err(Errno::INTR) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(_) => Err(Loss::Failed),
        }
    }

    /// Receives all there is, and gives out the whole frames of it.
    pub fn receive_frames(
        &mut self,
        ready: Ready,
        buf: &mut Vec<u8>,
        mut take: impl FnMut(&mut Self, &[u8]) -> Result<(), Loss>,
    ) -> Result<(), Loss> {
        loop {
            let is_more = self.receive(ready, buf)?;
            let mut frames = Frames::new(buf);
            while let Some(frame) = frames.take()? {
                take(self, frame)?;
            }
            self.keep(frames.rest());
            if !is_more {
                return Ok(());
            }
        }
    }

    /// Receives all there is and forgets it; hangs up at its end.
    pub fn drain(&mut self, ready: Ready, buf: &mut Vec<u8>) {
        while self.state != State::Down {
            match self.receive(ready, buf) {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => self.hang_up(),
            }
        }
    }

    /// Keeps what [`Frames`] left over.
    pub fn keep(&mut self, rest: &[u8]) {
        self.inbox.extend_from_slice(rest);
    }
}

/// The whole frames at the beginning of received bytes.
#[derive(Debug)]
pub struct Frames<'a> {
    bytes: &'a [u8],
}

impl<'a> Frames<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The next whole frame, without its length.
    pub fn take(&mut self) -> Result<Option<&'a [u8]>, Loss> {
        let Some((length, rest)) = self.bytes.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| Loss::Garbage)?;
        if length > REPLY_BYTES_MAX {
            return Err(Loss::Garbage);
        }
        let Some((frame, rest)) = rest.split_at_checked(length) else { return Ok(None) };
        self.bytes = rest;
        Ok(Some(frame))
    }

    /// What does not make a whole frame.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{Ipv4Addr, TcpListener};
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_end_behind_data_is_seen_though_it_is_reported_once() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.write_all(&[7]).unwrap();
        drop(peer);
        let mut poller = Poller::new().unwrap();
        let mut connection = Connection::accept(3, &poller, listener.accept().unwrap().0).unwrap();
        let (mut buf, mut received, mut ready) = (Vec::new(), Vec::new(), Vec::new());
        while connection.state != State::Down {
            poller.wait(Some(Duration::from_secs(20)), &mut ready).unwrap();
            assert_eq!(ready.len(), 1, "the end was not reported, or not taken");
            loop {
                let result = connection.receive(ready[0], &mut buf);
                received.append(&mut buf);
                match result {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(loss) => {
                        assert_eq!(loss, Loss::Closed);
                        connection.hang_up();
                        break;
                    }
                }
            }
        }
        assert_eq!(received, [7]);
    }

    #[test]
    fn frames_are_cut_where_their_lengths_say() {
        let mut frames = Frames::new(&[0, 0, 0, 2, 7, 8, 0, 0, 0, 0, 0, 0, 0, 9, 1]);
        assert_eq!(frames.take(), Ok(Some(&[7, 8][..])));
        assert_eq!(frames.take(), Ok(Some(&[][..])));
        assert_eq!(frames.take(), Ok(None));
        assert_eq!(frames.rest(), [0, 0, 0, 9, 1]);
    }

    #[test]
    fn a_length_that_nobody_would_send_is_garbage() {
        assert_eq!(Frames::new(&[0x80, 0, 0, 0]).take(), Err(Loss::Garbage));
        assert_eq!(Frames::new(b"HTTP/1.1").take(), Err(Loss::Garbage));
    }
}
