//! Replies as text in which only what must be the same on both servers is left: zxids count from
//! the beginning of the comparison, session ids are the slots they were given to, times are gone.
//!
//! Everything else of the packet is in the text, and bytes that do not decode as the operation's
//! reply are shown as they are: two packets with the same text differ in nothing but the above.

use crate::script::{Request, op};
use crate::wire::Reader;

/// The xid of events.
pub const EVENT_XID: i32 = -1;

/// What one server's numbers mean.
#[derive(Debug, Clone, Default)]
pub struct Names {
    pub zxid_base: i64,
    /// Every session id this server gave out, in the order of the sessions' creation.
    pub sessions: Vec<i64>,
}

/// A packet in the form in which it is compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frame {
    pub text: String,
    pub zxid: i64,
    pub is_event: bool,
    /// Whether the request succeeded; of a multi: all of it.
    pub succeeded: bool,
    /// Paths that it created.
    pub created: Vec<String>,
}

impl Names {
    fn zxid(&self, zxid: i64) -> String {
        if zxid <= 0 { format!("{zxid}") } else { format!("{:+}", zxid - self.zxid_base) }
    }

    fn owner(&self, owner: i64) -> String {
        match self.sessions.iter().position(|id| *id == owner) {
            Some(index) => format!("session{index}"),
            None => format!("{owner:#x}"),
        }
    }

    /// `request` is what this packet should answer: `None` when all requests have been answered.
    pub fn frame(&self, packet: &[u8], request: Option<&Request>) -> Frame {
        let mut frame = Frame::default();
        let mut reader = Reader::new(packet);
        let header = (|| Some((reader.int()?, reader.long()?, reader.int()?)))();
        let Some((xid, zxid, error)) = header else {
            frame.text = format!("no reply header: {}", hex(packet));
            return frame;
        };
        frame.zxid = zxid;
        frame.is_event = xid == EVENT_XID;
        frame.succeeded = error == 0;
        let mut text = format!("xid={xid} zxid={} err={error}", self.zxid(zxid));
        let body = reader.rest();
        let mut decode = Decode { names: self, reader, text: String::new(), frame: &mut frame };
        let decoded = match (xid, request) {
            (EVENT_XID, _) => decode.event(),
            (_, Some(request)) if error == 0 => decode.reply(request.op),
            // The real server adds what it had read until then; clients look at the error only.
            (_, Some(request)) if request.op == op::MULTI_READ => {
                decode.reader = Reader::new(&[]);
                Some(())
            }
            _ => Some(()),
        };
        if decoded.is_some() && decode.reader.rest().is_empty() {
            text.push_str(&decode.text);
        } else {
            text.push_str(&format!(" body={}", hex(body)));
        }
        frame.text = text;
        frame
    }
}

struct Decode<'a> {
    names: &'a Names,
    reader: Reader<'a>,
    text: String,
    frame: &'a mut Frame,
}

impl Decode<'_> {
    fn say(&mut self, text: &str) {
        self.text.push(' ');
        self.text.push_str(text);
    }

    fn event(&mut self) -> Option<()> {
        let (kind, state) = (self.reader.int()?, self.reader.int()?);
        self.say(&format!("event {kind} state {state}"));
        self.string("path").map(|_| ())
    }

    fn reply(&mut self, operation: i32) -> Option<()> {
        match operation {
            op::CREATE | op::SYNC => {
                let path = self.string("path")?;
                if operation == op::CREATE {
                    self.frame.created.push(path);
                }
                Some(())
            }
            op::CREATE2 | op::CREATE_CONTAINER | op::CREATE_TTL => {
                let path = self.string("path")?;
                self.frame.created.push(path);
                self.stat()
            }
            op::EXISTS | op::SET_DATA | op::SET_ACL | op::CHECK => self.stat(),
            op::GET_DATA => {
                self.data()?;
                self.stat()
            }
            op::GET_ACL => {
                self.acl()?;
                self.stat()
            }
            op::GET_CHILDREN | op::GET_EPHEMERALS => self.names(),
            op::GET_CHILDREN2 => {
                self.names()?;
                self.stat()
            }
            op::GET_ALL_CHILDREN_NUMBER | op::ADD_WATCH => {
                let number = self.reader.int()?;
                self.say(&format!("{number}"));
                Some(())
            }
            op::WHO_AM_I => self.identities(),
            op::MULTI | op::MULTI_READ => self.results(),
            op::SASL => self.data(),
            _ => Some(()),
        }
    }

    fn results(&mut self) -> Option<()> {
        loop {
            let (kind, done, error) = (self.reader.int()?, self.reader.byte()?, self.reader.int()?);
            self.text.push_str("\n     ");
            self.say(&format!("result {kind} done={done} err={error}"));
            match (kind, done) {
                (_, 1) => return Some(()),
                (-1, _) => {
                    let error = self.reader.int()?;
                    self.say(&format!("error {error}"));
                    self.frame.succeeded = false;
                }
                (op::DELETE | op::CHECK, _) => (),
                (known, _) => self.reply(known)?,
            }
        }
    }

    fn string(&mut self, name: &str) -> Option<String> {
        let bytes = self.reader.buffer()?;
        let shown = bytes.map_or("null".to_owned(), show);
        self.say(&format!("{name}={shown}"));
        Some(String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned())
    }

    fn data(&mut self) -> Option<()> {
        let data = self.reader.buffer()?;
        let shown = match data {
            None => "null".to_owned(),
            Some(data) if data.len() > 200 => {
                format!("{} bytes, sum {:#x}", data.len(), checksum(data))
            }
            Some(data) => show(data),
        };
        self.say(&format!("data={shown}"));
        Some(())
    }

    /// A list in no particular order.
    fn names(&mut self) -> Option<()> {
        let count = self.reader.int()?;
        let mut names = Vec::new();
        for _ in 0..count {
            names.push(self.reader.buffer()?.map_or("null".to_owned(), show));
        }
        names.sort();
        self.say(&format!("{count} [{}]", names.join(" ")));
        Some(())
    }

    fn identities(&mut self) -> Option<()> {
        let count = self.reader.int()?;
        let mut identities = Vec::new();
        for _ in 0..count {
            let (scheme, user) = (self.reader.buffer()?, self.reader.buffer()?);
            identities.push(format!("{}:{}", shown(scheme), shown(user)));
        }
        identities.sort();
        self.say(&format!("{count} [{}]", identities.join(" ")));
        Some(())
    }

    /// Entries of the same permissions stand in any order: that of `auth`, spelt out, is not fixed.
    fn acl(&mut self) -> Option<()> {
        let count = self.reader.int()?;
        let mut entries: Vec<(i32, String)> = Vec::new();
        for _ in 0..count {
            let permissions = self.reader.int()?;
            let (scheme, id) = (self.reader.buffer()?, self.reader.buffer()?);
            entries.push((permissions, format!("{}:{}", shown(scheme), shown(id))));
        }
        for run in entries.chunk_by_mut(|one, next| one.0 == next.0) {
            run.sort();
        }
        self.say(&format!("acl={entries:?}"));
        Some(())
    }

    fn stat(&mut self) -> Option<()> {
        let (created, modified) = (self.reader.long()?, self.reader.long()?);
        let (ctime, mtime) = (self.reader.long()?, self.reader.long()?);
        let (version, cversion, aversion) =
            (self.reader.int()?, self.reader.int()?, self.reader.int()?);
        let owner = self.reader.long()?;
        let (length, children) = (self.reader.int()?, self.reader.int()?);
        let pzxid = self.reader.long()?;
        let names = self.names;
        self.say(&format!(
            "stat{{czxid={} mzxid={} pzxid={} times={} version={version} cversion={cversion} \
             aversion={aversion} owner={} length={length} children={children}}}",
            names.zxid(created),
            names.zxid(modified),
            names.zxid(pzxid),
            times(ctime, mtime),
            names.owner(owner),
        ));
        Some(())
    }
}

/// What can be said of two times without naming them.
fn times(ctime: i64, mtime: i64) -> &'static str {
    /// Any time after this is one that a server of today took from its clock.
    const RECENT_MS: i64 = 1_700_000_000_000;
    match (ctime, mtime) {
        (0, 0) => "none",
        (0, RECENT_MS..) => "modified",
        (RECENT_MS.., _) if mtime >= ctime => "both",
        _ => "impossible",
    }
}

fn shown(text: Option<&[u8]>) -> String {
    text.map_or("null".to_owned(), show)
}

/// Text as it is, other bytes escaped.
pub fn show(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

pub fn hex(bytes: &[u8]) -> String {
    const SHOWN: usize = 96;
    let mut text: String = bytes.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
    if bytes.len() > SHOWN {
        text.push_str(&format!("... {} bytes, sum {:#x}", bytes.len(), checksum(bytes)));
    }
    text
}

/// FNV-1a, for data too long to print.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    })
}
