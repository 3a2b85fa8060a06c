//! What a replica exchange says about itself: `FILE.summary.json`.
//!
//! Effective sample sizes come twice: from the autocorrelation of a torsion along the ladders, taken about the mean of all of them, and
//! from how much the ladders' means differ, which knows nothing of correlation functions but has only as many numbers as there are ladders.

use std::path::{Path, PathBuf};

use anyhow::Result;
use boltzmap_physics::mbar::Mbar;
use boltzmap_physics::metrics;
use boltzmap_physics::observables;
use boltzmap_physics::replica_exchange::{
    ReplicaExchange, ReplicaExchangeState, ReplicaExchangeTrajectory,
};
use boltzmap_physics::system::GAS_CONSTANT;
use boltzmap_physics::umbrella::statistical_inefficiency_of_all;
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::Written;
use crate::card::made_by;
use crate::molecule::Molecule;
use crate::run_dir::write_atomically;

/// Samples of all temperatures that go into MBAR at most; more hardly help, being correlated.
const MBAR_SAMPLES: usize = 400_000;
/// Frames of each half whose distance is the floor.
const FLOOR_FRAMES: usize = 10_000;
/// Resamples of the ladders for standard errors.
const REPLICATES: usize = 400;

/// A backbone dihedral with its name.
pub(super) struct Torsion {
    name: String,
    pub(super) atoms: [usize; 4],
}

/// φ and ψ of every residue that has them, in the order of the chain, counted with caps.
pub(super) fn torsions(molecule: &Molecule) -> Vec<Torsion> {
    let atoms = &molecule.topology.atoms;
    let found = molecule.topology.backbone();
    let named = |kind: &'static str, list: &[[usize; 4]], alpha: usize| -> Vec<(usize, Torsion)> {
        list.iter()
            .map(|&quadruple| {
                let residue = atoms[quadruple[alpha]].residue_index;
                let name = format!("{kind} {}", molecule.topology.residue_label(residue));
                let atoms = quadruple;
                (residue, Torsion { name, atoms })
            })
            .collect()
    };
    let mut all = named("phi", &found.phi, 2);
    all.extend(named("psi", &found.psi, 1));
    all.sort_by_key(|(residue, torsion)| (*residue, torsion.name.starts_with("psi")));
    all.into_iter().map(|(_, torsion)| torsion).collect()
}

/// Everything the run can tell about its own quality.
pub(super) fn summarise(
    molecule: &Molecule,
    torsions: &[Torsion],
    exchange: &ReplicaExchange,
    run: &ReplicaExchangeState,
    written: &[Written],
) -> Result<Value> {
    let trajectory = exchange.trajectory(run);
    let settings = exchange.settings();
    let acceptances: Vec<f64> = run.exchanges.iter().map(|c| c.acceptance()).collect();
    let sets: Map<String, Value> = written
        .iter()
        .map(|set| {
            let sizes = effective_sizes(&trajectory, torsions, settings.n_ladders, set);
            (
                set.name.to_owned(),
                json!({
                    "file": set.path.file_name().map(|name| name.to_string_lossy()),
                    "frames": set.frames.len(),
                    "ladders": set.ladders,
                    "effective_samples": sizes,
                }),
            )
        })
        .collect();
    let differences: Map<String, Value> = torsions
        .iter()
        .enumerate()
        .filter(|(_, torsion)| torsion.name.starts_with("phi"))
        .map(|(index, torsion)| {
            let value = difference(&trajectory, torsions.len(), index, settings.seed);
            (torsion.name.clone(), value)
        })
        .collect();
    Ok(json!({
        "made_by": made_by(),
        "temperatures_k": trajectory.temperatures,
        "exchange_acceptance": acceptances,
        "round_trips": run.round_trips,
        "sets": sets,
        "delta_f_positive_phi": differences,
        "w2_floors": match written.last() {
            Some(set) => floors(molecule, &trajectory, settings.lowest_temperature, set)?,
            None => Value::Null,
        },
    }))
}

/// The samples of one torsion at the lowest temperature, ladder by ladder.
fn series(
    trajectory: &ReplicaExchangeTrajectory,
    ladder: usize,
    n_ladders: usize,
    index: usize,
    torsions: usize,
) -> impl Iterator<Item = f64> {
    let saves = trajectory.times.len() / n_ladders;
    (ladder * saves..(ladder + 1) * saves)
        .map(move |n| f64::from(trajectory.level_angles[n * torsions + index]))
}

/// Effective numbers of samples of every torsion in a set.
fn effective_sizes(
    trajectory: &ReplicaExchangeTrajectory,
    torsions: &[Torsion],
    n_ladders: usize,
    set: &Written,
) -> Value {
    let sizes: Vec<Value> = (0..torsions.len())
        .into_par_iter()
        .map(|index| {
            let (mut correlated, mut between) = (f64::INFINITY, f64::INFINITY);
            for function in [f64::sin, f64::cos] {
                let ladders: Vec<Vec<f64>> = set
                    .ladders
                    .iter()
                    .map(|&ladder| {
                        series(trajectory, ladder, n_ladders, index, torsions.len())
                            .map(function)
                            .collect()
                    })
                    .collect();
                let views: Vec<&[f64]> = ladders.iter().map(Vec::as_slice).collect();
                let recorded: usize = ladders.iter().map(Vec::len).sum();
                let thinned = set.frames.len() as f64;
                let effective = recorded as f64 / statistical_inefficiency_of_all(&views);
                correlated = correlated.min(effective.min(thinned));
                between = between.min(by_means(&ladders).min(thinned));
            }
            json!({
                "torsion": torsions[index].name,
                "by_autocorrelation": correlated.round(),
                "by_ladder_means": match between.is_finite() {
                    true => json!(between.round()),
                    false => Value::Null,
                },
            })
        })
        .collect();
    Value::Array(sizes)
}

/// The number of independent samples whose means would differ as much as the ladders' do; infinite for one ladder.
fn by_means(ladders: &[Vec<f64>]) -> f64 {
    let count = ladders.len() as f64;
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len().max(1) as f64;
    let means: Vec<f64> = ladders.iter().map(|ladder| mean(ladder)).collect();
    let all: Vec<f64> = ladders.concat();
    let centre = mean(&all);
    let variance = mean(&all.iter().map(|x| (x - centre).powi(2)).collect::<Vec<_>>());
    let of_means = means.iter().map(|m| (m - centre).powi(2)).sum::<f64>() / (count - 1.0);
    count * variance / of_means
}

/// F(0 < φ < 2 rad) − F(rest) at the lowest temperature: from its own frames, and by MBAR from all temperatures; errors by a bootstrap
/// over ladders.
fn difference(
    trajectory: &ReplicaExchangeTrajectory,
    torsions: usize,
    index: usize,
    seed: u64,
) -> Value {
    let levels = trajectory.temperatures.len();
    let at_lowest = trajectory.times.len();
    let n_ladders = trajectory
        .ladders
        .last()
        .map_or(0, |&last| last as usize + 1);
    let saves = at_lowest / n_ladders.max(1);
    let phi = |n: usize| f64::from(trajectory.level_angles[n * torsions + index]);
    let own: Vec<f64> = (0..at_lowest).map(phi).collect();
    let groups: Vec<[usize; 2]> = (0..n_ladders)
        .map(|ladder| [ladder * saves, (ladder + 1) * saves])
        .collect();
    let show = |interval: Result<metrics::Interval, _>| match interval {
        Ok(interval) if interval.value.is_finite() => json!({
            "kt": interval.value,
            "standard_error_kt": finite(interval.standard_error),
        }),
        _ => Value::Null,
    };
    let own = metrics::delta_f_grouped(&own, None, &groups, REPLICATES, seed);

    // Ladder by ladder, so that ladders can be drawn whole: [ladder][level][save].
    let stride = (at_lowest * levels).div_ceil(MBAR_SAMPLES).max(1);
    let kept: Vec<usize> = (stride / 2..saves).step_by(stride).collect();
    let (mut angles, mut energies) = (Vec::new(), Vec::new());
    for ladder in 0..n_ladders {
        for level in 0..levels {
            for &save in &kept {
                let n = (level * n_ladders + ladder) * saves + save;
                angles.push(phi(n));
                energies.push(trajectory.level_energies[n]);
            }
        }
    }
    let counts = vec![n_ladders * kept.len(); levels];
    let reduced: Vec<f64> = trajectory
        .temperatures
        .iter()
        .flat_map(|temperature| {
            let thermal = GAS_CONSTANT * temperature;
            energies.iter().map(move |energy| energy / thermal)
        })
        .collect();
    let per_ladder = levels * kept.len();
    let groups: Vec<[usize; 2]> = (0..n_ladders)
        .map(|ladder| [ladder * per_ladder, (ladder + 1) * per_ladder])
        .collect();
    let together = match Mbar::solve(&reduced, &counts) {
        Ok(mbar) => {
            let weights = mbar.log_weights(&reduced[..angles.len()]);
            show(metrics::delta_f_grouped(
                &angles,
                Some(&weights),
                &groups,
                REPLICATES,
                seed,
            ))
        }
        Err(error) => json!({ "problem": error.to_string() }),
    };
    json!({
        "lowest_temperature": show(own),
        "mbar_all_temperatures": together,
        "mbar_samples": angles.len(),
    })
}

fn finite(value: f64) -> Value {
    match value.is_finite() {
        true => json!(value),
        false => Value::Null,
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
        _ => json!(metrics::t_w2(&angles[0], &angles[1], dimension)?.distance),
    };
    Ok(json!({
        "of": set.name,
        "frames_of_each_half": count,
        "energy_kt": metrics::e_w2(&energies[0], &energies[1])?,
        "torsions_rad": torsions,
        "torsions": dimension,
    }))
}

/// Where the summary of a file is.
fn path_of(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".summary.json");
    name.into()
}

/// Writes the summary beside the file.
pub(super) fn write(out: &Path, summary: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(summary)? + "\n";
    write_atomically(&path_of(out), text.as_bytes())
}

/// The summary's main numbers in words.
pub(super) fn sentences(summary: &Value) -> String {
    let mut text = String::new();
    if let Some(sets) = summary["sets"].as_object() {
        for (name, set) in sets {
            let sizes = set["effective_samples"].as_array();
            let least = sizes.into_iter().flatten().min_by(|a, b| {
                let size = |v: &Value| v["by_autocorrelation"].as_f64().unwrap_or(f64::INFINITY);
                size(a).total_cmp(&size(b))
            });
            if let Some(least) = least {
                text += &format!(
                    "{name}: {} effective samples of {}, the slowest torsion\n",
                    least["by_autocorrelation"],
                    least["torsion"].as_str().unwrap_or_default()
                );
            }
        }
    }
    if let Some(differences) = summary["delta_f_positive_phi"].as_object() {
        for (name, value) in differences {
            let found = &value["mbar_all_temperatures"];
            if let (Some(kt), Some(error)) =
                (found["kt"].as_f64(), found["standard_error_kt"].as_f64())
            {
                text += &format!(
                    "F(0 < {name} < 2 rad) - F(rest) = {kt:.2} ± {error:.2} kT, MBAR over all temperatures\n"
                );
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltzmap_kernels::random::Stream;

    #[test]
    fn ladders_that_agree_count_fully_and_others_do_not() {
        let ladder = |number: u64, shift: f64| -> Vec<f64> {
            let mut stream = Stream::new(3, 1, number);
            (0..1000)
                .map(|_| shift + stream.standard_normal())
                .collect()
        };
        let independent: Vec<Vec<f64>> = (0..200).map(|number| ladder(number, 0.0)).collect();
        let size = by_means(&independent);
        // The variance of 200 means is known to 10 %.
        assert!((size / 200_000.0 - 1.0).abs() < 0.4, "{size}");
        let stuck: Vec<Vec<f64>> = (0..200)
            .map(|number| ladder(number, if number % 2 == 0 { 3.0 } else { -3.0 }))
            .collect();
        let size = by_means(&stuck);
        assert!((size / 200.0 - 1.0).abs() < 0.3, "{size}");
    }

    #[test]
    fn torsions_follow_the_chain() {
        let molecule = Molecule::from_sequence("AAA", "ff14sb+obc1").unwrap();
        let names: Vec<String> = torsions(&molecule).into_iter().map(|t| t.name).collect();
        assert_eq!(names, ["psi ALA 1", "phi ALA 2", "psi ALA 2", "phi ALA 3"]);
    }
}
