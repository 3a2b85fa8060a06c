//! Densities of flow maps integrate to one, and stay densities behind a chart of molecular coordinates.

mod common;

use boltzmap_kernels::linalg::log_abs_det;
use boltzmap_kernels::random::Stream;
use boltzmap_models::continuous_flow::{ContinuousFlow, Integrator};
use boltzmap_models::control::Control;
use boltzmap_models::deploy::ExactSampler;
use boltzmap_models::flow_map::FlowMap;
use boltzmap_models::ode::{Tableau, Tolerances};
use boltzmap_models::parameters::Parameters;
use boltzmap_models::schedule::Schedule;
use boltzmap_models::subspace::Subspace;
use boltzmap_physics::build_sequence;
use boltzmap_physics::chart::cartesian::mean_free_basis;
use boltzmap_physics::chart::{
    CartesianChart, Decoded, InternalChart, InternalOptions, Whitening, ZMatrix,
};
use common::{dit, egnn, gentle_parameters, mlp, random_parameters};

/// States, log q by the head and exact log q of a map's noise.
fn push(
    map: &FlowMap,
    parameters: &Parameters<f64>,
    noise: &[f64],
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let schedule = Schedule::uniform(2, 0.05).unwrap();
    let samples = ExactSampler::new(map, parameters, &schedule)
        .exact_log_density(noise, &Control::default())
        .unwrap();
    assert_eq!(samples.folded_steps, 0, "the map must be invertible");
    (
        samples.states,
        samples.log_density_head,
        samples.log_density_exact,
    )
}

/// Derivatives of `f` at one state along the basis of the map's subspace, one per basis vector, by central differences
/// extrapolated to the fourth order. All displaced states go through `f` in one call.
fn numerical_columns(
    map: &FlowMap,
    state: &[f64],
    f: impl Fn(&[f64]) -> Vec<f64>,
) -> Vec<Vec<f64>> {
    let (size, d) = (map.state_size(), map.dimension());
    let basis = map.subspace().basis(map.tokens(), map.channels());
    let step = 2e-3;
    let moved: Vec<f64> = (0..d)
        .flat_map(|k| [1.0, -1.0, 0.5, -0.5].map(|shift| (k, shift * step)))
        .flat_map(|(k, shift)| {
            let basis = &basis;
            (0..size).map(move |i| state[i] + shift * basis[i * d + k])
        })
        .collect();
    let images = f(&moved);
    let length = images.len() / (4 * d);
    (0..d)
        .map(|k| {
            let [plus, minus, half_plus, half_minus] =
                [0, 1, 2, 3].map(|v| &images[(4 * k + v) * length..][..length]);
            (0..length)
                .map(|i| {
                    let coarse = (plus[i] - minus[i]) / (2.0 * step);
                    let fine = (half_plus[i] - half_minus[i]) / step;
                    (4.0 * fine - coarse) / 3.0
                })
                .collect()
        })
        .collect()
}

/// log|det| of columns expressed in an orthonormal basis, row-major `[length, dimension]`.
fn log_volume(columns: &[Vec<f64>], basis: &[f64]) -> f64 {
    let dimension = columns.len();
    let mut jacobian = vec![0.0; dimension * dimension];
    for (k, column) in columns.iter().enumerate() {
        for row in 0..dimension {
            jacobian[row * dimension + k] = column
                .iter()
                .enumerate()
                .map(|(i, value)| basis[i * dimension + row] * value)
                .sum();
        }
    }
    log_abs_det(&jacobian, dimension).0
}

#[test]
fn continuous_flows_obey_the_change_of_variables_both_ways() {
    let maps = [
        dit(3, 2, Subspace::MeanFree),
        dit(3, 2, Subspace::Full),
        mlp(3, 2, Subspace::MeanFree),
        mlp(3, 2, Subspace::Full),
        egnn(3, 2),
    ];
    // Equal steps, so that the map is smooth in its start: adaptive ones add noise of the tolerance's size.
    let integrator = Integrator::Fixed {
        tableau: Tableau::DORMAND_PRINCE,
        steps: 200,
    };
    let control = Control::default();
    for (seed, map) in maps.iter().enumerate() {
        let parameters = gentle_parameters(map, seed as u64);
        let flow = ContinuousFlow::new(map, &parameters, 0.05, 8, integrator).unwrap();
        let noise: Vec<f64> = map.subspace().noise(3, 2, 6, 0, 0, 2);
        let forward = flow.transport(&noise, &control).unwrap();
        let backward = flow.log_density(&forward.states, &control).unwrap();
        let base = map.subspace().gaussian_log_density(&noise, 3, 2);
        let basis = map.subspace().basis(3, 2);
        for i in 0..2 {
            let one = forward.log_density[i];
            assert!((one - backward.log_density[i]).abs() < 1e-7);
            let transport = |x: &[f64]| flow.transport(x, &control).unwrap().states;
            let columns = numerical_columns(map, &noise[6 * i..6 * i + 6], transport);
            let expected = base[i] - log_volume(&columns, &basis);
            assert!((one - expected).abs() < 1e-7, "{one} {expected}");
        }
        assert!(
            noise
                .iter()
                .zip(&backward.states)
                .all(|(a, b)| (a - b).abs() < 1e-6)
        );
    }
}

#[test]
fn densities_on_the_line_integrate_to_one() {
    let nodes: Vec<f64> = (0..=2000).map(|i| -8.0 + i as f64 * 8e-3).collect();
    // The trapezoidal rule over the places where the map puts the nodes, which knows nothing of its derivative.
    let integral = |places: &[f64], log_q: &[f64]| -> f64 {
        (1..places.len())
            .map(|i| 0.5 * (log_q[i].exp() + log_q[i - 1].exp()) * (places[i] - places[i - 1]))
            .sum()
    };
    for seed in 0..3 {
        let map = mlp(1, 1, Subspace::Full);
        let parameters = gentle_parameters(&map, seed);
        let (states, head, exact) = push(&map, &parameters, &nodes);
        let total = integral(&states, &exact);
        assert!((total - 1.0).abs() < 1e-5, "few-step map: {total}");
        // The head of random weights knows nothing of its map: the same rule must see that.
        let by_head = integral(&states, &head);
        assert!((by_head - 1.0).abs() > 1e-2, "head: {by_head}");

        let integrator = Integrator::dormand_prince(Tolerances {
            relative: 1e-9,
            absolute: 1e-9,
            max_steps: 10_000,
        });
        let flow = ContinuousFlow::new(&map, &parameters, 0.05, 128, integrator)
            .unwrap()
            .transport(&nodes, &Control::default())
            .unwrap();
        let total = integral(&flow.states, &flow.log_density);
        assert!((total - 1.0).abs() < 1e-5, "continuous flow: {total}");
    }
}

#[test]
fn densities_in_the_plane_integrate_to_one() {
    // Two tokens of one channel, or one of two; and three tokens of one channel without their mean.
    let maps = [
        mlp(1, 2, Subspace::Full),
        dit(2, 1, Subspace::Full),
        dit(3, 1, Subspace::MeanFree),
        egnn(3, 1),
    ];
    let (side, width) = (97, 0.125);
    for (seed, map) in maps.iter().enumerate() {
        let parameters = gentle_parameters(map, seed as u64 + 5);
        let size = map.state_size();
        let basis = map.subspace().basis(map.tokens(), map.channels());
        let mut noise = Vec::with_capacity(side * side * size);
        for i in 0..side * side {
            let at = [i / side, i % side].map(|k| (k as f64 - 48.0) * width);
            noise.extend((0..size).map(|j| basis[2 * j] * at[0] + basis[2 * j + 1] * at[1]));
        }
        let (states, head, exact) = push(map, &parameters, &noise);
        let places: Vec<[f64; 2]> = states
            .chunks_exact(size)
            .map(|x| [0, 1].map(|k| (0..size).map(|j| basis[2 * j + k] * x[j]).sum()))
            .collect();
        // Areas of the images of the squares, by the shoelace formula.
        let integral = |log_q: &[f64]| -> f64 {
            let mut total = 0.0;
            for row in 0..side - 1 {
                for column in 0..side - 1 {
                    let first = row * side + column;
                    let corners = [first, first + side, first + side + 1, first + 1];
                    let mut area = 0.0;
                    for k in 0..4 {
                        let (a, b) = (places[corners[k]], places[corners[(k + 1) % 4]]);
                        area += 0.5 * (a[0] * b[1] - a[1] * b[0]);
                    }
                    total += area * corners.map(|i| log_q[i].exp()).iter().sum::<f64>() / 4.0;
                }
            }
            total
        };
        let total = integral(&exact);
        assert!((total - 1.0).abs() < 1e-3, "{total}");
        let by_head = integral(&head);
        assert!((by_head - 1.0).abs() > 1e-2, "{by_head}");
    }
}

/// Frames of alanine dipeptide with independent noise on every atom, `[n, atoms, 3]`, nm.
fn noisy_frames(positions: &[f64], n: usize) -> Vec<f64> {
    let mut stream = Stream::new(3, 1, 0);
    (0..n)
        .flat_map(|_| {
            positions
                .iter()
                .map(|x| x + 3e-3 * stream.standard_normal())
                .collect::<Vec<f64>>()
        })
        .collect()
}

/// The density of molecular samples is that of the noise over the Jacobian of everything behind it: few-step map, chart,
/// and, for internal coordinates, a rotation drawn from the Haar measure.
#[test]
fn densities_behind_a_chart_agree_with_the_numerical_jacobian() {
    let (topology, positions) = build_sequence("Ace-A-Nme").unwrap();
    let atomic_numbers = topology.atomic_numbers();
    let n_atoms = topology.n_atoms();
    let frames = noisy_frames(&positions, 300);
    let matrix = ZMatrix::build(n_atoms, &topology.bonds, &atomic_numbers).unwrap();
    let options = InternalOptions {
        whitening: Whitening::Full,
        fold_rotors: true,
        rotor_overlap: 0.0,
    };
    let internal = InternalChart::fit(matrix, &atomic_numbers, options, &frames).unwrap();
    let cartesian = CartesianChart::fit(n_atoms, &frames).unwrap();

    let decode_internal = |states: &[f64]| internal.decode(states).unwrap();
    let decode_cartesian = |states: &[f64]| cartesian.decode(states).unwrap();
    type Decode<'a> = &'a dyn Fn(&[f64]) -> Decoded;
    let kinds: [(FlowMap, Decode, bool); 2] = [
        (dit(n_atoms - 2, 3, Subspace::Full), &decode_internal, true),
        (
            dit(n_atoms, 3, Subspace::MeanFree),
            &decode_cartesian,
            false,
        ),
    ];
    for (map, decode, rotates) in kinds {
        let parameters = random_parameters(&map, 4, 0.1);
        let (tokens, channels) = (map.tokens(), map.channels());
        let noise: Vec<f64> = map.subspace().noise(tokens, channels, 8, 0, 0, 1);
        let (states, _, exact) = push(&map, &parameters, &noise);
        let decoded = decode(&states);
        assert!(decoded.in_domain[0]);
        let log_q = exact[0] - decoded.log_det[0];

        // Columns: derivatives along the noise, then along rotations.
        let everything = |noise: &[f64]| decode(&push(&map, &parameters, noise).0).positions;
        let mut columns = numerical_columns(&map, &noise, everything);
        if rotates {
            // Turning x about axis e moves it by e × x per radian.
            for axis in 0..3 {
                let (a, b) = ((axis + 1) % 3, (axis + 2) % 3);
                let mut column = vec![0.0; 3 * n_atoms];
                for (moved, x) in column
                    .chunks_exact_mut(3)
                    .zip(decoded.positions.chunks_exact(3))
                {
                    (moved[a], moved[b]) = (-x[b], x[a]);
                }
                columns.push(column);
            }
        }
        assert_eq!(columns.len(), 3 * n_atoms - 3);
        let base = map
            .subspace()
            .gaussian_log_density(&noise, tokens, channels)[0];
        // The Haar measure's density in rotation vectors, at the identity, is 1/(8π²).
        let haar = if rotates {
            -(8.0 * std::f64::consts::PI.powi(2)).ln()
        } else {
            0.0
        };
        let expected = base + haar - log_volume(&columns, &mean_free_basis(n_atoms));
        assert!((log_q - expected).abs() < 1e-6, "{log_q} {expected}");
    }
}
