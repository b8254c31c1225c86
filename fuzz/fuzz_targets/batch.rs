//! `cargo +nightly fuzz run --features libfuzzer batch`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| countem_fuzz::batch(data));
