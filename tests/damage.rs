//! Damage to the log is noticed, named and never papered over; and no bytes make a scan panic.

use std::fs;
use std::io;
use std::path::Path;

use engine::disk::{Damage, SegmentId, StorageError, StorageErrorKind, Volume};
use engine::recovery::{self, Source, Unusable, snapshot_name};
use engine::tree::{OwnerMode, Tree};
use engine::txnlog::format::{
    FRAMES_START, FrameHeader, FrameKind, SegmentHeader, parse_segment_name, push_txn, segment_name,
};
use engine::txnlog::scan::scan;
use engine::txnlog::{LogConfig, plan_segment, segments};
use engine::zxid::Zxid;
use tests::sim::disk::SimDisk;
use tests::sim::log::{
    Collect, LogModel, LogWriter, SEGMENT_BYTES, create, recover_log, scan_all, written,
};
use tests::sim::random::Random;
use tests::sim::shared::SharedDisk;

/// Every frame that a scan takes: file, offset, header.
fn frames(disk: &SimDisk) -> Vec<(String, u64, FrameHeader)> {
    let mut found = Vec::new();
    for name in disk.list().unwrap() {
        let bytes = disk.file(&name);
        let Ok(header) = SegmentHeader::decode(&bytes) else { continue };
        let mut offset = FRAMES_START;
        while let Some(frame) = bytes
            .get(offset as usize..)
            .and_then(|bytes| FrameHeader::decode(bytes, header.incarnation))
        {
            found.push((name.clone(), offset, frame));
            offset += frame.stride();
        }
    }
    found
}

#[track_caller]
fn refused(disk: &SimDisk) -> StorageError {
    match scan_all(disk) {
        Ok((report, _)) => panic!("accepted up to {}", report.end.zxid),
        Err(error) => {
            assert!(error.damage().is_some(), "{error}");
            error
        }
    }
}

#[test]
fn a_flipped_bit_in_any_acknowledged_frame_is_refused_by_name_and_offset() {
    for seed in 0..6 {
        let mut random = Random::new(seed);
        let (disk, _) = written(seed, 12);
        let frames = frames(&disk);
        let (last, others) = frames.split_last().unwrap();
        assert_eq!(last.2.kind, FrameKind::Mark);
        for (name, offset, frame) in others {
            let mut disk = disk.clone();
            let bit = random.below(frame.frame_bytes() * 8);
            disk.damage(name, |bytes| bytes[*offset as usize + bit / 8] ^= 1 << (bit % 8));
            let error = refused(&disk);
            assert_eq!((&error.file, error.offset), (name, *offset), "{error}");
            assert!(error.to_string().contains("copies all from the leader"), "{error}");
        }
    }
}

#[test]
fn the_last_mark_is_all_that_may_be_lost_unnoticed() {
    let (mut disk, mut model) = written(1, 12);
    let (name, offset, _) = frames(&disk).pop().unwrap();
    disk.damage(&name, |bytes| bytes[offset as usize + 20] ^= 1);
    recover_log(&mut disk, &mut model, None).unwrap();
}

#[test]
fn a_missing_segment_is_refused() {
    let (disk, _) = written(2, 20);
    let (report, _) = scan_all(&disk).unwrap();
    let segments = report.end.segments;
    assert!(segments.len() > 3);
    for (segment, _) in &segments[..segments.len() - 1] {
        let mut disk = disk.clone();
        disk.remove(&segment_name(*segment)).unwrap();
        let damage = refused(&disk).damage().cloned().unwrap();
        assert!(matches!(damage, Damage::Frame { .. } | Damage::Gap { .. }), "{damage}");
    }
}

#[test]
fn a_segment_that_was_cut_short_is_refused() {
    let (mut disk, _) = written(3, 20);
    let (name, offset, _) = frames(&disk)[2].clone();
    disk.damage(&name, |bytes| bytes.truncate(offset as usize + 100));
    assert_eq!(refused(&disk).file, name);
}

#[test]
fn a_damaged_segment_header_is_refused() {
    let (mut disk, _) = written(4, 12);
    let name = frames(&disk).pop().unwrap().0;
    disk.damage(&name, |bytes| bytes[30] ^= 1);
    let error = refused(&disk);
    assert_eq!((error.file.as_str(), error.damage()), (&*name, Some(&Damage::SegmentHeader)));
}

#[test]
fn a_segment_under_another_name_is_refused() {
    let (mut disk, _) = written(4, 12);
    let name = frames(&disk).pop().unwrap().0;
    let next = segment_name(scan_all(&disk).unwrap().0.end.next_segment);
    disk.rename(&name, &next).unwrap();
    assert_eq!(refused(&disk).damage(), Some(&Damage::SegmentHeader));
}

#[test]
fn a_later_format_is_refused_with_the_advice_to_upgrade() {
    for (at, expected) in [(12, "version 2"), (16, "feature bits")] {
        let (mut disk, _) = written(5, 3);
        let name = frames(&disk)[0].0.clone();
        disk.damage(&name, |bytes| {
            bytes[at] = 2;
            let checksum = crc32c::crc32c(&bytes[12..48]);
            bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
        });
        let error = scan_all(&disk).unwrap_err();
        assert!(!matches!(error.kind, StorageErrorKind::Damaged(_)));
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains("newer"), "{error}");
        assert_eq!(error.file, name);
        let disk = SharedDisk::new(disk);
        let mut source = Passing(Vec::new());
        let recovered = recovery::recover(&mut disk.clone(), &mut disk.clone(), &mut source, 0);
        assert_eq!(recovered.map(drop), Err(error), "a start says the same");
    }
}

#[test]
fn a_damaged_cut_does_not_bring_back_what_it_cut() {
    let (mut disk, mut model) = written(6, 12);
    let target = model.txns[model.txns.len() / 2].0;
    let plan = |segment| plan_segment(9, segment, SEGMENT_BYTES);
    segments::truncate(&mut disk, target, plan).unwrap();
    model.txns.truncate(model.count(target));
    model.acked = target;
    recover_log(&mut disk, &mut model, None).unwrap();
    let (name, ..) =
        frames(&disk).into_iter().find(|(_, _, frame)| frame.kind == FrameKind::Cut).unwrap();
    disk.damage(&name, |bytes| bytes[FRAMES_START as usize + 40] ^= 1);
    refused(&disk);
}

#[test]
fn a_cut_is_refused_where_the_log_does_not_reach() {
    let (mut disk, model) = written(7, 5);
    let plan = |segment| plan_segment(9, segment, SEGMENT_BYTES);
    let beyond = model.acked.next().unwrap();
    let error = segments::truncate(&mut disk, beyond, plan).unwrap_err();
    assert!(matches!(error.damage(), Some(Damage::Gap { .. })), "{error}");
    segments::truncate(&mut disk, model.acked, plan).unwrap();
}

#[test]
fn a_cut_is_made_only_behind_a_transaction_that_there_is() {
    // 0x100000001 to 0x100000003 and 0x200000001, 0x200000002.
    let golden = golden_disk();
    let check = |target: u64, expected: Option<u64>| {
        let mut disk = golden.clone();
        let plan = |segment| plan_segment(9, segment, 8 * FRAMES_START);
        let done = segments::truncate(&mut disk, Zxid(target), plan);
        match expected {
            None => {
                let gap = done.unwrap_err();
                assert!(matches!(gap.damage(), Some(Damage::Gap { .. })), "{gap}");
                assert_eq!(scan_all(&disk).unwrap().0.end.zxid, Zxid(0x2_0000_0002));
            }
            Some(expected) => {
                done.unwrap();
                let (report, found) = scan_all(&disk).unwrap();
                let last = found.0.last().map_or(Zxid::ZERO, |(zxid, _)| *zxid);
                assert_eq!((report.end.zxid, last), (Zxid(expected), Zxid(expected)));
            }
        }
    };
    for zxid in [0, 0x1_0000_0001, 0x1_0000_0003, 0x2_0000_0001, 0x2_0000_0002] {
        check(zxid, Some(zxid));
    }
    // Cut off before, never there, beyond the end.
    for zxid in [0x1_0000_0004, 0x1_0000_0009, 0x2_0000_0003, 0x3_0000_0000] {
        check(zxid, None);
    }
    // An epoch begins with a zxid that no transaction has.
    check(0x2_0000_0000, Some(0x1_0000_0003));
    check(0x1_0000_0000, Some(0));
}

#[test]
fn a_log_that_begins_with_a_snapshot_does_not_reach_back_further() {
    let mut disk = SimDisk::default();
    let base = Zxid(0x5_0000_0003);
    segments::begin(&mut disk, plan_segment(1, SegmentId::FIRST, SEGMENT_BYTES), base).unwrap();
    let report = scan(&disk, base, &mut Collect::default()).unwrap();
    assert_eq!((report.end.zxid, report.begins), (base, Some(base)));
    let gap = Damage::Gap { found: base, needed: Zxid(7) };
    let error = scan(&disk, Zxid(7), &mut Collect::default()).unwrap_err();
    assert_eq!(error.damage(), Some(&gap));
}

/// Snapshots of which only some pass.
struct Passing(Vec<Zxid>);

impl Source for Passing {
    fn load(&mut self, _name: &str, zxid: Zxid) -> Result<Tree, Unusable> {
        let passes = self.0.contains(&zxid);
        let damaged = || Unusable::Damaged("it is not whole".to_owned());
        passes.then(|| Tree::new(OwnerMode::Plain)).ok_or_else(damaged)
    }

    fn fresh(&mut self) -> Tree {
        Tree::new(OwnerMode::Plain)
    }
}

/// Recovers with snapshots at some zxids, of which only `passing` pass; in brief.
fn recovered(disk: &SimDisk, snapshots: &[Zxid], passing: &[Zxid]) -> String {
    let mut disk = disk.clone();
    for zxid in snapshots {
        disk.insert(&snapshot_name(*zxid), b"");
    }
    let disk = SharedDisk::new(disk);
    let mut source = Passing(passing.to_vec());
    match recovery::recover(&mut disk.clone(), &mut disk.clone(), &mut source, 0) {
        Ok(recovered) => {
            let report = recovered.report;
            let names = disk.list().unwrap();
            for (name, _) in &report.rejected {
                assert!(!names.contains(name) && names.contains(&format!("{name}.damaged")));
            }
            format!("from {:?}, {} rejected", report.snapshot, report.rejected.len())
        }
        Err(error) => format!("{:?}", error.damage().unwrap()),
    }
}

#[test]
fn a_damaged_snapshot_is_passed_over_as_long_as_the_log_reaches_back() {
    let (disk, model) = written(8, 20);
    let (old, new) = (model.txns[10].0, model.txns[30].0);
    let check = |snapshots: &[Zxid], passing: &[Zxid], expect: &str| {
        assert_eq!(recovered(&disk, snapshots, passing), expect);
    };
    check(&[old, new], &[old, new], &format!("from Some({new}), 0 rejected"));
    check(&[old, new], &[old], &format!("from Some({old}), 1 rejected"));
    // This log goes back to the beginning.
    check(&[old, new], &[], "from None, 2 rejected");
    check(&[], &[], "from None, 0 rejected");

    let mut purged = disk.clone();
    let (report, _) = scan_all(&disk).unwrap();
    purged.remove(&segment_name(report.end.segments[0].0)).unwrap();
    let expect = "Snapshots(1)";
    assert_eq!(recovered(&purged, &[new], &[]), expect);
    let begins = report.end.segments[1].1;
    let gap = Damage::Gap { found: begins, needed: Zxid::ZERO };
    assert_eq!(recovered(&purged, &[], &[]), format!("{gap:?}"));
}

/// Snapshots that the system does not let be read.
struct Locked;

impl Source for Locked {
    fn load(&mut self, name: &str, _zxid: Zxid) -> Result<Tree, Unusable> {
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        Err(Unusable::Failed(StorageError::io(name.to_owned(), "open", &error)))
    }

    fn fresh(&mut self) -> Tree {
        Tree::new(OwnerMode::Plain)
    }
}

#[test]
fn a_snapshot_that_cannot_be_read_is_neither_passed_over_nor_renamed() {
    let (mut disk, model) = written(8, 20);
    let name = snapshot_name(model.txns[10].0);
    disk.insert(&name, b"");
    let disk = SharedDisk::new(disk);
    let error = recovery::recover(&mut disk.clone(), &mut disk.clone(), &mut Locked, 0);
    let error = error.map(drop).unwrap_err();
    assert!(error.damage().is_none() && error.file == name, "{error}");
    assert!(disk.list().unwrap().contains(&name));
}

#[test]
fn a_log_that_ends_before_its_snapshot_is_refused() {
    let (disk, model) = written(9, 5);
    let beyond = model.acked.next().unwrap();
    let short = Damage::Short { found: model.acked, snapshot: beyond };
    assert_eq!(recovered(&disk, &[beyond], &[beyond]), format!("{short:?}"));
    let short = Damage::Short { found: Zxid::ZERO, snapshot: beyond };
    assert_eq!(recovered(&SimDisk::default(), &[beyond], &[beyond]), format!("{short:?}"));
}

#[test]
fn any_log_reaches_a_snapshot_of_what_has_had_no_transaction() {
    let (disk, _) = written(9, 5);
    let expect = format!("from Some({}), 0 rejected", Zxid::ZERO);
    for disk in [&SimDisk::default(), &disk] {
        assert_eq!(recovered(disk, &[Zxid::ZERO], &[Zxid::ZERO]), expect);
    }
}

#[test]
fn no_change_of_any_bytes_makes_a_scan_panic() {
    let mut random = Random::new(std::env::var("SEED").map_or(0, |seed| seed.parse().unwrap()));
    let (disk, model) = written(10, 10);
    let names = disk.list().unwrap();
    for _ in 0..2000 {
        let mut disk = disk.clone();
        for _ in 0..=random.below(3) {
            let name = &names[random.below(names.len())];
            mutate(&mut disk, name, &mut random);
        }
        // Whatever is accepted is a prefix of what was written.
        if let Ok((_, found)) = scan_all(&disk) {
            assert!(model.txns.starts_with(&found.0));
        }
    }
}

fn mutate(disk: &mut SimDisk, name: &str, random: &mut Random) {
    let kind = random.below(5);
    let header_at = FRAMES_START as usize * (1 + random.below(10)) + random.below(72);
    disk.damage(name, |bytes| {
        let at = random.below(bytes.len().max(1)).min(bytes.len());
        match kind {
            0 => bytes.truncate(at),
            1 => {
                let end = bytes.len().min(at + random.below(9000));
                bytes[at..end].fill_with(|| random.any() as u8);
            }
            2 => {
                let end = bytes.len().min(at + 8192);
                let piece = bytes[at..end].to_vec();
                let to = random.below(24) * 4096;
                let end = bytes.len().min(to + piece.len());
                if to < end {
                    bytes[to..end].copy_from_slice(&piece[..end - to]);
                }
            }
            _ => {
                if let Some(byte) = bytes.get_mut(header_at) {
                    *byte = random.any() as u8;
                }
            }
        }
    });
}

#[test]
fn a_frame_with_a_right_checksum_and_wrong_content_is_refused() {
    let check = |change: &dyn Fn(&mut FrameHeader, &mut Vec<u8>)| {
        let mut disk = SimDisk::default();
        let plan = plan_segment(1, SegmentId::FIRST, SEGMENT_BYTES);
        segments::prepare(&mut disk, plan).unwrap();
        let mut body = Vec::new();
        push_txn(&mut body, &create(Zxid(1), b"x"));
        push_txn(&mut body, &create(Zxid(2), b"x"));
        let mut header = FrameHeader {
            checksum: 0,
            kind: FrameKind::Txns,
            body_bytes: 0,
            incarnation: plan.incarnation,
            sequence: 1,
            base_zxid: Zxid(0),
            first_zxid: Zxid(1),
            last_zxid: Zxid(2),
            durable_to: 0,
            previous: 0,
            opening: 0,
        };
        change(&mut header, &mut body);
        header.body_bytes = body.len() as u32;
        let mut frame = vec![0; 72];
        frame.extend_from_slice(&body);
        header.seal(&mut frame);
        disk.write_at("log.0000000000000001", FRAMES_START, &frame).unwrap();
        scan_all(&disk).err().map(|error| error.damage().cloned().unwrap())
    };
    let bad = Some(Damage::FrameContent(1));
    assert_eq!(check(&|_, _| {}), None);
    assert_eq!(check(&|header, _| header.last_zxid = Zxid(3)), bad);
    assert_eq!(check(&|header, _| header.last_zxid = Zxid(1)), bad);
    assert_eq!(check(&|header, _| header.last_zxid = Zxid(1 << 32)), bad);
    assert_eq!(check(&|header, _| header.first_zxid = Zxid(2)), bad);
    assert_eq!(check(&|header, _| header.kind = FrameKind::Mark), bad);
    assert_eq!(check(&|_, body| body[0] ^= 0x80), bad);
    assert_eq!(check(&|_, body| body.truncate(3)), bad);
}

/// A log of format version 1, as it was written on 2026-11-23, and what it holds.
#[test]
fn the_golden_log_is_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/log-1");
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        write_golden(&folder);
    }
    let disk = golden_disk();
    let (report, found) = scan_all(&disk).unwrap();
    let zxids: Vec<_> = found.0.iter().map(|(zxid, _)| zxid.0).collect();
    let expected = [0x1_0000_0001, 0x1_0000_0002, 0x1_0000_0003, 0x2_0000_0001, 0x2_0000_0002];
    assert_eq!(zxids, expected);
    for (zxid, txn) in &found.0 {
        assert_eq!(*txn, create(*zxid, &zxid.0.to_be_bytes()));
    }
    assert_eq!(report.end.sequence, 6);
}

fn golden_disk() -> SimDisk {
    let mut disk = SimDisk::default();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/log-1");
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        assert!(parse_segment_name(&name).is_some(), "{name}");
        disk.insert(&name, &fs::read(entry.path()).unwrap());
    }
    disk
}

/// Makes the golden log: two segments, a cut, two epochs.
fn write_golden(folder: &Path) {
    let mut disk = SimDisk::default();
    let mut random = Random::new(1);
    let bytes = 8 * FRAMES_START;
    let config = LogConfig { seed: 3, ..LogConfig::with_segments(bytes) };
    for (first, last) in [(0x1_0000_0001_u64, 0x1_0000_0004_u64), (0x2_0000_0001, 0x2_0000_0002)] {
        let (report, _) = scan_all(&disk).unwrap();
        let mut writer = LogWriter::open(config, report.end, None);
        let mut body = Vec::new();
        for zxid in first..=last {
            push_txn(&mut body, &create(Zxid(zxid), &zxid.to_be_bytes()));
        }
        let now = engine::time::Instant::ZERO;
        writer.log.append(now, (Zxid(first), Zxid(last)), &body, &mut writer.ops);
        writer.finish(&mut disk, &mut LogModel::default(), &mut random);
        if last == 0x1_0000_0004 {
            let plan = |segment| plan_segment(4, segment, bytes);
            segments::truncate(&mut disk, Zxid(0x1_0000_0003), plan).unwrap();
        }
    }
    fs::create_dir_all(folder).unwrap();
    for (name, ..) in frames(&disk) {
        fs::write(folder.join(&name), disk.file(&name)).unwrap();
    }
}
