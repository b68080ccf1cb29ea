//! Which generation of a server's data counts.
//!
//! A generation is a directory of snapshots and one of log segments that belong together. It is
//! replaced as a whole when a leader sends a snapshot: the next one is written and made durable
//! beside it, and one record in the manifest switches over. Whatever other generations there are,
//! of before or of a switch that did not happen, are removed and never read.

use crate::disk::{Damage, StorageError, Volume};
use crate::slots::Slots;

/// The name of the manifest's file.
pub const MANIFEST_NAME: &str = "manifest";
/// Tells the slots of a manifest from those of other files.
pub const MANIFEST_KIND: u32 = 1;
/// The first generation.
pub const GENERATION_FIRST: u64 = 1;

/// The manifest, read or made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    slots: Slots,
    generation: u64,
}

impl Manifest {
    /// Reads it: none before the first start.
    pub fn open<V: Volume>(volume: &mut V) -> Result<Option<Self>, StorageError> {
        let Some(slots) = Slots::open(volume, MANIFEST_NAME, MANIFEST_KIND)? else {
            return Ok(None);
        };
        let damaged = || StorageError::damaged(MANIFEST_NAME, 0, Damage::Manifest);
        let generation = slots.payload().first_chunk().ok_or_else(damaged)?;
        Ok(Some(Self { generation: u64::from_le_bytes(*generation), slots }))
    }

    /// Makes it, for the first generation, whose directories are there durably.
    pub fn create<V: Volume>(volume: &mut V) -> Result<Self, StorageError> {
        let payload = GENERATION_FIRST.to_le_bytes();
        let slots = Slots::create(volume, MANIFEST_NAME, MANIFEST_KIND, &payload)?;
        Ok(Self { slots, generation: GENERATION_FIRST })
    }

    /// The generation that counts.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Switches to a later generation, all of which is durable.
    pub fn switch<V: Volume>(
        &mut self,
        volume: &mut V,
        generation: u64,
    ) -> Result<(), StorageError> {
        assert!(generation > self.generation, "an older generation never comes back");
        self.slots.write(volume, &generation.to_le_bytes())?;
        self.settle(volume)?;
        self.generation = generation;
        Ok(())
    }

    /// Repeats the last switch in the other slot unless it is there, so that later damage to one of
    /// them does not bring the older generation back. A start does it before it relies on what the
    /// manifest says: a crash may have come between.
    pub fn settle<V: Volume>(&mut self, volume: &mut V) -> Result<(), StorageError> {
        self.slots.settle(volume)
    }
}

/// The name of a generation's directory.
pub fn generation_name(generation: u64) -> String {
    format!("generation.{generation}")
}

/// The generation whose directory has this name.
pub fn parse_generation_name(name: &str) -> Option<u64> {
    let generation = name.strip_prefix("generation.")?.parse().ok()?;
    (generation_name(generation) == name).then_some(generation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format_document::assert_table;

    #[test]
    fn the_document_has_the_same_fields() {
        assert_table("manifest payload", &[("generation", 0, 8)]);
    }

    #[test]
    fn only_plain_numbers_are_generations() {
        assert_eq!(parse_generation_name(&generation_name(12)), Some(12));
        for name in ["generation.", "generation.01", "generation.1.old", "generation.+1", "1"] {
            assert_eq!(parse_generation_name(name), None, "{name}");
        }
    }
}
