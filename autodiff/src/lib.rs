//! Program-based forward- and reverse-mode automatic differentiation.

pub mod ir;
