//! `cargo +nightly fuzz run --features libfuzzer row`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| countem_fuzz::row(data));
