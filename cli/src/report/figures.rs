//! The figures of the report.

use super::svg::{Axis, Plot, count, escape, number, superscript, viridis, with_error};
use super::{Curve, Ensemble, Report};

/// Bins of a Ramachandran plot along each axis: 6° each.
const TORSION_BINS: usize = 60;
/// Shades of the Ramachandran plots.
const SHADES: usize = 32;
/// Decades of density that the shades span.
const DECADES: f64 = 4.0;
/// Right end of the state φ > 0, rad.
const POSITIVE_STATE_END: f64 = 2.0;

/// A figure: a title, one or more SVG elements, and a caption.
pub(crate) struct Figure {
    /// The heading.
    pub(crate) title: &'static str,
    /// CSS class of the grid that holds the panels.
    pub(crate) layout: &'static str,
    /// Panels: heading and SVG.
    pub(crate) panels: Vec<(String, String)>,
    /// What one sees.
    pub(crate) caption: String,
    /// Legend: CSS class and text.
    pub(crate) legend: Vec<(&'static str, &'static str)>,
}

fn weight(ensemble: &Ensemble, index: usize) -> f64 {
    ensemble.weights.get(index).copied().unwrap_or(1.0)
}

/// Probability per square radian in every cell, rows along ψ.
fn torsion_density(ensemble: &Ensemble) -> Vec<f64> {
    let mut density = vec![0.0; TORSION_BINS * TORSION_BINS];
    let mut total = 0.0;
    let bin = |angle: f64| {
        let turn = (angle + std::f64::consts::PI).rem_euclid(std::f64::consts::TAU)
            / std::f64::consts::TAU;
        ((turn * TORSION_BINS as f64) as usize).min(TORSION_BINS - 1)
    };
    for (index, (&phi, &psi)) in ensemble.phi.iter().zip(&ensemble.psi).enumerate() {
        if phi.is_finite() && psi.is_finite() {
            density[bin(psi) * TORSION_BINS + bin(phi)] += weight(ensemble, index);
            total += weight(ensemble, index);
        }
    }
    let cell = (std::f64::consts::TAU / TORSION_BINS as f64).powi(2);
    if total > 0.0 {
        density.iter_mut().for_each(|value| *value /= total * cell);
    }
    density
}

/// Ramachandran plots side by side with one scale.
pub(crate) fn ramachandran(report: &Report) -> Figure {
    let panels = [
        ("Reference dynamics", &report.reference),
        ("Proposal, as drawn", &report.proposal),
        ("Re-weighted", &report.reweighted),
    ];
    let densities = panels.map(|(_, ensemble)| torsion_density(ensemble));
    let most = densities.iter().flatten().copied().fold(1e-12, f64::max);
    let palette = viridis(SHADES);
    let shade = |density: f64| {
        (density > 0.0).then(|| {
            let decade = 1.0 + (density / most).log10() / DECADES;
            ((decade.clamp(0.0, 1.0) * SHADES as f64) as usize).min(SHADES - 1)
        })
    };
    let mut drawn = Vec::new();
    for (index, ((title, ensemble), density)) in panels.into_iter().zip(&densities).enumerate() {
        let mut plot = Plot::new(
            &format!("rama{index}"),
            340.0,
            326.0,
            Axis::degrees("φ, degrees"),
            Axis::degrees("ψ, degrees"),
        );
        plot.cells(
            TORSION_BINS,
            |row, column| shade(density[row * TORSION_BINS + column]),
            &palette,
        );
        let heading = format!("{title} <small>n = {}</small>", count(ensemble.phi.len()));
        drawn.push((
            heading,
            plot.finish(&format!("Histogram over phi and psi: {title}")),
        ));
    }
    drawn.push((String::new(), colour_bar(most, &palette)));
    Figure {
        title: "Ramachandran plots",
        layout: "three",
        panels: drawn,
        caption: "Probability density over φ and ψ in cells of 6° × 6°, one logarithmic scale for all three. \
                  Cells that no sample fell into are left blank."
            .into(),
        legend: Vec::new(),
    }
}

/// A horizontal colour bar.
fn colour_bar(most: f64, palette: &[String]) -> String {
    let (left, width, height) = (200.0, 640.0, 14.0);
    let mut body = String::new();
    for (index, colour) in palette.iter().enumerate() {
        let step = width / palette.len() as f64;
        body += &format!(
            "<rect x=\"{:.1}\" y=\"4\" width=\"{:.1}\" height=\"{height}\" fill=\"{colour}\"/>",
            left + index as f64 * step,
            step + 0.5
        );
    }
    let top = most.log10();
    let low = top - DECADES;
    for power in low.ceil() as i32..=top.floor() as i32 {
        let x = left + (f64::from(power) - low) / DECADES * width;
        body += &format!(
            "<path class=\"axis\" d=\"M{x:.1} 18v5\"/><text class=\"tick\" x=\"{x:.1}\" y=\"36\" text-anchor=\"middle\">10{}</text>",
            superscript(power)
        );
    }
    format!(
        "<svg viewBox=\"0 0 1040 44\" role=\"img\" aria-label=\"colour scale\">{body}\
         <text class=\"label\" x=\"{:.1}\" y=\"16\">density, rad⁻²</text></svg>",
        left + width + 14.0
    )
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values
}

fn quantile(sorted: &[f64], fraction: f64) -> f64 {
    match sorted.len() {
        0 => f64::NAN,
        n => sorted[((fraction * (n - 1) as f64).round() as usize).min(n - 1)],
    }
}

/// Weighted histogram as a density; what lies outside counts in the norm. Returns it and the mass right of the edges.
fn histogram(values: &[f64], weights: impl Fn(usize) -> f64, edges: &[f64]) -> (Vec<f64>, f64) {
    let bins = edges.len() - 1;
    let (low, high) = (edges[0], edges[bins]);
    let width = (high - low) / bins as f64;
    let mut heights = vec![0.0; bins];
    let (mut total, mut beyond) = (0.0, 0.0);
    for (index, &value) in values.iter().enumerate() {
        let weight = weights(index);
        total += weight;
        if value >= low && value < high {
            heights[(((value - low) / width) as usize).min(bins - 1)] += weight;
        } else if value.partial_cmp(&low) != Some(std::cmp::Ordering::Less) {
            // NaN energies come from overlapping atoms: they are as good as infinite.
            beyond += weight;
        }
    }
    if total > 0.0 {
        heights
            .iter_mut()
            .for_each(|height| *height /= total * width);
        beyond /= total;
    }
    (heights, beyond)
}

fn edges(low: f64, high: f64, bins: usize) -> Vec<f64> {
    (0..=bins)
        .map(|i| low + (high - low) * i as f64 / bins as f64)
        .collect()
}

/// Histograms of several series over the same edges, drawn on top of one another.
fn histograms(
    name: &str,
    [width, height]: [f64; 2],
    [x, y]: [&str; 2],
    edges: &[f64],
    series: &[(&'static str, Vec<f64>)],
) -> Plot {
    let top = series
        .iter()
        .flat_map(|(_, heights)| heights)
        .copied()
        .fold(1e-9, f64::max);
    let mut plot = Plot::new(
        name,
        width,
        height,
        Axis::linear(edges[0], edges[edges.len() - 1], x),
        Axis::linear(0.0, 1.12 * top, y),
    );
    for (class, heights) in series {
        plot.steps(class, edges, heights);
    }
    plot
}

/// Histograms of the energies.
pub(crate) fn energies(report: &Report) -> Figure {
    let reference = sorted(report.reference.energy_kt.iter().copied());
    let proposal = sorted(report.proposal.energy_kt.iter().copied());
    let base = if reference.is_empty() {
        &proposal
    } else {
        &reference
    };
    let (mut low, mut high) = (quantile(base, 0.0005), quantile(base, 0.9995));
    if !(low.is_finite() && high.is_finite()) {
        (low, high) = (0.0, 1.0);
    }
    let span = (high - low).max(1.0);
    // Show the bulk of the proposal too, but do not let its tail squeeze the reference.
    let reach = quantile(&proposal, 0.9);
    high = if reach.is_finite() {
        reach.clamp(high, high + 2.0 * span)
    } else {
        high
    };
    let edges = edges(low - 0.1 * span, high + 0.1 * span, 80);
    let series = [
        ("reference", &report.reference),
        ("proposal", &report.proposal),
        ("weighted", &report.reweighted),
    ];
    let mut beyond = 0.0;
    let mut heights = Vec::new();
    for (class, ensemble) in series {
        let (histogram, outside) =
            histogram(&ensemble.energy_kt, |index| weight(ensemble, index), &edges);
        if class == "proposal" {
            beyond = outside;
        }
        heights.push((class, histogram));
    }
    let axes = ["potential energy, kT", "density, 1/kT"];
    let mut plot = histograms("energy", [540.0, 330.0], axes, &edges, &heights);
    if beyond > 5e-4 {
        let text = format!(
            "{} % of the proposal lies further right →",
            number(100.0 * beyond)
        );
        plot.note("proposal", 0.985, 0.07, "end", &text);
    }
    Figure {
        title: "Energies",
        layout: "one",
        panels: vec![(
            String::new(),
            plot.finish("Histograms of the potential energy"),
        )],
        caption: format!(
            "E-W2 {} kT after re-weighting, {} kT before; {} kT between two reference sets with {} independent values.",
            number(report.summary.e_w2),
            number(report.summary.e_w2_proposal),
            number(report.summary.e_w2_floor),
            count(report.summary.reference.independent_least as usize)
        ),
        legend: SERIES.to_vec(),
    }
}

const SERIES: [(&str, &str); 3] = [
    ("reference", "reference"),
    ("proposal", "proposal"),
    ("weighted", "re-weighted"),
];

/// Free energy along φ.
pub(crate) fn profile(report: &Report) -> Figure {
    let profile = &report.profile;
    let degrees: Vec<f64> = profile.phi.iter().map(|phi| phi.to_degrees()).collect();
    let finite = |values: &[f64]| {
        values
            .iter()
            .copied()
            .filter(|value| value.is_finite())
            .fold(0.0, f64::max)
    };
    // Weights make any height possible; the scale is that of what was sampled, and higher bins leave the picture.
    let highest = finite(&profile.reference.value)
        .max(finite(&profile.proposal))
        .clamp(4.0, 25.0);
    let mut plot = Plot::new(
        "profile",
        540.0,
        330.0,
        Axis::degrees("φ, degrees"),
        Axis::linear(0.0, 1.3 * highest, "free energy, kT"),
    );
    let sign = if report.summary.delta_f_mirrored {
        -1.0
    } else {
        1.0
    };
    let end = sign * POSITIVE_STATE_END.to_degrees();
    plot.strip("state", end.min(0.0), end.max(0.0));
    for (class, band) in [
        ("reference", &profile.reference),
        ("weighted", &profile.reweighted),
    ] {
        let interval: Vec<_> = degrees
            .iter()
            .zip(band.low.iter().zip(&band.high))
            .map(|(&x, (&low, &high))| (x, low, high))
            .collect();
        plot.band(class, &interval);
    }
    let curves = [
        ("proposal thin", &profile.proposal),
        ("reference", &profile.reference.value),
        ("weighted", &profile.reweighted.value),
    ];
    for (class, values) in curves {
        let points: Vec<_> = degrees
            .iter()
            .copied()
            .zip(values.iter().copied())
            .collect();
        plot.line(class, &points);
    }
    let summary = &report.summary;
    let middle = end / 2.0;
    plot.note_at("", middle, 0.06, "middle", "ΔF, kT");
    plot.note_at(
        "reference",
        middle,
        0.12,
        "middle",
        &with_error(
            summary.delta_f_reference_kt,
            summary.delta_f_reference_error_kt,
        ),
    );
    plot.note_at(
        "weighted",
        middle,
        0.18,
        "middle",
        &with_error(summary.delta_f_kt, summary.delta_f_error_kt),
    );
    Figure {
        title: "Free energy along φ",
        layout: "one",
        panels: vec![(String::new(), plot.finish("Free-energy profile along phi"))],
        caption: format!(
            "−ln p(φ) with bootstrap intervals. ΔF = −ln of the weight in the shaded state, {}, over the weight of the rest. Reference: \
             {} independent values of the state.",
            summary.delta_f_state.replace('-', "−"),
            count(summary.reference.independent_delta_f as usize)
        ),
        legend: SERIES.to_vec(),
    }
}

/// Weights of samples and of reference frames.
pub(crate) fn coverage(report: &Report) -> Figure {
    let (samples, frames) = (&report.sample_log_weights, &report.reference_log_weights);
    if samples.is_empty() || frames.is_empty() {
        return Figure {
            title: "Weights",
            layout: "one",
            panels: Vec::new(),
            caption: String::new(),
            legend: Vec::new(),
        };
    }
    let ordered = sorted(samples.iter().chain(frames).copied());
    let low = quantile(&ordered, 0.01).clamp(-8.0, -2.0);
    let high = quantile(&ordered, 0.999).clamp(3.0, 12.0);
    let edges = edges(low, high, 70);
    let (proposal, _) = histogram(samples, |_| 1.0, &edges);
    let (weighted, _) = histogram(samples, |i| samples[i].exp(), &edges);
    let (reference, beyond) = histogram(frames, |_| 1.0, &edges);
    let series = [
        ("proposal", proposal),
        ("weighted", weighted),
        ("reference", reference),
    ];
    let axes = ["ln(w/⟨w⟩)", "density"];
    let mut plot = histograms("coverage", [1040.0, 300.0], axes, &edges, &series);
    if beyond > 0.0 {
        let text = format!(
            "{} % of the frames lie further right →",
            number(100.0 * beyond)
        );
        plot.note("reference", 0.99, 0.08, "end", &text);
    }
    Figure {
        title: "Weights",
        layout: "one",
        panels: vec![(
            String::new(),
            plot.finish("Histograms of the log-weights of samples and of reference frames"),
        )],
        caption: format!(
            "{} samples, and {} reference frames traced back through the map. Re-weighted samples must lie as the frames do; where \
             frames reach further right than samples, the proposal has too little mass.",
            count(samples.len()),
            count(frames.len())
        ),
        legend: vec![
            ("reference", "reference frames"),
            ("proposal", "samples"),
            ("weighted", "samples, re-weighted"),
        ],
    }
}

/// Running mean with an exponential window of about a fiftieth of the curve, without lag at the start.
fn smooth(values: &[f64]) -> Vec<f64> {
    let decay = 1.0 - 1.0 / (values.len() as f64 / 50.0).max(1.0);
    let (mut sum, mut norm) = (0.0, 0.0);
    values
        .iter()
        .map(|&value| {
            if value.is_finite() {
                sum = decay * sum + (1.0 - decay) * value;
                norm = decay * norm + (1.0 - decay);
            }
            if norm > 0.0 { sum / norm } else { f64::NAN }
        })
        .collect()
}

/// One panel of the training curves.
fn curve(index: usize, curve: &Curve) -> (String, String) {
    // A thousand points are as many as one can see.
    let stride = curve.values.len().div_ceil(1000).max(1);
    let thin = |values: &[f64]| -> Vec<(f64, f64)> {
        curve
            .steps
            .iter()
            .copied()
            .zip(values.iter().copied())
            .step_by(stride)
            .collect()
    };
    let smoothed = smooth(&curve.values);
    let sorted = sorted(curve.values.iter().copied());
    let last = curve.steps.last().copied().unwrap_or(1.0);
    let first = curve.steps.first().copied().unwrap_or(0.0);
    let (low, high) = (quantile(&sorted, 0.002), quantile(&sorted, 0.998));
    let y = if low > 0.0 && low.is_finite() {
        Axis::logarithmic(low / 1.1, high * 1.1, "")
    } else if low.is_finite() {
        let margin = 0.05 * (high - low);
        Axis::linear(low - margin, high + margin, "")
    } else {
        Axis::linear(0.0, 1.0, "")
    };
    let mut plot = Plot::new(
        &format!("curve{index}"),
        340.0,
        210.0,
        Axis::linear(first, last, "step"),
        y,
    );
    plot.line("raw", &thin(&curve.values));
    plot.line("weighted", &thin(&smoothed));
    let end = smoothed.last().copied().unwrap_or(f64::NAN);
    let heading = format!("{} <small>{}</small>", escape(&curve.name), number(end));
    (
        heading,
        plot.finish(&format!("{} over training", curve.name)),
    )
}

/// Training curves as small multiples.
pub(crate) fn training(report: &Report) -> Figure {
    Figure {
        title: "Training",
        layout: "three",
        panels: report
            .curves
            .iter()
            .enumerate()
            .map(|(index, c)| curve(index, c))
            .collect(),
        caption: "Single steps faint, running mean strong; beside each name the mean at the end."
            .into(),
        legend: Vec::new(),
    }
}

/// Head against exact likelihood.
pub(crate) fn likelihood(report: &Report) -> Figure {
    let pairs: Vec<(f64, f64)> = report
        .exact_log_q
        .iter()
        .copied()
        .zip(report.head_log_q.iter().copied())
        .filter(|(exact, head)| exact.is_finite() && head.is_finite())
        .collect();
    let all = sorted(pairs.iter().flat_map(|&(exact, head)| [exact, head]));
    let (low, high) = match all.len() {
        0 => (0.0, 1.0),
        _ => (quantile(&all, 0.001), quantile(&all, 0.999)),
    };
    let margin = 0.06 * (high - low).max(0.1);
    let (low, high) = (low - margin, high + margin);
    let mut scatter = Plot::new(
        "scatter",
        420.0,
        406.0,
        Axis::linear(low, high, "exact log q, nats"),
        Axis::linear(low, high, "head log q, nats"),
    );
    scatter.line("diagonal", &[(low, low), (high, high)]);
    let stride = pairs.len().div_ceil(3000).max(1);
    let shown: Vec<_> = pairs.iter().copied().step_by(stride).collect();
    scatter.points("weighted", &shown);
    scatter.note("", 0.97, 0.96, "end", "y = x");

    let gaps: Vec<f64> = pairs.iter().map(|(exact, head)| head - exact).collect();
    let ordered = sorted(gaps.iter().copied());
    let (low, high) = match ordered.len() {
        0 => (-1.0, 1.0),
        _ => (
            quantile(&ordered, 0.002).min(0.0),
            quantile(&ordered, 0.998).max(0.0),
        ),
    };
    let margin = 0.1 * (high - low).max(0.02);
    let edges = edges(low - margin, high + margin, 50);
    let (heights, _) = histogram(&gaps, |_| 1.0, &edges);
    let top = heights.iter().copied().fold(1e-9, f64::max);
    let x = Axis::linear(edges[0], edges[edges.len() - 1], "head − exact, nats");
    let mut histogram = Plot::new(
        "gap",
        420.0,
        406.0,
        x,
        Axis::linear(0.0, 1.15 * top, "density, 1/nat"),
    );
    histogram.steps("weighted", &edges, &heights);
    histogram.line("diagonal", &[(0.0, 0.0), (0.0, 2.0 * top)]);
    let summary = &report.summary;
    if !gaps.is_empty() {
        histogram.note(
            "",
            0.03,
            0.06,
            "start",
            &format!("mean {}", number(summary.likelihood_gap_mean)),
        );
        histogram.note(
            "",
            0.03,
            0.11,
            "start",
            &format!("std {}", number(summary.likelihood_gap_std)),
        );
    }
    Figure {
        title: "Likelihood: head against exact",
        layout: "two",
        panels: vec![
            (
                String::new(),
                scatter.finish("Head log-likelihood against the exact one"),
            ),
            (
                String::new(),
                histogram.finish("Histogram of head minus exact log-likelihood"),
            ),
        ],
        caption: format!(
            "{} samples of the few-step map, each with the exact log-determinant of its Jacobian.",
            count(pairs.len())
        ),
        legend: Vec::new(),
    }
}
