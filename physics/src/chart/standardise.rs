//! Affine standardisation fitted on data, and where to cut a circle.

use super::ChartError;
use super::panels::{PANEL, Panels};
use crate::batch::{load_tile, store_tile};
use crate::linear::symmetric_eigen;
use boltzmap_kernels::real::Real;
use boltzmap_kernels::simd::{Kernel, Lanes, Simd, dispatch};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Which affine map brings the coordinates to zero mean and unit variance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whitening {
    /// y_i = (q_i − mean_i)/std_i.
    Diagonal,
    /// Zero-phase whitening of the standardised coordinates: y = C^{−1/2} (q − mean)/std with C the correlation matrix.
    /// Of all whitening maps it keeps each y_i closest to its own q_i whatever the units, so tokens keep their meaning.
    #[default]
    Full,
}

/// The fitted map y = W (q − mean)/std, W = 1 or C^{−1/2}.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standardiser {
    mean: Vec<f64>,
    std: Vec<f64>,
    /// C^{−1/2} and C^{1/2}, row-major `[d, d]`
    matrices: Option<(Vec<f64>, Vec<f64>)>,
    /// ln|dq/dy|
    log_det: f64,
}

impl Standardiser {
    /// y = q in d dimensions.
    pub fn identity(d: usize) -> Self {
        Self {
            mean: vec![0.0; d],
            std: vec![1.0; d],
            matrices: None,
            log_det: 0.0,
        }
    }

    /// Fits on `data` `[n, d]`.
    ///
    /// # Errors
    /// Too few rows for the covariance, or a coordinate (or a combination of them) that does not vary.
    pub fn fit(data: &[f64], d: usize, whitening: Whitening) -> Result<Self, ChartError> {
        let n = data.len() / d;
        let needed = match whitening {
            Whitening::Diagonal => 2,
            // Fewer rows than dimensions leave the covariance singular.
            Whitening::Full => d + 1,
        };
        if n < needed {
            return Err(ChartError::TooFewFrames {
                what: "the standardisation of the internal coordinates",
                found: n,
                needed,
            });
        }
        let mut mean = vec![0.0; d];
        for row in data.chunks_exact(d) {
            mean.iter_mut().zip(row).for_each(|(m, v)| *m += v);
        }
        mean.iter_mut().for_each(|m| *m /= n as f64);
        let mut std = vec![0.0; d];
        for row in data.chunks_exact(d) {
            for i in 0..d {
                std[i] += (row[i] - mean[i]).powi(2);
            }
        }
        for (i, s) in std.iter_mut().enumerate() {
            *s = (*s / n as f64).sqrt();
            // Round-off alone leaves a spread of about 1e-16 of the value.
            if s.is_nan() || *s <= 1e-12 * (1.0 + mean[i].abs()) {
                return Err(ChartError::NoVariance(i));
            }
        }
        let mut log_det: f64 = std.iter().map(|s| s.ln()).sum();
        let matrices = match whitening {
            Whitening::Diagonal => None,
            Whitening::Full => {
                let mut correlation = vec![0.0; d * d];
                let mut z = vec![0.0; d];
                for row in data.chunks_exact(d) {
                    for i in 0..d {
                        z[i] = (row[i] - mean[i]) / std[i];
                    }
                    for i in 0..d {
                        for j in 0..=i {
                            correlation[i * d + j] += z[i] * z[j];
                        }
                    }
                }
                for i in 0..d {
                    for j in 0..=i {
                        let c = correlation[i * d + j] / n as f64;
                        correlation[i * d + j] = c;
                        correlation[j * d + i] = c;
                    }
                }
                let (values, vectors) = symmetric_eigen(correlation, d);
                if let Some(i) = values.iter().position(|&v| v.is_nan() || v <= 1e-10) {
                    return Err(ChartError::NoVariance(i));
                }
                log_det += 0.5 * values.iter().map(|v| v.ln()).sum::<f64>();
                let power = |exponent: f64| {
                    let mut m = vec![0.0; d * d];
                    for k in 0..d {
                        let scale = values[k].powf(exponent);
                        for i in 0..d {
                            for j in 0..d {
                                m[i * d + j] += vectors[i * d + k] * scale * vectors[j * d + k];
                            }
                        }
                    }
                    m
                };
                Some((power(-0.5), power(0.5)))
            }
        };
        Ok(Self {
            mean,
            std,
            matrices,
            log_det,
        })
    }

    /// ln|dq/dy|.
    pub fn log_det(&self) -> f64 {
        self.log_det
    }

    /// The fitted means, `[d]`.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The fitted standard deviations, `[d]`.
    pub fn std(&self) -> &[f64] {
        &self.std
    }

    /// C^{1/2}, row-major `[d, d]` and symmetric, where the whitening is full.
    pub(super) fn colour(&self) -> Option<&[f64]> {
        self.matrices.as_ref().map(|(_, colour)| colour.as_slice())
    }

    /// Coordinate `i` of q alone, from y.
    pub(super) fn coordinate<T: Real>(&self, y: &[T], i: usize) -> f64 {
        let d = self.mean.len();
        let coloured = match self.colour() {
            None => y[i].as_f64(),
            Some(colour) => {
                let row = &colour[i * d..(i + 1) * d];
                row.iter().zip(y).map(|(c, y)| c * y.as_f64()).sum()
            }
        };
        self.mean[i] + self.std[i] * coloured
    }

    /// q to y.
    pub fn apply(&self, q: &[f64], y: &mut [f64]) {
        let d = self.mean.len();
        let z = |i: usize| (q[i] - self.mean[i]) / self.std[i];
        match &self.matrices {
            None => (0..d).for_each(|i| y[i] = z(i)),
            Some((whiten, _)) => {
                y.fill(0.0);
                for j in 0..d {
                    let zj = z(j);
                    // The matrix is symmetric: its row j is its column j.
                    y.iter_mut()
                        .zip(&whiten[j * d..(j + 1) * d])
                        .for_each(|(out, w)| *out += w * zj);
                }
            }
        }
    }

    /// y to q.
    pub fn invert(&self, y: &[f64], q: &mut [f64]) {
        let d = self.mean.len();
        match &self.matrices {
            None => q.copy_from_slice(y),
            Some((_, colour)) => {
                q.fill(0.0);
                for j in 0..d {
                    q.iter_mut()
                        .zip(&colour[j * d..(j + 1) * d])
                        .for_each(|(out, w)| *out += w * y[j]);
                }
            }
        }
        self.scale_and_shift(q);
    }

    /// [`Self::invert`] of many states `[n, d]`, to the same bits.
    pub(super) fn invert_all(&self, y: &[f64], q: &mut [f64]) {
        let d = self.mean.len();
        match &self.matrices {
            // Laying the matrix out takes about as long as multiplying it with a state.
            Some((_, colour)) if y.len() > FEW * d => {
                let panels = Panels::new(d, |i, j| colour[j * d + i]);
                y.par_chunks(CHUNK * d)
                    .zip(q.par_chunks_mut(CHUNK * d))
                    .for_each(|(y, q)| {
                        let panels = &panels;
                        dispatch(ColourChunk { d, panels, y, q });
                        q.chunks_exact_mut(d).for_each(|q| self.scale_and_shift(q));
                    });
            }
            _ => y
                .par_chunks_exact(d)
                .zip(q.par_chunks_exact_mut(d))
                .for_each(|(y, q)| self.invert(y, q)),
        }
    }

    /// mean + std q
    fn scale_and_shift(&self, q: &mut [f64]) {
        for ((q, mean), std) in q.iter_mut().zip(&self.mean).zip(&self.std) {
            *q = mean + std * *q;
        }
    }
}

/// States one task works on, a multiple of every number of lanes.
const CHUNK: usize = 32;
/// States up to which [`Standardiser::invert_all`] takes them one at a time.
const FEW: usize = 4;

/// C^{1/2} y of one task's states `[n, d]`, tile by tile.
struct ColourChunk<'a> {
    d: usize,
    panels: &'a Panels<f64>,
    y: &'a [f64],
    q: &'a mut [f64],
}

impl Kernel for ColourChunk<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self { d, panels, y, q } = self;
        let rows = S::F64::WIDTH * d;
        let mut state = vec![S::F64::zero(); d];
        let mut coloured = vec![S::F64::zero(); d.next_multiple_of(PANEL)];
        for (y, q) in y.chunks(rows).zip(q.chunks_mut(rows)) {
            load_tile(y, &mut state);
            // Unfused, as one state at a time is multiplied without the instruction set's multiply-add.
            panels.multiply::<_, false>(&state, &mut coloured);
            store_tile(&coloured[..d], q);
        }
    }
}

/// Where on a circle of circumference `period` the `values` leave the most room: the place of a cut, in [0, period).
///
/// The values are counted in 720 bins and smoothed with a triangular window of ±2.5 % of the circle; the cut lies in the middle of the longest run
/// of the least count.
pub fn emptiest_cut(values: impl Iterator<Item = f64>, period: f64) -> f64 {
    const BINS: usize = 720;
    const REACH: usize = 18;
    let mut counts = vec![0u64; BINS];
    for value in values {
        let phase = (value / period).rem_euclid(1.0);
        counts[((phase * BINS as f64) as usize).min(BINS - 1)] += 1;
    }
    let smooth: Vec<u64> = (0..BINS)
        .map(|i| {
            (0..=2 * REACH)
                .map(|k| {
                    let weight = (REACH + 1 - k.abs_diff(REACH)) as u64;
                    weight * counts[(i + BINS + k - REACH) % BINS]
                })
                .sum()
        })
        .collect();
    let least = smooth.iter().copied().min().unwrap_or(0);
    // Start the scan at a bin outside any run of the minimum so that no run is split by the origin.
    let origin = smooth.iter().position(|&s| s != least).unwrap_or(0);
    let (mut best, mut best_start, mut run) = (0, 0, 0);
    for step in 0..BINS {
        if smooth[(origin + step) % BINS] == least {
            run += 1;
            if run > best {
                best = run;
                best_start = step + 1 - run;
            }
        } else {
            run = 0;
        }
    }
    let middle = (origin + best_start) as f64 + 0.5 * best as f64;
    (middle / BINS as f64).rem_euclid(1.0) * period
}

/// How far from a cut the `values` on a circle of circumference `period` stay about as sparse as at the cut: the largest of twelve
/// equally spaced lengths up to `largest` in whose outer quarter, on both sides together, they are at most twice as dense as in the
/// inner one; 0 if there is none.
pub fn flat_reach(values: &[f64], cut: f64, period: f64, largest: f64) -> f64 {
    const LENGTHS: u32 = 12;
    let mut distances: Vec<f64> = values
        .iter()
        .map(|value| {
            let beyond = (value - cut).rem_euclid(period);
            beyond.min(period - beyond)
        })
        .collect();
    distances.sort_by(f64::total_cmp);
    let within = |reach: f64| distances.partition_point(|&distance| distance < reach);
    (1..=LENGTHS)
        .rev()
        .map(|k| largest * f64::from(k) / f64::from(LENGTHS))
        .find(|&reach| within(reach) - within(0.75 * reach) <= 2 * within(0.25 * reach))
        .unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    #[test]
    fn cut_lands_in_the_widest_gap() {
        // Points in [1, 2] and [4, 4.5]: the widest gap is from 4.5 round to 1 (2.78 rad), its middle at 5.89.
        let values = (0..1000).map(|i| {
            let u = f64::from(i) / 1000.0;
            if i % 2 == 0 { 1.0 + u } else { 4.0 + 0.5 * u }
        });
        let cut = emptiest_cut(values, TAU);
        assert!((cut - 5.89).abs() < 0.03, "{cut}");
    }

    #[test]
    fn a_reach_ends_where_the_data_become_dense() {
        let n = 400_000;
        let at = |density: &dyn Fn(f64) -> f64| -> Vec<f64> {
            // Quantiles of a density on [−π/3, π/3] around a cut at 0.2.
            let side = |i: usize| TAU / 3.0 * ((i as f64 + 0.5) / n as f64 - 0.5);
            let total: f64 = (0..n).map(|i| density(side(i))).sum();
            let mut sum = 0.0;
            (0..n)
                .flat_map(|i| {
                    let before = (sum * n as f64 / total) as usize;
                    sum += density(side(i));
                    let count = (sum * n as f64 / total) as usize - before;
                    vec![0.2 + side(i) + TAU; count]
                })
                .collect()
        };
        let reach = |values: &[f64]| flat_reach(values, 0.2, TAU / 3.0, 0.6);
        assert_eq!(reach(&at(&|_| 1.0)), 0.6);
        assert_eq!(reach(&at(&|x| 3.0 - (3.0 * x).cos())), 0.6);
        // In the outer quarters up to 0.2 and 0.25 it is 1.6 and 2.5 times as dense as in the inner ones.
        let steep = reach(&at(&|x: f64| 1.0 + (x / 0.2).powi(4)));
        assert!((steep - 0.2).abs() < 1e-12, "{steep}");
        // Nobody near the cut: as far as the empty part goes.
        let gap = reach(&at(&|x: f64| f64::from(u8::from(x.abs() > 0.42))));
        assert!((gap - 0.4).abs() < 1e-12, "{gap}");
        assert_eq!(flat_reach(&[], 0.0, TAU, 0.0), 0.0);
    }

    #[test]
    fn whitened_data_have_the_identity_covariance() {
        let d = 3;
        let data: Vec<f64> = (0..200)
            .flat_map(|i| {
                let (a, b, c) = (
                    (i as f64 * 1.7).sin(),
                    (i as f64 * 0.9).cos(),
                    (i as f64 * 2.3).sin(),
                );
                [0.001 * a + 1.0, 30.0 * (a + 0.3 * b), c - 0.5 * b]
            })
            .collect();
        let fitted = Standardiser::fit(&data, d, Whitening::Full).unwrap();
        let mut y = vec![0.0; data.len()];
        let mut back = vec![0.0; d];
        for (q, y) in data.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
            fitted.apply(q, y);
            fitted.invert(y, &mut back);
            for i in 0..d {
                assert!((back[i] - q[i]).abs() < 1e-12 * (1.0 + q[i].abs()));
            }
        }
        // 45: one whole task and one of a full tile and a partial one.
        for n in [0, 1, 45] {
            let mut all = vec![0.0; n * d];
            fitted.invert_all(&y[..n * d], &mut all);
            for (q, y) in all.chunks_exact(d).zip(y.chunks_exact(d)) {
                fitted.invert(y, &mut back);
                assert_eq!(q, back, "the same bits one by one and together");
            }
        }
        for i in 0..d {
            for j in 0..d {
                let c: f64 = y.chunks_exact(d).map(|r| r[i] * r[j]).sum::<f64>() / 200.0;
                assert!(
                    (c - f64::from(u8::from(i == j))).abs() < 1e-11,
                    "{i} {j} {c}"
                );
            }
        }
        assert_eq!(
            Standardiser::fit(&[1.0, 2.0, 1.0, 3.0], 2, Whitening::Diagonal),
            Err(ChartError::NoVariance(0))
        );
    }
}
