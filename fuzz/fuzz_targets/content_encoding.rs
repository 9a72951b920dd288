//! `cargo fuzz run content_encoding --features libfuzzer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| miroir_fuzz::content_encoding::check(data));
