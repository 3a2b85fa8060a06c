//! Angles on the circle.

use std::f64::consts::{PI, TAU};

/// An angle brought into [−π, π).
pub fn wrap(angle: f64) -> f64 {
    let wrapped = angle - TAU * ((angle + PI) / TAU).floor();
    // Rounding can land exactly on the excluded end.
    if wrapped >= PI {
        wrapped - TAU
    } else {
        wrapped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrap_is_half_open() {
        assert_eq!(wrap(PI), -PI);
        assert!((wrap(7.0) - (7.0 - 2.0 * PI)).abs() < 1e-15);
        assert!((wrap(-4.0) - (2.0 * PI - 4.0)).abs() < 1e-15);
    }
}
