//! `cargo +nightly fuzz run --features libfuzzer range`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| countem_fuzz::range(data));
