//! Looks up the names of members, beside the cores: a lookup may take many seconds.
//!
//! Each member that is called by a name has a thread of its own, begun when it is first dialled,
//! so that a name server that is silent about one holds up no other. Addresses need no thread.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use engine::ids::{LinkId, ServerId};
use rustix::event::{EventfdFlags, eventfd};

use crate::threads;

/// Names or addresses, with ports.
pub(super) type Hosts = Vec<(String, u16)>;

#[derive(Debug)]
struct Job {
    link: LinkId,
    hosts: Hosts,
}

#[derive(Debug)]
pub(super) struct Resolver {
    workers: BTreeMap<ServerId, Sender<Job>>,
    answers: Receiver<(LinkId, Vec<SocketAddr>)>,
    answering: Sender<(LinkId, Vec<SocketAddr>)>,
    signal: Arc<OwnedFd>,
    /// Asked anew for each dial: the name may lead elsewhere by then. Tests put another here.
    pub(super) look_up: fn(&Hosts) -> Vec<SocketAddr>,
}

impl Resolver {
    pub(super) fn new() -> io::Result<Self> {
        let signal = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (answering, answers) = mpsc::channel();
        Ok(Self { workers: BTreeMap::new(), answers, answering, signal, look_up })
    }

    /// Can be read when there are answers.
    pub(super) fn signal(&self) -> &OwnedFd {
        &self.signal
    }

    /// The addresses of these hosts, if they need no looking up. Otherwise there will be an answer
    /// for `link`, unless no thread can be had, which is as if the names were unknown.
    pub(super) fn resolve(
        &mut self,
        peer: ServerId,
        link: LinkId,
        hosts: Hosts,
    ) -> Option<Vec<SocketAddr>> {
        if let Some(addresses) = literal(&hosts) {
            return Some(addresses);
        }
        let jobs = match self.workers.get(&peer) {
            Some(jobs) => jobs.clone(),
            None => match self.start(peer) {
                Ok(jobs) => jobs,
                Err(error) => {
                    tracing::warn!(server = peer.0, "its name cannot be looked up: {error}");
                    return Some(Vec::new());
                }
            },
        };
        jobs.send(Job { link, hosts }).expect("a worker lives as long as its sender");
        None
    }

    pub(super) fn resolved(&mut self) -> Option<(LinkId, Vec<SocketAddr>)> {
        let answer = self.answers.try_recv().ok();
        if answer.is_none() {
            // Taken first, it might be given again between the two: then there is one more look.
            let mut count = [0; 8];
            let _nothing_given = rustix::io::read(&*self.signal, &mut count);
            return self.answers.try_recv().ok();
        }
        answer
    }

    fn start(&mut self, peer: ServerId) -> io::Result<Sender<Job>> {
        let (jobs, inbox) = mpsc::channel();
        let (answering, signal) = (self.answering.clone(), Arc::clone(&self.signal));
        let look_up = self.look_up;
        let work = move || run(&inbox, &answering, &signal, look_up);
        // Nobody waits for its end: a lookup under way cannot be ended.
        threads::start(format!("resolver-{peer}"), work)?;
        self.workers.insert(peer, jobs.clone());
        Ok(jobs)
    }
}

/// The addresses of hosts that are all given by address.
fn literal(hosts: &Hosts) -> Option<Vec<SocketAddr>> {
    let address = |(host, port): &(String, u16)| {
        host.parse::<IpAddr>().ok().map(|host| SocketAddr::new(host, *port))
    };
    hosts.iter().map(address).collect()
}

fn run(
    jobs: &Receiver<Job>,
    answers: &Sender<(LinkId, Vec<SocketAddr>)>,
    signal: &OwnedFd,
    look_up: fn(&Hosts) -> Vec<SocketAddr>,
) {
    while let Ok(job) = jobs.recv() {
        // What waited during a slow lookup is about the same names.
        let waiting: Vec<_> = jobs.try_iter().collect();
        for Job { link, hosts } in std::iter::once(job).chain(waiting) {
            if answers.send((link, look_up(&hosts))).is_err() {
                return;
            }
            let one = 1_u64.to_le_bytes();
            let _is_signalled_already = rustix::io::write(signal, &one);
        }
    }
}

/// All addresses of all hosts; a name that is not known has none.
fn look_up(hosts: &Hosts) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for (host, port) in hosts {
        match (host.as_str(), *port).to_socket_addrs() {
            Ok(found) => addresses.extend(found),
            Err(error) => tracing::warn!(host, "cannot be looked up: {error}"),
        }
    }
    addresses.dedup();
    addresses
}
