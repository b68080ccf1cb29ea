//! Ensembles under faults, from seeds: what was promised holds, and all becomes well again.
//!
//! `SEED` is the first seed, `SEEDS` how many there are; `SIM_SECONDS` goes on for so long.
//! `PLANTED` names a mistake, to see how it is noticed.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tests::sim::ensemble::report::{Stats, Summary};
use tests::sim::ensemble::{MS, Planted, World};

/// How many seeds a test run tries.
const SEEDS: u64 = 60;
/// Within so many seeds each planted mistake must be found.
const PLANTED_SEEDS: u64 = 200;
/// So many seeds must find nothing where it is the mistake alone that is missing.
const CONTROL_SEEDS: u64 = 10;
/// After so many failures there is enough to look at.
const FAILURES_MAX: usize = 8;

/// Which seeds to run.
struct Plan {
    first: u64,
    count: u64,
    time: Duration,
}

impl Plan {
    fn from_environment() -> Self {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
        let (first, count, seconds) = (number("SEED"), number("SEEDS"), number("SIM_SECONDS"));
        let default = match (first, seconds) {
            (_, Some(_)) => u64::MAX,
            (Some(_), None) => 1,
            (None, None) => SEEDS,
        };
        Self {
            first: first.unwrap_or(1),
            count: count.unwrap_or(default),
            time: seconds.map_or(Duration::MAX, Duration::from_secs),
        }
    }

    /// Runs them, on all processors: each world is of one thread.
    fn run(&self, run: impl Fn(u64) -> Stats + Sync) -> Summary {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (began, next) = (Instant::now(), AtomicU64::new(0));
        let summary = Mutex::new(Summary::default());
        let work = || {
            loop {
                let nth = next.fetch_add(1, Ordering::Relaxed);
                let enough = summary.lock().unwrap().failed.len() >= FAILURES_MAX;
                if nth >= self.count || began.elapsed() >= self.time || enough {
                    return;
                }
                let seed = self.first.wrapping_add(nth);
                let outcome = catch_unwind(AssertUnwindSafe(|| run(seed)));
                let mut summary = summary.lock().unwrap();
                match outcome {
                    Ok(stats) => summary.add(&stats),
                    Err(panic) => {
                        eprintln!("replay: SEED={seed} cargo sim");
                        summary.add_failure(seed, message(panic.as_ref()));
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
        let summary = summary.into_inner().unwrap();
        println!("{}", summary.table(began.elapsed(), threads));
        summary
    }
}

#[test]
fn promises_hold_through_faults_and_all_becomes_well_again() {
    let planted = std::env::var("PLANTED").ok().map(|name| Planted::of_name(&name).unwrap());
    let summary = Plan::from_environment().run(|seed| World::new(seed, planted).run().1);
    for (seed, message) in &summary.failed {
        eprintln!("replay: SEED={seed} cargo sim\n    {message}");
    }
    assert!(summary.failed.is_empty(), "seeds {:?} fail", summary.failed.keys());
    let few = summary.seeds < 20;
    assert!(few || summary.worthy * 10 > summary.seeds * 8, "too few seeds are worth anything");
}

/// The first seed that fails, and how.
fn first_failure(
    mut seeds: impl Iterator<Item = u64>,
    world: impl Fn(u64) -> World,
) -> Option<(u64, String)> {
    seeds.find_map(|seed| {
        let run = || world(seed).run();
        let panic = catch_unwind(AssertUnwindSafe(run)).err()?;
        Some((seed, message(panic.as_ref())))
    })
}

/// The first seed that notices a mistake of the drivers, and how.
fn found_by(planted: Planted) -> Option<(u64, String)> {
    first_failure(1..=PLANTED_SEEDS, |seed| World::new(seed, Some(planted)))
}

/// The seed that found a mistake, and a few others, without it: nothing else is to be noticed.
fn found_without(planted: Planted, finder: u64) -> Option<(u64, String)> {
    let seeds = (1..=CONTROL_SEEDS).chain((finder > CONTROL_SEEDS).then_some(finder));
    first_failure(seeds, |seed| World::control(seed, planted))
}

/// What a panic says.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref().map(|s: &&str| (*s).into())).unwrap_or_default()
}

#[test]
fn mistakes_of_the_drivers_are_found() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(0);
    let (unnoticed, unfounded) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let work = || {
        let nth = || next.fetch_add(1, Ordering::Relaxed) as usize;
        while let Some(&planted) = Planted::ALL.get(nth()) {
            match found_by(planted) {
                Some((seed, how)) => {
                    let how = how.lines().next().unwrap_or_default();
                    println!("{planted:?}: found by seed {seed}: {how}");
                    let without = found_without(planted, seed).map(|found| (planted, found));
                    unfounded.lock().unwrap().extend(without);
                }
                None => unnoticed.lock().unwrap().push(planted),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let unnoticed = unnoticed.into_inner().unwrap();
    assert!(unnoticed.is_empty(), "{PLANTED_SEEDS} seeds do not notice {unnoticed:?}");
    let unfounded = unfounded.into_inner().unwrap();
    assert!(unfounded.is_empty(), "these fail without the mistake, too: {unfounded:#?}");
}

#[test]
fn each_proposal_is_acknowledged_however_little_history_is_kept() {
    // Others commit what a follower's slow disk does not have yet.
    for seed in 1..=6 {
        let world = World::with(seed, |options| {
            (options.history_bytes, options.disk_max) = (1, 20 * MS);
            options.hop_max = MS;
        });
        world.run();
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [3, 4] {
        let hash = |seed| World::new(seed, None).run().0;
        assert_eq!(hash(seed), hash(seed));
        assert_ne!(hash(seed), hash(seed + 100));
    }
}
