//! A target of one's own: a double well in ten dimensions. A flow map is trained on a few of its samples, its likelihood is audited, and
//! sequential Monte Carlo takes the map's samples to the well itself.
//!
//! `cargo run --release --example own_target`

use std::error::Error;

use boltzmap_kernels::random::Stream;
use boltzmap_models::MapProposal;
use boltzmap_models::flow_map::{FlowMap, FlowMapConfig};
use boltzmap_models::parameters::Parameters;
use boltzmap_models::schedule::Schedule;
use boltzmap_objectives::trainer::{DataSource, Trainer, TrainerConfig};
use boltzmap_sampling::target::DensityAndGradient;
use boltzmap_sampling::{
    Control, Path, SamplingError, Settings, Target, Trust, importance_sampling,
    sequential_monte_carlo,
};

const D: usize = 10;

/// ln p = −4 (x₀² − 1)² − ½ x₀ − ½ Σ_{k>0} x_k², up to a constant.
struct DoubleWell;

impl Target for DoubleWell {
    fn shape(&self) -> [usize; 2] {
        [1, D]
    }

    fn log_density_and_gradient(
        &self,
        states: &[f64],
    ) -> Result<DensityAndGradient, SamplingError> {
        let mut gradients: Vec<f64> = states.iter().map(|x| -x).collect();
        let wells = gradients.chunks_exact_mut(D).zip(states.chunks_exact(D));
        let log_density = wells.map(|(gradient, x)| {
            let well = x[0] * x[0] - 1.0;
            gradient[0] = -16.0 * x[0] * well - 0.5;
            let rest: f64 = x[1..].iter().map(|x| x * x).sum();
            -4.0 * well * well - 0.5 * x[0] - 0.5 * rest
        });
        Ok(DensityAndGradient {
            log_density: log_density.collect(),
            gradients,
        })
    }
}

/// Its samples, by rejection along x₀.
impl DataSource for DoubleWell {
    fn len(&self) -> usize {
        1
    }

    fn write(&self, _index: usize, stream: &mut Stream, state: &mut [f32]) {
        stream.fill_standard_normal(state);
        state[0] = loop {
            let x = 4.0 * stream.uniform() - 2.0;
            let log_density = -4.0 * (x * x - 1.0).powi(2) - 0.5 * x;
            if stream.uniform() < (log_density - 1.0).exp() {
                break x as f32;
            }
        };
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let map = FlowMap::new(&FlowMapConfig::perceptron(D, 64, 2))?;
    let (schedule, steps) = (Schedule::uniform(4, 0.01)?, 1500);
    let mut trainer = Trainer::start(&map, TrainerConfig::scallop(&schedule, steps, 1))?;
    while trainer.next_step() < steps {
        trainer.step(&DoubleWell);
    }
    let parameters = Parameters::from_flat(map.layout(), trainer.optimizer.average)?;

    let control = Control::default();
    let exact = MapProposal::exact(&map, &parameters, &schedule, [1, 1]);
    let head = MapProposal::reported(&map, &parameters, None, &schedule, [1, 1]);
    let indices: Vec<u64> = (0..4000).collect();
    let audited = importance_sampling(&exact, &DoubleWell, &indices, Trust::Audited, &control)?;
    // What the head reports makes weights only for those who say so.
    let reported = importance_sampling(&head, &DoubleWell, &indices, Trust::Reported, &control)?;
    for found in [&audited, &reported] {
        let (kind, log_z) = (found.likelihood, found.log_normalisation());
        println!("log q {kind}: ESS {:.3}, ln Z {log_z:.3}", found.ess());
    }
    let path = Path::Bridge { ess: 0.9 };
    let settings = Settings {
        path,
        ..Settings::default()
    };
    let found = sequential_monte_carlo(&exact, &DoubleWell, &settings, &control)?;
    let left = found.states.chunks_exact(D).filter(|x| x[0] < 0.0).count();
    let (n, log_z) = (settings.particles, found.log_normalisation);
    println!("SMC: ln Z {log_z:.3}, {left} of {n} particles in the left well");
    Ok(())
}
