//! Crash images: whatever point a server stops at, everything acknowledged comes back.
//!
//! A writer appends groups through the log's machine to a simulated disk whose writes end in any
//! order. At some point everything stops. The image that is left is recovered (which may be
//! stopped as well), compared with what was acknowledged, and written on, round after round.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use engine::disk::{BLOCK_BYTES, SegmentId, StorageError, Volume};
use engine::epochs::{EPOCHS_NAME, Epochs, EpochsFile};
use engine::manifest::{MANIFEST_NAME, Manifest};
use engine::recovery::{self, Recovered, Source, Unusable, snapshot_name, temporary_name};
use engine::tree::{Effects, OwnerMode, Tree};
use engine::txn::codec;
use engine::txnlog::plan_segment;
use engine::txnlog::scan::ScanReport;
use engine::txnlog::segments;
use engine::zxid::{Epoch, Zxid};
use tests::sim::disk::SimDisk;
use tests::sim::log::{LogModel, LogWriter, Planted, SEGMENT_BYTES, config, recover_log};
use tests::sim::random::Random;
use tests::sim::shared::SharedDisk;

/// How many runs a test makes.
const SEEDS: u64 = 100;
/// The same for runs that keep a whole tree.
const STATE_SEEDS: u64 = 30;

/// How many points a workload has of which each is stopped at, and how many images of each.
const POINTS: u64 = 300;
const IMAGES: u64 = 3;

/// Runs `run` with many seeds, or from that of the environment on; names the one that fails.
fn for_seeds(count: u64, run: impl Fn(u64)) {
    let first = std::env::var("SEED").map_or(0, |seed| seed.parse().unwrap());
    for seed in first..first + count {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!("replay: SEED={seed} cargo test -p ringkeeper-tests --test crash");
            resume_unwind(panic);
        }
    }
}

/// Appends and lets the disk work until the point at which it crashes.
fn write_until_crash(
    writer: &mut LogWriter,
    disk: &mut SimDisk,
    model: &mut LogModel,
    random: &mut Random,
) {
    loop {
        if random.percent(30) && writer.log.has_room(0) {
            writer.append(model, random);
        }
        if !writer.advance(disk, model, random) {
            return;
        }
    }
}

/// Runs `attempt` with crashes in it, until one is not stopped.
fn insist<T>(
    disk: &mut SimDisk,
    random: &mut Random,
    mut attempt: impl FnMut(&mut SimDisk) -> Result<T, StorageError>,
) -> T {
    for crash in (0..3).map(|_| true).chain([false]) {
        let crash = crash && random.percent(50);
        disk.crash_at(crash.then(|| disk.points() + random.below(12) as u64));
        match attempt(disk) {
            Ok(result) if !disk.crashed() => {
                disk.crash_at(None);
                return result;
            }
            Ok(_) => {}
            Err(error) => assert!(disk.crashed(), "{error}"),
        }
        *disk = if random.percent(20) { disk.kill() } else { disk.crash(random) };
    }
    unreachable!("the last attempt is not stopped")
}

/// Writes and crashes, round after round.
fn run_log(seed: u64, planted: Option<Planted>) {
    let mut random = Random::new(seed);
    let (mut disk, mut model) = (SimDisk::default(), LogModel::default());
    for _ in 0..8 {
        let mut choices = random.split();
        let report: ScanReport =
            insist(&mut disk, &mut choices, |disk| recover_log(disk, &mut model, planted));
        let mut writer = LogWriter::open(config(&mut random), report.end, planted);
        disk.crash_at(Some(disk.points() + random.below(120) as u64));
        write_until_crash(&mut writer, &mut disk, &mut model, &mut random);
        disk = if random.percent(20) { disk.kill() } else { disk.crash(&mut random) };
    }
}

#[test]
fn everything_acknowledged_survives_a_crash_at_any_point() {
    for_seeds(SEEDS, |seed| run_log(seed, None));
}

/// Whether one of the seeds finds the mistake.
fn is_found(run: impl Fn(u64)) -> bool {
    (0..SEEDS).any(|seed| catch_unwind(AssertUnwindSafe(|| run(seed))).is_err())
}

#[test]
fn an_acknowledgement_before_the_write_is_durable_is_found() {
    assert!(is_found(|seed| run_log(seed, Some(Planted::AckBeforeDurable))));
}

#[test]
fn a_recovery_that_does_not_sync_what_it_read_is_found() {
    assert!(is_found(|seed| run_log(seed, Some(Planted::TailNotSynced))));
}

/// A server's state in brief: snapshots hold no more than their zxid, and the model has the rest.
struct Snapshots<'a> {
    disk: SharedDisk,
    model: &'a LogModel,
}

impl Source for Snapshots<'_> {
    fn load(&mut self, name: &str, zxid: Zxid) -> Result<Tree, Unusable> {
        let mut bytes = [0; 12];
        self.disk.read_at(name, 0, &mut bytes).unwrap();
        if bytes != snapshot_bytes(zxid) {
            return Err(Unusable::Damaged("it is not whole".to_owned()));
        }
        Ok(tree_at(self.model, zxid))
    }

    fn fresh(&mut self) -> Tree {
        Tree::new(OwnerMode::Plain)
    }
}

fn snapshot_bytes(zxid: Zxid) -> [u8; 12] {
    let mut bytes = [7; 12];
    bytes[..8].copy_from_slice(&zxid.0.to_le_bytes());
    bytes
}

/// The tree after the model's transactions up to `zxid`.
fn tree_at(model: &LogModel, zxid: Zxid) -> Tree {
    let mut tree = Tree::new(OwnerMode::Plain);
    for (_, txn) in &model.txns[..model.count(zxid)] {
        let txn = codec::decode(txn).unwrap();
        tree.apply(&txn.header, &txn.txn, &mut Effects::new());
    }
    tree
}

/// Recovers a state and compares it with the model's at the same zxid.
fn recover_state(disk: &mut SimDisk, model: &mut LogModel) -> Result<Recovered, StorageError> {
    let shared = SharedDisk::new(std::mem::take(disk));
    let mut source = Snapshots { disk: shared.clone(), model };
    let recovered = recovery::recover(&mut shared.clone(), &mut shared.clone(), &mut source, 0);
    drop(source);
    *disk = shared.into_disk();
    let recovered = recovered?;
    let zxid = recovered.log.zxid;
    assert!(zxid >= model.acked, "{zxid} of {} acknowledged", model.acked);
    assert!(model.count(zxid) == 0 || model.txns[model.count(zxid) - 1].0 == zxid);
    model.txns.truncate(model.count(zxid));
    model.acked = zxid;
    assert_eq!(recovered.tree.digest(), tree_at(model, zxid).digest());
    Ok(recovered)
}

/// Writes a snapshot of what is durable, and gives up what it makes unnecessary: all before it if
/// the disk `is_full`.
fn take_snapshot(
    disk: &mut SimDisk,
    writer: &mut LogWriter,
    good: &mut Vec<Zxid>,
    is_full: bool,
    too_early: bool,
) -> Result<(), StorageError> {
    let zxid = writer.log.durable();
    if good.last().is_some_and(|last| *last >= zxid) || zxid == Zxid::ZERO {
        return Ok(());
    }
    good.push(zxid);
    if too_early {
        give_up(disk, writer, good, is_full)?;
    }
    let temporary = temporary_name(zxid);
    disk.create_zeroed(&temporary, 12)?;
    disk.write_at(&temporary, 0, &snapshot_bytes(zxid))?;
    disk.sync_file(&temporary)?;
    disk.rename(&temporary, &snapshot_name(zxid))?;
    disk.sync_dir()?;
    if too_early { Ok(()) } else { give_up(disk, writer, good, is_full) }
}

/// Removes snapshots and log that are not kept.
fn give_up(
    disk: &mut SimDisk,
    writer: &mut LogWriter,
    good: &mut Vec<Zxid>,
    is_full: bool,
) -> Result<(), StorageError> {
    let plan = if is_full { recovery::newest_plan(good) } else { recovery::purge_plan(good, 2) };
    for zxid in &plan.snapshots {
        disk.remove(&snapshot_name(*zxid))?;
        good.retain(|good| good != zxid);
    }
    disk.sync_dir()?;
    writer.log.purge(plan.log_needed_after, &mut writer.ops);
    Ok(())
}

/// Appends, and takes snapshots, until the point at which the disk crashes.
fn use_until_crash(
    mut writer: LogWriter,
    disk: &mut SimDisk,
    model: &mut LogModel,
    random: &mut Random,
    too_early: bool,
) {
    let mut good: Vec<_> = recovery_snapshots(disk);
    loop {
        if random.percent(30) && writer.log.has_room(0) {
            writer.append(model, random);
        }
        if random.percent(2) {
            let is_full = too_early || random.percent(30);
            if take_snapshot(disk, &mut writer, &mut good, is_full, too_early).is_err() {
                return;
            }
        }
        if !writer.advance(disk, model, random) {
            return;
        }
    }
}

/// Snapshots, purges, cuts and crashes, round after round.
fn run_state(seed: u64, too_early: bool) {
    let mut random = Random::new(seed);
    let (mut disk, mut model) = (SimDisk::default(), LogModel::default());
    for _ in 0..8 {
        let mut choices = random.split();
        if random.percent(30) && model.txns.len() > 3 {
            cut(&mut disk, &mut model, &mut choices);
        }
        let recovered = insist(&mut disk, &mut choices, |disk| recover_state(disk, &mut model));
        let writer = LogWriter::open(config(&mut random), recovered.log, None);
        disk.crash_at(Some(disk.points() + random.below(250) as u64));
        use_until_crash(writer, &mut disk, &mut model, &mut random, too_early);
        disk = if random.percent(20) { disk.kill() } else { disk.crash(&mut random) };
    }
}

fn recovery_snapshots(disk: &SimDisk) -> Vec<Zxid> {
    let names = disk.list().unwrap();
    names.iter().filter_map(|name| recovery::parse_snapshot_name(name)).collect()
}

/// Cuts the log somewhere behind the oldest snapshot, through crashes: each finds the state of
/// before or that of behind it.
fn cut(disk: &mut SimDisk, model: &mut LogModel, random: &mut Random) {
    let recovered = insist(disk, random, |disk| recover_state(disk, model));
    let end = recovered.log.zxid;
    let begins = recovered.log.segments.first().map_or(Zxid::ZERO, |(_, base)| *base);
    let lowest = recovery_snapshots(disk).first().copied().unwrap_or(Zxid::ZERO).max(begins);
    let candidates = &model.txns[model.count(lowest)..];
    if candidates.is_empty() {
        return;
    }
    let target = candidates[random.below(candidates.len())].0;
    let seed = random.any();
    insist(disk, random, |disk| {
        // Until it is done, what is behind may come back, all of it, or not.
        model.acked = target;
        let found = recover_state(disk, model)?.log.zxid;
        assert!(found == target || found == end, "{found} is neither {target} nor {end}");
        let shared = SharedDisk::new(std::mem::take(disk));
        let plan = |segment| plan_segment(seed, segment, SEGMENT_BYTES);
        let done = recovery::truncate(&mut shared.clone(), &mut shared.clone(), target, plan);
        *disk = shared.into_disk();
        done
    });
    // From here on, nothing of it may.
    model.txns.truncate(model.count(target));
    model.acked = target;
}

#[test]
fn a_state_survives_snapshots_purges_cuts_and_crashes() {
    for_seeds(STATE_SEEDS, |seed| run_state(seed, false));
}

/// One workload, stopped at each of its points in turn; of what each leaves, some images; and the
/// recovery of each image, stopped at each of its points in turn.
fn stop_everywhere(workload: u64) {
    for point in 0..POINTS {
        let mut random = Random::new(workload);
        let (mut disk, mut model) = (SimDisk::default(), LogModel::default());
        let recovered = recover_state(&mut disk, &mut model).unwrap();
        let writer = LogWriter::open(config(&mut random), recovered.log, None);
        disk.crash_at(Some(point));
        use_until_crash(writer, &mut disk, &mut model, &mut random, false);
        for image in 0..IMAGES {
            let mut choices = Random::new(image);
            let image = disk.crash(&mut choices);
            for stop in 0.. {
                let (mut disk, mut model) = (image.clone(), model.clone());
                disk.crash_at(Some(disk.points() + stop));
                let recovered = recover_state(&mut disk, &mut model);
                if !disk.crashed() {
                    recovered.unwrap();
                    break;
                }
                let mut disk = disk.crash(&mut choices);
                recover_state(&mut disk, &mut model).unwrap();
            }
        }
        let is_used = point + 1 < POINTS || !recovery_snapshots(&disk).is_empty();
        assert!(is_used, "it takes no snapshot");
    }
}

#[test]
fn a_workload_stops_at_each_of_its_points_and_each_recovery_at_each_of_its_own() {
    for_seeds(2, stop_everywhere);
}

#[test]
fn giving_up_snapshots_before_the_new_one_is_durable_is_found() {
    assert!(is_found(|seed| run_state(seed, true)));
}

/// A disk on which either slot of a file has gone bad. What has happened before must not matter
/// once the file is settled.
fn lose_a_slot(disk: &SimDisk, name: &str, random: &mut Random) -> SimDisk {
    let mut damaged = disk.clone();
    let slot = random.below(2);
    damaged.damage(name, |bytes| bytes[slot * BLOCK_BYTES + 8] ^= 1);
    damaged
}

#[test]
fn a_switch_of_generations_happens_or_not() {
    for_seeds(SEEDS, |seed| {
        let mut random = Random::new(seed);
        let mut disk = SimDisk::default();
        insist(&mut disk, &mut random, |disk| match Manifest::open(disk)? {
            Some(manifest) => Ok(manifest),
            None => Manifest::create(disk),
        });
        for generation in 2..6 {
            disk.crash_at(Some(disk.points() + random.below(6) as u64));
            let switched = Manifest::open(&mut disk)
                .and_then(|manifest| manifest.unwrap().switch(&mut disk, generation))
                .is_ok();
            disk = disk.crash(&mut random);
            let mut manifest = Manifest::open(&mut disk).unwrap().unwrap();
            let found = manifest.generation();
            manifest.settle(&mut disk).unwrap();
            let damaged = &mut lose_a_slot(&disk, MANIFEST_NAME, &mut random);
            assert_eq!(Manifest::open(damaged).unwrap().unwrap().generation(), found);
            assert!(found == generation || found == generation - 1 && !switched);
            if found != generation {
                Manifest::open(&mut disk).unwrap().unwrap().switch(&mut disk, generation).unwrap();
            }
        }
    });
}

#[test]
fn epochs_never_go_back_behind_what_was_acknowledged() {
    for_seeds(SEEDS, |seed| {
        let mut random = Random::new(seed);
        let mut disk = SimDisk::default();
        let mut acked = Epochs::default();
        insist(&mut disk, &mut random, |disk| match EpochsFile::open(disk)? {
            Some(file) => Ok(file),
            None => EpochsFile::create(disk, acked),
        });
        let mut begins_empty = false;
        for _ in 0..20 {
            let mut file = EpochsFile::open(&mut disk).unwrap().unwrap();
            file.settle(&mut disk).unwrap();
            let damaged = &mut lose_a_slot(&disk, EPOCHS_NAME, &mut random);
            let after_damage = EpochsFile::open(damaged).unwrap().unwrap();
            assert_eq!((after_damage.epochs(), after_damage.begins_empty()), (acked, begins_empty));
            let mut begun = acked;
            disk.crash_at(random.percent(70).then(|| disk.points() + random.below(8) as u64));
            if random.percent(10) {
                begins_empty |= file.begin_empty(&mut disk).is_ok();
            }
            for _ in 0..3 {
                let accepted = Epoch(acked.accepted.0 + random.below(3) as u32);
                let current = if random.percent(50) { accepted } else { acked.current };
                begun = Epochs { accepted, current };
                if file.write(&mut disk, begun).is_err() {
                    break;
                }
                acked = begun;
                if random.percent(50) && file.settle(&mut disk).is_err() {
                    break;
                }
            }
            disk = if random.percent(20) { disk.kill() } else { disk.crash(&mut random) };
            let file = EpochsFile::open(&mut disk).unwrap().unwrap();
            let found = file.epochs();
            assert!(found == acked || found == begun, "{found:?}, {acked:?} was acknowledged");
            assert!(file.begins_empty() || !begins_empty, "the permission was acknowledged");
            (acked, begins_empty) = (found, file.begins_empty());
        }
    });
}

/// What a member has: the manifest, its own generation, and the next one.
struct Member {
    root: SimDisk,
    own: SimDisk,
    next: SimDisk,
}

impl Member {
    /// A leader's tree, up to `zxid`, becomes the data: the steps of the server, in its order.
    fn replace(&mut self, zxid: Zxid, seed: u64, too_early: bool) -> Result<(), StorageError> {
        let mut manifest = Manifest::open(&mut self.root)?.unwrap();
        if too_early {
            manifest.switch(&mut self.root, 2)?;
        }
        let disk = &mut self.next;
        let temporary = temporary_name(zxid);
        disk.create_zeroed(&temporary, 12)?;
        disk.write_at(&temporary, 0, &snapshot_bytes(zxid))?;
        disk.sync_file(&temporary)?;
        disk.rename(&temporary, &snapshot_name(zxid))?;
        disk.sync_dir()?;
        segments::begin(disk, plan_segment(seed, SegmentId::FIRST, SEGMENT_BYTES), zxid)?;
        if too_early { Ok(()) } else { manifest.switch(&mut self.root, 2) }
    }

    /// The generation that counts after a loss of power.
    fn crash(self, random: &mut Random) -> (u64, SimDisk) {
        let generation = Manifest::open(&mut self.root.crash(random)).unwrap().unwrap();
        let disk = if generation.generation() == 2 { self.next } else { self.own };
        (generation.generation(), disk.crash(random))
    }
}

/// Some history, all of it acknowledged, and a disk that has it.
fn history(random: &mut Random) -> (SimDisk, LogModel) {
    let (mut disk, mut model) = (SimDisk::default(), LogModel::default());
    let report = recover_log(&mut disk, &mut model, None).unwrap();
    let mut writer = LogWriter::open(config(random), report.end, None);
    for _ in 0..=random.below(10) {
        writer.append(&mut model, random);
    }
    writer.finish(&mut disk, &mut model, random);
    model.acked = writer.log.durable();
    (disk, model)
}

/// A member's data is replaced and crashes; it has its own history or the leader's, and goes on.
fn run_replace(seed: u64, too_early: bool) {
    let mut random = Random::new(seed);
    let ((own, mut own_model), (_, mut leaders)) = (history(&mut random), history(&mut random));
    let mut root = SimDisk::default();
    Manifest::create(&mut root).unwrap();
    let mut member = Member { root, own, next: SimDisk::default() };
    if random.percent(50) {
        member.next.crash_at(Some(random.below(14) as u64));
    } else {
        member.root.crash_at(Some(member.root.points() + random.below(5) as u64));
    }
    let replaced = member.replace(leaders.acked, random.any(), too_early);
    let (generation, mut disk) = member.crash(&mut random);
    assert!(generation == 2 || replaced.is_err());
    let model = if generation == 2 { &mut leaders } else { &mut own_model };
    let acked = model.acked;
    let recovered = recover_state(&mut disk, model).unwrap();
    assert_eq!(recovered.log.zxid, acked);
    let mut writer = LogWriter::open(config(&mut random), recovered.log, None);
    disk.crash_at(Some(disk.points() + random.below(60) as u64));
    write_until_crash(&mut writer, &mut disk, model, &mut random);
    recover_state(&mut disk.crash(&mut random), model).unwrap();
}

#[test]
fn a_leaders_tree_replaces_all_of_a_members_data_or_nothing() {
    for_seeds(SEEDS, |seed| run_replace(seed, false));
}

#[test]
fn a_switch_before_the_next_generation_is_durable_is_found() {
    assert!(is_found(|seed| run_replace(seed, true)));
}
