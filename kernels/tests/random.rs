//! Normals of lanes and streams: the same bits everywhere, and right.

use boltzmap_kernels::random::{LaneStreams, Stream, StreamPosition};
use boltzmap_kernels::{Kernel, Lanes, Real, Simd, Tier, dispatch_on};

/// `count` normals of each stream, stream after stream, drawn in vectors, saving and restoring after `interrupt`.
struct Draw<'a, T> {
    positions: &'a [StreamPosition],
    count: usize,
    interrupt: usize,
    out: &'a mut [T],
}

impl<T: Real> Kernel for Draw<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let width = T::Lanes::<S>::WIDTH;
        for (positions, out) in self
            .positions
            .chunks(width)
            .zip(self.out.chunks_mut(width * self.count))
        {
            let mut streams = LaneStreams::<S, T>::new(positions);
            for i in 0..self.count {
                if i == self.interrupt {
                    streams = LaneStreams::new(&streams.positions());
                }
                let normals = streams.next_normals();
                for lane in 0..positions.len() {
                    out[lane * self.count + i] = normals.extract(lane);
                }
            }
        }
    }
}

fn lanes_equal_streams<T: Real>() {
    let count = 75;
    // More streams than lanes, not a multiple; counters about to carry into their upper word; another phase.
    for word in [0, 32 * 5, 16 * ((1 << 32) - 2), 8] {
        let position = |i: u64| StreamPosition {
            seed: 3 + i % 2,
            domain: 1 << 40,
            index: i << 30,
            word: word + 64 * i,
        };
        let positions: Vec<_> = (0..21).map(position).collect();
        let mut expected = vec![T::zero(); positions.len() * count];
        for (&position, out) in positions.iter().zip(expected.chunks_mut(count)) {
            Stream::at(position).fill_standard_normal(out);
        }
        for tier in Tier::available() {
            for interrupt in [0, 1, 16, 37, count] {
                let mut out = vec![T::nan(); expected.len()];
                dispatch_on(
                    tier,
                    Draw {
                        positions: &positions,
                        count,
                        interrupt,
                        out: &mut out,
                    },
                );
                assert!(
                    out == expected,
                    "{} {} from word {word}",
                    T::NAME,
                    tier.name()
                );
            }
        }
    }
}

#[test]
fn lanes_give_the_bits_of_their_streams() {
    lanes_equal_streams::<f32>();
    lanes_equal_streams::<f64>();
}

#[test]
fn normals_are_box_muller_pairs() {
    let mut stream = Stream::new(1, 2, 3);
    let mut words = stream.clone();
    let mut normals = vec![0f32; 20_000];
    stream.fill_standard_normal(&mut normals);
    for pair in normals.chunks_exact(2) {
        let u = (f64::from(words.next_u32()) + 0.5) / 4294967296.0;
        let angle = f64::from(words.next_u32()) / 4294967296.0 * std::f64::consts::TAU;
        let radius = (-2.0 * u.ln()).sqrt();
        // The angle is rounded to 2⁻²⁵ turns, the rest to a few units of f32; 1 − u below 2⁻²⁴ rounds.
        let tolerance = radius * 3e-7 + 6e-8 / radius;
        assert!((f64::from(pair[0]) - radius * angle.cos()).abs() < tolerance);
        assert!((f64::from(pair[1]) - radius * angle.sin()).abs() < tolerance);
    }
    let mut stream = Stream::new(1, 2, 3);
    let mut words = stream.clone();
    let mut normals = vec![0f64; 20_000];
    stream.fill_standard_normal(&mut normals);
    for pair in normals.chunks_exact(2) {
        let u = ((words.next_u64() >> 12) as f64 + 0.5) / 4503599627370496.0;
        let angle = (words.next_u64() >> 10) as f64 / 18014398509481984.0 * std::f64::consts::TAU;
        let radius = (-2.0 * u.ln()).sqrt();
        let tolerance = radius * 2e-15 + 1e-15;
        assert!((pair[0] - radius * angle.cos()).abs() < tolerance);
        assert!((pair[1] - radius * angle.sin()).abs() < tolerance);
    }
}
