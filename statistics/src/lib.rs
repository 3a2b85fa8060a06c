//! Statistics of weighted and of correlated samples: importance weights, distances, free energies and their errors, MBAR.
//!
//! Nothing here knows of molecules or networks. Energies and free energies are in units of kT.

pub mod angle;
pub mod basins;
pub mod comparison;
pub mod ensemble;
pub mod free_energy;
pub mod gaussian;
pub mod independent;
pub mod jackknife;
mod linear;
pub mod mbar;
pub mod transport;
pub mod wasserstein;
pub mod weights;

pub use comparison::{
    Difference, binomial_cumulative, binomial_interval, difference_of_averages,
    difference_of_free_energies, retained_share, student_quantile, weighted_average,
};
pub use free_energy::{
    Interval, delta_f, delta_f_grouped, delta_f_interval, equal_blocks, histogram, jensen_shannon,
    phi_profile,
};
pub use independent::{IndependentValues, statistical_inefficiency};
pub use wasserstein::{MetricError, TorusDistance, e_w2, t_w2};
pub use weights::{
    clip, effective_sample_size, ess, ess_from_target, log_mean_weight, log_sum_exp, normalised,
    resample_systematic, share_seen,
};
