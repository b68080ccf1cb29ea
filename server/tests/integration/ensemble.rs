//! Three processes on the loopback: what a minority's death leaves of writes, connections and
//! service.

use std::fs::File;
use std::io::Read;
use std::iter;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use engine::op::OpCode;
use rustix::process::Signal;
use tempfile::TempDir;

use super::client::{Client, EPHEMERAL, PERSISTENT, new_node, new_session};
use super::server::{DEADLINE, Server, Setup};

/// An ensemble; some of its servers may not run.
pub(crate) struct Ensemble {
    setups: Vec<Setup>,
    servers: Vec<Option<Server>>,
    folder: TempDir,
}

/// Ports that nobody else is given: a member may need long until it binds its own. They lie below
/// those that the kernel hands out, and each process of tests has others.
fn free_ports(count: usize) -> Vec<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 20) as u16 * 1_000;
    let ports = iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed) % 1_000);
    ports.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).take(count).collect()
}

impl Ensemble {
    /// Servers of which the first `voters` vote, all of them started.
    fn start(backend: &'static str, count: usize, voters: usize) -> Self {
        Self::start_with(backend, count, voters, &[])
    }

    /// The same with settings, as `-D` takes them.
    pub(crate) fn start_with(
        backend: &'static str,
        count: usize,
        voters: usize,
        settings: &[&str],
    ) -> Self {
        let mut ensemble = Self::prepare(backend, count, voters, settings);
        ensemble.start_all();
        ensemble
    }

    /// The same without a start.
    fn prepare(backend: &'static str, count: usize, voters: usize, settings: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let ports = free_ports(2 * count);
        let setup = |index: usize| {
            let data = folder.path().join(index.to_string());
            std::fs::create_dir(&data).unwrap();
            std::fs::write(data.join("myid"), (index + 1).to_string()).unwrap();
            let mut setup = Setup::new(backend, 1, &data)
                .with("tickTime=500")
                .with("initLimit=20")
                .with("syncLimit=20")
                .with("4lw.commands.whitelist=*");
            for setting in settings {
                setup = setup.with(setting);
            }
            for (number, ports) in ports.chunks(2).enumerate() {
                let role = if number < voters { "participant" } else { "observer" };
                let line = format!("127.0.0.1:{}:{}:{role}", ports[0], ports[1]);
                setup = setup.with(&format!("server.{}={line}", number + 1));
            }
            setup
        };
        let setups: Vec<_> = (0..count).map(setup).collect();
        let servers = setups.iter().map(|_| None).collect();
        Self { setups, servers, folder }
    }

    fn start_all(&mut self) {
        self.servers = self.setups.iter().map(|setup| Some(setup.start())).collect();
        for index in 0..self.servers.len() {
            self.until_mode(index, |mode| mode.is_some());
        }
    }

    fn data(&self, index: usize) -> PathBuf {
        self.folder.path().join(index.to_string())
    }

    pub(crate) fn server(&self, index: usize) -> &Server {
        self.servers[index].as_ref().unwrap()
    }

    fn server_mut(&mut self, index: usize) -> &mut Server {
        self.servers[index].as_mut().unwrap()
    }

    fn kill(&mut self, index: usize) {
        drop(self.servers[index].take().unwrap());
    }

    /// Starts a server again, and waits until it serves.
    fn restart(&mut self, index: usize) {
        self.servers[index] = Some(self.setups[index].start());
        self.until_mode(index, |mode| mode.is_some());
    }

    /// What a server says that it is, if it serves.
    fn mode(&self, index: usize) -> Option<String> {
        let answer = self.server(index).word("srvr");
        answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::to_owned)
    }

    fn until_mode(&self, index: usize, is_right: impl Fn(Option<&str>) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let mode = self.mode(index);
            if is_right(mode.as_deref()) {
                return;
            }
            assert!(Instant::now() < deadline, "server {} is {mode:?}", index + 1);
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    pub(crate) fn leader(&self) -> usize {
        let is_leader = |index: &usize| {
            self.servers[*index].is_some() && self.mode(*index).as_deref() == Some("leader")
        };
        (0..self.servers.len()).find(is_leader).unwrap()
    }

    fn follower(&self) -> usize {
        let leader = self.leader();
        (0..self.servers.len()).find(|index| *index != leader).unwrap()
    }
}

/// Makes znodes with these numbers.
fn write(client: &mut Client, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let reply = client.create(&format!("/n{number:04}"), &number.to_be_bytes(), PERSISTENT);
        assert_eq!(reply.err, 0, "{number}");
    }
}

/// The server has, after a sync, exactly the znodes up to this number.
fn check(server: &Server, count: u32) {
    let mut client = server.client();
    let synced = client.call(OpCode::Sync, |writer| writer.string("/"));
    assert_eq!(synced.err, 0);
    let mut names = client.children("/");
    names.retain(|name| name.starts_with('n'));
    let expected: Vec<_> = (0..count).map(|number| format!("n{number:04}")).collect();
    assert_eq!(names, expected);
    let last = count - 1;
    assert_eq!(client.data(&format!("/n{last:04}")), Ok(last.to_be_bytes().to_vec()));
}

/// The leader is killed, again and again: each time the survivors' clients go on with the same
/// connection, and who comes back has everything.
fn leaders_die(backend: &'static str) {
    let mut ensemble = Ensemble::start(backend, 3, 3);
    let mut count = 0;
    for round in 0..3 {
        let (leader, follower) = (ensemble.leader(), ensemble.follower());
        let mut client = ensemble.server(follower).client();
        let ephemeral = format!("/e{round}");
        assert_eq!(client.create(&ephemeral, b"", EPHEMERAL).err, 0);
        write(&mut client, count..count + 20);
        count += 20;
        ensemble.kill(leader);
        // No Disconnected: the connection waits, and answers.
        write(&mut client, count..count + 20);
        count += 20;
        assert_eq!(client.exists(&ephemeral, false).err, 0, "the session lives");
        check(ensemble.server(follower), count);
        ensemble.restart(leader);
        check(ensemble.server(leader), count);
    }
}

#[test]
fn writes_and_connections_survive_dead_leaders_with_io_uring() {
    leaders_die("io_uring");
}

#[test]
fn writes_and_connections_survive_dead_leaders_with_epoll() {
    leaders_die("epoll");
}

#[test]
fn a_dead_follower_is_not_waited_for_and_catches_up() {
    let mut ensemble = Ensemble::start("epoll", 3, 3);
    let (leader, follower) = (ensemble.leader(), ensemble.follower());
    let mut client = ensemble.server(leader).client();
    write(&mut client, 0..10);
    ensemble.kill(follower);
    write(&mut client, 10..200);
    ensemble.restart(follower);
    assert_eq!(ensemble.mode(follower).as_deref(), Some("follower"));
    check(ensemble.server(follower), 200);
    write(&mut client, 200..210);
    check(ensemble.server(follower), 210);
}

#[test]
fn without_a_quorum_nobody_is_served_until_there_is_one() {
    let mut ensemble = Ensemble::start("epoll", 3, 3);
    let survivor = ensemble.follower();
    let mut client = ensemble.server(survivor).client();
    write(&mut client, 0..10);
    let lookings = ensemble.server(survivor).metric("zk_looking_count");
    let others: Vec<_> = (0..3).filter(|index| *index != survivor).collect();
    for other in &others {
        ensemble.kill(*other);
    }
    assert!(client.is_closed());
    ensemble.until_mode(survivor, |mode| mode.is_none());
    let server = ensemble.server(survivor);
    assert!(Client::connect(server.address, &new_session()).is_none());
    assert_eq!(server.word("isro"), "null");
    for word in ["conf", "dirs", "crst", "srst"] {
        let refusal = "This ZooKeeper instance is not currently serving requests\n";
        assert_eq!(server.word(word), refusal, "{word}");
    }
    ensemble.restart(others[0]);
    ensemble.until_mode(survivor, |mode| mode.is_some());
    // Nothing was reset: neither what the clients' machines count, nor what the peer's does.
    let server = ensemble.server(survivor);
    assert!(server.metric("zk_cnt_updatelatency") >= 10);
    assert!(server.metric("zk_looking_count") > lookings);
    let mut client = Client::connect(ensemble.server(survivor).address, &client.session.reattach());
    write(client.as_mut().unwrap(), 10..20);
    check(ensemble.server(others[0]), 20);
}

#[test]
fn observers_learn_and_forward_and_do_not_count() {
    let mut ensemble = Ensemble::start("epoll", 4, 3);
    assert_eq!(ensemble.mode(3).as_deref(), Some("observer"));
    let mut client = ensemble.server(3).client();
    write(&mut client, 0..10);
    for index in 0..4 {
        check(ensemble.server(index), 10);
    }
    let leader = ensemble.leader();
    assert_eq!(ensemble.server(leader).metric("zk_learners"), 3);
    assert_eq!(ensemble.server(leader).metric("zk_synced_followers"), 2);
    assert_eq!(ensemble.server(leader).metric("zk_quorum_size"), 3);
    assert!(ensemble.server(3).word("conf").contains("peerType=1\nmembership: \nserver.1="));
    ensemble.kill(3);
    let mut client = ensemble.server(leader).client();
    write(&mut client, 10..20);
    ensemble.restart(3);
    check(ensemble.server(3), 20);
}

#[test]
fn a_server_that_lost_its_data_gets_all_of_it_from_the_leader() {
    let mut ensemble = Ensemble::start("epoll", 3, 3);
    let (leader, follower) = (ensemble.leader(), ensemble.follower());
    let mut client = ensemble.server(leader).client();
    write(&mut client, 0..700);
    ensemble.kill(follower);
    std::fs::remove_dir_all(ensemble.data(follower).join("ringkeeper")).unwrap();
    ensemble.restart(follower);
    check(ensemble.server(follower), 700);
    assert!(ensemble.server(follower).threads().iter().any(|name| name == "memory"));
    write(&mut client, 700..710);
    ensemble.kill(follower);
    ensemble.restart(follower);
    check(ensemble.server(follower), 710);
}

#[test]
fn a_server_that_was_new_once_does_not_vote_after_it_has_lost_its_data() {
    let mut ensemble = Ensemble::prepare("epoll", 3, 3, &[]);
    for index in 0..3 {
        std::fs::write(ensemble.data(index).join("initialize"), "").unwrap();
    }
    ensemble.start_all();
    ensemble.kill(1);
    let mut client = ensemble.server(0).client();
    assert_eq!(client.create("/acknowledged", b"", PERSISTENT).err, 0);
    ensemble.kill(0);
    ensemble.kill(2);
    std::fs::remove_dir_all(ensemble.data(0).join("ringkeeper")).unwrap();
    for index in [0, 1] {
        ensemble.servers[index] = Some(ensemble.setups[index].start());
    }
    // With a vote of the first, these two would be a quorum long before it has said so twice.
    for _ in 0..2 {
        ensemble.server_mut(0).wait_for("this server has no data, so it does not vote");
    }
    assert_eq!((ensemble.mode(0), ensemble.mode(1)), (None, None));
    ensemble.restart(2);
    for index in 0..3 {
        ensemble.until_mode(index, |mode| mode.is_some());
        let mut client = ensemble.server(index).client();
        assert_eq!(client.call(OpCode::Sync, |writer| writer.string("/")).err, 0);
        assert_eq!(client.exists("/acknowledged", false).err, 0, "server {}", index + 1);
    }
}

#[test]
fn a_follower_that_is_further_behind_than_memory_gets_its_part_of_the_log() {
    let mut ensemble = Ensemble::start_with("epoll", 3, 3, &["ringkeeper.historyKb=16"]);
    let (leader, follower) = (ensemble.leader(), ensemble.follower());
    let mut client = ensemble.server(leader).client();
    for number in 0..200 {
        let reply = client.create(&format!("/large{number}"), &[7; 4000], PERSISTENT);
        assert_eq!(reply.err, 0);
    }
    ensemble.kill(follower);
    write(&mut client, 0..300);
    ensemble.restart(follower);
    check(ensemble.server(follower), 300);
    let line = ensemble.server_mut(leader).wait_for("from_log=true");
    assert!(line.contains("place=Behind"), "{line}");
    // A leader that was started again has no more in memory than that.
    ensemble.kill(follower);
    write(&mut client, 300..600);
    ensemble.kill(leader);
    ensemble.restart(leader);
    let leads = ensemble.leader();
    ensemble.restart(follower);
    check(ensemble.server(follower), 600);
    let line = ensemble.server_mut(leads).wait_for("from_log=true");
    assert!(line.contains("place=Behind"), "{line}");
}

#[test]
fn what_a_dead_leader_had_logged_alone_is_cut_when_it_comes_back() {
    let mut ensemble = Ensemble::start("epoll", 3, 3);
    let leader = ensemble.leader();
    let others: Vec<_> = (0..3).filter(|index| *index != leader).collect();
    let mut client = ensemble.server(leader).client();
    write(&mut client, 0..20);
    log_alone(&ensemble, leader, &mut client);
    (0..3).for_each(|index| ensemble.kill(index));
    for other in &others {
        ensemble.servers[*other] = Some(ensemble.setups[*other].start());
    }
    for other in &others {
        ensemble.until_mode(*other, |mode| mode.is_some());
    }
    let mut client = ensemble.server(others[0]).client();
    write(&mut client, 20..40);
    ensemble.restart(leader);
    let line = ensemble.server_mut(leader).seen("cutting the log");
    assert!(line.contains("WARN"), "{line}");
    check(ensemble.server(leader), 40);
    let mut client = ensemble.server(leader).client();
    assert_ne!(client.exists("/tail", false).err, 0);
}

#[test]
fn a_server_that_has_lost_its_quorum_stops_with_writes_under_way() {
    let mut ensemble = Ensemble::start("io_uring", 3, 3);
    let leader = ensemble.leader();
    let others: Vec<_> = (0..3).filter(|index| *index != leader).collect();
    let mut client = ensemble.server(leader).client();
    log_alone(&ensemble, leader, &mut client);
    for other in &others {
        ensemble.kill(*other);
    }
    ensemble.servers[leader].take().unwrap().terminate();
}

#[test]
fn a_second_signal_ends_a_server_whose_stop_waits_for_a_quorum() {
    for (first, second, code) in
        [(Signal::TERM, Signal::INT, 130), (Signal::INT, Signal::TERM, 143)]
    {
        let mut ensemble = Ensemble::start_with("epoll", 3, 3, &["syncLimit=400"]);
        let leader = ensemble.leader();
        let mut client = ensemble.server(leader).client();
        log_alone(&ensemble, leader, &mut client);
        let mut server = ensemble.servers[leader].take().unwrap();
        server.signal(first);
        // Before that has been heard, they would be one.
        server.wait_for("asked to stop");
        server.signal(second);
        let (ended, log) = server.wait();
        assert_eq!(ended, code, "{log}");
    }
}

/// The leader logs a znode `/tail`; the others get the proposal, and do not look at it.
fn log_alone(ensemble: &Ensemble, leader: usize, client: &mut Client) {
    for other in (0..ensemble.servers.len()).filter(|index| *index != leader) {
        ensemble.server(other).freeze();
    }
    client.put(OpCode::Create, |writer| new_node("/tail", b"", PERSISTENT).write(writer));
    client.flush();
    until_logged(&ensemble.data(leader), b"/tail");
}

/// Waits until these bytes are in the beginning of some file of a server's log.
fn until_logged(data: &Path, bytes: &[u8]) {
    let deadline = Instant::now() + DEADLINE;
    let has = |path: &Path| {
        let mut begin = Vec::new();
        let file = File::open(path).and_then(|file| file.take(1 << 20).read_to_end(&mut begin));
        file.is_ok() && begin.windows(bytes.len()).any(|window| window == bytes)
    };
    let generation = data.join("ringkeeper/generation.1");
    while !std::fs::read_dir(&generation).unwrap().flatten().any(|entry| has(&entry.path())) {
        assert!(Instant::now() < deadline, "it is not logged");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn an_election_port_that_somebody_has_is_tried_again() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("myid"), "1").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let setup = Setup::new("epoll", 1, folder.path())
        .with("initLimit=5")
        .with("syncLimit=5")
        .with("multiAddress.enabled=true")
        .with(&format!("server.1=127.0.0.1:1:{port}|127.0.0.2:1:{port}"))
        .with("server.2=127.0.0.1:3:2")
        .with("electionPortBindRetry=0");
    let mut server = setup.spawn();
    let line = server.wait_for("the election port cannot be opened");
    assert!(line.contains("in use"), "{line}");
    drop(taken);
    server.wait_for("serving clients");
    // Each of its addresses is listened at.
    for host in ["127.0.0.1", "127.0.0.2"] {
        TcpStream::connect((host, port)).unwrap();
    }
}
