//! SIMD CPU kernels with run-time dispatch, GEMM, counter-based random numbers.
//!
//! Every kernel gives the same bits on the AVX2 and AVX-512 tiers and for any number of threads: sums are kept in a
//! fixed number of lanes ([`simd::VirtualSum`]) and nothing here starts threads.

pub mod elementwise;
pub mod gemm;
pub mod linalg;
pub mod math;
pub mod random;
pub mod real;
pub mod reference;
pub mod rows;
pub mod simd;

pub use real::Real;
pub use simd::{Kernel, Lanes, Simd, Tier, dispatch, dispatch_on};
