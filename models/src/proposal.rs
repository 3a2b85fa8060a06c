//! Flow maps as proposals: the few-step map with the log-density that its head reports or with its exact one, the guided map, and the
//! continuous flow.
//!
//! A map ends at time 1 − ε, where data of unit variance has another scale a ([`MapProposal::with_scale`]). States of a proposal are
//! the map's divided by a, so log q of them is that of the map's plus d ln a.

use boltzmap_kernels::real::Real;
use boltzmap_sampling::target::count_states;
use boltzmap_sampling::{Control, Draws, LogDensity, Proposal, SamplingError};

use crate::continuous_flow::{ContinuousFlow, Integrator};
use crate::deploy::{ExactSampler, FewStepSampler};
use crate::error::ModelError;
use crate::flow_map::FlowMap;
use crate::guidance::GuidedSampler;
use crate::inverse::{InverseOptions, Inverter};
use crate::parameters::Parameters;
use crate::schedule::Schedule;

impl From<ModelError> for SamplingError {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Cancelled => SamplingError::Cancelled,
            other => SamplingError::failed(other),
        }
    }
}

/// States whose density is asked for that are worked on together, between two looks at the cancel flag.
const CHUNK: usize = 64;

/// Whether the density of guided samples, which costs more than they do, is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Density {
    /// Left unknown.
    Left,
    /// Exactly.
    Exact,
}

/// What carries noise to states, and tells their log-density.
enum Deployment<T: Real> {
    /// log q by the head.
    Reported(Box<FewStepSampler<T>>),
    /// log q by exact determinants, and of other states by inverting the steps.
    Exact(Box<ExactSampler<T>>, Box<Inverter<T>>),
    /// The steps from noise that was moved first.
    Guided(Box<GuidedSampler<T>>, Density),
    /// The continuous flow.
    Continuous(Box<ContinuousFlow<T>>, f64),
}

/// A flow map with its parameters and schedule, as a proposal. Sample i comes from the noise of stream (seed, domain, i).
pub struct MapProposal<T: Real> {
    map: FlowMap,
    schedule: Schedule,
    deployment: Deployment<T>,
    scale: f64,
    seed: u64,
    domain: u64,
}

impl<T: Real> MapProposal<T> {
    fn new(
        map: &FlowMap,
        schedule: &Schedule,
        deployment: Deployment<T>,
        [seed, domain]: [u64; 2],
    ) -> Self {
        Self {
            map: map.clone(),
            schedule: schedule.clone(),
            deployment,
            scale: 1.0,
            seed,
            domain,
        }
    }

    /// The few-step map with what its head reports, or a `head` of its own; `stream` is (seed, domain) of the noise.
    pub fn reported(
        map: &FlowMap,
        parameters: &Parameters<T>,
        head: Option<&Parameters<T>>,
        schedule: &Schedule,
        stream: [u64; 2],
    ) -> Self {
        let sampler = match head {
            Some(head) => FewStepSampler::with_head(map, parameters, head, schedule),
            None => FewStepSampler::new(map, parameters, schedule),
        };
        Self::new(
            map,
            schedule,
            Deployment::Reported(Box::new(sampler)),
            stream,
        )
    }

    /// The few-step map with exact log-densities: d tangents of every step for each sample. Where the map folds, a state has several preimages and
    /// what is told of it, by one of them, is a lower bound.
    pub fn exact(
        map: &FlowMap,
        parameters: &Parameters<T>,
        schedule: &Schedule,
        stream: [u64; 2],
    ) -> Self {
        let options = InverseOptions::of_precision::<T>();
        let deployment = Deployment::Exact(
            Box::new(ExactSampler::new(map, parameters, schedule)),
            Box::new(Inverter::new(map, parameters, schedule, options)),
        );
        Self::new(map, schedule, deployment, stream)
    }

    /// The map of guided noise, of strength η.
    ///
    /// # Errors
    /// If η is not finite.
    pub fn guided(
        map: &FlowMap,
        parameters: &Parameters<T>,
        schedule: &Schedule,
        strength: f64,
        density: Density,
        stream: [u64; 2],
    ) -> Result<Self, ModelError> {
        let sampler = GuidedSampler::new(map, parameters, schedule, strength)?;
        Ok(Self::new(
            map,
            schedule,
            Deployment::Guided(Box::new(sampler), density),
            stream,
        ))
    }

    /// The continuous flow of the map's velocity up to the schedule's last time, by `integrator` in blocks of `block` states.
    ///
    /// A block shares its steps, so that a state and its log q depend on its company, within the tolerance; in blocks of one they do not.
    ///
    /// # Errors
    /// Those of [`ContinuousFlow::new`], and if the integrator has no tolerance.
    pub fn continuous(
        map: &FlowMap,
        parameters: &Parameters<T>,
        schedule: &Schedule,
        block: usize,
        integrator: Integrator,
        stream: [u64; 2],
    ) -> Result<Self, ModelError> {
        let Integrator::Adaptive { tolerances, .. } = integrator else {
            return Err(ModelError::Configuration(
                "equal steps promise no error, so that nothing can be said of their log q; give an integrator with a tolerance".into(),
            ));
        };
        let tolerance = tolerances.relative;
        let flow = ContinuousFlow::new(map, parameters, schedule.epsilon(), block, integrator)?;
        let deployment = Deployment::Continuous(Box::new(flow), tolerance);
        Ok(Self::new(map, schedule, deployment, stream))
    }

    /// The same with states divided by `scale`.
    ///
    /// # Panics
    /// If it is not positive and finite.
    pub fn with_scale(mut self, scale: f64) -> Self {
        assert!(scale > 0.0 && scale.is_finite(), "the scale is {scale}");
        self.scale = scale;
        self
    }

    /// log q of the map's own states → log q of states of the proposal.
    fn scaled(&self, log_density: Vec<f64>) -> Vec<f64> {
        let constant = self.map.dimension() as f64 * self.scale.ln();
        log_density.into_iter().map(|q| q + constant).collect()
    }

    /// log q of the map's own states `[n, T, C]` through the steps backwards; −∞ where no noise leads to one.
    fn trace_back(
        &self,
        inverter: &Inverter<T>,
        states: &[T],
        control: &Control<'_>,
    ) -> Result<Vec<f64>, ModelError> {
        let size = self.map.state_size();
        let mut states = states.to_vec();
        let mut log_density = vec![0.0; states.len() / size];
        inverter.walk(&mut states, control, |leg, states, step| {
            for (i, state) in states.chunks_exact_mut(size).enumerate() {
                if step.converged[i] {
                    log_density[leg.first + i] -= step.log_det[i];
                } else {
                    // Lost; what stands there in the steps to come is a state that every map can invert.
                    log_density[leg.first + i] = f64::NEG_INFINITY;
                    state.fill(T::zero());
                }
            }
            Ok(())
        })?;
        let (tokens, channels) = (self.map.tokens(), self.map.channels());
        let base = self
            .map
            .subspace()
            .gaussian_log_density(&states, tokens, channels);
        Ok(log_density
            .into_iter()
            .zip(base)
            .map(|(q, base)| q + base)
            .collect())
    }
}

impl<T: Real> Proposal for MapProposal<T> {
    fn shape(&self) -> [usize; 2] {
        [self.map.tokens(), self.map.channels()]
    }

    fn dimension(&self) -> usize {
        self.map.dimension()
    }

    fn draw(&self, indices: &[u64], control: &Control<'_>) -> Result<Draws, SamplingError> {
        let [tokens, channels] = self.shape();
        let subspace = self.map.subspace();
        let noise: Vec<T> = subspace.noise_of(tokens, channels, self.seed, self.domain, indices);
        let mut folds = 0;
        let (states, log_density, evaluations) = match &self.deployment {
            Deployment::Reported(sampler) => {
                let drawn = sampler.transport(&noise, control)?;
                let reported = LogDensity::Reported(self.scaled(drawn.log_density));
                (drawn.states, reported, drawn.evaluations)
            }
            Deployment::Exact(sampler, _) => {
                let drawn = sampler.exact_log_density(&noise, control)?;
                folds = drawn.folded_steps;
                let exact = LogDensity::Exact(self.scaled(drawn.log_density_exact));
                (drawn.states, exact, self.schedule.steps())
            }
            Deployment::Guided(sampler, Density::Left) => {
                let drawn = sampler.transport(&noise, control)?;
                (drawn.states, LogDensity::Unknown, drawn.evaluations)
            }
            Deployment::Guided(sampler, Density::Exact) => {
                let drawn = sampler.exact_log_density(&noise, control)?;
                folds = drawn.folded_steps;
                let exact = LogDensity::Exact(self.scaled(drawn.log_density));
                // All steps forward for the gradient and backwards, and all steps again.
                (drawn.states, exact, 3 * self.schedule.steps())
            }
            Deployment::Continuous(flow, tolerance) => {
                let drawn = flow.transport(&noise, control)?;
                let integrated = LogDensity::Integrated {
                    values: self.scaled(drawn.log_density),
                    tolerance: *tolerance,
                };
                (drawn.states, integrated, drawn.statistics.evaluations)
            }
        };
        Ok(Draws {
            states: states
                .iter()
                .map(|&x| Real::as_f64(x) / self.scale)
                .collect(),
            log_density,
            evaluations,
            folds,
        })
    }

    /// Exact ones by inverting the steps, integrated ones by integrating backwards. What a head reports, and guidance, belong to what was drawn.
    fn log_density(
        &self,
        states: &[f64],
        control: &Control<'_>,
    ) -> Result<LogDensity, SamplingError> {
        let size = self.map.state_size();
        let n = count_states(states, size)?;
        let mut own: Vec<T> = states.iter().map(|x| T::from_f64(x * self.scale)).collect();
        // No noise leads to what is not finite; the way back is spared it.
        let is_lost = |state: &[T]| !state.iter().all(|x| x.is_finite());
        let lost: Vec<bool> = own.chunks(size).map(is_lost).collect();
        let damaged = own.chunks_mut(size).zip(&lost);
        damaged
            .filter(|(_, lost)| **lost)
            .for_each(|(state, _)| state.fill(T::zero()));
        let quiet = Control {
            progress: None,
            cancel: control.cancel,
        };
        let mut values = Vec::with_capacity(n);
        for chunk in own.chunks(CHUNK * size) {
            values.extend(match &self.deployment {
                Deployment::Exact(_, inverter) => self.trace_back(inverter, chunk, &quiet)?,
                Deployment::Continuous(flow, _) => integrate_back(flow, chunk, size, &quiet)?,
                Deployment::Reported(_) | Deployment::Guided(..) => return Ok(LogDensity::Unknown),
            });
            control.report(values.len(), n);
        }
        let mut values = self.scaled(values);
        for (value, _) in values.iter_mut().zip(&lost).filter(|(_, lost)| **lost) {
            *value = f64::NEG_INFINITY;
        }
        Ok(match &self.deployment {
            Deployment::Continuous(_, tolerance) => LogDensity::Integrated {
                values,
                tolerance: *tolerance,
            },
            _ => LogDensity::Exact(values),
        })
    }
}

/// log q of states by integrating backwards. Where that fails for some of them, each goes alone, and has no density where it fails again.
fn integrate_back<T: Real>(
    flow: &ContinuousFlow<T>,
    states: &[T],
    size: usize,
    control: &Control<'_>,
) -> Result<Vec<f64>, ModelError> {
    match flow.log_density(states, control) {
        Ok(traced) => Ok(traced.log_density),
        Err(ModelError::Cancelled) => Err(ModelError::Cancelled),
        Err(_) if states.len() == size => Ok(vec![f64::NEG_INFINITY]),
        Err(_) => states
            .chunks(size)
            .map(|state| Ok(integrate_back(flow, state, size, control)?[0]))
            .collect(),
    }
}
