//! Elementary functions of lanes, for the fused loops: for now those of the interpreter, lane by lane.

use crate::interpret::unary;
use crate::ir::Unary;
use boltzmap_kernels::{Lanes, Real};

fn map<L: Lanes>(x: L, function: Unary) -> L {
    L::from_fn(|i| L::Scalar::from_f64(unary(function, <L::Scalar as Real>::to_f64(x.extract(i)))))
}

macro_rules! functions {
    ($($name:ident: $function:ident;)+) => {
        $(pub(super) fn $name<L: Lanes>(x: L) -> L {
            map(x, Unary::$function)
        })+
    };
}

functions! {
    sign: Sign; exp: Exp; ln: Ln; tanh: Tanh; sin: Sin; cos: Cos; sigmoid: Sigmoid; erf: Erf; gelu: Gelu;
    gelu_prime: GeluPrime;
}
