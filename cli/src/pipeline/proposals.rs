//! The trained model of a run as proposals: what draws its samples, and what audits their likelihoods.

use anyhow::{Result, ensure};
use boltzmap_kernels::random::domain;
use boltzmap_models::MapProposal;
use boltzmap_models::continuous_flow::Integrator;
use boltzmap_models::flow_map::FlowMap;
use boltzmap_models::ode::Tolerances;
use boltzmap_models::proposal::Density;
use boltzmap_sampling::{Likelihood, Proposal, Trust};

use super::model::{self, Model, require_atoms};
use super::molecule::Molecule;
use super::{settings, train};
use crate::config::{Config, SolverKind};
use crate::progress::with_progress;
use crate::run_dir::RunDir;

/// Stream domain of the base noise; sample i uses stream (seed, domain, i).
const DOMAIN_NOISE: u64 = domain::BASE_NOISE;
/// States that share the steps of the continuous flow.
const FLOW_BLOCK: usize = 4;

/// The integrator of the continuous flow with the solver and tolerance of the configuration.
fn integrator(config: &Config) -> Integrator {
    let tolerances = Tolerances {
        relative: config.sampling.tolerance,
        absolute: config.sampling.tolerance,
        ..Tolerances::default()
    };
    match config.sampling.solver {
        SolverKind::DormandPrince => Integrator::dormand_prince(tolerances),
        SolverKind::Tsitouras => Integrator::tsitouras(tolerances),
    }
}

/// [`scale_at`] of the deployed schedule's ε.
pub fn end_scale(config: &Config) -> Result<f64> {
    Ok(scale_at(config, model::schedule(config)?.epsilon()))
}

/// The map ends at time 1 − ε, where unit-variance data has the variance α² + β²: its square root, by which final states are divided.
pub fn scale_at(config: &Config, epsilon: f64) -> f64 {
    let (parts, _) =
        train::interpolant(config).numbers(&[1.0, 0.0], &[0.0, 1.0], &[0.0, 1.0], 1.0 - epsilon);
    parts[0].hypot(parts[1])
}

/// What turns log q of the map's final states into log q of states of unit variance given the domain, in which `kept` of `draws`
/// samples lay.
pub fn density_constant(map: &FlowMap, scale: f64, kept: usize, draws: usize) -> f64 {
    map.dimension() as f64 * scale.ln() - (kept as f64 / draws as f64).ln()
}

/// What draws a run's states, with the log q that costs nothing more, and what tells their audited log q: the same where the
/// first is audited already.
pub struct Proposals {
    drawing: MapProposal<f32>,
    auditing: Option<MapProposal<f32>>,
}

impl Proposals {
    /// Of a model as the configuration deploys it.
    ///
    /// # Errors
    /// If the schedule, the integrator or the strength of the guidance is out of its range.
    pub fn new(model: &Model, config: &Config) -> Result<Proposals> {
        let schedule = model::schedule(config)?;
        let (map, parameters) = (&model.flow_map, &model.parameters);
        let stream = [config.seed, DOMAIN_NOISE];
        if train::method(config).is_continuous() {
            let integrator = integrator(config);
            return Ok(Proposals {
                drawing: MapProposal::continuous(
                    map, parameters, &schedule, FLOW_BLOCK, integrator, stream,
                )?,
                auditing: None,
            });
        }
        let guidance = config.sampling.guidance;
        if guidance != 0.0 {
            let guided = |density| {
                MapProposal::guided(map, parameters, &schedule, guidance, density, stream)
            };
            return Ok(Proposals {
                drawing: guided(Density::Left)?,
                auditing: Some(guided(Density::Exact)?),
            });
        }
        let head = model.head.as_ref();
        Ok(Proposals {
            drawing: MapProposal::reported(map, parameters, head, &schedule, stream),
            auditing: Some(MapProposal::exact(map, parameters, &schedule, stream)),
        })
    }

    /// The one whose log q is audited.
    pub fn audited(&self) -> &dyn Proposal {
        self.auditing.as_ref().unwrap_or(&self.drawing)
    }

    /// The one that draws.
    pub fn drawing(&self) -> &dyn Proposal {
        &self.drawing
    }

    /// The audited log q of the map's states of the samples of some indices, its kind, and the steps at which the map folded. `drawn` is what the
    /// drawing proposal told of them.
    pub fn audit(
        &self,
        indices: &[u64],
        drawn: (&[f64], Likelihood),
    ) -> Result<(Vec<f64>, Likelihood, usize)> {
        let Some(auditing) = &self.auditing else {
            return Ok((drawn.0.to_vec(), drawn.1, 0));
        };
        let draws = with_progress("audit", indices.len(), |control| {
            auditing.draw(indices, control)
        })?;
        let log_q = draws.log_density.trusted(Trust::Audited)?.to_vec();
        Ok((log_q, draws.log_density.likelihood(), draws.folds))
    }
}

/// Whether samples come with a log q by a head.
pub fn has_head(model: &Model, config: &Config) -> bool {
    let head = train::method(config).has_head() || model.head.is_some();
    head && config.sampling.guidance == 0.0
}

/// The model of a run for a configuration: trained to the end, calibrated if it is to be, and of the kind that is asked for.
pub fn model_of(run: &RunDir, config: &Config, molecule: &Molecule) -> Result<Model> {
    let path = run.checkpoint();
    let model = Model::read(&path, config.training.steps as u64)?;
    require_atoms(&model.coordinates, molecule, &path)?;
    settings::check_model(run, config, &model.metadata)?;
    ensure!(
        config.calibration.steps == 0 || model.calibration.is_some(),
        "{} is not calibrated yet; do so with 'boltzmap train {} --resume', or set calibration.steps to 0",
        path.display(),
        run.root().display()
    );
    Ok(model)
}
