//! The load generator and `watch` against a server that drops, delays, reorders and lies: they
//! must notice.

#[path = "common/fake.rs"]
mod fake;

use std::sync::atomic::Ordering;

use bench::cli::{self, Command};
use bench::load::report::LoadReport;
use bench::load::{self, LoadOptions, Target};
use bench::progress::Progress;
use bench::recorder::Violation;
use bench::watch::{self, WatchReport};

use fake::{Fake, Lie};

/// Replies of each connection that are honest before the lie.
const HONEST: u64 = 20;

fn options(fake: &Fake) -> LoadOptions {
    LoadOptions {
        connections: 2,
        depth: 4,
        seconds: 0.3,
        warm_up: 0.0,
        keys: 10,
        keep: true,
        ..LoadOptions::of("get".parse().unwrap(), fake.address)
    }
}

fn load(lie: Lie) -> LoadReport {
    let fake = Fake::start(lie, HONEST);
    load::run(&options(&fake), &Progress::new(true)).unwrap()
}

#[track_caller]
fn check(lie: Lie, violations: &[Violation]) {
    let report = load(lie);
    let counts = &report.violations.counts;
    let named = violations.iter().any(|violation| counts.contains_key(violation));
    assert!(named, "{lie:?} gave {counts:?}");
    assert!(!report.is_clean());
    let warned = report.warnings.iter().any(|warning| warning.contains("THE SERVER IS WRONG"));
    assert!(warned, "{:?}", report.warnings);
}

#[test]
fn an_honest_server_is_believed_and_the_counts_agree() {
    let fake = Fake::start(Lie::None, 0);
    let report = load::run(&options(&fake), &Progress::new(true)).unwrap();
    assert!(report.is_clean(), "{report}");
    assert!(report.completed > 100, "{report}");
    assert_eq!((report.due, report.sent), (report.ok, report.ok));
    assert_eq!(report.latency.count, report.ok);
    assert!(fake.answered.load(Ordering::Relaxed) >= report.completed);
    let latency = report.latency;
    let ladder = [
        latency.min_us,
        latency.p50_us,
        latency.p90_us,
        latency.p99_us,
        latency.p999_us,
        latency.p9999_us,
        latency.max_us,
    ];
    assert!(ladder.is_sorted(), "{ladder:?}");
}

#[test]
fn a_swapped_reply_is_noticed() {
    check(Lie::Reorder, &[Violation::WrongXid]);
}

#[test]
fn a_wrong_xid_is_noticed() {
    check(Lie::WrongXid, &[Violation::WrongXid]);
}

#[test]
fn the_content_of_another_znode_is_noticed() {
    check(Lie::WrongContent, &[Violation::WrongContent]);
}

#[test]
fn a_value_cut_short_is_noticed() {
    check(Lie::WrongLength, &[Violation::WrongLength]);
}

#[test]
fn a_falling_zxid_is_noticed() {
    check(Lie::ZxidBack, &[Violation::ZxidWentBack]);
}

#[test]
fn an_event_that_nobody_asked_for_is_noticed() {
    check(Lie::Event, &[Violation::UninvitedEvent]);
}

#[test]
fn a_reply_that_comes_twice_is_noticed() {
    // It answers the next request, or none if that has not been sent yet.
    check(Lie::Twice, &[Violation::WrongXid, Violation::UninvitedReply]);
}

#[test]
fn bytes_that_are_no_frame_are_noticed() {
    check(Lie::Garbage, &[Violation::Garbage]);
}

#[test]
fn refusals_are_errors_and_not_latencies() {
    let report = load(Lie::Refuse);
    assert_eq!(report.errors.get("get: NoNode (-101)"), Some(&2), "{report}");
    assert_eq!(report.ok + 2, report.sent);
    assert_eq!(report.violations.total(), 0);
}

#[test]
fn a_closed_connection_is_counted_and_made_again() {
    let report = load(Lie::Close);
    assert!(report.disconnects >= 2 && report.reconnects >= 2, "{report}");
    assert!(report.lost > 0);
    assert_eq!(report.due, report.ok + report.lost);
}

#[test]
fn silence_is_counted_as_lost() {
    let report = load(Lie::Silence);
    assert_eq!((report.ok, report.lost), (2 * HONEST, 2 * 4), "{report}");
    assert!(report.gap_max_ms >= 200, "{report}");
    assert!(report.warnings.iter().any(|warning| warning.contains("never answered")));
}

#[test]
fn an_open_loop_counts_latency_from_when_a_request_was_due() {
    let fake = Fake::start(Lie::Delay(150), HONEST);
    let options =
        LoadOptions { connections: 1, depth: 1, rate: Some(400.0), seconds: 0.5, ..options(&fake) };
    let report = load::run(&options, &Progress::new(true)).unwrap();
    assert_eq!((report.due, report.ok), (200, 200), "{report}");
    // 150 ms at 400/s: 60 requests fell due while one was delayed, and waited for it.
    assert!(report.late >= 40, "{report}");
    let slow = report.tally.all_latencies();
    let slow = slow.len() - slow.count_between(0, 20_000_000);
    assert!(slow >= 40, "{slow} were slow: {report}");
}

fn watch(lie: Lie, rounds: usize) -> WatchReport {
    let fake = Fake::start(lie, HONEST);
    let line = format!("watch --watchers 5 --rounds {rounds} --warm-up 0 --round-wait 0.3");
    let Command::Watch(mut options) = cli::parse(&line).unwrap() else { panic!("{line}") };
    options.target = Target::of(fake.address);
    watch::run(&options, &Progress::new(true)).unwrap()
}

#[test]
fn watchers_are_told_before_the_setter_has_its_reply() {
    let report = watch(Lie::LateSet(150), 2);
    assert_eq!((report.events, report.violations.total()), (10, 0), "{report}");
    assert_eq!((report.all_notified.count, report.set.count), (2, 2), "{report}");
    assert!(report.set.min_us >= 150_000.0, "{report}");
    assert!(report.all_notified.min_us < 100_000.0, "{report}");
    assert_eq!(report.all_notified.max_us, report.each_notified.max_us, "{report}");
}

#[test]
fn events_that_are_missed_or_come_twice_are_counted() {
    let report = watch(Lie::MissedEvent, 1);
    assert_eq!(report.violations.counts.get(&Violation::MissedEvent), Some(&1), "{report}");
    // The second one comes behind the round.
    let report = watch(Lie::EventTwice, 2);
    let stale = report.violations.counts.get(&Violation::StaleEvent);
    assert!(stale.is_some_and(|count| (1..=2).contains(count)), "{report}");
}
