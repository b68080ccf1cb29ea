//! `ringkeeper export`: what a ZooKeeper would read is what the server had. That a real one starts
//! from it is for `tests/interop/exchange.sh` to see.

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::Path;
use std::process::Command;

use super::{
    BINARY, Files, KEPT, LOG_1, SNAPSHOT_0, STATS, Server, check_refused, put, report, tool,
};

const OURS_KEPT: &str = "ringkeeper.exported-to-zookeeper";
const OLD: Files<'static> = &[("snapshot.0", SNAPSHOT_0), ("log.1", LOG_1)];

/// The figures that a report has of a state.
fn figures(report: &str) -> Vec<&str> {
    let wanted = ["zxid", "znodes", "ephemerals", "sessions"];
    report.lines().filter(|line| wanted.iter().any(|word| line.starts_with(word))).collect()
}

fn digest(report: &str) -> &str {
    let line = report.lines().find(|line| line.starts_with("digest ")).unwrap();
    line.split_whitespace().nth(1).unwrap().trim_end_matches(',')
}

/// A directory where a server has gone on with imported data.
fn served(data: &Path) {
    put(data, OLD);
    report(&tool("import", data, &[]));
    let server = Server::start(data);
    // A session is two transactions, its end one of them.
    server.data(STATS);
}

/// Names and contents of all files below, in brief.
fn contents(folder: &Path, into: &mut Vec<(String, u64)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            contents(&path, into);
        } else if path.is_file() {
            let mut hasher = DefaultHasher::new();
            hasher.write(&fs::read(&path).unwrap());
            into.push((path.display().to_string(), hasher.finish()));
        }
    }
    into.sort_unstable();
}

#[test]
fn an_export_is_what_the_server_had_and_changes_nothing_there() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    served(&data);
    fs::write(data.join("myid"), "7\n").unwrap();
    let mut before = Vec::new();
    contents(&data, &mut before);
    for (option, suffix) in [("none", ""), ("gz", ".gz"), ("snappy", ".snappy")] {
        let to = directory.path().join(option);
        let target = to.to_str().unwrap();
        let said = report(&tool("export", &data, &["--to", target, "--compression", option]));
        assert!(said.contains(&format!("snapshot   snapshot.25{suffix}, ")), "{said}");
        assert!(said.contains("epochs     current 0, accepted 0"), "{said}");
        assert!(said.contains("needs extendedTypesEnabled"), "{said}");
        assert_eq!(fs::read(to.join("version-2/currentEpoch")).unwrap(), b"0");
        assert_eq!(fs::read(to.join("myid")).unwrap(), b"7\n");
        let back = report(&tool("import", &to, &[]));
        assert_eq!(figures(&back), figures(&said));
        assert_eq!(digest(&back), digest(&said));
        check_refused(&tool("export", &data, &["--to", target]), 3, "nothing is overwritten");
    }
    let mut after = Vec::new();
    contents(&data, &mut after);
    assert_eq!(before, after);
    assert_eq!(Server::start(&data).data(STATS), b"count=6,bytes=5");
}

#[test]
fn a_running_server_and_an_empty_directory_are_not_exported() {
    let directory = tempfile::tempdir().unwrap();
    let (data, to) = (directory.path().join("data"), directory.path().join("to"));
    let target = to.to_str().unwrap();
    check_refused(&tool("export", &data, &["--to", target]), 3, "holds no data of a ringkeeper");
    let server = Server::start(&data);
    check_refused(&tool("export", &data, &["--to", target]), 3, "is in use by process");
    drop(server);
    let said = report(&tool("export", &data, &["--to", target]));
    assert!(said.contains("znodes     5"), "{said}");
    let both = tool("export", &data, &["--to", target, "--in-place"]);
    check_refused(&both, 2, "cannot be used with");
    check_refused(&tool("export", &data, &[]), 2, "--to");
}

#[test]
fn in_place_gives_the_directory_back_and_no_server_starts_from_the_old_state() {
    let directory = tempfile::tempdir().unwrap();
    let (data, logs) = (directory.path().join("data"), directory.path().join("logs"));
    put(&data, &[("snapshot.0", SNAPSHOT_0), ("acceptedEpoch", b"5"), ("currentEpoch", b"4\n")]);
    put(&logs, &[("log.1", LOG_1)]);
    let option = ["--data-log-dir", logs.to_str().unwrap()];
    report(&tool("import", &data, &option));
    // They are ours now, and not only read from what was kept.
    for name in ["acceptedEpoch", "currentEpoch"] {
        fs::remove_file(data.join(KEPT).join(name)).unwrap();
    }
    let said = report(&tool("export", &data, &[&option[..], &["--in-place"]].concat()));
    assert!(said.contains("epochs     current 4, accepted 5"), "{said}");
    assert_eq!(fs::read(data.join("version-2/acceptedEpoch")).unwrap(), b"5");
    assert!(data.join("version-2/snapshot.24").is_file());
    assert!(fs::read_dir(logs.join("version-2")).unwrap().next().is_none());
    assert!(data.join(KEPT).is_dir(), "what was imported stays");
    for folder in [&data, &logs] {
        assert!(folder.join(OURS_KEPT).is_dir() && !folder.join("ringkeeper").exists());
    }
    let mut serve = Command::new(BINARY);
    serve.arg("--data-dir").arg(&data).args(["-D", &format!("dataLogDir={}", logs.display())]);
    check_refused(&serve.output().unwrap(), 3, "holds the data of a ZooKeeper");
    for folder in [&data, &logs] {
        fs::rename(folder.join(OURS_KEPT), folder.join("ringkeeper")).unwrap();
    }
    check_refused(&serve.output().unwrap(), 3, "was handed to a ZooKeeper");
    let again = tool("export", &data, &[&option[..], &["--in-place"]].concat());
    assert!(report(&again).contains("finished an export"));
    assert!(data.join(OURS_KEPT).is_dir());
}

#[test]
fn an_export_in_place_that_was_ended_is_finished_by_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    served(data);
    let ours = data.join("ringkeeper");
    // Ended while it wrote; then between the mark and the rename.
    fs::create_dir(data.join(".version-2.exporting")).unwrap();
    fs::write(data.join(".version-2.exporting/snapshot.25"), b"part").unwrap();
    fs::write(ours.join("exported"), b"").unwrap();
    fs::remove_file(data.join("version-2")).unwrap();
    // There was an empty one before.
    fs::create_dir(data.join("version-2")).unwrap();
    let mut serve = Command::new(BINARY);
    serve.arg("--data-dir").arg(data);
    check_refused(&serve.output().unwrap(), 3, "was handed to a ZooKeeper");
    let said = report(&tool("export", data, &["--in-place"]));
    assert!(said.contains("snapshot   snapshot.25"), "{said}");
    // Ended before the last rename.
    fs::rename(data.join(OURS_KEPT), &ours).unwrap();
    assert!(report(&tool("export", data, &["--in-place"])).contains("finished an export"));
    assert!(data.join("version-2/snapshot.25").is_file() && !ours.exists());
}

#[test]
fn in_place_overwrites_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    served(data);
    fs::write(data.join("version-2"), b"something else").unwrap();
    check_refused(&tool("export", data, &["--in-place"]), 3, "version-2 is there already");
    fs::remove_file(data.join("version-2")).unwrap();
    fs::create_dir(data.join(OURS_KEPT)).unwrap();
    check_refused(&tool("export", data, &["--in-place"]), 3, OURS_KEPT);
    fs::remove_dir(data.join(OURS_KEPT)).unwrap();
    drop(Server::start(data));
    report(&tool("export", data, &["--in-place"]));
}

#[test]
fn in_place_does_not_forget_what_the_zookeeper_had_promised() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    served(data);
    let accepted = data.join(KEPT).join("acceptedEpoch");
    fs::write(&accepted, b"seven").unwrap();
    check_refused(&tool("export", data, &["--in-place"]), 6, "\"seven\" is not an epoch");
    assert!(data.join("ringkeeper").is_dir() && data.join("version-2").is_file());
    fs::write(&accepted, b"7\n").unwrap();
    let said = report(&tool("export", data, &["--in-place"]));
    assert!(said.contains("epochs     current 0, accepted 7"), "{said}");
}

#[test]
fn what_could_not_be_written_takes_no_room() {
    let directory = tempfile::tempdir().unwrap();
    let (data, to) = (directory.path().join("data"), directory.path().join("to"));
    served(&data);
    let mut command = Command::new("sh");
    // No file may have more than some bytes, and whoever writes more is told so.
    command.args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "sh", BINARY, "export"]);
    command.arg("--data-dir").arg(&data).args(["-D", "extendedTypesEnabled=true"]);
    check_refused(&command.arg("--to").arg(&to).output().unwrap(), 3, "File too large");
    assert_eq!(fs::read_dir(&to).unwrap().count(), 0, "nothing is left");
    report(&tool("export", &data, &["--to", to.to_str().unwrap()]));
}
