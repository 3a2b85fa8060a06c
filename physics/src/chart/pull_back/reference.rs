//! What a pull-back is the derivative of, written a second time over any [`Scalar`]: decoding, its log-determinant and log share. Shares
//! no code with the chart but its fitted numbers.

use crate::chart::InternalChart;
use crate::chart::zmatrix::Row;
use crate::terms::Scalar;
use crate::terms::vector::{add, cross, dot, normalize, scale, subtract};
use std::f64::consts::{FRAC_PI_2, FRAC_PI_4, PI, TAU};

/// A state decoded.
pub(super) struct Decoding<S> {
    /// `[atoms, 3]`
    pub(super) positions: Vec<S>,
    pub(super) log_det: S,
    pub(super) log_share: S,
}

fn number<S: Scalar>(value: f64) -> S {
    S::constant(value)
}

fn sin<S: Scalar>(x: S) -> S {
    (x - number(FRAC_PI_2)).cos()
}

/// q = mean + std C^{1/2} y
fn internal_coordinates<S: Scalar>(chart: &InternalChart, y: &[S]) -> Vec<S> {
    let d = y.len();
    let (mean, std) = (chart.standardiser.mean(), chart.standardiser.std());
    let coloured = |i: usize| match chart.standardiser.colour() {
        None => y[i],
        Some(colour) => (0..d).fold(number(0.0), |sum, j| {
            sum + number::<S>(colour[i * d + j]) * y[j]
        }),
    };
    (0..d)
        .map(|i| number::<S>(mean[i]) + number::<S>(std[i]) * coloured(i))
        .collect()
}

/// ln|dq/dy| + Σ 2 ln r + Σ ln sin θ + ln 8π² − (3/2) ln N
fn log_det<S: Scalar>(chart: &InternalChart, q: &[S]) -> S {
    let atoms = chart.matrix.n_atoms() as f64;
    let constants = chart.standardiser.log_det() + (8.0 * PI * PI).ln() - 1.5 * atoms.ln();
    let two = number::<S>(2.0);
    let start = two * q[0].ln() + two * q[1].ln() + sin(q[2]).ln();
    q[3..]
        .chunks_exact(3)
        .fold(start + number(constants), |sum, q| {
            sum + two * q[0].ln() + sin(q[1]).ln()
        })
}

fn log_share<S: Scalar>(chart: &InternalChart, q: &[S]) -> S {
    let mut sum = number::<S>(0.0);
    for rotor in &chart.rotors {
        let [psi, ..] = rotor.coordinates();
        let below = q[psi] - number(rotor.window);
        let above = number::<S>(rotor.window + TAU / 3.0) - q[psi];
        // The nearer edge decides; beyond its overlap the share is one.
        let inside = if below < above { below } else { above };
        if inside < number(rotor.overlap) {
            let argument =
                number::<S>(FRAC_PI_4) * (number::<S>(1.0) + inside / number(rotor.overlap));
            sum = sum + number::<S>(2.0) * sin(argument).ln();
        }
    }
    sum
}

/// |p−b| = r, ∠pbc = θ, dihedral p–b–c–d = τ, in the frame that `to_cartesian` uses.
fn place<S: Scalar>(row: &Row, positions: &[[S; 3]], [r, theta, tau]: [S; 3]) -> [S; 3] {
    let [b, c, d] = [row.parent, row.angle, row.dihedral].map(|i| positions[i]);
    let axis = normalize(subtract(c, b));
    let arm = subtract(d, c);
    let in_plane = normalize(subtract(arm, scale(dot(arm, axis), axis)));
    // Looking from b to c, d turns clockwise from p for positive τ, so p turns against the axis's right-handed sense.
    let sideways = cross(in_plane, axis);
    let radial = add(scale(tau.cos(), in_plane), scale(sin(tau), sideways));
    add(
        b,
        add(scale(r * theta.cos(), axis), scale(r * sin(theta), radial)),
    )
}

/// Decodes one state that lies in the domain.
pub(super) fn decode<S: Scalar>(chart: &InternalChart, y: &[S]) -> Decoding<S> {
    let mut q = internal_coordinates(chart, y);
    let (log_det, log_share) = (log_det(chart, &q), log_share(chart, &q));
    for rotor in &chart.rotors {
        let [psi, first, second] = rotor.coordinates();
        q[psi] = q[psi] - (q[first] + q[second] - number(TAU)) / number(3.0);
    }
    let zero = number::<S>(0.0);
    let n_atoms = chart.matrix.n_atoms();
    let mut positions = vec![[zero; 3]; n_atoms];
    let [first, root, last] = chart.matrix.start;
    positions[root] = [zero; 3];
    positions[first] = [q[0], zero, zero];
    positions[last] = [q[1] * q[2].cos(), q[1] * sin(q[2]), zero];
    for (row, q) in chart.matrix.rows.iter().zip(q[3..].chunks_exact(3)) {
        positions[row.atom] = place(row, &positions, [q[0], q[1], q[2]]);
    }
    let sum = positions.iter().fold([zero; 3], |sum, &p| add(sum, p));
    let mean = scale(number(1.0 / n_atoms as f64), sum);
    Decoding {
        positions: positions.iter().flat_map(|&p| subtract(p, mean)).collect(),
        log_det,
        log_share,
    }
}
