//! Reads the files of a directory: one that is read from front to back is read ahead by a thread,
//! so that nobody waits for the disk.
//!
//! Whole blocks are read directly. The log is written past the page cache, and read once: its
//! pages there would cost more than the reading itself, and be of no use to anybody.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};

use engine::disk::{AlignedBuf, BLOCK_BYTES};

use super::volume::open_direct;
use crate::threads;

/// How far the thread may be ahead, bytes: what is at the end of the log is there when it is asked
/// for, even if what is before has to be applied to a tree first.
const AHEAD_BYTES: usize = 32 << 20;

/// A file that is open, where its reader has come to, and the thread that is ahead of it.
#[derive(Debug)]
pub(super) struct Reading {
    name: String,
    source: Arc<Source>,
    /// Where the last read ended.
    end: u64,
    ahead: Option<Ahead>,
}

/// The same file, once for whole blocks and once for everything else.
#[derive(Debug)]
struct Source {
    direct: File,
    cached: File,
}

/// What the thread has read, in pieces from `at` on.
#[derive(Debug)]
struct Ahead {
    at: u64,
    pieces: Receiver<io::Result<Piece>>,
    /// Pieces that were taken go back.
    taken: Sender<Piece>,
}

/// A buffer, and how much of it was read.
#[derive(Debug)]
struct Piece {
    bytes: AlignedBuf,
    count: usize,
}

impl Reading {
    /// Opens a file of a directory.
    pub(super) fn open(directory: &Path, name: &str) -> io::Result<Self> {
        let path = directory.join(name);
        let cached = File::open(&path)?;
        let direct = open_direct(&path, OpenOptions::new().read(true))?;
        let source = Arc::new(Source { direct, cached });
        Ok(Self { name: name.to_owned(), source, end: 0, ahead: None })
    }

    /// Whether it is this file.
    pub(super) fn is_of(&self, name: &str) -> bool {
        self.name == name
    }

    /// Fills `into` from `offset` on: how much of it, which is all unless the file ends before.
    pub(super) fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        if self.ahead.as_ref().is_some_and(|ahead| ahead.at != offset) {
            self.ahead = None;
        }
        let count = match &mut self.ahead {
            Some(ahead) => ahead.take(into)?,
            None => 0,
        };
        let count = count + self.source.read_at(offset + count as u64, &mut into[count..])?;
        let goes_on = offset > 0 && offset == self.end;
        self.end = offset + count as u64;
        if goes_on && count == into.len() && self.ahead.is_none() {
            self.ahead = Some(Ahead::start(&self.source, self.end, into.len())?);
        }
        Ok(count)
    }
}

impl Source {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() || !are_blocks(offset, into) {
            return read_full(&self.cached, offset, into);
        }
        let mut buffer = AlignedBuf::zeroed(into.len());
        let count = self.read_piece(offset, buffer.as_mut_slice())?;
        into[..count].copy_from_slice(&buffer.as_slice()[..count]);
        Ok(count)
    }

    /// The same into an aligned buffer. Where direct I/O is refused, it is read through the cache.
    fn read_piece(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        if are_blocks(offset, into) {
            match read_full(&self.direct, offset, into) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                read => return read,
            }
        }
        read_full(&self.cached, offset, into)
    }
}

fn are_blocks(offset: u64, bytes: &[u8]) -> bool {
    is_whole(offset) && is_whole(bytes.len() as u64)
}

fn is_whole(bytes: u64) -> bool {
    bytes.is_multiple_of(BLOCK_BYTES as u64)
}

/// Reads until `into` is full or the file ends.
fn read_full(file: &File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < into.len() {
        let read = file.read_at(&mut into[count..], offset + count as u64)?;
        count += read;
        // A block that is not whole is the file's last: going on there is not for direct I/O.
        if read == 0 || !is_whole(count as u64) {
            break;
        }
    }
    Ok(count)
}

impl Ahead {
    fn start(source: &Arc<Source>, at: u64, piece_bytes: usize) -> io::Result<Self> {
        let (sender, pieces) = mpsc::channel();
        let (taken, free) = mpsc::channel();
        let source = Arc::clone(source);
        threads::start("read-ahead", move || {
            run(&source, at, piece_bytes, &free, &sender);
        })?;
        Ok(Self { at, pieces, taken })
    }

    /// Takes the next piece, as far as it fits; nothing at the end of the file.
    fn take(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Ok(piece) = self.pieces.recv() else { return Ok(0) };
        let piece = piece?;
        let count = piece.count.min(into.len());
        into[..count].copy_from_slice(&piece.bytes.as_slice()[..count]);
        // What does not fit is read once more: whoever goes on there does so before `at`.
        self.at += piece.count as u64;
        // A thread that has come to the end needs no more.
        drop(self.taken.send(piece));
        Ok(count)
    }
}

/// Reads on until the file ends, or nobody wants more.
fn run(
    source: &Source,
    mut at: u64,
    piece_bytes: usize,
    free: &Receiver<Piece>,
    pieces: &Sender<io::Result<Piece>>,
) {
    let mut new = (AHEAD_BYTES / piece_bytes).max(1);
    loop {
        let piece = match free.try_recv() {
            Err(TryRecvError::Empty) if new > 0 => {
                new -= 1;
                Ok(Piece { bytes: AlignedBuf::zeroed(piece_bytes), count: 0 })
            }
            Err(TryRecvError::Empty) => free.recv().map_err(|_| TryRecvError::Disconnected),
            received => received,
        };
        let Ok(mut piece) = piece else { return };
        let read = source.read_piece(at, piece.bytes.as_mut_slice());
        let is_last = read.as_ref().map_or(true, |count| *count < piece_bytes);
        let piece = read.map(|count| Piece { count, ..piece });
        at += piece.as_ref().map_or(0, |piece| piece.count as u64);
        if pieces.send(piece).is_err() || is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    const BLOCK: usize = BLOCK_BYTES;

    struct World {
        bytes: Vec<u8>,
        reading: Reading,
        _folder: TempDir,
    }

    impl World {
        fn new(length: usize) -> Self {
            let folder = TempDir::new().unwrap();
            let bytes: Vec<u8> = (0..length).map(|at| (at * 7 + at / 251) as u8).collect();
            fs::write(folder.path().join("file"), &bytes).unwrap();
            let reading = Reading::open(folder.path(), "file").unwrap();
            Self { bytes, reading, _folder: folder }
        }

        /// Reads, and compares what it got; whether the thread goes on from there.
        fn read(&mut self, offset: usize, length: usize) -> bool {
            let mut into = vec![0xee; length];
            let count = self.reading.read_at(offset as u64, &mut into).unwrap();
            let expected = &self.bytes[offset.min(self.bytes.len())..];
            assert_eq!(count, expected.len().min(length), "at {offset}");
            assert!(into[..count] == expected[..count], "at {offset}");
            self.reading.ahead.is_some()
        }
    }

    #[test]
    fn what_is_read_from_front_to_back_is_read_ahead() {
        for piece in [1000, 2 * BLOCK] {
            let mut world = World::new(10 * piece + piece / 2);
            assert!(!world.read(0, piece));
            assert!((1..11).all(|at| world.read(at * piece, piece)));
            assert!(!world.read(11 * piece, piece), "it was not to be foreseen");
        }
    }

    #[test]
    fn jumps_and_other_lengths_get_the_right_bytes() {
        let mut world = World::new(40 * BLOCK);
        let reads = [(0, 500), (500, 500), (1000, 200), (1200, 900), (1500, 500), (2000, 1300)];
        for (offset, length) in reads {
            world.read(offset, length);
            world.read(offset * BLOCK / 100, length / 100 * BLOCK);
        }
        // Behind a jump, nothing is read ahead until two reads follow each other.
        for unit in [400, BLOCK] {
            assert!(!world.read(30 * unit, unit));
            assert!(world.read(31 * unit, unit));
            assert!(world.read(32 * unit, unit));
            assert!(!world.read(20 * unit, unit));
        }
    }

    #[test]
    fn behind_the_end_there_is_nothing() {
        for unit in [1000, BLOCK] {
            let mut world = World::new(3 * unit);
            for offset in 0..5 {
                world.read(offset * unit, unit);
            }
        }
    }
}
