//! Program-based forward- and reverse-mode automatic differentiation.

pub mod builder;
pub mod interpret;
pub mod ir;
mod operands;
pub mod optimize;
mod print;
pub mod shape;
mod simplify;
pub mod verify;
