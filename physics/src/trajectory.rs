//! Trajectories in the binary formats of other programs: [`xtc`] (GROMACS) and [`dcd`] (CHARMM, NAMD).
//!
//! Frames are `[n, atoms, 3]` in nm. Readers check every length against what the file holds before they trust it: a truncated or
//! damaged file gives one sentence, never a panic or a huge allocation.

pub mod dcd;
pub mod xtc;

/// Why a trajectory cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrajectoryError {
    /// The file ends in the middle of something.
    #[error(
        "the {format} file ends in the middle of frame {frame} (counted from 1); it is truncated, make it again or cut it to {} whole frames", frame - 1
    )]
    Truncated {
        /// Name of the format.
        format: &'static str,
        /// Counted from 1.
        frame: usize,
    },
    /// Bytes make no sense.
    #[error("frame {frame} (counted from 1) of the {format} file is damaged: {what}")]
    Damaged {
        /// Name of the format.
        format: &'static str,
        /// Counted from 1; 0 for the header.
        frame: usize,
        /// What is wrong.
        what: String,
    },
    /// Not a file of this format, or of a kind that is not supported.
    #[error("this is not a {format} file that can be read: {what}")]
    Format {
        /// Name of the format.
        format: &'static str,
        /// Why not.
        what: String,
    },
    /// A coordinate does not fit.
    #[error(
        "frame {frame} (counted from 1) has a coordinate that a {format} file cannot hold: {value} nm"
    )]
    Coordinate {
        /// Name of the format.
        format: &'static str,
        /// Counted from 1.
        frame: usize,
        /// Its value, nm.
        value: String,
    },
}

/// Frames of a trajectory.
#[derive(Clone, Debug, PartialEq)]
pub struct Frames {
    /// Number of atoms.
    pub n_atoms: usize,
    /// `[n, atoms, 3]`, nm
    pub positions: Vec<f32>,
    /// `[n]`, ps
    pub times: Vec<f32>,
}

/// Bytes read from the front.
struct Bytes<'a> {
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        Some(front)
    }

    fn four(&mut self) -> Option<[u8; 4]> {
        let (front, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*front)
    }
}
