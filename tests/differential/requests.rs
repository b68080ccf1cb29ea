//! Single requests of every kind, well formed and not.

use crate::random::Random;
use crate::script::{Piece, Request, op};
use crate::values::{self, Known, Text, shown};
use crate::wire::Writer;

/// What requests are drawn from.
#[derive(Debug)]
pub struct Source {
    pub random: Random,
    pub known: Known,
    /// The last zxid seen, counted from the beginning of the comparison.
    pub last_zxid: i64,
    /// How many in a hundred reads leave a watch.
    pub watch_percent: usize,
    /// Whether requests are sent before earlier ones are answered.
    pub pipelined: bool,
}

/// A request being put together.
struct Draft {
    writer: Writer,
    before: Vec<Piece>,
    label: String,
    deletes: Vec<String>,
    /// Whether access lists may hold null strings.
    nulls: bool,
}

impl Draft {
    fn new(name: &str) -> Self {
        Self {
            writer: Writer::default(),
            before: Vec::new(),
            label: name.to_owned(),
            deletes: Vec::new(),
            nulls: true,
        }
    }

    fn say(&mut self, text: &str) {
        self.label.push(' ');
        self.label.push_str(text);
    }

    fn path(&mut self, path: &Text) {
        self.say(&shown(path));
        self.writer.buffer(path.as_deref());
    }

    fn flag(&mut self, name: &str, value: bool) {
        if value {
            self.say(name);
        }
        self.writer.byte(u8::from(value));
    }

    fn number(&mut self, name: &str, value: i32) {
        self.say(&format!("{name}={value}"));
        self.writer.int(value);
    }

    fn finish(mut self, operation: i32, xid: i32) -> Request {
        self.before.push(Piece::Bytes(self.writer.bytes));
        Request {
            op: operation,
            xid,
            body: self.before,
            label: format!("{xid}: {}", self.label),
            deletes: self.deletes,
        }
    }
}

impl Source {
    /// Any request that the server answers and stays connected.
    pub fn request(&mut self, xid: i32) -> Request {
        match self.random.weighted(&[46, 40, 6, 3, 3]) {
            0 => self.write(xid),
            1 => self.read(xid),
            2 => self.watch_request(xid),
            3 => self.multi_read(xid),
            _ => self.malformed(xid),
        }
    }

    fn path(&mut self) -> Text {
        values::any_path(&mut self.random, &self.known)
    }

    pub fn write(&mut self, xid: i32) -> Request {
        // As many nodes come as go.
        let deletes = if self.known.paths.len() > 60 { 40 } else { 12 };
        let kind = self.random.weighted(&[30, 10, 4, 4, deletes, 22, 8, 14, 1, 1]);
        let operation = [
            op::CREATE,
            op::CREATE2,
            op::CREATE_CONTAINER,
            op::CREATE_TTL,
            op::DELETE,
            op::SET_DATA,
            op::SET_ACL,
            op::MULTI,
            op::SYNC,
            op::RECONFIG,
        ][kind];
        let mut draft = Draft::new("");
        match operation {
            op::MULTI => self.multi_into(&mut draft),
            _ => self.write_into(&mut draft, operation),
        }
        draft.finish(operation, xid)
    }

    fn write_into(&mut self, draft: &mut Draft, operation: i32) {
        match operation {
            op::CREATE | op::CREATE2 | op::CREATE_CONTAINER | op::CREATE_TTL => {
                self.create_into(draft, operation);
            }
            op::DELETE => {
                draft.say("delete");
                let path = self.path();
                draft.path(&path);
                draft.number("version", values::version(&mut self.random));
                draft.deletes.extend(path.and_then(|path| String::from_utf8(path).ok()));
            }
            op::SET_DATA => {
                draft.say("setData");
                let path = self.path();
                draft.path(&path);
                let data = values::data_for(&mut self.random, &path);
                draft.say(&shown(&data));
                draft.writer.buffer(data.as_deref());
                draft.number("version", values::version(&mut self.random));
            }
            op::SET_ACL => {
                draft.say("setACL");
                let path = self.path();
                draft.path(&path);
                let list = values::access_list(&mut self.random, &mut draft.writer, draft.nulls);
                draft.say(&list);
                draft.number("version", values::version(&mut self.random));
            }
            op::SYNC => {
                draft.say("sync");
                let path = self.path();
                draft.path(&path);
            }
            op::RECONFIG => {
                draft.say("reconfig");
                draft.writer.text("server.2=localhost:1:2;3").buffer(None).buffer(None).long(-1);
            }
            _ => {
                draft.say("check");
                let path = self.path();
                draft.path(&path);
                draft.number("version", values::version(&mut self.random));
            }
        }
    }

    fn create_into(&mut self, draft: &mut Draft, operation: i32) {
        draft.say(match operation {
            op::CREATE => "create",
            op::CREATE2 => "create2",
            op::CREATE_CONTAINER => "createContainer",
            _ => "createTTL",
        });
        let path = if self.random.percent(75) {
            Some(values::child(&mut self.random, &self.known).into_bytes())
        } else {
            self.path()
        };
        draft.path(&path);
        let data = values::data_for(&mut self.random, &path);
        draft.say(&shown(&data));
        draft.writer.buffer(data.as_deref());
        let list = values::access_list(&mut self.random, &mut draft.writer, draft.nulls);
        draft.say(&list);
        let usual = match operation {
            op::CREATE_CONTAINER => 4,
            op::CREATE_TTL => 5 + self.random.below(2) as i32,
            _ => self.random.weighted(&[50, 20, 20, 10]) as i32,
        };
        let odd = self.random.percent(6);
        let mut flags = if odd { self.random.below(9) as i32 - 1 } else { usual };
        if operation == op::CREATE_CONTAINER && matches!(flags, 1 | 3) {
            // In the real server's pipeline it is an ephemeral node until it is applied, and a
            // container after that: what follows would depend on timing.
            flags -= 1;
        }
        if matches!(flags, 1 | 3) && values::are_limits(&path) {
            // The real server deletes a session's ephemerals in the order of a hash table: whether
            // one still counts as usage of a quota that goes with the session is a matter of that.
            flags -= 1;
        }
        draft.number("flags", flags);
        if operation == op::CREATE_TTL {
            // Without a mode of its own a negative TTL would get past a real server's checks and
            // stop it when the transaction is applied.
            let lowest = if matches!(flags, 5 | 6) { -2 } else { 0 };
            let ttl = match self.random.below(5) {
                0 => lowest,
                1 => *self.random.pick(&[0, 1, 0xFF_FFFF_FFFF, 0x100_0000_0000, i64::MAX]),
                _ => 1_000_000 + self.random.below(1000) as i64,
            };
            draft.say(&format!("ttl={ttl}"));
            draft.writer.long(ttl);
        }
    }

    fn multi_into(&mut self, draft: &mut Draft) {
        draft.say("multi");
        // A null is an exception in the real server, which then forgets to take back what earlier
        // operations of the multi have done for the eyes of the next requests.
        draft.nulls = !self.pipelined;
        let count = self.random.weighted(&[2, 20, 30, 20, 10, 10, 8]);
        for _ in 0..count {
            let kind = self.random.weighted(&[30, 10, 4, 4, 20, 25, 12, 1]);
            let operation = [
                op::CREATE,
                op::CREATE2,
                op::CREATE_CONTAINER,
                op::CREATE_TTL,
                op::DELETE,
                op::SET_DATA,
                op::CHECK,
                op::SET_ACL,
            ][kind];
            draft.writer.int(operation).byte(0).int(-1);
            draft.say("\n       ");
            self.write_into(draft, operation);
        }
        draft.writer.int(-1).byte(1).int(-1);
    }

    fn multi_read(&mut self, xid: i32) -> Request {
        let mut draft = Draft::new("multiRead");
        for _ in 0..self.random.below(5) {
            let kind = self.random.weighted(&[50, 48, 2]);
            let operation = [op::GET_DATA, op::GET_CHILDREN, op::CHECK][kind];
            draft.writer.int(operation).byte(0).int(-1);
            draft.say(&format!("{operation}"));
            let path = self.path();
            draft.path(&path);
            if operation == op::CHECK {
                draft.writer.int(-1);
            } else {
                let watch = self.random.percent(50);
                draft.flag("watch", watch);
            }
        }
        draft.writer.int(-1).byte(1).int(-1);
        let operation = if self.random.percent(95) { op::MULTI_READ } else { op::MULTI };
        draft.finish(operation, xid)
    }

    pub fn read(&mut self, xid: i32) -> Request {
        let kind = self.random.weighted(&[25, 30, 8, 12, 12, 6, 3, 2, 2]);
        let (operation, name) = [
            (op::EXISTS, "exists"),
            (op::GET_DATA, "getData"),
            (op::GET_ACL, "getACL"),
            (op::GET_CHILDREN, "getChildren"),
            (op::GET_CHILDREN2, "getChildren2"),
            (op::GET_ALL_CHILDREN_NUMBER, "getAllChildrenNumber"),
            (op::GET_EPHEMERALS, "getEphemerals"),
            (op::WHO_AM_I, "whoAmI"),
            (op::PING, "ping"),
        ][kind];
        let mut draft = Draft::new(name);
        match operation {
            op::WHO_AM_I | op::PING => (),
            op::GET_EPHEMERALS if self.random.percent(50) => {
                let prefix = self.random.pick::<&[u8]>(&[b"/", b"", b" ", b" / ", b"/a", b"a"]);
                draft.path(&Some(prefix.to_vec()));
            }
            _ => {
                let path = self.path();
                draft.path(&path);
            }
        }
        if [op::EXISTS, op::GET_DATA, op::GET_CHILDREN, op::GET_CHILDREN2].contains(&operation) {
            let watch = self.random.percent(self.watch_percent);
            draft.flag("watch", watch);
        }
        draft.finish(operation, xid)
    }

    fn watch_request(&mut self, xid: i32) -> Request {
        let (operation, name) = *self.random.pick(&[
            (op::ADD_WATCH, "addWatch"),
            (op::ADD_WATCH, "addWatch"),
            (op::REMOVE_WATCHES, "removeWatches"),
            (op::CHECK_WATCHES, "checkWatches"),
            (op::SET_WATCHES, "setWatches"),
        ]);
        if operation == op::SET_WATCHES {
            return self.set_watches(xid);
        }
        let mut draft = Draft::new(name);
        let path = match self.path() {
            // The real server's tables take a null path in; there is nothing to copy in that.
            None => Some(b"/a".to_vec()),
            path => path,
        };
        draft.path(&path);
        let usual = if operation == op::ADD_WATCH { 2 } else { 5 };
        let odd = self.random.percent(4);
        let number = if odd {
            *self.random.pick(&[-1, 0, 2, 6, 100])
        } else {
            self.random.below(usual) as i32 + i32::from(operation != op::ADD_WATCH)
        };
        draft.number("kind", number);
        draft.finish(operation, xid)
    }

    /// The watches of a client that comes back, or says so.
    pub fn set_watches(&mut self, xid: i32) -> Request {
        let second = self.random.percent(60);
        let mut draft = Draft::new(if second { "setWatches2" } else { "setWatches" });
        let behind = self.random.below(30) as i64;
        let relative = if self.random.percent(80) { self.last_zxid - behind } else { 0 };
        draft.say(&format!("since {relative:+}"));
        draft.before.push(Piece::Zxid(relative));
        for _ in 0..if second { 5 } else { 3 } {
            let count = self.random.below(4);
            draft.writer.int(count as i32);
            draft.say(&format!("{count}:"));
            for _ in 0..count {
                let path = self.path().unwrap_or_default();
                draft.path(&Some(path));
            }
        }
        draft.finish(if second { op::SET_WATCHES2 } else { op::SET_WATCHES }, xid)
    }

    /// A request that is none.
    pub fn unknown(&mut self, xid: i32) -> Request {
        // Left out: what only servers send (-10, 20), which a server of ours need not obey.
        const NUMBERS: [i32; 13] = [
            op::NOTIFICATION,
            op::CHECK,
            10,
            23,
            99,
            108,
            200,
            500,
            -1,
            -5,
            -12,
            i32::MAX,
            i32::MIN,
        ];
        let operation = *self.random.pick(&NUMBERS);
        let mut draft = Draft::new(&format!("operation {operation}"));
        let path = self.path();
        draft.path(&path);
        draft.finish(operation, xid)
    }

    /// A request whose body is cut, lengthened or damaged.
    fn malformed(&mut self, xid: i32) -> Request {
        let mut request = match self.random.below(3) {
            0 => self.read(xid),
            1 => self.watch_request(xid),
            _ => self.write(xid),
        };
        // Damage must not make nonsense of quota nodes, nor a TTL that stops a real server, nor
        // put a null among the watches.
        let fragile = request.label.contains("zookeeper") || request.label.contains("TTL");
        let Some(Piece::Bytes(bytes)) = request.body.last_mut() else { return request };
        let what = match self.random.below(3) {
            0 => {
                bytes.extend([1, 2, 3]);
                "with more behind"
            }
            1 if !fragile && !bytes.is_empty() => {
                let at = self.random.below(bytes.len());
                bytes[at] ^= 1 << self.random.below(8);
                request.deletes.clear();
                "with a bit turned"
            }
            _ => {
                bytes.truncate(self.random.below(bytes.len() + 1));
                "cut short"
            }
        };
        request.label.push_str(&format!(" ({what})"));
        request
    }
}
