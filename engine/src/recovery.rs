//! From what is on the disk to a state that can be served.
//!
//! ```text
//!   newest snapshot that passes ──> tree ──apply──> tree at the log's end
//!   log from there on ──scan───────────┘
//!                      then: what was read is made durable, what does not count is removed
//! ```
//!
//! Invariants:
//!
//!   * what was acknowledged is in the result, or there is no result
//!   * the result is durable: a crash right after leads to the same, or to more of what was being
//!     written, never to less
//!   * a state is never put together over a gap

use std::fmt;
use std::sync::Arc;

use crate::disk::{Damage, StorageError, StorageErrorKind, Volume};
use crate::tree::{Effects, Tree};
use crate::txn::codec;
use crate::txnlog::LogEnd;
use crate::txnlog::format::{FRAMES_START, FrameHeader, push_txn, segment_name};
use crate::txnlog::history::{History, Run};
use crate::txnlog::scan::{ScanReport, Sink, scan};
use crate::txnlog::segments;
use crate::zxid::Zxid;

/// Good snapshots that are kept, at least.
const SNAPSHOTS_KEPT_MIN: usize = 2;

/// How much of what is read makes one run of the history, bytes.
const RUN_BYTES: usize = 64 << 10;

/// Where trees come from.
pub trait Source {
    /// The tree that the snapshot in this file holds, checked; or why it can't be used.
    fn load(&mut self, name: &str, zxid: Zxid) -> Result<Tree, Unusable>;

    /// The tree that no transaction has touched.
    fn fresh(&mut self) -> Tree;
}

/// Why a snapshot can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Something is wrong with it: an older one may do.
    Damaged(String),
    /// The system refuses to have it read, whatever is in it.
    Failed(StorageError),
    /// A later ringkeeper wrote it, with this version or these features. Whatever else is there,
    /// this one must not go on from it.
    Newer(StorageErrorKind),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(reason) => f.write_str(reason),
            Self::Failed(error) => error.fmt(f),
            Self::Newer(kind) => kind.fmt(f),
        }
    }
}

impl From<String> for Unusable {
    fn from(reason: String) -> Self {
        Self::Damaged(reason)
    }
}

/// What recovery has made of the disk.
#[derive(Debug)]
pub struct Recovered {
    /// The state after the log's last transaction.
    pub tree: Tree,
    /// Where the log goes on.
    pub log: LogEnd,
    /// The last transactions that were read of it, as many as were to be kept.
    pub history: History,
    /// For the operator.
    pub report: Report,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The snapshot that was loaded; none if the log goes back to the beginning.
    pub snapshot: Option<Zxid>,
    /// Snapshots that were not used: file and reason.
    pub rejected: Vec<(String, String)>,
    /// Frames of the log that were read.
    pub frames: u64,
    /// Bytes of those frames.
    pub bytes: u64,
    /// Transactions that were applied.
    pub txns: u64,
    /// A frame that was being written when the server stopped, and that nobody was told of.
    pub torn: Option<(String, u64)>,
    /// The first transaction after which the tree has another digest than the record says.
    pub digest_mismatch: Option<Zxid>,
}

/// The name of a snapshot's file.
pub fn snapshot_name(zxid: Zxid) -> String {
    format!("snapshot.{:016x}", zxid.0)
}

/// The zxid of the snapshot whose file has this name.
pub fn parse_snapshot_name(name: &str) -> Option<Zxid> {
    let digits = name.strip_prefix("snapshot.")?;
    let zxid = u64::from_str_radix(digits, 16).ok().map(Zxid)?;
    (snapshot_name(zxid) == name).then_some(zxid)
}

/// The name that a snapshot has while it is written: it counts for nothing.
pub fn temporary_name(zxid: Zxid) -> String {
    format!("{}.tmp", snapshot_name(zxid))
}

/// Loads the newest good snapshot, applies the log behind it, and makes sure of both. About
/// `history_bytes` of what is read of the log are kept.
pub fn recover<S: Volume, L: Volume>(
    snapshots: &mut S,
    logs: &mut L,
    source: &mut impl Source,
    history_bytes: usize,
) -> Result<Recovered, StorageError> {
    remove_unfinished(snapshots)?;
    let (recovered, scanned) = load(snapshots, logs, source, history_bytes)?;
    segments::settle(logs, &scanned)?;
    set_aside(snapshots, &recovered.report.rejected)?;
    Ok(recovered)
}

/// The same state, from files that nobody is writing to, and without changing any of them. Nobody
/// may go on from it: it is as durable as the files are.
pub fn read<S: Volume, L: Volume>(
    snapshots: &S,
    logs: &L,
    source: &mut impl Source,
) -> Result<Recovered, StorageError> {
    load(snapshots, logs, source, 0).map(|(recovered, _)| recovered)
}

fn load<S: Volume, L: Volume>(
    snapshots: &S,
    logs: &L,
    source: &mut impl Source,
    history_bytes: usize,
) -> Result<(Recovered, ScanReport), StorageError> {
    let mut report = Report::default();
    let found = list_snapshots(snapshots)?;
    let mut loaded = None;
    for zxid in found.iter().rev() {
        let name = snapshot_name(*zxid);
        match source.load(&name, *zxid) {
            Ok(tree) => {
                loaded = Some((*zxid, tree));
                break;
            }
            Err(Unusable::Damaged(reason)) => report.rejected.push((name, reason)),
            Err(Unusable::Failed(error)) => return Err(error),
            Err(Unusable::Newer(kind)) => return Err(StorageError { file: name, offset: 0, kind }),
        }
    }
    report.snapshot = loaded.as_ref().map(|(zxid, _)| *zxid);
    let tree = loaded.map_or_else(|| source.fresh(), |(_, tree)| tree);
    let tail = Tail::new(history_bytes);
    let mut replay = Replay { tree, effects: Effects::default(), digest_mismatch: None, tail };
    let from = report.snapshot.unwrap_or(Zxid::ZERO);
    let scanned = match scan(logs, from, &mut replay) {
        Err(error) if is_gap(&error) && report.snapshot.is_none() && !found.is_empty() => {
            return Err(no_snapshot(&found));
        }
        scanned => scanned?,
    };
    check_reach(&scanned, &found)?;
    (report.frames, report.bytes, report.txns) = (scanned.frames, scanned.bytes, scanned.txns);
    report.torn.clone_from(&scanned.torn);
    report.digest_mismatch = replay.digest_mismatch;
    let history = replay.tail.finish(scanned.end.zxid);
    Ok((Recovered { tree: replay.tree, log: scanned.end.clone(), history, report }, scanned))
}

/// Snapshots that a plan is made from or for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgePlan {
    /// Snapshots that are not needed, oldest first.
    pub snapshots: Vec<Zxid>,
    /// The log is needed behind this.
    pub log_needed_after: Zxid,
}

/// What is not needed any more when these snapshots are there, checked, in ascending order.
///
/// The log goes back to the oldest snapshot that is kept, so that damage to the newest loses
/// nothing. Snapshots go first, then the log: a snapshot without its log is of no use.
pub fn purge_plan(good: &[Zxid], kept: usize) -> PurgePlan {
    assert!(good.is_sorted());
    let kept = kept.max(SNAPSHOTS_KEPT_MIN);
    let Some(oldest) = good.len().checked_sub(kept) else {
        return PurgePlan { snapshots: Vec::new(), log_needed_after: Zxid::ZERO };
    };
    PurgePlan { snapshots: good[..oldest].to_vec(), log_needed_after: good[oldest] }
}

/// The same on a full disk: the newest alone is kept, which has just been read back.
///
/// Damage to it that comes later can't be made good from this disk, and is refused at a start. It
/// is a snapshot of what is committed, so that no log from before it is ever cut back to.
pub fn newest_plan(good: &[Zxid]) -> PurgePlan {
    assert!(good.is_sorted());
    let Some((newest, older)) = good.split_last() else { return purge_plan(good, 0) };
    PurgePlan { snapshots: older.to_vec(), log_needed_after: *newest }
}

/// Cuts snapshots and log behind `zxid`, as a leader demands it with TRUNC.
///
/// Snapshots beyond it go first, durably: a state that has what the log lacks would otherwise be
/// possible. An error of kind [`Damage::Gap`] says that the log can't do it, and that nothing has
/// changed; then the server asks for a snapshot.
pub fn truncate<S: Volume, L: Volume>(
    snapshots: &mut S,
    logs: &mut L,
    zxid: Zxid,
    new_segment: impl FnOnce(crate::disk::SegmentId) -> crate::disk::SegmentPlan,
) -> Result<(), StorageError> {
    let found = list_snapshots(snapshots)?;
    let (staying, beyond) = found.split_at(found.partition_point(|found| *found <= zxid));
    // What stays must be enough to come to `zxid` with.
    let from = staying.last().copied().unwrap_or(Zxid::ZERO);
    let plan = segments::plan_cut(logs, from, zxid)?;
    for beyond in beyond.iter().rev() {
        snapshots.remove(&snapshot_name(*beyond))?;
    }
    snapshots.sync_dir()?;
    segments::cut(logs, &plan, new_segment)
}

fn remove_unfinished<S: Volume>(snapshots: &mut S) -> Result<(), StorageError> {
    for name in snapshots.list()? {
        let unfinished = name.strip_suffix(".tmp").and_then(parse_snapshot_name);
        if unfinished.is_some() {
            snapshots.remove(&name)?;
        }
    }
    Ok(())
}

/// Snapshots that can't be used get another name: the two good ones that are kept are counted by
/// name. They stay for whoever wants to know what happened to them.
fn set_aside<S: Volume>(
    snapshots: &mut S,
    rejected: &[(String, String)],
) -> Result<(), StorageError> {
    for (name, _) in rejected {
        snapshots.rename(name, &format!("{name}.damaged"))?;
    }
    if rejected.is_empty() { Ok(()) } else { snapshots.sync_dir() }
}

fn list_snapshots<S: Volume>(snapshots: &S) -> Result<Vec<Zxid>, StorageError> {
    let names = snapshots.list()?;
    let mut zxids: Vec<_> = names.iter().filter_map(|name| parse_snapshot_name(name)).collect();
    zxids.sort_unstable();
    Ok(zxids)
}

fn is_gap(error: &StorageError) -> bool {
    matches!(error.damage(), Some(Damage::Gap { .. }))
}

fn no_snapshot(found: &[Zxid]) -> StorageError {
    let newest = found.last().expect("there are snapshots");
    StorageError::damaged(snapshot_name(*newest), 0, Damage::Snapshots(found.len()))
}

/// A snapshot is only named when the log has its last transaction durably; so a log that ends
/// before is not all that there was.
fn check_reach(scanned: &ScanReport, found: &[Zxid]) -> Result<(), StorageError> {
    let Some(newest) = found.last().copied() else { return Ok(()) };
    // The state of a new leader begins with a zxid that no transaction has, and the first of all
    // with one that needs no log.
    let reached = if newest.counter() == 0 {
        scanned.begins.is_some() || newest == Zxid::ZERO
    } else {
        scanned.begins.is_some() && scanned.end.zxid >= newest
    };
    if reached {
        return Ok(());
    }
    let current = scanned.end.current.map(|(plan, offset)| (plan.segment, offset));
    let (segment, offset) = current.unwrap_or((scanned.end.next_segment, FRAMES_START));
    let damage = Damage::Short { found: scanned.end.zxid, snapshot: newest };
    Err(StorageError::damaged(segment_name(segment), offset, damage))
}

/// Applies what a scan delivers.
struct Replay {
    tree: Tree,
    effects: Effects,
    digest_mismatch: Option<Zxid>,
    tail: Tail,
}

impl Sink for Replay {
    fn frame(&mut self, header: &FrameHeader) {
        self.tail.frame = (header.base_zxid, header.first_zxid);
    }

    fn txn(&mut self, zxid: Zxid, txn: &[u8]) -> Result<(), Damage> {
        let decoded = codec::decode(txn).map_err(|_| Damage::Txn(zxid))?;
        if decoded.header.zxid != zxid {
            return Err(Damage::Txn(zxid));
        }
        self.effects.clear();
        self.tree.apply(&decoded.header, &decoded.txn, &mut self.effects);
        let differs = decoded.digest.is_some_and(|(version, digest)| {
            version == codec::DIGEST_VERSION && digest != self.tree.digest()
        });
        if differs && self.digest_mismatch.is_none() {
            self.digest_mismatch = Some(zxid);
        }
        self.tail.push(zxid, txn);
        Ok(())
    }
}

/// Keeps the last transactions that a scan delivers.
struct Tail {
    bytes_max: usize,
    history: Option<History>,
    /// The last zxid before the frame that is being read, and its first.
    frame: (Zxid, Zxid),
    /// What is to become the next run, and its first and last transaction.
    run: Vec<u8>,
    ends: Option<(Zxid, Zxid)>,
}

impl Tail {
    fn new(bytes_max: usize) -> Self {
        Self { bytes_max, history: None, frame: Default::default(), run: Vec::new(), ends: None }
    }

    fn push(&mut self, zxid: Zxid, txn: &[u8]) {
        if self.bytes_max == 0 {
            return;
        }
        let goes_on = self.ends.is_some_and(|(_, last)| last.next() == Some(zxid));
        if !goes_on || self.run.len() >= RUN_BYTES {
            self.end_run();
            let (base, first) = self.frame;
            let before = if zxid == first { base } else { Zxid(zxid.0 - 1) };
            self.history.get_or_insert_with(|| History::new(before, self.bytes_max));
        }
        push_txn(&mut self.run, txn);
        let first = self.ends.map_or(zxid, |(first, _)| first);
        self.ends = Some((first, zxid));
    }

    fn end_run(&mut self) {
        let Some((first, last)) = self.ends.take() else { return };
        let txns = Arc::new(std::mem::take(&mut self.run));
        let history = self.history.as_mut().expect("a run begins behind something");
        history.push(Run { first, last, txns }, last);
    }

    fn finish(mut self, end: Zxid) -> History {
        self.end_run();
        self.history.unwrap_or_else(|| History::new(end, self.bytes_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_snapshots_and_the_log_behind_the_older_one_are_kept() {
        let zxids = |list: &[u64]| list.iter().copied().map(Zxid).collect::<Vec<_>>();
        let check = |good: &[u64], kept, gone: &[u64], after| {
            let plan = PurgePlan { snapshots: zxids(gone), log_needed_after: Zxid(after) };
            assert_eq!(purge_plan(&zxids(good), kept), plan);
        };
        check(&[], 3, &[], 0);
        check(&[5], 1, &[], 0);
        check(&[5, 9], 0, &[], 5);
        check(&[5, 9, 12], 2, &[5], 9);
        check(&[5, 9, 12], 3, &[], 5);
        check(&[5, 9, 12], 4, &[], 0);
    }

    #[test]
    fn a_full_disk_keeps_the_newest_snapshot_and_the_log_behind_it() {
        let check = |good: &[Zxid], gone: &[Zxid], after| {
            let plan = PurgePlan { snapshots: gone.to_vec(), log_needed_after: Zxid(after) };
            assert_eq!(newest_plan(good), plan);
        };
        check(&[], &[], 0);
        check(&[Zxid(5)], &[], 5);
        check(&[Zxid(5), Zxid(9), Zxid(12)], &[Zxid(5), Zxid(9)], 12);
    }

    #[test]
    fn only_whole_names_are_snapshots() {
        let name = snapshot_name(Zxid(0x1_0000_0002));
        assert_eq!(parse_snapshot_name(&name), Some(Zxid(0x1_0000_0002)));
        for name in [temporary_name(Zxid(1)).as_str(), "snapshot.1", "snapshot."] {
            assert_eq!(parse_snapshot_name(name), None, "{name}");
        }
    }
}
