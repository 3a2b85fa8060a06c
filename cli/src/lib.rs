//! The `boltzmap` command: arguments, configuration, run directories, stages and the report.
//!
//! Everything that is specific to a command line lives here; the libraries below know of no files but the formats
//! they define. Errors become one sentence on standard error, results go to standard output.

pub mod args;
pub mod bench;
pub mod card;
pub mod commands;
pub mod config;
pub mod molecule;
pub mod npz;
pub mod pipeline;
pub mod progress;
pub mod report;
pub mod run_dir;
pub mod state;
pub mod study;
pub mod trajectory;
pub mod verify;

mod app;

pub use app::main;
