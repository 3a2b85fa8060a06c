//! Networks, flow maps, continuous flows, parameters and checkpoints.
//!
//! Everything here transports states `[B, T, C]` (batch, tokens, channels) between noise at t = 0 and data at t = 1
//! and knows nothing of what the tokens stand for. A [`flow_map::FlowMap`] traces programs; [`deploy`] runs them as a
//! few-step sampler with a likelihood, [`inverse`] runs them backwards, both on one [`walk`] over a schedule's steps;
//! [`continuous_flow`] integrates the same velocity as an ordinary differential equation. A map returns `(y, log_det)` with `log q(y) = log q(x) − log_det`.

pub mod checkpoint;
pub mod continuous_flow;
pub mod control;
pub mod deploy;
pub mod divergence;
pub mod error;
pub mod flow_map;
pub mod guidance;
pub mod inverse;
pub mod jacobians;
pub mod layers;
pub mod network;
pub mod ode;
pub mod parameters;
pub mod proposal;
pub mod schedule;
pub mod subspace;
pub mod walk;

pub use error::ModelError;
pub use proposal::MapProposal;
