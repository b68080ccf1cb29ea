//! `ringkeeper backup`, ended in between. What a whole one has is for `integration/backup.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{BINARY, LOG_1, SNAPSHOT_0, STATS, Server, check_refused, put, report, tool};

/// Data, and a copy of it that counts, whose backup was ended before the mark was gone.
fn unfinished(directory: &Path) -> (PathBuf, PathBuf) {
    let (data, to) = (directory.join("data"), directory.join("to"));
    put(&data, &[("snapshot.0", SNAPSHOT_0), ("log.1", LOG_1)]);
    report(&tool("import", &data, &[]));
    report(&tool("backup", &data, &["--to", to.to_str().unwrap()]));
    fs::write(to.join("ringkeeper/importing"), b"").unwrap();
    (data, to)
}

#[test]
fn a_backup_that_was_ended_is_finished_by_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let (data, to) = unfinished(directory.path());
    let serve = Command::new(BINARY).arg("--data-dir").arg(&to).output().unwrap();
    check_refused(&serve, 3, "run it with the same arguments again");
    let again = || tool("backup", &data, &["--to", to.to_str().unwrap()]);
    let said = report(&again());
    for line in ["source     an earlier backup", "zxid       0x24", "znodes     26"] {
        assert!(said.contains(line), "{line} is not in\n{said}");
    }
    check_refused(&again(), 3, "holds the data of a ringkeeper");
    assert_eq!(Server::start(&to).data(STATS), b"count=6,bytes=5");
}

#[test]
fn what_is_not_a_whole_backup_is_not_finished() {
    let directory = tempfile::tempdir().unwrap();
    let (data, to) = unfinished(directory.path());
    let again = || tool("backup", &data, &["--to", to.to_str().unwrap()]);
    // What an import leaves in the place of what it took over.
    fs::write(to.join("version-2"), b"").unwrap();
    check_refused(&again(), 3, "an import was not finished there");
    fs::remove_file(to.join("version-2")).unwrap();
    let snapshot = to.join("ringkeeper/generation.1/snapshot.0000000000000024");
    let mut bytes = fs::read(&snapshot).unwrap();
    bytes[5000] ^= 1;
    fs::write(&snapshot, bytes).unwrap();
    check_refused(&again(), 6, "snapshot.0000000000000024: an earlier backup");
    fs::remove_file(&snapshot).unwrap();
    check_refused(&again(), 6, "an earlier backup that was not finished can't be used");
    assert!(to.join("ringkeeper/importing").exists());
}

#[test]
fn the_directory_of_the_data_is_no_place_for_a_copy_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let server = Server::start(data);
    let backup = || tool("backup", data, &["--to", data.to_str().unwrap()]);
    check_refused(&backup(), 3, "the server has its own data there: choose another directory");
    drop(server);
    check_refused(&backup(), 3, "the server has its own data there: choose another directory");
}
