//! What a run has exercised: which packets each role sent and received, and which notifications
//! each state of an election heard. What the wires must look like is checked on the way.

use std::collections::BTreeMap;
use std::fmt;

use engine::jute::{DecodeError, Reader};
use engine::quorum_peer::RoleKind;
use engine::zab::hello::Hello;
use engine::zab::link::Plane;
use engine::zab::packet::{PacketKind, SNAP_SIGNATURE};

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It looks for a leader.
    Looking,
    /// It leads; at the learner port, also one that is about to.
    Leading,
    /// It follows.
    Following,
    /// It observes.
    Observing,
}

const ROLES: [Role; 4] = [Role::Looking, Role::Following, Role::Leading, Role::Observing];

/// What passes between servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Message {
    /// A packet of the learner port, by its number.
    Packet(i32),
    /// A notification of a server in this state.
    Notification(Role),
}

/// A role, and what it does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    role: Role,
    sends: bool,
    message: Message,
}

/// How often each pair was seen.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    pairs: BTreeMap<Pair, u64>,
}

const LEADER_SENDS: [PacketKind; 12] = [
    PacketKind::LeaderInfo,
    PacketKind::Diff,
    PacketKind::Trunc,
    PacketKind::Snap,
    PacketKind::Proposal,
    PacketKind::Commit,
    PacketKind::Inform,
    PacketKind::NewLeader,
    PacketKind::UpToDate,
    PacketKind::Ping,
    PacketKind::Revalidate,
    PacketKind::Sync,
];

const LEARNERS_SEND: [PacketKind; 5] = [
    PacketKind::AckEpoch,
    PacketKind::Ack,
    PacketKind::Ping,
    PacketKind::Revalidate,
    PacketKind::Request,
];

impl Coverage {
    /// Something was sent or received.
    pub(super) fn count(&mut self, role: Role, sends: bool, seen: Seen) {
        let message = match seen {
            Seen::Packet { kind, .. } => Message::Packet(kind),
            Seen::Notification(state) => Message::Notification(state),
        };
        *self.pairs.entry(Pair { role, sends, message }).or_default() += 1;
    }

    /// Adds what another run has seen.
    pub fn add(&mut self, other: &Self) {
        for (pair, count) in &other.pairs {
            *self.pairs.entry(*pair).or_default() += count;
        }
    }

    /// All pairs that the protocol has.
    fn possible() -> Vec<Pair> {
        let packets = |role, sends, kinds: &[PacketKind]| {
            let pair = |kind| Pair { role, sends, message: Message::Packet(kind as i32) };
            kinds.iter().copied().map(pair).collect::<Vec<_>>()
        };
        let informed = |kind: &PacketKind| *kind == PacketKind::Inform;
        let followers: Vec<_> = LEADER_SENDS.into_iter().filter(|kind| !informed(kind)).collect();
        let infos = [PacketKind::FollowerInfo, PacketKind::ObserverInfo];
        let mut pairs = packets(Role::Leading, true, &LEADER_SENDS);
        pairs.extend(packets(Role::Leading, false, &infos));
        pairs.extend(packets(Role::Leading, false, &LEARNERS_SEND));
        pairs.extend(packets(Role::Following, false, &followers));
        pairs.extend(packets(Role::Observing, false, &LEADER_SENDS));
        for (role, info) in [Role::Following, Role::Observing].into_iter().zip(infos) {
            pairs.extend(packets(role, true, &[info]));
            pairs.extend(packets(role, true, &LEARNERS_SEND));
        }
        for state in ROLES {
            let message = Message::Notification(state);
            pairs.push(Pair { role: state, sends: true, message });
            pairs.extend(ROLES.map(|role| Pair { role, sends: false, message }));
        }
        pairs
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let possible = Self::possible();
        let mut never = Vec::new();
        for role in ROLES {
            for sends in [true, false] {
                let does = if sends { "sends" } else { "receives" };
                write!(f, "  {role:?} {does}:")?;
                let of_role = |pair: &&Pair| pair.role == role && pair.sends == sends;
                for pair in possible.iter().filter(of_role) {
                    match self.pairs.get(pair) {
                        Some(count) => write!(f, " {} {count}", pair.message)?,
                        None => never.push(format!("{role:?} {does} {}", pair.message)),
                    }
                }
                writeln!(f)?;
            }
        }
        let strange = self.pairs.keys().filter(|pair| !possible.contains(pair));
        for pair in strange {
            writeln!(f, "  not expected: {pair:?}")?;
        }
        let never = if never.is_empty() { "none".to_owned() } else { never.join(", ") };
        write!(f, "  never seen: {never}")
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is = |kind: &&PacketKind, number| **kind as i32 == number;
        let infos = [PacketKind::FollowerInfo, PacketKind::ObserverInfo];
        match self {
            Self::Packet(number) => {
                let mut known = LEADER_SENDS.iter().chain(&LEARNERS_SEND).chain(&infos);
                match known.find(|kind| is(kind, *number)) {
                    Some(kind) => write!(f, "{kind:?}"),
                    None => write!(f, "packet {number}"),
                }
            }
            Self::Notification(state) => write!(f, "notification({state:?})"),
        }
    }
}

impl Role {
    /// What a server says that it is.
    pub(super) fn of(kind: RoleKind) -> Self {
        match kind {
            RoleKind::Standalone | RoleKind::Looking => Self::Looking,
            RoleKind::Leading { .. } => Self::Leading,
            RoleKind::Following(_) => Self::Following,
            RoleKind::Observing(_) => Self::Observing,
        }
    }
}

/// A message that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// A packet of the learner port.
    Packet {
        /// Its type.
        kind: i32,
        /// Its zxid.
        zxid: i64,
    },
    /// A notification of a server in this state.
    Notification(Role),
}

/// Listens to one direction of a link.
pub(super) struct Tap {
    plane: Plane,
    buffer: Vec<u8>,
    /// The first message of an election link is yet to come.
    greets: bool,
    /// A tree is passing; so much of the buffer was searched for its end.
    tree: Option<usize>,
}

impl Tap {
    pub(super) fn new(plane: Plane, from_dialler: bool) -> Self {
        let greets = plane == Plane::Election && from_dialler;
        Self { plane, buffer: Vec::new(), greets, tree: None }
    }

    /// Takes bytes; what is complete with them.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> Vec<Seen> {
        self.buffer.extend_from_slice(bytes);
        let mut seen = Vec::new();
        let mut start = 0;
        while let Some((found, len)) = self.next(start) {
            seen.extend(found);
            start += len;
        }
        self.buffer.drain(..start);
        seen
    }

    fn next(&mut self, start: usize) -> Option<(Option<Seen>, usize)> {
        let rest = &self.buffer[start..];
        if self.greets {
            let hello = Hello::decode(rest).ok()?;
            self.greets = false;
            return Some((None, hello.bytes));
        }
        if let Some(searched) = self.tree {
            let Some(at) = find(&rest[searched..], SNAP_SIGNATURE.as_bytes()) else {
                self.tree = Some(rest.len().saturating_sub(SNAP_SIGNATURE.len()));
                return None;
            };
            self.tree = None;
            return Some((None, searched + at + SNAP_SIGNATURE.len()));
        }
        let mut reader = Reader::new(rest);
        let read = match self.plane {
            Plane::Election => read_notification(&mut reader),
            Plane::Learner => read_packet(&mut reader),
        };
        let seen = read.ok()?;
        if let Seen::Packet { kind, .. } = seen
            && kind == PacketKind::Snap as i32
        {
            self.tree = Some(0);
        }
        Some((Some(seen), rest.len() - reader.rest().len()))
    }
}

fn read_notification(reader: &mut Reader<'_>) -> Result<Seen, DecodeError> {
    let payload = reader.buf()?.unwrap_or_default();
    let state = Reader::new(payload).i32()?;
    Ok(Seen::Notification(match state {
        0 => Role::Looking,
        1 => Role::Following,
        2 => Role::Leading,
        _ => Role::Observing,
    }))
}

fn read_packet(reader: &mut Reader<'_>) -> Result<Seen, DecodeError> {
    let (kind, zxid) = (reader.i32()?, reader.i64()?);
    reader.buf()?;
    for _ in 0..reader.count(8)?.unwrap_or(0) {
        reader.string("scheme")?;
        reader.string("id")?;
    }
    Ok(Seen::Packet { kind, zxid })
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == what[0]) {
        if bytes[from + at..].starts_with(what) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}
