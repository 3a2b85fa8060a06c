//! Named parameters in one flat buffer, their initialisation, and their binding to the inputs of a program.

use std::collections::HashMap;
use std::sync::Arc;

use boltzmap_autodiff::builder::{Builder, Var};
use boltzmap_kernels::random::{Stream, domain};
use boltzmap_kernels::real::Real;

use crate::error::ModelError;

/// Domain of the random streams that initialise parameters (the ASCII of "init").
const INITIALISATION_DOMAIN: u64 = domain::INITIALISATION;

/// How the elements of a tensor start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initializer {
    /// All zero.
    Zeros,
    /// Independent normal numbers with mean 0.
    Normal {
        /// Their standard deviation.
        standard_deviation: f64,
    },
}

impl Initializer {
    /// Normal with standard deviation 1/√fan_in, which keeps the variance of a linear layer's output at that of its input.
    pub fn fan_in(fan_in: usize) -> Self {
        Initializer::Normal {
            standard_deviation: 1.0 / (fan_in as f64).sqrt(),
        }
    }
}

/// Name, shape and start value of one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterSpec {
    /// Path such as `blocks.0.attention.query.weight`; also the name in a checkpoint.
    pub name: String,
    /// Static shape.
    pub shape: Vec<usize>,
    /// Start value.
    pub initializer: Initializer,
}

impl ParameterSpec {
    /// A tensor of this name, shape and start value.
    pub fn new(name: impl Into<String>, shape: &[usize], initializer: Initializer) -> Self {
        Self {
            name: name.into(),
            shape: shape.to_vec(),
            initializer,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The order, shapes and offsets of a model's parameters. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ParameterLayout {
    shared: Arc<LayoutData>,
}

#[derive(Debug)]
struct LayoutData {
    specs: Vec<ParameterSpec>,
    offsets: Vec<usize>,
    total: usize,
    index: HashMap<String, usize>,
}

impl PartialEq for ParameterLayout {
    fn eq(&self, other: &Self) -> bool {
        self.shared.specs == other.shared.specs
    }
}

impl ParameterLayout {
    /// Lays tensors out one after the other.
    ///
    /// # Panics
    /// If two tensors have the same name, which is a mistake in a network's definition.
    pub fn new(specs: Vec<ParameterSpec>) -> Self {
        let mut offsets = Vec::with_capacity(specs.len());
        let mut index = HashMap::with_capacity(specs.len());
        let mut total = 0;
        for (i, spec) in specs.iter().enumerate() {
            offsets.push(total);
            total += spec.len();
            assert!(
                index.insert(spec.name.clone(), i).is_none(),
                "two parameters are named {}",
                spec.name
            );
        }
        Self {
            shared: Arc::new(LayoutData {
                specs,
                offsets,
                total,
                index,
            }),
        }
    }

    /// The tensors, in order.
    pub fn specs(&self) -> &[ParameterSpec] {
        &self.shared.specs
    }

    /// Number of tensors.
    pub fn count(&self) -> usize {
        self.shared.specs.len()
    }

    /// Number of elements of all tensors together.
    pub fn total(&self) -> usize {
        self.shared.total
    }

    /// Range of tensor `i` in the flat buffer.
    pub fn range(&self, i: usize) -> std::ops::Range<usize> {
        let start = self.shared.offsets[i];
        start..start + self.shared.specs[i].len()
    }

    /// Number of the tensor of this name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.shared.index.get(name).copied()
    }

    /// Declares one program input per tensor, in order, and returns them by name. Called before any other input is
    /// declared, it makes the parameters inputs `0..count()` of the program.
    pub fn bind<'b>(&self, builder: &'b Builder) -> Bound<'b> {
        let variables = self
            .specs()
            .iter()
            .map(|spec| builder.input(&spec.name, &spec.shape))
            .collect();
        Bound {
            builder,
            layout: self.clone(),
            variables,
        }
    }

    /// Uses values that already exist in the program as the parameters, for example a teacher's.
    ///
    /// # Panics
    /// If the number of values or a shape differs.
    pub fn bind_values<'b>(&self, builder: &'b Builder, variables: Vec<Var<'b>>) -> Bound<'b> {
        assert_eq!(
            variables.len(),
            self.count(),
            "one value per parameter is needed"
        );
        for (variable, spec) in variables.iter().zip(self.specs()) {
            assert_eq!(
                variable.shape(),
                spec.shape,
                "shape of parameter {}",
                spec.name
            );
        }
        Bound {
            builder,
            layout: self.clone(),
            variables,
        }
    }
}

/// Parameters as values of a program being traced.
#[derive(Clone)]
pub struct Bound<'b> {
    builder: &'b Builder,
    layout: ParameterLayout,
    variables: Vec<Var<'b>>,
}

impl<'b> Bound<'b> {
    /// The value of the tensor of this name.
    ///
    /// # Panics
    /// If there is none, which is a mistake in a network's definition.
    pub fn get(&self, name: &str) -> Var<'b> {
        match self.layout.position(name) {
            Some(i) => self.variables[i],
            None => panic!("the network asks for parameter {name}, which it does not declare"),
        }
    }

    /// The program being traced.
    pub fn builder(&self) -> &'b Builder {
        self.builder
    }

    /// All values, in the layout's order.
    pub fn variables(&self) -> &[Var<'b>] {
        &self.variables
    }

    /// The same parameters with their gradient cut, for targets that must not be trained through.
    pub fn stop_gradient(&self) -> Self {
        let variables = self.variables.iter().map(|v| v.stop_gradient()).collect();
        Self {
            builder: self.builder,
            layout: self.layout.clone(),
            variables,
        }
    }
}

/// Values of a model's parameters: one flat buffer, so that optimisers work on one slice.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters<T> {
    layout: ParameterLayout,
    values: Vec<T>,
}

impl<T: Real> Parameters<T> {
    /// Start values. Tensor i is drawn from its own counter stream, so that the values depend on nothing but the seed,
    /// the tensor's number and the element's.
    pub fn initialize(layout: &ParameterLayout, seed: u64) -> Self {
        let mut parameters = Self::zeros(layout);
        for (i, spec) in layout.specs().iter().enumerate() {
            if let Initializer::Normal { standard_deviation } = spec.initializer {
                let scale = T::from_f64(standard_deviation);
                let values = &mut parameters.values[layout.range(i)];
                Stream::new(seed, INITIALISATION_DOMAIN, i as u64).fill_standard_normal(values);
                for value in values {
                    *value *= scale;
                }
            }
        }
        parameters
    }

    /// All zero: also the shape of gradients and of an optimiser's moments.
    pub fn zeros(layout: &ParameterLayout) -> Self {
        Self {
            layout: layout.clone(),
            values: vec![T::zero(); layout.total()],
        }
    }

    /// Takes a flat buffer in the layout's order.
    ///
    /// # Errors
    /// If its length is not the layout's total.
    pub fn from_flat(layout: &ParameterLayout, values: Vec<T>) -> Result<Self, ModelError> {
        if values.len() != layout.total() {
            return Err(ModelError::Length {
                what: "the flat parameter buffer".into(),
                expected: layout.total(),
                found: values.len(),
            });
        }
        Ok(Self {
            layout: layout.clone(),
            values,
        })
    }

    /// Order, names and shapes.
    pub fn layout(&self) -> &ParameterLayout {
        &self.layout
    }

    /// All elements.
    pub fn flat(&self) -> &[T] {
        &self.values
    }

    /// All elements, for an optimiser.
    pub fn flat_mut(&mut self) -> &mut [T] {
        &mut self.values
    }

    /// Elements of tensor `i`.
    pub fn tensor(&self, i: usize) -> &[T] {
        &self.values[self.layout.range(i)]
    }

    /// Elements of the tensor of this name.
    pub fn get(&self, name: &str) -> Option<&[T]> {
        self.layout.position(name).map(|i| self.tensor(i))
    }

    /// Elements of the tensor of this name, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut [T]> {
        let range = self.layout.range(self.layout.position(name)?);
        Some(&mut self.values[range])
    }

    /// One slice per tensor, in order: the first inputs of a program traced with [`ParameterLayout::bind`].
    pub fn slices(&self) -> Vec<&[T]> {
        (0..self.layout.count()).map(|i| self.tensor(i)).collect()
    }

    /// One mutable slice per tensor, in order: where a program writes gradients.
    pub fn slices_mut(&mut self) -> Vec<&mut [T]> {
        let mut rest = self.values.as_mut_slice();
        let mut slices = Vec::with_capacity(self.layout.count());
        for spec in self.layout.specs() {
            let (head, tail) = rest.split_at_mut(spec.len());
            slices.push(head);
            rest = tail;
        }
        slices
    }

    /// The same values in another precision.
    pub fn convert<U: Real>(&self) -> Parameters<U> {
        let values = self
            .values
            .iter()
            .map(|&v| U::from_f64(Real::as_f64(v)))
            .collect();
        Parameters {
            layout: self.layout.clone(),
            values,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> ParameterLayout {
        ParameterLayout::new(vec![
            ParameterSpec::new("a.weight", &[3, 4], Initializer::fan_in(4)),
            ParameterSpec::new("a.bias", &[3], Initializer::Zeros),
            ParameterSpec::new("b.weight", &[100, 100], Initializer::fan_in(100)),
        ])
    }

    #[test]
    fn tensors_are_slices_of_one_buffer_in_order() {
        let layout = layout();
        let mut parameters = Parameters::<f64>::initialize(&layout, 3);
        assert_eq!(
            (layout.count(), layout.total(), layout.range(1)),
            (3, 10_015, 12..15)
        );
        assert_eq!(parameters.slices().concat(), parameters.flat());
        parameters.slices_mut()[1][2] = 7.0;
        assert_eq!(parameters.flat()[14], 7.0);
        assert_eq!(parameters.get("a.bias"), Some(&[0.0, 0.0, 7.0][..]));
        assert!(Parameters::from_flat(&layout, vec![0.0; 3]).is_err());
    }

    #[test]
    fn start_values_have_their_standard_deviation_and_depend_on_the_seed() {
        let layout = layout();
        let parameters = Parameters::<f32>::initialize(&layout, 3);
        assert_eq!(parameters, Parameters::initialize(&layout, 3));
        assert_ne!(parameters, Parameters::initialize(&layout, 4));
        let weights = parameters.get("b.weight").unwrap();
        let variance: f32 = weights.iter().map(|w| w * w).sum::<f32>() / 1e4;
        // Four standard errors of the variance of 10⁴ normal numbers.
        assert!(
            (variance * 100.0 - 1.0).abs() < 4.0 * (2.0f32 / 1e4).sqrt(),
            "{variance}"
        );
    }
}
