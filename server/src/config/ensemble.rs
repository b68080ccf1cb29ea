//! The lines of a configuration that say who is in the ensemble: `server.N`, `group.N`,
//! `weight.N`, and the `myid` file that says which of them this server is.

use std::collections::BTreeMap;

use super::keys;
use super::settings::{Problem, Setting, Settings};

/// Who is in the ensemble. An empty one means that no `server.N` line was there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ensemble {
    /// The version of this list.
    pub version: u64,
    /// The members by their id.
    pub members: BTreeMap<i64, Member>,
    /// With hierarchical quorums: the members of each group.
    pub groups: BTreeMap<i64, Vec<i64>>,
    /// With hierarchical quorums: the weights that are not 1.
    pub weights: BTreeMap<i64, u32>,
}

/// One `server.N` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where its peers find it; more than one with `multiAddress.enabled`.
    pub addresses: Vec<PeerAddress>,
    /// Whether it only learns and does not vote.
    pub is_observer: bool,
    /// Where clients find it, if the line says so: host and port.
    pub client: Option<(String, u16)>,
}

/// Where the peers of a member find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Host name or address.
    pub host: String,
    /// Where learners connect while it leads.
    pub quorum_port: u16,
    /// Where it is talked to about elections.
    pub election_port: u16,
}

impl Ensemble {
    /// Reads the lines in `settings`; what is wrong goes to `problems`.
    // Compat: QuorumMaj's and QuorumHierarchical's constructors
    pub fn read(
        settings: &Settings,
        several_addresses: bool,
        version: u64,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut ensemble = Self { version, ..Self::default() };
        let servers = || settings.family("server.").filter(|key| !keys::is_name(&key.key));
        let others = settings.family("group").chain(settings.family("weight"));
        for setting in servers().chain(others) {
            if let Err(reason) = ensemble.add(setting, several_addresses) {
                problems.push(setting.problem(reason));
            }
        }
        ensemble.check_addresses(servers(), problems);
        ensemble.check_groups(problems);
        ensemble
    }

    /// No two members may be at one address: whoever connects there would meet the wrong one.
    fn check_addresses<'a>(
        &self,
        servers: impl Iterator<Item = &'a Setting>,
        problems: &mut Vec<Problem>,
    ) {
        let mut taken = BTreeMap::<(&str, u16), &Setting>::new();
        for setting in servers {
            let member = number_of(setting).and_then(|number| self.members.get(&number));
            let addresses = member.map_or(&[][..], |member| &member.addresses);
            for PeerAddress { host, quorum_port, election_port } in addresses {
                for port in [*quorum_port, *election_port] {
                    let Some(other) = taken.insert((host, port), setting) else { continue };
                    if other.key == setting.key {
                        continue;
                    }
                    let Setting { key, origin, .. } = other;
                    let reason = format!("{host}:{port} is that of {key} already ({origin})");
                    problems.push(setting.problem(reason));
                }
            }
        }
    }

    fn add(&mut self, setting: &Setting, several_addresses: bool) -> Result<(), String> {
        let number = number_of(setting).ok_or("a number must follow the dot in the key")?;
        if setting.key.starts_with("server.") {
            let member = Member::parse(&setting.value, several_addresses)?;
            self.members.insert(number, member);
        } else if setting.key.starts_with("group") {
            let ids = split(&setting.value, ':').into_iter().map(str::parse);
            let ids = ids.collect::<Result<Vec<i64>, _>>();
            let ids = ids.map_err(|_| "must be server ids, separated by colons")?;
            let taken = |id| self.groups.values().any(|group| group.contains(id));
            if let Some(id) = ids.iter().find(|id| taken(id)) {
                return Err(format!("server {id} is in another group already"));
            }
            self.groups.insert(number, ids);
        } else {
            let reason = |_| format!("must be a whole number from 0 to {}", u32::MAX);
            let weight = setting.value.parse().map_err(reason)?;
            self.weights.insert(number, weight);
        }
        Ok(())
    }

    fn check_groups(&self, problems: &mut Vec<Problem>) {
        if self.groups.is_empty() && self.weights.is_empty() {
            return;
        }
        for id in self.voters() {
            if !self.groups.values().any(|group| group.contains(&id)) {
                let reason = "votes but is in no group, and there are groups or weights";
                problems.push(Problem::missing(&format!("server.{id}"), reason));
            }
        }
    }

    /// The ids of those that vote.
    pub fn voters(&self) -> impl Iterator<Item = i64> {
        self.members.iter().filter(|(_, member)| !member.is_observer).map(|(&id, _)| id)
    }
}

fn number_of(setting: &Setting) -> Option<i64> {
    setting.key.split_once('.')?.1.parse().ok()
}

impl Member {
    /// Reads `host:port:port[:role][;[address:]port]`, the first part repeated after `|` for
    /// further addresses.
    // Compat: QuorumPeer.QuorumServer.initializeWithAddressString
    pub fn parse(text: &str, several_addresses: bool) -> Result<Self, String> {
        const FORM: &str = "must be host:port:port[:participant|:observer][;[address:]port]";
        let parts = split(text, ';');
        let (servers, client) = match parts[..] {
            [servers] => (servers, None),
            [servers, client] => (servers, Some(client)),
            _ => return Err(FORM.to_owned()),
        };
        let mut addresses = Vec::new();
        let mut roles = Vec::new();
        for address in split(servers, '|') {
            let parts = host_and_rest(address)?;
            let [host, quorum_port, election_port, role @ ..] = &parts[..] else {
                return Err(FORM.to_owned());
            };
            let (quorum_port, election_port) = (port(quorum_port)?, port(election_port)?);
            if quorum_port == election_port {
                return Err("the two ports must be different".to_owned());
            }
            match role {
                [] => {}
                [role] => roles.push(is_observer(role)?),
                _ => return Err(FORM.to_owned()),
            }
            addresses.push(PeerAddress { host: (*host).to_owned(), quorum_port, election_port });
        }
        if addresses.len() > 1 && !several_addresses {
            return Err("several addresses need multiAddress.enabled=true".to_owned());
        }
        let is_observer = roles.first().copied().unwrap_or(false);
        if roles.iter().any(|role| *role != is_observer) {
            return Err("all addresses must have the same role".to_owned());
        }
        let client = client.map(client_address).transpose()?;
        Ok(Self { addresses, is_observer, client })
    }
}

fn client_address(text: &str) -> Result<(String, u16), String> {
    match host_and_rest(text)?[..] {
        [only] => Ok(("0.0.0.0".to_owned(), port(only)?)),
        [host, number] => Ok((host.to_owned(), port(number)?)),
        _ => Err("after the semicolon must stand [address:]port".to_owned()),
    }
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("{text:?} is not a port from 0 to 65535"))
}

fn is_observer(role: &str) -> Result<bool, String> {
    match role.trim().to_lowercase().as_str() {
        "observer" => Ok(true),
        "participant" => Ok(false),
        _ => Err(format!("{role:?} is not a role; allowed: participant, observer")),
    }
}

/// What stands between colons; the first may be an IPv6 address in brackets.
// Compat: ConfigUtils.getHostAndPort
fn host_and_rest(text: &str) -> Result<Vec<&str>, String> {
    let Some(bracketed) = text.strip_prefix('[') else {
        return Ok(split(text, ':'));
    };
    let (host, rest) = bracketed.split_once(']').ok_or("a '[' has no ']'")?;
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Ok(vec![host]),
        Some(ports) if !ports.is_empty() => {
            Ok(std::iter::once(host).chain(split(ports, ':')).collect())
        }
        _ => Err("a colon and a port must follow the ']'".to_owned()),
    }
}

/// Splits as Java does, which drops empty parts at the end.
fn split(text: &str, separator: char) -> Vec<&str> {
    let mut parts: Vec<&str> = text.split(separator).collect();
    while parts.len() > 1 && parts.last().is_some_and(|part| part.is_empty()) {
        parts.pop();
    }
    parts
}

/// Reads the text of a `myid` file: a number alone in its first line.
// Compat: QuorumPeerConfig.setupMyId
pub fn parse_my_id(text: &str) -> Option<i64> {
    text.lines().next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let shown = match Member::parse(text, false) {
            Err(reason) => reason,
            Ok(member) => {
                let address = &member.addresses[0];
                let role = if member.is_observer { "observer" } else { "participant" };
                let client = member.client.map(|(host, port)| format!(" {host} {port}"));
                let PeerAddress { host, quorum_port, election_port } = address;
                format!("{host} {quorum_port} {election_port} {role}{}", client.unwrap_or_default())
            }
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_server_line_has_two_ports_and_perhaps_a_role_and_a_client_address() {
        check("a:2888:3888", "a 2888 3888 participant");
        check("a:2888:3888:Observer", "a 2888 3888 observer");
        check("a:2888:3888;2181", "a 2888 3888 participant 0.0.0.0 2181");
        check("a:2888:3888:observer;b:2181", "a 2888 3888 observer b 2181");
        check("[::1]:2888:3888:participant;[::2]:1", "::1 2888 3888 participant ::2 1");
    }

    #[test]
    fn a_server_line_in_another_form_is_refused_with_a_reason() {
        let form = "must be host:port:port[:participant|:observer][;[address:]port]";
        check("a:2888", form);
        check("", form);
        check("a:1:2:observer:x", form);
        check("a:1:2;3;4", form);
        check("a:1:1", "the two ports must be different");
        check("a:1:x", "\"x\" is not a port from 0 to 65535");
        check("a:1:2:king", "\"king\" is not a role; allowed: participant, observer");
        check("[::1:1:2", "a '[' has no ']'");
        check("[::1]x", "a colon and a port must follow the ']'");
        check("a:1:2|b:1:2", "several addresses need multiAddress.enabled=true");
    }

    #[test]
    fn several_addresses_share_one_role() {
        let member = Member::parse("a:1:2:observer|b:3:4", true).unwrap();
        assert_eq!((member.addresses.len(), member.is_observer), (2, true));
        assert!(Member::parse("a:1:2:observer|b:3:4:participant", true).is_err());
    }

    #[test]
    fn the_first_line_of_myid_counts() {
        assert_eq!(parse_my_id("3\nx"), Some(3));
        assert_eq!(parse_my_id(" 7 "), Some(7));
        assert_eq!(parse_my_id(""), None);
        assert_eq!(parse_my_id("three"), None);
    }
}
