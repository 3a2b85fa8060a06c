//! Whether likelihoods integrate to one, region by region, and the partition function by two routes that share nothing.
//!
//! In every basin of the dynamics a normalised Gaussian r is fitted to reference frames, in the coordinates that the map acts on.
//! Then E_q\[r/q\] = ∫r over the coordinates' domain if, and only if, q is the density of the samples where r looks: a log q that
//! is too high by δ there gives e^−δ. And the partition function Z = ∫exp(−E/kT) comes from samples as E_q\[exp(−E/kT)/q\], from frames
//! traced back to noise as 1/E_p\[q exp(E/kT)\], and from frames of ladders that the Gaussians were not fitted to as
//! ∫r / E_p\[r exp(E/kT)\], without any network.

use anyhow::Result;
use boltzmap_kernels::random::{Stream, domain};
use boltzmap_physics::chart::Coordinates;
use boltzmap_statistics::basins;
use boltzmap_statistics::gaussian::{Gaussian, LogMean, Scatter};
use boltzmap_statistics::{self as statistics, log_sum_exp, normalised};
use serde::Serialize;

use super::frames::by_ladder;
use super::model::Model;
use super::molecule::Molecule;
use super::samples::Samples;

/// Stream domain of the draws that tell how much of a Gaussian lies in the domain.
const DOMAIN_INSIDE: u64 = domain::GAUSSIANS_INSIDE;
/// Draws for it.
const INSIDE_DRAWS: usize = 4000;
/// Part of the frames' covariance that a Gaussian gets: a little narrower than q, so that r/q stays bounded in the tails. In many dimensions
/// narrowing costs much, by 1/(s √(2 − s²)) in the mean square of r/q for every one.
const NARROWED: f64 = 0.9;
/// The same where r is compared with the target, whose walls are steeper than a proposal's.
const NARROWED_FOR_TARGET: f64 = 0.8;
/// Rows, over the number of dimensions, that the covariance of all regions counts as beside a region's own.
const POOLED: f64 = 4.0;
/// Height of barriers between regions, kT: lower than between basins, for a Gaussian fits one mode only.
const BARRIER: f64 = 1.0;
/// Most regions, the most populated ones.
const MOST_REGIONS: usize = 8;
/// Fewest samples that must hold a mean for it to be judged. Ratios have heavy tails: of fewer, the mean lies low and its error does not show it.
pub const FEWEST_EFFECTIVE: f64 = 100.0;

/// An estimate with its standard error; `null` where it could not be made.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Its standard error.
    pub standard_error: f64,
}

impl Estimate {
    /// Where there is none.
    pub const NONE: Estimate = Estimate {
        value: f64::NAN,
        standard_error: f64::NAN,
    };

    fn of(mean: LogMean) -> Estimate {
        Estimate {
            value: mean.value,
            standard_error: mean.standard_error,
        }
    }
}

/// What one region's Gaussian says.
#[derive(Clone, Debug, Serialize)]
pub struct Region {
    /// Circular means of φ and ψ, rad, of the frames in it, for every residue that has both.
    pub torsions: Vec<f64>,
    /// Share of the reference frames that lie in the region.
    pub reference_share: f64,
    /// Samples that hold the mean by exact likelihoods, (Σ)²/Σ².
    pub effective_samples: f64,
    /// ln(Ê_q\[r/q\]/∫r) by exact likelihoods: 0 where they are right.
    pub exact: Estimate,
    /// The same by the head's likelihoods.
    pub head: Estimate,
    /// Head − exact log q as r sees it: the difference of the two above with its own, smaller error.
    pub head_minus_exact: Estimate,
}

/// The audit's outcome.
#[derive(Clone, Debug, Serialize)]
pub struct Normalisation {
    /// Regions, the most populated first.
    pub regions: Vec<Region>,
    /// ln Z from samples with exact likelihoods.
    pub log_z_samples: Estimate,
    /// The same by the head.
    pub log_z_head: Estimate,
    /// ln Z from frames traced back to noise, −ln Ê_p\[q/p̃\]; error from the spread between ladders.
    pub log_z_traced: Estimate,
    /// ln Z from reference frames and the Gaussians alone; error likewise.
    pub log_z_frames: Estimate,
}

impl Normalisation {
    /// The outcome, a line for every region and one for Z.
    pub fn lines(&self) -> Vec<String> {
        let show = |estimate: &Estimate| match (
            estimate.value.is_finite(),
            estimate.standard_error.is_finite(),
        ) {
            (true, true) => format!("{:+.3} ± {:.3}", estimate.value, estimate.standard_error),
            (true, false) => format!("{:+.3} (no error known)", estimate.value),
            _ => "none".to_owned(),
        };
        let region = |region: &Region| {
            let degrees: Vec<String> = region
                .torsions
                .iter()
                .map(|angle| format!("{:.0}", angle.to_degrees()))
                .collect();
            format!(
                "normalisation around ({}) degrees, {:.1} % of the reference: ln E[r/q] exact {}, head {} ({:.0} effective samples)",
                degrees.join(", "),
                100.0 * region.reference_share,
                show(&region.exact),
                show(&region.head),
                region.effective_samples
            )
        };
        let mut lines: Vec<String> = self.regions.iter().map(region).collect();
        lines.push(format!(
            "ln Z: samples with audited likelihoods {}, with the head's {}, frames traced back {}, frames without the network {}",
            show(&self.log_z_samples),
            show(&self.log_z_head),
            show(&self.log_z_traced),
            show(&self.log_z_frames)
        ));
        lines
    }
}

/// Frames of one set with what belongs to them.
pub struct Frames<'f> {
    /// `[n, atoms, 3]`, nm.
    pub positions: &'f [f32],
    /// φ₁, ψ₁, …, rad, `[n, dimension]`.
    pub torus: &'f [f64],
    /// Potential energies, kT, `[n]`.
    pub energy_kt: &'f [f64],
}

struct Fitted {
    /// The Gaussian for samples, and ln of the part of it that lies in the domain.
    gaussian: Gaussian,
    log_inside: f64,
    /// The Gaussian for frames of the target, and ln of its part.
    for_target: Gaussian,
    log_inside_for_target: f64,
    share: f64,
    torsions: Vec<f64>,
}

/// Measures with Gaussians fitted to `reference` and frames `other`, of `ladders` `[n]` that share nothing with it; `traced` is ln Z from frames traced back. `None` where the
/// samples' file does not hold states, in Cartesian coordinates, whose orientation no Gaussian describes, and where no region has enough frames.
pub fn measure(
    model: &Model,
    molecule: &Molecule,
    samples: &Samples,
    reference: &Frames<'_>,
    other: &Frames<'_>,
    ladders: &[i64],
    traced: Estimate,
    seed: u64,
) -> Result<Option<Normalisation>> {
    let audited = samples.audited();
    let internal = matches!(model.coordinates, Coordinates::Internal(_));
    if !internal || samples.states.is_empty() || audited.is_empty() {
        return Ok(None);
    }
    let fitted = fit(model, molecule, reference, seed)?;
    if fitted.is_empty() {
        return Ok(None);
    }
    let d = samples.states.len() / samples.count();
    let of_states = |log_q: &[f64]| -> Vec<f64> {
        let kept = audited.iter();
        kept.map(|&i| log_q[i] + samples.log_volume[i]).collect()
    };
    let (exact, head) = (
        of_states(&samples.log_q_exact),
        of_states(&samples.log_q_head),
    );
    let has_head = head.iter().all(|q| q.is_finite());
    let states: Vec<f64> = audited
        .iter()
        .flat_map(|&i| &samples.states[i * d..(i + 1) * d])
        .copied()
        .collect();
    let head_if_any = has_head.then_some(&head[..]);
    let regions = fitted
        .iter()
        .map(|region| region.judge(&states, &exact, head_if_any))
        .collect();
    let log_z = |log_q: &[f64]| {
        let weights = samples.log_weights(log_q, &audited, molecule.thermal_energy);
        Estimate::of(LogMean::of(&weights))
    };
    Ok(Some(Normalisation {
        regions,
        log_z_samples: log_z(&samples.log_q_exact),
        log_z_head: match has_head {
            true => log_z(&samples.log_q_head),
            false => Estimate::NONE,
        },
        log_z_traced: traced,
        log_z_frames: log_z_of_frames(model, &fitted, other, ladders)?,
    }))
}

impl Fitted {
    /// What the Gaussian says of log-densities at samples `states` `[n, d]`.
    fn judge(&self, states: &[f64], exact: &[f64], head: Option<&[f64]>) -> Region {
        let d = states.len() / exact.len();
        let log_r: Vec<f64> = states
            .chunks_exact(d)
            .map(|state| self.gaussian.log_density(state) - self.log_inside)
            .collect();
        let ratios =
            |log_q: &[f64]| -> Vec<f64> { log_r.iter().zip(log_q).map(|(r, q)| r - q).collect() };
        let by_exact = ratios(exact);
        let by_head = head.map(ratios);
        let mean = LogMean::of(&by_exact);
        Region {
            torsions: self.torsions.clone(),
            reference_share: self.share,
            effective_samples: mean.effective,
            exact: Estimate::of(mean),
            head: by_head
                .as_deref()
                .map_or(Estimate::NONE, |r| Estimate::of(LogMean::of(r))),
            head_minus_exact: by_head.as_deref().map_or(Estimate::NONE, |r| {
                let (value, standard_error) = LogMean::difference(&by_exact, r);
                Estimate {
                    value,
                    standard_error,
                }
            }),
        }
    }
}

/// A Gaussian for every region of the torus with enough frames.
fn fit(model: &Model, molecule: &Molecule, frames: &Frames<'_>, seed: u64) -> Result<Vec<Fitted>> {
    let dimension = molecule.torus_dimension;
    let n = frames.energy_kt.len();
    let encoded = model.coordinates.encode(frames.positions)?;
    let d = encoded.state.len() / n;
    let mut members = regions(frames.torus, dimension);
    members.retain(|frames| frames.len() >= 2 * d);
    members.sort_by_key(|frames| std::cmp::Reverse(frames.len()));
    members.truncate(MOST_REGIONS);
    let scatters: Vec<Scatter> = members
        .iter()
        .map(|members| {
            let rows = members
                .iter()
                .flat_map(|&i| &encoded.state[i * d..(i + 1) * d]);
            Scatter::of(&rows.copied().collect::<Vec<f64>>(), d)
        })
        .collect();
    let Some(pooled) = Scatter::pooled(&scatters) else {
        return Ok(Vec::new());
    };
    let mut fitted = Vec::new();
    for (number, (members, scatter)) in members.iter().zip(&scatters).enumerate() {
        let weight = POOLED * d as f64;
        let of = |scale| Gaussian::fit(scatter, &pooled, weight, scale);
        let (Some(gaussian), Some(for_target)) = (of(NARROWED)?, of(NARROWED_FOR_TARGET)?) else {
            continue;
        };
        let number = 2 * number as u64;
        let torsions = (0..dimension)
            .map(|k| {
                let angles = members.iter().map(|&i| frames.torus[i * dimension + k]);
                let (sin, cos) = angles.fold((0.0, 0.0), |(s, c), a| (s + a.sin(), c + a.cos()));
                f64::atan2(sin, cos)
            })
            .collect();
        fitted.push(Fitted {
            log_inside: log_inside(model, molecule, &gaussian, seed, number)?,
            log_inside_for_target: log_inside(model, molecule, &for_target, seed, number + 1)?,
            gaussian,
            for_target,
            share: members.len() as f64 / n as f64,
            torsions,
        });
    }
    Ok(fitted)
}

/// ln of the part of a Gaussian that lies in the domain of coordinates and target.
fn log_inside(
    model: &Model,
    molecule: &Molecule,
    gaussian: &Gaussian,
    seed: u64,
    number: u64,
) -> Result<f64> {
    let mut stream = Stream::new(seed, DOMAIN_INSIDE, number);
    let draws: Vec<f64> = (0..INSIDE_DRAWS)
        .flat_map(|_| gaussian.draw(&mut stream))
        .collect();
    let decoded = model.coordinates.decode(&draws)?;
    let width = 3 * molecule.n_atoms();
    let inside = (0..INSIDE_DRAWS).filter(|&i| {
        decoded.in_domain[i] && molecule.in_target(&decoded.positions[i * width..(i + 1) * width])
    });
    Ok((inside.count() as f64 / INSIDE_DRAWS as f64).ln())
}

/// The frames of every combination of basins: each torsion in turn splits what the ones before it left together.
fn regions(torus: &[f64], dimension: usize) -> Vec<Vec<usize>> {
    let mut cells = vec![(0..torus.len() / dimension).collect::<Vec<usize>>()];
    for k in 0..dimension {
        cells = cells
            .into_iter()
            .flat_map(|cell| {
                let angle = |i: usize| torus[i * dimension + k];
                let angles: Vec<f64> = cell.iter().map(|&i| angle(i)).collect();
                let parts = basins::find_with_barrier(&angles, BARRIER);
                parts
                    .into_iter()
                    .map(|part| {
                        let inside = cell.iter().filter(|&&i| part.contains(angle(i)));
                        inside.copied().collect::<Vec<usize>>()
                    })
                    .collect::<Vec<_>>()
            })
            .filter(|cell| !cell.is_empty())
            .collect();
    }
    cells
}

/// ln Z = ln ∫r − ln E_p\[r/p̃\] with the mixture r of all Gaussians, each with its region's share.
fn log_z_of_frames(
    model: &Model,
    fitted: &[Fitted],
    frames: &Frames<'_>,
    ladders: &[i64],
) -> Result<Estimate> {
    let encoded = model.coordinates.encode(frames.positions)?;
    let n = frames.energy_kt.len();
    let d = encoded.state.len() / n;
    let total: f64 = fitted.iter().map(|region| region.share).sum();
    let log_share = |region: &Fitted| (region.share / total).ln();
    let log_ratios: Vec<f64> = (0..n)
        .map(|i| {
            let state = &encoded.state[i * d..(i + 1) * d];
            let terms: Vec<f64> = fitted
                .iter()
                .map(|region| log_share(region) + region.for_target.log_density(state))
                .collect();
            let log_p = -frames.energy_kt[i] - encoded.log_det[i] + encoded.log_share[i];
            log_sum_exp(&terms) - log_p
        })
        .collect();
    let inside: Vec<f64> = fitted
        .iter()
        .map(|region| log_share(region) + region.log_inside_for_target)
        .collect();
    let mean = log_mean_over_ladders(&log_ratios, ladders);
    Ok(Estimate {
        value: log_sum_exp(&inside) - mean.value,
        ..mean
    })
}

/// ln of the mean of e^v over frames. Frames of a ladder are correlated, so the ladders' parts of the sum tell the error; NaN for one ladder.
pub fn log_mean_over_ladders(values: &[f64], ladders: &[i64]) -> Estimate {
    let Some(parts) = normalised(values) else {
        return Estimate::NONE;
    };
    let groups = by_ladder(ladders);
    let (count, n) = (groups.len() as f64, values.len() as f64);
    let squares: f64 = groups
        .iter()
        .map(|(_, frames)| {
            let sum: f64 = frames.iter().map(|&i| parts[i]).sum();
            (sum - frames.len() as f64 / n).powi(2)
        })
        .sum();
    Estimate {
        value: statistics::log_mean_weight(values),
        // A single ladder has nothing to differ from.
        standard_error: match groups.len() {
            1 => f64::NAN,
            _ => (squares * count / (count - 1.0)).sqrt(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mixture of two Gaussians in the plane, one of them rare: its samples, and which of the two each came from.
    fn mixture(n: usize, seed: u64) -> (Vec<f64>, Vec<bool>) {
        let mut stream = Stream::new(seed, 0, 0);
        let mut states = Vec::new();
        let mut rare = Vec::new();
        for _ in 0..n {
            rare.push(stream.uniform() < 0.03);
            let centre = if rare[rare.len() - 1] { 8.0 } else { 0.0 };
            states.push(centre + stream.standard_normal());
            states.push(stream.standard_normal());
        }
        (states, rare)
    }

    fn log_density(state: &[f64]) -> f64 {
        let of = |centre: f64, share: f64| {
            share.ln() - 0.5 * ((state[0] - centre).powi(2) + state[1].powi(2))
        };
        log_sum_exp(&[of(0.0, 0.97), of(8.0, 0.03)]) - std::f64::consts::TAU.ln()
    }

    #[test]
    fn one_ladder_has_no_error() {
        let values = [0.1, 0.7, -0.3];
        let one = log_mean_over_ladders(&values, &[4, 4, 4]);
        assert!(one.value.is_finite() && one.standard_error.is_nan());
        let two = log_mean_over_ladders(&values, &[4, 4, 9]);
        assert!(two.value == one.value && two.standard_error > 0.0);
    }

    #[test]
    fn a_head_that_is_wrong_in_a_rare_region_is_found_there_alone() {
        let (frames, rare) = mixture(20_000, 1);
        let fit = |wanted: bool| {
            let gaussian = {
                let group: Vec<f64> = frames
                    .chunks_exact(2)
                    .zip(&rare)
                    .filter(|(_, rare)| **rare == wanted)
                    .flat_map(|(row, _)| row)
                    .copied()
                    .collect();
                let group = Scatter::of(&group, 2);
                let pooled = Scatter::pooled(std::slice::from_ref(&group)).unwrap();
                let fitted = Gaussian::fit(&group, &pooled, 4.0, NARROWED);
                fitted.unwrap().unwrap()
            };
            Fitted {
                for_target: gaussian.clone(),
                gaussian,
                log_inside: 0.0,
                log_inside_for_target: 0.0,
                share: 0.5,
                torsions: Vec::new(),
            }
        };
        let (states, rare) = mixture(5000, 2);
        let exact: Vec<f64> = states.chunks_exact(2).map(log_density).collect();
        let error = |rare: &bool| if *rare { -0.27 } else { 0.0 };
        let head: Vec<f64> = exact.iter().zip(&rare).map(|(q, r)| q + error(r)).collect();
        for wanted in [false, true] {
            let region = fit(wanted).judge(&states, &exact, Some(&head));
            let [exact, shift] = [region.exact, region.head_minus_exact];
            assert!(exact.value.abs() < 4.0 * exact.standard_error, "{region:?}");
            assert!(exact.standard_error < 0.1 && region.effective_samples > FEWEST_EFFECTIVE);
            let expected = error(&wanted);
            assert!((shift.value - expected).abs() < 0.01, "{region:?}");
        }
        // A region that no sample reaches is not judged.
        let (none, _) = mixture(100, 3);
        let far: Vec<f64> = none.iter().map(|x| x + 40.0).collect();
        let log_q: Vec<f64> = none.chunks_exact(2).map(log_density).collect();
        let region = fit(true).judge(&far, &log_q, None);
        assert!(region.exact.value < -100.0 && region.head.value.is_nan());
    }
}
