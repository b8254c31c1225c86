//! `cargo +nightly fuzz run --features libfuzzer config`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| countem_fuzz::config(data));
