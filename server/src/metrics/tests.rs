//! Tests of the metrics: what is counted arrives under its name, also from several cores.

use std::collections::BTreeMap;

use super::*;

fn lines(metrics: &Metrics) -> BTreeMap<String, Value> {
    let list = metrics.list();
    let count = list.len();
    let map: BTreeMap<_, _> = list.into_iter().collect();
    assert_eq!(map.len(), count, "a name is there twice");
    map
}

#[track_caller]
fn check(metrics: &Metrics, expected: &[(&str, Value)]) {
    let lines = lines(metrics);
    for (name, value) in expected {
        assert_eq!(lines.get(*name), Some(value), "{name}");
    }
}

#[test]
fn nothing_counted_is_zero_everywhere() {
    let zero = [Value::Int(0), Value::Float(0.0)];
    for (name, value) in lines(&Metrics::default()) {
        assert!(zero.contains(&value), "{name} is {value:?}");
    }
}

#[test]
fn times_are_shown_in_milliseconds_and_percentiles_in_microseconds_too() {
    let mut metrics = Metrics::default();
    for us in 1..=1_000 {
        metrics.latency(Latency::Read, us * 2);
    }
    metrics.time(Timing::Sync, 1_250);
    metrics.time(Timing::Sync, 3_000);
    check(
        &metrics,
        &[
            ("avg_fsynctime", Value::Float(2.125)),
            ("min_fsynctime", Value::Int(1)),
            ("max_fsynctime", Value::Int(3)),
            ("cnt_fsynctime", Value::Int(2)),
            ("sum_fsynctime", Value::Int(4)),
            ("avg_readlatency", Value::Float(1.001)),
            ("p50_readlatency", Value::Int(1)),
            ("p999_readlatency", Value::Int(2)),
            ("p50_prep_processor_queue_time_us", Value::Int(0)),
        ],
    );
    let Value::Int(p50) = lines(&metrics)["p50_readlatency_us"] else {
        panic!("a percentile is a whole number");
    };
    assert!((990..=1_010).contains(&p50), "{p50}");
}

#[test]
fn cores_add_up() {
    let (mut one, mut other) = (Metrics::default(), Metrics::default());
    one.add(Counter::BytesReceived, 7);
    other.add(Counter::BytesReceived, 8);
    one.size(Size::BatchSize, 10);
    other.size(Size::BatchSize, 2);
    other.size(Size::BatchSize, 3);
    other.latency(Latency::Update, 900);
    one.turn(5);
    other.turn(50);
    one.merge(&other);
    assert_eq!((one.count(Counter::BytesReceived), one.longest_turn_us()), (15, 50));
    check(
        &one,
        &[
            ("bytes_received_count", Value::Int(15)),
            ("avg_sync_processor_batch_size", Value::Float(5.0)),
            ("min_sync_processor_batch_size", Value::Int(2)),
            ("max_sync_processor_batch_size", Value::Int(10)),
            ("cnt_sync_processor_batch_size", Value::Int(3)),
            ("sum_sync_processor_batch_size", Value::Int(15)),
            ("cnt_updatelatency", Value::Int(1)),
            ("p50_updatelatency", Value::Int(1)),
        ],
    );
    one.reset();
    assert_eq!(one.list(), Metrics::default().list());
    assert_eq!(one.longest_turn_us(), 0);
}

#[test]
fn numbers_beyond_all_bounds_do_no_harm() {
    let mut metrics = Metrics::default();
    for number in [0, u64::MAX, u64::MAX] {
        metrics.add(Counter::WatchBytes, number);
        metrics.size(Size::BatchSize, number);
        metrics.latency(Latency::Update, number);
    }
    metrics.merge(&metrics.clone());
    check(&metrics, &[("sum_sync_processor_batch_size", Value::Int(i64::MAX))]);
}
