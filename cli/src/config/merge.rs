//! Merging configuration tables, with checks that name what is wrong.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail};
use toml::{Table, Value};

use super::suggest::nearest;
use super::{CHOICES, Config, DEFAULTS};

/// The default values of all settings.
pub(super) fn defaults() -> Table {
    DEFAULTS
        .parse()
        .expect("the embedded default configuration is valid TOML")
}

/// All settings with a value of each one's type.
fn schema() -> BTreeMap<String, Value> {
    flatten(&defaults())
}

/// The paths of all settings, such as `training.steps`, in the order of the documentation.
pub(super) fn paths() -> Vec<String> {
    let mut section = String::new();
    let mut paths = Vec::new();
    for line in DEFAULTS.lines() {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = format!("{name}.");
        } else if let Some((key, _)) = line.split_once(" = ")
            && !line.starts_with('#')
        {
            paths.push(format!("{section}{key}"));
        }
    }
    paths
}

/// A configuration as a table.
pub(super) fn table_of(config: &Config) -> Table {
    Table::try_from(config).expect("a configuration consists of plain values")
}

/// Path → value for every value of a table of sections.
pub(super) fn flatten(table: &Table) -> BTreeMap<String, Value> {
    let mut flat = BTreeMap::new();
    for (key, value) in table {
        match value {
            Value::Table(section) => {
                for (name, value) in section {
                    flat.insert(format!("{key}.{name}"), value.clone());
                }
            }
            value => {
                flat.insert(key.clone(), value.clone());
            }
        }
    }
    flat
}

fn unknown(path: &str, origin: &str) -> anyhow::Error {
    let paths = paths();
    let hint = nearest(path, paths.iter().map(String::as_str)).map_or_else(
        || "'boltzmap info ala2' lists all".to_owned(),
        |name| format!("did you mean {name}?"),
    );
    anyhow!("unknown setting '{path}' in {origin}; {hint}")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "an array",
        Value::Table(_) => "a section",
    }
}

fn found(value: &Value) -> String {
    match value {
        Value::Integer(_) => format!("the integer {value}"),
        Value::Float(_) => format!("the number {value}"),
        Value::String(_) => format!("the string {value}"),
        Value::Boolean(_) => value.to_string(),
        other => kind(other).to_owned(),
    }
}

/// Stores one setting after checking that it exists and has the right type.
fn insert(table: &mut Table, path: &str, value: Value, origin: &str) -> Result<()> {
    let schema = schema();
    let Some(example) = schema.get(path) else {
        if defaults().get(path).is_some_and(Value::is_table) {
            bail!(
                "'{path}' in {origin} is a section, not a setting; name one of its settings, such as {path}.…=…"
            );
        }
        return Err(unknown(path, origin));
    };
    let value = match (example, value) {
        (Value::Float(_), Value::Integer(number)) => Value::Float(number as f64),
        (Value::Integer(_), Value::Integer(number)) if number < 0 => {
            bail!("{path} must not be negative, got {number} in {origin}")
        }
        (example, value) if kind(example) == kind(&value) => value,
        (example, value) => bail!(
            "{path} in {origin}: expected {}, got {}",
            kind(example),
            found(&value)
        ),
    };
    if let Some((_, names)) = CHOICES.iter().find(|(choice, _)| *choice == path)
        && !value.as_str().is_some_and(|text| names.contains(&text))
    {
        let names: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
        let (last, others) = names.split_last().expect("an enumeration has names");
        bail!(
            "{path} in {origin}: expected {} or {last}, got {value}",
            others.join(", ")
        );
    }
    match path.split_once('.') {
        None => table.insert(path.to_owned(), value),
        Some((section, name)) => table
            .get_mut(section)
            .and_then(Value::as_table_mut)
            .expect("the default configuration holds every section")
            .insert(name.to_owned(), value),
    };
    Ok(())
}

/// Merges a TOML text into a table.
pub(super) fn text(table: &mut Table, text: &str, origin: &str) -> Result<()> {
    let incoming: Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| {
            1 + text[..span.start.min(text.len())].matches('\n').count()
        });
        anyhow!(
            "{origin} is not valid TOML, line {line}: {}",
            error.message().replace('\n', ", ")
        )
    })?;
    for (key, value) in incoming {
        let is_section = table.get(&key).is_some_and(Value::is_table);
        match value {
            Value::Table(section) if is_section => {
                for (name, value) in section {
                    insert(table, &format!("{key}.{name}"), value, origin)?;
                }
            }
            Value::Table(section) => {
                // Name a setting inside the unknown section, which gives the better suggestion.
                let path = section
                    .keys()
                    .next()
                    .map_or(key.clone(), |name| format!("{key}.{name}"));
                return Err(unknown(&path, origin));
            }
            value => insert(table, &key, value, origin)?,
        }
    }
    Ok(())
}

/// Merges one `--set key=value`. The value is TOML; what is not is taken as a string.
pub(super) fn assignment(table: &mut Table, text: &str) -> Result<()> {
    let Some((path, value)) = text.split_once('=') else {
        bail!("--set takes KEY=VALUE, such as training.steps=4000, got '{text}'");
    };
    let (path, value) = (path.trim(), value.trim());
    let is_string = matches!(schema().get(path), Some(Value::String(_)));
    let parsed: Option<Value> = format!("value = {value}")
        .parse::<Table>()
        .ok()
        .and_then(|mut t| t.remove("value"));
    let value = match parsed {
        Some(parsed) if !is_string || parsed.is_str() => parsed,
        _ => Value::String(value.to_owned()),
    };
    insert(table, path, value, "--set")
}
