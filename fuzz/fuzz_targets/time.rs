//! `cargo +nightly fuzz run --features libfuzzer time`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| countem_fuzz::time(data));
