//! `cargo +nightly fuzz run --features libfuzzer document`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| countem_fuzz::document(data));
