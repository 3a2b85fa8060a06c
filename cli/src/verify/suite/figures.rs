//! The figures of the suite's page.

use boltzmap_objectives::targets::AnalyticTarget;

use super::super::plots::{histogram, range, with_zero};
use super::super::statistics::{Quantiles, sorted};
use super::SuiteRecord;
use super::cell::{Cell, CellArrays, GRID, HALF_WIDTH, grid_points};
use super::terminal::targets;
use crate::report::figures::Figure;
use crate::report::svg::{Axis, Plot, escape, number, viridis};

/// Shades of the densities.
const SHADES: usize = 40;
/// Left margin of plots with method names, in user units.
const NAMES: f64 = 128.0;
/// Height of a row of bars, in user units.
const ROW: f64 = 26.0;

/// Cells of one target with their arrays, in the order of the methods.
fn of<'a>(
    record: &'a SuiteRecord,
    arrays: &'a [CellArrays],
    target: &str,
) -> Vec<(&'a Cell, &'a CellArrays)> {
    record
        .cells
        .iter()
        .zip(arrays)
        .filter(|(cell, _)| cell.target == target)
        .collect()
}

/// Method names from the bottom up, so that the first stands on top.
fn names(cells: &[(&Cell, &CellArrays)]) -> Vec<String> {
    cells
        .iter()
        .rev()
        .map(|(cell, _)| cell.method.clone())
        .collect()
}

/// A plot with one row per method.
fn rows(id: &str, cells: &[(&Cell, &CellArrays)], x: Axis) -> Plot {
    let height = 58.0 + ROW * cells.len().max(2) as f64;
    Plot::new(id, 520.0, height, x, Axis::categories(&names(cells), "")).with_left(NAMES)
}

/// Rank correlations with the model and with the data.
pub(super) fn ranks(record: &SuiteRecord, arrays: &[CellArrays]) -> Figure {
    let panels = targets(record)
        .into_iter()
        .enumerate()
        .map(|(index, target)| {
            let cells = of(record, arrays, &target);
            let lowest = cells
                .iter()
                .flat_map(|(cell, _)| [cell.against_model.rank.low, cell.against_data.rank.low])
                .filter(|v| v.is_finite())
                .fold(0.0, f64::min);
            let x = Axis::linear(lowest - 0.02, 1.02, "rank correlation of reported log q");
            let mut plot = rows(&format!("rank{index}"), &cells, x);
            plot.line("diagonal", &[(1.0, -0.5), (1.0, cells.len() as f64)]);
            for (place, (cell, _)) in cells.iter().rev().enumerate() {
                let y = place as f64;
                for (class, estimate, offset) in [
                    ("weighted", cell.against_model.rank, 0.2),
                    ("proposal", cell.against_data.rank, -0.2),
                ] {
                    let y = y + offset;
                    plot.rectangle(
                        &format!("inner {class}"),
                        (0.0, y - 0.15),
                        (estimate.value, y + 0.15),
                    );
                    plot.line("reference fine", &[(estimate.low, y), (estimate.high, y)]);
                }
            }
            (
                escape(&target),
                plot.finish(&format!("Rank correlations on {target}")),
            )
        })
        .collect();
    Figure {
        title: "Does the report order the samples rightly?",
        layout: "halves",
        panels,
        caption: "Spearman's correlation of the reported log q with the exact log q of the model (blue) and with the data's log p \
                  (orange), with 95 % intervals. A true report reaches 1 in blue; a report that does better in orange than in blue \
                  tells the data's density instead of its own sampler's."
            .into(),
        legend: vec![("weighted", "with the model's exact log q"), ("proposal", "with the data's log p")],
    }
}

/// The gap as boxes.
pub(super) fn gaps(record: &SuiteRecord, arrays: &[CellArrays]) -> Figure {
    let panels = targets(record)
        .into_iter()
        .enumerate()
        .map(|(index, target)| {
            let cells = of(record, arrays, &target);
            let ends: Vec<f64> = cells
                .iter()
                .flat_map(|(cell, _)| {
                    let q = &cell.against_model.quantiles;
                    [q.low, q.high]
                })
                .collect();
            let across = with_zero(range(&ends, 0.0, 0.08));
            let x = Axis::linear(across.0, across.1, "reported − exact log q, nats");
            let mut plot = rows(&format!("gap{index}"), &cells, x);
            plot.line("diagonal", &[(0.0, -0.5), (0.0, cells.len() as f64)]);
            for (place, (cell, _)) in cells.iter().rev().enumerate() {
                let (y, q) = (place as f64, &cell.against_model.quantiles);
                plot.rectangle("outer", (q.low, y - 0.32), (q.high, y + 0.32));
                plot.rectangle("inner", (q.quarter, y - 0.32), (q.three_quarters, y + 0.32));
                plot.line("weighted", &[(q.median, y - 0.32), (q.median, y + 0.32)]);
            }
            (
                escape(&target),
                plot.finish(&format!("Reported minus exact log-density on {target}")),
            )
        })
        .collect();
    Figure {
        title: "How far is the report from the truth?",
        layout: "halves",
        panels,
        caption: "Reported − exact log q of the model's own samples: 5 to 95 % faint, 25 to 75 % strong, the median a line. A box off \
                  the dashed line is a bias, which cancels in weights; a wide box is a spread, which does not."
            .into(),
        legend: Vec::new(),
    }
}

/// What weights claim and what they are worth.
pub(super) fn effective(record: &SuiteRecord, arrays: &[CellArrays]) -> Figure {
    let panels = targets(record)
        .into_iter()
        .enumerate()
        .map(|(index, target)| {
            let cells = of(record, arrays, &target);
            let longest = cells
                .iter()
                .flat_map(|(cell, _)| [cell.claimed.high, cell.actual.high])
                .filter(|v| v.is_finite())
                .fold(0.01, f64::max);
            let end = (106.0 * longest).min(102.0);
            let x = Axis::linear(0.0, end, "effective samples, % of those drawn");
            let mut plot = rows(&format!("ess{index}"), &cells, x);
            for (place, (cell, _)) in cells.iter().rev().enumerate() {
                let y = place as f64;
                for (class, estimate, offset) in [
                    ("proposal", cell.claimed, 0.2),
                    ("weighted", cell.actual, -0.2),
                ] {
                    let y = y + offset;
                    let end = 100.0 * estimate.value;
                    plot.rectangle(&format!("inner {class}"), (0.0, y - 0.15), (end, y + 0.15));
                    plot.line(
                        "reference fine",
                        &[(100.0 * estimate.low, y), (100.0 * estimate.high, y)],
                    );
                }
            }
            (
                escape(&target),
                plot.finish(&format!("Effective sample sizes on {target}")),
            )
        })
        .collect();
    Figure {
        title: "What do weights claim, and what are they worth?",
        layout: "halves",
        panels,
        caption: "Kish's effective sample size of weights p/q with the reported q (orange) and with the exact one (blue). Orange beyond \
                  blue is a sampler that looks better than it is."
            .into(),
        legend: vec![("proposal", "claimed by the report"), ("weighted", "by the exact likelihood")],
    }
}

/// One heat map of a log-density on the grid, shaded by the square root of the density over `most`.
fn heat(id: &str, log_density: &[f64], most: f64, description: &str) -> String {
    let axis = |label: &str| Axis::linear(-HALF_WIDTH, HALF_WIDTH, label);
    let mut plot = Plot::new(id, 250.0, 236.0, axis(""), axis(""))
        .with_left(30.0)
        .with_bottom(26.0);
    let palette = viridis(SHADES);
    plot.cells(
        GRID,
        |row, column| {
            let log = log_density[row * GRID + column];
            // −∞ is a density of zero; NaN is a density that is not known.
            (!log.is_nan()).then(|| {
                let relative = (0.5 * (log - most)).exp();
                ((relative * SHADES as f64) as usize).min(SHADES - 1)
            })
        },
        &palette,
    );
    plot.finish(description)
}

/// The densities of the data and of every method's model, where there is a plane.
pub(super) fn densities(
    record: &SuiteRecord,
    targets: &[(String, AnalyticTarget)],
    arrays: &[CellArrays],
) -> Vec<(String, Figure)> {
    let end = 1.0 - record.epsilon;
    targets
        .iter()
        .enumerate()
        .filter(|(_, (_, target))| target.dimension() == 2)
        .map(|(index, (name, target))| {
            let data: Vec<f64> = grid_points().map(|x| target.log_density(&x, end)).collect();
            let most = sorted(&data).last().copied().unwrap_or(0.0);
            let mut panels = vec![(
                "data".to_owned(),
                heat(&format!("data{index}"), &data, most, &format!("Density of the data: {name}")),
            )];
            for (place, (cell, arrays)) in of(record, arrays, name).into_iter().enumerate() {
                let divergence = cell
                    .grid
                    .as_ref()
                    .map_or_else(String::new, |grid| format!("KL {}", number(grid.divergence)));
                panels.push((
                    format!("{} <small>{divergence}</small>", escape(&cell.method)),
                    heat(
                        &format!("model{index}x{place}"),
                        &arrays.grid,
                        most,
                        &format!("Density of {} on {name}", cell.method),
                    ),
                ));
            }
            let figure = Figure {
                title: "Densities",
                layout: "four",
                panels,
                caption: "Density at time 1 − ε over [−2, 2]², the data's and that of every model, which is its exact one: each point \
                          is traced back through the inverse of the map. One scale, bright where the density is high, by its square \
                          root; cells whose preimage was not found are left blank. KL(data‖model) in nats over the same grid."
                    .into(),
                legend: Vec::new(),
            };
            (name.clone(), figure)
        })
        .collect()
}

/// Histograms of the gap for one target, small multiples.
pub(super) fn histograms(
    record: &SuiteRecord,
    arrays: &[CellArrays],
    target: &str,
    id: usize,
) -> Figure {
    let cells = of(record, arrays, target);
    let panels = cells
        .iter()
        .enumerate()
        .map(|(place, (cell, arrays))| {
            let across = with_zero(range(&arrays.gaps, 0.005, 0.12));
            let (edges, heights) = histogram(&arrays.gaps, across, 40);
            let top = heights.iter().copied().fold(1e-12, f64::max);
            let mut plot = Plot::new(
                &format!("histogram{id}x{place}"),
                250.0,
                170.0,
                Axis::linear(across.0, across.1, "reported − exact, nats"),
                Axis::linear(0.0, 1.1 * top, ""),
            )
            .with_left(40.0);
            plot.steps("weighted", &edges, &heights);
            plot.line("diagonal", &[(0.0, 0.0), (0.0, 2.0 * top)]);
            (
                escape(&cell.method),
                plot.finish(&format!("Histogram of the gap of {}", cell.method)),
            )
        })
        .collect();
    Figure {
        title: "Histograms of the gap",
        layout: "four",
        panels,
        caption: "The whole distribution behind each box, on an axis of its own.".into(),
        legend: Vec::new(),
    }
}

/// The controls: what was built in and what was found.
pub(super) fn controls(record: &SuiteRecord) -> Figure {
    let labels: Vec<String> = record
        .controls
        .iter()
        .rev()
        .map(|c| c.name.to_owned())
        .collect();
    let ends: Vec<f64> = record
        .controls
        .iter()
        .flat_map(|c| [c.gap.quantiles.low, c.gap.quantiles.high])
        .collect();
    let across = with_zero(range(&ends, 0.0, 0.08));
    let height = 58.0 + 34.0 * labels.len() as f64;
    let mut gaps = Plot::new(
        "controls",
        520.0,
        height,
        Axis::linear(across.0, across.1, "reported − exact log q, nats"),
        Axis::categories(&labels, ""),
    )
    .with_left(NAMES);
    gaps.line("diagonal", &[(0.0, -0.5), (0.0, labels.len() as f64)]);
    let mut shares = Plot::new(
        "controls-ess",
        520.0,
        height,
        Axis::linear(0.0, 102.0, "effective samples, % of those drawn"),
        Axis::categories(&labels, ""),
    )
    .with_left(NAMES);
    for (place, control) in record.controls.iter().rev().enumerate() {
        let y = place as f64;
        let q: &Quantiles = &control.gap.quantiles;
        gaps.rectangle("outer", (q.low, y - 0.3), (q.high, y + 0.3));
        gaps.rectangle("inner", (q.quarter, y - 0.3), (q.three_quarters, y + 0.3));
        gaps.line("weighted", &[(q.median, y - 0.3), (q.median, y + 0.3)]);
        if let Some(bias) = control.bias {
            gaps.line("proposal", &[(bias, y - 0.42), (bias, y + 0.42)]);
        }
        for (class, estimate, offset) in [
            ("proposal", control.claimed, 0.18),
            ("weighted", control.actual, -0.18),
        ] {
            let y = y + offset;
            shares.rectangle(
                &format!("inner {class}"),
                (0.0, y - 0.14),
                (100.0 * estimate.value, y + 0.14),
            );
        }
    }
    Figure {
        title: "The instrument on known inputs",
        layout: "halves",
        panels: vec![
            ("The gap, and the bias that was built in".into(), gaps.finish("Gap of the known inputs")),
            ("Effective samples: claimed, and true".into(), shares.finish("Effective sample sizes of the known inputs")),
        ],
        caption: "Left, the gap of inputs whose error is known, with the built-in bias in orange. Right, what their weights claim (orange) \
                  and what they are worth (blue): the last input reports the data's density, so its weights look perfect."
            .into(),
        legend: Vec::new(),
    }
}
