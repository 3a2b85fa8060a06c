//! A training's state as a checkpoint, and back.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use boltzmap_models::checkpoint::{Checkpoint, Tensor};
use boltzmap_models::flow_map::FlowMap;
use boltzmap_models::parameters::Parameters;
use boltzmap_objectives::optimizer::{AdamW, AdamWConfig};

use super::super::model::{AVERAGE_PREFIX, ModelMetadata, TEACHER_PREFIX};

/// Names of the tensors that only the training needs.
const MOMENTS: [&str; 2] = ["optimizer/first_moment", "optimizer/second_moment"];

/// The numbers of a training in progress.
pub(super) struct State {
    /// Parameters being trained.
    pub(super) parameters: Parameters<f32>,
    /// Optimiser with its moving average.
    pub(super) optimizer: AdamW,
    /// The frozen teacher, once there is one.
    pub(super) frozen: Option<Vec<f32>>,
}

/// The checkpoint of a state.
pub(super) fn pack(
    parameters: &Parameters<f32>,
    optimizer: &AdamW,
    frozen: Option<&[f32]>,
    metadata: &ModelMetadata,
) -> Result<Checkpoint> {
    let mut checkpoint = Checkpoint::new(serde_json::to_value(metadata)?);
    checkpoint.insert_parameters("", parameters);
    let average = Parameters::from_flat(parameters.layout(), optimizer.average.clone())?;
    checkpoint.insert_parameters(AVERAGE_PREFIX, &average);
    if let Some(frozen) = frozen {
        let teacher = Parameters::from_flat(parameters.layout(), frozen.to_vec())?;
        checkpoint.insert_parameters(TEACHER_PREFIX, &teacher);
    }
    let moments = [&optimizer.first_moment, &optimizer.second_moment];
    for (name, values) in MOMENTS.into_iter().zip(moments) {
        checkpoint.tensors.insert(
            name.into(),
            Tensor {
                shape: vec![values.len()],
                values: values.clone(),
            },
        );
    }
    Ok(checkpoint)
}

/// The state that a checkpoint holds. The teacher is read where `freezes` says that the training has one by now.
pub(super) fn unpack(
    checkpoint: &Checkpoint,
    metadata: &ModelMetadata,
    flow_map: &FlowMap,
    config: AdamWConfig,
    freezes: bool,
    path: &Path,
) -> Result<State> {
    let parameters = |prefix: &str| {
        checkpoint
            .parameters(prefix, flow_map.layout())
            .with_context(|| format!("cannot use {}", path.display()))
    };
    let average = parameters(AVERAGE_PREFIX)?;
    let frozen = match freezes {
        true => Some(parameters(TEACHER_PREFIX)?.flat().to_vec()),
        false => None,
    };
    let parameters = parameters("")?;
    let moment = |name: &str| moment(checkpoint, name, &parameters, path);
    let optimizer = AdamW {
        config,
        step: applied_steps(metadata, path)?,
        first_moment: moment(MOMENTS[0])?,
        second_moment: moment(MOMENTS[1])?,
        average: average.flat().to_vec(),
    };
    Ok(State {
        parameters,
        optimizer,
        frozen,
    })
}

/// Reads one of the optimiser's moments, which has one number per parameter.
fn moment(
    checkpoint: &Checkpoint,
    name: &str,
    parameters: &Parameters<f32>,
    path: &Path,
) -> Result<Vec<f32>> {
    let values = &checkpoint.tensor(name)?.values;
    let (held, expected) = (values.len(), parameters.flat().len());
    ensure!(
        held == expected,
        "{name} in {} holds {held} numbers where the network has {expected} parameters; train again",
        path.display()
    );
    if let Some(at) = values.iter().position(|v| !v.is_finite()) {
        bail!(
            "{name} in {} holds {} at element {at}; train again",
            path.display(),
            values[at]
        );
    }
    Ok(values.clone())
}

/// Steps of the optimiser: those of the training that were not skipped.
fn applied_steps(metadata: &ModelMetadata, path: &Path) -> Result<u64> {
    metadata
        .step
        .checked_sub(metadata.skipped)
        .with_context(|| {
            format!(
                "{} counts more skipped steps ({}) than steps ({}); train again",
                path.display(),
                metadata.skipped,
                metadata.step
            )
        })
}
