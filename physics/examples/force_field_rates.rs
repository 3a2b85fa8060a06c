//! Rates of the force field on all threads, to see what a change of the evaluator does:
//! `cargo run --release -p boltzmap-physics --example force_field_rates [seconds]`.
//!
//! `boltzmap bench physics` compares with OpenMM; this takes a few seconds and needs nothing.

use std::time::Instant;

use boltzmap_kernels::random::Stream;
use boltzmap_physics::builder::{Built, build_minimised};
use boltzmap_physics::langevin::{Langevin, LangevinSettings};
use boltzmap_physics::minimise::MinimiseSettings;
use boltzmap_physics::system::BornModel;
use boltzmap_physics::{BatchEvaluator, ForceField, SingleEvaluator, energy_forces_reference};

/// Calls per second, the best of repetitions that together take at least `seconds`.
fn rate(seconds: f64, mut call: impl FnMut()) -> f64 {
    call();
    let (start, mut best) = (Instant::now(), 0.0f64);
    while start.elapsed().as_secs_f64() < seconds {
        let clock = Instant::now();
        call();
        best = best.max(1.0 / clock.elapsed().as_secs_f64());
    }
    best
}

fn main() {
    let seconds = std::env::args()
        .nth(1)
        .map_or(1.0, |text| text.parse().expect("seconds are a number"));
    let ff14sb = || ForceField::ff14sb(Some(BornModel::Obc1), None);
    let with_cutoff = ForceField::ff14sb(Some(BornModel::Obc1), Some(2.0));
    for (name, force_field, n) in [
        ("Ace-A-Nme", ForceField::amber99sbildn_obc2(), 4096),
        ("AAAAAA", ff14sb(), 1024),
        ("GYDPETGTWG", ff14sb(), 512),
        ("GYDPETGTWG", with_cutoff, 512),
    ] {
        let Built {
            system,
            positions: built,
            ..
        } = build_minimised(name, &force_field, MinimiseSettings::default()).expect("a peptide");
        let mut stream = Stream::new(1, 0, 0);
        let frames: Vec<f64> = (0..n)
            .flat_map(|_| built.clone())
            .map(|x| x + 0.004 * stream.standard_normal())
            .collect();
        let narrow: Vec<f32> = frames.iter().map(|&x| x as f32).collect();
        let evaluator = BatchEvaluator::<f32>::new(&system);
        let (mut energies, mut forces) = (vec![0.0; n], vec![0.0f32; narrow.len()]);
        let f32_rate = n as f64
            * rate(seconds, || {
                evaluator
                    .energies_forces(&narrow, &mut energies, Some(&mut forces))
                    .expect("finite positions");
            });
        let evaluator = BatchEvaluator::<f64>::new(&system);
        let mut forces = vec![0.0f64; frames.len()];
        let f64_rate = n as f64
            * rate(seconds, || {
                evaluator
                    .energies_forces(&frames, &mut energies, Some(&mut forces))
                    .expect("finite positions");
            });
        let one = rate(seconds, || {
            std::hint::black_box(energy_forces_reference(&system, &built));
        });
        let mut single = SingleEvaluator::new(&system);
        let mut forces = vec![0.0; built.len()];
        let fast_one = rate(seconds, || {
            single
                .energies_forces(&built, &mut forces)
                .expect("finite positions");
        });
        let langevin = Langevin::new(&system, LangevinSettings::default()).expect("settings");
        let replicas = 64;
        let start: Vec<f32> = built.iter().map(|&x| x as f32).collect();
        let mut state = langevin
            .start(&start.repeat(replicas), &vec![300.0; replicas], 1)
            .expect("a start");
        let steps = 20;
        let dynamics = (replicas as u64 * steps) as f64
            * rate(seconds, || {
                langevin.run(&mut state, steps).expect("stable dynamics");
            });
        println!(
            "{name:12} {:4} atoms, cutoff {:?}: f32 {f32_rate:10.0}/s  f64 {f64_rate:10.0}/s  one f64 {fast_one:8.0}/s (reference {one:8.0}/s)  dynamics {dynamics:10.0} steps/s",
            system.n_atoms(),
            system.cutoff
        );
    }
}
