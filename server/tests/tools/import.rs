//! `ringkeeper import` of what a ZooKeeper would not start with, or not as one would think.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use super::{
    BINARY, Files, KEPT, LOG_1, SNAPSHOT_0, SNAPSHOT_WITHOUT_LIST, check_refused, put, report, tool,
};

const WHOLE: Files<'static> = &[("snapshot.0", SNAPSHOT_0), ("log.1", LOG_1)];
/// The same tree with a zxid of epoch 5.
const LATER: Files<'static> = &[("snapshot.500000000", SNAPSHOT_0)];

/// An import of some files and more of them: where it was done, and how it ended.
fn import(files: Files<'_>, more: Files<'_>, options: &[&str]) -> (tempfile::TempDir, Output) {
    let directory = tempfile::tempdir().unwrap();
    put(directory.path(), files);
    put(directory.path(), more);
    let output = tool("import", directory.path(), options);
    (directory, output)
}

/// Nothing was taken over.
#[track_caller]
fn check_left_alone(data: &Path, files: &[Files<'_>]) {
    assert!(!data.join("ringkeeper").exists() && !data.join(KEPT).exists());
    for (name, bytes) in files.iter().copied().flatten() {
        assert_eq!(fs::read(data.join("version-2").join(name)).unwrap(), *bytes, "{name}");
    }
}

#[test]
fn epochs_that_cannot_be_read_are_not_forgotten() {
    let cases: [(Files<'_>, &str); 4] = [
        (&[("currentEpoch", b"6"), ("acceptedEpoch", b"")], "acceptedEpoch, offset 0: \"\" is"),
        (&[("currentEpoch", b"six\n"), ("acceptedEpoch", b"6")], "currentEpoch, offset 0: \"six\""),
        (&[("acceptedEpoch", b"-1")], "\"-1\" is not an epoch"),
        (&[("acceptedEpoch", &[0; 1 << 13])], "is not an epoch"),
    ];
    for (epochs, reason) in cases {
        for options in [&[][..], &["--force"]] {
            let (directory, output) = import(WHOLE, epochs, options);
            check_refused(&output, 6, reason);
            check_left_alone(directory.path(), &[WHOLE, epochs]);
        }
    }
    // What is no file can't be read either.
    let directory = tempfile::tempdir().unwrap();
    put(directory.path(), WHOLE);
    fs::create_dir(directory.path().join("version-2/currentEpoch")).unwrap();
    check_refused(&tool("import", directory.path(), &[]), 3, "version-2/currentEpoch: ");
    check_left_alone(directory.path(), &[WHOLE]);
}

#[test]
fn epochs_that_contradict_each_other_are_doubtful() {
    let cases: [(Files<'_>, &str); 4] = [
        (&[("currentEpoch", b"6")], "acceptedEpoch is missing, and the current epoch is 6"),
        (
            &[("currentEpoch", b"6"), ("acceptedEpoch", b"5")],
            "acceptedEpoch says 5, and the current epoch is 6",
        ),
        (&[("acceptedEpoch", b"4")], "acceptedEpoch says 4, and the current epoch is 5"),
        (
            &[("currentEpoch", b"4"), ("acceptedEpoch", b"5")],
            "currentEpoch says 4, and the last zxid is 0x500000000",
        ),
    ];
    for (epochs, reason) in cases {
        let (directory, output) = import(LATER, epochs, &[]);
        check_refused(&output, 6, reason);
        check_left_alone(directory.path(), &[LATER, epochs]);
        let said = report(&tool("import", directory.path(), &["--force"]));
        assert!(said.contains(&format!("DOUBT      {reason}")), "{said}");
    }
}

#[test]
fn an_epoch_that_was_being_written_counts_where_the_last_zxid_is_of_it() {
    let epochs: Files<'_> =
        &[("currentEpoch", b"4"), ("currentEpoch.tmp", b"5"), ("acceptedEpoch", b"7")];
    let (directory, output) = import(LATER, epochs, &[]);
    assert!(!report(&output).contains("DOUBT"));
    let to = directory.path().join("to");
    let exported = tool("export", directory.path(), &["--to", to.to_str().unwrap()]);
    let said = report(&exported);
    assert!(said.contains("epochs     current 5, accepted 7"), "{said}");
    // Elsewhere it is passed over, as a ZooKeeper does.
    let (_directory, output) =
        import(WHOLE, &[("currentEpoch", b"4"), ("currentEpoch.tmp", b""), epochs[2]], &[]);
    assert!(!report(&output).contains("DOUBT"));
}

#[test]
fn znodes_that_have_lost_their_lists_are_doubtful() {
    let files: Files<'_> = &[("snapshot.1", SNAPSHOT_WITHOUT_LIST)];
    let reason = "1 znodes have lost their ACL lists";
    let (directory, output) = import(files, &[], &[]);
    check_refused(&output, 6, reason);
    check_left_alone(directory.path(), &[files]);
    let said = report(&tool("import", directory.path(), &["--force"]));
    assert!(said.contains(&format!("DOUBT      {reason}")), "{said}");
    let (_directory, output) = import(WHOLE, &[], &[]);
    assert!(!report(&output).contains("ACL"));
}

#[test]
fn a_snapshot_that_cannot_be_read_is_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    put(directory.path(), WHOLE);
    fs::create_dir(directory.path().join("version-2/snapshot.20")).unwrap();
    let said = report(&tool("import", directory.path(), &[]));
    assert!(said.contains("note       snapshot.20") && said.contains("replayed   36"), "{said}");
}

#[test]
fn the_last_log_may_be_empty_but_not_end_in_its_header() {
    let (_directory, output) = import(WHOLE, &[("log.25", b"")], &[]);
    assert!(report(&output).contains("note       log.25 is empty"));
    let part: Files<'_> = &[("log.25", b"ZKLG\0")];
    let (directory, output) = import(WHOLE, part, &[]);
    check_refused(&output, 6, "log.25: the header is missing, the file has 5 bytes");
    check_left_alone(directory.path(), &[WHOLE, part]);
}

#[test]
fn a_damaged_log_is_taken_up_to_the_damage_if_it_is_the_last_and_one_insists() {
    let mut bytes = LOG_1.to_vec();
    bytes[200] ^= 1;
    let damaged: Files<'_> = &[("snapshot.0", SNAPSHOT_0), ("log.1", &bytes)];
    let (directory, output) = import(damaged, &[], &[]);
    check_refused(&output, 6, "log.1: at offset 138: checksum");
    check_refused(&output, 6, "what the log has behind 0x2, the last one before, is lost");
    check_refused(&output, 6, "With --force, what could be read is taken");
    check_left_alone(directory.path(), &[damaged]);
    let said = report(&tool("import", directory.path(), &["--force"]));
    assert!(said.contains("DOUBT ") && said.contains("log.1: at offset 138"), "{said}");
    assert!(
        said.contains("replayed   2 transactions") && said.contains("zxid       0x2"),
        "{said}"
    );
    // What is missing in between is not there at the end either.
    let later: Files<'_> = &[("log.25", b"")];
    for options in [&[][..], &["--force"]] {
        let (directory, output) = import(damaged, later, options);
        check_refused(&output, 6, "There are logs behind it");
        check_left_alone(directory.path(), &[damaged, later]);
    }
}

#[test]
fn a_zookeeper_that_runs_is_not_superseded_even_if_it_is_idle() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    put(data, WHOLE);
    let log = data.join("version-2/log.1");
    let open = File::options().append(true).open(&log).unwrap();
    let reason = format!("process {} has {} open: stop the", std::process::id(), log.display());
    check_refused(&tool("import", data, &[]), 3, &reason);
    check_left_alone(data, &[WHOLE]);
    drop(open);
    // One that has written nothing since its last snapshot has no log open.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = data.join("zoo.cfg");
    let text =
        format!("dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1", data.display());
    fs::write(&config, text).unwrap();
    let import = |more: &[&str]| {
        let mut command = Command::new(BINARY);
        command.arg("import").arg(&config).args(["-D", "extendedTypesEnabled=true"]);
        command.args(more).output().unwrap()
    };
    let reason = format!("somebody listens at 127.0.0.1:{port}, ");
    check_refused(&import(&[]), 3, &reason);
    check_left_alone(data, &[WHOLE]);
    assert!(report(&import(&["-D", "clientPort=0"])).contains("replayed   36"));
    // Nor is one that was started in between, before the last step.
    fs::remove_file(data.join("version-2")).unwrap();
    fs::rename(data.join(KEPT), data.join("version-2")).unwrap();
    fs::write(data.join("ringkeeper/importing"), b"").unwrap();
    check_refused(&import(&[]), 3, &reason);
    drop(listener);
    assert!(report(&import(&[])).contains("finished an import"));
}

#[test]
fn settings_that_do_not_concern_the_data_keep_no_tool_from_it() {
    let odd = ["-D", "secureClientPort=x", "-D", "sslQuorum=true", "-D", "colour=red"];
    let (_directory, output) = import(WHOLE, &[], &odd);
    assert!(report(&output).contains("replayed   36"));
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(err, "ringkeeper: -D colour: colour is not a known setting and has no effect\n");
}
