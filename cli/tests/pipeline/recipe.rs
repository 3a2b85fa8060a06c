//! The report says how to make its run again, and that makes it.

use std::path::Path;
use std::process::Command;

use crate::damage::change_config;
use crate::{FILES, boltzmap, copy_of, finished, path, succeed, text};

/// The footer of a report.
fn footer(root: &Path) -> String {
    let page = std::fs::read_to_string(root.join("report.html")).unwrap();
    page[page.find("<footer>").expect("a footer")..].to_owned()
}

/// The command in a report's footer, as text.
fn command(root: &Path) -> String {
    let footer = footer(root);
    let (_, rest) = footer.split_once("<code>").expect("a command");
    let (code, _) = rest.split_once("</code>").expect("its end");
    code.replace("&quot;", "\"")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

/// The configuration that a shell resolves the command to.
fn resolved(command: &str) -> String {
    let program = env!("CARGO_BIN_EXE_boltzmap");
    let info = command.replacen("boltzmap run", &format!("'{program}' info"), 1);
    let mut shell = Command::new("sh");
    shell.args(["-c", &info]);
    text(&succeed(shell).stdout)
}

#[track_caller]
fn makes_again(root: &Path) {
    let config = std::fs::read_to_string(root.join("config.toml")).unwrap();
    let command = command(root);
    assert_eq!(resolved(&command), config, "{command}");
}

#[test]
fn a_run_with_changed_settings_is_made_again() {
    assert!(footer(finished()).contains("To make it again"));
    makes_again(finished());
}

#[test]
fn a_run_from_a_file_with_a_name_of_its_own_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("it's mine.toml");
    let mut info = vec!["info", "ala2-tiny"];
    for setting in crate::SMALL {
        info.extend(["--set", setting]);
    }
    let config = text(&succeed(boltzmap(&info)).stdout)
        .replace("name = \"ala2-tiny\"\n", "name = \"mine\"\n");
    std::fs::write(&file, config).unwrap();
    let root = directory.path().join("run");
    let set = "system.sequence='Ace-G-Nme'";
    succeed(boltzmap(&[
        "run",
        path(&file),
        "--out",
        path(&root),
        "--set",
        set,
        "--seed",
        "4",
    ]));
    assert!(footer(&root).contains("To make it again"));
    makes_again(&root);
}

#[test]
fn a_run_whose_stages_differ_says_so() {
    let directory = copy_of(FILES);
    let root = directory.path();
    // Edited before the last stage, in a setting of that stage: one command still makes it.
    change_config(root, "\nbootstrap = 20", "\nbootstrap = 30");
    succeed(boltzmap(&["evaluate", path(root)]));
    assert!(footer(root).contains("To make it again"));
    makes_again(root);
    // Edited in settings of earlier stages: none does.
    change_config(root, "\nproduction_ps = 3.0", "\nproduction_ps = 6.0");
    change_config(
        root,
        "\nlearning_rate = 0.001\n",
        "\nlearning_rate = 0.002\n",
    );
    succeed(boltzmap(&["evaluate", path(root)]));
    let footer = footer(root);
    for words in [
        "No one command makes this run again",
        "data.npz was made with data.production_ps 3.0 where config.toml has 6.0",
        "checkpoint.safetensors was made with training.learning_rate 0.001 where config.toml has 0.002",
    ] {
        assert!(footer.contains(words), "{words}: {footer}");
    }
    makes_again(root);
    // New data beside an old model.
    succeed(boltzmap(&["md", path(root)]));
    succeed(boltzmap(&["evaluate", path(root)]));
    let footer = self::footer(root);
    assert!(
        footer.contains("trained on other data than data.npz holds")
            && !footer.contains("data.npz was made with"),
        "{footer}"
    );
}
