//! `boltzmap info`: version, machine, presets; or a resolved configuration.

use anyhow::Result;
use boltzmap_kernels::simd::Tier;
use serde_json::json;

use super::print;
use crate::args::InfoArguments;
use crate::config::{Config, PRESETS};
use crate::run_dir::{COMMIT, VERSION};

/// The first comment of a preset: what it is for.
fn description(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map_while(|line| line.strip_prefix("# "))
        .collect();
    let text = lines.join(" ");
    text.split_inclusive(". ")
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Runs the command.
pub fn info(arguments: &InfoArguments) -> Result<()> {
    let config = &arguments.config;
    if config.source.is_some() || !config.set.is_empty() || config.seed.is_some() {
        let config = Config::resolve(config)?;
        return match arguments.json {
            true => print(&format!("{}\n", serde_json::to_string_pretty(&config)?)),
            false => print(&config.to_toml()),
        };
    }
    let threads = rayon::current_num_threads();
    let tiers: Vec<&str> = Tier::available().iter().map(|tier| tier.name()).collect();
    if arguments.json {
        let presets: serde_json::Map<String, serde_json::Value> = PRESETS
            .iter()
            .map(|(name, text)| ((*name).to_owned(), description(text).into()))
            .collect();
        let value = json!({
            "version": VERSION,
            "commit": COMMIT,
            "simd_tier": Tier::active().name(),
            "simd_tiers_available": tiers,
            "threads": threads,
            "presets": presets,
        });
        return print(&format!("{}\n", serde_json::to_string_pretty(&value)?));
    }
    let mut text = format!(
        "boltzmap {VERSION} (commit {COMMIT})\nSIMD tier  {} (available: {}; BOLTZMAP_SIMD chooses)\nthreads    {threads}\npresets\n",
        Tier::active().name(),
        tiers.join(", ")
    );
    for (name, preset) in PRESETS {
        text += &format!("  {name:<10} {}\n", description(preset));
    }
    text += "'boltzmap info PRESET' prints every setting with its explanation.\n";
    print(&text)
}
