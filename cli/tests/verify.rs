//! `boltzmap verify`: what it finds on models whose likelihood errors are known, what it writes, and what it refuses.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use boltzmap_cli::args::BudgetKind;
use boltzmap_cli::npz::NpzFile;
use boltzmap_cli::verify::subject::{Model, Reporter};
use boltzmap_cli::verify::suite::Budget;
use boltzmap_cli::verify::suite::controls::{bias_head, closed_form};
use boltzmap_cli::verify::suite::methods::Trained;
use boltzmap_models::checkpoint::Checkpoint;
use serde_json::Value;
use tempfile::TempDir;

fn boltzmap(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_boltzmap"))
        .args(arguments)
        .arg("--quiet")
        .output()
        .expect("the command starts")
}

#[track_caller]
fn succeed(arguments: &[&str]) -> String {
    let output = boltzmap(arguments);
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {complaint}");
    assert!(complaint.is_empty(), "{complaint}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let output = boltzmap(arguments);
    let complaint = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(
        matches!(output.status.code(), Some(1 | 2)),
        "{arguments:?}: {complaint}"
    );
    assert!(
        complaint.starts_with("error: ") && complaint.lines().count() == 1,
        "{complaint}"
    );
    assert!(!complaint.contains("panicked"), "{complaint}");
    complaint
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// A checkpoint of the exact flow map of unit Gaussian data whose reported log-densities are too high by `bias` nats.
fn gaussian_map(directory: &TempDir, name: &str, bias: f64) -> PathBuf {
    let (map, mut parameters, schedule) = closed_form(3, &Budget::of(BudgetKind::Tiny)).unwrap();
    bias_head(&map, &mut parameters, 1.0 - schedule.epsilon(), bias);
    let trained = Trained {
        model: Model {
            map,
            parameters,
            head: None,
            schedule,
            reporter: Reporter::Head,
            trained_backwards: false,
        },
        tolerance: 1e-4,
        seconds: 0.0,
    };
    let path = directory.path().join(name);
    let checkpoint = trained.checkpoint("closed form", "gaussian", 0).unwrap();
    checkpoint.write(&path).unwrap();
    path
}

fn verified(path: &Path) -> Value {
    let printed = succeed(&["verify", text(path), "--samples", "4000", "--json"]);
    serde_json::from_str(&printed).expect("valid JSON")
}

#[test]
fn a_true_likelihood_is_called_true_and_a_shifted_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let exact = verified(&gaussian_map(&directory, "exact.safetensors", 0.0));
    assert_eq!(exact["judgement"], "true");
    let gap = &exact["measurement"]["gap"];
    for name in ["bias", "spread"] {
        assert!(gap[name]["value"].as_f64().unwrap().abs() < 1e-5, "{gap}");
    }
    assert!(gap["rank"]["value"].as_f64().unwrap() > 0.9999);
    assert!(gap["retained"]["value"].as_f64().unwrap() > 0.999_999);
    // The map is that of the continuous flow, one-to-one, and its own inverse when the times are exchanged.
    let measurement = &exact["measurement"];
    let flow = &measurement["flow"];
    assert!(
        flow["map_against_flow"]["bias"]["value"]
            .as_f64()
            .unwrap()
            .abs()
            < 1e-5
    );
    assert!(flow["distance"]["largest"].as_f64().unwrap() < 1e-5);
    assert_eq!(measurement["inverse"]["success"], 1.0);
    assert_eq!(measurement["inverse"]["other_preimage"], 0.0);
    assert_eq!(measurement["folded_steps"], 0);
    for cycle in measurement["cycle"].as_array().unwrap() {
        assert!(cycle["error"]["largest"].as_f64().unwrap() < 1e-5);
    }
    let instrument = &measurement["instrument"];
    assert!(instrument["rounding"].as_f64().unwrap() < 1e-4);
    assert!(instrument["differences"].as_f64().unwrap() < 1e-8);
    // It holds for any number of steps.
    for count in measurement["step_counts"].as_array().unwrap() {
        assert!(count["gap"]["bias"]["value"].as_f64().unwrap().abs() < 1e-5);
    }

    let shifted = verified(&gaussian_map(&directory, "shifted.safetensors", 0.7));
    assert_eq!(shifted["judgement"], "true_but_for_a_constant");
    let bias = shifted["measurement"]["gap"]["bias"]["value"]
        .as_f64()
        .unwrap();
    assert!((bias - 0.7).abs() < 1e-5, "{bias}");
    assert!(
        shifted["verdict"]
            .as_str()
            .unwrap()
            .contains("too high by 0.7")
    );
    // The steps share the bias in proportion to their length.
    for step in shifted["measurement"]["steps"].as_array().unwrap() {
        let length = step["to"].as_f64().unwrap() - step["from"].as_f64().unwrap();
        let expected = 0.7 * length / 0.99;
        assert!((step["mean"].as_f64().unwrap() - expected).abs() < 1e-5);
    }
}

#[test]
fn few_samples_leave_the_verdict_open() {
    let directory = tempfile::tempdir().unwrap();
    let path = gaussian_map(&directory, "exact.safetensors", 0.0);
    let printed = succeed(&["verify", text(&path), "--samples", "400"]);
    assert!(
        printed.contains("Whether the reported likelihood is true is undecided."),
        "{printed}"
    );
    assert!(printed.contains("draw more with --samples"), "{printed}");
    let html = std::fs::read_to_string(directory.path().join("verify.html")).unwrap();
    assert!(html.contains("true is <b>undecided</b>.") && !html.contains("NaN"));
}

#[test]
fn what_is_compared_with_itself_is_said_to_be() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("suite");
    let printed = succeed(&[
        "verify",
        "--suite",
        "analytic",
        "--budget",
        "tiny",
        "--methods",
        "falcon,flow_matching",
        "--targets",
        "gaussian-8d",
        "--out",
        text(&out),
    ]);
    let rows = printed
        .lines()
        .filter(|line| line.ends_with("exact by construction ✓"));
    assert_eq!(rows.count(), 2, "{printed}");
    let falcon = out.join("models").join("gaussian-8d-falcon.safetensors");
    assert_eq!(verified(&falcon)["judgement"], "exact_by_construction");
}

#[test]
fn files_are_complete_and_the_same_every_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = gaussian_map(&directory, "map.safetensors", 0.2);
    let out = directory.path().join("out");
    let arguments = [
        "verify",
        text(&path),
        "--samples",
        "2000",
        "--steps",
        "1,3",
        "--out",
        text(&out),
    ];
    let printed = succeed(&arguments);
    assert!(
        printed.contains("The reported likelihood is true but for a constant."),
        "{printed}"
    );
    assert!(
        printed.trim_end().ends_with("verify.html") && !printed.contains("NaN"),
        "{printed}"
    );
    assert!(
        printed.lines().all(|line| !line.contains('\x1b')),
        "no colours in a pipe"
    );

    let file = NpzFile::open(&out.join("verify.npz")).unwrap();
    let reported = file.finite::<f64>("log_q_reported", &[Some(2000)]).unwrap();
    let exact = file.finite::<f64>("log_q_exact", &[Some(2000)]).unwrap();
    let gaps = file
        .finite::<f64>("step_gaps", &[Some(2000), Some(2)])
        .unwrap();
    for i in 0..2000 {
        let gap = reported.values[i] - exact.values[i];
        assert!((gap - gaps.values[2 * i] - gaps.values[2 * i + 1]).abs() < 1e-9);
    }
    let html = std::fs::read_to_string(out.join("verify.html")).unwrap();
    for outside in [
        "http:", "https:", "<script", "<link", "@import", "src=", "NaN",
    ] {
        assert!(!html.contains(outside), "{outside}");
    }
    let figures: Vec<&str> = html.split("<svg").skip(1).collect();
    assert!(figures.len() >= 11, "{}", figures.len());
    for figure in figures {
        let figure = format!("<svg{}</svg>", figure.split("</svg>").next().unwrap());
        roxmltree::Document::parse(&figure).unwrap_or_else(|e| panic!("{e}: {figure}"));
    }

    let before = std::fs::read(out.join("verify.npz")).unwrap();
    let first: Value =
        serde_json::from_slice(&std::fs::read(out.join("verify.json")).unwrap()).unwrap();
    let mut again = arguments.to_vec();
    again.extend(["--threads", "1"]);
    succeed(&again);
    assert!(before == std::fs::read(out.join("verify.npz")).unwrap());
    let second: Value =
        serde_json::from_slice(&std::fs::read(out.join("verify.json")).unwrap()).unwrap();
    for part in [
        "assessment",
        "gap",
        "steps",
        "step_counts",
        "flow",
        "inverse",
        "cycle",
        "instrument",
    ] {
        assert_eq!(
            first["measurement"][part], second["measurement"][part],
            "{part}"
        );
    }
}

#[test]
fn the_suite_tries_itself_first_and_then_the_methods() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("suite");
    let printed = succeed(&[
        "verify",
        "--suite",
        "analytic",
        "--budget",
        "tiny",
        "--methods",
        "scallop",
        "--targets",
        "circle,gaussian-8d",
        "--out",
        text(&out),
        "--json",
    ]);
    let record: Value = serde_json::from_str(&printed).expect("valid JSON");
    let judged: Vec<(&str, &str)> = record["controls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["name"].as_str().unwrap(), c["found"].as_str().unwrap()))
        .collect();
    let expected = [
        ("closed form", "true"),
        ("constant bias", "true_but_for_a_constant"),
        ("known spread", "false"),
        ("rare state", "false"),
        ("telescoping", "false"),
    ];
    assert_eq!(judged, expected);
    // An error local to a rare state: small in every average under the proposal, 1.5 kT in the free energy of the state.
    let local = &record["controls"][3];
    assert!(local["gap"]["bias"]["value"].as_f64().unwrap() < 0.05);
    assert!(local["gap"]["retained"]["value"].as_f64().unwrap() > 0.97);
    let free = &local["assessment"]["observables"][0];
    assert!(
        (free["difference"]["value"].as_f64().unwrap() - 1.5).abs() < 1e-3,
        "{free}"
    );
    // The trap: weights that look perfect, of a sampler that is not.
    let trap = &record["controls"][4];
    assert_eq!(trap["tells_the_data"], true);
    assert!(trap["claimed"]["value"].as_f64().unwrap() > 0.99);
    assert!(trap["actual"]["value"].as_f64().unwrap() < 0.7);

    let cells = record["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 2);
    let grid = &cells[0]["grid"];
    // Forty steps of training teach little: the model is close to a Gaussian, far from eight of them.
    let divergence = grid["divergence"].as_f64().unwrap();
    assert!((0.3..3.0).contains(&divergence), "{divergence}");
    assert!((grid["data_mass"].as_f64().unwrap() - 1.0).abs() < 1e-3);
    let covered = grid["model_mass"].as_f64().unwrap();
    assert!((0.5..1.01).contains(&covered), "{covered}");
    assert!(cells[1]["grid"].is_null());
    for cell in cells {
        assert_eq!(cell["reporter"], "head");
        assert!(cell["seconds_per_sample"].as_f64().unwrap() > 0.0);
    }
    let html = std::fs::read_to_string(out.join("verify.html")).unwrap();
    assert!(html.contains("Which likelihoods are true?") && !html.contains("NaN"));

    // A model of the suite is a checkpoint like any other, and names its target.
    let model = out.join("models").join("circle-scallop.safetensors");
    let one = verified(&model);
    let names = |observed: &Value| -> Vec<String> {
        let all = observed["assessment"]["observables"].as_array().unwrap();
        all.iter()
            .map(|o| o["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let expected = names(&cells[0]);
    assert_eq!(names(&one["measurement"]), expected);
    assert!(expected.contains(&"component 8".to_owned()), "{expected:?}");
    let both = [&one["measurement"]["gap"], &cells[0]["against_model"]];
    let [a, b] = both.map(|gap| gap["bias"]["value"].as_f64().unwrap());
    assert!((a - b).abs() < 0.2 + 0.2 * a.abs(), "{a} {b}");
}

#[test]
fn bad_input_is_one_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let missing = refused(&["verify", text(&at("absent"))]);
    assert!(
        missing.contains("there is no checkpoint or run directory"),
        "{missing}"
    );
    let empty = refused(&["verify", text(directory.path())]);
    assert!(empty.contains("holds no config.toml"), "{empty}");

    std::fs::write(at("noise.safetensors"), "no checkpoint").unwrap();
    let foreign = refused(&["verify", text(&at("noise.safetensors"))]);
    assert!(
        foreign.contains("truncated or not a safetensors file"),
        "{foreign}"
    );
    Checkpoint::new(serde_json::json!({"step": 3}))
        .write(&at("other.safetensors"))
        .unwrap();
    let other = refused(&["verify", text(&at("other.safetensors"))]);
    assert!(other.contains("holds no flow map"), "{other}");
    Checkpoint::new(
        serde_json::json!({"flow_map": {"subspace": "full", "network": {"kind": "abacus"}}}),
    )
    .write(&at("kind.safetensors"))
    .unwrap();
    let kind = refused(&["verify", text(&at("kind.safetensors"))]);
    assert!(
        kind.contains("kind that this version does not know"),
        "{kind}"
    );

    let map = gaussian_map(&directory, "map.safetensors", 0.0);
    let sound = Checkpoint::read(&map).unwrap();
    let mut damaged = sound.clone();
    damaged
        .tensors
        .get_mut("average/final.velocity.bias")
        .unwrap()
        .values[0] = f32::NAN;
    damaged.write(&at("nan.safetensors")).unwrap();
    let nan = refused(&["verify", text(&at("nan.safetensors"))]);
    assert!(
        nan.contains("average/final.velocity.bias") && nan.contains("NaN"),
        "{nan}"
    );
    let mut timeless = sound.clone();
    timeless.metadata.as_object_mut().unwrap().remove("times");
    timeless.write(&at("timeless.safetensors")).unwrap();
    let timeless = refused(&["verify", text(&at("timeless.safetensors"))]);
    assert!(timeless.contains("--times"), "{timeless}");

    let path = text(&map);
    for (arguments, words) in [
        (&["--samples", "0"][..], "--samples is 0"),
        (&["--steps", "0,1"], "--steps"),
        (&["--times", "0,0.5,0.5"], "--times is no schedule"),
        (&["--times", "0,1"], "end it at 1 − ε"),
        (&["--methods", "scallop"], "--suite"),
        (&["--suite", "analytic"], "--suite"),
        (&["--out", path], "is a file"),
    ] {
        let mut all = vec!["verify", path];
        all.extend(arguments);
        let complaint = refused(&all);
        assert!(complaint.contains(words), "{complaint}");
    }
    let suite = |arguments: &[&str]| {
        let mut all = vec!["verify", "--suite", "analytic", "--budget", "tiny", "--out"];
        let out = at("suite");
        all.push(text(&out));
        all.extend(arguments);
        refused(&all)
    };
    assert!(
        suite(&["--methods", "magic"]).contains("there is no method 'magic'; choose among scallop")
    );
    assert!(
        suite(&["--targets", "moon"])
            .contains("there is no target 'moon'; choose among gaussian-8d")
    );
    assert!(suite(&["--targets", "circle,circle"]).contains("twice"));
    assert!(
        !at("suite").exists(),
        "nothing is made before the arguments are understood"
    );
    assert!(refused(&["verify"]).contains("RUN_DIR|CHECKPOINT"));
}
