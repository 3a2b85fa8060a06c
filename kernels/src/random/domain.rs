//! Every domain of random streams, in one place: one number per use, so that no two uses share their numbers.
//!
//! A number never changes once results rest on it. The texts of older ones are in their bytes.

/// Defines the constants and lists them.
macro_rules! domains {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        $($(#[$doc])* pub const $name: u64 = $value;)*

        /// All of them, by name.
        pub const ALL: &[(&str, u64)] = &[$((stringify!($name), $name)),*];
    };
}

domains! {
    /// Initial parameters of a network.
    INITIALISATION = 0x696e_6974,
    /// What a training step draws for each sample.
    TRAINING = 0x7472_6169_6e00,
    /// Trajectories that a head is calibrated on.
    CALIBRATION_POOL = 0x6361_6c69_6272,
    /// Trajectories that a calibration is judged on.
    CALIBRATION_HELD_OUT = 0x6865_6c64_6f75,
    /// Choice of rows in a calibration step.
    CALIBRATION_ROWS = 0x726f_7773_0000,
    /// Means of the mixture in 32 dimensions.
    MIXTURE_MEANS = 0x6d65_616e_7300,
    /// Draws of a Gaussian proposal.
    GAUSSIAN_DRAWS = 0x6467_6175_7373,
    /// Moves of the particles of sequential Monte Carlo.
    PARTICLE_MOVES = 0x736d_636d_6f76,
    /// Offsets of systematic resampling.
    RESAMPLING = 0x7265_7361,
    /// Bootstrap of free energies.
    FREE_ENERGY_BOOTSTRAP = 0x626f_6f74,
    /// Search for closed disulfides.
    DISULFIDE_SEARCH = 0x63_6c6f_7375_7265,
    /// The thermostat's noise.
    LANGEVIN_NOISE = 0x6c61_6e67_6576_696e,
    /// Velocities at the start of dynamics.
    LANGEVIN_VELOCITIES = 0x7665_6c6f_6369_7479,
    /// Exchanges between temperatures.
    REPLICA_EXCHANGES = 0x6578_6368_616e_6765,
    /// Exchanges between windows.
    WINDOW_EXCHANGES = 0x7769_6e64_6f77_7300,
    /// Choice among a geometry's images.
    CHART_IMAGES = 0x696d_6167_6500,
    /// Choice of training frames.
    TRAINING_FRAMES = 0x6672_616d_6573,
    /// Base noise of a run's samples.
    BASE_NOISE = 0x6e6f_6973_6500,
    /// Orientations of a run's samples.
    ORIENTATIONS = 0x6f72_6965_6e74,
    /// Bootstrap of the coverage.
    COVERAGE_BOOTSTRAP = 0x636f_7665_7261,
    /// Draws that tell how much of a Gaussian lies in the domain.
    GAUSSIANS_INSIDE = 0x696e_7369_6465,
    /// Bootstrap of the profile of φ.
    PROFILE_BOOTSTRAP = 0x7072_6f66,
    /// Bootstrap of the difference between two weightings.
    PAIRED_BOOTSTRAP = 0x7061_6972,
    /// Base noise of a verification.
    VERIFICATION_NOISE = 0x766e_6f69_7365,
    /// Bootstrap of a verification's statistics.
    VERIFICATION_BOOTSTRAP = 0x7665_7269_6679,
    /// Errors put into the controls of a suite.
    CONTROL_ERRORS = 0x6572_726f_7200,
    /// Axes of the Gaussian that estimators are studied on.
    STUDY_AXES = 0x6178_6573_0000,
    /// Pairs of noise and data in a study.
    STUDY_PAIRS = 0x7061_6972_7300,
    /// Probes in a study.
    STUDY_PROBES = 0x7072_6f62_6573,
    /// Parameters of a benchmark.
    BENCH_PARAMETERS = 0x6265_6e63_6800,
    /// Inputs of a benchmark.
    BENCH_INPUTS = 0x6265_6e63_6801,
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn no_two_domains_are_equal() {
        for (i, (name, value)) in ALL.iter().enumerate() {
            for (other, same) in &ALL[..i] {
                assert_ne!(value, same, "{name} and {other}");
            }
        }
    }
}
