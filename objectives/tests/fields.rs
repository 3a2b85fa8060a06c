//! Losses over the fields on targets whose flow map and divergence are known, for several interpolants.

use std::f64::consts::{FRAC_PI_2, PI};
use std::sync::Arc;

use boltzmap_autodiff::builder::Builder;
use boltzmap_autodiff::interpret::interpret;
use boltzmap_autodiff::ir::Program;
use boltzmap_kernels::random::Stream;
use boltzmap_models::subspace::Subspace;
use boltzmap_objectives::base::Gaussian;
use boltzmap_objectives::interpolant::{Curve, Interpolant};
use boltzmap_objectives::losses::*;
use proptest::prelude::*;

const BLOCK: usize = 3;
const TOKENS: usize = 4;
const CHANNELS: usize = 2;
const STATE: usize = TOKENS * CHANNELS;
const SIZE: usize = BLOCK * STATE;
/// Standard deviation of the base and amplitude of the latent noise of [`Path::Bridge`].
const BASE: f64 = 1.4;
const AMPLITUDE: f64 = 0.8;
/// Squares of residuals that are zero but for round-off: times are 0.03 apart at least.
const ROUND_OFF: f64 = 1e-22;

const STOPS: [StopGradient; 3] = [
    StopGradient::Target,
    StopGradient::TargetAndArgument,
    StopGradient::None,
];

fn shape(kappa: f64) -> LossShape {
    LossShape {
        block: BLOCK,
        tokens: TOKENS,
        channels: CHANNELS,
        kappa,
    }
}

#[derive(Clone, Copy, Debug)]
enum Path {
    Linear,
    Trigonometric,
    Bridge,
}

impl Path {
    const ALL: [Path; 3] = [Path::Linear, Path::Trigonometric, Path::Bridge];

    fn interpolant(self) -> Interpolant {
        match self {
            Path::Linear => Interpolant::linear(),
            Path::Trigonometric => Interpolant::trigonometric(),
            Path::Bridge => Interpolant::bridge(
                Arc::new(Gaussian {
                    standard_deviation: BASE,
                    subspace: Subspace::Full,
                    tokens: TOKENS,
                    channels: CHANNELS,
                }),
                AMPLITUDE,
            ),
        }
    }

    /// Variance of x_t for data N(0, σ² I).
    fn variance(self, sigma: f64) -> Curve {
        let a = sigma * sigma;
        match self {
            Path::Linear => Curve::new("variance", move |t| t.square() * a + (1.0 - t).square()),
            Path::Trigonometric => Curve::new("variance", move |t| {
                (t * FRAC_PI_2).sin().square() * a + (t * FRAC_PI_2).cos().square()
            }),
            Path::Bridge => Curve::new("variance", move |t| {
                t.square() * a
                    + (1.0 - t).square() * (BASE * BASE)
                    + (t * PI).sin().square().square() * (AMPLITUDE * AMPLITUDE)
            }),
        }
    }
}

/// The fields of N(0, σ² I) data, for which X_{s,t}(x) = x √(V_t/V_s): parameters are offsets of u and D.
fn gaussian_fields(path: Path, sigma: f64, kappa: f64) -> Program {
    let builder = Builder::new();
    let offsets = ["velocity", "divergence"].map(|name| builder.input(name, &[1]));
    let x = builder.input("x", &[BLOCK, TOKENS, CHANNELS]);
    let (s, t) = (builder.input("s", &[BLOCK]), builder.input("t", &[BLOCK]));
    let curve = path.variance(sigma);
    let ((from, _), (to, rate)) = (curve.trace(s), curve.trace(t));
    let distance = t - s;
    let apart = (distance * distance).greater(builder.constant(1e-16, &[BLOCK]));
    let safe = apart.select(distance, builder.constant(1.0, &[BLOCK]));
    let slope = apart.select((to - from) / safe, rate);
    let u = slope / (from.sqrt() * (from.sqrt() + to.sqrt()));
    let d = apart.select((to / from).ln() * 0.5 / safe, rate * 0.5 / to) * kappa;
    let u = x * u.reshape(&[BLOCK, 1, 1]) + offsets[0];
    let d = d.reshape(&[BLOCK, 1, 1]) + x * 0.0 + offsets[1];
    builder.finish(&[("mean_velocity", u), ("mean_divergence", d)])
}

fn normals(seed: u64, scale: f64) -> Vec<f64> {
    let mut values = vec![0.0; SIZE];
    Stream::new(seed, 1, 0).fill_standard_normal(&mut values);
    values.iter().map(|value| scale * value).collect()
}

fn signs(seed: u64) -> Vec<f64> {
    normals(seed, 1.0).iter().map(|v| v.signum()).collect()
}

/// Values of a loss's inputs. `offsets` are those of the student, the teacher is exact.
struct Values {
    offsets: [f64; 2],
    states: [Vec<f64>; 3],
    probes: [Vec<f64>; 2],
    s: Vec<f64>,
    t: Vec<f64>,
    h: Vec<f64>,
    finest: Vec<f64>,
}

impl Values {
    fn new(seed: u64, sigma: f64, times: &[(f64, f64, f64)]) -> Self {
        Self {
            offsets: [0.0; 2],
            states: [
                normals(seed, sigma),
                normals(seed + 1, BASE),
                normals(seed + 2, 1.0),
            ],
            probes: [signs(seed + 3), signs(seed + 4)],
            s: times.iter().map(|(s, _, _)| *s).collect(),
            t: times
                .iter()
                .map(|(s, place, _)| s + 0.03 + place * (0.98 - s - 0.03))
                .collect(),
            h: times.iter().map(|(_, _, h)| *h).collect(),
            finest: vec![0.0; BLOCK],
        }
    }

    /// Data, base and noise for which x_τ is the present one at the times `at` and ṽ is the exact velocity there.
    fn at_the_mean(mut self, path: Path, sigma: f64, at: &[f64]) -> Self {
        for b in 0..BLOCK {
            let (variance, rate) = path.variance(sigma).at(at[b]);
            for i in b * STATE..(b + 1) * STATE {
                let x = self.states[0][i];
                let v = x * rate / (2.0 * variance);
                // Two equations in x₁ and one other part; the third stays as it is.
                let part = |which: usize| {
                    let mut unit = [vec![0.0], vec![0.0], vec![0.0]];
                    unit[which][0] = 1.0;
                    let (state, rate) = path
                        .interpolant()
                        .numbers(&unit[0], &unit[1], &unit[2], at[b]);
                    (state[0], rate[0])
                };
                let (solved, kept) = match path {
                    Path::Bridge => (1, 2),
                    Path::Linear | Path::Trigonometric => (2, 1),
                };
                let (first, second, third) = (part(0), part(solved), part(kept));
                let held = self.states[kept][i];
                let right = (x - third.0 * held, v - third.1 * held);
                let determinant = first.0 * second.1 - first.1 * second.0;
                self.states[0][i] = (right.0 * second.1 - right.1 * second.0) / determinant;
                self.states[solved][i] = (first.0 * right.1 - first.1 * right.0) / determinant;
            }
        }
        self
    }

    fn run(&self, loss: &Loss) -> Vec<f64> {
        let mut inputs: Vec<Vec<f64>> = self.offsets.map(|offset| vec![offset]).to_vec();
        inputs.resize(loss.shared(), vec![0.0]);
        inputs.extend(loss.inputs().iter().map(|role| match role {
            LossInput::Data => self.states[0].clone(),
            LossInput::Base => self.states[1].clone(),
            LossInput::Noise => self.states[2].clone(),
            LossInput::Probe(number) => self.probes[*number].clone(),
            LossInput::Time(TimeRole::Start) => self.s.clone(),
            LossInput::Time(TimeRole::End) => self.t.clone(),
            LossInput::Fraction => self.h.clone(),
            LossInput::Finest => self.finest.clone(),
            LossInput::State | LossInput::LogDeterminant => panic!("no value for {role:?}"),
        }));
        let outputs = interpret(loss.program(), &inputs);
        outputs.into_iter().map(|o| o[0]).collect()
    }
}

fn terms(stop: StopGradient, divergence: Divergence, reduction: Reduction) -> ConsistencyTerms {
    ConsistencyTerms {
        weights: ConsistencyWeights {
            map: 1.0,
            divergence: 1.0,
        },
        stop,
        divergence,
        reduction,
    }
}

/// Every choice of the consistency terms; Rademacher probes are exact where the Jacobian is a multiple of the identity.
fn all_terms(probes: bool) -> Vec<ConsistencyTerms> {
    let mut all = Vec::new();
    for stop in STOPS {
        for reduction in [Reduction::Vector, Reduction::Sum] {
            all.push(terms(stop, Divergence::Head, reduction));
            if probes {
                all.push(terms(stop, Divergence::Hutchinson(2), reduction));
            }
        }
    }
    all
}

#[track_caller]
fn vanishes(outputs: &[f64], what: &str) {
    for value in outputs {
        assert!(value.abs() < ROUND_OFF, "{what}: {outputs:?}");
    }
}

fn times() -> impl Strategy<Value = Vec<(f64, f64, f64)>> {
    prop::collection::vec((0.02f64..0.9, 0.0f64..1.0, 0.05f64..0.95), BLOCK)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn map_conditions_vanish_on_the_gaussian_flow_map(
        sigma in 0.3f64..2.0, times in times(), mean_free in any::<bool>(), seed in 0u64..1000,
    ) {
        let kappa = if mean_free { 1.0 - 1.0 / TOKENS as f64 } else { 1.0 };
        for path in Path::ALL {
            let fields = gaussian_fields(path, sigma, kappa);
            let (interpolant, shape) = (path.interpolant(), shape(kappa));
            let values = Values::new(seed, sigma, &times);
            // Probes of the closed form see the full space, where κ is 1.
            for terms in all_terms(!mean_free) {
                let what = format!("{path:?} {terms:?}");
                let loss = lagrangian_fields_loss(&fields, shape, &interpolant, terms);
                vanishes(&values.run(&loss), &format!("Lagrangian {what}"));
                let loss = eulerian_fields_loss(&fields, shape, &interpolant, terms);
                vanishes(&values.run(&loss), &format!("Eulerian {what}"));
            }
            for terms in all_terms(false) {
                let what = format!("{path:?} {terms:?}");
                for split in [Split::Anywhere, Split::Halves] {
                    let loss = semigroup_loss(&fields, shape, &interpolant, split, terms);
                    vanishes(&values.run(&loss), &format!("{split:?} {what}"));
                }
            }
        }
    }

    #[test]
    fn mean_flow_vanishes_where_the_conditional_velocity_is_its_mean(
        sigma in 0.3f64..2.0, times in times(), seed in 0u64..1000,
    ) {
        for path in Path::ALL {
            let fields = gaussian_fields(path, sigma, 1.0);
            let interpolant = path.interpolant();
            for side in [Side::Start, Side::End] {
                let values = Values::new(seed, sigma, &times);
                let at = if side == Side::Start { values.s.clone() } else { values.t.clone() };
                let values = values.at_the_mean(path, sigma, &at);
                for terms in all_terms(true) {
                    let loss = mean_flow_loss(&fields, shape(1.0), &interpolant, side, terms);
                    vanishes(&values.run(&loss), &format!("{path:?} {side:?} {terms:?}"));
                }
                if side == Side::Start {
                    let weights = FalconWeights { average: 1.0, cycle: 10.0 };
                    let loss = falcon_loss(
                        &fields, shape(1.0), &interpolant, weights, StopGradient::TargetAndArgument,
                    );
                    vanishes(&values.run(&loss), &format!("FALCON {path:?}"));
                }
            }
        }
    }

    #[test]
    fn diagonal_terms_vanish_where_the_conditional_velocity_is_its_mean(
        sigma in 0.3f64..2.0, times in times(), seed in 0u64..1000,
    ) {
        let weights = DiagonalWeights { velocity: 1.0, divergence: 1.0 };
        for path in Path::ALL {
            let fields = gaussian_fields(path, sigma, 1.0);
            let values = Values::new(seed, sigma, &times);
            let at = values.t.clone();
            let values = values.at_the_mean(path, sigma, &at);
            for (of, velocity) in [
                (Probed::Own, VelocityTarget::Conditional),
                (Probed::Teacher, VelocityTarget::Teacher),
            ] {
                for reduction in [Reduction::Vector, Reduction::Sum] {
                    let divergence = DiagonalDivergence::Hutchinson { probes: 2, of };
                    let terms = DiagonalTerms { weights, velocity, divergence, reduction };
                    let loss = diagonal_fields_loss(&fields, shape(1.0), &path.interpolant(), terms);
                    vanishes(&values.run(&loss), &format!("{path:?} {terms:?}"));
                }
            }
        }
    }
}

/// The losses see a wrong head and a wrong map, by the amount that their formulas say.
#[test]
fn offsets_of_the_fields_are_seen() {
    let (sigma, path) = (0.6, Path::Linear);
    let fields = gaussian_fields(path, sigma, 1.0);
    let interpolant = path.interpolant();
    let mut values = Values::new(
        5,
        sigma,
        &[(0.1, 0.5, 0.3), (0.4, 0.2, 0.5), (0.6, 0.9, 0.8)],
    );
    values.offsets = [0.0, 0.3];
    let blocks = BLOCK as f64;
    let stop = StopGradient::TargetAndArgument;
    for (reduction, expected) in [
        (Reduction::Vector, 0.09 * blocks),
        (Reduction::Sum, 0.09 * blocks * STATE as f64),
    ] {
        // An offset of D that is constant in time has no derivative: each condition sees it whole.
        let terms = terms(stop, Divergence::Head, reduction);
        for loss in [
            lagrangian_fields_loss(&fields, shape(1.0), &interpolant, terms),
            eulerian_fields_loss(&fields, shape(1.0), &interpolant, terms),
            semigroup_loss(&fields, shape(1.0), &interpolant, Split::Anywhere, terms),
        ] {
            let outputs = values.run(&loss);
            assert!(outputs[1] < ROUND_OFF, "{outputs:?}");
            assert!(
                (outputs[2] - expected).abs() < 1e-10 * expected,
                "{outputs:?}"
            );
            assert!((outputs[0] - outputs[1] - outputs[2]).abs() < 1e-12);
        }
    }
    // A wrong velocity is seen by every condition on the map, the cycle included.
    values.offsets = [0.2, 0.0];
    let terms = terms(stop, Divergence::Head, Reduction::Vector);
    let cycle = FalconWeights {
        average: 0.0,
        cycle: 1.0,
    };
    for loss in [
        lagrangian_fields_loss(&fields, shape(1.0), &interpolant, terms),
        eulerian_fields_loss(&fields, shape(1.0), &interpolant, terms),
        semigroup_loss(&fields, shape(1.0), &interpolant, Split::Anywhere, terms),
        falcon_loss(&fields, shape(1.0), &interpolant, cycle, stop),
    ] {
        assert!(values.run(&loss)[1] > 1e-5, "{:?}", loss.parts());
    }
}

/// The trap of the mean-flow sign: x at the start with the sign of x at the end is not zero on the closed form.
#[test]
fn the_two_sides_of_mean_flow_differ_in_sign() {
    let (sigma, path) = (0.6, Path::Linear);
    let times = [(0.2, 0.5, 0.5), (0.3, 0.6, 0.5), (0.5, 0.7, 0.5)];
    let fields = gaussian_fields(path, sigma, 1.0);
    // u − v = ±(t−s)(∂_s + v·∇)u: the map's own fields with the derivative turned round.
    let turned = {
        let builder = Builder::new();
        let offsets = ["velocity", "divergence"].map(|name| builder.input(name, &[1]));
        let x = builder.input("x", &[BLOCK, TOKENS, CHANNELS]);
        let (s, t) = (builder.input("s", &[BLOCK]), builder.input("t", &[BLOCK]));
        let exact = builder.call(&fields, &[offsets[0], offsets[1], x, s, t]);
        let diagonal = builder.call(&fields, &[offsets[0], offsets[1], x, s, s]);
        builder.finish(&[
            ("mean_velocity", 2.0 * diagonal[0] - exact[0]),
            ("mean_divergence", 2.0 * diagonal[1] - exact[1]),
        ])
    };
    let values = Values::new(7, sigma, &times);
    let at = values.s.clone();
    let values = values.at_the_mean(path, sigma, &at);
    let terms = terms(
        StopGradient::TargetAndArgument,
        Divergence::Head,
        Reduction::Vector,
    );
    let run = |fields: &Program| {
        let loss = mean_flow_loss(fields, shape(1.0), &path.interpolant(), Side::Start, terms);
        values.run(&loss)
    };
    assert!(run(&fields)[1] < ROUND_OFF && run(&fields)[2] < ROUND_OFF);
    // v stays, (t−s) du turns its sign: what the other sign's equation would be solved by.
    let wrong = run(&turned);
    assert!(wrong[1] > 1e-4 && wrong[2] > 1e-4, "{wrong:?}");
}

/// Where the halves are read off the diagonal, one step is two Euler steps.
#[test]
fn the_finest_shortcuts_come_from_the_diagonal() {
    let (sigma, path) = (0.6, Path::Linear);
    let fields = gaussian_fields(path, sigma, 1.0);
    let mut values = Values::new(
        5,
        sigma,
        &[(0.1, 0.5, 0.3), (0.4, 0.2, 0.5), (0.6, 0.9, 0.8)],
    );
    values.finest = vec![1.0; BLOCK];
    let stop = StopGradient::TargetAndArgument;
    let terms = terms(stop, Divergence::Head, Reduction::Vector);
    let loss = semigroup_loss(
        &fields,
        shape(1.0),
        &path.interpolant(),
        Split::Halves,
        terms,
    );
    let found = values.run(&loss);
    let variance = |t: f64| path.variance(sigma).at(t);
    let rate = |t: f64| variance(t).1 / (2.0 * variance(t).0);
    let (mut map, mut divergence) = (0.0, 0.0);
    for b in 0..BLOCK {
        let (s, t) = (values.s[b], values.t[b]);
        let r = 0.5 * (s + t);
        let exact = (variance(t).0 / variance(s).0).sqrt();
        let first = rate(s);
        let second = rate(r) * (1.0 + (r - s) * first);
        let residual = (exact - 1.0) / (t - s) - 0.5 * (first + second);
        let log_residual = exact.ln() / (t - s) - 0.5 * (rate(s) + rate(r));
        for i in b * STATE..(b + 1) * STATE {
            let x = s * values.states[0][i] + (1.0 - s) * values.states[2][i];
            map += (residual * x).powi(2) / STATE as f64;
            divergence += log_residual.powi(2) / STATE as f64;
        }
    }
    assert!((found[1] - map).abs() < 1e-12 * map, "{found:?} {map}");
    assert!(
        (found[2] - divergence).abs() < 1e-10 * divergence,
        "{found:?} {divergence}"
    );
}

/// A part without weight is not in the program, and neither is its teacher.
#[test]
fn parts_without_weight_are_left_out() {
    let fields = gaussian_fields(Path::Linear, 0.6, 1.0);
    let mut terms = terms(
        StopGradient::TargetAndArgument,
        Divergence::Hutchinson(2),
        Reduction::Sum,
    );
    terms.weights.divergence = 0.0;
    let interpolant = Interpolant::linear();
    let loss = mean_flow_loss(&fields, shape(1.0), &interpolant, Side::Start, terms);
    let program = loss.program();
    assert_eq!(program.output_names, ["loss", "map_consistency"]);
    let expected = ["velocity", "divergence", "data", "noise", "s", "t"];
    assert_eq!(program.input_names, expected);
    let (s, t) = (TimeRole::Start, TimeRole::End);
    let expected = [
        LossInput::Data,
        LossInput::Noise,
        LossInput::Time(s),
        LossInput::Time(t),
    ];
    assert_eq!(loss.inputs(), expected);
    assert!(!loss.has_teacher());
}

/// Calibration is the square of Λ's error and sees the head alone.
#[test]
fn calibration_compares_log_determinants() {
    let (sigma, path) = (0.6, Path::Linear);
    let fields = gaussian_fields(path, sigma, 1.0);
    let loss = calibration_loss(&fields, shape(1.0));
    let (s, t) = ([0.1, 0.4, 0.6], [0.3, 0.9, 0.7]);
    let errors = [0.2, -0.1, 0.0];
    let variance = |t: f64| path.variance(sigma).at(t).0;
    let log_det: Vec<f64> = (0..BLOCK)
        .map(|b| 0.5 * STATE as f64 * (variance(t[b]) / variance(s[b])).ln() + errors[b])
        .collect();
    let inputs = [
        vec![0.0],
        vec![0.0],
        normals(1, 1.0),
        s.to_vec(),
        t.to_vec(),
        log_det,
    ];
    let found = interpret(loss.program(), &inputs);
    let expected = errors.iter().map(|e| e * e).sum::<f64>() / STATE as f64;
    assert!((found[0][0] - expected).abs() < 1e-14, "{found:?}");
    let gradient = interpret(&boltzmap_autodiff::grad(loss.program(), &[0, 1]), &inputs);
    assert!(
        gradient[2][0] == 0.0 && gradient[3][0] != 0.0,
        "{gradient:?}"
    );
}
