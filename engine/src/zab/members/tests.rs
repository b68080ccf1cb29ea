//! Quorums by tables, and the text of the configuration.

use super::*;

fn member(id: i64, is_observer: bool) -> Member {
    let address = MemberAddress { host: "h".to_owned(), learner_port: 2888, election_port: 3888 };
    Member { id: ServerId(id), is_observer, text: member_text(&[address], is_observer, None) }
}

fn voters(ids: &[i64]) -> Vec<Member> {
    ids.iter().map(|id| member(*id, false)).collect()
}

#[track_caller]
fn check(members: &Members, agreeing: &[i64], expect: bool) {
    assert_eq!(members.is_quorum(|id| agreeing.contains(&id.0)), expect, "{agreeing:?}");
}

#[test]
fn more_than_half_of_the_voters_is_a_quorum() {
    let three = Members::majority(&[voters(&[1, 2, 3]), vec![member(4, true)]].concat(), 0);
    let three = three.unwrap();
    check(&three, &[], false);
    check(&three, &[1], false);
    check(&three, &[1, 4], false);
    check(&three, &[1, 3], true);
    check(&three, &[1, 2, 3], true);
    let four = Members::majority(&voters(&[1, 2, 3, 4]), 0).unwrap();
    check(&four, &[1, 2], false);
    check(&four, &[1, 2, 4], true);
    check(&Members::majority(&voters(&[7]), 0).unwrap(), &[7], true);
    assert!(three.is_voter(ServerId(3)) && !three.is_voter(ServerId(4)));
    assert!(three.contains(ServerId(4)) && !three.contains(ServerId(5)));
    assert_eq!(three.others(ServerId(2)).map(|id| id.0).collect::<Vec<_>>(), [1, 3, 4]);
    assert_eq!((three.weight(ServerId(1)), three.weight(ServerId(4))), (1, 0));
}

fn groups(groups: &[(i64, &[i64])], weights: &[(i64, u32)]) -> Groups {
    let ids = |ids: &[i64]| ids.iter().map(|id| ServerId(*id)).collect();
    Groups {
        groups: groups.iter().map(|(group, members)| (*group, ids(members))).collect(),
        weights: weights.iter().map(|(id, weight)| (ServerId(*id), *weight)).collect(),
    }
}

#[test]
fn more_than_half_of_the_groups_by_more_than_half_of_their_weight_is_a_quorum() {
    let nine = voters(&[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let by_three: [(i64, &[i64]); 3] = [(1, &[1, 2, 3]), (2, &[4, 5, 6]), (3, &[7, 8, 9])];
    let even = Members::hierarchical(&nine, &groups(&by_three, &[]), 0).unwrap();
    check(&even, &[1, 2], false);
    check(&even, &[1, 2, 4, 7], false);
    check(&even, &[1, 2, 4, 5], true);
    check(&even, &[2, 3, 8, 9], true);

    // A group without weight does not count, nor does a voter without weight.
    let weights = [(7, 0), (8, 0), (9, 0), (1, 3), (6, 0)];
    let uneven = Members::hierarchical(&nine, &groups(&by_three, &weights), 0).unwrap();
    check(&uneven, &[1, 4], false);
    check(&uneven, &[1, 4, 5], true);
    check(&uneven, &[2, 3, 4, 5, 7, 8, 9], false);
    assert_eq!((uneven.weight(ServerId(1)), uneven.weight(ServerId(6))), (3, 0));
    assert_eq!(uneven.weight(ServerId(10)), 0);
}

#[test]
fn any_two_quorums_share_a_voter() {
    let six = voters(&[1, 2, 3, 4, 5, 6]);
    let by_two: [(i64, &[i64]); 3] = [(1, &[1, 2]), (2, &[3, 4]), (3, &[5, 6])];
    let weights = [(1, 2), (4, 5), (5, 0)];
    for members in [
        Members::majority(&six, 0).unwrap(),
        Members::hierarchical(&six, &groups(&by_two, &[]), 0).unwrap(),
        Members::hierarchical(&six, &groups(&by_two, &weights), 0).unwrap(),
    ] {
        let is_quorum = |set: u32| members.is_quorum(|id| set >> id.0 & 1 == 1);
        let quorums: Vec<u32> = (0..128).filter(|set| is_quorum(*set)).collect();
        assert!(!quorums.is_empty());
        for a in &quorums {
            assert!(quorums.iter().all(|b| a & b != 0));
        }
    }
}

#[test]
fn what_makes_no_ensemble_is_refused() {
    let check = |made: Result<Members, MembersError>, expect| assert_eq!(made, Err(expect));
    check(Members::majority(&voters(&[1, 1]), 0), MembersError::Twice(ServerId(1)));
    let mixed = [member(1, false), member(1, true)];
    check(Members::majority(&mixed, 0), MembersError::Twice(ServerId(1)));
    check(Members::majority(&[member(1, true)], 0), MembersError::NoVoter);
    let two = voters(&[1, 2]);
    let grouped = |list: &[(i64, &[i64])]| Members::hierarchical(&two, &groups(list, &[]), 0);
    check(grouped(&[(1, &[1])]), MembersError::InNoGroup(ServerId(2)));
    check(grouped(&[(1, &[1, 2]), (2, &[2])]), MembersError::InTwoGroups(ServerId(2)));
    check(grouped(&[(1, &[1]), (1, &[2])]), MembersError::GroupTwice(1));
}

#[test]
fn the_text_is_javas() {
    let address = |host: &str, learner_port, election_port| MemberAddress {
        host: host.to_owned(),
        learner_port,
        election_port,
    };
    let text = member_text(&[address("z1", 2888, 3888)], false, Some(("0.0.0.0", 2181)));
    assert_eq!(text, "z1:2888:3888:participant;0.0.0.0:2181");
    let many = [address("b", 1, 2), address("a", 3, 4)];
    assert_eq!(member_text(&many, true, None), "a:3:4|b:1:2:observer");
    let v6 = member_text(&[address("::1", 1, 2)], false, Some(("fe80::2", 3)));
    assert_eq!(v6, "[::1]:1:2:participant;[fe80::2]:3");

    let members = Members::majority(&voters(&[17, 3, 2]), 0x1_0000_0000).unwrap();
    let h = "h:2888:3888:participant";
    let expect = format!("server.17={h}\nserver.2={h}\nserver.3={h}\nversion=100000000");
    assert_eq!(members.text(), expect);

    let groups = groups(&[(2, &[3, 17]), (1, &[2])], &[(17, 4)]);
    let members = Members::hierarchical(&voters(&[17, 3, 2]), &groups, 0).unwrap();
    let expect = format!(
        "server.17={h}\nserver.2={h}\nserver.3={h}\n\
         group.1=2\ngroup.2=17:3\nweight.17=4\nweight.2=1\nweight.3=1\nversion=0"
    );
    assert_eq!(members.text(), expect);
}
