//! The packets of the learner port: `QuorumPacket` and what its types carry.
//!
//! A packet is a bare jute record without a length in front, so a reader has to take it apart to
//! know where it ends: [`PacketReader`] does so with whatever pieces the bytes come in.

use std::ops::Range;

use crate::acl::Id;
use crate::auth::identities::IDENTITIES_MAX;
use crate::ids::{ServerId, SessionId, Xid};
use crate::jute::{DecodeError, Reader, Writer};
use crate::zookeeper_files::Stream;
use crate::zxid::{Epoch, Zxid};

/// The version of the protocol between servers.
pub const PROTOCOL_VERSION: i32 = 0x1_0000;

/// What stands behind the tree in a SNAP stream.
pub const SNAP_SIGNATURE: &str = "BenWasHere";

/// The most identities that a request's packet may bring.
const IDS_MAX: usize = 1024;

// What one of ours forwards is always taken.
const _: () = assert!(IDENTITIES_MAX < IDS_MAX);

/// The longest packet of a learner that has not introduced itself, bytes. An
/// introduction has 40.
const INTRODUCTION_BYTES_MAX: usize = 4096;

/// The types of packets (`Leader`'s constants).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum PacketKind {
    /// A learner forwards a request.
    Request = 1,
    /// The leader proposes a transaction.
    Proposal = 2,
    /// A learner has a proposal, or the leader's history, on disk.
    Ack = 3,
    /// A proposal is committed.
    Commit = 4,
    /// Asks for a sign of life; the answer brings touched sessions.
    Ping = 5,
    /// Asks whether a session may be attached to; and the answer.
    Revalidate = 6,
    /// A forwarded `sync` is done.
    Sync = 7,
    /// A committed transaction, for an observer.
    Inform = 8,
    /// A committed reconfiguration.
    CommitAndActivate = 9,
    /// Everything of the leader's history has been sent.
    NewLeader = 10,
    /// A follower introduces itself.
    FollowerInfo = 11,
    /// The learner may serve.
    UpToDate = 12,
    /// What the learner lacks follows as transactions.
    Diff = 13,
    /// The learner must cut its log.
    Trunc = 14,
    /// The whole tree follows.
    Snap = 15,
    /// An observer introduces itself.
    ObserverInfo = 16,
    /// The leader's new epoch.
    LeaderInfo = 17,
    /// The learner accepts the new epoch.
    AckEpoch = 18,
    /// A committed reconfiguration, for an observer.
    InformAndActivate = 19,
}

impl PacketKind {
    const ALL: [Self; 19] = [
        Self::Request,
        Self::Proposal,
        Self::Ack,
        Self::Commit,
        Self::Ping,
        Self::Revalidate,
        Self::Sync,
        Self::Inform,
        Self::CommitAndActivate,
        Self::NewLeader,
        Self::FollowerInfo,
        Self::UpToDate,
        Self::Diff,
        Self::Trunc,
        Self::Snap,
        Self::ObserverInfo,
        Self::LeaderInfo,
        Self::AckEpoch,
        Self::InformAndActivate,
    ];

    fn from_wire(value: i32) -> Option<Self> {
        let index = usize::try_from(value).ok()?.checked_sub(1)?;
        Self::ALL.get(index).copied()
    }
}

/// A packet that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its type.
    pub kind: PacketKind,
    /// Its zxid, whose meaning depends on the type.
    pub zxid: i64,
    /// What it carries.
    pub data: Vec<u8>,
    /// Whose request it is.
    pub ids: Vec<Id>,
}

/// Takes packets from bytes.
#[derive(Debug, Default)]
pub struct PacketReader {
    /// The bytes; a SNAP stream is read from them too.
    pub stream: Stream,
}

impl PacketReader {
    /// For what comes of somebody who has not introduced himself: no long packet is waited for
    /// until [`PacketReader::on_introduced`].
    pub fn of_stranger() -> Self {
        Self { stream: Stream::of_records(INTRODUCTION_BYTES_MAX) }
    }

    /// It is known who sends.
    pub fn on_introduced(&mut self) {
        self.stream.take_long_records();
    }

    /// Takes the next packet, if all of it is there.
    pub fn take(&mut self) -> Result<Option<Packet>, DecodeError> {
        self.stream.take(read)
    }
}

fn read(reader: &mut Reader<'_>) -> Result<Packet, DecodeError> {
    let kind = reader.i32()?;
    let unknown = DecodeError::BadValue { what: "packet type", value: i64::from(kind) };
    let kind = PacketKind::from_wire(kind).ok_or(unknown)?;
    let zxid = reader.i64()?;
    let data = reader.buf()?.unwrap_or_default();
    let count = reader.count(8)?.unwrap_or(0);
    if count > IDS_MAX {
        let value = i64::try_from(count).unwrap_or(i64::MAX);
        return Err(DecodeError::BadValue { what: "identities in a packet", value });
    }
    // Nothing is copied before all of it is there: a sender could have that done for each byte.
    let mut end = reader.clone();
    for _ in 0..2 * count {
        end.buf()?;
    }
    let mut ids = Vec::new();
    for _ in 0..count {
        let scheme = reader.string("scheme")?.into_owned();
        ids.push(Id { scheme, id: reader.string("id")?.into_owned() });
    }
    Ok(Packet { kind, zxid, data: data.to_vec(), ids })
}

/// Appends a packet. `data` is null if there is none.
pub fn write(kind: PacketKind, zxid: i64, data: Option<&[u8]>, out: &mut Vec<u8>) {
    let mut writer = Writer::new(out);
    writer.i32(kind as i32);
    writer.i64(zxid);
    writer.buf_or_null(data);
    // No identities: a null vector.
    writer.i32(-1);
}

/// Appends a packet without data.
pub fn write_bare(kind: PacketKind, zxid: Zxid, out: &mut Vec<u8>) {
    write(kind, zxid.to_wire(), None, out);
}

/// Appends a REQUEST.
pub fn write_request(
    session: SessionId,
    xid: Xid,
    op: i32,
    body: &[u8],
    ids: &[Id],
    out: &mut Vec<u8>,
) {
    let mut writer = Writer::new(out);
    writer.i32(PacketKind::Request as i32);
    writer.i64(-1);
    let data = writer.begin_part();
    writer.i64(session.0);
    writer.i32(xid.0);
    writer.i32(op);
    writer.bytes(body);
    writer.end_part(data);
    writer.count(ids.len());
    for id in ids {
        writer.string(&id.scheme);
        writer.string(&id.id);
    }
}

/// What a REQUEST carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardedRequest {
    /// Whose it is.
    pub session: SessionId,
    /// Its number.
    pub xid: Xid,
    /// Its type, as on the wire.
    pub op: i32,
    /// Its body, within the packet's data.
    pub body: Range<usize>,
}

impl ForwardedRequest {
    /// Reads it.
    pub fn read(data: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(data);
        let (session, xid, op) = (reader.i64()?, reader.i32()?, reader.i32()?);
        let body = data.len() - reader.rest().len()..data.len();
        Ok(Self { session: SessionId(session), xid: Xid(xid), op, body })
    }
}

/// How a learner introduces itself (`LearnerInfo`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnerInfo {
    /// Who it is.
    pub server: ServerId,
    /// The version of its protocol.
    pub protocol: i32,
    /// The version of its configuration.
    pub config_version: i64,
}

impl LearnerInfo {
    /// Appends the packet, of a follower or an observer.
    pub fn write(&self, kind: PacketKind, accepted: Epoch, out: &mut Vec<u8>) {
        let mut data = Vec::with_capacity(20);
        let mut writer = Writer::new(&mut data);
        writer.i64(self.server.0);
        writer.i32(self.protocol);
        writer.i64(self.config_version);
        write(kind, Zxid::new(accepted, 0).to_wire(), Some(&data), out);
    }

    /// Reads it; older servers leave out what comes last.
    pub fn read(data: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(data);
        let server = ServerId(reader.i64()?);
        let protocol = if reader.is_empty() { 0 } else { reader.i32()? };
        let config_version = if reader.is_empty() { 0 } else { reader.i64()? };
        Ok(Self { server, protocol, config_version })
    }
}

/// Appends LEADERINFO.
pub fn write_leader_info(epoch: Epoch, out: &mut Vec<u8>) {
    let zxid = Zxid::new(epoch, 0).to_wire();
    write(PacketKind::LeaderInfo, zxid, Some(&PROTOCOL_VERSION.to_be_bytes()), out);
}

/// Appends ACKEPOCH. `current` is none if the epoch had been accepted before: then it does not
/// count towards the leader's quorum.
pub fn write_ack_epoch(last: Option<Zxid>, current: Option<Epoch>, out: &mut Vec<u8>) {
    let current = current.map_or(-1, |epoch| epoch.0.cast_signed());
    let last = last.map_or(-1, Zxid::to_wire);
    write(PacketKind::AckEpoch, last, Some(&current.to_be_bytes()), out);
}

/// A session and its timeout, as PING and REVALIDATE bring it.
pub fn push_session(session: SessionId, timeout_ms: i32, data: &mut Vec<u8>) {
    let mut writer = Writer::new(data);
    writer.i64(session.0);
    writer.i32(timeout_ms);
}

/// Reads what [`push_session`] has written, repeated.
pub fn read_sessions(data: &[u8]) -> impl Iterator<Item = (SessionId, i32)> {
    data.chunks_exact(12).map(|entry| {
        let mut reader = Reader::new(entry);
        let read = |reader: &mut Reader<'_>| Ok::<_, DecodeError>((reader.i64()?, reader.i32()?));
        let (session, timeout_ms) = read(&mut reader).expect("an entry has 12 bytes");
        (SessionId(session), timeout_ms)
    })
}

/// Appends the answer to a REVALIDATE.
pub fn write_revalidated(session: SessionId, valid: bool, out: &mut Vec<u8>) {
    let mut data = Vec::with_capacity(9);
    let mut writer = Writer::new(&mut data);
    writer.i64(session.0);
    writer.bool(valid);
    write(PacketKind::Revalidate, -1, Some(&data), out);
}

/// Reads the answer to a REVALIDATE.
pub fn read_revalidated(data: &[u8]) -> Result<(SessionId, bool), DecodeError> {
    let mut reader = Reader::new(data);
    Ok((SessionId(reader.i64()?), reader.bool()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Vec<u8> {
        let mut bytes = Vec::new();
        let ids = [Id::new("world", "anyone"), Id::new("ip", "::1")];
        write_request(SessionId(7), Xid(3), 5, b"body", &ids, &mut bytes);
        bytes
    }

    #[test]
    fn packets_come_out_whatever_pieces_their_bytes_come_in() {
        let mut bytes = request();
        write_leader_info(Epoch(2), &mut bytes);
        write_bare(PacketKind::Commit, Zxid(9), &mut bytes);
        for piece in [1, 2, 5, 1000] {
            let mut reader = PacketReader::default();
            let mut packets = Vec::new();
            for piece in bytes.chunks(piece) {
                reader.stream.push(piece);
                while let Some(packet) = reader.take().unwrap() {
                    packets.push(packet);
                }
            }
            let kinds: Vec<_> = packets.iter().map(|packet| packet.kind).collect();
            assert_eq!(kinds, [PacketKind::Request, PacketKind::LeaderInfo, PacketKind::Commit]);
            let request = ForwardedRequest::read(&packets[0].data).unwrap();
            assert_eq!((request.session, request.xid, request.op), (SessionId(7), Xid(3), 5));
            assert_eq!(&packets[0].data[request.body], b"body");
            assert_eq!(packets[0].ids[1], Id::new("ip", "::1"));
            assert_eq!(packets[1].data, [0, 1, 0, 0]);
            assert_eq!(packets[2].zxid, 9);
        }
    }

    #[test]
    fn no_byte_of_a_packet_can_be_left_out_or_make_the_reader_panic() {
        let bytes = request();
        for len in 0..bytes.len() {
            let mut reader = PacketReader::default();
            reader.stream.push(&bytes[..len]);
            assert_eq!(reader.take(), Ok(None), "{len} bytes");
        }
        for at in 0..bytes.len() {
            for value in [0, 0x7f, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                let mut reader = PacketReader::default();
                reader.stream.push(&bytes);
                // Any result will do; a length that is claimed is never allocated.
                drop(reader.take());
            }
        }
    }

    #[test]
    fn a_stranger_is_given_room_for_his_introduction() {
        let mut reader = PacketReader::of_stranger();
        let mut bytes = Vec::new();
        let info = LearnerInfo { server: ServerId(3), protocol: 0x1_0000, config_version: 5 };
        info.write(PacketKind::FollowerInfo, Epoch(4), &mut bytes);
        reader.stream.push(&bytes);
        assert!(reader.take().unwrap().is_some());
        let mut long = Vec::new();
        write(PacketKind::Request, -1, Some(&[0; INTRODUCTION_BYTES_MAX]), &mut long);
        reader.stream.push(&long[..100]);
        let error = |value| DecodeError::BadValue { what: "record length", value };
        assert_eq!(reader.take(), Err(error(16 + INTRODUCTION_BYTES_MAX as i64)));
        reader.on_introduced();
        assert_eq!(reader.take(), Ok(None));
        reader.stream.push(&long[100..]);
        assert!(reader.take().unwrap().is_some());
    }

    #[test]
    fn a_type_that_nobody_knows_is_an_error() {
        for kind in [0, 20, -1, i32::MAX] {
            let mut reader = PacketReader::default();
            reader.stream.push(&i32::to_be_bytes(kind));
            let error = DecodeError::BadValue { what: "packet type", value: i64::from(kind) };
            assert_eq!(reader.take(), Err(error));
        }
    }

    #[test]
    fn an_introduction_may_come_from_an_old_server() {
        let info = LearnerInfo { server: ServerId(3), protocol: 0x1_0000, config_version: 5 };
        let mut bytes = Vec::new();
        info.write(PacketKind::FollowerInfo, Epoch(4), &mut bytes);
        let mut reader = PacketReader::default();
        reader.stream.push(&bytes);
        let packet = reader.take().unwrap().unwrap();
        assert_eq!(packet.zxid, 4 << 32);
        assert_eq!(LearnerInfo::read(&packet.data), Ok(info));
        let old = LearnerInfo { protocol: 0, config_version: 0, ..info };
        assert_eq!(LearnerInfo::read(&packet.data[..8]), Ok(old));
        assert!(LearnerInfo::read(&packet.data[..7]).is_err());
    }
}
