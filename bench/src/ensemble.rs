//! Servers that are started together: one, or an ensemble, from one template.
//!
//! Each has a directory of its own, `server-1` and so on, its own ports and its own config. In the
//! template `{id}`, `{port}`, `{peer_port}` and `{election_port}` are a server's own, `{members}`
//! are the `server.N=` lines of all, `{hosts}` the addresses for clients, `{port_1}` and so on the
//! ports of a certain one.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use crate::failover::stages::LEADING;
use crate::ports::Ports;
use crate::relay::Relays;
use crate::server::{Server, Template, Variables};

/// How long a server may take to say what it is.
const WORD_WAIT: Duration = Duration::from_secs(1);
/// How long an ensemble that serves may take to name its leader,
const LEADER_WAIT: Duration = Duration::from_secs(10);
/// and the pause between two questions.
const LEADER_PAUSE: Duration = Duration::from_millis(20);

/// Servers that belong together.
#[derive(Debug)]
pub struct Ensemble {
    /// They, by id from 1.
    pub servers: Vec<Server>,
    /// What stands between them, if anything does.
    pub relays: Option<Relays>,
}

impl Ensemble {
    /// Prepares all servers of a template. Starts nothing.
    pub fn prepare(
        template: &Template,
        variables: &Variables,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        Self::prepare_with(template, 0, false, variables, directory)
    }

    /// As [`Ensemble::prepare`], with observers beside the template's servers, and with relays
    /// between all of them that can cut one off.
    pub fn prepare_with(
        template: &Template,
        observers: usize,
        is_relayed: bool,
        variables: &Variables,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        ensure!(template.servers > 0, "{}: servers must be at least 1", template.name);
        let (voters, count) = (template.servers, template.servers + observers);
        let ports = Ports::find(count)?;
        let relays = is_relayed.then(|| Relays::start(&ports)).transpose()?;
        let servers = (0..count).map(|index| {
            let directory = directory.join(format!("server-{}", index + 1));
            let seen = relays.as_ref().map_or(ports.as_slice(), |relays| relays.view(index));
            Server::prepare_member(template, variables, &directory, seen, voters, index)
        });
        Ok(Self { servers: servers.collect::<anyhow::Result<_>>()?, relays })
    }

    /// Starts all and waits until each serves.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.servers.iter_mut().try_for_each(Server::start)?;
        self.servers.iter_mut().try_for_each(|server| server.wait_serving().map(drop))
    }

    /// Where they serve, by id.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|server| server.address).collect()
    }

    /// The processes of those that run.
    pub fn pids(&self) -> Vec<u32> {
        self.servers.iter().filter_map(Server::pid).collect()
    }

    /// Which server leads. The only one leads itself.
    pub fn leader(&self) -> anyhow::Result<usize> {
        let begin = Instant::now();
        loop {
            let leads = |server: &Server| ask_mode(server.address).as_deref() == Some("leader");
            let found = match self.servers.len() {
                1 => Some(0),
                _ => self.servers.iter().position(leads).or_else(|| self.latest_to_lead()),
            };
            match found {
                Some(index) => return Ok(index),
                None if begin.elapsed() > LEADER_WAIT => bail!("no server says that it leads"),
                None => thread::sleep(LEADER_PAUSE),
            }
        }
    }

    /// The server that logged last that it leads, for those that do not tell it when asked.
    fn latest_to_lead(&self) -> Option<usize> {
        let moments = self.servers.iter().enumerate().filter_map(|(index, server)| {
            let log = server.log_from(0).ok()?;
            let line = log.lines().rfind(|line| line.contains(LEADING))?;
            // Lines begin with the time, in a form that sorts.
            Some((line.to_owned(), index))
        });
        moments.max().map(|(_, index)| index)
    }
}

/// What a server says about itself in answer to the four-letter word `srvr`.
fn ask_mode(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, WORD_WAIT).ok()?;
    stream.set_read_timeout(Some(WORD_WAIT)).ok()?;
    stream.write_all(b"srvr").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let mode = answer.lines().find_map(|line| line.strip_prefix("Mode: "))?;
    Some(mode.trim().to_owned())
}
