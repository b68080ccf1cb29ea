//! ZooKeeper's own files.

use engine::tree::OwnerMode;
use engine::zookeeper_files::{Compression, LogReader, Restore, SnapshotReader};
use engine::zxid::Zxid;

use super::input::Input;

fn mode(byte: u8) -> OwnerMode {
    match byte % 3 {
        0 => OwnerMode::Plain,
        1 => OwnerMode::Extended,
        _ => OwnerMode::Emulate353,
    }
}

/// A snapshot, packed or not. One that is read is a sound tree.
pub(super) fn snapshot(input: &[u8]) {
    let mut input = Input(input);
    let kind = input.u8();
    let compression = [Compression::None, Compression::Gzip, Compression::Snappy];
    let compression = compression[usize::from(kind % 4).min(2)];
    let loaded = SnapshotReader::load(input.0, compression, Zxid(0x100), mode(kind / 4));
    if let Ok(loaded) = loaded {
        let (mut tree, _) = Restore::new(loaded).finish();
        tree.freeze().check().expect("a sound tree");
    }
}

/// A log: what its reader takes is replayed.
pub(super) fn log(input: &[u8]) {
    let mut input = Input(input);
    let mut restore = Restore::from_nothing(mode(input.u8()));
    let mut reader = LogReader::new(input.0);
    while let Ok(Some(txn)) = reader.next_txn() {
        if restore.apply(txn).is_err() {
            break;
        }
    }
    let (mut tree, _) = restore.finish();
    tree.freeze().check().expect("a sound tree");
}
