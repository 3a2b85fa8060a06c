//! Every method of training through the stages after the data, and the calibration of the head.

use std::path::Path;

use boltzmap_cli::npz::NpzFile;
use boltzmap_models::checkpoint::Checkpoint;

use crate::{FILES, SMALL, assert_same, boltzmap, contents, finished, path, refused, succeed};

const SHORT: &[&str] = &["training.steps=30", "training.checkpoint_every=10"];

/// A run directory with its configuration and the finished run's data.
pub(crate) fn prepare(root: &Path, more: &[&str]) {
    let mut info = vec!["info", "ala2-tiny"];
    for setting in SMALL.iter().chain(SHORT).chain(more) {
        info.extend(["--set", setting]);
    }
    std::fs::create_dir(root).unwrap();
    std::fs::write(root.join("config.toml"), succeed(boltzmap(&info)).stdout).unwrap();
    for name in ["data.npz", "data.npz.card.json"] {
        std::fs::copy(finished().join(name), root.join(name)).unwrap();
    }
}

pub(crate) fn stages(root: &Path) -> serde_json::Value {
    for stage in ["train", "sample", "evaluate"] {
        succeed(boltzmap(&[stage, path(root)]));
    }
    let text = std::fs::read_to_string(root.join("summary.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Lines of the metrics.
pub(crate) fn metrics(root: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(root.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[track_caller]
fn trained_parts(root: &Path, names: &[&str]) {
    let lines = metrics(root);
    let last = lines.last().expect("a line");
    for name in names {
        let value = last[name].as_f64();
        assert!(value.is_some_and(|v| v > 0.0), "{name} in {last}");
    }
    assert_eq!(last["skipped"], 0);
}

#[test]
fn methods_with_a_head_report_both_likelihoods() {
    let directory = tempfile::tempdir().unwrap();
    let f2d2 = "training.method=\"f2d2\"";
    let diagonal = ["flow_matching", "divergence"];
    let off = ["map_consistency", "divergence_consistency"];
    let cases: [(&str, &[&str]); 5] = [
        ("scallop_scalar", &["training.method=\"scallop_scalar\""]),
        ("shortcut", &[f2d2, "training.f2d2_probes=2"]),
        (
            "mean_flow",
            &[f2d2, "training.f2d2_instantiation=\"mean_flow\""],
        ),
        (
            "lagrangian",
            &[
                f2d2,
                "training.f2d2_instantiation=\"lagrangian\"",
                "training.f2d2_probe_distribution=\"gaussian\"",
            ],
        ),
        (
            "distilled",
            &[
                f2d2,
                "training.f2d2_instantiation=\"distilled\"",
                "training.distillation_start=0.34",
            ],
        ),
    ];
    for (name, settings) in cases {
        let root = directory.path().join(name);
        prepare(&root, settings);
        let summary = stages(&root);
        assert_eq!(summary["likelihood_head"], true, "{name}");
        assert_eq!(summary["nfe"], 2, "{name}");
        assert_eq!(summary["n_audited"], 12, "{name}");
        assert_eq!(summary["n_traced"], 12, "{name}");
        for number in ["ess_head", "ess_exact", "likelihood_gap_std"] {
            assert!(summary[number].is_number(), "{name}: {number}");
        }
        match name {
            "distilled" => {
                trained_parts(&root, &["velocity_distillation", "divergence"]);
                // Flow matching made the teacher, and then stopped.
                let lines = metrics(&root);
                assert!(lines[0]["flow_matching"].as_f64().unwrap() > 0.0);
                assert_eq!(lines[0]["velocity_distillation"], 0.0);
                assert_eq!(lines[lines.len() - 1]["flow_matching"], 0.0);
            }
            _ => trained_parts(&root, &diagonal),
        }
        trained_parts(&root, &off);
    }
}

#[test]
fn falcon_has_exact_likelihoods_only() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("run");
    prepare(&root, &["training.method=\"falcon\""]);
    let summary = stages(&root);
    trained_parts(&root, &["flow_matching", "mean_flow", "cycle"]);
    without_head(&root, &summary, "exact");
    assert_eq!(summary["nfe"], 2);
    assert_eq!(summary["method"], "falcon");
    // Calibration gives it a head, from the head that nothing has trained.
    let root = directory.path().join("calibrated");
    let settings = [
        "training.method=\"falcon\"",
        "calibration.steps=20",
        "calibration.trajectories=50",
        "calibration.held_out=20",
        "calibration.batch=32",
        "calibration.refresh=10",
    ];
    prepare(&root, &settings);
    let summary = stages(&root);
    assert_eq!(summary["likelihood_head"], true);
    assert!(summary["likelihood_gap_std"].is_number());
    assert_eq!(
        (&summary["nfe"], &summary["n_audited"]),
        (&4.into(), &12.into())
    );
    let page = std::fs::read_to_string(root.join("report.html")).unwrap();
    assert!(page.contains("before calibration"));
}

#[test]
fn flow_matching_is_sampled_by_the_continuous_flow() {
    let directory = tempfile::tempdir().unwrap();
    let mut evaluations = Vec::new();
    for tolerance in ["1e-2", "1e-5"] {
        let root = directory.path().join(tolerance);
        let tolerance = format!("sampling.tolerance={tolerance}");
        prepare(&root, &["training.method=\"flow_matching\"", &tolerance]);
        let summary = stages(&root);
        trained_parts(&root, &["flow_matching"]);
        without_head(&root, &summary, "integrated");
        assert_eq!(summary["folded_steps"], 0);
        evaluations.push(summary["nfe"].as_u64().unwrap());
    }
    // More accuracy costs more evaluations.
    assert!(
        6 < evaluations[0] && evaluations[0] < evaluations[1],
        "{evaluations:?}"
    );
}

#[test]
fn another_path_and_solver_give_another_flow() {
    let directory = tempfile::tempdir().unwrap();
    let mut states = Vec::new();
    for settings in [
        &["sampling.solver=\"dormand_prince\""][..],
        &["sampling.solver=\"tsitouras\""],
        &["training.interpolant=\"trigonometric\""],
    ] {
        let root = directory.path().join(states.len().to_string());
        let method = [
            "training.method=\"flow_matching\"",
            "sampling.tolerance=1e-4",
        ];
        prepare(&root, &[&method, settings].concat());
        let summary = stages(&root);
        without_head(&root, &summary, "integrated");
        let file = NpzFile::open(&root.join("samples.npz")).unwrap();
        states.push(
            file.array::<f64>("log_q_exact", &[Some(50)])
                .unwrap()
                .values,
        );
    }
    let distance = |a: usize, b: usize| {
        let pairs = states[a].iter().zip(&states[b]);
        let squares: f64 = pairs.map(|(a, b)| (a - b).powi(2)).sum();
        (squares / 50.0).sqrt()
    };
    // Two solvers of one flow agree as well as their tolerance; the other path is another model.
    assert!(distance(0, 1) < 0.2, "{}", distance(0, 1));
    assert!(
        distance(0, 1) > 0.0 && distance(0, 2) > 0.5,
        "{}",
        distance(0, 2)
    );
}

#[test]
fn guided_samples_have_exact_likelihoods_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let mut likelihoods = Vec::new();
    for guidance in ["0.0", "0.01"] {
        let root = directory.path().join(guidance);
        let guidance = format!("sampling.guidance={guidance}");
        prepare(&root, &[&guidance, "audit.samples=50"]);
        let summary = stages(&root);
        if likelihoods.is_empty() {
            assert_eq!(summary["likelihood_head"], true);
        } else {
            without_head(&root, &summary, "exact");
            // Two steps forwards, again for the gradient, and backwards.
            assert_eq!(summary["nfe"], 6);
        }
        let file = NpzFile::open(&root.join("samples.npz")).unwrap();
        let values = file
            .array::<f64>("log_q_exact", &[Some(50)])
            .unwrap()
            .values;
        likelihoods.push(values.iter().sum::<f64>() / 50.0);
    }
    assert!(likelihoods[1] != likelihoods[0]);
}

/// Every sample has an exact likelihood, and whatever a head would say is null.
#[track_caller]
fn without_head(root: &Path, summary: &serde_json::Value, kind: &str) {
    assert_eq!(summary["likelihood_head"], false);
    for number in [
        "ess_head",
        "ess_head_audited",
        "likelihood_gap_mean",
        "likelihood_gap_std",
    ] {
        assert!(summary[number].is_null(), "{number}: {}", summary[number]);
    }
    assert!(summary["ess_exact"].is_number());
    assert_eq!(summary["n_audited"], 50);
    assert_eq!(summary["likelihood"]["kind"], kind);
    let file = NpzFile::open(&root.join("samples.npz")).unwrap();
    let values = |name: &str| file.array::<f64>(name, &[Some(50)]).unwrap().values;
    assert!(values("log_q_exact").iter().all(|q| q.is_finite()));
    assert!(values("log_q_head").iter().all(|q| q.is_nan()));
    let page = std::fs::read_to_string(root.join("report.html")).unwrap();
    assert!(page.contains("There is none") && !page.contains("NaN"));
}

#[test]
fn a_distillation_resumes_bit_for_bit() {
    let directory = tempfile::tempdir().unwrap();
    let [whole, broken] = ["whole", "broken"].map(|name| directory.path().join(name));
    let settings = [
        "training.method=\"f2d2\"",
        "training.f2d2_instantiation=\"distilled\"",
    ];
    prepare(&whole, &settings);
    succeed(boltzmap(&["train", path(&whole)]));
    // Killed after a checkpoint that holds the frozen teacher, which is then that of the continued training.
    prepare(&broken, &settings);
    let config = std::fs::read_to_string(broken.join("config.toml")).unwrap();
    let file = broken.join("checkpoint.safetensors");
    let arguments = ["train", path(&broken)];
    let mut child = boltzmap(&arguments).spawn().expect("the command starts");
    let held = |steps: u64| {
        Checkpoint::read(&file).is_ok_and(|c| c.metadata["step"].as_u64() >= Some(steps))
    };
    while !held(10) {
        if child.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let _ = child.kill();
    child.wait().unwrap();
    let checkpoint = Checkpoint::read(&file).unwrap();
    assert!(
        checkpoint
            .tensors
            .contains_key("teacher/final.velocity.weight")
    );
    succeed(boltzmap(&["train", path(&broken), "--resume"]));
    assert_eq!(
        std::fs::read_to_string(broken.join("config.toml")).unwrap(),
        config
    );
    assert_same(
        &whole,
        &broken,
        &["checkpoint.safetensors", "metrics.jsonl"],
    );
    // Without its teacher a checkpoint cannot be continued.
    let mut damaged = checkpoint;
    damaged
        .tensors
        .retain(|name, _| !name.starts_with("teacher/"));
    damaged.metadata["step"] = 20.into();
    damaged.write(&file).unwrap();
    let complaint = refused(&broken, &["train", path(&broken), "--resume"]);
    assert!(complaint.contains("teacher/"), "{complaint}");
}

#[test]
fn calibration_stores_a_head_and_leaves_the_samples() {
    let directory = tempfile::tempdir().unwrap();
    let [plain, calibrated] = ["plain", "calibrated"].map(|name| directory.path().join(name));
    let settings = [
        "calibration.steps=60",
        "calibration.trajectories=100",
        "calibration.held_out=40",
        "calibration.batch=32",
        "calibration.learning_rate=3e-3",
        "calibration.evaluate_every=10",
    ];
    prepare(&plain, &[]);
    prepare(&calibrated, &settings);
    let without = stages(&plain);
    let with = stages(&calibrated);
    let expected = FILES.iter().filter(|name| **name != "provenance.json");
    assert!(contents(&calibrated).keys().eq(expected));
    assert!(without["calibration"].is_null());
    let report = &with["calibration"];
    let number = |when: &str, what: &str| report[when][what].as_f64().unwrap();
    assert!(report["best_step"].as_u64().unwrap() > 0, "{report}");
    assert!(
        number("after", "step_rms") < number("before", "step_rms"),
        "{report}"
    );
    assert_eq!((&without["nfe"], &with["nfe"]), (&2.into(), &4.into()));
    // The map did not move: same samples, same exact likelihoods; what the head says did.
    let read = |root: &Path, name: &str| {
        let file = NpzFile::open(&root.join("samples.npz")).unwrap();
        file.array::<f64>(name, &[Some(50)]).unwrap().values
    };
    let bits = |values: Vec<f64>| values.into_iter().map(f64::to_bits).collect::<Vec<_>>();
    for name in ["energy", "log_q_exact"] {
        assert_eq!(
            bits(read(&plain, name)),
            bits(read(&calibrated, name)),
            "{name}"
        );
    }
    assert_ne!(read(&plain, "log_q_head"), read(&calibrated, "log_q_head"));
    // Done once: resuming changes nothing. Starting anew gives the same bits.
    let before = contents(&calibrated)["checkpoint.safetensors"].clone();
    succeed(boltzmap(&["train", path(&calibrated), "--resume"]));
    assert!(contents(&calibrated)["checkpoint.safetensors"] == before);
    succeed(boltzmap(&["train", path(&calibrated), "--threads", "1"]));
    assert!(contents(&calibrated)["checkpoint.safetensors"] == before);
}

#[test]
fn settings_that_no_method_can_use_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("run");
    let f2d2 = "training.method=\"f2d2\"";
    for (settings, hint) in [
        (&["training.method=\"falcn\""][..], "falcon"),
        (&[f2d2, "training.f2d2_instantiation=\"fast\""], "shortcut"),
        (&[f2d2, "training.f2d2_probes=0"], "training.f2d2_probes"),
        (
            &[
                f2d2,
                "training.f2d2_instantiation=\"distilled\"",
                "training.distillation_start=0.0",
            ],
            "training.distillation_start",
        ),
        (
            &[
                "training.method=\"falcon\"",
                "training.falcon_average_weight=0.0",
                "training.falcon_cycle_weight=0.0",
            ],
            "falcon_cycle_weight",
        ),
        (
            &["training.velocity_weight=0.0"],
            "training.velocity_weight",
        ),
        (
            &["training.method=\"flow_matching\"", "calibration.steps=5"],
            "calibration.steps",
        ),
        (&["calibration.held_out=1"], "calibration.held_out"),
        (&["sampling.tolerance=0.0"], "sampling.tolerance"),
        (&["sampling.solver=\"euler\""], "tsitouras"),
        (&["training.interpolant=\"cosine\""], "trigonometric"),
        (&["sampling.guidance=inf"], "sampling.guidance"),
        (
            &["training.method=\"falcon\"", "sampling.guidance=0.1"],
            "sampling.guidance",
        ),
    ] {
        let complaint = refused(directory.path(), &crate::run_arguments(&root, settings));
        assert!(complaint.contains(hint), "{settings:?}: {complaint}");
    }
}
