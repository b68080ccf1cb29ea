//! Runs the fuzzer's targets on the inputs that were kept in `tests/fuzz/corpus`: those that reach
//! what others do not, and those that once made a target fail.

use std::fs;
use std::path::{Path, PathBuf};

use tests::sim::random::Random;
use tests::targets::ALL;

/// So many variants of each input are tried, the same ones each time.
const VARIANTS: u64 = 20;

fn inputs(name: &str) -> Vec<PathBuf> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut inputs: Vec<_> = fs::read_dir(corpus.join(name))
        .unwrap_or_else(|error| panic!("{name} has no inputs: {error}"))
        .map(|entry| entry.unwrap().path())
        .collect();
    inputs.sort();
    inputs
}

#[test]
fn no_input_that_was_kept_makes_its_target_fail() {
    for (name, target) in ALL {
        target(&[]);
        let inputs = inputs(name);
        assert!(inputs.len() >= 5, "{name} has only {} inputs", inputs.len());
        for path in inputs {
            println!("{}", path.display());
            target(&fs::read(&path).unwrap());
        }
    }
}

#[test]
fn no_variant_of_an_input_makes_its_target_fail() {
    for (name, target) in ALL {
        let inputs = inputs(name);
        for (number, path) in inputs.iter().enumerate() {
            let other = fs::read(&inputs[(number + 1) % inputs.len()]).unwrap();
            for seed in 0..VARIANTS {
                println!("{}, variant {seed}", path.display());
                let mut input = fs::read(path).unwrap();
                vary(&mut Random::new(seed), &mut input, &other);
                target(&input);
            }
        }
    }
}

/// Changes an input in some places: bits, numbers at the ends of their ranges, lengths; or goes on
/// with another input.
fn vary(random: &mut Random, input: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        match random.below(6) {
            0 => input.truncate(at),
            1 => drop(input.splice(at.., other[random.below(other.len() + 1)..].iter().copied())),
            2 => input.insert(at, random.any() as u8),
            3 => drop(input.drain(at..(at + random.below(9)).min(input.len()))),
            4 => {
                let ends = [0, 1, -1, i32::MAX, i32::MIN, 0x0100_0000];
                let number = ends[random.below(ends.len())].to_be_bytes();
                input[at..].iter_mut().zip(number).for_each(|(byte, new)| *byte = new);
            }
            _ => input[at..].iter_mut().take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
        }
    }
}

/// Each target has a binary for the fuzzer, and each folder of inputs a target.
#[test]
fn targets_binaries_and_folders_belong_together() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let names = |folder: &str, end: &str| {
        let entries = fs::read_dir(fuzz.join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.map(|name| name.trim_end_matches(end).to_owned()).collect();
        names.sort();
        names
    };
    let targets: Vec<_> = ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("fuzz_targets", ".rs"), targets);
    assert_eq!(names("corpus", ""), targets);
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for target in targets {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
    }
}
