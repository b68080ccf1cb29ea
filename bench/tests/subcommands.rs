//! Every command against the real ringkeeper binary, for moments: do the numbers agree?

#[path = "common/bed.rs"]
mod bed;

use bench::cli;
use bench::progress::Progress;
use serde_json::Value;

use self::bed::{Bed, RINGKEEPER, number};

/// A plan with ringkeeper alone, and two lines of work.
const PLAN: &str = r#"
repeats = 2
reference = "ringkeeper"
limits = "limits --only echo --seconds 0.05"

[[server]]
name = "ringkeeper"
command = ["{ringkeeper}", "{config}"]
config = """
dataDir={directory}/data
clientPort={port}
clientPortAddress=127.0.0.1
maxClientCnxns=0
"""

[[work]]
name = "gets"
run = "load get --seconds 0.3 --warm-up 0"
figure = "/latency/p50_us"
unit = "us"
better = "lower"
floor = ["echo-get"]

[[work]]
name = "memory"
run = "fill --znodes 2000 --settle 0"
figure = "/after/all_bytes"
unit = "B"
better = "lower"
fresh = true
"#;

#[test]
fn a_mixed_load_adds_up() {
    let line = "load get=5,set=3,exists=1,children=1,create-delete=2,multi=1,sync=1 \
                --connections 4 --depth 8 --threads 2 --keys 200 --seconds 0.5 --warm-up 0.1";
    let outcome = Bed::new(PLAN).run(line);
    let json = &outcome.json;
    assert_eq!(json["errors"], serde_json::json!({}));
    for field in ["/due", "/sent", "/latency/count"] {
        assert_eq!(number(json, field), number(json, "/ok"), "{field}: {}", outcome.text);
    }
    let of_kinds = json["latency_of"].as_object().unwrap();
    let counts: f64 = of_kinds.values().map(|latency| number(latency, "/count")).sum();
    assert_eq!((of_kinds.len(), counts), (8, number(json, "/ok")));
    assert!(number(json, "/server_cpu_us_per_op") < 1e4);
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let line = "load get --rate 500 --connections 2 --keys 10 --seconds 0.6 --warm-up 0";
    let outcome = Bed::new(PLAN).run(line);
    assert_eq!((number(&outcome.json, "/due"), number(&outcome.json, "/ok")), (300.0, 300.0));
}

#[test]
fn every_watcher_is_told_once_per_round() {
    let outcome = Bed::new(PLAN).run("watch --watchers 20 --rounds 5 --warm-up 1");
    assert_eq!(number(&outcome.json, "/events"), 100.0);
    assert_eq!(number(&outcome.json, "/each_notified/count"), 100.0);
    assert_eq!(number(&outcome.json, "/all_notified/count"), 5.0);
    assert_eq!(number(&outcome.json, "/set/count"), 5.0);
    let last = number(&outcome.json, "/each_notified/max_us");
    assert_eq!(number(&outcome.json, "/all_notified/max_us"), last, "{}", outcome.text);
}

#[test]
fn a_fan_out_has_a_floor_and_the_generator_a_cost() {
    let line = "limits --only fanout,client --fanout 30 --seconds 0.05";
    let outcome = cli::parse(line).unwrap().run(&Progress::new(true)).unwrap();
    let floors = outcome.json["floors"].as_array().unwrap();
    assert_eq!((floors.len(), outcome.json["missing"].as_array().unwrap().len()), (2, 0));
    for floor in floors {
        assert!(number(floor, "/latency/count") >= 1.0, "{}", outcome.text);
    }
    let costs = outcome.json["client"].as_array().unwrap();
    assert_eq!(costs.len(), 2);
    for cost in costs {
        assert!(number(cost, "/cpu_us_per_op") > 0.0, "{}", outcome.text);
        assert!(number(cost, "/rate_per_s") > 0.0, "{}", outcome.text);
    }
}

#[test]
fn appends_of_several_at_once_are_all_counted() {
    let folder = tempfile::TempDir::new().unwrap();
    let directory = folder.path().display();
    let line = format!("limits --only append --appenders 4 --seconds 0.1 --directory {directory}");
    let outcome = cli::parse(&line).unwrap().run(&Progress::new(true)).unwrap();
    let floors = outcome.json["floors"].as_array().unwrap();
    let is_buffered = |way: &str| way.starts_with("4 KiB write + fdatasync");
    let floors = floors.iter().filter(|floor| is_buffered(floor["way"].as_str().unwrap()));
    let floors: Vec<_> = floors.collect();
    assert_eq!(floors.len(), 2);
    for floor in floors {
        // Each of the rounds has at least one append of each thread.
        assert!(number(floor, "/latency/count") >= 20.0, "{}", outcome.text);
    }
    assert!(cli::parse("limits --appenders 0").is_err());
}

#[test]
fn an_idle_server_is_killed_when_it_has_been_idle() {
    let line = "recovery --znodes 3000 --repeats 1 --idle --idle-seconds 0.2";
    let outcome = Bed::new(PLAN).run(line);
    assert!(number(&outcome.json, "/served_ms") > 0.0, "{}", outcome.text);
    assert_eq!(number(&outcome.json, "/killings/0/acknowledged"), 0.0);
}

#[test]
fn sessions_are_opened_and_kept() {
    let outcome = Bed::new(PLAN).run("sessions --count 200 --seconds 0.3");
    assert_eq!(number(&outcome.json, "/lost"), 0.0);
    assert_eq!(number(&outcome.json, "/open/count"), 200.0);
}

#[test]
fn a_tree_is_filled_by_creates_and_by_multi() {
    for multi in [1, 50] {
        let line = format!("fill --znodes 3000 --connections 2 --multi {multi} --settle 0");
        let outcome = Bed::new(PLAN).run(&line);
        assert!(number(&outcome.json, "/rate_per_s") > 0.0);
        assert!(number(&outcome.json, "/after/all_bytes") > 1e6);
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_a_kill() {
    let line = "recovery --znodes 3000 --repeats 2 --seconds 1 --connections 4 --depth 4";
    let outcome = Bed::new(PLAN).run(line);
    let killings = outcome.json["killings"].as_array().unwrap();
    assert_eq!(killings.len(), 2);
    for killing in killings {
        assert!(number(killing, "/acknowledged") > 0.0, "{}", outcome.text);
        assert!(number(killing, "/served_ms") > 0.0, "{}", outcome.text);
    }
    assert_eq!(outcome.loads.len(), 2);
}

#[test]
fn a_soak_is_cut_into_stretches_that_a_restart_may_be_in() {
    let line = "soak --minutes 0.03 --stretch 0.4 --rate 500 --connections 2 --keys 50";
    let outcome = Bed::new(PLAN).run(line);
    let calm = outcome.json["stretches"].as_array().unwrap();
    assert!(calm.len() > 2, "{}", outcome.text);
    for stretch in calm {
        assert_eq!((number(stretch, "/failures"), &stretch["restart"]), (0.0, &Value::Null));
        assert!(number(stretch, "/resident_bytes") > 1e6);
    }
    let outcome = Bed::new(PLAN).run(&format!("{line} --server ringkeeper --restart-every 2"));
    for (index, stretch) in outcome.json["stretches"].as_array().unwrap().iter().enumerate() {
        let is_restart = index % 2 == 1;
        assert_eq!(stretch["restart"] != Value::Null, is_restart, "{}", outcome.text);
        assert_eq!(number(stretch, "/failures") > 0.0, is_restart, "{}", outcome.text);
        if is_restart {
            assert_eq!(number(stretch, "/restart/server"), 1.0);
            assert!(number(stretch, "/restart/gap_ms") > 0.0, "{}", outcome.text);
        }
    }
}

#[test]
fn a_plan_is_run_and_its_report_written() {
    let bed = Bed::new(PLAN);
    let plan = bed.options.plan.display();
    let directory = bed.options.directory.display();
    let ringkeeper = RINGKEEPER.display();
    let out = bed.options.directory.join("out");
    let line =
        format!("compare --plan {plan} --directory {directory} --set ringkeeper={ringkeeper}");
    let outcome = cli::parse(&line).unwrap().run(&Progress::new(true)).unwrap();
    let rows = outcome.json["table"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert!(number(&rows[0], "/of_floor") > 0.5, "{}", outcome.text);
    assert!(number(&rows[1], "/median") > 1e6, "{}", outcome.text);
    bench::output::Output { json: false, out: Some(out.clone()) }.show(&outcome).unwrap();
    for file in ["results.jsonl", "table.md", "report.html", "ringkeeper-gets.hgrm"] {
        let bytes = std::fs::metadata(out.join(file)).unwrap().len();
        assert!(bytes > 100, "{file} has {bytes} bytes");
    }
}
