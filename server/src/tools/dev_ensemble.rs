//! An ensemble on one machine, for trying things out: a process for each server.
//!
//! Each server has its directory, with a `zoo.cfg` and a `myid` as anybody would write them, so
//! that a server can be stopped, started alone, or run by hand. Nothing is restarted.

use std::ffi::c_int;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::DevEnsemble;
use crate::exit::ExitCode;
use crate::signals::{self, Stop};

/// From the port for clients to those for learners and elections: 2181, 2888, 3888 are ZooKeeper's.
const LEARNER_OFFSET: u16 = 707;
const ELECTION_OFFSET: u16 = 1707;
/// How often a server is asked whether it serves.
const ASK_INTERVAL: Duration = Duration::from_millis(50);
/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Why there is no ensemble.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DevEnsembleError {
    /// There are not that many ports.
    #[error("{servers} servers need ports beyond 65535: give a lower --base-port")]
    Ports {
        /// How many were asked for.
        servers: u16,
    },
    /// Somebody else listens there, or nobody may.
    #[error(
        "port {port}: {error}; stop whoever listens there, or give another --base-port (0 takes \
         ports that are free)"
    )]
    Port {
        /// The port.
        port: u16,
        /// Why a server could not listen on it.
        error: io::Error,
    },
    /// Files or processes cannot be made.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        error: io::Error,
    },
    /// All servers have ended by themselves.
    #[error("no server is left; their logs say why")]
    AllEnded,
}

impl DevEnsembleError {
    /// What the process tells whoever started it.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Ports { .. } | Self::Port { .. } => ExitCode::BadInvocation,
            Self::Io { .. } | Self::AllEnded => ExitCode::Unexpected,
        }
    }
}

/// Names what was tried.
fn at(what: impl Into<String>) -> impl FnOnce(io::Error) -> DevEnsembleError {
    let what = what.into();
    move |error| DevEnsembleError::Io { what, error }
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    client: u16,
    learner: u16,
    election: u16,
}

enum Event {
    Serves(usize, String),
    Ended(usize, io::Result<ExitStatus>),
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Serving,
    Ended,
}

struct Server {
    address: SocketAddr,
    state: State,
}

/// The processes that have not ended. The thread of the signals has them as well, so that it can
/// end them whatever the main thread is doing.
#[derive(Clone, Default)]
struct Children(Arc<Mutex<Vec<Pid>>>);

impl Children {
    fn lock(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts one. It is known before anybody can end this process.
    fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let mut pids = self.lock();
        let child = command.spawn()?;
        pids.push(Pid::from_child(&child));
        Ok(child)
    }

    fn forget(&self, ended: Pid) {
        self.lock().retain(|pid| *pid != ended);
    }

    fn signal(&self, signal: Signal) {
        send(&self.lock(), signal);
    }

    /// Ends them all, and this process as a signal does.
    fn end_with(&self, signal: c_int) -> ! {
        // Held to the end: none is started behind it.
        let pids = self.lock();
        send(&pids, Signal::KILL);
        signals::end(signal)
    }
}

fn send(pids: &[Pid], signal: Signal) {
    for pid in pids {
        // One that has ended meanwhile has what it was to get.
        let _ends_already = kill_process(*pid, signal);
    }
}

/// Runs an ensemble until a signal asks for its end.
pub(super) fn run(options: &DevEnsemble, out: &mut impl Write) -> Result<(), DevEnsembleError> {
    let ports = ports(options)?;
    check_free(&ports)?;
    let (sender, events) = mpsc::channel();
    let children = Children::default();
    let (stop, known) = (sender.clone(), children.clone());
    let watching = signals::watch_with_hangup(move |asked| {
        // Whoever sends a second one does not want to wait for servers that may hang.
        if let Stop::Now(signal) = asked {
            known.end_with(signal);
        }
        drop(stop.send(Event::Stop));
        ControlFlow::Continue(())
    });
    watching.map_err(at("watching for signals"))?;
    let mut ensemble = Ensemble::new(options.dir.clone(), children);
    for index in 0..ports.len() {
        let folder = options.dir.join((index + 1).to_string());
        write_files(&folder, index, options, &ports)?;
        let child = ensemble.children.spawn(&mut server(&folder)?);
        let child = child.map_err(at("starting a server"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports[index].client));
        ensemble.servers.push(Server { address, state: State::Starting });
        follow(index, child, address, &ensemble.children, &sender)?;
    }
    ensemble.watch(&events, out)
}

/// The servers. Those that have not ended are killed when this is dropped.
struct Ensemble {
    servers: Vec<Server>,
    children: Children,
    folder: PathBuf,
    /// Whether it was said where to connect to.
    is_told: bool,
}

impl Ensemble {
    fn new(folder: PathBuf, children: Children) -> Self {
        Self { servers: Vec::new(), children, folder, is_told: false }
    }

    fn watch(
        &mut self,
        events: &Receiver<Event>,
        out: &mut impl Write,
    ) -> Result<(), DevEnsembleError> {
        let report = |text: String, out: &mut dyn Write| {
            out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(at("writing"))
        };
        loop {
            match events.recv().expect("the threads of the servers keep it open") {
                // Asked before it ended; or somebody else has its port by now.
                Event::Serves(index, _) if self.servers[index].state == State::Ended => {}
                Event::Serves(index, mode) => {
                    self.servers[index].state = State::Serving;
                    let address = self.servers[index].address;
                    report(format!("server {} serves at {address}, {mode}\n", index + 1), out)?;
                }
                Event::Ended(index, status) => {
                    self.servers[index].state = State::Ended;
                    let status = status.map_err(at("waiting for a server"))?;
                    let log = self.folder.join((index + 1).to_string()).join("log");
                    let log = log.display();
                    report(format!("server {} has ended, {status}: {log}\n", index + 1), out)?;
                    if self.living().next().is_none() {
                        return Err(DevEnsembleError::AllEnded);
                    }
                }
                Event::Stop => return self.stop(events),
            }
            if !self.is_told && self.living().all(|server| server.state == State::Serving) {
                self.is_told = true;
                report(self.summary(), out)?;
            }
        }
    }

    fn living(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|server| server.state != State::Ended)
    }

    fn summary(&self) -> String {
        let all: Vec<_> = self.living().map(|server| server.address.to_string()).collect();
        let folder = self.folder.display();
        format!("connect to {}; data and logs are in {folder}; Ctrl-C stops all\n", all.join(","))
    }

    /// Asks all to stop in good order, and waits until they have.
    fn stop(&mut self, events: &Receiver<Event>) -> Result<(), DevEnsembleError> {
        self.children.signal(Signal::TERM);
        while self.living().next().is_some() {
            if let Event::Ended(index, status) =
                events.recv().expect("the threads of the servers keep it open")
            {
                self.servers[index].state = State::Ended;
                status.map_err(at("waiting for a server"))?;
            }
        }
        Ok(())
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        self.children.signal(Signal::KILL);
    }
}

/// The ports of each server; with a base of 0, any that are free.
fn ports(options: &DevEnsemble) -> Result<Vec<Ports>, DevEnsembleError> {
    let servers = options.servers + options.observers;
    if options.base_port == 0 {
        return free_ports(servers);
    }
    let too_many = || DevEnsembleError::Ports { servers };
    let port = |offset: u16, index: u16| options.base_port.checked_add(offset)?.checked_add(index);
    let of = |index: u16| {
        Some(Ports {
            client: port(0, index)?,
            learner: port(LEARNER_OFFSET, index)?,
            election: port(ELECTION_OFFSET, index)?,
        })
    };
    (0..servers).map(|index| of(index).ok_or_else(too_many)).collect()
}

fn free_ports(servers: u16) -> Result<Vec<Ports>, DevEnsembleError> {
    // All are held until all are known, so that none comes twice.
    let listeners: io::Result<Vec<_>> =
        (0..3 * servers).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect();
    let listeners = listeners.map_err(at("looking for free ports"))?;
    let ports: io::Result<Vec<_>> =
        listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect();
    let ports = ports.map_err(at("looking for free ports"))?;
    let of = |ports: &[u16]| Ports { client: ports[0], learner: ports[1], election: ports[2] };
    Ok(ports.chunks(3).map(of).collect())
}

/// A server that cannot listen ends, and whoever has its port would be taken for it.
fn check_free(ports: &[Ports]) -> Result<(), DevEnsembleError> {
    for port in ports.iter().flat_map(|at| [at.client, at.learner, at.election]) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        listener.map_err(|error| DevEnsembleError::Port { port, error })?;
    }
    Ok(())
}

fn write_files(
    folder: &Path,
    index: usize,
    options: &DevEnsemble,
    ports: &[Ports],
) -> Result<(), DevEnsembleError> {
    let shown = folder.display().to_string();
    fs::create_dir_all(folder).map_err(at(shown.clone()))?;
    let folder = fs::canonicalize(folder).map_err(at(shown.clone()))?;
    let mut text = format!(
        "# Written by ringkeeper dev-ensemble at each start.\n\
         dataDir={}\ntickTime=2000\ninitLimit=10\nsyncLimit=5\n\
         clientPortAddress=127.0.0.1\nclientPort={}\n4lw.commands.whitelist=*\n",
        folder.display(),
        ports[index].client
    );
    for (number, ports) in ports.iter().enumerate() {
        let role = if number < usize::from(options.servers) { "participant" } else { "observer" };
        let Ports { learner, election, .. } = ports;
        let number = number + 1;
        writeln!(text, "server.{number}=127.0.0.1:{learner}:{election}:{role}")
            .expect("writing to a string cannot fail");
    }
    for (name, content) in [("zoo.cfg", text), ("myid", format!("{}\n", index + 1))] {
        fs::write(folder.join(name), content).map_err(at(shown.clone()))?;
    }
    Ok(())
}

/// The command that starts a server.
fn server(folder: &Path) -> Result<Command, DevEnsembleError> {
    let log = File::options().create(true).append(true).open(folder.join("log"));
    let log = log.map_err(at(folder.join("log").display().to_string()))?;
    let program = std::env::current_exe().map_err(at("looking for this program"))?;
    let mut command = Command::new(program);
    command.arg(folder.join("zoo.cfg")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    // Ctrl-C is for us: a server that gets it twice does not end in good order.
    command.process_group(0);
    Ok(command)
}

/// Watches over a process: tells when it serves, and when it has ended.
fn follow(
    index: usize,
    mut child: Child,
    address: SocketAddr,
    children: &Children,
    events: &Sender<Event>,
) -> Result<(), DevEnsembleError> {
    let (pid, known) = (Pid::from_child(&child), children.clone());
    let (asking, waiting) = (events.clone(), events.clone());
    let (gone, is_gone) = mpsc::channel::<()>();
    let named = |name: &str| thread::Builder::new().name(name.to_owned());
    let wait = move || {
        let status = child.wait();
        known.forget(pid);
        drop(gone);
        drop(waiting.send(Event::Ended(index, status)));
    };
    named("waits").spawn(wait).map_err(at("starting a thread"))?;
    let ask = move || {
        let ended = Err(mpsc::RecvTimeoutError::Disconnected);
        while is_gone.recv_timeout(ASK_INTERVAL) != ended {
            if let Some(mode) = mode(address) {
                drop(asking.send(Event::Serves(index, mode)));
                return;
            }
        }
    };
    named("asks").spawn(ask).map_err(at("starting a thread"))?;
    Ok(())
}

/// What a server is, if it serves.
fn mode(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIME).ok()?;
    stream.set_read_timeout(Some(ANSWER_TIME)).ok()?;
    stream.write_all(b"srvr").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn options(servers: u16, base_port: u16) -> DevEnsemble {
        DevEnsemble { servers, observers: 1, dir: PathBuf::new(), base_port }
    }

    #[test]
    fn ports_are_those_of_zookeepers_examples_and_must_exist() {
        let found = ports(&options(3, 2181)).unwrap();
        let shown: Vec<_> = found.iter().map(|at| (at.client, at.learner, at.election)).collect();
        assert_eq!(shown[0], (2181, 2888, 3888));
        assert_eq!(shown[3], (2184, 2891, 3891));
        assert!(ports(&options(3, 65_000)).is_err());
    }

    #[test]
    fn free_ports_are_all_different() {
        let found = ports(&options(3, 0)).unwrap();
        let mut all: Vec<_> =
            found.iter().flat_map(|at| [at.client, at.learner, at.election]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 12);
    }

    #[test]
    fn a_port_that_somebody_has_is_named_before_anything_is_made() {
        let somebody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = somebody.local_addr().unwrap().port();
        // Port 0 is always free.
        let free = Ports { client: 0, learner: 0, election: 0 };
        check_free(&[free]).unwrap();
        for second in [
            Ports { client: taken, ..free },
            Ports { learner: taken, ..free },
            Ports { election: taken, ..free },
        ] {
            let found = check_free(&[free, second]);
            assert!(
                matches!(found, Err(DevEnsembleError::Port { port, .. }) if port == taken),
                "{second:?}: {found:?}"
            );
        }
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("ensemble");
        let options = DevEnsemble { dir: dir.clone(), ..options(2, taken) };
        let refusal = run(&options, &mut Vec::new()).unwrap_err();
        assert_eq!(refusal.exit_code(), ExitCode::BadInvocation);
        let text = refusal.to_string();
        assert!(text.starts_with(&format!("port {taken}: ")), "{text}");
        assert!(text.contains("--base-port"), "{text}");
        assert!(!dir.exists());
    }

    fn told(count: u16, events: impl IntoIterator<Item = Event>) -> String {
        let mut ensemble = Ensemble::new(PathBuf::from("dir"), Children::default());
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let servers =
            (1..=count).map(|port| Server { address: address(port), state: State::Starting });
        ensemble.servers.extend(servers);
        let (sender, receiver) = mpsc::channel();
        events.into_iter().for_each(|event| sender.send(event).unwrap());
        drop(sender);
        let mut out = Vec::new();
        let end = ensemble.watch(&receiver, &mut out);
        assert!(matches!(end, Err(DevEnsembleError::AllEnded)), "{end:?}");
        String::from_utf8(out).unwrap()
    }

    fn serves(index: usize) -> Event {
        Event::Serves(index, "follower".to_owned())
    }

    fn ended(index: usize) -> Event {
        Event::Ended(index, Ok(ExitStatus::from_raw(0)))
    }

    #[test]
    fn who_answers_for_a_server_that_has_ended_is_not_told_of() {
        let said = told(3, [ended(0), serves(0), serves(1), serves(2), ended(1), ended(2)]);
        assert!(!said.contains("server 1 serves"), "{said}");
        assert_eq!(said.matches("connect to 127.0.0.1:2,127.0.0.1:3; ").count(), 1, "{said}");
    }

    #[test]
    fn the_last_to_be_waited_for_may_have_ended() {
        let said = told(2, [serves(1), ended(0), ended(1)]);
        assert!(said.contains("connect to 127.0.0.1:2; "), "{said}");
        let said = told(2, [serves(0), serves(1), ended(0), ended(1)]);
        assert_eq!(said.matches("connect to 127.0.0.1:1,127.0.0.1:2; ").count(), 1, "{said}");
        assert_eq!(said.matches("connect to").count(), 1, "{said}");
    }
}
