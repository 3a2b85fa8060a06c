//! Whether two sides computed the same.

use anyhow::{Result, bail};

use super::ours::Outputs;

/// Largest accepted deviation of an array: max|a − b| relative to max|b|.
pub const TOLERANCE: f64 = 1e-4;

/// max|ours − theirs| / max|theirs| of the array that deviates most.
///
/// # Errors
/// If an array is missing on either side, has another length, holds a number that is not finite, or deviates by more
/// than [`TOLERANCE`].
pub fn check(ours: &Outputs, theirs: &Outputs) -> Result<f64> {
    if let Some(name) = theirs.keys().find(|name| !ours.contains_key(*name)) {
        bail!("it returned '{name}', which our side does not compute");
    }
    let mut worst = (0.0, "");
    for (name, a) in ours {
        let Some(b) = theirs.get(name) else {
            bail!("it returned no '{name}'");
        };
        if a.len() != b.len() {
            bail!(
                "'{name}' has {} numbers there and {} here",
                b.len(),
                a.len()
            );
        }
        let (mut deviation, mut scale) = (0.0f64, 0.0f64);
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            if !a.is_finite() || !b.is_finite() {
                bail!("'{name}' is {b} there and {a} here at element {i}");
            }
            deviation = deviation.max((f64::from(*a) - f64::from(*b)).abs());
            scale = scale.max(f64::from(b.abs()));
        }
        // An array that is zero on both sides agrees.
        let relative = if deviation == 0.0 {
            0.0
        } else {
            deviation / scale
        };
        if relative > TOLERANCE {
            bail!(
                "'{name}' differs by {relative:.1e} of its largest value, more than {TOLERANCE:.0e}"
            );
        }
        if relative > worst.0 {
            worst = (relative, name.as_str());
        }
    }
    Ok(worst.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(values: &[(&str, &[f32])]) -> Outputs {
        values
            .iter()
            .map(|(name, values)| ((*name).to_owned(), values.to_vec()))
            .collect()
    }

    #[test]
    fn deviations_are_measured_against_the_largest_value() {
        let theirs = outputs(&[("a", &[100.0, 1.0]), ("b", &[0.0, 0.0])]);
        let near = outputs(&[("a", &[100.0, 1.005]), ("b", &[0.0, 0.0])]);
        let found = check(&near, &theirs).unwrap();
        assert!((found - 5e-5).abs() < 1e-9, "{found}");
        let far = outputs(&[("a", &[100.0, 1.02]), ("b", &[0.0, 0.0])]);
        let message = check(&far, &theirs).unwrap_err().to_string();
        assert!(message.contains("'a' differs by 2.0e-4"), "{message}");
        let not_zero = outputs(&[("a", &[100.0, 1.0]), ("b", &[1e-30, 0.0])]);
        assert!(check(&not_zero, &theirs).is_err());
    }

    #[test]
    fn missing_arrays_other_lengths_and_bad_numbers_are_refused() {
        let ours = outputs(&[("a", &[1.0, 2.0])]);
        for (theirs, words) in [
            (outputs(&[]), "no 'a'"),
            (outputs(&[("a", &[1.0])]), "1 numbers there and 2 here"),
            (outputs(&[("a", &[1.0, f32::NAN])]), "NaN there"),
            (outputs(&[("a", &[1.0, 2.0]), ("c", &[1.0])]), "'c'"),
        ] {
            let message = check(&ours, &theirs).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
        let infinite = outputs(&[("a", &[1.0, f32::INFINITY])]);
        assert!(check(&infinite, &infinite).is_err());
    }
}
