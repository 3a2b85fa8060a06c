//! Trainings and calibrations that diverge: one sentence, and the checkpoint from before.

use std::path::Path;

use boltzmap_models::checkpoint::Checkpoint;

use crate::damage::change_config;
use crate::methods::{metrics, prepare, stages};
use crate::{boltzmap, contents, path, refused, succeed, text};

/// Runs a command that must fail with one sentence, which comes back; unlike a refused one it may leave files.
#[track_caller]
fn stopped(arguments: &[&str]) -> String {
    let output = boltzmap(arguments).arg("--quiet").output().unwrap();
    let complaint = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(
        complaint.starts_with("error: ") && complaint.lines().count() == 1,
        "{complaint}"
    );
    complaint
}

#[track_caller]
fn says(complaint: &str, words: &[&str]) {
    for word in words {
        assert!(complaint.contains(word), "no '{word}' in {complaint}");
    }
}

fn checkpoint(root: &Path) -> Checkpoint {
    let held = Checkpoint::read(&root.join("checkpoint.safetensors")).unwrap();
    for (name, tensor) in &held.tensors {
        // Sane besides finite: nothing of what a learning rate of 1e9 makes.
        let largest = tensor.values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        assert!(largest < 1e3, "{name} holds {largest}");
    }
    held
}

#[test]
fn trainings_of_every_method_stop_where_they_diverge() {
    let directory = tempfile::tempdir().unwrap();
    let f2d2 = "training.method=\"f2d2\"";
    let cases: [&[&str]; 8] = [
        &[],
        &["training.method=\"scallop_scalar\""],
        &["training.method=\"falcon\""],
        &["training.method=\"flow_matching\""],
        &[f2d2],
        &[f2d2, "training.f2d2_instantiation=\"mean_flow\""],
        &[f2d2, "training.f2d2_instantiation=\"lagrangian\""],
        &[f2d2, "training.f2d2_instantiation=\"distilled\""],
    ];
    for (number, settings) in cases.into_iter().enumerate() {
        let root = directory.path().join(number.to_string());
        // A checkpoint is due after every step, the first of which ruins the network.
        let wild = ["training.learning_rate=1e9", "training.checkpoint_every=1"];
        prepare(&root, &[settings, &wild].concat());
        let complaint = stopped(&["train", path(&root)]);
        says(
            &complaint,
            &[
                "diverged from step 1 on",
                "lower training.learning_rate",
                "at step 0",
                "--resume",
            ],
        );
        assert_eq!(checkpoint(&root).metadata["step"], 0);
        // Nothing claims a finished training, and the same settings are not tried again.
        let complaint = refused(&root, &["sample", path(&root)]);
        says(&complaint, &["step 0 of 30", "diverged"]);
        let complaint = refused(&root, &["train", path(&root), "--resume"]);
        says(
            &complaint,
            &["diverged from step 1", "lower training.learning_rate"],
        );
    }
}

#[test]
fn what_diverges_later_leaves_the_checkpoint_before_and_goes_on_with_other_settings() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("run");
    prepare(&root, &[]);
    succeed(boltzmap(&["train", path(&root)]));
    let good = checkpoint(&root);
    change_config(&root, "\nsteps = 30\n", "\nsteps = 60\n");
    change_config(
        &root,
        "\nlearning_rate = 0.001\n",
        "\nlearning_rate = 50.0\n",
    );
    let complaint = stopped(&["train", path(&root), "--resume"]);
    says(
        &complaint,
        &[
            "diverged from step 3",
            "flow_matching",
            "50.0",
            "at step 30",
        ],
    );
    let left = checkpoint(&root);
    assert_eq!(left.metadata["step"], 30);
    assert_eq!(
        left.metadata["diverged"]["settings"]["training.learning_rate"],
        "50.0"
    );
    assert!(left.tensors == good.tensors);
    // The course is there to be looked at.
    let lines = metrics(&root);
    let worst = lines
        .iter()
        .filter_map(|line| line["flow_matching"].as_f64());
    assert!(worst.fold(0.0, f64::max) > 100.0);
    refused(&root, &["train", path(&root), "--resume"]);
    refused(&root, &["sample", path(&root)]);
    // What is left can be looked at, and is called by its name.
    let mut command = boltzmap(&["verify", path(&root), "--samples", "16", "--steps", "1"]);
    command.args(["--quiet", "--json", "--out", path(directory.path())]);
    let printed = text(&succeed(command).stdout);
    says(&printed, &["the training diverged", "of step 30"]);
    // With another rate it goes on, and the report tells of it.
    change_config(
        &root,
        "\nlearning_rate = 50.0\n",
        "\nlearning_rate = 5e-4\n",
    );
    succeed(boltzmap(&["train", path(&root), "--resume"]));
    let done = checkpoint(&root);
    assert_eq!(done.metadata["step"], 60);
    assert!(done.metadata.get("diverged").is_none());
    for stage in ["sample", "evaluate"] {
        succeed(boltzmap(&[stage, path(&root)]));
    }
    let page = std::fs::read_to_string(root.join("report.html")).unwrap();
    says(
        &page,
        &[
            "No one command makes this run again",
            "training.learning_rate 0.001 up to step 30 and with 0.0005 from there",
            "training.steps 30 up to step 30 and with 60 from there",
        ],
    );
}

#[test]
fn an_earlier_finished_training_is_not_taken_for_one_that_diverged() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("run");
    prepare(&root, &[]);
    succeed(boltzmap(&["train", path(&root)]));
    change_config(&root, "\nweight_decay = 0.0\n", "\nweight_decay = 1e6\n");
    let complaint = stopped(&["train", path(&root)]);
    says(&complaint, &["lower training.weight_decay", "at step 0"]);
    says(&refused(&root, &["sample", path(&root)]), &["step 0 of 30"]);
    // From step 0 with sane settings it is a training like any other.
    change_config(&root, "\nweight_decay = 1e6\n", "\nweight_decay = 0.0\n");
    succeed(boltzmap(&["train", path(&root), "--resume"]));
    assert_eq!(checkpoint(&root).metadata["step"], 30);
    assert!(checkpoint(&root).metadata.get("changes").is_none());
}

#[test]
fn a_calibration_that_diverges_leaves_the_trained_map() {
    let directory = tempfile::tempdir().unwrap();
    let [root, plain] = ["run", "plain"].map(|name| directory.path().join(name));
    let settings = [
        "calibration.steps=60",
        "calibration.trajectories=50",
        "calibration.held_out=20",
        "calibration.batch=32",
        "calibration.evaluate_every=10",
        "calibration.learning_rate=1e6",
    ];
    prepare(&root, &settings);
    prepare(&plain, &[]);
    succeed(boltzmap(&["train", path(&plain)]));
    let complaint = stopped(&["train", path(&root)]);
    says(
        &complaint,
        &[
            "the calibration diverged from step 1 on",
            "lower calibration.learning_rate (1000000.0)",
            "without a calibrated head",
        ],
    );
    assert!(checkpoint(&root).tensors == checkpoint(&plain).tensors);
    let complaint = refused(&root, &["sample", path(&root)]);
    says(&complaint, &["not calibrated yet"]);
    change_config(&root, "learning_rate = 1000000.0", "learning_rate = 1e-3");
    let summary = stages(&root);
    assert_eq!(summary["calibration"]["skipped"], 0);
    // Settings of the calibration that change afterwards have it made again, and without it the head is gone.
    let before = contents(&root)["checkpoint.safetensors"].clone();
    change_config(&root, "held_out = 20", "held_out = 30");
    succeed(boltzmap(&["train", path(&root), "--resume"]));
    assert!(contents(&root)["checkpoint.safetensors"] != before);
    let complaint = refused(&root, &["evaluate", path(&root)]);
    says(&complaint, &["another checkpoint"]);
    change_config(&root, "\nsteps = 60\n", "\nsteps = 0\n");
    succeed(boltzmap(&["train", path(&root), "--resume"]));
    assert!(checkpoint(&root).tensors == checkpoint(&plain).tensors);
}

/// To look at the losses before a checkpoint is written does not move the training.
#[test]
fn the_frequency_of_checkpoints_does_not_matter() {
    let directory = tempfile::tempdir().unwrap();
    let [often, once] = ["1", "1000"].map(|every| {
        let root = directory.path().join(every);
        let every = format!("training.checkpoint_every={every}");
        prepare(&root, &["training.method=\"f2d2\"", &every]);
        succeed(boltzmap(&["train", path(&root)]));
        std::fs::read(root.join("checkpoint.safetensors")).unwrap()
    });
    assert!(often == once);
}

/// Trainings too short for a judgement over many steps, and losses that are wrong from the start.
#[test]
fn short_trainings_and_absurd_weights_stop_too() {
    let directory = tempfile::tempdir().unwrap();
    for steps in ["1", "2", "5", "9"] {
        let root = directory.path().join(steps);
        let steps = format!("training.steps={steps}");
        prepare(
            &root,
            &[&steps, "training.warmup=0", "training.learning_rate=1e9"],
        );
        let complaint = stopped(&["train", path(&root)]);
        says(&complaint, &["diverged", "lower training.learning_rate"]);
        assert_eq!(checkpoint(&root).metadata["step"], 0);
    }
    let root = directory.path().join("weight");
    prepare(
        &root,
        &["training.velocity_weight=1e38", "training.steps=12"],
    );
    let complaint = stopped(&["train", path(&root)]);
    says(
        &complaint,
        &["diverged from step 0 on", "training.velocity_weight"],
    );
}

/// A training that shook but came to its end is kept, and is not praised.
#[test]
fn unsteady_trainings_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("run");
    prepare(
        &root,
        &[
            "training.method=\"flow_matching\"",
            "training.learning_rate=0.5",
            "training.steps=100",
        ],
    );
    let output = succeed(boltzmap(&["train", path(&root)]));
    let said = text(&output.stderr);
    says(
        &said,
        &[
            "unsteady",
            "times that of the start",
            "lower training.learning_rate",
        ],
    );
    let steady = directory.path().join("steady");
    prepare(&steady, &[]);
    let said = text(&succeed(boltzmap(&["train", path(&steady)])).stderr);
    assert!(!said.contains("note:"), "{said}");
}
