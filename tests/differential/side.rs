//! One of the two servers: its connections, and what its session ids and zxids mean.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use crate::normal::{Frame, Names};
use crate::script::{Connect, Identity, Request, op};
use crate::wire::{Reader, Writer};

/// A server that says nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bursts larger than this are written while replies are read: neither side may have to wait.
const WRITE_AT_ONCE: usize = 64 * 1024;
/// The xid of the request that ends each burst; no generated request has it.
pub const FENCE_XID: i32 = i32::MAX;

#[derive(Debug)]
struct Slot {
    stream: TcpStream,
    received: Vec<u8>,
    session: usize,
}

#[derive(Debug)]
pub struct Side {
    pub name: String,
    address: SocketAddr,
    pub names: Names,
    passwords: Vec<Vec<u8>>,
    slots: Vec<Option<Slot>>,
    /// Which session each slot last had, also while it is not connected.
    sessions: Vec<Option<usize>>,
}

impl Side {
    pub fn new(name: &str, address: SocketAddr, slots: usize) -> Self {
        Self {
            name: name.to_owned(),
            address,
            names: Names::default(),
            passwords: Vec::new(),
            slots: (0..slots).map(|_| None).collect(),
            sessions: vec![None; slots],
        }
    }

    fn dial(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    pub fn is_connected(&self, slot: usize) -> bool {
        self.slots[slot].is_some()
    }

    pub fn hang_up(&mut self, slot: usize) {
        self.slots[slot] = None;
    }

    /// Opens a connection and asks for the session; the answer as text.
    pub fn connect(&mut self, slot: usize, connect: &Connect) -> io::Result<String> {
        let (id, password) = match connect.identity {
            Identity::New => (0, vec![0; 16]),
            Identity::Unknown => (0x0123_4567_89AB_CDEF, vec![7; 16]),
            Identity::Resume { slot, right_password } => {
                let session = self.sessions[slot].expect("only slots with a session are resumed");
                let password =
                    if right_password { self.passwords[session].clone() } else { vec![9; 16] };
                (self.names.sessions[session], password)
            }
        };
        let mut request = Writer::default();
        let last_zxid = match connect.last_zxid_seen {
            0 => 0,
            relative => self.names.zxid_base + relative,
        };
        request.int(0).long(last_zxid).int(connect.timeout_ms).long(id).buffer(Some(&password));
        if let Some(read_only) = connect.read_only {
            request.byte(read_only);
        }
        let mut stream = self.dial()?;
        stream.write_all(&framed(&request.bytes))?;
        let mut slotted = Slot { stream, received: Vec::new(), session: usize::MAX };
        let Some(reply) = slotted.packet()? else { return Ok("hung up".to_owned()) };
        Ok(self.connected(slot, slotted, &reply))
    }

    fn connected(&mut self, slot: usize, mut slotted: Slot, reply: &[u8]) -> String {
        let mut reader = Reader::new(reply);
        let fields =
            (|| Some((reader.int()?, reader.int()?, reader.long()?, reader.buffer()??.to_vec())))();
        let Some((version, timeout, id, password)) = fields else {
            return format!("not a connect response: {}", crate::normal::hex(reply));
        };
        let rest = crate::normal::hex(reader.rest());
        let mut text = format!("version={version} timeout={timeout} rest={rest}");
        if id == 0 {
            text.push_str(&format!(" refused password={password:?}"));
            return text;
        }
        let session = match self.names.sessions.iter().position(|known| *known == id) {
            Some(known) => known,
            None => {
                self.names.sessions.push(id);
                self.passwords.push(password.clone());
                self.names.sessions.len() - 1
            }
        };
        let same = password == self.passwords[session];
        text.push_str(&format!(" session{session} password {} kept={same}", password.len()));
        slotted.session = session;
        self.sessions[slot] = Some(session);
        self.slots[slot] = Some(slotted);
        text
    }

    /// Sends the requests and a fence; the packets up to the fence's reply, which is the last, or
    /// up to the end of the connection.
    pub fn burst(&mut self, slot: usize, requests: &[Request]) -> io::Result<Vec<Frame>> {
        let requests: Vec<Request> = requests.iter().cloned().chain([fence()]).collect();
        let mut bytes = Vec::new();
        for request in &requests {
            bytes.extend(framed(&request.packet(self.names.zxid_base)));
        }
        let slotted = self.slots[slot].as_mut().expect("bursts go to connected slots");
        let names = &self.names;
        if bytes.len() <= WRITE_AT_ONCE {
            slotted.stream.write_all(&bytes)?;
            return slotted.replies(names, &requests);
        }
        let mut writer = slotted.stream.try_clone()?;
        thread::scope(|scope| {
            let writing = scope.spawn(move || writer.write_all(&bytes));
            let replies = slotted.replies(names, &requests);
            writing.join().expect("the writing thread does not panic")?;
            replies
        })
    }

    /// Sends the requests, after whose last the server hangs up: all that it still says.
    pub fn close(&mut self, slot: usize, requests: &[Request]) -> io::Result<Vec<Frame>> {
        let mut slotted = self.slots[slot].take().expect("only connected slots are closed");
        let mut bytes = Vec::new();
        for request in requests {
            bytes.extend(framed(&request.packet(self.names.zxid_base)));
        }
        slotted.stream.write_all(&bytes)?;
        let mut frames = slotted.replies(&self.names, requests)?;
        while let Some(packet) = slotted.packet()? {
            frames.push(self.names.frame(&packet, None));
        }
        Ok(frames)
    }

    /// Sends bytes that make the server hang up: all that it still says.
    pub fn last_words(&mut self, slot: usize, bytes: &[u8]) -> io::Result<Vec<Frame>> {
        let mut slotted = self.slots[slot].take().expect("only connected slots are ended");
        slotted.stream.write_all(bytes)?;
        let mut frames = Vec::new();
        while let Some(packet) = slotted.packet()? {
            frames.push(self.names.frame(&packet, None));
        }
        Ok(frames)
    }

    /// A request with nothing behind it, after which the server may hang up: what came in answer.
    /// The connection is gone afterwards if it did.
    pub fn alone(&mut self, slot: usize, request: &Request) -> io::Result<Vec<Frame>> {
        let slotted = self.slots[slot].as_mut().expect("only connected slots are used");
        slotted.stream.write_all(&framed(&request.packet(self.names.zxid_base)))?;
        let mut frames = Vec::new();
        while let Some(packet) = slotted.packet()? {
            let frame = self.names.frame(&packet, Some(request));
            let answered = !frame.is_event && frame.succeeded;
            frames.push(frame);
            if answered {
                return Ok(frames);
            }
        }
        frames.push(Frame { text: "hung up".to_owned(), ..Frame::default() });
        self.slots[slot] = None;
        Ok(frames)
    }

    /// A request and its reply; then we hang up.
    pub fn unknown(&mut self, slot: usize, request: &Request) -> io::Result<Vec<Frame>> {
        let mut slotted = self.slots[slot].take().expect("only connected slots are used");
        slotted.stream.write_all(&framed(&request.packet(self.names.zxid_base)))?;
        let packet = slotted.packet()?;
        Ok(packet.iter().map(|packet| self.names.frame(packet, Some(request))).collect())
    }

    /// All that the server says to a stranger's bytes, on a connection that is then closed for
    /// writing.
    pub fn stranger(&self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = self.dial()?;
        let mut answer = Vec::new();
        let told = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
        match told.and_then(|()| stream.read_to_end(&mut answer).map(|_| ())) {
            Err(error) if is_hang_up(&error) => Ok(answer),
            other => other.map(|()| answer),
        }
    }

    /// The zxid of the last transaction, as a ping tells it.
    pub fn last_zxid(&mut self, slot: usize) -> io::Result<i64> {
        Ok(self.burst(slot, &[])?.last().map_or(0, |frame| frame.zxid))
    }
}

impl Slot {
    /// Packets until every request is answered, or the server hangs up.
    fn replies(&mut self, names: &Names, requests: &[Request]) -> io::Result<Vec<Frame>> {
        let mut frames = Vec::new();
        let mut waiting = requests.iter().peekable();
        while waiting.peek().is_some() {
            let Some(packet) = self.packet()? else {
                frames.push(Frame { text: "hung up".to_owned(), ..Frame::default() });
                break;
            };
            let mut frame = names.frame(&packet, waiting.peek().copied());
            if !frame.is_event {
                let request = waiting.next().expect("peeked above");
                frame.text = format!("{} -> {}", request.label, frame.text);
            }
            frames.push(frame);
        }
        Ok(frames)
    }

    /// The next packet; `None` when the server has hung up.
    fn packet(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(length) = self.received.first_chunk::<4>() {
                let end = 4 + u32::from_be_bytes(*length) as usize;
                if let Some(packet) = self.received.get(4..end) {
                    let packet = packet.to_vec();
                    self.received.drain(..end);
                    return Ok(Some(packet));
                }
            }
            let mut chunk = vec![0; 64 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(count) => self.received.extend(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) if is_hang_up(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected
    )
}

fn fence() -> Request {
    let mut body = Writer::default();
    body.text("/").byte(0);
    Request {
        op: op::EXISTS,
        xid: FENCE_XID,
        body: vec![crate::script::Piece::Bytes(body.bytes)],
        label: "fence".to_owned(),
        deletes: Vec::new(),
    }
}

pub fn framed(packet: &[u8]) -> Vec<u8> {
    let mut bytes = (packet.len() as u32).to_be_bytes().to_vec();
    bytes.extend(packet);
    bytes
}
