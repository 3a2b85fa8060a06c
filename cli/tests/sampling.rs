//! `boltzmap minimize`, `remd` and `umbrella`, and conformations in every format.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use boltzmap_cli::npz::NpzFile;

fn command(arguments: &[&str], directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_boltzmap"));
    command
        .args(arguments)
        .current_dir(directory)
        .arg("--quiet");
    command
}

#[track_caller]
fn succeed(arguments: &[&str], directory: &Path) -> String {
    let output = command(arguments, directory).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn refused(arguments: &[&str], directory: &Path) -> String {
    let Output { status, stderr, .. } = command(arguments, directory).output().unwrap();
    let complaint = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{arguments:?}: {complaint}");
    assert!(
        complaint.starts_with("error: ") && complaint.lines().count() == 1,
        "{complaint}"
    );
    complaint
}

const SMALL: [&str; 8] = [
    "--ladders",
    "2",
    "--temperatures",
    "3",
    "--equilibration-ps",
    "0.2",
    "--seed",
    "5",
];

#[test]
fn conformations_are_the_same_in_every_format() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    succeed(&["build", "Ace-A-Nme", "--out", "a.pdb"], at);
    let mut energies = Vec::new();
    for ending in ["npz", "dcd", "xtc", "pdb"] {
        let out = format!("frames.{ending}");
        let mut arguments = vec!["remd", "Ace-A-Nme", "--ps", "1", "--out", &out];
        arguments.extend(SMALL);
        succeed(&arguments, at);
        succeed(
            &[
                "energy",
                "a.pdb",
                "--force-field",
                "amber99sbildn+obc2",
                "--positions",
                &out,
                "--out",
                "e.npz",
            ],
            at,
        );
        let file = NpzFile::open(&at.join("e.npz")).unwrap();
        energies.push(file.finite::<f64>("energy", &[Some(10)]).unwrap().values);
    }
    // DCD holds f32 in Å; XTC and PDB round to 10⁻³ nm and 10⁻³ Å.
    for (other, tolerance) in energies[1..].iter().zip([0.05, 40.0, 1.0]) {
        for (a, b) in other.iter().zip(&energies[0]) {
            assert!((a - b).abs() < tolerance, "{a} instead of {b}");
        }
    }
    let complaint = refused(&["remd", "Ace-A-Nme", "--out", "frames.txt"], at);
    assert!(complaint.contains(".xtc"), "{complaint}");
    for ending in ["dcd", "xtc", "pdb", "npz"] {
        let name = format!("cut.{ending}");
        let bytes = std::fs::read(at.join(format!("frames.{ending}"))).unwrap();
        std::fs::write(at.join(&name), &bytes[..bytes.len() * 2 / 3]).unwrap();
        let complaint = refused(
            &[
                "energy",
                "a.pdb",
                "--force-field",
                "amber99sbildn+obc2",
                "--positions",
                &name,
                "--out",
                "e.npz",
            ],
            at,
        );
        assert!(complaint.contains(&name), "{complaint}");
    }
}

#[test]
fn a_card_tells_when_its_file_was_changed() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let mut arguments = vec!["remd", "Ace-A-Nme", "--ps", "1", "--out", "x.npz"];
    arguments.extend(SMALL);
    succeed(&arguments, at);
    let card = std::fs::read_to_string(at.join("x.npz.card.json")).unwrap();
    for word in [
        "amber99sbildn+obc2",
        "\"frames\": 10",
        "\"seed\": 5",
        "\"temperature_k\": 300.0",
        "sha256",
    ] {
        assert!(card.contains(word), "{card}");
    }
    let minimise = [
        "minimize",
        "Ace-A-Nme",
        "--positions",
        "x.npz",
        "--out",
        "m.npz",
    ];
    succeed(&minimise, at);
    let energies = NpzFile::open(&at.join("m.npz")).unwrap();
    let energies = energies
        .finite::<f64>("potential_energy", &[Some(10)])
        .unwrap();
    assert!(
        energies.values.iter().all(|&energy| energy < -90.0),
        "{:?}",
        energies.values
    );
    let mut bytes = std::fs::read(at.join("x.npz")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(at.join("x.npz"), bytes).unwrap();
    assert!(refused(&minimise, at).contains("SHA-256"));
}

/// Starts a command, interrupts it after a while, and waits.
#[cfg(unix)]
fn interrupt(arguments: &[&str], directory: &Path) -> Option<i32> {
    let mut child = command(arguments, directory)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(700));
    Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    child.wait().unwrap().code()
}

#[cfg(unix)]
#[test]
fn interrupted_runs_go_on_to_the_same_bits() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let mut whole = vec!["remd", "Ace-A-Nme", "--ps", "60", "--out", "whole.npz"];
    whole.extend(SMALL);
    let mut parts = whole.clone();
    parts[5] = "parts.npz";
    succeed(&whole, at);
    // On a fast machine it may finish first; then there is nothing to resume.
    if interrupt(&parts, at) == Some(130) {
        assert!(at.join("parts.npz.state.npz").exists());
        let mut other = parts.clone();
        other.extend(["--friction", "3", "--resume"]);
        assert!(refused(&other, at).contains("other settings"));
        parts.push("--resume");
        succeed(&parts, at);
    }
    assert!(!at.join("parts.npz.state.npz").exists());
    let bytes = |name: &str| std::fs::read(at.join(name)).unwrap();
    assert!(bytes("whole.npz") == bytes("parts.npz"));

    let umbrella = |out| {
        [
            "umbrella",
            "Ace-A-Nme",
            "--windows",
            "12",
            "--ps",
            "30",
            "--equilibration-ps",
            "2",
            "--out",
            out,
        ]
    };
    succeed(&umbrella("whole"), at);
    if interrupt(&umbrella("parts"), at) == Some(130) {
        let mut resumed = umbrella("parts").to_vec();
        resumed.push("--resume");
        succeed(&resumed, at);
    }
    assert!(bytes("whole/umbrella.npz") == bytes("parts/umbrella.npz"));
    let picture = String::from_utf8(bytes("whole/surface.svg")).unwrap();
    roxmltree::Document::parse(&picture).unwrap();
    let surface = NpzFile::open(&at.join("whole/surface.npz")).unwrap();
    let free = surface
        .array::<f64>("free_energy_kt", &[Some(36)])
        .unwrap()
        .values;
    assert!(free.contains(&0.0) && free.iter().all(|&f| f >= 0.0));
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_split_comes_from_ladders_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let arguments = |split| {
        let mut arguments = vec!["remd", "Ace-A-Nme", "--ps", "4", "--out", "x.npz"];
        arguments.extend(["--ladders", "6", "--temperatures", "2", "--highest", "330"]);
        arguments.extend(["--equilibration-ps", "0.2", "--split", split]);
        arguments
    };
    succeed(&arguments("30,10,15"), at);
    let mut seen = Vec::new();
    for (name, count) in [("train", 30), ("validation", 10), ("test", 15)] {
        let path = at.join(format!("x.{name}.npz"));
        let file = NpzFile::open(&path).unwrap();
        let shape = [Some(count), Some(22), Some(3)];
        file.finite::<f32>("positions", &shape).unwrap();
        let mut ladders = file.finite::<f64>("ladder", &[Some(count)]).unwrap().values;
        ladders.dedup();
        assert!(ladders.iter().all(|ladder| !seen.contains(ladder)));
        seen.extend(ladders);
        let card = json(&at.join(format!("x.{name}.npz.card.json")));
        assert_eq!(card["frames"], count);
        assert_eq!(card["sha256"].as_str().unwrap().len(), 64);
    }
    let summary = json(&at.join("x.npz.summary.json"));
    for torsion in summary["sets"]["test"]["effective_samples"]
        .as_array()
        .unwrap()
    {
        let size = torsion["by_autocorrelation"].as_f64().unwrap();
        assert!((1.0..=15.0).contains(&size), "{torsion}");
    }
    // Each half of the test set is one of its two ladders' share.
    let floors = &summary["w2_floors"];
    assert!(floors["energy_kt"].as_f64().unwrap() > 0.0, "{floors}");
    assert!(floors["torsions_rad"].as_f64().unwrap() > 0.0, "{floors}");
    for (split, words) in [
        ("30,10", "three"),
        ("30,0,5", "without frames"),
        ("3000,10,15", "raise --ps"),
    ] {
        assert!(refused(&arguments(split), at).contains(words), "{split}");
    }
}

#[test]
fn windows_that_are_too_soft_are_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let run = |out, windows, force_constant| {
        let mut arguments = vec!["umbrella", "Ace-A-Nme", "--out", out, "--ps", "15"];
        arguments.extend(["--windows", windows, "--force-constant", force_constant]);
        arguments.extend([
            "--equilibration-ps",
            "3",
            "--save-interval",
            "100",
            "--save-frames",
        ]);
        succeed(&arguments, at);
        json(&at.join(out).join("summary.json"))
    };
    let soft = run("soft", "8", "6");
    let warnings = soft["warnings"].as_array().unwrap();
    assert!(
        warnings
            .iter()
            .any(|text| text.as_str().unwrap().contains("--force-constant")),
        "{soft}"
    );
    let stiff = run("stiff", "24", "150");
    let deviation =
        |summary: &serde_json::Value| summary["typical_deviation_of_windows"].as_f64().unwrap();
    assert!(
        deviation(&stiff) < 3.0 && deviation(&soft) > 3.0,
        "{soft} {stiff}"
    );
    for summary in [&soft, &stiff] {
        assert_eq!(summary["samples_of_another_configuration"], 0);
    }
    let frames = NpzFile::open(&at.join("stiff/frames.npz")).unwrap();
    let n = 24 * 2 * 150;
    frames
        .finite::<f32>("positions", &[Some(n), Some(22), Some(3)])
        .unwrap();
    let weights = frames
        .finite::<f64>("log_weight", &[Some(n)])
        .unwrap()
        .values;
    assert!((weights.iter().map(|w| w.exp()).sum::<f64>() - 1.0).abs() < 1e-9);
    assert!(at.join("stiff/frames.npz.card.json").exists());
}

/// After 1 ps nothing is known: no number, no error of nothing, but why, and a warning.
#[test]
fn what_a_short_replica_exchange_cannot_tell_it_does_not_tell() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let short = [
        "remd",
        "Ace-A-Nme",
        "--ps",
        "1",
        "--equilibration-ps",
        "0.2",
    ];
    let cases: [(&str, &[&str], &str); 3] = [
        (
            "short.npz",
            &["--ladders", "2"],
            "round trip|from the lowest temperature",
        ),
        // Two temperatures with nothing in common.
        (
            "apart.npz",
            &[
                "--ladders",
                "2",
                "--temperatures",
                "2",
                "--highest",
                "40000",
            ],
            "exchanges between two neighbouring temperatures",
        ),
        (
            "one.npz",
            &["--ladders", "1", "--temperatures", "1"],
            "one ladder alone",
        ),
    ];
    for (out, more, words) in cases {
        let mut arguments = short.to_vec();
        arguments.extend(more);
        arguments.extend(["--out", out]);
        let output = Command::new(env!("CARGO_BIN_EXE_boltzmap"))
            .args(&arguments)
            .current_dir(at)
            .output()
            .unwrap();
        let (said, noted) = (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        );
        assert!(output.status.success(), "{noted}");
        let told = |text: &str| words.split('|').any(|words| text.contains(words));
        assert!(
            said.contains("could not be estimated") && told(&said),
            "{said}"
        );
        assert!(!said.contains('±') && told(&noted), "{said} {noted}");
        let summary = json(&at.join(format!("{out}.summary.json")));
        assert!(told(&summary["warnings"].to_string()), "{summary}");
        let found = &summary["delta_f"]["phi ALA 2"];
        for kind in ["lowest_temperature", "mbar_all_temperatures"] {
            assert!(found[kind]["kt"].is_null() && found[kind]["standard_error_kt"].is_null());
            assert!(found[kind]["could_not_be_estimated"].is_string(), "{found}");
        }
        assert_eq!(summary["configurations"]["chiral_centres"], 1);
        assert_eq!(summary["configurations"]["left_out"], 0);
    }
}

/// The state of ΔF follows the handedness, and handedness is spoken of where there is some.
#[test]
fn glycine_has_no_handedness_and_a_d_residue_the_mirror_state() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    for (sequence, out, state, centres) in [
        (
            "Ace-G-Nme",
            "g.npz",
            "0 < phi GLY 2 < 2 rad",
            "no chiral centre",
        ),
        (
            "Ace-d-Ala-Nme",
            "d.npz",
            "-2 < phi DAL 2 < 0 rad",
            "0 of 10 frames",
        ),
    ] {
        let mut arguments = vec!["remd", sequence, "--ps", "1", "--out", out];
        arguments.extend(SMALL);
        let said = succeed(&arguments, at);
        assert!(said.contains(state) && said.contains(centres), "{said}");
    }
}

/// A run at which every peptide bond turns over: counted, left out by default, kept if asked for.
#[test]
fn frames_with_turned_peptide_bonds_are_left_out_unless_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let run = |out, fixed| {
        let mut arguments = vec!["remd", "Ace-A-Nme", "--ps", "8", "--out", out];
        arguments.extend([
            "--temperature",
            "2500",
            "--highest",
            "3000",
            "--timestep-fs",
            "0.5",
        ]);
        arguments.extend(["--fixed-peptide-bonds", fixed, "--temperatures", "2"]);
        arguments.extend(["--ladders", "2", "--equilibration-ps", "2", "--seed", "5"]);
        let said = succeed(&arguments, at);
        let summary = json(&at.join(format!("{out}.summary.json")));
        (
            said,
            summary["configurations"].clone(),
            summary["sets"]["all"]["frames"].clone(),
        )
    };
    let (said, kept, all) = run("all.npz", "false");
    let (_, left, fewer) = run("trans.npz", "true");
    let counted = |of: &serde_json::Value, what: &str| of[what][0].as_u64().unwrap();
    let turned = counted(&kept, "frames_with_another_peptide_bond");
    let n = kept["frames_of_each_temperature"].as_u64().unwrap();
    // The same dynamics, the same counts.
    assert_eq!(turned, counted(&left, "frames_with_another_peptide_bond"));
    assert!(turned > 0 && turned < n, "{kept}");
    let left_out = |of: &serde_json::Value| of["left_out"].as_u64().unwrap();
    assert_eq!(
        left_out(&kept),
        counted(&kept, "frames_with_another_chirality")
    );
    assert!(left_out(&left) >= turned, "{left}");
    for (frames, of) in [(all, &kept), (fewer, &left)] {
        assert_eq!(frames.as_u64().unwrap(), n - left_out(of));
    }
    assert!(said.contains("such frames are kept"), "{said}");
    // No frame in the file has a bond that turned.
    let file = NpzFile::open(&at.join("trans.npz")).unwrap();
    let positions = file
        .finite::<f64>("positions", &[None, Some(22), Some(3)])
        .unwrap();
    let molecule =
        boltzmap_cli::molecule::Molecule::from_sequence("Ace-A-Nme", "amber99sbildn+obc2").unwrap();
    let backbone = molecule.topology.backbone();
    for frame in positions.values.chunks_exact(66) {
        assert!(boltzmap_physics::observables::same_configuration(
            frame,
            &molecule.positions,
            &backbone
        ));
    }
}

#[test]
fn results_are_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let remd = |out, split: &'static [&'static str]| {
        let mut arguments = vec!["remd", "Ace-A-Nme", "--ps", "1", "--out", out];
        arguments.extend([
            "--ladders",
            "3",
            "--temperatures",
            "2",
            "--equilibration-ps",
            "0",
        ]);
        arguments.extend(split);
        arguments
    };
    succeed(&remd("x.npz", &[]), at);
    succeed(&remd("y.npz", &["--split", "2,2,2"]), at);
    let umbrella = |out| {
        let mut arguments = vec!["umbrella", "Ace-A-Nme", "--windows", "4", "--out", out];
        arguments.extend(["--ps", "1", "--equilibration-ps", "0", "--replicas", "1"]);
        arguments
    };
    succeed(&umbrella("u"), at);
    let complete: [(Vec<&str>, &[&str]); 3] = [
        (
            remd("x.npz", &[]),
            &["x.npz", "x.npz.card.json", "x.npz.summary.json"],
        ),
        (
            umbrella("u"),
            &[
                "u/umbrella.npz",
                "u/surface.npz",
                "u/surface.svg",
                "u/summary.json",
                "u/state.npz",
            ],
        ),
        (
            remd("y.npz", &["--split", "2,2,2"]),
            &[
                "y.train.npz",
                "y.validation.npz.card.json",
                "y.test.npz",
                "y.npz.summary.json",
            ],
        ),
    ];
    for (arguments, files) in complete {
        let bytes = |name: &str| std::fs::read(at.join(name)).unwrap();
        let before: Vec<Vec<u8>> = files.iter().map(|name| bytes(name)).collect();
        let complaint = refused(&arguments, at);
        assert!(
            complaint.contains("--overwrite") && complaint.contains("--out"),
            "{complaint}"
        );
        // Any one of them is enough, and none is touched.
        for (name, was) in files.iter().zip(&before) {
            assert!(bytes(name) == *was);
            for other in files.iter().filter(|other| *other != name) {
                std::fs::rename(at.join(other), at.join("away")).unwrap();
                refused(&arguments, at);
                std::fs::rename(at.join("away"), at.join(other)).unwrap();
            }
        }
        let mut again = arguments.clone();
        again.push("--overwrite");
        succeed(&again, at);
    }
    // The state of an unfinished run is as precious.
    std::fs::write(at.join("z.npz.state.npz"), "unfinished").unwrap();
    let complaint = refused(&remd("z.npz", &[]), at);
    assert!(complaint.contains("--resume"), "{complaint}");
    assert_eq!(
        std::fs::read(at.join("z.npz.state.npz")).unwrap(),
        b"unfinished"
    );
}

#[test]
fn too_few_samples_are_refused_before_any_work() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let mut arguments = vec!["umbrella", "Ace-A-Nme", "--windows", "4", "--ps", "0.2"];
    arguments.extend(["--force-constant", "200", "--equilibration-ps", "0.2"]);
    arguments.extend(["--replicas", "1", "--out", "c"]);
    let complaint = refused(&arguments, at);
    assert!(
        complaint.contains("records 1 samples") && complaint.contains("--ps"),
        "{complaint}"
    );
    assert!(!at.join("c").exists());
    let complaint = refused(&["remd", "Ace-A-Nme", "--ps", "0", "--out", "r.npz"], at);
    assert!(complaint.contains("no frame"), "{complaint}");
}

#[test]
fn impossible_runs_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let complaint = refused(
        &["umbrella", "Ace-A-Nme", "--residue", "2", "--out", "u"],
        at,
    );
    assert!(complaint.contains("1 residues"), "{complaint}");
    let complaint = refused(
        &[
            "remd",
            "Ace-A-Nme",
            "--out",
            "x.npz",
            "--timestep-fs",
            "30",
            "--ps",
            "3",
            "--ladders",
            "1",
        ],
        at,
    );
    // The step, and an atom by name.
    assert!(
        complaint.contains("step") && complaint.contains(" of "),
        "{complaint}"
    );
    let complaint = refused(&["remd", "Ace-A-Nme", "--out", "x.npz", "--resume"], at);
    assert!(complaint.contains("nothing to go on from"), "{complaint}");
    assert!(refused(&["minimize", "AXA", "--out", "m.npz"], at).contains("'X'"));
}
