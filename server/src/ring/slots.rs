//! Numbered places for connections: a key that outlives its connection finds nothing, never
//! the next one's.
//!
//! *Invariants*: a generation is taken by at most one value of an index; a value leaves its place
//! only through [`Slots::remove`], which ends the generation.

use std::fmt;

/// Most places one ring has: what fits an operation's tag beside its kind and generation.
pub(super) const SLOTS_MAX: usize = 1 << 24;

/// Names one connection of one ring, for as long as that connection lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl Slot {
    /// The slot that has these numbers.
    pub fn new(index: u32, generation: u32) -> Self {
        Self { index, generation }
    }

    /// Small number that no other living connection of the ring has: fit for indexing a table.
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// Tells this connection from earlier and later ones of the same index.
    pub fn generation(self) -> u32 {
        self.generation
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "slot {}.{}", self.index, self.generation)
    }
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    value: Option<T>,
}

/// Table of values with generations.
#[derive(Debug)]
pub(super) struct Slots<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    /// What one value takes in the table.
    #[cfg(test)]
    pub(super) const PLACE_BYTES: usize = size_of::<Place<T>>();

    pub(super) fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Puts `value` into a free place; gives it back if all are taken.
    pub(super) fn insert(&mut self, value: T) -> Result<Slot, T> {
        if let Some(index) = self.free.pop() {
            let place = &mut self.places[index as usize];
            assert!(place.value.is_none(), "a free place holds a value");
            place.value = Some(value);
            return Ok(Slot { index, generation: place.generation });
        }
        if self.places.len() == SLOTS_MAX {
            return Err(value);
        }
        let index = self.places.len() as u32;
        self.places.push(Place { generation: 1, value: Some(value) });
        Ok(Slot { index, generation: 1 })
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&T> {
        let place = self.places.get(slot.index())?;
        if place.generation == slot.generation { place.value.as_ref() } else { None }
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        let place = self.places.get_mut(slot.index())?;
        if place.generation == slot.generation { place.value.as_mut() } else { None }
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Option<T> {
        let place = self.places.get_mut(slot.index())?;
        if place.generation != slot.generation {
            return None;
        }
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(slot.index);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_finds_its_own_value_only() {
        let mut slots = Slots::new();
        let first = slots.insert("first").unwrap();
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second").unwrap();
        assert_eq!(second.index(), first.index());
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&"second"));
        assert_eq!(slots.len(), 1);
    }

    #[test]
    fn a_generation_wraps_around() {
        let mut slots = Slots::new();
        let slot = slots.insert(1).unwrap();
        slots.places[0].generation = u32::MAX;
        let last = Slot { generation: u32::MAX, ..slot };
        assert_eq!(slots.remove(last), Some(1));
        assert_eq!(slots.insert(2).unwrap().generation(), 0);
    }
}
