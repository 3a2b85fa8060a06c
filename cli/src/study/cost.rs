//! What a target of the divergence costs beside the velocity that flow matching evaluates anyway.

use std::time::Instant;

use boltzmap_autodiff::exec::{Batched, InputRole, OutputRole};
use boltzmap_autodiff::ir::Program;
use boltzmap_autodiff::jvp;
use serde::Serialize;

use super::field::{Field, NetworkField};
use crate::bench::statistics::median;

/// States evaluated in one call.
const SAMPLES: usize = 512;
/// States of a block.
const BLOCK: usize = 16;
/// Timed calls of each.
const REPEATS: usize = 15;

/// Medians of calls in turns.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    /// States in one call.
    pub samples: usize,
    /// The velocity alone, s.
    pub velocity_seconds: f64,
    /// The velocity with its derivative along one probe, s.
    pub probe_seconds: f64,
}

/// Times both on all threads.
pub fn measure(field: &NetworkField) -> Cost {
    let velocity = field.map.velocity_program(BLOCK);
    let count = field.map.layout().count();
    let with_probe = jvp(&velocity, &[count], None);
    let size = field.state_size();
    let (data, noise) = field.pairs(SAMPLES, 1);
    let narrow = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();
    let (states, probes) = (narrow(&data), narrow(&noise));
    let times = vec![0.5f32; SAMPLES];
    let mut arrays = field.parameters.slices();
    arrays.extend([states.as_slice(), &times]);
    let mut plain = Runner::new(&velocity, count, arrays.clone(), size);
    arrays.push(&probes);
    let mut probed = Runner::new(&with_probe, count, arrays, size);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for round in 0..=REPEATS {
        let (a, b) = (plain.seconds(), probed.seconds());
        // The first round warms up.
        if round > 0 {
            first.push(a);
            second.push(b);
        }
    }
    Cost {
        samples: SAMPLES,
        velocity_seconds: median(&first).unwrap_or(f64::NAN),
        probe_seconds: median(&second).unwrap_or(f64::NAN),
    }
}

struct Runner<'a> {
    batched: Batched<f32>,
    inputs: Vec<&'a [f32]>,
    outputs: Vec<Vec<f32>>,
}

impl<'a> Runner<'a> {
    fn new(program: &Program, parameters: usize, inputs: Vec<&'a [f32]>, size: usize) -> Self {
        let mut roles = vec![InputRole::Shared; parameters];
        roles.resize(program.inputs.len(), InputRole::PerBlock { axis: 0 });
        let outputs = program.outputs.len();
        Self {
            batched: Batched::compile(
                program,
                roles,
                vec![OutputRole::PerBlock { axis: 0 }; outputs],
            ),
            inputs,
            outputs: vec![vec![0.0; SAMPLES * size]; outputs],
        }
    }

    fn seconds(&mut self) -> f64 {
        let mut outputs: Vec<&mut [f32]> = self.outputs.iter_mut().map(Vec::as_mut_slice).collect();
        let start = Instant::now();
        self.batched.run(SAMPLES, &self.inputs, &mut outputs);
        start.elapsed().as_secs_f64()
    }
}
