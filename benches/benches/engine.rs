//! One training step and one audited step of the default network, and a TarFlow block with its inverse:
//! `cargo bench -p boltzmap-benches --bench engine`.

use boltzmap_autodiff::exec::Executable;
use boltzmap_kernels::random::Stream;
use boltzmap_models::control::Control;
use boltzmap_models::deploy::{ExactSampler, FewStepSampler};
use boltzmap_models::flow_map::{FlowMap, FlowMapConfig};
use boltzmap_models::network::{
    DitConfig, NetworkConfig, TarFlowBlock, TarFlowConfig, TarFlowInverse,
};
use boltzmap_models::parameters::Parameters;
use boltzmap_models::schedule::Schedule;
use boltzmap_models::subspace::Subspace;
use boltzmap_objectives::interpolant::Interpolant;
use boltzmap_objectives::losses::{ConsistencyWeights, DiagonalWeights, StopGradient};
use boltzmap_objectives::method::Method;
use boltzmap_objectives::optimizer::{AdamW, AdamWConfig};
use boltzmap_objectives::schedule::WarmupCosine;
use boltzmap_objectives::times::{PairDistribution, TimeDistribution};
use boltzmap_objectives::trainer::{DataSource, Teacher, Trainer, TrainerConfig};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Standard normal states.
struct Normals(usize);

impl DataSource for Normals {
    fn len(&self) -> usize {
        1
    }

    fn write(&self, _index: usize, stream: &mut Stream, state: &mut [f32]) {
        debug_assert_eq!(state.len(), self.0);
        stream.fill_standard_normal(state);
    }
}

fn flow_map() -> FlowMap {
    FlowMap::new(&FlowMapConfig {
        subspace: Subspace::Full,
        network: NetworkConfig::Dit(DitConfig {
            tokens: 20,
            channels: 3,
            width: 64,
            layers: 3,
            heads: 4,
            mlp_ratio: 2,
            conditioning_width: 64,
            time_frequencies: 5,
        }),
    })
    .expect("a valid configuration")
}

fn training(criterion: &mut Criterion) {
    let map = flow_map();
    let parameters = Parameters::initialize(map.layout(), 1);
    let optimizer = AdamWConfig {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
        clip_norm: 1.0,
        ema_decay: 0.999,
    };
    let schedule = Schedule::uniform(8, 1e-2).expect("a valid schedule");
    let config = TrainerConfig {
        seed: 1,
        method: Method::Scallop,
        interpolant: Interpolant::linear(),
        block: 32,
        diagonal_batch: 192,
        consistency_batch: 64,
        diagonal_weights: DiagonalWeights {
            velocity: 1.0,
            divergence: 1.0,
        },
        consistency_weights: ConsistencyWeights {
            map: 1.0,
            divergence: 1.0,
        },
        stop_gradient: StopGradient::TargetAndArgument,
        teacher: Teacher::MovingAverage,
        consistency_from: 0,
        times: TimeDistribution {
            epsilon: 1e-2,
            data_end_fraction: 0.5,
        },
        pairs: PairDistribution {
            times: schedule.times().to_vec(),
            start_fraction: 0.5,
            end_fraction: 0.25,
        },
        learning_rate: WarmupCosine {
            peak: 1e-4,
            warmup_steps: 10,
            total_steps: 1_000_000,
            final_fraction: 0.0,
        },
        optimizer,
    };
    let state = AdamW::new(optimizer, parameters.flat());
    let source = Normals(map.state_size());
    let mut trainer = Trainer::new(&map, parameters, state, config).unwrap();
    let mut group = criterion.benchmark_group("DiT 64 wide, 3 layers, 20 tokens");
    group.sample_size(20);
    group.bench_function(
        "training step, 192 diagonal and 64 Lagrangian samples",
        |bench| {
            bench.iter(|| trainer.step(&source));
        },
    );
    let parameters = trainer.parameters.clone();
    let mut noise = vec![0.0f32; 1024 * map.state_size()];
    Stream::new(2, 0, 0).fill_standard_normal(&mut noise);
    group.throughput(Throughput::Elements(1024));
    let sampler = FewStepSampler::new(&map, &parameters, &schedule);
    group.bench_function("1024 samples in 8 steps", |bench| {
        bench.iter(|| sampler.transport(&noise, &Control::default()));
    });
    group.sample_size(10).throughput(Throughput::Elements(32));
    let exact = ExactSampler::new(&map, &parameters, &schedule);
    group.bench_function("exact audit of 32 samples in 8 steps", |bench| {
        bench
            .iter(|| exact.exact_log_density(&noise[..32 * map.state_size()], &Control::default()));
    });
    group.finish();
}

fn tarflow(criterion: &mut Criterion) {
    const BATCH: usize = 16;
    let config = TarFlowConfig {
        tokens: 33,
        channels: 3,
        width: 256,
        layers: 6,
        heads: 4,
        mlp_ratio: 4,
        reversed: false,
    };
    let block = TarFlowBlock::new(config).expect("valid sizes");
    let parameters = Parameters::<f32>::initialize(block.layout(), 1);
    let mut x = vec![0.0f32; BATCH * 33 * 3];
    Stream::new(3, 0, 0).fill_standard_normal(&mut x);
    let mut group = criterion.benchmark_group("TarFlow block 256 wide, 6 layers, 33 tokens");
    group
        .sample_size(20)
        .throughput(Throughput::Elements(BATCH as u64));
    let program = Executable::<f32>::compile(&block.forward_program(BATCH));
    let mut arena = program.arena();
    let (mut z, mut log_det) = (vec![0.0; x.len()], vec![0.0; BATCH]);
    let mut inputs = parameters.slices();
    inputs.push(&x);
    group.bench_function("forward, 16 samples, one thread", |bench| {
        bench.iter(|| program.run_into(&mut arena, &inputs, &mut [&mut z, &mut log_det]));
    });
    let mut inverse = TarFlowInverse::new(&block, &parameters, BATCH).expect("a positive batch");
    group.bench_function("inverse, 16 samples, one thread", |bench| {
        bench.iter(|| inverse.run(&x));
    });
    group.finish();
}

criterion_group!(benches, training, tarflow);
criterion_main!(benches);
