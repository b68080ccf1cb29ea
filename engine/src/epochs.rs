//! The epochs of a server, kept in a file: which it has accepted, and which its history is of.
//!
//! Accepting an epoch is a promise to no leader of an earlier one; the current epoch says whose
//! history the log goes on from. Both must be durable before anybody is told. They belong to the
//! server and not to a generation of its data: they stay when the data is replaced.
//!
//! Beside them stands whether an ensemble may begin with this server while it is empty. Whoever
//! loses the file has lost that as well, and does not vote until it has been given data.
//!
//! Invariants:
//!
//!   * accepted >= current
//!   * neither ever goes back
//!   * what may begin empty may for good

use crate::disk::{Damage, StorageError, Volume};
use crate::slots::Slots;
use crate::zxid::{Epoch, Zxid};

/// The name of the file.
pub const EPOCHS_NAME: &str = "epochs";
/// Tells its slots from those of other files.
pub const EPOCHS_KIND: u32 = 2;

/// The two epochs.
// Compat: QuorumPeer.acceptedEpoch, QuorumPeer.currentEpoch
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    /// The highest epoch that a leader has proposed and this server has agreed to.
    pub accepted: Epoch,
    /// The epoch of the last leader whose history this server has taken over.
    pub current: Epoch,
}

/// The file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochsFile {
    slots: Slots,
    epochs: Epochs,
    begins_empty: bool,
}

impl Epochs {
    /// The epochs of a server whose log reaches to `zxid`: at least that transaction's.
    ///
    /// A server that was stopped while it took over a history may have transactions of an epoch
    /// that it had not made its current one. A log has no gaps, so it holds all that the leader
    /// of that epoch began with.
    #[must_use]
    pub fn reaching(self, zxid: Zxid) -> Self {
        let current = self.current.max(zxid.epoch());
        Self { accepted: self.accepted.max(current), current }
    }

    fn is_sound(self) -> bool {
        self.accepted >= self.current
    }

    /// The last field is there only if it is not zero: most files are those of earlier servers.
    fn encode(self, begins_empty: bool) -> Vec<u8> {
        let words = [self.accepted.0, self.current.0, u32::from(begins_empty)];
        let words = if begins_empty { &words[..] } else { &words[..2] };
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The epochs, and whether the server may begin empty, which it may not where the file does
    /// not say it.
    fn decode(payload: &[u8]) -> Option<(Self, bool)> {
        let (words, _) = payload.as_chunks::<4>();
        let word = |index: usize| words.get(index).map(|word| u32::from_le_bytes(*word));
        let epochs = Self { accepted: Epoch(word(0)?), current: Epoch(word(1)?) };
        epochs.is_sound().then_some((epochs, word(2) == Some(1)))
    }
}

impl EpochsFile {
    /// Reads it: none before a server first was a member of an ensemble.
    pub fn open<V: Volume>(volume: &mut V) -> Result<Option<Self>, StorageError> {
        let Some(slots) = Slots::open(volume, EPOCHS_NAME, EPOCHS_KIND)? else {
            return Ok(None);
        };
        let damaged = || StorageError::damaged(EPOCHS_NAME, 0, Damage::Epochs);
        let (epochs, begins_empty) = Epochs::decode(slots.payload()).ok_or_else(damaged)?;
        Ok(Some(Self { slots, epochs, begins_empty }))
    }

    /// Makes it.
    pub fn create<V: Volume>(volume: &mut V, epochs: Epochs) -> Result<Self, StorageError> {
        assert!(epochs.is_sound(), "{epochs:?}");
        let slots = Slots::create(volume, EPOCHS_NAME, EPOCHS_KIND, &epochs.encode(false))?;
        Ok(Self { slots, epochs, begins_empty: false })
    }

    /// What it holds.
    pub fn epochs(&self) -> Epochs {
        self.epochs
    }

    /// Changes them; durable when this returns, and after a crash as before or as now.
    pub fn write<V: Volume>(&mut self, volume: &mut V, epochs: Epochs) -> Result<(), StorageError> {
        let before = self.epochs;
        let rises = epochs.accepted >= before.accepted && epochs.current >= before.current;
        assert!(epochs.is_sound() && rises, "{before:?} cannot become {epochs:?}");
        self.slots.write(volume, &epochs.encode(self.begins_empty))?;
        self.epochs = epochs;
        Ok(())
    }

    /// Whether an ensemble may begin with this server while it is empty.
    pub fn begins_empty(&self) -> bool {
        self.begins_empty
    }

    /// From now on it may; durable when this returns.
    pub fn begin_empty<V: Volume>(&mut self, volume: &mut V) -> Result<(), StorageError> {
        self.slots.write(volume, &self.epochs.encode(true))?;
        self.begins_empty = true;
        self.settle(volume)
    }

    /// Repeats the last change in the other slot unless it is there, so that later damage to one
    /// of them does not bring older epochs back. Nobody needs to wait for it; a start does it, too,
    /// since a crash may have come between.
    pub fn settle<V: Volume>(&mut self, volume: &mut V) -> Result<(), StorageError> {
        self.slots.settle(volume)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format_document::assert_table;

    fn epochs(accepted: u32, current: u32) -> Epochs {
        Epochs { accepted: Epoch(accepted), current: Epoch(current) }
    }

    #[test]
    fn the_document_has_the_same_fields() {
        assert_table(
            "epochs payload",
            &[("accepted", 0, 4), ("current", 4, 4), ("begins_empty", 8, 4)],
        );
    }

    #[test]
    fn epochs_survive_their_encoding_unless_they_contradict_each_other() {
        for begins_empty in [false, true] {
            let encoded = epochs(7, 3).encode(begins_empty);
            assert_eq!(Epochs::decode(&encoded), Some((epochs(7, 3), begins_empty)));
            assert_eq!(Epochs::decode(&encoded[..8]), Some((epochs(7, 3), false)));
            assert_eq!(Epochs::decode(&encoded[..7]), None);
        }
        assert_eq!(Epochs::decode(&epochs(3, 7).encode(true)), None);
        // What a later server has added is passed over.
        let longer = [epochs(7, 3).encode(true), vec![0xff; 5]].concat();
        assert_eq!(Epochs::decode(&longer), Some((epochs(7, 3), true)));
    }

    #[test]
    fn a_log_raises_the_epochs_that_it_reaches_beyond() {
        let check = |before, epoch, after| {
            assert_eq!(Epochs::reaching(before, Zxid::new(Epoch(epoch), 9)), after);
        };
        check(epochs(0, 0), 0, epochs(0, 0));
        check(epochs(4, 2), 1, epochs(4, 2));
        check(epochs(4, 2), 3, epochs(4, 3));
        check(epochs(4, 2), 5, epochs(5, 5));
    }
}
