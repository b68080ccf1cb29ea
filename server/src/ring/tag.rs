//! What an event of the kernel belongs to, packed into the 64 bits it lets us keep with an
//! operation (io_uring) or a descriptor (epoll): kind (8) | index (24) | generation (32).

use super::slots::{SLOTS_MAX, Slot};

const _: () = assert!(SLOTS_MAX == 1 << 24, "an index has 24 bits in a tag");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// The waker's eventfd was signalled.
    Wake = 1,
    /// A listener has connections; the slot is the listener's.
    Accept,
    /// epoll only: a connection can be read or written.
    Ready,
    /// io_uring only, like those below: a multishot receive.
    Receive,
    Send,
    /// A durable write to a file.
    Write,
    /// A request to cancel others. It refers to no memory and only failures are reported, which
    /// mean that there was nothing to cancel any more.
    Cancel,
    /// A descriptor that somebody else reads has something to read.
    Watch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) kind: Kind,
    pub(super) slot: Slot,
}

impl Tag {
    pub(super) fn new(kind: Kind, slot: Slot) -> Self {
        Self { kind, slot }
    }

    /// A tag of something there is one of.
    pub(super) fn single(kind: Kind) -> Self {
        Self { kind, slot: Slot { index: 0, generation: 0 } }
    }

    pub(super) fn pack(self) -> u64 {
        let index = u64::from(self.slot.index) << 32;
        (self.kind as u64) << 56 | index | u64::from(self.slot.generation)
    }

    pub(super) fn unpack(bits: u64) -> Self {
        let kind = match (bits >> 56) as u8 {
            1 => Kind::Wake,
            2 => Kind::Accept,
            3 => Kind::Ready,
            4 => Kind::Receive,
            5 => Kind::Send,
            6 => Kind::Write,
            7 => Kind::Cancel,
            8 => Kind::Watch,
            other => unreachable!("the kernel returns tags as they were given, not {other}"),
        };
        let index = (bits >> 32) as u32 & (SLOTS_MAX as u32 - 1);
        Self { kind, slot: Slot { index, generation: bits as u32 } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_survive_the_way_through_the_kernel() {
        let kinds = [
            Kind::Wake,
            Kind::Accept,
            Kind::Ready,
            Kind::Receive,
            Kind::Send,
            Kind::Write,
            Kind::Cancel,
            Kind::Watch,
        ];
        for kind in kinds {
            for (index, generation) in [(0, 0), (SLOTS_MAX as u32 - 1, u32::MAX), (5, 1)] {
                let tag = Tag::new(kind, Slot { index, generation });
                assert_eq!(Tag::unpack(tag.pack()), tag);
            }
        }
    }
}
