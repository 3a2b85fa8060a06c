//! Derivatives of the losses over the fields, on whole networks.

use boltzmap_autodiff::check::{check_first_order, check_tangent_axis, check_vjp, random_values};
use boltzmap_autodiff::interpret::interpret;
use boltzmap_autodiff::ir::Program;
use boltzmap_autodiff::{grad, vjp};
use boltzmap_kernels::random::Stream;
use boltzmap_models::flow_map::{FlowMap, FlowMapConfig};
use boltzmap_models::network::{DitConfig, MlpConfig, NetworkConfig};
use boltzmap_models::subspace::Subspace;
use boltzmap_objectives::interpolant::Interpolant;
use boltzmap_objectives::losses::*;

const BLOCK: usize = 2;
const TOKENS: usize = 3;
const CHANNELS: usize = 2;
const SIZE: usize = BLOCK * TOKENS * CHANNELS;

/// A transformer on the mean-free subspace with the linear path, a perceptron on the full space with the trigonometric one.
fn cases() -> [(FlowMap, Interpolant); 2] {
    let dit = NetworkConfig::Dit(DitConfig {
        tokens: TOKENS,
        channels: CHANNELS,
        width: 8,
        layers: 1,
        heads: 2,
        mlp_ratio: 2,
        conditioning_width: 6,
        time_frequencies: 3,
    });
    let mlp = NetworkConfig::Mlp(MlpConfig {
        tokens: TOKENS,
        channels: CHANNELS,
        width: 8,
        blocks: 1,
        conditioning_width: 6,
        time_frequencies: 3,
    });
    let map = |network, subspace| FlowMap::new(&FlowMapConfig { subspace, network }).unwrap();
    [
        (map(dit, Subspace::MeanFree), Interpolant::linear()),
        (map(mlp, Subspace::Full), Interpolant::trigonometric()),
    ]
}

fn shape(map: &FlowMap) -> LossShape {
    LossShape {
        block: BLOCK,
        tokens: TOKENS,
        channels: CHANNELS,
        kappa: map.share(),
    }
}

fn terms(stop: StopGradient, divergence: Divergence, reduction: Reduction) -> ConsistencyTerms {
    ConsistencyTerms {
        weights: ConsistencyWeights {
            map: 1.3,
            divergence: 0.7,
        },
        stop,
        divergence,
        reduction,
    }
}

/// Random values for every input of a loss; parameters, heads and gates included, in a range where networks are smooth.
fn inputs(map: &FlowMap, loss: &Loss, seed: u64) -> Vec<Vec<f64>> {
    let parameters = (0..loss.shared()).map(|i| {
        let count = loss.program().input_shape(i).iter().product();
        let values = random_values(seed + i as u64, count);
        values.iter().map(|value| 0.5 * value).collect()
    });
    let roles = (loss.shared()..).zip(loss.inputs());
    let samples = roles.map(|(i, role)| match role {
        LossInput::Time(TimeRole::Start) => vec![0.1, 0.6],
        LossInput::Time(TimeRole::End) => vec![0.4, 0.95],
        LossInput::Fraction => vec![0.3, 0.6],
        LossInput::Finest => vec![0.0, 1.0],
        LossInput::LogDeterminant => vec![0.4, -0.3],
        LossInput::Data
        | LossInput::Base
        | LossInput::Noise
        | LossInput::Probe(_)
        | LossInput::State => {
            let mut values = vec![0.0; SIZE];
            Stream::new(seed, 5, i as u64).fill_standard_normal(&mut values);
            map.subspace().project_states(&mut values, TOKENS, CHANNELS);
            values
        }
    });
    parameters.chain(samples).collect()
}

/// The numbers of the inputs that are parameters, the teacher's included.
fn parameters(map: &FlowMap, loss: &Loss) -> Vec<usize> {
    assert_eq!(loss.parameters(), map.layout().count());
    (0..loss.shared()).collect()
}

/// All derivatives, where nothing is held fixed.
#[track_caller]
fn differences_agree(map: &FlowMap, loss: &Loss, wrt: &[usize], seed: u64) {
    let inputs = inputs(map, loss, seed);
    check_first_order(loss.program(), &inputs, wrt, seed).unwrap_or_else(|error| panic!("{error}"));
}

/// Forward against reverse mode only, where central differences would see through a stop-gradient.
#[track_caller]
fn modes_agree(map: &FlowMap, loss: &Loss, seed: u64) {
    let (inputs, wrt) = (inputs(map, loss, seed), parameters(map, loss));
    check_vjp(loss.program(), &inputs, &wrt, seed).unwrap_or_else(|error| panic!("{error}"));
    check_tangent_axis(loss.program(), &inputs, &wrt, seed)
        .unwrap_or_else(|error| panic!("{error}"));
}

type Consistency = fn(&Program, LossShape, &Interpolant, ConsistencyTerms) -> Loss;

/// The consistency losses with a teacher.
const CONSISTENCY: [Consistency; 5] = [
    lagrangian_fields_loss,
    eulerian_fields_loss,
    |f, s, i, t| mean_flow_loss(f, s, i, Side::Start, t),
    |f, s, i, t| semigroup_loss(f, s, i, Split::Anywhere, t),
    |f, s, i, t| semigroup_loss(f, s, i, Split::Halves, t),
];

#[test]
fn consistency_losses_of_networks() {
    for (map, interpolant) in cases() {
        let fields = map.fields_program(BLOCK);
        let count = map.layout().count();
        for (number, loss) in CONSISTENCY.into_iter().enumerate() {
            for divergence in [Divergence::Head, Divergence::Hutchinson(2)] {
                let trace = |stop| {
                    let terms = terms(stop, divergence, Reduction::Sum);
                    loss(&fields, shape(&map), &interpolant, terms)
                };
                let seed = 10 + number as u64;
                let free = trace(StopGradient::None);
                differences_agree(&map, &free, &parameters(&map, &free), seed);
                // Only the teacher is held, which is an input of its own.
                let held = trace(StopGradient::Target);
                let student: Vec<usize> = (0..count).collect();
                differences_agree(&map, &held, &student, seed);
                modes_agree(&map, &trace(StopGradient::TargetAndArgument), seed);
            }
        }
    }
}

#[test]
fn a_held_teacher_gets_no_gradient() {
    for (map, interpolant) in cases() {
        let fields = map.fields_program(BLOCK);
        let count = map.layout().count();
        let teacher: Vec<usize> = (count..2 * count).collect();
        for loss in CONSISTENCY {
            for (stop, held) in [
                (StopGradient::Target, true),
                (StopGradient::TargetAndArgument, true),
                (StopGradient::None, false),
            ] {
                let terms = terms(stop, Divergence::Hutchinson(1), Reduction::Vector);
                let loss = loss(&fields, shape(&map), &interpolant, terms);
                let mut values = inputs(&map, &loss, 4);
                let program = loss.program();
                let outputs = program.outputs.len();
                values.extend((0..outputs).map(|i| vec![f64::from(u8::from(i == 0))]));
                let gradients = interpret(&vjp(program, &teacher), &values);
                let largest = gradients[outputs..]
                    .iter()
                    .flatten()
                    .fold(0.0f64, |largest, g| largest.max(g.abs()));
                assert_eq!(largest == 0.0, held, "{stop:?}: {largest}");
            }
        }
    }
}

#[test]
fn cycle_and_calibration_of_networks() {
    for (map, interpolant) in cases() {
        let fields = map.fields_program(BLOCK);
        let weights = FalconWeights {
            average: 1.0,
            cycle: 10.0,
        };
        let loss = falcon_loss(
            &fields,
            shape(&map),
            &interpolant,
            weights,
            StopGradient::None,
        );
        differences_agree(&map, &loss, &parameters(&map, &loss), 3);
        let stop = StopGradient::TargetAndArgument;
        modes_agree(
            &map,
            &falcon_loss(&fields, shape(&map), &interpolant, weights, stop),
            3,
        );
        let loss = calibration_loss(&fields, shape(&map));
        differences_agree(&map, &loss, &parameters(&map, &loss), 3);
        // The other side of mean flow, with the divergence and without.
        for divergence in [0.0, 0.7] {
            let mut terms = terms(StopGradient::None, Divergence::Head, Reduction::Vector);
            terms.weights.divergence = divergence;
            let loss = mean_flow_loss(&fields, shape(&map), &interpolant, Side::End, terms);
            differences_agree(&map, &loss, &parameters(&map, &loss), 5);
        }
    }
}

/// Targets on the diagonal are held fixed: differences see the divergence head alone.
#[test]
fn diagonal_losses_of_networks() {
    for (map, interpolant) in cases() {
        let fields = map.fields_program(BLOCK);
        let layout = map.layout();
        let head: Vec<usize> = (0..layout.count())
            .filter(|&i| layout.specs()[i].name.starts_with("final.divergence"))
            .collect();
        assert_eq!(head.len(), 2, "weight and bias");
        let hutchinson = |of| DiagonalDivergence::Hutchinson { probes: 2, of };
        for (divergence, velocity) in [
            (hutchinson(Probed::Own), VelocityTarget::Conditional),
            (hutchinson(Probed::Teacher), VelocityTarget::Teacher),
            (
                DiagonalDivergence::Scallop(ScallopForm::Plain),
                VelocityTarget::Conditional,
            ),
            (
                DiagonalDivergence::Scallop(ScallopForm::Score),
                VelocityTarget::Conditional,
            ),
            (
                DiagonalDivergence::Scallop(ScallopForm::Centred),
                VelocityTarget::Conditional,
            ),
        ] {
            for reduction in [Reduction::Vector, Reduction::Sum] {
                let terms = DiagonalTerms {
                    weights: DiagonalWeights {
                        velocity: 1.3,
                        divergence: 0.7,
                    },
                    velocity,
                    divergence,
                    reduction,
                };
                let loss = diagonal_fields_loss(&fields, shape(&map), &interpolant, terms);
                differences_agree(&map, &loss, &head, 6);
                modes_agree(&map, &loss, 6);
                // The divergence part moves nothing through the velocity head.
                let position = layout.position("final.velocity.weight").unwrap();
                let mut values = inputs(&map, &loss, 6);
                values.extend([vec![0.0], vec![0.0], vec![1.0]]);
                let outputs = interpret(&vjp(loss.program(), &[position]), &values);
                assert!(outputs[2][0] > 0.0);
                assert!(outputs[3].iter().all(|gradient| *gradient == 0.0));
            }
        }
    }
}

/// On the linear path, the centred form over the fields is the variance form over the corrections.
#[test]
fn both_ways_of_writing_scallop_agree() {
    let (map, interpolant) = cases().into_iter().next().expect("two cases");
    let weights = DiagonalWeights {
        velocity: 1.3,
        divergence: 0.7,
    };
    let terms = DiagonalTerms {
        weights,
        velocity: VelocityTarget::Conditional,
        divergence: DiagonalDivergence::Scallop(ScallopForm::Centred),
        reduction: Reduction::Vector,
    };
    let consistency = self::terms(
        StopGradient::TargetAndArgument,
        Divergence::Head,
        Reduction::Vector,
    );
    let (fields, corrections) = (map.fields_program(BLOCK), corrections_program(&map, BLOCK));
    let shape = shape(&map);
    let pairs = [
        (
            diagonal_fields_loss(&fields, shape, &interpolant, terms),
            diagonal_loss(&corrections, shape, weights),
        ),
        (
            lagrangian_fields_loss(&fields, shape, &interpolant, consistency),
            lagrangian_loss(&corrections, shape, consistency.weights, consistency.stop),
        ),
    ];
    for (ours, theirs) in pairs {
        assert_eq!(ours.inputs(), theirs.inputs());
        assert_eq!(ours.has_teacher(), theirs.has_teacher());
        assert_eq!(ours.program().input_names, theirs.program().input_names);
        assert_eq!(ours.program().output_names, theirs.program().output_names);
        let wrt: Vec<usize> = (0..map.layout().count()).collect();
        let values = inputs(&map, &ours, 8);
        let gradients = [ours, theirs].map(|loss| interpret(&grad(loss.program(), &wrt), &values));
        for (a, b) in gradients[0]
            .iter()
            .flatten()
            .zip(gradients[1].iter().flatten())
        {
            assert!((a - b).abs() < 1e-12 * (1.0 + b.abs()), "{a} {b}");
        }
    }
}
