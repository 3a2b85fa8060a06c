//! Steps of a flow map with everything that is asked about them: the head's log-determinant, the exact one, the same by
//! finite differences, and the network run backwards.

use anyhow::{Result, anyhow};
use boltzmap_autodiff::exec::{Batched, OutputRole};
use boltzmap_autodiff::jacobian::Jacobian;
use boltzmap_kernels::linalg::log_abs_det_in_place;
use boltzmap_kernels::real::Real;
use boltzmap_models::ModelError;
use boltzmap_models::control::Control;
use boltzmap_models::flow_map::FlowMap;
use boltzmap_models::jacobians::{input_roles, step_jacobian};
use boltzmap_models::network::NetworkConfig;
use boltzmap_models::parameters::Parameters;
use boltzmap_models::schedule::Schedule;
use boltzmap_models::walk::Walk;

use super::Watch;

/// States per block of plain evaluations.
const BLOCK: usize = 16;
/// States that go through all steps together, between two looks at the interrupt flag.
const CHUNK: usize = 128;

/// Samples at the end of a schedule with everything that happened on the way.
pub struct Path<T> {
    /// States at every time of the schedule, the noise first: `[K + 1][n, T, C]`.
    pub states: Vec<Vec<T>>,
    /// log p₀ of the noise, `[n]`.
    base: Vec<f64>,
    /// Reported Λ of every step, `[K][n]`.
    reported: Vec<Vec<f64>>,
    /// log|det| of every step, `[K][n]`.
    exact: Vec<Vec<f64>>,
    /// Samples whose determinant was not positive, per step.
    pub folded: Vec<usize>,
}

impl<T> Path<T> {
    /// K.
    pub fn steps(&self) -> usize {
        self.folded.len()
    }

    /// The states at the end, `[n, T, C]`.
    pub fn end(&self) -> &[T] {
        self.states.last().map_or(&[], Vec::as_slice)
    }

    /// Reported log q at the end, `[n]`.
    pub fn reported(&self) -> Vec<f64> {
        self.log_q(&self.reported)
    }

    /// log q of the map itself, `[n]`.
    pub fn exact(&self) -> Vec<f64> {
        self.log_q(&self.exact)
    }

    fn log_q(&self, steps: &[Vec<f64>]) -> Vec<f64> {
        let mut log_q = self.base.clone();
        for step in steps {
            log_q.iter_mut().zip(step).for_each(|(q, det)| *q -= det);
        }
        log_q
    }

    /// This path with the samples of another over the same steps behind its own.
    pub fn followed_by(mut self, other: Path<T>) -> Path<T> {
        let append = |here: &mut Vec<Vec<f64>>, there: Vec<Vec<f64>>| {
            here.iter_mut().zip(there).for_each(|(a, b)| a.extend(b));
        };
        for (here, there) in self.states.iter_mut().zip(other.states) {
            here.extend(there);
        }
        self.base.extend(other.base);
        append(&mut self.reported, other.reported);
        append(&mut self.exact, other.exact);
        self.folded
            .iter_mut()
            .zip(other.folded)
            .for_each(|(here, there)| *here += there);
        self
    }

    /// What step k adds to reported − exact, `[n]`.
    pub fn gaps_of_step(&self, k: usize) -> Vec<f64> {
        let steps = self.exact[k].iter().zip(&self.reported[k]);
        steps.map(|(exact, reported)| exact - reported).collect()
    }
}

impl Path<f32> {
    /// Makes the determinants in single precision the report and those in double precision, at the same states, the truth:
    /// for methods whose likelihood is the determinant itself.
    ///
    /// # Errors
    /// If Ctrl-C was pressed.
    pub fn report_the_determinant(
        &mut self,
        double: &Stepper<f64>,
        schedule: &Schedule,
        watch: &mut Watch,
    ) -> Result<()> {
        for (k, (s, t)) in schedule.intervals().enumerate() {
            let wide: Vec<f64> = self.states[k].iter().map(|&v| f64::from(v)).collect();
            let determinants = double.determinants(&wide, s, t);
            let truth = determinants.iter().map(|pair| pair.0).collect();
            self.reported[k] = std::mem::replace(&mut self.exact[k], truth);
            watch.add(determinants.len())?;
        }
        Ok(())
    }
}

/// Runs single steps of a flow map in the precision `T`.
pub struct Stepper<T: Real> {
    map: FlowMap,
    parameters: Parameters<T>,
    /// Parameters of a divergence head of its own, where there is one.
    head: Option<Parameters<T>>,
    step: Batched<T>,
    jacobian: Jacobian<T>,
}

/// Rows of a Jacobian that run together: small networks need several states for tall products.
pub fn jacobian_block(map: &FlowMap) -> usize {
    match map.config().network {
        NetworkConfig::Mlp(_) => BLOCK,
        _ => 1,
    }
}

impl<T: Real> Stepper<T> {
    /// Compiles the step and its Jacobian. `head` are the parameters of a divergence head of its own.
    pub fn new(
        map: &FlowMap,
        parameters: &Parameters<f32>,
        head: Option<&Parameters<f32>>,
    ) -> Self {
        let inputs = input_roles(map.layout().count(), 3);
        let outputs = vec![OutputRole::PerBlock { axis: 0 }; 2];
        Self {
            map: map.clone(),
            parameters: parameters.convert(),
            head: head.map(Parameters::convert),
            step: Batched::compile(&map.step_program(BLOCK), inputs, outputs),
            jacobian: step_jacobian(map, jacobian_block(map)),
        }
    }

    /// X_{s,t}(x) `[n, T, C]` and the head's Λ `[n]` of states x `[n, T, C]`. With t < s the network runs backwards.
    pub fn advance(&self, x: &[T], s: f64, t: f64) -> (Vec<T>, Vec<f64>) {
        let n = x.len() / self.map.state_size();
        let (from, to) = (vec![T::from_f64(s); n], vec![T::from_f64(t); n]);
        let (mut states, mut log_det) = (vec![T::zero(); x.len()], vec![T::zero(); n]);
        if let Some(head) = &self.head {
            let mut inputs = head.slices();
            inputs.extend([x, &from, &to]);
            self.step.run(n, &inputs, &mut [&mut states, &mut log_det]);
        }
        let mut ignored = vec![T::zero(); n];
        let kept = if self.head.is_some() {
            &mut ignored
        } else {
            &mut log_det
        };
        let mut inputs = self.parameters.slices();
        inputs.extend([x, &from, &to]);
        self.step.run(n, &inputs, &mut [&mut states, kept]);
        (states, log_det.iter().map(|v| v.as_f64()).collect())
    }

    /// log|det ∂X_{s,t}/∂x| on the subspace and the determinant's sign, of every state.
    pub fn determinants(&self, x: &[T], s: f64, t: f64) -> Vec<(f64, f64)> {
        let n = x.len() / self.map.state_size();
        let (from, to) = (vec![T::from_f64(s); n], vec![T::from_f64(t); n]);
        let mut inputs = self.parameters.slices();
        inputs.extend([x, &from, &to]);
        self.jacobian.log_abs_det(n, &inputs, None)
    }

    /// Carries noise `[n, T, C]` through the steps of a schedule.
    ///
    /// # Errors
    /// If a state is not finite or the caller cancels.
    pub fn path(&self, noise: &[T], schedule: &Schedule, control: &Control) -> Result<Path<T>> {
        let (tokens, channels) = (self.map.tokens(), self.map.channels());
        let steps = schedule.steps();
        let mut path = Path {
            states: vec![Vec::new(); steps + 1],
            base: self
                .map
                .subspace()
                .gaussian_log_density(noise, tokens, channels),
            reported: vec![Vec::new(); steps],
            exact: vec![Vec::new(); steps],
            folded: vec![0; steps],
        };
        path.states[0].extend(noise);
        let walk = Walk {
            schedule,
            size: self.map.state_size(),
            chunk: CHUNK,
        };
        walk.forwards(&mut noise.to_vec(), control, |leg, states| {
            let (next, head) = self.advance(states, leg.s, leg.t);
            for (log_det, sign) in self.determinants(states, leg.s, leg.t) {
                path.exact[leg.step].push(log_det);
                path.folded[leg.step] += usize::from(sign <= 0.0);
            }
            path.reported[leg.step].extend(head);
            path.states[leg.step + 1].extend(&next);
            states.copy_from_slice(&next);
            Ok(())
        })
        .map_err(|error| {
            let damaged = |states: &Vec<T>| !states.iter().all(|v| v.is_finite());
            let mut steps = schedule.intervals().zip(&path.states[1..]);
            match (steps.find(|(_, states)| damaged(states)), error) {
                (Some(((from, to), _)), ModelError::NotFinite { .. }) => anyhow!(
                    "a state is not finite after the step from t = {from:.3} to t = {to:.3}; the parameters are damaged or the \
                     map was never trained for such a step"
                ),
                (_, other) => other.into(),
            }
        })?;
        Ok(path)
    }

    /// log|det ∂X_{s,t}/∂x| of one state by central differences, extrapolated to the fourth order: a way that shares
    /// nothing with the derivative programs. Meaningful in double precision.
    pub fn determinant_by_differences(&self, x: &[T], s: f64, t: f64) -> f64 {
        const STEP: f64 = 1e-3;
        let (size, d) = (self.map.state_size(), self.map.dimension());
        let basis = self
            .map
            .subspace()
            .basis(self.map.tokens(), self.map.channels());
        let mut moved = Vec::with_capacity(4 * d * size);
        for column in 0..d {
            for shift in [STEP, -STEP, 0.5 * STEP, -0.5 * STEP] {
                moved.extend(
                    (0..size).map(|i| T::from_f64(x[i].as_f64() + shift * basis[i * d + column])),
                );
            }
        }
        let (images, _) = self.advance(&moved, s, t);
        let mut jacobian = vec![0.0; d * d];
        for column in 0..d {
            let image = |which: usize, i: usize| images[(4 * column + which) * size + i].as_f64();
            let slopes: Vec<f64> = (0..size)
                .map(|i| {
                    let coarse = (image(0, i) - image(1, i)) / (2.0 * STEP);
                    let fine = (image(2, i) - image(3, i)) / STEP;
                    (4.0 * fine - coarse) / 3.0
                })
                .collect();
            for row in 0..d {
                jacobian[row * d + column] =
                    (0..size).map(|i| basis[i * d + row] * slopes[i]).sum();
            }
        }
        log_abs_det_in_place(&mut jacobian, d).0
    }
}

/// ‖a − b‖/√d of every state: the root mean square difference per degree of freedom.
pub fn distances<A: Real, B: Real>(a: &[A], b: &[B], size: usize, dimension: usize) -> Vec<f64> {
    a.chunks_exact(size)
        .zip(b.chunks_exact(size))
        .map(|(a, b)| {
            let squares: f64 = a
                .iter()
                .zip(b)
                .map(|(a, b)| (a.as_f64() - b.as_f64()).powi(2))
                .sum();
            (squares / dimension as f64).sqrt()
        })
        .collect()
}
