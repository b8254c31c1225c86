//! `cargo +nightly fuzz run --features libfuzzer labels`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| countem_fuzz::labels(data));
