//! What a replica exchange says about itself: `FILE.summary.json`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use boltzmap_physics::observables;
use boltzmap_physics::replica_exchange::{
    ReplicaExchange, ReplicaExchangeState, ReplicaExchangeTrajectory,
};
use boltzmap_physics::system::GAS_CONSTANT;
use boltzmap_statistics::jackknife::Estimate;
use boltzmap_statistics::{self as statistics, IndependentValues};
use serde_json::{Map, Value, json};

use super::Written;
use super::configurations::Found;
use super::independent;
use crate::card::made_by;
use crate::commands::free_energy::{self, PhiState};
use crate::molecule::Molecule;
use crate::run_dir::write_atomically;

/// Samples of all temperatures that go into MBAR at most; more hardly help, being correlated.
const MBAR_SAMPLES: usize = 400_000;
/// Frames of each half whose distance is the floor.
const FLOOR_FRAMES: usize = 10_000;
/// Independent values below which a free energy is no estimate.
const FEWEST_INDEPENDENT: f64 = 10.0;
/// Acceptance of exchanges below which temperatures have no connection.
const LEAST_ACCEPTANCE: f64 = 0.01;

/// A backbone dihedral with its name.
pub(super) struct Torsion {
    pub(super) name: String,
    pub(super) atoms: [usize; 4],
    /// Of φ, the state that ΔF is about.
    pub(super) state: Option<PhiState>,
}

/// φ and ψ of every residue that has them, in the order of the chain, counted with caps.
pub(super) fn torsions(molecule: &Molecule) -> Vec<Torsion> {
    let atoms = &molecule.topology.atoms;
    let found = molecule.topology.backbone();
    let named = |kind: &'static str, list: &[[usize; 4]], alpha: usize| -> Vec<(usize, Torsion)> {
        list.iter()
            .map(|&atoms_of| {
                let residue = atoms[atoms_of[alpha]].residue_index;
                let torsion = Torsion {
                    name: format!("{kind} {}", molecule.topology.residue_label(residue)),
                    atoms: atoms_of,
                    state: (kind == "phi").then(|| PhiState::of(molecule, atoms_of)),
                };
                (residue, torsion)
            })
            .collect()
    };
    let mut all = named("phi", &found.phi, 2);
    all.extend(named("psi", &found.psi, 1));
    all.sort_by_key(|(residue, torsion)| (*residue, torsion.state.is_none()));
    all.into_iter().map(|(_, torsion)| torsion).collect()
}

/// A finished run and what is known of its frames.
pub(super) struct Material<'r> {
    pub(super) molecule: &'r Molecule,
    pub(super) torsions: &'r [Torsion],
    pub(super) exchange: &'r ReplicaExchange,
    pub(super) run: &'r ReplicaExchangeState,
    pub(super) trajectory: &'r ReplicaExchangeTrajectory,
    pub(super) found: &'r Found,
    pub(super) written: &'r [Written],
}

/// The summary, and its main numbers in words.
pub(super) struct Summary {
    pub(super) value: Value,
    pub(super) sentences: String,
    /// What is wrong, one sentence each.
    pub(super) warnings: Vec<String>,
}

impl Material<'_> {
    /// Everything the run can tell about its own quality.
    pub(super) fn summarise(&self) -> Result<Summary> {
        let (trajectory, settings) = (self.trajectory, self.exchange.settings());
        let acceptances: Vec<f64> = self.run.exchanges.iter().map(|c| c.acceptance()).collect();
        let mut warnings: Vec<String> = self.obstacle().into_iter().collect();
        let mut sentences = self.found.sentences(&trajectory.temperatures);
        match self.found.mirrored_at_lowest() {
            0 => {}
            n => warnings.push(format!(
                "{n} frames at the lowest temperature have a Cα of the other handedness than the sequence; lower --highest or --timestep-fs"
            )),
        }
        let mut sets = Map::new();
        for set in self.written {
            let sizes = self.independent(set);
            sentences += &self.sentence(set, &sizes, &mut warnings);
            sets.insert(
                set.name.to_owned(),
                json!({
                    "file": set.path.file_name().map(|name| name.to_string_lossy()),
                    "frames": set.frames.len(),
                    "ladders": set.ladders,
                    "effective_samples": independent::value(self.torsions, &sizes),
                }),
            );
        }
        let (differences, told) = self.differences();
        sentences += &told;
        let value = json!({
            "made_by": made_by(),
            "temperatures_k": trajectory.temperatures,
            "exchange_acceptance": acceptances,
            "round_trips": self.run.round_trips,
            "ladders": settings.n_ladders,
            "configurations": self.found.value(),
            "sets": sets,
            "delta_f": differences,
            "w2_floors": match self.written.last() {
                Some(set) => floors(self.molecule, trajectory, settings.lowest_temperature, set)?,
                None => Value::Null,
            },
            "warnings": warnings,
        });
        Ok(Summary {
            value,
            sentences,
            warnings,
        })
    }

    fn independent(&self, set: &Written) -> Vec<IndependentValues> {
        independent::of_torsions(
            self.trajectory,
            self.torsions,
            self.exchange.watched().len(),
            set,
            &|n| self.found.belongs(n),
        )
    }

    /// How many independent values a set holds, with a warning where they are few.
    fn sentence(
        &self,
        set: &Written,
        sizes: &[IndependentValues],
        warnings: &mut Vec<String>,
    ) -> String {
        let ladders = set.ladders.len();
        let least = self
            .torsions
            .iter()
            .zip(sizes)
            .map(|(torsion, size)| (torsion, independent::cautious(size, ladders)))
            .min_by(|a, b| a.1.total_cmp(&b.1));
        let Some((torsion, size)) = least else {
            return String::new();
        };
        if size < FEWEST_INDEPENDENT {
            warnings.push(format!(
                "the {} frames of {} hold about {size:.0} independent values of {}, too few for a reference; raise --ps or --ladders",
                set.frames.len(),
                set.path.display(),
                torsion.name
            ));
        }
        format!(
            "{}: {} frames of {ladders} independent ladders hold about {size:.0} independent values of {}, the slowest torsion\n",
            set.name,
            set.frames.len(),
            torsion.name
        )
    }

    /// What keeps every free energy of the run from being one.
    fn obstacle(&self) -> Option<String> {
        let settings = self.exchange.settings();
        let acceptances = self.run.exchanges.iter().map(|c| c.acceptance());
        let lowest = acceptances.fold(1.0, f64::min);
        let several = settings.n_temperatures > 1;
        if several && lowest < LEAST_ACCEPTANCE {
            return Some(format!(
                "only {:.1} % of exchanges between two neighbouring temperatures were accepted, so that the cold replicas know nothing of the hot ones; raise --temperatures, lower --highest, or run longer",
                100.0 * lowest
            ));
        }
        if several && self.run.round_trips == 0 {
            return Some(
                "no replica went from the lowest temperature to the highest and back; raise --ps, or --temperatures so that more exchanges are accepted"
                    .into(),
            );
        }
        (settings.n_ladders < 2).then(|| {
            "one ladder alone cannot tell how far chance has led it; give --ladders 4 or more"
                .into()
        })
    }

    /// F(state) − F(rest) of every φ at the lowest temperature: from its own frames, and by MBAR from all temperatures.
    fn differences(&self) -> (Value, String) {
        let trajectory = self.trajectory;
        let width = self.exchange.watched().len();
        let all = Written {
            path: PathBuf::new(),
            name: "all",
            asked: None,
            frames: (0..trajectory.times.len()).collect(),
            ladders: (0..trajectory.n_ladders()).collect(),
        };
        let sizes = self.independent(&all);
        let ensembles = [1, trajectory.temperatures.len()].map(|levels| match self.obstacle() {
            Some(reason) => Err(reason),
            None => trajectory
                .ensemble(levels, MBAR_SAMPLES, |place| self.found.belongs(place))
                .map_err(|error| error.to_string()),
        });
        let (mut values, mut text) = (Map::new(), String::new());
        for (index, torsion) in self.torsions.iter().enumerate() {
            let Some(state) = &torsion.state else {
                continue;
            };
            let size = independent::cautious(&sizes[index], all.ladders.len());
            let [own, together] = ensembles.each_ref().map(|ensemble| -> Result<Estimate, String> {
                let (ensemble, places) = ensemble.as_ref().map_err(Clone::clone)?;
                let inside = |n: usize| {
                    let angle = trajectory.level_angles[places[n] * width + index];
                    state.contains(angle.into())
                };
                let found = ensemble.difference(inside, |n| !inside(n));
                let found = found.map_err(|undetermined| {
                    free_energy::reason(
                        &undetermined,
                        "raise --temperatures or lower --highest",
                        "raise --ps or --ladders",
                    )
                })?;
                match size < FEWEST_INDEPENDENT {
                    true => Err(format!(
                        "the frames hold about {size:.0} independent values of it; raise --ps or --ladders"
                    )),
                    false => Ok(found),
                }
            });
            text += &format!(
                "F({}) - F(rest){} {}\n",
                state.inequality(),
                state.remark(),
                match &together {
                    Ok(estimate) => format!(
                        "= {}, MBAR over all temperatures",
                        free_energy::words(estimate)
                    ),
                    Err(reason) => format!("could not be estimated: {reason}"),
                }
            );
            values.insert(
                torsion.name.clone(),
                json!({
                    "state": state.inequality(),
                    "lowest_temperature": free_energy::value(&own),
                    "mbar_all_temperatures": free_energy::value(&together),
                }),
            );
        }
        (Value::Object(values), text)
    }
}

/// E-W2 (kT) and T-W2 (rad) between frames of the two halves of a set's ladders.
fn floors(
    molecule: &Molecule,
    trajectory: &ReplicaExchangeTrajectory,
    temperature: f64,
    set: &Written,
) -> Result<Value> {
    let half = set.ladders.len() / 2;
    if half == 0 {
        return Ok(Value::Null);
    }
    let size = 3 * molecule.n_atoms();
    let thermal = GAS_CONSTANT * temperature;
    let found = molecule.topology.backbone();
    let side = |ladders: &[usize]| -> Vec<usize> {
        set.frames
            .iter()
            .copied()
            .filter(|&n| ladders.contains(&(trajectory.ladders[n] as usize)))
            .collect()
    };
    let sides = [side(&set.ladders[..half]), side(&set.ladders[half..])];
    let count = sides.iter().map(Vec::len).fold(FLOOR_FRAMES, usize::min);
    if count == 0 {
        return Ok(Value::Null);
    }
    let thin = |frames: &[usize]| -> Vec<usize> {
        (0..count)
            .map(|k| frames[k * frames.len() / count])
            .collect()
    };
    let sides = sides.map(|frames| thin(&frames));
    let energies = sides.each_ref().map(|frames| {
        let energies = frames
            .iter()
            .map(|&n| trajectory.potential_energies[n] / thermal);
        energies.collect::<Vec<f64>>()
    });
    let angles = sides.each_ref().map(|frames| {
        let positions: Vec<f32> = frames
            .iter()
            .flat_map(|&n| &trajectory.positions[n * size..(n + 1) * size])
            .copied()
            .collect();
        observables::phi_psi(&positions, molecule.n_atoms(), &found)
    });
    let dimension = angles[0].len() / count;
    let torsions = match dimension {
        0 => Value::Null,
        _ => json!(statistics::t_w2(&angles[0], &angles[1], dimension)?.distance),
    };
    Ok(json!({
        "of": set.name,
        "frames_of_each_half": count,
        "energy_kt": statistics::e_w2(&energies[0], &energies[1])?,
        "torsions_rad": torsions,
        "torsions": dimension,
    }))
}

/// Where the summary of a file is.
pub(super) fn path_of(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".summary.json");
    name.into()
}

/// Writes the summary beside the file.
pub(super) fn write(out: &Path, summary: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(summary)? + "\n";
    write_atomically(&path_of(out), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torsions_follow_the_chain() {
        let molecule = Molecule::from_sequence("AAA", "ff14sb+obc1").unwrap();
        let names: Vec<String> = torsions(&molecule).into_iter().map(|t| t.name).collect();
        assert_eq!(names, ["psi ALA 1", "phi ALA 2", "psi ALA 2", "phi ALA 3"]);
    }
}
