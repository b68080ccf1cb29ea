//! `ringkeeper backup` of a server under load: a server that starts from the copy has every write
//! that was acknowledged before the backup began, and of each client nothing without all before.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};

use engine::op::OpCode;
use engine::records::multi::MultiOp;
use tempfile::TempDir;

use super::client::{Client, EPHEMERAL, PERSISTENT, new_node, set_data, write_multi};
use super::server::{Server, Setup};

/// Clients that write.
const WRITERS: usize = 3;
/// Requests that a client has on their way.
const WINDOW: u64 = 16;
/// Backups of one server that is not stopped.
const ROUNDS: usize = 3;
/// The fewest writes of a client between two backups.
const WRITES_MIN: u64 = 150;

/// What a client has got so far. Request `k` makes the znode `k` and notes it in the parent, both
/// or neither.
#[derive(Debug, Default)]
struct Progress {
    sent: AtomicU64,
    acknowledged: AtomicU64,
}

fn root(writer: usize) -> String {
    format!("/w{writer}")
}

fn write(client: &mut Client, writer: usize, progress: &Progress) {
    let root = root(writer);
    loop {
        while progress.sent.load(Ordering::SeqCst) - progress.acknowledged.load(Ordering::SeqCst)
            < WINDOW
        {
            let number = progress.sent.fetch_add(1, Ordering::SeqCst) + 1;
            let (path, text) = (format!("{root}/n{number:08}"), number.to_string());
            let create = MultiOp::Create(OpCode::Create, new_node(&path, b"x", PERSISTENT));
            let ops = [create, MultiOp::SetData(set_data(&root, text.as_bytes()))];
            client.put(OpCode::Multi, |writer| write_multi(writer, &ops));
        }
        if !client.try_flush() {
            return;
        }
        let Some(reply) = client.try_receive() else { return };
        assert_eq!(reply.err, 0);
        progress.acknowledged.fetch_add(1, Ordering::SeqCst);
    }
}

fn backup(data: &Path, to: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringkeeper"));
    command.arg("backup").arg("--data-dir").arg(data).arg("--to").arg(to);
    command
}

#[track_caller]
fn said(output: &Output) -> String {
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Looks at what a server from a copy has: at least so much of each client, and nothing halved.
fn check_copy(server: &Server, least: &[u64], progress: &[Progress]) {
    let mut client = server.client();
    for (writer, (least, progress)) in least.iter().zip(progress).enumerate() {
        let root = root(writer);
        let count: u64 = String::from_utf8(client.data(&root).unwrap()).unwrap().parse().unwrap();
        assert!(count >= *least, "{root}: {least} were acknowledged before, {count} are there");
        assert!(count <= progress.sent.load(Ordering::SeqCst));
        let expected: Vec<_> = (1..=count).map(|number| format!("n{number:08}")).collect();
        assert!(client.children(&root) == expected, "{root}: not the znodes up to {count}");
    }
    assert_eq!(client.children("/ephemerals").len(), 1, "sessions are in the copy");
    assert_eq!(client.create("/new", b"", PERSISTENT).err, 0);
}

fn check(backend: &'static str, cores: u16) {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let setup = Setup::new(backend, cores, &data).with("snapCount=500");
    let server = setup.start();
    let mut keeper = server.client();
    for path in ["/w0", "/w1", "/w2", "/ephemerals"] {
        assert_eq!(keeper.create(path, b"0", PERSISTENT).err, 0);
    }
    assert_eq!(keeper.create("/ephemerals/a", b"", EPHEMERAL).err, 0);
    let progress: Vec<_> = (0..WRITERS).map(|_| Progress::default()).collect();
    let acknowledged = || -> Vec<u64> {
        progress.iter().map(|one| one.acknowledged.load(Ordering::SeqCst)).collect()
    };
    let mut clients: Vec<_> = (0..WRITERS).map(|_| server.client()).collect();
    let kill = server.killer();
    let killed = folder.path().join("killed");
    let ended = std::thread::scope(|scope| {
        for (writer, (client, progress)) in clients.iter_mut().zip(&progress).enumerate() {
            scope.spawn(move || write(client, writer, progress));
        }
        let mut wanted = WRITES_MIN;
        for round in 0..ROUNDS {
            while acknowledged().iter().any(|count| *count < wanted) {
                std::thread::yield_now();
            }
            let copy = folder.path().join(format!("copy{round}"));
            let least = acknowledged();
            let text = said(&backup(&data, &copy).output().unwrap());
            assert!(text.contains("source     a running server"), "{text}");
            let server = Setup::new(backend, 1, &copy).start();
            check_copy(&server, &least, &progress);
            server.terminate();
            wanted = acknowledged().iter().max().unwrap() + WRITES_MIN;
        }
        // And one that loses its server, sooner or later.
        let last = backup(&data, &killed).spawn().unwrap();
        let kill_at = acknowledged()[0] + fastrand::u64(0..WRITES_MIN);
        while acknowledged()[0] < kill_at {
            std::thread::yield_now();
        }
        kill();
        last.wait_with_output().unwrap()
    });
    server.wait();
    let refused = Setup::new(backend, 1, &killed);
    if ended.status.success() {
        check_copy(&refused.start(), &[0; WRITERS], &progress);
    } else {
        assert!(!killed.join("ringkeeper/manifest").exists(), "half a copy counts for nothing");
    }
    let copy = folder.path().join("stopped");
    let text = said(&backup(&data, &copy).output().unwrap());
    assert!(text.contains("source     a stopped server"), "{text}");
    check_copy(&Setup::new(backend, 1, &copy).start(), &acknowledged(), &progress);
    assert!(!backup(&data, &copy).output().unwrap().status.success(), "nothing is overwritten");
}

#[test]
fn a_backup_under_load_has_all_that_was_acknowledged_before_with_io_uring() {
    check("io_uring", 2);
}

#[test]
fn a_backup_under_load_has_all_that_was_acknowledged_before_with_epoll() {
    check("epoll", 1);
}

#[test]
fn a_backup_that_was_ended_is_no_data_and_is_begun_anew() {
    let folder = TempDir::new().unwrap();
    let (data, copy) = (folder.path().join("data"), folder.path().join("copy"));
    let server = Setup::new("epoll", 1, &data).start();
    let ours = copy.join("ringkeeper");
    std::fs::create_dir_all(ours.join("generation.1")).unwrap();
    std::fs::write(ours.join("generation.1/snapshot.0000000000000001"), b"part").unwrap();
    std::fs::write(ours.join("importing"), b"").unwrap();
    let (code, log) = Setup::new("epoll", 1, &copy).refused();
    assert!(code == 3 && log.contains("was not finished"), "{code}: {log}");
    said(&backup(&data, &copy).output().unwrap());
    Setup::new("epoll", 1, &copy).start().terminate();
    server.terminate();
    assert!(!data.join("ringkeeper/door").exists(), "the door goes with its server");
}
