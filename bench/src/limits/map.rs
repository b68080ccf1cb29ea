//! The floor of a restart: map a file, and check every page of it on all cores.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use memmap2::Mmap;
use rustix::fs::{Advice, fadvise};

use super::{Group, LimitsReport};
use crate::load::setup::noise;
use crate::recorder::histogram;

/// Bytes of a page, checked one by one.
const PAGE_BYTES: usize = 4096;
/// How often each figure is taken.
const REPEATS: usize = 7;

/// Measures with the file in the page cache, and with it dropped from there.
pub fn measure(
    directory: &Path,
    megabytes: usize,
    report: &mut LimitsReport,
) -> anyhow::Result<()> {
    let mut file = tempfile::tempfile_in(directory)
        .with_context(|| format!("cannot write in {}", directory.display()))?;
    let block = noise(1 << 20);
    let page_sum: u64 = block.chunks(PAGE_BYTES).map(|page| u64::from(crc32c::crc32c(page))).sum();
    for _ in 0..megabytes {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    let wanted = page_sum * megabytes as u64;
    for (name, cold) in [("warm", false), ("cold", true)] {
        let mut latencies = histogram();
        let measured = (0..REPEATS).try_for_each(|_| {
            if cold {
                fadvise(&file, 0, None, Advice::DontNeed)?;
            }
            let begin = Instant::now();
            let sum = map_and_sum(&file)?;
            latencies.saturating_record(begin.elapsed().as_nanos() as u64);
            ensure!(sum == wanted, "the file reads other than it was written");
            Ok(())
        });
        let name = format!("{megabytes} MB mapped, crc32c of each 4 KiB, {name}");
        report.add(Group::Map, name, measured.map(|()| latencies));
    }
    Ok(())
}

fn map_and_sum(file: &File) -> anyhow::Result<u64> {
    // SAFETY: the file is a temporary one without a name: nobody else can change or cut it.
    let map = unsafe { Mmap::map(file)? };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = map.len().div_ceil(threads).next_multiple_of(PAGE_BYTES).max(PAGE_BYTES);
    let sum_of = |part: &[u8]| -> u64 {
        part.chunks(PAGE_BYTES).map(|page| u64::from(crc32c::crc32c(page))).sum()
    };
    Ok(thread::scope(|scope| {
        let parts: Vec<_> =
            map.chunks(share).map(|part| scope.spawn(move || sum_of(part))).collect();
        parts.into_iter().map(|part| part.join().expect("summing does not panic")).sum()
    }))
}
