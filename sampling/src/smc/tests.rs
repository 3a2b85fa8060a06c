use super::*;
use crate::gaussian::DiagonalGaussian;
use crate::proposal::Draws;
use crate::target::DensityAndGradient;

/// exp(3) times a mixture of two Gaussians of width ½ at ±2 along the first coordinate, 0.2 of it at −2.
struct TwoWells(usize);

const LOG_Z: f64 = 3.0;

impl TwoWells {
    fn of_state(&self, x: &[f64]) -> (f64, Vec<f64>) {
        let variance = 0.25;
        let centres = [(-2.0, 0.2f64), (2.0, 0.8)];
        let logs = centres.map(|(centre, share)| {
            let square: f64 = x
                .iter()
                .enumerate()
                .map(|(k, x)| (x - if k == 0 { centre } else { 0.0 }).powi(2))
                .sum();
            let norm = 0.5 * self.0 as f64 * (std::f64::consts::TAU * variance).ln();
            share.ln() - 0.5 * square / variance - norm
        });
        let total = statistics::log_sum_exp(&logs);
        let shares = logs.map(|l| (l - total).exp());
        let gradient = (0..self.0)
            .map(|k| {
                let mean: f64 = match k {
                    0 => centres.iter().zip(shares).map(|((c, _), s)| c * s).sum(),
                    _ => 0.0,
                };
                (mean - x[k]) / variance
            })
            .collect();
        (LOG_Z + total, gradient)
    }
}

impl Target for TwoWells {
    fn shape(&self) -> [usize; 2] {
        [1, self.0]
    }

    fn log_density(&self, states: &[f64]) -> Result<Vec<f64>, SamplingError> {
        Ok(states
            .chunks_exact(self.0)
            .map(|x| self.of_state(x).0)
            .collect())
    }

    fn log_density_and_gradient(
        &self,
        states: &[f64],
    ) -> Result<DensityAndGradient, SamplingError> {
        let (log_density, gradients): (Vec<f64>, Vec<Vec<f64>>) = states
            .chunks_exact(self.0)
            .map(|x| self.of_state(x))
            .unzip();
        Ok(DensityAndGradient {
            log_density,
            gradients: gradients.concat(),
        })
    }
}

/// A Gaussian that tells densities but no gradients, or no densities either.
struct Silent(DiagonalGaussian, bool);

impl Proposal for Silent {
    fn shape(&self) -> [usize; 2] {
        Proposal::shape(&self.0)
    }

    fn draw(&self, indices: &[u64], control: &Control<'_>) -> Result<Draws, SamplingError> {
        self.0.draw(indices, control)
    }

    fn log_density(
        &self,
        states: &[f64],
        control: &Control<'_>,
    ) -> Result<LogDensity, SamplingError> {
        match self.1 {
            true => Proposal::log_density(&self.0, states, control),
            false => Ok(LogDensity::Unknown),
        }
    }
}

fn wide(d: usize, seed: u64) -> DiagonalGaussian {
    DiagonalGaussian::new([1, d], vec![0.0; d], vec![2.0; d], seed).unwrap()
}

/// Share of the particles in the well at −2, and mean of x₁² in the others.
fn seen(result: &SmcResult, d: usize) -> (f64, f64) {
    let n = result.ancestors.len() as f64;
    let left = result.states.chunks_exact(d).filter(|x| x[0] < 0.0).count();
    let square: f64 = result.states.chunks_exact(d).map(|x| x[1] * x[1]).sum();
    (left as f64 / n, square / n)
}

#[test]
fn particles_arrive_at_the_target_and_tell_its_normalisation() {
    let d = 6;
    let control = Control::default();
    let settings = Settings {
        particles: 500,
        moves: 6,
        step: 0.4,
        ..Settings::default()
    };
    let runs = 20;
    let (mut log_z, mut left, mut square) = (Vec::new(), 0.0, 0.0);
    for seed in 0..runs {
        let settings = Settings { seed, ..settings };
        let found =
            sequential_monte_carlo(&wide(d, seed), &TwoWells(d), &settings, &control).unwrap();
        assert_eq!(found.stages.last().unwrap().lambda, 1.0);
        assert!(found.stages.windows(2).all(|s| s[0].lambda < s[1].lambda));
        assert!(found.stages.len() > 2 && found.distinct_ancestors() > 20);
        for stage in &found.stages[..found.stages.len() - 1] {
            assert!((stage.ess - 0.5).abs() < 0.01, "{stage:?}");
        }
        let (l, s) = seen(&found, d);
        log_z.push(found.log_normalisation);
        left += l / runs as f64;
        square += s / runs as f64;
    }
    let mean = log_z.iter().sum::<f64>() / runs as f64;
    let variance = log_z.iter().map(|z| (z - mean).powi(2)).sum::<f64>() / (runs - 1) as f64;
    let error = (variance / runs as f64).sqrt();
    // The bias of a logarithm of an unbiased mean is −½ of its variance.
    assert!(
        (mean + 0.5 * variance - LOG_Z).abs() < 4.0 * error,
        "{mean} {error}"
    );
    assert!(error < 0.05, "{error}");
    // 10 000 particles, each run's wells as uncertain as some dozen of ancestors make them.
    assert!((left - 0.2).abs() < 0.03, "{left}");
    assert!((square / 0.25 - 1.0).abs() < 0.05, "{square}");
}

#[test]
fn a_proposal_without_gradients_bridges_and_one_without_densities_does_not() {
    let d = 3;
    let control = Control::default();
    let settings = Settings {
        particles: 2000,
        step: 0.4,
        ..Settings::default()
    };
    let run = |told: bool, path: Path| {
        let settings = Settings { path, ..settings };
        let proposal = Silent(wide(d, 1), told);
        sequential_monte_carlo(&proposal, &TwoWells(d), &settings, &control)
    };
    let bridge = Path::Bridge { ess: 0.5 };
    let found = run(true, bridge).unwrap();
    let (left, square) = seen(&found, d);
    assert!((left - 0.2).abs() < 0.06, "{left}");
    assert!((square / 0.25 - 1.0).abs() < 0.15, "{square}");
    assert!((found.log_normalisation - LOG_Z).abs() < 0.3);
    let refused = run(false, bridge).unwrap_err();
    assert!(matches!(refused, SamplingError::NoDensity), "{refused}");
    // At once, by the densities of what was drawn alone.
    let found = run(false, Path::ResampleAndMove).unwrap();
    assert_eq!(found.stages.len(), 1);
    let (left, square) = seen(&found, d);
    assert!((left - 0.2).abs() < 0.1, "{left}");
    assert!((square / 0.25 - 1.0).abs() < 0.15, "{square}");
}

/// Particles of the target stay its particles, however bad the step.
#[test]
fn moves_leave_the_target_as_it_is() {
    let target = DiagonalGaussian::new([1, 2], vec![1.0, -1.0], vec![0.5, 2.0], 9).unwrap();
    for step in [0.3, 0.9] {
        let n = 20_000;
        let control = Control::default();
        let bridge = Bridge {
            proposal: &target,
            target: &target,
            control: &control,
            trust: Trust::Audited,
            lambda: 1.0,
        };
        let mut states = target
            .draw(&(0..n).collect::<Vec<u64>>(), &control)
            .unwrap()
            .states;
        let mut point = bridge.at(&states).unwrap();
        let mut streams: Vec<Stream> = (0..n).map(|i| Stream::new(2, 3, i)).collect();
        let mut acceptance = 0.0;
        for _ in 0..10 {
            acceptance =
                moves::langevin(&bridge, &mut states, &mut point, &mut streams, step).unwrap();
        }
        assert!(acceptance > 0.3 && acceptance < 0.999, "{acceptance}");
        for (k, (mean, sigma)) in [(1.0, 0.5), (-1.0, 2.0)].into_iter().enumerate() {
            let values: Vec<f64> = states.iter().skip(k).step_by(2).copied().collect();
            let found = values.iter().sum::<f64>() / n as f64;
            let square = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
            // 4.5 standard errors of independent values.
            let root = (n as f64).sqrt();
            assert!((found - mean).abs() < 4.5 * sigma / root, "{found}");
            assert!((square / (sigma * sigma) - 1.0).abs() < 4.5 * 1.42 / root);
        }
        // What is kept with the particles belongs to them.
        let fresh = Target::log_density(&target, &states).unwrap();
        assert_eq!(fresh, point.log_p);
    }
}

#[test]
fn runs_repeat_and_settings_are_checked() {
    let control = Control::default();
    let settings = Settings {
        particles: 100,
        ..Settings::default()
    };
    let run =
        |settings: &Settings| sequential_monte_carlo(&wide(2, 1), &TwoWells(2), settings, &control);
    assert_eq!(run(&settings).unwrap(), run(&settings).unwrap());
    for (bad, word) in [
        (
            Settings {
                particles: 0,
                ..settings
            },
            "particle",
        ),
        (
            Settings {
                step: f64::NAN,
                ..settings
            },
            "step",
        ),
        (
            Settings {
                path: Path::Bridge { ess: 1.0 },
                ..settings
            },
            "effective",
        ),
    ] {
        let message = run(&bad).unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    }
    let stopped = std::sync::atomic::AtomicBool::new(true);
    let control = Control {
        cancel: Some(&stopped),
        progress: None,
    };
    let ended = sequential_monte_carlo(&wide(2, 1), &TwoWells(2), &settings, &control);
    assert!(matches!(ended, Err(SamplingError::Cancelled)));
}
