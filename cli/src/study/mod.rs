//! `boltzmap study`: measurements that papers about likelihood distillation leave out.

pub mod cost;
pub mod estimators;
pub mod field;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::args::EstimatorStudyArguments;
use crate::bench::table::markdown;
use crate::commands::print;
use crate::progress;
use crate::run_dir::{Provenance, RunDir, check_writable, write_atomically};
use estimators::Row;
use field::{Field, GaussianField, NetworkField};

/// Coordinates of the Gaussian.
const GAUSSIAN_DIMENSION: usize = 60;
/// Its smallest and largest standard deviation.
const GAUSSIAN_RANGE: (f64, f64) = (0.1, 2.0);

/// All that a study measured.
#[derive(Debug, Serialize)]
struct Study {
    version: &'static str,
    commit: &'static str,
    date: String,
    threads: usize,
    seed: u64,
    samples: usize,
    cases: Vec<Case>,
}

/// One velocity field.
#[derive(Debug, Serialize)]
struct Case {
    name: String,
    dimension: usize,
    rows: Vec<Row>,
    /// What a target costs, for a network.
    cost: Option<cost::Cost>,
}

/// `boltzmap study estimators`.
///
/// # Errors
/// If the run cannot be read, a file cannot be written, or the user interrupts.
pub fn estimators(arguments: &EstimatorStudyArguments) -> Result<()> {
    if let Some(path) = &arguments.json {
        check_writable(path)?;
    }
    progress::install_interrupt_handler()?;
    let provenance = Provenance::now(arguments.seed);
    let mut cases = Vec::new();
    let gaussian = GaussianField::new(GAUSSIAN_DIMENSION, GAUSSIAN_RANGE, arguments.seed);
    cases.push(study(
        format!(
            "Gaussian in {GAUSSIAN_DIMENSION} dimensions, standard deviations {} to {} along random axes",
            GAUSSIAN_RANGE.0, GAUSSIAN_RANGE.1
        ),
        &gaussian,
        arguments,
    )?);
    if let Some(directory) = &arguments.run {
        let (run, config) = RunDir::open(directory)?;
        let network = NetworkField::read(&run, &config)
            .with_context(|| format!("cannot study {}", directory.display()))?;
        let mut case = study(
            format!("{}, network of {}", config.name, directory.display()),
            &network,
            arguments,
        )?;
        case.cost = Some(cost::measure(&network));
        cases.push(case);
    }
    let mut text = String::new();
    for case in &cases {
        text += &describe(case);
    }
    if let Some(path) = &arguments.json {
        let study = Study {
            version: provenance.version,
            commit: provenance.commit,
            date: provenance.date,
            threads: provenance.threads,
            seed: arguments.seed,
            samples: arguments.samples,
            cases,
        };
        let mut json = serde_json::to_string_pretty(&study)?;
        json.push('\n');
        write_atomically(path, json.as_bytes())?;
    }
    print(&text)
}

fn study(name: String, field: &dyn Field, arguments: &EstimatorStudyArguments) -> Result<Case> {
    let mut rows = Vec::new();
    for &t in &arguments.times {
        progress::check_interrupt()?;
        progress::note(&format!("{name}: t = {t}"));
        rows.push(estimators::measure(
            field,
            t,
            arguments.samples,
            arguments.seed,
        )?);
    }
    Ok(Case {
        dimension: field.dimension(),
        name,
        rows,
        cost: None,
    })
}

/// Tables of one case.
fn describe(case: &Case) -> String {
    let mut text = format!("{}, d = {}\n\n", case.name, case.dimension);
    let names: Vec<&str> = case
        .rows
        .first()
        .map(|row| row.estimators.iter().map(|e| e.name.as_str()).collect())
        .unwrap_or_default();
    let table = |show: &dyn Fn(&estimators::Estimate) -> String, first: &str| {
        let mut cells = vec![vec![first.to_owned(), "divergence".to_owned()]];
        cells[0].extend(names.iter().map(|name| (*name).to_owned()));
        for row in &case.rows {
            let mut line = vec![format!("{}", row.time), format!("{:.1}", row.divergence)];
            line.extend(row.estimators.iter().map(show));
            cells.push(line);
        }
        markdown(&cells)
    };
    text += "Standard deviation of the estimated divergence (one target per sample):\n\n";
    text += &table(&|e| format!("{:.3}", e.standard_deviation), "t");
    text += "\nBias, with its standard error:\n\n";
    text += &table(
        &|e| format!("{:+.2} ± {:.2}", e.bias, e.standard_error),
        "t",
    );
    text +=
        "\nError of one coordinate of the diagonal, root mean square (for one probe, v ∘ Jv):\n\n";
    text += &table(
        &|e| {
            e.coordinate_error
                .map_or_else(|| "-".into(), |v| format!("{v:.3}"))
        },
        "t",
    );
    if let Some(cost) = &case.cost {
        text += &format!(
            "\nFor {} targets on {} threads: velocity alone {}, with one probe by forward mode {} ({:.2} times); SCALLOP's forms need\nthe velocity alone, which flow matching evaluates anyway.\n",
            cost.samples,
            rayon::current_num_threads(),
            crate::bench::statistics::readable(cost.velocity_seconds),
            crate::bench::statistics::readable(cost.probe_seconds),
            cost.probe_seconds / cost.velocity_seconds,
        );
    }
    text + "\n"
}
