//! Zxid and epoch: the total order of transactions.

use std::fmt;

/// The reign of one leader; the high half of a [`Zxid`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

/// Transaction id: epoch in the high 32 bits, counter within the epoch in the low 32.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zxid(pub u64);

impl Epoch {
    /// Elections, one a second for half a year: no server misses more of them.
    const MISSED_MAX: u32 = 1 << 24;

    /// Whether an ensemble of a server that has promised `own` can have come to this epoch. A
    /// larger one is an error or a lie; believed, it would use up the epochs that are left.
    pub const fn may_follow(self, own: Self) -> bool {
        self.may_come(own, Self::MISSED_MAX)
    }

    /// Whether a server can have promised this epoch, seen by a leader that has promised `own`. The
    /// leader proposes a later one to servers that may have missed more elections than itself, and
    /// must be believed: so it believes less than they do.
    pub const fn may_stand_beside(self, own: Self) -> bool {
        self.may_come(own, Self::MISSED_MAX / 2)
    }

    const fn may_come(self, own: Self, missed: u32) -> bool {
        self.0 <= own.0.saturating_add(missed) && self.0 < i32::MAX.cast_unsigned()
    }
}

impl Zxid {
    /// The zxid of a tree that no transaction has touched.
    pub const ZERO: Self = Self(0);

    /// Joins an epoch and a counter.
    pub const fn new(epoch: Epoch, counter: u32) -> Self {
        Self(((epoch.0 as u64) << 32) | counter as u64)
    }

    /// The zxid whose wire form is `value`; a negative value is none.
    pub fn from_wire(value: i64) -> Option<Self> {
        u64::try_from(value).ok().map(Self)
    }

    /// The form that wires and files carry.
    pub const fn to_wire(self) -> i64 {
        self.0.cast_signed()
    }

    /// The epoch.
    pub const fn epoch(self) -> Epoch {
        Epoch((self.0 >> 32) as u32)
    }

    /// The position within the epoch.
    pub const fn counter(self) -> u32 {
        self.0 as u32
    }

    /// The next zxid of the same epoch, unless the counter is used up.
    pub const fn next(self) -> Option<Self> {
        if self.counter() == u32::MAX { None } else { Some(Self(self.0 + 1)) }
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_and_splits() {
        let zxid = Zxid::new(Epoch(3), 7);
        assert_eq!(zxid.to_string(), "0x300000007");
        assert_eq!((zxid.epoch(), zxid.counter()), (Epoch(3), 7));
        assert_eq!(Zxid::from_wire(zxid.to_wire()), Some(zxid));
        assert_eq!(Zxid::from_wire(-1), None);
    }

    #[test]
    fn what_a_leader_believes_leads_to_an_epoch_that_followers_believe() {
        let (leader, behind) = (Epoch(1_000_000), Epoch(3));
        let mut promised = Epoch(1 << 30);
        while !promised.may_stand_beside(leader) {
            promised.0 -= 1;
        }
        assert!(promised > leader);
        assert!(Epoch(promised.0 + 1).may_follow(behind));
    }

    #[test]
    fn the_counter_never_runs_into_the_epoch() {
        assert_eq!(Zxid::new(Epoch(1), u32::MAX).next(), None);
        assert_eq!(Zxid::new(Epoch(1), 1).next(), Some(Zxid::new(Epoch(1), 2)));
    }
}
