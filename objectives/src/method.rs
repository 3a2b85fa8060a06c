//! Methods: which losses train a flow map, on what share of the batch, from which step on.

use boltzmap_autodiff::ir::Program;
use boltzmap_models::flow_map::FlowMap;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::losses::{
    ConsistencyTerms, ConsistencyWeights, DiagonalDivergence, DiagonalTerms, DiagonalWeights,
    Divergence, FalconWeights, Loss, LossInput, LossShape, Probed, Reduction, ScallopForm, Side,
    Split, TimeRole, VelocityTarget, corrections_program, diagonal_fields_loss, diagonal_loss,
    falcon_loss, lagrangian_fields_loss, lagrangian_loss, mean_flow_loss, semigroup_loss,
};
use crate::times::{DyadicPairs, PairDistribution, TimeDistribution};
use crate::trainer::{Teacher, TrainerConfig};

/// Halvings of a deployed step that shortcut training knows: with 8 steps, the finest has length 1/128, as in the paper.
const DYADIC_LEVELS: u32 = 4;
/// Probability that FALCON trains a pair backwards, so that the map has a learnt inverse.
const EXCHANGED: f64 = 0.5;

/// How a flow map is trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Flow matching, SCALLOP's divergence target per coordinate, Lagrangian self-distillation (arXiv 2606.29110).
    Scallop,
    /// The same with one divergence target per sample.
    ScallopScalar,
    /// Joint distillation of map and divergence with Hutchinson's probes (arXiv 2512.02636).
    F2d2(F2d2),
    /// An invertible map without divergence head; its likelihood is the exact one (arXiv 2512.09914).
    Falcon {
        /// λ_avg, weight of the mean-flow condition.
        average_weight: f64,
        /// λ_r, weight of the cycle.
        cycle_weight: f64,
    },
    /// The velocity alone, for the continuous flow.
    FlowMatching,
}

/// Choices of F2D2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct F2d2 {
    /// Off-diagonal conditions.
    pub instantiation: Instantiation,
    /// Hutchinson's probes per sample.
    pub probes: usize,
    /// Their distribution.
    pub probe_distribution: ProbeDistribution,
}

/// Off-diagonal conditions of F2D2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Instantiation {
    /// Two halves make one step, on dyadic steps.
    Shortcut,
    /// The mean-flow identity, x at the start.
    MeanFlow,
    /// First flow matching alone; then its moving average is frozen, and velocity and divergence on the diagonal are matched
    /// with the frozen network's while steps are built from halves.
    Distilled,
    /// The Lagrangian condition.
    Lagrangian,
}

/// Distribution of Hutchinson's probes before they are projected on the states' subspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeDistribution {
    /// ±1 with equal probability.
    Rademacher,
    /// N(0, 1).
    Gaussian,
}

/// How a term draws its times.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Draw {
    /// One time t.
    Diagonal(TimeDistribution),
    /// s and t, exchanged with this probability.
    Pairs(PairDistribution, f64),
    /// s, t, and whether they are of the finest level.
    Dyadic(DyadicPairs),
}

/// Whose parameters a term's teacher has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TermTeacher {
    /// The network's or its moving average's.
    Current(Teacher),
    /// Those of the moving average when the term began.
    Frozen,
}

/// What a training draws for an input of a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drawn {
    /// A frame of the data.
    Data,
    /// A state of the interpolant's base.
    Base,
    /// Standard normal noise on the subspace.
    Noise,
    /// A probe of the method's distribution on the subspace.
    Probe,
    /// s
    Start,
    /// t
    End,
    /// Whether the pair is of the finest level.
    Finest,
}

impl Drawn {
    /// What is drawn for this role where times are drawn so.
    fn of(role: LossInput, draw: &Draw) -> Result<Self, MethodError> {
        match role {
            LossInput::Data => Ok(Drawn::Data),
            LossInput::Base => Ok(Drawn::Base),
            LossInput::Noise => Ok(Drawn::Noise),
            LossInput::Probe(_) => Ok(Drawn::Probe),
            LossInput::Time(TimeRole::Start) => Ok(Drawn::Start),
            LossInput::Time(TimeRole::End) => Ok(Drawn::End),
            LossInput::Finest if matches!(draw, Draw::Dyadic(_)) => Ok(Drawn::Finest),
            LossInput::Finest
            | LossInput::Fraction
            | LossInput::State
            | LossInput::LogDeterminant => Err(MethodError::NotDrawn(role)),
        }
    }

    /// Whether it is a state rather than a number.
    pub(crate) fn is_state(self) -> bool {
        match self {
            Drawn::Data | Drawn::Base | Drawn::Noise | Drawn::Probe => true,
            Drawn::Start | Drawn::End | Drawn::Finest => false,
        }
    }
}

/// Why the losses of a method cannot be trained.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MethodError {
    /// A loss asks for something that a training step does not draw with the times it draws.
    #[error(
        "a loss of the method needs {0:?} for every sample, which is not drawn with its times; add it to what terms draw"
    )]
    NotDrawn(LossInput),
    /// A loss program has another number of inputs than parameters and roles.
    #[error(
        "a loss of the method has {found} inputs but {expected} of them have a role; give every input a role"
    )]
    InputWithoutRole {
        /// parameters and roles
        expected: usize,
        /// inputs of the program
        found: usize,
    },
    /// No term has a sample.
    #[error(
        "no loss of the method has a sample; give the diagonal or the consistency batch at least one block"
    )]
    NoSamples,
}

/// One loss of a method.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    /// Its program and what the inputs stand for.
    pub(crate) loss: Loss,
    /// What is drawn for the inputs of [`Loss::inputs`].
    pub(crate) drawn: Vec<Drawn>,
    /// Samples per step.
    pub(crate) batch: usize,
    /// First step that trains it.
    pub(crate) from: u64,
    /// First step that does not train it any more.
    pub(crate) until: u64,
    /// Its times.
    pub(crate) draw: Draw,
    /// Its teacher, where it has one.
    pub(crate) teacher: TermTeacher,
}

impl Term {
    /// A term that is trained from step `from` on.
    fn new(
        loss: Loss,
        batch: usize,
        from: u64,
        draw: Draw,
        teacher: Teacher,
    ) -> Result<Self, MethodError> {
        let (found, expected) = (
            loss.program().inputs.len(),
            loss.shared() + loss.inputs().len(),
        );
        if found != expected {
            return Err(MethodError::InputWithoutRole { expected, found });
        }
        let roles = loss.inputs().iter();
        Ok(Self {
            drawn: roles
                .map(|role| Drawn::of(*role, &draw))
                .collect::<Result<_, _>>()?,
            loss,
            batch,
            from,
            until: u64::MAX,
            draw,
            teacher: TermTeacher::Current(teacher),
        })
    }
}

impl Method {
    /// Whether the method trains the divergence head, so that the map tells a likelihood of its own.
    pub fn has_head(&self) -> bool {
        match self {
            Method::Scallop | Method::ScallopScalar | Method::F2d2(_) => true,
            Method::Falcon { .. } | Method::FlowMatching => false,
        }
    }

    /// Whether the method trains the velocity alone, so that samples need the continuous flow.
    pub fn is_continuous(&self) -> bool {
        matches!(self, Method::FlowMatching)
    }

    /// Whether the method trains with a frozen teacher: what a checkpoint must hold besides.
    pub fn freezes_teacher(&self) -> bool {
        matches!(
            self,
            Method::F2d2(F2d2 {
                instantiation: Instantiation::Distilled,
                ..
            })
        )
    }

    /// The distribution of Hutchinson's probes, where the method has any.
    pub(crate) fn probe_distribution(&self) -> ProbeDistribution {
        match self {
            Method::F2d2(options) => options.probe_distribution,
            _ => ProbeDistribution::Rademacher,
        }
    }

    /// The losses for a flow map, those on the diagonal first.
    ///
    /// # Errors
    /// If an input of a loss has no role or is not drawn, or no loss has a sample.
    pub(crate) fn terms(
        &self,
        map: &FlowMap,
        config: &TrainerConfig,
    ) -> Result<Vec<Term>, MethodError> {
        let traced = Traced {
            shape: LossShape {
                block: config.block,
                tokens: map.tokens(),
                channels: map.channels(),
                kappa: map.share(),
            },
            fields: map.fields_program(config.block),
            config,
        };
        let mut terms = match *self {
            Method::Scallop if config.interpolant.is_linear() => {
                let corrections = corrections_program(map, config.block);
                let diagonal = diagonal_loss(&corrections, traced.shape, config.diagonal_weights);
                let lagrangian = lagrangian_loss(
                    &corrections,
                    traced.shape,
                    config.consistency_weights,
                    config.stop_gradient,
                );
                vec![traced.diagonal(diagonal)?, traced.pairs(lagrangian, 0.0)?]
            }
            Method::Scallop => traced.scallop(Reduction::Vector)?,
            Method::ScallopScalar => traced.scallop(Reduction::Sum)?,
            Method::F2d2(options) => traced.f2d2(options)?,
            Method::Falcon {
                average_weight,
                cycle_weight,
            } => {
                let weights = FalconWeights {
                    average: average_weight,
                    cycle: cycle_weight,
                };
                let off_diagonal = falcon_loss(
                    &traced.fields,
                    traced.shape,
                    &config.interpolant,
                    weights,
                    config.stop_gradient,
                );
                vec![
                    traced.flow_matching()?,
                    traced.pairs(off_diagonal, EXCHANGED)?,
                ]
            }
            Method::FlowMatching => vec![traced.flow_matching()?],
        };
        terms.retain(|term| term.batch > 0);
        match terms.is_empty() {
            true => Err(MethodError::NoSamples),
            false => Ok(terms),
        }
    }
}

/// What the terms of one method share while they are traced.
struct Traced<'a> {
    shape: LossShape,
    fields: Program,
    config: &'a TrainerConfig,
}

impl Traced<'_> {
    fn diagonal(&self, loss: Loss) -> Result<Term, MethodError> {
        let draw = Draw::Diagonal(self.config.times);
        Term::new(
            loss,
            self.config.diagonal_batch,
            0,
            draw,
            self.config.teacher,
        )
    }

    /// A term off the diagonal, its pairs turned round with the probability `exchanged`.
    fn pairs(&self, loss: Loss, exchanged: f64) -> Result<Term, MethodError> {
        self.consistent(loss, Draw::Pairs(self.config.pairs.clone(), exchanged))
    }

    fn dyadic(&self, loss: Loss) -> Result<Term, MethodError> {
        let pairs = DyadicPairs {
            times: self.config.pairs.times.clone(),
            levels: DYADIC_LEVELS,
        };
        self.consistent(loss, Draw::Dyadic(pairs))
    }

    fn consistent(&self, loss: Loss, draw: Draw) -> Result<Term, MethodError> {
        let (batch, from) = (self.config.consistency_batch, self.config.consistency_from);
        Term::new(loss, batch, from, draw, self.config.teacher)
    }

    fn diagonal_loss(&self, terms: DiagonalTerms) -> Loss {
        diagonal_fields_loss(&self.fields, self.shape, &self.config.interpolant, terms)
    }

    fn flow_matching(&self) -> Result<Term, MethodError> {
        self.diagonal(self.diagonal_loss(DiagonalTerms {
            weights: DiagonalWeights {
                divergence: 0.0,
                ..self.config.diagonal_weights
            },
            velocity: VelocityTarget::Conditional,
            divergence: DiagonalDivergence::Scallop(ScallopForm::Centred),
            reduction: Reduction::Vector,
        }))
    }

    fn consistency(&self, divergence: Divergence, reduction: Reduction) -> ConsistencyTerms {
        let ConsistencyWeights { map, divergence: d } = self.config.consistency_weights;
        ConsistencyTerms {
            weights: ConsistencyWeights { map, divergence: d },
            stop: self.config.stop_gradient,
            divergence,
            reduction,
        }
    }

    fn scallop(&self, reduction: Reduction) -> Result<Vec<Term>, MethodError> {
        let diagonal = self.diagonal_loss(DiagonalTerms {
            weights: self.config.diagonal_weights,
            velocity: VelocityTarget::Conditional,
            divergence: DiagonalDivergence::Scallop(ScallopForm::Centred),
            reduction,
        });
        let lagrangian = lagrangian_fields_loss(
            &self.fields,
            self.shape,
            &self.config.interpolant,
            self.consistency(Divergence::Head, reduction),
        );
        Ok(vec![self.diagonal(diagonal)?, self.pairs(lagrangian, 0.0)?])
    }

    /// F2D2's divergence is one number per state: its residuals are those of the head's sum.
    fn f2d2(&self, options: F2d2) -> Result<Vec<Term>, MethodError> {
        let (fields, shape, interpolant) = (&self.fields, self.shape, &self.config.interpolant);
        let hutchinson = |of, velocity| DiagonalTerms {
            weights: self.config.diagonal_weights,
            velocity,
            divergence: DiagonalDivergence::Hutchinson {
                probes: options.probes,
                of,
            },
            reduction: Reduction::Sum,
        };
        let own = hutchinson(Probed::Own, VelocityTarget::Conditional);
        let terms = self.consistency(Divergence::Hutchinson(options.probes), Reduction::Sum);
        let halves = || semigroup_loss(fields, shape, interpolant, Split::Halves, terms);
        Ok(match options.instantiation {
            Instantiation::Shortcut => vec![
                self.diagonal(self.diagonal_loss(own))?,
                self.dyadic(halves())?,
            ],
            Instantiation::MeanFlow => {
                let loss = mean_flow_loss(fields, shape, interpolant, Side::Start, terms);
                vec![
                    self.diagonal(self.diagonal_loss(own))?,
                    self.pairs(loss, 0.0)?,
                ]
            }
            Instantiation::Lagrangian => {
                let loss = lagrangian_fields_loss(fields, shape, interpolant, terms);
                vec![
                    self.diagonal(self.diagonal_loss(own))?,
                    self.pairs(loss, 0.0)?,
                ]
            }
            Instantiation::Distilled => {
                let distilled = hutchinson(Probed::Teacher, VelocityTarget::Teacher);
                let from = self.config.consistency_from;
                let mut teacher = self.flow_matching()?;
                teacher.until = from;
                let mut student = self.diagonal(self.diagonal_loss(distilled))?;
                student.from = from;
                student.teacher = TermTeacher::Frozen;
                vec![teacher, student, self.dyadic(halves())?]
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use boltzmap_autodiff::builder::Builder;

    use super::*;
    use crate::interpolant::Interpolant;
    use crate::losses::{StopGradient, calibration_loss};

    const SHAPE: LossShape = LossShape {
        block: 1,
        tokens: 2,
        channels: 1,
        kappa: 1.0,
    };

    /// Fields of one parameter.
    fn fields() -> Program {
        let b = Builder::new();
        let scale = b.input("scale", &[1]);
        let x = b.input("x", &[1, 2, 1]);
        let (s, t) = (b.input("s", &[1]), b.input("t", &[1]));
        let u = x * scale + (s + t).reshape(&[1, 1, 1]);
        b.finish(&[("u", u), ("d", u * 0.5)])
    }

    fn pairs() -> Draw {
        let times = vec![0.0, 0.5, 0.9];
        let pairs = PairDistribution {
            times,
            start_fraction: 0.5,
            end_fraction: 0.25,
        };
        Draw::Pairs(pairs, 0.0)
    }

    fn dyadic() -> Draw {
        let times = vec![0.0, 0.5, 0.9];
        Draw::Dyadic(DyadicPairs { times, levels: 2 })
    }

    fn drawn(loss: Loss, draw: Draw) -> Result<Vec<Drawn>, MethodError> {
        Term::new(loss, 4, 0, draw, Teacher::Online).map(|term| term.drawn)
    }

    #[test]
    fn what_no_step_draws_is_refused_where_the_term_is_built() {
        let terms = ConsistencyTerms {
            weights: ConsistencyWeights {
                map: 1.0,
                divergence: 1.0,
            },
            stop: StopGradient::Target,
            divergence: Divergence::Head,
            reduction: Reduction::Vector,
        };
        let semigroup =
            |split| semigroup_loss(&fields(), SHAPE, &Interpolant::linear(), split, terms);
        let expected = [
            Drawn::Data,
            Drawn::Noise,
            Drawn::Start,
            Drawn::End,
            Drawn::Finest,
        ];
        assert_eq!(drawn(semigroup(Split::Halves), dyadic()).unwrap(), expected);
        for (loss, draw, missing) in [
            (semigroup(Split::Halves), pairs(), LossInput::Finest),
            (semigroup(Split::Anywhere), dyadic(), LossInput::Fraction),
            (
                calibration_loss(&fields(), SHAPE),
                pairs(),
                LossInput::State,
            ),
        ] {
            assert_eq!(drawn(loss, draw), Err(MethodError::NotDrawn(missing)));
        }
    }

    #[test]
    fn an_input_without_a_role_is_refused() {
        // θ, x, s, t, of which only one state and one time have a role.
        let roles = vec![LossInput::Data, LossInput::Time(TimeRole::End)];
        let loss = Loss::new(fields(), 1, false, roles);
        let refused = MethodError::InputWithoutRole {
            expected: 3,
            found: 4,
        };
        assert_eq!(drawn(loss, pairs()), Err(refused));
    }
}
