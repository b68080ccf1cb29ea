//! Four-letter words: asks every core for its part of a report, and makes the answer of it.
//!
//! The core that got the word sends a [`Collector`] to all cores; the one that adds the last part
//! composes the text and sends it back. Nobody waits.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::AcqRel, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::btree::Version;
use engine::client_core::{ConnectionReport as Connection, CoreReport, LatencyStats};
use engine::ids::{ConnectionId, CoreId, SessionId};
use engine::metrics::micros;
use engine::op::OpCode;
use engine::quorum_peer::RoleKind;
use engine::time::{Instant, WallTime};
use engine::tree;
use engine::zxid::Zxid;

use super::core::Events;
use super::mailbox::ToCore;
use super::metrics;
use super::ordering::{Ordering, OrderingReport};
use crate::clock::Clock;
use crate::four_letter::monitor::{self, EnsembleGauges, GaugeReport, LeaderGauges};
use crate::four_letter::report::{
    ConfigReport, ConnectionReport, DumpReport, EnvironmentReport, LatencyReport, Mode,
    ServerReport, SessionReport, SessionsReport, WatchReport,
};
use crate::four_letter::text::{self, Average};
use crate::four_letter::{Needs, Whitelist, Word};
use crate::process;
use crate::storage::OpeningTimes;

/// The core that orders, and so knows what the server is.
const ORDERING_CORE: CoreId = CoreId(0);

/// What four-letter words tell about the server as a whole.
#[derive(Debug)]
pub struct Facts {
    /// Which words are answered.
    pub whitelist: Whitelist,
    /// The configuration; the sizes of the directories are filled in when asked.
    pub config: ConfigReport,
    /// Names and values of `envi`.
    pub environment: EnvironmentReport,
    /// How long it took to open the data.
    pub opening: OpeningTimes,
    /// The trace mask, kept only to be told again.
    pub trace_mask: AtomicU64,
}

/// Gathers the parts of a report.
#[derive(Debug)]
pub(crate) struct Collector {
    word: Word,
    asker: ConnectionId,
    missing: AtomicUsize,
    parts: Mutex<Parts>,
}

#[derive(Debug, Default)]
struct Parts {
    cores: Vec<CoreReport>,
    /// When the connections of the cores were accepted.
    established: BTreeMap<ConnectionId, WallTime>,
    deadlines: Vec<(Instant, Vec<SessionId>)>,
    /// Connections that were refused.
    rejected: u64,
    /// The ordering core's part.
    ordering: Option<OrderingReport>,
    /// Digests at earlier transactions.
    digests: Vec<(Zxid, u64)>,
    /// How many servers vote.
    voters: usize,
}

impl Parts {
    fn ordering(&self) -> &OrderingReport {
        self.ordering.as_ref().expect("the ordering core's part is among them")
    }

    fn role(&self) -> RoleKind {
        self.ordering().role
    }
}

/// Begins to answer a word.
pub(super) fn ask(events: &Events, asker: ConnectionId, bytes: [u8; 4], rest: &[u8]) {
    let facts = &events.shared.facts;
    let answer = |text: String| {
        events.shared.send(events.id, ToCore::Answer(asker, text.into_bytes()));
    };
    let Some(word) = Word::from_bytes(bytes) else {
        return answer(String::new());
    };
    if !facts.whitelist.allows(word) {
        return answer(text::not_allowed(word));
    }
    match word.needs() {
        Needs::Environment => return answer(text::envi(&facts.environment)),
        Needs::Mask => {
            let mask = rest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
            facts.trace_mask.store(mask, Relaxed);
            return answer(text::trace_mask(mask.cast_signed()));
        }
        Needs::Nothing if word == Word::Gtmk => {
            return answer(text::trace_mask(facts.trace_mask.load(Relaxed).cast_signed()));
        }
        Needs::Nothing => return answer(text::constant(word).unwrap_or_default().to_owned()),
        Needs::Role
        | Needs::Reset
        | Needs::Config
        | Needs::Server
        | Needs::ServerAndConnections
        | Needs::Connections
        | Needs::Dump
        | Needs::Watches
        | Needs::Metrics
        | Needs::Digests => {}
    }
    let shared = &events.shared;
    // Only one core knows whether the server serves, and before that nothing may be reset.
    let asks_one = word.needs() == Needs::Reset;
    let missing = AtomicUsize::new(if asks_one { 1 } else { shared.cores_count() });
    let collector = Arc::new(Collector { word, asker, missing, parts: Mutex::default() });
    let report = || ToCore::Report(Arc::clone(&collector));
    if asks_one { shared.send(ORDERING_CORE, report()) } else { shared.send_to_all(report) }
}

/// Adds a core's part. The last one makes the answer.
pub(super) fn add_part(
    events: &mut Events,
    mut ordering: Option<&mut Ordering>,
    collector: &Arc<Collector>,
) {
    let word = collector.word;
    if word.needs() == Needs::Reset {
        reset(events, ordering.as_deref_mut(), collector);
    }
    let detailed = matches!(
        word.needs(),
        Needs::ServerAndConnections | Needs::Connections | Needs::Dump | Needs::Watches
    );
    let part = events.clients.report(detailed);
    let mut parts = collector.parts.lock().unwrap_or_else(PoisonError::into_inner);
    let established = |connection: &Connection| Some((connection.id, events.since(connection.id)?));
    parts.established.extend(part.connections.iter().filter_map(established));
    parts.cores.push(part);
    if let Some(ordering) = ordering {
        parts.ordering = Some(ordering.report());
        if word == Word::Hash {
            parts.digests = ordering.digests();
        }
        if word.needs() == Needs::Dump {
            parts.deadlines = ordering.session_deadlines();
        }
    }
    if collector.missing.fetch_sub(1, AcqRel) == 1 {
        parts.rejected = events.shared.admission.rejected();
        let member = events.shared.facts.config.member.as_ref();
        parts.voters = member.map_or(0, |member| member.voters);
        let view = Published {
            version: &events.shared.published().version,
            clock: &events.clock,
            facts: &events.shared.facts,
        };
        let text = compose(word, &view, &parts);
        events.shared.send(collector.asker.core, ToCore::Answer(collector.asker, text.into()));
    }
}

/// The state and the time of an answer.
struct Published<'a> {
    version: &'a Version,
    clock: &'a Clock,
    facts: &'a Facts,
}

/// Resets a core's part, unless the server serves nobody. The ordering core is the first to be
/// asked, and asks the others.
// Compat: StatResetCommand.commandRun, CnxnStatResetCommand.commandRun
fn reset(events: &mut Events, ordering: Option<&mut Ordering>, collector: &Arc<Collector>) {
    if let Some(ordering) = ordering {
        if ordering.report().role == RoleKind::Looking {
            return;
        }
        let others = 1..events.shared.cores_count();
        // Before this core has added its own part, or that would be the last one.
        collector.missing.fetch_add(others.len(), AcqRel);
        for core in others {
            let core = CoreId(core as u16);
            events.shared.send(core, ToCore::Report(Arc::clone(collector)));
        }
        if collector.word == Word::Srst {
            ordering.reset_stats();
        }
    }
    match collector.word {
        Word::Crst => events.clients.reset_connection_stats(),
        _ => events.clients.reset_stats(),
    }
}

fn compose(word: Word, published: &Published<'_>, parts: &Parts) -> String {
    // Compat: AbstractFourLetterCommand.isZKServerRunning
    if parts.role() == RoleKind::Looking
        && let Some(text) = text::not_serving(word)
    {
        return text;
    }
    let server = || server_report(published, parts);
    let connections = || connection_reports(parts);
    match word {
        Word::Srvr => text::srvr(&server()),
        Word::Stat => text::stat(&server(), &connections()),
        Word::Conf => text::conf(&config_report(published.facts)),
        Word::Dirs => text::dirs(&config_report(published.facts)),
        Word::Cons => text::cons(&connections()),
        Word::Dump => text::dump(&dump_report(published, parts)),
        Word::Wchs => text::wchs(&watch_report(parts)),
        Word::Wchc => text::wchc(&watch_report(parts)),
        Word::Wchp => text::wchp(&watch_report(parts)),
        Word::Mntr => mntr(published, parts),
        Word::Hash => text::hash(&parts.digests),
        Word::Isro
        | Word::Crst
        | Word::Srst
        | Word::Envi
        | Word::Gtmk
        | Word::Stmk
        | Word::Ruok
        | Word::TelnetClose => text::constant(word).unwrap_or_default().to_owned(),
    }
}

fn config_report(facts: &Facts) -> ConfigReport {
    let config = facts.config.clone();
    let bytes = |folder: &Path| process::directory_bytes(folder).unwrap_or(0);
    let (data_dir_bytes, data_log_bytes) = (bytes(&config.data_dir), bytes(&config.data_log_dir));
    ConfigReport { data_dir_bytes, data_log_bytes, ..config }
}

fn mode(role: RoleKind) -> Mode {
    match role {
        // One that looks for a leader says that it does not serve, and nothing else.
        RoleKind::Standalone | RoleKind::Looking => Mode::Standalone,
        RoleKind::Leading { .. } => Mode::Leader,
        RoleKind::Following(_) => Mode::Follower,
        RoleKind::Observing(_) => Mode::Observer,
    }
}

fn ensemble_gauges(now: Instant, parts: &Parts) -> Option<EnsembleGauges> {
    let mut gauges = EnsembleGauges { voters: parts.voters as u64, ..EnsembleGauges::default() };
    match parts.role() {
        RoleKind::Standalone | RoleKind::Looking => return None,
        RoleKind::Leading { since, learners, synced, observers } => {
            gauges.leader = Some(LeaderGauges {
                learners: learners as u64,
                followers: synced as u64,
                observers: observers as u64,
                pending_syncs: parts.ordering().pending_syncs,
                uptime_ms: millis(now.since(since)),
            });
        }
        RoleKind::Following(_) => {}
        RoleKind::Observing(leader) => gauges.observed = Some(leader.0),
    }
    Some(gauges)
}

fn server_report(published: &Published<'_>, parts: &Parts) -> ServerReport {
    let sum = |of: fn(&CoreReport) -> u64| parts.cores.iter().map(of).sum();
    let mut latency = LatencyStats::default();
    for core in &parts.cores {
        latency.merge(&core.stats.latency);
    }
    ServerReport {
        mode: mode(parts.role()),
        latency: latency_report(&latency),
        packets_received: sum(|core| core.stats.packets_received),
        packets_sent: sum(|core| core.stats.packets_sent),
        connections: sum(|core| core.connections_count as u64),
        outstanding: sum(|core| core.outstanding as u64),
        zxid: published.version.zxid(),
        znodes: tree::counters(published.version).znode_count,
        proposals: matches!(parts.role(), RoleKind::Leading { .. })
            .then(|| metrics::size_report(parts.ordering().replica.proposal_sizes)),
    }
}

fn latency_report(latency: &LatencyStats) -> LatencyReport {
    LatencyReport {
        min_ms: millis(latency.min),
        average: Average::ms_of(micros(latency.sum), latency.count),
        max_ms: millis(latency.max),
    }
}

/// Whole milliseconds.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn connections(parts: &Parts) -> impl Iterator<Item = &Connection> {
    parts.cores.iter().flat_map(|core| &core.connections)
}

fn connection_reports(parts: &Parts) -> Vec<ConnectionReport> {
    let established = |id| parts.established.get(&id).copied().unwrap_or_default();
    let report = |connection: &Connection| ConnectionReport {
        peer: connection.peer,
        reads: connection.reads,
        writes: connection.writes,
        queued: connection.queued as u64,
        received: connection.stats.received,
        sent: connection.stats.sent,
        session: connection
            .session
            .map(|id| session_report(id, connection, established(connection.id))),
    };
    connections(parts).map(report).collect()
}

fn session_report(id: SessionId, connection: &Connection, established: WallTime) -> SessionReport {
    let stats = &connection.stats;
    let operation =
        stats.last_op.and_then(OpCode::from_wire).map_or(text::NO_OPERATION, text::operation);
    SessionReport {
        id,
        last_operation: operation,
        established,
        timeout_ms: i32::try_from(connection.timeout.as_millis()).unwrap_or(i32::MAX),
        last_xid: engine::ids::Xid(stats.last_xid),
        last_zxid: Zxid(stats.last_zxid),
        last_response_ms: stats.last_response.as_millis(),
        last_latency_ms: millis(stats.last_latency),
        latency: latency_report(&stats.latency),
    }
}

fn watch_report(parts: &Parts) -> WatchReport {
    let watching = connections(parts).filter(|connection| !connection.data_watches.is_empty());
    let entry = |connection: &Connection| {
        (connection.session.unwrap_or_default(), connection.data_watches.clone())
    };
    WatchReport { connections: watching.map(entry).collect() }
}

/// Connections are shown by deadlines of this unit.
// Compat: NIOServerCnxnFactory.configure
const CONNECTION_BUCKET_MS: u64 = 10_000;

fn dump_report(published: &Published<'_>, parts: &Parts) -> DumpReport {
    let now = published.clock.now();
    let wall = |at: Instant| {
        let left = at.as_millis().cast_signed() - now.instant.as_millis().cast_signed();
        WallTime(now.wall.0 + left)
    };
    let (mut ephemerals, mut timeouts) = (Vec::new(), Vec::new());
    let mut sessions = tree::sessions(published.version);
    while let Some((session, timeout_ms)) = sessions.next_session() {
        timeouts.push((session, timeout_ms));
        let mut paths = Vec::new();
        let mut cursor = tree::ephemerals(published.version, session);
        while let Some(path) = cursor.next_path() {
            paths.push(path.to_owned());
        }
        if !paths.is_empty() {
            ephemerals.push((session, paths));
        }
    }
    let mut by_deadline = BTreeMap::<_, Vec<_>>::new();
    for connection in connections(parts) {
        // Compat: ExpiryQueue.roundToNextInterval, by the clock that expiry goes by
        let deadline = connection.deadline.as_millis();
        let bucket = (deadline / CONNECTION_BUCKET_MS + 1) * CONNECTION_BUCKET_MS;
        let bucket = wall(Instant::from_nanos(bucket * 1_000_000));
        let session = connection.session.unwrap_or_default();
        by_deadline.entry(bucket).or_default().push((connection.peer, session));
    }
    timeouts.sort_unstable();
    let learns = matches!(parts.role(), RoleKind::Following(_) | RoleKind::Observing(_));
    let deadlines = parts.deadlines.iter();
    DumpReport {
        sessions: if learns {
            SessionsReport::Timeouts(timeouts)
        } else {
            let at = |(at, sessions): &(Instant, Vec<_>)| (wall(*at), sessions.clone());
            SessionsReport::Deadlines(deadlines.map(at).collect())
        },
        ephemerals,
        connections: by_deadline.into_iter().collect(),
    }
}

fn mntr(published: &Published<'_>, parts: &Parts) -> String {
    let counters = tree::counters(published.version);
    let sum = |of: fn(&CoreReport) -> u64| parts.cores.iter().map(of).sum();
    let longest = parts.cores.iter().map(|core| core.stats.longest_turn).max().unwrap_or_default();
    let usage = process::report();
    let gauges = GaugeReport {
        watches: sum(|core| core.watches_count as u64),
        ephemerals: counters.ephemerals_count,
        data_bytes: counters.data_bytes,
        global_sessions: counters.sessions_count,
        local_sessions: 0,
        uptime_ms: published.clock.instant().as_millis(),
        open_files: usage.open_files,
        open_files_max: usage.open_files_max,
        responses: metrics::response_sizes(&parts.cores),
        auth_failed: sum(|core| core.stats.auth_failed),
        longest_turn_us: micros(longest),
        major_faults: usage.major_faults,
        zxid_counter: published.version.zxid().counter(),
        resident_bytes: usage.resident_bytes,
        ensemble: ensemble_gauges(published.clock.instant(), parts),
    };
    let opening = published.facts.opening;
    let metrics = metrics::all(&parts.cores, parts.ordering(), opening, parts.rejected);
    monitor::mntr(&server_report(published, parts), &gauges, metrics)
}
