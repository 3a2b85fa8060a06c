//! Flow maps as proposals: the few-step map with the log-density that its head reports or with its exact one, the guided map, and the
//! continuous flow.
//!
//! A map ends at time 1 − ε, where data of unit variance has another scale a ([`MapProposal::with_scale`]). States of a proposal are
//! the map's divided by a, so log q of them is that of the map's plus d ln a.

use std::ops::Range;

use boltzmap_kernels::real::Real;
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

/// What carries noise to states, and tells their log-density.
enum Deployment<T: Real> {
    /// log q by the head.
    Reported(FewStepSampler<T>),
    /// log q by exact determinants, and of other states by inverting the steps.
    Exact(ExactSampler<T>, Box<Inverter<T>>),
    /// The steps from noise that was moved first, exactly.
    Guided(GuidedSampler<T>),
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
        Self::new(map, schedule, Deployment::Reported(sampler), stream)
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
            ExactSampler::new(map, parameters, schedule),
            Box::new(Inverter::new(map, parameters, schedule, options)),
        );
        Self::new(map, schedule, deployment, stream)
    }

    /// The map of guided noise, of strength η, with exact log-densities of what it draws.
    ///
    /// # Errors
    /// If η is not finite.
    pub fn guided(
        map: &FlowMap,
        parameters: &Parameters<T>,
        schedule: &Schedule,
        strength: f64,
        stream: [u64; 2],
    ) -> Result<Self, ModelError> {
        let sampler = GuidedSampler::new(map, parameters, schedule, strength)?;
        Ok(Self::new(
            map,
            schedule,
            Deployment::Guided(sampler),
            stream,
        ))
    }

    /// The continuous flow of the map's velocity up to the schedule's last time, by `integrator` in blocks of `block` states.
    ///
    /// # Errors
    /// Those of [`ContinuousFlow::new`].
    pub fn continuous(
        map: &FlowMap,
        parameters: &Parameters<T>,
        schedule: &Schedule,
        block: usize,
        integrator: Integrator,
        stream: [u64; 2],
    ) -> Result<Self, ModelError> {
        let tolerance = match &integrator {
            Integrator::Adaptive { tolerances, .. } => tolerances.relative,
            // Equal steps promise no error.
            Integrator::Fixed { .. } => f64::INFINITY,
        };
        let flow = ContinuousFlow::new(map, parameters, schedule.epsilon(), block, integrator)?;
        let deployment = Deployment::Continuous(Box::new(flow), tolerance);
        Ok(Self::new(map, schedule, deployment, stream))
    }

    /// The same with states divided by `scale`.
    pub fn with_scale(mut self, scale: f64) -> Self {
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
        let n = states.len() / size;
        let mut states = states.to_vec();
        let mut log_density = vec![0.0; n];
        for times in self.schedule.times().windows(2).rev() {
            let (s, t) = (vec![times[0]; n], vec![times[1]; n]);
            let step = inverter.step(&states, &s, &t, control)?;
            states = step.states;
            for (i, state) in states.chunks_exact_mut(size).enumerate() {
                if step.converged[i] {
                    log_density[i] -= step.log_det[i];
                } else {
                    // Lost; what stands there in the steps to come is a state that every map can invert.
                    log_density[i] = f64::NEG_INFINITY;
                    state.fill(T::zero());
                }
            }
        }
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

    fn draw(&self, indices: Range<u64>, control: &Control<'_>) -> Result<Draws, SamplingError> {
        let n = indices.end.saturating_sub(indices.start) as usize;
        let [tokens, channels] = self.shape();
        let subspace = self.map.subspace();
        let noise: Vec<T> =
            subspace.noise(tokens, channels, self.seed, self.domain, indices.start, n);
        let (states, log_density, evaluations) = match &self.deployment {
            Deployment::Reported(sampler) => {
                let drawn = sampler.transport(&noise, control)?;
                let reported = LogDensity::Reported(self.scaled(drawn.log_density));
                (drawn.states, reported, drawn.evaluations)
            }
            Deployment::Exact(sampler, _) => {
                let drawn = sampler.exact_log_density(&noise, control)?;
                let exact = LogDensity::Exact(self.scaled(drawn.log_density_exact));
                (drawn.states, exact, self.schedule.steps())
            }
            Deployment::Guided(sampler) => {
                let drawn = sampler.exact_log_density(&noise, control)?;
                let exact = LogDensity::Exact(self.scaled(drawn.log_density));
                // All steps for the gradient, and all steps again.
                (drawn.states, exact, 2 * self.schedule.steps())
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
        })
    }

    /// Exact ones by inverting the steps, integrated ones by integrating backwards. What a head reports, and guidance, belong to what was drawn.
    fn log_density(
        &self,
        states: &[f64],
        control: &Control<'_>,
    ) -> Result<LogDensity, SamplingError> {
        let own: Vec<T> = states.iter().map(|x| T::from_f64(x * self.scale)).collect();
        Ok(match &self.deployment {
            Deployment::Exact(_, inverter) => {
                let found = self.trace_back(inverter, &own, control)?;
                LogDensity::Exact(self.scaled(found))
            }
            Deployment::Continuous(flow, tolerance) => LogDensity::Integrated {
                values: self.scaled(flow.log_density(&own, control)?.log_density),
                tolerance: *tolerance,
            },
            Deployment::Reported(_) | Deployment::Guided(_) => LogDensity::Unknown,
        })
    }
}
