//! What a user reads when a training or a calibration diverges: where, how far, which setting is the likely cause, what to do.

use boltzmap_objectives::calibration::SQUARED_ERROR;
use boltzmap_objectives::divergence::{Divergence, Symptom};
use boltzmap_objectives::trainer::LEADING_LOSS;
use thiserror::Error;

use crate::config::Config;

/// A training that was stopped because it diverged; the text is the whole sentence.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Diverged(pub String);

/// A learning rate above this is the first suspect: Adam moves every parameter by about so much in a step.
const HIGH_RATE: f64 = 1e-2;
/// A clip above this does not clip.
const LOOSE_CLIP: f64 = 10.0;

/// A number of any size for a sentence.
fn shown(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if (1e-3..1e4).contains(&size) => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

/// What is wrong with a step.
fn symptom(symptom: &Symptom) -> String {
    let what = match symptom.part.as_str() {
        "gradient_norm" => "the gradient".to_owned(),
        "parameters" => "a parameter".to_owned(),
        SQUARED_ERROR => "the mean square error of the head".to_owned(),
        part => format!("the loss '{part}'"),
    };
    let start = match symptom.start {
        Some(start) if symptom.part == LEADING_LOSS || symptom.part == SQUARED_ERROR => {
            format!(" (at the start {})", shown(start.into()))
        }
        Some(start) => format!(" (the largest loss at its start {})", shown(start.into())),
        None => String::new(),
    };
    match symptom.value {
        None => format!("{what} is not finite{start}"),
        Some(value) => format!("{what} is {}{start}", shown(value.into())),
    }
}

/// Where and how far.
fn finding(what: &str, divergence: &Divergence) -> String {
    let skipped = match divergence.skipped {
        0 => String::new(),
        1 => ", and 1 step was skipped because its gradient was not finite".into(),
        n => format!(", and {n} steps were skipped because their gradient was not finite"),
    };
    let (first, latest) = (&divergence.first, &divergence.latest);
    format!(
        "{what} diverged from step {} on: in step {} {}{skipped}",
        first.step,
        latest.step,
        symptom(latest)
    )
}

/// Why a training diverged and what to do, without what became of its files.
pub fn diverged(divergence: &Divergence, config: &Config) -> String {
    format!(
        "{}; {}",
        finding("the training", divergence),
        advice(divergence, config)
    )
}

/// The likely setting.
fn advice(divergence: &Divergence, config: &Config) -> String {
    let training = &config.training;
    let (rate, decay) = (training.learning_rate, training.weight_decay);
    if divergence.first.step == 0 {
        return "it was so before any step was taken: look at the data, and at the weights of the losses (training.velocity_weight and the other training.*_weight)".into();
    }
    // Decoupled decay multiplies every parameter by 1 − rate · decay in a step.
    if rate * decay >= 1.0 && rate <= HIGH_RATE {
        return format!(
            "training.weight_decay ({decay:?}) times training.learning_rate ({rate:?}) must stay far below 1: lower training.weight_decay"
        );
    }
    let mut text = match rate > HIGH_RATE {
        true => format!("lower training.learning_rate, which is {rate:?}, to 1e-3 or less"),
        false => format!("lower training.learning_rate ({rate:?}), for a start to a third"),
    };
    if training.clip > LOOSE_CLIP {
        text += &format!(
            ", and training.clip ({:?}), which lets every gradient through, to 1",
            training.clip
        );
    }
    let part = divergence.first.part.as_str();
    if rate <= HIGH_RATE && ![LEADING_LOSS, "gradient_norm", "parameters"].contains(&part) {
        text += &format!(", or the weight of the loss '{part}'");
    }
    text
}

/// The same of a calibration.
pub fn calibration_diverged(divergence: &Divergence, config: &Config) -> String {
    let rate = config.calibration.learning_rate;
    format!(
        "{}; lower calibration.learning_rate ({rate:?})",
        finding("the calibration", divergence)
    )
}
