//! Who belongs to the ensemble, and which of them are enough to decide.
//!
//! Two rules: more than half of the voters; or, with groups and weights, more than half of the
//! groups that have weight, each by more than half of its weight. Both are such that any two
//! quorums share a voter.

use crate::ids::ServerId;
use crate::time::WallTime;
use crate::tree::Tree;
use crate::zxid::Zxid;

/// A member: a `server.N` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub id: ServerId,
    /// Whether it learns without a vote.
    pub is_observer: bool,
    /// The value of its line, by [`member_text`].
    pub text: String,
}

/// The two ports of a member at one of its hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberAddress {
    /// A name or an address, without brackets.
    pub host: String,
    /// Where learners connect to it while it leads.
    pub learner_port: u16,
    /// Where the others send it their votes.
    pub election_port: u16,
}

/// Groups of voters, and what each of them weighs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// `group.G=a:b:c` lines.
    pub groups: Vec<(i64, Vec<ServerId>)>,
    /// `weight.N=w` lines; a voter without one weighs 1.
    pub weights: Vec<(ServerId, u32)>,
}

/// Why these are no members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// A number stands in two lines.
    #[error("server {0} is listed twice")]
    Twice(ServerId),
    /// Nobody can vote.
    #[error("there is no server with a vote")]
    NoVoter,
    /// A server stands in two groups.
    #[error("server {0} is in multiple groups")]
    InTwoGroups(ServerId),
    /// A voter stands in no group, though there are groups.
    #[error("server {0} is not in a group")]
    InNoGroup(ServerId),
    /// A group is listed twice.
    #[error("group {0} is listed twice")]
    GroupTwice(i64),
}

/// The members of the ensemble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    voters: Vec<ServerId>,
    observers: Vec<ServerId>,
    rule: Rule,
    version: u64,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Majority,
    Hierarchical(Vec<Group>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    /// In ascending order.
    weights: Vec<(ServerId, u64)>,
    weight: u64,
}

impl Members {
    /// Members of which any majority of the voters is a quorum; `version` is that of the
    /// configuration.
    pub fn majority(members: &[Member], version: u64) -> Result<Self, MembersError> {
        let text = member_lines(members) + &version_line(version);
        Self::of(members, Rule::Majority, version, text)
    }

    /// Members whose quorums are made of groups.
    ///
    // Compat: QuorumHierarchical.parse
    pub fn hierarchical(
        members: &[Member],
        groups: &Groups,
        version: u64,
    ) -> Result<Self, MembersError> {
        let listed = groups.groups.iter().flat_map(|(_, ids)| ids.iter().copied());
        let grouped = sorted(listed).map_err(MembersError::InTwoGroups)?;
        sorted(groups.groups.iter().map(|(id, _)| *id)).map_err(MembersError::GroupTwice)?;
        let mut weights = groups.weights.clone();
        for member in members.iter().filter(|member| !member.is_observer) {
            if grouped.binary_search(&member.id).is_err() {
                return Err(MembersError::InNoGroup(member.id));
            }
            if !weights.iter().any(|(id, _)| *id == member.id) {
                weights.push((member.id, 1));
            }
        }
        let weight_of = |id: &ServerId| {
            let found = weights.iter().find(|(weighed, _)| weighed == id);
            (*id, found.map_or(0, |(_, weight)| u64::from(*weight)))
        };
        let rule = groups.groups.iter().map(|(_, ids)| {
            let mut weights: Vec<_> = ids.iter().map(weight_of).collect();
            weights.sort_unstable();
            let weight = weights.iter().map(|(_, weight)| weight).sum();
            Group { weights, weight }
        });
        let rule = Rule::Hierarchical(rule.collect());
        let text = member_lines(members)
            + &group_lines(&groups.groups)
            + &weight_lines(&weights)
            + &version_line(version);
        Self::of(members, rule, version, text)
    }

    fn of(
        members: &[Member],
        rule: Rule,
        version: u64,
        text: String,
    ) -> Result<Self, MembersError> {
        sorted(members.iter().map(|member| member.id)).map_err(MembersError::Twice)?;
        let ids = |observers: bool| {
            let those = members.iter().filter(|member| member.is_observer == observers);
            sorted(those.map(|member| member.id)).map_err(MembersError::Twice)
        };
        let voters = ids(false)?;
        if voters.is_empty() {
            return Err(MembersError::NoVoter);
        }
        Ok(Self { voters, observers: ids(true)?, rule, version, text })
    }

    /// The members that vote, in ascending order.
    pub fn voters(&self) -> &[ServerId] {
        &self.voters
    }

    /// The members that only learn, in ascending order.
    pub fn observers(&self) -> &[ServerId] {
        &self.observers
    }

    /// Everybody but `me`: voters, then observers.
    pub fn others(&self, me: ServerId) -> impl Iterator<Item = ServerId> {
        let all = self.voters.iter().chain(&self.observers).copied();
        all.filter(move |id| *id != me)
    }

    /// Whether the server votes.
    pub fn is_voter(&self, id: ServerId) -> bool {
        self.voters.binary_search(&id).is_ok()
    }

    /// Whether the server is a member.
    pub fn contains(&self, id: ServerId) -> bool {
        self.is_voter(id) || self.observers.binary_search(&id).is_ok()
    }

    /// How much the server's part in a quorum counts; one that weighs nothing never leads.
    ///
    // Compat: QuorumMaj.getWeight, QuorumHierarchical.getWeight
    pub fn weight(&self, id: ServerId) -> u64 {
        if !self.is_voter(id) {
            return 0;
        }
        match &self.rule {
            Rule::Majority => 1,
            Rule::Hierarchical(groups) => {
                let found =
                    groups.iter().flat_map(|group| &group.weights).find(|(at, _)| *at == id);
                found.map_or(0, |(_, weight)| *weight)
            }
        }
    }

    /// Whether those voters that `agrees` picks are enough to decide.
    ///
    // Compat: QuorumMaj.containsQuorum, QuorumHierarchical.containsQuorum
    pub fn is_quorum(&self, agrees: impl Fn(ServerId) -> bool) -> bool {
        match &self.rule {
            Rule::Majority => {
                let count = self.voters.iter().filter(|id| agrees(**id)).count();
                count > self.voters.len() / 2
            }
            Rule::Hierarchical(groups) => {
                let agreed = groups.iter().filter(|group| {
                    let weights = group.weights.iter();
                    let agreeing = weights.filter(|(id, _)| self.is_voter(*id) && agrees(*id));
                    agreeing.map(|(_, weight)| weight).sum::<u64>() > group.weight / 2
                });
                let weighty = groups.iter().filter(|group| group.weight > 0).count();
                agreed.count() > weighty / 2
            }
        }
    }

    /// The version of the configuration.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The configuration as ZooKeeper writes it: what `/zookeeper/config` holds and notifications
    /// carry.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Writes the configuration into its znode: each server does so when it starts, and when it
    /// has got the leader's tree. It is no transaction, and in no digest.
    pub fn write_into(&self, tree: &mut Tree, now: WallTime) {
        tree.set_ensemble_config(self.text.as_bytes(), Zxid(self.version), now.0);
    }
}

/// The value of a `server.N` line. `client` is where clients connect, if the line itself says it.
///
// Compat: QuorumPeer.QuorumServer.toString - hosts are sorted, and their election ports with them.
pub fn member_text(
    addresses: &[MemberAddress],
    is_observer: bool,
    client: Option<(&str, u16)>,
) -> String {
    let mut sorted: Vec<_> = addresses.iter().collect();
    sorted.sort_by(|a, b| a.host.encode_utf16().cmp(b.host.encode_utf16()));
    let texts = sorted.iter().map(|address| {
        let host = bracketed(&address.host);
        format!("{host}:{}:{}", address.learner_port, address.election_port)
    });
    let mut text = texts.collect::<Vec<_>>().join("|");
    text.push_str(if is_observer { ":observer" } else { ":participant" });
    if let Some((host, port)) = client {
        text.push_str(&format!(";{}:{port}", bracketed(host)));
    }
    text
}

/// A host and a port, as they stand in addresses.
pub fn host_and_port(host: &str, port: u16) -> String {
    format!("{}:{port}", bracketed(host))
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn member_lines(members: &[Member]) -> String {
    let mut ordered: Vec<_> = members.iter().collect();
    in_java_order(&mut ordered, |member| member.id.0);
    let line = |member: &&Member| format!("server.{}={}\n", member.id, member.text);
    ordered.iter().map(line).collect::<Vec<_>>().concat()
}

fn group_lines(groups: &[(i64, Vec<ServerId>)]) -> String {
    let mut members: Vec<_> =
        groups.iter().flat_map(|(group, ids)| ids.iter().map(|id| (*id, *group))).collect();
    in_java_order(&mut members, |(id, _)| id.0);
    let mut ordered: Vec<i64> = groups.iter().map(|(group, _)| *group).collect();
    in_java_order(&mut ordered, |group| *group);
    let line = |group: &i64| {
        let ids = members.iter().filter(|(_, of)| of == group);
        let ids: Vec<String> = ids.map(|(id, _)| id.to_string()).collect();
        format!("group.{group}={}\n", ids.join(":"))
    };
    ordered.iter().map(line).collect::<Vec<_>>().concat()
}

fn weight_lines(weights: &[(ServerId, u32)]) -> String {
    let mut ordered = weights.to_vec();
    in_java_order(&mut ordered, |(id, _)| id.0);
    let line = |(id, weight): &(ServerId, u32)| format!("weight.{id}={weight}\n");
    ordered.iter().map(line).collect::<Vec<_>>().concat()
}

fn version_line(version: u64) -> String {
    format!("version={version:x}")
}

/// Sorts as Java walks over a `HashMap<Long, ...>` of these keys: the text of a configuration has
/// that order, and servers compare texts.
fn in_java_order<T>(items: &mut [T], key: impl Fn(&T) -> i64) {
    let mut capacity = 16;
    while items.len() > capacity / 4 * 3 {
        capacity *= 2;
    }
    items.sort_by_key(|item| {
        let key = key(item);
        let hash = (key ^ ((key.cast_unsigned()) >> 32).cast_signed()) as u32;
        (((hash ^ (hash >> 16)) as usize) & (capacity - 1), key)
    });
}

/// In ascending order; the error is what comes twice.
fn sorted<T: Ord + Copy>(items: impl Iterator<Item = T>) -> Result<Vec<T>, T> {
    let mut items: Vec<T> = items.collect();
    items.sort_unstable();
    match items.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(pair[0]),
        None => Ok(items),
    }
}

#[cfg(test)]
mod tests;
