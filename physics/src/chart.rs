//! Coordinate charts: maps between Cartesian positions and the state a flow is trained on, with exact log-determinants.
//!
//! A chart's `encode` maps positions x to a state y and returns log|dy/dx|; `decode` maps back and returns log|dx/dy|. So
//! log q(y) = log q(x) − log_det(encode) and log q(x) = log q(y) − log_det(decode). Densities of x live on the mean-free
//! subspace (3·atoms − 3 dimensions, orthonormal coordinates, nm); for a chart of internal coordinates the orientation is
//! uniformly distributed (Haar measure), so that the densities of different charts are comparable numbers.
//! `pull_back` and `pull_back_log_density` turn gradients in positions into gradients in states.

pub mod cartesian;
mod coordinates;
pub mod internal;
mod panels;
pub mod pull_back;
pub mod standardise;
pub mod zmatrix;

pub use cartesian::CartesianChart;
pub use coordinates::Coordinates;
pub use internal::{InternalChart, InternalOptions, SymmetricRotor};
pub use standardise::Whitening;
pub use zmatrix::ZMatrix;

/// What can go wrong while a chart is built, fitted or applied.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ChartError {
    /// Fewer than three atoms.
    #[error(
        "internal coordinates need at least 3 atoms but the molecule has {0}; use the Cartesian chart"
    )]
    TooFewAtoms(usize),
    /// The bond graph falls into pieces.
    #[error(
        "atom {0} is not connected to the others by bonds, so it has no internal coordinates; check the bond list"
    )]
    Disconnected(usize),
    /// A bond names an atom that does not exist, or an array has the wrong length.
    #[error(
        "{what} has {found} entries but {expected} were expected; check the shape of the input"
    )]
    Shape {
        /// Which array.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length it should have.
        expected: usize,
    },
    /// A bond names an atom out of range.
    #[error("bond {0}-{1} names an atom that does not exist in a molecule of {2} atoms")]
    BadBond(usize, usize, usize),
    /// Three atoms in a line (or on top of each other).
    #[error(
        "atoms {}, {} and {} of frame {frame} are collinear or coincide, so a dihedral is undefined; \
         choose other reference atoms or drop the frame",
        atoms[0], atoms[1], atoms[2]
    )]
    Collinear {
        /// Index of the frame.
        frame: usize,
        /// The three atoms.
        atoms: [usize; 3],
    },
    /// NaN or infinity.
    #[error("frame {0} contains a position that is not a finite number; drop the frame")]
    NotFinite(usize),
    /// Not enough data to fit the standardisation.
    #[error("{found} frames are too few to fit {what}; give at least {needed}")]
    TooFewFrames {
        /// What was to be fitted.
        what: &'static str,
        /// Frames given.
        found: usize,
        /// Frames needed.
        needed: usize,
    },
    /// A coordinate that does not vary.
    #[error(
        "coordinate {0} does not vary over the frames, so it cannot be standardised; give frames from dynamics"
    )]
    NoVariance(usize),
}

/// The result of [`CartesianChart::encode`] or [`InternalChart::encode`] for n frames.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// `[n, tokens, channels]`
    pub state: Vec<f64>,
    /// log|dy/dx| per frame, `[n]`
    pub log_det: Vec<f64>,
    /// ln c of the state chosen, see [`Decoded::log_share`], `[n]`
    pub log_share: Vec<f64>,
    /// Whether the frame lies in the chart's domain, `[n]`
    pub in_domain: Vec<bool>,
}

/// The result of [`CartesianChart::decode`] or [`InternalChart::decode`] for n states.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// `[n, atoms, 3]`, nm, mean-free
    pub positions: Vec<f64>,
    /// log|dx/dy| per state, `[n]`; not a number of use where `in_domain` is false
    pub log_det: Vec<f64>,
    /// ln c, `[n]`: where several states of the domain stand for one geometry, each carries the share c of its probability, so
    /// that the target's density of states is p(x) c |dx/dy|. 0 where there is one state.
    pub log_share: Vec<f64>,
    /// Whether the state lies in the chart's domain, `[n]`; where it does not, the target density is zero and the weight is 0.
    pub in_domain: Vec<bool>,
}

pub(crate) fn check_shape(
    what: &'static str,
    found: usize,
    multiple: usize,
) -> Result<usize, ChartError> {
    if multiple == 0 || !found.is_multiple_of(multiple) {
        return Err(ChartError::Shape {
            what,
            found,
            expected: found.div_ceil(multiple.max(1)) * multiple,
        });
    }
    Ok(found / multiple)
}
