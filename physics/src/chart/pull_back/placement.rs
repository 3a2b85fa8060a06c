//! The reverse of [`ZMatrix::to_cartesian`](super::super::ZMatrix::to_cartesian): from gradients in positions to gradients in internal
//! coordinates, one conformation per lane.
//!
//! A row places p = b + v at |v| = r, at the angle θ to b–c and the dihedral τ to b–c–d. With a the unit vector along c − b, L = |c − b|,
//! w = d − c, n = a×w/h where h = |a×w| is d's distance from the axis, s = w·a, g the gradient at p and t = v×g its torque about b:
//!
//! * r stretches v: ∂f/∂r = g·v/r.
//! * θ turns v about a×v, and τ turns it about −a: ∂f/∂θ = t·(a×v)/|a×v| and ∂f/∂τ = −t·a.
//! * With r, θ and τ held, p moves with b, c and d as a rigid body: δp = δb + ω×v, where the turn ω has the part
//!   a×(δc − δb)/L across the axis and [n·(δd − δc) − (s/L) n·(δc − δb)]/h along it. Hence, with m = (t·a/h) n and l = t×a/L,
//!   d receives m, c receives l − (1 + s/L) m, and b receives g + (s/L) m − l; the three sum to g.
//!
//! Everything is a vector of the decoded geometry, so no sine or cosine is taken again, and nothing depends on where the molecule's
//! centre is. Rows are undone last to first, so that an atom's gradient is complete when its row comes. (The turn about an axis as the
//! derivative with respect to its angle is classical: Noguti and Go, J. Phys. Soc. Jpn. 52, 3685, 1983.)

use crate::batch::V3;
use crate::chart::ZMatrix;
use boltzmap_kernels::simd::Lanes;

/// Turns the gradient in positions `g` (`[atom][xyz]`) into the gradient in internal coordinates `q` (`[token][r, θ, τ]`), at decoded
/// positions `x` (`[atom][xyz]`, start atom 0 along x of start atom 1, start atom 2 in the plane x, y). With `VOLUME` the gradient of
/// Σ 2 ln r + Σ ln sin θ, see [`ZMatrix::log_det`], is added. `g` is used up.
#[inline(always)]
pub(super) fn undo_placement<L: Lanes, const VOLUME: bool>(
    matrix: &ZMatrix,
    x: &[L],
    g: &mut [L],
    q: &mut [L],
) {
    for (row, q) in matrix.rows.iter().zip(q[3..].chunks_exact_mut(3)).rev() {
        let [p, b, c, d] = [row.atom, row.parent, row.angle, row.dihedral].map(|i| V3::load(x, i));
        let gradient = V3::load(g, row.atom);
        let undone = undo_row::<L, VOLUME>(p.minus(b), c.minus(b), d.minus(c), gradient);
        q.copy_from_slice(&undone.coordinates);
        undone.parent.add_to(g, row.parent);
        undone.angle.add_to(g, row.angle);
        undone.dihedral.add_to(g, row.dihedral);
    }
    let start = undo_start::<L, VOLUME>(matrix.start, x, g);
    q[..3].copy_from_slice(&start);
}

/// What the gradient at a placed atom becomes.
struct UndoneRow<L> {
    /// ∂f/∂(r, θ, τ)
    coordinates: [L; 3],
    /// The share of b.
    parent: V3<L>,
    /// The share of c.
    angle: V3<L>,
    /// The share of d.
    dihedral: V3<L>,
}

/// One row, with v = p − b, u = c − b, w = d − c and the gradient g at p; see the module.
#[inline(always)]
fn undo_row<L: Lanes, const VOLUME: bool>(v: V3<L>, u: V3<L>, w: V3<L>, g: V3<L>) -> UndoneRow<L> {
    let per_axis = u.dot(u).rsqrt();
    let axis = u.times(per_axis);
    let across = axis.cross(w);
    let per_height = across.dot(across).rsqrt();
    let torque = v.cross(g);
    let about_axis = torque.dot(axis);

    // a×v has the length r sin θ.
    let bend = axis.cross(v);
    let per_bend = bend.dot(bend).rsqrt();
    let per_length = v.dot(v).rsqrt();
    let mut along_v = g.dot(v) * per_length;
    let mut about_bend = torque.dot(bend) * per_bend;
    if VOLUME {
        along_v = along_v + per_length + per_length;
        about_bend = axis.dot(v).mul_add(per_bend, about_bend);
    }

    let twist = across.times(per_height * per_height * about_axis);
    let lever = torque.cross(axis).times(per_axis);
    let offset = twist.times(w.dot(axis) * per_axis);
    UndoneRow {
        coordinates: [along_v, about_bend, -about_axis],
        parent: g.plus(offset).minus(lever),
        angle: lever.minus(twist).minus(offset),
        dihedral: twist,
    }
}

/// The three start atoms: ∂f/∂(r₀₁, r₁₂, θ). What would turn or shift the whole molecule is dropped, for decoding fixes both.
#[inline(always)]
fn undo_start<L: Lanes, const VOLUME: bool>(
    [first, root, last]: [usize; 3],
    x: &[L],
    g: &[L],
) -> [L; 3] {
    let (u, v) = (
        V3::load(x, first).minus(V3::load(x, root)),
        V3::load(x, last).minus(V3::load(x, root)),
    );
    let (at_first, at_last) = (V3::load(g, first), V3::load(g, last));
    let per_length = v.dot(v).rsqrt();
    // u lies along x and v in the plane x, y: v turns as (−v_y, v_x).
    let stretch_u = at_first.x;
    let stretch_v = at_last.dot(v) * per_length;
    let bend = at_last.y * v.x - at_last.x * v.y;
    if VOLUME {
        let two = L::constant(2.0);
        [
            stretch_u + two / u.x,
            two.mul_add(per_length, stretch_v),
            bend + v.x / v.y,
        ]
    } else {
        [stretch_u, stretch_v, bend]
    }
}
