//! An ensemble that has lost all of its servers comes back from one backup, as docs/operations.md
//! says.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{BINARY, LOG_1, SNAPSHOT_0, STATS, call_for_data, put, report, srvr_of};

const SERVERS: u16 = 3;

/// It is stopped, and all of its servers, when this is dropped.
struct Ensemble(Child);

impl Drop for Ensemble {
    fn drop(&mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        self.0.wait().unwrap();
    }
}

/// Starts three servers with what is in `folder`; where they serve.
fn start(folder: &Path) -> (Ensemble, Vec<String>) {
    // Below the ports that the kernel hands out, and those of the other tests.
    let port = 28_000 + std::process::id() % 200 * u32::from(SERVERS);
    let mut command = Command::new(BINARY);
    command.args(["dev-ensemble", "--servers", &SERVERS.to_string()]);
    command.args(["--base-port", &port.to_string(), "--dir"]).arg(folder);
    let mut ensemble = Ensemble(command.stdout(Stdio::piped()).spawn().unwrap());
    let lines = BufReader::new(ensemble.0.stdout.take().unwrap()).lines();
    for line in lines.map(Result::unwrap) {
        assert!(!line.contains("has ended"), "{line}");
        if let Some(rest) = line.strip_prefix("connect to ") {
            let (addresses, _) = rest.split_once(';').unwrap();
            return (ensemble, addresses.split(',').map(str::to_owned).collect());
        }
    }
    panic!("it ended before it served");
}

#[test]
fn three_servers_go_on_from_copies_of_one_backup() {
    let directory = tempfile::tempdir().unwrap();
    let (data, folder) = (directory.path().join("data"), directory.path().join("ensemble"));
    put(&data, &[("snapshot.0", SNAPSHOT_0), ("log.1", LOG_1)]);
    // Without TTL znodes: the servers will not be told of any.
    let run = |words: &[&str]| {
        let mut command = Command::new(BINARY);
        report(&command.args(words).arg("--data-dir").arg(&data).output().unwrap())
    };
    run(&["import", "--force"]);
    let backup = directory.path().join("backup");
    let said = run(&["backup", "--to", backup.to_str().unwrap()]);
    assert!(said.contains("znodes     25"), "{said}");
    for number in 1..=SERVERS {
        let to = folder.join(number.to_string());
        fs::create_dir_all(&to).unwrap();
        let copied = Command::new("cp").arg("-a").arg(backup.join("ringkeeper")).arg(&to).status();
        assert!(copied.unwrap().success());
    }
    let (ensemble, addresses) = start(&folder);
    assert_eq!(addresses.len(), usize::from(SERVERS));
    for address in &addresses {
        // Each opens a session, which is a write, on a server of its own.
        assert_eq!(call_for_data(address, STATS), b"count=6,bytes=5");
        assert!(srvr_of(address).contains("Node count: 25"), "{address}");
    }
    drop(ensemble);
}
