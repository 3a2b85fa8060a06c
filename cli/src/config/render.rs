//! Writing a resolved configuration with the documentation of every key.

use toml::Value;

use super::{Config, DEFAULTS, merge};

/// The default preset's text with the configuration's values in the place of its own.
pub(super) fn render(config: &Config) -> String {
    let values = merge::flatten(&merge::table_of(config));
    let mut section = String::new();
    let mut output = String::from("# Resolved configuration: every setting of this run.\n");
    // The first comment speaks of the preset file.
    for line in DEFAULTS.lines().skip_while(|line| !line.is_empty()) {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = format!("{name}.");
        }
        let (commented, setting) = match line.strip_prefix("# ") {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let key = setting
            .split_once(" = ")
            .map(|(key, _)| key)
            .filter(|key| is_key(key));
        match key.map(|key| (key, values.get(&format!("{section}{key}")))) {
            Some((key, Some(value))) => output += &format!("{key} = {}\n", literal(value)),
            _ if commented || key.is_none() => output += &format!("{line}\n"),
            _ => {}
        }
    }
    output
}

fn is_key(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A value as TOML.
pub(super) fn literal(value: &Value) -> String {
    match value {
        // The shortest text that reads back to the same number, always with a point or an exponent.
        Value::Float(number) => format!("{number:?}"),
        value => value.to_string(),
    }
}
