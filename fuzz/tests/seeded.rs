//! Runs each target on inputs from a seed: some thousand, or as many as `FUZZ_INPUTS` says, from the seed `FUZZ_SEED`; only the
//! targets that `FUZZ_TARGET` names, if it is set.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use miroir_fuzz::{Seeded, TARGETS};
use std::{panic, time::Instant};

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |value| value.parse().unwrap())
}

#[test]
fn every_target_holds_from_a_seed() {
    let (inputs, seed) = (number("FUZZ_INPUTS", 4_000), number("FUZZ_SEED", 1));
    let only = std::env::var("FUZZ_TARGET").ok();
    for (name, check) in TARGETS.iter().filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name)) {
        let (begun, mut seeded, mut bytes) = (Instant::now(), Seeded(seed), Vec::new());
        for position in 0..inputs {
            seeded.next(&mut bytes);
            if panic::catch_unwind(|| check(&bytes)).is_err() {
                panic!("{name}: input {position} of FUZZ_SEED={seed}: {bytes:?}");
            }
        }
        println!("{name}: {inputs} inputs from seed {seed} in {:?}", begun.elapsed());
    }
}
