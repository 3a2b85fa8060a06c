//! Pull-backs against dual numbers, differences and directional derivatives.

use super::reference;
use crate::batch::BatchEvaluator;
use crate::builder::build_minimised;
use crate::chart::zmatrix::Reference;
use crate::chart::{
    CartesianChart, ChartError, Decoded, InternalChart, InternalOptions, Whitening, ZMatrix,
};
use crate::minimise::MinimiseSettings;
use crate::system::GAS_CONSTANT;
use crate::terms::Dual;
use crate::{ForceField, build_sequence};
use boltzmap_kernels::random::Stream;
use boltzmap_kernels::simd::Tier;
use proptest::prelude::*;
use std::f64::consts::TAU;

/// A peptide with a chart fitted to `frames`.
struct Fitted {
    chart: InternalChart,
    /// `[n, d]`, all inside the domain.
    states: Vec<f64>,
}

fn uniform(stream: &mut Stream, reach: f64) -> f64 {
    reach * (2.0 * stream.uniform() - 1.0)
}

/// Geometries around a built one, `[n, atoms, 3]`: r and θ jittered, every proper torsion turned anywhere.
fn jittered(matrix: &ZMatrix, built: &[f64], count: usize, stream: &mut Stream) -> Vec<f64> {
    let mut resting = vec![0.0; matrix.dimension()];
    matrix.to_internal(built, &mut resting).unwrap();
    let mut frames = vec![0.0; count * built.len()];
    for frame in frames.chunks_exact_mut(built.len()) {
        let mut q = resting.clone();
        for (token, q) in q.chunks_exact_mut(3).enumerate() {
            q[0] *= 1.0 + uniform(stream, 0.02);
            q[1] *= 1.0 + uniform(stream, 0.02);
            let turned = token > 0 && matrix.rows[token - 1].reference == Reference::Torsion;
            q[2] += uniform(stream, if turned { 2.5 } else { 0.05 });
        }
        matrix.to_cartesian(&q, frame);
    }
    frames
}

/// A chart of a sequence with overlapping windows, and `count` of its states.
fn fitted(sequence: &str, whitening: Whitening, count: usize, seed: u64) -> Fitted {
    let (topology, built) = build_sequence(sequence).unwrap();
    let numbers = topology.atomic_numbers();
    let matrix = ZMatrix::build(numbers.len(), &topology.bonds, &numbers).unwrap();
    let mut stream = Stream::new(seed, 1, 0);
    let needed = match whitening {
        Whitening::Full => 2 * matrix.dimension(),
        Whitening::Diagonal => 64,
    };
    let frames = jittered(&matrix, &built, needed.max(count), &mut stream);
    let options = InternalOptions {
        whitening,
        fold_rotors: true,
        rotor_overlap: 0.5,
    };
    let chart = InternalChart::fit(matrix, &numbers, options, &frames).unwrap();
    let states = chart.encode(&frames[..count * built.len()]).unwrap().state;
    Fitted { chart, states }
}

impl Fitted {
    fn d(&self) -> usize {
        self.chart.dimension()
    }

    /// One state with ψ of a rotor moved to a fraction of its overlap from an edge, −1 the far end, 1 the near one.
    fn near_edge(&self, rotor: usize, upper: bool, fraction: f64) -> Vec<f64> {
        let rotor = &self.chart.rotors[rotor];
        assert!(rotor.overlap > 0.0, "the data must let windows overlap");
        let inside = fraction * rotor.overlap;
        let mut q = vec![0.0; self.d()];
        self.chart
            .standardiser
            .invert(&self.states[..self.d()], &mut q);
        let [psi, ..] = rotor.coordinates();
        q[psi] = match upper {
            false => rotor.window + inside,
            true => rotor.window + TAU / 3.0 - inside,
        };
        let mut y = q.clone();
        self.chart.standardiser.apply(&q, &mut y);
        y
    }
}

/// A gradient at every position: neither free of force nor of torque.
fn gradients(count: usize, stream: &mut Stream) -> Vec<f64> {
    (0..count)
        .map(|_| 100.0 * stream.standard_normal())
        .collect()
}

/// Which terms a derivative is of beside g·x(y).
#[derive(Clone, Copy)]
struct Terms {
    log_det: bool,
    log_share: bool,
}

const FUNCTION: Terms = Terms {
    log_det: false,
    log_share: false,
};
const LOG_DENSITY: Terms = Terms {
    log_det: true,
    log_share: true,
};

/// The derivative of g·x(y) and `terms` along `direction`, by dual numbers.
fn along(chart: &InternalChart, y: &[f64], g: &[f64], direction: &[f64], terms: Terms) -> f64 {
    let seeded: Vec<Dual> = y
        .iter()
        .zip(direction)
        .map(|(&value, &derivative)| Dual { value, derivative })
        .collect();
    let decoding = reference::decode(chart, &seeded);
    let moved = decoding.positions.iter().zip(g);
    let mut sum: f64 = moved.map(|(x, g)| g * x.derivative).sum();
    if terms.log_det {
        sum += decoding.log_det.derivative;
    }
    if terms.log_share {
        sum += decoding.log_share.derivative;
    }
    sum
}

/// [`along`] every coordinate, `[d]`.
fn by_dual_numbers(chart: &InternalChart, y: &[f64], g: &[f64], terms: Terms) -> Vec<f64> {
    let mut direction = vec![0.0; y.len()];
    (0..y.len())
        .map(|i| {
            direction[i] = 1.0;
            let derivative = along(chart, y, g, &direction, terms);
            direction[i] = 0.0;
            derivative
        })
        .collect()
}

/// Largest difference relative to each coordinate's own size.
fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs() / b.abs())
        .fold(0.0, f64::max)
}

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.map(f64::abs).fold(0.0, f64::max)
}

/// The gradient of `value` by central differences of fourth order.
fn by_differences(value: &dyn Fn(&[f64]) -> f64, y: &[f64]) -> Vec<f64> {
    const STEP: f64 = 1e-3;
    (0..y.len())
        .map(|i| {
            let at = |steps: f64| {
                let mut moved = y.to_vec();
                moved[i] += steps * STEP;
                value(&moved)
            };
            (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * STEP)
        })
        .collect()
}

/// Both pull-backs of all states against dual numbers, on every instruction set.
fn agrees_with_dual_numbers(chart: &InternalChart, states: &[f64], stream: &mut Stream) {
    let d = chart.dimension();
    let decoded = chart.decode(states).unwrap();
    assert!(decoded.in_domain.iter().all(|&inside| inside));
    let width = 3 * chart.matrix.n_atoms();
    let g = gradients(decoded.positions.len(), stream);
    for tier in Tier::available() {
        let plain = chart
            .pull_back_on::<f64, false>(tier, states, &decoded, &g)
            .unwrap();
        let density = chart
            .pull_back_on::<f64, true>(tier, states, &decoded, &g)
            .unwrap();
        for (k, y) in states.chunks_exact(d).enumerate() {
            let g = &g[k * width..(k + 1) * width];
            for (name, found, terms) in [
                ("function", &plain, FUNCTION),
                ("log-density", &density, LOG_DENSITY),
            ] {
                let expected = by_dual_numbers(chart, y, g, terms);
                let error = relative_error(&found[k * d..(k + 1) * d], &expected);
                assert!(error < 1e-9, "{tier:?}, state {k}, {name}: {error}");
            }
        }
    }
}

#[test]
fn the_reference_decodes_as_the_chart_does() {
    for whitening in [Whitening::Full, Whitening::Diagonal] {
        let fitted = fitted("Ace-AVP-Nme", whitening, 8, 1);
        let mut states = fitted.states.clone();
        states.extend(fitted.near_edge(0, false, -0.7));
        states.extend(fitted.near_edge(1, true, 0.3));
        let decoded = fitted.chart.decode(&states).unwrap();
        let width = 3 * fitted.chart.matrix.n_atoms();
        for (k, y) in states.chunks_exact(fitted.d()).enumerate() {
            let reference = reference::decode(&fitted.chart, y);
            assert!((reference.log_det - decoded.log_det[k]).abs() < 1e-10);
            assert!((reference.log_share - decoded.log_share[k]).abs() < 1e-10);
            for (a, b) in reference
                .positions
                .iter()
                .zip(&decoded.positions[k * width..])
            {
                assert!((a - b).abs() < 1e-12);
            }
        }
    }
}

#[test]
fn peptides_agree_with_dual_numbers() {
    // One disulfide, a proline's ring, many methyls and a charged amine, which is a rotor as well.
    for (sequence, whitening) in [
        ("Ace-A-Nme", Whitening::Full),
        ("Ace-A-Nme", Whitening::Diagonal),
        ("AVLPTMI", Whitening::Diagonal),
        ("Ace-CGGC-Nme:1-4", Whitening::Full),
        ("KG", Whitening::Full),
    ] {
        // 11: a full tile of eight lanes and a partial one.
        let fitted = fitted(sequence, whitening, 11, 2);
        agrees_with_dual_numbers(&fitted.chart, &fitted.states, &mut Stream::new(2, 2, 0));
    }
}

/// The share falls to zero at the far end of a window, and is one from the near end of its overlap on.
#[test]
fn the_slope_of_the_share_is_felt_near_the_edges_of_windows() {
    for whitening in [Whitening::Full, Whitening::Diagonal] {
        let fitted = fitted("Ace-AV-Nme", whitening, 1, 3);
        let chart = &fitted.chart;
        let mut states = Vec::new();
        for rotor in 0..chart.rotors.len() {
            for fraction in [-0.999, -0.6, -0.05, 0.0, 0.4, 0.9] {
                for upper in [false, true] {
                    states.extend(fitted.near_edge(rotor, upper, fraction));
                }
            }
        }
        agrees_with_dual_numbers(chart, &states, &mut Stream::new(3, 2, 0));

        // The comparison would see a missing slope: within the overlaps the derivative without it is another.
        let decoded = chart.decode(&states).unwrap();
        let none = vec![0.0; decoded.positions.len()];
        let found = chart
            .pull_back_log_density(&states, &decoded, &none)
            .unwrap();
        let without = Terms {
            log_share: false,
            ..LOG_DENSITY
        };
        let d = fitted.d();
        for (y, found) in states.chunks_exact(d).zip(found.chunks_exact(d)) {
            let none = &none[..3 * chart.matrix.n_atoms()];
            let missing = by_dual_numbers(chart, y, none, without);
            let difference = largest(found.iter().zip(&missing).map(|(a, b)| a - b));
            assert!(difference > 1e-3, "{difference}");
        }
    }
}

#[test]
fn differences_of_what_decoding_returns_agree() {
    let fitted = fitted("Ace-AP-Nme", Whitening::Full, 2, 4);
    let chart = &fitted.chart;
    let d = fitted.d();
    let mut states = fitted.states.clone();
    states.extend(fitted.near_edge(0, true, -0.5));
    let decoded = chart.decode(&states).unwrap();
    let g = gradients(decoded.positions.len(), &mut Stream::new(4, 2, 0));
    let found = chart.pull_back_log_density(&states, &decoded, &g).unwrap();
    let width = 3 * chart.matrix.n_atoms();
    for (k, y) in states.chunks_exact(d).enumerate() {
        let g = &g[k * width..(k + 1) * width];
        let value = |y: &[f64]| {
            let decoded = chart.decode(y).unwrap();
            let function: f64 = decoded.positions.iter().zip(g).map(|(x, g)| x * g).sum();
            function + decoded.log_det[0] + decoded.log_share[0]
        };
        let expected = by_differences(&value, y);
        let scale = largest(expected.iter().copied());
        for (a, b) in found[k * d..].iter().zip(&expected) {
            assert!((a - b).abs() < 1e-8 * scale, "{a} {b} of {scale}");
        }
    }
}

/// The whole of ∇ log π in states: decoding, forces over kT, pull-back.
#[test]
fn the_gradient_of_the_molecular_log_density_is_that_of_its_value() {
    let kt = GAS_CONSTANT * 300.0;
    let built = build_minimised(
        "Ace-A-Nme",
        &ForceField::amber99sbildn_obc2(),
        MinimiseSettings::default(),
    )
    .unwrap();
    let evaluator = BatchEvaluator::<f64>::new(&built.system);
    let fitted = fitted("Ace-A-Nme", Whitening::Full, 1, 5);
    let chart = &fitted.chart;
    let mut stream = Stream::new(5, 2, 0);
    let mut states = chart.encode(&built.positions.repeat(4)).unwrap().state;
    states
        .iter_mut()
        .for_each(|y| *y += 0.05 * stream.standard_normal());
    let value = |y: &[f64]| {
        let decoded = chart.decode(y).unwrap();
        let energy = evaluator.energies(&decoded.positions).unwrap()[0];
        decoded.log_det[0] + decoded.log_share[0] - energy / kt
    };
    let decoded = chart.decode(&states).unwrap();
    assert!(decoded.in_domain.iter().all(|&inside| inside));
    let mut score = vec![0.0; decoded.positions.len()];
    evaluator
        .energies_forces(&decoded.positions, &mut [0.0; 4], Some(&mut score))
        .unwrap();
    score.iter_mut().for_each(|force| *force /= kt);
    let found = chart
        .pull_back_log_density(&states, &decoded, &score)
        .unwrap();
    let d = fitted.d();
    for (y, found) in states.chunks_exact(d).zip(found.chunks_exact(d)) {
        let expected = by_differences(&value, y);
        let scale = largest(expected.iter().copied());
        for (a, b) in found.iter().zip(&expected) {
            assert!((a - b).abs() < 1e-7 * scale, "{a} {b} of {scale}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// ⟨pull-back, v⟩ is the derivative along v, for any peptide, whitening and gradient.
    #[test]
    fn a_pull_back_times_a_direction_is_the_derivative_along_it(
        residues in "[ARNDCQEGHILKMFPSTWYV]{2,4}",
        capped in any::<bool>(),
        full in any::<bool>(),
        seed in 0u64..1_000_000,
    ) {
        let sequence = if capped { format!("Ace-{residues}-Nme") } else { residues };
        let whitening = if full { Whitening::Full } else { Whitening::Diagonal };
        let fitted = fitted(&sequence, whitening, 9, seed);
        let chart = &fitted.chart;
        let mut stream = Stream::new(seed, 2, 0);
        let mut states = fitted.states.clone();
        // Data that is dense up to a window's edge lets it reach no further.
        let reaching = (0..chart.rotors.len()).filter(|&rotor| chart.rotors[rotor].overlap > 0.0);
        for rotor in reaching {
            let fraction = uniform(&mut stream, 0.99);
            states.extend(fitted.near_edge(rotor, stream.uniform() < 0.5, fraction));
        }
        let decoded = chart.decode(&states).unwrap();
        let g = gradients(decoded.positions.len(), &mut stream);
        let function = chart.pull_back(&states, &decoded, &g).unwrap();
        let density = chart.pull_back_log_density(&states, &decoded, &g).unwrap();
        let (d, width) = (fitted.d(), 3 * chart.matrix.n_atoms());
        for (k, y) in states.chunks_exact(d).enumerate() {
            let direction: Vec<f64> = (0..d).map(|_| stream.standard_normal()).collect();
            let g = &g[k * width..(k + 1) * width];
            for (found, terms) in [(&function, FUNCTION), (&density, LOG_DENSITY)] {
                let found = &found[k * d..(k + 1) * d];
                let product: f64 = found.iter().zip(&direction).map(|(a, b)| a * b).sum();
                let size: f64 = found.iter().zip(&direction).map(|(a, b)| (a * b).abs()).sum();
                let expected = along(chart, y, g, &direction, terms);
                prop_assert!((product - expected).abs() < 1e-10 * size, "{product} {expected} of {size}");
            }
        }
    }
}

#[test]
fn cartesian_gradients_lie_on_the_subspace_and_agree_with_differences() {
    let n_atoms = 7;
    let mut stream = Stream::new(6, 2, 0);
    let chart = CartesianChart::with_scale(n_atoms, 0.31);
    // 1 + Σ cos(k·x) over the coordinates, which shifting changes
    let waves = gradients(3 * n_atoms, &mut stream);
    let value = |y: &[f64]| {
        let decoded = chart.decode(y).unwrap();
        let terms = decoded.positions.iter().zip(&waves);
        decoded.log_det[0]
            + decoded.log_share[0]
            + terms.map(|(x, k)| (0.01 * k * x).cos()).sum::<f64>()
    };
    let states: Vec<f64> = (0..5 * 3 * n_atoms)
        .map(|_| stream.standard_normal())
        .collect();
    let decoded = chart.decode(&states).unwrap();
    let g: Vec<f64> = decoded
        .positions
        .iter()
        .zip(waves.iter().cycle())
        .map(|(x, k)| -0.01 * k * (0.01 * k * x).sin())
        .collect();
    let found = chart.pull_back_log_density(&states, &decoded, &g).unwrap();
    assert_eq!(found, chart.pull_back(&states, &decoded, &g).unwrap());
    for (y, found) in states
        .chunks_exact(3 * n_atoms)
        .zip(found.chunks_exact(3 * n_atoms))
    {
        for (a, b) in found.iter().zip(by_differences(&value, y)) {
            assert!((a - b).abs() < 1e-10, "{a} {b}");
        }
        for axis in 0..3 {
            let sum: f64 = found.iter().skip(axis).step_by(3).sum();
            assert!(sum.abs() < 1e-13);
        }
    }
}

#[test]
fn a_state_outside_the_domain_gets_zero_and_harms_no_other() {
    let fitted = fitted("Ace-A-Nme", Whitening::Diagonal, 3, 7);
    let d = fitted.d();
    let mut states = fitted.states.clone();
    states[d] -= 1e6;
    let decoded = fitted.chart.decode(&states).unwrap();
    assert_eq!(decoded.in_domain, [true, false, true]);
    let mut g = gradients(decoded.positions.len(), &mut Stream::new(7, 2, 0));
    g[66..132].fill(f64::NAN);
    let found = fitted
        .chart
        .pull_back_log_density(&states, &decoded, &g)
        .unwrap();
    assert!(found[d..2 * d].iter().all(|&v| v == 0.0));
    for k in [0, 2] {
        let alone = &states[k * d..(k + 1) * d];
        let decoded = fitted.chart.decode(alone).unwrap();
        let alone = fitted
            .chart
            .pull_back_log_density(alone, &decoded, &g[66 * k..66 * (k + 1)])
            .unwrap();
        assert_eq!(
            found[k * d..(k + 1) * d],
            alone,
            "the same bits in any company"
        );
    }
    let cartesian = CartesianChart::with_scale(1, 1.0);
    let decoded = cartesian.decode(&[f64::NAN, 0.0, 0.0]).unwrap();
    let found = cartesian.pull_back(&[f64::NAN, 0.0, 0.0], &decoded, &[f64::NAN; 3]);
    assert_eq!(found, Ok(vec![0.0; 3]));
}

#[test]
fn single_precision_is_double_precision_rounded() {
    for whitening in [Whitening::Full, Whitening::Diagonal] {
        let fitted = fitted("Ace-AVK-Nme", whitening, 40, 8);
        let mut wide = fitted.states.clone();
        wide.extend(fitted.near_edge(0, false, -0.9));
        let narrow: Vec<f32> = wide.iter().map(|&y| y as f32).collect();
        let wide: Vec<f64> = narrow.iter().map(|&y| f64::from(y)).collect();
        let decoded = fitted.chart.decode(&narrow).unwrap();
        assert_eq!(decoded, fitted.chart.decode(&wide).unwrap());
        let narrow_g: Vec<f32> = gradients(decoded.positions.len(), &mut Stream::new(8, 2, 0))
            .iter()
            .map(|&g| g as f32)
            .collect();
        let wide_g: Vec<f64> = narrow_g.iter().map(|&g| f64::from(g)).collect();
        let found = fitted
            .chart
            .pull_back_log_density(&narrow, &decoded, &narrow_g)
            .unwrap();
        let expected = fitted
            .chart
            .pull_back_log_density(&wide, &decoded, &wide_g)
            .unwrap();
        let scale = largest(expected.iter().copied());
        for (a, b) in found.iter().zip(&expected) {
            assert!(
                (f64::from(*a) - b).abs() < 1e-5 * scale,
                "{a} {b} of {scale}"
            );
        }
    }
}

#[test]
fn arrays_that_do_not_belong_together_are_refused() {
    let fitted = fitted("Ace-A-Nme", Whitening::Diagonal, 2, 9);
    let (chart, states) = (&fitted.chart, &fitted.states);
    let decoded = chart.decode(states).unwrap();
    let g = vec![0.0; decoded.positions.len()];
    let fewer = Decoded {
        in_domain: vec![true],
        ..decoded.clone()
    };
    let refused = |state: &[f64], decoded: &Decoded, g: &[f64]| {
        matches!(
            chart.pull_back(state, decoded, g),
            Err(ChartError::Shape { .. })
        )
    };
    assert!(refused(&states[1..], &decoded, &g));
    assert!(refused(&states[fitted.d()..], &decoded, &g));
    assert!(refused(states, &decoded, &g[3..]));
    assert!(refused(states, &fewer, &g));
    let cartesian = CartesianChart::with_scale(22, 1.0);
    assert!(cartesian.pull_back(&g, &decoded, &g[3..]).is_err());
    assert_eq!(
        chart.pull_back(&[], &chart.decode::<f64>(&[]).unwrap(), &[]),
        Ok(Vec::<f64>::new())
    );
}
