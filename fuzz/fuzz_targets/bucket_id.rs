//! `cargo +nightly fuzz run --features libfuzzer bucket_id`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| countem_fuzz::bucket_id(data));
