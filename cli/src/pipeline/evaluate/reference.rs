//! How much the reference dynamics knows: independent values of every torsion, and how the replicas exchanged.

use boltzmap_statistics::IndependentValues;
use serde::{Serialize, Serializer};

use super::super::data::Data;
use super::super::frames::{Share, by_ladder, share};
use super::super::molecule::Molecule;

/// The quality of the reference.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ReferenceQuality {
    /// Ladders of the first reference set.
    pub ladders: usize,
    /// Frames of it that samples are compared with.
    pub frames: usize,
    /// How many independent values these frames hold of each torsion.
    #[serde(serialize_with = "as_map")]
    pub independent: Vec<(String, f64)>,
    /// The smallest of these numbers.
    pub independent_least: f64,
    /// Independent values of whether a frame lies in the state of ΔF, over all ladders, with which the reference's ΔF is computed; 0 where
    /// no frame, or every frame, does.
    pub independent_delta_f: f64,
    /// Lowest acceptance of exchanges between neighbouring temperatures; null with one temperature.
    pub lowest_acceptance: f64,
    /// Journeys from the lowest temperature to the highest and back.
    pub round_trips: u64,
    /// Temperatures of a ladder.
    pub temperatures: usize,
}

fn as_map<S: Serializer>(values: &[(String, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(values.iter().map(|(name, value)| (name, value)))
}

impl ReferenceQuality {
    /// Of `frames` frames of the first set.
    pub(super) fn measure(data: &Data, molecule: &Molecule, frames: usize) -> ReferenceQuality {
        let d = molecule.torus_dimension;
        let of_set: Vec<Vec<&[f64]>> = ladders(data, d, Some(Share::Reference));
        let independent: Vec<(String, f64)> = molecule
            .torsion_names()
            .into_iter()
            .enumerate()
            .map(|(k, name)| {
                let of =
                    |function: fn(f64) -> f64| independent_values(&of_set, |row| function(row[k]));
                (name, of(f64::sin).min(of(f64::cos)).min(frames as f64))
            })
            .collect();
        let all = ladders(data, d, None);
        let in_state = |row: &[f64]| f64::from(u8::from(molecule.in_state(0, row[0])));
        ReferenceQuality {
            ladders: of_set.len(),
            frames,
            independent_least: independent
                .iter()
                .map(|(_, n)| *n)
                .fold(f64::INFINITY, f64::min),
            independent,
            independent_delta_f: independent_values(&all, in_state),
            lowest_acceptance: data
                .exchange
                .acceptance
                .iter()
                .copied()
                .fold(f64::NAN, f64::min),
            round_trips: data.exchange.round_trips,
            temperatures: data.exchange.acceptance.len() + 1,
        }
    }

    /// The torsion with the fewest independent values.
    pub fn slowest(&self) -> Option<&(String, f64)> {
        self.independent.iter().min_by(|a, b| a.1.total_cmp(&b.1))
    }
}

/// Rows of the torus, ladder by ladder.
fn ladders(data: &Data, dimension: usize, of: Option<Share>) -> Vec<Vec<&[f64]>> {
    by_ladder(&data.ladder)
        .into_iter()
        .filter(|(ladder, _)| of.is_none_or(|wanted| share(*ladder as usize) == wanted))
        .map(|(_, frames)| {
            let row = |i: usize| &data.torus[i * dimension..(i + 1) * dimension];
            frames.into_iter().map(row).collect()
        })
        .collect()
}

/// How many independent values of a quantity frames hold, ladder by ladder; none where it does not vary.
fn independent_values(ladders: &[Vec<&[f64]>], quantity: impl Fn(&[f64]) -> f64) -> f64 {
    let series: Vec<Vec<f64>> = ladders
        .iter()
        .map(|rows| rows.iter().map(|row| quantity(row)).collect())
        .collect();
    IndependentValues::of(&series).map_or(0.0, |values| values.by_autocorrelation)
}
