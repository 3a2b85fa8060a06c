//! The figures of one model's page.

use super::Record;
use super::assessment::Assessment;
use super::criteria::{
    AVERAGE_BAD, AVERAGE_GOOD, FREE_ENERGY_BAD, FREE_ENERGY_GOOD, KEPT_BAD, KEPT_GOOD,
};
use super::measure::Arrays;
use super::plots::{boxed, histogram, range, shaded, with_zero};
use super::statistics::{Quantiles, sorted};
use super::verdict::with_interval;
use super::weighted::Observed;
use crate::report::figures::Figure;
use crate::report::svg::{Axis, Plot, count, number};

/// Groups along x of a running median.
const GROUPS: usize = 12;

/// Bins of a histogram of n values: enough to see its shape, few enough to see it through the noise.
fn bins(n: usize) -> usize {
    ((n as f64).sqrt() as usize).clamp(12, 48)
}

/// Reported against exact, their difference, and its histogram.
pub(super) fn calibration(record: &Record, arrays: &Arrays) -> Figure {
    let gaps = arrays.gaps();
    let pairs: Vec<(f64, f64)> = arrays
        .exact
        .iter()
        .copied()
        .zip(arrays.reported.iter().copied())
        .collect();
    let both: Vec<f64> = pairs.iter().flat_map(|&(a, b)| [a, b]).collect();
    let wide = range(&both, 0.001, 0.06);
    let along = range(&arrays.exact, 0.001, 0.06);
    let across = with_zero(range(&gaps, 0.002, 0.12));

    let mut scatter = Plot::new(
        "calibration",
        340.0,
        330.0,
        Axis::linear(wide.0, wide.1, "exact log q, nats"),
        Axis::linear(wide.0, wide.1, "reported log q, nats"),
    );
    scatter.line("diagonal", &[(wide.0, wide.0), (wide.1, wide.1)]);
    shaded(&mut scatter, &pairs, wide, wide);
    scatter.note("", 0.97, 0.95, "end", "below the line: too low");

    let mut residual = Plot::new(
        "residual",
        340.0,
        330.0,
        Axis::linear(along.0, along.1, "exact log q, nats"),
        Axis::linear(across.0, across.1, "reported − exact, nats"),
    );
    let residuals: Vec<(f64, f64)> = pairs.iter().map(|&(exact, r)| (exact, r - exact)).collect();
    shaded(&mut residual, &residuals, along, across);
    residual.line("diagonal", &[(along.0, 0.0), (along.1, 0.0)]);
    residual.line("proposal", &running_median(&residuals));

    let (edges, heights) = histogram(&gaps, across, bins(gaps.len()));
    let top = heights.iter().copied().fold(1e-12, f64::max);
    let mut bars = Plot::new(
        "gaps",
        340.0,
        330.0,
        Axis::linear(across.0, across.1, "reported − exact, nats"),
        Axis::linear(0.0, 1.3 * top, "density, 1/nat"),
    );
    bars.steps("weighted", &edges, &heights);
    bars.line("diagonal", &[(0.0, 0.0), (0.0, 1.06 * top)]);
    let gap = &record.measurement.gap;
    let notes = [
        format!("bias {}", with_interval(gap.bias)),
        format!("spread {}", with_interval(gap.spread)),
    ];
    for (line, text) in notes.iter().enumerate() {
        bars.note("", 0.04, 0.07 + 0.06 * line as f64, "start", text);
    }
    Figure {
        title: "Calibration",
        layout: "three",
        panels: vec![
            (
                "Reported against exact".into(),
                scatter.finish("Reported against exact log-density"),
            ),
            (
                "Difference along log q".into(),
                residual.finish("Reported minus exact along the exact log-density"),
            ),
            (
                "Difference".into(),
                bars.finish("Histogram of reported minus exact log-density"),
            ),
        ],
        caption: format!(
            "Each point is one of {} samples, strongest in colour where they are dense; a true likelihood puts them all on the \
             dashed line. A running median (solid) that slopes says that likely and unlikely samples are wrong in different ways.",
            count(gap.samples)
        ),
        legend: Vec::new(),
    }
}

/// Medians of x and y over groups of equal size along x.
fn running_median(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = points
        .iter()
        .copied()
        .filter(|(x, y)| x.is_finite() && y.is_finite())
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let group = points.len().div_ceil(GROUPS).max(8);
    points
        .chunks(group)
        .filter(|chunk| 2 * chunk.len() > group)
        .map(|chunk| {
            let median = |f: &dyn Fn(&(f64, f64)) -> f64| {
                Quantiles::of(&chunk.iter().map(f).collect::<Vec<f64>>()).median
            };
            (median(&|p| p.0), median(&|p| p.1))
        })
        .collect()
}

/// What every step adds, and what has come together by time t.
pub(super) fn along_time(record: &Record, arrays: &Arrays) -> Figure {
    let steps = &record.measurement.steps;
    let ends: Vec<f64> = steps
        .iter()
        .flat_map(|step| [step.quantiles.low, step.quantiles.high, 0.0])
        .collect();
    let across = range(&ends, 0.0, 0.1);
    let last = steps.last().map_or(1.0, |step| step.to);
    let time = || Axis::linear(0.0, last, "time t, from noise to data");
    let mut boxes = Plot::new(
        "steps",
        520.0,
        320.0,
        time(),
        Axis::linear(across.0, across.1, "added to reported − exact, nats"),
    );
    boxes.line("diagonal", &[(0.0, 0.0), (last, 0.0)]);
    for step in steps {
        let inset = 0.06 * (step.to - step.from);
        boxed(
            &mut boxes,
            (step.from + inset, step.to - inset),
            &step.quantiles,
        );
    }

    let mut cumulated = vec![0.0; arrays.reported.len()];
    let mut fan = vec![(0.0, Quantiles::of(&[0.0]))];
    for (k, step) in steps.iter().enumerate() {
        let rows = arrays.step_gaps.chunks_exact(steps.len());
        for (sum, row) in cumulated.iter_mut().zip(rows) {
            *sum += row[k];
        }
        fan.push((step.to, Quantiles::of(&cumulated)));
    }
    let ends: Vec<f64> = fan.iter().flat_map(|(_, q)| [q.low, q.high]).collect();
    let across = range(&ends, 0.0, 0.1);
    let mut sums = Plot::new(
        "sums",
        520.0,
        320.0,
        time(),
        Axis::linear(across.0, across.1, "reported − exact up to t, nats"),
    );
    sums.line("diagonal", &[(0.0, 0.0), (last, 0.0)]);
    let outer: Vec<_> = fan.iter().map(|(t, q)| (*t, q.low, q.high)).collect();
    let inner: Vec<_> = fan
        .iter()
        .map(|(t, q)| (*t, q.quarter, q.three_quarters))
        .collect();
    sums.band("weighted", &outer);
    sums.band("weighted", &inner);
    let median: Vec<(f64, f64)> = fan.iter().map(|(t, q)| (*t, q.median)).collect();
    sums.line("weighted", &median);
    Figure {
        title: "Where along the way it goes wrong",
        layout: "halves",
        panels: vec![
            (
                "Added by each step".into(),
                boxes.finish("What each step adds to reported minus exact log-density"),
            ),
            (
                "Added up".into(),
                sums.finish("Reported minus exact log-density accumulated over time"),
            ),
        ],
        caption: "Each box is as wide as its step: 5 to 95 % of the samples faint, 25 to 75 % strong, the median a line. A true \
                  head adds nothing anywhere; the tallest box is the step to train more or to split."
            .into(),
        legend: Vec::new(),
    }
}

/// The gap for other numbers of steps.
pub(super) fn step_counts(record: &Record) -> Figure {
    let m = &record.measurement;
    let mut rows: Vec<_> = m
        .step_counts
        .iter()
        .map(|other| (other.steps, &other.gap, other.deployed))
        .collect();
    if !rows.iter().any(|row| row.2) {
        rows.push((m.steps.len(), &m.gap, true));
    }
    rows.sort_by_key(|row| row.0);
    let ends: Vec<f64> = rows
        .iter()
        .flat_map(|(_, gap, _)| [gap.quantiles.low, gap.quantiles.high, 0.0])
        .collect();
    let across = range(&ends, 0.0, 0.1);
    let last = rows.len() as f64 - 0.5;
    let labels: Vec<String> = rows
        .iter()
        .map(|(steps, _, deployed)| format!("{steps}{}", if *deployed { "*" } else { "" }))
        .collect();
    let axis = || Axis::categories(&labels, "network evaluations (* as deployed)");
    let mut gaps = Plot::new(
        "counts",
        520.0,
        320.0,
        axis(),
        Axis::linear(across.0, across.1, "reported − exact, nats"),
    );
    gaps.line("diagonal", &[(-0.5, 0.0), (last, 0.0)]);
    let mut kept = Plot::new(
        "kept",
        520.0,
        320.0,
        axis(),
        Axis::linear(0.0, 105.0, "effective samples kept, %"),
    );
    for (place, (_, gap, _)) in rows.iter().enumerate() {
        let x = place as f64;
        boxed(&mut gaps, (x - 0.32, x + 0.32), &gap.quantiles);
        let r = gap.retained;
        kept.rectangle("inner", (x - 0.32, 0.0), (x + 0.32, 100.0 * r.value));
        kept.line("reference", &[(x, 100.0 * r.low), (x, 100.0 * r.high)]);
    }
    for threshold in [KEPT_GOOD, KEPT_BAD] {
        let level = 100.0 * threshold;
        kept.line("diagonal", &[(-0.5, level), (last, level)]);
    }
    Figure {
        title: "Other numbers of steps",
        layout: "halves",
        panels: vec![
            (
                "The gap".into(),
                gaps.finish("Reported minus exact log-density for other numbers of steps"),
            ),
            (
                "What weights keep".into(),
                kept.finish("Share of the effective samples that reported weights keep"),
            ),
        ],
        caption: format!(
            "Boxes as above. Bars are the share of the effective samples that is left when weights use the reported \
             log-density, with its 95 % interval over what was drawn; the dashed lines are thresholds of the verdict. Of {} samples \
             each; the verdict's own {} may hold rarer errors. A map trained within the steps of its own schedule never learned the \
             longer steps of fewer evaluations.",
            rows[0].1.samples, m.gap.samples
        ),
        legend: Vec::new(),
    }
}

/// Differences of averages and free energies, report less exact, beside the thresholds; none where there is no target.
pub(super) fn reweighted(assessment: &Assessment) -> Option<Figure> {
    let panel = |free_energy: bool| {
        let shown: Vec<&Observed> = assessment
            .observables
            .iter()
            .filter(|o| o.judged && o.free_energy == free_energy)
            .collect();
        (!shown.is_empty()).then(|| differences(&shown, free_energy))
    };
    let panels: Vec<(String, String)> = [true, false].into_iter().filter_map(panel).collect();
    (!panels.is_empty()).then(|| Figure {
        title: "What re-weighting with the report does",
        layout: "halves",
        panels,
        caption: format!(
            "Averages by weights that the report makes less those by exact weights, at the same samples but for the largest 0.2 % of the ratios, \
             with the intervals that are judged. Good lie within the inner dashed lines (±{FREE_ENERGY_GOOD} kT, ±{AVERAGE_GOOD} of the observable's standard \
             deviation), false beyond the outer (±{FREE_ENERGY_BAD} kT, ±{AVERAGE_BAD}). The target has {} effective samples here.",
            count(assessment.effective_samples.unwrap_or(0.0).round() as usize)
        ),
        legend: Vec::new(),
    })
}

/// One row per observable: the difference with its interval.
fn differences(shown: &[&Observed], free_energy: bool) -> (String, String) {
    let (id, title, label, good, bad) = match free_energy {
        true => (
            "free-energies",
            "Free energies",
            "ΔF by report − exact, kT",
            FREE_ENERGY_GOOD,
            FREE_ENERGY_BAD,
        ),
        false => (
            "averages",
            "Averages",
            "report − exact, standard deviations",
            AVERAGE_GOOD,
            AVERAGE_BAD,
        ),
    };
    let labels: Vec<String> = shown.iter().rev().map(|o| o.name.clone()).collect();
    let ends: Vec<f64> = shown
        .iter()
        .flat_map(|o| {
            [
                o.judged_difference.low / o.scale,
                o.judged_difference.high / o.scale,
            ]
        })
        .chain([-bad, bad])
        .filter(|v| v.is_finite())
        .collect();
    let (low, high) = range(&ends, 0.0, 0.06);
    let height = 58.0 + 30.0 * labels.len().max(3) as f64;
    let mut plot = Plot::new(
        id,
        520.0,
        height,
        Axis::linear(low, high, label),
        Axis::categories(&labels, ""),
    )
    .with_left(118.0);
    let top = labels.len() as f64 - 0.5;
    for limit in [-bad, -good, 0.0, good, bad] {
        plot.line("diagonal", &[(limit, -0.5), (limit, top)]);
    }
    for (place, observed) in shown.iter().rev().enumerate() {
        let y = place as f64;
        let at = |v: f64| (v / observed.scale).clamp(low, high);
        let d = observed.judged_difference;
        plot.rectangle("outer", (at(d.low), y - 0.2), (at(d.high), y + 0.2));
        plot.line(
            "weighted",
            &[(at(d.value), y - 0.3), (at(d.value), y + 0.3)],
        );
    }
    (
        title.into(),
        plot.finish(&format!("{title} by the report less exact ones")),
    )
}

/// The map beside the continuous flow.
pub(super) fn flow(record: &Record, arrays: &Arrays) -> Figure {
    let n = arrays.flow.len();
    let exact = &arrays.exact[..n];
    let both: Vec<f64> = exact.iter().chain(&arrays.flow).copied().collect();
    let wide = range(&both, 0.0, 0.06);
    let pairs: Vec<(f64, f64)> = arrays
        .flow
        .iter()
        .copied()
        .zip(exact.iter().copied())
        .collect();
    let mut scatter = Plot::new(
        "flow",
        520.0,
        330.0,
        Axis::linear(wide.0, wide.1, "log q of the continuous flow, nats"),
        Axis::linear(wide.0, wide.1, "exact log q of the map, nats"),
    );
    scatter.line("diagonal", &[(wide.0, wide.0), (wide.1, wide.1)]);
    shaded(&mut scatter, &pairs, wide, wide);

    let points: Vec<(f64, f64)> = arrays
        .flow_distance
        .iter()
        .zip(&pairs)
        .map(|(distance, (flow, map))| (*distance, map - flow))
        .collect();
    let differences: Vec<f64> = points.iter().map(|point| point.1).collect();
    let x = range(&arrays.flow_distance, 0.0, 0.06);
    let (x, y) = (
        (x.0.max(0.0), x.1),
        with_zero(range(&differences, 0.0, 0.1)),
    );
    let mut apart = Plot::new(
        "apart",
        520.0,
        330.0,
        Axis::linear(x.0, x.1, "distance of the end points per coordinate"),
        Axis::linear(y.0, y.1, "map − flow, nats"),
    );
    apart.line("diagonal", &[(x.0, 0.0), (x.1, 0.0)]);
    shaded(&mut apart, &points, x, y);
    Figure {
        title: "Beside the continuous flow",
        layout: "halves",
        panels: vec![
            (
                "Two densities at the same points".into(),
                scatter.finish("Exact log-density of the map against that of the flow"),
            ),
            (
                "Two end points of the same noise".into(),
                apart.finish(
                    "Difference of the log-densities against the distance of the end points",
                ),
            ),
        ],
        caption: format!(
            "{n} samples of the map with the flow's log-density there, by adaptive integration backwards with the exact trace. \
             Points on the lines mean that few steps and the flow are one sampler; the mean difference, {} nats, estimates the \
             Kullback–Leibler divergence between them.",
            with_interval(record.measurement.flow.map_against_flow.bias)
        ),
        legend: Vec::new(),
    }
}

/// The network run forward and back, and the numerical inverse.
pub(super) fn backwards(record: &Record) -> Figure {
    let m = &record.measurement;
    let relative: Vec<Quantiles> = m
        .cycle
        .iter()
        .map(|cycle| cycle.error.scaled(100.0 / cycle.moved))
        .collect();
    let positive: Vec<f64> = relative
        .iter()
        .flat_map(|q| [q.low, q.high])
        .filter(|v| *v > 0.0 && v.is_finite())
        .collect();
    let ends = sorted(&positive);
    let (low, high) = match (ends.first(), ends.last()) {
        (Some(low), Some(high)) => (low / 1.6, high * 1.6),
        _ => (0.1, 100.0),
    };
    let last = m.steps.last().map_or(1.0, |step| step.to);
    let mut plot = Plot::new(
        "cycle",
        520.0,
        320.0,
        Axis::linear(0.0, last, "time t, from noise to data"),
        Axis::logarithmic(low, high, "miss, % of the step's length"),
    );
    for (cycle, q) in m.cycle.iter().zip(&relative) {
        let inset = 0.06 * (cycle.to - cycle.from);
        boxed(&mut plot, (cycle.from + inset, cycle.to - inset), q);
    }
    let training = if m.trained_backwards {
        "The method trained the network backwards."
    } else {
        "The method never trained the network backwards, so the left picture shows what it cannot be used for, not a fault."
    };
    Figure {
        title: "Backwards",
        layout: "halves",
        panels: vec![
            (
                "The network forward and back".into(),
                plot.finish("Distance from the start after a step forward and back"),
            ),
            (
                "The numerical inverse".into(),
                quantile_bars(&m.inverse.noise_error, m.inverse.samples),
            ),
        ],
        caption: format!(
            "Left, how far X(t→s) misses the start after X(s→t), relative to the step's length: an invertible pair misses by \
             nothing. Right, how close the iteration that solves X(x) = y comes to the noise of {} samples, which are kept in single \
             precision. {training}",
            count(m.inverse.samples)
        ),
        legend: Vec::new(),
    }
}

/// Quantiles of the distance from the noise as bars on a logarithmic scale.
fn quantile_bars(errors: &Quantiles, samples: usize) -> String {
    let rows = [
        ("5 %", errors.low),
        ("25 %", errors.quarter),
        ("median", errors.median),
        ("75 %", errors.three_quarters),
        ("95 %", errors.high),
        ("largest", errors.largest),
    ];
    let labels: Vec<String> = rows.iter().map(|(name, _)| (*name).to_owned()).collect();
    let positive: Vec<f64> = rows.iter().map(|row| row.1).filter(|v| *v > 0.0).collect();
    let ends = sorted(&positive);
    let (low, high) = match (ends.first(), ends.last()) {
        (Some(low), Some(high)) => (low / 10.0, high * 30.0),
        _ => (1e-16, 1.0),
    };
    let mut plot = Plot::new(
        "inverse",
        520.0,
        320.0,
        Axis::logarithmic(
            low,
            high,
            "distance from the sample's own noise, per coordinate",
        ),
        Axis::categories(&labels, &format!("of {} samples", count(samples))),
    )
    .with_left(84.0);
    for (place, (_, value)) in rows.iter().enumerate() {
        let (y, value) = (place as f64, value.max(low));
        plot.rectangle("inner", (low, y - 0.3), (value, y + 0.3));
        plot.note_in("", value, y, "start", &number(value));
    }
    plot.finish("Quantiles of the distance between the inverted sample and its noise")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_median_follows_a_line() {
        let points: Vec<(f64, f64)> = (0..600)
            .map(|i| (f64::from(i), 2.0 * f64::from(i)))
            .collect();
        let medians = running_median(&points);
        assert_eq!(medians.len(), GROUPS);
        assert!(medians.iter().all(|(x, y)| (y - 2.0 * x).abs() < 1e-9));
        assert!(running_median(&[]).is_empty());
    }
}
