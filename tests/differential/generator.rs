//! The sequence of steps of a seed. It sees nothing of the servers but what both said alike, so
//! that the same seed gives the same steps as long as the servers behave the same.

use crate::lockstep::Outcome;
use crate::random::Random;
use crate::requests::Source;
use crate::script::{Connect, Identity, Piece, Request, Step, op};
use crate::values::Known;
use crate::wire::Writer;

/// How many sessions there may be at a time; the first one is the administrator's and stays.
pub const SLOTS: usize = 5;
/// The longest packet that servers take unless told otherwise.
const JUTE_MAX: usize = 0xF_FFFF;
/// Who may do everything: servers are started with this one's digest.
const ADMINISTRATOR: &str = "super:test";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Empty,
    Connected,
    /// The session is there, its connection is not.
    Away,
}

#[derive(Debug)]
pub struct Generator {
    source: Source,
    slots: [Presence; SLOTS],
    next_xid: [i32; SLOTS],
    /// At most so many requests in one go.
    burst_most: usize,
    /// Steps that have to come first.
    planned: Vec<Step>,
}

impl Generator {
    /// `known` are the paths that exist at the beginning.
    pub fn new(seed: u64, pipelined: bool, known: Vec<String>) -> Self {
        let mut random = Random::new(seed);
        let burst_most = if pipelined { *random.pick(&[4, 30, 30, 120]) } else { 1 };
        let watch_percent = *random.pick(&[5, 40, 90]);
        let counters = known.clone();
        let known = Known { paths: known };
        let source = Source { random, known, last_zxid: 0, watch_percent, pipelined };
        let mut generator = Self {
            source,
            slots: [Presence::Empty; SLOTS],
            next_xid: [1; SLOTS],
            burst_most,
            planned: Vec::new(),
        };
        let enter = |slot| Step::Connect {
            slot,
            connect: Connect {
                timeout_ms: 40_000,
                read_only: Some(0),
                last_zxid_seen: 0,
                identity: Identity::New,
            },
            hang_up_first: false,
        };
        let administrate = generator.auth(0, "digest", Some(ADMINISTRATOR.as_bytes()));
        for path in &counters {
            generator.count_up(path);
        }
        generator.planned.extend([enter(1), administrate, enter(0)]);
        generator
    }

    /// Takes the counters of a node that was there at the beginning past their end.
    fn count_up(&mut self, path: &str) {
        for _ in 0..13 {
            let mut body = Writer::default();
            let operation = *self.source.random.pick(&[op::CREATE, op::CREATE2, op::SET_DATA]);
            if operation == op::SET_DATA {
                body.text(path).text("data").int(-1);
            } else {
                body.text(&format!("{path}/n")).text("").int(1);
                body.int(31).text("world").text("anyone").int(2);
            }
            let label = format!("operation {operation} on {path}");
            let request = plain(operation, self.xid(0), body, &label);
            self.planned.push(Step::Burst { slot: 0, requests: vec![request] });
        }
    }

    pub fn step(&mut self) -> Step {
        if let Some(step) = self.planned.pop() {
            return step;
        }
        let connected = self.having(Presence::Connected);
        let slot = *self.source.random.pick(&connected);
        match self.source.random.weighted(&[820, 40, 25, 35, 25, 12, 12, 10, 6, 15, 15, 4]) {
            1 => self.enter(),
            2 if slot != 0 => self.close(slot),
            3 => self.resume(),
            4 => self.identify(slot),
            5 => self.refused_connect(),
            6 if slot != 0 => self.fatal(slot),
            7 => self.stranger(),
            8 => self.four_letter(),
            9 => self.repair(),
            11 => self.large(slot),
            10 if slot != 0 => {
                let xid = self.xid(slot);
                Step::Unknown { slot, request: self.source.unknown(xid) }
            }
            _ => self.burst(slot),
        }
    }

    /// What a step brought about.
    pub fn learn(&mut self, step: &Step, outcome: &Outcome) {
        if outcome.last_zxid > 0 {
            self.source.last_zxid = outcome.last_zxid;
        }
        let slot = match step {
            Step::Connect { slot, .. } => {
                if outcome.connected {
                    self.slots[*slot] = Presence::Connected;
                }
                return;
            }
            Step::Burst { slot, requests } => {
                for (request, reply) in requests.iter().zip(&outcome.replies) {
                    reply.created.iter().for_each(|path| self.source.known.add(path.clone()));
                    if reply.succeeded {
                        request.deletes.iter().for_each(|path| self.source.known.remove(path));
                    }
                }
                *slot
            }
            Step::Close { slot, .. } => {
                self.slots[*slot] = Presence::Empty;
                return;
            }
            Step::Alone { slot, .. } => *slot,
            Step::Fatal { slot, .. } | Step::Unknown { slot, .. } => {
                self.slots[*slot] = Presence::Away;
                return;
            }
            Step::Stranger { .. } | Step::FourLetter { .. } => return,
        };
        if !outcome.connected {
            self.slots[slot] = Presence::Away;
        }
    }

    fn having(&self, presence: Presence) -> Vec<usize> {
        (0..SLOTS).filter(|slot| self.slots[*slot] == presence).collect()
    }

    fn xid(&mut self, slot: usize) -> i32 {
        if self.source.random.percent(1) {
            // Any number will do but those of events (-1) and of the fence.
            return *self.source.random.pick(&[0, -3, -4, -8, i32::MIN, i32::MAX - 1]);
        }
        self.next_xid[slot] += 1;
        self.next_xid[slot]
    }

    fn burst(&mut self, slot: usize) -> Step {
        let count = 1 + self.source.random.below(self.burst_most);
        let mut requests = Vec::new();
        for _ in 0..count {
            let xid = self.xid(slot);
            requests.push(self.source.request(xid));
            // In the real server's pipeline a list that a znode is getting counts only when it is
            // applied: what follows would depend on timing.
            if requests.last().is_some_and(|request| request.op == op::SET_ACL) {
                break;
            }
        }
        Step::Burst { slot, requests }
    }

    /// Opens a few nodes again, for the sake of those who are not the administrator.
    fn repair(&mut self) -> Step {
        let mut paths = vec!["/".to_owned()];
        paths.extend(
            (0..6).map(|_| crate::values::existing(&mut self.source.random, &self.source.known)),
        );
        let requests = paths.iter().map(|path| {
            let mut body = Writer::default();
            body.text(path).int(1).int(31).text("world").text("anyone").int(-1);
            plain(op::SET_ACL, self.xid(0), body, &format!("open {path}"))
        });
        let requests = requests.collect();
        Step::Burst { slot: 0, requests }
    }

    fn enter(&mut self) -> Step {
        let Some(slot) = self.having(Presence::Empty).first().copied() else {
            return self.burst(0);
        };
        self.next_xid[slot] = 1;
        let random = &mut self.source.random;
        let connect = Connect {
            timeout_ms: *random.pick(&[-1, 0, 1, 40_000, 1_000_000, 3_600_000, i32::MAX]),
            read_only: *random.pick(&[None, Some(0), Some(1)]),
            last_zxid_seen: 0,
            identity: Identity::New,
        };
        Step::Connect { slot, connect, hang_up_first: false }
    }

    /// A session comes back: after its connection broke, or while the server has not noticed.
    fn resume(&mut self) -> Step {
        let mut candidates = self.having(Presence::Away);
        if candidates.is_empty() {
            candidates = self.having(Presence::Connected);
            candidates.retain(|slot| *slot != 0);
        }
        let Some(slot) = candidates.first().copied() else { return self.burst(0) };
        let request = self.source.set_watches(-8);
        self.planned.push(Step::Burst { slot, requests: vec![request] });
        let random = &mut self.source.random;
        let connect = Connect {
            timeout_ms: 40_000,
            read_only: *random.pick(&[None, Some(0)]),
            last_zxid_seen: self.source.last_zxid,
            identity: Identity::Resume { slot, right_password: true },
        };
        Step::Connect { slot, connect, hang_up_first: random.percent(50) }
    }

    fn refused_connect(&mut self) -> Step {
        let Some(slot) = self.having(Presence::Empty).first().copied() else {
            return self.burst(0);
        };
        // The real server cuts the session's connection before it looks at the password, which is
        // nothing to copy: only a session without a connection is asked for with a wrong one.
        let away = self.having(Presence::Away).first().copied();
        let (identity, ahead) = match (self.source.random.below(3), away) {
            (0, _) => (Identity::Unknown, 0),
            (1, Some(slot)) => (Identity::Resume { slot, right_password: false }, 0),
            _ => (Identity::New, 1_000_000),
        };
        let refused = matches!(identity, Identity::New);
        let connect = Connect {
            timeout_ms: 40_000,
            read_only: *self.source.random.pick(&[None, Some(0)]),
            last_zxid_seen: if refused { self.source.last_zxid + ahead } else { 0 },
            identity,
        };
        Step::Connect { slot, connect, hang_up_first: false }
    }

    /// The end of a session, right behind a few other requests.
    fn close(&mut self, slot: usize) -> Step {
        let Step::Burst { mut requests, .. } = self.burst(slot) else {
            unreachable!("a burst is made of requests");
        };
        requests.truncate(self.source.random.below(6));
        let xid = self.xid(slot);
        requests.push(plain(op::CLOSE_SESSION, xid, Writer::default(), "closeSession"));
        Step::Close { slot, requests }
    }

    /// A node as large as a packet may be, and a byte larger.
    fn large(&mut self, slot: usize) -> Step {
        // Header, path, length of the data, the open list, flags.
        const AROUND: usize = 8 + 4 + 6 + 4 + 4 + 4 + 9 + 10 + 4;
        let beyond = slot != 0 && self.source.random.percent(30);
        let length = if beyond { JUTE_MAX + 1 } else { JUTE_MAX } - AROUND;
        let mut body = Writer::default();
        let fill = self.source.random.next() as u8;
        body.text("/large").buffer(Some(&vec![fill; length]));
        body.int(1).int(31).text("world").text("anyone").int(0);
        let xid = self.xid(slot);
        let create = plain(op::CREATE, xid, body, "create /large");
        if beyond {
            let bytes = crate::side::framed(&create.packet(0));
            // The server looks no further than the length.
            let bytes = bytes[..4].to_vec();
            return Step::Fatal { slot, bytes, label: format!("a byte too many on slot {slot}") };
        }
        let mut requests = vec![create];
        for operation in [op::GET_DATA, op::EXISTS, op::DELETE] {
            let mut body = Writer::default();
            body.text("/large");
            if operation == op::DELETE {
                body.int(-1)
            } else {
                body.byte(0)
            };
            let xid = self.xid(slot);
            requests.push(plain(operation, xid, body, &format!("operation {operation} on /large")));
        }
        Step::Burst { slot, requests }
    }

    fn identify(&mut self, slot: usize) -> Step {
        let random = &mut self.source.random;
        if random.percent(10) {
            let xid = self.xid(slot);
            let mut body = Writer::default();
            body.buffer(Some(b"token"));
            let request = plain(op::SASL, xid, body, "sasl");
            return Step::Alone { slot, request };
        }
        // What the server refuses would leave nobody in charge.
        let refused = slot != 0 && random.percent(20);
        let (scheme, auth): (&str, Option<&[u8]>) = if refused {
            *random.pick(&[
                ("unheard", Some(&b"x"[..])),
                ("digest", None),
                ("world", Some(b"anyone")),
                ("sasl", Some(b"x")),
                ("x509", Some(b"x")),
                ("", Some(b"x")),
            ])
        } else {
            *random.pick(&[
                ("digest", Some(&b"alice:secret"[..])),
                ("digest", Some(b"alice:secret")),
                ("digest", Some(b"bob:hidden")),
                ("digest", Some(b"bob:hid:den")),
                ("digest", Some(b":")),
                ("ip", Some(b"")),
            ])
        };
        self.auth(slot, scheme, auth)
    }

    fn auth(&mut self, slot: usize, scheme: &str, auth: Option<&[u8]>) -> Step {
        let mut body = Writer::default();
        body.int(0).text(scheme).buffer(auth);
        let shown = auth.map_or("null".to_owned(), crate::normal::show);
        let request = plain(op::AUTH, -4, body, &format!("auth {scheme} {shown}"));
        Step::Alone { slot, request }
    }

    fn fatal(&mut self, slot: usize) -> Step {
        let random = &mut self.source.random;
        let (bytes, label): (Vec<u8>, &str) = match random.below(5) {
            0 => ((-1i32).to_be_bytes().to_vec(), "a negative length"),
            1 => ((JUTE_MAX as u32 + 1).to_be_bytes().to_vec(), "a length above the limit"),
            2 => (vec![0, 0, 0, 0], "an empty packet"),
            3 => (vec![0, 0, 0, 3, 1, 2, 3], "three bytes"),
            _ => (vec![0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0], "half a header"),
        };
        Step::Fatal { slot, bytes, label: format!("{label} on slot {slot}") }
    }

    fn stranger(&mut self) -> Step {
        let random = &mut self.source.random;
        let (bytes, label): (Vec<u8>, &str) = match random.below(6) {
            0 => (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "another protocol"),
            1 => (b"wxyz".to_vec(), "an unknown word"),
            2 => (vec![0xFF; 8], "a negative length"),
            3 => (vec![0, 0, 0, 4, 0, 0, 0, 0], "a short connect request"),
            4 => (vec![0, 0, 0, 40, 0, 0, 0, 0], "half a connect request"),
            _ => (Vec::new(), "nothing"),
        };
        Step::Stranger { bytes, label: format!("{label} from a stranger") }
    }

    fn four_letter(&mut self) -> Step {
        const MONITOR: &[&str] = &[
            "zk_znode_count",
            "zk_watch_count",
            "zk_ephemerals_count",
            "zk_num_alive_connections",
            "zk_server_state",
        ];
        let words: [(&str, &[&str]); 5] = [
            ("ruok", &[]),
            ("isro", &[]),
            ("srvr", &["Mode:", "Node count:"]),
            // Its other line counts connections whose watches have all fired, too.
            ("wchs", &["Total watches:"]),
            ("mntr", MONITOR),
        ];
        let (word, lines) = *self.source.random.pick(&words);
        Step::FourLetter { word, lines }
    }
}

fn plain(operation: i32, xid: i32, body: Writer, label: &str) -> Request {
    Request {
        op: operation,
        xid,
        body: vec![Piece::Bytes(body.bytes)],
        label: format!("{xid}: {label}"),
        deletes: Vec::new(),
    }
}
