//! The instrument on inputs whose errors are known: what it must say before it is believed about anything else.

use anyhow::Result;
use boltzmap_kernels::random::{Stream, domain};
use boltzmap_models::control::Control as Watching;
use boltzmap_models::deploy::FewStepSampler;
use boltzmap_models::flow_map::FlowMap;
use boltzmap_models::parameters::Parameters;
use boltzmap_models::schedule::Schedule;
use boltzmap_objectives::targets::AnalyticTarget;
use serde::Serialize;

use super::super::assessment::{Assessment, Judgement, Looks, assess};
use super::super::measure::noise;
use super::super::statistics::{Comparison, Estimate, compare, effective_share};
use super::super::stepper::Stepper;
use super::super::subject::Reporter;
use super::super::target::Weighed;
use super::super::watched;
use super::Budget;
use super::cell::tells_the_data;
use super::methods::{METHODS, perceptron};
use crate::pipeline::model::schedule;

/// Stream domain of the noise that is added on purpose.
const DOMAIN_ERROR: u64 = domain::CONTROL_ERRORS;
/// The bias that is built into a head, nats.
const BIAS: f64 = 0.5;
/// The spread that is built into a report, nats.
const SPREAD: f64 = 1.2;
/// The error that is built into a rare state, nats.
const LOCAL_ERROR: f64 = 1.5;
/// Where that state begins along the first coordinate, in standard deviations: the quantile of 98 %.
const STATE_BEGINS: f64 = 2.053_748_910_631_823;
/// Samples of every input: enough to call a true one true.
const SAMPLES: usize = 4000;
/// Half widths of the 95 % interval within which a known value must be found: one seed in 10⁸ fails by chance.
const HALF_WIDTHS: f64 = 3.0;
/// Round-off allowed on top, nats.
const ROUND_OFF: f64 = 2e-5;

/// One known input.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Control {
    /// Its name.
    pub name: &'static str,
    /// What is wrong with it, if anything.
    pub input: String,
    /// What the verdict must be.
    pub expected: Judgement,
    /// What it is.
    pub found: Judgement,
    /// Built-in bias, nats, where it is known.
    pub bias: Option<f64>,
    /// Built-in spread, nats, where it is known.
    pub spread: Option<f64>,
    /// Reported against exact.
    pub gap: Comparison,
    /// What the verdict rests on.
    pub assessment: Assessment,
    /// ESS of weights p/q that the report claims.
    pub claimed: Estimate,
    /// ESS of weights p/q with the exact q.
    pub actual: Estimate,
    /// Whether the report was found to follow the data's density.
    pub tells_the_data: bool,
    /// Whether the instrument said what it must.
    pub passed: bool,
}

/// A map whose network is zero: the exact flow map of unit Gaussian data, and the exact log-determinant.
pub fn closed_form(
    dimension: usize,
    budget: &Budget,
) -> Result<(FlowMap, Parameters<f32>, Schedule)> {
    let config = METHODS[0].config(budget, 0)?;
    let map = perceptron(dimension, &config)?;
    let parameters = Parameters::zeros(map.layout());
    Ok((map, parameters, schedule(&config)?))
}

/// Adds a constant to every head output, so that all reported log-densities are too high by `bias` nats.
pub fn bias_head(map: &FlowMap, parameters: &mut Parameters<f32>, end: f64, bias: f64) {
    // Λ = Σ_i (t − s) h_i over all steps, and log q = log p₀ − Λ.
    let shift = -bias / (end * map.state_size() as f64);
    let values = parameters
        .get_mut("final.divergence.bias")
        .expect("a tensor of the perceptron");
    values.iter_mut().for_each(|value| *value += shift as f32);
}

/// Runs all controls.
///
/// # Errors
/// If a number is not finite or Ctrl-C was pressed.
pub fn run(budget: &Budget, seed: u64) -> Result<Vec<Control>> {
    let (map, exact_head, schedule) = closed_form(4, budget)?;
    let unit = AnalyticTarget::gaussian(4, 1.0, 1.0);
    let mut biased = exact_head.clone();
    bias_head(&map, &mut biased, 1.0 - schedule.epsilon(), BIAS);
    let mut stream = Stream::new(seed, DOMAIN_ERROR, 0);
    let closed = Input::of(&map, &exact_head, &schedule, &unit, seed)?;
    let mut noisy = closed.clone();
    noisy
        .reported
        .iter_mut()
        .for_each(|q| *q += SPREAD * stream.standard_normal());

    let mut local = closed.clone();
    let errors = local.reported.iter_mut().zip(&local.in_state);
    for (q, _) in errors.filter(|(_, inside)| **inside) {
        *q += LOCAL_ERROR;
    }

    let mixture = AnalyticTarget::mixture_2d();
    let (plane, parameters, schedule_2d) = closed_form(2, budget)?;
    let mut telescoping = Input::of(&plane, &parameters, &schedule_2d, &mixture, seed)?;
    telescoping.reported = telescoping.data.clone();

    let controls = vec![
        closed.judged(
            "closed form",
            "a map and a head that are exact: the flow map of unit Gaussian data",
            Judgement::True,
            Some(0.0),
            Some(0.0),
            seed,
        )?,
        Input::of(&map, &biased, &schedule, &unit, seed)?.judged(
            "constant bias",
            &format!("the same map with {BIAS} nats added by the head's bias"),
            Judgement::TrueButForAConstant,
            Some(BIAS),
            Some(0.0),
            seed,
        )?,
        noisy.judged(
            "known spread",
            &format!("the same map with Gaussian noise of {SPREAD} nats added to every report"),
            Judgement::False,
            Some(0.0),
            Some(SPREAD),
            seed,
        )?,
        local.judged(
            "rare state",
            &format!("the same map with {LOCAL_ERROR} nats added to the report on the 2 % of the samples beyond 2.05 σ of one coordinate"),
            Judgement::False,
            Some(0.02 * LOCAL_ERROR),
            Some(LOCAL_ERROR * (0.02f64 * 0.98).sqrt()),
            seed,
        )?,
        telescoping.judged(
            "telescoping",
            "a map that misses its data, three Gaussians, and reports the data's log-density at its samples",
            Judgement::False,
            None,
            None,
            seed,
        )?,
    ];
    Ok(controls)
}

/// Samples of a map with three densities.
#[derive(Clone)]
struct Input {
    reported: Vec<f64>,
    exact: Vec<f64>,
    data: Vec<f64>,
    /// Whether the first coordinate lies beyond the quantile of 98 % of unit Gaussian data.
    in_state: Vec<bool>,
}

impl Input {
    fn of(
        map: &FlowMap,
        parameters: &Parameters<f32>,
        schedule: &Schedule,
        target: &AnalyticTarget,
        seed: u64,
    ) -> Result<Input> {
        let noise = noise(map, seed, SAMPLES);
        let stepper = Stepper::<f32>::new(map, parameters, None);
        let path = watched("", SAMPLES, |control| {
            stepper.path(&noise, schedule, control)
        })?;
        // The report is that of the deployed sampler, not of the instrument's own steps.
        let reported = FewStepSampler::new(map, parameters, schedule)
            .transport(&noise, &Watching::default())?
            .log_density;
        let end = 1.0 - schedule.epsilon();
        // The variance of x_t of unit Gaussian data.
        let scale = (end * end + (1.0 - end).powi(2)).sqrt();
        let in_state = path
            .end()
            .chunks_exact(map.state_size())
            .map(|x| f64::from(x[0]) > STATE_BEGINS * scale)
            .collect();
        let data = path
            .end()
            .chunks_exact(map.state_size())
            .map(|x| {
                let wide: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
                target.log_density(&wide, end)
            })
            .collect();
        Ok(Input {
            reported,
            exact: path.exact(),
            data,
            in_state,
        })
    }

    fn judged(
        &self,
        name: &'static str,
        input: &str,
        expected: Judgement,
        bias: Option<f64>,
        spread: Option<f64>,
        seed: u64,
    ) -> Result<Control> {
        let gap = compare(&self.reported, &self.exact, seed);
        let against_data = compare(&self.reported, &self.data, seed);
        let weights = |log_q: &[f64]| -> Vec<f64> {
            self.data.iter().zip(log_q).map(|(p, q)| p - q).collect()
        };
        let target = Weighed::with_state(self.data.clone(), "x1 > 2.05 σ", self.in_state.clone());
        let (reported, exact) = (&self.reported, &self.exact);
        let looks = Looks::single(exact.len());
        let assessment = assess(Reporter::Head, reported, exact, Some(&target), &looks, seed)?;
        let found = assessment.judgement;
        let tells_the_data = tells_the_data(found, &gap, &against_data);
        let claimed = effective_share(&weights(&self.reported), seed);
        let actual = effective_share(&weights(&self.exact), seed);
        let near = |estimate: Estimate, known: Option<f64>| {
            known.is_none_or(|known| {
                (estimate.value - known).abs() <= HALF_WIDTHS * estimate.half_width() + ROUND_OFF
            })
        };
        // Only the trap, whose errors have no closed form, follows the data.
        let trap = bias.is_none();
        Ok(Control {
            name,
            input: input.into(),
            expected,
            found,
            bias,
            spread,
            passed: found == expected
                && near(gap.bias, bias)
                && near(gap.spread, spread)
                && tells_the_data == trap
                && (!trap || (claimed.low > 0.99 && actual.high < 0.9)),
            gap,
            assessment,
            claimed,
            actual,
            tells_the_data,
        })
    }
}
