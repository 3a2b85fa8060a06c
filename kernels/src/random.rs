//! Counter-based random numbers.
//!
//! A [`Stream`] is the ChaCha8 key stream of (seed, domain) at nonce `index`: any of its words can be reached directly, so
//! a state is four numbers, [`StreamPosition`], and the numbers of sample i do not depend on which thread draws them.

mod box_muller;
pub mod domain;
mod lanes;

pub use lanes::LaneStreams;

use crate::real::Real;
use crate::simd::dispatch;
use box_muller::BoxMuller;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{SeedableRng, TryRng};
use std::convert::Infallible;

/// Where a [`Stream`] stands; enough to continue it bit by bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamPosition {
    /// The run's seed.
    pub seed: u64,
    /// What the numbers are for (one constant per use, so that uses never share numbers: [`domain`]).
    pub domain: u64,
    /// Sample, replica or chain.
    pub index: u64,
    /// 32-bit words drawn so far.
    pub word: u64,
}

/// The ChaCha key of (seed, domain): both little-endian, then 16 constant bytes.
fn key(seed: u64, domain: u64) -> [u8; 32] {
    let mut key = *b"................boltzmap stream1";
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&domain.to_le_bytes());
    key
}

/// A stream of random numbers. Different (seed, domain, index) give independent streams of 2⁶⁸ words.
#[derive(Clone, Debug)]
pub struct Stream {
    generator: ChaCha8Rng,
    position: StreamPosition,
}

impl Stream {
    /// The beginning of a stream.
    pub fn new(seed: u64, domain: u64, index: u64) -> Self {
        Self::at(StreamPosition {
            seed,
            domain,
            index,
            word: 0,
        })
    }

    /// A stream continued from a saved position.
    pub fn at(position: StreamPosition) -> Self {
        let mut generator = ChaCha8Rng::from_seed(key(position.seed, position.domain));
        generator.set_stream(position.index);
        generator.set_word_pos(u128::from(position.word));
        Self {
            generator,
            position,
        }
    }

    /// The current position.
    pub fn position(&self) -> StreamPosition {
        StreamPosition {
            word: self.generator.get_word_pos() as u64,
            ..self.position
        }
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        let Ok(word) = self.generator.try_next_u32();
        word
    }

    /// The next 64 bits, low word first.
    pub fn next_u64(&mut self) -> u64 {
        let low = u64::from(self.next_u32());
        low | u64::from(self.next_u32()) << 32
    }

    /// Uniform in [0, 1): a multiple of 2⁻⁵³ from 64 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in 0..bound without bias (Lemire's multiplication with rejection).
    ///
    /// # Panics
    /// When `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below 0");
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(bound);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// One standard normal number (the cosine half of a Box–Muller pair, from 128 bits).
    pub fn standard_normal(&mut self) -> f64 {
        let mut pair = [0.0; 2];
        self.fill_standard_normal(&mut pair);
        pair[0]
    }

    /// Standard normal numbers, by Box–Muller pairs (2i, 2i+1); an odd length discards half a pair.
    /// The same bits on every tier.
    ///
    /// `f32` takes one 32-bit word per number, `f64` one 64-bit word.
    pub fn fill_standard_normal<T: Real>(&mut self, target: &mut [T]) {
        const PAIRS: usize = 32;
        let (mut first, mut second) = ([T::zero(); PAIRS], [T::zero(); PAIRS]);
        for target in target.chunks_mut(2 * PAIRS) {
            let pairs = target.len().div_ceil(2);
            for (first, second) in first.iter_mut().zip(&mut second).take(pairs) {
                *first = self.word_bits();
                *second = self.word_bits();
            }
            dispatch(BoxMuller {
                first: &mut first[..pairs],
                second: &mut second[..pairs],
            });
            for ((pair, &cosine), &sine) in target.chunks_mut(2).zip(&first).zip(&second) {
                pair[0] = cosine;
                if let Some(other) = pair.get_mut(1) {
                    *other = sine;
                }
            }
        }
    }

    /// A random word of T's size, as the bits of a T.
    fn word_bits<T: Real>(&mut self) -> T {
        if T::MANTISSA_BITS == 23 {
            bytemuck::cast(self.next_u32())
        } else {
            bytemuck::cast(self.next_u64())
        }
    }
}

impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.next_u64())
    }

    fn try_fill_bytes(&mut self, target: &mut [u8]) -> Result<(), Infallible> {
        self.generator.try_fill_bytes(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_position_continues_the_stream() {
        let mut stream = Stream::new(7, 3, 11);
        for _ in 0..37 {
            stream.next_u32();
        }
        let mut copy = Stream::at(stream.position());
        assert_eq!(stream.position().word, 37);
        for _ in 0..100 {
            assert_eq!(stream.next_u64(), copy.next_u64());
        }
    }

    #[test]
    fn streams_differ_in_every_coordinate() {
        let first = Stream::new(1, 2, 3).next_u64();
        assert_ne!(first, Stream::new(2, 2, 3).next_u64());
        assert_ne!(first, Stream::new(1, 3, 3).next_u64());
        assert_ne!(first, Stream::new(1, 2, 4).next_u64());
        assert_eq!(first, Stream::new(1, 2, 3).next_u64());
    }

    #[test]
    fn normals_have_the_moments_of_a_standard_normal() {
        fn check<T: Real>() {
            let mut values = vec![T::zero(); 400_000];
            Stream::new(5, 0, 0).fill_standard_normal(&mut values);
            let count = values.len() as f64;
            let moment =
                |power: i32| values.iter().map(|v| v.as_f64().powi(power)).sum::<f64>() / count;
            // Standard errors: 1/√n times 1, √2, √15, √96.
            let standard_error = 1.0 / count.sqrt();
            assert!(moment(1).abs() < 4.0 * standard_error);
            assert!((moment(2) - 1.0).abs() < 4.0 * 2f64.sqrt() * standard_error);
            assert!(moment(3).abs() < 4.0 * 15f64.sqrt() * standard_error);
            assert!((moment(4) - 3.0).abs() < 4.0 * 96f64.sqrt() * standard_error);
        }
        check::<f32>();
        check::<f64>();
    }

    #[test]
    fn bounded_integers_stay_below_and_reach_every_value() {
        let mut stream = Stream::new(0, 0, 0);
        let mut seen = [0usize; 7];
        for _ in 0..7000 {
            seen[stream.below(7) as usize] += 1;
        }
        assert!(
            seen.iter().all(|&count| (850..1150).contains(&count)),
            "{seen:?}"
        );
    }
}
