//! Where clients connect: what `clientPort`, `clientPortAddress` and the own `server.N` line say.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use super::check::Checker;
use super::settings::Problem;
use super::{Config, Listen};

/// What a start without a configuration file assumes.
const TRIAL_PORT: i64 = 2181;

/// The address at which a server with this name listens: where a name has several, the others take
/// the same one.
///
// Compat: InetAddress.getByName - IPv4 first, java.net.preferIPv6Addresses is false.
pub fn own_address(host: &str, port: u16) -> io::Result<SocketAddr> {
    let found = (host, port).to_socket_addrs()?.collect::<Vec<_>>();
    let nothing = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    preferred(&found).ok_or_else(nothing)
}

fn preferred(addresses: &[SocketAddr]) -> Option<SocketAddr> {
    addresses.iter().find(|address| address.is_ipv4()).or(addresses.first()).copied()
}

/// None for the address that means all of them.
///
// Compat: InetSocketAddress - Java binds also 0.0.0.0 for both families.
fn unless_any(address: IpAddr) -> Option<IpAddr> {
    Some(address).filter(|address| !address.is_unspecified())
}

impl Checker<'_> {
    pub(super) fn listen(&mut self) -> Option<Listen> {
        let default_port = if self.is_trial { Some(TRIAL_PORT) } else { None };
        let given = self.settings.get("clientPort").map(|_| self.int("clientPort", 0));
        let host = self.listen_host();
        let Some(port) = given.or(default_port) else {
            if let Some(setting) = self.settings.get("clientPortAddress") {
                self.problems.push(setting.problem("is set, but clientPort is not"));
            }
            return None;
        };
        Some(Listen { host, port: port as u16 })
    }

    fn listen_host(&mut self) -> Option<IpAddr> {
        let Some(setting) = self.valid("clientPortAddress") else {
            return self.is_trial.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        };
        let host = setting.value.as_str();
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match own_address(bracketed.unwrap_or(host), 0) {
            Ok(address) => return unless_any(address.ip()),
            Err(error) => {
                let reason = format!("must be an address of this machine or a name: {error}");
                self.problems.push(setting.problem(reason));
            }
        }
        None
    }

    /// The line of this server says where clients connect. What `clientPort` and
    /// `clientPortAddress` say must agree.
    // Compat: QuorumPeerConfig.setupClientPort
    pub(super) fn join_client_address(&mut self, config: &mut Config, host: &str, port: u16) {
        let ip = match own_address(host, port) {
            Ok(address) => unless_any(address.ip()),
            Err(error) => {
                let reason = format!("of this server names {host} for clients: {error}");
                return self.problems.push(Problem::missing("server.N", reason));
            }
        };
        let (key, said) = match config.listen {
            Some(listen) if listen.port != port => ("clientPort", port.to_string()),
            Some(listen) if listen.host.is_some() && listen.host != ip => {
                ("clientPortAddress", host.to_owned())
            }
            _ => return config.listen = Some(Listen { host: ip, port }),
        };
        if let Some(setting) = self.settings.get(key) {
            let reason = format!("the line server.N of this server says {said}");
            self.problems.push(setting.problem(reason));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_listens_at_the_ipv4_address_of_its_name() {
        let [v6, v4] = ["[::1]:1", "127.0.0.1:1"].map(|text| text.parse().unwrap());
        assert_eq!(preferred(&[v6, v4]), Some(v4));
        assert_eq!(preferred(&[v6]), Some(v6));
        assert_eq!(preferred(&[]), None);
    }
}
