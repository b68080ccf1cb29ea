//! Compares the server's own ring with two async runtimes at what a core does all day: small
//! requests over many connections. `cargo bench -p ringkeeper-bench --bench runtime`; the figures
//! and what followed from them are in `docs/decisions/001-own-ring.md`.
//!
//! Every contestant is the same program in a process of its own, on one thread: it returns what it
//! receives, at once. The load comes from this process, by the same client for all: so many
//! connections, each with so many requests of 64 bytes under way. Contestants take turns, and
//! medians are printed, because a machine has good and bad seconds.

use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, mem};

use anyhow::{Context as _, bail};
use engine::disk::AlignedBuf;
use server::ring::{self, Backend, Config, Handler, ListenerId, Ring, Slot};

const REQUEST_BYTES: usize = 64;
/// (connections, requests under way on each)
const LOADS: [(usize, usize); 3] = [(1, 1), (16, 1), (128, 16)];
const CONTESTANTS: [&str; 4] = ["ring on io_uring", "ring on epoll", "glommio", "tokio"];

/// How often, and how long each time. With `--test`, once and for a moment, to see that it works.
struct Budget {
    rounds: usize,
    warm_up: Duration,
    measured: Duration,
}
const USUAL: Budget = Budget {
    rounds: 5,
    warm_up: Duration::from_millis(300),
    measured: Duration::from_millis(1500),
};
const TRIAL: Budget =
    Budget { rounds: 1, warm_up: Duration::from_millis(10), measured: Duration::from_millis(50) };
const IDLE_CONNECTIONS: usize = 5000;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().collect();
    if let Some(position) = arguments.iter().position(|argument| argument == "--serve") {
        let contestant = arguments.get(position + 1).context("--serve needs a contestant")?;
        return serve(contestant);
    }
    let budget = if arguments.iter().any(|it| it == "--test") { TRIAL } else { USUAL };
    for (connections, depth) in LOADS {
        println!("{connections} connections, {depth} requests under way on each:");
        let mut figures: Vec<Vec<Figure>> = CONTESTANTS.iter().map(|_| Vec::new()).collect();
        for _ in 0..budget.rounds {
            for (contestant, figures) in CONTESTANTS.iter().zip(&mut figures) {
                figures.push(measure_load(contestant, connections, depth, &budget)?);
            }
        }
        for (contestant, figures) in CONTESTANTS.iter().zip(figures) {
            let cpu = median(figures.iter().map(|figure| figure.cpu_us).collect());
            let rate = median(figures.iter().map(|figure| figure.per_second).collect());
            println!("  {contestant:<16} {cpu:6.2} us of CPU per request, {rate:8.0}/s");
        }
    }
    println!("memory of the process per idle connection, after one request on each:");
    for contestant in CONTESTANTS {
        let bytes = measure_idle(contestant)?;
        println!("  {contestant:<16} {bytes:6.0} bytes");
    }
    Ok(())
}

/// What one contestant did under one load.
struct Figure {
    cpu_us: f64,
    per_second: f64,
}

fn measure_load(
    contestant: &str,
    connections: usize,
    depth: usize,
    budget: &Budget,
) -> anyhow::Result<Figure> {
    let server = Server::start(contestant)?;
    let mut clients = Clients::new()?;
    clients.connect(server.address, connections)?;
    clients.begin(depth)?;
    clients.run_for(budget.warm_up)?;
    let (cpu_before, answers_before) = (server.cpu()?, clients.load.answers());
    let start = Instant::now();
    clients.run_for(budget.measured)?;
    let seconds = start.elapsed().as_secs_f64();
    let answers = (clients.load.answers() - answers_before) as f64;
    let cpu = server.cpu()? - cpu_before;
    Ok(Figure { cpu_us: cpu.as_secs_f64() * 1e6 / answers, per_second: answers / seconds })
}

fn measure_idle(contestant: &str) -> anyhow::Result<f64> {
    let server = Server::start(contestant)?;
    let mut clients = Clients::new()?;
    // What the first connections cost once is not the price of each.
    clients.connect(server.address, 1000)?;
    clients.ask_once()?;
    let before = server.anonymous_bytes()?;
    clients.connect(server.address, IDLE_CONNECTIONS)?;
    clients.ask_once()?;
    let after = server.anonymous_bytes()?;
    Ok((after - before) / IDLE_CONNECTIONS as f64)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A contestant in its own process.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(contestant: &str) -> anyhow::Result<Self> {
        let mut process = Command::new(env::current_exe()?)
            .args(["--serve", contestant])
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().context("the output was piped")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim().parse().context("the server prints its address")?;
        Ok(Self { process, address })
    }

    /// CPU time of all its threads.
    fn cpu(&self) -> anyhow::Result<Duration> {
        let mut nanos = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
            let spent = schedstat.split(' ').next().context("schedstat begins with CPU time")?;
            nanos += spent.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanos))
    }

    fn anonymous_bytes(&self) -> anyhow::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find(|line| line.starts_with("RssAnon:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        let kib: f64 = number.context("RssAnon is in the status")?.parse()?;
        Ok(kib * 1024.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.process.kill().and_then(|()| self.process.wait());
        if let Err(error) = ended {
            eprintln!("a server process could not be ended: {error}");
        }
    }
}

/// The load: every answer is followed by the next request.
struct Clients {
    ring: Ring,
    load: Load,
}

#[derive(Default)]
struct Load {
    connected: Vec<Slot>,
    /// Bytes received and not followed by a request yet, by slot.
    owed: Vec<usize>,
    is_sending: Vec<bool>,
    /// Slots that may have something to send.
    due: Vec<Slot>,
    received_bytes: u64,
    is_echoing: bool,
    error: Option<io::Error>,
}

impl Clients {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { ring: Ring::new(Backend::Epoll, &Config::default())?, load: Load::default() })
    }

    /// Makes `count` connections in addition to those there are.
    fn connect(&mut self, address: SocketAddr, count: usize) -> anyhow::Result<()> {
        let wanted = self.load.connected.len() + count;
        self.load.owed.resize(wanted, 0);
        self.load.is_sending.resize(wanted, false);
        for _ in 0..count {
            let stream = std::net::TcpStream::connect(address)?;
            self.load.connected.push(self.ring.adopt(stream.into())?);
        }
        Ok(())
    }

    /// Puts `depth` requests under way on every connection and keeps it so.
    fn begin(&mut self, depth: usize) -> anyhow::Result<()> {
        self.load.is_echoing = true;
        for slot in self.load.connected.clone() {
            self.load.owe(slot, depth * REQUEST_BYTES);
        }
        self.send_due()
    }

    fn run_for(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn(Duration::from_millis(100))?;
            self.send_due()?;
        }
        Ok(())
    }

    /// Sends one request on every connection and waits for all answers.
    fn ask_once(&mut self) -> anyhow::Result<()> {
        let wanted = self.load.received_bytes + (self.load.connected.len() * REQUEST_BYTES) as u64;
        for slot in self.load.connected.clone() {
            self.load.owe(slot, REQUEST_BYTES);
        }
        self.send_due()?;
        while self.load.received_bytes < wanted || self.load.is_sending.contains(&true) {
            self.turn(Duration::from_secs(5))?;
        }
        Ok(())
    }

    fn turn(&mut self, timeout: Duration) -> anyhow::Result<()> {
        self.ring.turn(Some(timeout), &mut self.load)?;
        match self.load.error.take() {
            Some(error) => Err(error).context("a connection broke"),
            None => Ok(()),
        }
    }

    fn send_due(&mut self) -> anyhow::Result<()> {
        for slot in mem::take(&mut self.load.due) {
            let owed = &mut self.load.owed[slot.index()];
            if *owed == 0 || self.load.is_sending[slot.index()] {
                continue;
            }
            if self.ring.send(slot, vec![7; mem::take(owed)]).is_err() {
                bail!("a connection is gone");
            }
            self.load.is_sending[slot.index()] = true;
        }
        Ok(())
    }
}

impl Load {
    fn answers(&self) -> u64 {
        self.received_bytes / REQUEST_BYTES as u64
    }

    fn owe(&mut self, slot: Slot, bytes: usize) {
        self.owed[slot.index()] += bytes;
        self.due.push(slot);
    }
}

impl Handler for Load {
    fn on_accept(&mut self, _listener: ListenerId, _socket: OwnedFd, _peer: SocketAddr) {}

    fn on_accept_paused(&mut self, _listener: ListenerId, _error: &io::Error) {}

    fn on_received(&mut self, slot: Slot, bytes: &[u8]) {
        self.received_bytes += bytes.len() as u64;
        if self.is_echoing {
            self.owe(slot, bytes.len());
        }
    }

    fn on_eof(&mut self, _slot: Slot) {
        self.error = Some(io::ErrorKind::UnexpectedEof.into());
    }

    fn on_sent(&mut self, slot: Slot, _buffer: Vec<u8>) {
        self.is_sending[slot.index()] = false;
        self.due.push(slot);
    }

    fn on_closed(&mut self, _slot: Slot, error: io::Error) {
        self.error = Some(error);
    }

    fn on_written(&mut self, _token: u64, _buffer: AlignedBuf, _result: io::Result<()>) {}

    fn on_wake(&mut self) {}
}

/// The contestants' side: prints its address and answers until it is killed.
fn serve(contestant: &str) -> anyhow::Result<()> {
    match contestant {
        "ring on io_uring" => serve_on_ring(Backend::IoUring),
        "ring on epoll" => serve_on_ring(Backend::Epoll),
        "glommio" => serve_on_glommio(),
        "tokio" => serve_on_tokio(),
        other => bail!("no contestant is called {other}"),
    }
}

/// What a core of the server does: answers are collected per connection, one send each per turn.
#[derive(Default)]
struct Echo {
    accepted: Vec<OwnedFd>,
    peers: Vec<Peer>,
    due: Vec<Slot>,
}

#[derive(Default)]
struct Peer {
    output: Vec<u8>,
    is_sending: bool,
}

impl Echo {
    fn execute(&mut self, ring: &mut Ring) -> io::Result<()> {
        for socket in self.accepted.drain(..) {
            let slot = ring.adopt(socket)?;
            if self.peers.len() <= slot.index() {
                self.peers.resize_with(slot.index() + 1, Peer::default);
            }
        }
        for slot in self.due.drain(..) {
            let peer = &mut self.peers[slot.index()];
            if !peer.is_sending && !peer.output.is_empty() {
                peer.is_sending = ring.send(slot, mem::take(&mut peer.output)).is_ok();
            }
        }
        Ok(())
    }
}

impl Handler for Echo {
    fn on_accept(&mut self, _listener: ListenerId, socket: OwnedFd, _peer: SocketAddr) {
        self.accepted.push(socket);
    }

    fn on_accept_paused(&mut self, _listener: ListenerId, error: &io::Error) {
        eprintln!("accepting nothing for now: {error}");
    }

    fn on_received(&mut self, slot: Slot, bytes: &[u8]) {
        let peer = &mut self.peers[slot.index()];
        if peer.output.is_empty() {
            self.due.push(slot);
        }
        peer.output.extend_from_slice(bytes);
    }

    fn on_eof(&mut self, _slot: Slot) {}

    fn on_sent(&mut self, slot: Slot, _buffer: Vec<u8>) {
        let peer = &mut self.peers[slot.index()];
        peer.is_sending = false;
        if !peer.output.is_empty() {
            self.due.push(slot);
        }
    }

    fn on_closed(&mut self, _slot: Slot, _error: io::Error) {}

    fn on_written(&mut self, _token: u64, _buffer: AlignedBuf, _result: io::Result<()>) {}

    fn on_wake(&mut self) {}
}

fn serve_on_ring(backend: Backend) -> anyhow::Result<()> {
    let mut ring = Ring::new(backend, &Config::default())?;
    let socket = ring::bind(any_port(), 1024)?;
    println!("{}", socket.local_addr()?);
    ring.listen(socket)?;
    let mut echo = Echo::default();
    loop {
        ring.turn(None, &mut echo)?;
        echo.execute(&mut ring)?;
    }
}

fn serve_on_glommio() -> anyhow::Result<()> {
    use futures_lite::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use glommio::net::{TcpListener, TcpStream};

    async fn echo(mut stream: TcpStream) -> io::Result<()> {
        // Room for what one connection has under way.
        let mut buffer = [0; 16 * REQUEST_BYTES];
        loop {
            let count = stream.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            stream.write_all(&buffer[..count]).await?;
        }
    }

    glommio::LocalExecutor::default().run(async {
        let listener = TcpListener::bind(any_port()).map_err(io::Error::from)?;
        println!("{}", listener.local_addr().map_err(io::Error::from)?);
        loop {
            let stream = listener.accept().await.map_err(io::Error::from)?;
            stream.set_nodelay(true).map_err(io::Error::from)?;
            glommio::spawn_local(echo(stream)).detach();
        }
    })
}

fn serve_on_tokio() -> anyhow::Result<()> {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};

    /// Answers what has arrived; gives back what the socket did not take. No buffer is part of the
    /// task, so that idle connections have none.
    fn answer(stream: &TcpStream) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = [0; 16 * REQUEST_BYTES];
        let count = match stream.try_read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            other => other?,
        };
        let sent = match stream.try_write(&buffer[..count]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            other => other?,
        };
        Ok((sent < count).then(|| buffer[sent..count].to_vec()))
    }

    async fn echo(mut stream: TcpStream) -> io::Result<()> {
        loop {
            stream.readable().await?;
            if let Some(rest) = answer(&stream)? {
                stream.write_all(&rest).await?;
            }
        }
    }

    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(any_port()).await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(echo(stream));
        }
    })
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}
