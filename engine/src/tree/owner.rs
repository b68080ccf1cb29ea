//! Owner: what `ephemeralOwner` of a stat means. It is a session, or an encoding of a kind.

use crate::ids::SessionId;
use crate::limits::TTL_MS_MAX;

/// Which encodings are in use: ZooKeeper's `extendedTypesEnabled` and `emulate353TTLNodes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum OwnerMode {
    /// Sessions and containers only.
    #[default]
    Plain = 0,
    /// Owners with 0xff on top are TTL znodes.
    Extended = 1,
    /// And so are all other negative ones, as ZooKeeper 3.5.3 wrote them.
    Emulate353 = 2,
}

/// Who a znode belongs to, and with what it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nobody: it stays until it is deleted.
    Persistent,
    /// A session: it goes with it.
    Ephemeral(SessionId),
    /// It goes some time after its last child.
    Container,
    /// It goes when it had no child and no change for so many milliseconds.
    Ttl(i64),
}

/// [`Owner`] without its payload, as values of znodes hold it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum OwnerKind {
    #[default]
    Persistent = 0,
    Ephemeral = 1,
    Container = 2,
    Ttl = 3,
}

/// The owner of containers.
pub const CONTAINER_OWNER: i64 = i64::MIN;

const EXTENDED_MASK: i64 = 0xff00_0000_0000_0000_u64.cast_signed();
const RESERVED_MASK: i64 = 0x00ff_ff00_0000_0000;

/// The owner of a TTL znode, unless the TTL is out of range.
pub fn ttl_owner(ttl_ms: i64) -> Option<i64> {
    // Compat: EphemeralType.TTL.toEphemeralOwner, which does not ask for the mode.
    (1..=TTL_MS_MAX).contains(&ttl_ms).then_some(EXTENDED_MASK | ttl_ms)
}

impl OwnerKind {
    /// What `owner` means in `mode`.
    pub(super) fn of(owner: i64, mode: OwnerMode) -> Self {
        // Compat: EphemeralType.get. Where it throws, at 0xff on top with reserved bits set, this
        // is an ephemeral.
        let extended =
            mode != OwnerMode::Plain && owner & (EXTENDED_MASK | RESERVED_MASK) == EXTENDED_MASK;
        let emulated = mode == OwnerMode::Emulate353 && owner < 0;
        match owner {
            0 => Self::Persistent,
            CONTAINER_OWNER => Self::Container,
            _ if extended || emulated => Self::Ttl,
            _ => Self::Ephemeral,
        }
    }

    /// The inverse of `as u8`, on the low two bits.
    pub(super) fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Persistent,
            1 => Self::Ephemeral,
            2 => Self::Container,
            _ => Self::Ttl,
        }
    }

    /// With the payload that `owner` holds.
    pub(super) fn with(self, owner: i64) -> Owner {
        match self {
            Self::Persistent => Owner::Persistent,
            Self::Ephemeral => Owner::Ephemeral(SessionId(owner)),
            Self::Container => Owner::Container,
            // Compat: EphemeralType.TTL.getValue, for owners of both encodings.
            Self::Ttl => Owner::Ttl(owner & TTL_MS_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(owner: i64, mode: OwnerMode, expect: Owner) {
        assert_eq!(OwnerKind::of(owner, mode).with(owner), expect);
    }

    #[test]
    fn owners_mean_what_the_mode_says() {
        use OwnerMode::{Emulate353, Extended, Plain};
        let ttl = ttl_owner(5).unwrap();
        let old = i64::MIN | 5;
        for mode in [Plain, Extended, Emulate353] {
            check(0, mode, Owner::Persistent);
            check(7, mode, Owner::Ephemeral(SessionId(7)));
            check(CONTAINER_OWNER, mode, Owner::Container);
        }
        check(ttl, Plain, Owner::Ephemeral(SessionId(ttl)));
        check(ttl, Extended, Owner::Ttl(5));
        check(ttl, Emulate353, Owner::Ttl(5));
        check(old, Extended, Owner::Ephemeral(SessionId(old)));
        check(old, Emulate353, Owner::Ttl(5));
    }

    #[test]
    fn a_ttl_has_40_bits_and_is_not_0() {
        assert_eq!(ttl_owner(0), None);
        assert_eq!(ttl_owner(-1), None);
        assert_eq!(ttl_owner(TTL_MS_MAX + 1), None);
        assert_eq!(ttl_owner(TTL_MS_MAX), Some(0xff00_00ff_ffff_ffff_u64.cast_signed()));
    }
}
