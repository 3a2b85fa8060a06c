//! Our side: every task compiled with the engine, and run once per call.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, bail};
use boltzmap_autodiff::exec::{Batched, InputRole, OutputRole};
use boltzmap_autodiff::ir::Program;
use boltzmap_autodiff::{Jacobian, grad, jvp, optimize};
use boltzmap_models::flow_map::FlowMap;
use boltzmap_models::network::TarFlowBlock;
use boltzmap_models::parameters::Parameters;
use boltzmap_objectives::losses::{
    ConsistencyWeights, DiagonalWeights, Loss, LossInput, LossShape, StopGradient, TimeRole,
    corrections_program, diagonal_loss, lagrangian_loss, likelihood_loss,
};
use boltzmap_objectives::optimizer::{AdamW, StepReport};

use super::roof::{DenseProduct, dense_products, product_operations};
use super::workload::{
    COMPARED_STEPS, Inputs, LEARNING_RATE, Model, OPTIMIZER, Task, Workload, first,
};

/// Results by name, compared with those of the baselines.
pub type Outputs = BTreeMap<String, Vec<f32>>;

/// A task ready to be timed.
pub struct Prepared {
    /// What the task computes.
    pub outputs: Outputs,
    /// One call.
    pub call: Box<dyn FnMut() + Send>,
    /// Floating-point operations in matrix products of one call.
    pub operations: f64,
    /// Dense products of one block, for the roof.
    pub products: Vec<DenseProduct>,
    /// Seconds of tracing, differentiating and planning.
    pub compile_seconds: f64,
    /// Bytes that the intermediate values of one block occupy.
    pub arena_bytes: usize,
}

/// Compiles a task and runs it once (a training step: [`COMPARED_STEPS`] times).
///
/// # Errors
/// If the task makes no sense for the workload.
pub fn prepare(workload: &Workload, inputs: &Inputs, task: Task) -> Result<Prepared> {
    if !workload.tasks.contains(&task) {
        bail!("{} has no task {}", workload.name, task.name());
    }
    match &workload.model {
        Model::FlowMap(map) => prepare_flow_map(workload, map, inputs, task),
        Model::TarFlow(block) => prepare_tarflow(workload, block, inputs, task),
    }
}

fn prepare_flow_map(
    workload: &Workload,
    map: &FlowMap,
    inputs: &Inputs,
    task: Task,
) -> Result<Prepared> {
    let blocks = workload.blocks;
    let (batch, samples) = (workload.batch, workload.samples(task));
    let size = inputs.size;
    let rows = |values: &[f32]| first(values, samples, size).to_vec();
    let times = |values: &[f32]| first(values, samples, 1).to_vec();
    let (x, s, t) = (rows(&inputs.x), times(&inputs.start), times(&inputs.end));
    let parameters = workload.parameters();
    let count = parameters.layout().count();
    match task {
        Task::Forward => {
            let clock = Instant::now();
            let block = divisor(batch, blocks.forward);
            Ok(pointwise(
                &map.step_program(block),
                block,
                parameters,
                vec![x, s, t],
                batch,
                clock,
            ))
        }
        Task::Jvp => {
            let clock = Instant::now();
            let block = divisor(batch, blocks.forward);
            let program = jvp(&map.step_program(block), &[count, count + 2], None);
            let inputs = vec![x, s, t, rows(&inputs.d_x), times(&inputs.d_t)];
            Ok(pointwise(&program, block, parameters, inputs, batch, clock))
        }
        Task::TrainingStep => {
            let clock = Instant::now();
            let block = divisor(batch, blocks.training);
            let loss = training_loss(map, block);
            TrainingStep::new(&loss, parameters, inputs, batch, clock).map(training)
        }
        Task::LagrangianStep => {
            let clock = Instant::now();
            let block = divisor(batch, blocks.lagrangian);
            let loss = lagrangian_loss(
                &corrections_program(map, block),
                loss_shape(map, block),
                ConsistencyWeights {
                    map: 1.0,
                    divergence: 1.0,
                },
                StopGradient::TargetAndArgument,
            );
            TrainingStep::new(&loss, parameters, inputs, batch, clock).map(training)
        }
        Task::Divergence | Task::Hutchinson => {
            let clock = Instant::now();
            let block = match task {
                Task::Hutchinson => blocks.hutchinson,
                _ => blocks.jacobian,
            };
            let program = map.velocity_program(divisor(samples, block));
            let probes = (task == Task::Hutchinson).then(|| inputs.probes.clone());
            Ok(jacobian(
                workload,
                &program,
                parameters,
                vec![x, t],
                task,
                probes,
                clock,
            ))
        }
        Task::LogDet => {
            let clock = Instant::now();
            let program = map.map_program(divisor(samples, blocks.jacobian));
            Ok(jacobian(
                workload,
                &program,
                parameters,
                vec![x, s, t],
                task,
                None,
                clock,
            ))
        }
    }
}

fn prepare_tarflow(
    workload: &Workload,
    block: &TarFlowBlock,
    inputs: &Inputs,
    task: Task,
) -> Result<Prepared> {
    let (batch, blocks) = (workload.batch, workload.blocks);
    let parameters = workload.parameters();
    let count = parameters.layout().count();
    let rows = |values: &[f32]| first(values, batch, inputs.size).to_vec();
    let x = rows(&inputs.x);
    let forward = divisor(batch, blocks.forward);
    let clock = Instant::now();
    match task {
        Task::Forward => {
            let program = block.forward_program(forward);
            Ok(pointwise(
                &program,
                forward,
                parameters,
                vec![x],
                batch,
                clock,
            ))
        }
        Task::Jvp => {
            let program = jvp(&block.forward_program(forward), &[count], None);
            let inputs = vec![x, rows(&inputs.d_x)];
            Ok(pointwise(
                &program, forward, parameters, inputs, batch, clock,
            ))
        }
        Task::TrainingStep => {
            let program = block.forward_program(divisor(batch, blocks.training));
            let loss = likelihood_loss(&program);
            TrainingStep::new(&loss, parameters, inputs, batch, clock).map(training)
        }
        other => bail!("{} has no task {}", workload.name, other.name()),
    }
}

/// The largest divisor of `batch` up to `block`.
fn divisor(batch: usize, block: usize) -> usize {
    (1..=block.min(batch))
        .rev()
        .find(|size| batch.is_multiple_of(*size))
        .unwrap_or(1)
}

fn loss_shape(map: &FlowMap, block: usize) -> LossShape {
    LossShape {
        block,
        tokens: map.tokens(),
        channels: map.channels(),
        kappa: map.share(),
    }
}

fn training_loss(map: &FlowMap, block: usize) -> Loss {
    let weights = DiagonalWeights {
        velocity: 1.0,
        divergence: 1.0,
    };
    diagonal_loss(
        &corrections_program(map, block),
        loss_shape(map, block),
        weights,
    )
}

/// Parameters shared by all blocks, everything else cut along the batch.
fn roles(program: &Program, shared: usize) -> Vec<InputRole> {
    (0..program.inputs.len())
        .map(|i| match i < shared {
            true => InputRole::Shared,
            false => InputRole::PerBlock { axis: 0 },
        })
        .collect()
}

fn named(program: &Program, values: &[Vec<f32>]) -> Outputs {
    program
        .output_names
        .iter()
        .cloned()
        .zip(values.iter().cloned())
        .collect()
}

/// A program whose inputs after the parameters, and whose outputs, all have the batch as their first axis.
pub fn pointwise(
    program: &Program,
    block: usize,
    parameters: Parameters<f32>,
    inputs: Vec<Vec<f32>>,
    batch: usize,
    clock: Instant,
) -> Prepared {
    let outputs = vec![OutputRole::PerBlock { axis: 0 }; program.outputs.len()];
    let input_roles = roles(program, parameters.layout().count());
    let batched = Batched::<f32>::compile(program, input_roles, outputs);
    let compile_seconds = clock.elapsed().as_secs_f64();
    let mut values: Vec<Vec<f32>> = (0..program.outputs.len())
        .map(|i| {
            let length: usize = program.output_shape(i).iter().product();
            vec![0.0; length / block * batch]
        })
        .collect();
    let operations =
        batched.executable().product_operations() as f64 * batch.div_ceil(block) as f64;
    let arena_bytes = batched.executable().arena_bytes();
    let run = move |values: &mut [Vec<f32>]| {
        let mut arguments = parameters.slices();
        arguments.extend(inputs.iter().map(Vec::as_slice));
        let mut targets: Vec<&mut [f32]> = values.iter_mut().map(Vec::as_mut_slice).collect();
        batched.run(batch, &arguments, &mut targets);
    };
    run(&mut values);
    Prepared {
        outputs: named(program, &values),
        call: Box::new(move || run(&mut values)),
        operations,
        products: dense_products(&optimize(program)),
        compile_seconds,
        arena_bytes,
    }
}

/// Loss, gradient and update of the whole batch, with the inputs held fixed.
pub struct TrainingStep {
    gradient: Batched<f32>,
    losses: Vec<[f32; 1]>,
    loss_names: Vec<String>,
    parameters: Parameters<f32>,
    /// Whether the moving average is the loss's second set of parameters.
    teacher: bool,
    optimizer: AdamW,
    gradients: Vec<f32>,
    inputs: Vec<Vec<f32>>,
    batch: usize,
    compile_seconds: f64,
    products: Vec<DenseProduct>,
}

impl TrainingStep {
    /// Compiles value and gradient of a loss, whose inputs are the first `batch` of the workload's. The clock was started
    /// before the loss was traced.
    ///
    /// # Errors
    /// If the workload holds nothing for an input of the loss.
    pub fn new(
        loss: &Loss,
        parameters: Parameters<f32>,
        inputs: &Inputs,
        batch: usize,
        clock: Instant,
    ) -> Result<Self> {
        let program = grad(loss.program(), &(0..loss.parameters()).collect::<Vec<_>>());
        let outputs = vec![OutputRole::Summed; program.outputs.len()];
        let gradient = Batched::compile(&program, roles(&program, loss.shared()), outputs);
        let inputs = loss
            .inputs()
            .iter()
            .map(|role| match role {
                LossInput::Data => Ok(first(&inputs.x, batch, inputs.size).to_vec()),
                LossInput::Noise => Ok(first(&inputs.noise, batch, inputs.size).to_vec()),
                LossInput::Time(TimeRole::Start) => Ok(first(&inputs.start, batch, 1).to_vec()),
                LossInput::Time(TimeRole::End) => Ok(first(&inputs.end, batch, 1).to_vec()),
                other => bail!("no workload has an input {other:?}"),
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            losses: vec![[0.0]; loss.program().outputs.len()],
            loss_names: loss.program().output_names.clone(),
            optimizer: AdamW::new(OPTIMIZER, parameters.flat()),
            gradients: vec![0.0; parameters.flat().len()],
            compile_seconds: clock.elapsed().as_secs_f64(),
            products: dense_products(&optimize(&program)),
            gradient,
            parameters,
            teacher: loss.has_teacher(),
            inputs,
            batch,
        })
    }

    /// One step.
    pub fn step(&mut self) -> StepReport {
        let layout = self.parameters.layout();
        let mut arguments = self.parameters.slices();
        if self.teacher {
            let average = &self.optimizer.average;
            arguments.extend((0..layout.count()).map(|i| &average[layout.range(i)]));
        }
        arguments.extend(self.inputs.iter().map(Vec::as_slice));
        let mut targets: Vec<&mut [f32]> = self
            .losses
            .iter_mut()
            .map(|loss| loss.as_mut_slice())
            .collect();
        let mut rest = self.gradients.as_mut_slice();
        for i in 0..layout.count() {
            let (head, tail) = rest.split_at_mut(layout.range(i).len());
            targets.push(head);
            rest = tail;
        }
        self.gradient.run(self.batch, &arguments, &mut targets);
        self.optimizer.update(
            self.parameters.flat_mut(),
            &self.gradients,
            1.0 / self.batch as f64,
            LEARNING_RATE,
        )
    }

    fn gradient_mean(&self) -> Vec<f32> {
        let scale = 1.0 / self.batch as f32;
        self.gradients.iter().map(|value| value * scale).collect()
    }
}

/// Takes the first steps, of which losses, norms, the first gradient and the optimiser's moments are compared.
fn training(mut step: TrainingStep) -> Prepared {
    let blocks = (step.batch / step.gradient.block_size()) as f64;
    let operations = step.gradient.executable().product_operations() as f64 * blocks;
    let arena_bytes = step.gradient.executable().arena_bytes();
    let mut outputs = Outputs::new();
    for number in 0..COMPARED_STEPS {
        let report = step.step();
        let mut push = |name: &str, value: f64| {
            outputs.entry(name.into()).or_default().push(value as f32);
        };
        push("gradient_norm", report.gradient_norm);
        for (name, loss) in step.loss_names.iter().zip(&step.losses) {
            push(name, f64::from(loss[0]) / step.batch as f64);
        }
        if number == 0 {
            outputs.insert("gradient".into(), step.gradient_mean());
        }
    }
    let optimizer = &step.optimizer;
    outputs.insert("first_moment".into(), optimizer.first_moment.clone());
    outputs.insert("second_moment".into(), optimizer.second_moment.clone());
    let products = std::mem::take(&mut step.products);
    Prepared {
        outputs,
        operations,
        products,
        compile_seconds: step.compile_seconds,
        arena_bytes,
        call: Box::new(move || {
            step.step();
        }),
    }
}

/// Dimension up to which determinants are compared instead of their logarithms.
const LARGEST_DETERMINANT: usize = 3;

/// The tasks that push many tangents through a program.
fn jacobian(
    workload: &Workload,
    program: &Program,
    parameters: Parameters<f32>,
    inputs: Vec<Vec<f32>>,
    task: Task,
    probes: Option<Vec<f32>>,
    clock: Instant,
) -> Prepared {
    let tangents = workload.blocks.tangents;
    let count = parameters.layout().count();
    let tangents = if probes.is_some() {
        workload.probes
    } else {
        tangents
    };
    let jacobian =
        Jacobian::<f32>::compile(program, count, 0, roles(program, count), None, tangents);
    let samples = workload.jacobian_samples;
    let with_tangents = optimize(&jvp(program, &[count], Some(tangents)));
    let operations = match task {
        Task::Divergence => jacobian.diagonal_product_operations(samples),
        Task::LogDet => jacobian.product_operations(samples),
        // All probes pass through a block's program together.
        _ => {
            let block = program.input_shape(count)[0];
            product_operations(&with_tangents) * samples.div_ceil(block) as f64
        }
    };
    let products = dense_products(&with_tangents);
    // Among thousands of small matrices some are nearly singular, where the logarithm of a determinant in single precision has no
    // correct digits to compare.
    let few = program.input_shape(count)[1..].iter().product::<usize>() <= LARGEST_DETERMINANT;
    let run = move || {
        let mut arguments = parameters.slices();
        arguments.extend(inputs.iter().map(Vec::as_slice));
        let narrow = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect::<Vec<_>>();
        match (task, &probes) {
            (_, Some(probes)) => {
                narrow(jacobian.hutchinson_trace(samples, &arguments, probes, None))
            }
            (Task::Divergence, _) => narrow(jacobian.trace(samples, &arguments, None)),
            _ => jacobian
                .log_abs_det(samples, &arguments, None)
                .into_iter()
                .map(|(log_det, sign)| match few {
                    true => (sign * log_det.exp()) as f32,
                    false => log_det as f32,
                })
                .collect(),
        }
    };
    let name = match task {
        Task::LogDet if few => "determinant",
        Task::LogDet => "log_det",
        _ => "divergence",
    };
    // Programs are compiled when they are first needed, so the second call is shorter by that.
    let outputs = Outputs::from([(name.to_owned(), run())]);
    let (until_now, second) = (clock.elapsed().as_secs_f64(), Instant::now());
    std::hint::black_box(run());
    let compile_seconds = (until_now - second.elapsed().as_secs_f64()).max(0.0);
    Prepared {
        outputs,
        call: Box::new(move || {
            std::hint::black_box(run());
        }),
        operations,
        products,
        compile_seconds,
        arena_bytes: 0,
    }
}
