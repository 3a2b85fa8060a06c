//! Every hand-written force against the dual-number derivative of its energy, at random geometries.

use super::vector::scale;
use super::{Dual, Scalar, angle, bond, generalized_born, nonbonded, torsion};
use crate::system::{Angle, Bond, BornModel, GeneralizedBorn, Torsion};
use proptest::prelude::*;

/// −∂E/∂x by dual numbers, one coordinate at a time.
fn force_of<const N: usize>(
    positions: [[f64; 3]; N],
    energy: impl Fn([[Dual; 3]; N]) -> Dual,
) -> [[f64; 3]; N] {
    let mut force = [[0.0; 3]; N];
    for atom in 0..N {
        for axis in 0..3 {
            let mut seeded = positions.map(|position| position.map(Dual::constant));
            seeded[atom][axis].derivative = 1.0;
            force[atom][axis] = -energy(seeded).derivative;
        }
    }
    force
}

fn assert_close<const N: usize>(
    ours: [[f64; 3]; N],
    theirs: [[f64; 3]; N],
) -> Result<(), TestCaseError> {
    let largest = theirs
        .iter()
        .flatten()
        .fold(1.0f64, |largest, force| largest.max(force.abs()));
    for (a, b) in ours.iter().flatten().zip(theirs.iter().flatten()) {
        prop_assert!(
            (a - b).abs() <= 1e-10 * largest,
            "{ours:?} is not {theirs:?}"
        );
    }
    Ok(())
}

/// Points within a cube of ±0.15 nm, none closer than 0.03 nm to another.
fn points<const N: usize>() -> impl Strategy<Value = [[f64; 3]; N]> {
    let point = prop::array::uniform3(-0.15..0.15f64);
    prop::collection::vec(point, N)
        .prop_map(|list| <[[f64; 3]; N]>::try_from(list).expect("N points"))
        .prop_filter("too close", |list| {
            (0..N).all(|i| (0..i).all(|j| super::vector::distance(list[i], list[j]) > 0.03))
        })
}

/// The smallest |sin| of the bond angles along a path of points: near zero the angle's and torsion's derivatives lose digits.
fn straightness<const N: usize>(list: &[[f64; 3]; N]) -> f64 {
    list.windows(3)
        .map(|three| super::vector::angle(three[0], three[1], three[2]).sin())
        .fold(1.0, f64::min)
}

proptest! {
    #[test]
    fn bond_force(positions in points::<2>(), length in 0.1..0.2f64) {
        let term = Bond { atoms: [0, 1], length, force_constant: 3e5 };
        assert_close(bond::energy_forces(&term, positions).1, force_of(positions, |x| bond::energy(&term, x)))?;
    }

    #[test]
    fn angle_force(positions in points::<3>().prop_filter("straight", |list| straightness(list) > 1e-3), target in 1.0..3.0f64) {
        let term = Angle { atoms: [0, 1, 2], angle: target, force_constant: 400.0 };
        assert_close(angle::energy_forces(&term, positions).1, force_of(positions, |x| angle::energy(&term, x)))?;
    }

    #[test]
    fn torsion_force(
        positions in points::<4>().prop_filter("straight", |list| straightness(list) > 1e-2),
        phase in -3.0..3.0f64,
        periodicity in 1..7u32,
    ) {
        let term = Torsion { atoms: [0, 1, 2, 3], periodicity, phase, force_constant: 10.0 };
        assert_close(torsion::energy_forces(&term, positions).1, force_of(positions, |x| torsion::energy(&term, x)))?;
    }

    #[test]
    fn nonbonded_force(positions in points::<2>(), charge_product in -1.0..1.0f64, shift in 0.0..1.0f64) {
        let pair = nonbonded::Pair { charge_product, sigma: 0.3, epsilon: 0.5, shift };
        assert_close(nonbonded::energy_forces(&pair, positions).1, force_of(positions, |x| nonbonded::energy(&pair, x)))?;
    }

    /// Radii from 0.1 to 0.2 nm and distances from 0.03 nm on: atoms overlap, engulf each other and stand free. Each model, with and without a cutoff.
    #[test]
    fn generalized_born_force(
        positions in points::<5>(),
        spread in 1.0..4.0f64,
        radius in prop::collection::vec(0.1..0.2f64, 5),
        charges in prop::collection::vec(-1.0..1.0f64, 5),
        model in prop::sample::select(vec![BornModel::Amber99Obc, BornModel::Obc1, BornModel::Obc2]),
        cutoff in prop::option::of(0.3..0.6f64),
    ) {
        let positions = positions.map(|position| scale(spread, position));
        let model = GeneralizedBorn { model, radius, scale: vec![0.85, 0.72, 0.79, 0.85, 0.96] };
        let mut forces = [[0.0; 3]; 5];
        let energy = generalized_born::energy_forces(&model, &charges, cutoff, &positions, &mut forces);
        let plain = generalized_born::energy(&model, &charges, cutoff, &positions);
        prop_assert!((energy - plain).abs() <= 1e-12 * plain.abs().max(1.0));
        assert_close(forces, force_of(positions, |x| generalized_born::energy(&model, &charges, cutoff, &x)))?;
    }
}

/// IUPAC: looking along the middle bond, the far bond turned clockwise is positive.
#[test]
fn dihedral_sign() {
    let at = |angle: f64| {
        super::vector::dihedral(
            [1.0, 0.0, 0.0],
            [0.0; 3],
            [0.0, 0.0, 1.0],
            [angle.cos(), angle.sin(), 1.0],
        )
    };
    for angle in [-3.0, -1.0, 0.5, 2.0f64] {
        // Looking along +z, x turns into y clockwise.
        assert!(
            (at(angle) - angle).abs() < 1e-12,
            "{angle} gives {}",
            at(angle)
        );
    }
}

#[test]
fn two_charges_far_apart_in_water_attract_as_coulomb_says_with_the_dielectric() {
    let constants = BornModel::Amber99Obc.constants();
    let model = GeneralizedBorn {
        model: BornModel::Amber99Obc,
        radius: vec![0.15, 0.15],
        scale: vec![0.8, 0.8],
    };
    let energy =
        |r: f64| generalized_born::energy(&model, &[1.0, -1.0], None, &[[0.0; 3], [r, 0.0, 0.0]]);
    // At a distance f → r, so what remains of the solvent's answer is +τ/r.
    let difference = energy(50.0) - energy(100.0);
    assert!(
        (difference - constants.tau * (1.0 / 50.0 - 1.0 / 100.0)).abs() < 1e-6,
        "{difference}"
    );
    // A single ion has Born's energy at the radius 1/(1/(R − offset)), plus the surface.
    let ion = GeneralizedBorn {
        model: BornModel::Amber99Obc,
        radius: vec![0.15],
        scale: vec![0.8],
    };
    let born_radius = 0.15 - generalized_born::RADIUS_OFFSET;
    let surface = constants.surface * 0.29f64.powi(2) * (0.15 / born_radius).powi(6);
    let expected = surface - 0.5 * constants.tau / born_radius;
    assert!((generalized_born::energy(&ion, &[1.0], None, &[[0.0; 3]]) - expected).abs() < 1e-10);
}

#[test]
fn degenerate_geometries_give_finite_forces() {
    let straight = [[0.0; 3], [0.1, 0.0, 0.0], [0.2, 0.0, 0.0], [0.2, 0.1, 0.0]];
    let bend = Angle {
        atoms: [0, 1, 2],
        angle: 2.0,
        force_constant: 400.0,
    };
    let (energy, forces) = angle::energy_forces(&bend, [straight[0], straight[1], straight[2]]);
    assert!(
        (energy - 200.0 * (std::f64::consts::PI - 2.0).powi(2)).abs() < 1e-9
            && forces == [[0.0; 3]; 3]
    );
    let twist = Torsion {
        atoms: [0, 1, 2, 3],
        periodicity: 2,
        phase: 0.3,
        force_constant: 10.0,
    };
    assert_eq!(torsion::energy_forces(&twist, straight).1, [[0.0; 3]; 4]);
}
