//! How many vector operations an evaluation takes, counted by running it on a vector type that counts.

use super::{BatchEvaluator, TileEvaluator};
use boltzmap_kernels::simd::{LaneKernel, Lanes};
use std::cell::Cell;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// Vector operations of one tile. Loads, stores and the copying of constants are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// a·b + c, two floating-point operations.
    pub multiply_adds: u64,
    /// Products.
    pub multiplications: u64,
    /// Sums and differences.
    pub additions: u64,
    /// Quotients and reciprocals.
    pub divisions: u64,
    /// Square roots.
    pub square_roots: u64,
    /// Comparisons, selections, minima, maxima, roundings and operations on bits.
    pub others: u64,
}

impl Operations {
    /// Floating-point operations of one lane: multiply-adds count as two, comparisons and bits as none.
    pub fn floating_point(self) -> u64 {
        2 * self.multiply_adds
            + self.multiplications
            + self.additions
            + self.divisions
            + self.square_roots
    }

    /// Instructions, each operation being one.
    pub fn instructions(self) -> u64 {
        self.multiply_adds
            + self.multiplications
            + self.additions
            + self.divisions
            + self.square_roots
            + self.others
    }
}

impl AddAssign for Operations {
    fn add_assign(&mut self, other: Self) {
        self.multiply_adds += other.multiply_adds;
        self.multiplications += other.multiplications;
        self.additions += other.additions;
        self.divisions += other.divisions;
        self.square_roots += other.square_roots;
        self.others += other.others;
    }
}

/// Operations of energies with forces in `f32` for one conformation `[atoms, 3]`, nm, whose pairs' distances decide which forms of the Born
/// integral are computed.
///
/// # Panics
/// If the positions are not those of one conformation, or the molecule is too large for tiles ([`LARGEST_IN_TILES`](super::LARGEST_IN_TILES)).
pub fn operations(evaluator: &BatchEvaluator<f32>, positions: &[f32]) -> Operations {
    assert_eq!(positions.len(), 3 * evaluator.n_atoms());
    assert!(
        evaluator.n_atoms() <= super::LARGEST_IN_TILES,
        "operations of {} atoms cannot be counted: only tiles run on the counting type",
        evaluator.n_atoms()
    );
    let x: Vec<Counted> = positions.iter().map(|&x| Counted(x)).collect();
    let mut f = vec![Counted(0.0); x.len()];
    COUNT.set(Operations::default());
    let energies = TileEvaluator::<Counted>::new(evaluator).evaluate::<true>(1, &x, &mut f);
    let count = COUNT.get();
    debug_assert!(energies.lane(0).total().is_finite());
    count
}

thread_local! {
    static COUNT: Cell<Operations> = const { Cell::new(Operations {
        multiply_adds: 0,
        multiplications: 0,
        additions: 0,
        divisions: 0,
        square_roots: 0,
        others: 0,
    }) };
}

fn count(change: impl FnOnce(&mut Operations)) {
    COUNT.with(|cell| {
        let mut count = cell.get();
        change(&mut count);
        cell.set(count);
    });
}

fn one_addition() {
    count(|c| c.additions += 1);
}

fn one_multiplication() {
    count(|c| c.multiplications += 1);
}

fn one_division() {
    count(|c| c.divisions += 1);
}

fn other<T>(value: T) -> T {
    count(|c| c.others += 1);
    value
}

/// One lane.
#[derive(Clone, Copy, Debug)]
struct Counted(f32);

impl Add for Counted {
    type Output = Self;
    fn add(self, o: Self) -> Self {
        one_addition();
        Self(self.0 + o.0)
    }
}

impl Sub for Counted {
    type Output = Self;
    fn sub(self, o: Self) -> Self {
        one_addition();
        Self(self.0 - o.0)
    }
}

impl Mul for Counted {
    type Output = Self;
    fn mul(self, o: Self) -> Self {
        one_multiplication();
        Self(self.0 * o.0)
    }
}

impl Div for Counted {
    type Output = Self;
    fn div(self, o: Self) -> Self {
        one_division();
        Self(self.0 / o.0)
    }
}

impl Neg for Counted {
    type Output = Self;
    fn neg(self) -> Self {
        other(Self(-self.0))
    }
}

impl Lanes for Counted {
    type Scalar = f32;
    type Mask = bool;
    const WIDTH: usize = 1;
    const PARTIAL_IS_FAST: bool = true;

    fn call<K: LaneKernel>(kernel: K) -> K::Output {
        kernel.run()
    }
    fn splat(value: f32) -> Self {
        Self(value)
    }
    fn load(source: &[f32]) -> Self {
        Self(source[0])
    }
    fn store(self, target: &mut [f32]) {
        target[0] = self.0;
    }
    fn mul_add(self, b: Self, c: Self) -> Self {
        count(|c| c.multiply_adds += 1);
        Self(self.0.mul_add(b.0, c.0))
    }
    fn neg_mul_add(self, b: Self, c: Self) -> Self {
        count(|c| c.multiply_adds += 1);
        Self((-self.0).mul_add(b.0, c.0))
    }
    fn min(self, o: Self) -> Self {
        other(if self.0 < o.0 { self } else { o })
    }
    fn max(self, o: Self) -> Self {
        other(if self.0 > o.0 { self } else { o })
    }
    fn abs(self) -> Self {
        other(Self(self.0.abs()))
    }
    fn sqrt(self) -> Self {
        count(|c| c.square_roots += 1);
        Self(self.0.sqrt())
    }
    fn round(self) -> Self {
        other(Self(self.0.round_ties_even()))
    }
    fn floor(self) -> Self {
        other(Self(self.0.floor()))
    }
    fn lt(self, o: Self) -> bool {
        other(self.0 < o.0)
    }
    fn le(self, o: Self) -> bool {
        other(self.0 <= o.0)
    }
    fn eq(self, o: Self) -> bool {
        other(self.0 == o.0)
    }
    fn select(mask: bool, on_true: Self, on_false: Self) -> Self {
        other(if mask { on_true } else { on_false })
    }
    fn mask_and(a: bool, b: bool) -> bool {
        a && b
    }
    fn mask_or(a: bool, b: bool) -> bool {
        a || b
    }
    fn mask_not(a: bool) -> bool {
        !a
    }
    fn mask_any(a: bool) -> bool {
        a
    }
    fn splat_bits(bits: u64) -> Self {
        Self(f32::from_bits(bits as u32))
    }
    fn bit_and(self, o: Self) -> Self {
        other(Self(f32::from_bits(self.0.to_bits() & o.0.to_bits())))
    }
    fn bit_or(self, o: Self) -> Self {
        other(Self(f32::from_bits(self.0.to_bits() | o.0.to_bits())))
    }
    fn bit_xor(self, o: Self) -> Self {
        other(Self(f32::from_bits(self.0.to_bits() ^ o.0.to_bits())))
    }
    fn integer_add(self, o: Self) -> Self {
        other(Self(f32::from_bits(
            self.0.to_bits().wrapping_add(o.0.to_bits()),
        )))
    }
    fn integer_sub(self, o: Self) -> Self {
        other(Self(f32::from_bits(
            self.0.to_bits().wrapping_sub(o.0.to_bits()),
        )))
    }
    fn shift_left<const N: u32>(self) -> Self {
        other(Self(f32::from_bits(self.0.to_bits() << N)))
    }
    fn shift_right<const N: u32>(self) -> Self {
        other(Self(f32::from_bits(self.0.to_bits() >> N)))
    }
    fn reduce_sum(self) -> f32 {
        self.0
    }
    fn interleave(self, o: Self) -> (Self, Self) {
        (self, o)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ForceField, build_sequence};

    #[test]
    fn counting_computes_what_the_evaluator_computes() {
        let (topology, positions) = build_sequence("Ace-A-Nme").unwrap();
        let system = ForceField::amber99sbildn_obc2().system(&topology).unwrap();
        let evaluator = BatchEvaluator::<f32>::new(&system);
        let positions: Vec<f32> = positions.iter().map(|&x| x as f32).collect();
        let count = operations(&evaluator, &positions);
        // Two square roots and at least three divisions per pair, and two divisions in every Born integral.
        assert!(count.square_roots > 2 * 231 && count.divisions > 4 * 231);
        assert!(count.floating_point() > 100 * 231 && count.instructions() < 400 * 231);
        let x: Vec<Counted> = positions.iter().map(|&x| Counted(x)).collect();
        let mut f = vec![Counted(0.0); x.len()];
        let energy = TileEvaluator::<Counted>::new(&evaluator)
            .evaluate::<true>(1, &x, &mut f)
            .lane(0)
            .total();
        let expected = evaluator.energies(&positions).unwrap()[0];
        assert!((energy - expected).abs() < 1e-3, "{energy} {expected}");
    }
}
