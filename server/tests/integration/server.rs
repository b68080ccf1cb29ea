//! A server process of a test: started, watched through its log, stopped or killed.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::client::Client;

/// Longer than anything takes, on however busy a machine.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// How a server is started.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    backend: &'static str,
    cores: u16,
    data: PathBuf,
    arguments: Vec<String>,
    /// What a shell does before it becomes the server.
    limits: &'static str,
}

impl Setup {
    pub(crate) fn new(backend: &'static str, cores: u16, data: &Path) -> Self {
        Self { backend, cores, data: data.to_owned(), arguments: Vec::new(), limits: ":" }
    }

    /// The same with a setting, as `-D` takes it.
    pub(crate) fn with(mut self, define: &str) -> Self {
        self.arguments.extend(["-D".to_owned(), define.to_owned()]);
        self
    }

    /// The same under limits of the system, as `ulimit` sets them.
    pub(crate) fn under(self, limits: &'static str) -> Self {
        Self { limits, ..self }
    }

    /// Starts a server, and does not wait for anything.
    pub(crate) fn spawn(&self) -> Server {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{} && exec \"$@\"", self.limits), "sh"]);
        command.arg(env!("CARGO_BIN_EXE_ringkeeper"));
        command.args(["--listen", "127.0.0.1:0", "--backend", self.backend]);
        command.args(["--cores", &self.cores.to_string()]).arg("--data-dir").arg(&self.data);
        command.args(&self.arguments).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // Whoever does not listen any more still wants the pipe to be read.
                drop(sender.send(line));
            }
        });
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Server { child, address, lines, seen: Vec::new() }
    }

    /// Starts a server that serves.
    pub(crate) fn start(&self) -> Server {
        let mut server = self.spawn();
        let line = server.wait_for("serving clients");
        let (_, rest) = line.split_once("address=").unwrap();
        server.address = rest.split_whitespace().next().unwrap().parse().unwrap();
        server
    }

    /// Starts a server that must not serve: its exit code and all that it said.
    pub(crate) fn refused(&self) -> (i32, String) {
        self.spawn().wait()
    }
}

/// A server that runs. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Server {
    /// Starts one with all defaults, in a directory that is gone after the test.
    pub(crate) fn fresh(backend: &'static str, cores: u16) -> (Self, TempDir) {
        let folder = TempDir::new().unwrap();
        (Setup::new(backend, cores, folder.path()).start(), folder)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of the log that has `part` in it.
    pub(crate) fn wait_for(&mut self, part: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no {part:?} in {:#?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("ended without {part:?}: {:#?}", self.seen)
                }
            }
        }
    }

    /// A line of the log that has `part` in it, and that was written by now.
    pub(crate) fn seen(&mut self, part: &str) -> String {
        match self.seen.iter().find(|line| line.contains(part)) {
            Some(line) => line.clone(),
            None => self.wait_for(part),
        }
    }

    /// Waits for the end of the process: the code that a shell has for it, 128 more than its number
    /// if a signal ended it, and the whole log.
    pub(crate) fn wait(mut self) -> (i32, String) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout) => panic!("still runs: {:#?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = self.child.wait().unwrap();
        let code = status.code().or(status.signal().map(|signal| 128 + signal));
        (code.unwrap(), std::mem::take(&mut self.seen).join("\n"))
    }

    /// SIGTERM, and the end that must follow from it.
    pub(crate) fn terminate(self) {
        self.stop_by(Signal::TERM);
    }

    /// A signal that asks it to stop, and the end that must follow from it.
    pub(crate) fn stop_by(self, signal: Signal) {
        self.signal(signal);
        let (code, log) = self.wait();
        assert_eq!(code, 0, "{log}");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send_signal(self.pid(), signal);
    }

    /// `kill -9`, from any thread.
    pub(crate) fn killer(&self) -> impl Fn() + Send + Sync + use<> {
        let pid = self.pid();
        move || send_signal(pid, Signal::KILL)
    }

    /// Stops the process where it is: it does nothing more before it is killed or goes on.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        let is_frozen = |task: &Path| {
            let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        };
        let deadline = Instant::now() + DEADLINE;
        while !self.tasks().iter().all(|task| is_frozen(task)) {
            assert!(Instant::now() < deadline, "it goes on");
            thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Lets a process go on that was stopped.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// The names of its threads.
    pub(crate) fn threads(&self) -> Vec<String> {
        let name = |task: &PathBuf| fs::read_to_string(task.join("comm")).ok();
        let names = self.tasks();
        names.iter().filter_map(name).map(|name| name.trim().to_owned()).collect()
    }

    fn tasks(&self) -> Vec<PathBuf> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        tasks.flatten().map(|entry| entry.path()).collect()
    }

    /// A raw connection with a new session.
    pub(crate) fn client(&self) -> Client {
        Client::open(self.address)
    }

    /// The answer to a four-letter word.
    pub(crate) fn word(&self, word: &str) -> String {
        let mut stream = self.stream();
        stream.write_all(word.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        drop(stream.shutdown(Shutdown::Both));
        answer
    }

    /// The value of a key that `mntr` shows.
    pub(crate) fn metric(&self, key: &str) -> u64 {
        let text = self.word("mntr");
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('\t'));
        let value = line.unwrap_or_else(|| panic!("no {key} in\n{text}"));
        value.parse::<f64>().unwrap() as u64
    }

    /// A connection on which nothing was sent yet.
    pub(crate) fn stream(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already where its end was waited for.
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            self.seen.extend(self.lines.try_iter());
            eprintln!("the server's log:\n{}", self.seen.join("\n"));
        }
    }
}

fn send_signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
}
