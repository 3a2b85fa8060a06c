//! Stochastic interpolants x_t = α_t x₁ + β_t x₀ + γ_t z between a base and data (Albergo et al., arXiv 2303.08797).
//!
//! Data x₁ is at t = 1, z ~ N(0, I) on the states' subspace is independent noise, and x₀ comes from a base of known
//! density. ṽ = α̇ x₁ + β̇ x₀ + γ̇ z is the time derivative at fixed x₁, x₀, z; the velocity of the probability flow is
//! v(x, t) = E[ṽ | x_t = x], and where γ_t > 0 the score is ∇log p_t(x) = −E[z | x]/γ_t.

use std::fmt;
use std::sync::Arc;

use boltzmap_autodiff::builder::{Builder, Var};
use boltzmap_autodiff::interpret::interpret;
use boltzmap_autodiff::jvp;

use crate::base::BaseDensity;

/// A smooth function of time that is traced into programs; its derivative comes from forward mode.
#[derive(Clone)]
pub struct Curve {
    function: Arc<dyn for<'b> Fn(Var<'b>) -> Var<'b> + Send + Sync>,
    text: String,
}

impl fmt::Debug for Curve {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Curve {
    /// A curve and the formula that it is shown as. The function is applied to times of any shape, element by element.
    pub fn new(
        text: impl Into<String>,
        function: impl for<'b> Fn(Var<'b>) -> Var<'b> + Send + Sync + 'static,
    ) -> Self {
        Self {
            function: Arc::new(function),
            text: text.into(),
        }
    }

    /// Value and time derivative at traced times of any shape.
    pub fn trace<'b>(&self, t: Var<'b>) -> (Var<'b>, Var<'b>) {
        let shape = t.shape();
        let inner = Builder::new();
        let time = inner.input("t", &shape);
        let value = (self.function)(time);
        let with_rate = jvp(&inner.finish(&[("value", value)]), &[0], None);
        let builder = t.builder();
        let outputs = builder.call(&with_rate, &[t, builder.constant(1.0, &shape)]);
        (outputs[0], outputs[1])
    }

    /// Value and time derivative at a number.
    pub fn at(&self, t: f64) -> (f64, f64) {
        let builder = Builder::new();
        let (value, rate) = self.trace(builder.input("t", &[1]));
        let program = builder.finish(&[("value", value), ("rate", rate)]);
        let outputs = interpret(&program, &[[t]]);
        (outputs[0][0], outputs[1][0])
    }
}

/// x_t = α_t x₁ + β_t x₀ + γ_t z.
#[derive(Clone)]
pub struct Interpolant {
    data: Curve,
    base: Option<(Curve, Arc<dyn BaseDensity>)>,
    latent: Option<Curve>,
    linear: bool,
}

impl fmt::Debug for Interpolant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "x_t = ({:?}) x₁", self.data)?;
        if let Some((base, _)) = &self.base {
            write!(formatter, " + ({base:?}) x₀")?;
        }
        if let Some(latent) = &self.latent {
            write!(formatter, " + ({latent:?}) z")?;
        }
        Ok(())
    }
}

/// What one sample is made of, traced; parts that an interpolant lacks are absent.
#[derive(Clone, Copy, Debug)]
pub struct Ingredients<'b> {
    /// x₁ `[B, T, C]`.
    pub data: Var<'b>,
    /// x₀ `[B, T, C]`.
    pub base: Option<Var<'b>>,
    /// z `[B, T, C]`.
    pub latent: Option<Var<'b>>,
}

/// The interpolant at one time, traced.
#[derive(Clone, Copy, Debug)]
pub struct Point<'b> {
    /// x_t `[B, T, C]`.
    pub state: Var<'b>,
    /// ṽ `[B, T, C]`.
    pub rate: Var<'b>,
}

/// γ with its derivative and the factors that turn a velocity into E[z | x], traced.
#[derive(Clone, Copy, Debug)]
pub struct Latent<'b> {
    /// γ_t.
    pub gamma: Var<'b>,
    /// γ̇_t.
    pub gamma_rate: Var<'b>,
    data: Var<'b>,
    data_rate: Var<'b>,
}

impl<'b> Latent<'b> {
    /// E[z | x] = (α̇ x − α v)/(α̇ γ − α γ̇), from x = α E[x₁|x] + γ E[z|x] and v = α̇ E[x₁|x] + γ̇ E[z|x].
    pub fn mean(&self, x: Var<'b>, velocity: Var<'b>) -> Var<'b> {
        let determinant = self.data_rate * self.gamma - self.data * self.gamma_rate;
        (self.data_rate * x - self.data * velocity) / determinant
    }
}

impl Interpolant {
    /// x_t = t x₁ + (1−t) z, the path of the flow map's Gaussian reference.
    pub fn linear() -> Self {
        Self {
            data: Curve::new("t", |t| t),
            base: None,
            latent: Some(Curve::new("1 − t", |t| 1.0 - t)),
            linear: true,
        }
    }

    /// x_t = sin(πt/2) x₁ + cos(πt/2) z, which keeps the variance of unit-variance data at 1.
    pub fn trigonometric() -> Self {
        let quarter = std::f64::consts::FRAC_PI_2;
        Self {
            data: Curve::new("sin πt/2", move |t| (t * quarter).sin()),
            base: None,
            latent: Some(Curve::new("cos πt/2", move |t| (t * quarter).cos())),
            linear: false,
        }
    }

    /// Any α, β with its base, and γ. At t = 1 a valid path has α = 1 and β = γ = 0.
    pub fn general(
        data: Curve,
        base: Option<(Curve, Arc<dyn BaseDensity>)>,
        latent: Option<Curve>,
    ) -> Self {
        Self {
            data,
            base,
            latent,
            linear: false,
        }
    }

    /// x_t = t x₁ + (1−t) x₀ + a sin²(πt) z between a base of known density and data.
    pub fn bridge(base: Arc<dyn BaseDensity>, amplitude: f64) -> Self {
        let latent = Curve::new(format!("{amplitude} sin² πt"), move |t| {
            (t * std::f64::consts::PI).sin().square() * amplitude
        });
        Self::general(
            Curve::new("t", |t| t),
            Some((Curve::new("1 − t", |t| 1.0 - t), base)),
            Some(latent),
        )
    }

    /// Whether this is [`Interpolant::linear`].
    pub fn is_linear(&self) -> bool {
        self.linear
    }

    /// The base's density, where x₀ takes part.
    pub fn base(&self) -> Option<&dyn BaseDensity> {
        self.base.as_ref().map(|(_, base)| &**base)
    }

    /// Whether z takes part.
    pub fn has_latent(&self) -> bool {
        self.latent.is_some()
    }

    /// Traced x_t and ṽ at times that broadcast against the states.
    ///
    /// # Panics
    /// If an ingredient is missing.
    pub fn point<'b>(&self, of: Ingredients<'b>, t: Var<'b>) -> Point<'b> {
        let (alpha, alpha_rate) = self.data.trace(t);
        let mut state = alpha * of.data;
        let mut rate = alpha_rate * of.data;
        let base = self.base.as_ref().map(|(curve, _)| (curve, of.base, "x₀"));
        let latent = self.latent.as_ref().map(|curve| (curve, of.latent, "z"));
        for (curve, part, name) in [base, latent].into_iter().flatten() {
            let part = part.unwrap_or_else(|| panic!("the interpolant {self:?} needs {name}"));
            let (value, slope) = curve.trace(t);
            state = state + value * part;
            rate = rate + slope * part;
        }
        Point { state, rate }
    }

    /// x_t and ṽ in numbers; `base` and `latent` are ignored where they take no part.
    pub fn numbers(
        &self,
        data: &[f64],
        base: &[f64],
        latent: &[f64],
        t: f64,
    ) -> (Vec<f64>, Vec<f64>) {
        let zero = (0.0, 0.0);
        let alpha = self.data.at(t);
        let beta = self.base.as_ref().map_or(zero, |(curve, _)| curve.at(t));
        let gamma = self.latent.as_ref().map_or(zero, |curve| curve.at(t));
        let sum = |a: f64, b: f64, c: f64| -> Vec<f64> {
            let part = |values: &[f64], i: usize| values.get(i).copied().unwrap_or(0.0);
            (0..data.len())
                .map(|i| a * data[i] + b * part(base, i) + c * part(latent, i))
                .collect()
        };
        (sum(alpha.0, beta.0, gamma.0), sum(alpha.1, beta.1, gamma.1))
    }

    /// γ and its derivative at traced times; none where z takes no part.
    pub fn latent<'b>(&self, t: Var<'b>) -> Option<(Var<'b>, Var<'b>)> {
        self.latent.as_ref().map(|curve| curve.trace(t))
    }

    /// What the score needs, −E[z|x]/γ from the velocity alone: only without a base, whose mean would be one unknown more.
    pub fn score<'b>(&self, t: Var<'b>) -> Option<Latent<'b>> {
        let (gamma, gamma_rate) = self.latent(t)?;
        let (data, data_rate) = self.data.trace(t);
        self.base.is_none().then_some(Latent {
            gamma,
            gamma_rate,
            data,
            data_rate,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Gaussian;
    use boltzmap_models::subspace::Subspace;

    fn paths() -> [Interpolant; 4] {
        let base = || Arc::new(Gaussian::standard(Subspace::Full, 1, 2));
        [
            Interpolant::linear(),
            Interpolant::trigonometric(),
            Interpolant::bridge(base(), 0.7),
            Interpolant::general(
                Curve::new("t²", |t| t.square()),
                Some((Curve::new("1 − t", |t| 1.0 - t), base())),
                None,
            ),
        ]
    }

    const DATA: [f64; 2] = [0.7, -1.2];
    const BASE: [f64; 2] = [0.3, 0.4];
    const LATENT: [f64; 2] = [-0.5, 2.0];

    #[test]
    fn paths_end_at_the_data_and_start_at_noise_or_base() {
        for path in paths() {
            let at = |t: f64| path.numbers(&DATA, &BASE, &LATENT, t).0;
            let start = if path.base().is_some() { BASE } else { LATENT };
            for i in 0..2 {
                assert!((at(1.0)[i] - DATA[i]).abs() < 1e-15, "{path:?}");
                assert!((at(0.0)[i] - start[i]).abs() < 1e-15, "{path:?}");
            }
        }
        let shown = format!("{:?}", Interpolant::trigonometric());
        assert_eq!(shown, "x_t = (sin πt/2) x₁ + (cos πt/2) z");
    }

    #[test]
    fn rates_are_derivatives_and_programs_agree_with_numbers() {
        for path in paths() {
            for t in [0.1, 0.45, 0.8] {
                let (state, rate) = path.numbers(&DATA, &BASE, &LATENT, t);
                let shifted = |h: f64| path.numbers(&DATA, &BASE, &LATENT, t + h).0;
                let (plus, minus) = (shifted(1e-5), shifted(-1e-5));
                for i in 0..2 {
                    let slope = (plus[i] - minus[i]) / 2e-5;
                    assert!(
                        (slope - rate[i]).abs() < 1e-8,
                        "{path:?}: {slope} {}",
                        rate[i]
                    );
                }
                let builder = Builder::new();
                let [data, base, latent] =
                    ["data", "base", "noise"].map(|name| builder.input(name, &[1, 1, 2]));
                let time = builder.input("t", &[1, 1, 1]);
                let point = path.point(
                    Ingredients {
                        data,
                        base: Some(base),
                        latent: Some(latent),
                    },
                    time,
                );
                let program = builder.finish(&[("state", point.state), ("rate", point.rate)]);
                let inputs = [DATA.to_vec(), BASE.to_vec(), LATENT.to_vec(), vec![t]];
                let found = interpret(&program, &inputs);
                for i in 0..2 {
                    assert!((found[0][i] - state[i]).abs() < 1e-15);
                    assert!((found[1][i] - rate[i]).abs() < 1e-15);
                }
            }
        }
    }

    /// E[z|x] from the velocity, where x₁ and z are their own means.
    #[test]
    fn the_latent_mean_follows_from_the_velocity() {
        for path in [Interpolant::linear(), Interpolant::trigonometric()] {
            let builder = Builder::new();
            let [x, v] = ["x", "v"].map(|name| builder.input(name, &[2]));
            let score = path.score(builder.input("t", &[1])).expect("no base");
            let program = builder.finish(&[("mean", score.mean(x, v))]);
            for t in [0.0, 0.3, 0.9] {
                let (state, rate) = path.numbers(&DATA, &[], &LATENT, t);
                let found = interpret(&program, &[state, rate, vec![t]]);
                for i in 0..2 {
                    assert!((found[0][i] - LATENT[i]).abs() < 1e-13, "{path:?} {t}");
                }
            }
        }
        assert!(paths()[2..].iter().all(|path| {
            let builder = Builder::new();
            path.score(builder.input("t", &[1])).is_none()
        }));
    }
}
