//! A Z-matrix built from the bond graph: which distance, angle and dihedral place each atom.

use super::ChartError;
use crate::observables::{self, Point, angle, cross, dihedral, distance, norm, point, sub};
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// What the dihedral of a [`Row`] is measured against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reference {
    /// A proper torsion about the bond parent–angle: the soft degree of freedom of that bond.
    Torsion,
    /// The azimuth of an earlier sibling about the same bond: tight, set by bond angles.
    Sibling,
}

/// How one atom is placed: r = |atom−parent|, θ = ∠(atom, parent, angle), τ = dihedral(atom, parent, angle, dihedral).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The atom that is placed.
    pub atom: usize,
    /// The placed atom it is bonded to.
    pub parent: usize,
    /// The placed neighbour of `parent`.
    pub angle: usize,
    /// The third reference.
    pub dihedral: usize,
    /// Whether τ is a torsion or relative to a sibling.
    pub reference: Reference,
}

/// The order in which atoms are placed and what each is placed against.
///
/// Internal coordinates are `[atoms − 2, 3]`: token 0 = (r of start 0–1, r of start 1–2, angle at start 1), then
/// (r, θ, τ) of each row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZMatrix {
    /// The first three atoms, bonded in a row.
    pub start: [usize; 3],
    /// One row for each further atom.
    pub rows: Vec<Row>,
}

impl ZMatrix {
    /// Builds the Z-matrix of a connected molecule.
    ///
    /// The start is C(i−1), N, CA of the middle φ of a peptide (a short lever to every atom), otherwise a bonded row of heavy atoms.
    /// The backbone is placed first, then the side chains breadth first, heavy atoms and large branches before hydrogens. The first atom placed
    /// about a bond takes a proper torsion and every further one its azimuth from that sibling; so every φ and ψ is itself a
    /// coordinate.
    ///
    /// # Errors
    /// Fewer than three atoms, a bond out of range, a molecule in pieces.
    pub fn build(
        n_atoms: usize,
        bonds: &[[usize; 2]],
        atomic_numbers: &[u8],
    ) -> Result<Self, ChartError> {
        if n_atoms < 3 {
            return Err(ChartError::TooFewAtoms(n_atoms));
        }
        if atomic_numbers.len() != n_atoms {
            return Err(ChartError::Shape {
                what: "the list of elements",
                found: atomic_numbers.len(),
                expected: n_atoms,
            });
        }
        if let Some(&[i, j]) = bonds
            .iter()
            .find(|[i, j]| *i >= n_atoms || *j >= n_atoms || i == j)
        {
            return Err(ChartError::BadBond(i, j, n_atoms));
        }
        let bonded = observables::neighbours(n_atoms, bonds);
        let backbone = observables::backbone(n_atoms, bonds, atomic_numbers);
        let start = choose_start(&bonded, &backbone, atomic_numbers)?;
        let mut chain = vec![false; n_atoms];
        for quadruple in backbone
            .phi
            .iter()
            .chain(&backbone.psi)
            .chain(&backbone.omega)
        {
            for &atom in quadruple {
                chain[atom] = true;
            }
        }
        grow(&bonded, atomic_numbers, &chain, start)
    }

    /// Number of atoms.
    pub fn n_atoms(&self) -> usize {
        self.rows.len() + 3
    }

    /// Number of coordinates, 3·atoms − 6.
    pub fn dimension(&self) -> usize {
        3 * self.n_atoms() - 6
    }

    /// The index within the coordinates of the dihedral `quadruple` (in either direction), if it is a coordinate itself.
    pub fn coordinate_of_dihedral(&self, quadruple: [usize; 4]) -> Option<usize> {
        let [a, b, c, d] = quadruple;
        self.rows.iter().enumerate().find_map(|(k, row)| {
            let own = [row.atom, row.parent, row.angle, row.dihedral];
            (own == [a, b, c, d] || own == [d, c, b, a]).then_some(3 * (k + 1) + 2)
        })
    }

    /// Cartesian frame `[atoms, 3]` to internal coordinates `[atoms − 2, 3]` (nm and rad; dihedrals in (−π, π]).
    ///
    /// # Errors
    /// The three reference atoms that are collinear.
    pub fn to_internal(&self, frame: &[f64], coordinates: &mut [f64]) -> Result<(), [usize; 3]> {
        let at = |i: usize| point(frame, i);
        let [a, b, c] = self.start;
        coordinates[0] = distance(at(a), at(b));
        coordinates[1] = distance(at(b), at(c));
        coordinates[2] = angle(at(a), at(b), at(c));
        if is_degenerate(coordinates[0], coordinates[2])
            || is_degenerate(coordinates[1], coordinates[2])
        {
            return Err([a, b, c]);
        }
        for (row, out) in self.rows.iter().zip(coordinates[3..].chunks_exact_mut(3)) {
            let (p, q, r, s) = (
                at(row.atom),
                at(row.parent),
                at(row.angle),
                at(row.dihedral),
            );
            out[0] = distance(p, q);
            out[1] = angle(p, q, r);
            out[2] = dihedral(p, q, r, s);
            if is_degenerate(out[0], out[1]) {
                return Err([row.atom, row.parent, row.angle]);
            }
            if is_degenerate(1.0, angle(q, r, s)) {
                return Err([row.parent, row.angle, row.dihedral]);
            }
        }
        Ok(())
    }

    /// Internal coordinates to a Cartesian frame: start atom 1 at the origin, start atom 0 on x, start atom 2 in the plane x, y.
    pub fn to_cartesian(&self, coordinates: &[f64], frame: &mut [f64]) {
        let [a, b, c] = self.start;
        let mut put = |i: usize, p: Point| frame[3 * i..3 * i + 3].copy_from_slice(&p);
        put(b, [0.0; 3]);
        put(a, [coordinates[0], 0.0, 0.0]);
        let (sin, cos) = coordinates[2].sin_cos();
        put(c, [coordinates[1] * cos, coordinates[1] * sin, 0.0]);
        for (row, q) in self.rows.iter().zip(coordinates[3..].chunks_exact(3)) {
            let p = place(
                point(frame, row.parent),
                point(frame, row.angle),
                point(frame, row.dihedral),
                q[0],
                q[1],
                q[2],
            );
            frame[3 * row.atom..3 * row.atom + 3].copy_from_slice(&p);
        }
    }

    /// log|dx/dq| with x in orthonormal coordinates of the mean-free subspace and the orientation uniform (Haar, normalised to 1).
    ///
    /// With c = √N·mean(x), d³ᴺx = d³c d³ᴺ⁻³z, and at fixed shape d³c = N^{3/2} d³x₀; the vectors to the parents give
    /// r² sinθ dr dθ dτ each, and those of the first two together 8π² r₁² r₂² sinθ dr₁ dr₂ dθ dHaar. Hence
    /// log|dz/(dq dHaar)| = Σ 2 ln r + Σ ln sinθ + ln 8π² − (3/2) ln N.
    pub fn log_det(&self, coordinates: &[f64]) -> f64 {
        let start = 2.0 * (coordinates[0].ln() + coordinates[1].ln()) + coordinates[2].sin().ln();
        let rest: f64 = coordinates[3..]
            .chunks_exact(3)
            .map(|q| 2.0 * q[0].ln() + q[1].sin().ln())
            .sum();
        start + rest + (8.0 * PI * PI).ln() - 1.5 * (self.n_atoms() as f64).ln()
    }

    /// Whether every r is positive and every θ lies in (0, π).
    pub fn is_in_range(&self, coordinates: &[f64]) -> bool {
        let bent = |theta: f64| theta > 0.0 && theta < PI;
        coordinates[0] > 0.0
            && coordinates[1] > 0.0
            && bent(coordinates[2])
            && coordinates[3..]
                .chunks_exact(3)
                .all(|q| q[0] > 0.0 && bent(q[1]) && q[2].is_finite())
    }
}

/// Closer to collinear than this (in rad), a dihedral has lost half its digits.
const COLLINEAR: f64 = 1e-8;

fn is_degenerate(length: f64, theta: f64) -> bool {
    // The comparison is written so that NaN is degenerate.
    !(length > 0.0 && theta > COLLINEAR && theta < PI - COLLINEAR)
}

/// The point at distance r from b, at angle θ to b–c, at dihedral τ to b–c–d (natural extension reference frame).
fn place(b: Point, c: Point, d: Point, r: f64, theta: f64, tau: f64) -> Point {
    let scale = |v: Point, s: f64| [v[0] * s, v[1] * s, v[2] * s];
    let along = sub(c, b);
    let along = scale(along, 1.0 / norm(along));
    let side = sub(d, c);
    let normal = cross(along, side);
    let normal = scale(normal, 1.0 / norm(normal));
    // In the plane, perpendicular to the axis, on d's side: τ = 0 is cis.
    let in_plane = cross(normal, along);
    let (sin_theta, cos_theta) = theta.sin_cos();
    let (sin_tau, cos_tau) = tau.sin_cos();
    std::array::from_fn(|k| {
        b[k] + r
            * (cos_theta * along[k] + sin_theta * (cos_tau * in_plane[k] - sin_tau * normal[k]))
    })
}

fn choose_start(
    bonded: &[Vec<usize>],
    backbone: &observables::Backbone,
    atomic_numbers: &[u8],
) -> Result<[usize; 3], ChartError> {
    if !backbone.phi.is_empty() {
        let [c, n, ca, _] = backbone.phi[(backbone.phi.len() - 1) / 2];
        return Ok([c, n, ca]);
    }
    if let Some(&[n, ca, c, _]) = backbone.psi.first() {
        return Ok([n, ca, c]);
    }
    // Any bonded row, the heaviest and best connected first: terminal atoms make poor references.
    let key = |i: usize| (atomic_numbers[i] > 1, bonded[i].len(), std::cmp::Reverse(i));
    let best = |candidates: &mut dyn Iterator<Item = usize>| candidates.max_by_key(|&i| key(i));
    for middle in {
        let mut order: Vec<usize> = (0..bonded.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(key(i)));
        order
    } {
        if let Some(first) = best(&mut bonded[middle].iter().copied())
            && let Some(last) = best(&mut bonded[middle].iter().copied().filter(|&j| j != first))
        {
            return Ok([first, middle, last]);
        }
    }
    Err(ChartError::Disconnected(
        bonded.iter().position(Vec::is_empty).unwrap_or(0),
    ))
}

fn grow(
    bonded: &[Vec<usize>],
    atomic_numbers: &[u8],
    chain: &[bool],
    start: [usize; 3],
) -> Result<ZMatrix, ChartError> {
    let n = bonded.len();
    let [a, b, c] = start;
    let mut parent = vec![usize::MAX; n];
    // The root has no parent; its first child serves as the far end of the torsion about the bond between them.
    parent[a] = b;
    parent[b] = a;
    parent[c] = b;
    let mut first_child = vec![None; n];
    first_child[b] = Some(c);
    let mut placed = vec![false; n];
    let mut queue = vec![a, b, c];
    for &i in &start {
        placed[i] = true;
    }
    let mut rows = Vec::with_capacity(n.saturating_sub(3));
    for backbone_only in [true, false] {
        let mut head = 0;
        while head < queue.len() {
            let p = queue[head];
            head += 1;
            let mut children: Vec<usize> = bonded[p]
                .iter()
                .copied()
                .filter(|&j| !placed[j] && (!backbone_only || chain[j]))
                .collect();
            children.sort_by_key(|&j| {
                (
                    std::cmp::Reverse((bonded[j].len() > 1, atomic_numbers[j])),
                    j,
                )
            });
            for child in children {
                let g = parent[p];
                let (dihedral, reference) = match first_child[p] {
                    Some(sibling) => (sibling, Reference::Sibling),
                    None => {
                        // About the bond p–g the far end is the parent of g; the bond between the first two start atoms,
                        // seen from the root, ends in the third.
                        let far = if p == a { c } else { parent[g] };
                        (far, Reference::Torsion)
                    }
                };
                rows.push(Row {
                    atom: child,
                    parent: p,
                    angle: g,
                    dihedral,
                    reference,
                });
                if first_child[p].is_none() {
                    first_child[p] = Some(child);
                }
                parent[child] = p;
                placed[child] = true;
                queue.push(child);
            }
        }
    }
    if let Some(missing) = placed.iter().position(|&done| !done) {
        return Err(ChartError::Disconnected(missing));
    }
    Ok(ZMatrix { start, rows })
}
