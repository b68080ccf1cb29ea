//! Files that a real server of ZooKeeper 3.9.3 wrote, and what we make of them.
//!
//! `log.1` has every kind of transaction; `snapshot.24.*` were written when the server started
//! again on `snapshot.0` and that log, once with each compression.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use engine::acl::{Acl, AclBytes, Id};
use engine::btree::Version;
use engine::ids::{SessionId, Xid};
use engine::time::WallTime;
use engine::tree::{self, Effects, ImportError, OwnerMode, Tree};
use engine::txn::{NewNode, Txn, TxnHeader};
use engine::zookeeper_files::{
    Compression, FileName, Loaded, LogError, LogReader, Report, Restore, SnapshotError,
    SnapshotReader, SnapshotRecords, Tail, TreeSink, WriteOptions, ZnodeRecord, looks_whole,
    write_snapshot,
};
use engine::zxid::{Epoch, Zxid};

const SNAPSHOT_0: &[u8] = include_bytes!("zookeeper_files/snapshot.0");
const SNAPSHOT_24_GZ: &[u8] = include_bytes!("zookeeper_files/snapshot.24.gz");
const SNAPSHOT_24_SNAPPY: &[u8] = include_bytes!("zookeeper_files/snapshot.24.snappy");
const LOG_1: &[u8] = include_bytes!("zookeeper_files/log.1");
/// A root and `/a`, whose ACL list, number 5, is missing.
const SNAPSHOT_WITHOUT_LIST: &[u8] = include_bytes!("zookeeper_files/snapshot-without-list.1");

const END: Zxid = Zxid(0x24);
/// Transactions in the log that carry a digest: all but the errors.
const DIGESTS: u64 = 0x24 - 2;

fn load(bytes: &[u8], compression: Compression, zxid: Zxid) -> Result<Loaded, SnapshotError> {
    SnapshotReader::load(bytes, compression, zxid, OwnerMode::Extended)
}

fn load_plain(bytes: &[u8], zxid: Zxid) -> Result<Loaded, SnapshotError> {
    load(bytes, Compression::None, zxid)
}

fn replay(loaded: Loaded, log: &[u8]) -> (Tree, Report) {
    let mut restore = Restore::new(loaded);
    let mut reader = LogReader::new(log);
    while let Some(txn) = reader.next_txn().unwrap() {
        restore.apply(txn).unwrap();
    }
    assert_eq!(reader.torn_at(), None);
    restore.finish()
}

fn replayed() -> Tree {
    replay(load_plain(SNAPSHOT_0, Zxid(0)).unwrap(), LOG_1).0
}

/// Takes records, and keeps none.
struct Nothing;

impl TreeSink for Nothing {
    fn session(&mut self, _session: SessionId, _timeout_ms: i32) {}

    fn acl(&mut self, _index: i64, _list: &AclBytes<'_>) {}

    fn znode(&mut self, _znode: &ZnodeRecord<'_>) -> Result<(), ImportError> {
        Ok(())
    }
}

/// What a snapshot has behind its tree.
fn tail(bytes: &[u8]) -> Tail {
    let mut records = SnapshotRecords::new(Nothing);
    records.push(bytes).unwrap();
    records.finish().unwrap().1
}

fn written(version: &Version, options: WriteOptions) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_snapshot(version, options, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_fresh_servers_snapshot_is_a_fresh_tree() {
    let loaded = load_plain(SNAPSHOT_0, Zxid(0)).unwrap();
    assert_eq!(loaded.digest.unwrap().zxid, Zxid(0));
    assert_eq!((tail(SNAPSHOT_0).last_zxid, loaded.unknown_acls.len()), (Some(Zxid(0)), 0));
    let fresh = Tree::new(OwnerMode::Extended);
    assert_eq!(loaded.tree.digest(), fresh.digest());
    assert_eq!(loaded.tree.counters(), fresh.counters());
    assert!(looks_whole(Compression::None, SNAPSHOT_0, SNAPSHOT_0));
}

#[test]
fn the_log_of_a_server_replays_with_its_digests() {
    let (tree, report) = replay(load_plain(SNAPSHOT_0, Zxid(0)).unwrap(), LOG_1);
    let expect = Report { replayed: END.0, digests_equal: DIGESTS, ..Report::default() };
    assert_eq!(report, expect);
    assert_eq!(tree.applied(), END);
    let counters = tree.counters();
    assert_eq!((counters.znode_count, counters.data_bytes), (26, 7848));
    assert_eq!((counters.ephemerals_count, counters.sessions_count), (1, 1));
    let stats = tree::znode(tree.view(), "/zookeeper/quota/a/zookeeper_stats").unwrap();
    assert_eq!(stats.into_data(tree.view()).unwrap().as_ref(), b"count=6,bytes=5");
}

#[test]
fn snapshots_of_all_compressions_are_the_replayed_tree() {
    let expect = written(&replayed().freeze(), WriteOptions::default());
    // The last server had replayed nothing, so it had no digest to write.
    for (bytes, compression, digest_at) in [
        (SNAPSHOT_24_GZ, Compression::Gzip, END),
        (SNAPSHOT_24_SNAPPY, Compression::Snappy, Zxid(0)),
    ] {
        assert!(looks_whole(compression, bytes, bytes));
        let loaded = load(bytes, compression, END).unwrap();
        assert_eq!(loaded.digest.map(|digest| digest.zxid), Some(digest_at));
        assert_eq!(loaded.tree.digest(), replayed().digest());
        let mut tree = replay(loaded, LOG_1).0;
        assert_eq!(tree.counters().data_bytes, 7852, "the root's data counts twice");
        let bytes = written(&tree.freeze(), WriteOptions::default());
        // Lists have the numbers in which they came, so the files differ in those only.
        assert_eq!(bytes.len(), expect.len());
    }
}

#[test]
fn what_is_written_is_read_again() {
    let version = replayed().freeze();
    for options in [
        WriteOptions::default(),
        WriteOptions { digest: false, last_zxid: false },
        WriteOptions { digest: true, last_zxid: false },
        WriteOptions { digest: false, last_zxid: true },
    ] {
        let bytes = written(&version, options);
        let mut loaded = load_plain(&bytes, END).unwrap();
        assert_eq!(loaded.digest.map(|digest| digest.zxid), options.digest.then_some(END));
        assert_eq!(tail(&bytes).last_zxid, options.last_zxid.then_some(END));
        assert_eq!(loaded.tree.digest(), tree::digest(&version));
        let again = written(&loaded.tree.freeze(), options);
        assert!(again == bytes, "written once more, it is the same");
        let session = tree::sessions(&version).next_session().unwrap().0;
        assert_ne!(session, SessionId::NONE);
        assert_eq!(tree::session(loaded.tree.view(), session), Some(20_000));
    }
}

#[test]
fn a_snapshot_may_come_in_any_pieces() {
    for piece in [1, 3, 100, 4096] {
        let mut reader = SnapshotReader::new(OwnerMode::Extended);
        for bytes in SNAPSHOT_0.chunks(piece) {
            reader.push(bytes).unwrap();
        }
        assert_eq!(reader.finish(Zxid(0)).unwrap().tree.digest(), 0x51c6_d660);
    }
}

#[test]
fn a_damaged_snapshot_is_refused() {
    for at in 16..SNAPSHOT_0.len() {
        let mut bytes = SNAPSHOT_0.to_vec();
        bytes[at] ^= 0x41;
        let behind_checksum = bytes.len() - at <= 5;
        assert!(load_plain(&bytes, Zxid(0)).is_err() || behind_checksum, "byte {at}");
    }
    for len in 0..SNAPSHOT_0.len() {
        let is_part = [33 + 21, 21].contains(&(SNAPSHOT_0.len() - len));
        assert_eq!(load_plain(&SNAPSHOT_0[..len], Zxid(0)).is_ok(), is_part, "{len} bytes");
    }
    let longer = [SNAPSHOT_0, &[0]].concat();
    assert!(load_plain(&longer, Zxid(0)).is_err());
    assert!(matches!(load_plain(LOG_1, Zxid(0)), Err(SnapshotError::Magic(_))));
}

#[test]
fn a_torn_log_ends_and_a_damaged_one_is_refused() {
    let count = |bytes: &[u8]| {
        let mut reader = LogReader::new(bytes);
        let mut count = 0;
        loop {
            match reader.next_txn() {
                Ok(Some(_)) => count += 1,
                Ok(None) => return Ok((count, reader.torn_at().is_some())),
                Err(error) => return Err(error),
            }
        }
    };
    assert_eq!(count(LOG_1).unwrap(), (END.0, false));
    let used = LOG_1.len() - 64;
    for len in 16..used {
        let (count, _) = count(&LOG_1[..len]).unwrap();
        assert!(count < END.0, "{len} bytes");
    }
    // The end of the last record is zero, as in a file that was extended but not written.
    let mut bytes = LOG_1.to_vec();
    bytes[used - 1] = 0;
    assert_eq!(count(&bytes).unwrap(), (END.0 - 1, true));
    bytes[used - 1] = b'B';
    bytes[used - 2] ^= 1;
    assert!(matches!(count(&bytes), Err(LogError::Checksum { .. })));
    assert!(matches!(count(&[]), Err(LogError::NoHeader { bytes: 0 })));
    assert!(matches!(count(SNAPSHOT_0), Err(LogError::Magic(_))));
}

#[test]
fn a_replay_on_a_later_snapshot_passes_over_what_that_has() {
    let loaded = load(SNAPSHOT_24_GZ, Compression::Gzip, END).unwrap();
    let (tree, report) = replay(loaded, LOG_1);
    let expect = Report { digests_equal: 1, ..Report::default() };
    assert_eq!((report, tree.applied()), (expect, END));
}

#[test]
fn a_replay_of_all_on_a_snapshot_of_the_end_is_the_end() {
    // The name says 0, the content is of 0x24: as fuzzy as a snapshot can be.
    let loaded = load(SNAPSHOT_24_GZ, Compression::Gzip, Zxid(0)).unwrap();
    let (tree, report) = replay(loaded, LOG_1);
    let expect = Report { replayed: END.0, digests_equal: 1, ..Report::default() };
    assert_eq!((report, tree.digest()), (expect, replayed().digest()));
    let stat = |tree: &Tree, path| tree::znode(tree.view(), path).unwrap().wire_stat();
    for path in ["/", "/a", "/m", "/large", "/container"] {
        assert_eq!(stat(&tree, path), stat(&replayed(), path), "{path}");
    }
}

#[test]
fn a_missing_transaction_is_reported() {
    let mut restore = Restore::from_nothing(OwnerMode::Extended);
    let mut reader = LogReader::new(LOG_1);
    let mut number = 0;
    while let Some(txn) = reader.next_txn().unwrap() {
        number += 1;
        if number != 5 {
            restore.apply(txn).unwrap();
        }
    }
    let (_, report) = restore.finish();
    assert_eq!((report.gaps, report.replayed), (1, END.0 - 1));
    assert_eq!(report.first_different, Some(Zxid(6)));
    assert!(Restore::from_nothing(OwnerMode::Plain).apply(&[1, 2, 3]).is_err());
    assert_eq!(FileName::snapshot(END, Compression::None), "snapshot.24");
}

/// A transaction that creates `path`, with a list of its own.
fn create(zxid: Zxid, path: &str, own: &[Acl]) -> Vec<u8> {
    let acl = AclBytes::encode(own);
    let node = NewNode { path: path.into(), data: None, acl, parent_cversion: 1 };
    let time = WallTime(5);
    let header = TxnHeader { session: SessionId(1), cxid: Xid(1), zxid, time };
    let create = Txn::Create { with_stat: true, node, ephemeral: false };
    let mut txn = Vec::new();
    engine::txn::codec::encode(&header, &create, None, &mut txn);
    txn
}

#[test]
fn a_missing_list_denies_everything_until_the_log_brings_it() {
    let loaded = load_plain(SNAPSHOT_WITHOUT_LIST, Zxid(1)).unwrap();
    assert_eq!(loaded.unknown_acls.len(), 1);
    let list = |tree: &Tree| {
        let view = tree.view();
        tree::acl(view, tree::znode(view, "/a").unwrap().acl()).decode()
    };
    assert_eq!(list(&loaded.tree), [Acl { perms: 0, id: Id::new("world", "anyone") }]);
    let own = [Acl { perms: 31, id: Id::new("digest", "user:x") }];
    let restored = |path: &str| {
        let mut restore = Restore::new(load_plain(SNAPSHOT_WITHOUT_LIST, Zxid(1)).unwrap());
        restore.apply(&create(Zxid(2), path, &own)).unwrap();
        restore.finish()
    };
    let (tree, report) = restored("/a");
    assert_eq!((list(&tree), report.unknown_acls), (own.to_vec(), 0));
    let (tree, report) = restored("/b");
    assert_eq!((list(&tree).len(), list(&tree)[0].perms, report.unknown_acls), (1, 0, 1));
}

#[test]
fn a_gap_at_the_beginning_of_an_epoch_is_reported() {
    let zxid = |epoch, counter| Zxid::new(Epoch(epoch), counter);
    let start = zxid(1, 5);
    for (next, gaps) in [
        (zxid(1, 6), 0),
        (zxid(1, 7), 1),
        (zxid(2, 0), 0),
        (zxid(2, 1), 0),
        (zxid(2, 7), 1),
        (zxid(4, 1), 0),
    ] {
        let mut restore = Restore::new(load_plain(SNAPSHOT_0, start).unwrap());
        restore.apply(&create(next, "/a", &[])).unwrap();
        let (_, report) = restore.finish();
        assert_eq!((report.gaps, report.out_of_order), (gaps, 0), "{next}");
    }
}

/// The tree of a version, from nothing.
fn rebuilt(version: &Version) -> Tree {
    let bytes = written(version, WriteOptions::default());
    load_plain(&bytes, version.zxid()).unwrap().tree
}

#[test]
fn transactions_with_flipped_bits_never_break_the_tree() {
    let mut txns = Vec::new();
    let mut reader = LogReader::new(LOG_1);
    while let Some(txn) = reader.next_txn().unwrap() {
        txns.push(txn.to_vec());
    }
    let mut tree = replayed();
    let mut effects = Effects::new();
    let mut applied = 0;
    for txn in &mut txns {
        for at in 8..txn.len().min(600) {
            for bit in [1, 0x10, 0x80] {
                txn[at] ^= bit;
                if let Ok(decoded) = engine::txn::codec::decode(txn) {
                    effects.clear();
                    tree.apply(&decoded.header, &decoded.txn, &mut effects);
                    applied += 1;
                }
                txn[at] ^= bit;
            }
        }
        let version = tree.freeze();
        let again = rebuilt(&version);
        assert_eq!(again.digest(), tree.digest());
        let (left, right) = (again.counters(), tree.counters());
        assert_eq!(left.znode_count, right.znode_count);
        assert_eq!(left.ephemerals_count, right.ephemerals_count);
        assert_eq!(left.sessions_count, right.sessions_count);
    }
    assert!(applied > 5_000, "{applied}");
}
