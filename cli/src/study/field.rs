//! Velocity fields with pairs (data, noise) and exact Jacobians.

use anyhow::{Result, ensure};
use boltzmap_autodiff::jacobian::Jacobian;
use boltzmap_kernels::random::{Stream, domain};
use boltzmap_models::flow_map::FlowMap;
use boltzmap_models::jacobians::velocity_jacobian;
use boltzmap_models::parameters::Parameters;
use boltzmap_objectives::trainer::DataSource;

use crate::config::{Config, InterpolantKind};
use crate::pipeline::data::Data;
use crate::pipeline::model::{Frames, Model};
use crate::pipeline::molecule::Molecule;
use crate::run_dir::RunDir;

/// Stream domain of the Gaussian's axes.
const DOMAIN_AXES: u64 = domain::STUDY_AXES;
/// Stream domain of the pairs.
const DOMAIN_PAIRS: u64 = domain::STUDY_PAIRS;
/// States whose Jacobians are computed together.
const BLOCK: usize = 2;

/// Velocities and Jacobians of n states.
pub struct Values {
    /// v `[n, D]`.
    pub velocity: Vec<f64>,
    /// ∂v/∂x `[n, D, D]`, entry (i, j) = ∂v_i/∂x_j, on the subspace.
    pub jacobians: Vec<f64>,
}

/// A velocity field of the linear interpolant x_t = t x₁ + (1 − t) z, with the data it belongs to.
pub trait Field {
    /// d, dimension of the subspace.
    fn dimension(&self) -> usize;
    /// D, numbers in a state.
    fn state_size(&self) -> usize;
    /// κ = d/D
    fn share(&self) -> f64 {
        self.dimension() as f64 / self.state_size() as f64
    }
    /// Data x₁ and noise z `[n, D]` of the samples 0 .. n.
    fn pairs(&self, n: usize, seed: u64) -> (Vec<f64>, Vec<f64>);
    /// A direction of zero mean and unit covariance on the subspace, from the entries of one on the whole space.
    fn project(&self, probe: &mut [f64]);
    /// The field at x `[n, D]`.
    fn evaluate(&self, t: f64, x: &[f64]) -> Result<Values>;
}

/// The exact field of data x₁ ~ N(0, Σ): v = A x with A = (tΣ − (1−t)I)(t²Σ + (1−t)²I)⁻¹.
pub struct GaussianField {
    dimension: usize,
    /// Orthonormal axes in rows.
    axes: Vec<f64>,
    standard_deviations: Vec<f64>,
}

impl GaussianField {
    /// Standard deviations in geometric progression along random axes.
    pub fn new(dimension: usize, range: (f64, f64), seed: u64) -> Self {
        let mut stream = Stream::new(seed, DOMAIN_AXES, 0);
        let mut axes = vec![0.0; dimension * dimension];
        stream.fill_standard_normal(&mut axes);
        // Gram and Schmidt, twice, because once leaves the axes a little oblique.
        for _ in 0..2 {
            for i in 0..dimension {
                let (before, rest) = axes.split_at_mut(i * dimension);
                let axis = &mut rest[..dimension];
                for other in before.chunks_exact(dimension) {
                    let overlap: f64 = axis.iter().zip(other).map(|(a, b)| a * b).sum();
                    axis.iter_mut()
                        .zip(other)
                        .for_each(|(a, b)| *a -= overlap * b);
                }
                let length = axis.iter().map(|a| a * a).sum::<f64>().sqrt();
                axis.iter_mut().for_each(|a| *a /= length);
            }
        }
        let last = (dimension - 1).max(1) as f64;
        let ratio = range.1 / range.0;
        let standard_deviations = (0..dimension)
            .map(|i| range.0 * ratio.powf(i as f64 / last))
            .collect();
        Self {
            dimension,
            axes,
            standard_deviations,
        }
    }

    /// Σ_k f(σ_k²) a_k a_kᵀ
    fn matrix(&self, f: impl Fn(f64) -> f64) -> Vec<f64> {
        let d = self.dimension;
        let mut matrix = vec![0.0; d * d];
        for (axis, sigma) in self.axes.chunks_exact(d).zip(&self.standard_deviations) {
            let value = f(sigma * sigma);
            for i in 0..d {
                for j in 0..d {
                    matrix[i * d + j] += value * axis[i] * axis[j];
                }
            }
        }
        matrix
    }

    /// A(t), symmetric: Σ, and with it every factor of A, has the same axes.
    fn rate(&self, t: f64) -> Vec<f64> {
        self.matrix(|s| (t * s - (1.0 - t)) / (t * t * s + (1.0 - t) * (1.0 - t)))
    }
}

impl Field for GaussianField {
    fn dimension(&self) -> usize {
        self.dimension
    }

    fn state_size(&self) -> usize {
        self.dimension
    }

    fn pairs(&self, n: usize, seed: u64) -> (Vec<f64>, Vec<f64>) {
        let d = self.dimension;
        let (mut data, mut noise) = (vec![0.0; n * d], vec![0.0; n * d]);
        for i in 0..n {
            let mut stream = Stream::new(seed, DOMAIN_PAIRS, i as u64);
            stream.fill_standard_normal(&mut noise[i * d..(i + 1) * d]);
            for (axis, sigma) in self.axes.chunks_exact(d).zip(&self.standard_deviations) {
                let amount = sigma * stream.standard_normal();
                for (x, a) in data[i * d..(i + 1) * d].iter_mut().zip(axis) {
                    *x += amount * a;
                }
            }
        }
        (data, noise)
    }

    fn project(&self, _probe: &mut [f64]) {}

    fn evaluate(&self, t: f64, x: &[f64]) -> Result<Values> {
        let d = self.dimension;
        let rate = self.rate(t);
        let velocity = x
            .chunks_exact(d)
            .flat_map(|x| {
                rate.chunks_exact(d)
                    .map(move |row| row.iter().zip(x).map(|(a, b)| a * b).sum())
            })
            .collect();
        Ok(Values {
            velocity,
            jacobians: rate.repeat(x.len() / d),
        })
    }
}

/// A trained network's velocity on its training frames.
pub struct NetworkField {
    /// The map.
    pub map: FlowMap,
    /// Its averaged parameters.
    pub parameters: Parameters<f32>,
    frames: Frames,
    jacobian: Jacobian<f32>,
    /// Q `[D, d]`.
    basis: Vec<f64>,
}

impl NetworkField {
    /// Reads checkpoint and data of a run.
    pub fn read(run: &RunDir, config: &Config) -> Result<Self> {
        ensure!(
            config.training.interpolant == InterpolantKind::Linear,
            "training.interpolant is \"{}\", but the study follows the linear path; give it a run of that",
            config.training.interpolant
        );
        let molecule = Molecule::new(config)?;
        let data = Data::read(run, &molecule)?;
        let model = Model::read(&run.checkpoint(), config.training.steps as u64)?;
        let frames = Frames::new(&model.coordinates, &data.train)?;
        ensure!(frames.len() > 0, "the run has no training frames");
        let map = model.flow_map;
        Ok(Self {
            frames,
            jacobian: velocity_jacobian(&map, BLOCK),
            basis: map.subspace().basis(map.tokens(), map.channels()),
            parameters: model.parameters,
            map,
        })
    }
}

impl Field for NetworkField {
    fn dimension(&self) -> usize {
        self.map.dimension()
    }

    fn state_size(&self) -> usize {
        self.map.state_size()
    }

    fn pairs(&self, n: usize, seed: u64) -> (Vec<f64>, Vec<f64>) {
        let size = self.state_size();
        let (mut data, mut noise) = (vec![0.0f32; n * size], vec![0.0f64; n * size]);
        for (i, (data, noise)) in data
            .chunks_exact_mut(size)
            .zip(noise.chunks_exact_mut(size))
            .enumerate()
        {
            let mut stream = Stream::new(seed, DOMAIN_PAIRS, i as u64);
            let frame = stream.below(self.frames.len() as u64) as usize;
            self.frames.write(frame, &mut stream, data);
            stream.fill_standard_normal(noise);
            self.project(noise);
        }
        (data.iter().map(|&v| f64::from(v)).collect(), noise)
    }

    fn project(&self, probe: &mut [f64]) {
        let map = &self.map;
        map.subspace()
            .project_states(probe, map.tokens(), map.channels());
    }

    fn evaluate(&self, t: f64, x: &[f64]) -> Result<Values> {
        let (size, d) = (self.state_size(), self.dimension());
        let n = x.len() / size;
        let states: Vec<f32> = x.iter().map(|&v| v as f32).collect();
        let times = vec![t as f32; n];
        let mut inputs = self.parameters.slices();
        inputs.extend([states.as_slice(), &times]);
        let mut velocity = vec![0.0f32; n * size];
        let reduced = self.jacobian.matrix(n, &inputs, Some(&mut velocity));
        // Back to the coordinates of a state: Q (Qᵀ J Q) Qᵀ.
        let mut jacobians = vec![0.0; n * size * size];
        for (full, reduced) in jacobians
            .chunks_exact_mut(size * size)
            .zip(reduced.chunks_exact(d * d))
        {
            if d == size {
                full.copy_from_slice(reduced);
                continue;
            }
            let mut half = vec![0.0; size * d];
            for i in 0..size {
                for k in 0..d {
                    let q = self.basis[i * d + k];
                    for l in 0..d {
                        half[i * d + l] += q * reduced[k * d + l];
                    }
                }
            }
            for i in 0..size {
                for j in 0..size {
                    full[i * size + j] = (0..d)
                        .map(|l| half[i * d + l] * self.basis[j * d + l])
                        .sum();
                }
            }
        }
        ensure!(
            jacobians.iter().all(|v| v.is_finite()),
            "the network's derivative at t = {t} is not finite; train again with a lower learning rate"
        );
        Ok(Values {
            velocity: velocity.iter().map(|&v| f64::from(v)).collect(),
            jacobians,
        })
    }
}
