//! Small elections, gone through in every order as far as there is time.
//!
//! Three electors, connections between each two, and a clock that moves when the explorer says so:
//! from each beginning it tries all that can happen next, deliveries, timers and faults, and goes
//! on from every world that it has not seen. Only the smallest elections are seen to the end so (6
//! of 27 beginnings, and 9 with `WORLDS=10000`); of the others as many worlds are as [`WORLDS`]
//! says, near the beginning and far from it.
//!
//! When nothing is under way, everything goes on without faults, and all that live must come to
//! follow one leader, if those with data are a quorum, or all are there and have none. If all were
//! connected before the first message, and nothing but time that passed while nothing was under
//! way came in between, it is the one with the best vote. Otherwise those who decided need not have
//! known of that one: then it is one that no member of the quorum behind it could better.

mod checks;
mod copied;
mod table;
mod world;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use crate::collections::FastSet;
use crate::zab::members::Member;
use table::Pair;
use world::{Action, Budget, Pipe, Server, World};

const SECOND: u64 = 1_000_000_000;
/// How many worlds of each scenario are looked at; `WORLDS` says otherwise.
const WORLDS: usize = 2000;
/// A way to the end is no longer than this.
const STEPS_MAX: usize = 4000;

/// How an exploration begins, and what may happen in it.
#[derive(Clone, Copy)]
struct Scenario {
    name: &'static str,
    /// Epoch and zxid of each; -1 is none.
    own: [(u32, i64); 3],
    observes: bool,
    /// Who is not there at first.
    late: usize,
    fast: bool,
    /// All are connected before any message arrives.
    together: bool,
    left: Budget,
}

const NOTHING: Budget = Budget { slow: 0, ticks: 2, crashes: 0, restarts: 0, breaks: 0, losses: 0 };
const BASE: Scenario = Scenario {
    name: "",
    own: [(1, 1); 3],
    observes: false,
    late: 0,
    fast: true,
    together: true,
    left: NOTHING,
};

impl Scenario {
    fn begin(&self) -> World {
        let member = |id: i64| Member {
            id: ServerId(id),
            is_observer: self.observes && id == 3,
            text: String::new(),
        };
        let members = Arc::new(Members::majority(&[1, 2, 3].map(member), 0).unwrap());
        let server = |id: usize| {
            let config = ElectorConfig {
                me: ServerId(id as i64),
                is_observer: false,
                members: Arc::clone(&members),
                my_election_address: "h:2".to_owned(),
                finalize_wait: Duration::from_millis(200),
                notification_interval_min: Duration::from_millis(400),
                notification_interval_max: Duration::from_millis(400),
                connect_timeout: Duration::from_secs(5),
                tick: Duration::from_secs(2),
                fast: self.fast,
            };
            let (epoch, last) = self.own[id - 1];
            let own = OwnState { last: Zxid::from_wire(last), current_epoch: Epoch(epoch) };
            Server::new(ElectorConfig { is_observer: self.observes && id == 3, ..config }, own)
        };
        let mut world = World::new(vec![server(1), server(2), server(3)], self.left);
        let there = (0..3).filter(|id| id + 1 != self.late);
        there.clone().for_each(|id| world.perform(Action::Start(id)));
        there.for_each(|id| world.perform(Action::Look(id)));
        while self.together
            && let Some(action) =
                world.arrivals().into_iter().find(|action| matches!(action, Action::Dial(_)))
        {
            world.perform(action);
        }
        world.pipes.iter_mut().for_each(Pipe::say_once);
        world
    }

    /// Of what can arrive, what must be tried now: if a server that looks has something from both
    /// others, nothing that these do changes what it can hear next, and it may as well be first.
    /// One that is established only answers.
    fn arrivals(world: &World) -> Vec<Action> {
        let arrivals = world.arrivals();
        let left = world.left;
        let dials = arrivals.iter().any(|action| matches!(action, Action::Dial(_)));
        if !dials && left == (Budget { ticks: left.ticks, ..NOTHING }) {
            for id in (0..3).filter(|id| world.servers[*id].is_looking()) {
                let to = |action: &&Action| match action {
                    Action::Deliver(pipe, end) => world.pipes[*pipe].ends[*end].0 == id,
                    _ => false,
                };
                let mine: Vec<Action> = arrivals.iter().filter(to).copied().collect();
                if mine.len() == 2 {
                    return mine;
                }
            }
            let answers = |action: &&Action| match action {
                Action::Deliver(pipe, end) => {
                    world.servers[world.pipes[*pipe].ends[*end].0].established.is_some()
                }
                _ => false,
            };
            if let Some(action) = arrivals.iter().find(answers) {
                return vec![*action];
            }
        }
        arrivals
    }

    /// All that can happen next.
    fn actions(world: &World) -> Vec<(Action, Budget)> {
        let left = world.left;
        let mut actions: Vec<_> =
            Self::arrivals(world).into_iter().map(|action| (action, left)).collect();
        let is_quiet = actions.is_empty();
        let looks = (0..3).any(|id| world.servers[id].is_looking());
        let timers = match is_quiet {
            true if looks && left.ticks > 0 => Some(Budget { ticks: left.ticks - 1, ..left }),
            false if left.slow > 0 => Some(Budget { slow: left.slow - 1, ..left }),
            _ => None,
        };
        if let Some(left) = timers {
            actions.extend(world.timers().into_iter().map(|action| (action, left)));
        }
        for id in 0..3 {
            let server = &world.servers[id];
            match &server.elector {
                None if server.starts == 0 => actions.push((Action::Start(id), left)),
                None if left.restarts > 0 => {
                    let left = Budget { restarts: left.restarts - 1, ..left };
                    actions.push((Action::Start(id), left));
                }
                None => {}
                Some(elector) => {
                    if matches!(elector.state, State::Idle) {
                        actions.push((Action::Look(id), left));
                    }
                    if left.crashes > 0 {
                        let left = Budget { crashes: left.crashes - 1, ..left };
                        actions.push((Action::Crash(id), left));
                    }
                }
            }
            if world.can_establish(id) {
                actions.push((Action::Establish(id), left));
            }
            if left.losses > 0 && world.can_give_up(id) {
                let left = Budget { losses: left.losses - 1, ..left };
                actions.push((Action::GiveUp(id), left));
            }
        }
        if left.breaks > 0 {
            let left = Budget { breaks: left.breaks - 1, ..left };
            let pipes = (0..world.pipes.len()).filter(|pipe| world.pipes[*pipe].is_open());
            actions.extend(pipes.map(|pipe| (Action::Break(pipe), left)));
        }
        actions
    }

    /// Goes on without faults: whoever can agree does.
    fn check_end(mut world: World) -> Result<Option<usize>, String> {
        if !world.are_enough() {
            return Ok(None);
        }
        let mut patience = world.now + SECOND;
        for _ in 0..STEPS_MAX {
            let establish = (0..3).find(|id| world.can_establish(*id)).map(Action::Establish);
            let idle = |id: &usize| {
                let elector = world.servers[*id].elector.as_ref();
                elector.is_some_and(|elector| matches!(elector.state, State::Idle))
            };
            let next = world.arrivals().first().copied();
            let next = next.or_else(|| (0..3).find(idle).map(Action::Look)).or(establish);
            if let Some(action) = next {
                world.perform(action);
            } else if world.agreed().is_some() {
                return Ok(world.agreed());
            } else if world.now >= patience {
                patience = world.now + SECOND;
                for id in 0..3 {
                    if world.can_give_up(id) {
                        world.perform(Action::GiveUp(id));
                    }
                }
            } else if let Some(timer) = world.timers().first() {
                world.perform(*timer);
            } else {
                world.now = patience;
            }
            if let Some(wrong) = world.wrong {
                return Err(wrong);
            }
        }
        Err("it has no end".to_owned())
    }

    fn best(&self) -> usize {
        let voters = 0..if self.observes { 2 } else { 3 };
        voters.max_by_key(|id| (self.own[*id].0, self.own[*id].1, *id)).unwrap()
    }

    /// At most so many worlds; whether that was all.
    fn explore(&self, most: usize, reached: &mut Reached) -> bool {
        let first = self.begin();
        let mut seen: FastSet<u64> = [first.key()].into_iter().collect();
        let mut ways: Vec<(usize, Option<Action>)> = vec![(0, None)];
        let mut queue = VecDeque::from([(0, first)]);
        let mut ends = BTreeMap::<Option<usize>, usize>::new();
        // From the nearest and the farthest in turns, so that there are ends if not all is seen.
        let mut turns = 0;
        while let Some((number, world)) = match turns % 4 {
            0 => queue.pop_front(),
            _ => queue.pop_back(),
        } {
            turns += 1;
            if seen.len() >= most {
                break;
            }
            let way = |mut number: usize, last: Option<Action>| {
                let mut actions: Vec<_> = last.into_iter().collect();
                while let (before, Some(action)) = ways[number] {
                    actions.push(action);
                    number = before;
                }
                actions.reverse();
                format!("{}: {actions:#?}", self.name)
            };
            if world.is_quiet() {
                let end = Self::check_end(world.clone());
                let end = end.unwrap_or_else(|wrong| panic!("{wrong}\n{}", way(number, None)));
                *ends.entry(end).or_default() += 1;
                let is_undisturbed = self.left == Budget { ticks: self.left.ticks, ..world.left };
                if self.together && self.late == 0 && is_undisturbed {
                    assert_eq!(end, Some(self.best()), "{}", way(number, None));
                }
            }
            let mut found = Vec::new();
            for (action, left) in Self::actions(&world) {
                let mut next = world.clone();
                next.left = left;
                next.perform(action);
                next.check_state();
                if let Some(wrong) = &next.wrong {
                    panic!("{wrong}\n{}", way(number, Some(action)));
                }
                if let Some((pair, what)) = next.pair {
                    reached.entry(pair).or_default().insert(what);
                }
                if seen.insert(next.key()) {
                    found.push((action, next));
                }
            }
            for (action, next) in found {
                ways.push((number, Some(action)));
                queue.push_back((ways.len() - 1, next));
            }
        }
        let is_all = queue.is_empty();
        let all = if is_all { "all" } else { "some" };
        eprintln!("{}: {all} {} worlds, ends by leader {ends:?}", self.name, seen.len());
        is_all
    }
}

/// What became of each pair.
type Reached = BTreeMap<Pair, BTreeSet<char>>;

const ONE: Budget = Budget { slow: 1, ticks: 1, crashes: 1, restarts: 1, breaks: 1, losses: 1 };

fn scenarios() -> Vec<Scenario> {
    let ahead = [(1, 2), (1, 1), (1, 1)];
    let (slow, losses) = (Budget { slow: 1, ..NOTHING }, Budget { losses: 1, ..NOTHING });
    let crash = Budget { crashes: 1, losses: 1, ..NOTHING };
    let restart = Budget { restarts: 1, ..crash };
    let late = Scenario { late: 3, ..BASE };
    vec![
        Scenario { name: "equal", ..BASE },
        Scenario { name: "equal, not fast", fast: false, ..BASE },
        Scenario { name: "ahead", own: ahead, ..BASE },
        Scenario { name: "epochs", own: [(2, 1), (1, 5), (1, 9)], ..BASE },
        Scenario { name: "epochs, not fast", own: [(2, 1), (1, 5), (1, 9)], fast: false, ..BASE },
        Scenario { name: "one empty", own: [(1, 1), (1, 2), (0, -1)], ..BASE },
        Scenario { name: "all empty", own: [(0, -1); 3], ..BASE },
        Scenario { name: "all empty, not fast", own: [(0, -1); 3], fast: false, ..BASE },
        Scenario { name: "observer", observes: true, ..BASE },
        Scenario { name: "observer, not fast", observes: true, fast: false, ..BASE },
        Scenario { name: "late", own: [(1, 1), (1, 1), (1, 2)], ..late },
        Scenario { name: "late, worse", own: [(1, 2), (1, 1), (1, 1)], ..late },
        Scenario { name: "late, not fast", fast: false, ..late },
        Scenario { name: "late, empty", own: [(1, 1), (1, 1), (0, -1)], ..late },
        Scenario { name: "apart", together: false, own: ahead, ..BASE },
        Scenario { name: "late observer", observes: true, ..late },
        Scenario { name: "slow", own: ahead, left: slow, ..BASE },
        Scenario { name: "slow, not fast", own: ahead, left: slow, fast: false, ..BASE },
        Scenario { name: "loss", own: ahead, left: losses, ..BASE },
        Scenario { name: "crash", own: ahead, left: crash, ..BASE },
        Scenario { name: "restart", own: ahead, left: restart, ..BASE },
        Scenario { name: "restart, not fast", own: ahead, left: restart, fast: false, ..BASE },
        Scenario { name: "break", left: Budget { breaks: 1, ..losses }, ..BASE },
        Scenario {
            name: "one empty, restart",
            own: [(1, 1), (1, 2), (0, -1)],
            left: restart,
            ..BASE
        },
        Scenario { name: "all empty, restart", own: [(0, -1); 3], left: restart, ..BASE },
        Scenario { name: "observer, restart", observes: true, left: restart, ..BASE },
        Scenario { name: "all at once", own: ahead, left: ONE, together: false, ..late },
    ]
}

#[test]
fn small_elections_keep_their_promises_whatever_comes_next() {
    let most = std::env::var_os("WORLDS");
    let most = most.map_or(WORLDS, |text| text.to_str().unwrap().parse().unwrap());
    let mut reached = Reached::new();
    let all = scenarios().iter().filter(|scenario| scenario.explore(most, &mut reached)).count();
    eprintln!("{all} of {} were seen to the end", scenarios().len());
    let undecided = table::rows(&reached, &table::read(true));
    assert!(undecided.is_empty(), "not as written:\n{}", undecided.join("\n"));
    if most >= WORLDS {
        let unreached = table::rows(&table::read(false), &reached);
        assert!(unreached.is_empty(), "never reached:\n{}", unreached.join("\n"));
    }
}
