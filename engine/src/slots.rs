//! A small record in a file of two slots: changed by one durable write, whole at every moment.
//!
//! ```text
//!   block 0: slot   block 1: slot      the valid one with the higher counter counts;
//!                                      a change goes to the other one
//! ```
//!
//! A write that a crash tears spoils the slot that did not count. So a change either is there or
//! not, and needs no room on the disk that it did not have before.
//!
//! Invariants:
//!
//!   * the slot that counts is never written to
//!   * counters rise with every change

use crate::disk::{BLOCK_BYTES, Damage, StorageError, Volume};

/// The first bytes of a slot.
pub const SLOT_MAGIC: [u8; 4] = *b"RKsl";
/// Bytes before the payload.
pub const SLOT_HEADER_BYTES: usize = 24;
/// The longest payload.
pub const PAYLOAD_BYTES_MAX: usize = BLOCK_BYTES - SLOT_HEADER_BYTES;

const CHECKED_FROM: usize = 8;

/// A file of two slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots {
    name: String,
    kind: u32,
    counter: u64,
    payload: Vec<u8>,
    /// The other slot has the same payload.
    is_repeated: bool,
}

impl Slots {
    /// Makes the file, with a first payload, in place of what has its name.
    pub fn create<V: Volume>(
        volume: &mut V,
        name: &str,
        kind: u32,
        payload: &[u8],
    ) -> Result<Self, StorageError> {
        let temporary = format!("{name}.tmp");
        volume.create_zeroed(&temporary, 2 * BLOCK_BYTES as u64)?;
        for counter in 0..2 {
            volume.write_at(&temporary, offset(counter), &encode(kind, counter, payload))?;
        }
        volume.sync_file(&temporary)?;
        volume.rename(&temporary, name)?;
        volume.sync_dir()?;
        let (name, payload) = (name.to_owned(), payload.to_vec());
        Ok(Self { name, kind, counter: 1, payload, is_repeated: true })
    }

    /// Reads the file: none if there is none, an error if neither slot is valid.
    pub fn open<V: Volume>(
        volume: &mut V,
        name: &str,
        kind: u32,
    ) -> Result<Option<Self>, StorageError> {
        if !volume.list()?.iter().any(|file| file == name) {
            return Ok(None);
        }
        // What is read may be in a cache alone, and so may its name.
        volume.sync_file(name)?;
        volume.sync_dir()?;
        let mut newest: Option<Self> = None;
        for slot in 0..2 {
            let mut block = [0; BLOCK_BYTES];
            let count = volume.read_at(name, offset(slot), &mut block)?;
            let Some((counter, payload)) = decode(&block[..count], kind) else { continue };
            let is_repeated = newest.as_ref().is_some_and(|other| other.payload == payload);
            match &mut newest {
                Some(newest) if newest.counter > counter => newest.is_repeated = is_repeated,
                _ => {
                    let (name, payload) = (name.to_owned(), payload.to_vec());
                    newest = Some(Self { name, kind, counter, payload, is_repeated });
                }
            }
        }
        let damaged = || StorageError::damaged(name, 0, Damage::Slots);
        newest.map(Some).ok_or_else(damaged)
    }

    /// What counts.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Whether damage to one slot would be harmless.
    pub fn is_settled(&self) -> bool {
        self.is_repeated
    }

    /// Changes the payload; durable when this returns.
    pub fn write<V: Volume>(&mut self, volume: &mut V, payload: &[u8]) -> Result<(), StorageError> {
        let counter = self.counter + 1;
        volume.write_at(&self.name, offset(counter), &encode(self.kind, counter, payload))?;
        volume.sync_file(&self.name)?;
        self.counter = counter;
        self.is_repeated = self.payload == payload;
        self.payload.clear();
        self.payload.extend_from_slice(payload);
        Ok(())
    }

    /// Repeats what counts in the other slot unless it is there, so that later damage to one of
    /// them is harmless.
    pub fn settle<V: Volume>(&mut self, volume: &mut V) -> Result<(), StorageError> {
        if self.is_repeated {
            return Ok(());
        }
        let payload = self.payload.clone();
        self.write(volume, &payload)
    }
}

/// A slot as it lies in a file, whatever its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot<'a> {
    /// Which file it belongs to.
    pub kind: u32,
    /// The higher one counts.
    pub counter: u64,
    /// What it holds.
    pub payload: &'a [u8],
}

impl<'a> Slot<'a> {
    /// Reads a block; none if it is not a slot, or not whole.
    pub fn decode(block: &'a [u8]) -> Option<Self> {
        let kind = u32::from_le_bytes(*block.get(CHECKED_FROM..)?.first_chunk()?);
        decode(block, kind).map(|(counter, payload)| Self { kind, counter, payload })
    }
}

fn offset(counter: u64) -> u64 {
    counter % 2 * BLOCK_BYTES as u64
}

fn encode(kind: u32, counter: u64, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX);
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    block.extend_from_slice(&SLOT_MAGIC);
    block.extend_from_slice(&[0; 4]);
    block.extend_from_slice(&kind.to_le_bytes());
    block.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    block.extend_from_slice(&counter.to_le_bytes());
    block.extend_from_slice(payload);
    let checksum = crc32c::crc32c(&block[CHECKED_FROM..]);
    block[4..8].copy_from_slice(&checksum.to_le_bytes());
    block.resize(BLOCK_BYTES, 0);
    block
}

fn decode(block: &[u8], kind: u32) -> Option<(u64, &[u8])> {
    let (magic, rest) = block.split_first_chunk::<4>()?;
    let (checksum, checked) = rest.split_first_chunk::<4>()?;
    let (found_kind, rest) = checked.split_first_chunk::<4>()?;
    let (bytes, rest) = rest.split_first_chunk::<4>()?;
    let (counter, rest) = rest.split_first_chunk::<8>()?;
    let payload = rest.get(..u32::from_le_bytes(*bytes) as usize)?;
    let checked = &checked[..SLOT_HEADER_BYTES - CHECKED_FROM + payload.len()];
    let valid = *magic == SLOT_MAGIC
        && u32::from_le_bytes(*found_kind) == kind
        && u32::from_le_bytes(*checksum) == crc32c::crc32c(checked);
    valid.then(|| (u64::from_le_bytes(*counter), payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format_document::assert_table;

    #[test]
    fn the_document_has_the_same_fields() {
        assert_table(
            "slot",
            &[
                ("magic", 0, 4),
                ("checksum", 4, 4),
                ("kind", 8, 4),
                ("payload_bytes", 12, 4),
                ("counter", 16, 8),
            ],
        );
    }

    #[test]
    fn a_slot_survives_its_encoding_and_no_flipped_bit() {
        let whole = encode(7, 3, b"payload");
        assert_eq!(decode(&whole, 7), Some((3, b"payload".as_slice())));
        assert_eq!(Slot::decode(&whole), Some(Slot { kind: 7, counter: 3, payload: b"payload" }));
        assert_eq!(Slot::decode(&whole[..11]), None);
        assert_eq!(decode(&whole, 8), None);
        assert_eq!(decode(&whole[..20], 7), None);
        for bit in 0..(SLOT_HEADER_BYTES + 7) * 8 {
            let mut block = whole.clone();
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&block, 7), None, "bit {bit}");
        }
    }
}
