//! Handles of traced values, with an operation for every primitive and the usual operators.

use std::sync::Arc;

use crate::builder::Builder;
use crate::ir::{Binary, Op, Unary, ValueId};
use crate::shape::element_count;

/// A value being traced: a copyable handle into a [`Builder`].
#[derive(Clone, Copy)]
pub struct Var<'b> {
    pub(crate) id: ValueId,
    pub(crate) builder: &'b Builder,
}

impl std::fmt::Debug for Var<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "%{} {:?}", self.id.0, self.shape())
    }
}

macro_rules! unary_methods {
    ($($(#[$doc:meta])* $name:ident: $function:ident;)*) => {$(
        $(#[$doc])*
        #[track_caller]
        pub fn $name(self) -> Self {
            self.builder.emit(Op::Unary(Unary::$function, self.id), &[])
        }
    )*};
}

impl<'b> Var<'b> {
    /// Shape of the value; empty for a scalar.
    pub fn shape(self) -> Vec<usize> {
        self.builder.with_instruction(self.id, |i| i.shape.clone())
    }

    /// Number of axes.
    pub fn rank(self) -> usize {
        self.builder.with_instruction(self.id, |i| i.shape.len())
    }

    /// The builder this value is traced by.
    pub fn builder(self) -> &'b Builder {
        self.builder
    }

    /// Whether the value is the constant zero.
    pub(crate) fn is_zero(self) -> bool {
        self.builder
            .with_instruction(self.id, |i| matches!(i.op, Op::Constant(0.0)))
    }

    unary_methods! {
        /// |x|
        abs: Abs;
        /// −1, 0 or 1
        sign: Sign;
        /// eˣ
        exp: Exp;
        /// Natural logarithm
        ln: Ln;
        /// Hyperbolic tangent
        tanh: Tanh;
        /// Sine
        sin: Sin;
        /// Cosine
        cos: Cos;
        /// √x
        sqrt: Sqrt;
        /// 1/√x
        rsqrt: Rsqrt;
        /// 1/x
        reciprocal: Reciprocal;
        /// x²
        square: Square;
        /// 1/(1+e⁻ˣ)
        sigmoid: Sigmoid;
        /// Error function
        erf: Erf;
        /// x Φ(x), Φ the standard normal distribution function
        gelu: Gelu;
        /// Derivative of GELU: Φ(x) + x φ(x)
        gelu_prime: GeluPrime;
    }

    /// x/(1+e⁻ˣ)
    #[track_caller]
    pub fn silu(self) -> Self {
        self * self.sigmoid()
    }

    #[track_caller]
    fn binary(self, function: Binary, other: Var<'b>) -> Self {
        debug_assert!(
            std::ptr::eq(self.builder, other.builder),
            "the operands are traced by different builders"
        );
        self.builder
            .emit(Op::Binary(function, self.id, other.id), &[])
    }

    /// max(self, other); at a tie the derivative goes to `self`.
    #[track_caller]
    pub fn maximum(self, other: impl IntoVar<'b>) -> Self {
        self.binary(Binary::Max, other.into_var(self.builder))
    }

    /// min(self, other); at a tie the derivative goes to `self`.
    #[track_caller]
    pub fn minimum(self, other: impl IntoVar<'b>) -> Self {
        self.binary(Binary::Min, other.into_var(self.builder))
    }

    /// 1 where self > other, else 0; no derivative.
    #[track_caller]
    pub fn greater(self, other: impl IntoVar<'b>) -> Self {
        self.binary(Binary::Greater, other.into_var(self.builder))
    }

    /// With `self` as the mask: `on_true` where it is not 0, `on_false` elsewhere.
    #[track_caller]
    pub fn select(self, on_true: impl IntoVar<'b>, on_false: impl IntoVar<'b>) -> Self {
        let (on_true, on_false) = (
            on_true.into_var(self.builder).id,
            on_false.into_var(self.builder).id,
        );
        self.builder.emit(
            Op::Select {
                mask: self.id,
                on_true,
                on_false,
            },
            &[],
        )
    }

    /// The same value with derivative zero.
    pub fn stop_gradient(self) -> Self {
        self.builder.emit(Op::StopGradient(self.id), &[])
    }

    /// Repeats along axes of size 1 and new leading axes.
    #[track_caller]
    pub fn broadcast_to(self, shape: &[usize]) -> Self {
        self.builder.emit(Op::BroadcastTo(self.id), shape)
    }

    /// Sums over the axes along which `shape` would have to be repeated to reach this value's shape.
    #[track_caller]
    pub fn sum_to(self, shape: &[usize]) -> Self {
        self.builder.emit(Op::SumTo(self.id), shape)
    }

    /// Sum over axes, which stay with size 1.
    #[track_caller]
    pub fn sum_keep(self, axes: &[usize]) -> Self {
        let mut shape = self.shape();
        for &axis in axes {
            assert!(
                axis < shape.len(),
                "sum: axis {axis} is out of range for the shape {shape:?}"
            );
            shape[axis] = 1;
        }
        self.sum_to(&shape)
    }

    /// Sum over axes, which are removed.
    #[track_caller]
    pub fn sum(self, axes: &[usize]) -> Self {
        let kept = self.sum_keep(axes);
        let shape: Vec<usize> = self
            .shape()
            .into_iter()
            .enumerate()
            .filter(|(axis, _)| !axes.contains(axis))
            .map(|(_, size)| size)
            .collect();
        kept.reshape(&shape)
    }

    /// Mean over axes, which are removed.
    #[track_caller]
    pub fn mean(self, axes: &[usize]) -> Self {
        let sum = self.sum(axes);
        sum * (element_count(&sum.shape()) as f64 / element_count(&self.shape()) as f64)
    }

    /// Mean over axes, which stay with size 1.
    #[track_caller]
    pub fn mean_keep(self, axes: &[usize]) -> Self {
        let sum = self.sum_keep(axes);
        sum * (element_count(&sum.shape()) as f64 / element_count(&self.shape()) as f64)
    }

    /// The same elements in row-major order under another shape.
    #[track_caller]
    pub fn reshape(self, shape: &[usize]) -> Self {
        self.builder.emit(Op::Reshape(self.id), shape)
    }

    /// Axis i of the result is axis `permutation[i]` of this value.
    #[track_caller]
    pub fn permute(self, permutation: &[usize]) -> Self {
        self.builder.emit(
            Op::Permute {
                operand: self.id,
                permutation: permutation.to_vec(),
            },
            &[],
        )
    }

    /// The last two axes exchanged.
    #[track_caller]
    pub fn transpose_last(self) -> Self {
        let rank = self.rank();
        assert!(
            rank >= 2,
            "transpose_last: two axes are needed, the shape is {:?}",
            self.shape()
        );
        let mut permutation: Vec<usize> = (0..rank).collect();
        permutation.swap(rank - 2, rank - 1);
        self.permute(&permutation)
    }

    /// `length` entries from `start` along `axis`.
    #[track_caller]
    pub fn slice(self, axis: usize, start: usize, length: usize) -> Self {
        self.builder.emit(
            Op::Slice {
                operand: self.id,
                axis,
                start,
                length,
            },
            &[],
        )
    }

    /// Zeros before and after along `axis`.
    #[track_caller]
    pub fn pad(self, axis: usize, before: usize, after: usize) -> Self {
        self.builder.emit(
            Op::Pad {
                operand: self.id,
                axis,
                before,
                after,
            },
            &[],
        )
    }

    /// Joins arrays along an axis.
    #[track_caller]
    pub fn concat(parts: &[Var<'b>], axis: usize) -> Self {
        assert!(!parts.is_empty(), "concat: there is nothing to join");
        parts[0].builder.concat(parts, axis)
    }

    /// Entry j along `axis` of the result is entry `indices[j]` of this value.
    #[track_caller]
    pub fn gather(self, axis: usize, indices: &[usize]) -> Self {
        self.builder.emit(
            Op::Gather {
                operand: self.id,
                axis,
                indices: Arc::new(indices.to_vec()),
            },
            &[],
        )
    }

    /// Adds entry j along `axis` to entry `indices[j]` of a zero array with `size` entries there.
    #[track_caller]
    pub fn scatter_add(self, axis: usize, indices: &[usize], size: usize) -> Self {
        self.builder.emit(
            Op::ScatterAdd {
                operand: self.id,
                axis,
                indices: Arc::new(indices.to_vec()),
                size,
            },
            &[],
        )
    }

    /// Matrix product over the last two axes, leading axes broadcasting: `[…, m, k]` · `[…, k, n]`.
    #[track_caller]
    pub fn matmul(self, other: Var<'b>) -> Self {
        self.matmul_flags(other, false, false)
    }

    /// Matrix product with the other factor transposed: `[…, m, k]` · `[…, n, k]`ᵀ.
    #[track_caller]
    pub fn matmul_t(self, other: Var<'b>) -> Self {
        self.matmul_flags(other, false, true)
    }

    #[track_caller]
    pub(crate) fn matmul_flags(self, other: Var<'b>, transpose_a: bool, transpose_b: bool) -> Self {
        self.builder.emit(
            Op::MatMul {
                a: self.id,
                b: other.id,
                transpose_a,
                transpose_b,
            },
            &[],
        )
    }

    /// Softmax over the last axis.
    #[track_caller]
    pub fn softmax(self) -> Self {
        self.builder.emit(Op::Softmax(self.id), &[])
    }

    /// (x − mean)/√(variance + ε) over the last axis (biased variance), no gain or bias.
    #[track_caller]
    pub fn layer_norm(self, epsilon: f64) -> Self {
        self.builder.emit(
            Op::LayerNorm {
                operand: self.id,
                epsilon,
            },
            &[],
        )
    }

    /// 1/√(variance + ε) over the last axis, which becomes 1.
    #[track_caller]
    pub fn row_reciprocal_std(self, epsilon: f64) -> Self {
        self.builder.emit(
            Op::RowReciprocalStd {
                operand: self.id,
                epsilon,
            },
            &[],
        )
    }

    /// With `self` the output y of a softmax: y ⊙ (v − Σ y⊙v).
    #[track_caller]
    pub fn softmax_tangent(self, direction: Var<'b>) -> Self {
        self.builder.emit(
            Op::SoftmaxTangent {
                softmax: self.id,
                direction: direction.id,
            },
            &[],
        )
    }

    /// With `self` the output y of a layer-norm: r ⊙ (v − mean(v) − y·mean(y⊙v)).
    #[track_caller]
    pub fn layer_norm_tangent(self, reciprocal_std: Var<'b>, direction: Var<'b>) -> Self {
        let (reciprocal_std, direction) = (reciprocal_std.id, direction.id);
        self.builder.emit(
            Op::LayerNormTangent {
                normalized: self.id,
                reciprocal_std,
                direction,
            },
            &[],
        )
    }
}

/// What can stand beside a [`Var`] in an operation: a `Var` or a number.
pub trait IntoVar<'b> {
    /// The value in this builder; a number becomes a scalar constant.
    fn into_var(self, builder: &'b Builder) -> Var<'b>;
}

impl<'b> IntoVar<'b> for Var<'b> {
    fn into_var(self, _: &'b Builder) -> Var<'b> {
        self
    }
}

impl<'b> IntoVar<'b> for f64 {
    fn into_var(self, builder: &'b Builder) -> Var<'b> {
        builder.constant(self, &[])
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident $function:ident;)*) => {$(
        impl<'b> std::ops::$trait<Var<'b>> for Var<'b> {
            type Output = Var<'b>;
            #[track_caller]
            fn $method(self, other: Var<'b>) -> Var<'b> {
                self.binary(Binary::$function, other)
            }
        }
        impl<'b> std::ops::$trait<f64> for Var<'b> {
            type Output = Var<'b>;
            #[track_caller]
            fn $method(self, other: f64) -> Var<'b> {
                self.binary(Binary::$function, other.into_var(self.builder))
            }
        }
        impl<'b> std::ops::$trait<Var<'b>> for f64 {
            type Output = Var<'b>;
            #[track_caller]
            fn $method(self, other: Var<'b>) -> Var<'b> {
                self.into_var(other.builder).binary(Binary::$function, other)
            }
        }
    )*};
}

operators! {
    Add add Add;
    Sub sub Sub;
    Mul mul Mul;
    Div div Div;
}

impl<'b> std::ops::Neg for Var<'b> {
    type Output = Var<'b>;
    #[track_caller]
    fn neg(self) -> Var<'b> {
        self.builder.emit(Op::Unary(Unary::Neg, self.id), &[])
    }
}
