//! The answer to `mntr`: a line for each number that monitoring may want, named as in ZooKeeper.

use engine::metrics::{Summary, Times};

use super::report::{Mode, ServerReport, SizeReport};
use super::text::Average;
use crate::version;

/// The value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Int(u64),
    /// An average.
    Average(Average),
}

/// A metric by its name, which has no `zk_` in front here.
pub type Metric = (String, Value);

/// What the numbers of a summary are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// What is counted.
    One,
    /// Microseconds; they are shown as milliseconds.
    Ms,
}

impl Unit {
    fn divisor(self) -> u64 {
        match self {
            Self::One => 1,
            Self::Ms => 1_000,
        }
    }
}

/// A line that is a number.
pub fn counter(name: &str, value: u64) -> Metric {
    (name.to_owned(), Value::Int(value))
}

/// The lines of a summary.
// Compat: AvgMinMaxCounter.values
pub fn summary(name: &str, unit: Unit, of: &Summary) -> [Metric; 5] {
    let whole = |value: u64| Value::Int(value / unit.divisor());
    let average = Average::of(of.sum, of.count.saturating_mul(unit.divisor()));
    [
        (format!("avg_{name}"), Value::Average(average)),
        (format!("min_{name}"), whole(of.min)),
        (format!("max_{name}"), whole(of.max)),
        (format!("cnt_{name}"), Value::Int(of.count)),
        (format!("sum_{name}"), whole(of.sum)),
    ]
}

/// The lines of a summary of times, with percentiles.
// Compat: AvgMinMaxPercentileCounter.values
pub fn percentiles(name: &str, times: &Times) -> impl Iterator<Item = Metric> {
    let places = [("p50", 500), ("p95", 950), ("p99", 990), ("p999", 999)];
    let line = |(place, per_mille): (&str, u64)| {
        (format!("{place}_{name}"), Value::Int(times.percentile_ms(per_mille)))
    };
    summary(name, Unit::Ms, times.summary()).into_iter().chain(places.map(line))
}

/// Numbers of the moment beyond those of [`ServerReport`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GaugeReport {
    /// Watches of all kinds.
    pub watches: u64,
    /// Ephemeral znodes.
    pub ephemerals: u64,
    /// Bytes of paths and data, as ZooKeeper estimates them.
    pub data_bytes: u64,
    /// Sessions that every server knows.
    pub global_sessions: u64,
    /// Sessions that only this server knows.
    pub local_sessions: u64,
    /// How long the process has been up.
    pub uptime_ms: u64,
    /// Descriptors in use.
    pub open_files: u64,
    /// Descriptors that the process may have.
    pub open_files_max: u64,
    /// Sizes of the replies to clients.
    pub responses: SizeReport,
    /// Failed authentications.
    pub auth_failed: u64,
    /// The longest turn of any core since the statistics were reset.
    pub longest_turn_us: u64,
    /// Page faults of the process that had to read from a disk.
    pub major_faults: u64,
    /// How many zxids of the epoch are used up; at 2^32 a new epoch must begin.
    pub zxid_counter: u32,
    /// Resident memory of the process.
    pub resident_bytes: u64,
    /// What a member of an ensemble knows beyond that.
    pub ensemble: Option<EnsembleGauges>,
}

/// Numbers of the moment of a member of an ensemble.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EnsembleGauges {
    /// How many servers vote.
    pub voters: u64,
    /// On the leader.
    pub leader: Option<LeaderGauges>,
    /// On an observer: whom it learns from.
    pub observed: Option<i64>,
}

/// Numbers of the moment of a leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaderGauges {
    /// Its learners.
    pub learners: u64,
    /// Followers among them that are up to date. All of them vote: no others are let in.
    pub followers: u64,
    /// Observers among them that are up to date.
    pub observers: u64,
    /// Syncs that wait until it is known that it still leads.
    pub pending_syncs: u64,
    /// How long it has been leading.
    pub uptime_ms: u64,
}

/// The answer to `mntr`: version and state, the numbers of the moment, then `metrics` in the order
/// given.
// Compat: MonitorCommand.commandRun, ZooKeeperServer.dumpMonitorValues
pub fn mntr(
    server: &ServerReport,
    gauges: &GaugeReport,
    metrics: impl IntoIterator<Item = Metric>,
) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        out.extend(["zk_", name, "\t", value, "\n"]);
    };
    line("version", version::FULL);
    line("server_state", server.mode.name());
    if let Some(state) = peer_state(server.mode) {
        line("peer_state", state);
    }
    if let Some(leader) = gauges.ensemble.and_then(|ensemble| ensemble.observed) {
        line("observer_master_id", &leader.to_string());
    }
    line("avg_latency", &server.latency.average.to_string());
    line("connection_drop_probability", "0.0");
    for (name, value) in whole_gauges(server, gauges) {
        line(name, &value.to_string());
    }
    for (name, value) in metrics {
        match value {
            Value::Int(number) => line(&name, &number.to_string()),
            Value::Average(average) => line(&name, &average.to_string()),
        }
    }
    out
}

// Compat: LeaderZooKeeperServer, LearnerZooKeeperServer: the state of the peer while it serves
fn peer_state(mode: Mode) -> Option<&'static str> {
    match mode {
        Mode::Leader => Some("leading - broadcast"),
        Mode::Follower => Some("following - broadcast"),
        Mode::Observer => Some("observing - broadcast"),
        Mode::Standalone => None,
    }
}

// Compat: ZooKeeperServer.registerMetrics; the last five are ringkeeper's own.
fn whole_gauges(server: &ServerReport, gauges: &GaugeReport) -> Vec<(&'static str, i128)> {
    let SizeReport { last, min, max } = gauges.responses;
    let mut list = vec![
        ("max_latency", i128::from(server.latency.max_ms)),
        ("min_latency", i128::from(server.latency.min_ms)),
        ("packets_received", i128::from(server.packets_received)),
        ("packets_sent", i128::from(server.packets_sent)),
        ("num_alive_connections", i128::from(server.connections)),
        ("outstanding_requests", i128::from(server.outstanding)),
        ("uptime", i128::from(gauges.uptime_ms)),
        ("znode_count", i128::from(server.znodes)),
        ("watch_count", i128::from(gauges.watches)),
        ("ephemerals_count", i128::from(gauges.ephemerals)),
        ("approximate_data_size", i128::from(gauges.data_bytes)),
        ("global_sessions", i128::from(gauges.global_sessions)),
        ("local_sessions", i128::from(gauges.local_sessions)),
        ("open_file_descriptor_count", i128::from(gauges.open_files)),
        ("max_file_descriptor_count", i128::from(gauges.open_files_max)),
        ("last_client_response_size", i128::from(last)),
        ("max_client_response_size", i128::from(max)),
        ("min_client_response_size", i128::from(min)),
        ("outstanding_tls_handshake", 0),
        ("auth_failed_count", i128::from(gauges.auth_failed)),
        ("non_mtls_remote_conn_count", 0),
        ("non_mtls_local_conn_count", 0),
    ];
    if let Some(SizeReport { last, min, max }) = server.proposals {
        list.extend([
            ("last_proposal_size", i128::from(last)),
            ("max_proposal_size", i128::from(max)),
            ("min_proposal_size", i128::from(min)),
        ]);
    }
    // Compat: QuorumZooKeeperServer.registerMetrics, LeaderZooKeeperServer.registerMetrics
    if let Some(ensemble) = gauges.ensemble {
        list.push(("quorum_size", i128::from(ensemble.voters)));
        if let Some(leader) = ensemble.leader {
            list.extend([
                ("learners", i128::from(leader.learners)),
                ("synced_followers", i128::from(leader.followers)),
                ("synced_non_voting_followers", 0),
                ("synced_observers", i128::from(leader.observers)),
                ("pending_syncs", i128::from(leader.pending_syncs)),
                ("leader_uptime", i128::from(leader.uptime_ms)),
            ]);
        }
        // Compat: FollowerZooKeeperServer.registerMetrics: those that learn from a follower.
        if server.mode == Mode::Follower {
            list.push(("synced_observers", 0));
        }
    }
    list.extend([
        ("longest_turn_us", i128::from(gauges.longest_turn_us)),
        ("major_faults", i128::from(gauges.major_faults)),
        ("zxid_counter_used", i128::from(gauges.zxid_counter)),
        ("zxid_counter_left", i128::from(u32::MAX - gauges.zxid_counter)),
        ("resident_bytes", i128::from(gauges.resident_bytes)),
    ]);
    list
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use engine::zxid::Zxid;

    use super::*;
    use crate::four_letter::report::LatencyReport;
    use crate::four_letter::text::Average;

    fn server(mode: Mode) -> ServerReport {
        let average = Average::of(23, 9);
        ServerReport {
            mode,
            latency: LatencyReport { min_ms: 0, average, max_ms: 9 },
            packets_received: 7,
            packets_sent: 6,
            connections: 4,
            outstanding: 0,
            zxid: Zxid(5),
            znodes: 8,
            proposals: None,
        }
    }

    #[track_caller]
    fn check(answer: &str, line: &str) {
        assert!(answer.lines().any(|found| found == line), "{line:?} is not in\n{answer}");
    }

    #[test]
    fn lines_have_the_prefix_and_a_tab() {
        let gauges = GaugeReport { watches: 4, zxid_counter: 5, ..GaugeReport::default() };
        let mut times = Times::default();
        times.record(Duration::from_micros(1_250));
        times.record(Duration::from_millis(7));
        let metrics = [counter("commit_count", 3)].into_iter().chain(percentiles("wait", &times));
        let answer = mntr(&server(Mode::Standalone), &gauges, metrics);
        assert!(answer.starts_with("zk_version\t3.9.3-ringkeeper."));
        check(&answer, "zk_server_state\tstandalone");
        check(&answer, "zk_avg_latency\t2.5556");
        check(&answer, "zk_watch_count\t4");
        check(&answer, "zk_last_client_response_size\t-1");
        check(&answer, "zk_connection_drop_probability\t0.0");
        check(&answer, "zk_zxid_counter_left\t4294967290");
        check(&answer, "zk_commit_count\t3");
        let times = answer.split_once("zk_commit_count\t3\n").unwrap().1;
        let expected = "zk_avg_wait\t4.125\nzk_min_wait\t1\nzk_max_wait\t7\nzk_cnt_wait\t2\n\
                        zk_sum_wait\t8\nzk_p50_wait\t1\nzk_p95_wait\t7\nzk_p99_wait\t7\n\
                        zk_p999_wait\t7\n";
        assert_eq!(times, expected);
        assert!(!answer.contains("peer_state"));
    }

    #[test]
    fn a_member_tells_of_its_ensemble() {
        let answer = |mode, ensemble| {
            let gauges = GaugeReport { ensemble: Some(ensemble), ..GaugeReport::default() };
            mntr(&server(mode), &gauges, [])
        };
        let member = EnsembleGauges { voters: 3, ..EnsembleGauges::default() };
        let gauges = LeaderGauges {
            learners: 4,
            followers: 2,
            observers: 1,
            pending_syncs: 7,
            uptime_ms: 61_002,
        };
        let leader = answer(Mode::Leader, EnsembleGauges { leader: Some(gauges), ..member });
        check(&leader, "zk_quorum_size\t3");
        check(&leader, "zk_learners\t4");
        check(&leader, "zk_synced_followers\t2");
        check(&leader, "zk_synced_non_voting_followers\t0");
        check(&leader, "zk_synced_observers\t1");
        check(&leader, "zk_pending_syncs\t7");
        check(&leader, "zk_leader_uptime\t61002");
        let follower = answer(Mode::Follower, member);
        check(&follower, "zk_synced_observers\t0");
        assert!(!follower.contains("followers") && !follower.contains("leader_uptime"));
        let observer = answer(Mode::Observer, EnsembleGauges { observed: Some(3), ..member });
        check(&observer, "zk_observer_master_id\t3");
        assert!(!observer.contains("synced") && !observer.contains("leader_uptime"));
    }

    #[test]
    fn every_name_is_there_once() {
        let leader = Some(LeaderGauges::default());
        let ensemble = EnsembleGauges { voters: 3, leader, ..EnsembleGauges::default() };
        let gauges = GaugeReport { ensemble: Some(ensemble), ..GaugeReport::default() };
        let answer = mntr(&server(Mode::Leader), &gauges, []);
        check(&answer, "zk_peer_state\tleading - broadcast");
        let mut names: Vec<_> =
            answer.lines().map(|line| line.split_once('\t').unwrap().0).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
