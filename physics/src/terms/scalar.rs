//! The number types that term energies are written over: f64, and in tests dual numbers, whose derivative part
//! checks the hand-written forces without a step size.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// What a term's energy formula needs of a number.
pub trait Scalar:
    Copy
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// A constant.
    fn constant(value: f64) -> Self;
    /// √x
    fn sqrt(self) -> Self;
    /// eˣ
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Cosine.
    fn cos(self) -> Self;
    /// The angle of the point (x, y), with `self` = y.
    fn atan2(self, x: Self) -> Self;
    /// |x|
    fn abs(self) -> Self {
        if self < Self::constant(0.0) {
            -self
        } else {
            self
        }
    }
}

impl Scalar for f64 {
    fn constant(value: f64) -> f64 {
        value
    }
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    fn exp(self) -> f64 {
        f64::exp(self)
    }
    fn ln(self) -> f64 {
        f64::ln(self)
    }
    fn tanh(self) -> f64 {
        f64::tanh(self)
    }
    fn cos(self) -> f64 {
        f64::cos(self)
    }
    fn atan2(self, x: f64) -> f64 {
        f64::atan2(self, x)
    }
}

/// value + derivative·ε with ε² = 0.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dual {
    pub(crate) value: f64,
    pub(crate) derivative: f64,
}

#[cfg(test)]
mod dual {
    use super::{Dual, Scalar};
    use std::cmp::Ordering;
    use std::ops::{Add, Div, Mul, Neg, Sub};

    fn dual(value: f64, derivative: f64) -> Dual {
        Dual { value, derivative }
    }

    impl PartialEq for Dual {
        fn eq(&self, other: &Dual) -> bool {
            self.value == other.value
        }
    }
    impl PartialOrd for Dual {
        fn partial_cmp(&self, other: &Dual) -> Option<Ordering> {
            self.value.partial_cmp(&other.value)
        }
    }
    impl Add for Dual {
        type Output = Dual;
        fn add(self, other: Dual) -> Dual {
            dual(self.value + other.value, self.derivative + other.derivative)
        }
    }
    impl Sub for Dual {
        type Output = Dual;
        fn sub(self, other: Dual) -> Dual {
            dual(self.value - other.value, self.derivative - other.derivative)
        }
    }
    impl Mul for Dual {
        type Output = Dual;
        fn mul(self, other: Dual) -> Dual {
            dual(
                self.value * other.value,
                self.derivative * other.value + self.value * other.derivative,
            )
        }
    }
    impl Div for Dual {
        type Output = Dual;
        fn div(self, other: Dual) -> Dual {
            let value = self.value / other.value;
            dual(
                value,
                (self.derivative - value * other.derivative) / other.value,
            )
        }
    }
    impl Neg for Dual {
        type Output = Dual;
        fn neg(self) -> Dual {
            dual(-self.value, -self.derivative)
        }
    }
    impl Scalar for Dual {
        fn constant(value: f64) -> Dual {
            dual(value, 0.0)
        }
        fn sqrt(self) -> Dual {
            let root = self.value.sqrt();
            dual(root, self.derivative / (2.0 * root))
        }
        fn exp(self) -> Dual {
            dual(self.value.exp(), self.derivative * self.value.exp())
        }
        fn ln(self) -> Dual {
            dual(self.value.ln(), self.derivative / self.value)
        }
        fn tanh(self) -> Dual {
            let tanh = self.value.tanh();
            dual(tanh, self.derivative * (1.0 - tanh * tanh))
        }
        fn cos(self) -> Dual {
            dual(self.value.cos(), -self.derivative * self.value.sin())
        }
        fn atan2(self, x: Dual) -> Dual {
            let squared = self.value * self.value + x.value * x.value;
            dual(
                self.value.atan2(x.value),
                (self.derivative * x.value - self.value * x.derivative) / squared,
            )
        }
    }
}
