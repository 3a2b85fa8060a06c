//! The parameters of a [`System`] laid out for the batched evaluator: merged, premultiplied, in the evaluator's precision.

use super::born::LARGEST_SQUARE;
use super::split::Split;
use crate::system::{BornModel, COULOMB_CONSTANT, System};
use boltzmap_kernels::real::Real;

/// ½k(r−r₀)².
pub(super) struct Bond<T> {
    pub(super) atoms: [usize; 2],
    pub(super) length: Split<T>,
    pub(super) force_constant: T,
}

/// ½k(θ−θ₀)².
pub(super) struct Angle<T> {
    pub(super) atoms: [usize; 3],
    pub(super) angle: Split<T>,
    pub(super) force_constant: T,
}

/// All periodic terms of one quadruple of atoms as one Fourier series c₀ + Σ_n (a_n cos nφ + b_n sin nφ), n = 1, 2, ….
///
/// With k(1+cos(nφ−φ₀)): c₀ += k, a_n += k cos φ₀, b_n += k sin φ₀. The geometry of a quadruple is then computed once.
pub(super) struct TorsionSeries<T> {
    pub(super) atoms: [usize; 4],
    pub(super) constant: T,
    /// `[a_n, b_n]` for n = 1, 2, … up to the highest periodicity.
    pub(super) harmonics: Vec<[T; 2]>,
}

/// How a pair interacts directly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PairKind {
    /// One or two bonds apart: only through the solvent.
    Excluded,
    /// Three bonds apart: scaled, without cutoff.
    Scaled,
    /// All others: with the cutoff, if there is one.
    Direct,
}

/// One pair i < j; pairs are stored row by row, (0,1), (0,2), …, (1,2), ….
pub(super) struct Pair<T> {
    pub(super) kind: PairKind,
    /// K q_i q_j, scaled for 1-4 pairs, kJ nm mol⁻¹
    pub(super) charge: Split<T>,
    /// 4εσ¹²
    pub(super) repulsion: T,
    /// 4εσ⁶
    pub(super) attraction: T,
    /// K'(1−1/ε_w) q_i q_j
    pub(super) born_charge: Split<T>,
}

/// Generalised Born parameters of one atom.
pub(super) struct BornAtom<T> {
    /// or_i = R_i − 0.009 nm
    pub(super) offset_radius: T,
    pub(super) inverse_offset_radius: T,
    /// sr_i = S_i or_i
    pub(super) scaled_radius: T,
    pub(super) inverse_radius: T,
    /// 1/or_i − 1/R_i
    pub(super) inverse_difference: T,
    /// ½K'(1−1/ε_w) q_i²
    pub(super) self_charge: T,
    /// c_SA (R_i+0.14)² R_i⁶, so that the surface term is this over B⁶
    pub(super) surface: T,
}

/// Constants of one Born model.
pub(super) struct Born<T> {
    pub(super) atoms: Vec<BornAtom<T>>,
    pub(super) alpha: T,
    pub(super) beta: T,
    pub(super) gamma: T,
    /// Whether an atom inside another's scaled sphere gets the correction of the reference implementation.
    pub(super) engulfed_term: bool,
    /// Distance below which Born integrals need their general form, nm; infinite if the short forms do not cover the parameters.
    pub(super) general_below: T,
}

pub(super) struct Parameters<T> {
    pub(super) n_atoms: usize,
    pub(super) bonds: Vec<Bond<T>>,
    pub(super) angles: Vec<Angle<T>>,
    pub(super) torsions: Vec<TorsionSeries<T>>,
    pub(super) pairs: Vec<Pair<T>>,
    pub(super) born: Option<Born<T>>,
    pub(super) cutoff: Option<T>,
    /// Squared distances below this are raised to it in pair terms, so that overlapping atoms give large finite numbers in
    /// every intermediate: (2·10⁻³ nm)² in f32, whose r⁻¹⁴ still fits, and (10⁻¹² nm)² in f64.
    pub(super) smallest_squared_distance: T,
}

impl<T: Real> Parameters<T> {
    pub(super) fn new(system: &System) -> Self {
        Self {
            pairs: pairs(system),
            ..Self::without_pairs(system)
        }
    }

    /// All but the table of pairs, which grows with the square of the number of atoms.
    pub(super) fn without_pairs(system: &System) -> Self {
        let n = system.n_atoms();
        for (name, length) in [
            ("charges", system.charges.len()),
            ("sigma", system.sigma.len()),
            ("epsilon", system.epsilon.len()),
        ] {
            assert_eq!(length, n, "system has {n} masses but {length} {name}");
        }
        let t = T::from_f64;
        let bonds = system
            .bonds
            .iter()
            .map(|b| Bond {
                atoms: b.atoms,
                length: Split::new(b.length),
                force_constant: t(b.force_constant),
            })
            .collect();
        let angles = system
            .angles
            .iter()
            .map(|a| Angle {
                atoms: a.atoms,
                angle: Split::new(a.angle),
                force_constant: t(a.force_constant),
            })
            .collect();
        let this = Self {
            n_atoms: n,
            bonds,
            angles,
            torsions: merge_torsions(system),
            pairs: Vec::new(),
            born: system.generalized_born.as_ref().map(|_| born(system)),
            cutoff: system.cutoff.map(t),
            smallest_squared_distance: t(if size_of::<T>() == 4 { 4e-6 } else { 1e-24 }),
        };
        let in_range = this.bonds.iter().all(|b| b.atoms.iter().all(|&a| a < n))
            && this.angles.iter().all(|b| b.atoms.iter().all(|&a| a < n))
            && this.torsions.iter().all(|b| b.atoms.iter().all(|&a| a < n));
        assert!(
            in_range,
            "a bonded term names an atom outside the system's {n} atoms"
        );
        this
    }
}

/// Index of the pair (i, j), i < j, in row order.
fn pair_index(n: usize, i: usize, j: usize) -> usize {
    assert!(
        i != j && i < n && j < n,
        "pair ({i}, {j}) is not a pair of the system's {n} atoms"
    );
    let (i, j) = (i.min(j), i.max(j));
    i * (2 * n - i - 1) / 2 + (j - i - 1)
}

fn merge_torsions<T: Real>(system: &System) -> Vec<TorsionSeries<T>> {
    struct Sum {
        atoms: [usize; 4],
        constant: f64,
        harmonics: Vec<[f64; 2]>,
    }
    let mut sums: Vec<Sum> = Vec::new();
    let mut position = std::collections::HashMap::new();
    for torsion in &system.torsions {
        let at = *position.entry(torsion.atoms).or_insert_with(|| {
            sums.push(Sum {
                atoms: torsion.atoms,
                constant: 0.0,
                harmonics: Vec::new(),
            });
            sums.len() - 1
        });
        let (k, n) = (torsion.force_constant, torsion.periodicity as usize);
        let (sine, cosine) = torsion.phase.sin_cos();
        let sum = &mut sums[at];
        sum.constant += k;
        if n == 0 {
            sum.constant += k * cosine;
            continue;
        }
        if sum.harmonics.len() < n {
            sum.harmonics.resize(n, [0.0; 2]);
        }
        sum.harmonics[n - 1][0] += k * cosine;
        sum.harmonics[n - 1][1] += k * sine;
    }
    let t = T::from_f64;
    sums.into_iter()
        .map(|s| TorsionSeries {
            atoms: s.atoms,
            constant: t(s.constant),
            harmonics: s.harmonics.iter().map(|h| [t(h[0]), t(h[1])]).collect(),
        })
        .collect()
}

/// (α, β, γ, K', ε_w, c_SA, engulfed term) of the variants.
fn born_constants(model: BornModel) -> (f64, f64, f64, f64, f64, f64, bool) {
    // The XML variants carry a rounded Coulomb constant and 28.3919551 = 4π·2.25936 rounded.
    const ROUNDED_COULOMB: f64 = 138.935485;
    match model {
        BornModel::Amber99Obc => (
            1.0,
            0.8,
            4.85,
            COULOMB_CONSTANT,
            78.3,
            4.0 * std::f64::consts::PI * 2.25936,
            true,
        ),
        BornModel::Obc1 => (0.8, 0.0, 2.909125, ROUNDED_COULOMB, 78.5, 28.3919551, false),
        BornModel::Obc2 => (1.0, 0.8, 4.85, ROUNDED_COULOMB, 78.5, 28.3919551, false),
    }
}

/// K'(1−1/ε_w), kJ nm mol⁻¹ e⁻².
pub(super) fn born_prefactor(model: BornModel) -> f64 {
    let (_, _, _, coulomb, dielectric, _, _) = born_constants(model);
    coulomb * (1.0 - 1.0 / dielectric)
}

fn born<T: Real>(system: &System) -> Born<T> {
    let parameters = system
        .generalized_born
        .as_ref()
        .expect("called only for systems with implicit solvent");
    let n = system.n_atoms();
    assert_eq!(
        parameters.radius.len(),
        n,
        "system has {n} masses but {} Born radii",
        parameters.radius.len()
    );
    assert_eq!(
        parameters.scale.len(),
        n,
        "system has {n} masses but {} Born scales",
        parameters.scale.len()
    );
    let (alpha, beta, gamma, _, _, surface, engulfed_term) = born_constants(parameters.model);
    let t = T::from_f64;
    let offsets = || parameters.radius.iter().map(|radius| radius - 0.009);
    let spheres = || {
        offsets()
            .zip(&parameters.scale)
            .map(|(offset, scale)| scale * offset)
    };
    let smallest_offset = offsets().fold(f64::INFINITY, f64::min);
    let largest_offset = offsets().fold(f64::NEG_INFINITY, f64::max);
    let smallest_sphere = spheres().fold(f64::INFINITY, f64::min);
    let largest_sphere = spheres().fold(f64::NEG_INFINITY, f64::max);
    let largest_root = largest_sphere / (largest_sphere + smallest_offset);
    let covered = smallest_offset > 0.0
        && smallest_sphere >= 0.0
        && largest_root * largest_root <= LARGEST_SQUARE;
    let general_below = match covered {
        true => (largest_offset - smallest_sphere).max(largest_sphere - smallest_offset),
        false => f64::INFINITY,
    };
    let atoms = (0..n)
        .map(|i| {
            let (radius, q) = (parameters.radius[i], system.charges[i]);
            let offset_radius = radius - 0.009;
            BornAtom {
                offset_radius: t(offset_radius),
                inverse_offset_radius: t(1.0 / offset_radius),
                scaled_radius: t(parameters.scale[i] * offset_radius),
                inverse_radius: t(1.0 / radius),
                inverse_difference: t(1.0 / offset_radius - 1.0 / radius),
                self_charge: t(0.5 * born_prefactor(parameters.model) * q * q),
                surface: t(surface * (radius + 0.14).powi(2) * radius.powi(6)),
            }
        })
        .collect();
    Born {
        atoms,
        alpha: t(alpha),
        beta: t(beta),
        gamma: t(gamma),
        engulfed_term,
        general_below: t(general_below),
    }
}

fn pairs<T: Real>(system: &System) -> Vec<Pair<T>> {
    let n = system.n_atoms();
    let t = T::from_f64;
    let lennard_jones = |sigma: f64, epsilon: f64| {
        (
            t(4.0 * epsilon * sigma.powi(12)),
            t(4.0 * epsilon * sigma.powi(6)),
        )
    };
    let prefactor = system
        .generalized_born
        .as_ref()
        .map_or(0.0, |b| born_prefactor(b.model));
    let mut pairs = Vec::with_capacity(n * n.saturating_sub(1) / 2);
    for i in 0..n {
        for j in i + 1..n {
            let charge_product = system.charges[i] * system.charges[j];
            let (repulsion, attraction) = lennard_jones(
                0.5 * (system.sigma[i] + system.sigma[j]),
                (system.epsilon[i] * system.epsilon[j]).sqrt(),
            );
            pairs.push(Pair {
                kind: PairKind::Direct,
                charge: Split::new(COULOMB_CONSTANT * charge_product),
                repulsion,
                attraction,
                born_charge: Split::new(prefactor * charge_product),
            });
        }
    }
    for pair in &system.pairs14 {
        let (repulsion, attraction) = lennard_jones(pair.sigma, pair.epsilon);
        let at = &mut pairs[pair_index(n, pair.atoms[0], pair.atoms[1])];
        *at = Pair {
            kind: PairKind::Scaled,
            charge: Split::new(COULOMB_CONSTANT * pair.charge_product),
            repulsion,
            attraction,
            born_charge: at.born_charge,
        };
    }
    for &[i, j] in &system.excluded {
        pairs[pair_index(n, i, j)].kind = PairKind::Excluded;
    }
    pairs
}
