//! `cargo +nightly fuzz run --features libfuzzer name`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| countem_fuzz::name(data));
