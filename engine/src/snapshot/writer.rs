//! Writes a held version as a snapshot file, a piece at a time.
//!
//! Pages get new numbers in the order in which they are written, and a page is written after those
//! that it names: its numbers are known by then, and readers can insist on that order. Leaves
//! come first, in the order of their keys, each behind the pages of its large values; then the
//! branches, level by level. So they lie together, and the root is the last page.
//!
//! What is written depends on the tree alone: births are zero, cells are packed, gaps are zero.

use crate::btree::{FilePage, Version, write_node, write_overflow};
use crate::pages::{BLOCK_PAGES, PAGE_BYTES, Page, PageNumber, block_checksum_append};
use crate::snapshot::format::{CHECKSUM_BYTES, Superblock};

/// Writes one version.
pub struct SnapshotWriter {
    version: Version,
    tasks: Vec<Task>,
    /// New numbers of pages of large values that a page yet to be written names.
    named: Vec<PageNumber>,
    /// New numbers of the level that was written last, and how many of them have been named.
    level: Vec<PageNumber>,
    level_named: usize,
    /// New numbers of the level that is being written.
    level_above: Vec<PageNumber>,
    /// Branches, by level, in the order of their keys.
    branches: Vec<Vec<PageNumber>>,
    pages: u32,
    checksums: Vec<u8>,
    checksum: u32,
    state: State,
}

/// What comes next.
#[derive(Clone, Copy)]
enum State {
    /// Leaves and large values.
    Leaves,
    /// Branches: the level, counted from the lowest, and the position in it.
    Branches(usize, usize),
    /// Checksums and superblock.
    End,
    Finished,
}

/// Something to do, the last one first.
#[derive(Clone, Copy)]
enum Task {
    /// Write what is below this page, and then this page.
    Visit(PageNumber),
    /// Write this leaf; what it names is written, and `named` has the numbers from here on.
    WriteLeaf(PageNumber, usize),
    /// Write this page of a large value, in the same way.
    WriteOverflow(PageNumber, usize),
}

impl SnapshotWriter {
    /// Begins with a version, which is held until the writer is dropped.
    pub fn new(version: Version) -> Self {
        let root = version.root_page();
        Self {
            version,
            tasks: vec![Task::Visit(root)],
            named: Vec::new(),
            level: Vec::new(),
            level_named: 0,
            level_above: Vec::new(),
            branches: Vec::new(),
            pages: 0,
            checksums: Vec::new(),
            checksum: 0,
            state: State::Leaves,
        }
    }

    /// Appends the next bytes of the file to `out`, until it has at least `bytes` or the file is
    /// complete. Says whether there is more. Only whole pages are appended.
    pub fn fill(&mut self, out: &mut Vec<u8>, bytes: usize) -> bool {
        while out.len() < bytes {
            match self.state {
                State::Leaves => self.write_leaves(out),
                State::Branches(level, index) => self.write_branch(level, index, out),
                State::End => self.write_end(out),
                State::Finished => return false,
            }
        }
        !matches!(self.state, State::Finished)
    }

    /// How many pages have been written.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// Does one task.
    fn write_leaves(&mut self, out: &mut Vec<u8>) {
        let Some(task) = self.tasks.pop() else {
            self.state = State::Branches(0, 0);
            return;
        };
        match task {
            Task::Visit(number) => {
                let (page, below) = self.version.file_page(number);
                match page {
                    FilePage::Branch(level) => {
                        let level = usize::from(level);
                        if self.branches.len() < level {
                            self.branches.resize(level, Vec::new());
                        }
                        self.branches[level - 1].push(number);
                    }
                    FilePage::Leaf => self.tasks.push(Task::WriteLeaf(number, self.named.len())),
                    FilePage::Overflow => {
                        self.tasks.push(Task::WriteOverflow(number, self.named.len()));
                    }
                }
                self.tasks.extend(below.into_iter().rev().map(Task::Visit));
            }
            Task::WriteLeaf(number, first_named) => {
                let mut page = [0; PAGE_BYTES];
                write_node(&self.version, number, &self.named[first_named..], &mut page);
                self.named.truncate(first_named);
                let written = self.push(&page, out);
                self.level.push(written);
            }
            Task::WriteOverflow(number, first_named) => {
                let mut page = [0; PAGE_BYTES];
                write_overflow(&self.version, number, &self.named[first_named..], &mut page);
                self.named.truncate(first_named);
                let written = self.push(&page, out);
                self.named.push(written);
            }
        }
    }

    fn write_branch(&mut self, level: usize, index: usize, out: &mut Vec<u8>) {
        let Some(branches) = self.branches.get(level) else {
            self.state = State::End;
            return;
        };
        let Some(&number) = branches.get(index) else {
            assert_eq!(self.level_named, self.level.len(), "every page has a parent");
            self.level = std::mem::take(&mut self.level_above);
            self.level_named = 0;
            self.state = State::Branches(level + 1, 0);
            return;
        };
        let children = self.version.file_page(number).1.len();
        let named = &self.level[self.level_named..][..children];
        let mut page = [0; PAGE_BYTES];
        write_node(&self.version, number, named, &mut page);
        self.level_named += children;
        let written = self.push(&page, out);
        self.level_above.push(written);
        self.state = State::Branches(level, index + 1);
    }

    /// Appends a page; its number in the file.
    fn push(&mut self, page: &Page, out: &mut Vec<u8>) -> PageNumber {
        out.extend_from_slice(page);
        self.checksum = block_checksum_append(self.checksum, page);
        let number = self.pages;
        self.pages = number.checked_add(1).expect("a map has fewer pages than numbers");
        if self.pages.is_multiple_of(BLOCK_PAGES) {
            self.end_block();
        }
        number
    }

    fn end_block(&mut self) {
        let checksum = std::mem::take(&mut self.checksum);
        self.checksums.extend_from_slice(&checksum.to_le_bytes());
    }

    fn write_end(&mut self, out: &mut Vec<u8>) {
        if !self.pages.is_multiple_of(BLOCK_PAGES) {
            self.end_block();
        }
        assert_eq!(
            self.checksums.len(),
            self.pages.div_ceil(BLOCK_PAGES) as usize * CHECKSUM_BYTES
        );
        let mut table = std::mem::take(&mut self.checksums);
        table.resize(table.len().next_multiple_of(PAGE_BYTES), 0);
        let superblock = Superblock {
            zxid: self.version.zxid(),
            pages: self.pages,
            root: self.pages - 1,
            table_checksum: crc32c::crc32c(&table),
        };
        out.extend_from_slice(&table);
        out.extend_from_slice(&superblock.encode());
        self.state = State::Finished;
    }
}
