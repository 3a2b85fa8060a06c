//! One random stream per SIMD lane.

use super::box_muller::box_muller;
use super::{StreamPosition, key};
use crate::real::Real;
use crate::simd::{Lanes, Simd};
use std::marker::PhantomData;

/// Vectors of standard normals made at a time.
const BUFFERED: usize = 16;

/// A stream of standard normal numbers in each lane of a vector, such as one per replica of a simulation.
///
/// Lane ℓ gives, bit by bit and on every tier, the numbers that [`Stream::fill_standard_normal`](super::Stream) gives for
/// its (seed, domain, index): they depend neither on the lane nor on which streams share the vector. Made and used inside
/// a [`Kernel`](crate::simd::Kernel); kept between kernels by [`LaneStreams::positions`].
#[derive(Clone, Debug)]
pub struct LaneStreams<S: Simd, T: Real = f32> {
    /// Where each lane's buffered block begins; missing lanes repeat the first.
    positions: [StreamPosition; 16],
    /// ChaCha key, by word and lane of the 32-bit vector.
    key: [[u32; 16]; 8],
    /// `BUFFERED` vectors.
    buffer: [T; 16 * BUFFERED],
    /// Next vector of the buffer.
    next: usize,
    lanes: usize,
    tier: PhantomData<S>,
}

impl<S: Simd, T: Real> LaneStreams<S, T> {
    /// Number of lanes.
    pub const WIDTH: usize = <T::Lanes<S> as Lanes>::WIDTH;
    /// 32-bit words of a stream that one number takes.
    pub const WORDS_PER_NORMAL: u64 = if T::MANTISSA_BITS == 23 { 1 } else { 2 };
    /// 32-bit words of a stream that one filling of the buffer takes.
    const WORDS_PER_BUFFER: u64 = Self::WORDS_PER_NORMAL * BUFFERED as u64;

    /// Lanes continued from these positions, in order; further lanes repeat the first stream.
    ///
    /// # Panics
    /// Without a position, with more than [`LaneStreams::WIDTH`], or when the positions' words differ modulo 16 (`f32`)
    /// or 32 (`f64`): the lanes step together.
    #[inline(always)]
    pub fn new(positions: &[StreamPosition]) -> Self {
        let lanes = positions.len();
        assert!(
            lanes >= 1 && lanes <= Self::WIDTH,
            "{lanes} streams for a vector of {} lanes",
            Self::WIDTH
        );
        let phase = positions[0].word % Self::WORDS_PER_BUFFER;
        assert!(
            positions
                .iter()
                .all(|position| position.word % Self::WORDS_PER_BUFFER == phase)
                && phase.is_multiple_of(Self::WORDS_PER_NORMAL),
            "the streams of a vector must have drawn the same number of words modulo {}",
            Self::WORDS_PER_BUFFER
        );
        let mut starts = [positions[0]; 16];
        starts[..lanes].copy_from_slice(positions);
        for start in &mut starts {
            start.word -= phase;
        }
        let mut keys = [[0; 16]; 8];
        for lane in 0..S::F32::WIDTH {
            let StreamPosition { seed, domain, .. } = starts[lane % Self::WIDTH];
            for (word, bytes) in key(seed, domain).chunks_exact(4).enumerate() {
                keys[word][lane] = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
        }
        let mut streams = Self {
            positions: starts,
            key: keys,
            buffer: [T::zero(); 16 * BUFFERED],
            next: (phase / Self::WORDS_PER_NORMAL) as usize,
            lanes,
            tier: PhantomData,
        };
        streams.fill();
        streams
    }

    /// The positions of the streams given to [`LaneStreams::new`], to continue from.
    pub fn positions(&self) -> Vec<StreamPosition> {
        let drawn = self.next as u64 * Self::WORDS_PER_NORMAL;
        let advance = |start: &StreamPosition| StreamPosition {
            word: start.word + drawn,
            ..*start
        };
        self.positions[..self.lanes].iter().map(advance).collect()
    }

    /// The next standard normal number of every lane.
    #[inline(always)]
    pub fn next_normals(&mut self) -> T::Lanes<S> {
        if self.next == BUFFERED {
            for position in &mut self.positions {
                position.word += Self::WORDS_PER_BUFFER;
            }
            self.next = 0;
            self.fill();
        }
        let normals = T::Lanes::<S>::load(&self.buffer[self.next * Self::WIDTH..]);
        self.next += 1;
        normals
    }

    /// Makes the buffer's normals from its words.
    #[inline(always)]
    fn fill(&mut self) {
        let words = self.words();
        if T::MANTISSA_BITS == 23 {
            let buffer: &mut [f32] = bytemuck::cast_slice_mut(&mut self.buffer);
            for pair in 0..BUFFERED / 2 {
                let (cosine, sine) = box_muller(words[2 * pair], words[2 * pair + 1]);
                cosine.store(&mut buffer[2 * pair * Self::WIDTH..]);
                sine.store(&mut buffer[(2 * pair + 1) * Self::WIDTH..]);
            }
        } else {
            // Lane ℓ's first block is in lane ℓ of the 32-bit vectors, its second in lane ℓ + WIDTH.
            let mut halves = [[0f32; 16]; 16];
            for (vector, target) in words.iter().zip(&mut halves) {
                vector.store(target);
            }
            let number = |index: usize, lane: usize| {
                let (block, word) = (index / 8, 2 * (index % 8));
                let lane = lane + block * Self::WIDTH;
                let low = u64::from(halves[word][lane].to_bits());
                f64::from_bits(low | u64::from(halves[word + 1][lane].to_bits()) << 32)
            };
            let buffer: &mut [f64] = bytemuck::cast_slice_mut(&mut self.buffer);
            for pair in 0..BUFFERED / 2 {
                let first = S::F64::from_fn(|lane| number(2 * pair, lane));
                let second = S::F64::from_fn(|lane| number(2 * pair + 1, lane));
                let (cosine, sine) = box_muller(first, second);
                cosine.store(&mut buffer[2 * pair * Self::WIDTH..]);
                sine.store(&mut buffer[(2 * pair + 1) * Self::WIDTH..]);
            }
        }
    }

    /// One ChaCha8 block in every 32-bit lane: 16 words, as bits.
    #[inline(always)]
    fn words(&self) -> [S::F32; 16] {
        let bits = |function: &dyn Fn(usize) -> u32| {
            S::F32::from_fn(|lane| f32::from_bits(function(lane)))
        };
        let block = |lane: usize| {
            self.positions[lane % Self::WIDTH].word / 16 + (lane / Self::WIDTH) as u64
        };
        let index = |lane: usize| self.positions[lane % Self::WIDTH].index;
        let mut start = [S::F32::zero(); 16];
        for (word, constant) in [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]
            .into_iter()
            .enumerate()
        {
            start[word] = S::F32::splat_bits(constant);
        }
        for word in 0..8 {
            start[4 + word] = bits(&|lane| self.key[word][lane]);
        }
        start[12] = bits(&|lane| block(lane) as u32);
        start[13] = bits(&|lane| (block(lane) >> 32) as u32);
        start[14] = bits(&|lane| index(lane) as u32);
        start[15] = bits(&|lane| (index(lane) >> 32) as u32);
        let mut state = start;
        for _ in 0..4 {
            quarter_round(&mut state, 0, 4, 8, 12);
            quarter_round(&mut state, 1, 5, 9, 13);
            quarter_round(&mut state, 2, 6, 10, 14);
            quarter_round(&mut state, 3, 7, 11, 15);
            quarter_round(&mut state, 0, 5, 10, 15);
            quarter_round(&mut state, 1, 6, 11, 12);
            quarter_round(&mut state, 2, 7, 8, 13);
            quarter_round(&mut state, 3, 4, 9, 14);
        }
        for (word, start) in state.iter_mut().zip(start) {
            *word = word.integer_add(start);
        }
        state
    }
}

#[inline(always)]
fn quarter_round<L: Lanes>(state: &mut [L; 16], a: usize, b: usize, c: usize, d: usize) {
    state[a] = state[a].integer_add(state[b]);
    state[d] = state[d].bit_xor(state[a]).rotate_left::<16, 16>();
    state[c] = state[c].integer_add(state[d]);
    state[b] = state[b].bit_xor(state[c]).rotate_left::<12, 20>();
    state[a] = state[a].integer_add(state[b]);
    state[d] = state[d].bit_xor(state[a]).rotate_left::<8, 24>();
    state[c] = state[c].integer_add(state[d]);
    state[b] = state[b].bit_xor(state[c]).rotate_left::<7, 25>();
}
