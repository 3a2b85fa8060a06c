//! Which frames of the dynamics serve what: ladders of their own for training, two reference sets and the coverage; and training
//! frames of which rare basins have a least share.

use boltzmap_kernels::random::{Stream, domain};
use boltzmap_statistics::basins::{self, Basin};

/// Stream domain of the choice of frames.
const DOMAIN_FRAMES: u64 = domain::TRAINING_FRAMES;
/// Ladders of which each set gets at least one.
pub const FEWEST_LADDERS: usize = 5;
/// Most copies of a frame of a rare basin: more would teach single frames, not the basin.
const MOST_COPIES: f64 = 20.0;

/// What a ladder serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Frames to train on.
    Train,
    /// Frames that samples are compared with.
    Reference,
    /// Frames that those are compared with, for the distances that no sampler can be expected to beat.
    Second,
    /// Frames traced back through the map. Settings are never chosen by them, so that what they show is no outcome of the choice.
    Coverage,
}

/// Of every five ladders two serve training and one each of the other sets.
pub fn share(ladder: usize) -> Share {
    match ladder % 5 {
        0 | 2 => Share::Train,
        1 => Share::Reference,
        3 => Share::Second,
        _ => Share::Coverage,
    }
}

/// The frames of every ladder, in the order in which ladders first appear in `ladders` `[n]`.
pub fn by_ladder(ladders: &[i64]) -> Vec<(i64, Vec<usize>)> {
    let mut found: Vec<(i64, Vec<usize>)> = Vec::new();
    for (frame, &ladder) in ladders.iter().enumerate() {
        // Frames mostly come ladder by ladder.
        match found.iter_mut().rev().find(|(other, _)| *other == ladder) {
            Some((_, frames)) => frames.push(frame),
            None => found.push((ladder, vec![frame])),
        }
    }
    found
}

/// Chooses `count` of `candidates` evenly over their order, without repetition where there are enough.
pub fn spread(candidates: &[usize], count: usize) -> Vec<usize> {
    let n = candidates.len();
    (0..count.min(n))
        .map(|k| candidates[k * n / count.min(n)])
        .collect()
}

/// A basin of a residue's φ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResidueBasin {
    /// The residue, counted among those with both φ and ψ.
    pub residue: usize,
    /// The arc.
    pub basin: Basin,
}

impl ResidueBasin {
    /// The basins of every residue's φ in frames of the torus `[n, dimension]`: φ₁, ψ₁, φ₂, ψ₂, ….
    pub fn find(torus: &[f64], dimension: usize) -> Vec<ResidueBasin> {
        (0..dimension / 2)
            .flat_map(|residue| {
                let phi: Vec<f64> = torus
                    .chunks_exact(dimension)
                    .map(|row| row[2 * residue])
                    .collect();
                basins::find(&phi)
                    .into_iter()
                    .map(move |basin| ResidueBasin { residue, basin })
            })
            .collect()
    }

    /// Whether a frame's row of the torus lies in it.
    pub fn holds(&self, row: &[f64]) -> bool {
        self.basin.contains(row[2 * self.residue])
    }
}

/// How often frames of rare basins count more than others.
pub struct Enrichment {
    /// The basins that hold too little, with the weight that their frames have beyond 1.
    rare: Vec<(ResidueBasin, f64)>,
}

impl Enrichment {
    /// Weights that raise every basin of `found` in which less than `fraction` of the rows of `torus` lie to that share, so far as twenty
    /// copies of a frame go. Residues with rare basins divide the fraction among them, so that long chains do not become a collection of rarities.
    /// Basins that hold more stay as they are.
    pub fn new(
        torus: &[f64],
        dimension: usize,
        found: &[ResidueBasin],
        fraction: f64,
    ) -> Enrichment {
        let rows = torus.chunks_exact(dimension);
        let n = rows.len() as f64;
        let held: Vec<f64> = found
            .iter()
            .map(|basin| rows.clone().filter(|row| basin.holds(row)).count() as f64 / n)
            .collect();
        let is_rare = |k: usize| held[k] > 0.0 && held[k] < fraction;
        let mut residues: Vec<usize> = (0..found.len())
            .filter(|&k| is_rare(k))
            .map(|k| found[k].residue)
            .collect();
        residues.dedup();
        let least = fraction / residues.len().max(1) as f64;
        let rare = (0..found.len())
            .filter(|&k| is_rare(k) && held[k] < least)
            .map(|k| {
                let beyond = (least - held[k]) / (held[k] * (1.0 - least));
                (found[k], beyond.min(MOST_COPIES - 1.0))
            })
            .collect();
        Enrichment { rare }
    }

    /// The weight of a frame.
    fn weight(&self, row: &[f64]) -> f64 {
        let beyond = self.rare.iter().filter(|(basin, _)| basin.holds(row));
        1.0 + beyond.map(|(_, beyond)| beyond).sum::<f64>()
    }

    /// `count` of `candidates`, which name rows of `torus`, in proportion to their weights: drawn without repetition among the frames of
    /// weight 1, and among others with as few repetitions as there can be. Fewer where those of weight 1 do not suffice.
    pub fn draw(
        &self,
        candidates: &[usize],
        torus: &[f64],
        dimension: usize,
        count: usize,
        seed: u64,
    ) -> Vec<usize> {
        if self.rare.is_empty() {
            return spread(candidates, count);
        }
        let mut groups: Vec<(f64, Vec<usize>)> = Vec::new();
        for &frame in candidates {
            let weight = self.weight(&torus[frame * dimension..(frame + 1) * dimension]);
            match groups.iter_mut().find(|(other, _)| *other == weight) {
                Some((_, frames)) => frames.push(frame),
                None => groups.push((weight, vec![frame])),
            }
        }
        groups.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total: f64 = groups
            .iter()
            .map(|(w, frames)| w * frames.len() as f64)
            .sum();
        let scale = (count as f64 / total).min(1.0);
        let mut stream = Stream::new(seed, DOMAIN_FRAMES, 0);
        groups
            .iter()
            .flat_map(|(weight, frames)| {
                let wanted = (scale * weight * frames.len() as f64).round() as usize;
                draw(frames, wanted.max(1), &mut stream)
            })
            .collect()
    }
}

/// `wanted` of `from`: whole copies first, so that no frame counts more than one above another, and the rest at random.
fn draw(from: &[usize], wanted: usize, stream: &mut Stream) -> Vec<usize> {
    let mut chosen = Vec::with_capacity(wanted);
    while wanted - chosen.len() >= from.len() {
        chosen.extend_from_slice(from);
    }
    let rest = wanted - chosen.len();
    let mut pool = from.to_vec();
    for k in 0..rest {
        let other = k + (stream.uniform() * (pool.len() - k) as f64) as usize;
        let last = pool.len() - 1;
        pool.swap(k, other.min(last));
    }
    chosen.extend_from_slice(&pool[..rest]);
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// φ and ψ of one residue, a share of it around φ = 1 rad and the rest around −1.4 rad.
    fn one_residue(n: usize, positive: f64) -> Vec<f64> {
        let mut stream = Stream::new(1, 0, 0);
        (0..n)
            .flat_map(|i| {
                let inside = (i as f64 + 0.5) / (n as f64) < positive;
                let centre = if inside { 1.0 } else { -1.4 };
                [centre + 0.25 * stream.standard_normal(), 0.0]
            })
            .collect()
    }

    fn share_of_positive(torus: &[f64], fraction: f64, count: usize) -> (f64, usize) {
        let n = torus.len() / 2;
        let basins = ResidueBasin::find(torus, 2);
        let enrichment = Enrichment::new(torus, 2, &basins, fraction);
        let all: Vec<usize> = (0..n).collect();
        let chosen = enrichment.draw(&all, torus, 2, count, 1);
        let positive = chosen.iter().filter(|&&i| torus[2 * i] > 0.0).count();
        (positive as f64 / chosen.len() as f64, chosen.len())
    }

    #[test]
    fn rare_basins_are_raised_and_common_ones_left_alone() {
        // Two of a hundred frames become eight.
        let (share, n) = share_of_positive(&one_residue(20_000, 0.02), 0.08, 5000);
        assert!(
            (share - 0.08).abs() < 2e-3 && n.abs_diff(5000) <= 1,
            "{share} of {n}"
        );
        // A basin with two thirds of the frames, as of a glycine, keeps them; it used to be pressed to 8 %.
        let (share, n) = share_of_positive(&one_residue(20_000, 0.66), 0.08, 5000);
        assert!((share - 0.66).abs() < 2e-3 && n == 5000, "{share} of {n}");
        // The common basin of a D-residue is the positive one, and its rare one is raised.
        let (share, _) = share_of_positive(&one_residue(20_000, 0.98), 0.08, 5000);
        assert!((share - 0.92).abs() < 2e-3, "{share}");
        let (share, _) = share_of_positive(&one_residue(20_000, 0.02), 0.0, 5000);
        assert!((share - 0.02).abs() < 2e-3, "{share}");
    }

    #[test]
    fn frames_are_repeated_twenty_times_at_most() {
        let torus = one_residue(20_000, 0.002);
        let (share, _) = share_of_positive(&torus, 0.5, 5000);
        let expected = 20.0 * 0.002 / (20.0 * 0.002 + 0.998);
        assert!((share - expected).abs() < 1e-3, "{share}");
    }

    #[test]
    fn residues_divide_the_fraction_among_them() {
        let one = one_residue(20_000, 0.02);
        let other = one_residue(20_000, 0.98);
        let torus: Vec<f64> = (0..20_000)
            .flat_map(|i| [one[2 * i], 0.0, other[2 * i], 0.0])
            .collect();
        let basins = ResidueBasin::find(&torus, 4);
        assert_eq!(basins.len(), 4);
        let enrichment = Enrichment::new(&torus, 4, &basins, 0.08);
        let all: Vec<usize> = (0..20_000).collect();
        let chosen = enrichment.draw(&all, &torus, 4, 10_000, 1);
        for (residue, positive) in [(0, true), (1, false)] {
            let inside = |&&i: &&usize| (torus[4 * i + 2 * residue] > 0.0) == positive;
            let share = chosen.iter().filter(inside).count() as f64 / chosen.len() as f64;
            // What raises the other residue's basin dilutes this one by 2 %.
            assert!((share - 0.04).abs() < 2e-3, "{share}");
        }
    }

    #[test]
    fn every_set_has_ladders_of_its_own() {
        let of: Vec<Share> = (0..FEWEST_LADDERS).map(share).collect();
        for wanted in [
            Share::Train,
            Share::Reference,
            Share::Second,
            Share::Coverage,
        ] {
            assert!(of.contains(&wanted));
        }
    }
}
