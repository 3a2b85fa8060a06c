//! Criterion benches and side-by-side baselines.
