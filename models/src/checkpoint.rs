//! Checkpoints: one safetensors file of f32 tensors with a JSON document beside them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::error::ModelError;
use crate::parameters::{ParameterLayout, Parameters};

/// Key of the JSON document in the file's metadata. A single key keeps the file's bytes a function of its content.
const METADATA_KEY: &str = "boltzmap";

/// One stored array.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Shape.
    pub shape: Vec<usize>,
    /// Elements, row-major.
    pub values: Vec<f32>,
}

/// Tensors by name and a JSON document (model configuration, training state, and whatever else is needed to resume).
///
/// Several sets of parameters share a file under prefixes, such as `model/`, `ema/` or `moment1/`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checkpoint {
    /// The document.
    pub metadata: serde_json::Value,
    /// The tensors.
    pub tensors: BTreeMap<String, Tensor>,
}

impl Checkpoint {
    /// An empty checkpoint with this document.
    pub fn new(metadata: serde_json::Value) -> Self {
        Self {
            metadata,
            tensors: BTreeMap::new(),
        }
    }

    /// Stores parameters under `prefix`.
    pub fn insert_parameters(&mut self, prefix: &str, parameters: &Parameters<f32>) {
        for (i, spec) in parameters.layout().specs().iter().enumerate() {
            let tensor = Tensor {
                shape: spec.shape.clone(),
                values: parameters.tensor(i).to_vec(),
            };
            self.tensors
                .insert(format!("{prefix}{}", spec.name), tensor);
        }
    }

    /// Takes the parameters of a layout stored under `prefix`.
    ///
    /// # Errors
    /// If one is missing, has another shape, or is not finite, or if the prefix holds a tensor the layout lacks.
    pub fn parameters(
        &self,
        prefix: &str,
        layout: &ParameterLayout,
    ) -> Result<Parameters<f32>, ModelError> {
        let mut parameters = Parameters::zeros(layout);
        for (i, spec) in layout.specs().iter().enumerate() {
            let name = format!("{prefix}{}", spec.name);
            let fail = |problem: String| ModelError::Tensor {
                name: name.clone(),
                problem,
            };
            let tensor = self
                .tensors
                .get(&name)
                .ok_or_else(|| fail("is missing from the checkpoint".into()))?;
            if tensor.shape != spec.shape {
                return Err(fail(format!(
                    "has shape {:?} where the model needs {:?}",
                    tensor.shape, spec.shape
                )));
            }
            if let Some(at) = tensor.values.iter().position(|v| !v.is_finite()) {
                return Err(fail(format!("holds {} at element {at}", tensor.values[at])));
            }
            parameters.flat_mut()[layout.range(i)].copy_from_slice(&tensor.values);
        }
        for name in self.tensors.keys() {
            if let Some(rest) = name.strip_prefix(prefix)
                && (!prefix.is_empty() || !rest.contains('/'))
                && layout.position(rest).is_none()
            {
                return Err(ModelError::Tensor {
                    name: name.clone(),
                    problem: "is not part of the model".into(),
                });
            }
        }
        Ok(parameters)
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// If it is missing.
    pub fn tensor(&self, name: &str) -> Result<&Tensor, ModelError> {
        self.tensors.get(name).ok_or_else(|| ModelError::Tensor {
            name: name.into(),
            problem: "is missing from the checkpoint".into(),
        })
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let views = self.tensors.iter().map(|(name, tensor)| {
            let view = TensorView::new(
                Dtype::F32,
                tensor.shape.clone(),
                bytemuck::cast_slice(&tensor.values),
            );
            (
                name.as_str(),
                view.expect("the number of elements matches the shape"),
            )
        });
        let metadata = HashMap::from([(METADATA_KEY.to_owned(), self.metadata.to_string())]);
        safetensors::serialize(views, Some(metadata))
            .expect("f32 tensors and one string always serialise")
    }

    /// Writes to a temporary name in the same directory, then renames, so that the file is never half-written.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn write(&self, path: &Path) -> Result<(), ModelError> {
        let temporary = temporary_name(path);
        let fail = |source| ModelError::File {
            action: "cannot write",
            path: path.to_owned(),
            source,
        };
        let result = (|| {
            let mut file = fs::File::create(&temporary)?;
            file.write_all(&self.to_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        })();
        result.map_err(|source| {
            // Nothing half-written stays behind; a second failure would hide the first one's reason.
            let _ = fs::remove_file(&temporary);
            fail(source)
        })
    }

    /// Reads a file written by [`Checkpoint::write`].
    ///
    /// # Errors
    /// If it cannot be read, is truncated or not a safetensors file, holds other numbers than f32, or lacks the document.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let bytes = fs::read(path).map_err(|source| ModelError::File {
            action: "cannot read",
            path: path.to_owned(),
            source,
        })?;
        Self::from_bytes(&bytes, path)
    }

    fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, ModelError> {
        const REMEDY: &str = "write it again or use an earlier one";
        let fail = |problem: String| ModelError::Checkpoint {
            path: path.to_owned(),
            problem,
            remedy: REMEDY,
        };
        let damaged = |e| fail(format!("is truncated or not a safetensors file ({e})"));
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
        let file = SafeTensors::deserialize(bytes).map_err(damaged)?;
        let document = header
            .metadata()
            .as_ref()
            .and_then(|entries| entries.get(METADATA_KEY))
            .ok_or_else(|| {
                fail(format!(
                    "has no \"{METADATA_KEY}\" document, so it was not written by this program"
                ))
            })?;
        let metadata = serde_json::from_str(document)
            .map_err(|e| fail(format!("has a document that is not JSON ({e})")))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            if view.dtype() != Dtype::F32 {
                return Err(fail(format!(
                    "tensor {name} holds {:?} where F32 is needed",
                    view.dtype()
                )));
            }
            // The file does not align its data, so the bytes are collected element by element.
            let values = view
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect();
            tensors.insert(
                name.to_owned(),
                Tensor {
                    shape: view.shape().to_vec(),
                    values,
                },
            );
        }
        Ok(Self { metadata, tensors })
    }
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::{Initializer, ParameterSpec};

    fn example() -> (ParameterLayout, Checkpoint) {
        let layout = ParameterLayout::new(vec![
            ParameterSpec::new("a.weight", &[2, 3], Initializer::fan_in(3)),
            ParameterSpec::new("a.bias", &[2], Initializer::Zeros),
        ]);
        let mut checkpoint = Checkpoint::new(serde_json::json!({"step": 12, "rate": 0.1}));
        checkpoint.insert_parameters("model/", &Parameters::initialize(&layout, 5));
        checkpoint.insert_parameters("ema/", &Parameters::initialize(&layout, 6));
        (layout, checkpoint)
    }

    #[test]
    fn round_trip_keeps_every_bit() {
        let (layout, checkpoint) = example();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("checkpoint.safetensors");
        checkpoint.write(&path).unwrap();
        let read = Checkpoint::read(&path).unwrap();
        assert_eq!(read, checkpoint);
        assert_eq!(
            read.parameters("model/", &layout).unwrap(),
            Parameters::initialize(&layout, 5)
        );
        assert_eq!(
            read.parameters("ema/", &layout).unwrap(),
            Parameters::initialize(&layout, 6)
        );
        assert_eq!(read.to_bytes(), checkpoint.to_bytes());
        let files: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(files.len(), 1, "no temporary file stays behind");
    }

    #[test]
    fn every_truncation_is_refused_with_one_sentence() {
        let (_, checkpoint) = example();
        let bytes = checkpoint.to_bytes();
        for length in 0..bytes.len() {
            let message = Checkpoint::from_bytes(&bytes[..length], Path::new("c.safetensors"))
                .unwrap_err()
                .to_string();
            assert!(
                message.starts_with("checkpoint c.safetensors: is truncated"),
                "{message}"
            );
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn wrong_shape_missing_and_surplus_tensors_and_bad_numbers_are_named() {
        let (layout, mut checkpoint) = example();
        let other = ParameterLayout::new(vec![ParameterSpec::new(
            "a.weight",
            &[3, 2],
            Initializer::Zeros,
        )]);
        let message = |c: &Checkpoint, l: &ParameterLayout| {
            c.parameters("model/", l).unwrap_err().to_string()
        };
        assert!(message(&checkpoint, &other).contains("model/a.weight: has shape [2, 3]"));
        let fewer = ParameterLayout::new(vec![ParameterSpec::new(
            "a.weight",
            &[2, 3],
            Initializer::Zeros,
        )]);
        assert!(message(&checkpoint, &fewer).contains("model/a.bias: is not part of the model"));
        checkpoint.tensors.get_mut("model/a.bias").unwrap().values[1] = f32::NAN;
        assert!(message(&checkpoint, &layout).contains("model/a.bias: holds NaN at element 1"));
        checkpoint.tensors.remove("model/a.bias");
        assert!(message(&checkpoint, &layout).contains("model/a.bias: is missing"));
    }

    #[test]
    fn an_unwritable_place_is_one_sentence_and_leaves_nothing() {
        let (_, checkpoint) = example();
        let directory = tempfile::tempdir().unwrap();
        let path = directory
            .path()
            .join("absent")
            .join("checkpoint.safetensors");
        let message = checkpoint.write(&path).unwrap_err().to_string();
        assert!(message.starts_with("cannot write"), "{message}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
