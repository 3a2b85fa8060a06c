//! Checks of derivatives, for tests of operations, layers and losses.
//!
//! [`check_jvp`] compares forward mode with central differences, [`check_vjp`] compares reverse mode with forward mode
//! through ⟨J v, u⟩ = ⟨v, Jᵀ u⟩ to round-off, [`check_tangent_axis`] compares K tangents at once with each alone, and
//! [`check_program`] does all of it, then again on the derivative programs (second order).

use crate::builder::Builder;
use crate::interpret::interpret;
use crate::ir::Program;
use crate::jvp::jvp;
use crate::linearize::linearize;
use crate::shape::element_count;
use crate::transpose::{grad, transpose, vjp};
use crate::var::Var;

/// Central differences after Richardson extrapolation agree to this, relative to the size of the terms.
const DIFFERENCE_TOLERANCE: f64 = 1e-9;
/// Identities that hold but for round-off agree to this, relative to the sum of the magnitudes of their terms.
const ROUND_OFF_TOLERANCE: f64 = 1e-12;
/// Tangents carried by [`check_tangent_axis`].
const TANGENTS: usize = 3;

/// A derivative that fails its check.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "{check} fails at {place}: {found:e} against {expected:e}, off by {error:e} where {allowed:e} is allowed"
)]
pub struct CheckError {
    /// The check and the program it ran on.
    pub check: String,
    /// The output, or the identity.
    pub place: String,
    /// Value from the derivative program.
    pub found: f64,
    /// Value it must equal.
    pub expected: f64,
    /// Their distance.
    pub error: f64,
    /// Largest distance allowed.
    pub allowed: f64,
}

/// Numbers in (−1, 1), the same for the same seed (SplitMix64).
pub fn random_values(seed: u64, count: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x2545_F491_4F6C_DD1D;
    (0..count)
        .map(|_| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        })
        .collect()
}

/// Small reproducible random numbers, one after another.
#[cfg(test)]
pub(crate) struct Random(pub(crate) u64);

#[cfg(test)]
impl Random {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }

    fn number(&mut self) -> f64 {
        self.below(1 << 30) as f64 / f64::from(1 << 29) - 1.0
    }

    pub(crate) fn numbers(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.number()).collect()
    }
}

fn random_like(program_shapes: impl Iterator<Item = usize>, seed: u64) -> Vec<Vec<f64>> {
    program_shapes
        .enumerate()
        .map(|(i, count)| random_values(seed.wrapping_add(7919 * i as u64), count))
        .collect()
}

fn joined(inputs: &[Vec<f64>], more: &[Vec<f64>]) -> Vec<Vec<f64>> {
    inputs.iter().chain(more).cloned().collect()
}

fn within(
    check: &str,
    place: &str,
    found: f64,
    expected: f64,
    allowed: f64,
) -> Result<(), CheckError> {
    let error = (found - expected).abs();
    // Written so that a NaN fails.
    if error <= allowed {
        return Ok(());
    }
    Err(CheckError {
        check: check.into(),
        place: place.into(),
        found,
        expected,
        error,
        allowed,
    })
}

/// Compares the tangents of `jvp` in one random direction with central differences at steps h and h/2, extrapolated
/// to order h⁴. The program must be smooth within 10⁻³ of the inputs along the direction. Values behind
/// `stop_gradient` must not depend on `wrt`, or central differences see them move.
pub fn check_jvp(
    program: &Program,
    inputs: &[Vec<f64>],
    wrt: &[usize],
    seed: u64,
) -> Result<(), CheckError> {
    let direction = random_like(wrt.iter().map(|&i| inputs[i].len()), seed);
    let outputs = interpret(&jvp(program, wrt, None), &joined(inputs, &direction));
    let shifted = |step: f64| {
        let mut moved = inputs.to_vec();
        for (&i, d) in wrt.iter().zip(&direction) {
            moved[i].iter_mut().zip(d).for_each(|(x, d)| *x += step * d);
        }
        interpret(program, &moved)
    };
    let step = 1e-3;
    let values = [
        shifted(step),
        shifted(-step),
        shifted(0.5 * step),
        shifted(-0.5 * step),
    ];
    let count = program.outputs.len();
    for output in 0..count {
        let tangent = &outputs[count + output];
        for (j, &found) in tangent.iter().enumerate() {
            let [plus, minus, half_plus, half_minus] = [0, 1, 2, 3].map(|v| values[v][output][j]);
            let coarse = (plus - minus) / (2.0 * step);
            let fine = (half_plus - half_minus) / step;
            let expected = (4.0 * fine - coarse) / 3.0;
            // The error of the extrapolation goes with the higher derivatives, of which the change from the coarse to
            // the fine difference tells.
            let size = 1.0 + expected.abs() + plus.abs();
            let allowed = DIFFERENCE_TOLERANCE * size + 1e-2 * (fine - coarse).abs();
            let place = format!("output {} element {j}", program.output_names[output]);
            within(
                "jvp against central differences",
                &place,
                found,
                expected,
                allowed,
            )?;
        }
    }
    Ok(())
}

/// Checks ⟨J v, u⟩ = ⟨v, Jᵀ u⟩ for random v and u, with J v from `jvp` and Jᵀ u from `vjp`.
pub fn check_vjp(
    program: &Program,
    inputs: &[Vec<f64>],
    wrt: &[usize],
    seed: u64,
) -> Result<(), CheckError> {
    let direction = random_like(wrt.iter().map(|&i| inputs[i].len()), seed);
    let count = program.outputs.len();
    let cotangent = random_like(
        (0..count).map(|i| element_count(program.output_shape(i))),
        seed ^ 0x5555,
    );
    let forward = interpret(&jvp(program, wrt, None), &joined(inputs, &direction));
    let backward = interpret(&vjp(program, wrt), &joined(inputs, &cotangent));
    inner_product_identity(
        "jvp against vjp",
        &forward[count..],
        &cotangent,
        &direction,
        &backward[count..],
    )?;
    for i in 0..count {
        for (j, (a, b)) in forward[i].iter().zip(&backward[i]).enumerate() {
            let place = format!("output {} element {j}", program.output_names[i]);
            within(
                "values of jvp against vjp",
                &place,
                *a,
                *b,
                ROUND_OFF_TOLERANCE * (1.0 + a.abs()),
            )?;
        }
    }
    Ok(())
}

/// ⟨a, u⟩ = ⟨v, b⟩ up to round-off, for a = J v and b = Jᵀ u.
///
/// Both sides sum the same products along paths through the program. Where paths cancel inside J (as in x − x), a side
/// that sums in another order keeps round-off of the paths' own size though every entry of a and b is zero; with gains
/// of order one that size is ‖u‖ ‖v‖.
fn inner_product_identity(
    check: &str,
    a: &[Vec<f64>],
    u: &[Vec<f64>],
    v: &[Vec<f64>],
    b: &[Vec<f64>],
) -> Result<(), CheckError> {
    let products = |x: &[Vec<f64>], y: &[Vec<f64>]| -> Vec<f64> {
        x.iter()
            .flatten()
            .zip(y.iter().flatten())
            .map(|(x, y)| x * y)
            .collect()
    };
    let norm = |x: &[Vec<f64>]| products(x, x).iter().sum::<f64>().sqrt();
    let (left, right) = (products(a, u), products(v, b));
    let magnitude: f64 = left.iter().chain(&right).map(|x| x.abs()).sum();
    let (left, right): (f64, f64) = (left.iter().sum(), right.iter().sum());
    within(
        check,
        "the inner-product identity",
        left,
        right,
        ROUND_OFF_TOLERANCE * (magnitude + norm(u) * norm(v)),
    )
}

/// Checks that K tangents carried at once are those carried alone, that `linearize` agrees with `jvp`, and that the
/// transpose of the linear part with tangent axis satisfies the inner-product identity.
pub fn check_tangent_axis(
    program: &Program,
    inputs: &[Vec<f64>],
    wrt: &[usize],
    seed: u64,
) -> Result<(), CheckError> {
    let directions = random_like(wrt.iter().map(|&i| TANGENTS * inputs[i].len()), seed);
    let count = program.outputs.len();
    let together = interpret(
        &jvp(program, wrt, Some(TANGENTS)),
        &joined(inputs, &directions),
    );
    let single = jvp(program, wrt, None);
    let parts = linearize(program, wrt, Some(TANGENTS));
    let residuals = interpret(&parts.primal, inputs).split_off(count);
    let linearized = interpret(&parts.linear, &joined(&residuals, &directions));
    for k in 0..TANGENTS {
        let direction: Vec<Vec<f64>> = (wrt.iter().zip(&directions))
            .map(|(&i, d)| d[k * inputs[i].len()..(k + 1) * inputs[i].len()].to_vec())
            .collect();
        let alone = interpret(&single, &joined(inputs, &direction));
        for output in 0..count {
            let expected = &alone[count + output];
            let size = expected.iter().fold(1.0, |size: f64, x| size.max(x.abs()));
            for (j, expected) in expected.iter().enumerate() {
                let place = format!(
                    "output {} tangent {k} element {j}",
                    program.output_names[output]
                );
                let allowed = 10.0 * ROUND_OFF_TOLERANCE * size;
                let position = k * alone[output].len() + j;
                let found = together[count + output][position];
                within("K tangents against one", &place, found, *expected, allowed)?;
                within(
                    "linearize against jvp",
                    &place,
                    linearized[output][position],
                    *expected,
                    allowed,
                )?;
            }
        }
    }
    let cotangent = random_like(linearized.iter().map(Vec::len), seed ^ 0xAAAA);
    let tangent_inputs: Vec<usize> = (parts.residual_count..parts.linear.inputs.len()).collect();
    let backward = interpret(
        &transpose(&parts.linear, &tangent_inputs),
        &joined(&residuals, &cotangent),
    );
    inner_product_identity(
        "transpose of linearize",
        &linearized,
        &cotangent,
        &directions,
        &backward,
    )
}

/// The sum of all outputs, each element with a random weight: a scalar program whose gradient sees every output.
pub fn weighted_sum(program: &Program, seed: u64) -> Program {
    let builder = Builder::new();
    let inputs: Vec<Var> = (0..program.inputs.len())
        .map(|i| builder.input(&program.input_names[i], program.input_shape(i)))
        .collect();
    let mut total = builder.constant(0.0, &[]);
    for (i, output) in builder.call(program, &inputs).into_iter().enumerate() {
        let shape = output.shape();
        let weights = builder.tensor(
            random_values(seed + i as u64, element_count(&shape)),
            &shape,
        );
        total = total + (output * weights).sum_to(&[]);
    }
    builder.finish(&[("weighted_sum", total)])
}

/// All first-order checks: [`check_jvp`], [`check_vjp`], [`check_tangent_axis`].
pub fn check_first_order(
    program: &Program,
    inputs: &[Vec<f64>],
    wrt: &[usize],
    seed: u64,
) -> Result<(), CheckError> {
    check_jvp(program, inputs, wrt, seed)?;
    check_vjp(program, inputs, wrt, seed)?;
    check_tangent_axis(program, inputs, wrt, seed)
}

/// Checks a program's derivatives of first and second order at the given inputs: all of [`check_first_order`] on the
/// program itself, then on its `jvp` (so reverse over forward is covered), and forward over reverse on its gradient.
/// Central differences see through `stop_gradient`; see [`check_jvp`].
pub fn check_program(
    program: &Program,
    inputs: &[Vec<f64>],
    wrt: &[usize],
    seed: u64,
) -> Result<(), CheckError> {
    let second_order = |which: &'static str| {
        move |mut error: CheckError| {
            error.check = format!("{} of {which}", error.check);
            error
        }
    };
    check_first_order(program, inputs, wrt, seed)?;

    let forward = jvp(program, wrt, None);
    let direction = random_like(wrt.iter().map(|&i| inputs[i].len()), seed ^ 0x1111);
    let with_tangents: Vec<usize> = wrt
        .iter()
        .copied()
        .chain(inputs.len()..forward.inputs.len())
        .collect();
    let at = joined(inputs, &direction);
    check_first_order(&forward, &at, &with_tangents, seed).map_err(second_order("jvp"))?;

    let scalar = weighted_sum(&forward, seed);
    let gradient = grad(&scalar, &with_tangents);
    check_jvp(&gradient, &at, &with_tangents, seed).map_err(second_order("grad of jvp"))?;

    let gradient = grad(&weighted_sum(program, seed), wrt);
    check_first_order(&gradient, inputs, wrt, seed).map_err(second_order("grad"))
}
