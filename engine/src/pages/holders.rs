//! Who holds which version, and which freed pages wait for whom.
//!
//! A page born in version `b` and replaced while version `d` was being made is seen by the
//! versions from `b` to `d - 1`. It waits in the list of the *newest* held version that sees it.
//! When that one is no longer held, the page moves to the next older held version if that one was
//! frozen at or after `b`, and is free otherwise. So a version that is held for long keeps one
//! copy of what it sees, and nothing of what came and went after it.
//!
//! A version is held as long as there is a clone of its `Arc` besides the one in here. The writer
//! finds out with `Arc::get_mut`: it succeeds only if the count is one, nobody can raise it again
//! (the last clone is ours), and it synchronizes with the drops of the others. So what a reader
//! read before its drop, it read before the page is used again. No locks, no epochs.
//!
//! Invariants:
//!
//!   * numbers ascend; the newest version stays, held by others or not
//!   * `freed[i].birth <= number` for each page in a version's list

use std::collections::VecDeque;

use super::PageNumber;
#[cfg(loom)]
use loom::sync::Arc;
#[cfg(not(loom))]
use std::sync::Arc;

/// The versions that may be held, and what waits for them.
pub(crate) struct Holders<T> {
    /// Oldest first.
    held: VecDeque<Held<T>>,
    /// How many pages wait.
    waiting: usize,
}

struct Held<T> {
    number: u64,
    hold: Arc<T>,
    /// The writer returned to an earlier version: this one is not in the head's past.
    abandoned: bool,
    /// Freed pages that no newer held version sees.
    freed: Vec<Freed>,
}

#[derive(Clone, Copy)]
struct Freed {
    birth: u64,
    page: PageNumber,
}

impl<T> Holders<T> {
    pub(crate) fn new() -> Self {
        Self { held: VecDeque::new(), waiting: 0 }
    }

    /// Adds the newest version; what it returns holds it.
    pub(crate) fn push(&mut self, number: u64, hold: T) -> Arc<T> {
        assert!(self.held.back().is_none_or(|newest| newest.number < number));
        let hold = Arc::new(hold);
        let held = Held { number, hold: Arc::clone(&hold), abandoned: false, freed: Vec::new() };
        self.held.push_back(held);
        hold
    }

    /// The writer has no more use for a page. Returns it if no version sees it.
    #[must_use]
    pub(crate) fn free(&mut self, page: PageNumber, birth: u64) -> Option<PageNumber> {
        match self.held.back_mut() {
            Some(newest) if birth <= newest.number => {
                newest.freed.push(Freed { birth, page });
                self.waiting += 1;
                None
            }
            _ => Some(page),
        }
    }

    /// Finds out who let go, and hands over the pages that nobody sees any more.
    pub(crate) fn release(&mut self, mut free: impl FnMut(PageNumber)) {
        let mut index = 0;
        while index + 1 < self.held.len() {
            if Arc::get_mut(&mut self.held[index].hold).is_none() {
                index += 1;
                continue;
            }
            let freed = self.held.remove(index).expect("the index is in range").freed;
            let mut older = index.checked_sub(1).map(|older| &mut self.held[older]);
            for page in freed {
                match &mut older {
                    Some(older) if page.birth <= older.number => older.freed.push(page),
                    _ => {
                        self.waiting -= 1;
                        free(page.page);
                    }
                }
            }
        }
    }

    /// The writer returns to version `number`: pages of it that it had freed are its own again.
    /// They wait for that version or for newer ones, for it is held.
    pub(crate) fn roll_back(&mut self, number: u64) {
        for held in self.held.iter_mut().rev().take_while(|held| held.number >= number) {
            let before = held.freed.len();
            held.freed.retain(|freed| freed.birth > number);
            held.abandoned |= held.number > number;
            self.waiting -= before - held.freed.len();
        }
    }

    /// Whether the head came from this version.
    pub(crate) fn is_past(&self, number: u64, hold: &Arc<T>) -> bool {
        let found = self.held.iter().find(|held| held.number == number);
        found.is_some_and(|held| Arc::ptr_eq(&held.hold, hold) && !held.abandoned)
    }

    /// How many pages wait for versions to be let go.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many versions are held, or may be.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }
}
