//! Ports for servers that this program starts.
//!
//! They lie below the range from which the kernel takes ports for outgoing connections: a server
//! that was killed finds its own free again, and nobody who dials it meanwhile meets himself.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, ensure};
use rand::RngExt as _;

use crate::server::Variables;

/// The lowest port that is taken,
const FIRST: u16 = 10_000;
/// and the first that is not, where the kernel does not say where its own begin.
const PAST: u16 = 32_768;
/// Draws until it is given up.
const DRAWS_MAX: usize = 10_000;

/// The ports of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// For clients.
    pub client: u16,
    /// Where a leader expects its learners.
    pub peer: u16,
    /// For elections.
    pub election: u16,
}

impl Ports {
    /// Ports for some servers, all different, and free now.
    pub fn find(servers: usize) -> anyhow::Result<Vec<Self>> {
        let past = outgoing_from().filter(|past| *past > FIRST + 1000).unwrap_or(PAST);
        let mut random = rand::rng();
        // Held until all are found, so that none is found twice.
        let mut held = Vec::new();
        for _ in 0..DRAWS_MAX {
            if held.len() == servers * 3 {
                break;
            }
            let port = random.random_range(FIRST..past);
            held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
        }
        ensure!(held.len() == servers * 3, "there are no {} free ports", servers * 3);
        let port = |listener: &TcpListener| {
            listener.local_addr().map(|address| address.port()).context("a socket has no address")
        };
        held.chunks(3)
            .map(|three| {
                let (client, peer, election) =
                    (port(&three[0])?, port(&three[1])?, port(&three[2])?);
                Ok(Self { client, peer, election })
            })
            .collect()
    }

    /// Says what the placeholders of the server at `index` stand for. Servers behind the first
    /// `voters` observe.
    pub fn name(all: &[Self], voters: usize, index: usize, variables: &mut Variables) {
        let mut say = |name: String, value: String| variables.insert(name, value);
        let mut members = Vec::new();
        for (ports, id) in all.iter().zip(1..) {
            let Self { client, peer, election } = *ports;
            let role = if id > voters { ":observer" } else { "" };
            members.push(format!("server.{id}=127.0.0.1:{peer}:{election}{role}"));
            say(format!("port_{id}"), client.to_string());
            say(format!("peer_port_{id}"), peer.to_string());
            say(format!("election_port_{id}"), election.to_string());
        }
        let hosts: Vec<_> = all.iter().map(|ports| format!("127.0.0.1:{}", ports.client)).collect();
        say("members".into(), members.join("\n"));
        say("hosts".into(), hosts.join(","));
        say("id".into(), (index + 1).to_string());
        say("port".into(), all[index].client.to_string());
        say("peer_port".into(), all[index].peer.to_string());
        say("election_port".into(), all[index].election.to_string());
    }
}

/// The first port that the kernel takes for outgoing connections.
fn outgoing_from() -> Option<u16> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    range.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ports_are_all_different_and_not_the_kernels() {
        let found = Ports::find(5).unwrap();
        let all: BTreeSet<u16> =
            found.iter().flat_map(|ports| [ports.client, ports.peer, ports.election]).collect();
        assert_eq!((found.len(), all.len()), (5, 15));
        let past = outgoing_from().unwrap_or(PAST);
        assert!(all.iter().all(|port| *port < past), "{all:?}, {past}");
    }

    #[test]
    fn every_member_knows_all_members_and_itself() {
        let all = [1, 4].map(|first| Ports { client: first, peer: first + 1, election: first + 2 });
        let mut variables = Variables::new();
        Ports::name(&all, 1, 1, &mut variables);
        let said = |name: &str| variables[name].as_str();
        assert_eq!(said("members"), "server.1=127.0.0.1:2:3\nserver.2=127.0.0.1:5:6:observer");
        assert_eq!((said("id"), said("port"), said("peer_port")), ("2", "4", "5"));
        assert_eq!((said("election_port_1"), said("hosts")), ("3", "127.0.0.1:1,127.0.0.1:4"));
    }
}
