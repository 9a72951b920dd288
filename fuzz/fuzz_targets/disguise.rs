//! `cargo fuzz run disguise --features libfuzzer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| miroir_fuzz::disguise::check(data));
