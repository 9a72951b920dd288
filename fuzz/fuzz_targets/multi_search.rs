//! `cargo fuzz run multi_search --features libfuzzer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| miroir_fuzz::multi_search::check(data));
