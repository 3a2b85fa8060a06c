//! Sequential Monte Carlo from a proposal to a target (Del Moral, Doucet & Jasra 2006).
//!
//! Particles begin as draws of the proposal q and pass through densities π_λ ∝ q^{1−λ} p^λ. Each stage chooses the next λ such that
//! the weights (p/q)^{λ'−λ} keep a given effective sample size, resamples by them, and moves the particles with
//! Metropolis-adjusted Langevin steps that leave π_λ' as it is. The product of the stages' mean weights estimates
//! Z = ∫p, without bias were the λ chosen beforehand, and consistently as they are. Where q can only tell the density of what it drew, the one stage from 0 to 1 is left: resample and move.

use boltzmap_kernels::random::{Stream, domain};
use boltzmap_statistics as statistics;

use crate::control::Control;
use crate::error::SamplingError;
use crate::importance::{answered, log_ratios, same_shape};
use crate::likelihood::{Likelihood, LogDensity, Trust};
use crate::moves::{self, Density};
use crate::proposal::Proposal;
use crate::target::Target;

/// Stream domain of the moves; particle i uses stream (seed, domain, i).
const DOMAIN_MOVES: u64 = domain::PARTICLE_MOVES;
/// Bisections of λ, down to the spacing of numbers near 1.
const BISECTIONS: usize = 52;
/// Stages after which the path is taken to lead nowhere.
const MOST_STAGES: usize = 10_000;

/// How particles come from the proposal to the target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Path {
    /// Through q^{1−λ} p^λ, each stage keeping this share of effective samples, in (0, 1).
    Bridge {
        /// The share.
        ess: f64,
    },
    /// At once.
    ResampleAndMove,
}

/// Settings of [`sequential_monte_carlo`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Particles.
    pub particles: usize,
    /// The path.
    pub path: Path,
    /// Moves of every particle at each stage.
    pub moves: usize,
    /// First step h of the moves, in units of the states; later ones follow the acceptance.
    pub step: f64,
    /// Which log-densities of the proposal may be used.
    pub trust: Trust,
    /// Seed of resampling and moves. The proposal draws samples 0 … n−1 by its own: runs that are to repeat each other independently need
    /// another proposal's seed too.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            particles: 1000,
            path: Path::Bridge { ess: 0.5 },
            moves: 10,
            step: 0.1,
            trust: Trust::Audited,
            seed: 1,
        }
    }
}

/// One stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StageRecord {
    /// λ at its end.
    pub lambda: f64,
    /// Normalised effective sample size of its weights.
    pub ess: f64,
    /// Mean probability of acceptance of its moves; NaN without moves.
    pub acceptance: f64,
    /// The step h of its last moves.
    pub step: f64,
}

/// Particles at the target.
#[derive(Clone, Debug, PartialEq)]
pub struct SmcResult {
    /// `[n, T, C]`, all of one weight.
    pub states: Vec<f64>,
    /// log p of them, up to the target's constant, `[n]`.
    pub log_density: Vec<f64>,
    /// ln Z of the target's unnormalised density.
    pub log_normalisation: f64,
    /// The draw that each particle descends from, `[n]`. Particles of one ancestor that hardly moved count as little more than one.
    pub ancestors: Vec<usize>,
    /// Every stage.
    pub stages: Vec<StageRecord>,
    /// What the proposal's densities were.
    pub likelihood: Likelihood,
    /// How often a map that drew the first particles folded ([`Draws::folds`](crate::Draws::folds)).
    pub folds: usize,
    /// Particles, over all stages, whose density the proposal could not find again after they had moved, and which were dropped. Many of them
    /// make ln Z too small.
    pub lost: usize,
}

impl SmcResult {
    /// Draws of the proposal from which a particle descends.
    pub fn distinct_ancestors(&self) -> usize {
        // Resampling keeps their order.
        1 + self
            .ancestors
            .windows(2)
            .filter(|pair| pair[0] != pair[1])
            .count()
    }
}

/// q^{1−λ} p^λ
struct Bridge<'a> {
    proposal: &'a dyn Proposal,
    target: &'a dyn Target,
    control: &'a Control<'a>,
    trust: Trust,
    lambda: f64,
}

/// Both densities at particles; those of the proposal are empty where λ is 1.
#[derive(Clone, Debug)]
struct Point {
    log_q: Vec<f64>,
    log_p: Vec<f64>,
    /// Empty where it cannot be had.
    gradient_q: Vec<f64>,
    gradient_p: Vec<f64>,
}

impl Density for Bridge<'_> {
    type Point = Point;

    fn at(&self, states: &[f64]) -> Result<Point, SamplingError> {
        let target = self.target.log_density_and_gradient(states)?;
        let n = states.len() / self.target.state_size();
        answered("log p", target.log_density.len(), n)?;
        answered(
            "the gradient of log p",
            target.gradients.len(),
            states.len(),
        )?;
        let mut point = Point {
            log_q: Vec::new(),
            log_p: target.log_density,
            gradient_q: Vec::new(),
            gradient_p: target.gradients,
        };
        if self.lambda < 1.0 {
            match self
                .proposal
                .log_density_and_gradient(states, self.control)?
            {
                Some((found, gradients)) => {
                    answered("the gradient of log q", gradients.len(), states.len())?;
                    point.log_q = found.trusted(self.trust)?.to_vec();
                    point.gradient_q = gradients;
                }
                None => match self.proposal.log_density(states, self.control)? {
                    LogDensity::Unknown => return Err(SamplingError::NoDensity),
                    found => point.log_q = found.trusted(self.trust)?.to_vec(),
                },
            }
            answered("log q", point.log_q.len(), n)?;
        }
        Ok(point)
    }

    fn log_density(&self, point: &Point, i: usize) -> f64 {
        match self.lambda < 1.0 {
            true => (1.0 - self.lambda) * point.log_q[i] + self.lambda * point.log_p[i],
            false => point.log_p[i],
        }
    }

    fn drift(&self, point: &Point, i: usize, drift: &mut [f64]) {
        let of = i * drift.len()..(i + 1) * drift.len();
        for (to, g) in drift.iter_mut().zip(&point.gradient_p[of.clone()]) {
            *to = self.lambda * g;
        }
        if self.lambda < 1.0 && !point.gradient_q.is_empty() {
            for (to, g) in drift.iter_mut().zip(&point.gradient_q[of]) {
                *to += (1.0 - self.lambda) * g;
            }
        }
    }

    fn replace(&self, point: &mut Point, i: usize, by: &Point) {
        let size = point.gradient_p.len() / point.log_p.len();
        let of = i * size..(i + 1) * size;
        point.log_p[i] = by.log_p[i];
        point.gradient_p[of.clone()].copy_from_slice(&by.gradient_p[of.clone()]);
        if self.lambda < 1.0 {
            point.log_q[i] = by.log_q[i];
            if !point.gradient_q.is_empty() {
                point.gradient_q[of.clone()].copy_from_slice(&by.gradient_q[of]);
            }
        }
    }

    fn project(&self, states: &mut [f64]) {
        self.target.project(states);
    }
}

/// Carries draws of the proposal to the target.
///
/// # Errors
/// Those of the proposal and the target; if a setting is out of its range, the shapes differ, log q may not be trusted or cannot be had where the
/// path needs it, or no particle has a weight.
pub fn sequential_monte_carlo(
    proposal: &dyn Proposal,
    target: &dyn Target,
    settings: &Settings,
    control: &Control<'_>,
) -> Result<SmcResult, SamplingError> {
    check(settings)?;
    let size = same_shape(proposal, target)?;
    let n = settings.particles;
    let indices: Vec<u64> = (0..n as u64).collect();
    let draws = proposal.draw(&indices, control)?;
    answered("the states", draws.states.len(), n * size)?;
    let (likelihood, folds) = (draws.log_density.likelihood(), draws.folds);
    let mut log_q = draws.log_density.trusted(settings.trust)?.to_vec();
    answered("log q", log_q.len(), n)?;
    let mut log_p = target.log_density(&draws.states)?;
    answered("log p", log_p.len(), n)?;
    let mut states = draws.states;
    let mut bridge = Bridge {
        proposal,
        target,
        control,
        trust: settings.trust,
        lambda: 0.0,
    };
    let mut streams: Vec<Stream> = (0..n as u64)
        .map(|i| Stream::new(settings.seed, DOMAIN_MOVES, i))
        .collect();
    let mut ancestors: Vec<usize> = (0..n).collect();
    let (mut stages, mut log_normalisation, mut step) = (Vec::new(), 0.0, settings.step);
    let mut lost = 0;
    while bridge.lambda < 1.0 {
        control.check()?;
        if stages.len() == MOST_STAGES {
            return Err(SamplingError::Setting(format!(
                "after {MOST_STAGES} stages the bridge has come to λ = {:e}; the proposal is too far from the target, or moves too little: raise moves, or lower the share of effective samples to keep",
                bridge.lambda
            )));
        }
        // A particle whose density the proposal cannot find again, as where an inversion does not converge, has no ratio: it is lost.
        let found: Vec<bool> = log_q.iter().map(|q| *q > f64::NEG_INFINITY).collect();
        lost += found.iter().filter(|found| !**found).count();
        let kept_q: Vec<f64> = log_q.iter().map(|q| q.max(f64::MIN)).collect();
        let mut ratios = log_ratios(&log_p, &kept_q)?;
        for (ratio, _) in ratios.iter_mut().zip(&found).filter(|(_, found)| !**found) {
            *ratio = f64::NEG_INFINITY;
        }
        let (lambda, log_weights) = next(&ratios, bridge.lambda, settings.path);
        let kept =
            statistics::resample_systematic(&log_weights, n, settings.seed, stages.len() as u64)
                .ok_or(SamplingError::NoWeight(n))?;
        log_normalisation += statistics::log_mean_weight(&log_weights);
        states = kept
            .iter()
            .flat_map(|&i| &states[i * size..(i + 1) * size])
            .copied()
            .collect();
        ancestors = kept.iter().map(|&i| ancestors[i]).collect();
        bridge.lambda = lambda;
        let mut point = bridge.at(&states)?;
        let mut acceptance = f64::NAN;
        let mut total = 0.0;
        for done in 0..settings.moves {
            control.check()?;
            let accepted = moves::langevin(&bridge, &mut states, &mut point, &mut streams, step)?;
            step = moves::adapted(step, accepted);
            total += accepted;
            acceptance = total / (done + 1) as f64;
        }
        stages.push(StageRecord {
            lambda,
            ess: statistics::ess(&log_weights),
            acceptance,
            step,
        });
        control.report((lambda * n as f64) as usize, n);
        (log_q, log_p) = (point.log_q, point.log_p);
    }
    Ok(SmcResult {
        states,
        log_density: log_p,
        log_normalisation,
        ancestors,
        stages,
        likelihood,
        folds,
        lost,
    })
}

/// The next λ and the log-weights that lead there.
fn next(ratios: &[f64], lambda: f64, path: Path) -> (f64, Vec<f64>) {
    let weights = |to: f64| -> Vec<f64> {
        // 0 · −∞ would be no number; the rest is out of the support at every λ > 0.
        ratios.iter().map(|r| (to - lambda) * r).collect()
    };
    let Path::Bridge { ess } = path else {
        return (1.0, weights(1.0));
    };
    let last = weights(1.0);
    if statistics::ess(&last) >= ess {
        return (1.0, last);
    }
    let (mut low, mut high) = (lambda, 1.0);
    for _ in 0..BISECTIONS {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        match statistics::ess(&weights(middle)) >= ess {
            true => low = middle,
            false => high = middle,
        }
    }
    // The first step beyond λ where even the smallest one loses more.
    let to = if low > lambda { low } else { high };
    (to, weights(to))
}

fn check(settings: &Settings) -> Result<(), SamplingError> {
    let fail = |message: String| Err(SamplingError::Setting(message));
    if settings.particles == 0 {
        return fail("a sampler needs at least one particle".into());
    }
    if !(settings.step > 0.0 && settings.step.is_finite()) {
        return fail(format!(
            "the step of moves is {}; it must be positive",
            settings.step
        ));
    }
    match settings.path {
        Path::Bridge { ess } if !(ess > 0.0 && ess < 1.0) => fail(format!(
            "a stage is to keep {ess} of the effective samples; choose a share between 0 and 1"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
