//! The systems of `bench physics`, with conformations that dynamics visits.

use anyhow::{Context, Result, bail};
use boltzmap_physics::builder::{Built, build_minimised};
use boltzmap_physics::langevin::{Langevin, LangevinSettings};
use boltzmap_physics::minimise::MinimiseSettings;
use boltzmap_physics::system::BornModel;
use boltzmap_physics::{ForceField, System, Topology};

use crate::config::nearest;

/// Replicas of the dynamics that makes conformations and of the dynamics that is timed.
pub const REPLICAS: usize = 128;
/// Steps between two conformations of a replica.
const SPACING: u64 = 20;
/// Steps before the first one.
const WARM_UP: u64 = 200;

/// What is asked of a system.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Targets {
    /// Energies with forces over OpenMM's best platform.
    pub energies: f64,
    /// Steps of dynamics over OpenMM's best platform.
    pub dynamics: f64,
    /// One conformation in double precision over OpenMM's Reference platform.
    pub single: f64,
}

/// A system to time.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Its name in tables.
    pub name: &'static str,
    /// The peptide.
    pub sequence: &'static str,
    /// The force field.
    pub force_field: &'static str,
    /// The same as OpenMM's files.
    pub files: [&'static str; 2],
    /// Non-periodic cutoff, nm.
    pub cutoff: Option<f64>,
    /// K
    pub temperature: f64,
    /// 1/ps
    pub friction: f64,
    /// Conformations of one call on our side.
    pub conformations: usize,
    /// What is asked.
    pub targets: Targets,
}

/// Time step of all dynamics, fs.
pub const TIMESTEP_FS: f64 = 1.0;

/// All systems, as the literature simulates them.
pub const WORKLOADS: [Workload; 3] = [
    Workload {
        name: "alanine-dipeptide",
        sequence: "Ace-A-Nme",
        force_field: "amber99sbildn+obc2",
        files: ["amber99sbildn.xml", "amber99_obc.xml"],
        cutoff: None,
        temperature: 300.0,
        friction: 1.0,
        conformations: 4096,
        targets: Targets {
            energies: 40.0,
            dynamics: 30.0,
            single: 3.0,
        },
    },
    Workload {
        name: "hexa-alanine",
        sequence: "AAAAAA",
        force_field: "ff14sb+obc1",
        files: ["amber14/protein.ff14SB.xml", "implicit/obc1.xml"],
        cutoff: Some(2.0),
        temperature: 310.0,
        friction: 0.3,
        conformations: 2048,
        targets: Targets {
            energies: 200.0,
            dynamics: 150.0,
            single: 3.0,
        },
    },
    Workload {
        name: "chignolin",
        sequence: "GYDPETGTWG",
        force_field: "ff14sb+obc1",
        files: ["amber14/protein.ff14SB.xml", "implicit/obc1.xml"],
        cutoff: Some(2.0),
        temperature: 310.0,
        friction: 0.3,
        conformations: 2048,
        targets: Targets {
            energies: 80.0,
            dynamics: 60.0,
            single: 3.0,
        },
    },
];

impl Workload {
    /// The workload of a name.
    pub fn named(name: &str) -> Result<Self> {
        let names = || WORKLOADS.iter().map(|workload| workload.name);
        match WORKLOADS.iter().find(|workload| workload.name == name) {
            Some(workload) => Ok(*workload),
            None => {
                let hint = nearest(name, names())
                    .map_or_else(String::new, |name| format!("; did you mean {name}?"));
                let all: Vec<&str> = names().collect();
                bail!(
                    "there is no workload '{name}'; choose among {}{hint}",
                    all.join(", ")
                )
            }
        }
    }

    fn force_field(&self) -> ForceField {
        match self.force_field {
            "amber99sbildn+obc2" => ForceField::amber99sbildn_obc2(),
            _ => ForceField::ff14sb(Some(BornModel::Obc1), self.cutoff),
        }
    }

    /// Builds the molecule and lets it move.
    pub fn prepare(&self, conformations: usize) -> Result<Prepared> {
        let Built {
            topology,
            system,
            positions,
            ..
        } = build_minimised(
            self.sequence,
            &self.force_field(),
            MinimiseSettings::default(),
        )?;
        let langevin = Langevin::new(
            &system,
            LangevinSettings {
                timestep: TIMESTEP_FS * 1e-3,
                // Stronger than in the timed dynamics, so that replicas part quickly.
                friction: 5.0,
            },
        )?;
        let replicas = REPLICAS.min(conformations);
        let start: Vec<f32> = positions.iter().map(|&x| x as f32).collect();
        let mut state = langevin
            .start(
                &start.repeat(replicas),
                &vec![self.temperature; replicas],
                1,
            )
            .context("the built structure cannot be simulated")?;
        langevin.run(&mut state, WARM_UP)?;
        let size = positions.len();
        let mut frames = Vec::with_capacity(conformations * size);
        while frames.len() < conformations * size {
            langevin.run(&mut state, SPACING)?;
            let missing = conformations * size - frames.len();
            frames.extend_from_slice(&state.positions[..missing.min(state.positions.len())]);
        }
        Ok(Prepared {
            topology,
            system,
            built: positions,
            frames,
        })
    }
}

/// A molecule with its conformations.
pub struct Prepared {
    /// Atoms and bonds.
    pub topology: Topology,
    /// Parameters.
    pub system: System,
    /// The minimised structure, `[atoms, 3]`, nm.
    pub built: Vec<f64>,
    /// `[n, atoms, 3]`, nm; single precision, so that both sides get the same numbers.
    pub frames: Vec<f32>,
}
