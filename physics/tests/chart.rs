//! Coordinate charts on real peptides: exact round trips, log-determinants against numerical Jacobians, folding of rotors.

use boltzmap_physics::chart::{
    ChartError, Decoded, InternalChart, InternalOptions, Whitening, ZMatrix,
};
use boltzmap_physics::observables::{self, backbone, chirality, distance, phi_psi, point};
use std::f64::consts::{PI, TAU};

#[derive(serde::Deserialize)]
struct Molecule {
    n_atoms: usize,
    names: Vec<String>,
    atomic_numbers: Vec<u8>,
    bonds: Vec<[usize; 2]>,
    positions: Vec<Vec<f64>>,
}

impl Molecule {
    fn load(text: &str) -> Self {
        serde_json::from_str(text).unwrap()
    }
    fn matrix(&self) -> ZMatrix {
        ZMatrix::build(self.n_atoms, &self.bonds, &self.atomic_numbers).unwrap()
    }
    fn flat(&self) -> Vec<f64> {
        self.positions.concat()
    }
}

fn all() -> Vec<Molecule> {
    [
        include_str!("data/geometry/ala2_ace-ala-nme.json"),
        include_str!("data/geometry/ala3_zwit.json"),
        include_str!("data/geometry/chignolin_zwit.json"),
        include_str!("data/geometry/dip_pro.json"),
        include_str!("data/geometry/dip_arg.json"),
    ]
    .map(Molecule::load)
    .into()
}

fn ala2() -> Molecule {
    all().swap_remove(0)
}

/// Deterministic numbers uniform in [−1, 1): enough to spread test points.
struct Spread(u64);

impl Spread {
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// Geometries around the real ones: r, θ jittered, every proper torsion turned anywhere.
fn jittered(molecule: &Molecule, count: usize) -> Vec<f64> {
    let matrix = molecule.matrix();
    let mut random = Spread(5);
    let mut q = vec![0.0; matrix.dimension()];
    let mut frames = Vec::new();
    for k in 0..count {
        matrix
            .to_internal(&molecule.positions[k % molecule.positions.len()], &mut q)
            .unwrap();
        for (token, q) in q.chunks_exact_mut(3).enumerate() {
            q[0] *= 1.0 + 0.02 * random.next();
            q[1] *= 1.0 + 0.02 * random.next();
            if token > 0 {
                let torsion = matrix.rows[token - 1].reference
                    == boltzmap_physics::chart::zmatrix::Reference::Torsion;
                q[2] += if torsion { 2.5 } else { 0.05 } * random.next();
            } else {
                q[2] *= 1.0 + 0.02 * random.next();
            }
        }
        let mut frame = vec![0.0; 3 * molecule.n_atoms];
        matrix.to_cartesian(&q, &mut frame);
        frames.extend(frame);
    }
    frames
}

fn fitted(molecule: &Molecule, whitening: Whitening, fold_rotors: bool) -> InternalChart {
    overlapping(molecule, whitening, fold_rotors, 0.0)
}

fn overlapping(
    molecule: &Molecule,
    whitening: Whitening,
    fold_rotors: bool,
    rotor_overlap: f64,
) -> InternalChart {
    let frames = jittered(molecule, 4 * molecule.n_atoms);
    let options = InternalOptions {
        whitening,
        fold_rotors,
        rotor_overlap,
    };
    InternalChart::fit(
        molecule.matrix(),
        &molecule.atomic_numbers,
        options,
        &frames,
    )
    .unwrap()
}

fn largest_distance_error(n_atoms: usize, a: &[f64], b: &[f64]) -> f64 {
    let mut worst = 0.0f64;
    for i in 0..n_atoms {
        for j in 0..i {
            worst = worst.max(
                (distance(point(a, i), point(a, j)) - distance(point(b, i), point(b, j))).abs(),
            );
        }
    }
    worst
}

#[test]
fn backbone_torsions_are_coordinates_of_every_molecule() {
    for molecule in all() {
        let found = backbone(molecule.n_atoms, &molecule.bonds, &molecule.atomic_numbers);
        let matrix = molecule.matrix();
        assert!(!found.psi.is_empty());
        let name = |i: usize| molecule.names[i].as_str();
        for quadruple in &found.phi {
            assert_eq!(
                quadruple[1..].iter().map(|&i| name(i)).collect::<Vec<_>>(),
                ["N", "CA", "C"]
            );
            assert!(
                matrix.coordinate_of_dihedral(*quadruple).is_some(),
                "{quadruple:?}"
            );
        }
        for quadruple in &found.psi {
            assert_eq!(quadruple.map(name), ["N", "CA", "C", "N"]);
            assert!(
                matrix.coordinate_of_dihedral(*quadruple).is_some(),
                "{quadruple:?}"
            );
        }
        for &centre in &found.centres {
            assert_eq!(centre.map(name), ["CA", "N", "C", "CB"]);
            for frame in &molecule.positions {
                assert!(chirality(frame, centre) > 0.0015, "natural peptides are L");
                let mirrored: Vec<f64> = frame.iter().map(|v| -v).collect();
                assert!(chirality(&mirrored, centre) < -0.0015);
            }
        }
    }
}

#[test]
fn backbone_lists_run_along_the_chain() {
    let chignolin = &all()[2];
    let found = backbone(
        chignolin.n_atoms,
        &chignolin.bonds,
        &chignolin.atomic_numbers,
    );
    // GYDPETGTWG as a zwitterion: nine φ, nine ψ, nine peptide bonds, seven side chains.
    assert_eq!(
        (
            found.phi.len(),
            found.psi.len(),
            found.omega.len(),
            found.centres.len()
        ),
        (9, 9, 9, 7)
    );
    assert!(found.phi.windows(2).all(|w| w[0][1] < w[1][1]));
    assert!(found.psi.windows(2).all(|w| w[0][3] == w[1][0]));
    let ala2 = ala2();
    let found = backbone(ala2.n_atoms, &ala2.bonds, &ala2.atomic_numbers);
    assert_eq!(found.phi, [[4, 6, 8, 10]]);
    assert_eq!(found.psi, [[6, 8, 10, 16]]);
    assert_eq!(found.omega, [[0, 4, 6, 8], [8, 10, 16, 18]]);
    assert_eq!(found.centres, [[8, 6, 10, 12]]);
    assert_eq!(
        phi_psi(&ala2.flat(), 22, &found).len(),
        2 * ala2.positions.len()
    );
}

#[test]
fn round_trips_to_rounding() {
    for molecule in all() {
        for (whitening, overlap) in [(Whitening::Diagonal, 0.0), (Whitening::Full, 0.5)] {
            let chart = overlapping(&molecule, whitening, true, overlap);
            let mut frames = molecule.flat();
            let encoded = chart.encode(&frames).unwrap();
            let decoded = chart.decode(&encoded.state).unwrap();
            assert!(decoded.in_domain.iter().all(|&inside| inside));
            let mut labelled = decoded.positions.clone();
            chart.canonicalise(&mut frames).unwrap();
            chart.canonicalise(&mut labelled).unwrap();
            let width = 3 * molecule.n_atoms;
            for (a, b) in frames.chunks_exact(width).zip(labelled.chunks_exact(width)) {
                assert!(largest_distance_error(molecule.n_atoms, a, b) < 1e-12);
            }
            let again = chart.encode(&decoded.positions).unwrap();
            for (a, b) in again.state.iter().zip(&encoded.state) {
                // States are in units of standard deviations: 1e-3 nm or 0.03 rad.
                assert!((a - b).abs() < 1e-9, "{a} {b}");
            }
            for (a, b) in encoded.log_det.iter().zip(&decoded.log_det) {
                assert!((a + b).abs() < 1e-10);
            }
            let found = backbone(molecule.n_atoms, &molecule.bonds, &molecule.atomic_numbers);
            assert_eq!(
                observables::fraction_all_l(&decoded.positions, molecule.n_atoms, &found.centres),
                1.0
            );
        }
    }
}

#[test]
fn zmatrix_round_trip_of_coordinates() {
    for molecule in all() {
        let matrix = molecule.matrix();
        let (mut q, mut back) = (vec![0.0; matrix.dimension()], vec![0.0; matrix.dimension()]);
        let mut frame = vec![0.0; 3 * molecule.n_atoms];
        for source in &molecule.positions {
            matrix.to_internal(source, &mut q).unwrap();
            matrix.to_cartesian(&q, &mut frame);
            matrix.to_internal(&frame, &mut back).unwrap();
            for (a, b) in q.iter().zip(&back) {
                assert!(
                    boltzmap_statistics::angle::wrap(a - b).abs() < 1e-12,
                    "{a} {b}"
                );
            }
        }
    }
}

/// log|det| by Gaussian elimination with partial pivoting.
fn log_abs_det(mut m: Vec<f64>, n: usize) -> f64 {
    let mut sum = 0.0;
    for k in 0..n {
        let pivot = (k..n)
            .max_by(|&a, &b| m[a * n + k].abs().total_cmp(&m[b * n + k].abs()))
            .unwrap();
        for j in 0..n {
            m.swap(k * n + j, pivot * n + j);
        }
        sum += m[k * n + k].abs().ln();
        for i in k + 1..n {
            let f = m[i * n + k] / m[k * n + k];
            for j in k..n {
                m[i * n + j] -= f * m[k * n + j];
            }
        }
    }
    sum
}

/// ln|dz/(dy dHaar)| by central differences: columns are the states and the three generators of rotation, rows the
/// orthonormal coordinates of the mean-free subspace. Near the identity dHaar = d³ω/8π².
fn numerical_log_det(chart: &InternalChart, n_atoms: usize, y: &[f64]) -> f64 {
    let dimension = 3 * n_atoms - 3;
    let basis = boltzmap_physics::chart::cartesian::mean_free_basis(n_atoms);
    let project = |x: &[f64]| -> Vec<f64> {
        (0..dimension)
            .map(|c| {
                (0..3 * n_atoms)
                    .map(|r| basis[r * dimension + c] * x[r])
                    .sum()
            })
            .collect()
    };
    let mut jacobian = vec![0.0; dimension * dimension];
    let base = chart.decode(y).unwrap().positions;
    for column in 0..dimension {
        let derivative: Vec<f64> = if column < y.len() {
            // Fourth-order differences, so that the step can be large enough for rounding.
            let h = 1e-3;
            let at = |s: f64| {
                let mut moved = y.to_vec();
                moved[column] += s * h;
                // Out-of-window states still decode smoothly; only the flag changes.
                chart.decode(&moved).unwrap().positions
            };
            let (a, b, c, d) = (at(-2.0), at(-1.0), at(1.0), at(2.0));
            (0..3 * n_atoms)
                .map(|i| (a[i] - 8.0 * b[i] + 8.0 * c[i] - d[i]) / (12.0 * h))
                .collect()
        } else {
            let axis = column - y.len();
            let mut turned = vec![0.0; 3 * n_atoms];
            for i in 0..n_atoms {
                let (j, k) = ((axis + 1) % 3, (axis + 2) % 3);
                turned[3 * i + j] = -base[3 * i + k];
                turned[3 * i + k] = base[3 * i + j];
            }
            turned
        };
        for (row, v) in project(&derivative).into_iter().enumerate() {
            jacobian[row * dimension + column] = v;
        }
    }
    log_abs_det(jacobian, dimension) + (8.0 * PI * PI).ln()
}

#[test]
fn log_det_equals_the_numerical_jacobian_with_haar_measure() {
    let molecules = all();
    for molecule in [&molecules[0], &molecules[1], &molecules[3]] {
        for (whitening, fold) in [(Whitening::Diagonal, false), (Whitening::Full, true)] {
            let chart = fitted(molecule, whitening, fold);
            let mut random = Spread(11);
            for _ in 0..2 {
                let frame = jittered(molecule, 7)[..3 * molecule.n_atoms].to_vec();
                let mut y = chart.encode(&frame).unwrap().state;
                y.iter_mut().for_each(|v| *v += 0.02 * random.next());
                let Decoded {
                    log_det, in_domain, ..
                } = chart.decode(&y).unwrap();
                assert!(in_domain[0]);
                let numerical = numerical_log_det(&chart, molecule.n_atoms, &y);
                assert!(
                    (log_det[0] - numerical).abs() < 1e-6,
                    "{} {numerical}",
                    log_det[0]
                );
            }
        }
    }
}

/// Gaussian in mean-free Cartesian coordinates of 3 and 4 atoms: its integral, written in internal coordinates and over the Haar
/// measure (the integrand does not depend on the orientation), must be 1.
#[test]
fn density_integrates_to_one_over_internal_coordinates() {
    // N = 3: z has 6 dimensions; with σ = 1, |z|² = Σ|x − mean|² = (r₁² + r₂² + r₁₃²)/3.
    let matrix = ZMatrix::build(3, &[[0, 1], [1, 2]], &[8, 1, 1]).unwrap();
    let (n, top) = (60, 9.0);
    let (h, dt) = (top / n as f64, PI / n as f64);
    let mut sum = 0.0;
    for a in 0..n {
        for b in 0..n {
            for c in 0..n {
                let q = [
                    (a as f64 + 0.5) * h,
                    (b as f64 + 0.5) * h,
                    (c as f64 + 0.5) * dt,
                ];
                let far = q[0] * q[0] + q[1] * q[1] - 2.0 * q[0] * q[1] * q[2].cos();
                let squares = (q[0] * q[0] + q[1] * q[1] + far) / 3.0;
                let log_density = -0.5 * squares - 3.0 * TAU.ln();
                sum += (log_density + matrix.log_det(&q)).exp() * h * h * dt;
            }
        }
    }
    assert!((sum - 1.0).abs() < 1e-3, "{sum}");
}

#[test]
fn folding_gives_every_labelling_the_same_state() {
    let molecule = ala2();
    let chart = fitted(&molecule, Whitening::Full, true);
    assert_eq!(chart.rotors().len(), 3, "three methyls");
    let frames = jittered(&molecule, 60);
    let reference = chart.encode(&frames).unwrap();
    for rotor in chart.rotors() {
        assert!(rotor.atoms.iter().all(|&i| molecule.atomic_numbers[i] == 1));
        for order in [[1, 2, 0], [2, 0, 1], [0, 2, 1], [2, 1, 0], [1, 0, 2]] {
            let mut relabelled = frames.clone();
            for (new, old) in relabelled.chunks_exact_mut(66).zip(frames.chunks_exact(66)) {
                for j in 0..3 {
                    let (to, from) = (3 * rotor.atoms[j], 3 * rotor.atoms[order[j]]);
                    new[to..to + 3].copy_from_slice(&old[from..from + 3]);
                }
            }
            let encoded = chart.encode(&relabelled).unwrap();
            for (a, b) in encoded.state.iter().zip(&reference.state) {
                assert!((a - b).abs() < 1e-9);
            }
            chart.canonicalise(&mut relabelled).unwrap();
            let mut canonical = frames.clone();
            chart.canonicalise(&mut canonical).unwrap();
            assert_eq!(relabelled, canonical);
        }
    }
    // Canonical frames decode to themselves, and a turn of 120° leaves the domain.
    let token = chart.rotors()[0].atoms[0];
    let row = chart
        .matrix()
        .rows
        .iter()
        .position(|row| row.atom == token)
        .unwrap();
    let chart = fitted(&molecule, Whitening::Diagonal, true);
    let mut y = chart.encode(&frames[..66]).unwrap().state;
    assert!(chart.decode(&y).unwrap().in_domain[0]);
    y[3 * (row + 1) + 2] += TAU / 3.0 / chart.standardiser().std()[3 * (row + 1) + 2];
    assert!(!chart.decode(&y).unwrap().in_domain[0]);
}

/// Where windows overlap, a geometry's images are in the domain, decode to that geometry, are drawn in proportion to their shares,
/// and the shares sum to one: sums over states with shares are sums over geometries.
#[test]
fn images_in_overlapping_windows_share_a_geometry() {
    const DRAWS: usize = 2000;
    let molecule = ala2();
    for overlap in [0.3, TAU / 6.0] {
        let chart = overlapping(&molecule, Whitening::Full, true, overlap);
        let mut several = 0;
        for frame in jittered(&molecule, 12).chunks_exact(66) {
            let encoded = chart.encode(&frame.repeat(DRAWS)).unwrap();
            let decoded = chart.decode(&encoded.state).unwrap();
            assert!(decoded.in_domain.iter().all(|&inside| inside));
            // State, share and number of draws of each image.
            let mut images: Vec<(&[f64], f64, usize)> = Vec::new();
            for (k, state) in encoded.state.chunks_exact(60).enumerate() {
                assert!((encoded.log_share[k] - decoded.log_share[k]).abs() < 1e-9);
                assert!((encoded.log_det[k] + decoded.log_det[k]).abs() < 1e-9);
                let same = |image: &&mut (&[f64], f64, usize)| {
                    (image.0.iter().zip(state)).all(|(a, b)| (a - b).abs() < 1e-9)
                };
                match images.iter_mut().find(same) {
                    Some(image) => image.2 += 1,
                    None => {
                        let positions = &decoded.positions[66 * k..66 * (k + 1)];
                        let mut labelled = [frame.to_vec(), positions.to_vec()];
                        for positions in &mut labelled {
                            chart.canonicalise(positions).unwrap();
                        }
                        assert!(largest_distance_error(22, &labelled[0], &labelled[1]) < 1e-12);
                        images.push((state, encoded.log_share[k].exp(), 1));
                    }
                }
            }
            let total: f64 = images.iter().map(|image| image.1).sum();
            // An image that was never drawn has a small share.
            assert!(
                total < 1.0 + 1e-9 && total > 1.0 - 10.0 / DRAWS as f64,
                "{total}"
            );
            for (_, share, count) in &images {
                let deviation = (DRAWS as f64 * share * (1.0 - share)).sqrt();
                let excess = (*count as f64 - DRAWS as f64 * share).abs();
                assert!(excess < 5.0 * deviation + 2.0, "{count} draws of {share}");
            }
            several += usize::from(images.len() > 1);
        }
        assert!(several > 3, "the frames must test something");
    }
}

/// Folding is exact because the energy does not see which hydrogen of a methyl has which label.
#[test]
fn canonicalisation_leaves_the_energy_invariant() {
    use boltzmap_physics::{Atom, Element, ForceField, Topology, energy_reference};
    let molecule = ala2();
    let residue = |i: usize| match i {
        0..=5 => ("ACE", 0),
        6..=15 => ("ALA", 1),
        _ => ("NME", 2),
    };
    let atoms = (0..molecule.n_atoms).map(|i| Atom {
        name: molecule.names[i].clone(),
        element: match molecule.atomic_numbers[i] {
            1 => Element::H,
            6 => Element::C,
            7 => Element::N,
            _ => Element::O,
        },
        residue_name: residue(i).0.into(),
        residue_index: residue(i).1,
        chain: 'A',
    });
    let topology = Topology::new(atoms.collect(), molecule.bonds.iter().copied());
    let system = ForceField::amber99sbildn_obc2().system(&topology).unwrap();
    let chart = fitted(&molecule, Whitening::Full, true);
    let frames = jittered(&molecule, 40);
    let mut canonical = frames.clone();
    chart.canonicalise(&mut canonical).unwrap();
    let decoded = chart.decode(&chart.encode(&frames).unwrap().state).unwrap();
    let mut relabelled = 0;
    for ((frame, canonical), decoded) in frames
        .chunks_exact(66)
        .zip(canonical.chunks_exact(66))
        .zip(decoded.positions.chunks_exact(66))
    {
        let energy = energy_reference(&system, frame).total();
        let scale = 1.0 + energy.abs();
        assert!((energy_reference(&system, canonical).total() - energy).abs() < 1e-10 * scale);
        // The decoded frame is turned and rounded as well; clashes amplify the rounding.
        assert!((energy_reference(&system, decoded).total() - energy).abs() < 1e-7 * scale);
        relabelled += usize::from(frame != canonical);
    }
    assert!(relabelled > 20, "the frames must test something");
}

#[test]
fn a_state_decodes_to_the_same_bits_alone_and_among_others() {
    for whitening in [Whitening::Diagonal, Whitening::Full] {
        let molecule = ala2();
        let chart = fitted(&molecule, whitening, true);
        let state = chart.encode(&jittered(&molecule, 45)).unwrap().state;
        let together = chart.decode(&state).unwrap();
        for (k, alone) in state.chunks_exact(chart.dimension()).enumerate() {
            let alone = chart.decode(alone).unwrap();
            assert_eq!(alone.positions, together.positions[66 * k..66 * (k + 1)]);
            assert_eq!(alone.log_det[0], together.log_det[k]);
        }
    }
}

#[test]
fn states_outside_the_domain_are_flagged() {
    let molecule = ala2();
    let chart = fitted(&molecule, Whitening::Diagonal, true);
    let y = chart.encode(&molecule.positions[0]).unwrap().state;
    let std = chart.standardiser().std();
    for (coordinate, shift) in [
        (0, -1.0),
        (2, 4.0),
        (3, -1.0),
        (4, 4.0),
        (5, 7.0),
        (5, -7.0),
    ] {
        let mut moved = y.clone();
        moved[coordinate] += shift / std[coordinate];
        let decoded = chart.decode(&moved).unwrap();
        assert!(!decoded.in_domain[0], "{coordinate} {shift}");
        assert!(
            decoded
                .positions
                .iter()
                .chain(&decoded.log_det)
                .all(|v| v.is_finite())
        );
    }
    assert!(!chart.decode(&[f64::NAN; 60]).unwrap().in_domain[0]);
}

#[test]
fn charts_survive_json_bit_for_bit() {
    let chart = fitted(&ala2(), Whitening::Full, true);
    let text = serde_json::to_string(&chart).unwrap();
    assert_eq!(serde_json::from_str::<InternalChart>(&text).unwrap(), chart);
}

#[test]
fn single_precision_input_is_accepted() {
    let molecule = ala2();
    let chart = fitted(&molecule, Whitening::Diagonal, true);
    let narrow: Vec<f32> = molecule.flat().iter().map(|&v| v as f32).collect();
    let a = chart.encode(&narrow).unwrap().state;
    let b = chart.encode(&molecule.flat()).unwrap().state;
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-3));
}

#[test]
fn bad_input_is_one_sentence() {
    let molecule = ala2();
    let chart = fitted(&molecule, Whitening::Diagonal, true);
    let mut line = molecule.positions[0].clone();
    let row = chart.matrix().rows[0];
    for axis in 0..3 {
        let (p, a) = (line[3 * row.parent + axis], line[3 * row.angle + axis]);
        line[3 * row.atom + axis] = 2.0 * p - a;
    }
    let error = chart.encode(&line).unwrap_err();
    assert!(matches!(error, ChartError::Collinear { frame: 0, .. }));
    assert!(error.to_string().contains("collinear"));
    let nan = vec![f64::NAN; 66];
    assert_eq!(chart.encode(&nan), Err(ChartError::NotFinite(0)));
    assert!(matches!(
        chart.decode(&[0.0f64; 59]),
        Err(ChartError::Shape { found: 59, .. })
    ));
    assert_eq!(
        ZMatrix::build(2, &[[0, 1]], &[1, 1]),
        Err(ChartError::TooFewAtoms(2))
    );
    assert_eq!(
        ZMatrix::build(4, &[[0, 1], [1, 2]], &[6; 4]),
        Err(ChartError::Disconnected(3))
    );
    assert_eq!(
        ZMatrix::build(3, &[[0, 1], [1, 3]], &[6; 3]),
        Err(ChartError::BadBond(1, 3, 3))
    );
    let few = InternalChart::fit(
        molecule.matrix(),
        &molecule.atomic_numbers,
        InternalOptions::default(),
        &molecule.positions[0],
    );
    assert!(matches!(
        few,
        Err(ChartError::TooFewFrames { needed: 61, .. })
    ));
}
