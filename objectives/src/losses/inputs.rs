//! What the inputs of a loss stand for.

use boltzmap_autodiff::ir::Program;

/// Which of a pair's two times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimeRole {
    /// s
    Start,
    /// t; on the diagonal, the one time there is.
    End,
}

/// What a loss asks of every sample. States are `[B,T,C]` on the subspace, all else is one number per sample, `[B]`.
///
/// A loss that needs something new gets a role here: negatives, energies and forces of states, per-token features and masks
/// are foreseen. The compiler then lists what is missing: the role's shape and label below, and whether a training draws it
/// (`Drawn` in `method.rs`). A shape other than these two also needs a place in the trainer's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LossInput {
    /// x₁, a frame of the data.
    Data,
    /// x₀ of an interpolant with a base of its own.
    Base,
    /// z, standard normal.
    Noise,
    /// ε of Hutchinson's estimate, by number.
    Probe(usize),
    /// x, a state that the loss does not make itself.
    State,
    /// s or t, in [0, 1].
    Time(TimeRole),
    /// h in (0, 1), where a step is cut in two: at h s + (1−h) t.
    Fraction,
    /// 1 where a pair is of the finest level of dyadic steps, otherwise 0.
    Finest,
    /// log|det ∂X_{s,t}/∂x| of a finished map, nats.
    LogDeterminant,
}

impl LossInput {
    /// Whether it is a state `[B,T,C]` rather than a number per sample `[B]`.
    pub fn is_state(self) -> bool {
        match self {
            LossInput::Data
            | LossInput::Base
            | LossInput::Noise
            | LossInput::Probe(_)
            | LossInput::State => true,
            LossInput::Time(_)
            | LossInput::Fraction
            | LossInput::Finest
            | LossInput::LogDeterminant => false,
        }
    }

    /// What the input is called in printed programs. Nothing is found by it.
    pub(super) fn label(self) -> String {
        match self {
            LossInput::Data => "data".into(),
            LossInput::Base => "base".into(),
            LossInput::Noise => "noise".into(),
            LossInput::Probe(number) => format!("probe.{number}"),
            LossInput::State => "x".into(),
            LossInput::Time(TimeRole::Start) => "s".into(),
            LossInput::Time(TimeRole::End) => "t".into(),
            LossInput::Fraction => "h".into(),
            LossInput::Finest => "finest".into(),
            LossInput::LogDeterminant => "log_det".into(),
        }
    }
}

/// A loss program and what its inputs stand for: the parameters θ…, the teacher's where there is one, then one
/// [`LossInput`] after the other.
#[derive(Clone, Debug)]
pub struct Loss {
    program: Program,
    parameters: usize,
    has_teacher: bool,
    inputs: Vec<LossInput>,
}

impl Loss {
    /// A traced program with `parameters` parameter tensors, and as many of a teacher behind them where it has one.
    pub(crate) fn new(
        program: Program,
        parameters: usize,
        has_teacher: bool,
        inputs: Vec<LossInput>,
    ) -> Self {
        Self {
            program,
            parameters,
            has_teacher,
            inputs,
        }
    }

    /// Outputs: `loss`, then its parts.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Number of tensors in θ, the program's first inputs.
    pub fn parameters(&self) -> usize {
        self.parameters
    }

    /// Whether the teacher's parameters θ' follow on θ.
    pub fn has_teacher(&self) -> bool {
        self.has_teacher
    }

    /// Number of inputs that all samples share: θ, and θ' where there is a teacher.
    pub fn shared(&self) -> usize {
        self.parameters * if self.has_teacher { 2 } else { 1 }
    }

    /// Roles of the inputs behind the shared ones, in the program's order.
    pub fn inputs(&self) -> &[LossInput] {
        &self.inputs
    }

    /// Names of the parts.
    pub fn parts(&self) -> &[String] {
        &self.program.output_names[1..]
    }
}
