//! Runs that end well.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use boltzmap_cli::npz::NpzFile;
use boltzmap_cli::pipeline::coverage::Coverage;
use boltzmap_cli::pipeline::model::Model;
use boltzmap_cli::pipeline::molecule::Molecule;
use boltzmap_cli::pipeline::samples::Samples;
use boltzmap_cli::run_dir::RunDir;
use npyz::WriterBuilder;

use crate::{
    FILES, REPRODUCIBLE, assert_same, boltzmap, contents, copy_of, finished, path, run_arguments,
    succeed, text,
};

fn summary(root: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(root.join("summary.json")).expect("a summary");
    serde_json::from_str(&text).expect("valid JSON")
}

#[test]
fn a_run_holds_everything_it_promises() {
    let root = finished();
    assert!(contents(root).keys().eq(FILES));
    let summary = summary(root);
    for field in [
        "n_samples",
        "nfe",
        "ess_head",
        "ess_exact",
        "likelihood_gap_mean",
        "likelihood_gap_std",
        "e_w2",
        "t_w2",
        "e_w2_floor",
        "t_w2_floor",
        "threads",
        "seed",
    ] {
        assert!(summary[field].is_number(), "{field}: {}", summary[field]);
    }
    // A free energy is null where one of its two states is empty, and then so is its error.
    for (value, error) in [
        ("delta_f_kt", "delta_f_error_kt"),
        ("delta_f_reference_kt", "delta_f_reference_error_kt"),
    ] {
        assert!(summary.get(value).is_some() && summary.get(error).is_some());
        // The error may be null alone, where too little lies in a state.
        assert!(
            !summary[value].is_null() || summary[error].is_null(),
            "{summary}"
        );
    }
    assert_eq!(summary["system"], "Ace-A-Nme");
    assert_eq!(summary["n_samples"], 50);
    assert_eq!(summary["nfe"], 2);
    assert_eq!(summary["n_audited"], 12);
    assert_eq!(summary["n_traced"], 12);
    assert_eq!(summary["n_unreached"], 0);
    assert_eq!(summary["threads"], 2);
    assert_eq!(summary["seed"], 1);
    assert_eq!(summary["training_steps"], 60);
    assert_eq!(summary["skipped_steps"], 0);
    assert!(summary["simd_tier"].is_string());
    for stage in ["data", "train", "sample", "audit", "evaluate"] {
        assert!(
            summary["seconds"][stage].as_f64().is_some_and(|s| s > 0.0),
            "{stage} in {}",
            summary["seconds"]
        );
    }
    for share in ["ess_head", "ess_exact", "ess_reference"] {
        let value = summary[share].as_f64().unwrap();
        assert!(value > 0.0 && value <= 1.0, "{share} is {value}");
    }
    for distance in ["e_w2", "t_w2", "e_w2_floor", "t_w2_floor"] {
        assert!(summary[distance].as_f64().unwrap() > 0.0, "{distance}");
    }
    // What the reference knows stands beside what it judges.
    let reference = &summary["reference"];
    assert_eq!(reference["ladders"], 1);
    let least = reference["independent_least"].as_f64().unwrap();
    for torsion in ["phi ALA 2", "psi ALA 2"] {
        let held = reference["independent"][torsion].as_f64().unwrap();
        assert!(held >= least && held <= 60.0, "{reference}");
    }
    let page = std::fs::read_to_string(root.join("report.html")).unwrap();
    assert!(page.contains("independent values of the slowest torsion"));
    assert_eq!(summary["chirality_centres"], 1);
    assert_eq!(summary["exact_tangents_per_step"], 60);
}

/// Settings beside the small ones, for another molecule and little else.
fn run_of(sequence: &str, more: &[&str]) -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("run");
    let sequence = format!("system.sequence=\"{sequence}\"");
    let settings = [&[sequence.as_str()], more].concat();
    succeed(boltzmap(&run_arguments(&root, &settings)));
    (directory, root)
}

#[test]
fn a_glycine_has_no_chirality_to_report() {
    let (_directory, root) = run_of("Ace-G-Nme", &["training.steps=5"]);
    let summary = summary(&root);
    assert_eq!(summary["chirality_centres"], 0);
    assert!(summary["chirality_weighted"].is_null() && summary["chirality_proposal"].is_null());
    let page = std::fs::read_to_string(root.join("report.html")).unwrap();
    assert!(!page.contains("<h3>Chirality</h3>") && !page.contains("L chirality"));
}

#[test]
fn the_state_of_a_d_residue_is_the_mirror_image() {
    let (_directory, root) = run_of("Ace-d-Ala-Nme", &["training.steps=5"]);
    let summary = summary(&root);
    let state = summary["delta_f_state"].as_str().unwrap();
    assert!(
        state.starts_with("-2 < phi") && state.ends_with("2 < 0 rad"),
        "{state}"
    );
    assert_eq!(summary["chirality_centres"], 1);
    let page = std::fs::read_to_string(root.join("report.html")).unwrap();
    assert!(page.contains("have the chirality of the sequence") && !page.contains("L chirality"));
}

#[test]
fn fewer_frames_than_asked_for_are_said() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("run");
    let output = succeed(boltzmap(&run_arguments(
        &root,
        &["data.train_frames=2000", "training.steps=5"],
    )));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("data.train_frames asks for 2000, but the dynamics gave"),
        "{said}"
    );
}

#[test]
fn samples_are_weighted_and_centred() {
    let file = NpzFile::open(&finished().join("samples.npz")).unwrap();
    let n = [Some(50)];
    let vector = |name: &str| file.array::<f64>(name, &n).unwrap().values;
    let weights = vector("weights");
    assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    let audited = file.array::<bool>("audited", &n).unwrap().values;
    assert_eq!(audited.iter().filter(|a| **a).count(), 12);
    let (exact, head, energy) = (
        vector("log_q_exact"),
        vector("log_q_head"),
        vector("energy_kt"),
    );
    let mut log_ratios = Vec::new();
    for i in 0..50 {
        assert_eq!(exact[i].is_nan(), !audited[i]);
        assert!(audited[i] || weights[i] == 0.0);
        assert!(head[i].is_finite());
        if weights[i] > 1e-200 {
            // w ∝ exp(−E/kT) / q, so ln w + E/kT + ln q is the same for all.
            log_ratios.push(weights[i].ln() + energy[i] + exact[i]);
        }
    }
    let first = log_ratios[0];
    assert!(
        log_ratios
            .iter()
            .all(|r| (r - first).abs() < 1e-6 * (1.0 + first.abs()))
    );
    let positions = file.finite::<f64>("positions", &[Some(50), Some(22), Some(3)]);
    for frame in positions.unwrap().values.chunks_exact(66) {
        for axis in 0..3 {
            let mean: f64 = frame.iter().skip(axis).step_by(3).sum::<f64>() / 22.0;
            assert!(mean.abs() < 1e-6, "{mean}");
        }
    }
}

/// Samples taken for reference frames are traced back to the noise they came from, and weigh what they weigh.
#[test]
fn samples_traced_back_have_their_own_weights() {
    let (run, config) = RunDir::open(finished()).unwrap();
    let molecule = Molecule::new(&config).unwrap();
    let model = Model::read(&run.checkpoint(), 0).unwrap();
    let samples = Samples::read(&run, &molecule).unwrap();
    let (audited, kt) = (samples.audited(), molecule.thermal_energy);
    let positions: Vec<f32> = audited
        .iter()
        .flat_map(|&i| &samples.positions[66 * i..66 * (i + 1)])
        .map(|&x| x as f32)
        .collect();
    let energy_kt: Vec<f64> = audited.iter().map(|&i| samples.energy[i] / kt).collect();
    let ladders = vec![0; energy_kt.len()];
    let coverage = Coverage::measure(
        &model, &config, &molecule, &positions, &energy_kt, &ladders, &samples,
    )
    .unwrap();
    let expected = samples.log_weights(&samples.log_q_exact, &audited, kt);
    assert_eq!(coverage.count(), expected.len());
    assert_eq!(coverage.unreached(), 0);
    for (found, expected) in coverage.log_weights.iter().zip(&expected) {
        // What is left is the rounding of positions to single precision and of the map's steps.
        assert!(
            (found - expected).abs() < 0.01,
            "{found} against {expected}"
        );
    }
}

/// The `energy` command, fed with the samples' positions, finds the energies that their weights were made of.
#[test]
fn energies_of_samples_are_those_of_the_energy_command() {
    let file = NpzFile::open(&finished().join("samples.npz")).unwrap();
    let positions = file.finite::<f64>("positions", &[Some(50), Some(22), Some(3)]);
    let directory = tempfile::tempdir().unwrap();
    let [pdb, npy, out] = ["a.pdb", "x.npy", "e.npz"].map(|name| directory.path().join(name));
    let mut writer = npyz::WriteOptions::new()
        .default_dtype()
        .shape(&[50, 22, 3])
        .writer(std::fs::File::create(&npy).unwrap())
        .begin_nd()
        .unwrap();
    writer.extend(positions.unwrap().values).unwrap();
    writer.finish().unwrap();
    succeed(boltzmap(&["build", "Ace-A-Nme", "--out", path(&pdb)]));
    let mut command = boltzmap(&["energy", path(&pdb), "--positions", path(&npy)]);
    command.args(["--force-field", "amber99sbildn+obc2", "--out", path(&out)]);
    succeed(command);
    let energies = |file: &NpzFile| file.finite::<f64>("energy", &[Some(50)]).unwrap().values;
    let expected = energies(&NpzFile::open(&out).unwrap());
    for (found, expected) in energies(&file).iter().zip(expected) {
        assert!(
            (found - expected).abs() < 1e-10 * (1.0 + expected.abs()),
            "{found} {expected}"
        );
    }
}

#[test]
fn the_report_needs_nothing_from_elsewhere() {
    let page = std::fs::read_to_string(finished().join("report.html")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("<svg"));
    for fetch in ["src=", "@import", "<link", "<script", "<iframe"] {
        assert!(!page.contains(fetch), "{fetch}");
    }
    for (marker, allowed) in [
        ("href=\"", "#"),
        ("url(", "#"),
        ("http", "http://www.w3.org/"),
        ("https", "never"),
    ] {
        for (at, _) in page.match_indices(marker) {
            let skip = if marker.starts_with("http") {
                0
            } else {
                marker.len()
            };
            let rest = page[at + skip..].trim_start_matches(['"', '\'']);
            assert!(rest.starts_with(allowed), "{}", &page[at..at + 60]);
        }
    }
    assert!(!page.contains("NaN"), "numbers that are not known read n/a");
}

#[test]
fn threads_do_not_matter_and_seeds_do() {
    let directory = tempfile::tempdir().unwrap();
    for threads in ["1", "3"] {
        let root = directory.path().join(threads);
        let mut command = boltzmap(&run_arguments(&root, &[]));
        command.args(["--threads", threads, "--quiet"]);
        let output = succeed(command);
        assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
        assert!(text(&output.stdout).trim().ends_with("report.html"));
        assert_same(&root, finished(), REPRODUCIBLE);
    }
    let root = directory.path().join("other");
    let mut command = boltzmap(&run_arguments(&root, &[]));
    command.args(["--seed", "2"]);
    succeed(command);
    let [ours, theirs] = [&*root, finished()].map(contents);
    for name in ["data.npz", "checkpoint.safetensors", "samples.npz"] {
        assert_ne!(ours[name], theirs[name], "{name}");
    }
}

#[test]
fn stages_one_by_one_are_the_whole_run() {
    let directory = copy_of(&["config.toml"]);
    let root = directory.path();
    for stage in ["md", "train", "sample", "evaluate"] {
        succeed(boltzmap(&[stage, path(root)]));
    }
    assert_same(root, finished(), REPRODUCIBLE);
    // What a clock or the machine says aside, the same summary.
    let [ours, theirs] = [root, finished()].map(|root| {
        let mut summary = summary(root);
        for field in ["seconds", "threads", "date"] {
            summary.as_object_mut().unwrap().remove(field);
        }
        summary
    });
    assert_eq!(ours, theirs);
}

#[test]
fn repeated_stages_replace_their_seconds() {
    let directory = copy_of(FILES);
    let root = directory.path();
    // Times that no stage of this size takes: they must be gone afterwards.
    let timings = r#"[["data",1000.0],["train",1000.0],["sample",1000.0],["audit",1000.0],["evaluate",1000.0]]"#;
    std::fs::write(root.join("timings.json"), timings).unwrap();
    for stage in ["sample", "evaluate"] {
        succeed(boltzmap(&[stage, path(root)]));
    }
    let seconds = &summary(root)["seconds"];
    for stage in ["sample", "audit", "evaluate"] {
        assert!(seconds[stage].as_f64().unwrap() < 900.0, "{seconds}");
    }
    assert_eq!(seconds["data"], 1000.0);
    assert_eq!(seconds["train"], 1000.0);
    assert_same(root, finished(), REPRODUCIBLE);
    // A resumed training adds to its seconds, one from the start does not.
    succeed(boltzmap(&["train", path(root), "--resume"]));
    let text = std::fs::read_to_string(root.join("timings.json")).unwrap();
    let train = |text: &str| {
        let timings: Vec<(String, f64)> = serde_json::from_str(text).unwrap();
        timings.iter().find(|(name, _)| name == "train").unwrap().1
    };
    assert!(train(&text) > 1000.0);
    succeed(boltzmap(&["train", path(root)]));
    let text = std::fs::read_to_string(root.join("timings.json")).unwrap();
    assert!(train(&text) < 900.0, "{text}");
    assert_same(root, finished(), REPRODUCIBLE);
}

/// Waits until `done` holds, or fails after a minute.
fn wait_for(child: &mut Child, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        let status = child.try_wait().expect("a child");
        assert!(status.is_none(), "ended too early: {status:?}");
        assert!(start.elapsed() < Duration::from_secs(60), "too slow");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What Ctrl-C does.
#[cfg(unix)]
fn interrupt(child: &Child) {
    let status = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(status.expect("kill starts").success());
}

#[cfg(unix)]
#[test]
fn interrupted_dynamics_leave_no_data() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("run");
    let mut child = boltzmap(&run_arguments(&root, &["data.production_ps=100000.0"]))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    wait_for(&mut child, || root.join("config.toml").exists());
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    let names = contents(&root);
    assert!(names.keys().eq(["config.toml", "provenance.json"]));
}

/// `timeout -s INT` sends its signal to the process and to its group, microseconds apart: that is one interruption.
#[cfg(unix)]
#[test]
fn a_signal_that_comes_twice_at_once_is_one_interruption() {
    let directory = copy_of(&["config.toml", "data.npz", "data.npz.card.json"]);
    let root = directory.path();
    crate::damage::change_config(root, "\nsteps = 60\n", "\nsteps = 100000\n");
    // Ten steps of this batch, after which it is safe to stop, take far longer than the time between the signals.
    crate::damage::change_config(root, "\nbatch = 24\n", "\nbatch = 1600\n");
    let mut child = boltzmap(&["train", path(root)])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    wait_for(&mut child, || root.join("metrics.jsonl").exists());
    interrupt(&child);
    std::thread::sleep(Duration::from_millis(100));
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let complaint = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{complaint}");
    // It stopped at a safe point and kept what it had.
    assert!(
        complaint.contains("interrupted; go on with --resume"),
        "{complaint}"
    );
    assert!(root.join("checkpoint.safetensors").exists());
}

#[cfg(unix)]
#[test]
fn interrupted_runs_resume_bit_for_bit() {
    let more = ["training.steps=600", "training.checkpoint_every=45"];
    let directory = tempfile::tempdir().unwrap();
    let (whole, broken) = (
        directory.path().join("whole"),
        directory.path().join("broken"),
    );
    // The data are the same as the finished run's, which leaves only the training to be interrupted.
    let prepare = |root: &Path| {
        let mut info = vec!["info", "ala2-tiny"];
        for setting in crate::SMALL.iter().chain(&more) {
            info.extend(["--set", setting]);
        }
        std::fs::create_dir(root).unwrap();
        std::fs::write(root.join("config.toml"), succeed(boltzmap(&info)).stdout).unwrap();
        std::fs::copy(finished().join("data.npz"), root.join("data.npz")).unwrap();
    };
    prepare(&whole);
    prepare(&broken);
    let mut arguments = run_arguments(&whole, &more);
    arguments.push("--resume");
    succeed(boltzmap(&arguments));

    let mut arguments = run_arguments(&broken, &more);
    arguments.push("--resume");
    let start = |threads: &str| {
        boltzmap(&arguments)
            .args(["--threads", threads])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts")
    };
    // First an interruption that can be caught.
    let checkpoint = broken.join("checkpoint.safetensors");
    let mut child = start("1");
    wait_for(&mut child, || checkpoint.exists());
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let complaint = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{complaint}");
    assert!(
        complaint.contains("interrupted; go on with --resume"),
        "{complaint}"
    );
    assert!(!broken.join("samples.npz").exists());
    // Then one that cannot, after the next checkpoint.
    let before = std::fs::read(&checkpoint).unwrap();
    let mut child = start("2");
    wait_for(&mut child, || std::fs::read(&checkpoint).unwrap() != before);
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());

    succeed(boltzmap(&arguments));
    assert_same(&whole, &broken, REPRODUCIBLE);
    // A finished run that is resumed stays as it is.
    succeed(boltzmap(&arguments));
    assert_same(&whole, &broken, REPRODUCIBLE);
}

/// Every kind of molecule, coordinates and network goes through all stages.
#[test]
fn other_molecules_charts_and_networks_run() {
    let directory = tempfile::tempdir().unwrap();
    let short = ["training.steps=20", "training.checkpoint_every=20"];
    let kinds: [(&[&str], usize); 4] = [
        (&["system.sequence=\"AAA\"", "data.warm_t_max=1300"], 33),
        (
            &["system.sequence=\"Ace-AAA-Nme\"", "network.kind=\"mlp\""],
            42,
        ),
        (&["coordinates.chart=\"cartesian\""], 22),
        (&["coordinates.whiten=false", "audit.samples=0"], 22),
    ];
    for (number, (settings, atoms)) in kinds.into_iter().enumerate() {
        let root = directory.path().join(number.to_string());
        let more: Vec<&str> = short.iter().chain(settings).copied().collect();
        succeed(boltzmap(&run_arguments(&root, &more)));
        assert!(contents(&root).keys().eq(FILES), "{settings:?}");
        // A fifth of the training frames of the first kind are from its hot rung.
        let data = NpzFile::open(&root.join("data.npz")).unwrap();
        let train = data.finite::<f32>("train", &[None, Some(atoms), Some(3)]);
        assert!(train.unwrap().shape[0].abs_diff(300) <= 4, "{settings:?}");
        let card = std::fs::read_to_string(root.join("data.npz.card.json")).unwrap();
        assert_eq!(card.contains("shares of [0.8, 0.2]"), number == 0, "{card}");
        let file = NpzFile::open(&root.join("samples.npz")).unwrap();
        let shape = [Some(50), Some(atoms), Some(3)];
        file.finite::<f64>("positions", &shape).unwrap();
        let weights = file.array::<f64>("weights", &[Some(50)]).unwrap().values;
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let summary = summary(&root);
        assert!(summary["ess_head"].is_number(), "{summary}");
        // Without an audit there is no exact likelihood to report.
        let audited = !settings.contains(&"audit.samples=0");
        assert_eq!(summary["ess_exact"].is_number(), audited, "{summary}");
        let likelihood = if audited { "exact" } else { "reported" };
        assert_eq!(summary["likelihood"]["kind"], likelihood);
    }
}
