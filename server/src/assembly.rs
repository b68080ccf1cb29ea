//! From a configuration to running cores, and to their end: a server alone, or a member of an
//! ensemble.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::ControlFlow;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use engine::client_core;
use engine::disk::StorageError;
use engine::quorum_peer::QuorumPeer;
use engine::recovery::Report;
use engine::replica::{self, Replica};
use engine::rules::Rules;
use engine::tree::OwnerMode;
use engine::zxid::Zxid;

use crate::clock::Clock;
use crate::config::{self, Config};
use crate::cores::{self, Background, Completions, Cores, Duty, Facts, Limits, Patience, Plan};
use crate::descriptors::{self, Shares};
use crate::disk::Disk;
use crate::disk::data_dir::{DIRECTORY_NAME, DataDir};
use crate::disk::volume::Directory;
use crate::door::Door;
use crate::ensemble::data::{Data, MemberData};
use crate::ensemble::initialize::Mark;
use crate::ensemble::log_readers::LogReaders;
use crate::ensemble::{self, Apparatus, Membership};
use crate::four_letter::report::ConfigReport;
use crate::four_letter::text;
use crate::memory::{self, Memory};
use crate::ring::{self, Backend, RingError};
use crate::run_error::RunError;
use crate::signals::{self, Stop};
use crate::snapshots::Snapshots;
use crate::storage::{OpeningTimes, Place, Storage};
use crate::{process, version};

/// The id in front of session ids where there is no ensemble, whatever `myid` says.
// Compat: ZooKeeperServer.createSessionTracker
const STANDALONE_ID: u8 = 1;

/// How many connections wait to be accepted where the configuration does not say.
// Compat: NIOServerCnxnFactory, ServerSocket.bind
const BACKLOG_DEFAULT: u32 = 50;

/// Serves until a signal asks for the end.
pub fn run(config: &Config) -> Result<(), RunError> {
    tracing::info!("ringkeeper {}", version::RINGKEEPER);
    descriptors::raise_limit();
    memory::check().map_err(RunError::System)?;
    let backend = choose_backend(config)?;
    let place = place(config);
    if !config.makes_data_dirs {
        place.require()?;
    }
    let group_bytes = replica::group_bytes_most(replica::GROUP_BYTES, &rules(config));
    let cores = cores_count(config);
    let limits = limits(config, cores)?;
    let membership = config.is_distributed().then(|| Membership::new(config, group_bytes));
    let membership = membership.transpose()?;
    let storage = Storage::open(&place, history_bytes(config))?;
    let memory = memory::start(storage.tree.view()).map_err(RunError::System)?;
    let clock = Clock::start();
    let now = clock.now();
    let mut pending = Vec::new();
    let log = storage.open_log(group_bytes, now.instant, &mut pending);
    let Storage {
        mut tree,
        report,
        history,
        opening,
        log_end,
        log: directory,
        snapshots,
        data_dir,
    } = storage;
    if let Some(membership) = &membership {
        membership.config.members.write_into(&mut tree, now.wall);
    }
    let last = log.durable();
    let mut replica = Replica::new(replica_config(config, cores), tree, log, now);
    replica.replayed(now, report.txns, report.bytes);
    replica.remember(history);
    let (peer, beside) = match membership {
        None => alone(config, replica, memory, data_dir)?,
        Some(membership) => member(config, membership, replica, memory, data_dir, &report, last)?,
    };
    let listeners = bind(config)?;
    let port = listeners[0].local_addr().map_or(0, |address| address.port());
    let addresses: Vec<_> = listeners.iter().flat_map(TcpListener::local_addr).collect();
    let kept = config.snapshots_kept as usize;
    let background = Box::new(move |done: Completions| {
        let wake = done.clone();
        let beside = beside.start(done.clone(), kept, directory.again())?;
        let disk = Disk::start(directory, &log_end, move || wake.wake())?;
        let snapshots = Snapshots::start(snapshots.path().to_owned(), kept, done.clone())?;
        Ok(Background { disk, snapshots, beside })
    });
    let duty = Duty { peer, pending, background, listeners };
    let plan = plan(config, cores, backend, port, opening, limits);
    let running = Cores::start(plan, clock, duty)?;
    let _door = open_door(config, &running);
    let stopper = running.stopper();
    let watching = signals::watch(move |stop| match stop {
        Stop::Soon => {
            stopper.stop();
            ControlFlow::Continue(())
        }
        Stop::Now(signal) => signals::end(signal),
    });
    watching.map_err(RunError::System)?;
    for address in addresses {
        tracing::info!(%address, ?backend, cores, "serving clients");
    }
    Ok(running.join()?)
}

/// The machine of a server alone.
fn alone(
    config: &Config,
    replica: Replica,
    memory: Memory,
    data_dir: DataDir,
) -> Result<(QuorumPeer, Beside), RunError> {
    // Nobody asks whether it may begin; but the file must not be there if it ever is a member.
    if let Some(mark) = Mark::find(config) {
        mark.remove().map_err(|error| RunError::Storage(error.into()))?;
    }
    Ok((QuorumPeer::alone(replica), Beside::Alone(memory, data_dir)))
}

/// The machine of a member, and what it needs beside log and snapshots.
fn member(
    config: &Config,
    membership: Membership,
    replica: Replica,
    memory: Memory,
    mut data_dir: DataDir,
    report: &Report,
    last: Zxid,
) -> Result<(QuorumPeer, Beside), RunError> {
    let storage = |error: StorageError| RunError::Storage(error.into());
    let opened = ensemble::open_epochs(config, &mut data_dir, report, last);
    let (epochs, state) = opened.map_err(storage)?;
    tracing::info!(id = membership.id(), epochs = ?state.epochs, "member of an ensemble");
    let machine = membership.config.clone();
    let (mode, segment_bytes) = (machine.mode, machine.log.segment_bytes);
    let data = MemberData { data_dir, epochs, mode, segment_bytes };
    let peer = QuorumPeer::member(replica, machine, state);
    Ok((peer, Beside::Member(Box::new((membership, data, memory)))))
}

/// What lives as long as the ordering core does.
enum Beside {
    Alone(Memory, DataDir),
    Member(Box<(Membership, MemberData, Memory)>),
}

impl Beside {
    fn start(
        self,
        completions: Completions,
        kept: usize,
        log: Directory,
    ) -> io::Result<cores::Beside> {
        match self {
            Self::Alone(memory, data_dir) => Ok(cores::Beside::Alone(memory, data_dir)),
            Self::Member(parts) => {
                let (membership, data, memory) = *parts;
                let (wake, wake_too) = (completions.clone(), completions.clone());
                Ok(cores::Beside::Member(Box::new(Apparatus {
                    peers: membership.peers()?,
                    data: Data::start(data, move || wake.wake())?,
                    log_readers: LogReaders::new(log, move || wake_too.wake()),
                    memory,
                    completions,
                    snapshots_kept: kept,
                })))
            }
        }
    }
}

/// A server without its door serves all the same.
fn open_door(config: &Config, cores: &Cores) -> Option<Door> {
    let directory = config.data_dir.join(DIRECTORY_NAME);
    let door = Door::open(&directory, cores.publications());
    let warn = |error: &io::Error| tracing::warn!("no backup while the server runs: {error}");
    door.inspect_err(warn).ok()
}

fn choose_backend(config: &Config) -> Result<Backend, RingError> {
    let wanted = config.backend.map(|backend| match backend {
        config::Backend::IoUring => Backend::IoUring,
        config::Backend::Epoll => Backend::Epoll,
    });
    let choice = ring::choose(wanted)?;
    if let Some(warning) = choice.warning {
        tracing::warn!("{warning}");
    }
    Ok(choice.backend)
}

fn cores_count(config: &Config) -> u16 {
    let available = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let wanted = config.cores.unwrap_or(available).clamp(1, usize::from(cores::CORES_MAX));
    wanted as u16
}

fn rules(config: &Config) -> Rules {
    Rules {
        skip_acl: config.skip_acl,
        digest_scheme: config.auth.offers("digest"),
        extended_types: config.extended_types,
        enforce_quota: config.enforce_quota,
        reconfig_enabled: false,
        local_sessions: config.local_sessions,
        packet_bytes_max: config.packet_bytes_max,
    }
}

/// Where the data lies.
pub fn place(config: &Config) -> Place<'_> {
    Place {
        data_dir: &config.data_dir,
        data_log_dir: &config.data_log_dir,
        mode: owner_mode(config),
    }
}

/// How owners of znodes are read.
pub fn owner_mode(config: &Config) -> OwnerMode {
    // Compat: EphemeralType.get
    match (config.extended_types, config.emulate_353_ttl) {
        (false, _) => OwnerMode::Plain,
        (true, false) => OwnerMode::Extended,
        (true, true) => OwnerMode::Emulate353,
    }
}

fn replica_config(config: &Config, cores: u16) -> replica::Config {
    let containers = &config.containers;
    let per_check = containers.check_interval.as_secs_f64() / 60.0;
    replica::Config {
        // Compat: SessionTrackerImpl.initializeNextSessionId - ids of sessions have a byte for it.
        server_id: config.member_id().map_or(STANDALONE_ID, |id| id as u8),
        tick_ms: config.tick_ms.unsigned_abs(),
        cores,
        rules: rules(config),
        container_check_interval: containers.check_interval,
        container_deletions_max: (f64::from(containers.per_minute_max) * per_check).ceil() as usize,
        container_never_used_max: containers.never_used_max.unwrap_or(Duration::ZERO),
        slow_write: config.slow_request,
        slow_sync: config.sync_warning,
        memory_bytes_max: config.memory_bytes_max,
        snapshot_txns: u64::from(config.snap_count),
        snapshot_log_bytes: SNAPSHOT_LOG_BYTES,
        history_bytes: history_bytes(config),
        log_share: config.member.log_share,
        rollover_counter: config.member.rollover_counter,
        group_bytes: replica::GROUP_BYTES,
        linearizable_sync: config.member.linearizable_sync,
        names_committed: false,
    }
}

/// How much of the log a member keeps in memory for learners that are a little behind.
fn history_bytes(config: &Config) -> usize {
    if config.is_distributed() { config.member.history_bytes } else { 0 }
}

/// Log after which a snapshot is due, bytes. It bounds the replay after a crash.
const SNAPSHOT_LOG_BYTES: u64 = 256 << 20;

/// How many connections there may be; an error where there are too few descriptors for any.
fn limits(config: &Config, cores: u16) -> Result<Limits, RingError> {
    let limit = descriptors::limit();
    let shares = Shares::of(
        limit,
        usize::from(cores),
        config.is_distributed(),
        backlog(config.listen_backlog, limit) as usize,
    );
    if shares.clients == 0 {
        return Err(RingError::Descriptors);
    }
    Ok(Limits {
        per_address: config.client_cnxns_max.map_or(0, |max| max as usize),
        total: config.cnxns_max.map_or(0, |max| max as usize),
        descriptors: shares.clients,
    })
}

fn plan(
    config: &Config,
    cores: u16,
    backend: Backend,
    port: u16,
    opening: OpeningTimes,
    limits: Limits,
) -> Plan {
    let per_core = (config.outstanding_max as usize).div_ceil(usize::from(cores));
    Plan {
        cores,
        backend,
        ring: ring::Config {
            lingering_max: descriptors::lingering_most(descriptors::limit(), usize::from(cores)),
            ..ring::Config::default()
        },
        clients: client_core::Config {
            rules: rules(config),
            auth: config.auth.clone(),
            session_timeouts: config.timeouts,
            outstanding_max: per_core.max(1),
            sessionless_timeout: config.sessionless_timeout,
        },
        limits,
        facts: Facts {
            whitelist: config.whitelist.clone(),
            config: config_report(config, port),
            environment: process::environment(),
            opening,
            trace_mask: AtomicU64::new(text::TRACE_MASK.cast_unsigned()),
        },
        patience: Patience {
            warn: Duration::from_millis(u64::from(config.tick_ms.unsigned_abs()) / 2),
            end: config.stuck_after,
        },
    }
}

fn config_report(config: &Config, port: u16) -> ConfigReport {
    // Compat: ZooKeeperServer.dumpConf - the directory below the one that was configured.
    let absolute = |path: &std::path::Path| {
        std::path::absolute(path).unwrap_or(path.to_owned()).join(DIRECTORY_NAME)
    };
    let member = config.is_distributed().then(|| ensemble::report(config)).flatten();
    ConfigReport {
        client_port: port,
        secure_client_port: None,
        data_dir: absolute(&config.data_dir),
        data_dir_bytes: 0,
        data_log_dir: absolute(&config.data_log_dir),
        data_log_bytes: 0,
        tick_ms: config.tick_ms,
        client_cnxns_max: config.client_cnxns_max.map_or(0, i64::from),
        session_timeout_min_ms: config.timeouts.min_ms,
        session_timeout_max_ms: config.timeouts.max_ms,
        listen_backlog: config.listen_backlog,
        server_id: member.as_ref().and(config.server_id).unwrap_or(0),
        member,
    }
}

/// How many connections may wait to be accepted where there may be `limit` descriptors: each may
/// have one for a moment before it is refused.
///
// Compat: ServerSocket.bind - fewer than one means the default.
fn backlog(given: i32, limit: usize) -> u32 {
    let wanted = u32::try_from(given).ok().filter(|given| *given > 0).unwrap_or(BACKLOG_DEFAULT);
    wanted.min(u32::try_from(limit / 16).unwrap_or(u32::MAX)).max(1)
}

fn bind(config: &Config) -> Result<Vec<TcpListener>, RunError> {
    let listen = config.listen.expect("a loaded configuration says where clients connect");
    let backlog = backlog(config.listen_backlog, descriptors::limit());
    let addresses = match listen.host {
        Some(host) => [host].to_vec(),
        // Java's wildcard is that of IPv6, which takes IPv4 too; without IPv6 it is that of IPv4.
        None => [IpAddr::from(Ipv6Addr::UNSPECIFIED), IpAddr::from(Ipv4Addr::UNSPECIFIED)].to_vec(),
    };
    let mut first = None;
    for host in addresses {
        let address = SocketAddr::new(host, listen.port);
        match ring::bind_when_free(address, backlog) {
            Ok(listener) => return Ok(vec![listener]),
            Err(error) => first = first.or(Some(RunError::Listen { address, error })),
        }
    }
    Err(first.expect("at least one address was tried"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn owners_of_3_5_3_need_extended_types() {
        let mode = |extended_types, emulate_353_ttl| {
            owner_mode(&Config {
                extended_types,
                emulate_353_ttl,
                ..Config::load(&Sources::default()).unwrap()
            })
        };
        assert_eq!(mode(false, true), OwnerMode::Plain);
        assert_eq!(mode(true, false), OwnerMode::Extended);
        assert_eq!(mode(true, true), OwnerMode::Emulate353);
    }

    #[test]
    fn the_backlog_is_the_default_or_what_is_given_and_there_are_descriptors_for() {
        let given = [0, -1, -7, 5, i32::MAX].map(|given| backlog(given, 1600));
        assert_eq!(given, [50, 50, 50, 5, 100]);
        assert_eq!(backlog(i32::MAX, usize::MAX), i32::MAX as u32);
    }
}
