//! See `tests/targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tests::targets::run("following", input));
