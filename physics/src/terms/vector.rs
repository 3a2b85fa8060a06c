//! Three-vectors over any [`Scalar`].

use super::Scalar;

/// a − b
pub fn subtract<S: Scalar>(a: [S; 3], b: [S; 3]) -> [S; 3] {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

/// a + b
pub fn add<S: Scalar>(a: [S; 3], b: [S; 3]) -> [S; 3] {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

/// s a
pub fn scale<S: Scalar>(s: S, a: [S; 3]) -> [S; 3] {
    [s * a[0], s * a[1], s * a[2]]
}

/// a · b
pub fn dot<S: Scalar>(a: [S; 3], b: [S; 3]) -> S {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// a × b
pub fn cross<S: Scalar>(a: [S; 3], b: [S; 3]) -> [S; 3] {
    [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ]
}

/// |a|
pub fn norm<S: Scalar>(a: [S; 3]) -> S {
    dot(a, a).sqrt()
}

/// a / |a|
pub fn normalize<S: Scalar>(a: [S; 3]) -> [S; 3] {
    scale(S::constant(1.0) / norm(a), a)
}

/// Distance between two points.
pub fn distance<S: Scalar>(a: [S; 3], b: [S; 3]) -> S {
    norm(subtract(a, b))
}

/// The angle at `b` of three points, in [0, π]; atan2 keeps it accurate near 0 and π.
pub fn angle<S: Scalar>(a: [S; 3], b: [S; 3], c: [S; 3]) -> S {
    let (u, v) = (subtract(a, b), subtract(c, b));
    norm(cross(u, v)).atan2(dot(u, v))
}

/// The dihedral angle of four points, in (−π, π], IUPAC sign: positive when, looking from `b` to `c`, the bond `c`–`d`
/// is turned clockwise against `b`–`a`.
pub fn dihedral<S: Scalar>(a: [S; 3], b: [S; 3], c: [S; 3], d: [S; 3]) -> S {
    let (b1, b2, b3) = (subtract(b, a), subtract(c, b), subtract(d, c));
    let (m, n) = (cross(b1, b2), cross(b2, b3));
    (dot(b1, n) * norm(b2)).atan2(dot(m, n))
}
