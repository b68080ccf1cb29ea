//! What the test binaries and the fuzzer share.

pub mod sim;
pub mod targets;
