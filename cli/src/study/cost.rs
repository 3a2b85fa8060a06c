//! What a target of the divergence costs beside the velocity that flow matching evaluates anyway.

use std::time::Instant;

use boltzmap_autodiff::jvp;
use serde::Serialize;

use super::field::{Field, NetworkField};
use crate::bench::ours::pointwise;
use crate::bench::seconds_of;
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
    let with_probe = jvp(&velocity, &[field.map.layout().count()], None);
    let (data, noise) = field.pairs(SAMPLES, 1);
    let narrow = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();
    let inputs = vec![narrow(&data), vec![0.5; SAMPLES]];
    let probed = [inputs.clone(), vec![narrow(&noise)]].concat();
    let mut calls = [(&velocity, inputs), (&with_probe, probed)].map(|(program, inputs)| {
        let parameters = field.parameters.clone();
        pointwise(program, BLOCK, parameters, inputs, SAMPLES, Instant::now()).call
    });
    let mut seconds = [Vec::new(), Vec::new()];
    for _ in 0..REPEATS {
        for (call, seconds) in calls.iter_mut().zip(&mut seconds) {
            seconds.push(seconds_of(call, 1));
        }
    }
    let [velocity_seconds, probe_seconds] = seconds.map(|s| median(&s).unwrap_or(f64::NAN));
    Cost {
        samples: SAMPLES,
        velocity_seconds,
        probe_seconds,
    }
}
