//! Training objectives: losses as traced programs, the distributions of times, AdamW, and the training step.
//!
//! Conventions: time runs from noise (t = 0) to data (t = 1); a map returns `(y, log_det)` and
//! log q(y) = log q(x) − log_det. Sources: flow matching (Lipman et al. 2023), Lagrangian self-distillation of flow
//! maps (Boffi et al. 2024, 2025), mean flows (Geng et al. 2025), shortcut models (Frans et al. 2024), joint distillation
//! of the divergence (F2D2, arXiv 2512.02636), vectorised divergence targets (SCALLOP, arXiv 2606.29110), invertible
//! few-step maps (FALCON, arXiv 2512.09914). A [`method::Method`] says which losses train a map; [`trainer`] runs them,
//! [`divergence`] says when that goes wrong, and [`calibration`] fits the finished map's divergence head to its exact log-determinants.

pub mod base;
pub mod calibration;
pub mod divergence;
pub mod interpolant;
pub mod losses;
pub mod method;
pub mod optimizer;
pub mod oracles;
pub mod schedule;
pub mod targets;
pub mod times;
pub mod trainer;
