//! Elementary functions of lanes, for the fused loops.

use boltzmap_kernels::Lanes;
pub(super) use boltzmap_kernels::math::{
    erf, exp, gelu, gelu_and_prime, gelu_prime, ln, sigmoid, sin_cos, tanh,
};

/// −1, 0 or 1.
#[inline(always)]
pub(super) fn sign<L: Lanes>(x: L) -> L {
    let one = L::constant(1.0);
    let positive = L::select(x.gt(L::zero()), one, L::zero());
    L::select(x.lt(L::zero()), -one, positive)
}

#[inline(always)]
pub(super) fn sin<L: Lanes>(x: L) -> L {
    sin_cos(x).0
}

#[inline(always)]
pub(super) fn cos<L: Lanes>(x: L) -> L {
    sin_cos(x).1
}
