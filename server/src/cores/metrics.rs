//! What is counted and timed, under ZooKeeper's names: the part of `mntr` that is not of the
//! moment. docs/operations.md has the same list, and says what each figure means here.

use engine::client_core::{CoreReport, CoreStats};
use engine::metrics::{Sizes, Summary, Times};
use engine::quorum_peer::MemberStats;
use engine::replica::ReplicaStats;
use engine::tree::EventType;

use super::ordering::{OrderingReport, OrderingStats};
use crate::four_letter::monitor::{Metric, Unit, counter, percentiles, summary};
use crate::four_letter::report::SizeReport;
use crate::storage::OpeningTimes;

/// All of it, joined over the cores. `rejected` connections were never of any core.
// Compat: ServerMetrics
pub(super) fn all(
    cores: &[CoreReport],
    ordering: &OrderingReport,
    opening: OpeningTimes,
    rejected: u64,
) -> Vec<Metric> {
    let mut list = vec![counter("connection_rejected", rejected)];
    // Whoever finds an error that it cannot recover from ends the process.
    list.push(counter("unrecoverable_error_count", 0));
    list.extend(of_clients(cores));
    list.extend(of_replica(&ordering.replica));
    list.extend(of_disk(&ordering.stats));
    list.extend(of_member(&ordering.member.unwrap_or_default()));
    list.extend(of_opening(opening));
    list
}

fn of_clients(cores: &[CoreReport]) -> Vec<Metric> {
    let sum = |of: fn(&CoreStats) -> u64| cores.iter().map(|core| of(&core.stats)).sum();
    let mut list = vec![
        counter("bytes_received_count", sum(|core| core.bytes_received)),
        counter("response_bytes", sum(|core| core.response_bytes)),
        counter("watch_bytes", sum(|core| core.event_bytes)),
        counter("connection_request_count", sum(|core| core.connect_requests)),
        counter("connection_revalidate_count", sum(|core| core.reconnect_requests)),
        counter("connection_drop_count", sum(|core| core.connections_dropped)),
        counter("sessionless_connections_expired", sum(|core| core.sessionless_expired)),
        counter("large_requests_rejected", sum(|core| core.large_requests_rejected)),
        counter("request_throttle_wait_count", sum(|core| core.throttled)),
    ];
    for (name, event) in [
        ("node_created_watch_count", EventType::NodeCreated),
        ("node_deleted_watch_count", EventType::NodeDeleted),
        ("node_changed_watch_count", EventType::NodeDataChanged),
        ("node_children_watch_count", EventType::NodeChildrenChanged),
    ] {
        let mut told = Summary::default();
        for core in cores {
            told.merge(&core.stats.watchers_told[event.index()]);
        }
        list.extend(summary(name, Unit::One, &told));
    }
    let (mut reads, mut updates) = (Times::default(), Times::default());
    for core in cores {
        reads.merge(&core.stats.read_latency);
        updates.merge(&core.stats.write_latency);
    }
    list.extend(percentiles("readlatency", &reads));
    list.extend(percentiles("updatelatency", &updates));
    list
}

fn of_replica(stats: &ReplicaStats) -> Vec<Metric> {
    let mut list = vec![
        counter("stale_sessions_expired", stats.sessions_expired),
        counter("digest_mismatches_count", stats.digest_mismatches),
        counter("proposal_count", stats.proposals),
        counter("commit_count", stats.commits),
        counter("learner_proposal_received_count", stats.proposals_received),
        counter("learner_commit_received_count", stats.commits_received),
        counter("diff_count", stats.diffs_sent),
        counter("snap_count", stats.trees_sent),
    ];
    list.extend(summary("sync_processor_batch_size", Unit::One, &stats.frame_txns));
    list.extend(percentiles("sync_processor_queue_time_ms", &stats.queued));
    list.extend(percentiles("propagation_latency", &stats.propagation));
    list.extend(percentiles("proposal_latency", &stats.proposal_latency));
    list.extend(percentiles("quorum_ack_latency", &stats.quorum_acks));
    // Compat: AvgMinMaxPercentileCounterSet.values
    for (follower, took) in &stats.acks {
        list.extend(percentiles(&format!("{follower}_ack_latency"), took));
    }
    list.extend(percentiles("commit_propagation_latency", &stats.commit_latency));
    list
}

fn of_disk(stats: &OrderingStats) -> Vec<Metric> {
    let mut list = vec![counter("snapshot_error_count", stats.snapshots_failed)];
    list.extend(summary("fsynctime", Unit::Ms, stats.appends.summary()));
    list.extend(percentiles("sync_processor_queue_flush_time_ms", &stats.appends));
    list.extend(summary("snapshottime", Unit::Ms, &stats.snapshots));
    list
}

fn of_member(stats: &MemberStats) -> Vec<Metric> {
    let mut list = vec![counter("looking_count", stats.lookings)];
    for (name, times) in [
        ("election_time", &stats.elections),
        ("follower_sync_time", &stats.follower_syncs),
        ("observer_sync_time", &stats.observer_syncs),
        ("unavailable_time", &stats.unavailable),
        ("leader_unavailable_time", &stats.leader_unavailable),
    ] {
        list.extend(summary(name, Unit::Ms, times));
    }
    list
}

/// There was one opening.
fn of_opening(opening: OpeningTimes) -> Vec<Metric> {
    let OpeningTimes { snapshot_us, log_us, txns } = opening;
    let once = |value| {
        let mut once = Summary::default();
        once.record(value);
        once
    };
    let mut list = Vec::new();
    list.extend(summary("dbinittime", Unit::Ms, &once(snapshot_us + log_us)));
    list.extend(summary("startup_snap_load_time", Unit::Ms, &once(snapshot_us)));
    list.extend(summary("startup_txns_load_time", Unit::Ms, &once(log_us)));
    list.extend(summary("startup_txns_loaded", Unit::One, &once(txns)));
    list
}

/// In front of each reply is its length, which the core counts as part of it.
const LENGTH_BYTES: u64 = 4;

/// Sizes of the replies of all cores, without the length in front of them.
// Compat: NIOServerCnxn.sendResponse
pub(super) fn response_sizes(cores: &[CoreReport]) -> SizeReport {
    let mut sizes = Sizes::default();
    for core in cores {
        sizes.merge(&core.stats.responses);
    }
    let reply = |bytes: Option<u64>| bytes.map(|bytes| bytes.saturating_sub(LENGTH_BYTES));
    let Sizes { last, min, max } = sizes;
    size_report(Sizes { last: reply(last), min: reply(min), max: reply(max) })
}

pub(super) fn size_report(sizes: Sizes) -> SizeReport {
    let or_none = |bytes: Option<u64>| bytes.map_or(-1, u64::cast_signed);
    SizeReport { last: or_none(sizes.last), min: or_none(sizes.min), max: or_none(sizes.max) }
}

#[cfg(test)]
mod tests {
    use engine::quorum_peer::RoleKind;
    use engine::zxid::Zxid;

    use super::*;
    use crate::four_letter::monitor::{self, GaugeReport};
    use crate::four_letter::report::{LatencyReport, Mode, ServerReport};

    const ZOOKEEPER: &str = include_str!("metrics/zookeeper-3.9.3.txt");

    /// Numbers that no ZooKeeper has.
    const OWN: [&str; 5] = [
        "longest_turn_us",
        "major_faults",
        "resident_bytes",
        "zxid_counter_left",
        "zxid_counter_used",
    ];

    /// Whether it is answered here, kind and name.
    fn zookeeper() -> impl Iterator<Item = (bool, &'static str, &'static str)> {
        let lines = ZOOKEEPER.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            assert!(matches!(words[0], "here" | "absent"), "{line}");
            (words[0] == "here", words[1], words[2])
        })
    }

    fn lines_of(kind: &str, name: &str) -> Vec<String> {
        let places: &[&str] = match kind {
            "summary" => &["avg_", "min_", "max_", "cnt_", "sum_"],
            "percentiles" => {
                &["avg_", "min_", "max_", "cnt_", "sum_", "p50_", "p95_", "p99_", "p999_"]
            }
            _ => &[""],
        };
        places.iter().map(|place| format!("{place}{name}")).collect()
    }

    fn answer(replica: ReplicaStats) -> String {
        let ordering = OrderingReport {
            role: RoleKind::Standalone,
            stats: OrderingStats::default(),
            replica,
            member: None,
            pending_syncs: 0,
        };
        let server = ServerReport {
            mode: Mode::Standalone,
            latency: LatencyReport::default(),
            packets_received: 0,
            packets_sent: 0,
            connections: 0,
            outstanding: 0,
            zxid: Zxid::ZERO,
            znodes: 5,
            proposals: None,
        };
        let metrics = all(&[CoreReport::default()], &ordering, OpeningTimes::default(), 0);
        monitor::mntr(&server, &GaugeReport::default(), metrics)
    }

    #[test]
    fn mntr_has_zookeepers_lines_and_a_few_of_its_own() {
        let answer = answer(ReplicaStats::default());
        let name = |line: &str| {
            let (name, _) = line.split_once('\t').unwrap();
            name.strip_prefix("zk_").unwrap().to_owned()
        };
        let mut found: Vec<_> = answer.lines().map(name).collect();
        let here = zookeeper().filter(|(here, ..)| *here);
        let mut expected: Vec<_> = here.flat_map(|(_, kind, name)| lines_of(kind, name)).collect();
        expected.extend(OWN.map(str::to_owned));
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_length_in_front_of_a_reply_is_no_part_of_its_size() {
        let mut core = CoreReport::default();
        let sizes = |core: &CoreReport| {
            let SizeReport { last, min, max } = response_sizes(std::slice::from_ref(core));
            (last, min, max)
        };
        assert_eq!(sizes(&core), (-1, -1, -1));
        // A reply to a ping: xid, zxid and error; then one with 8 bytes behind that.
        for bytes in [20, 28] {
            core.stats.responses.record(bytes);
        }
        assert_eq!(sizes(&core), (24, 16, 24));
    }

    #[test]
    fn digests_that_differ_are_told_of() {
        let count = |digest_mismatches| {
            let answer = answer(ReplicaStats { digest_mismatches, ..ReplicaStats::default() });
            let mut lines = answer.lines();
            lines.find_map(|line| line.strip_prefix("zk_digest_mismatches_count\t")?.parse().ok())
        };
        assert_eq!([0, 3].map(count), [Some(0), Some(3)]);
    }

    #[test]
    fn the_documentation_names_each_of_them() {
        let page = include_str!("../../../docs/operations.md");
        for (here, kind, name) in zookeeper().filter(|(_, kind, _)| *kind != "gauge") {
            let quoted = format!("`{name}`");
            let mut rows = page.lines().filter(|line| line.starts_with("| `"));
            let has_row = rows.any(|row| row.split(" | ").next().unwrap().contains(&quoted));
            assert_eq!(has_row, here, "{kind} {name}");
        }
    }
}
