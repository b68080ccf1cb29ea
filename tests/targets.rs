//! What the fuzzer calls, one function for each kind of bytes from outside. Any bytes may come in.
//!
//! A target fails by a panic. `tests/fuzz` runs them under a coverage-guided fuzzer, and the test
//! `corpus` runs them on all inputs that were kept, so that what was once found stays found.

mod clients;
mod ensemble;
mod input;
mod log;
mod member;
mod peers;
mod records;
mod snapshot;
mod zookeeper;

use std::path::Path;

use server::config::Config;
use server::config::settings::Settings;

/// A target: its name, which is that of its folder of inputs, and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: [Target; 16] = [
    ("clients", clients::requests),
    ("config", config),
    ("connect", clients::connect),
    ("election", ensemble::election),
    ("following", ensemble::following),
    ("jute", records::jute),
    ("leading", ensemble::leading),
    ("log", log::scan),
    ("multi", records::multi),
    ("packets", peers::packets),
    ("slots", log::slots),
    ("snapshot", snapshot::read),
    ("txns", records::txns),
    ("votes", peers::votes),
    ("zookeeper_log", zookeeper::log),
    ("zookeeper_snapshot", zookeeper::snapshot),
];

/// Runs a target on an input.
///
/// # Panics
/// If there is no such target, or if it fails.
pub fn run(name: &str, input: &[u8]) {
    let target = ALL.iter().find(|(known, _)| *known == name);
    target.expect("a target of this name").1(input);
}

/// A configuration file, as a server reads it that is given nothing else.
fn config(input: &[u8]) {
    let mut settings = Settings::default();
    if settings.add_file(Path::new("zoo.cfg"), input).is_err() {
        return;
    }
    if let Err(error) = Config::of(&settings, false, Vec::new(), |_| Ok(None)) {
        assert!(!error.to_string().is_empty());
    }
}
