//! Runs whose input is damaged: one sentence, and nothing changed.

use std::path::Path;

use boltzmap_cli::npz::{NpzFile, NpzWriter};
use boltzmap_models::checkpoint::Checkpoint;

use crate::{FILES, boltzmap, copy_of, finished, path, refused, run_arguments, succeed};

const TRAINED: &[&str] = &[
    "checkpoint.safetensors",
    "config.toml",
    "data.npz",
    "metrics.jsonl",
    "timings.json",
];

fn truncate(file: &Path, fraction: f64) {
    let bytes = std::fs::read(file).unwrap();
    let kept = (bytes.len() as f64 * fraction) as usize;
    std::fs::write(file, &bytes[..kept]).unwrap();
}

pub(crate) fn change_config(root: &Path, from: &str, to: &str) {
    let file = root.join("config.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&file, text.replace(from, to)).unwrap();
}

#[test]
fn damaged_checkpoints_are_refused() {
    let directory = copy_of(TRAINED);
    let root = directory.path();
    let file = root.join("checkpoint.safetensors");
    for fraction in [0.0, 0.001, 0.3, 0.99] {
        std::fs::copy(finished().join("checkpoint.safetensors"), &file).unwrap();
        truncate(&file, fraction);
        for arguments in [
            &["sample", path(root)][..],
            &["train", path(root), "--resume"],
        ] {
            let complaint = refused(root, arguments);
            assert!(
                complaint.contains("checkpoint.safetensors") && complaint.contains("truncated"),
                "{complaint}"
            );
        }
    }
    let sound = Checkpoint::read(&finished().join("checkpoint.safetensors")).unwrap();
    let rewrite = |change: &dyn Fn(&mut Checkpoint)| {
        let mut damaged = sound.clone();
        change(&mut damaged);
        damaged.write(&file).unwrap();
    };
    // One weight that is not a number, in each of the tensors that are read.
    rewrite(&|c| {
        c.tensors
            .get_mut("average/final.velocity.weight")
            .unwrap()
            .values[3] = f32::NAN
    });
    let complaint = refused(root, &["sample", path(root)]);
    assert!(
        complaint.contains("average/final.velocity.weight") && complaint.contains("NaN"),
        "{complaint}"
    );
    for name in ["final.velocity.weight", "optimizer/second_moment"] {
        rewrite(&|c| c.tensors.get_mut(name).unwrap().values[3] = f32::NAN);
        let complaint = refused(root, &["train", path(root), "--resume"]);
        assert!(
            complaint.contains(name) && complaint.contains("NaN"),
            "{complaint}"
        );
    }
    for name in ["average/final.velocity.weight", "optimizer/first_moment"] {
        rewrite(&|c| drop(c.tensors.remove(name)));
        let complaint = refused(root, &["train", path(root), "--resume"]);
        assert!(complaint.contains(name), "{complaint}");
    }
    rewrite(&|c| {
        let tensor = c.tensors.get_mut("optimizer/first_moment").unwrap();
        tensor.values.truncate(5);
        tensor.shape = vec![5];
    });
    let complaint = refused(root, &["train", path(root), "--resume"]);
    assert!(complaint.contains("optimizer/first_moment"), "{complaint}");
    // Metadata that are not ours, or contradict themselves.
    rewrite(&|c| c.metadata = serde_json::json!({"step": 3}));
    refused(root, &["sample", path(root)]);
    rewrite(&|c| c.metadata["skipped"] = serde_json::json!(1000));
    refused(root, &["train", path(root), "--resume"]);
}

#[test]
fn damaged_data_are_refused() {
    let directory = copy_of(&["config.toml", "data.npz"]);
    let root = directory.path();
    let file = root.join("data.npz");
    for fraction in [0.0, 0.2, 0.999] {
        std::fs::copy(finished().join("data.npz"), &file).unwrap();
        truncate(&file, fraction);
        let complaint = refused(root, &["train", path(root)]);
        assert!(complaint.contains("data.npz"), "{complaint}");
    }
    let sound = NpzFile::open(&finished().join("data.npz")).unwrap();
    let frames = [None, None, Some(3)];
    let train = sound.array::<f32>("train", &frames).unwrap().values;
    let reference = sound.array::<f32>("reference", &frames).unwrap().values;
    let write = |atoms: usize, train: &[f32]| {
        let n_reference = reference.len() / 3 / atoms;
        let reference = &reference[..n_reference * atoms * 3];
        NpzWriter::new()
            .array("train", &[train.len() / 3 / atoms, atoms, 3], train)
            .array("reference", &[n_reference, atoms, 3], reference)
            .array("reference_second", &[n_reference, atoms, 3], reference)
            .array("coverage", &[n_reference, atoms, 3], reference)
            .array("coverage_ladder", &[n_reference], &vec![4i64; n_reference])
            .array("torus", &[2, 2], &[0.1f64, 0.2, 0.3, 0.4])
            .array("ladder", &[2], &[0i64, 1])
            .array("basins", &[1, 3], &[0.0f64, -3.0, 3.0])
            .array("exchange_acceptance", &[1], &[0.5f64])
            .array("round_trips", &[1], &[3i64])
            .write(&file)
            .unwrap();
    };
    // Another molecule: the same numbers cut into frames of 11 atoms.
    write(11, &train);
    let complaint = refused(root, &["train", path(root)]);
    assert!(
        complaint.contains("train") && complaint.contains("22"),
        "{complaint}"
    );
    let mut broken = train.clone();
    broken[66 * 7 + 4] = f32::NAN;
    write(22, &broken);
    let complaint = refused(root, &["train", path(root)]);
    assert!(
        complaint.contains("train") && complaint.contains("[7, 1, 1]"),
        "{complaint}"
    );
    // No frames, and fewer than the coordinates have dimensions.
    for count in [0, 10] {
        write(22, &train[..66 * count]);
        let complaint = refused(root, &["train", path(root)]);
        assert!(complaint.contains("frames"), "{complaint}");
    }
    NpzWriter::new()
        .array("train", &[train.len() / 66, 22, 3], &train)
        .write(&file)
        .unwrap();
    let complaint = refused(root, &["train", path(root)]);
    assert!(complaint.contains("holds no array"), "{complaint}");
    // Of a version before the coverage had frames of its own.
    NpzWriter::new()
        .array("train", &[train.len() / 66, 22, 3], &train)
        .array("reference", &[reference.len() / 66, 22, 3], &reference)
        .array(
            "reference_second",
            &[reference.len() / 66, 22, 3],
            &reference,
        )
        .write(&file)
        .unwrap();
    let complaint = refused(root, &["train", path(root)]);
    assert!(
        complaint.contains("older version") && complaint.contains("boltzmap md"),
        "{complaint}"
    );
}

#[test]
fn damaged_samples_are_refused() {
    let directory = copy_of(FILES);
    let root = directory.path();
    let file = root.join("samples.npz");
    for fraction in [0.0, 0.5, 0.999] {
        std::fs::copy(finished().join("samples.npz"), &file).unwrap();
        truncate(&file, fraction);
        let complaint = refused(root, &["evaluate", path(root)]);
        assert!(complaint.contains("samples.npz"), "{complaint}");
    }
    std::fs::copy(finished().join("samples.npz"), &file).unwrap();
    std::fs::write(root.join("timings.json"), "[[").unwrap();
    let complaint = refused(root, &["evaluate", path(root)]);
    assert!(complaint.contains("timings.json"), "{complaint}");
}

#[test]
fn samples_of_another_checkpoint_are_not_evaluated() {
    let directory = copy_of(FILES);
    let root = directory.path();
    change_config(root, "learning_rate = ", "learning_rate = 2e-4 # ");
    succeed(boltzmap(&["train", path(root)]));
    let complaint = refused(root, &["evaluate", path(root)]);
    assert!(complaint.contains("another checkpoint") && complaint.contains("boltzmap sample"));
    succeed(boltzmap(&["sample", path(root)]));
    succeed(boltzmap(&["evaluate", path(root)]));
}

#[test]
fn stages_out_of_order_are_refused() {
    let directory = copy_of(&["config.toml"]);
    let root = directory.path();
    for (stage, next) in [("train", "md"), ("sample", "train"), ("evaluate", "md")] {
        let complaint = refused(root, &[stage, path(root)]);
        assert!(
            complaint.contains(&format!("boltzmap {next}")),
            "{complaint}"
        );
    }
    std::fs::copy(finished().join("data.npz"), root.join("data.npz")).unwrap();
    let complaint = refused(root, &["evaluate", path(root)]);
    assert!(complaint.contains("boltzmap sample"), "{complaint}");
    // A training that has not reached its end.
    let checkpoint = "checkpoint.safetensors";
    std::fs::copy(finished().join(checkpoint), root.join(checkpoint)).unwrap();
    change_config(root, "steps = 60", "steps = 70");
    let complaint = refused(root, &["sample", path(root)]);
    assert!(complaint.contains("step 60 of 70"), "{complaint}");
}

#[test]
fn checkpoints_of_something_else_are_refused() {
    let directory = copy_of(TRAINED);
    let root = directory.path();
    change_config(root, "width = 16", "width = 32");
    let complaint = refused(root, &["train", path(root), "--resume"]);
    assert!(
        complaint.contains("network.width 16 where config.toml has 32"),
        "{complaint}"
    );
    change_config(root, "width = 32", "width = 16");
    change_config(root, "\"internal\"", "\"cartesian\"");
    let complaint = refused(root, &["train", path(root), "--resume"]);
    assert!(complaint.contains("coordinates"), "{complaint}");
    change_config(root, "\"cartesian\"", "\"internal\"");
    // The checkpoint of another molecule.
    change_config(root, "Ace-A-Nme", "Ace-AA-Nme");
    let complaint = refused(root, &["sample", path(root)]);
    assert!(complaint.contains("another molecule"), "{complaint}");
    // A run is only resumed with the configuration it was started with.
    let run = copy_of(FILES);
    let mut arguments = run_arguments(run.path(), &["network.width=32"]);
    arguments.push("--resume");
    let complaint = refused(run.path(), &arguments);
    assert!(
        complaint.contains("network.width is 16, not 32"),
        "{complaint}"
    );
    let complaint = refused(run.path(), &run_arguments(run.path(), &[]));
    assert!(complaint.contains("finished run"), "{complaint}");
}

#[test]
fn bad_settings_are_refused_before_anything_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("run");
    for (setting, hint) in [
        ("system.sequence=\"Ace-AXA-Nme\"", "X"),
        ("system.sequence=\"\"", "sequence"),
        ("system.sequence=\"Ace-Nme\"", "Ace-Nme"),
        ("system.force_field=\"amber99\"", "amber99sbildn+obc2"),
        ("training.step=10", "did you mean training.steps?"),
        ("training.lr=1e-4", "did you mean training.learning_rate?"),
        ("data.ladders=4", "data.ladders"),
        ("data.timestep_fs=0", "data.timestep_fs"),
        ("data.production_ps=nan", "data.production_ps"),
        ("data.production_ps=1e300", "data.production_ps"),
        ("data.warm_fraction=1", "data.warm_fraction"),
        ("network.width=0", "network.width"),
        ("network.heads=3", "network.heads"),
        ("training.epsilon=1.0", "training.epsilon"),
        ("training.batch=0", "training.batch"),
        ("sampling.steps=0", "sampling.steps"),
        ("sampling.schedule=\"fast\"", "angle"),
        ("audit.samples=51", "audit.samples"),
        ("evaluation.bootstrap=0", "evaluation.bootstrap"),
    ] {
        let complaint = refused(directory.path(), &run_arguments(&root, &[setting]));
        assert!(complaint.contains(hint), "{setting}: {complaint}");
    }
    let file = directory.path().join("file");
    std::fs::write(&file, "text").unwrap();
    let under = file.join("run");
    let complaint = refused(directory.path(), &run_arguments(&under, &[]));
    assert!(complaint.contains(path(&under)), "{complaint}");
}
