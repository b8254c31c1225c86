//! `cargo +nightly fuzz run --features libfuzzer line`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| countem_fuzz::line(data));
