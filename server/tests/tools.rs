//! The tools of the binary, run as a user does, on files that a real ZooKeeper 3.9.3 wrote.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "test code fails and reports so")]

#[path = "tools/backup.rs"]
mod backup;
#[path = "tools/ensemble.rs"]
mod ensemble;
#[path = "tools/export.rs"]
mod export;
#[path = "tools/import.rs"]
mod import;
#[path = "tools/inspect.rs"]
mod inspect;
#[path = "tools/owners.rs"]
mod owners;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use engine::jute::Writer;

const BINARY: &str = env!("CARGO_BIN_EXE_ringkeeper");
const SNAPSHOT_0: &[u8] = include_bytes!("../../engine/tests/zookeeper_files/snapshot.0");
const SNAPSHOT_24_GZ: &[u8] = include_bytes!("../../engine/tests/zookeeper_files/snapshot.24.gz");
const SNAPSHOT_24_SNAPPY: &[u8] =
    include_bytes!("../../engine/tests/zookeeper_files/snapshot.24.snappy");
const LOG_1: &[u8] = include_bytes!("../../engine/tests/zookeeper_files/log.1");
/// A root and `/a`, whose ACL list is missing.
const SNAPSHOT_WITHOUT_LIST: &[u8] =
    include_bytes!("../../engine/tests/zookeeper_files/snapshot-without-list.1");
const KEPT: &str = "version-2.imported-by-ringkeeper";

/// Names and contents.
type Files<'a> = &'a [(&'a str, &'a [u8])];

fn put(directory: &Path, files: Files<'_>) {
    fs::create_dir_all(directory.join("version-2")).unwrap();
    for (name, bytes) in files {
        fs::write(directory.join("version-2").join(name), bytes).unwrap();
    }
}

fn tool(name: &str, data: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.arg(name).arg("--data-dir").arg(data).args(["-D", "extendedTypesEnabled=true"]);
    command.args(more).output().unwrap()
}

/// The report of a tool that worked.
fn report(output: &Output) -> String {
    let (out, err) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}");
    String::from_utf8(out.clone()).unwrap()
}

/// What a tool that did not work says, with its exit code.
#[track_caller]
fn check_refused(output: &Output, code: i32, reason: &str) {
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{err}");
    assert!(err.contains(reason), "{reason:?} is not in {err}");
}

/// A server that goes with the test.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(data: &Path) -> Self {
        let mut command = Command::new(BINARY);
        command.arg("--data-dir").arg(data).args(["--listen", "127.0.0.1:0", "--cores", "1"]);
        command.args(["-D", "extendedTypesEnabled=true", "--backend", "epoll"]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = String::new();
        let address = loop {
            let line = lines.next().unwrap_or_else(|| panic!("it ended:\n{seen}")).unwrap();
            if let Some((_, rest)) = line.split_once("address=") {
                break rest.split_whitespace().next().unwrap().to_owned();
            }
            seen += &line;
            seen.push('\n');
        };
        // Whoever does not read stops nobody, but a closed pipe might.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    fn srvr(&self) -> String {
        srvr_of(&self.address)
    }

    /// The data of a znode, as a client with a session reads it.
    fn data(&self, path: &str) -> Vec<u8> {
        call_for_data(&self.address, path)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn srvr_of(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"srvr").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn call_for_data(address: &str, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut connect = Vec::new();
    let mut writer = Writer::new(&mut connect);
    writer.i32(0);
    writer.i64(0);
    writer.i32(10_000);
    writer.i64(0);
    writer.buf_or_null(Some(&[0; 16]));
    call(&mut stream, &connect);
    let mut request = Vec::new();
    let mut writer = Writer::new(&mut request);
    // Its xid, getData, and no watch behind the path.
    writer.i32(1);
    writer.i32(4);
    writer.string(path);
    writer.bytes(&[0]);
    let reply = call(&mut stream, &request);
    assert_eq!(reply[12..16], [0; 4], "the error of {path}");
    let length = u32::from_be_bytes(reply[16..20].try_into().unwrap()) as usize;
    reply[20..20 + length].to_vec()
}

fn call(stream: &mut TcpStream, packet: &[u8]) -> Vec<u8> {
    stream.write_all(&u32::try_from(packet.len()).unwrap().to_be_bytes()).unwrap();
    stream.write_all(packet).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut reply = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut reply).unwrap();
    reply
}

const STATS: &str = "/zookeeper/quota/a/zookeeper_stats";

#[test]
fn a_server_goes_on_with_what_was_imported() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    put(data, &[("snapshot.0", SNAPSHOT_0), ("log.1", LOG_1)]);
    let said = report(&tool("import", data, &[]));
    for line in ["snapshot   snapshot.0", "digests    ok, 34", "replayed   36", "znodes     26"] {
        assert!(said.contains(line), "{line} is not in\n{said}");
    }
    assert_eq!(fs::read(data.join(KEPT).join("log.1")).unwrap(), LOG_1);
    assert!(data.join("version-2").is_file(), "no ZooKeeper starts here");
    let server = Server::start(data);
    assert_eq!(server.data(STATS), b"count=6,bytes=5");
    let first = server.srvr();
    assert!(first.contains("Zxid: 0x25"), "the session was the next transaction: {first}");
    drop(server);
    let server = Server::start(data);
    assert_eq!(server.data(STATS), b"count=6,bytes=5");
    assert!(server.srvr().contains("Zxid: 0x26"), "nothing was lost");
    drop(server);
    check_refused(&tool("import", data, &[]), 3, "holds the data of a ringkeeper");
}

#[test]
fn packed_snapshots_are_imported() {
    for (name, bytes) in
        [("snapshot.24.gz", SNAPSHOT_24_GZ), ("snapshot.24.snappy", SNAPSHOT_24_SNAPPY)]
    {
        let directory = tempfile::tempdir().unwrap();
        put(directory.path(), &[(name, bytes), ("log.1", LOG_1), ("snapshot.0", SNAPSHOT_0)]);
        let said = report(&tool("import", directory.path(), &[]));
        assert!(said.contains(&format!("snapshot   {name}\n")), "{said}");
        assert!(said.contains("replayed   0"), "{said}");
    }
}

#[test]
fn a_log_elsewhere_is_found_and_superseded_too() {
    let directory = tempfile::tempdir().unwrap();
    let (data, logs) = (directory.path().join("data"), directory.path().join("logs"));
    put(&data, &[("snapshot.0", SNAPSHOT_0)]);
    put(&logs, &[("log.1", LOG_1)]);
    let option = ["--data-log-dir", logs.to_str().unwrap()];
    let said = report(&tool("import", &data, &option));
    assert!(said.contains("replayed   36"), "{said}");
    assert!(data.join(KEPT).is_dir() && logs.join(KEPT).is_dir());
    assert!(logs.join("ringkeeper").is_dir());
}

#[test]
fn what_is_damaged_or_incomplete_is_refused_and_left_alone() {
    let damaged = |at: usize| {
        let mut bytes = LOG_1.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let flipped = damaged(200);
    let cases: [(Files<'_>, i32, &str); 5] = [
        (&[], 3, "no snapshot and no log"),
        (&[("snapshot.0", &SNAPSHOT_0[..99]), ("log.1", LOG_1)], 6, "no snapshot can be used"),
        (&[("snapshot.0", SNAPSHOT_0), ("log.1", &flipped)], 6, "log.1"),
        (&[("log.1", LOG_1)], 6, "but no snapshot"),
        (&[("snapshot.0", SNAPSHOT_0), ("snapshot.24.gz", &[])], 6, "do not reach as far"),
    ];
    for (files, code, reason) in cases {
        let directory = tempfile::tempdir().unwrap();
        put(directory.path(), files);
        check_refused(&tool("import", directory.path(), &[]), code, reason);
        assert!(directory.path().join("version-2").is_dir(), "{reason}");
        assert!(!directory.path().join("ringkeeper").exists(), "{reason}");
    }
    let directory = tempfile::tempdir().unwrap();
    put(directory.path(), &[("log.1", LOG_1)]);
    let said = report(&tool("import", directory.path(), &["--force"]));
    assert!(said.contains("DOUBT") && said.contains("znodes     26"), "{said}");
}

#[test]
fn ttl_znodes_are_not_dropped_unless_one_insists() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    put(data, &[("snapshot.0", SNAPSHOT_0), ("log.1", LOG_1)]);
    let import = |more: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(["import", "--data-dir"]).arg(data).args(more).output().unwrap()
    };
    check_refused(&import(&[]), 2, "1 TTL znodes would be lost");
    check_refused(&import(&[]), 2, "extendedTypesEnabled=true");
    assert!(data.join("version-2").is_dir() && !data.join("ringkeeper").exists());
    let said = report(&import(&["--force"]));
    assert!(said.contains("DOUBT      1 TTL znodes") && said.contains("znodes     25"), "{said}");
}

#[test]
fn an_import_that_was_ended_is_finished_by_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    put(data, &[("snapshot.0", SNAPSHOT_0), ("log.1", LOG_1)]);
    // Ended while it wrote.
    let ours = data.join("ringkeeper");
    fs::create_dir_all(ours.join("generation.1")).unwrap();
    fs::write(ours.join("generation.1/snapshot.0000000000000024"), b"part").unwrap();
    fs::write(ours.join("importing"), b"").unwrap();
    let serve = || Command::new(BINARY).arg("--data-dir").arg(data).output().unwrap();
    check_refused(&serve(), 3, "was not finished");
    assert!(report(&tool("import", data, &[])).contains("replayed   36"));
    // Ended before the directory was renamed.
    fs::remove_file(data.join("version-2")).unwrap();
    fs::rename(data.join(KEPT), data.join("version-2")).unwrap();
    fs::write(ours.join("importing"), b"").unwrap();
    check_refused(&serve(), 3, "was not finished");
    assert!(report(&tool("import", data, &[])).contains("finished an import"));
    assert!(data.join(KEPT).is_dir() && !ours.join("importing").exists());
    assert_eq!(Server::start(data).data(STATS), b"count=6,bytes=5");
}
