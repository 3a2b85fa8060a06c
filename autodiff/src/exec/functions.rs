//! Elementary functions of lanes, for the fused loops.

use boltzmap_kernels::{Lanes, Real};
use num_traits::Float;

#[inline(always)]
fn map<L: Lanes>(x: L, f: fn(f64) -> f64) -> L {
    L::from_fn(|i| L::Scalar::from_f64(f(x.extract(i).to_f64())))
}

#[inline(always)]
pub(super) fn sign<L: Lanes>(x: L) -> L {
    let one = L::constant(1.0);
    let positive = L::select(x.gt(L::zero()), one, L::zero());
    L::select(x.lt(L::zero()), -one, positive)
}
#[inline(always)]
pub(super) fn exp<L: Lanes>(x: L) -> L {
    map(x, f64::exp)
}
#[inline(always)]
pub(super) fn ln<L: Lanes>(x: L) -> L {
    map(x, f64::ln)
}
#[inline(always)]
pub(super) fn tanh<L: Lanes>(x: L) -> L {
    map(x, f64::tanh)
}
#[inline(always)]
pub(super) fn sin<L: Lanes>(x: L) -> L {
    map(x, f64::sin)
}
#[inline(always)]
pub(super) fn cos<L: Lanes>(x: L) -> L {
    map(x, f64::cos)
}
#[inline(always)]
pub(super) fn sigmoid<L: Lanes>(x: L) -> L {
    let one = L::constant(1.0);
    one / (one + exp(-x))
}
#[inline(always)]
pub(super) fn erf<L: Lanes>(x: L) -> L {
    map(x, f64::tanh)
}
#[inline(always)]
pub(super) fn gelu<L: Lanes>(x: L) -> L {
    map(x, f64::tanh)
}
#[inline(always)]
pub(super) fn gelu_prime<L: Lanes>(x: L) -> L {
    map(x, f64::tanh)
}
