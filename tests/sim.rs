//! Simulated surroundings: what a machine meets outside, driven by a seed.

pub mod cores;
pub mod disk;
pub mod ensemble;
pub mod log;
pub mod members;
pub mod random;
pub mod script;
pub mod shared;
pub mod sparse;
