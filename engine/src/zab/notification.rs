//! What servers tell each other at the election port: their vote, and what they are doing.
//!
//! ```text
//!   i32 length, not counted below
//!    0  i32  state of the sender          20  i64  election round
//!    4  i64  leader                       28  i64  epoch of the leader
//!   12  i64  zxid of the leader           36  i32  version, 2
//!                                         40  i32  length, then the text of the configuration
//! ```
//!
//! Older servers end at 28 bytes (the epoch is that of the zxid), at 40, or behind a version of 1.

use crate::ids::ServerId;
use crate::jute::{DecodeError, Reader, Writer};
use crate::zab::vote::{ElectionRound, Vote};
use crate::zxid::{Epoch, Zxid};

/// The version that is written. From 2 on, a notification carries the configuration.
const VERSION: i32 = 2;
/// A notification without configuration or version or, the oldest, without epoch, bytes.
const UNVERSIONED_BYTES: usize = 40;
const OLDEST_BYTES: usize = 28;

/// What the sender of a notification is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerState {
    /// It looks for a leader; the vote is what it proposes.
    Looking,
    /// It follows the leader that it names.
    Following,
    /// It leads.
    Leading,
    /// It observes the leader that it names.
    Observing,
}

/// A notification, as it comes in: its numbers may be none that a vote can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification {
    /// What the sender is doing.
    pub state: PeerState,
    /// Whom it takes for the leader, or wants to be it.
    pub leader: ServerId,
    /// How recent that server's log is; -1 is without data.
    pub zxid: i64,
    /// The round of the vote.
    pub round: ElectionRound,
    /// The epoch of the vote.
    pub epoch: i64,
    /// The version of the format; 0 in forms that do not say it.
    pub version: i32,
}

impl Notification {
    /// Reads the payload of one message. The text of the configuration is skipped: it changes by
    /// transactions alone here.
    ///
    // Compat: FastLeaderElection.Messenger.WorkerReceiver.run - what follows the last field is
    // ignored, and so is a configuration that makes no sense, but not a length that cannot be.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        let state = match reader.i32()? {
            0 => PeerState::Looking,
            1 => PeerState::Following,
            2 => PeerState::Leading,
            3 => PeerState::Observing,
            value => {
                return Err(DecodeError::BadValue { what: "state", value: value.into() });
            }
        };
        let leader = ServerId(reader.i64()?);
        let zxid = reader.i64()?;
        let round = ElectionRound(reader.i64()?);
        let epoch = if payload.len() == OLDEST_BYTES { zxid >> 32 } else { reader.i64()? };
        let version = match payload.len() {
            OLDEST_BYTES | UNVERSIONED_BYTES => 0,
            _ => reader.i32()?,
        };
        if version >= VERSION {
            reader.buf()?.ok_or(DecodeError::NegativeLength(-1))?;
        }
        Ok(Self { state, leader, zxid, round, epoch, version })
    }

    /// The vote, unless its numbers are none that a voter has: those of an observer that proposes
    /// nobody, or nonsense.
    pub fn vote(&self) -> Option<Vote> {
        let zxid = match self.zxid {
            -1 => None,
            zxid => Some(Zxid::from_wire(zxid)?),
        };
        let epoch = Epoch(u32::try_from(self.epoch).ok()?);
        Some(Vote { leader: self.leader, zxid, epoch, round: self.round })
    }

    /// The whole message of a server that is in `state` and has this vote; an observer that looks
    /// for a leader has none at first.
    ///
    // Compat: FastLeaderElection.buildMsg, getInitId, getInitLastLoggedZxid, getPeerEpoch
    pub fn message(
        state: PeerState,
        vote: Option<&Vote>,
        round: ElectionRound,
        config: &str,
    ) -> Vec<u8> {
        let (leader, zxid, epoch) = match vote {
            None => (i64::MIN, i64::MIN, i64::MIN),
            Some(vote) => {
                let zxid = vote.zxid.map_or(-1, Zxid::to_wire);
                (vote.leader.0, zxid, i64::from(vote.epoch.0))
            }
        };
        let mut bytes = Vec::with_capacity(48 + config.len());
        let mut writer = Writer::new(&mut bytes);
        let length = writer.begin_part();
        writer.i32(state as i32);
        writer.i64(leader);
        writer.i64(zxid);
        writer.i64(round.0);
        writer.i64(epoch);
        writer.i32(VERSION);
        writer.string(config);
        writer.end_part(length);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOTE: Vote = Vote {
        leader: ServerId(3),
        zxid: Some(Zxid(0x2_0000_0007)),
        epoch: Epoch(2),
        round: ElectionRound(9),
    };

    fn payload() -> Vec<u8> {
        let message = Notification::message(PeerState::Leading, Some(&VOTE), VOTE.round, "text");
        message[4..].to_vec()
    }

    #[test]
    fn it_is_written_as_java_writes_it() {
        let message = Notification::message(PeerState::Following, Some(&VOTE), VOTE.round, "a=b");
        let expect = [
            "0000002f00000001",
            "0000000000000003",
            "0000000200000007",
            "0000000000000009",
            "0000000000000002",
            "00000002",
            "00000003613d62",
        ];
        let hex: Vec<String> = message.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex.concat(), expect.concat());
    }

    #[track_caller]
    fn check_form(payload: &[u8], version: i32) {
        let decoded = Notification::decode(payload).unwrap();
        assert_eq!((decoded.state, decoded.version), (PeerState::Leading, version));
        assert_eq!(decoded.vote(), Some(VOTE));
    }

    #[test]
    fn every_form_is_read() {
        check_form(&payload(), 2);
        check_form(&payload()[..40], 0);
        // The oldest has no epoch: it is taken from the zxid.
        check_form(&payload()[..28], 0);
        let mut first = payload()[..44].to_vec();
        first[39] = 1;
        check_form(&first, 1);
        let mut longer = payload();
        longer.extend_from_slice(b"more");
        check_form(&longer, 2);
        let mut garbage = payload();
        garbage[44..].copy_from_slice(&[0xff, 0, 0xc3, b'=']);
        check_form(&garbage, 2);
    }

    #[test]
    fn what_is_cut_or_claims_too_much_is_refused() {
        let whole = payload();
        for len in (0..whole.len()).filter(|len| ![28, 40].contains(len)) {
            assert!(Notification::decode(&whole[..len]).is_err(), "{len} bytes");
        }
        for length in [-1, i32::MIN, i32::MAX, 5] {
            let mut hostile = whole.clone();
            hostile[40..44].copy_from_slice(&length.to_be_bytes());
            assert!(Notification::decode(&hostile).is_err(), "length {length}");
        }
        let mut state = whole;
        state[3] = 4;
        assert!(Notification::decode(&state).is_err());
    }

    #[test]
    fn numbers_that_no_voter_has_are_no_vote() {
        let decode = |vote| {
            let message = Notification::message(PeerState::Looking, vote, ElectionRound(1), "");
            Notification::decode(&message[4..]).unwrap()
        };
        let observer = decode(None);
        assert_eq!((observer.leader, observer.zxid), (ServerId(i64::MIN), i64::MIN));
        assert_eq!(observer.vote(), None);
        let without_data = Vote { zxid: None, round: ElectionRound(1), ..VOTE };
        assert_eq!(decode(Some(&without_data)).zxid, -1);
        assert_eq!(decode(Some(&without_data)).vote(), Some(without_data));
        let with = |epoch, zxid| Notification { zxid, epoch, ..observer };
        for (epoch, zxid) in [(-1, 0), (1 << 32, 0), (0, -2), (0, i64::MIN)] {
            assert_eq!(with(epoch, zxid).vote(), None);
        }
    }
}
