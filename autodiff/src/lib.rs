//! Program-based forward- and reverse-mode automatic differentiation.

pub mod builder;
pub mod interpret;
pub mod ir;
pub mod optimize;
mod operands;
mod print;
pub mod shape;
mod simplify;
pub mod verify;
