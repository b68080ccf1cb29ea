//! TCP relays between the members of an ensemble, so that a member can be cut off without root.
//!
//! Each member is told other addresses for its peers than the peers themselves: those of relays of
//! its own, one for each port of each peer. A relay passes bytes on, in both directions. While its
//! two ends are parted it passes nothing: connections stay open and silent, as behind a cut cable,
//! and what was sent meanwhile arrives when the ends are together again.
//!
//! What is different from a cut cable: somebody who connects meanwhile is accepted at once, by the
//! relay, and hears nothing. And a ZooKeeper that was dialled for an election by a server of a
//! lower id dials back at the address which that server names: a connection past the relays, for
//! the election only.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::Context as _;

use crate::ports::Ports;

/// Bytes that are passed on at once.
const CHUNK_BYTES: usize = 64 << 10;

/// The relays of an ensemble. Dropping them ends all of their connections.
#[derive(Debug)]
pub struct Relays {
    shared: Arc<Shared>,
    /// For each member, the ports of all as it is told them.
    views: Vec<Vec<Ports>>,
    listeners: Vec<SocketAddr>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The member that is cut off from all others.
    parted: Option<usize>,
    is_over: bool,
    /// Both ends of all connections.
    streams: Vec<TcpStream>,
}

/// Between whom a relay is.
#[derive(Clone, Copy, Debug)]
struct Ends {
    from: usize,
    to: usize,
}

impl Relays {
    /// Starts relays between members with these ports.
    pub fn start(ports: &[Ports]) -> anyhow::Result<Self> {
        let mut relays = Self { shared: Arc::default(), views: Vec::new(), listeners: Vec::new() };
        for from in 0..ports.len() {
            let mut view = ports.to_vec();
            for (to, seen) in view.iter_mut().enumerate().filter(|(to, _)| *to != from) {
                let ends = Ends { from, to };
                seen.peer = relays.relay(ends, seen.peer)?;
                seen.election = relays.relay(ends, seen.election)?;
            }
            relays.views.push(view);
        }
        Ok(relays)
    }

    /// The ports of all members as one of them is told them; its own are what they are.
    pub fn view(&self, member: usize) -> &[Ports] {
        &self.views[member]
    }

    /// Cuts a member off from all others.
    pub fn part(&self, member: usize) {
        self.shared.lock().parted = Some(member);
    }

    /// Everybody reaches everybody.
    pub fn heal(&self) {
        self.shared.lock().parted = None;
        self.shared.changed.notify_all();
    }

    /// A relay to a port; its own port.
    fn relay(&mut self, ends: Ends, port: u16) -> anyhow::Result<u16> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for a relay")?;
        let address = listener.local_addr()?;
        self.listeners.push(address);
        let shared = Arc::clone(&self.shared);
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        thread::spawn(move || {
            for accepted in listener.incoming() {
                if shared.lock().is_over {
                    return;
                }
                let Ok(accepted) = accepted else { continue };
                let shared = Arc::clone(&shared);
                thread::spawn(move || connect(&shared, ends, accepted, target));
            }
        });
        Ok(address.port())
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        state.streams.iter().for_each(end);
        drop(state);
        self.shared.changed.notify_all();
        for listener in &self.listeners {
            // Those who wait for connections see that it is over.
            TcpStream::connect(listener).map(drop).unwrap_or_default();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the ends reach each other; false if it is over.
    fn wait(&self, ends: Ends) -> bool {
        let apart = |state: &mut State| {
            let parted = [ends.from, ends.to].map(|end| state.parted == Some(end));
            !state.is_over && parted.contains(&true)
        };
        let state = self.changed.wait_while(self.lock(), apart);
        !state.unwrap_or_else(PoisonError::into_inner).is_over
    }

    /// Remembers a connection until all are ended.
    fn keep(&self, stream: &TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let clone = stream.try_clone()?;
        let mut state = self.lock();
        if state.is_over {
            end(&clone);
        }
        state.streams.push(clone);
        Ok(())
    }
}

/// Passes on what comes on an accepted connection, and what is answered.
fn connect(shared: &Arc<Shared>, ends: Ends, accepted: TcpStream, target: SocketAddr) {
    if !shared.wait(ends) {
        return;
    }
    // Whoever dialled sees a connection that is closed at once, where none was to be had.
    let Ok(dialled) = TcpStream::connect(target) else { return };
    if shared.keep(&accepted).and_then(|()| shared.keep(&dialled)).is_err() {
        return;
    }
    let (Ok(from), Ok(to)) = (accepted.try_clone(), dialled.try_clone()) else { return };
    let answers = Arc::clone(shared);
    thread::spawn(move || pass_on(&answers, ends, to, from));
    pass_on(shared, ends, accepted, dialled);
}

/// One direction, until it ends.
fn pass_on(shared: &Shared, ends: Ends, mut from: TcpStream, mut to: TcpStream) {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = from.read(&mut chunk);
        if !shared.wait(ends) {
            return;
        }
        match read {
            Ok(0) => break,
            Ok(bytes) => {
                if to.write_all(&chunk[..bytes]).is_err() {
                    // Nobody takes it: the sender must know.
                    end(&from);
                    break;
                }
            }
            Err(_) => return end(&to),
        }
    }
    // The other direction may go on; and it may be closed already.
    to.shutdown(Shutdown::Write).unwrap_or_default();
}

fn end(stream: &TcpStream) {
    // It may be closed already.
    stream.shutdown(Shutdown::Both).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(20);

    fn said(stream: &mut TcpStream, wait: Duration) -> Result<[u8; 1], ErrorKind> {
        stream.set_read_timeout(Some(wait)).unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).map(|()| byte).map_err(|error| error.kind())
    }

    #[test]
    fn a_parted_connection_is_open_and_silent_until_it_is_whole_again() {
        let peers: Vec<_> =
            (0..2).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
        let port = |index: usize| peers[index].local_addr().unwrap().port();
        let ports =
            [0, 1].map(|index| Ports { client: 1, peer: port(index), election: port(index) });
        let relays = Relays::start(&ports).unwrap();
        assert_eq!(relays.view(0)[0], ports[0]);
        assert_ne!(relays.view(0)[1].peer, ports[1].peer);

        let dial = || TcpStream::connect((Ipv4Addr::LOCALHOST, relays.view(0)[1].peer)).unwrap();
        let mut dialled = dial();
        let (mut accepted, _) = peers[1].accept().unwrap();
        dialled.write_all(b"a").unwrap();
        assert_eq!(said(&mut accepted, LONG), Ok(*b"a"));

        relays.part(1);
        accepted.write_all(b"b").unwrap();
        assert_eq!(said(&mut dialled, SHORT), Err(ErrorKind::WouldBlock));
        let mut late = dial();
        late.write_all(b"c").unwrap();
        relays.heal();
        assert_eq!(said(&mut dialled, LONG), Ok(*b"b"));
        let (mut accepted_late, _) = peers[1].accept().unwrap();
        assert_eq!(said(&mut accepted_late, LONG), Ok(*b"c"));

        drop(accepted);
        assert_eq!(said(&mut dialled, LONG), Err(ErrorKind::UnexpectedEof));
        drop(relays);
        assert_eq!(said(&mut accepted_late, LONG), Err(ErrorKind::UnexpectedEof));
    }
}
