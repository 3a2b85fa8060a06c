//! The scalar twin of every kernel: plain loops in `f64`, written to be read. Property tests hold each tier to them.

use crate::elementwise::{AdamWStep, Binary, Unary};
use crate::gemm::GemmShape;

/// Φ(x), the standard normal distribution function: Taylor's series of erf near 0, a continued fraction of erfc beyond.
pub fn normal_distribution(x: f64) -> f64 {
    let u = x * std::f64::consts::FRAC_1_SQRT_2;
    if u < -1.0 {
        0.5 * erfc_tail(-u)
    } else {
        0.5 + 0.5 * erf(u)
    }
}

/// Error function, within a few 10⁻¹⁶.
pub fn erf(x: f64) -> f64 {
    let u = x.abs();
    let value = if u < 1.0 {
        // Coefficient of x^(2n): (−1)ⁿ/(n! (2n+1)).
        let (mut factorial, mut power, mut sum) = (1.0, 1.0, 1.0);
        for n in 1..28 {
            factorial *= -f64::from(n);
            power *= u * u;
            sum += power / (factorial * f64::from(2 * n + 1));
        }
        std::f64::consts::FRAC_2_SQRT_PI * u * sum
    } else {
        1.0 - erfc_tail(u)
    };
    value.copysign(x)
}

/// erfc(u) for u ≥ 1 by its continued fraction.
fn erfc_tail(u: f64) -> f64 {
    let mut fraction = 0.0;
    for n in (1..=400).rev() {
        fraction = f64::from(n) / 2.0 / (u + fraction);
    }
    (-u * u).exp() / (std::f64::consts::PI.sqrt() * (u + fraction))
}

/// φ(x), the standard normal density.
pub fn normal_density(x: f64) -> f64 {
    (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt()
}

/// One elementwise function of one argument.
pub fn unary(function: Unary, x: f64) -> f64 {
    match function {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Sign if x > 0.0 => 1.0,
        Unary::Sign if x < 0.0 => -1.0,
        Unary::Sign => 0.0,
        Unary::Exp => x.exp(),
        Unary::Ln => x.ln(),
        Unary::Tanh => x.tanh(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Reciprocal => 1.0 / x,
        Unary::Square => x * x,
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Erf => erf(x),
        Unary::Gelu => x * normal_distribution(x),
        Unary::GeluPrime => normal_distribution(x) + x * normal_density(x),
    }
}

/// One elementwise function of two arguments.
pub fn binary(function: Binary, a: f64, b: f64) -> f64 {
    match function {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Max if a > b => a,
        Binary::Max => b,
        Binary::Min if a < b => a,
        Binary::Min => b,
        Binary::Greater => f64::from(u8::from(a > b)),
    }
}

/// C ← α·op(A)·op(B) + β·C, as [`crate::gemm::gemm`].
pub fn gemm(
    shape: GemmShape,
    alpha: f64,
    a: &[f64],
    transpose_a: bool,
    b: &[f64],
    transpose_b: bool,
    beta: f64,
    c: &mut [f64],
) {
    let GemmShape { m, n, k } = shape;
    for i in 0..m {
        for j in 0..n {
            let mut sum = 0.0;
            for p in 0..k {
                let a = if transpose_a {
                    a[p * m + i]
                } else {
                    a[i * k + p]
                };
                let b = if transpose_b {
                    b[j * k + p]
                } else {
                    b[p * n + j]
                };
                sum += a * b;
            }
            let old = if beta == 0.0 {
                0.0
            } else {
                beta * c[i * n + j]
            };
            c[i * n + j] = alpha * sum + old;
        }
    }
}

/// Softmax of one row.
pub fn softmax(x: &[f64]) -> Vec<f64> {
    let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = x.iter().map(|x| (x - largest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

/// y ⊙ (v − Σ y⊙v) of one row.
pub fn softmax_tangent(y: &[f64], v: &[f64]) -> Vec<f64> {
    let sum: f64 = y.iter().zip(v).map(|(y, v)| y * v).sum();
    y.iter().zip(v).map(|(y, v)| y * (v - sum)).collect()
}

/// ((x − mean)·r, r) of one row.
pub fn layer_norm(x: &[f64], epsilon: f64) -> (Vec<f64>, f64) {
    let count = x.len() as f64;
    let mean = x.iter().sum::<f64>() / count;
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    let r = 1.0 / (variance + epsilon).sqrt();
    (x.iter().map(|x| (x - mean) * r).collect(), r)
}

/// r·(v − mean v − y·mean(y⊙v)) of one row.
pub fn layer_norm_tangent(y: &[f64], r: f64, v: &[f64]) -> Vec<f64> {
    let count = v.len() as f64;
    let mean = v.iter().sum::<f64>() / count;
    let slope = y.iter().zip(v).map(|(y, v)| y * v).sum::<f64>() / count;
    y.iter()
        .zip(v)
        .map(|(y, v)| r * (v - mean - y * slope))
        .collect()
}

/// One element of [`crate::elementwise::adamw_ema`]: (parameter, first moment, second moment, average) after the step.
pub fn adamw_ema(
    parameter: f64,
    gradient: f64,
    moments: (f64, f64),
    average: f64,
    step: AdamWStep,
) -> (f64, f64, f64, f64) {
    let gradient = gradient * step.gradient_scale;
    let m = step.beta1 * moments.0 + (1.0 - step.beta1) * gradient;
    let v = step.beta2 * moments.1 + (1.0 - step.beta2) * gradient * gradient;
    let m_hat = m / (1.0 - step.beta1.powf(step.step as f64));
    let v_hat = v / (1.0 - step.beta2.powf(step.step as f64));
    let update = m_hat / (v_hat.sqrt() + step.epsilon) + step.weight_decay * parameter;
    let parameter = parameter - step.learning_rate * update;
    (
        parameter,
        m,
        v,
        step.ema_decay * average + (1.0 - step.ema_decay) * parameter,
    )
}

/// ln|det A| and the sign of det A by elimination without blocking; A `[n, n]`.
pub fn log_abs_det(a: &[f64], n: usize) -> (f64, f64) {
    let mut rows: Vec<Vec<f64>> = a.chunks(n.max(1)).map(<[f64]>::to_vec).collect();
    let (mut log, mut sign) = (0.0, 1.0);
    for step in 0..n {
        let pivot = (step..n)
            .max_by(|&i, &j| rows[i][step].abs().total_cmp(&rows[j][step].abs()))
            .unwrap_or(step);
        if pivot != step {
            rows.swap(pivot, step);
            sign = -sign;
        }
        let diagonal = rows[step][step];
        if diagonal == 0.0 {
            return (f64::NEG_INFINITY, 0.0);
        }
        log += diagonal.abs().ln();
        sign *= diagonal.signum();
        for row in step + 1..n {
            let factor = rows[row][step] / diagonal;
            for column in step..n {
                rows[row][column] -= factor * rows[step][column];
            }
        }
    }
    (log, sign)
}
