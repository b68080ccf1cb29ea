//! `ringkeeper inspect`: what it shows of files of both kinds, whole and damaged.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::fs::{Mode, OFlags, mkdirat, openat};
use serde_json::Value;

use super::{
    BINARY, LOG_1, SNAPSHOT_0, SNAPSHOT_24_GZ, SNAPSHOT_24_SNAPPY, STATS, Server, check_refused,
};

fn inspect(path: &Path, more: &[&str]) -> Output {
    Command::new(BINARY).arg("inspect").arg(path).args(more).output().unwrap()
}

/// The lines as JSON, of a tool that ended with this code.
#[track_caller]
fn lines(path: &Path, more: &[&str], code: i32) -> Vec<Value> {
    let output = inspect(path, &[more, &["--json"]].concat());
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{err}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of_kind<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["kind"] == kind).collect()
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn the_records_of_a_zookeeper_are_shown_whatever_the_file_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let log = lines(&write(folder.path(), "a", LOG_1), &["--data"], 0);
    let txns = of_kind(&log, "txn");
    assert_eq!(txns.len(), 36);
    let create = txns[2];
    let expected = serde_json::json!({
        "kind": "txn", "offset": 138, "zxid": "0x3", "session": "0x100003d17570000", "cxid": 1,
        "time_ms": 1_795_402_946_951_i64, "type": "create", "path": "/a", "bytes": 1,
        "data": "x", "acl": ["world:anyone:cdrwa"], "parent_cversion": 1, "ephemeral": false,
        "digest_version": 2, "digest": "0x1a1742223",
    });
    assert_eq!(*create, expected);
    let multi = txns.iter().find(|txn| txn["type"] == "multi").unwrap();
    assert!(multi["parts"].as_array().unwrap().len() > 1);
    let mut shown = Vec::new();
    for (name, bytes) in [("b", SNAPSHOT_24_GZ), ("c", SNAPSHOT_24_SNAPPY), ("d", SNAPSHOT_0)] {
        let snapshot = lines(&write(folder.path(), name, bytes), &[], 0);
        let znodes = of_kind(&snapshot, "znode");
        assert_eq!(of_kind(&snapshot, "end")[0]["znodes"], znodes.len());
        assert_eq!(of_kind(&snapshot, "tail").len(), 1);
        shown.push(znodes.iter().map(|znode| znode["path"].clone()).collect::<Vec<_>>());
    }
    assert_eq!(shown[0].len(), shown[1].len());
    assert!(shown[0].len() > shown[2].len());
    let everything = lines(folder.path(), &["--summary"], 0);
    assert_eq!(of_kind(&everything, "file").len(), 4);
    assert!(of_kind(&everything, "txn").is_empty() && of_kind(&everything, "znode").is_empty());
}

#[test]
fn damage_in_a_zookeepers_files_has_a_place_and_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = LOG_1.to_vec();
    log[200] ^= 1;
    let found = lines(&write(folder.path(), "log", &log), &[], 6);
    let damage = of_kind(&found, "damage");
    assert_eq!((damage.len(), of_kind(&found, "txn").len()), (1, 2));
    assert_eq!(damage[0]["offset"], 138);
    assert!(damage[0]["reason"].as_str().unwrap().contains("checksum"), "{}", damage[0]);
    let torn = lines(&write(folder.path(), "log", &LOG_1[..200]), &[], 0);
    assert_eq!(of_kind(&torn, "torn")[0]["offset"], 138);
    for (name, bytes) in [("snapshot", SNAPSHOT_0), ("packed", SNAPSHOT_24_GZ)] {
        let cut = lines(&write(folder.path(), name, &bytes[..bytes.len() - 20]), &[], 6);
        assert_eq!(of_kind(&cut, "damage").len(), 1, "{cut:?}");
        assert_eq!(of_kind(&cut, "end").len(), 1);
    }
    for bytes in [&b"ZKLG\0\0"[..], b"ZKSN\0\0\0\x02"] {
        let short = lines(&write(folder.path(), "short", bytes), &[], 6);
        assert_eq!(of_kind(&short, "damage").len(), 1, "{short:?}");
    }
    let output = inspect(&folder.path().join("log"), &[]);
    assert!(String::from_utf8(output.stdout).unwrap().contains("\ntorn         offset=138\n"));
}

/// The data of a server that was killed, with a snapshot and a log behind it.
fn ours() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    super::put(folder.path(), &[("snapshot.0", SNAPSHOT_0), ("log.1", LOG_1)]);
    super::report(&super::tool("import", folder.path(), &[]));
    let server = Server::start(folder.path());
    for _ in 0..3 {
        server.data(STATS);
    }
    drop(server);
    folder
}

fn log_of(folder: &Path) -> PathBuf {
    folder.join("ringkeeper/generation.1/log.0000000000000001")
}

#[test]
fn our_own_files_are_shown_with_headers_frames_and_state() {
    let folder = ours();
    let found = lines(&folder.path().join("ringkeeper"), &["--data"], 0);
    let frames = of_kind(&found, "frame");
    assert_eq!(frames[0]["type"], "cut");
    for (frame, sequence) in frames.iter().zip(1..) {
        assert_eq!(frame["sequence"], sequence);
        assert!(frame["durable_to"].as_u64().unwrap() < sequence);
        assert_eq!(frame["incarnation"], of_kind(&found, "segment")[0]["incarnation"]);
    }
    let txns = of_kind(&found, "txn");
    assert!(txns.len() >= 3 && txns.iter().all(|txn| txn["type"] == "createSession"));
    assert_eq!(txns[0]["zxid"], "0x25");
    let superblocks = of_kind(&found, "superblock");
    assert_eq!(superblocks[0]["zxid"], "0x24");
    let state = of_kind(&found, "state")[0];
    assert_eq!((&state["znodes"], &state["sessions"]), (&26.into(), &1.into()));
    let znodes = of_kind(&found, "znode");
    // Java counts the root twice.
    assert_eq!(znodes.len(), 25);
    let by_path = |path: &str| znodes.iter().find(|znode| znode["path"] == path).unwrap();
    assert_eq!(by_path("/")["data"], "root");
    assert_eq!(by_path("/container")["type"], "container");
    assert_eq!(by_path("/ttl")["ttl_ms"], 1_000_000_000);
    let slots = of_kind(&found, "slot");
    assert_eq!((slots.len(), &slots[0]["generation"]), (2, &1.into()));
    assert!(of_kind(&found, "number").len() == 1, "the pid in the lock");
}

#[test]
fn damage_in_our_log_is_told_from_a_torn_end() {
    let folder = ours();
    let log = log_of(folder.path());
    let frames = lines(&log, &["--summary"], 0);
    let frames = of_kind(&frames, "frame");
    let place = |frame: &Value| usize::try_from(frame["offset"].as_u64().unwrap()).unwrap();
    let index = frames.iter().position(|frame| frame["type"] == "txns").unwrap();
    let (damaged, last) = (place(frames[index]), place(frames[frames.len() - 1]));
    let whole = fs::read(&log).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    fs::write(&log, flipped(damaged + 80)).unwrap();
    let found = lines(&log, &[], 6);
    let damage = of_kind(&found, "damage");
    assert_eq!((damage.len(), &damage[0]["offset"]), (1, &damaged.into()));
    let reason = format!("frame {} is damaged or missing", frames[index]["sequence"]);
    assert!(damage[0]["reason"].as_str().unwrap().contains(&reason), "{}", damage[0]);
    assert_eq!(of_kind(&found, "stray").len(), frames.len() - index - 1);
    fs::write(&log, flipped(last + 20)).unwrap();
    let found = lines(&log, &[], 0);
    assert_eq!(of_kind(&found, "frame").len(), frames.len() - 1);
    fs::write(&log, flipped(30)).unwrap();
    assert_eq!(of_kind(&lines(&log, &[], 6), "damage")[0]["offset"], 0);
    fs::write(&log, &whole[..damaged + 4096]).unwrap();
    let found = lines(&log, &[], 6);
    assert_eq!(of_kind(&found, "damage")[0]["offset"], damaged + 4096);
}

#[test]
fn damage_in_our_snapshot_is_shown_and_its_tree_is_not() {
    let folder = ours();
    let snapshot = folder.path().join("ringkeeper/generation.1/snapshot.0000000000000024");
    let whole = fs::read(&snapshot).unwrap();
    for (at, offset, reason) in [
        (5000, 0, "block at offset 0"),
        (whole.len() - 4096 + 24, whole.len() - 4096, "superblock at offset"),
        (whole.len() - 2 * 4096, whole.len() - 2 * 4096, "checksums at offset"),
    ] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&snapshot, bytes).unwrap();
        let found = lines(&snapshot, &[], 6);
        let damage = of_kind(&found, "damage");
        assert_eq!((damage.len(), &damage[0]["offset"]), (1, &offset.into()));
        assert!(damage[0]["reason"].as_str().unwrap().contains(reason), "{}", damage[0]);
        assert!(of_kind(&found, "znode").is_empty());
    }
}

#[test]
fn what_is_foreign_or_unreadable_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let text = write(folder.path(), "text", b"just some text that is longer than a number");
    check_refused(&inspect(&text, &[]), 2, "text, offset 0: it begins with 6a 75 73 74");
    let missing = folder.path().join("missing");
    check_refused(&inspect(&missing, &[]), 3, "missing, offset 0: No such file");
    check_refused(&inspect(folder.path(), &[]), 3, "no file of a ringkeeper or a ZooKeeper");
    // Bytes of all kinds behind each of the magic words end in damage, never otherwise.
    let mut random = fastrand::Rng::with_seed(3);
    for magic in
        [&b"RKtxnlog"[..], b"RKsl", b"ZKSN\0\0\0\x02", b"ZKLG", b"\x1f\x8b", b"\x82SNAPPY\0"]
    {
        for _ in 0..4 {
            let mut bytes = magic.to_vec();
            bytes.extend((0..random.usize(16..20_000)).map(|_| random.u8(..)));
            let output = inspect(&write(folder.path(), "noise", &bytes), &[]);
            assert_eq!(output.status.code(), Some(6), "{magic:?}");
        }
    }
}

#[test]
fn one_file_that_cannot_be_read_does_not_hide_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    check_refused(&inspect(&pipe, &[]), 2, "pipe: this is no regular file");
    write(folder.path(), "log", LOG_1);
    // Longer than the kernel takes a path: root cannot read that either.
    let part = "x".repeat(250);
    let mut deep = OwnedFd::from(File::open(folder.path()).unwrap());
    for _ in 0..20 {
        mkdirat(&deep, &part, Mode::RWXU).unwrap();
        deep = openat(&deep, &part, OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let found = lines(folder.path(), &[], 3);
    assert_eq!(of_kind(&found, "txn").len(), 36);
    let [hidden] = of_kind(&found, "unreadable")[..] else { panic!("{found:?}") };
    assert!(hidden["path"].as_str().unwrap().ends_with(&part), "{hidden}");
    assert!(hidden["reason"].as_str().unwrap().starts_with("File name too long"), "{hidden}");
    write(folder.path(), "damaged", &LOG_1[..10]);
    check_refused(&inspect(folder.path(), &[]), 6, "damage was found in 1 places");
}

#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let folder = ours();
    let many = folder.path().join("many");
    fs::create_dir(&many).unwrap();
    for number in 0..100 {
        write(&many, &format!("log.{number}"), LOG_1);
    }
    let mut command = Command::new(BINARY);
    command.arg("inspect").arg(&many).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut first = String::new();
    BufReader::with_capacity(64, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("file "), "{first}");
    let status = child.wait().unwrap();
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((status.code(), err.as_str()), (Some(0), ""));
}
