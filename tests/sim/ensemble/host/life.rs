//! How a simulated server begins and ends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use engine::auth::AuthRules;
use engine::client_core::{self, ClientCore};
use engine::ids::{CoreId, ServerId};
use engine::quorum_peer::{Input, MemberConfig, MemberState, Output, QuorumPeer, RoleKind};
use engine::replica::{self, Replica};
use engine::rules::Rules;
use engine::session::TimeoutLimits;
use engine::tree::OwnerMode;
use engine::txnlog::{LogConfig, TxnLog};
use engine::zab::election::ElectorConfig;
use engine::zab::outbox::Timing;
use engine::zxid::{Epoch, Zxid};

use super::{Core, Process};
use crate::sim::ensemble::rot::Sound;
use crate::sim::ensemble::store::SEGMENT_BYTES;
use crate::sim::ensemble::{Options, Planted, SECOND, TICK, World};

const PACKET_BYTES_MAX: usize = 16 << 10;

/// How a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim::ensemble) enum End {
    /// What it wrote is in the cache of its machine.
    Killed,
    /// And so does its machine.
    PowerLost,
    /// The process ends itself, and what it wants to read next comes from the disk.
    WriteFailed,
}

impl World {
    /// Starts a server from what is on its disk.
    pub(in crate::sim::ensemble) fn start(&mut self, index: usize) {
        let seed = self.random.any();
        let host = &mut self.hosts[index];
        host.life += 1;
        host.is_silent = false;
        let mut found = match host.store.open(self.options.history_bytes) {
            Ok(found) => found,
            Err(error) if host.medium.explains(&error) => return self.refuse(index, &error),
            // It is tried again.
            Err(error) if error.is_no_space() => return,
            Err(error) => panic!("server {}: {error}", index + 1),
        };
        if let Some(sound) = host.medium.sound.take() {
            assert_eq!(Sound::of(&found), sound, "server {} starts from damage", index + 1);
        }
        let has_log = found.recovered.log.zxid > Zxid::ZERO;
        if self.options.planted == Some(Planted::SnapshotOutlivesCut) && has_log {
            host.store.snapshot_early(&mut found).expect("its disk is well");
        }
        let now = host.time(self.now);
        let log = LogConfig {
            frame_bytes_max: 16 << 10,
            backlog_bytes_max: 8 << 10,
            seed,
            ..LogConfig::with_segments(SEGMENT_BYTES)
        };
        let mut ops = Vec::new();
        let log_end = found.recovered.log;
        let writer = TxnLog::open(log, log_end, now.instant, &mut ops);
        let config = replica_config(index, &self.options);
        let mut replica = Replica::new(config, found.recovered.tree, writer, now);
        replica.remember(found.recovered.history);
        let version = replica.published().clone();
        let clients = client_config();
        let core = |core| Core {
            clients: ClientCore::new(CoreId(core), Arc::clone(&clients), version.clone(), 0),
            inbox: VecDeque::new(),
            batch: 0,
            slots: 0,
            outputs: Vec::new(),
            wakes_at: u64::MAX,
            submitted_at: 0,
        };
        let cores = (0..self.options.cores).map(core).collect();
        let lies = self.options.planted == Some(Planted::EmptyMemberVotes);
        let state = MemberState { epochs: found.epochs, has_data: found.has_data || lies };
        let peer = QuorumPeer::member(replica, self.member_config(index, log), state);
        let process = Process {
            peer,
            cores,
            learner_port: false,
            accepted: 0,
            pipes: BTreeMap::new(),
            dialled: BTreeSet::new(),
            published: None,
            late: VecDeque::new(),
            version,
            slow: VecDeque::new(),
            writes: 0,
            readings: BTreeMap::new(),
            tick: 0,
            leads: false,
            role: RoleKind::Looking,
            votes: found.has_data,
        };
        self.hosts[index].process = Some(Box::new(process));
        let outputs = ops.into_iter().map(|op| Output::Replica(replica::Output::Disk(op)));
        self.execute(index, outputs.collect());
        self.step(index, Input::Replica(replica::Input::Tick));
    }

    fn member_config(&self, index: usize, log: LogConfig) -> MemberConfig {
        let me = ServerId(index as i64 + 1);
        let is_observer = index >= self.options.voters;
        let members = Arc::clone(&self.members);
        let timing = Timing { tick: TICK, init_limit: 10, sync_limit: 5 };
        let elector = ElectorConfig {
            me,
            is_observer,
            members: Arc::clone(&members),
            my_election_address: format!("h{index}:2"),
            finalize_wait: Duration::from_millis(200),
            notification_interval_min: Duration::from_millis(200),
            notification_interval_max: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(1),
            tick: TICK,
            fast: self.options.fast,
        };
        let grace = self.options.grace;
        let mode = OwnerMode::Plain;
        let leader_serves = self.options.leader_serves;
        MemberConfig { me, members, is_observer, timing, elector, grace, leader_serves, mode, log }
    }

    /// A server is established as a leader.
    pub(super) fn note_leader(&mut self, index: usize) {
        let host = &self.hosts[index];
        let (epoch, end) = host.process.as_ref().expect("it runs").inherited();
        self.checks.on_leader((index, host.life), epoch, end);
    }

    /// Ends a server.
    pub(in crate::sim::ensemble) fn end(&mut self, index: usize, end: End) {
        let mut random = self.random.split();
        let host = &mut self.hosts[index];
        let Some(process) = host.process.take() else { return };
        if self.is_told {
            eprintln!("{:>12.6} server {}: {end:?}", self.now as f64 / SECOND as f64, index + 1);
        }
        let is_kept = end == End::Killed;
        let is_silent = end == End::PowerLost;
        *self.stats.ends.entry(end.name()).or_default() += 1;
        host.life += 1;
        host.paused = false;
        host.deferred.clear();
        host.is_silent = is_silent;
        host.store = host.store.after(!is_kept, &mut random);
        let links = process.pipes.into_values().collect();
        let silence = if is_silent { 6 * SECOND } else { 0 };
        self.end_links(links, silence);
        self.end_attachments(index, silence);
    }
}

impl Process {
    /// The epoch that this server leads, and the end of what it begins with.
    fn inherited(&self) -> (Epoch, Zxid) {
        let replica = self.peer.replica();
        let epoch = replica.last_made().epoch();
        let before = replica.history().behind(Zxid::ZERO).map(|(zxid, _)| zxid);
        let before = before.take_while(|zxid| zxid.epoch() < epoch).last();
        (epoch, before.unwrap_or(replica.last_logged().min(Zxid::new(epoch, 0))))
    }
}

impl End {
    /// For counts.
    fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::PowerLost => "lost its power",
            Self::WriteFailed => "a write failed",
        }
    }
}

fn replica_config(index: usize, options: &Options) -> replica::Config {
    replica::Config {
        server_id: index as u8 + 1,
        tick_ms: TICK.as_millis() as u32,
        cores: options.cores,
        rules: Rules { packet_bytes_max: PACKET_BYTES_MAX, ..Rules::default() },
        snapshot_txns: options.snapshot_txns,
        history_bytes: options.history_bytes,
        log_share: Some(options.log_share),
        rollover_counter: options.rollover_counter,
        names_committed: options.planted == Some(Planted::VoteOfCommitted),
        group_bytes: options.group_bytes(),
        linearizable_sync: options.linearizable_sync,
        ..replica::Config::default()
    }
}

fn client_config() -> Arc<client_core::Config> {
    Arc::new(client_core::Config {
        rules: Rules { packet_bytes_max: PACKET_BYTES_MAX, ..Rules::default() },
        auth: AuthRules::default(),
        session_timeouts: TimeoutLimits::of_tick(TICK.as_millis() as i32),
        outstanding_max: 1000,
        sessionless_timeout: Duration::from_secs(2),
    })
}
