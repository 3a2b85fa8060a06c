//! SIMD tiers, chosen when the program runs.
//!
//! A kernel is written once, as a [`Kernel`] whose body is generic over [`Simd`], and [`dispatch`] runs it with the widest
//! instruction set the processor has. Everything the body calls must be `#[inline(always)]` (closures are not: pass
//! zero-sized types instead), or the intrinsics stay function calls.
//!
//! The AVX2 and AVX-512 tiers compute the same bits for every elementwise operation. The portable tier has no fused
//! multiply-add on x86-64, so [`Lanes::mul_add`] rounds twice there.

mod avx2;
mod avx512;
mod portable;

pub use portable::Portable;

use crate::real::Real;
use std::ops::{Add, Div, Mul, Neg, Sub};
use std::sync::OnceLock;

/// An instruction set a kernel can run with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// 128-bit vectors, on every processor.
    Portable,
    /// AVX2 with FMA: 256-bit vectors.
    Avx2,
    /// AVX-512 F, DQ, BW and VL: 512-bit vectors.
    Avx512,
}

impl Tier {
    /// All tiers, narrowest first.
    pub const ALL: [Tier; 3] = [Tier::Portable, Tier::Avx2, Tier::Avx512];

    /// `portable`, `avx2` or `avx512`.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Portable => "portable",
            Tier::Avx2 => "avx2",
            Tier::Avx512 => "avx512",
        }
    }

    /// Whether this processor can run the tier.
    pub fn is_available(self) -> bool {
        match self {
            Tier::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512 => {
                Tier::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The tiers this processor can run, narrowest first.
    pub fn available() -> Vec<Tier> {
        Tier::ALL
            .into_iter()
            .filter(|tier| tier.is_available())
            .collect()
    }

    /// The tier [`dispatch`] uses: the widest available one, or the one the environment variable `BOLTZMAP_SIMD`
    /// (`portable`, `avx2` or `avx512`) names when the processor has it. Decided once.
    pub fn active() -> Tier {
        static ACTIVE: OnceLock<Tier> = OnceLock::new();
        *ACTIVE.get_or_init(|| {
            let widest = *Tier::available().last().unwrap_or(&Tier::Portable);
            match std::env::var("BOLTZMAP_SIMD") {
                Ok(wanted) => match Tier::ALL.into_iter().find(|tier| tier.name() == wanted) {
                    Some(tier) if tier.is_available() => tier,
                    _ => {
                        eprintln!(
                            "BOLTZMAP_SIMD={wanted} is not a tier of this machine ({}); using {}",
                            Tier::available()
                                .iter()
                                .map(|tier| tier.name())
                                .collect::<Vec<_>>()
                                .join(", "),
                            widest.name()
                        );
                        widest
                    }
                },
                Err(_) => widest,
            }
        })
    }
}

/// The vector types of one tier.
pub trait Simd: Copy + Send + Sync + 'static {
    /// Vector of `f32`.
    type F32: Lanes<Scalar = f32>;
    /// Vector of `f64`.
    type F64: Lanes<Scalar = f64>;
    /// The tier.
    const TIER: Tier;
}

/// A computation generic over the tier it runs with.
pub trait Kernel {
    /// What it returns.
    type Output;
    /// The body; mark it `#[inline(always)]`.
    fn run<S: Simd>(self) -> Self::Output;
}

/// A computation on vectors of one type, for [`Lanes::call`].
pub trait LaneKernel {
    /// What it returns.
    type Output;
    /// The body; mark it `#[inline(always)]`.
    fn run(self) -> Self::Output;
}

/// Runs a kernel with [`Tier::active`].
#[inline]
pub fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    enter(Tier::active(), kernel)
}

/// Runs a kernel with a given tier.
///
/// # Panics
/// When the processor lacks the tier.
pub fn dispatch_on<K: Kernel>(tier: Tier, kernel: K) -> K::Output {
    assert!(
        tier.is_available(),
        "this processor has no {} instructions",
        tier.name()
    );
    enter(tier, kernel)
}

/// `tier` must be available.
#[inline]
fn enter<K: Kernel>(tier: Tier, kernel: K) -> K::Output {
    match tier {
        Tier::Portable => kernel.run::<Portable>(),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: both callers pass a tier whose instructions were detected.
        Tier::Avx2 => unsafe { avx2::enter(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: both callers pass a tier whose instructions were detected.
        Tier::Avx512 => unsafe { avx512::enter(kernel) },
        #[cfg(not(target_arch = "x86_64"))]
        _ => kernel.run::<Portable>(),
    }
}

/// A vector of [`Lanes::WIDTH`] floating-point numbers, and what kernels need of it.
///
/// Bit operations treat each lane as an unsigned integer of the scalar's size.
pub trait Lanes:
    Copy
    + Send
    + Sync
    + std::fmt::Debug
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + 'static
{
    /// Element type.
    type Scalar: Real;
    /// Result of a comparison.
    type Mask: Copy;
    /// Number of lanes, a power of two.
    const WIDTH: usize;
    /// Whether [`Lanes::load_partial`] and [`Lanes::store_partial`] are one instruction.
    const PARTIAL_IS_FAST: bool;

    /// Runs a computation on vectors of this type as a function of its own, not inlined: what several kernels share is compiled once.
    fn call<K: LaneKernel>(kernel: K) -> K::Output;
    /// The same number in every lane.
    fn splat(value: Self::Scalar) -> Self;
    /// The first `WIDTH` elements; panics when there are fewer.
    fn load(source: &[Self::Scalar]) -> Self;
    /// Writes the first `WIDTH` elements; panics when there are fewer.
    fn store(self, target: &mut [Self::Scalar]);
    /// Lanes a·b + c, rounded once where the tier has fused multiply-add.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// c − a·b, rounded once where the tier has fused multiply-add.
    fn neg_mul_add(self, b: Self, c: Self) -> Self;
    /// `self < other ? self : other`: the second operand when either is not a number.
    fn min(self, other: Self) -> Self;
    /// `self > other ? self : other`: the second operand when either is not a number.
    fn max(self, other: Self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// Correctly rounded square root.
    fn sqrt(self) -> Self;
    /// Nearest integer, ties to even.
    fn round(self) -> Self;
    /// Largest integer not above.
    fn floor(self) -> Self;
    /// self < other; false when either is not a number.
    fn lt(self, other: Self) -> Self::Mask;
    /// self ≤ other; false when either is not a number.
    fn le(self, other: Self) -> Self::Mask;
    /// self = other; false when either is not a number.
    fn eq(self, other: Self) -> Self::Mask;
    /// `mask ? on_true : on_false`.
    fn select(mask: Self::Mask, on_true: Self, on_false: Self) -> Self;
    /// Both.
    fn mask_and(a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// Either.
    fn mask_or(a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// Not.
    fn mask_not(a: Self::Mask) -> Self::Mask;
    /// Whether any lane is set.
    fn mask_any(a: Self::Mask) -> bool;
    /// Every lane holds these bits (the low 32 for `f32`).
    fn splat_bits(bits: u64) -> Self;
    /// Bitwise and.
    fn bit_and(self, other: Self) -> Self;
    /// Bitwise or.
    fn bit_or(self, other: Self) -> Self;
    /// Bitwise exclusive or.
    fn bit_xor(self, other: Self) -> Self;
    /// Wrapping integer sum of the bits.
    fn integer_add(self, other: Self) -> Self;
    /// Wrapping integer difference of the bits.
    fn integer_sub(self, other: Self) -> Self;
    /// Bits shifted left.
    fn shift_left<const N: u32>(self) -> Self;
    /// Bits shifted right, zeros coming in.
    fn shift_right<const N: u32>(self) -> Self;
    /// Sum of the lanes in a fixed order: upper half onto lower half, down to one lane.
    fn reduce_sum(self) -> Self::Scalar;

    /// (a₀ b₀ a₁ b₁ …, …): the lanes of both vectors alternating, in two vectors.
    fn interleave(self, other: Self) -> (Self, Self);

    /// Transposes the `WIDTH` × `WIDTH` matrix in the first `WIDTH` rows.
    #[inline(always)]
    fn transpose(rows: &mut [Self; 16]) {
        let half = Self::WIDTH / 2;
        let mut stage = 1;
        while stage < Self::WIDTH {
            let before = *rows;
            for i in 0..half {
                (rows[2 * i], rows[2 * i + 1]) = before[i].interleave(before[i + half]);
            }
            stage *= 2;
        }
    }

    /// Zero in every lane.
    #[inline(always)]
    fn zero() -> Self {
        Self::splat(Self::Scalar::from_f64(0.0))
    }
    /// The constant in every lane, rounded to the scalar type.
    #[inline(always)]
    fn constant(value: f64) -> Self {
        Self::splat(Self::Scalar::from_f64(value))
    }
    /// 1/x, correctly rounded.
    #[inline(always)]
    fn reciprocal(self) -> Self {
        Self::constant(1.0) / self
    }
    /// 1/√x within 1.5 ulp.
    #[inline(always)]
    fn rsqrt(self) -> Self {
        Self::constant(1.0) / self.sqrt()
    }
    /// self > other; false when either is not a number.
    #[inline(always)]
    fn gt(self, other: Self) -> Self::Mask {
        other.lt(self)
    }
    /// self ≥ other; false when either is not a number.
    #[inline(always)]
    fn ge(self, other: Self) -> Self::Mask {
        other.le(self)
    }
    /// Bits rotated left by `LEFT`; `RIGHT` must be the scalar's size in bits minus `LEFT`.
    #[inline(always)]
    fn rotate_left<const LEFT: u32, const RIGHT: u32>(self) -> Self {
        self.shift_left::<LEFT>()
            .bit_or(self.shift_right::<RIGHT>())
    }
    /// The magnitude of `self` with the sign bit of `sign`.
    #[inline(always)]
    fn copy_sign(self, sign: Self) -> Self {
        let sign_bit = Self::constant(-0.0);
        self.abs().bit_or(sign.bit_and(sign_bit))
    }
    /// The first `min(WIDTH, source.len())` elements, the rest filled.
    #[inline(always)]
    fn load_partial(source: &[Self::Scalar], fill: Self::Scalar) -> Self {
        let mut buffer = [fill; 16];
        let count = source.len().min(Self::WIDTH);
        buffer[..count].copy_from_slice(&source[..count]);
        Self::load(&buffer)
    }
    /// Writes the first `min(WIDTH, target.len())` lanes.
    #[inline(always)]
    fn store_partial(self, target: &mut [Self::Scalar]) {
        let mut buffer = [Self::Scalar::from_f64(0.0); 16];
        self.store(&mut buffer);
        let count = target.len().min(Self::WIDTH);
        target[..count].copy_from_slice(&buffer[..count]);
    }
    /// Lane i holds `function(i)`.
    #[inline(always)]
    fn from_fn(mut function: impl FnMut(usize) -> Self::Scalar) -> Self {
        let mut buffer = [Self::Scalar::from_f64(0.0); 16];
        for (i, value) in buffer[..Self::WIDTH].iter_mut().enumerate() {
            *value = function(i);
        }
        Self::load(&buffer)
    }
    /// One lane.
    #[inline(always)]
    fn extract(self, lane: usize) -> Self::Scalar {
        let mut buffer = [Self::Scalar::from_f64(0.0); 16];
        self.store(&mut buffer);
        buffer[..Self::WIDTH][lane]
    }
    /// The largest lane; any number when a lane is not one.
    #[inline(always)]
    fn reduce_max(self) -> Self::Scalar {
        // Interleaving with itself brings every lane beside every other one in log₂ WIDTH rounds.
        let mut largest = self;
        let mut round = 1;
        while round < Self::WIDTH {
            let (low, high) = largest.interleave(largest);
            largest = low.max(high);
            round *= 2;
        }
        largest.first()
    }
    /// Lane 0.
    #[inline(always)]
    fn first(self) -> Self::Scalar {
        let mut buffer = [Self::Scalar::from_f64(0.0); 16];
        self.store(&mut buffer);
        buffer[0]
    }
}

/// Sums kept in [`Real::VIRTUAL_WIDTH`] lanes (16 for `f32`, 8 for `f64`) whatever the tier's own width, so that a sum
/// has one order of additions on all tiers. Element i of the summed row goes to lane i modulo the virtual width.
#[derive(Clone, Copy, Debug)]
pub struct VirtualSum<L: Lanes> {
    parts: [L; 4],
}

impl<L: Lanes> Default for VirtualSum<L> {
    #[inline(always)]
    fn default() -> Self {
        Self {
            parts: [L::zero(); 4],
        }
    }
}

impl<L: Lanes> VirtualSum<L> {
    /// How many vectors of the tier make up the virtual width.
    pub const PARTS: usize = <L::Scalar as Real>::VIRTUAL_WIDTH / L::WIDTH;

    /// Adds a vector to the lanes of part `part`.
    #[inline(always)]
    pub fn add(&mut self, part: usize, value: L) {
        self.parts[part] = self.parts[part] + value;
    }

    /// Adds a·b to the lanes of part `part`.
    #[inline(always)]
    pub fn add_product(&mut self, part: usize, a: L, b: L) {
        self.parts[part] = a.mul_add(b, self.parts[part]);
    }

    /// The sum of all lanes: upper half onto lower half, down to one.
    #[inline(always)]
    pub fn total(self) -> L::Scalar {
        let p = self.parts;
        match Self::PARTS {
            1 => p[0].reduce_sum(),
            2 => (p[0] + p[1]).reduce_sum(),
            _ => ((p[0] + p[2]) + (p[1] + p[3])).reduce_sum(),
        }
    }
}

/// Implements the arithmetic operators of a vector newtype by one intrinsic each.
macro_rules! operators {
    ($name:ident, $add:ident, $sub:ident, $mul:ident, $div:ident) => {
        operators!(@binary $name, Add, add, $add);
        operators!(@binary $name, Sub, sub, $sub);
        operators!(@binary $name, Mul, mul, $mul);
        operators!(@binary $name, Div, div, $div);
        impl std::ops::Neg for $name {
            type Output = Self;
            #[inline(always)]
            fn neg(self) -> Self {
                self.bit_xor(Self::splat(-0.0))
            }
        }
    };
    (@binary $name:ident, $trait:ident, $method:ident, $intrinsic:ident) => {
        impl std::ops::$trait for $name {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: values of this type exist only in code that `enter` guards by feature detection.
                Self(unsafe { $intrinsic(self.0, other.0) })
            }
        }
    };
}
use operators;
