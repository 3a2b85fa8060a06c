//! What the losses over a fields or corrections program share while they are traced.

use std::cell::RefCell;

use boltzmap_autodiff::builder::{Builder, Var};
use boltzmap_autodiff::ir::Program;
use boltzmap_autodiff::jvp;

use super::{
    ConsistencyTerms, Divergence, Loss, LossInput, LossShape, StopGradient, TimeRole, apply,
    parameter_count, parameter_inputs,
};
use crate::interpolant::{Ingredients, Interpolant};

/// A loss being traced: the program's inputs so far, and the fields under student's and teacher's parameters.
pub(super) struct Tracing<'b, 'p> {
    pub(super) builder: &'b Builder,
    pub(super) shape: LossShape,
    fields: &'p Program,
    pub(super) student: Vec<Var<'b>>,
    pub(super) teacher: Vec<Var<'b>>,
    /// Roles of the inputs behind the parameters.
    inputs: RefCell<Vec<LossInput>>,
}

/// Mean velocity and divergence with their derivative in some direction.
#[derive(Clone, Copy)]
pub(super) struct Moved<'b> {
    pub(super) velocity: Var<'b>,
    pub(super) divergence: Var<'b>,
    pub(super) velocity_rate: Var<'b>,
    pub(super) divergence_rate: Var<'b>,
}

impl<'b, 'p> Tracing<'b, 'p> {
    /// Declares the parameters, and the teacher's where there is one.
    pub(super) fn new(
        builder: &'b Builder,
        fields: &'p Program,
        shape: LossShape,
        teacher: bool,
    ) -> Self {
        let student = parameter_inputs(builder, fields, "");
        let teacher = if teacher {
            parameter_inputs(builder, fields, "teacher.")
        } else {
            Vec::new()
        };
        Self {
            builder,
            shape,
            fields,
            student,
            teacher,
            inputs: RefCell::default(),
        }
    }

    /// Declares an input of this role.
    pub(super) fn input(&self, role: LossInput) -> Var<'b> {
        self.inputs.borrow_mut().push(role);
        match role.is_state() {
            true => self.builder.input(&role.label(), &self.shape.state()),
            false => self.builder.input(&role.label(), &[self.shape.block]),
        }
    }

    /// Declares what the interpolant is made of.
    pub(super) fn ingredients(&self, interpolant: &Interpolant) -> Ingredients<'b> {
        Ingredients {
            data: self.input(LossInput::Data),
            base: interpolant.base().map(|_| self.input(LossInput::Base)),
            latent: interpolant
                .has_latent()
                .then(|| self.input(LossInput::Noise)),
        }
    }

    /// Declares Hutchinson's probes.
    pub(super) fn probes(&self, count: usize) -> Vec<Var<'b>> {
        (0..count)
            .map(|k| self.input(LossInput::Probe(k)))
            .collect()
    }

    /// Declares t alone.
    pub(super) fn time(&self) -> Var<'b> {
        self.input(LossInput::Time(TimeRole::End))
    }

    /// Declares s and t.
    pub(super) fn times(&self) -> (Var<'b>, Var<'b>) {
        (self.input(LossInput::Time(TimeRole::Start)), self.time())
    }

    /// (u, D) from s to t under these parameters.
    pub(super) fn at(
        &self,
        parameters: &[Var<'b>],
        x: Var<'b>,
        s: Var<'b>,
        t: Var<'b>,
    ) -> (Var<'b>, Var<'b>) {
        apply(self.builder, self.fields, parameters, x, s, t)
    }

    /// The teacher's parameters, their gradient cut unless nothing is held fixed.
    pub(super) fn held_teacher(&self, stop: StopGradient) -> Vec<Var<'b>> {
        match stop {
            StopGradient::None => self.teacher.clone(),
            StopGradient::Target | StopGradient::TargetAndArgument => {
                self.teacher.iter().map(|p| p.stop_gradient()).collect()
            }
        }
    }

    /// The student's (u, D) and their derivatives in t.
    pub(super) fn along_end(&self, x: Var<'b>, s: Var<'b>, t: Var<'b>) -> Moved<'b> {
        let count = parameter_count(self.fields);
        let ones = self.builder.constant(1.0, &[self.shape.block]);
        self.moved(&[count + 2], x, s, t, &[ones])
    }

    /// The student's (u, D) and their derivatives (∂_s + w·∇) along the direction w of x.
    pub(super) fn along_start(
        &self,
        x: Var<'b>,
        s: Var<'b>,
        t: Var<'b>,
        direction: Var<'b>,
    ) -> Moved<'b> {
        let count = parameter_count(self.fields);
        let ones = self.builder.constant(1.0, &[self.shape.block]);
        self.moved(&[count, count + 1], x, s, t, &[direction, ones])
    }

    fn moved(
        &self,
        wrt: &[usize],
        x: Var<'b>,
        s: Var<'b>,
        t: Var<'b>,
        tangents: &[Var<'b>],
    ) -> Moved<'b> {
        let mut arguments = self.student.clone();
        arguments.extend([x, s, t]);
        arguments.extend(tangents);
        let outputs = self.builder.call(&jvp(self.fields, wrt, None), &arguments);
        Moved {
            velocity: outputs[0],
            divergence: outputs[1],
            velocity_rate: outputs[2],
            divergence_rate: outputs[3],
        }
    }

    /// Hutchinson's estimate of the terms ∂_i v_i at (x, t): the mean over probes of ε ⊙ (∂v/∂x ε), `[B,T,C]`.
    ///
    /// With E[ε εᵀ] the projection P on the subspace, its expectation is diag(∂v/∂x P).
    pub(super) fn hutchinson(
        &self,
        parameters: &[Var<'b>],
        x: Var<'b>,
        t: Var<'b>,
        probes: &[Var<'b>],
    ) -> Var<'b> {
        let count = parameter_count(self.fields);
        let k = probes.len();
        let mut shape = vec![1];
        shape.extend(self.shape.state());
        let rows: Vec<Var<'b>> = probes.iter().map(|probe| probe.reshape(&shape)).collect();
        let probes = self.builder.concat(&rows, 0); // [k, B, T, C]
        let mut arguments = parameters.to_vec();
        arguments.extend([x, t, t, probes]);
        let outputs = self
            .builder
            .call(&jvp(self.fields, &[count], Some(k)), &arguments);
        (probes * outputs[2]).mean(&[0])
    }

    /// What a divergence residual with Hutchinson's probes at time t is multiplied with: γ_t, as the spread of the probes
    /// grows like 1/γ towards the data; 1 where the divergence is the head's, or the path starts from a base of its own.
    pub(super) fn probe_scale(
        &self,
        interpolant: &Interpolant,
        t: Var<'b>,
        probes: &[Var<'b>],
    ) -> Var<'b> {
        match interpolant.score(self.shape.column(t)) {
            Some(latent) if !probes.is_empty() => latent.gamma,
            _ => self.builder.constant(1.0, &[self.shape.block, 1, 1]),
        }
    }

    /// The velocity of these parameters at (x, t) and the terms of its divergence.
    pub(super) fn diagonal(
        &self,
        parameters: &[Var<'b>],
        x: Var<'b>,
        t: Var<'b>,
        probes: &[Var<'b>],
    ) -> (Var<'b>, Var<'b>) {
        let (velocity, head) = self.at(parameters, x, t, t);
        let divergence = if probes.is_empty() {
            head
        } else {
            self.hutchinson(parameters, x, t, probes)
        };
        (velocity, divergence)
    }

    /// Ends a consistency loss: squares of both residuals, weighted; parts of weight zero are left out.
    pub(super) fn finish_consistency(
        &self,
        terms: ConsistencyTerms,
        map_residual: Var<'b>,
        divergence_residual: Var<'b>,
    ) -> Loss {
        let map = self.shape.reduce(map_residual.square());
        let divergence = self
            .shape
            .reduce_residual(divergence_residual, terms.reduction);
        self.finish(&[
            ("map_consistency", terms.weights.map, map),
            (
                "divergence_consistency",
                terms.weights.divergence,
                divergence,
            ),
        ])
    }

    /// Ends a loss that is the weighted sum of parts.
    ///
    /// # Panics
    /// If every weight is zero.
    pub(super) fn finish(&self, parts: &[(&str, f64, Var<'b>)]) -> Loss {
        let kept: Vec<&(&str, f64, Var<'b>)> = parts
            .iter()
            .filter(|(_, weight, _)| *weight != 0.0)
            .collect();
        let loss = kept
            .iter()
            .map(|(_, weight, part)| *part * *weight)
            .reduce(|a, b| a + b)
            .unwrap_or_else(|| panic!("a loss needs a part with a weight other than zero"));
        let mut outputs = vec![("loss", loss)];
        outputs.extend(kept.iter().map(|(name, _, part)| (*name, *part)));
        self.finish_outputs(&outputs)
    }

    /// Ends a loss with these outputs, the loss itself first.
    pub(super) fn finish_outputs(&self, outputs: &[(&str, Var<'b>)]) -> Loss {
        let program = self.builder.finish(outputs);
        let inputs = self.inputs.take();
        Loss::new(
            program,
            self.student.len(),
            !self.teacher.is_empty(),
            inputs,
        )
    }
}

impl ConsistencyTerms {
    /// Probes that the program takes.
    pub(super) fn probe_count(&self) -> usize {
        match self.divergence {
            Divergence::Hutchinson(probes) if self.weights.divergence != 0.0 => probes,
            Divergence::Hutchinson(_) | Divergence::Head => 0,
        }
    }
}
