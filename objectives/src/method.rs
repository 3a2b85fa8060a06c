//! Methods: which losses train a flow map, on what share of the batch, from which step on.

use boltzmap_autodiff::ir::Program;
use boltzmap_models::flow_map::FlowMap;
use serde::{Deserialize, Serialize};

use crate::losses::{
    ConsistencyTerms, ConsistencyWeights, DiagonalDivergence, DiagonalTerms, DiagonalWeights,
    Divergence, FalconWeights, LossShape, Probed, Reduction, ScallopForm, Side, Split,
    VelocityTarget, corrections_program, diagonal_fields_loss, diagonal_loss, falcon_loss,
    lagrangian_fields_loss, lagrangian_loss, mean_flow_loss, semigroup_loss,
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

/// One loss of a method.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    /// Its program.
    pub(crate) program: Program,
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
    pub(crate) fn terms(&self, map: &FlowMap, config: &TrainerConfig) -> Vec<Term> {
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
                vec![traced.diagonal(diagonal), traced.pairs(lagrangian)]
            }
            Method::Scallop => traced.scallop(Reduction::Vector),
            Method::ScallopScalar => traced.scallop(Reduction::Sum),
            Method::F2d2(options) => traced.f2d2(options),
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
                let mut pairs = traced.pairs(off_diagonal);
                pairs.draw = Draw::Pairs(config.pairs.clone(), EXCHANGED);
                vec![traced.flow_matching(), pairs]
            }
            Method::FlowMatching => vec![traced.flow_matching()],
        };
        terms.retain(|term| term.batch > 0);
        terms
    }
}

/// What the terms of one method share while they are traced.
struct Traced<'a> {
    shape: LossShape,
    fields: Program,
    config: &'a TrainerConfig,
}

impl Traced<'_> {
    fn diagonal(&self, program: Program) -> Term {
        Term {
            program,
            batch: self.config.diagonal_batch,
            from: 0,
            until: u64::MAX,
            draw: Draw::Diagonal(self.config.times),
            teacher: TermTeacher::Current(self.config.teacher),
        }
    }

    fn pairs(&self, program: Program) -> Term {
        Term {
            program,
            batch: self.config.consistency_batch,
            from: self.config.consistency_from,
            until: u64::MAX,
            draw: Draw::Pairs(self.config.pairs.clone(), 0.0),
            teacher: TermTeacher::Current(self.config.teacher),
        }
    }

    fn dyadic(&self, program: Program) -> Term {
        Term {
            draw: Draw::Dyadic(DyadicPairs {
                times: self.config.pairs.times.clone(),
                levels: DYADIC_LEVELS,
            }),
            ..self.pairs(program)
        }
    }

    fn diagonal_program(&self, terms: DiagonalTerms) -> Program {
        diagonal_fields_loss(&self.fields, self.shape, &self.config.interpolant, terms)
    }

    fn flow_matching(&self) -> Term {
        self.diagonal(self.diagonal_program(DiagonalTerms {
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

    fn scallop(&self, reduction: Reduction) -> Vec<Term> {
        let diagonal = self.diagonal_program(DiagonalTerms {
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
        vec![self.diagonal(diagonal), self.pairs(lagrangian)]
    }

    /// F2D2's divergence is one number per state: its residuals are those of the head's sum.
    fn f2d2(&self, options: F2d2) -> Vec<Term> {
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
        match options.instantiation {
            Instantiation::Shortcut => vec![
                self.diagonal(self.diagonal_program(own)),
                self.dyadic(halves()),
            ],
            Instantiation::MeanFlow => {
                let loss = mean_flow_loss(fields, shape, interpolant, Side::Start, terms);
                vec![self.diagonal(self.diagonal_program(own)), self.pairs(loss)]
            }
            Instantiation::Lagrangian => {
                let loss = lagrangian_fields_loss(fields, shape, interpolant, terms);
                vec![self.diagonal(self.diagonal_program(own)), self.pairs(loss)]
            }
            Instantiation::Distilled => {
                let distilled = hutchinson(Probed::Teacher, VelocityTarget::Teacher);
                let from = self.config.consistency_from;
                let mut teacher = self.flow_matching();
                teacher.until = from;
                let mut student = self.diagonal(self.diagonal_program(distilled));
                student.from = from;
                student.teacher = TermTeacher::Frozen;
                vec![teacher, student, self.dyadic(halves())]
            }
        }
    }
}
