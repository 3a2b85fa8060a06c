//! Basins of a torsion, found from samples: arcs of the circle that are parted by barriers.

use std::f64::consts::{PI, TAU};

use crate::angle::wrap;

/// Cells of the circle.
const CELLS: usize = 360;
/// Standard deviation of the smoothing, cells: 6°.
const SMOOTHING: f64 = 6.0;
/// Least height of a barrier above either basin's lowest point, kT. Less than seven frames in one place make no basin.
const BARRIER: f64 = 2.0;

/// A half-open arc of the circle from `low` upwards to `high`, rad: low in [−π, π), low < high ≤ low + 2π.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Basin {
    /// Lower end, rad.
    pub low: f64,
    /// Upper end, rad; beyond π where the arc reaches over the cut of the angles.
    pub high: f64,
}

impl Basin {
    /// The whole circle.
    pub const CIRCLE: Basin = Basin { low: -PI, high: PI };

    /// Whether an angle (rad, any turn) lies on the arc.
    pub fn contains(&self, angle: f64) -> bool {
        (angle - self.low).rem_euclid(TAU) < self.high - self.low
    }
}

/// The basins of `angles` (rad), which together are the circle, in ascending order of their lower ends.
///
/// Free energies F = −ln(1 + m), m the frames seen through a Gaussian window of 6° that counts a frame at its centre as one, part the circle
/// at their maxima; neighbours join, the lowest barrier first, until every barrier stands 2 kT above the basins at both of its sides. Where
/// nothing was seen between two basins, the middle of the gap parts them. Fewer than two basins: the whole circle.
pub fn find(angles: &[f64]) -> Vec<Basin> {
    find_with_barrier(angles, BARRIER)
}

/// [`find`] with another least height of the barriers, kT.
pub fn find_with_barrier(angles: &[f64], barrier: f64) -> Vec<Basin> {
    let free_energy = free_energies(angles);
    // Valleys and the cells that part each from the one before it, in turn.
    let mut valleys = Vec::new();
    for start in 0..CELLS {
        let before = free_energy[(start + CELLS - 1) % CELLS];
        let length = plateau(&free_energy, start);
        let after = free_energy[(start + length) % CELLS];
        if before > free_energy[start] && after > free_energy[start] {
            valleys.push((start + length / 2) % CELLS);
        }
    }
    if valleys.len() < 2 {
        return vec![Basin::CIRCLE];
    }
    let mut barriers: Vec<usize> = (0..valleys.len())
        .map(|k| {
            let before = valleys[(k + valleys.len() - 1) % valleys.len()];
            highest_between(&free_energy, before, valleys[k])
        })
        .collect();
    while valleys.len() > 1 {
        let count = valleys.len();
        let height = |k: usize| {
            let sides = [valleys[(k + count - 1) % count], valleys[k]];
            free_energy[barriers[k]]
                - sides
                    .map(|v| free_energy[v])
                    .into_iter()
                    .fold(f64::MIN, f64::max)
        };
        let Some(lowest) = (0..count).min_by(|&a, &b| height(a).total_cmp(&height(b))) else {
            break;
        };
        if height(lowest) >= barrier {
            break;
        }
        // The deeper of the two valleys stands for both.
        let before = (lowest + count - 1) % count;
        if free_energy[valleys[before]] < free_energy[valleys[lowest]] {
            valleys[lowest] = valleys[before];
        }
        // What parted the earlier valley from the one before it now parts the two together.
        barriers[lowest] = barriers[before];
        valleys.remove(before);
        barriers.remove(before);
    }
    if valleys.len() < 2 {
        return vec![Basin::CIRCLE];
    }
    arcs(&barriers)
}

/// The arcs between barriers, each from one to the next.
fn arcs(barriers: &[usize]) -> Vec<Basin> {
    let mut edges: Vec<f64> = barriers
        .iter()
        .map(|&cell| wrap(-PI + TAU * (cell as f64 + 0.5) / CELLS as f64))
        .collect();
    edges.sort_by(f64::total_cmp);
    (0..edges.len())
        .map(|k| Basin {
            low: edges[k],
            high: match edges.get(k + 1) {
                Some(next) => *next,
                None => edges[0] + TAU,
            },
        })
        .collect()
}

/// −ln(1 + frames in the window) of every cell.
fn free_energies(angles: &[f64]) -> Vec<f64> {
    let mut counts = vec![0.0; CELLS];
    for angle in angles.iter().filter(|angle| angle.is_finite()) {
        let turn = (angle + PI).rem_euclid(TAU) / TAU;
        counts[((turn * CELLS as f64) as usize).min(CELLS - 1)] += 1.0;
    }
    let reach = (5.0 * SMOOTHING) as usize;
    (0..CELLS)
        .map(|cell| {
            let seen: f64 = (0..=2 * reach)
                .map(|k| {
                    let away = (k as f64 - reach as f64) / SMOOTHING;
                    counts[(cell + CELLS + k - reach) % CELLS] * (-0.5 * away * away).exp()
                })
                .sum();
            -seen.ln_1p()
        })
        .collect()
}

/// How many cells from `start` on have its free energy.
fn plateau(free_energy: &[f64], start: usize) -> usize {
    (1..CELLS)
        .find(|k| free_energy[(start + k) % CELLS] != free_energy[start])
        .unwrap_or(CELLS)
}

/// The highest cell on the way upwards from one cell to another; the middle of the longest stretch where several are as high.
fn highest_between(free_energy: &[f64], from: usize, to: usize) -> usize {
    let length = (to + CELLS - from) % CELLS;
    let at = |k: usize| free_energy[(from + k) % CELLS];
    let top = (0..=length).map(at).fold(f64::MIN, f64::max);
    let mut best = (0, 0);
    let mut start = None;
    for k in 0..=length + 1 {
        if k <= length && at(k) == top {
            start.get_or_insert(k);
        } else if let Some(first) = start.take()
            && k - first > best.1
        {
            best = (first, k - first);
        }
    }
    (from + best.0 + best.1 / 2) % CELLS
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltzmap_kernels::random::Stream;
    use proptest::prelude::*;

    /// Normal angles around given centres.
    fn angles(modes: &[(f64, f64, usize)]) -> Vec<f64> {
        let mut stream = Stream::new(5, 0, 0);
        modes
            .iter()
            .flat_map(|&(centre, width, count)| {
                (0..count)
                    .map(|_| wrap(centre + width * stream.standard_normal()))
                    .collect::<Vec<f64>>()
            })
            .collect()
    }

    #[test]
    fn one_mode_is_no_basin_of_its_own() {
        assert_eq!(find(&angles(&[(2.9, 0.4, 5000)])), [Basin::CIRCLE]);
        assert_eq!(find(&[]), [Basin::CIRCLE]);
        // Two shoulders without a barrier of 2 kT.
        let close = angles(&[(-1.4, 0.4, 5000), (-2.4, 0.4, 5000)]);
        assert_eq!(find(&close), [Basin::CIRCLE]);
    }

    #[test]
    fn alanine_has_a_rare_basin_at_positive_phi() {
        let phi = angles(&[(-1.3, 0.35, 9000), (-2.5, 0.4, 9000), (1.0, 0.2, 300)]);
        let basins = find(&phi);
        assert_eq!(basins.len(), 2, "{basins:?}");
        let rare = basins.iter().find(|basin| basin.contains(1.0)).unwrap();
        assert!(!rare.contains(-1.3) && !rare.contains(3.1), "{basins:?}");
        let held = phi.iter().filter(|phi| rare.contains(**phi)).count();
        assert!((299..=304).contains(&held), "{held}");
    }

    #[test]
    fn a_basin_may_reach_over_the_cut() {
        let basins = find(&angles(&[(3.1, 0.3, 4000), (0.5, 0.3, 4000)]));
        assert_eq!(basins.len(), 2, "{basins:?}");
        let over = basins.iter().find(|basin| basin.contains(3.1)).unwrap();
        assert!(over.contains(-3.1) && over.high > PI, "{basins:?}");
        // Single frames between them make no third.
        let mut more = angles(&[(3.1, 0.3, 4000), (0.5, 0.3, 4000)]);
        more.extend([-1.2, -1.21, 1.8]);
        assert_eq!(find(&more).len(), 2);
    }

    proptest! {
        #[test]
        fn every_angle_lies_in_one_basin(
            modes in prop::collection::vec((-3.0f64..3.0, 0.05f64..1.0, 1usize..400), 1..5),
            angle in -7.0f64..7.0,
        ) {
            let basins = find(&angles(&modes));
            prop_assert_eq!(basins.iter().filter(|basin| basin.contains(angle)).count(), 1);
            let total: f64 = basins.iter().map(|basin| basin.high - basin.low).sum();
            prop_assert!((total - TAU).abs() < 1e-9);
        }
    }
}
