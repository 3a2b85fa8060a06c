//! Everything that is measured on one flow map.

use std::time::Instant;

use anyhow::Result;
use boltzmap_kernels::random::domain;
use boltzmap_models::continuous_flow::{ContinuousFlow, Integrator};
use boltzmap_models::flow_map::FlowMap;
use boltzmap_models::inverse::{InverseOptions, Inverter};
use boltzmap_models::ode::Tolerances;
use boltzmap_models::schedule::Schedule;
use serde::Serialize;

use super::Watch;
use super::assessment::{Assessment, Looks, assess, inside};
use super::statistics::{Comparison, Quantiles, compare};
use super::stepper::{Path, Stepper, distances, jacobian_block};
use super::subject::{Model, Reporter};
use super::target::Weigher;

/// Stream domain of the noise; sample i uses stream (seed, domain, i).
const DOMAIN_NOISE: u64 = domain::VERIFICATION_NOISE;
/// Error of an adaptive integration allowed per step, relative and absolute.
pub const TIGHT: f64 = 1e-7;
/// A preimage farther than this from the noise the sample came from, per coordinate, is another one.
const SAME_PREIMAGE: f64 = 1e-3;
/// Newton steps per step of the map before an inversion is given up.
const NEWTON_STEPS: usize = 15;
/// States whose determinants are also computed by finite differences.
const DIFFERENCES: usize = 3;

/// One step of the deployed schedule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepRecord {
    /// s
    pub from: f64,
    /// t
    pub to: f64,
    /// Mean of what the step adds to reported − exact, nats.
    pub mean: f64,
    /// Its standard deviation, nats.
    pub spread: f64,
    /// Its quantiles, nats.
    pub quantiles: Quantiles,
    /// Samples whose determinant was not positive.
    pub folded: usize,
}

/// The gap with another number of steps.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CountRecord {
    /// K
    pub steps: usize,
    /// Whether it is the deployed number.
    pub deployed: bool,
    /// Reported against exact.
    pub gap: Comparison,
    /// Share of all steps whose determinant was not positive.
    pub folded: f64,
}

/// The few-step map beside the continuous flow of the same network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FlowRecord {
    /// Samples.
    pub samples: usize,
    /// Tolerance of the integration, relative and absolute, in double precision.
    pub tolerance: f64,
    /// Evaluations of velocity and exact trace, of the slowest block.
    pub evaluations: usize,
    /// Exact log q of the map against log q of the flow at the same points, integrated backwards. The bias estimates the
    /// Kullback–Leibler divergence of the flow from the map.
    pub map_against_flow: Comparison,
    /// Reported log q against log q of the flow at the same points.
    pub reported_against_flow: Comparison,
    /// Root mean square distance per coordinate between the two end points of the same noise.
    pub distance: Quantiles,
}

/// Whether the map can be inverted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InverseRecord {
    /// Samples.
    pub samples: usize,
    /// Share for which the iteration found a preimage at every step.
    pub success: f64,
    /// Share for which it found another preimage than the noise that the sample came from: proof that the map is not
    /// injective.
    pub other_preimage: f64,
    /// Largest residual of a step, root mean square per coordinate.
    pub residual: Quantiles,
    /// Distance from the noise, root mean square per coordinate.
    pub noise_error: Quantiles,
    /// Iterations per step of the slowest sample.
    pub iterations: usize,
}

/// The network run forward and back over one step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CycleRecord {
    /// s
    pub from: f64,
    /// t
    pub to: f64,
    /// ‖x − X_{t,s}(X_{s,t}(x))‖, root mean square per coordinate.
    pub error: Quantiles,
    /// How far the step moves a state, root mean square per coordinate, median.
    pub moved: f64,
}

/// What the instrument itself gets wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InstrumentRecord {
    /// Largest difference of the exact log q between single and double precision, nats.
    pub rounding: f64,
    /// Largest difference of a step's log-determinant in double precision from finite differences, nats.
    pub differences: f64,
    /// Samples for the former, steps for the latter.
    pub samples: [usize; 2],
}

/// Everything measured on one flow map.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measurement {
    /// Samples of the deployed schedule.
    pub samples: usize,
    /// What reports the likelihood.
    pub reporter: Reporter,
    /// What the verdict rests on.
    pub assessment: Assessment,
    /// Samples that the target has no place for, which the verdict leaves out; 0 where there is no target.
    pub outside_target: usize,
    /// Reported against exact log q, of the others.
    pub gap: Comparison,
    /// Steps, over all samples, whose determinant was not positive.
    pub folded_steps: usize,
    /// Every step.
    pub steps: Vec<StepRecord>,
    /// Other numbers of steps.
    pub step_counts: Vec<CountRecord>,
    /// Beside the continuous flow.
    pub flow: FlowRecord,
    /// Numerical inversion.
    pub inverse: InverseRecord,
    /// The network backwards.
    pub cycle: Vec<CycleRecord>,
    /// Whether training ever asked the network for steps backwards.
    pub trained_backwards: bool,
    /// Errors of the measurement itself.
    pub instrument: InstrumentRecord,
    /// Seconds per part.
    pub seconds: Vec<(String, f64)>,
}

/// The samples behind the numbers, for figures and for `verify.npz`.
pub struct Arrays {
    /// Final states `[n, T, C]`.
    pub states: Vec<f32>,
    /// Reported log q, `[n]`.
    pub reported: Vec<f64>,
    /// Exact log q, `[n]`.
    pub exact: Vec<f64>,
    /// Log-density of the target up to a constant, `[n]`; empty where there is no target.
    pub target: Vec<f64>,
    /// What each step adds to reported − exact, `[n, K]`.
    pub step_gaps: Vec<f64>,
    /// log q of the continuous flow at the first samples.
    pub flow: Vec<f64>,
    /// Distance between the end points of map and flow of the first samples.
    pub flow_distance: Vec<f64>,
}

impl Arrays {
    /// Reported − exact log q, `[n]`.
    pub fn gaps(&self) -> Vec<f64> {
        self.reported
            .iter()
            .zip(&self.exact)
            .map(|(reported, exact)| reported - exact)
            .collect()
    }
}

/// How much to measure.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Most samples of the deployed schedule; fewer where the verdict is decided before.
    pub samples: usize,
    /// Numbers of steps.
    pub steps: Vec<usize>,
    /// Samples for each number of steps.
    pub per_count: usize,
    /// Samples compared with the continuous flow.
    pub flow: usize,
    /// Samples inverted.
    pub inverse: usize,
    /// Seed of all noise and of the bootstrap.
    pub seed: u64,
}

/// Samples after which the verdict is looked at first. Every further look doubles them.
const FIRST_LOOK: usize = 4000;
/// The same where the report is the determinant itself, with which there is little to find.
const FIRST_LOOK_EXACT: usize = 1000;

impl Effort {
    /// Subsets in proportion to what the parts cost.
    pub fn new(samples: usize, steps: &[usize], seed: u64) -> Effort {
        let mut steps = steps.to_vec();
        steps.sort_unstable();
        steps.dedup();
        Effort {
            samples,
            steps,
            per_count: samples.min(500),
            flow: samples.min(48),
            inverse: samples.min(128),
            seed,
        }
    }
}

/// Noise of the first samples.
pub fn noise(map: &FlowMap, seed: u64, n: usize) -> Vec<f32> {
    draw(map, seed, 0, n)
}

/// Noise of `n` samples from sample `first` on.
fn draw(map: &FlowMap, seed: u64, first: usize, n: usize) -> Vec<f32> {
    let (tokens, channels) = (map.tokens(), map.channels());
    map.subspace()
        .noise(tokens, channels, seed, DOMAIN_NOISE, first as u64, n)
}

/// Measures a flow map on its schedule. `respaced` gives the schedule with another number of steps, `weigher` the target where there
/// is one. Samples are drawn until the verdict is decided or there are `effort.samples`.
///
/// # Errors
/// If a number is not finite, an integration fails, or Ctrl-C was pressed.
pub fn measure(
    model: &Model,
    respaced: impl Fn(usize) -> Result<Schedule>,
    weigher: Option<&Weigher>,
    effort: &Effort,
) -> Result<(Measurement, Arrays)> {
    let mut seconds = Vec::new();
    let mut clock = |part: &str, start: Instant| {
        seconds.push((part.to_owned(), start.elapsed().as_secs_f64()));
    };
    let seed = effort.seed;
    let size = model.map.state_size();
    let single = Stepper::<f32>::new(&model.map, &model.parameters, model.head.as_ref());
    let double = Stepper::<f64>::new(&model.map, &model.parameters, None);
    let path = |part: &str, noise: &[f32], schedule: &Schedule| {
        let n = noise.len() / size;
        let mut path = super::watched(part, n, |control| single.path(noise, schedule, control))?;
        if model.reporter == Reporter::Determinant {
            let mut watch = Watch::new("determinants", n * schedule.steps());
            path.report_the_determinant(&double, schedule, &mut watch)?;
            watch.finish();
        }
        anyhow::Ok(path)
    };

    let start = Instant::now();
    let first = match model.reporter {
        Reporter::Head => FIRST_LOOK,
        _ => FIRST_LOOK_EXACT,
    };
    let mut looks = Looks::doubling(first, effort.samples);
    let mut noise = Vec::new();
    let mut drawn: Option<Path<f32>> = None;
    let (deployed, assessment, placed, target) = loop {
        let before = noise.len() / size;
        let more = draw(
            &model.map,
            seed,
            before,
            looks.planned[looks.taken - 1] - before,
        );
        let next = path("samples", &more, &model.schedule)?;
        noise.extend(more);
        let path = match drawn.take() {
            None => next,
            Some(path) => path.followed_by(next),
        };
        let weighed = weigher.map(|w| w.weigh(path.end())).transpose()?;
        let (reported, exact) = (path.reported(), path.exact());
        let reporter = model.reporter;
        let assessment = assess(reporter, &reported, &exact, weighed.as_ref(), &looks, seed)?;
        if assessment.is_decided() || looks.taken == looks.planned.len() {
            let placed = inside(exact.len(), weighed.as_ref());
            let target = weighed.map_or_else(Vec::new, |weighed| weighed.log_density);
            break (path, assessment, placed, target);
        }
        drawn = Some(path);
        looks.taken += 1;
    };
    let samples = noise.len() / size;
    clock("samples", start);

    let start = Instant::now();
    let mut step_counts = Vec::new();
    for &steps in &effort.steps {
        let other = respaced(steps)?;
        let few = &noise[..effort.per_count * size];
        let there = path(&format!("{steps} steps"), few, &other)?;
        let folded: usize = there.folded.iter().sum();
        step_counts.push(CountRecord {
            steps,
            deployed: other == model.schedule,
            gap: compare(&there.reported(), &there.exact(), seed),
            folded: folded as f64 / (effort.per_count * steps) as f64,
        });
    }
    clock("other numbers of steps", start);

    let start = Instant::now();
    let (flow, flow_density, flow_distance) = against_flow(model, &noise, &deployed, effort)?;
    clock("continuous flow", start);

    let start = Instant::now();
    let inverse = invert("inverse", model, &noise, deployed.end(), effort.inverse)?;
    clock("inverse", start);

    let start = Instant::now();
    let cycle = cycles(model, &single, &deployed, samples.min(1000));
    let instrument = instrument(model, &double, &noise, &deployed, effort)?;
    clock("backwards and instrument", start);

    let pick = |of: &[f64], which: &[usize]| which.iter().map(|&i| of[i]).collect::<Vec<f64>>();
    let (reported, exact) = (deployed.reported(), deployed.exact());
    let measurement = Measurement {
        samples,
        reporter: model.reporter,
        assessment,
        outside_target: samples - placed.len(),
        gap: compare(&pick(&reported, &placed), &pick(&exact, &placed), seed),
        folded_steps: deployed.folded.iter().sum(),
        steps: steps(&deployed, &model.schedule),
        step_counts,
        flow,
        inverse,
        cycle,
        trained_backwards: model.trained_backwards,
        instrument,
        seconds,
    };
    let gaps: Vec<Vec<f64>> = (0..deployed.steps())
        .map(|k| deployed.gaps_of_step(k))
        .collect();
    let arrays = Arrays {
        states: deployed.end().to_vec(),
        step_gaps: (0..samples)
            .flat_map(|i| gaps.iter().map(move |step| step[i]))
            .collect(),
        reported,
        exact,
        target,
        flow: flow_density,
        flow_distance,
    };
    Ok((measurement, arrays))
}

/// What every step adds to the gap.
fn steps<T>(path: &Path<T>, schedule: &Schedule) -> Vec<StepRecord> {
    schedule
        .intervals()
        .enumerate()
        .map(|(k, (from, to))| {
            let gaps = path.gaps_of_step(k);
            let n = gaps.len() as f64;
            let mean = gaps.iter().sum::<f64>() / n;
            let squares: f64 = gaps.iter().map(|gap| (gap - mean).powi(2)).sum();
            StepRecord {
                from,
                to,
                mean,
                spread: (squares / (n - 1.0)).sqrt(),
                quantiles: Quantiles::of(&gaps),
                folded: path.folded[k],
            }
        })
        .collect()
}

/// The continuous flow of the same network in double precision, forwards from the same noise and backwards from the map's
/// own samples.
fn against_flow(
    model: &Model,
    noise: &[f32],
    path: &Path<f32>,
    effort: &Effort,
) -> Result<(FlowRecord, Vec<f64>, Vec<f64>)> {
    let map = &model.map;
    let (n, size) = (effort.flow, map.state_size());
    let wide =
        |states: &[f32]| -> Vec<f64> { states[..n * size].iter().map(|&v| f64::from(v)).collect() };
    let tolerances = Tolerances {
        relative: TIGHT,
        absolute: TIGHT,
        max_steps: 20_000,
    };
    let flow = ContinuousFlow::<f64>::new(
        map,
        &model.parameters.convert(),
        model.schedule.epsilon(),
        jacobian_block(map),
        Integrator::dormand_prince(tolerances),
    )?;
    let forward = super::watched("flow", n, |control| flow.transport(&wide(noise), control))?;
    let backward = super::watched("flow, backwards", n, |control| {
        flow.log_density(&wide(path.end()), control)
    })?;
    let distance = distances(&wide(path.end()), &forward.states, size, map.dimension());
    let record = FlowRecord {
        samples: n,
        tolerance: TIGHT,
        evaluations: forward.statistics.evaluations,
        map_against_flow: compare(&path.exact()[..n], &backward.log_density, effort.seed),
        reported_against_flow: compare(&path.reported()[..n], &backward.log_density, effort.seed),
        distance: Quantiles::of(&distance),
    };
    Ok((record, backward.log_density, distance))
}

/// Traces samples back to their noise, step by step, in double precision.
pub fn invert(
    part: &str,
    model: &Model,
    noise: &[f32],
    ends: &[f32],
    n: usize,
) -> Result<InverseRecord> {
    let (map, schedule) = (&model.map, &model.schedule);
    let (size, dimension) = (map.state_size(), map.dimension());
    let options = InverseOptions {
        newton_steps: NEWTON_STEPS,
        ..InverseOptions::of_precision::<f64>()
    };
    let parameters = model.parameters.convert();
    let inverter = Inverter::<f64>::new(map, &parameters, schedule, options);
    let mut states: Vec<f64> = ends[..n * size].iter().map(|&v| f64::from(v)).collect();
    let mut found = vec![true; n];
    let mut residuals = vec![0.0f64; n];
    let mut iterations = 0;
    super::watched(part, n, |control| {
        inverter.walk(&mut states, control, |leg, _, step| {
            for i in 0..leg.count {
                let at = leg.first + i;
                found[at] &= step.converged[i];
                residuals[at] = residuals[at].max(step.residuals[i] / (dimension as f64).sqrt());
            }
            iterations = iterations.max(step.iterations);
            Ok(())
        })
    })?;
    let share = |holds: &dyn Fn(usize) -> bool| -> f64 {
        (0..n).filter(|&i| holds(i)).count() as f64 / n as f64
    };
    let errors = distances(&noise[..n * size], &states, size, dimension);
    Ok(InverseRecord {
        samples: n,
        success: share(&|i| found[i]),
        other_preimage: share(&|i| found[i] && errors[i] > SAME_PREIMAGE),
        residual: Quantiles::of(&residuals),
        noise_error: Quantiles::of(&errors),
        iterations,
    })
}

/// X_{t,s}(X_{s,t}(x)) over every deployed step.
pub fn cycles(
    model: &Model,
    stepper: &Stepper<f32>,
    path: &Path<f32>,
    n: usize,
) -> Vec<CycleRecord> {
    let (size, dimension) = (model.map.state_size(), model.map.dimension());
    model
        .schedule
        .intervals()
        .enumerate()
        .map(|(k, (from, to))| {
            let start = &path.states[k][..n * size];
            let end = &path.states[k + 1][..n * size];
            let (back, _) = stepper.advance(end, to, from);
            let moved = distances(start, end, size, dimension);
            CycleRecord {
                from,
                to,
                error: Quantiles::of(&distances(start, &back, size, dimension)),
                moved: Quantiles::of(&moved).median,
            }
        })
        .collect()
}

/// The same determinants in double precision, and by finite differences.
fn instrument(
    model: &Model,
    double: &Stepper<f64>,
    noise: &[f32],
    path: &Path<f32>,
    effort: &Effort,
) -> Result<InstrumentRecord> {
    let (size, schedule) = (model.map.state_size(), &model.schedule);
    let n = effort.flow.min(32);
    let wide: Vec<f64> = noise[..n * size].iter().map(|&v| f64::from(v)).collect();
    let exact = super::watched("instrument", n, |control| {
        double.path(&wide, schedule, control)
    })?;
    // Where the determinant is the report, the path's truth is in double precision already.
    let single = match model.reporter {
        Reporter::Determinant => path.reported(),
        _ => path.exact(),
    };
    let rounding = exact
        .exact()
        .iter()
        .zip(&single)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max);
    let few = DIFFERENCES.min(n);
    let mut differences = 0.0f64;
    for (k, (s, t)) in schedule.intervals().enumerate() {
        let states = &exact.states[k][..few * size];
        let determinants = double.determinants(states, s, t);
        for (x, determinant) in states.chunks_exact(size).zip(determinants) {
            let other = double.determinant_by_differences(x, s, t);
            differences = differences.max((determinant.0 - other).abs());
        }
    }
    Ok(InstrumentRecord {
        rounding,
        differences,
        samples: [n, few * schedule.steps()],
    })
}
