//! Pieces that the figures share: ranges, histograms, scatter plots shaded by density, boxes.

use super::statistics::{Quantiles, quantile, sorted};
use crate::report::svg::Plot;

/// Cells of the grid on which the density of points is estimated, along each axis.
const CELLS: usize = 48;
/// Shades of points, by density; the style sheet has a colour for each.
const SHADES: usize = 6;
/// Most points drawn in one scatter plot.
const MOST_POINTS: usize = 4000;

/// The range of some values between two quantiles, with a margin; never empty.
pub(super) fn range(values: &[f64], outside: f64, margin: f64) -> (f64, f64) {
    let sorted = sorted(values);
    let (low, high) = (quantile(&sorted, outside), quantile(&sorted, 1.0 - outside));
    if !(low.is_finite() && high.is_finite()) {
        return (-1.0, 1.0);
    }
    // Differences that are round-off get a range as if they were none.
    let span = (high - low).max(1e-9 + 1e-6 * low.abs().max(high.abs()));
    (low - margin * span, high + margin * span)
}

/// A range widened to hold zero.
pub(super) fn with_zero((low, high): (f64, f64)) -> (f64, f64) {
    let margin = 0.06 * (high - low);
    (low.min(-margin), high.max(margin))
}

/// A histogram as a density over `bins` equal bins: edges and heights. What lies outside counts in the norm.
pub(super) fn histogram(
    values: &[f64],
    (low, high): (f64, f64),
    bins: usize,
) -> (Vec<f64>, Vec<f64>) {
    let width = (high - low) / bins as f64;
    let edges: Vec<f64> = (0..=bins).map(|i| low + width * i as f64).collect();
    let mut heights = vec![0.0; bins];
    let mut total = 0usize;
    for value in values.iter().filter(|v| v.is_finite()) {
        total += 1;
        if *value >= low && *value < high {
            heights[(((value - low) / width) as usize).min(bins - 1)] += 1.0;
        }
    }
    let scale = 1.0 / (total.max(1) as f64 * width);
    heights.iter_mut().for_each(|height| *height *= scale);
    (edges, heights)
}

/// A box over the interval `x`: 5 to 95 % faint, 25 to 75 % strong, the median a line.
pub(super) fn boxed(plot: &mut Plot, x: (f64, f64), q: &Quantiles) {
    plot.rectangle("outer", (x.0, q.low), (x.1, q.high));
    plot.rectangle("inner", (x.0, q.quarter), (x.1, q.three_quarters));
    plot.line("weighted", &[(x.0, q.median), (x.1, q.median)]);
}

/// Points shaded by how dense they lie, the densest on top. `x` and `y` are the plot's ranges.
pub(super) fn shaded(plot: &mut Plot, points: &[(f64, f64)], x: (f64, f64), y: (f64, f64)) {
    let cell = |value: f64, (low, high): (f64, f64)| -> Option<usize> {
        let place = (value - low) / (high - low) * CELLS as f64;
        (place >= 0.0 && place < CELLS as f64).then_some(place as usize)
    };
    let mut density = vec![0.0; CELLS * CELLS];
    for &(a, b) in points {
        if let (Some(column), Some(row)) = (cell(a, x), cell(b, y)) {
            density[row * CELLS + column] += 1.0;
        }
    }
    for _ in 0..2 {
        density = smoothed(&density);
    }
    let most = density.iter().copied().fold(1e-12, f64::max);
    let mut layers = vec![Vec::new(); SHADES];
    let stride = points.len().div_ceil(MOST_POINTS).max(1);
    for &(a, b) in points.iter().step_by(stride) {
        let shade = match (cell(a, x), cell(b, y)) {
            (Some(column), Some(row)) => {
                let relative = (density[row * CELLS + column] / most).sqrt();
                ((relative * SHADES as f64) as usize).min(SHADES - 1)
            }
            _ => 0,
        };
        layers[shade].push((a, b));
    }
    for (shade, layer) in layers.iter().enumerate() {
        if !layer.is_empty() {
            plot.points(&format!("shaded shade{shade}"), layer);
        }
    }
}

/// A binomial filter along both axes.
fn smoothed(density: &[f64]) -> Vec<f64> {
    const KERNEL: [(isize, f64); 3] = [(-1, 0.25), (0, 0.5), (1, 0.25)];
    let inside = |i: usize, step: isize| i.saturating_add_signed(step).min(CELLS - 1);
    let mut out = vec![0.0; density.len()];
    for row in 0..CELLS {
        for column in 0..CELLS {
            out[row * CELLS + column] = KERNEL
                .iter()
                .flat_map(|&(dr, wr)| KERNEL.map(|(dc, wc)| (dr, dc, wr * wc)))
                .map(|(dr, dc, w)| w * density[inside(row, dr) * CELLS + inside(column, dc)])
                .sum();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_never_empty() {
        for values in [&[][..], &[3.0], &[f64::NAN], &[0.0, 0.0], &[-1e9, -1e9]] {
            let (low, high) = range(values, 0.01, 0.1);
            assert!(low < high, "{values:?}");
        }
        let (low, high) = with_zero((2.0, 3.0));
        assert!(low < 0.0 && high == 3.0);
    }

    #[test]
    fn histograms_integrate_to_the_share_inside() {
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        let (edges, heights) = histogram(&values, (0.0, 50.0), 10);
        let mass: f64 = heights
            .iter()
            .zip(edges.windows(2))
            .map(|(h, e)| h * (e[1] - e[0]))
            .sum();
        assert!((mass - 0.5).abs() < 1e-12);
    }

    #[test]
    fn smoothing_keeps_a_constant() {
        let even = vec![2.0; CELLS * CELLS];
        assert!(smoothed(&even).iter().all(|v| (v - 2.0).abs() < 1e-14));
    }
}
