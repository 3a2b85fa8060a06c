//! Which frames go into which file: all into one, or into independent sets for training, validation and test.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use boltzmap_physics::replica_exchange::ReplicaExchangeSettings;

use super::Written;
use crate::args::RemdArguments;

/// Names of the sets of `--split`.
const NAMES: [&str; 3] = ["train", "validation", "test"];

/// The files to write.
pub(super) struct Sets {
    out: PathBuf,
    /// Frames of each set; none to write all frames into one file.
    split: Option<[usize; 3]>,
    n_ladders: usize,
}

/// `frames.npz` as `frames.train.npz`.
fn path_of(out: &Path, name: &str) -> PathBuf {
    let stem = out.file_stem().unwrap_or_default().to_string_lossy();
    let ending = out.extension().unwrap_or_default().to_string_lossy();
    out.with_file_name(format!("{stem}.{name}.{ending}"))
}

/// Gives every ladder to the set that has fewest for its frames.
fn shares(frames: [usize; 3], n_ladders: usize) -> [Vec<usize>; 3] {
    let mut shares: [Vec<usize>; 3] = [Vec::new(), Vec::new(), Vec::new()];
    for ladder in 0..n_ladders {
        let per_frame = |set: &usize| (shares[*set].len() as f64 + 0.5) / frames[*set] as f64;
        let poorest = (0..3).min_by(|a, b| per_frame(a).total_cmp(&per_frame(b)));
        shares[poorest.unwrap_or(0)].push(ladder);
    }
    // Small sets must not go away empty-handed.
    for set in 0..3 {
        if shares[set].is_empty() {
            let richest = (0..3).max_by_key(|&other| shares[other].len()).unwrap_or(0);
            if let Some(ladder) = shares[richest].pop() {
                shares[set].push(ladder);
            }
        }
    }
    shares
}

impl Sets {
    /// # Errors
    /// If there are too few ladders for three sets, or a set's ladders will not record enough frames.
    pub(super) fn new(
        arguments: &RemdArguments,
        settings: &ReplicaExchangeSettings,
    ) -> Result<Self> {
        let split = match arguments.split.as_slice() {
            [] => None,
            &[train, validation, test] => Some([train, validation, test]),
            other => anyhow::bail!(
                "--split has {} numbers; give three, of the training, validation and test frames",
                other.len()
            ),
        };
        if let Some(frames) = split {
            ensure!(
                frames.iter().all(|&n| n > 0),
                "--split asks for a set without frames; every set needs some"
            );
            ensure!(
                settings.n_ladders >= 3,
                "--split needs at least 3 ladders, one for each set, but --ladders is {}",
                settings.n_ladders
            );
            let saves = (settings.steps / settings.save_interval) as usize;
            for (set, ladders) in shares(frames, settings.n_ladders).iter().enumerate() {
                let recorded = saves * ladders.len();
                ensure!(
                    recorded >= frames[set],
                    "the {} set asks for {} frames, but its {} ladders will record {recorded}; raise --ps or lower --save-interval",
                    NAMES[set],
                    frames[set],
                    ladders.len()
                );
            }
        }
        Ok(Self {
            out: arguments.out.clone(),
            split,
            n_ladders: settings.n_ladders,
        })
    }

    /// The files of the frames.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        match self.split {
            None => vec![self.out.clone()],
            Some(_) => NAMES.iter().map(|name| path_of(&self.out, name)).collect(),
        }
    }

    /// The frames of every set; `ladders` tells each frame's, ladder by ladder, `belongs` whether it is not left out.
    pub(super) fn choose(&self, ladders: &[u32], belongs: impl Fn(usize) -> bool) -> Vec<Written> {
        let of = |wanted: &[usize]| -> Vec<usize> {
            (0..ladders.len())
                .filter(|&n| wanted.contains(&(ladders[n] as usize)) && belongs(n))
                .collect()
        };
        let Some(frames) = self.split else {
            let all: Vec<usize> = (0..self.n_ladders).collect();
            return vec![Written {
                path: self.out.clone(),
                name: "all",
                asked: None,
                frames: of(&all),
                ladders: all,
            }];
        };
        let shares = shares(frames, self.n_ladders);
        NAMES
            .iter()
            .zip(shares)
            .zip(frames)
            .map(|((name, ladders), count)| {
                let candidates = of(&ladders);
                // Evenly over time; a run that was interrupted has fewer, and one whose frames were left out.
                let asked = Some(count);
                let count = count.min(candidates.len());
                Written {
                    path: path_of(&self.out, name),
                    name,
                    asked,
                    frames: (0..count)
                        .map(|k| candidates[k * candidates.len() / count])
                        .collect(),
                    ladders,
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sets_are_named_after_the_file() {
        let path = path_of(Path::new("a/b.c/frames.npz"), "test");
        assert_eq!(path, Path::new("a/b.c/frames.test.npz"));
    }

    proptest! {
        #[test]
        fn ladders_are_shared_out_once_and_in_proportion(
            frames in prop::array::uniform3(1usize..100_000), n_ladders in 3usize..60,
        ) {
            let shares = shares(frames, n_ladders);
            let mut all: Vec<usize> = shares.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..n_ladders).collect::<Vec<_>>());
            let total: usize = frames.iter().sum();
            for (share, frames) in shares.iter().zip(frames) {
                let fair = n_ladders as f64 * frames as f64 / total as f64;
                prop_assert!(!share.is_empty() && (share.len() as f64 - fair).abs() <= 2.0, "{shares:?}");
            }
        }
    }
}
