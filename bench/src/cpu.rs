//! What a thread or a process has used: CPU time, resident memory and storage, from the kernel.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use rustix::time::{ClockId, clock_gettime};

/// CPU time of the calling thread.
pub fn thread_time() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), u32::try_from(spent.tv_nsec).unwrap_or(0))
}

/// CPU time of a process with all its threads, ended ones included.
///
/// `/proc/<pid>/stat` scales its ticks to the scheduler's exact sum, so that a figure is off by
/// two ticks (20 ms) at most, however short the process runs at a time.
pub fn process_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("there is no process {pid}"))?;
    let ticks = cpu_ticks(&stat).with_context(|| format!("/proc/{pid}/stat has a new form"))?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_nanos(ticks * (1_000_000_000 / per_second.max(1))))
}

/// CPU time of several processes together; none if there are none.
pub fn processes_time(pids: &[u32]) -> anyhow::Result<Option<Duration>> {
    let times: anyhow::Result<Vec<_>> = pids.iter().map(|pid| process_time(*pid)).collect();
    Ok(times?.into_iter().reduce(|sum, time| sum + time))
}

/// User and system ticks of a `/proc/<pid>/stat` line. The name may hold blanks and brackets.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Bytes that processes have read from storage and written to it so far.
pub fn storage_bytes(pids: &[u32]) -> anyhow::Result<u64> {
    pids.iter().map(|pid| storage_bytes_of(*pid)).sum()
}

fn storage_bytes_of(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/io");
    let io = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    sum_of_io(&io).with_context(|| format!("{path} has a new form"))
}

fn sum_of_io(io: &str) -> Option<u64> {
    let field = |name| io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    let (read, written): (u64, u64) = (field("read_bytes:")?, field("write_bytes:")?);
    Some(read + written)
}

/// Resident memory of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Resident {
    /// All of it (VmRSS), bytes.
    pub all_bytes: u64,
    /// What belongs to no file (RssAnon), bytes.
    pub anonymous_bytes: u64,
    /// The most there ever was (VmHWM), bytes.
    pub peak_bytes: u64,
}

impl Resident {
    fn and(self, other: Self) -> Self {
        Self {
            all_bytes: self.all_bytes + other.all_bytes,
            anonymous_bytes: self.anonymous_bytes + other.anonymous_bytes,
            peak_bytes: self.peak_bytes + other.peak_bytes,
        }
    }
}

/// Resident memory of several processes together; none if there are none.
pub fn processes_resident(pids: &[u32]) -> anyhow::Result<Option<Resident>> {
    let each: anyhow::Result<Vec<_>> = pids.iter().map(|pid| resident(*pid)).collect();
    Ok(each?.into_iter().reduce(Resident::and))
}

/// Reads `/proc/<pid>/status`.
pub fn resident(pid: u32) -> anyhow::Result<Resident> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("there is no process {pid}"))?;
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    };
    Ok(Resident {
        all_bytes: field("VmRSS:"),
        anonymous_bytes: field("RssAnon:"),
        peak_bytes: field("VmHWM:"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_brackets_does_not_shift_the_fields() {
        let line = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 1 1";
        assert_eq!(cpu_ticks(line), Some(300));
        assert_eq!(cpu_ticks("7 (x) S 1"), None);
    }

    #[test]
    fn bytes_are_those_of_storage_alone() {
        let io =
            "rchar: 9\nwchar: 9\nread_bytes: 4096\nwrite_bytes: 512\ncancelled_write_bytes: 7\n";
        assert_eq!(sum_of_io(io), Some(4608));
        assert_eq!(sum_of_io("rchar: 9\n"), None);
    }

    #[test]
    fn this_process_has_memory_time_and_storage() {
        let pid = std::process::id();
        storage_bytes(&[pid, pid]).unwrap();
        assert!(storage_bytes(&[u32::MAX]).is_err());
        assert!(resident(pid).unwrap().all_bytes > 100_000);
        process_time(pid).unwrap();
        assert!(process_time(u32::MAX).is_err());
    }

    /// Of values: the kernel's own figures of a process, its peak too, go up and down by some pages
    /// from one reading to the next, as it adds its per-CPU counters up only now and then.
    #[test]
    fn memory_is_added_up_by_its_kind() {
        let one = Resident { all_bytes: 3, anonymous_bytes: 2, peak_bytes: 5 };
        let other = Resident { all_bytes: 70, anonymous_bytes: 10, peak_bytes: 90 };
        let sum = Resident { all_bytes: 73, anonymous_bytes: 12, peak_bytes: 95 };
        assert_eq!(one.and(other), sum);
    }

    #[test]
    fn no_processes_have_no_figure_and_one_that_is_gone_is_an_error() {
        let pid = std::process::id();
        assert!(processes_resident(&[pid; 3]).unwrap().is_some());
        assert!(processes_resident(&[]).unwrap().is_none());
        assert!(processes_resident(&[pid, u32::MAX]).is_err());
        assert!(processes_time(&[]).unwrap().is_none());
        assert!(processes_time(&[pid, u32::MAX]).is_err());
    }
}
