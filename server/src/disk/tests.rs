//! The log on a real directory, through real rings.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant as Clock};

use engine::disk::{Damage, Volume};
use engine::time::Instant;
use engine::txnlog::format::push_txn;
use engine::txnlog::scan::{ScanReport, Sink, scan};
use engine::txnlog::{LogConfig, TxnLog, segments};
use engine::zxid::Zxid;

use super::*;
use crate::ring::{Backend, Config, Handler, ListenerId, Ring, Slot};

/// Counts the transactions, which hold their zxid.
#[derive(Default)]
struct Count(u64);

impl Sink for Count {
    fn txn(&mut self, zxid: Zxid, txn: &[u8]) -> Result<(), Damage> {
        assert_eq!(txn[..8], zxid.0.to_le_bytes());
        self.0 += 1;
        Ok(())
    }
}

/// Keeps what a turn reports about files.
#[derive(Default)]
struct Written(Vec<(u64, AlignedBuf, io::Result<()>)>);

impl Handler for Written {
    fn on_accept(&mut self, _: ListenerId, _: OwnedFd, _: SocketAddr) {}
    fn on_accept_paused(&mut self, _: ListenerId, _: &io::Error) {}
    fn on_received(&mut self, _: Slot, _: &[u8]) {}
    fn on_eof(&mut self, _: Slot) {}
    fn on_sent(&mut self, _: Slot, _: Vec<u8>) {}
    fn on_closed(&mut self, _: Slot, _: io::Error) {}
    fn on_written(&mut self, token: u64, buffer: AlignedBuf, result: io::Result<()>) {
        self.0.push((token, buffer, result));
    }
    fn on_wake(&mut self) {}
}

struct Server {
    ring: Ring,
    disk: Disk,
    log: TxnLog,
    ops: Vec<DiskOp>,
}

fn config(seed: u64) -> LogConfig {
    LogConfig { seed, ..LogConfig::with_segments(256 << 10) }
}

impl Server {
    fn start(backend: Backend, path: &Path, seed: u64) -> (Self, ScanReport) {
        let mut directory = Directory::open(path).unwrap();
        directory.await_writers(&directory.list().unwrap()).unwrap();
        let report = scan(&directory, Zxid::ZERO, &mut Count::default()).unwrap();
        segments::settle(&mut directory, &report).unwrap();
        let ring = Ring::new(backend, &Config::default()).unwrap();
        let waker = ring.waker();
        let disk = Disk::start(directory, &report.end, move || waker.wake()).unwrap();
        let mut ops = Vec::new();
        let log = TxnLog::open(config(seed), report.end.clone(), Instant::ZERO, &mut ops);
        (Self { ring, disk, log, ops }, report)
    }

    fn append(&mut self, bytes: usize) {
        let zxid = Zxid(self.log.submitted().0 + 1);
        let (mut txn, mut body) = (zxid.0.to_le_bytes().to_vec(), Vec::new());
        txn.resize(bytes, 1);
        push_txn(&mut body, &txn);
        self.log.append(Instant::ZERO, (zxid, zxid), &body, &mut self.ops);
    }

    fn turn(&mut self) {
        for op in std::mem::take(&mut self.ops) {
            self.disk.execute(op, &mut |frame| {
                let FrameWrite { file, offset, buffer, token } = frame;
                self.ring.submit_write(file, offset, buffer, token);
            });
        }
        let mut written = Written::default();
        self.ring.turn(Some(Duration::from_secs(1)), &mut written).unwrap();
        for (token, buffer, result) in written.0 {
            let (done, _) = self.disk.on_written(token, buffer, result).unwrap();
            self.log.on_done(Instant::ZERO, done, &mut self.ops);
        }
        while let Some(done) = self.disk.finished().unwrap() {
            self.log.on_done(Instant::ZERO, done, &mut self.ops);
        }
    }

    fn settle(&mut self) {
        let begin = Clock::now();
        while self.log.durable() < self.log.submitted() {
            self.turn();
            assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", self.log);
        }
    }
}

#[test]
fn what_was_durable_is_there_after_a_restart() {
    let mut backends = vec![Backend::Epoll];
    if crate::ring::choose(Some(Backend::IoUring)).is_ok() {
        backends.push(Backend::IoUring);
    }
    let directory = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for (round, backend) in (0..).zip([backends.clone(), backends].concat()) {
        let (mut server, report) = Server::start(backend, directory.path(), round);
        assert_eq!((report.end.zxid, report.txns), (Zxid(seen), seen));
        for bytes in [8, 100, 50_000, 200_000, 9, 10, 150_000, 12] {
            server.append(bytes);
        }
        server.settle();
        for _ in 0..20 {
            server.append(20);
            server.settle();
        }
        seen += 28;
    }
}

#[test]
fn segments_that_are_given_up_are_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let (mut server, _) = Server::start(Backend::Epoll, directory.path(), 1);
    for _ in 0..20 {
        server.append(100_000);
        server.settle();
        let durable = server.log.durable();
        server.log.purge(durable, &mut server.ops);
    }
    // Until nobody renames files any more.
    while !server.ops.is_empty() || !server.disk.is_idle() {
        server.turn();
    }
    let bytes: u64 = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes <= 8 * (256 << 10), "{bytes} bytes on disk");
}

#[test]
fn files_that_are_full_are_not_kept_open() {
    let directory = tempfile::tempdir().unwrap();
    let (mut server, _) = Server::start(Backend::Epoll, directory.path(), 1);
    for _ in 0..20 {
        server.append(200_000);
        server.settle();
    }
    let open = server.disk.segments.len();
    assert!(open <= 5, "{open} of 20");
}

#[test]
fn files_are_filled_in_haste_while_the_log_or_somebody_may_have_to_wait() {
    let directory = tempfile::tempdir().unwrap();
    let (mut server, _) = Server::start(Backend::Epoll, directory.path(), 1);
    assert!(server.disk.thread.hurries(), "there is no segment");
    // Segments have 256 KiB: the second ends beyond the half of one, the third is in another.
    for (bytes, hurries) in [(100, false), (150_000, true), (110_000, false), (30_000, true)] {
        server.append(bytes);
        server.settle();
        assert_eq!(server.disk.thread.hurries(), hurries, "behind {bytes} bytes");
    }
    drop(server);
    let (mut server, _) = Server::start(Backend::Epoll, directory.path(), 2);
    assert!(server.disk.thread.hurries(), "the log goes on beyond the half");
    server.append(120_000);
    server.settle();
    assert!(!server.disk.thread.hurries());
    for is_awaited in [true, false] {
        server.disk.set_awaited(is_awaited);
        assert_eq!(server.disk.thread.hurries(), is_awaited);
    }
}

#[test]
fn a_failed_append_is_an_error_with_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let (mut server, _) = Server::start(Backend::Epoll, directory.path(), 1);
    while server.log.durable() == Zxid::ZERO {
        if server.log.submitted() == Zxid::ZERO {
            server.append(100);
        }
        server.turn();
    }
    server.append(100);
    let mut token = None;
    for op in std::mem::take(&mut server.ops) {
        server.disk.execute(op, &mut |frame| token = Some((frame.token, frame.buffer)));
    }
    let (token, buffer) = token.unwrap();
    let failed = Err(io::Error::from(io::ErrorKind::StorageFull));
    let error = server.disk.on_written(token, buffer, failed).unwrap_err();
    assert!(error.is_no_space() && error.file.starts_with("log."), "{error}");
}
