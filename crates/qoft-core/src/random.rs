//! Ids and random numbers that stay the same in every release.
//!
//! Saved runs rest on both: an optimizer finds its moments by the ids of parameters, and a run that
//! goes on draws what it would have drawn. So they are written out here: ids are FNV-1a, numbers
//! are SplitMix64.

/// FNV-1a of 64 bits (Fowler, Noll, Vo) over the bytes of `parts`, each followed by the byte 255,
/// which no text has: parts do not run into each other.
pub fn stable_hash(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([255]));
    fnv1a(bytes)
}

fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A stream of random numbers: SplitMix64 (Steele, Lea, Flood 2014), whose state is a counter.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The stream of several words, each of which matters: such as a seed, a step, and the id of a
    /// parameter.
    pub fn keyed(words: &[u64]) -> Self {
        let state = words.iter().fold(0, |state, word| {
            Self::new(state ^ word).next_u64().rotate_left(32)
        });
        Self { state }
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(Self::STEP);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 on and below 1, of 53 random bits.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number from `low` on and below `high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A number from the normal distribution with mean 0 and standard deviation 1, by the formula
    /// of Box and Muller.
    pub fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.unit(), self.unit());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// One of the numbers below `count`, all equally often (Lemire 2019).
    ///
    /// # Panics
    /// If `count` is 0.
    pub fn below(&mut self, count: usize) -> usize {
        assert!(count > 0, "a number below 0");
        let count = count as u64;
        let rest = count.wrapping_neg() % count;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(count);
            if product as u64 >= rest {
                return (product >> 64) as usize;
            }
        }
    }

    /// Brings `items` into a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_fnv1a() {
        // From the authors' list of test values.
        assert_eq!(fnv1a("".bytes()), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a("a".bytes()), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a("foobar".bytes()), 0x8594_4171_f739_67e8);
        assert_ne!(stable_hash(&["a", "bc"]), stable_hash(&["ab", "c"]));
        assert_ne!(stable_hash(&["a"]), stable_hash(&["a", ""]));
    }

    #[test]
    fn numbers_are_those_of_splitmix64() {
        let mut random = Random::new(1_234_567);
        let found: Vec<u64> = (0..5).map(|_| random.next_u64()).collect();
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn each_word_of_a_key_makes_another_stream() {
        let first = |words: &[u64]| Random::keyed(words).next_u64();
        let streams = [
            first(&[1, 2, 3]),
            first(&[1, 2, 4]),
            first(&[1, 3, 3]),
            first(&[2, 2, 3]),
            first(&[2, 1, 3]),
            first(&[0, 1, 2, 3]),
        ];
        for (index, stream) in streams.iter().enumerate() {
            assert!(!streams[..index].contains(stream), "{index}");
        }
        assert_eq!(first(&[1, 2, 3]), streams[0]);
    }

    #[test]
    fn numbers_have_the_moments_of_their_distribution() {
        let mut random = Random::new(7);
        let count = 20_000;
        let mut moments = |draw: &dyn Fn(&mut Random) -> f64| {
            let values: Vec<f64> = (0..count).map(|_| draw(&mut random)).collect();
            let mean = values.iter().sum::<f64>() / f64::from(count);
            let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
            (mean, squares / f64::from(count))
        };
        let (mean, variance) = moments(&|random| random.normal());
        assert!(
            mean.abs() < 0.03 && (variance - 1.0).abs() < 0.03,
            "{mean} {variance}"
        );
        let (mean, variance) = moments(&|random| random.between(-1.0, 3.0));
        assert!((mean - 1.0).abs() < 0.03 && (variance - 16.0 / 12.0).abs() < 0.03);
        let (mean, variance) = moments(&|random| random.below(6) as f64);
        assert!((mean - 2.5).abs() < 0.03 && (variance - 35.0 / 12.0).abs() < 0.06);
    }

    #[test]
    fn a_shuffle_is_an_order_of_all_items() {
        let mut items: Vec<usize> = (0..50).collect();
        Random::new(3).shuffle(&mut items);
        let mut sorted = items.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
        assert_ne!(items, sorted);
    }
}
