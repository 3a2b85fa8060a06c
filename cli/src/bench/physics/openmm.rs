//! OpenMM's sides: one process, or two at the same time.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use boltzmap_physics::pdb;
use serde_json::json;

use super::record::Task;
use super::workload::{Prepared, TIMESTEP_FS, Workload};
use crate::bench::process::Process;
use crate::npz::{self, NpzWriter};

/// The script, which travels with the binary.
const SCRIPT: &str = include_str!("../../../../benches/baselines/physics_openmm.py");

/// A platform on so many processes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Name in tables.
    pub name: &'static str,
    platform: &'static str,
    /// How many processes work at the same time.
    pub processes: usize,
}

/// All variants. CPU uses all threads in one process and its share of them in two.
pub const VARIANTS: [Variant; 4] = [
    Variant {
        name: "Reference",
        platform: "Reference",
        processes: 1,
    },
    Variant {
        name: "CPU",
        platform: "CPU",
        processes: 1,
    },
    Variant {
        name: "Reference ×2",
        platform: "Reference",
        processes: 2,
    },
    Variant {
        name: "CPU ×2",
        platform: "CPU",
        processes: 2,
    },
];

/// Energies (kJ/mol) and forces (kJ/mol/nm) of the compared conformations.
pub struct Results {
    /// `[n]`
    pub energies: Vec<f64>,
    /// `[n, atoms, 3]`
    pub forces: Vec<f64>,
}

/// The processes of one variant.
pub struct OpenMm {
    /// Which.
    pub variant: Variant,
    processes: Vec<Process>,
    /// Versions of the libraries.
    pub versions: BTreeMap<String, String>,
    atoms: usize,
}

/// Writes script, structure and conformations into a directory; the path of the specification.
pub fn write_files(workload: &Workload, prepared: &Prepared, directory: &Path) -> Result<PathBuf> {
    let write = |name: &str, text: &str| -> Result<PathBuf> {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    };
    write("physics_openmm.py", SCRIPT)?;
    let structure = write(
        "molecule.pdb",
        &pdb::write(&prepared.topology, &prepared.built)?,
    )?;
    let atoms = prepared.system.n_atoms();
    let conformations = directory.join("conformations.npz");
    NpzWriter::new()
        .array(
            "positions",
            &[prepared.frames.len() / (3 * atoms), atoms, 3],
            &prepared.frames,
        )
        .write(&conformations)?;
    let specification = json!({
        "pdb": structure,
        "files": workload.files,
        "cutoff_nm": workload.cutoff,
        "temperature_k": workload.temperature,
        "friction_per_ps": workload.friction,
        "timestep_fs": TIMESTEP_FS,
        "conformations": conformations,
    });
    write("specification.json", &specification.to_string())
}

impl OpenMm {
    /// Starts the processes of a variant and lets them evaluate the first `compared` conformations.
    ///
    /// # Errors
    /// If the interpreter, OpenMM or the platform is absent.
    pub fn start(
        variant: Variant,
        python: &Path,
        specification: &Path,
        threads: usize,
        compared: usize,
        atoms: usize,
    ) -> Result<(Self, Results)> {
        let directory = specification
            .parent()
            .context("the specification has no folder")?;
        let script = directory.join("physics_openmm.py");
        let mut side = Self {
            variant,
            processes: Vec::new(),
            versions: BTreeMap::new(),
            atoms,
        };
        let mut results = None;
        for number in 0..variant.processes {
            let name = format!("OpenMM {} {number}", variant.name);
            let arguments = [script.as_os_str(), specification.as_os_str()];
            let (mut process, versions) = Process::start(&name, python, &arguments, directory)?;
            let share = (threads / variant.processes).max(1);
            let reply = process.ask(&json!({
                "op": "prepare",
                "platform": variant.platform,
                "threads": share,
                "compared": compared,
            }))?;
            let path = |name: &str| PathBuf::from(reply[name].as_str().unwrap_or_default());
            let energies = npz::read_npy::<f64>(&path("energies"), &[Some(compared)])?.values;
            let shape = [Some(compared), Some(side.atoms), Some(3)];
            let forces = npz::read_npy::<f64>(&path("forces"), &shape)?.values;
            results = Some(Results { energies, forces });
            side.versions = versions;
            side.processes.push(process);
        }
        Ok((side, results.context("a variant has no processes")?))
    }

    /// Seconds per evaluation or step, of all processes together: each does `count`.
    pub fn sample(&mut self, task: Task, count: usize) -> Result<f64> {
        let operation = match task {
            Task::Energies | Task::Single => "energies",
            Task::Dynamics => "steps",
            Task::TargetGradient => bail!("OpenMM has no states to take gradients in"),
        };
        let request = json!({"op": operation, "count": count});
        for process in &mut self.processes {
            process.send(&request)?;
        }
        let mut slowest = 0.0f64;
        for process in &mut self.processes {
            let seconds = process.answer()?["seconds"]
                .as_f64()
                .context("OpenMM's process returned no time")?;
            slowest = slowest.max(seconds);
        }
        ensure!(slowest > 0.0, "OpenMM's process returned no time");
        Ok(slowest / (count * self.processes.len()) as f64)
    }
}
