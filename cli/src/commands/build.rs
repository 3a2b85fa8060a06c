//! `boltzmap build`: a peptide from its sequence.

use anyhow::Result;
use boltzmap_physics::build_sequence;
use boltzmap_physics::builder::build_minimised;
use boltzmap_physics::minimise::MinimiseSettings;

use super::print;
use crate::args::BuildArguments;
use crate::molecule::{force_field, write_pdb};
use crate::run_dir::check_writable;

/// Runs the command.
pub fn build(arguments: &BuildArguments) -> Result<()> {
    let force_field = force_field(&arguments.force_field)?;
    check_writable(&arguments.out)?;
    let (topology, positions, note) = if arguments.ideal {
        let (topology, positions) = build_sequence(&arguments.sequence)?;
        (topology, positions, String::new())
    } else {
        let settings = MinimiseSettings::default();
        let built = build_minimised(&arguments.sequence, &force_field, settings)?;
        let ended = if built.minimised.converged {
            String::new()
        } else {
            format!(
                ", not converged: largest force component {:.0} kJ/mol/nm",
                built.minimised.largest_force
            )
        };
        let note = format!(
            "; minimised in {} to {:.2} kJ/mol{ended}",
            arguments.force_field, built.minimised.energy
        );
        (built.topology, built.positions, note)
    };
    write_pdb(&arguments.out, &topology, &positions)?;
    let mut names: Vec<&str> = Vec::new();
    for residue in topology.residues() {
        names.push(&topology.atoms[residue[0]].residue_name);
    }
    print(&format!(
        "{}: {} atoms, {} residues, caps included ({}){note}\n",
        arguments.out.display(),
        topology.n_atoms(),
        topology.n_residues(),
        names.join(" ")
    ))
}
