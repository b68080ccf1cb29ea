//! Which creates of a connection were acknowledged: what must be there after a crash.

use std::ops::Range;

/// The creates of one connection: numbers one after the other.
#[derive(Clone, Debug, Default)]
pub struct Created {
    /// The connection's number.
    pub connection: u64,
    first: u64,
    last: u64,
    unknown: Vec<Range<u64>>,
}

impl Created {
    /// Nothing yet; numbers begin after `first`.
    pub fn new(connection: u64, first: u64) -> Self {
        Self { connection, first, last: first, unknown: Vec::new() }
    }

    /// The numbers whose create was acknowledged.
    pub fn acknowledged(&self) -> impl Iterator<Item = u64> + '_ {
        let known = |number: &u64| !self.unknown.iter().any(|range| range.contains(number));
        (self.first + 1..=self.last).filter(known)
    }

    /// How many were acknowledged.
    pub fn acknowledged_count(&self) -> u64 {
        let unknown = self.unknown.iter().filter(|range| range.start <= self.last);
        self.last - self.first - unknown.map(|range| range.end - range.start).sum::<u64>()
    }

    /// How many were under way when the connection broke, or refused.
    pub fn unknown_count(&self) -> u64 {
        self.unknown.iter().map(|range| range.end - range.start).sum()
    }

    /// Notes the acknowledgement of a create.
    pub fn acknowledge(&mut self, number: u64) {
        self.last = number;
    }

    /// Notes a create whose fate is unknown, or that was refused.
    pub fn forget(&mut self, number: u64) {
        match self.unknown.last_mut() {
            Some(range) if range.end == number => range.end += 1,
            _ => self.unknown.push(number..number + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_acknowledged_must_be_there() {
        let mut created = Created::new(7, 0);
        (1..=3).for_each(|number| created.acknowledge(number));
        (4..=6).for_each(|number| created.forget(number));
        (7..=8).for_each(|number| created.acknowledge(number));
        created.forget(9);
        assert_eq!(created.acknowledged().collect::<Vec<_>>(), [1, 2, 3, 7, 8]);
        assert_eq!((created.acknowledged_count(), created.unknown_count()), (5, 4));
    }
}
