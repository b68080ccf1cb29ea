//! Mistakes of the drivers: what passes between a machine and the world is not what it was.

use std::sync::Arc;

use engine::order::Batch;
use engine::zab::packet::{self, PacketKind, PacketReader};
use engine::zxid::Zxid;

use super::coverage::Seen;
use crate::sim::random::Random;

/// A mistake that a driver could make; each must be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A write of the log is reported when it begins.
    AckBeforeDurable,
    /// Proposals are acknowledged on behalf of followers when they are sent.
    CommitWithoutQuorum,
    /// Epochs are reported durable and not written.
    EpochsNotWritten,
    /// A cut leaves one transaction too many.
    TruncateTooShort,
    /// A snapshot of what was never committed is written, and outlives the cut of the log.
    SnapshotOutlivesCut,
    /// A vote names the last committed transaction, not the last one in the log.
    VoteOfCommitted,
    /// A member without data says that it has some.
    EmptyMemberVotes,
    /// Replies leave before other cores can see what they tell of.
    ReplyBeforePublish,
    /// Reads in front of a write of their session see the state behind it.
    ReadPastCut,
    /// Events leave behind the replies that they belong in front of.
    WatchAfterData,
    /// Some events are forgotten.
    EventLost,
    /// Of several ACKs only the last one is sent.
    OneAckForMany,
    /// Signs of life are not passed on to the leader.
    TouchesLost,
    /// A server that stood still lives through the time that it missed.
    ExpiryAfterPause,
}

impl Planted {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::AckBeforeDurable,
        Self::CommitWithoutQuorum,
        Self::EpochsNotWritten,
        Self::TruncateTooShort,
        Self::SnapshotOutlivesCut,
        Self::VoteOfCommitted,
        Self::EmptyMemberVotes,
        Self::ReplyBeforePublish,
        Self::ReadPastCut,
        Self::WatchAfterData,
        Self::EventLost,
        Self::OneAckForMany,
        Self::TouchesLost,
        Self::ExpiryAfterPause,
    ];
}

impl Planted {
    /// The one of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|planted| format!("{planted:?}") == name)
    }
}

/// A bare packet: type, zxid, no data, no identities.
const BARE_BYTES: usize = 20;

/// What a learner sends to its leader.
pub(super) fn at_learner(planted: Option<Planted>, bytes: Vec<u8>) -> Vec<u8> {
    match planted {
        Some(Planted::OneAckForMany) => {
            let ack = (PacketKind::Ack as i32).to_be_bytes();
            let mut chunks = bytes.chunks(BARE_BYTES);
            if bytes.len() > BARE_BYTES
                && bytes.len().is_multiple_of(BARE_BYTES)
                && chunks.all(|chunk| chunk.starts_with(&ack))
            {
                return bytes[bytes.len() - BARE_BYTES..].to_vec();
            }
            bytes
        }
        Some(Planted::TouchesLost) => {
            let mut reader = PacketReader::default();
            reader.stream.push(&bytes);
            match reader.take() {
                Ok(Some(packet)) if packet.kind == PacketKind::Ping => {
                    let mut bare = Vec::new();
                    packet::write(PacketKind::Ping, packet.zxid, Some(&[]), &mut bare);
                    while let Ok(Some(packet)) = reader.take() {
                        packet::write(packet.kind, packet.zxid, Some(&packet.data), &mut bare);
                    }
                    bare
                }
                _ => bytes,
            }
        }
        _ => bytes,
    }
}

/// ACKs of the proposals that a leader sends.
pub(super) fn acks_of(seen: &[Seen]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for seen in seen {
        if let Seen::Packet { kind, zxid } = *seen
            && kind == PacketKind::Proposal as i32
        {
            packet::write_bare(PacketKind::Ack, Zxid(zxid.cast_unsigned()), &mut bytes);
        }
    }
    (!bytes.is_empty()).then_some(bytes)
}

/// What cores are given to publish.
pub(super) fn at_publication(
    planted: Option<Planted>,
    batch: &mut Arc<Batch>,
    random: &mut Random,
) {
    match planted {
        Some(Planted::ReadPastCut) => {
            let last = batch.version().clone();
            let batch = Arc::get_mut(batch).expect("nobody has it yet");
            for segment in &mut batch.segments {
                segment.version = last.clone();
            }
        }
        Some(Planted::EventLost) if random.percent(5) => {
            let batch = Arc::get_mut(batch).expect("nobody has it yet");
            for segment in &mut batch.segments {
                segment.items.iter_mut().for_each(|item| item.triggers = 0..0);
            }
        }
        _ => {}
    }
}

/// What a core sends to a client.
pub(super) fn at_client(planted: Option<Planted>, bytes: Vec<u8>) -> Vec<u8> {
    if planted != Some(Planted::WatchAfterData) {
        return bytes;
    }
    let (mut replies, mut events) = (Vec::new(), Vec::new());
    let mut rest = &bytes[..];
    while let Some((prefix, behind)) = rest.split_first_chunk::<4>() {
        let len = u32::from_be_bytes(*prefix) as usize;
        if behind.len() < len {
            return bytes;
        }
        let is_event = behind.starts_with(&(-1_i32).to_be_bytes());
        let into = if is_event { &mut events } else { &mut replies };
        into.extend_from_slice(&rest[..4 + len]);
        rest = &behind[len..];
    }
    replies.append(&mut events);
    replies
}
