//! Pseudo-random numbers from a seed (SplitMix64), the same on every machine.

/// A random number generator.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.draw() % end as u64) as usize
    }

    /// Lets a random time pass, less than so many milliseconds: crashes come at any moment, and clients think.
    pub fn pause(&mut self, milliseconds: u64) {
        crate::pass(std::time::Duration::from_millis(self.draw() % milliseconds));
    }

    /// `true` once in this many times, on average.
    pub fn one_in(&mut self, chance: usize) -> bool {
        self.below(chance) == 0
    }

    /// One of these values.
    pub fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// One to `at_most` of these values, possibly with duplicates.
    pub fn some<T: Clone>(&mut self, choices: &[T], at_most: usize) -> Vec<T> {
        (0..1 + self.below(at_most)).map(|_| self.of(choices).clone()).collect()
    }
}
