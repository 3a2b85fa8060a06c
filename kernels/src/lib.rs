//! SIMD CPU kernels with run-time dispatch, GEMM, counter-based random numbers.
