//! Program-based forward- and reverse-mode automatic differentiation.

pub mod builder;
pub mod check;
pub mod interpret;
pub mod ir;
pub mod jvp;
pub mod linearize;
mod operands;
pub mod optimize;
mod print;
pub mod shape;
mod simplify;
pub mod transpose;
pub mod verify;

pub use builder::{Builder, IntoVar, Var};
pub use interpret::interpret;
pub use jvp::jvp;
pub use linearize::{Linearized, linearize};
pub use optimize::optimize;
pub use transpose::{grad, transpose, vjp};
