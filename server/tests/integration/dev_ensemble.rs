//! `ringkeeper dev-ensemble` serves where it says, and leaves no server behind, whichever signals
//! end it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::iter;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Instant;

use engine::op::OpCode;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, kill_process, pidfd_open, pidfd_send_signal,
    set_child_subreaper,
};
use tempfile::TempDir;

use super::client::{Client, PERSISTENT};
use super::server::DEADLINE;

/// Servers that vote.
const VOTERS: u16 = 2;
/// So many servers an ensemble has at most.
const SERVERS_MAX: u16 = VOTERS + 1;

/// An ensemble whose servers all serve. Whatever of it still runs is killed when this is dropped.
struct DevEnsemble {
    process: Child,
    lines: Receiver<String>,
    servers: Vec<OwnedFd>,
    folder: TempDir,
    /// What it said until all served.
    said: Vec<String>,
}

/// The first port of an ensemble that nobody else is given: above those of the other tests, below
/// those that the kernel hands out.
fn base_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 30_000 + (std::process::id() % 20) as u16 * 30;
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let all_free = |base: &u16| {
        (*base..*base + SERVERS_MAX)
            .all(|port| [0, 707, 1707].iter().all(|more| is_free(port + more)))
    };
    let bases = iter::repeat_with(|| first + NEXT.fetch_add(SERVERS_MAX, Ordering::Relaxed) % 30);
    bases.take(15).find(all_free).expect("some ports are free")
}

impl DevEnsemble {
    /// Starts it from a shell that does something `before`.
    fn start(before: &str) -> Self {
        Self::start_with(before, 0)
    }

    /// The same, with servers that only observe.
    fn start_with(before: &str, observers: u16) -> Self {
        // Servers that are left behind come to this process: with init for a parent, the kernel
        // would end those that are stopped.
        set_child_subreaper(Some(getpid())).unwrap();
        // What this process ignores (nohup), its children would ignore as well; what it handles,
        // they do not.
        let heard = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGHUP, heard).unwrap();
        let folder = TempDir::new().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{before}; exec \"$@\""), "sh"]);
        command.args([env!("CARGO_BIN_EXE_ringkeeper"), "dev-ensemble"]);
        command.args(["--servers", &VOTERS.to_string(), "--observers", &observers.to_string()]);
        command.args(["--base-port", &base_port().to_string()]);
        command.arg("--dir").arg(folder.path()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                drop(sender.send(line));
            }
        });
        let mut ensemble = Self { process, lines, servers: Vec::new(), folder, said: Vec::new() };
        let said = ensemble.listen(|line| line.starts_with("connect to "));
        assert!(said.last().is_some_and(|line| line.contains("Ctrl-C stops all")), "{said:#?}");
        let lock = |number: u16| ensemble.folder.path().join(format!("{number}/ringkeeper/lock"));
        let pid = |number| fs::read_to_string(lock(number)).unwrap().trim().parse().unwrap();
        let open = |number| pidfd_open(Pid::from_raw(pid(number)).unwrap(), PidfdFlags::empty());
        let servers = 1..=VOTERS + observers;
        ensemble.servers = servers.map(|number| open(number).unwrap()).collect();
        ensemble.said = said;
        ensemble
    }

    /// What it says until a line is the last, or until it has ended.
    fn listen(&self, is_last: impl Fn(&str) -> bool) -> Vec<String> {
        let (mut said, deadline) = (Vec::new(), Instant::now() + DEADLINE);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => said.push(line),
                Err(RecvTimeoutError::Timeout) => panic!("it goes on: {said:#?}"),
                Err(RecvTimeoutError::Disconnected) => return said,
            }
            if is_last(said.last().unwrap()) {
                return said;
            }
        }
    }

    /// Where clients are told to connect.
    fn addresses(&self) -> Vec<SocketAddr> {
        let last = self.said.last().and_then(|line| line.strip_prefix("connect to "));
        let (list, _) = last.unwrap().split_once("; ").unwrap();
        list.split(',').map(|address| address.parse().unwrap()).collect()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, signal).unwrap();
    }

    fn freeze(&self, server: usize) {
        pidfd_send_signal(&self.servers[server], Signal::STOP).unwrap();
    }

    /// Waits until a server has ended.
    fn until_ended(&self, server: usize) {
        let timeout = Timespec { tv_sec: DEADLINE.as_secs().cast_signed(), tv_nsec: 0 };
        let mut ended = [PollFd::new(&self.servers[server], PollFlags::IN)];
        assert_eq!(poll(&mut ended, Some(&timeout)), Ok(1), "server {} goes on", server + 1);
    }

    /// Waits until it has ended by itself, and all servers with it.
    fn wait(mut self) -> ExitStatus {
        self.listen(|_| false);
        let status = self.process.wait().unwrap();
        (0..self.servers.len()).for_each(|server| self.until_ended(server));
        status
    }
}

impl Drop for DevEnsemble {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
        for server in &self.servers {
            let _ends_already = pidfd_send_signal(server, Signal::KILL);
        }
    }
}

#[test]
fn each_address_that_is_printed_takes_writes_an_observers_too() {
    let ensemble = DevEnsemble::start_with(":", 1);
    let addresses = ensemble.addresses();
    assert_eq!(addresses.len(), 3, "{:#?}", ensemble.said);
    let observes = format!("server 3 serves at {}, observer", addresses[2]);
    assert!(ensemble.said.contains(&observes), "{:#?}", ensemble.said);
    let mut clients: Vec<_> = addresses.into_iter().map(Client::open).collect();
    for (client, path) in clients.iter_mut().zip(["/1", "/2", "/3"]) {
        assert_eq!(client.create(path, b"", PERSISTENT).err, 0, "{path}");
    }
    for client in &mut clients {
        let sync = client.call(OpCode::Sync, |writer| writer.string("/"));
        assert_eq!(sync.err, 0);
        assert_eq!(client.children("/"), ["1", "2", "3", "zookeeper"]);
    }
    // Ctrl-C.
    ensemble.signal(Signal::INT);
    assert_eq!(ensemble.wait().code(), Some(0));
}

#[test]
fn servers_stop_when_the_terminal_is_closed() {
    let ensemble = DevEnsemble::start(":");
    ensemble.signal(Signal::HUP);
    assert_eq!(ensemble.wait().code(), Some(0));
}

#[test]
fn a_signal_kills_servers_that_hang_when_they_are_told_to_stop() {
    let ensemble = DevEnsemble::start(":");
    ensemble.freeze(0);
    ensemble.signal(Signal::INT);
    // So the first one was heard: two that are not would be one.
    ensemble.until_ended(1);
    ensemble.signal(Signal::INT);
    assert_eq!(ensemble.wait().signal(), Some(Signal::INT.as_raw()));
}

#[test]
fn two_signals_at_once_leave_no_server() {
    let ensemble = DevEnsemble::start(":");
    ensemble.freeze(0);
    ensemble.freeze(1);
    ensemble.signal(Signal::INT);
    ensemble.signal(Signal::TERM);
    ensemble.wait();
}

#[test]
fn one_that_is_to_outlive_its_terminal_does() {
    let ensemble = DevEnsemble::start("trap '' HUP");
    ensemble.signal(Signal::HUP);
    // The first one that counts: a second one would kill.
    ensemble.signal(Signal::TERM);
    assert_eq!(ensemble.wait().code(), Some(0));
}
