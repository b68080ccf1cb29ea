//! What `docs/format.md` says is what the code writes; its tables are checked beside their fields.

use std::fs;
use std::path::Path;

use engine::epochs::{EPOCHS_NAME, Epochs, EpochsFile};
use engine::manifest::{MANIFEST_KIND, MANIFEST_NAME, Manifest};
use engine::slots::{PAYLOAD_BYTES_MAX, Slots};
use engine::txnlog::format::{FRAME_MAGIC, SEGMENT_MAGIC};
use engine::zxid::Epoch;
use tests::sim::disk::SimDisk;

#[test]
fn numbers_in_the_text_are_those_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/format.md");
    let text = fs::read_to_string(path).unwrap();
    for magic in [&SEGMENT_MAGIC[..], &FRAME_MAGIC] {
        let magic = str::from_utf8(magic).unwrap();
        assert!(text.contains(&format!("`{magic}`")), "{magic}");
    }
    assert!(text.contains(&format!("at most {PAYLOAD_BYTES_MAX}")));
}

/// Manifest and epochs of format version 1, as they were written on 2026-11-27.
#[test]
fn golden_slots_are_read_and_would_be_written() {
    let (first, last) = ([3, 2], [0x1_0005, 0x1_0004]);
    let epochs = |[accepted, current]: [u32; 2]| Epochs {
        accepted: Epoch(accepted),
        current: Epoch(current),
    };
    let (mut disk, mut golden) = (SimDisk::default(), SimDisk::default());
    Manifest::create(&mut disk).unwrap().switch(&mut disk, 7).unwrap();
    let mut file = EpochsFile::create(&mut disk, epochs(first)).unwrap();
    file.write(&mut disk, epochs(last)).unwrap();
    for name in [MANIFEST_NAME, EPOCHS_NAME] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("data/{name}-1"));
        if std::env::var_os("WRITE_GOLDEN").is_some() {
            fs::write(&path, disk.file(name)).unwrap();
        }
        golden.insert(name, &fs::read(path).unwrap());
        assert_eq!(golden.file(name), disk.file(name), "another file is written today");
    }
    assert_eq!(Manifest::open(&mut golden).unwrap().unwrap().generation(), 7);
    assert_eq!(EpochsFile::open(&mut golden).unwrap().unwrap().epochs(), epochs(last));
}

#[test]
fn what_a_later_server_adds_to_the_manifest_is_passed_over() {
    let mut disk = SimDisk::default();
    let payload = [&7_u64.to_le_bytes()[..], b"more"].concat();
    Slots::create(&mut disk, MANIFEST_NAME, MANIFEST_KIND, &payload).unwrap();
    assert_eq!(Manifest::open(&mut disk).unwrap().unwrap().generation(), 7);
}
