//! A disk without room holds up what needs some, and loses nothing.

use engine::disk::{SegmentId, Volume};
use engine::txnlog::format::segment_name;
use engine::txnlog::{LogConfig, LogEnd, plan_segment, segments};
use tests::sim::disk::SimDisk;
use tests::sim::log::{LogModel, LogWriter, SEGMENT_BYTES, scan_all, written};
use tests::sim::random::Random;

#[test]
fn a_full_disk_holds_up_appends_and_loses_nothing() {
    let mut random = Random::new(1);
    let (mut disk, mut model) = (SimDisk::default(), LogModel::default());
    disk.capacity = Some(3 * SEGMENT_BYTES + 1000);
    let end = LogEnd { next_segment: SegmentId::FIRST, ..LogEnd::default() };
    let config = LogConfig::with_segments(SEGMENT_BYTES);
    let mut writer = LogWriter::open(config, end, None);
    for _ in 0..200 {
        if writer.log.space() != engine::txnlog::Space::None {
            writer.append(&mut model, &mut random);
        }
        assert!(writer.advance(&mut disk, &mut model, &mut random));
    }
    assert_eq!(writer.log.space(), engine::txnlog::Space::None);
    assert!(!disk.list().unwrap().iter().any(|name| name.starts_with("spare.")));
    let durable = writer.log.durable();
    writer.log.purge(durable, &mut writer.ops);
    disk.capacity = None;
    writer.finish(&mut disk, &mut model, &mut random);
    assert_eq!(writer.log.durable(), model.txns.last().unwrap().0);
}

#[test]
fn a_file_whose_sync_found_no_room_is_never_used() {
    let mut disk = SimDisk::default();
    let plan = |segment| plan_segment(9, SegmentId(segment), SEGMENT_BYTES);
    segments::prepare(&mut disk, plan(1)).unwrap();
    segments::retire(&mut disk, SegmentId::FIRST).unwrap();
    for _ in ["the spare", "a new file"] {
        disk.is_full_at_sync = true;
        let error = segments::prepare(&mut disk, plan(2)).unwrap_err();
        assert!(error.is_no_space(), "{error}");
        assert_eq!(disk.list().unwrap(), [""; 0]);
    }
    segments::prepare(&mut disk, plan(2)).unwrap();
}

#[test]
fn a_full_disk_does_not_keep_the_log_from_being_cut() {
    let (mut disk, model) = written(7, 5);
    for spare in disk.list().unwrap().iter().filter(|name| name.starts_with("spare.")) {
        disk.remove(spare).unwrap();
    }
    disk.capacity = Some(0);
    let zxid = model.txns[model.txns.len() / 2].0;
    let plan = |segment| plan_segment(9, segment, SEGMENT_BYTES);
    let mut without = disk.clone();
    for ready in scan_all(&disk).unwrap().0.end.ready {
        without.remove(&segment_name(ready.segment)).unwrap();
    }
    let error = segments::truncate(&mut without, zxid, plan).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    segments::truncate(&mut disk, zxid, plan).unwrap();
    assert_eq!(scan_all(&disk).unwrap().0.end.zxid, zxid);
}
