//! Four-letter words: asks every core for its part of a report, and makes the answer of it.
//!
//! The core that got the word sends a [`Collector`] to all cores; the one that adds the last part
//! composes the text and sends it back. Nobody waits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::AcqRel, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use engine::btree::Version;
use engine::client_core::{ConnectionReport as Connection, CoreReport, LatencyStats};
use engine::ids::{ConnectionId, SessionId};
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
        Needs::Config => {
            let mut config = facts.config.clone();
            config.data_dir_bytes = process::directory_bytes(&config.data_dir).unwrap_or(0);
            config.data_log_bytes = process::directory_bytes(&config.data_log_dir).unwrap_or(0);
            let is_conf = word == Word::Conf;
            return answer(if is_conf { text::conf(&config) } else { text::dirs(&config) });
        }
        Needs::Environment => return answer(text::envi(&facts.environment)),
        Needs::Mask => {
            let mask = rest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
            facts.trace_mask.store(mask, Relaxed);
            return answer(text::trace_mask(mask.cast_signed()));
        }
        Needs::Nothing if word == Word::Gtmk => {
            return answer(text::trace_mask(facts.trace_mask.load(Relaxed).cast_signed()));
        }
        Needs::Nothing if !matches!(word, Word::Srst | Word::Crst) => {
            return answer(text::constant(word).unwrap_or_default().to_owned());
        }
        Needs::Nothing
        | Needs::Server
        | Needs::ServerAndConnections
        | Needs::Connections
        | Needs::Dump
        | Needs::Watches
        | Needs::Metrics
        | Needs::Digests => {}
    }
    let missing = AtomicUsize::new(events.shared.cores_count());
    let collector = Arc::new(Collector { word, asker, missing, parts: Mutex::default() });
    events.shared.send_to_all(|| ToCore::Report(Arc::clone(&collector)));
}

/// Adds a core's part. The last one makes the answer.
pub(super) fn add_part(
    events: &mut Events,
    mut ordering: Option<&mut Ordering>,
    collector: &Collector,
) {
    let word = collector.word;
    if matches!(word, Word::Srst | Word::Crst) {
        events.clients.reset_stats(word == Word::Crst);
    }
    if word == Word::Srst
        && let Some(ordering) = &mut ordering
    {
        ordering.reset_stats();
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
            opening: events.shared.facts.opening,
        };
        let text = compose(word, &view, &parts);
        events.shared.send(collector.asker.core, ToCore::Answer(collector.asker, text.into()));
    }
}

/// The state and the time of an answer.
struct Published<'a> {
    version: &'a Version,
    clock: &'a Clock,
    opening: OpeningTimes,
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
        Word::Isro => text::isro(mode(parts.role())).to_owned(),
        Word::Cons => text::cons(&connections()),
        Word::Dump => text::dump(&dump_report(published, parts)),
        Word::Wchs => text::wchs(&watch_report(parts)),
        Word::Wchc => text::wchc(&watch_report(parts)),
        Word::Wchp => text::wchp(&watch_report(parts)),
        Word::Mntr => mntr(published, parts),
        Word::Hash => text::hash(&parts.digests),
        Word::Crst
        | Word::Srst
        | Word::Conf
        | Word::Dirs
        | Word::Envi
        | Word::Gtmk
        | Word::Stmk
        | Word::Ruok
        | Word::TelnetClose => text::constant(word).unwrap_or_default().to_owned(),
    }
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
                uptime_ms: u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX),
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
    let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(0);
    LatencyReport {
        min_ms: ms(latency.min),
        average: Average::ms_of(
            u64::try_from(latency.sum.as_micros()).unwrap_or(u64::MAX),
            latency.count,
        ),
        max_ms: ms(latency.max),
    }
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
    let operation = stats.last_op.and_then(OpCode::from_wire).map_or("NA", text::operation);
    let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(0);
    SessionReport {
        id,
        last_operation: operation,
        established,
        timeout_ms: i32::try_from(connection.timeout.as_millis()).unwrap_or(i32::MAX),
        last_xid: engine::ids::Xid(stats.last_xid),
        last_zxid: Zxid(stats.last_zxid),
        last_response_ms: stats.last_response.as_millis(),
        last_latency_ms: ms(stats.last_latency),
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
        longest_turn_us: u64::try_from(longest.as_micros()).unwrap_or(u64::MAX),
        major_faults: usage.major_faults,
        zxid_counter: published.version.zxid().counter(),
        resident_bytes: usage.resident_bytes,
        ensemble: ensemble_gauges(published.clock.instant(), parts),
    };
    let metrics = metrics::all(&parts.cores, parts.ordering(), published.opening, parts.rejected);
    monitor::mntr(&server_report(published, parts), &gauges, metrics)
}
