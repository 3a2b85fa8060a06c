//! Standardised internal coordinates with symmetric rotors folded into one well.

use super::cartesian::copy_mean_free;
use super::standardise::{Standardiser, Whitening, emptiest_cut, flat_reach};
use super::zmatrix::{Reference, ZMatrix};
use super::{ChartError, Decoded, Encoded, check_shape};
use boltzmap_kernels::random::{Stream, domain};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::f64::consts::{FRAC_PI_4, PI, TAU};

/// Stream domain of the choice among a geometry's images; frame k uses stream (0, domain, k).
const DOMAIN_IMAGE: u64 = domain::CHART_IMAGES;

/// A third of the circle: the period of a rotor of three equal atoms.
const THIRD: f64 = TAU / 3.0;

/// Three equivalent terminal hydrogens on one atom (CH₃, NH₃⁺).
///
/// Their labels can be permuted without changing the energy, so the target may be restricted to a fundamental domain of the
/// permutations, which is one well instead of three (times two for the handedness of the labels). With the proper dihedrals t₀,
/// t₁, t₂ of the three atoms and δ_j = t_j − t₀ in [0, 2π), the domain is 0 < δ₁ < δ₂ < 2π and ψ in a window of 2π/3, where
/// ψ = t₀ + (δ₁ + δ₂ − 2π)/3 is the mean azimuth: a cyclic relabelling shifts ψ by exactly 2π/3, so exactly one of the
/// six labellings of any geometry lies inside. ψ takes the place of t₀ as the coordinate (a shear, Jacobian 1).
/// Restricting both the proposal and the target is exact: every relabelling-invariant average is unchanged, and the
/// normalising constants change by the number of labellings only.
///
/// A window with hard edges cuts the density of a nearly free rotor off where it is far from zero, which no smooth map reproduces:
/// there the proposal has too little mass and its samples weigh too much. So the window [a, a + 2π/3) may reach h beyond itself on both
/// sides. A geometry near an edge then has two images, one near each edge, and carries the share c of its probability at each:
/// c rises as sin²(π/4 (1 + x/h)) over −h < x < h around the lower edge and falls as 1 − c around the upper one, so that the two
/// shares sum to one. The lifted target p·c is as smooth as p, and averages of anything invariant under relabelling are those of p.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SymmetricRotor {
    /// The atom that carries the three.
    pub centre: usize,
    /// The three atoms in the order of their rows.
    pub atoms: [usize; 3],
    /// Their tokens; the first carries ψ, the others δ₁ and δ₂.
    tokens: [usize; 3],
    /// Start of the window of ψ.
    pub(super) window: f64,
    /// How far the window reaches beyond its edges, h ≤ π/3, rad.
    #[serde(default)]
    pub(super) overlap: f64,
}

/// Options of [`InternalChart::fit`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct InternalOptions {
    /// Diagonal or full standardisation.
    pub whitening: Whitening,
    /// Fold rotors of three equal hydrogens into one well.
    pub fold_rotors: bool,
    /// How far the window of a folded rotor may reach beyond its edges, in [0, π/3], rad; see [`SymmetricRotor`]. It reaches less
    /// far where the data become dense faster than an image's share falls, lest the far ends hold wells of their own.
    pub rotor_overlap: f64,
}

impl Default for InternalOptions {
    fn default() -> Self {
        Self {
            whitening: Whitening::Full,
            fold_rotors: true,
            rotor_overlap: 0.0,
        }
    }
}

/// Internal coordinates, cut, folded and standardised: the state is `[tokens = atoms − 2, channels = 3]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InternalChart {
    pub(super) matrix: ZMatrix,
    pub(super) rotors: Vec<SymmetricRotor>,
    /// Start of the window of the dihedral of each token (`[tokens]`, token 0 has none).
    windows: Vec<f64>,
    pub(super) standardiser: Standardiser,
}

impl InternalChart {
    /// Fits cuts, rotor windows and standardisation on `frames` `[n, atoms, 3]`, nm.
    ///
    /// # Errors
    /// Wrong shapes, frames with collinear references or positions that are not finite, too few frames.
    pub fn fit<T: Copy + Into<f64> + Sync>(
        matrix: ZMatrix,
        atomic_numbers: &[u8],
        options: InternalOptions,
        frames: &[T],
    ) -> Result<Self, ChartError> {
        let tokens = matrix.n_atoms() - 2;
        let d = matrix.dimension();
        if atomic_numbers.len() != matrix.n_atoms() {
            return Err(ChartError::Shape {
                what: "the list of elements",
                found: atomic_numbers.len(),
                expected: matrix.n_atoms(),
            });
        }
        let rotors = if options.fold_rotors {
            find_rotors(&matrix, atomic_numbers)
        } else {
            Vec::new()
        };
        let mut chart = Self {
            matrix,
            rotors,
            windows: vec![-PI; tokens],
            standardiser: Standardiser::identity(d),
        };
        let raw = chart.raw_coordinates(frames)?;
        for rotor in &mut chart.rotors {
            // ψ modulo 2π/3 is the same for all labellings.
            let angles: Vec<f64> = raw.chunks_exact(d).map(|q| rotor.sorted(q).0).collect();
            rotor.window = emptiest_cut(angles.iter().copied(), THIRD);
            rotor.overlap = flat_reach(&angles, rotor.window, THIRD, options.rotor_overlap);
        }
        let mut data = raw;
        data.par_chunks_exact_mut(d)
            .enumerate()
            .for_each(|(k, q)| chart.fold(q, k));
        for token in 1..tokens {
            chart.windows[token] = match chart.rotors.iter().find_map(|r| r.window_of(token)) {
                Some(start) => start,
                None => emptiest_cut(data.chunks_exact(d).map(|q| q[3 * token + 2]), TAU),
            };
        }
        data.par_chunks_exact_mut(d)
            .for_each(|q| chart.unwrap_angles(q));
        chart.standardiser = Standardiser::fit(&data, d, options.whitening)?;
        Ok(chart)
    }

    /// The Z-matrix.
    pub fn matrix(&self) -> &ZMatrix {
        &self.matrix
    }

    /// The folded rotors.
    pub fn rotors(&self) -> &[SymmetricRotor] {
        &self.rotors
    }

    /// The affine map between internal coordinates and the state.
    pub fn standardiser(&self) -> &Standardiser {
        &self.standardiser
    }

    /// Tokens (atoms − 2) and channels (3) of the state.
    pub fn state_shape(&self) -> [usize; 2] {
        [self.matrix.n_atoms() - 2, 3]
    }

    /// Dimension of the state, 3·atoms − 6.
    pub fn dimension(&self) -> usize {
        self.matrix.dimension()
    }

    /// Positions `[n, atoms, 3]` (any orientation and labelling of folded rotors) to states, with log|dy/dx|.
    ///
    /// The domain holds every geometry up to relabelling, so `in_domain` is true for all frames. Of a geometry with several images,
    /// where windows overlap, one is drawn according to their shares, the same whenever it is frame k of the array.
    ///
    /// # Errors
    /// A wrong length, positions that are not finite, collinear reference atoms.
    pub fn encode<T: Copy + Into<f64> + Sync>(
        &self,
        positions: &[T],
    ) -> Result<Encoded, ChartError> {
        let d = self.dimension();
        let mut q = self.raw_coordinates(positions)?;
        let n = q.len() / d;
        let mut state = vec![0.0; q.len()];
        let (log_det, log_share) = q
            .par_chunks_exact_mut(d)
            .zip(state.par_chunks_exact_mut(d))
            .enumerate()
            .map(|(k, (q, y))| {
                self.fold(q, k);
                self.unwrap_angles(q);
                self.standardiser.apply(q, y);
                let log_det = -(self.matrix.log_det(q) + self.standardiser.log_det());
                (log_det, self.log_share(q))
            })
            .unzip();
        Ok(Encoded {
            state,
            log_det,
            log_share,
            in_domain: vec![true; n],
        })
    }

    /// States `[n, tokens, 3]` to mean-free positions in a standard orientation, with log|dx/dy|.
    ///
    /// # Errors
    /// A wrong length.
    pub fn decode<T: Copy + Into<f64> + Sync>(&self, state: &[T]) -> Result<Decoded, ChartError> {
        let d = self.dimension();
        let width = 3 * self.matrix.n_atoms();
        let n = check_shape("the array of states", state.len(), d)?;
        let mut positions = vec![0.0; n * width];
        let state: Vec<f64> = state.iter().map(|&y| y.into()).collect();
        let mut coordinates = vec![0.0; state.len()];
        self.standardiser.invert_all(&state, &mut coordinates);
        let numbers: Vec<(f64, f64, bool)> = coordinates
            .par_chunks_exact_mut(d)
            .zip(positions.par_chunks_exact_mut(width))
            .map_init(
                || vec![0.0; width],
                |frame, (q, out)| {
                    let inside = self.contains(q);
                    let (log_det, log_share) = if inside {
                        let log_det = self.matrix.log_det(q) + self.standardiser.log_det();
                        (log_det, self.log_share(q))
                    } else {
                        (0.0, 0.0)
                    };
                    for rotor in &self.rotors {
                        let [a, b, c] = rotor.tokens.map(|t| 3 * t + 2);
                        q[a] -= (q[b] + q[c] - TAU) / 3.0;
                    }
                    self.matrix.to_cartesian(q, frame);
                    copy_mean_free(frame, out);
                    (log_det, log_share, inside)
                },
            )
            .collect();
        Ok(Decoded {
            positions,
            log_det: numbers.iter().map(|(log_det, _, _)| *log_det).collect(),
            log_share: numbers.iter().map(|(_, share, _)| *share).collect(),
            in_domain: numbers.iter().map(|(_, _, inside)| *inside).collect(),
        })
    }

    /// Relabels the hydrogens of folded rotors so that every frame of `[n, atoms, 3]` is labelled as [`Self::decode`] labels it
    /// where windows do not overlap.
    ///
    /// # Errors
    /// A wrong length, positions that are not finite, collinear reference atoms.
    pub fn canonicalise<T: Copy + Into<f64> + Send + Sync>(
        &self,
        positions: &mut [T],
    ) -> Result<(), ChartError> {
        let d = self.dimension();
        let raw = self.raw_coordinates(positions)?;
        positions
            .par_chunks_exact_mut(3 * self.matrix.n_atoms())
            .zip(raw.par_chunks_exact(d))
            .for_each(|(frame, q)| {
                for rotor in &self.rotors {
                    let order = rotor.labelling(q);
                    let old: [[T; 3]; 3] = std::array::from_fn(|j| {
                        std::array::from_fn(|axis| frame[3 * rotor.atoms[order[j]] + axis])
                    });
                    for j in 0..3 {
                        frame[3 * rotor.atoms[j]..3 * rotor.atoms[j] + 3].copy_from_slice(&old[j]);
                    }
                }
            });
        Ok(())
    }

    fn raw_coordinates<T: Copy + Into<f64> + Sync>(
        &self,
        positions: &[T],
    ) -> Result<Vec<f64>, ChartError> {
        let width = 3 * self.matrix.n_atoms();
        let d = self.dimension();
        let n = check_shape("the array of positions", positions.len(), width)?;
        let mut raw = vec![0.0; n * d];
        positions
            .par_chunks_exact(width)
            .zip(raw.par_chunks_exact_mut(d))
            .enumerate()
            .map(|(k, (source, q))| {
                let frame: Vec<f64> = source.iter().map(|&v| v.into()).collect();
                if !frame.iter().all(|v| v.is_finite()) {
                    return Err(ChartError::NotFinite(k));
                }
                self.matrix
                    .to_internal(&frame, q)
                    .map_err(|atoms| ChartError::Collinear { frame: k, atoms })
            })
            // The first bad frame is reported whatever the number of threads.
            .collect::<Vec<_>>()
            .into_iter()
            .collect::<Result<(), _>>()?;
        Ok(raw)
    }

    /// Folds the rotors of frame k.
    fn fold(&self, q: &mut [f64], k: usize) {
        let mut stream = Stream::new(0, DOMAIN_IMAGE, k as u64);
        for rotor in &self.rotors {
            rotor.fold(q, stream.uniform());
        }
    }

    /// ln of the share that the image q has of its geometry's probability.
    fn log_share(&self, q: &[f64]) -> f64 {
        let rotors = self.rotors.iter();
        rotors
            .map(|rotor| rotor.share(q[3 * rotor.tokens[0] + 2]).ln())
            .sum()
    }

    fn unwrap_angles(&self, q: &mut [f64]) {
        for (token, &start) in self.windows.iter().enumerate().skip(1) {
            q[3 * token + 2] = into_window(q[3 * token + 2], start);
        }
    }

    fn contains(&self, q: &[f64]) -> bool {
        self.matrix.is_in_range(q)
            && self
                .windows
                .iter()
                .enumerate()
                .skip(1)
                .all(|(token, &start)| {
                    let tau = q[3 * token + 2];
                    tau >= start && tau < start + TAU
                })
            && self.rotors.iter().all(|rotor| {
                let [psi, first, second] = rotor.tokens.map(|t| q[3 * t + 2]);
                psi < rotor.window + THIRD + rotor.overlap && first > 0.0 && first < second
            })
    }
}

/// `angle` modulo 2π in [start, start + 2π).
fn into_window(angle: f64, start: f64) -> f64 {
    let value = start + (angle - start).rem_euclid(TAU);
    // rem_euclid of a tiny negative number rounds up to the period.
    if value >= start + TAU { start } else { value }
}

fn find_rotors(matrix: &ZMatrix, atomic_numbers: &[u8]) -> Vec<SymmetricRotor> {
    let is_parent = |atom: usize| {
        matrix.start.contains(&atom) || matrix.rows.iter().any(|row| row.parent == atom)
    };
    let mut rotors: Vec<SymmetricRotor> = Vec::new();
    for row in matrix
        .rows
        .iter()
        .filter(|row| row.reference == Reference::Torsion)
    {
        let own: Vec<usize> = (0..matrix.rows.len())
            .filter(|&k| matrix.rows[k].parent == row.parent)
            .collect();
        let [a, b, c] = own[..] else { continue };
        let atoms = [a, b, c].map(|k| matrix.rows[k].atom);
        let siblings = [b, c]
            .iter()
            .all(|&k| matrix.rows[k].reference == Reference::Sibling);
        if siblings
            && atoms
                .iter()
                .all(|&i| atomic_numbers[i] == 1 && !is_parent(i))
        {
            rotors.push(SymmetricRotor {
                centre: row.parent,
                atoms,
                tokens: [a + 1, b + 1, c + 1],
                window: 0.0,
                overlap: 0.0,
            });
        }
    }
    rotors
}

impl SymmetricRotor {
    fn window_of(&self, token: usize) -> Option<f64> {
        match self.tokens.iter().position(|&t| t == token)? {
            0 => Some(self.window - self.overlap),
            _ => Some(0.0),
        }
    }

    /// ψ and the order of the atoms by increasing azimuth from the first, from raw coordinates (t₀ and δ's in any window).
    fn sorted(&self, q: &[f64]) -> (f64, [usize; 3]) {
        let [t0, d1, d2] = self.tokens.map(|t| q[3 * t + 2]);
        let (d1, d2) = (into_window(d1, 0.0), into_window(d2, 0.0));
        let order = if d1 <= d2 { [0, 1, 2] } else { [0, 2, 1] };
        (t0 + (d1 + d2 - TAU) / 3.0, order)
    }

    /// The share of a geometry's probability at the image ψ.
    fn share(&self, psi: f64) -> f64 {
        let rise = |x: f64| (FRAC_PI_4 * (1.0 + x / self.overlap)).sin().powi(2);
        let from_start = psi - self.window;
        let from_end = from_start - THIRD;
        if from_start < self.overlap {
            rise(from_start)
        } else if from_end > -self.overlap {
            // Not 1 − rise, which would round to a share of 0 near the end.
            rise(-from_end)
        } else {
            1.0
        }
    }

    /// ∂ ln c/∂ψ of the share c at the image ψ.
    pub(super) fn log_share_slope(&self, psi: f64) -> f64 {
        // ln sin² u with u = π/4 (1 + x/h)
        let slope = |x: f64| {
            let argument = FRAC_PI_4 * (1.0 + x / self.overlap);
            2.0 * FRAC_PI_4 / self.overlap / argument.tan()
        };
        let from_start = psi - self.window;
        let from_end = from_start - THIRD;
        if from_start < self.overlap {
            slope(from_start)
        } else if from_end > -self.overlap {
            -slope(-from_end)
        } else {
            0.0
        }
    }

    /// Indices of ψ, δ₁ and δ₂ among the coordinates.
    pub(super) fn coordinates(&self) -> [usize; 3] {
        self.tokens.map(|token| 3 * token + 2)
    }

    /// The image of ψ in the window without its overlaps, as a number of thirds of a turn, and that image.
    fn central_image(&self, psi: f64) -> (usize, f64) {
        let image = |k: usize| into_window(psi + k as f64 * THIRD, self.window);
        let k = (0..3)
            .min_by(|&a, &b| image(a).total_cmp(&image(b)))
            .unwrap_or(0);
        (k, image(k))
    }

    /// Which old atom each new label takes.
    fn labelling(&self, q: &[f64]) -> [usize; 3] {
        let (psi, order) = self.sorted(q);
        let (k, _) = self.central_image(psi);
        std::array::from_fn(|j| order[(j + k) % 3])
    }

    /// As [`Self::labelling`], but where the geometry has two images, `uniform` in [0, 1) chooses.
    fn drawn_labelling(&self, q: &[f64], uniform: f64) -> [usize; 3] {
        let (psi, order) = self.sorted(q);
        let (mut k, image) = self.central_image(psi);
        if uniform >= self.share(image) {
            // The other image lies a third of a turn towards the far edge.
            k += if image < self.window + 0.5 * THIRD {
                1
            } else {
                2
            };
        }
        std::array::from_fn(|j| order[(j + k) % 3])
    }

    /// Brings raw coordinates into the domain: relabels, and replaces t₀ by ψ. Where there are two images, `uniform` chooses.
    fn fold(&self, q: &mut [f64], uniform: f64) {
        let labels = self.drawn_labelling(q, uniform);
        let [t0, d1, d2] = self.tokens.map(|t| q[3 * t + 2]);
        let azimuth = [t0, t0 + d1, t0 + d2];
        let old: [[f64; 2]; 3] = self.tokens.map(|t| [q[3 * t], q[3 * t + 1]]);
        for j in 0..3 {
            q[3 * self.tokens[j]..3 * self.tokens[j] + 2].copy_from_slice(&old[labels[j]]);
        }
        let t0 = azimuth[labels[0]];
        let d1 = into_window(azimuth[labels[1]] - t0, 0.0);
        let d2 = into_window(azimuth[labels[2]] - t0, 0.0);
        q[3 * self.tokens[1] + 2] = d1;
        q[3 * self.tokens[2] + 2] = d2;
        // The labelling puts ψ in the window; rounding at its edge must not push it a whole turn away.
        let start = self.window - self.overlap;
        let psi = into_window(t0 + (d1 + d2 - TAU) / 3.0, start);
        q[3 * self.tokens[0] + 2] = if psi < self.window + THIRD + self.overlap {
            psi
        } else {
            start
        };
    }
}
