//! Where keys are that were looked up to be written: the write need not look again.
//!
//! A transaction reads what it changes: it seeks a key, and puts a new value at it, perhaps with
//! another key sought in between (a znode and its parent). Going down the tree again costs as much
//! as everything else that such a write does.
//!
//! Invariant: pages of a kept way are owned by the version in the making, and the entries of its
//! leaf are where they were. So whatever moves entries, or ends the version, forgets all of them;
//! only a value that is replaced in its page leaves them be.

use super::write::Step;

/// How many keys are remembered: that of a znode, and that of its parent.
const KEPT: usize = 2;

/// What is remembered. Memory is kept from use to use.
#[derive(Default)]
pub(super) struct Fingers {
    fingers: [Finger; KEPT],
    /// Which is overwritten next.
    next: usize,
}

struct Finger {
    is_valid: bool,
    key: Vec<u8>,
    way: Vec<Step>,
    found: Place,
}

/// Where a key is in its leaf, or would be.
type Place = Result<usize, usize>;

impl Default for Finger {
    fn default() -> Self {
        Self { is_valid: false, key: Vec::new(), way: Vec::new(), found: Err(0) }
    }
}

impl Fingers {
    /// Remembers where a key was found.
    pub(super) fn keep(&mut self, key: &[u8], way: &[Step], found: Place) {
        let finger = &mut self.fingers[self.next];
        self.next = (self.next + 1) % KEPT;
        finger.is_valid = true;
        finger.key.clear();
        finger.key.extend_from_slice(key);
        finger.way.clear();
        finger.way.extend_from_slice(way);
        finger.found = found;
    }

    /// Gives out where a key is, and the way there, if it is remembered.
    pub(super) fn recall(&self, key: &[u8], way: &mut Vec<Step>) -> Option<Place> {
        let finger = self.fingers.iter().find(|finger| finger.is_valid && finger.key == key)?;
        way.clear();
        way.extend_from_slice(&finger.way);
        Some(finger.found)
    }

    /// Forgets everything: entries move.
    pub(super) fn forget(&mut self) {
        for finger in &mut self.fingers {
            finger.is_valid = false;
        }
    }
}
