//! Reads snapshot files with all checks. They are read, not touched through a mapping: a bad disk
//! is then an error and not a signal.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use engine::disk::{AlignedBuf, StorageError, StorageErrorKind};
use engine::recovery::Unusable;
use engine::snapshot::format::{FEATURES_KNOWN, FORMAT_VERSION};
use engine::snapshot::{Snapshot, SnapshotError};
use engine::zxid::Zxid;
use rustix::fs::{Advice, OFlags, fadvise, fcntl_setfl};

use crate::disk::removal;

/// So many blocks are read at once from the medium: 1 MiB.
const PIECE_BLOCKS: u32 = 16;

/// Opens a snapshot to be served from: all processors read it, through the page cache, where what
/// was written last still is.
pub(super) fn open_checked(path: &Path, zxid: Zxid) -> Result<Snapshot, Unusable> {
    let file = open_whole(path)?;
    let snapshot = map(&file, path, zxid)?;
    let next = AtomicU32::new(0);
    let check_some = || -> Result<(), Unusable> {
        let mut buffer = Vec::new();
        loop {
            let block = next.fetch_add(1, Ordering::Relaxed);
            if block >= snapshot.blocks() {
                return Ok(());
            }
            let (offset, length) = snapshot.block_place(block);
            buffer.resize(length, 0);
            let read = file.read_exact_at(&mut buffer, offset);
            read.map_err(|error| refused(path, "read", &error))?;
            snapshot.check_bytes(block, &buffer).map_err(|error| unusable(path, error))?;
        }
    };
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        // As many as there can be: this one alone comes to the end as well.
        let start = |_| thread::Builder::new().spawn_scoped(scope, check_some).ok();
        let others: Vec<_> = (1..threads).filter_map(start).collect();
        let mut result = check_some();
        for other in others {
            result = result.and(other.join().expect("a panic of it ends the process"));
        }
        result
    })?;
    Ok(snapshot)
}

/// Reads a snapshot as a later start will find it, beside a server that serves: from the medium,
/// one piece after the other. `rest` is called between them with how much was read so far.
pub fn check_snapshot(
    path: &Path,
    zxid: Zxid,
    rest: impl Fn(u64) -> io::Result<()>,
) -> Result<(), Unusable> {
    let file = open_whole(path)?;
    // What was just written is in the cache; what matters is what a later start will read.
    let advised = fadvise(&file, 0, None, Advice::DontNeed);
    advised.map_err(|error| refused(path, "read", &error.into()))?;
    let snapshot = map(&file, path, zxid)?;
    let piece_bytes = snapshot.block_place(0).1 * PIECE_BLOCKS as usize;
    let mut piece = AlignedBuf::zeroed(piece_bytes);
    for first in (0..snapshot.blocks()).step_by(PIECE_BLOCKS as usize) {
        let blocks = first..snapshot.blocks().min(first + PIECE_BLOCKS);
        let (offset, block_bytes) = snapshot.block_place(first);
        let (last, last_bytes) = snapshot.block_place(blocks.end - 1);
        let end = last + last_bytes as u64;
        let bytes = &mut piece.as_mut_slice()[..(end - offset) as usize];
        read_from_medium(&file, bytes, offset).map_err(|error| refused(path, "read", &error))?;
        for (block, bytes) in blocks.zip(bytes.chunks(block_bytes)) {
            snapshot.check_bytes(block, bytes).map_err(|error| unusable(path, error))?;
        }
        rest(end).map_err(|error| refused(path, "read", &error))?;
    }
    Ok(())
}

fn open_whole(path: &Path) -> Result<File, Unusable> {
    removal::open_whole(path).map_err(|error| refused(path, "open", &error))
}

fn map(file: &File, path: &Path, zxid: Zxid) -> Result<Snapshot, Unusable> {
    let snapshot = Snapshot::open(file).map_err(|error| unusable(path, error))?;
    if snapshot.zxid() != zxid {
        return Err(format!("its zxid is {}", snapshot.zxid()).into());
    }
    Ok(snapshot)
}

/// Fills whole blocks at a block-aligned address, past the cache: to fill that and to copy out of
/// it would cost as much as writing the snapshot has. Where that cannot be, through the cache.
fn read_from_medium(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    let direct = fcntl_setfl(file, OFlags::DIRECT).map_err(io::Error::from);
    let read = direct.and_then(|()| file.read_exact_at(bytes, offset));
    // Some file systems cannot do it, nor devices with larger blocks; and what is wrong with a
    // medium is told in many ways. The cache says `EIO`.
    fcntl_setfl(file, OFlags::empty())?;
    read.or_else(|_| file.read_exact_at(bytes, offset))
}

/// The medium's errors and a file's early end are damage. Whatever else the system refuses (a
/// permission, descriptors, memory) says nothing about the snapshot.
fn refused(path: &Path, action: &'static str, error: &io::Error) -> Unusable {
    let is_damage =
        error.raw_os_error() == Some(libc::EIO) || error.kind() == io::ErrorKind::UnexpectedEof;
    if is_damage {
        return Unusable::Damaged(format!("{action}: {error}"));
    }
    Unusable::Failed(StorageError::io(path.display().to_string(), action, error))
}

fn unusable(path: &Path, error: SnapshotError) -> Unusable {
    match error {
        SnapshotError::Io(error) => refused(path, "read", &error),
        SnapshotError::Unsupported { version, .. } if version > FORMAT_VERSION => {
            Unusable::Newer(StorageErrorKind::Version { found: version, known: FORMAT_VERSION })
        }
        SnapshotError::Unsupported { features, .. } if features & !FEATURES_KNOWN != 0 => {
            Unusable::Newer(StorageErrorKind::Features(features & !FEATURES_KNOWN))
        }
        error => Unusable::Damaged(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    use engine::disk::BLOCK_BYTES;
    use engine::recovery;
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_snapshot_that_the_system_does_not_let_us_read_is_not_damaged() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(recovery::snapshot_name(Zxid(7)));
        symlink(&path, &path).unwrap();
        let checked = check_snapshot(&path, Zxid(7), |_| Ok(()));
        assert!(matches!(checked, Err(Unusable::Failed(_))), "{checked:?}");
        fs::remove_file(&path).unwrap();
        fs::write(&path, [0; 8192]).unwrap();
        let checked = check_snapshot(&path, Zxid(7), |_| Ok(()));
        assert!(matches!(checked, Err(Unusable::Damaged(_))), "{checked:?}");
    }

    #[test]
    fn a_medium_is_read_where_direct_reads_work_and_where_they_do_not() {
        let mut file = tempfile::tempfile().unwrap();
        let written: Vec<u8> = (0..3 * BLOCK_BYTES).map(|at| (at / 7) as u8).collect();
        file.write_all(&written).unwrap();
        file.sync_all().unwrap();
        let mut read = AlignedBuf::zeroed(BLOCK_BYTES);
        // Whole blocks, and what no direct read takes.
        for (offset, length) in [(2 * BLOCK_BYTES, BLOCK_BYTES), (11, 100)] {
            let bytes = &mut read.as_mut_slice()[..length];
            read_from_medium(&file, bytes, offset as u64).unwrap();
            assert_eq!(*bytes, written[offset..][..length]);
        }
        let beyond = read_from_medium(&file, read.as_mut_slice(), written.len() as u64);
        assert_eq!(beyond.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_snapshot_of_a_later_format_is_told_from_a_damaged_one() {
        let unusable = |version, features, page_bytes| {
            let error = SnapshotError::Unsupported { version, features, page_bytes };
            unusable(Path::new("snapshot.7"), error)
        };
        for (version, features, says) in [
            (2, 0, "format version 2, this ringkeeper reads up to 1: start a newer one"),
            (1, 5, "unknown feature bits 0x5: start a newer ringkeeper"),
        ] {
            let newer = unusable(version, features, 4096);
            assert!(matches!(newer, Unusable::Newer(_)), "{newer:?}");
            assert_eq!(newer.to_string(), says);
        }
        for (version, page_bytes) in [(0, 4096), (1, 8192)] {
            let damaged = unusable(version, 0, page_bytes);
            assert!(matches!(damaged, Unusable::Damaged(_)), "{damaged:?}");
        }
    }
}
