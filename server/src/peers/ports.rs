//! The ports at which other members connect: the election port always, the learner port while
//! the machine wants it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::Duration;

use engine::time::Instant;
use engine::zab::link::Plane;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::PORT_KEY;
use crate::ring::{self, ACCEPT_PAUSE, AcceptError};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;
/// After this, a port that somebody else has is tried again.
const REOPEN_DELAY: Duration = Duration::from_millis(10);
/// Connections accepted from one port in one turn.
const ACCEPTS_PER_TURN: usize = 64;

/// A member cannot be reached at one of its own addresses.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {error}")]
pub struct BindError {
    /// Where the others would connect.
    pub address: SocketAddr,
    /// Why they cannot.
    pub error: io::Error,
}

/// One listening socket.
#[derive(Debug)]
pub(super) struct Port {
    key: u64,
    plane: Plane,
    listener: TcpListener,
    /// Descriptors ran out: nothing is accepted until then.
    paused_until: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct Ports {
    ports: Vec<Port>,
    next_key: u64,
    /// The learner port is wanted and could not be opened: the next try, and whether that was said.
    reopen: Option<(Instant, bool)>,
}

/// Listens at these addresses, all of them or none.
pub fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, BindError> {
    let bind = |address: &SocketAddr| {
        ring::bind(*address, BACKLOG).map_err(|error| BindError { address: *address, error })
    };
    addresses.iter().map(bind).collect()
}

/// Where to listen for `ports`: at those `addresses`, or at all addresses of the machine.
pub fn listen_addresses(addresses: Vec<SocketAddr>, on_all: bool) -> Vec<SocketAddr> {
    if !on_all {
        return addresses;
    }
    let mut ports: Vec<_> = addresses.iter().map(SocketAddr::port).collect();
    ports.sort_unstable();
    ports.dedup();
    // As for clients: the wildcard of IPv6 takes IPv4 too; without IPv6 it is that of IPv4.
    let wildcard = match ring::bind((Ipv6Addr::UNSPECIFIED, 0).into(), 1) {
        Ok(_) => Ipv6Addr::UNSPECIFIED.into(),
        Err(_) => Ipv4Addr::UNSPECIFIED.into(),
    };
    ports.into_iter().map(|port| SocketAddr::new(wildcard, port)).collect()
}

impl Ports {
    pub(super) fn add(
        &mut self,
        epoll: &OwnedFd,
        listener: TcpListener,
        plane: Plane,
    ) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let key = self.next_key;
        self.next_key += 1;
        epoll::add(epoll, &listener, EventData::new_u64(PORT_KEY | key), EventFlags::IN)?;
        self.ports.push(Port { key, plane, listener, paused_until: None });
        Ok(())
    }

    pub(super) fn open_learner(&mut self, epoll: &OwnedFd, at: &[SocketAddr], now: Instant) {
        let is_open = self.ports.iter().any(|port| port.plane == Plane::Learner);
        if is_open {
            return;
        }
        let opened = bind(at).and_then(|listeners| {
            listeners.into_iter().zip(at).try_for_each(|(listener, address)| {
                let added = self.add(epoll, listener, Plane::Learner);
                added.map_err(|error| BindError { address: *address, error })
            })
        });
        let Err(error) = opened else {
            self.reopen = None;
            return;
        };
        self.ports.retain(|port| port.plane != Plane::Learner);
        let is_said = self.reopen.is_some_and(|(_, is_said)| is_said);
        if !is_said {
            tracing::error!("learners cannot connect, trying again: {error}");
        }
        self.reopen = Some((now.after(REOPEN_DELAY), true));
    }

    pub(super) fn close_learner(&mut self) {
        self.reopen = None;
        self.ports.retain(|port| port.plane != Plane::Learner);
    }

    pub(super) fn learner_addresses(&self) -> Vec<SocketAddr> {
        let learner = self.ports.iter().filter(|port| port.plane == Plane::Learner);
        learner.filter_map(|port| port.listener.local_addr().ok()).collect()
    }

    /// When something is to be tried again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        let paused = self.ports.iter().filter_map(|port| port.paused_until);
        paused.chain(self.reopen.map(|(at, _)| at)).min()
    }

    pub(super) fn run_timers(&mut self, epoll: &OwnedFd, at: &[SocketAddr], now: Instant) {
        if self.reopen.is_some_and(|(at, _)| at <= now) {
            self.open_learner(epoll, at, now);
        }
        for port in &mut self.ports {
            if port.paused_until.is_some_and(|until| until <= now) {
                port.paused_until = None;
                port.set_interest(epoll, EventFlags::IN);
            }
        }
    }

    /// Who has connected to a port.
    pub(super) fn accept(
        &mut self,
        epoll: &OwnedFd,
        key: u64,
        now: Instant,
    ) -> Vec<(OwnedFd, Plane)> {
        let mut accepted = Vec::new();
        // It may have been closed in this turn.
        let Some(port) = self.ports.iter_mut().find(|port| port.key == key) else {
            return accepted;
        };
        while accepted.len() < ACCEPTS_PER_TURN {
            match accept_with(&port.listener, SocketFlags::CLOEXEC) {
                Ok(socket) => accepted.push((socket, port.plane)),
                Err(Errno::AGAIN) => break,
                Err(errno) if AcceptError::of(errno) == AcceptError::Skip => {}
                Err(errno) => {
                    tracing::error!("no connections of peers for a moment: {errno}");
                    port.paused_until = Some(now.after(ACCEPT_PAUSE));
                    port.set_interest(epoll, EventFlags::empty());
                    break;
                }
            }
        }
        accepted
    }
}

impl Port {
    fn set_interest(&self, epoll: &OwnedFd, flags: EventFlags) {
        epoll::modify(epoll, &self.listener, EventData::new_u64(PORT_KEY | self.key), flags)
            .expect("a registered descriptor can be registered differently");
    }
}
