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
#[cfg(feature = "loom")]
use loom::sync::Arc;
#[cfg(not(feature = "loom"))]
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
            if !is_released(&mut self.held[index].hold) {
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

/// Whether nobody else has a clone.
///
/// A look at the count says cheaply that a version is still held. It does not order the others'
/// reads before our writes: `get_mut` does. Loom's count does both, so its model goes without, or
/// it would prove too much.
fn is_released<T>(hold: &mut Arc<T>) -> bool {
    if cfg!(not(feature = "loom")) && Arc::strong_count(hold) > 1 {
        return false;
    }
    Arc::get_mut(hold).is_some()
}

/// Every order in which threads can run and see each other's writes, of a small case:
/// `cargo test -p ringkeeper-engine --lib --features loom loom_tests`.
#[cfg(all(test, feature = "loom"))]
mod loom_tests {
    use loom::cell::UnsafeCell;
    use loom::thread;

    use super::*;

    /// Three pages of memory. Loom reports a read and a write that are not ordered.
    struct Cells([UnsafeCell<u64>; 3]);

    // SAFETY: that this is right is what the model is about.
    #[expect(unsafe_code, reason = "the memory of the model")]
    unsafe impl Sync for Cells {}
    // SAFETY: as above.
    #[expect(unsafe_code, reason = "the memory of the model")]
    unsafe impl Send for Cells {}

    #[expect(unsafe_code, reason = "the memory of the model")]
    impl Cells {
        fn read(&self, page: PageNumber) -> u64 {
            // SAFETY: loom checks it.
            self.0[page as usize].with(|cell| unsafe { *cell })
        }

        fn write(&self, page: PageNumber, value: u64) {
            // SAFETY: loom checks it.
            self.0[page as usize].with_mut(|cell| unsafe { *cell = value });
        }
    }

    /// What a version is in the model: its only page, and what that says.
    struct State {
        cells: Arc<Cells>,
        page: PageNumber,
        says: u64,
    }

    fn check(version: &State) {
        assert_eq!(version.cells.read(version.page), version.says);
    }

    /// A writer that writes its next state to a free page, and frees the page before; as long as
    /// there are pages.
    struct Writer {
        cells: Arc<Cells>,
        holders: Holders<State>,
        free: Vec<PageNumber>,
        head: Option<(PageNumber, u64)>,
    }

    impl Writer {
        fn new() -> Self {
            let cells = Arc::new(Cells([0; 3].map(UnsafeCell::new)));
            Self { cells, holders: Holders::new(), free: vec![2, 1, 0], head: None }
        }

        fn write(&mut self, number: u64) -> Option<Arc<State>> {
            let free = &mut self.free;
            self.holders.release(|page| free.push(page));
            let page = free.pop()?;
            self.cells.write(page, number);
            if let Some((old, birth)) = self.head.replace((page, number)) {
                free.extend(self.holders.free(old, birth));
            }
            let cells = Arc::clone(&self.cells);
            Some(self.holders.push(number, State { cells, page, says: number }))
        }
    }

    #[test]
    fn a_page_is_not_written_while_a_reader_may_read_it() {
        loom::model(|| {
            let mut writer = Writer::new();
            let first = writer.write(1).expect("three pages are free");
            let reader = thread::spawn(move || {
                let clone = Arc::clone(&first);
                check(&first);
                drop(first);
                check(&clone);
            });
            let second = writer.write(2).expect("two pages are free");
            for number in 3..6 {
                if let Some(version) = writer.write(number) {
                    check(&version);
                }
            }
            check(&second);
            reader.join().expect("the reader found what it should");
        });
    }

    #[test]
    fn two_readers_let_go_in_any_order() {
        loom::model(|| {
            let mut writer = Writer::new();
            let first = writer.write(1).expect("three pages are free");
            let other = Arc::clone(&first);
            let readers = [first, other].map(|version| thread::spawn(move || check(&version)));
            for number in 2..5 {
                drop(writer.write(number));
            }
            for reader in readers {
                reader.join().expect("the reader found what it should");
            }
            assert!(writer.write(5).is_some(), "all pages but the newest version's are free");
        });
    }
}
