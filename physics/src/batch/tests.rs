use super::*;
use crate::energy::energy_forces_reference;
use crate::system::*;

/// Scratch
pub(crate) fn scratch_system(key: &str) -> (System, Vec<f64>, Vec<f64>) {
    let text = std::fs::read_to_string(std::env::var("SCRATCH_ORACLE").unwrap()).unwrap();
    let d: serde_json::Value = serde_json::from_str(&text).unwrap();
    let ff = &d["ff"][key];
    let pp = if ff["params"].is_null() { &d["ff"]["ff14SB+obc1/NoCutoff"]["params"] } else { &ff["params"] };
    let rows = |v: &serde_json::Value| -> Vec<Vec<f64>> { v.as_array().unwrap().iter().map(|r| r.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()).collect() };
    let us = |x: f64| x as usize;
    let nb = rows(&pp["nonbonded"]);
    let gb = rows(&ff["gb_params"]);
    let amber = key.contains("amber99_obc");
    let model = if amber { BornModel::Amber99Obc } else if key.contains("obc1") { BornModel::Obc1 } else { BornModel::Obc2 };
    let system = System {
        masses: pp["masses"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect(),
        charges: nb.iter().map(|r| r[0]).collect(),
        sigma: nb.iter().map(|r| r[1]).collect(),
        epsilon: nb.iter().map(|r| r[2]).collect(),
        bonds: rows(&pp["bonds"]).iter().map(|r| Bond { atoms: [us(r[0]), us(r[1])], length: r[2], force_constant: r[3] }).collect(),
        angles: rows(&pp["angles"]).iter().map(|r| Angle { atoms: [us(r[0]), us(r[1]), us(r[2])], angle: r[3], force_constant: r[4] }).collect(),
        torsions: rows(&pp["torsions"]).iter().map(|r| Torsion { atoms: [us(r[0]), us(r[1]), us(r[2]), us(r[3])], periodicity: r[4] as u32, phase: r[5], force_constant: r[6] }).collect(),
        excluded: rows(&pp["excluded"]).iter().map(|r| [us(r[0]), us(r[1])]).collect(),
        pairs14: rows(&pp["exceptions14"]).iter().map(|r| Pair14 { atoms: [us(r[0]), us(r[1])], charge_product: r[2], sigma: r[3], epsilon: r[4] }).collect(),
        generalized_born: Some(GeneralizedBorn { model, radius: gb.iter().map(|r| if amber { r[1] } else { r[1] + 0.009 }).collect(), scale: gb.iter().map(|r| if amber { r[2] } else { r[2] / r[1] }).collect() }),
        cutoff: ff["cutoff_nm"].as_f64(),
    };
    let positions = rows(&d["positions"]).concat();
    let totals = ff["energies"]["total"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    (system, positions, totals)
}

#[test]
fn scratch() {
    for key in ["amber99sbildn+amber99_obc/NoCutoff", "ff14SB+obc1/NoCutoff", "ff14SB+obc2/NoCutoff", "ff14SB+obc1/CutoffNonPeriodic2.0"] {
        let (system, positions, totals) = scratch_system(key);
        let n = totals.len();
        for tier in Tier::available() {
            let evaluator = BatchEvaluator::<f64>::new(&system).on(tier);
            let mut forces = vec![0.0; positions.len()];
            let e = evaluator.terms(&positions, Some(&mut forces)).unwrap();
            let size = 3 * system.n_atoms();
            let mut worst = [0.0f64; 7];
            for i in 0..n {
                let (r, rf) = energy_forces_reference(&system, &positions[i * size..(i + 1) * size]);
                let rel = |a: f64, b: f64| (a - b).abs() / b.abs().max(1.0);
                let fscale = rf.iter().fold(0.0f64, |m, x| m.max(x.abs()));
                let df = rf.iter().zip(&forces[i * size..]).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
                for (w, v) in worst.iter_mut().zip([rel(e[i].bond, r.bond), rel(e[i].angle, r.angle), rel(e[i].torsion, r.torsion), rel(e[i].nonbonded, r.nonbonded), rel(e[i].generalized_born, r.generalized_born), df / fscale, rel(r.total(), totals[i])]) {
                    *w = w.max(v);
                }
            }
            println!("{key} {} {:?}", tier.name(), worst.map(|w| format!("{w:.1e}")));
        }
    }
}

#[test]
fn scratch_speed() {
    let (system, positions, _) = scratch_system("amber99sbildn+amber99_obc/NoCutoff");
    fn go<T: Real>(system: &System, positions: &[f64]) {
        let size = 3 * system.n_atoms();
        let x: Vec<T> = positions[size..21 * size].iter().map(|&x| T::from_f64(x)).collect();
        let x = x.repeat(64);
        for tier in Tier::available() {
            let evaluator = BatchEvaluator::<T>::new(system).on(tier);
            let mut forces = x.clone();
            let mut energies = vec![Energies::default(); 1280];
            let mut best = [f64::MAX; 2];
            for _ in 0..10 {
                let t = std::time::Instant::now();
                for ((e, x), f) in energies.chunks_mut(32).zip(x.chunks(32 * size)).zip(forces.chunks_mut(32 * size)) {
                    dispatch_on(tier, EvaluateChunk { parameters: &evaluator.parameters, positions: x, energies: e, forces: Some(f) });
                }
                best[0] = best[0].min(t.elapsed().as_secs_f64());
                let t = std::time::Instant::now();
                for (e, x) in energies.chunks_mut(32).zip(x.chunks(32 * size)) {
                    dispatch_on(tier, EvaluateChunk { parameters: &evaluator.parameters, positions: x, energies: e, forces: None });
                }
                best[1] = best[1].min(t.elapsed().as_secs_f64());
            }
            println!("{} {} {:.0} energy+force/s, {:.0} energy/s per core", T::NAME, tier.name(), 1280.0 / best[0], 1280.0 / best[1]);
        }
        let worst = {
            let x64: Vec<f64> = x.iter().map(|x| x.as_f64()).collect();
            let exact = BatchEvaluator::<f64>::new(system).energies(&x64).unwrap();
            let e = BatchEvaluator::<T>::new(system).energies(&x).unwrap();
            exact.iter().zip(&e).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
        };
        println!("worst {worst:.2e}");
    }
    go::<f32>(&system, &positions);
    go::<f64>(&system, &positions);
}
