//! A server of the protocol that misbehaves on request: for testing who watches it.
//!
//! One thread per connection, blocking. It keeps no tree: getData answers with the key that the
//! path ends with, everything else with what a real server would say about a znode of the asked
//! size. How it lies is chosen by [`Lie`].

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bench::wire::Welcome;
use engine::jute::{Reader, Writer};
use engine::op::OpCode;
use engine::records::WatchEvent;
use engine::stat::{Stat, WireStat};

/// What the fake server does wrong, after a number of honest replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Nothing.
    None,
    /// Swaps two replies.
    Reorder,
    /// Answers with the xid plus one.
    WrongXid,
    /// Gives the content of another key.
    WrongContent,
    /// Cuts the value short.
    WrongLength,
    /// Refuses with NoNode.
    Refuse,
    /// Sends zxids that fall.
    ZxidBack,
    /// Sends an event that nobody asked for.
    Event,
    /// Answers twice.
    Twice,
    /// Sends a frame of a negative length.
    Garbage,
    /// Closes the connection.
    Close,
    /// Never answers again.
    Silence,
    /// Waits this many milliseconds before one reply.
    Delay(u64),
    /// Waits this many milliseconds before it answers a setData, when the watchers were told.
    LateSet(u64),
    /// Tells all but one watcher.
    MissedEvent,
    /// Tells one watcher twice.
    EventTwice,
}

/// Size of values.
pub const VALUE_BYTES: usize = 100;

/// The running server; its threads end with the process.
pub struct Fake {
    /// Where it listens.
    pub address: SocketAddr,
    /// Requests answered, handshakes not counted.
    pub answered: Arc<AtomicU64>,
}

impl Fake {
    /// Starts it; it is honest for `honest` replies of each connection that carry a load's xids.
    pub fn start(lie: Lie, honest: u64) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let answered = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&answered);
        let watchers = Arc::new(Mutex::default());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (count, watchers) = (Arc::clone(&count), Arc::clone(&watchers));
                thread::spawn(move || serve(stream, lie, honest, &count, &watchers));
            }
        });
        Self { address, answered }
    }
}

fn serve(
    mut stream: TcpStream,
    lie: Lie,
    honest: u64,
    count: &AtomicU64,
    watchers: &Mutex<Vec<TcpStream>>,
) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let _greeting = read_frame(&mut stream)?;
    let mut out = Vec::new();
    Welcome { timeout_ms: 30_000, session: 7, password: [1; 16] }.encode(&mut out);
    stream.write_all(&out).ok()?;
    // Preparing uses blocking clients that would fail at a lie: only getData is lied about.
    let (mut zxid, mut gets, mut held) = (100, 0, Vec::new());
    loop {
        let frame = read_frame(&mut stream)?;
        let mut reader = Reader::new(&frame);
        let (xid, op) = (reader.i32().ok()?, reader.i32().ok()?);
        zxid += 1;
        let is_get = op == OpCode::GetData.to_wire();
        gets += u64::from(is_get);
        let lying = is_get && gets == honest + 1;
        let mut reply = answer(xid, zxid, op, reader.rest(), lie, lying);
        count.fetch_add(1, Ordering::Relaxed);
        if is_get && frame.last() == Some(&1) {
            watchers.lock().unwrap().push(stream.try_clone().ok()?);
        }
        if op == OpCode::SetData.to_wire() {
            let path = Reader::new(&frame[8..]).string("path").ok()?.into_owned();
            tell(&mut watchers.lock().unwrap(), &event(zxid, &path), lie)?;
        }
        match lie {
            Lie::LateSet(ms) if op == OpCode::SetData.to_wire() => {
                thread::sleep(Duration::from_millis(ms));
            }
            Lie::Close if lying => return None,
            Lie::Silence if is_get && gets > honest => continue,
            Lie::Delay(ms) if lying => thread::sleep(Duration::from_millis(ms)),
            Lie::Twice if lying => reply.extend(reply.clone()),
            Lie::Garbage if lying => reply = vec![0xff, 0, 0, 0, 1, 2, 3, 4],
            Lie::Event if lying => reply.splice(0..0, event(zxid, "/bench")).for_each(drop),
            Lie::Reorder if lying => {
                held = reply;
                continue;
            }
            _ => {}
        }
        reply.append(&mut held);
        stream.write_all(&reply).ok()?;
        if op == OpCode::CloseSession.to_wire() {
            return Some(());
        }
    }
}

fn read_frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame).ok()?;
    Some(frame)
}

/// Tells the watchers, who are none then.
fn tell(watchers: &mut Vec<TcpStream>, event: &[u8], lie: Lie) -> Option<()> {
    if lie == Lie::MissedEvent {
        watchers.pop();
    }
    let last = watchers.len().saturating_sub(1);
    for (index, mut watcher) in watchers.drain(..).enumerate() {
        let times = if lie == Lie::EventTwice && index == last { 2 } else { 1 };
        watcher.write_all(&event.repeat(times)).ok()?;
    }
    Some(())
}

fn event(zxid: i64, path: &str) -> Vec<u8> {
    let mut out = Vec::new();
    WatchEvent { kind: 3, path: path.into() }.write_notification(zxid, &mut out);
    out
}

fn answer(xid: i32, zxid: i64, op: i32, body: &[u8], lie: Lie, lying: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    let part = writer.begin_part();
    let is = |wanted: Lie| lying && lie == wanted;
    writer.i32(if is(Lie::WrongXid) { xid + 1 } else { xid });
    writer.i64(if is(Lie::ZxidBack) { 5 } else { zxid });
    if is(Lie::Refuse) {
        writer.i32(-101);
        writer.end_part(part);
        return out;
    }
    writer.i32(0);
    let path = Reader::new(body).string("path").unwrap_or_default().into_owned();
    let stat = WireStat { stat: Stat::default(), data_length: VALUE_BYTES as i32, num_children: 0 };
    match OpCode::from_wire(op) {
        Some(OpCode::GetData) => {
            let key: u64 = path.rsplit('/').next().unwrap().parse().unwrap_or(0);
            let key = if is(Lie::WrongContent) { key + 1 } else { key };
            let mut value = vec![0; if is(Lie::WrongLength) { 50 } else { VALUE_BYTES }];
            value[..8].copy_from_slice(&key.to_be_bytes());
            writer.buf(&value);
            stat.encode(&mut writer);
        }
        Some(OpCode::Create) => writer.string(&path),
        Some(OpCode::SetData | OpCode::Exists) => stat.encode(&mut writer),
        Some(OpCode::GetChildren) => writer.i32(0),
        _ => {}
    }
    writer.end_part(part);
    out
}
