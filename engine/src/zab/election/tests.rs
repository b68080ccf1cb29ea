//! Every message in every state, and what is done about it.

mod world;

use super::*;
use crate::zab::hello::Hello;
use crate::zab::link::Plane;
use crate::zab::members::Groups;

use PeerState::{Following, Leading, Looking as Look, Observing};
use world::{ME, Numbers, World, members, own, payload};

const OTHERS: &[i64] = &[1, 2, 4, 5];

/// Three of five that looks in round 1 with its log at 7 in epoch 1.
fn looking() -> World {
    World::new(ME, own(1, Some(7))).connect()
}

#[test]
fn votes_of_those_that_look_too() {
    #[track_caller]
    fn check(sender: i64, heard: Numbers, sent: &[(&[i64], PeerState, Numbers)]) {
        looking().hear(sender, Look, heard).check_sent(sent).check_decided(None);
    }
    // Better: adopted, and passed on.
    check(4, (4, 7, 1, 1), &[(OTHERS, Look, (4, 7, 1, 1))]);
    check(1, (2, 8, 1, 1), &[(OTHERS, Look, (2, 8, 1, 1))]);
    check(1, (1, 0, 2, 1), &[(OTHERS, Look, (1, 0, 2, 1))]);
    // Equal: counted.
    check(4, (ME, 7, 1, 1), &[]);
    // Worse: counted, and answered, since what was sent before may have come too early.
    check(4, (4, 6, 1, 1), &[(&[4], Look, (ME, 7, 1, 1))]);
    check(1, (1, 7, 1, 1), &[(&[1], Look, (ME, 7, 1, 1))]);
    // A later round: adopted, with the better of its vote and ours.
    check(4, (4, 7, 1, 5), &[(OTHERS, Look, (4, 7, 1, 5))]);
    check(4, (4, 6, 1, 5), &[(OTHERS, Look, (ME, 7, 1, 5))]);
    // An earlier round: it is told, and its vote ignored.
    check(4, (4, 9, 1, 0), &[(&[4], Look, (ME, 7, 1, 1))]);
    // No data; nobody that could lead; nonsense.
    check(4, (4, -1, 0, 1), &[]);
    check(4, (9, 9, 1, 1), &[]);
    check(4, (77, 9, 1, 1), &[]);
}

#[test]
fn a_later_round_begins_from_our_own_vote() {
    let mut world = looking();
    world.hear(5, Look, (5, 9, 1, 1)).check_sent(&[(OTHERS, Look, (5, 9, 1, 1))]);
    world.hear(4, Look, (4, 6, 1, 2)).check_sent(&[(OTHERS, Look, (ME, 7, 1, 2))]);
    // What was cast before is not counted any more.
    world.hear(1, Look, (ME, 7, 1, 2)).hear(2, Look, (ME, 7, 1, 1)).pass(200);
    world.check_decided(None).hear(2, Look, (ME, 7, 1, 2)).check_decided(None).pass(200);
    world.check_decided(Some((Role::Leading, (ME, 7, 1, 2))));
}

#[test]
fn a_quorum_waits_unless_everybody_is_known() {
    let vote = (ME, 7, 1, 1);
    let mut world = looking();
    world.hear(1, Look, vote).check_decided(None).hear(2, Look, vote).check_decided(None);
    world.pass(199).check_decided(None).pass(1).check_decided(Some((Role::Leading, vote)));

    // All have cast this vote.
    let mut world = looking();
    world.hear(1, Look, vote).hear(2, Look, vote).hear(4, Look, vote).check_decided(None);
    world.hear(5, Look, vote).check_decided(Some((Role::Leading, vote))).check_decided(None);

    // One disagrees, one has gone without a word: both could know better.
    let mut world = looking();
    world.hear(1, Look, vote).hear(2, Look, vote).hear(4, Look, vote).hear(5, Look, (5, 1, 1, 1));
    world.check_decided(None);
    let mut world = looking();
    world.link(LinkEvent::Closed(LinkId(11)));
    world.hear(1, Look, vote).hear(2, Look, vote).hear(4, Look, vote).check_decided(None);

    // Following is an answer.
    let mut world = looking();
    let better = (4, 8, 1, 1);
    world.hear(4, Look, better).hear(1, Look, better).hear(2, Following, better);
    world.check_decided(None).hear(5, Look, better);
    world.check_decided(Some((Role::Following, better)));
}

#[test]
fn a_refusal_of_this_round_is_an_answer() {
    let vote = (ME, 7, 1, 1);
    let mut world = World::new(ME, own(1, Some(7)));
    let refused = |link| LinkEvent::Failed { link, refused: true };
    world.link(LinkEvent::Connected(LinkId(4)));
    world.link(LinkEvent::Connected(LinkId(8)));
    world.link(refused(LinkId(12)));
    world.hear(1, Look, vote).hear(2, Look, vote).check_decided(None);
    let failed = LinkEvent::Failed { link: LinkId(16), refused: false };
    world.link(failed);
    world.check_decided(None);
    // The next dial is refused.
    world.pass(10);
    world.link(refused(LinkId(20)));
    world.check_decided(Some((Role::Leading, vote)));
}

#[test]
fn a_better_vote_within_the_wait_begins_it_anew() {
    let (vote, better) = ((ME, 7, 1, 1), (5, 9, 1, 1));
    let mut world = looking();
    world.hear(1, Look, vote).hear(2, Look, vote).pass(150).hear(5, Look, better);
    world.check_decided(None).pass(100).check_decided(None);
    world.hear(1, Look, better).pass(199).check_decided(None);
    world.pass(1).check_decided(Some((Role::Following, better)));
}

#[test]
fn those_that_have_a_leader_show_it() {
    let joined = Some((Role::Following, (1, 4, 6, 9)));
    // Of a later round, or an earlier one: a quorum, and the leader among it. Epoch and leader
    // count, not what they were elected with.
    let mut world = looking();
    world.hear(1, Leading, (1, 4, 6, 9)).hear(2, Following, (1, 4, 6, 9)).check_decided(None);
    world.hear(4, Following, (1, 2, 5, 9)).check_decided(None);
    world.hear(5, Following, (1, 4, 6, 8)).check_decided(Some((Role::Following, (1, 4, 6, 8))));
    assert_eq!(world.elector.round(), ElectionRound(8));
    let mut world = looking();
    world.hear(2, Following, (1, 4, 6, 9)).hear(4, Following, (1, 4, 6, 9));
    world.hear(5, Following, (1, 4, 6, 9)).check_decided(None);
    world.hear(1, Leading, (1, 4, 6, 9)).check_decided(joined);

    // One that looks again does not follow any more; observers and strangers never count.
    let mut world = looking();
    world.hear(2, Following, (1, 4, 6, 9)).hear(1, Leading, (1, 4, 6, 9));
    world.hear(2, Look, (2, 4, 6, 0)).hear(4, Following, (1, 4, 6, 9)).check_decided(None);
    world.hear(9, Following, (1, 4, 6, 9)).hear(5, Observing, (1, 4, 6, 9)).check_decided(None);

    // In our round, votes of those that look count with the others.
    let mut world = looking();
    world.hear(4, Look, (4, 8, 1, 1)).hear(1, Following, (4, 8, 1, 1)).check_decided(None);
    world.hear(4, Leading, (4, 8, 1, 1));
    world.check_decided(Some((Role::Following, (4, 8, 1, 1))));
}

#[test]
fn others_make_us_lead_only_in_our_round_and_with_data() {
    let (now, before) = ((ME, 7, 1, 1), (ME, 7, 1, 4));
    let mut world = looking();
    world.hear(1, Following, now).check_decided(None);
    world.hear(2, Following, now).check_decided(Some((Role::Leading, now)));
    let mut world = looking();
    world.hear(1, Following, before).hear(2, Following, before).hear(4, Following, before);
    world.check_decided(None);
    for me in [own(1, None), own(0, None)] {
        let mut world = World::new(ME, me).connect();
        world.hear(1, Following, now).hear(2, Following, now).hear(4, Following, now);
        world.check_decided(None);
    }
}

/// Three follows two, with all in agreement.
fn following() -> World {
    let mut world = looking();
    let vote = (2, 8, 1, 1);
    for id in OTHERS {
        world.hear(*id, Look, vote);
    }
    world.check_decided(Some((Role::Following, vote)));
    world.out.clear();
    world
}

/// The same in round 2.
fn following_in_round_2() -> World {
    let mut world = looking();
    for id in OTHERS {
        world.hear(*id, Look, (2, 8, 1, 2));
    }
    world.check_decided(Some((Role::Following, (2, 8, 1, 2))));
    world
}

#[test]
fn those_that_look_are_answered_by_one_that_has_decided() {
    let vote = (2, 8, 1, 1);
    let mut world = following();
    world.hear(1, Look, (1, 7, 1, 1)).check_sent(&[(&[1], Following, vote)]);
    world.hear(9, Look, (9, 7, 1, 1)).check_sent(&[(&[9], Following, vote)]);
    world.hear(1, Following, vote).hear(2, Leading, vote).hear(1, Observing, vote);
    world.hear(9, Observing, vote).check_sent(&[]);
    world.elector.established(Epoch(2));
    let established = (2, 8, 2, 1);
    world.hear(5, Look, (5, 99, 1, 7)).check_sent(&[(&[5], Following, established)]);
    world.check_decided(None);
    assert!(!world.elector.reopened());
    // And the one that comes up is told unasked.
    world.link(LinkEvent::Closed(LinkId(11)));
    world.link(LinkEvent::Accepted { link: LinkId(111), plane: Plane::Election });
    world.link(LinkEvent::Received(LinkId(111), &Hello::encode(ServerId(5), "h:1")));
    world.check_sent(&[(&[55], Following, established)]);
}

#[test]
fn one_that_comes_up_is_told_what_holds_now_and_nothing_older() {
    let vote = (2, 8, 1, 1);
    let mut world = looking();
    world.link(LinkEvent::Closed(LinkId(11)));
    for id in [1, 2, 4] {
        world.hear(id, Look, vote);
    }
    world.check_sent(&[(&[1, 2, 4], Look, vote)]);
    world.pass(200).check_decided(Some((Role::Following, vote)));
    world.link(LinkEvent::Accepted { link: LinkId(111), plane: Plane::Election });
    world.link(LinkEvent::Received(LinkId(111), &Hello::encode(ServerId(5), "h:1")));
    world.check_sent(&[(&[55], Following, vote)]);
}

#[test]
fn a_decision_is_reopened_by_a_better_vote_until_discovery_is_over() {
    let better = (5, 9, 1, 1);
    let mut world = following();
    world.hear(5, Look, better).check_sent(&[]);
    assert!(world.elector.reopened());
    // What comes in between is not lost, and the round goes on.
    world.hear(4, Look, better);
    world.look(own(1, Some(7))).check_sent(&[(OTHERS, Look, (2, 8, 1, 1)), (OTHERS, Look, better)]);
    assert!(!world.elector.reopened());
    world.check_decided(None);
    world.hear(1, Look, better).hear(2, Look, better);
    world.check_decided(Some((Role::Following, better)));

    // A vote that is better and of a later round; the same of an earlier one.
    let mut world = following();
    world.hear(5, Look, (5, 9, 1, 0));
    assert!(!world.elector.reopened());
    world.hear(5, Look, (5, 9, 1, 3));
    assert!(world.elector.reopened());
    world.look(own(1, Some(7)));
    assert_eq!(world.elector.round(), ElectionRound(3));
}

#[test]
fn a_decision_is_reopened_when_those_who_made_it_leave() {
    let mut world = following();
    world.hear(1, Look, (1, 7, 1, 2)).hear(4, Look, (1, 7, 1, 2));
    assert!(!world.elector.reopened());
    world.hear(5, Look, (1, 7, 1, 2));
    assert!(world.elector.reopened());
    let mut world = following();
    world.hear(2, Look, (1, 7, 1, 2));
    assert!(world.elector.reopened(), "the leader has gone on");

    // Those who started anew: in an earlier round, or with less than they had voted for.
    for again in [(1, 7, 1, 1), (1, 7, 1, 2)] {
        let mut world = following_in_round_2();
        world.hear(1, Look, again).hear(4, Look, again);
        assert!(!world.elector.reopened(), "three of five are left");
        world.hear(5, Look, again);
        assert!(world.elector.reopened());
        // What they had cast is not counted again.
        world.look(own(1, Some(7))).check_decided(None);
    }
    let mut world = following_in_round_2();
    world.hear(2, Look, (2, 8, 1, 1));
    assert!(world.elector.reopened(), "the leader has started anew");
    let mut world = following_in_round_2();
    world.hear(2, Look, (2, -1, 0, 1));
    assert!(world.elector.reopened(), "without its data, too");

    // An older word of a leader that was not heard in the round: it may be there all the same.
    let mut world = looking();
    let vote = (2, 8, 1, 2);
    world.hear(1, Look, vote).hear(4, Look, vote).hear(5, Look, vote).pass(200);
    world.check_decided(Some((Role::Following, vote)));
    world.hear(2, Look, (2, 8, 1, 1));
    assert!(!world.elector.reopened());

    let mut world = following();
    world.elector.config.fast = false;
    world.hear(2, Look, (5, 9, 1, 2));
    assert!(!world.elector.reopened(), "as ZooKeeper does it");
}

#[test]
fn after_two_quick_decisions_in_vain_the_next_waits() {
    let mut world = looking();
    for round in [1, 2, 3] {
        let vote = (ME, 7, 1, round);
        for id in OTHERS {
            world.hear(*id, Look, vote);
        }
        if round < 3 {
            world.check_decided(Some((Role::Leading, vote)));
            world.look(own(1, Some(7)));
        } else {
            world.check_decided(None).pass(200).check_decided(Some((Role::Leading, vote)));
        }
    }
    // Not because of those that are long past.
    world.look(own(1, Some(7))).pass(2000).look(own(1, Some(7)));
    for id in OTHERS {
        world.hear(*id, Look, (ME, 7, 1, 5));
    }
    world.check_decided(Some((Role::Leading, (ME, 7, 1, 5))));
}

#[test]
fn without_data_a_server_neither_votes_nor_counts() {
    let mut world = World::new(ME, own(0, None)).connect();
    world.pass(200).check_sent(&[(OTHERS, Look, (ME, -1, 0, 1))]);
    world.hear(1, Look, (1, 5, 1, 1)).hear(2, Look, (1, 5, 1, 1)).hear(4, Look, (1, 5, 1, 1));
    world.hear(5, Look, (1, 5, 1, 1)).pass(1000).check_decided(None);
    // But it joins.
    world.hear(1, Leading, (1, 5, 2, 1)).hear(2, Following, (1, 5, 2, 1)).check_decided(None);
    world.hear(4, Following, (1, 5, 2, 1));
    world.check_decided(Some((Role::Following, (1, 5, 2, 1))));
}

#[test]
fn a_new_ensemble_needs_every_voter_and_none_with_data() {
    let mut world = World::new(ME, own(0, None)).connect();
    for id in [1, 2, 4] {
        world.hear(id, Look, (id, -1, 0, 1));
    }
    world.check_sent(&[]).check_decided(None);
    assert_eq!(world.elector.missing(), [ServerId(5)]);
    // Another may have heard of the last one already.
    world.hear(4, Look, (4, 0, 0, 1)).hear(5, Look, (5, -1, 0, 1));
    world.check_sent(&[(OTHERS, Look, (ME, 0, 0, 1)), (OTHERS, Look, (4, 0, 0, 1))]);
    world.hear(5, Look, (5, 0, 0, 1)).check_sent(&[(OTHERS, Look, (5, 0, 0, 1))]);

    for full in [(5, 1, 0, 1), (5, 1, 1, 1)] {
        let mut world = World::new(ME, own(0, None)).connect();
        for id in [1, 2, 4] {
            world.hear(id, Look, (id, -1, 0, 1));
        }
        world.hear(5, Look, full).pass(200).check_sent(&[(OTHERS, Look, (ME, -1, 0, 1))]);
    }
    // One that has seen an epoch and no transaction is as good as empty: its vote wins.
    let mut world = World::new(ME, own(0, None)).connect();
    for id in [1, 2, 4] {
        world.hear(id, Look, (id, -1, 0, 1));
    }
    world.hear(5, Look, (5, 0, 1, 1));
    world.check_sent(&[(OTHERS, Look, (ME, 0, 0, 1)), (OTHERS, Look, (5, 0, 1, 1))]);
    // That holds for ourselves, too: those who have seen less may not lead us.
    let mut world = World::new(ME, own(2, None)).connect();
    for id in [1, 2, 4, 5] {
        world.hear(id, Look, (id, -1, 0, 1));
    }
    world.check_sent(&[(OTHERS, Look, (ME, 0, 2, 1))]);
    // One that has a leader is not empty, whatever it said before.
    let mut world = World::new(ME, own(0, None)).connect();
    for id in [1, 2, 4] {
        world.hear(id, Look, (id, -1, 0, 1));
    }
    world.hear(4, Following, (2, 0, 0, 1)).hear(5, Look, (5, -1, 0, 1)).check_sent(&[]);
    assert_eq!(world.elector.missing(), [ServerId(4)]);
}

#[test]
fn one_that_comes_late_begins_a_new_ensemble_with_those_who_have_decided() {
    for (leader, begins) in [((5, 0, 0, 1), true), ((5, 7, 0, 1), false)] {
        let mut world = World::new(ME, own(0, None)).connect();
        for id in [1, 2, 4, 5] {
            world.hear(id, Look, (id, -1, 0, 1));
        }
        // It knows that all are empty, but the others were quicker.
        for (id, state) in [(5, Leading), (4, Following), (2, Following)] {
            world.hear(id, state, leader);
        }
        assert_eq!(world.elector.decided().map(|decision| decision.begins), Some(begins));
    }
    // One that has not heard it from all does not know.
    let mut world = World::new(ME, own(0, None)).connect();
    for (id, state) in [(5, Leading), (4, Following), (2, Following)] {
        world.hear(id, state, (5, 0, 0, 1));
    }
    assert_eq!(world.elector.decided().map(|decision| decision.begins), Some(false));
}

#[test]
fn a_voter_that_is_alone_leads() {
    let mut world = World::of(ME, Members::majority(&members(&[ME], &[]), 0).unwrap());
    world.look(own(0, None)).check_decided(Some((Role::Leading, (ME, 0, 0, 1))));
    world.look(own(4, Some(9))).check_decided(Some((Role::Leading, (ME, 9, 4, 2))));
}

#[test]
fn an_observer_proposes_nobody_and_follows_the_voters() {
    let mut world = World::new(9, own(3, Some(99)));
    for id in 1..=5 {
        world.link(LinkEvent::Connected(LinkId(4 * id)));
    }
    let nobody = (i64::MIN, i64::MIN, i64::MIN, 1);
    let vote = (4, 7, 1, 1);
    world.out.clear();
    world.pass(200).check_sent(&[(&[1, 2, 3, 4, 5], Look, nobody)]);
    world.hear(1, Look, vote).hear(2, Look, vote).check_decided(None);
    world.hear(3, Look, vote).hear(5, Look, vote).pass(200);
    world.check_decided(Some((Role::Observing, vote)));
    world.out.clear();
    world.hear(1, Look, (1, 6, 1, 1)).check_sent(&[(&[1], Observing, vote)]);

    let mut world = World::new(9, own(3, Some(99)));
    for id in 1..=5 {
        world.link(LinkEvent::Connected(LinkId(4 * id)));
    }
    world.hear(4, Leading, (4, 7, 2, 5)).hear(1, Following, (4, 7, 2, 5));
    world.hear(2, Following, (4, 7, 2, 5));
    world.check_decided(Some((Role::Observing, (4, 7, 2, 5))));
}

#[test]
fn a_voter_without_weight_never_wins() {
    let look = |id, last| {
        let groups = Groups {
            groups: vec![(1, [1, 2, 3, 4, 5].map(ServerId).to_vec())],
            weights: vec![(ServerId(5), 0)],
        };
        let members = members(&[1, 2, 3, 4, 5], &[9]);
        let hierarchy = Members::hierarchical(&members, &groups, 0).unwrap();
        let mut world = World::of(id, hierarchy);
        world.look(own(1, Some(last)));
        if id == ME {
            return world.connect();
        }
        for other in 1..=4 {
            world.link(LinkEvent::Connected(LinkId(4 * other)));
        }
        world.out.clear();
        world
    };
    // Its vote is better, and so neither takes the other's: they don't answer without end.
    look(ME, 7).hear(5, Look, (5, 9, 1, 1)).check_sent(&[]);
    look(5, 9).hear(3, Look, (3, 7, 1, 1)).check_sent(&[]);
    // Its vote is worse: it is told, and takes the better one.
    look(ME, 7).hear(5, Look, (5, 6, 1, 1)).check_sent(&[(&[5], Look, (ME, 7, 1, 1))]);
    look(5, 6).hear(3, Look, (3, 7, 1, 1)).check_sent(&[(&[1, 2, 3, 4], Look, (3, 7, 1, 1))]);
}

#[test]
fn whoever_sends_what_is_no_notification_is_closed_and_not_heard_any_more() {
    let mut short = payload(Look, (5, 9, 1, 1));
    short.truncate(4 + 27);
    short[3] = 27;
    let mut state = payload(Look, (5, 9, 1, 1));
    state[7] = 4;
    for mut bytes in [short, state] {
        let mut world = looking();
        bytes.extend(payload(Look, (5, 9, 1, 1)));
        world.link(LinkEvent::Received(LinkId(11), &bytes));
        assert_eq!(world.out, [LinkOp::Close(LinkId(11))]);
        world.out.clear();
        world.link(LinkEvent::Received(LinkId(11), &payload(Look, (5, 9, 1, 1))));
        assert_eq!(world.out, []);
    }
}

#[test]
fn before_the_first_election_nothing_is_said() {
    let hierarchy = Members::majority(&members(&[1, 2, 3, 4, 5], &[9]), 0).unwrap();
    let mut world = World::of(ME, hierarchy);
    let link = LinkId(11);
    world.link(LinkEvent::Accepted { link, plane: Plane::Election });
    assert!(world.elector.owns(link) && !world.elector.owns(LinkId(13)));
    world.link(LinkEvent::Received(link, &Hello::encode(ServerId(5), "h:1")));
    world.hear(5, Look, (5, 9, 1, 1));
    assert_eq!(world.out, []);
}

#[test]
fn votes_are_sent_again_less_and_less_often() {
    let mut world = looking();
    for ms in [200, 400, 800, 1600] {
        world.pass(ms - 1).check_sent(&[]);
        world.pass(1).check_sent(&[(OTHERS, Look, (ME, 7, 1, 1))]);
    }
    let until = world.elector.next_timeout().unwrap();
    assert_eq!(until.since(world.now()), Duration::from_millis(3200));
}
