//! Chance that repeats: the same seed, rule and call always give the same draws.
//!
//! Nothing is remembered between calls, so neither threads nor other rules change what a rule does
//! at its thousandth call.

/// Draws for one rule at one call.
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    /// The draws of this rule (`salt` is its number in the script) at its function's call of this
    /// number.
    pub(crate) fn new(seed: u64, salt: u64, number: u64) -> Self {
        // Each part is mixed before the next comes in: neighbours must not draw alike.
        Self(mix(mix(mix(seed) ^ salt) ^ number))
    }

    /// Any 64 bits.
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number from 0 up to `end`, which it does not reach; 0 where `end` is 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        let product = u128::from(self.draw()) * u128::from(end);
        u64::try_from(product >> 64).expect("a product of two 64-bit numbers has 128 bits")
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014).
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_repeat_and_differ_by_seed_rule_and_call() {
        let first = |seed, salt, number| Chance::new(seed, salt, number).draw();
        assert_eq!(first(1, 2, 3), first(1, 2, 3));
        let draws =
            [first(1, 2, 3), first(0, 2, 3), first(1, 0, 3), first(1, 2, 4), first(2, 1, 3)];
        for (index, draw) in draws.iter().enumerate() {
            assert!(!draws[..index].contains(draw), "{draws:x?}");
        }
    }

    #[test]
    fn numbers_below_an_end_reach_all_of_them_and_no_more() {
        let mut chance = Chance::new(0, 0, 0);
        let mut seen = [0; 5];
        for _ in 0..1000 {
            seen[usize::try_from(chance.below(5)).expect("it is below five")] += 1;
        }
        assert!(seen.iter().all(|times| (120..280).contains(times)), "{seen:?}");
        assert_eq!(chance.below(0), 0);
    }
}
