//! Ensembles without faults but lost servers: election, synchronization, broadcast, and that
//! clients' requests come back, whichever server they are sent to.

use std::collections::VecDeque;
use std::time::Duration;

use engine::ids::ServerId;
use engine::metrics::Summary;
use engine::op::OpCode;
use engine::quorum_peer::{MemberStats, RoleKind};
use engine::tree;
use engine::zab::packet::PacketKind::{Ack, Commit, Ping, Snap, UpToDate};
use engine::zxid::Epoch;
use tests::sim::members::{Counts, World};
use tests::sim::script::{A, B, C, D, Ensemble, Settings};

#[test]
fn a_new_ensemble_finds_a_leader_and_serves_everywhere() {
    for count in [1, 2, 3, 5] {
        let mut world = World::new(count);
        world.run_until(Duration::from_secs(3), World::stands);
        assert_eq!(world.leader(), Some(count - 1), "the largest id wins among equals");
        for index in 0..count {
            let session = world.connect(index, 1);
            world.request(index, 1, session, index as i32, OpCode::Create);
            world.request(index, 1, session, 100, OpCode::Sync);
            let answered = |world: &World| world.answers(index, 1).len() == 2;
            world.run_until(Duration::from_secs(1), answered);
            assert_eq!(world.answers(index, 1), [(index as i32, 0), (100, 0)]);
        }
        let last = world.applied(world.leader().unwrap());
        world.run_until(Duration::from_secs(1), |world| {
            (0..count).all(|index| world.applied(index) == last)
        });
    }
}

#[test]
fn clients_of_the_survivors_notice_nothing_of_a_lost_leader_but_the_time() {
    let mut world = World::new(3);
    world.run_until(Duration::from_secs(3), World::stands);
    let sessions: Vec<_> = (0..2).map(|index| world.connect(index, 1)).collect();
    let mut xid = 0;
    for round in 0..20 {
        for (index, session) in sessions.iter().enumerate() {
            xid += 1;
            world.request(index, 1, *session, xid, OpCode::Create);
            xid += 1;
            world.request(index, 1, *session, xid, OpCode::Sync);
        }
        if round == 10 {
            // Whatever is on its way now is answered all the same.
            let stop = world.now + 120_000;
            world.run_until(Duration::from_secs(1), |world| world.now >= stop);
            world.kill(2);
        }
        world.run_until(Duration::from_secs(1), |world| {
            (0..2).all(|index| world.answers(index, 1).len() == 2 * (round + 1))
        });
    }
    for index in 0..2 {
        let answers = world.answers(index, 1);
        assert!(answers.iter().all(|(_, code)| *code == 0), "{answers:?}");
        assert!(answers.is_sorted(), "{answers:?}");
    }
    let began = world.now;
    world.run_until(Duration::from_secs(3), World::stands);
    assert!(world.now - began < 1_000_000_000);
}

#[test]
fn a_server_that_lost_its_data_gets_the_tree() {
    let mut world = World::new(3);
    world.run_until(Duration::from_secs(3), World::stands);
    let session = world.connect(0, 1);
    for xid in 1..=2000 {
        world.request(0, 1, session, xid, OpCode::Create);
    }
    world.run_until(Duration::from_secs(1), |world| world.answers(0, 1).len() == 2000);
    world.kill(1);
    world.start(1);
    world.run_until(Duration::from_secs(3), World::stands);
    let last = world.applied(2);
    world.run_until(Duration::from_secs(1), |world| world.applied(1) == last);
    let view =
        |index: usize| world.servers[index].as_ref().unwrap().peer.replica().published().clone();
    assert_eq!(tree::digest(&view(1)), tree::digest(&view(2)));
    assert!(tree::znode(&view(1), "/n2000").is_some());
    // Not what the leader has there: each server says what its own configuration says.
    let version = view(1);
    let config = tree::znode(&version, "/zookeeper/config").unwrap();
    assert_eq!(config.stat().version, -1);
    let text = config.into_data(&version).unwrap().into_owned();
    assert!(text.ends_with(b"server.3=127.0.0.1:2891:3891:participant\nversion=0"), "{text:?}");
    // It takes part in what comes now, and a leader that it is needed by gets its quorum.
    let mut queue: VecDeque<i32> = (3000..3010).collect();
    world.kill(0);
    world.run_until(Duration::from_secs(3), World::stands);
    let session = world.connect(1, 7);
    while let Some(xid) = queue.pop_front() {
        world.request(1, 7, session, xid, OpCode::Create);
    }
    world.run_until(Duration::from_secs(1), |world| world.answers(1, 7).len() == 10);
    assert!(!world.servers[1].as_ref().unwrap().peer.replica().digest_differs());
}

#[test]
fn an_epoch_that_runs_out_of_zxids_ends_with_an_election_that_clients_do_not_notice() {
    let mut world = World::new(3);
    world.run_until(Duration::from_secs(3), World::stands);
    let sessions: Vec<_> = (0..3).map(|index| world.connect(index, 1)).collect();
    let mut xid = 0;
    // One after the other, so that there are quiet moments.
    while world.applied(2).epoch() == Epoch(1) {
        xid += 1;
        assert!(xid < 1000, "the epoch does not end");
        for (index, session) in sessions.iter().enumerate() {
            world.request(index, 1, *session, 10_000 * index as i32 + xid, OpCode::Create);
        }
        let answered =
            |world: &World| (0..3).all(|index| world.answers(index, 1).len() == xid as usize);
        world.run_until(Duration::from_secs(1), answered);
    }
    assert!(xid > 800, "{xid}");
    world.run_until(Duration::from_secs(1), World::stands);
    for index in 0..3 {
        assert!(world.answers(index, 1).iter().all(|(_, code)| *code == 0));
    }
}

/// Three servers that stand, with so many znodes and so much of the log in memory.
fn with_znodes(history_bytes: usize, count: i32) -> World {
    let mut world = World::with_history(3, history_bytes);
    world.run_until(Duration::from_secs(3), World::stands);
    create(&mut world, 2, 1..=count);
    world
}

/// Creates znodes through a server, and waits for all answers.
fn create(world: &mut World, index: usize, numbers: std::ops::RangeInclusive<i32>) {
    let (count, slot) = (numbers.clone().count(), *numbers.start() as u32);
    let session = world.connect(index, slot);
    for number in numbers {
        world.request(index, slot, session, number, OpCode::Create);
    }
    let answered = |world: &World| world.answers(index, slot).len() == count;
    world.run_until(Duration::from_secs(3), answered);
    assert!(world.answers(index, slot).iter().all(|(_, code)| *code == 0));
}

/// All servers come to have the same as the leader, and nobody found that they differ.
fn agree(world: &mut World) {
    world.run_until(Duration::from_secs(3), World::stands);
    let leader = world.leader().unwrap();
    let replica = |world: &World, index: usize| {
        let replica = world.servers[index].as_ref().unwrap().peer.replica();
        assert!(!replica.digest_differs());
        tree::digest(replica.published())
    };
    // A leader's state begins with a zxid that no transaction has: zxids say less.
    world.run_until(Duration::from_secs(1), |world| {
        (0..3).all(|index| replica(world, index) == replica(world, leader))
    });
}

#[test]
fn a_restarted_leader_has_the_last_of_its_log_in_memory() {
    let mut world = with_znodes(1 << 20, 20);
    world.kill(0);
    create(&mut world, 2, 100..=140);
    world.kill(1);
    world.kill(2);
    world.restart(1);
    world.restart(2);
    world.run_until(Duration::from_secs(3), World::stands);
    world.restart(0);
    agree(&mut world);
    assert_eq!(world.counts, Counts::default(), "memory was enough");
}

#[test]
fn what_memory_does_not_have_comes_from_the_log() {
    let mut world = with_znodes(3000, 1500);
    world.kill(0);
    create(&mut world, 2, 2001..=2100);
    world.restart(0);
    // What comes meanwhile follows without a gap.
    create(&mut world, 1, 3001..=3100);
    agree(&mut world);
    assert_eq!((world.counts.readings > 0, world.counts.replacements), (true, 0));
    // It can lead with that.
    world.kill(2);
    world.run_until(Duration::from_secs(3), World::stands);
    create(&mut world, 0, 4001..=4010);
    world.restart(2);
    agree(&mut world);
    assert_eq!(world.counts.replacements, 0);
}

#[test]
fn a_log_that_is_large_beside_the_tree_is_not_read() {
    let mut world = with_znodes(3000, 10);
    world.kill(0);
    create(&mut world, 2, 2001..=2300);
    world.restart(0);
    agree(&mut world);
    assert_eq!(world.counts, Counts { replacements: 1, ..Counts::default() });
}

#[test]
fn a_log_that_cannot_be_read_any_more_makes_way_for_the_tree() {
    let mut world = with_znodes(3000, 1500);
    world.kill(0);
    create(&mut world, 2, 2001..=2100);
    world.damage_log(2);
    world.restart(0);
    agree(&mut world);
    assert_eq!(world.counts, Counts { replacements: 1, ..Counts::default() });
}

#[test]
fn what_was_never_committed_is_cut_also_where_only_the_log_knows_the_place() {
    for (history_bytes, reads) in [(1 << 20, false), (3000, true)] {
        let mut world = with_znodes(history_bytes, 1500);
        let session = world.connect(2, 7);
        world.kill(0);
        world.kill(1);
        let before = log_end(&world, 2);
        world.request(2, 7, session, 9999, OpCode::Create);
        world.run_until(Duration::from_secs(1), |world| log_end(world, 2) > before);
        world.kill(2);
        world.restart(0);
        world.restart(1);
        world.run_until(Duration::from_secs(3), World::stands);
        create(&mut world, 0, 2001..=2100);
        world.restart(2);
        agree(&mut world);
        let Counts { truncations, replacements, readings } = world.counts;
        assert_eq!((truncations, replacements, readings > 0), (1, 0, reads));
        let version = world.servers[2].as_ref().unwrap().peer.replica().published().clone();
        assert!(tree::znode(&version, "/n9999").is_none());
    }
}

fn log_end(world: &World, index: usize) -> engine::zxid::Zxid {
    world.servers[index].as_ref().unwrap().peer.replica().last_durable()
}

fn stats(e: &Ensemble, index: usize) -> MemberStats {
    e.peer(index).member_stats().unwrap()
}

/// Whether there is one time, of so many milliseconds.
#[track_caller]
fn assert_once(times: Summary, ms: u64) {
    assert_eq!((times.count, times.sum / 1_000), (1, ms));
}

#[test]
fn the_times_without_a_leader_and_of_synchronization_are_counted() {
    let mut e = Ensemble::with(Settings { observers: 1, ..Settings::of(4) });
    e.hold(C, A, UpToDate);
    [A, B, C, D].into_iter().for_each(|server| e.start(server));
    e.run_until("there is a leader", |e| e.leads(C));
    // All began at 0.
    assert_once(stats(&e, C).unavailable, e.ms());
    assert_once(stats(&e, C).leader_unavailable, e.ms());
    e.run_until("the others learn", |e| e.follows(B, C) && e.observes(D, C));
    assert_eq!((stats(&e, A).unavailable.count, stats(&e, A).follower_syncs.count), (0, 0));
    let held = e.ms();
    e.run_ms(30);
    e.release(C, A);
    e.run_until("all learn", |e| e.follows(A, C));
    assert_once(stats(&e, A).unavailable, e.ms());
    let synced = stats(&e, A).follower_syncs;
    assert!(synced.count == 1 && (30..=e.ms() - held + 10).contains(&(synced.sum / 1_000)));
    for (server, times) in
        [(A, (1, 0, 1, 0)), (B, (1, 0, 1, 0)), (C, (0, 0, 1, 1)), (D, (0, 1, 1, 0))]
    {
        assert_eq!(counts(&e, server), times, "server {}", server + 1);
    }
    e.crash(C);
    let lost = e.ms();
    e.run_until("another one leads", Ensemble::stands);
    assert_eq!(e.leader(), Some(B));
    assert_eq!(counts(&e, B), (1, 0, 2, 1));
    let again = stats(&e, B).leader_unavailable;
    assert!(again.sum / 1_000 <= e.ms() - lost, "{again:?}");
    assert_eq!(counts(&e, A), (2, 0, 2, 0));
    assert_eq!(counts(&e, D), (0, 2, 2, 0));
}

/// How many synchronizations there were as a follower, and as an observer; how many times without
/// a leader, and how many of them until it led itself.
fn counts(e: &Ensemble, index: usize) -> (u64, u64, u64, u64) {
    let MemberStats { follower_syncs, observer_syncs, unavailable, leader_unavailable, .. } =
        stats(e, index);
    (follower_syncs.count, observer_syncs.count, unavailable.count, leader_unavailable.count)
}

#[test]
fn a_leader_says_since_when_and_of_whom() {
    let mut e = Ensemble::with(Settings { observers: 1, ..Settings::of(4) });
    [A, B, C].into_iter().for_each(|server| e.start(server));
    e.run_until("there is a leader", |e| e.leads(C));
    let role = |e: &Ensemble| match e.role(C) {
        Some(RoleKind::Leading { since, learners, synced, observers }) => {
            (since.as_millis(), learners, synced, observers)
        }
        role => panic!("{role:?}"),
    };
    let since = e.ms();
    e.run_until("all follow", Ensemble::stands);
    assert_eq!(role(&e), (since, 2, 2, 0));
    e.start(D);
    e.run_until("it observes", |e| e.observes(D, C));
    assert_eq!(role(&e), (since, 3, 2, 1));
    e.crash(A);
    e.run_ms(10);
    assert_eq!(role(&e), (since, 2, 1, 1));
}

#[test]
fn a_leader_counts_how_old_transactions_are_when_a_quorum_has_them() {
    let mut e = Ensemble::led_by_c();
    let client = e.connect(C);
    let acks = |e: &Ensemble, index: usize| *e.peer(index).replica().stats().quorum_acks.summary();
    assert_eq!(acks(&e, C).count, 1, "that of the session");
    e.hold(A, C, Ack);
    e.hold(B, C, Ack);
    e.create(client, "/a");
    e.create(client, "/b");
    e.run_ms(40);
    assert_eq!(acks(&e, C).count, 1);
    e.release(B, C);
    e.run_until("the quorum has them", |e| e.has(C, "/b"));
    let acks_of_c = acks(&e, C);
    assert_eq!(acks_of_c.count, 3);
    assert!((39_000..=42_000).contains(&acks_of_c.max), "{acks_of_c:?}");
    assert_eq!((acks(&e, A).count, acks(&e, B).count), (0, 0));
    e.all_agree();
}

#[test]
fn a_leader_times_the_acks_of_each_follower() {
    let mut e = Ensemble::led_by_c();
    let client = e.connect(C);
    let acks = |e: &Ensemble, follower: usize| {
        let acks = &e.peer(C).replica().stats().acks;
        let of_follower = acks.get(&ServerId(follower as i64 + 1));
        of_follower.map(|times| *times.summary()).unwrap_or_default()
    };
    let (before_a, before_b) = (acks(&e, A), acks(&e, B));
    e.hold(A, C, Ack);
    e.create(client, "/a");
    e.create(client, "/b");
    e.run_until("a quorum has them", |e| e.has(C, "/b"));
    e.run_ms(40);
    let (acks_of_a, acks_of_b) = (acks(&e, A), acks(&e, B));
    assert_eq!(acks_of_a, before_a);
    assert!(acks_of_b.count > before_b.count && acks_of_b.max < 20_000, "{acks_of_b:?}");
    e.release(A, C);
    e.run_until("it is heard", |e| acks(e, A) != before_a);
    let acks_of_a = acks(&e, A);
    assert_eq!(acks_of_a.count, before_a.count + 1, "one at a time");
    assert!((40_000..45_000).contains(&acks_of_a.max), "{acks_of_a:?}");
    assert_eq!(acks(&e, C).count, 0, "its own disk is no follower");
}

#[test]
fn a_sync_that_a_leader_has_not_proven_when_it_is_lost_is_never_answered() {
    let mut e = Ensemble::led_by_c();
    let (client, other) = (e.connect(C), e.connect(A));
    e.write(client, "/x");
    e.hold(C, A, Ping);
    e.hold(C, B, Ping);
    let sync = e.sync(client);
    e.run_ms(10);
    e.cut(C, A);
    e.cut(C, B);
    e.run_until("B leads", |e| e.leads(B) && e.follows(A, B));
    e.write(other, "/y");
    assert!(!e.is_connected(client) && !e.has(C, "/y"));
    for server in [A, B] {
        e.release(C, server);
        e.heal(C, server);
    }
    e.run_until("C follows", |e| e.follows(C, B) && e.has(C, "/y"));
    // Its state was published before the one that the client should have seen.
    assert_eq!(e.answer(client, sync), None);
    e.all_agree();
}

#[test]
fn every_member_takes_a_snapshot_when_nothing_is_written_any_more() {
    let mut e =
        Ensemble::with(Settings { observers: 1, snapshot_txns: 60, ..Settings::of(4) }).stand();
    let client = e.connect(A);
    for path in ["/a", "/b", "/c", "/d"] {
        e.write(client, path);
    }
    e.run_until("D has all of it", |e| e.has(D, "/d"));
    let last = e.published(C);
    (A..=D).for_each(|server| assert_ne!(e.snapshot(server), Some(last), "too early"));
    e.run_ms(1_100);
    (A..=D).for_each(|server| assert_eq!(e.snapshot(server), Some(last), "{server}"));
    e.all_agree();
}

#[test]
fn a_learner_takes_no_snapshot_while_it_knows_of_what_is_not_committed() {
    let mut e = Ensemble::with(Settings { snapshot_txns: 20, ..Settings::of(3) }).stand();
    let client = e.connect(C);
    e.write(client, "/a");
    e.run_ms(1_100);
    let before = e.snapshot(A);
    assert_eq!(before, Some(e.published(A)));
    e.hold(C, A, Commit);
    e.create(client, "/b");
    e.run_until("it is in the log of A", |e| e.log_end(A) > e.published(A));
    e.run_ms(1_500);
    assert!(e.follows(A, C));
    assert_eq!(e.snapshot(A), before);
    e.release(C, A);
    e.run_ms(1_100);
    assert_eq!(e.snapshot(A), Some(e.published(C)));
    e.all_agree();
}

#[test]
fn a_log_that_takes_too_long_to_read_makes_way_for_the_tree() {
    let settings = Settings { history_bytes: 0, asks_for_log: true, ..Settings::of(3) };
    let mut e = Ensemble::with(settings).stand();
    let client = e.connect(C);
    e.write(client, "/x");
    e.crash(A);
    ["/y", "/z"].iter().for_each(|path| e.write(client, path));
    // C waits for initLimit before it gives A up.
    e.start(A);
    e.run_until("A follows", |e| e.follows(A, C) && e.has(A, "/z"));
    assert_eq!(e.sent(C, A, Snap).len(), 1);
    e.all_agree();
}
