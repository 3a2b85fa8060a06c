//! A molecule with every force-field parameter assigned: all that an energy evaluator needs.
//!
//! Units: nm, ps, Da, e, K, kJ/mol, rad. See `force_field` for how a [`System`] is made from a topology.

/// Coulomb's constant 1/(4π ε₀) in kJ nm mol⁻¹ e⁻², from the CODATA constants OpenMM uses.
pub const COULOMB_CONSTANT: f64 = 138.935457644382;
/// Boltzmann's constant times Avogadro's number, kJ mol⁻¹ K⁻¹.
pub const GAS_CONSTANT: f64 = 8.31446261815324e-3;

/// Harmonic bond ½k(r−r₀)².
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bond {
    /// The two atoms.
    pub atoms: [usize; 2],
    /// r₀, nm
    pub length: f64,
    /// k, kJ mol⁻¹ nm⁻²
    pub force_constant: f64,
}

/// Harmonic angle ½k(θ−θ₀)².
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Angle {
    /// The three atoms, the vertex in the middle.
    pub atoms: [usize; 3],
    /// θ₀, rad
    pub angle: f64,
    /// k, kJ mol⁻¹ rad⁻²
    pub force_constant: f64,
}

/// Periodic torsion k(1+cos(nφ−φ₀)), proper or improper, IUPAC sign.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Torsion {
    /// The four atoms.
    pub atoms: [usize; 4],
    /// n
    pub periodicity: u32,
    /// φ₀, rad
    pub phase: f64,
    /// k, kJ/mol
    pub force_constant: f64,
}

/// A pair three bonds apart with its scaled interaction; ignores cutoffs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair14 {
    /// The two atoms.
    pub atoms: [usize; 2],
    /// Scaled product of charges, e²
    pub charge_product: f64,
    /// σ, nm
    pub sigma: f64,
    /// Scaled ε, kJ/mol
    pub epsilon: f64,
}

/// The variants of the Onufriev–Bashford–Case generalised Born model that OpenMM ships, each with its constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BornModel {
    /// `amber99_obc.xml` (GBSAOBCForce): OBC2 coefficients, ε_w 78.3, engulfed-atom term present.
    Amber99Obc,
    /// `implicit/obc1.xml`.
    Obc1,
    /// `implicit/obc2.xml`.
    Obc2,
}

/// Per-atom parameters of the generalised Born model.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneralizedBorn {
    /// Which constants.
    pub model: BornModel,
    /// R_i, nm
    pub radius: Vec<f64>,
    /// S_i, dimensionless scale
    pub scale: Vec<f64>,
}

/// A molecule with all parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct System {
    /// Da
    pub masses: Vec<f64>,
    /// e
    pub charges: Vec<f64>,
    /// Lennard-Jones σ_i, nm
    pub sigma: Vec<f64>,
    /// Lennard-Jones ε_i, kJ/mol
    pub epsilon: Vec<f64>,
    /// Harmonic bonds.
    pub bonds: Vec<Bond>,
    /// Harmonic angles.
    pub angles: Vec<Angle>,
    /// Proper and improper torsions.
    pub torsions: Vec<Torsion>,
    /// Pairs at bond distance 1 or 2, i < j, sorted: no direct nonbonded interaction.
    pub excluded: Vec<[usize; 2]>,
    /// Pairs at bond distance 3, i < j, sorted.
    pub pairs14: Vec<Pair14>,
    /// Implicit solvent, if any.
    pub generalized_born: Option<GeneralizedBorn>,
    /// Non-periodic cutoff, nm; `None` for all pairs.
    pub cutoff: Option<f64>,
}

impl System {
    /// Number of atoms.
    pub fn n_atoms(&self) -> usize {
        self.masses.len()
    }
}
