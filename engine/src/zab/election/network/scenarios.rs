//! Elections on the network: who wins, how soon, and that there is an end.

use super::*;

fn own(rng: &mut Rng) -> OwnState {
    let (epoch, counter) = (rng.u32(..3), rng.u32(..4));
    OwnState { last: Some(Zxid::new(Epoch(epoch), counter)), current_epoch: Epoch(epoch) }
}

fn start_all(net: &mut Net, own: impl Fn(&mut Rng) -> OwnState) {
    let ids: Vec<ServerId> = net.servers.keys().copied().collect();
    for id in ids {
        net.servers.get_mut(&id).unwrap().own = own(&mut net.rng);
        net.start(id);
    }
}

fn most_recent(net: &Net) -> ServerId {
    let voters = net.members.voters().iter();
    let rank = |id: &&ServerId| {
        let own = net.servers[id].own;
        (own.current_epoch, own.last, **id)
    };
    *voters.max_by_key(rank).unwrap()
}

#[test]
fn who_starts_together_elects_the_most_recent_at_once() {
    for (voters, observers) in [(1, 0), (3, 0), (5, 0), (7, 0), (3, 2)] {
        for seed in 0..60 {
            let mut net = Net::new(seed, voters, observers);
            start_all(&mut net, own);
            let agreed = net.run(20_000 * MS, |net| net.agreed().is_some());
            assert!(agreed, "seed {seed}, {voters} voters: {:#?}", net.states());
            assert_eq!(net.agreed(), Some(most_recent(&net)), "seed {seed}, {voters} voters");
            if voters > 1 && net.delay_max <= 2 * MS && observers == 0 {
                assert!(net.now < 150 * MS, "seed {seed}, {voters} voters: {} ms", net.now / MS);
            }
        }
    }
}

#[test]
fn without_speed_it_is_the_same_but_slower() {
    for seed in 0..60 {
        let mut net = Net::new(seed, 3, 0);
        net.fast = false;
        start_all(&mut net, own);
        assert!(net.run(20_000 * MS, |net| net.agreed().is_some()), "{:#?}", net.states());
        assert_eq!(net.agreed(), Some(most_recent(&net)), "seed {seed}");
        assert!(net.now >= 200 * MS);
    }
}

#[test]
fn a_killed_leader_has_a_successor_soon() {
    for (voters, wait) in [(3, 60), (5, 60), (7, 60)] {
        for seed in 0..60 {
            let mut net = Net::new(seed, voters, 0);
            net.delay_max = MS / 2;
            start_all(&mut net, own);
            assert!(net.run(20_000 * MS, |net| net.agreed().is_some()));
            let (leader, killed_at) = (net.agreed().unwrap(), net.now);
            net.kill(leader);
            assert!(net.run(net.now + 20_000 * MS, |net| net.agreed().is_some()));
            let took = (net.now - killed_at) / MS;
            assert!(took <= wait, "seed {seed}, {voters} voters: {took} ms {:?}", net.states());
        }
    }
}

#[test]
fn a_follower_that_restarts_before_discovery_is_over_is_not_waited_for() {
    for seed in 0..60 {
        let mut net = Net::new(seed, 3, 0);
        net.delay_max = 2 * MS;
        start_all(&mut net, own);
        assert!(net.run(20_000 * MS, |net| net.agreed().is_some()));
        // The others go to a later round, and have a leader that cannot get on.
        net.discovers = false;
        net.kill(net.agreed().unwrap());
        let has_decided = |server: &Server| server.elector.is_none() || server.decision.is_some();
        let decided = |net: &Net| net.servers.values().all(has_decided);
        net.run(net.now + PATIENCE / 10, |_| false);
        assert!(net.run(net.now + 20_000 * MS, decided), "seed {seed}: {:#?}", net.states());
        let is_follower =
            |server: &Server| server.decision.is_some_and(|it| it.role == Role::Following);
        let follower = *net.servers.iter().find(|(_, server)| is_follower(server)).unwrap().0;
        net.kill(follower);
        net.start(follower);
        net.discovers = true;
        let agreed = net.run(net.now + PATIENCE / 2, |net| net.agreed().is_some());
        assert!(agreed, "seed {seed}: {:#?}", net.states());
    }
}

#[test]
fn after_closes_kills_and_silence_all_agree() {
    for (voters, observers) in [(3, 0), (5, 0), (7, 0), (3, 1)] {
        for seed in 0..100 {
            let mut net = Net::new(seed, voters, observers);
            net.refuses = seed % 3 != 0;
            net.fast = seed % 5 != 0;
            start_all(&mut net, own);
            for _ in 0..net.rng.u32(1..30) {
                let time = net.now + net.rng.u64(..600 * MS);
                net.run(time, |_| false);
                let id = ServerId(net.rng.i64(1..=voters + observers));
                match net.servers[&id].elector.is_some() {
                    true if net.rng.bool() => net.kill(id),
                    true => net.break_some_pipe(),
                    false => net.start(id),
                }
            }
            net.refuses = true;
            for id in net.servers.keys().copied().collect::<Vec<_>>() {
                if net.servers[&id].elector.is_none() {
                    net.start(id);
                }
            }
            let agreed = net.run(net.now + 60_000 * MS, |net| net.agreed().is_some());
            assert!(agreed, "seed {seed}, {voters} voters: {:#?}", net.states());
        }
    }
}

#[test]
fn a_new_ensemble_begins_when_all_are_there_and_not_before() {
    let empty = OwnState { last: None, current_epoch: Epoch(0) };
    for seed in 0..60 {
        let mut net = Net::new(seed, 3, 1);
        for id in [1, 2, 4] {
            net.servers.get_mut(&ServerId(id)).unwrap().own = empty;
            net.start(ServerId(id));
        }
        assert!(!net.run(5_000 * MS, |net| net.agreed().is_some()), "seed {seed}");
        let elector =
            |net: &Net, id| net.servers[&ServerId(id)].elector.as_ref().unwrap().missing();
        assert_eq!(elector(&net, 1), [ServerId(3)]);
        assert_eq!(elector(&net, 4), []);
        net.servers.get_mut(&ServerId(3)).unwrap().own = empty;
        net.start(ServerId(3));
        let agreed = net.run(net.now + 20_000 * MS, |net| net.agreed().is_some());
        assert!(agreed, "seed {seed}: {:#?}", net.states());
    }
}

#[test]
fn a_member_without_data_joins_but_never_leads_or_helps() {
    let empty = OwnState { last: None, current_epoch: Epoch(0) };
    for seed in 0..60 {
        let mut net = Net::new(seed, 3, 0);
        start_all(&mut net, own);
        net.kill(ServerId(3));
        net.kill(ServerId(2));
        net.servers.get_mut(&ServerId(3)).unwrap().own = empty;
        net.start(ServerId(3));
        // One with data and one without are no quorum.
        assert!(!net.run(net.now + 5_000 * MS, |net| net.agreed().is_some()), "seed {seed}");
        net.start(ServerId(2));
        let agreed = net.run(net.now + 20_000 * MS, |net| net.agreed().is_some());
        assert!(agreed, "seed {seed}: {:#?}", net.states());
        assert_ne!(net.agreed(), Some(ServerId(3)));
    }
}
