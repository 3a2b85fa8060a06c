//! Rigid motions of conformations: uniform random rotations, centring, superposition.

use boltzmap_kernels::random::Stream;

/// A rotation matrix, row-major.
pub type Rotation = [[f64; 3]; 3];

/// A rotation distributed uniformly (Haar measure) over SO(3): four standard normals normalised to a unit quaternion.
pub fn random_rotation(stream: &mut Stream) -> Rotation {
    loop {
        let q: [f64; 4] = std::array::from_fn(|_| stream.standard_normal());
        let square: f64 = q.iter().map(|v| v * v).sum();
        if square > 1e-12 {
            return from_quaternion(q.map(|v| v / square.sqrt()));
        }
    }
}

/// The rotation of the unit quaternion (w, x, y, z).
pub fn from_quaternion([w, x, y, z]: [f64; 4]) -> Rotation {
    [
        [
            1.0 - 2.0 * (y * y + z * z),
            2.0 * (x * y - w * z),
            2.0 * (x * z + w * y),
        ],
        [
            2.0 * (x * y + w * z),
            1.0 - 2.0 * (x * x + z * z),
            2.0 * (y * z - w * x),
        ],
        [
            2.0 * (x * z - w * y),
            2.0 * (y * z + w * x),
            1.0 - 2.0 * (x * x + y * y),
        ],
    ]
}

/// Replaces every position of `[atoms, 3]` by R x (f32 frames are rotated in f64).
pub fn rotate<T: Copy + Into<f64> + num_traits::FromPrimitive>(
    rotation: &Rotation,
    frame: &mut [T],
) {
    for p in frame.chunks_exact_mut(3) {
        let x: [f64; 3] = [p[0].into(), p[1].into(), p[2].into()];
        for (out, row) in p.iter_mut().zip(rotation) {
            let value = row[0] * x[0] + row[1] * x[1] + row[2] * x[2];
            // f32 and f64 both take any f64; the fallback is unreachable for them.
            *out = T::from_f64(value).unwrap_or(*out);
        }
    }
}

/// Removes the mean position (not the centre of mass) of `[atoms, 3]` and returns it.
pub fn centre(frame: &mut [f64]) -> [f64; 3] {
    let n = (frame.len() / 3).max(1) as f64;
    let mut mean = [0.0; 3];
    for p in frame.chunks_exact(3) {
        (0..3).for_each(|k| mean[k] += p[k] / n);
    }
    for p in frame.chunks_exact_mut(3) {
        (0..3).for_each(|k| p[k] -= mean[k]);
    }
    mean
}

/// Root-mean-square distance of two conformations `[atoms, 3]` after the best superposition by a proper rotation.
///
/// The largest eigenvalue λ of the 4×4 quaternion matrix of the covariance gives min Σ|a − R b|² = Σ|a|² + Σ|b|² − 2λ; the rotation is
/// proper, so mirror images keep their distance.
///
/// # Panics
/// If the conformations have different lengths.
pub fn superposed_rmsd(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "conformations of different lengths");
    let (mut a, mut b) = (a.to_vec(), b.to_vec());
    centre(&mut a);
    centre(&mut b);
    let mut s = [[0.0; 3]; 3];
    for (p, q) in a.chunks_exact(3).zip(b.chunks_exact(3)) {
        for i in 0..3 {
            for j in 0..3 {
                s[i][j] += q[i] * p[j];
            }
        }
    }
    let m = [
        [
            s[0][0] + s[1][1] + s[2][2],
            s[1][2] - s[2][1],
            s[2][0] - s[0][2],
            s[0][1] - s[1][0],
        ],
        [
            s[1][2] - s[2][1],
            s[0][0] - s[1][1] - s[2][2],
            s[0][1] + s[1][0],
            s[2][0] + s[0][2],
        ],
        [
            s[2][0] - s[0][2],
            s[0][1] + s[1][0],
            s[1][1] - s[0][0] - s[2][2],
            s[1][2] + s[2][1],
        ],
        [
            s[0][1] - s[1][0],
            s[2][0] + s[0][2],
            s[1][2] + s[2][1],
            s[2][2] - s[0][0] - s[1][1],
        ],
    ];
    let (values, _) = crate::linear::symmetric_eigen(m.concat(), 4);
    let largest = values.into_iter().fold(f64::NEG_INFINITY, f64::max);
    let squares: f64 = a.iter().chain(&b).map(|v| v * v).sum();
    let n = (a.len() / 3).max(1) as f64;
    ((squares - 2.0 * largest).max(0.0) / n).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_are_proper_and_uniform() {
        let mut stream = Stream::new(1, 2, 3);
        let (mut mean, mut second) = ([0.0; 9], [0.0; 9]);
        let n = 20_000;
        for _ in 0..n {
            let r = random_rotation(&mut stream);
            for i in 0..3 {
                for j in 0..3 {
                    let product: f64 = (0..3).map(|k| r[i][k] * r[j][k]).sum();
                    assert!((product - f64::from(u8::from(i == j))).abs() < 1e-14);
                    mean[3 * i + j] += r[i][j] / f64::from(n);
                    second[3 * i + j] += r[i][j] * r[i][j] / f64::from(n);
                }
            }
            let cross = crate::observables::cross(r[0], r[1]);
            assert!((crate::observables::dot(cross, r[2]) - 1.0).abs() < 1e-14);
        }
        // Each entry is uniform in [−1, 1]: mean 0 ± 0.0041, second moment 1/3 ± 0.0021.
        assert!(mean.iter().all(|m| m.abs() < 0.02), "{mean:?}");
        assert!(
            second.iter().all(|m| (m - 1.0 / 3.0).abs() < 0.011),
            "{second:?}"
        );
    }

    #[test]
    fn superposition_undoes_a_rigid_motion_but_not_a_reflection() {
        let mut stream = Stream::new(4, 0, 0);
        let a: Vec<f64> = (0..30).map(|_| stream.standard_normal()).collect();
        let mut b = a.clone();
        rotate(&random_rotation(&mut stream), &mut b);
        b.iter_mut().for_each(|v| *v += 0.7);
        assert!(superposed_rmsd(&a, &b) < 1e-7);
        let mirrored: Vec<f64> = a.iter().map(|v| -v).collect();
        assert!(superposed_rmsd(&a, &mirrored) > 0.1);
        // Two atoms 1 nm and 1.2 nm apart: each end is off by 0.1.
        let pair = superposed_rmsd(
            &[0.0, 0.0, 0.0, 1.0, 0.0, 0.0],
            &[0.0, 0.0, 0.0, 0.0, 1.2, 0.0],
        );
        assert!((pair - 0.1).abs() < 1e-12);
        let mut narrow: Vec<f32> = a.iter().map(|&v| v as f32).collect();
        rotate(&random_rotation(&mut stream), &mut narrow);
        let length = |x: &[f32]| x.iter().map(|v| v * v).sum::<f32>();
        assert!((length(&narrow) - a.iter().map(|v| v * v).sum::<f64>() as f32).abs() < 1e-4);
    }
}
