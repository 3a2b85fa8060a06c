//! The flow map with its log-determinant, written around the exact flow map of unit Gaussian data.
//!
//! Along the linear interpolant x_t = t x₁ + (1 − t) z, data x₁ ~ N(0, I) has x_t ~ N(0, S_t² I) with
//! S_t² = t² + (1 − t)² and the flow map x S_t/S_s. The network only predicts what differs from it, n and h:
//!
//! * X_{s,t}(x) = x S_t/S_s + (t − s) n(x, s, t), that is X = x + (t − s) u with the mean velocity
//!   u = x · 2(t + s − 1)/(S_s (S_t + S_s)) + n, which has no singularity at s = t;
//! * v(x, t) = u(x, t, t) = x (2t − 1)/S_t² + n(x, t, t);
//! * Λ_i(x, s, t) = κ ½ ln(S_t²/S_s²) + (t − s) h_i(x, s, t), D_i(x, t, t) = κ (2t − 1)/S_t² + h_i(x, t, t),
//!   with κ the subspace's share d/(T C) of a coordinate;
//! * log q_t(X_{s,t}(x)) = log q_s(x) − Σ_i Λ_i(x, s, t).
//!
//! [`Fields`] are the same map without its reference: the mean velocity u and the mean divergence terms D_i, with
//! X = x + (t − s) u and Λ_i = (t − s) D_i. Both are smooth at s = t and go on to s > t, where the map runs backwards.
//! The reference's own mean divergence κ ½ ln(S_t²/S_s²)/(t − s) is written without the division: with
//! w = (S_t² − S_s²)/(S_t² + S_s²) = 2(t − s)(t + s − 1)/(S_t² + S_s²), ½ ln(S_t²/S_s²) = atanh w, and atanh(w)/w is a
//! power series in w², with w² ≤ 1/9 for times in [0, 1].
//!
//! Networks see x/S_s, which has unit variance for unit Gaussian data at every time.

use boltzmap_autodiff::builder::{Builder, Var};
use boltzmap_autodiff::ir::Program;
use serde::{Deserialize, Serialize};

use crate::error::ModelError;
use crate::network::{MlpConfig, Network, NetworkConfig};
use crate::parameters::{Bound, ParameterLayout};
use crate::subspace::Subspace;

/// Configuration of a [`FlowMap`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowMapConfig {
    /// Subspace of the states.
    pub subspace: Subspace,
    /// The network that predicts the corrections.
    pub network: NetworkConfig,
}

/// Frequencies of the Fourier features of each time of [`FlowMapConfig::perceptron`]; the highest is 2⁴π, which keeps d/dt smooth.
const TIME_FREQUENCIES: usize = 5;

impl FlowMapConfig {
    /// A perceptron on plain vectors of d numbers, `[1, d]`: for targets without tokens.
    pub fn perceptron(dimension: usize, width: usize, blocks: usize) -> Self {
        Self {
            subspace: Subspace::Full,
            network: NetworkConfig::Mlp(MlpConfig {
                tokens: 1,
                channels: dimension,
                width,
                blocks,
                conditioning_width: width,
                time_frequencies: TIME_FREQUENCIES,
            }),
        }
    }
}

/// Flow map X_{s,t} and per-coordinate log-determinant Λ_{s,t} of states `[B, T, C]`.
#[derive(Clone, Debug)]
pub struct FlowMap {
    network: Network,
    subspace: Subspace,
    layout: ParameterLayout,
}

/// Traced values of one step from s to t.
#[derive(Clone, Copy)]
pub struct Step<'b> {
    /// X_{s,t}(x) `[B, T, C]`.
    pub state: Var<'b>,
    /// Mean velocity u = (X − x)/(t − s) `[B, T, C]`, regular at s = t.
    pub mean_velocity: Var<'b>,
    /// Network correction n `[B, T, C]`, on the subspace.
    pub correction: Var<'b>,
    /// Divergence correction h `[B, T, C]`.
    pub divergence_correction: Var<'b>,
    /// Λ_i `[B, T, C]`.
    pub log_det_terms: Var<'b>,
    /// Λ = Σ_i Λ_i `[B]`.
    pub log_det: Var<'b>,
}

/// Traced fields of a flow map over (x, s, t), whatever its parametrisation.
#[derive(Clone, Copy)]
pub struct Fields<'b> {
    /// u `[B, T, C]`: X_{s,t}(x) = x + (t − s) u.
    pub mean_velocity: Var<'b>,
    /// D_i `[B, T, C]`: Λ_i = (t − s) D_i, the mean of ∂v_i/∂x_i along the trajectory.
    pub mean_divergence: Var<'b>,
}

/// Terms of atanh(w)/w = Σ_k w^{2k}/(2k + 1). The first that is left out is below 9⁻¹⁷/35 = 1.7e-18.
const ATANH_TERMS: usize = 17;

/// Traced values on the diagonal s = t.
#[derive(Clone, Copy)]
pub struct Diagonal<'b> {
    /// v(x, t) `[B, T, C]`.
    pub velocity: Var<'b>,
    /// D_i(x, t, t) `[B, T, C]`, the head's ∂v_i/∂x_i.
    pub divergence_terms: Var<'b>,
}

/// S_t² = t² + (1 − t)².
pub fn reference_variance(t: f64) -> f64 {
    t * t + (1.0 - t) * (1.0 - t)
}

/// Traced S_t² of times of any shape.
fn variance(t: Var<'_>) -> Var<'_> {
    t.square() + (-t + 1.0).square()
}

/// Traced ½ ln(S_t²/S_s²)/(t − s) of times in [0, 1], smooth at s = t.
fn reference_divergence<'b>(s: Var<'b>, t: Var<'b>) -> Var<'b> {
    let total = variance(s) + variance(t);
    let slope = (s + t - 1.0) * 2.0 / total; // w/(t − s)
    let square = ((t - s) * slope).square(); // w²
    let coefficient = |k: usize| 1.0 / (2 * k + 1) as f64;
    let highest = square * coefficient(ATANH_TERMS - 1) + coefficient(ATANH_TERMS - 2);
    let series = (0..ATANH_TERMS - 2)
        .rev()
        .fold(highest, |sum, k| sum * square + coefficient(k));
    slope * series
}

impl FlowMap {
    /// Makes the network of a configuration.
    ///
    /// # Errors
    /// If a size is zero, sizes do not fit each other, a mean-free state has a single token, or an equivariant network is
    /// to act on states with a mean.
    pub fn new(config: &FlowMapConfig) -> Result<Self, ModelError> {
        let network = Network::new(&config.network)?;
        if config.subspace == Subspace::MeanFree && network.tokens() < 2 {
            return Err(ModelError::Configuration(
                "a mean-free state of one token is always zero; give it two tokens or the full subspace".into(),
            ));
        }
        if config.subspace == Subspace::Full && matches!(network, Network::Egnn(_)) {
            return Err(ModelError::Configuration(
                "egnn cannot see where a state's mean is; give it the mean-free subspace".into(),
            ));
        }
        let layout = ParameterLayout::new(network.parameters());
        Ok(Self {
            network,
            subspace: config.subspace,
            layout,
        })
    }

    /// The configuration the map was made from.
    pub fn config(&self) -> FlowMapConfig {
        FlowMapConfig {
            subspace: self.subspace,
            network: self.network.config(),
        }
    }

    /// Order, names and shapes of the parameters.
    pub fn layout(&self) -> &ParameterLayout {
        &self.layout
    }

    /// Subspace of the states.
    pub fn subspace(&self) -> Subspace {
        self.subspace
    }

    /// T.
    pub fn tokens(&self) -> usize {
        self.network.tokens()
    }

    /// C.
    pub fn channels(&self) -> usize {
        self.network.channels()
    }

    /// T·C, numbers in one state.
    pub fn state_size(&self) -> usize {
        self.tokens() * self.channels()
    }

    /// d, dimension of the subspace.
    pub fn dimension(&self) -> usize {
        self.subspace.dimension(self.tokens(), self.channels())
    }

    /// κ = d/(T C), the reference divergence's share per coordinate.
    pub fn share(&self) -> f64 {
        self.subspace.share(self.tokens())
    }

    /// Network corrections (n, h) `[B, T, C]` of x `[B, T, C]` at times s, t `[B]`; n is projected to the subspace.
    pub fn corrections<'b>(
        &self,
        p: &Bound<'b>,
        x: Var<'b>,
        s: Var<'b>,
        t: Var<'b>,
    ) -> (Var<'b>, Var<'b>) {
        let batch = x.shape()[0];
        let normalized = x * variance(s).rsqrt().reshape(&[batch, 1, 1]); // [B, T, C]
        let (n, h) = self.network.build(p, normalized, s, t); // [B, T, C] each
        (self.subspace.project(n), h)
    }

    /// One step from s to t `[B]` of x `[B, T, C]`, with everything losses need.
    pub fn step<'b>(&self, p: &Bound<'b>, x: Var<'b>, s: Var<'b>, t: Var<'b>) -> Step<'b> {
        let batch = x.shape()[0];
        let (n, h) = self.corrections(p, x, s, t);
        let column = |v: Var<'b>| v.reshape(&[batch, 1, 1]);
        let (variance_s, variance_t) = (variance(s), variance(t)); // [B]
        let (scale_s, scale_t) = (variance_s.sqrt(), variance_t.sqrt()); // [B]
        let slope = (s + t - 1.0) * 2.0 / (scale_s * (scale_t + scale_s)); // [B]
        let mean_velocity = x * column(slope) + n; // [B, T, C]
        let elapsed = column(t - s); // [B, 1, 1]
        let state = x * column(scale_t / scale_s) + elapsed * n; // [B, T, C]
        let reference = (variance_t / variance_s).ln() * (0.5 * self.share()); // [B]
        let log_det_terms = elapsed * h + column(reference); // [B, T, C]
        Step {
            state,
            mean_velocity,
            correction: n,
            divergence_correction: h,
            log_det_terms,
            log_det: log_det_terms.sum(&[1, 2]), // [B]
        }
    }

    /// Mean velocity and mean divergence terms from s to t `[B]` of x `[B, T, C]`, for any order of the times.
    pub fn fields<'b>(&self, p: &Bound<'b>, x: Var<'b>, s: Var<'b>, t: Var<'b>) -> Fields<'b> {
        let batch = x.shape()[0];
        let (n, h) = self.corrections(p, x, s, t);
        let column = |v: Var<'b>| v.reshape(&[batch, 1, 1]);
        let (scale_s, scale_t) = (variance(s).sqrt(), variance(t).sqrt()); // [B]
        let slope = (s + t - 1.0) * 2.0 / (scale_s * (scale_t + scale_s)); // [B]
        Fields {
            mean_velocity: x * column(slope) + n,
            mean_divergence: h + column(reference_divergence(s, t) * self.share()),
        }
    }

    /// Velocity and divergence terms at time t `[B]` of x `[B, T, C]`.
    pub fn diagonal<'b>(&self, p: &Bound<'b>, x: Var<'b>, t: Var<'b>) -> Diagonal<'b> {
        let batch = x.shape()[0];
        let (n, h) = self.corrections(p, x, t, t);
        let slope = ((t * 2.0 - 1.0) / variance(t)).reshape(&[batch, 1, 1]); // [B, 1, 1]
        Diagonal {
            velocity: x * slope + n,
            divergence_terms: h + slope * self.share(),
        }
    }

    /// v(x, t) `[B, T, C]`.
    pub fn velocity<'b>(&self, p: &Bound<'b>, x: Var<'b>, t: Var<'b>) -> Var<'b> {
        self.diagonal(p, x, t).velocity
    }

    /// Program (parameters…, x `[B, T, C]`, t `[B]`) → `velocity` `[B, T, C]`.
    pub fn velocity_program(&self, batch: usize) -> Program {
        let b = Builder::new();
        let p = self.layout.bind(&b);
        let (x, t) = (self.state_input(&b, batch), b.input("t", &[batch]));
        let velocity = self.velocity(&p, x, t);
        b.finish(&[("velocity", velocity)])
    }

    /// Program (parameters…, x `[B, T, C]`, t `[B]`) → `velocity` `[B, T, C]`, `divergence_terms` `[B, T, C]`.
    pub fn diagonal_program(&self, batch: usize) -> Program {
        let b = Builder::new();
        let p = self.layout.bind(&b);
        let (x, t) = (self.state_input(&b, batch), b.input("t", &[batch]));
        let diagonal = self.diagonal(&p, x, t);
        b.finish(&[
            ("velocity", diagonal.velocity),
            ("divergence_terms", diagonal.divergence_terms),
        ])
    }

    /// Program (parameters…, x `[B, T, C]`, s `[B]`, t `[B]`) → `state` `[B, T, C]`, `log_det` `[B]`.
    pub fn step_program(&self, batch: usize) -> Program {
        let b = Builder::new();
        let p = self.layout.bind(&b);
        let x = self.state_input(&b, batch);
        let (s, t) = (b.input("s", &[batch]), b.input("t", &[batch]));
        let step = self.step(&p, x, s, t);
        b.finish(&[("state", step.state), ("log_det", step.log_det)])
    }

    /// The fields program: (parameters…, x `[B, T, C]`, s `[B]`, t `[B]`) → `mean_velocity`, `mean_divergence`, both
    /// `[B, T, C]`.
    pub fn fields_program(&self, batch: usize) -> Program {
        let b = Builder::new();
        let p = self.layout.bind(&b);
        let x = self.state_input(&b, batch);
        let (s, t) = (b.input("s", &[batch]), b.input("t", &[batch]));
        let fields = self.fields(&p, x, s, t);
        b.finish(&[
            ("mean_velocity", fields.mean_velocity),
            ("mean_divergence", fields.mean_divergence),
        ])
    }

    /// As [`FlowMap::step_program`] with a divergence head of its own: (parameters…, the head's parameters…, x, s, t) →
    /// `state`, `log_det`. The state is that of the first parameters, the log-determinant that of the second.
    pub fn step_program_with_head(&self, batch: usize) -> Program {
        let b = Builder::new();
        let p = self.layout.bind(&b);
        let head = (self.layout.specs().iter())
            .map(|spec| b.input(&format!("head.{}", spec.name), &spec.shape))
            .collect();
        let head = self.layout.bind_values(&b, head);
        let x = self.state_input(&b, batch);
        let (s, t) = (b.input("s", &[batch]), b.input("t", &[batch]));
        let state = self.step(&p, x, s, t).state;
        let log_det = self.step(&head, x, s, t).log_det;
        b.finish(&[("state", state), ("log_det", log_det)])
    }

    /// Program (parameters…, x, s, t) → `state` `[B, T, C]` alone, for Jacobians.
    pub fn map_program(&self, batch: usize) -> Program {
        let b = Builder::new();
        let p = self.layout.bind(&b);
        let x = self.state_input(&b, batch);
        let (s, t) = (b.input("s", &[batch]), b.input("t", &[batch]));
        let step = self.step(&p, x, s, t);
        b.finish(&[("state", step.state)])
    }

    fn state_input<'b>(&self, b: &'b Builder, batch: usize) -> Var<'b> {
        b.input("x", &[batch, self.tokens(), self.channels()])
    }
}
