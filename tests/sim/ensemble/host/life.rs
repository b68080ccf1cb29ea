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

use super::{Core, Process};
use crate::sim::ensemble::store::SEGMENT_BYTES;
use crate::sim::ensemble::{Options, Planted, SECOND, TICK, World};

const PACKET_BYTES_MAX: usize = 16 << 10;

impl World {
    /// Starts a server from what is on its disk.
    pub(in crate::sim::ensemble) fn start(&mut self, index: usize) {
        let seed = self.random.any();
        let host = &mut self.hosts[index];
        host.life += 1;
        host.is_silent = false;
        let found = host.store.open(self.options.history_bytes);
        let mut found = found.unwrap_or_else(|error| panic!("server {}: {error}", index + 1));
        if self.options.planted == Some(Planted::SnapshotOutlivesCut) && found.has_data {
            host.store.snapshot_early(&mut found).expect("its disk is well");
        }
        let now = host.time(self.now);
        let log = LogConfig {
            segment_bytes: SEGMENT_BYTES,
            frame_bytes_max: 16 << 10,
            seed,
            ..LogConfig::default()
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
        let timing = Timing { tick: TICK, init_limit: 10, sync_limit: 5, linearizable_sync: true };
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
        let leader_serves = true;
        MemberConfig { me, members, is_observer, timing, elector, grace, leader_serves, mode, log }
    }

    /// Ends a server: the process alone, or with it the power.
    pub(in crate::sim::ensemble) fn end(&mut self, index: usize, power_lost: bool) {
        let mut random = self.random.split();
        let host = &mut self.hosts[index];
        let Some(process) = host.process.take() else { return };
        if self.is_told {
            eprintln!("server {} ends, power lost: {power_lost}", index + 1);
        }
        host.life += 1;
        host.paused = false;
        host.deferred.clear();
        host.is_silent = power_lost;
        host.store = host.store.after(power_lost, &mut random);
        let links = process.pipes.into_values().collect();
        let silence = if power_lost { 6 * SECOND } else { 0 };
        self.end_links(links, silence);
        self.end_attachments(index, silence);
    }
}

fn replica_config(index: usize, options: &Options) -> replica::Config {
    replica::Config {
        server_id: index as u8 + 1,
        tick_ms: TICK.as_millis() as u32,
        cores: options.cores,
        rules: Rules { packet_bytes_max: PACKET_BYTES_MAX, ..Rules::default() },
        container_check_interval: Duration::from_secs(60),
        container_deletions_max: 100,
        container_never_used_max: Duration::ZERO,
        slow_write: None,
        slow_sync: Duration::MAX,
        memory_bytes_max: None,
        snapshot_txns: options.snapshot_txns,
        snapshot_log_bytes: u64::MAX,
        history_bytes: options.history_bytes,
        log_share: Some(options.log_share),
        rollover_counter: options.rollover_counter,
    }
}

fn client_config() -> Arc<client_core::Config> {
    Arc::new(client_core::Config {
        rules: Rules::default(),
        auth: AuthRules::default(),
        packet_bytes_max: PACKET_BYTES_MAX,
        session_timeouts: TimeoutLimits::of_tick(TICK.as_millis() as i32),
        outstanding_max: 1000,
        sessionless_timeout: Duration::from_secs(2),
    })
}
