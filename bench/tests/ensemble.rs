//! Three real ringkeepers as an ensemble: what is measured of them, for moments.

#[path = "common/bed.rs"]
mod bed;

use serde_json::Value;

use self::bed::{Bed, number};

/// Three servers; ticks are short, so that silence is noticed within half a second.
const PLAN: &str = r#"
repeats = 1
reference = "ringkeeper"

[[server]]
name = "ringkeeper"
servers = 3
command = ["{ringkeeper}", "{config}"]
config = """
tickTime=100
initLimit=50
syncLimit=5
minSessionTimeout=30000
maxSessionTimeout=60000
dataDir={directory}/data
clientPort={port}
clientPortAddress=127.0.0.1
maxClientCnxns=0
{members}
"""
files = { "data/myid" = "{id}" }
"#;

/// Does something to a server once; what is said of it. What was acknowledged is there, or this
/// fails.
#[track_caller]
fn strike(arguments: &str, writers: usize) -> Value {
    let outcome = Bed::new(PLAN).run(&format!("recovery --repeats 1 --seconds 0.4 {arguments}"));
    let failure = outcome.json["failures"][0].clone();
    assert!(number(&failure, "/acknowledged") > 10.0, "{}", outcome.text);
    assert_eq!(number(&failure, "/expired"), 0.0, "{}", outcome.text);
    assert_eq!(failure["refused"], serde_json::json!({}));
    let gaps: Vec<f64> =
        failure["gaps_ms"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
    let longest = gaps.iter().copied().fold(0.0, f64::max);
    assert_eq!((gaps.len(), longest), (writers, number(&failure, "/gap_ms")));
    let bins = failure["timeline"]["acks"].as_array().unwrap();
    let counted: u64 = bins.iter().filter_map(Value::as_u64).sum();
    assert!(counted > 0 && counted <= number(&failure, "/acknowledged") as u64);
    assert_eq!(outcome.timelines.len(), 1);
    failure
}

/// Loses a server once, and takes it back.
#[track_caller]
fn lose(arguments: &str) -> Value {
    let failure = strike(arguments, if arguments.contains("-observer") { 3 } else { 2 });
    assert!(number(&failure, "/first_ack_ms") > 0.0, "{failure}");
    assert!(number(&failure, "/rejoin_ms") > 0.0, "{failure}");
    failure
}

#[test]
fn a_killed_leader_is_a_pause_whose_parts_add_up() {
    let failure = lose("--fault kill-leader --znodes 500");
    assert_eq!(failure["leader"], failure["victim"]);
    assert!(number(&failure, "/close_ms") > 0.0);
    let parts = failure["stages"].as_object().unwrap_or_else(|| panic!("no stages: {failure}"));
    let sum: f64 = parts.values().filter_map(Value::as_f64).sum();
    let first = number(&failure, "/first_ack_ms");
    assert!((sum - first).abs() < 0.5, "{parts:?} are not {first}");
}

#[test]
fn a_frozen_leader_is_missed_when_silence_has_lasted_long_enough() {
    let failure = lose("--fault stop-leader");
    assert!(number(&failure, "/gap_ms") > 100.0, "{failure}");
    assert!(failure["close_ms"].is_null());
}

/// The time between the cut and the lost server's turning its clients away is bounded by silence.
#[track_caller]
fn is_turned_away(failure: &Value) {
    assert!((400.0..20_000.0).contains(&number(failure, "/close_ms")), "{failure}");
}

#[test]
fn a_leader_that_is_cut_off_is_replaced_and_turns_its_clients_away() {
    let failure = lose("--fault partition-leader");
    assert_eq!(failure["leader"], failure["victim"]);
    assert!(number(&failure, "/gap_ms") > 100.0, "{failure}");
    assert!(failure["stages"].is_object(), "{failure}");
    is_turned_away(&failure);
}

#[test]
fn a_follower_that_is_cut_off_is_not_waited_for() {
    let failure = lose("--fault partition-follower");
    assert_ne!(failure["leader"], failure["victim"]);
    is_turned_away(&failure);
}

#[test]
fn observers_are_killed_and_cut_off_beside_the_servers_of_the_plan() {
    let failure = lose("--fault kill-observer");
    assert_eq!(failure["victim"], 4);
    let failure = lose("--fault partition-observer");
    assert_eq!(failure["victim"], 4);
    is_turned_away(&failure);
}

#[test]
fn a_killed_follower_comes_back_from_an_empty_disk() {
    let failure = lose("--fault kill-follower --wipe --znodes 500");
    assert_ne!(failure["leader"], failure["victim"]);
    assert!(failure["stages"].is_null());
}

#[test]
fn an_empty_follower_joins_while_others_write() {
    let failure = strike("--fault join-follower --znodes 500", 2);
    assert_ne!(failure["leader"], failure["victim"]);
    for figure in ["/rejoin_ms", "/rejoin_gap_ms", "/p99_before_ms", "/p99_rejoin_ms"] {
        assert!(number(&failure, figure) > 0.0, "{figure}: {failure}");
    }
    assert!(failure["first_ack_ms"].is_null() && failure["stages"].is_null());
}

#[test]
fn an_epoch_ends_and_its_sessions_do_not() {
    let failure = strike("--fault rollover --rollover-after 1000", 3);
    assert_eq!(failure["leader"], failure["victim"]);
    assert!(number(&failure, "/gap_ms") > 0.0 && number(&failure, "/first_ack_ms") > 0.0);
    assert!(failure["stages"].is_object(), "{failure}");
    assert!(failure["rejoin_ms"].is_null());
}

#[test]
fn a_load_is_spread_over_all_servers_and_their_cpu_time_added_up() {
    let line = "load set=1,get=1 --connections 6 --depth 4 --keys 100 --seconds 0.5 --warm-up 0.1";
    let outcome = Bed::new(PLAN).run(line);
    assert_eq!(outcome.json["errors"], serde_json::json!({}));
    assert_eq!(number(&outcome.json, "/ok"), number(&outcome.json, "/sent"), "{}", outcome.text);
    assert_eq!(outcome.json["options"]["server_pid"].as_array().unwrap().len(), 3);
    assert!(number(&outcome.json, "/server_cpu_us_per_op") < 1e5);
}
