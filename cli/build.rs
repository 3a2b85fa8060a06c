//! Records the commit the binary is built from, so that every run can say which code made it.

use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    if !output.status.success() {
        return None;
    }
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

fn main() {
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).filter(|text| !text.is_empty());
    println!(
        "cargo::rustc-env=BOLTZMAP_COMMIT={}",
        commit.as_deref().unwrap_or("unknown")
    );
    // The log of HEAD changes with every commit and checkout, HEAD itself only with a checkout.
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    println!("cargo::rerun-if-changed=build.rs");
}
