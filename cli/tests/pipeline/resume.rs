//! Settings that change between stages: nothing is ignored in silence.

use crate::damage::change_config;
use crate::{FILES, boltzmap, contents, copy_of, path, refused, succeed, text};

/// What a command that ends well writes to standard error.
#[track_caller]
fn notes(arguments: &[&str]) -> String {
    text(&succeed(boltzmap(arguments)).stderr)
}

#[test]
fn dynamics_are_not_resumed_with_other_settings() {
    let directory = copy_of(FILES);
    let root = directory.path();
    for (from, to, path_of, made, now) in [
        (
            "\nproduction_ps = 3.0",
            "\nproduction_ps = 6.0",
            "data.production_ps",
            "3.0",
            "6.0",
        ),
        ("\nladders = 5", "\nladders = 8", "data.ladders", "5", "8"),
        (
            "\ntrain_frames = 300",
            "\ntrain_frames = 200",
            "data.train_frames",
            "300",
            "200",
        ),
        (
            "\nwarm_fraction = 0.2",
            "\nwarm_fraction = 0.1",
            "data.warm_fraction",
            "0.2",
            "0.1",
        ),
        (
            "\ntemperature = 300.0",
            "\ntemperature = 310.0",
            "system.temperature",
            "300.0",
            "310.0",
        ),
        ("\nseed = 1", "\nseed = 2", "seed", "1", "2"),
    ] {
        change_config(root, from, to);
        let complaint = refused(root, &["md", path(root), "--resume"]);
        let words = format!("{path_of} {made} where config.toml has {now}");
        assert!(complaint.contains(&words), "{complaint}");
        assert!(complaint.contains("boltzmap md"), "{complaint}");
        // The whole pipeline asks the same of the same file.
        let file = root.join("config.toml");
        let whole = ["run", path(&file), "--out", path(root), "--resume"];
        assert!(refused(root, &whole).contains(&words));
        change_config(root, to, from);
    }
    // What did not change is done; what the data do not depend on does not matter.
    let before = contents(root);
    assert_eq!(notes(&["md", path(root), "--resume"]), "");
    change_config(
        root,
        "\nlearning_rate = 0.001\n",
        "\nlearning_rate = 0.002\n",
    );
    assert_eq!(notes(&["md", path(root), "--resume"]), "");
    assert!(contents(root)["data.npz"] == before["data.npz"]);
    // Without a card nothing can be compared, and that is said.
    std::fs::remove_file(root.join("data.npz.card.json")).unwrap();
    assert!(notes(&["md", path(root), "--resume"]).contains("no record of the settings"));
}

#[test]
fn new_data_need_a_new_training() {
    let directory = copy_of(FILES);
    let root = directory.path();
    change_config(root, "\nproduction_ps = 3.0", "\nproduction_ps = 4.0");
    succeed(boltzmap(&["md", path(root)]));
    assert_eq!(notes(&["md", path(root), "--resume"]), "");
    let complaint = refused(root, &["train", path(root), "--resume"]);
    assert!(complaint.contains("other data"), "{complaint}");
    // Another target needs other data.
    change_config(root, "\ntemperature = 300.0", "\ntemperature = 310.0");
    for stage in ["train", "evaluate"] {
        let complaint = refused(root, &[stage, path(root)]);
        let words = "system.temperature 300.0 where config.toml has 310.0";
        assert!(complaint.contains(words), "{complaint}");
    }
    change_config(root, "\ntemperature = 310.0", "\ntemperature = 300.0");
    // Data of another seed may be wanted; it is said.
    change_config(root, "\nseed = 1", "\nseed = 2");
    let said = notes(&["train", path(root)]);
    assert!(said.contains("seed 1 where config.toml has 2"), "{said}");
}

#[test]
fn a_finished_training_is_not_resumed_with_other_settings() {
    let directory = copy_of(FILES);
    let root = directory.path();
    for (from, to, words) in [
        (
            "\nlearning_rate = 0.001\n",
            "\nlearning_rate = 0.002\n",
            "training.learning_rate 0.001",
        ),
        (
            "\nsteps = 60\n",
            "\nsteps = 50\n",
            "more than training.steps (50)",
        ),
        (
            "\nmethod = \"scallop\"",
            "\nmethod = \"falcon\"",
            "training.method \"scallop\"",
        ),
        (
            "\nepsilon = 0.01",
            "\nepsilon = 0.02",
            "training.epsilon 0.01",
        ),
        (
            "\nmethyl_overlap = 30.0",
            "\nmethyl_overlap = 20.0",
            "coordinates.methyl_overlap 30.0",
        ),
        ("\nseed = 1", "\nseed = 2", "seed 1"),
    ] {
        change_config(root, from, to);
        let complaint = refused(root, &["train", path(root), "--resume"]);
        assert!(complaint.contains(words), "{complaint}");
        change_config(root, to, from);
    }
    let before = contents(root);
    succeed(boltzmap(&["train", path(root), "--resume"]));
    assert!(contents(root)["checkpoint.safetensors"] == before["checkpoint.safetensors"]);
    // More steps are taken.
    change_config(root, "\nsteps = 60\n", "\nsteps = 70\n");
    let said = notes(&["train", path(root), "--resume"]);
    assert!(
        said.contains("training.steps 60 where config.toml has 70"),
        "{said}"
    );
    assert!(contents(root)["checkpoint.safetensors"] != before["checkpoint.safetensors"]);
}

#[test]
fn samples_and_models_of_other_settings_are_not_mixed() {
    let directory = copy_of(FILES);
    let root = directory.path();
    // The model itself must be what the configuration says.
    for (from, to) in [
        ("\nwidth = 16", "\nwidth = 32"),
        ("\nepsilon = 0.01", "\nepsilon = 0.02"),
        ("\nmethod = \"scallop\"", "\nmethod = \"flow_matching\""),
    ] {
        change_config(root, from, to);
        for stage in ["sample", "evaluate"] {
            let complaint = refused(root, &[stage, path(root)]);
            assert!(complaint.contains(" where config.toml has "), "{complaint}");
            assert!(complaint.contains("boltzmap train"), "{complaint}");
        }
        change_config(root, to, from);
    }
    // Other samples are drawn before they are evaluated.
    change_config(root, "\nsamples = 50", "\nsamples = 40");
    let complaint = refused(root, &["evaluate", path(root)]);
    assert!(
        complaint.contains("sampling.samples 50 where config.toml has 40")
            && complaint.contains("boltzmap sample"),
        "{complaint}"
    );
    succeed(boltzmap(&["sample", path(root), "--resume"]));
    succeed(boltzmap(&["evaluate", path(root)]));
    // A model of other training settings may be sampled; it is said.
    change_config(
        root,
        "\nlearning_rate = 0.001\n",
        "\nlearning_rate = 0.002\n",
    );
    let said = notes(&["sample", path(root)]);
    assert!(
        said.contains("training.learning_rate 0.001 where config.toml has 0.002"),
        "{said}"
    );
}

#[test]
fn what_is_cut_down_is_said() {
    let directory = copy_of(FILES);
    let root = directory.path();
    change_config(
        root,
        "\nreference_frames = 12",
        "\nreference_frames = 100000",
    );
    let said = notes(&["evaluate", path(root)]);
    assert!(
        said.contains("frames instead of audit.reference_frames = 100000"),
        "{said}"
    );
    change_config(root, "\nguidance = 0.0", "\nguidance = 0.01");
    let said = notes(&["sample", path(root)]);
    assert!(
        said.contains("all 50 samples instead of audit.samples = 12"),
        "{said}"
    );
    let said = notes(&["evaluate", path(root)]);
    assert!(said.contains("none of audit.reference_frames"), "{said}");
}
