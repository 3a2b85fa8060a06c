//! Times of one conformation of large molecules, by size, cutoff, precision and number of threads:
//! `cargo run --release -p boltzmap-physics --example large_molecules [copies,...]`.
//!
//! The molecules are chignolin, several copies side by side. Times are the best of at least 0.5 s of calls, with forces; the reference is
//! called twice.

use std::time::Instant;

use boltzmap_kernels::real::Real;
use boltzmap_physics::builder::{Built, build_minimised};
use boltzmap_physics::energy_forces_reference;
use boltzmap_physics::minimise::MinimiseSettings;
use boltzmap_physics::system::BornModel;
use boltzmap_physics::{Atom, BatchEvaluator, ForceField, System, Topology};

/// Milliseconds of the fastest call.
fn best(seconds: f64, least: usize, mut call: impl FnMut()) -> f64 {
    let (start, mut best, mut calls) = (Instant::now(), f64::INFINITY, 0);
    while calls < least || start.elapsed().as_secs_f64() < seconds {
        let clock = Instant::now();
        call();
        best = best.min(1e3 * clock.elapsed().as_secs_f64());
        calls += 1;
    }
    best
}

/// `copies` of the peptide on a grid, as cubic as it goes.
fn crowd(built: &Built, copies: usize) -> (Topology, Vec<f64>) {
    let one = &built.topology;
    let (mut atoms, mut bonds, mut positions) = (Vec::new(), Vec::new(), Vec::new());
    // The box of the peptide and a gap of 0.25 nm.
    let side: [f64; 3] = std::array::from_fn(|axis| {
        let along = || built.positions.iter().skip(axis).step_by(3).copied();
        0.25 + along().fold(f64::NEG_INFINITY, f64::max) - along().fold(f64::INFINITY, f64::min)
    });
    let mut columns = [1usize, 1, 1];
    while columns.iter().product::<usize>() < copies {
        let length = |axis: usize| (columns[axis] + 1) as f64 * side[axis];
        let shortest = (0..3).min_by(|&a, &b| length(a).total_cmp(&length(b)));
        columns[shortest.unwrap_or(0)] += 1;
    }
    for copy in 0..copies {
        let first = copy * one.n_atoms();
        atoms.extend(one.atoms.iter().map(|atom| Atom {
            residue_index: atom.residue_index + copy * one.n_residues(),
            ..atom.clone()
        }));
        bonds.extend(one.bonds.iter().map(|bond| bond.map(|atom| atom + first)));
        let place = [
            copy % columns[0],
            copy / columns[0] % columns[1],
            copy / columns[0] / columns[1],
        ];
        for atom in built.positions.as_chunks::<3>().0 {
            positions.extend((0..3).map(|axis| atom[axis] + side[axis] * place[axis] as f64));
        }
    }
    (Topology::new(atoms, bonds), positions)
}

fn measure<T: Real>(system: &System, positions: &[f64]) {
    let x: Vec<T> = positions.iter().map(|&x| T::from_f64(x)).collect();
    let mut forces = x.clone();
    let evaluator = BatchEvaluator::<T>::new(system);
    let times: Vec<String> = [1, 2]
        .into_iter()
        .map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("threads");
            let time = best(0.5, 3, || {
                pool.install(|| evaluator.terms(&x, Some(&mut forces)))
                    .expect("finite positions");
            });
            format!("{time:8.2} ms on {threads}")
        })
        .collect();
    println!(
        "{:5} atoms, cutoff {:9}: {} {}",
        system.n_atoms(),
        system
            .cutoff
            .map_or("none".to_owned(), |c| format!("{c} nm")),
        T::NAME,
        times.join(", ")
    );
}

fn main() {
    let copies: Vec<usize> = std::env::args().nth(1).map_or(vec![1, 7, 14, 36], |text| {
        let numbers = text.split(',').map(|number| number.parse());
        numbers
            .collect::<Result<_, _>>()
            .expect("numbers of copies")
    });
    let field = |cutoff| ForceField::ff14sb(Some(BornModel::Obc1), cutoff);
    let built = build_minimised("GYDPETGTWG", &field(None), MinimiseSettings::default())
        .expect("chignolin can be built");
    for copies in copies {
        let (topology, positions) = crowd(&built, copies);
        for cutoff in [None, Some(2.0), Some(1.0)] {
            let system = field(cutoff).system(&topology).expect("parameters");
            if cutoff.is_none() {
                let time = best(0.0, 2, || {
                    std::hint::black_box(energy_forces_reference(&system, &positions));
                });
                println!("{:5} atoms: reference {time:.2} ms", system.n_atoms());
            }
            measure::<f64>(&system, &positions);
            measure::<f32>(&system, &positions);
        }
    }
}
