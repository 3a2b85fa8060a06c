//! Geometric observables of a conformation: distances, angles, dihedrals, backbone torsions, chirality.
//!
//! Positions are flat row-major `[atoms, 3]` (or `[n, atoms, 3]`) in nm; angles are in radians.

/// A point or vector in space.
pub type Point = [f64; 3];

pub(crate) fn sub(a: Point, b: Point) -> Point {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

pub(crate) fn dot(a: Point, b: Point) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub(crate) fn cross(a: Point, b: Point) -> Point {
    [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ]
}

pub(crate) fn norm(a: Point) -> f64 {
    dot(a, a).sqrt()
}

/// Atom `index` of a flat `[atoms, 3]` frame of either precision, as f64.
pub fn point<T: Copy + Into<f64>>(frame: &[T], index: usize) -> Point {
    [
        frame[3 * index].into(),
        frame[3 * index + 1].into(),
        frame[3 * index + 2].into(),
    ]
}

/// |a − b|.
pub fn distance(a: Point, b: Point) -> f64 {
    norm(sub(a, b))
}

/// The angle at `b`, in [0, π]; accurate near 0 and π because it is the arctangent of |u×v| and u·v.
pub fn angle(a: Point, b: Point, c: Point) -> f64 {
    let (u, v) = (sub(a, b), sub(c, b));
    norm(cross(u, v)).atan2(dot(u, v))
}

/// The dihedral of four points in (−π, π], IUPAC sign: cis is 0, and positive when, looking from `b` to `c`, the bond
/// c–d is turned clockwise from a–b.
///
/// With b₁ = b−a, b₂ = c−b, b₃ = d−c: φ = atan2(|b₂| b₁·(b₂×b₃), (b₁×b₂)·(b₂×b₃)).
pub fn dihedral(a: Point, b: Point, c: Point, d: Point) -> f64 {
    let (b1, b2, b3) = (sub(b, a), sub(c, b), sub(d, c));
    let n2 = cross(b2, b3);
    let y = norm(b2) * dot(b1, n2);
    let x = dot(cross(b1, b2), n2);
    y.atan2(x)
}

/// (a−center) · [(b−center) × (c−center)], nm³: six times the signed volume of the tetrahedron.
pub fn signed_volume(center: Point, a: Point, b: Point, c: Point) -> f64 {
    dot(sub(a, center), cross(sub(b, center), sub(c, center)))
}

/// The atoms bonded to each atom, ascending. Bonds that name an atom out of range are a caller's error and panic.
pub fn neighbours(n_atoms: usize, bonds: &[[usize; 2]]) -> Vec<Vec<usize>> {
    let mut lists = vec![Vec::new(); n_atoms];
    for &[i, j] in bonds {
        lists[i].push(j);
        lists[j].push(i);
    }
    for list in &mut lists {
        list.sort_unstable();
        list.dedup();
    }
    lists
}

/// The backbone of a peptide, found from elements and bonds alone, in residue order (N to C terminus).
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Backbone {
    /// C(i−1), N, CA, C for every residue with a residue or cap before it.
    pub phi: Vec<[usize; 4]>,
    /// N, CA, C, N(i+1) for every residue with a residue or cap after it.
    pub psi: Vec<[usize; 4]>,
    /// The atom before C, C, N, the atom after N (CA or a cap's carbon), for every peptide bond.
    pub omega: Vec<[usize; 4]>,
    /// CA, N, C, CB for every residue with a side chain: the centres whose [`chirality`] is defined.
    pub centres: Vec<[usize; 4]>,
}

/// Finds φ, ψ, ω and the chiral centres.
///
/// A carbonyl carbon is a carbon with three neighbours, one of them an oxygen bonded to nothing else; a CA is a carbon with
/// four neighbours, among them a nitrogen and a carbonyl carbon. No side chain or cap of the standard amino acids matches.
pub fn backbone(n_atoms: usize, bonds: &[[usize; 2]], atomic_numbers: &[u8]) -> Backbone {
    const CARBON: u8 = 6;
    const NITROGEN: u8 = 7;
    const OXYGEN: u8 = 8;
    let bonded = neighbours(n_atoms, bonds);
    let is_carbonyl = |i: usize| {
        atomic_numbers[i] == CARBON
            && bonded[i].len() == 3
            && bonded[i]
                .iter()
                .any(|&j| atomic_numbers[j] == OXYGEN && bonded[j].len() == 1)
    };
    let is_alpha = |i: usize| {
        atomic_numbers[i] == CARBON
            && bonded[i].len() == 4
            && bonded[i].iter().any(|&j| atomic_numbers[j] == NITROGEN)
            && bonded[i].iter().any(|&j| is_carbonyl(j))
    };
    let mut result = Backbone::default();
    for ca in (0..n_atoms).filter(|&i| is_alpha(i)) {
        let find = |keep: &dyn Fn(usize) -> bool| bonded[ca].iter().copied().find(|&j| keep(j));
        let (Some(n), Some(c)) = (
            find(&|j| atomic_numbers[j] == NITROGEN),
            find(&|j| is_carbonyl(j)),
        ) else {
            continue;
        };
        if let Some(before) = bonded[n]
            .iter()
            .copied()
            .find(|&j| j != ca && is_carbonyl(j))
        {
            result.phi.push([before, n, ca, c]);
        }
        if let Some(after) = bonded[c]
            .iter()
            .copied()
            .find(|&j| atomic_numbers[j] == NITROGEN)
        {
            result.psi.push([n, ca, c, after]);
        }
        let side = find(&|j| j != c && atomic_numbers[j] == CARBON);
        if let Some(cb) = side {
            result.centres.push([ca, n, c, cb]);
        }
    }
    for c in (0..n_atoms).filter(|&i| is_carbonyl(i)) {
        let before = bonded[c]
            .iter()
            .copied()
            .find(|&j| atomic_numbers[j] == CARBON);
        for &n in bonded[c].iter().filter(|&&j| atomic_numbers[j] == NITROGEN) {
            // Proline's nitrogen has two carbons besides C: the omega of the main chain ends in CA.
            let after = bonded[n]
                .iter()
                .copied()
                .filter(|&j| j != c && atomic_numbers[j] == CARBON)
                .max_by_key(|&j| (is_alpha(j), std::cmp::Reverse(j)));
            if let (Some(before), Some(after)) = (before, after) {
                // A side-chain amide (Asn, Gln) has two hydrogens on N and is skipped for want of `after`.
                result.omega.push([before, c, n, after]);
            }
        }
    }
    order_along_chain(&mut result);
    result
}

/// Orders each list from the N to the C terminus by following ψ's N(i+1) to the residue that owns it.
fn order_along_chain(found: &mut Backbone) {
    // The nitrogen that follows each nitrogen.
    let next = |n: usize| found.psi.iter().find(|p| p[0] == n).map(|p| p[3]);
    let nitrogens: Vec<usize> = found
        .phi
        .iter()
        .map(|p| p[1])
        .chain(found.psi.iter().map(|p| p[0]))
        .chain(found.centres.iter().map(|p| p[1]))
        .collect();
    let mut starts: Vec<usize> = nitrogens
        .iter()
        .copied()
        .filter(|&n| !found.psi.iter().any(|p| p[3] == n))
        .collect();
    starts.sort_unstable();
    starts.dedup();
    let mut rank = std::collections::HashMap::new();
    for start in starts {
        let mut current = Some(start);
        while let Some(n) = current {
            // A cyclic peptide has no start; a repeat would loop for ever.
            if rank.contains_key(&n) {
                break;
            }
            rank.insert(n, rank.len());
            current = next(n);
        }
    }
    let of = |n: usize| rank.get(&n).copied().unwrap_or(usize::MAX);
    found.phi.sort_by_key(|p| (of(p[1]), p[1]));
    found.psi.sort_by_key(|p| (of(p[0]), p[0]));
    found.omega.sort_by_key(|p| (of(p[2]), p[2]));
    found.centres.sort_by_key(|p| (of(p[1]), p[1]));
}

/// The dihedrals `quadruples` of every frame of `[n, atoms, 3]`: `[n, quadruples]`, rad in (−π, π].
pub fn dihedrals<T: Copy + Into<f64>>(
    positions: &[T],
    n_atoms: usize,
    quadruples: &[[usize; 4]],
) -> Vec<f64> {
    positions
        .chunks_exact(3 * n_atoms)
        .flat_map(|frame| {
            quadruples.iter().map(|&[a, b, c, d]| {
                dihedral(
                    point(frame, a),
                    point(frame, b),
                    point(frame, c),
                    point(frame, d),
                )
            })
        })
        .collect()
}

/// φ₁, ψ₁, φ₂, ψ₂, … of every frame for the residues that have both: `[n, 2 residues]`, rad.
pub fn phi_psi<T: Copy + Into<f64>>(
    positions: &[T],
    n_atoms: usize,
    backbone: &Backbone,
) -> Vec<f64> {
    let both: Vec<[usize; 4]> = backbone
        .phi
        .iter()
        .filter_map(|phi| {
            let psi = backbone.psi.iter().find(|psi| psi[1] == phi[2])?;
            Some([*phi, *psi])
        })
        .flatten()
        .collect();
    dihedrals(positions, n_atoms, &both)
}

/// The chirality of the `[CA, N, C, CB]` centre: the signed volume (N−CA)·[(C−CA)×(CB−CA)], nm³.
///
/// **Positive for L-amino acids**, negative for D, in magnitude near 0.0026 nm³ for an ideal tetrahedron.
pub fn chirality<T: Copy + Into<f64>>(frame: &[T], centre: [usize; 4]) -> f64 {
    let [ca, n, c, cb] = centre;
    signed_volume(
        point(frame, ca),
        point(frame, n),
        point(frame, c),
        point(frame, cb),
    )
}

/// The fraction of frames of `[n, atoms, 3]` in which every centre is L.
pub fn fraction_all_l<T: Copy + Into<f64>>(
    positions: &[T],
    n_atoms: usize,
    centres: &[[usize; 4]],
) -> f64 {
    let mut frames = 0usize;
    let mut good = 0usize;
    for frame in positions.chunks_exact(3 * n_atoms) {
        frames += 1;
        good += usize::from(centres.iter().all(|&centre| chirality(frame, centre) > 0.0));
    }
    good as f64 / frames.max(1) as f64
}

/// Whether two frames agree in what dynamics at room temperature does not change: the chirality of every centre, and cis or trans at every
/// peptide bond.
pub fn same_configuration<T, U>(a: &[T], b: &[U], backbone: &Backbone) -> bool
where
    T: Copy + Into<f64>,
    U: Copy + Into<f64>,
{
    let is_l = |volume: f64| volume > 0.0;
    let centres = &backbone.centres;
    centres
        .iter()
        .all(|&centre| is_l(chirality(a, centre)) == is_l(chirality(b, centre)))
        && same_peptide_bonds(a, b, backbone)
}

/// Whether two frames agree in cis (|ω| < π/2) or trans at every peptide bond.
pub fn same_peptide_bonds<T, U>(a: &[T], b: &[U], backbone: &Backbone) -> bool
where
    T: Copy + Into<f64>,
    U: Copy + Into<f64>,
{
    let is_cis = |omega: f64| omega.cos() > 0.0;
    dihedrals(a, a.len() / 3, &backbone.omega)
        .into_iter()
        .zip(dihedrals(b, b.len() / 3, &backbone.omega))
        .all(|(a, b)| is_cis(a) == is_cis(b))
}

/// The lengths of `bonds` in every frame of `[n, atoms, 3]`: `[n, bonds]`, nm.
pub fn bond_lengths<T: Copy + Into<f64>>(
    positions: &[T],
    n_atoms: usize,
    bonds: &[[usize; 2]],
) -> Vec<f64> {
    positions
        .chunks_exact(3 * n_atoms)
        .flat_map(|frame| {
            bonds
                .iter()
                .map(|&[i, j]| distance(point(frame, i), point(frame, j)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dihedral_has_the_iupac_sign() {
        // Looking along +z from b to c: a points to +x. Clockwise as seen by that viewer is from +x towards +y.
        let (a, b, c) = ([1.0, 0.0, 0.0], [0.0; 3], [0.0, 0.0, 1.0]);
        for expected in [-3.0f64, -1.2, 0.0, 0.3, 1.0, 2.9] {
            let d = [expected.cos(), expected.sin(), 1.0];
            assert!((dihedral(a, b, c, d) - expected).abs() < 1e-14);
            assert!(
                (dihedral(d, c, b, a) - expected).abs() < 1e-14,
                "reversal keeps a dihedral"
            );
        }
    }
}
