//! `boltzmap build`: a peptide from its sequence.

use anyhow::Result;
use boltzmap_physics::build_sequence;

use super::print;
use crate::args::BuildArguments;
use crate::molecule::write_pdb;

/// Runs the command.
pub fn build(arguments: &BuildArguments) -> Result<()> {
    let (topology, positions) = build_sequence(&arguments.sequence)?;
    write_pdb(&arguments.out, &topology, &positions)?;
    print(&format!(
        "{}: {} atoms, {} residues (caps included)\n",
        arguments.out.display(),
        topology.n_atoms(),
        topology.n_residues()
    ))
}
