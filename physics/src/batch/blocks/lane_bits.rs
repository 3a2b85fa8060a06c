//! From bits to masks of lanes, without integers.

use boltzmap_kernels::real::Real;

/// Numbers between one and two whose mantissas are sets of lanes: the bitwise "and" of the number of a set with that of one lane is greater
/// than one where the lane is in the set.
pub(super) struct LaneBits<T> {
    /// 1 + 2^(l − m) for lane l, m being the bits of the mantissa.
    pub(super) lanes: [T; 16],
    /// 2^−m
    last_bit: f64,
}

impl<T: Real> LaneBits<T> {
    pub(super) fn new() -> Self {
        let last_bit = 0.5f64.powi(T::MANTISSA_BITS as i32);
        Self {
            lanes: std::array::from_fn(|lane| {
                T::from_f64(1.0 + f64::from(1u32 << lane) * last_bit)
            }),
            last_bit,
        }
    }

    /// The number of a set: bit l for lane l.
    #[inline(always)]
    pub(super) fn with(&self, bits: u32) -> T {
        T::from_f64(1.0 + f64::from(bits) * self.last_bit)
    }
}
