//! Elementwise kernels over slices, sums in a fixed order, and the fused optimiser update.
//!
//! Each function runs on [`Tier::active`](crate::simd::Tier::active). The `Kernel` structs behind them are public so
//! that tests and benches can run them on a chosen tier with [`dispatch_on`](crate::simd::dispatch_on).

use crate::math;
use crate::real::Real;
use crate::simd::{Kernel, Lanes, Simd, dispatch};

mod adamw;
pub use adamw::{AdamW, AdamWStep, adamw_ema};

/// A sum over slices of one length in the order of `VirtualSum`:
/// `fixed_sum!(L, length; |sum, part| x = slice, fill; …; { body })`, where `fill` stands beyond the end.
macro_rules! fixed_sum {
    ($lanes:ty, $length:expr; |$sum:ident, $part:ident| $($x:ident = $slice:expr, $fill:expr;)+ $body:block) => {{
        type Sum<L> = $crate::simd::VirtualSum<L>;
        let mut $sum = Sum::<$lanes>::default();
        let length: usize = $length;
        let width = <$lanes>::WIDTH;
        let step = width * Sum::<$lanes>::PARTS;
        let whole = length - length % step;
        let mut start = 0;
        while start < whole {
            for $part in 0..Sum::<$lanes>::PARTS {
                $(let $x = <$lanes>::load(&$slice[start + $part * width..]);)+
                $body
            }
            start += step;
        }
        for $part in 0..Sum::<$lanes>::PARTS {
            let at = start + $part * width;
            if at < length {
                $(let $x = <$lanes>::load_partial(&$slice[at..length], $fill);)+
                $body
            }
        }
        $sum.total()
    }};
}
pub(crate) use fixed_sum;

/// Writes `body` for every vector of slices of one length: `map!(L, y = output; x = slice; …; { body })`; the output may be among the slices.
macro_rules! map {
    ($lanes:ty, $output:ident = $target:expr; $($x:ident = $slice:expr;)* $body:block) => {{
        let $output: &mut [_] = $target;
        let length = $output.len();
        let width = <$lanes>::WIDTH;
        let whole = length - length % width;
        let mut start = 0;
        while start < whole {
            $(let $x = <$lanes>::load(&$slice[start..]);)*
            let result: $lanes = $body;
            result.store(&mut $output[start..]);
            start += width;
        }
        if start < length {
            $(let $x = <$lanes>::load_partial(&$slice[start..length], Default::default());)*
            let result: $lanes = $body;
            result.store_partial(&mut $output[start..]);
        }
    }};
}
pub(crate) use map;

macro_rules! functions {
    (
        $(#[$attribute:meta])* $name:ident, ($($argument:ident),+);
        $($(#[$variant_attribute:meta])* $variant:ident => $value:expr;)+
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_attribute])* $variant,)+
        }

        impl $name {
            /// All functions.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The function of one vector; the choice is made per call, so hoist it out of hot loops or let the
            /// branch predictor learn it.
            #[inline(always)]
            pub fn apply<L: Lanes>(self, $($argument: L),+) -> L {
                match self {
                    $($name::$variant => $value,)+
                }
            }
        }
    };
}

functions! {
    /// Elementwise functions of one argument, with the errors stated in [`math`].
    Unary, (x);
    /// −x
    Neg => -x;
    /// |x|
    Abs => x.abs();
    /// −1, 0 or 1; NaN gives 0
    Sign => L::select(x.lt(L::zero()), L::constant(-1.0), L::select(x.gt(L::zero()), L::constant(1.0), L::zero()));
    /// eˣ
    Exp => math::exp(x);
    /// Natural logarithm
    Ln => math::ln(x);
    /// Hyperbolic tangent
    Tanh => math::tanh(x);
    /// Sine
    Sin => math::sin_cos(x).0;
    /// Cosine
    Cos => math::sin_cos(x).1;
    /// √x
    Sqrt => x.sqrt();
    /// 1/√x
    Rsqrt => x.rsqrt();
    /// 1/x
    Reciprocal => x.reciprocal();
    /// x²
    Square => x * x;
    /// 1/(1+e⁻ˣ)
    Sigmoid => math::sigmoid(x);
    /// Error function
    Erf => math::erf(x);
    /// x Φ(x)
    Gelu => math::gelu(x);
    /// Φ(x) + x φ(x)
    GeluPrime => math::gelu_prime(x);
}

functions! {
    /// Elementwise functions of two arguments.
    Binary, (a, b);
    /// a + b
    Add => a + b;
    /// a − b
    Sub => a - b;
    /// a · b
    Mul => a * b;
    /// a / b
    Div => a / b;
    /// `a > b ? a : b`
    Max => a.max(b);
    /// `a < b ? a : b`
    Min => a.min(b);
    /// 1 where a > b, else 0
    Greater => L::select(a.gt(b), L::constant(1.0), L::zero());
}

/// y = f(x); the kernel of [`map1`].
pub struct Map1<'a, T> {
    /// f
    pub function: Unary,
    /// x
    pub x: &'a [T],
    /// y, as long as x
    pub y: &'a mut [T],
}

/// Runs `$body` with `$constant` replaced by each variant, so that the function is chosen outside the loop.
macro_rules! choose {
    ($value:expr, $enum:ident, $constant:ident => $body:expr; $($variant:ident),+) => {
        match $value {
            $($enum::$variant => {
                const $constant: $enum = $enum::$variant;
                $body
            })+
        }
    };
}

impl<T: Real> Kernel for Map1<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Map1 { function, x, y } = self;
        assert_eq!(
            x.len(),
            y.len(),
            "map1: the result must be as long as the argument"
        );
        choose!(function, Unary, FUNCTION => map!(T::Lanes<S>, output = &mut *y; x = x; { FUNCTION.apply(x) });
            Neg, Abs, Sign, Exp, Ln, Tanh, Sin, Cos, Sqrt, Rsqrt, Reciprocal, Square, Sigmoid, Erf, Gelu, GeluPrime);
    }
}

/// y = f(x) elementwise.
///
/// # Panics
/// When the lengths differ.
pub fn map1<T: Real>(function: Unary, x: &[T], y: &mut [T]) {
    dispatch(Map1 { function, x, y });
}

/// x = f(x); the kernel of [`map1_in_place`].
pub struct Map1InPlace<'a, T> {
    /// f
    pub function: Unary,
    /// x
    pub x: &'a mut [T],
}

impl<T: Real> Kernel for Map1InPlace<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Map1InPlace { function, x } = self;
        choose!(function, Unary, FUNCTION => map!(T::Lanes<S>, output = &mut *x; value = output; { FUNCTION.apply(value) });
            Neg, Abs, Sign, Exp, Ln, Tanh, Sin, Cos, Sqrt, Rsqrt, Reciprocal, Square, Sigmoid, Erf, Gelu, GeluPrime);
    }
}

/// x = f(x) elementwise.
pub fn map1_in_place<T: Real>(function: Unary, x: &mut [T]) {
    dispatch(Map1InPlace { function, x });
}

/// Where element i of an operand comes from.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'a, T> {
    /// Element i of a slice as long as the result.
    Dense(&'a [T]),
    /// One number.
    Scalar(T),
    /// Element i mod length of the slice: broadcast along leading axes.
    Periodic(&'a [T]),
    /// Element ⌊i / count⌋ of the slice: broadcast along trailing axes of `count` elements.
    Repeated(&'a [T], usize),
}

/// An operand over a stretch of the result in which it is either a slice or one number.
#[derive(Clone, Copy)]
enum Segment<'a, T> {
    Slice(&'a [T]),
    Number(T),
}

impl<'a, T: Real> Operand<'a, T> {
    /// The end of the stretch that begins at `start` in a result of `length`.
    #[inline(always)]
    fn segment_end(self, start: usize, length: usize) -> usize {
        match self {
            Operand::Dense(_) | Operand::Scalar(_) => length,
            Operand::Periodic(slice) => length.min(start - start % slice.len() + slice.len()),
            Operand::Repeated(_, count) => length.min(start - start % count + count),
        }
    }

    #[inline(always)]
    fn segment(self, start: usize, end: usize) -> Segment<'a, T> {
        match self {
            Operand::Dense(slice) => Segment::Slice(&slice[start..end]),
            Operand::Scalar(value) => Segment::Number(value),
            Operand::Periodic(slice) => {
                let offset = start % slice.len();
                Segment::Slice(&slice[offset..offset + (end - start)])
            }
            Operand::Repeated(slice, count) => Segment::Number(slice[start / count]),
        }
    }
}

impl<T: Real> Segment<'_, T> {
    #[inline(always)]
    fn load<L: Lanes<Scalar = T>>(self, start: usize) -> L {
        match self {
            Segment::Slice(slice) if slice.len() >= start + L::WIDTH => L::load(&slice[start..]),
            Segment::Slice(slice) => L::load_partial(&slice[start..], T::zero()),
            Segment::Number(value) => L::splat(value),
        }
    }
}

/// y = f(a, b); the kernel of [`map2`].
pub struct Map2<'a, T> {
    /// f
    pub function: Binary,
    /// a
    pub a: Operand<'a, T>,
    /// b
    pub b: Operand<'a, T>,
    /// y
    pub y: &'a mut [T],
}

impl<T: Real> Kernel for Map2<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Map2 { function, a, b, y } = self;
        choose!(function, Binary, FUNCTION => {
            let mut start = 0;
            while start < y.len() {
                let end = a.segment_end(start, y.len()).min(b.segment_end(start, y.len()));
                let target = &mut y[start..end];
                match (a.segment(start, end), b.segment(start, end)) {
                    (Segment::Slice(a), Segment::Slice(b)) => {
                        map!(T::Lanes<S>, output = target; a = a; b = b; { FUNCTION.apply(a, b) })
                    }
                    (Segment::Slice(a), Segment::Number(b)) => {
                        let b = T::Lanes::<S>::splat(b);
                        map!(T::Lanes<S>, output = target; a = a; { FUNCTION.apply(a, b) })
                    }
                    (Segment::Number(a), Segment::Slice(b)) => {
                        let a = T::Lanes::<S>::splat(a);
                        map!(T::Lanes<S>, output = target; b = b; { FUNCTION.apply(a, b) })
                    }
                    (Segment::Number(a), Segment::Number(b)) => {
                        let value = FUNCTION.apply(T::Lanes::<S>::splat(a), T::Lanes::<S>::splat(b));
                        target.fill(value.extract(0));
                    }
                }
                start = end;
            }
        }; Add, Sub, Mul, Div, Max, Min, Greater);
    }
}

/// y = f(a, b) elementwise with broadcasting operands.
///
/// # Panics
/// When a dense operand is shorter than y, or a periodic or repeated one is empty or too short.
pub fn map2<T: Real>(function: Binary, a: Operand<'_, T>, b: Operand<'_, T>, y: &mut [T]) {
    dispatch(Map2 { function, a, b, y });
}

/// a = f(a, b); the kernel of [`map2_in_place`].
pub struct Map2InPlace<'a, T> {
    /// f
    pub function: Binary,
    /// a, overwritten
    pub a: &'a mut [T],
    /// b
    pub b: Operand<'a, T>,
}

impl<T: Real> Kernel for Map2InPlace<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Map2InPlace { function, a, b } = self;
        choose!(function, Binary, FUNCTION => {
            let mut start = 0;
            while start < a.len() {
                let end = b.segment_end(start, a.len());
                let target = &mut a[start..end];
                match b.segment(start, end) {
                    Segment::Slice(b) => {
                        map!(T::Lanes<S>, output = target; a = output; b = b; { FUNCTION.apply(a, b) })
                    }
                    Segment::Number(b) => {
                        let b = T::Lanes::<S>::splat(b);
                        map!(T::Lanes<S>, output = target; a = output; { FUNCTION.apply(a, b) })
                    }
                }
                start = end;
            }
        }; Add, Sub, Mul, Div, Max, Min, Greater);
    }
}

/// a = f(a, b) elementwise with a broadcasting second operand.
///
/// # Panics
/// As [`map2`].
pub fn map2_in_place<T: Real>(function: Binary, a: &mut [T], b: Operand<'_, T>) {
    dispatch(Map2InPlace { function, a, b });
}

/// y = mask ≠ 0 ? a : b; the kernel of [`select`].
pub struct Select<'a, T> {
    /// mask
    pub mask: Operand<'a, T>,
    /// taken where the mask is not 0
    pub on_true: Operand<'a, T>,
    /// taken where the mask is 0
    pub on_false: Operand<'a, T>,
    /// y
    pub y: &'a mut [T],
}

impl<T: Real> Kernel for Select<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Select {
            mask,
            on_true,
            on_false,
            y,
        } = self;
        let length = y.len();
        let width = T::Lanes::<S>::WIDTH;
        let mut start = 0;
        while start < length {
            let end = mask.segment_end(start, length);
            let end = end
                .min(on_true.segment_end(start, length))
                .min(on_false.segment_end(start, length));
            let (mask, a, b) = (
                mask.segment(start, end),
                on_true.segment(start, end),
                on_false.segment(start, end),
            );
            for (i, target) in y[start..end].chunks_mut(width).enumerate() {
                let at = i * width;
                let off = mask.load::<T::Lanes<S>>(at).eq(T::Lanes::<S>::zero());
                T::Lanes::<S>::select(off, b.load(at), a.load(at)).store_partial(target);
            }
            start = end;
        }
    }
}

/// y = mask ≠ 0 ? a : b elementwise with broadcasting operands.
///
/// # Panics
/// As [`map2`].
pub fn select<T: Real>(
    mask: Operand<'_, T>,
    on_true: Operand<'_, T>,
    on_false: Operand<'_, T>,
    y: &mut [T],
) {
    dispatch(Select {
        mask,
        on_true,
        on_false,
        y,
    });
}

/// y ← a·x + y; the kernel of [`axpy`].
pub struct Axpy<'a, T> {
    /// a
    pub a: T,
    /// x
    pub x: &'a [T],
    /// y
    pub y: &'a mut [T],
}

impl<T: Real> Kernel for Axpy<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Axpy { a, x, y } = self;
        assert_eq!(x.len(), y.len(), "axpy: x and y must have one length");
        let a = T::Lanes::<S>::splat(a);
        map!(T::Lanes<S>, output = y; x = x; y = output; { a.mul_add(x, y) });
    }
}

/// y ← a·x + y.
///
/// # Panics
/// When the lengths differ.
pub fn axpy<T: Real>(a: T, x: &[T], y: &mut [T]) {
    dispatch(Axpy { a, x, y });
}

/// x ← a·x.
pub fn scale<T: Real>(a: T, x: &mut [T]) {
    map2_in_place(Binary::Mul, x, Operand::Scalar(a));
}

/// Σ aᵢ bᵢ; the kernel of [`dot`].
pub struct Dot<'a, T> {
    /// a
    pub a: &'a [T],
    /// b
    pub b: &'a [T],
}

/// Elements summed in the slices' own precision before the partial sum goes to `f64`.
const BLOCK: usize = 4096;

impl<T: Real> Kernel for Dot<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self) -> f64 {
        assert_eq!(
            self.a.len(),
            self.b.len(),
            "dot: a and b must have one length"
        );
        let mut total = 0.0;
        for (a, b) in self.a.chunks(BLOCK).zip(self.b.chunks(BLOCK)) {
            let part = fixed_sum!(T::Lanes<S>, a.len(); |sum, part| a = a, T::zero(); b = b, T::zero(); {
                sum.add_product(part, a, b);
            });
            total += part.as_f64();
        }
        total
    }
}

/// Σ aᵢ bᵢ in a fixed order: blocks of 4096 in the slices' precision, blocks in `f64`.
///
/// # Panics
/// When the lengths differ.
pub fn dot<T: Real>(a: &[T], b: &[T]) -> f64 {
    dispatch(Dot { a, b })
}

/// Σ xᵢ² in the order of [`dot`].
pub fn squared_norm<T: Real>(x: &[T]) -> f64 {
    dot(x, x)
}

/// Σ xᵢ; the kernel of [`sum`].
pub struct Sum<'a, T> {
    /// x
    pub x: &'a [T],
}

impl<T: Real> Kernel for Sum<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self) -> f64 {
        let mut total = 0.0;
        for x in self.x.chunks(BLOCK) {
            let part = fixed_sum!(T::Lanes<S>, x.len(); |sum, part| x = x, T::zero(); { sum.add(part, x); });
            total += part.as_f64();
        }
        total
    }
}

/// Σ xᵢ in the order of [`dot`].
pub fn sum<T: Real>(x: &[T]) -> f64 {
    dispatch(Sum { x })
}
