//! Ensembles under faults, from seeds: what was promised holds, and all becomes well again.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tests::sim::ensemble::{Planted, World};

/// How many seeds a test run tries.
const SEEDS: u64 = 40;

/// Runs seeds from that of the environment on; names the one that fails.
fn for_seeds(run: impl Fn(u64)) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("SEED");
    let count = number("SEEDS").unwrap_or(if first.is_some() { 1 } else { SEEDS });
    let first = first.unwrap_or(1);
    for seed in first..first + count {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!("replay: SEED={seed} cargo test -p ringkeeper-tests --test simulation");
            resume_unwind(panic);
        }
    }
}

#[test]
fn promises_hold_through_faults_and_all_becomes_well_again() {
    for_seeds(|seed| {
        let (_, stats) = World::new(seed, None).run();
        println!("{seed}: {stats:?}");
    });
}

/// Whether a mistake of the drivers is noticed within so many seeds.
fn is_found(planted: Planted, seeds: u64) -> bool {
    let run = |seed| World::new(seed, Some(planted)).run();
    (1..=seeds).any(|seed| catch_unwind(AssertUnwindSafe(|| run(seed))).is_err())
}

#[test]
fn mistakes_of_the_drivers_are_found() {
    for planted in [Planted::AckBeforeDurable, Planted::TruncateTooShort] {
        assert!(is_found(planted, SEEDS), "{planted:?} goes unnoticed");
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
