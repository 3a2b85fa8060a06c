//! Program-based forward- and reverse-mode automatic differentiation.
//!
//! A [`Program`](ir::Program) is traced once for given shapes through a [`Builder`]; transformations turn programs into
//! programs: [`jvp()`] (forward mode, one tangent or K at once), [`linearize()`], [`transpose()`], and from these [`vjp`] and
//! [`grad`]. There is one forward rule per operation and a transpose for each linear one; reverse mode, Hessian-vector
//! products and reverse over forward follow. A new operation appears in `ir.rs` and in the exhaustive matches of
//! `operands.rs`, `shape.rs`, `interpret.rs`, `jvp.rs`, `transpose.rs`, and the compiler lists the rest.
//!
//! ```
//! use boltzmap_autodiff::{Builder, grad, interpret};
//!
//! let builder = Builder::new();
//! let x = builder.input("x", &[3]);
//! let loss = (x.sin() * 2.0).sum(&[0]);
//! let program = builder.finish(&[("loss", loss)]);
//! let gradient = grad(&program, &[0]); // outputs: loss, grad_x
//! let outputs = interpret(&gradient, &[[0.0, 1.0, 2.0]]);
//! assert_eq!(outputs[1][1], 2.0 * 1f64.cos());
//! ```

pub mod builder;
pub mod check;
pub mod exec;
mod factored;
pub mod interpret;
pub mod ir;
pub mod jacobian;
pub mod jvp;
pub mod linearize;
mod operands;
pub mod optimize;
mod print;
pub mod shape;
mod simplify;
pub mod transpose;
pub mod var;
pub mod verify;

pub use builder::Builder;
pub use exec::{Batched, Executable, InputRole, OutputRole, Prepared};
pub use interpret::interpret;
pub use jacobian::{Basis, Jacobian};
pub use jvp::jvp;
pub use linearize::{Linearized, linearize};
pub use optimize::optimize;
pub use transpose::{grad, transpose, vjp};
pub use var::{IntoVar, Var};
