//! Simulated surroundings: what a machine meets outside, driven by a seed.

pub mod cores;
pub mod disk;
pub mod random;
