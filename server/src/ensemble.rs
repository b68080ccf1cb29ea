//! A member of an ensemble: from the configuration to its machine, its links and its data.

pub mod data;
pub mod initialize;
pub mod log_readers;

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use engine::disk::StorageError;
use engine::epochs::{Epochs, EpochsFile};
use engine::ids::ServerId;
use engine::quorum_peer::{MemberConfig, MemberState};
use engine::recovery::Report;
use engine::tree::Tree;
use engine::txnlog::LogConfig;
use engine::zab::election::ElectorConfig;
use engine::zab::members::{self, Groups, MemberAddress, Members, MembersError};
use engine::zab::outbox::Timing;
use engine::zxid::{Epoch, Zxid};

use crate::assembly::owner_mode;
use crate::config::ensemble::{Member, PeerAddress};
use crate::config::listening::own_address;
use crate::config::{Config, MemberSettings};
use crate::cores::Completions;
use crate::disk::Disk;
use crate::disk::data_dir::DataDir;
use crate::four_letter::report::MemberReport;
use crate::memory::{self, Memory};
use crate::peers::{self, BindError, Peers, Plan};
use crate::snapshots::Snapshots;

use data::{Data, NextLog};
use initialize::Mark;
use log_readers::LogReaders;

/// How long a better vote is waited for.
// Compat: FastLeaderElection.finalizeWait
const FINALIZE_WAIT: Duration = Duration::from_millis(200);

/// What may wait for one member in its link, bytes. A tree is sent only as the link takes it, so
/// this is the leader's memory for learners, and what is proposed within `syncLimit`.
const UNSENT_BYTES_MAX: usize = 512 << 20;

/// How long to wait before the election port is tried again.
const BIND_PAUSE: Duration = Duration::from_secs(1);

/// Why a server cannot be a member.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// It does not know which one it is.
    #[error("{}: no such file; it must hold this server's N of server.N", .0.display())]
    NoId(PathBuf),
    /// It is not in the list.
    #[error("myid says {0}, and there is no server.{0}")]
    NotListed(i64),
    /// The list is wrong.
    #[error(transparent)]
    Members(#[from] MembersError),
    /// The other members cannot reach it.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Its own address in the list is unknown here.
    #[error("server.{id}: {host}: {error}")]
    Address {
        /// The server.
        id: i64,
        /// Its host.
        host: String,
        /// Why.
        error: io::Error,
    },
}

/// A member that is about to start.
#[derive(Debug)]
pub struct Membership {
    /// For its machine.
    pub config: MemberConfig,
    id: i64,
    plan: Plan,
    listeners: Vec<TcpListener>,
}

impl Membership {
    /// Who is in the ensemble, which of them this server is, and its election port.
    pub fn new(config: &Config, group_bytes: usize) -> Result<Self, MemberError> {
        let id = config.server_id.ok_or_else(|| MemberError::NoId(config.data_dir.join("myid")))?;
        let own = config.ensemble.members.get(&id).ok_or(MemberError::NotListed(id))?;
        let members = Arc::new(members_of(config)?);
        let settings = &config.member;
        let tick = Duration::from_millis(u64::from(config.tick_ms.unsigned_abs()));
        let timing =
            Timing { tick, init_limit: settings.init_limit, sync_limit: settings.sync_limit };
        let is_observer = settings.is_observer;
        let election = own
            .addresses
            .iter()
            .map(|address| members::host_and_port(&address.host, address.election_port));
        let elector = ElectorConfig {
            me: ServerId(id),
            is_observer,
            members: Arc::clone(&members),
            my_election_address: election.collect::<Vec<_>>().join("|"),
            finalize_wait: FINALIZE_WAIT,
            notification_interval_min: settings.notification_interval_min,
            notification_interval_max: settings.notification_interval_max,
            connect_timeout: settings.connect_timeout,
            tick,
            fast: settings.fast_election,
        };
        let machine = MemberConfig {
            me: ServerId(id),
            members,
            is_observer,
            timing,
            elector,
            leader_serves: settings.leader_serves,
            grace: client_grace(config, tick),
            mode: owner_mode(config),
            log: LogConfig {
                seed: RandomState::new().hash_one(id),
                ..LogConfig::for_groups(group_bytes)
            },
        };
        let everywhere = settings.listens_everywhere;
        let listeners = bind_election(id, own, settings)?;
        let plan = Plan {
            members: peer_addresses(&config.ensemble.members),
            connect_timeout: settings.connect_timeout,
            learner_addresses: addresses(id, own, everywhere, |own| own.quorum_port)?,
            unsent_bytes_max: UNSENT_BYTES_MAX,
        };
        Ok(Self { config: machine, id, plan, listeners })
    }

    /// Its number.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Opens the links.
    pub fn peers(self) -> io::Result<Peers> {
        Peers::new(self.plan, self.listeners)
    }
}

/// How long clients' connections outlive the loss of a leader.
fn client_grace(config: &Config, tick: Duration) -> Duration {
    let shortest = Duration::from_millis(config.timeouts.min_ms.max(0).cast_unsigned().into());
    config.member.grace.unwrap_or_else(|| tick.min(shortest / 3))
}

/// What a member finds of its part in the ensemble; made if it is not there.
pub fn open_epochs(
    config: &Config,
    data_dir: &mut DataDir,
    report: &Report,
    last: Zxid,
) -> Result<(EpochsFile, MemberState), StorageError> {
    let file = EpochsFile::open(data_dir.root_mut())?;
    let found = file.as_ref().map_or_else(Epochs::default, EpochsFile::epochs);
    let epochs = found.reaching(last);
    let mut file = match file {
        Some(mut file) => {
            file.settle(data_dir.root_mut())?;
            file
        }
        None => EpochsFile::create(data_dir.root_mut(), epochs)?,
    };
    let has_data = epochs.current > Epoch(0) || last > Zxid::ZERO || report.snapshot.is_some();
    if let Some(mark) = Mark::find(config) {
        if !has_data {
            tracing::info!("an ensemble may begin with this server: it is empty, and was told so");
            file.begin_empty(data_dir.root_mut())?;
        }
        mark.remove()?;
    }
    let has_data = has_data || file.begins_empty() || config.member.begins_empty;
    Ok((file, MemberState { epochs, has_data }))
}

/// What the ordering core has beside log and snapshots where there is an ensemble.
#[derive(Debug)]
pub struct Apparatus {
    /// The links.
    pub peers: Peers,
    /// The data's thread.
    pub data: Data,
    /// What reads the log's files for learners.
    pub log_readers: LogReaders,
    /// Provides memory for the tree.
    pub memory: Memory,
    /// Whom log and snapshots tell what is finished.
    pub completions: Completions,
    /// How many snapshots are kept.
    pub snapshots_kept: usize,
}

impl Apparatus {
    /// Starts what writes another log than before, after a cut or with another tree. What wrote
    /// the earlier one is gone.
    pub fn open_log(&mut self, log: NextLog) -> Result<Disk, StorageError> {
        let wake = self.completions.clone();
        self.log_readers.change_directory(log.directory.again());
        Disk::start(log.directory, &log.end, move || wake.wake())
    }

    /// Starts what provides memory for another tree than before.
    pub fn provide_memory(&mut self, tree: &Tree) -> io::Result<()> {
        self.memory = memory::start(tree.view())?;
        Ok(())
    }

    /// Starts what writes snapshots.
    pub fn open_snapshots(&self, directory: PathBuf) -> io::Result<Snapshots> {
        Snapshots::start(directory, self.snapshots_kept, self.completions.clone())
    }
}

/// What `conf` says of this server's part in the ensemble.
pub fn report(config: &Config) -> Option<MemberReport> {
    let own = config.server_id.and_then(|id| config.ensemble.members.get(&id))?;
    let ports = |port: fn(&PeerAddress) -> u16| own.addresses.iter().map(port).collect();
    Some(MemberReport {
        init_limit: config.member.init_limit,
        sync_limit: config.member.sync_limit,
        election_ports: ports(|own| own.election_port),
        quorum_ports: ports(|own| own.quorum_port),
        is_observer: config.member.is_observer,
        voters: config.ensemble.voters().count(),
        membership: members_of(config).ok()?.text().to_owned(),
    })
}

/// The members as the configuration lists them.
fn members_of(config: &Config) -> Result<Members, MembersError> {
    let ensemble = &config.ensemble;
    let listed: Vec<_> = ensemble
        .members
        .iter()
        .map(|(&id, member)| {
            let addresses: Vec<_> = member.addresses.iter().map(member_address).collect();
            let client = member.client.as_ref().map(|(host, port)| (host.as_str(), *port));
            members::Member {
                id: ServerId(id),
                is_observer: member.is_observer,
                text: members::member_text(&addresses, member.is_observer, client),
            }
        })
        .collect();
    if ensemble.groups.is_empty() {
        return Members::majority(&listed, ensemble.version);
    }
    let ids = |ids: &Vec<i64>| ids.iter().copied().map(ServerId).collect();
    let groups = Groups {
        groups: ensemble.groups.iter().map(|(&group, members)| (group, ids(members))).collect(),
        weights: ensemble.weights.iter().map(|(&id, &weight)| (ServerId(id), weight)).collect(),
    };
    Members::hierarchical(&listed, &groups, ensemble.version)
}

fn member_address(address: &PeerAddress) -> MemberAddress {
    MemberAddress {
        host: address.host.clone(),
        learner_port: address.quorum_port,
        election_port: address.election_port,
    }
}

fn peer_addresses(members: &BTreeMap<i64, Member>) -> BTreeMap<ServerId, Vec<PeerAddress>> {
    members.iter().map(|(&id, member)| (ServerId(id), member.addresses.clone())).collect()
}

/// Opens the election port; tries again where that fails, with the names looked up anew: whoever
/// had the port may be about to end, and an address about to come.
///
// Compat: QuorumCnxManager.Listener.ListenerHandler.acceptConnections
fn bind_election(
    id: i64,
    own: &Member,
    settings: &MemberSettings,
) -> Result<Vec<TcpListener>, MemberError> {
    let mut attempts = 0;
    loop {
        let addresses = addresses(id, own, settings.listens_everywhere, |own| own.election_port);
        let bound = addresses.and_then(|addresses| Ok(peers::bind(&addresses)?));
        attempts += 1;
        match bound {
            Err(error) if settings.bind_attempts_max.is_none_or(|most| attempts < most) => {
                tracing::warn!("the election port cannot be opened, trying again: {error}");
                thread::sleep(BIND_PAUSE);
            }
            bound => return bound,
        }
    }
}

/// Where this server listens with one of its two ports.
fn addresses(
    id: i64,
    own: &Member,
    everywhere: bool,
    port: impl Fn(&PeerAddress) -> u16,
) -> Result<Vec<SocketAddr>, MemberError> {
    let mut addresses = Vec::new();
    for address in &own.addresses {
        let port = port(address);
        let host = &address.host;
        let fail = |error| MemberError::Address { id, host: host.clone(), error };
        let listen = if everywhere {
            SocketAddr::new(IpAddr::from(Ipv4Addr::UNSPECIFIED), port)
        } else {
            own_address(host, port).map_err(fail)?
        };
        // Compat: InetSocketAddress - Java binds also 0.0.0.0 for both families.
        addresses.extend(peers::listen_addresses(vec![listen], listen.ip().is_unspecified()));
    }
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;
    use crate::config::Sources;
    use crate::disk::data_dir::DIRECTORY_NAME;

    /// Whether a server votes when it is started with what is in `folder`, and its log ends with
    /// `last`.
    fn votes(folder: &Path, last: Zxid) -> bool {
        votes_with(folder, last, "")
    }

    /// The same with a further line in its configuration.
    fn votes_with(folder: &Path, last: Zxid, line: &str) -> bool {
        let config = load(folder, line);
        let mut data_dir = DataDir::open(&config.data_dir, &config.data_log_dir).unwrap();
        let opened = open_epochs(&config, &mut data_dir, &Report::default(), last);
        opened.unwrap().1.has_data
    }

    fn load(folder: &Path, line: &str) -> Config {
        let file = folder.join("zoo.cfg");
        let (data, log) = (folder.join("data"), folder.join("log"));
        let (data, log) = (data.display(), log.display());
        let text = format!("clientPort=0\ndataDir={data}\ndataLogDir={log}\n{line}");
        fs::write(&file, text).unwrap();
        Config::load(&Sources { file: Some(file), ..Sources::default() }).unwrap()
    }

    #[test]
    fn connections_outlive_a_leader_for_a_tick_or_a_third_of_the_shortest_timeout() {
        let folder = TempDir::new().unwrap();
        let grace = |line: &str| {
            let config = load(folder.path(), &format!("tickTime=1500\n{line}"));
            client_grace(&config, Duration::from_millis(1500))
        };
        assert_eq!(grace("minSessionTimeout=9000"), Duration::from_millis(1500));
        assert_eq!(grace("minSessionTimeout=600"), Duration::from_millis(200));
        assert_eq!(grace(""), Duration::from_secs(1), "the shortest is two ticks");
        assert_eq!(grace("ringkeeper.clientGraceMs=0"), Duration::ZERO);
        assert_eq!(grace("ringkeeper.clientGraceMs=9000"), Duration::from_secs(9));
    }

    #[test]
    fn an_empty_server_votes_as_long_as_db_autocreate_says_so() {
        let folder = TempDir::new().unwrap();
        let votes = |line: &str| votes_with(folder.path(), Zxid::ZERO, line);
        assert!(!votes(""), "the default is not ZooKeeper's");
        assert!(votes("db.autocreate=true"));
        assert!(votes("zookeeper.db.autocreate=true"), "as a system property");
        assert!(!votes("db.autocreate=false"), "nothing of it is kept with the data");
    }

    #[test]
    fn the_file_initialize_lets_an_empty_server_vote_until_its_data_is_lost() {
        for directory in ["data", "log"] {
            let folder = TempDir::new().unwrap();
            let path = folder.path();
            let mark = path.join(directory).join(initialize::NAME);
            assert!(!votes(path, Zxid::ZERO));
            fs::write(&mark, "").unwrap();
            assert!(votes(path, Zxid::ZERO));
            assert!(!mark.exists(), "it is used up");
            assert!(votes(path, Zxid::ZERO), "the permission is kept with the data");
            fs::write(&mark, "").unwrap();
            assert!(votes(path, Zxid::ZERO), "as after a crash before it was removed");
            assert!(!mark.exists());
            fs::remove_dir_all(path.join("data").join(DIRECTORY_NAME)).unwrap();
            assert!(!votes(path, Zxid::ZERO), "and is lost with it");
        }
    }

    #[test]
    fn where_there_is_data_the_file_initialize_is_removed_and_means_nothing() {
        let folder = TempDir::new().unwrap();
        let (path, mark) = (folder.path(), folder.path().join("data").join(initialize::NAME));
        fs::create_dir(path.join("data")).unwrap();
        fs::write(&mark, "").unwrap();
        assert!(votes(path, Zxid(1)));
        assert!(!mark.exists());
        let mut data_dir = DataDir::open(&path.join("data"), &path.join("log")).unwrap();
        let file = EpochsFile::open(data_dir.root_mut()).unwrap().unwrap();
        assert!(!file.begins_empty());
    }

    #[test]
    fn a_file_initialize_that_cannot_be_removed_lets_nobody_start() {
        let folder = TempDir::new().unwrap();
        let mark = folder.path().join(initialize::NAME);
        fs::create_dir(&mark).unwrap();
        let text = format!("clientPort=0\ndataDir={}", folder.path().display());
        let file = folder.path().join("zoo.cfg");
        fs::write(&file, text).unwrap();
        let config = Config::load(&Sources { file: Some(file), ..Sources::default() }).unwrap();
        let error = Mark::find(&config).unwrap().remove().unwrap_err().to_string();
        assert!(error.contains("initialize") && error.contains("remove"), "{error}");
    }
}
