//! The floor of a write: one block that is on the disk when the call returns.

use std::fs::{File, OpenOptions};
use std::io::{IoSlice, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use hdrhistogram::Histogram;
use io_uring::{IoUring, opcode, types};
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::{ReadWriteFlags, pwritev2};

use super::{Group, LimitsReport, repeat};
use crate::recorder::histogram;
use crate::server::scratch_in;

/// Bytes of a block.
const BLOCK_BYTES: usize = 4096;
/// Blocks of a group commit.
const GROUP_BLOCKS: usize = 64;
/// Bytes of the file; writing starts over at its end.
const FILE_BYTES: u64 = 16 << 20;
/// The ways take turns this often, so that a busy moment of the machine is shared by all.
const ROUNDS: u32 = 5;

/// What the blocks are before they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prepared {
    /// Not there: every write makes the file longer.
    Nothing,
    /// Reserved by fallocate.
    Reserved,
    /// Filled with zeros and synced.
    Zeroed,
}

/// How a block is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// write, then fdatasync.
    Sync,
    /// One write with RWF_DSYNC.
    Dsync,
    /// Write and linked fdatasync through io_uring.
    RingSync,
    /// One write with RWF_DSYNC through io_uring.
    RingDsync,
}

/// Measures every way, each with so many files at once.
pub fn measure(
    directory: &Path,
    appenders: u16,
    time: Duration,
    report: &mut LimitsReport,
) -> anyhow::Result<()> {
    let scratch = scratch_in(directory)?;
    let block = BLOCK_BYTES;
    let cases = [
        ("4 KiB write + fdatasync, growing", Prepared::Nothing, Way::Sync, false, block),
        ("4 KiB write + fdatasync, zeroed", Prepared::Zeroed, Way::Sync, false, block),
        ("4 KiB RWF_DSYNC, zeroed", Prepared::Zeroed, Way::Dsync, false, block),
        ("4 KiB O_DIRECT + fdatasync, zeroed", Prepared::Zeroed, Way::Sync, true, block),
        ("4 KiB O_DIRECT RWF_DSYNC, zeroed", Prepared::Zeroed, Way::Dsync, true, block),
        ("4 KiB O_DIRECT RWF_DSYNC, reserved", Prepared::Reserved, Way::Dsync, true, block),
        ("4 KiB O_DIRECT io_uring write+fdatasync", Prepared::Zeroed, Way::RingSync, true, block),
        ("4 KiB O_DIRECT io_uring RWF_DSYNC", Prepared::Zeroed, Way::RingDsync, true, block),
        (
            "256 KiB O_DIRECT RWF_DSYNC, zeroed",
            Prepared::Zeroed,
            Way::Dsync,
            true,
            GROUP_BLOCKS * BLOCK_BYTES,
        ),
    ];
    let mut files = Vec::new();
    for (index, (.., prepared, _, direct, _)) in cases.iter().enumerate() {
        let path = |nth| scratch.path().join(format!("append-{index}-{nth}"));
        let of_case = (0..appenders).map(|nth| prepare(&path(nth), *prepared, *direct));
        files.push(of_case.collect::<anyhow::Result<Vec<_>>>());
    }
    let mut sums: Vec<_> = cases.iter().map(|_| Ok(histogram())).collect();
    for _ in 0..ROUNDS {
        for ((case, files), sum) in cases.iter().zip(&files).zip(&mut sums) {
            let (_, prepared, way, _, bytes) = *case;
            let (Ok(files), Ok(latencies)) = (files, &mut *sum) else { continue };
            match measure_together(files, way, bytes, prepared, time / ROUNDS) {
                Ok(measured) => latencies.add(measured)?,
                Err(error) => *sum = Err(error),
            }
        }
    }
    for ((case, files), sum) in cases.iter().zip(files).zip(sums) {
        report.add(Group::Append, case.0, files.and(sum));
    }
    Ok(())
}

fn prepare(path: &Path, prepared: Prepared, direct: bool) -> anyhow::Result<File> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    match prepared {
        Prepared::Nothing => {}
        Prepared::Reserved => fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES)?,
        Prepared::Zeroed => {
            let zeros = vec![0; 1 << 20];
            for _ in 0..FILE_BYTES >> 20 {
                file.write_all(&zeros)?;
            }
        }
    }
    file.sync_all()?;
    let flags = if direct { OFlags::DIRECT } else { OFlags::empty() };
    Ok(OpenOptions::new().write(true).custom_flags(flags.bits().cast_signed()).open(path)?)
}

/// Appends to all files at once; the latencies of all of them.
fn measure_together(
    files: &[File],
    way: Way,
    bytes: usize,
    prepared: Prepared,
    time: Duration,
) -> anyhow::Result<Histogram<u64>> {
    thread::scope(|scope| {
        let measure = |file| scope.spawn(move || measure_one(file, way, bytes, prepared, time));
        let threads: Vec<_> = files.iter().map(measure).collect();
        let mut all = histogram();
        for thread in threads {
            all.add(thread.join().expect("a panic ends the measurement")?)?;
        }
        Ok(all)
    })
}

fn measure_one(
    file: &File,
    way: Way,
    bytes: usize,
    prepared: Prepared,
    time: Duration,
) -> anyhow::Result<Histogram<u64>> {
    let mut memory = vec![0xa5_u8; bytes + BLOCK_BYTES];
    let start = memory.as_ptr().align_offset(BLOCK_BYTES);
    let mut ring = IoUring::new(8)?;
    let mut offset = 0;
    repeat(time, || {
        let block = &mut memory[start..start + bytes];
        block[0] = block[0].wrapping_add(1);
        match way {
            Way::Sync => {
                file.write_all_at(block, offset)?;
                rustix::fs::fdatasync(file)?;
            }
            Way::Dsync => {
                let flags = ReadWriteFlags::DSYNC;
                let written = pwritev2(file, &[IoSlice::new(block)], offset, flags)?;
                ensure!(written == bytes, "a short write");
            }
            Way::RingSync | Way::RingDsync => {
                write_by_ring(&mut ring, file, block, offset, way == Way::RingDsync)?;
            }
        }
        offset += bytes as u64;
        if prepared != Prepared::Nothing && offset + bytes as u64 > FILE_BYTES {
            offset = 0;
        }
        Ok(())
    })
}

fn write_by_ring(
    ring: &mut IoUring,
    file: &File,
    block: &[u8],
    offset: u64,
    dsync: bool,
) -> anyhow::Result<()> {
    let descriptor = types::Fd(file.as_raw_fd());
    let count = if dsync { 1 } else { 2 };
    let write = opcode::Write::new(descriptor, block.as_ptr(), block.len() as u32).offset(offset);
    let write = if dsync {
        write.rw_flags(ReadWriteFlags::DSYNC.bits().cast_signed()).build()
    } else {
        write.build().flags(io_uring::squeue::Flags::IO_LINK)
    };
    let sync = opcode::Fsync::new(descriptor).flags(types::FsyncFlags::DATASYNC).build();
    // SAFETY: `block` and `file` outlive the calls: all completions are awaited below, before
    // anything returns, unless waiting itself fails, which ends the measurement.
    unsafe {
        ring.submission().push(&write)?;
        if !dsync {
            ring.submission().push(&sync)?;
        }
    }
    ring.submit_and_wait(count)?;
    let mut seen = 0;
    for completion in ring.completion() {
        ensure!(completion.result() >= 0, "error {}", -completion.result());
        seen += 1;
    }
    ensure!(seen == count, "{seen} completions of {count}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_are_appended_to() {
        let scratch = scratch_in(&std::env::temp_dir()).unwrap();
        let paths = ["a", "b", "c"].map(|name| scratch.path().join(name));
        let files = paths.each_ref().map(|path| prepare(path, Prepared::Nothing, false).unwrap());
        let time = Duration::from_millis(20);
        measure_together(&files, Way::Sync, BLOCK_BYTES, Prepared::Nothing, time).unwrap();
        for path in paths {
            assert!(path.metadata().unwrap().len() >= BLOCK_BYTES as u64, "{}", path.display());
        }
    }
}
