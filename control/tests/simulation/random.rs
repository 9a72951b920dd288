//! The seeded source of everything that is random in a history.

use miroir_control::base::random::Random;
use std::sync::Mutex;

/// Random numbers that follow from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Numbers of their own for this seed and this purpose.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mixed = purpose.bytes().fold(seed ^ 0x9e37_79b9_7f4a_7c15, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut rng = Self(mixed);
        rng.next();
        rng
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number from `low` to `high`, without the latter.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low).max(1)
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.next().is_multiple_of(times)
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.next() % of.len() as u64).unwrap()]
    }
}

/// The control plane's source. A restart goes on where the one before has ended.
#[derive(Debug)]
pub struct SeededRandom(Mutex<Rng>);

impl SeededRandom {
    /// A source for this seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(Rng::new(seed, "control plane")))
    }
}

impl Random for SeededRandom {
    fn bytes(&self) -> [u8; 16] {
        let mut rng = self.0.lock().unwrap();
        let (high, low) = (rng.next(), rng.next());
        ((u128::from(high) << 64) | u128::from(low)).to_be_bytes()
    }
}
