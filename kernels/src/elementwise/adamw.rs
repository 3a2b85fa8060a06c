//! The optimiser's update of a parameter vector in one pass over memory.

use super::map;
use crate::real::Real;
use crate::simd::{Kernel, Lanes, Simd, dispatch};

/// The numbers of one AdamW step (Loshchilov & Hutter 2019, algorithm 2) with an exponential moving average.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// Number of this step, from 1.
    pub step: u64,
    /// η
    pub learning_rate: f64,
    /// β₁
    pub beta1: f64,
    /// β₂
    pub beta2: f64,
    /// ε
    pub epsilon: f64,
    /// λ, decoupled: subtracts η·λ·parameter
    pub weight_decay: f64,
    /// Factor on the gradient before anything else (1, or the clipping factor).
    pub gradient_scale: f64,
    /// Decay d of the moving average: average ← d·average + (1 − d)·parameter.
    pub ema_decay: f64,
}

/// Kernel of [`adamw_ema`].
pub struct AdamW<'a, T> {
    /// Parameters, updated.
    pub parameters: &'a mut [T],
    /// Gradient.
    pub gradient: &'a [T],
    /// First moment, updated.
    pub first_moment: &'a mut [T],
    /// Second moment, updated.
    pub second_moment: &'a mut [T],
    /// Moving average of the parameters, updated.
    pub average: &'a mut [T],
    /// The step.
    pub step: AdamWStep,
}

impl<T: Real> Kernel for AdamW<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let AdamW {
            parameters,
            gradient,
            first_moment,
            second_moment,
            average,
            step,
        } = self;
        let length = parameters.len();
        assert!(
            [
                gradient.len(),
                first_moment.len(),
                second_moment.len(),
                average.len()
            ]
            .iter()
            .all(|&other| other == length),
            "adamw: parameters, gradient, moments and average must have one length"
        );
        let constant = |value: f64| T::from_f64(value);
        let power = step.step.min(i32::MAX as u64) as i32;
        let beta1 = constant(step.beta1);
        let rest1 = constant((1.0 - step.beta1) * step.gradient_scale);
        let beta2 = constant(step.beta2);
        let rest2 = constant((1.0 - step.beta2) * step.gradient_scale * step.gradient_scale);
        let rate = constant(step.learning_rate / (1.0 - step.beta1.powi(power)));
        let correction2 = constant(1.0 / (1.0 - step.beta2.powi(power)));
        let epsilon = constant(step.epsilon);
        let shrink = constant(1.0 - step.learning_rate * step.weight_decay);
        let decay = constant(step.ema_decay);
        let rest = constant(1.0 - step.ema_decay);
        map!(T::Lanes<S>, output = &mut *first_moment; m = output; g = gradient; {
            T::Lanes::<S>::splat(beta1).mul_add(m, T::Lanes::<S>::splat(rest1) * g)
        });
        map!(T::Lanes<S>, output = &mut *second_moment; v = output; g = gradient; {
            T::Lanes::<S>::splat(beta2).mul_add(v, T::Lanes::<S>::splat(rest2) * (g * g))
        });
        map!(T::Lanes<S>, output = &mut *parameters; p = output; m = first_moment; v = second_moment; {
            let root = (v * T::Lanes::<S>::splat(correction2)).sqrt() + T::Lanes::<S>::splat(epsilon);
            T::Lanes::<S>::splat(shrink) * p - m * T::Lanes::<S>::splat(rate) / root
        });
        map!(T::Lanes<S>, output = &mut *average; a = output; p = parameters; {
            T::Lanes::<S>::splat(decay).mul_add(a, T::Lanes::<S>::splat(rest) * p)
        });
    }
}

/// One AdamW step: with g the scaled gradient and t the step number,
/// m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², p ← p − η·(m/(1−β₁ᵗ) / (√(v/(1−β₂ᵗ)) + ε) + λp), average ← d·average + (1−d)p.
///
/// # Panics
/// When the lengths differ.
pub fn adamw_ema<T: Real>(
    parameters: &mut [T],
    gradient: &[T],
    first_moment: &mut [T],
    second_moment: &mut [T],
    average: &mut [T],
    step: AdamWStep,
) {
    // Blocks that stay in the first-level cache through the four passes.
    const BLOCK: usize = 1024;
    assert!(
        [
            gradient.len(),
            first_moment.len(),
            second_moment.len(),
            average.len()
        ]
        .iter()
        .all(|&length| length == parameters.len()),
        "adamw: parameters, gradient, moments and average must have one length"
    );
    for start in (0..parameters.len()).step_by(BLOCK) {
        let range = start..(start + BLOCK).min(parameters.len());
        dispatch(AdamW {
            parameters: &mut parameters[range.clone()],
            gradient: &gradient[range.clone()],
            first_moment: &mut first_moment[range.clone()],
            second_moment: &mut second_moment[range.clone()],
            average: &mut average[range],
            step,
        });
    }
}
