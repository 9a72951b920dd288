//! `cargo fuzz run scrub --features libfuzzer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| miroir_fuzz::scrub::check(data));
