//! Plots as inline SVG, drawn by hand: colours are style-sheet variables, so that one file reads well on a light and
//! on a dark page, and text is text.

use std::fmt::Write;

/// Escapes text for HTML and SVG.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// A number for people: three significant digits, no exponent where one can do without.
pub(crate) fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    if !value.is_finite() {
        return "not available".into();
    }
    let magnitude = value.abs().log10().floor() as i32;
    let text = match magnitude {
        -4..=2 => format!("{value:.*}", (2 - magnitude) as usize),
        3..=6 => format!("{value:.0}"),
        _ => {
            let mantissa = value / 10_f64.powi(magnitude);
            return format!("{mantissa:.1}·10{}", superscript(magnitude)).replace('-', "−");
        }
    };
    text.replace('-', "−")
}

/// A value with its standard error, to the error's second digit.
pub(crate) fn with_error(value: f64, error: f64) -> String {
    if !(value.is_finite() && error.is_finite()) {
        return number(value);
    }
    let decimals = if error >= 0.02 || error == 0.0 { 2 } else { 3 };
    format!("{value:.decimals$} ± {error:.decimals$}").replace('-', "−")
}

/// A count in groups of three digits.
pub(crate) fn count(value: usize) -> String {
    let digits = value.to_string();
    if digits.len() < 5 {
        return digits;
    }
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// An integer in superscript digits.
pub(crate) fn superscript(value: i32) -> String {
    value
        .to_string()
        .chars()
        .map(|c| match c {
            '-' => '⁻',
            '1' => '¹',
            '2' => '²',
            '3' => '³',
            '0' => '⁰',
            digit => char::from_u32('⁰' as u32 + digit as u32 - '0' as u32).unwrap_or(digit),
        })
        .collect()
}

/// How one axis maps values to [0, 1].
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    label: String,
    ticks: Vec<(f64, String)>,
    grid: bool,
}

impl Axis {
    /// A linear axis with ticks at round numbers.
    pub(crate) fn linear(low: f64, high: f64, label: &str) -> Axis {
        let (low, high) = if high > low {
            (low, high)
        } else {
            (low - 0.5, low + 0.5)
        };
        let raw = (high - low) / 5.0;
        let power = 10_f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|m| m * power)
            .into_iter()
            .find(|&s| s >= raw * 0.999)
            .unwrap_or(power);
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        let first = (low / step).ceil() as i64;
        let last = (high / step).floor() as i64;
        let ticks = (first..=last)
            .map(|i| {
                (
                    i as f64 * step,
                    format!("{:.decimals$}", i as f64 * step).replace('-', "−"),
                )
            })
            .collect();
        Axis {
            low,
            high,
            logarithmic: false,
            label: label.into(),
            ticks,
            grid: true,
        }
    }

    /// A logarithmic axis with ticks at powers of ten, or at 1, 2 and 5 of them where it spans little.
    pub(crate) fn logarithmic(low: f64, high: f64, label: &str) -> Axis {
        let high = if high > low * 1.01 { high } else { low * 2.0 };
        let decades = high.log10() - low.log10();
        let within = |value: f64| value >= low * 0.999 && value <= high * 1.001;
        let powers = low.log10().floor() as i32..=high.log10().ceil() as i32;
        let every = 1 + (decades / 6.0) as i32;
        let ticks = if decades >= 2.0 {
            powers
                .filter(|power| power.rem_euclid(every) == 0 && within(10_f64.powi(*power)))
                .map(|power| (10_f64.powi(power), format!("10{}", superscript(power))))
                .collect()
        } else {
            powers
                .flat_map(|power| [1.0, 2.0, 5.0].map(|m| m * 10_f64.powi(power)))
                .filter(|value| within(*value))
                .map(|value| (value, plain(value)))
                .collect()
        };
        Axis {
            low,
            high,
            logarithmic: true,
            label: label.into(),
            ticks,
            grid: true,
        }
    }

    /// An axis from −180 to 180 degrees.
    pub(crate) fn degrees(label: &str) -> Axis {
        let ticks = [-180, -90, 0, 90, 180]
            .map(|value| (f64::from(value), format!("{value}").replace('-', "−")));
        Axis {
            low: -180.0,
            high: 180.0,
            logarithmic: false,
            label: label.into(),
            ticks: ticks.to_vec(),
            grid: true,
        }
    }

    /// An axis with one place for each label, at 0, 1, 2, …
    pub(crate) fn categories(labels: &[String], label: &str) -> Axis {
        Axis {
            low: -0.5,
            high: labels.len() as f64 - 0.5,
            logarithmic: false,
            label: label.into(),
            ticks: labels
                .iter()
                .enumerate()
                .map(|(place, text)| (place as f64, escape(text)))
                .collect(),
            grid: false,
        }
    }

    fn fraction(&self, value: f64) -> f64 {
        if self.logarithmic {
            (value.ln() - self.low.ln()) / (self.high.ln() - self.low.ln())
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }
}

/// A number as short as it goes.
fn plain(value: f64) -> String {
    if value < 9e-4 {
        let power = (value * 1.001).log10().floor() as i32;
        return format!("{:.0}·10{}", value / 10_f64.powi(power), superscript(power));
    }
    let text = format!("{value:.12}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.replace('-', "−")
}

/// A plot: two axes and what is drawn between them.
pub(crate) struct Plot {
    width: f64,
    height: f64,
    left: f64,
    top: f64,
    inner_width: f64,
    inner_height: f64,
    x: Axis,
    y: Axis,
    body: String,
    over: String,
    clip: String,
}

const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 46.0;

impl Plot {
    /// An empty plot of a size in user units (about pixels). `id` must be unique on the page.
    pub(crate) fn new(id: &str, width: f64, height: f64, x: Axis, y: Axis) -> Plot {
        Plot {
            width,
            height,
            left: LEFT,
            top: TOP,
            inner_width: width - LEFT - RIGHT,
            inner_height: height - TOP - BOTTOM,
            x,
            y,
            body: String::new(),
            over: String::new(),
            clip: id.into(),
        }
    }

    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        // Far outside is cut anyway; keep the numbers short and finite.
        let fraction_x = self.x.fraction(x).clamp(-2.0, 3.0);
        let fraction_y = self.y.fraction(y).clamp(-2.0, 3.0);
        (
            self.left + fraction_x * self.inner_width,
            self.top + (1.0 - fraction_y) * self.inner_height,
        )
    }

    /// The same plot with another margin for the labels of the y axis.
    pub(crate) fn with_left(mut self, left: f64) -> Plot {
        self.inner_width += self.left - left;
        self.left = left;
        self
    }

    /// The same plot with another margin under the x axis.
    pub(crate) fn with_bottom(mut self, bottom: f64) -> Plot {
        self.inner_height = self.height - self.top - bottom;
        self
    }

    /// A rectangle between two corners in data coordinates; nothing where one is not finite.
    pub(crate) fn rectangle(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        if ![from.0, from.1, to.0, to.1].iter().all(|v| v.is_finite()) {
            return;
        }
        let ((x0, y0), (x1, y1)) = (self.at(from.0, from.1), self.at(to.0, to.1));
        let _ = writeln!(
            self.body,
            "<rect class=\"box {class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            x0.min(x1),
            y0.min(y1),
            (x1 - x0).abs(),
            (y1 - y0).abs()
        );
    }

    /// A broken line; points that are not finite leave gaps.
    pub(crate) fn line(&mut self, class: &str, points: &[(f64, f64)]) {
        let mut path = String::new();
        let mut pen_down = false;
        for &(x, y) in points {
            if !(x.is_finite() && y.is_finite()) {
                pen_down = false;
                continue;
            }
            let (px, py) = self.at(x, y);
            let command = if pen_down { 'L' } else { 'M' };
            let _ = write!(path, "{command}{px:.1} {py:.1}");
            pen_down = true;
        }
        let _ = writeln!(self.body, "<path class=\"line {class}\" d=\"{path}\"/>");
    }

    /// A band between two curves (x, low, high); gaps where either is not finite.
    pub(crate) fn band(&mut self, class: &str, points: &[(f64, f64, f64)]) {
        let mut path = String::new();
        for piece in points.split(|(_, low, high)| !(low.is_finite() && high.is_finite())) {
            if piece.len() < 2 {
                continue;
            }
            let upper = piece.iter().map(|&(x, _, high)| self.at(x, high));
            let lower = piece.iter().rev().map(|&(x, low, _)| self.at(x, low));
            for (index, (px, py)) in upper.chain(lower).enumerate() {
                let command = if index == 0 { 'M' } else { 'L' };
                let _ = write!(path, "{command}{px:.1} {py:.1}");
            }
            path.push('Z');
        }
        let _ = writeln!(self.body, "<path class=\"band {class}\" d=\"{path}\"/>");
    }

    /// A histogram as an outline with a faint filling; `edges` has one element more than `heights`.
    pub(crate) fn steps(&mut self, class: &str, edges: &[f64], heights: &[f64]) {
        let mut outline = Vec::with_capacity(2 * heights.len() + 2);
        outline.push((edges[0], 0.0));
        for (i, &height) in heights.iter().enumerate() {
            outline.push((edges[i], height));
            outline.push((edges[i + 1], height));
        }
        outline.push((edges[heights.len()], 0.0));
        let band: Vec<_> = outline.iter().map(|&(x, y)| (x, 0.0, y)).collect();
        self.band(class, &band);
        self.line(class, &outline);
    }

    /// Small discs.
    pub(crate) fn points(&mut self, class: &str, points: &[(f64, f64)]) {
        let mut path = String::new();
        for &(x, y) in points
            .iter()
            .filter(|(x, y)| x.is_finite() && y.is_finite())
        {
            let (px, py) = self.at(x, y);
            // A line of no length with round ends is the shortest way to write a disc.
            let _ = write!(path, "M{px:.1} {py:.1}h0");
        }
        let _ = writeln!(self.body, "<path class=\"points {class}\" d=\"{path}\"/>");
    }

    /// A vertical strip from x₀ to x₁.
    pub(crate) fn strip(&mut self, class: &str, x0: f64, x1: f64) {
        let ((left, _), (right, _)) = (self.at(x0, self.y.low), self.at(x1, self.y.low));
        let _ = writeln!(
            self.body,
            "<rect class=\"strip {class}\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            self.top,
            right - left,
            self.inner_height
        );
    }

    /// Coloured cells of an n×n grid over the whole plot: `colours[row][column]`, rows from the bottom.
    pub(crate) fn cells(
        &mut self,
        n: usize,
        colour: impl Fn(usize, usize) -> Option<usize>,
        palette: &[String],
    ) {
        let (w, h) = (self.inner_width / n as f64, self.inner_height / n as f64);
        let mut paths = vec![String::new(); palette.len()];
        for row in 0..n {
            let y = self.top + self.inner_height - (row + 1) as f64 * h;
            let mut column = 0;
            while column < n {
                let here = colour(row, column);
                let mut end = column + 1;
                while end < n && colour(row, end) == here {
                    end += 1;
                }
                if let Some(index) = here {
                    let x = self.left + column as f64 * w;
                    // A little overlap hides the seams between neighbours.
                    let (length, height) = ((end - column) as f64 * w + 0.3, h + 0.3);
                    let _ = write!(
                        paths[index],
                        "M{x:.1} {y:.1}h{length:.1}v{height:.1}h-{length:.1}z"
                    );
                }
                column = end;
            }
        }
        for (path, fill) in paths
            .iter()
            .zip(palette)
            .filter(|(path, _)| !path.is_empty())
        {
            let _ = writeln!(
                self.body,
                "<path shape-rendering=\"crispEdges\" fill=\"{fill}\" d=\"{path}\"/>"
            );
        }
    }

    /// Text inside the plot at fractions of its width and height, from the top left.
    pub(crate) fn note(&mut self, class: &str, x: f64, y: f64, anchor: &str, text: &str) {
        let _ = writeln!(
            self.over,
            "<text class=\"note {class}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            self.left + x * self.inner_width,
            self.top + y * self.inner_height,
            escape(text)
        );
    }

    /// Text at a place in data coordinates along x, and a fraction of the height from the top.
    pub(crate) fn note_at(&mut self, class: &str, x: f64, y: f64, anchor: &str, text: &str) {
        let fraction = self.x.fraction(x);
        self.note(class, fraction, y, anchor, text);
    }

    /// Text beside a place in data coordinates, a little to its right where `anchor` is "start".
    pub(crate) fn note_in(&mut self, class: &str, x: f64, y: f64, anchor: &str, text: &str) {
        let (px, py) = self.at(x, y);
        let shift = if anchor == "start" { 5.0 } else { 0.0 };
        let _ = writeln!(
            self.over,
            "<text class=\"note {class}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            px + shift,
            py + 4.0,
            escape(text)
        );
    }

    /// A bar beside the plot that tells what the colours of a palette, low to high, mean; before anything else is drawn.
    pub(crate) fn colour_bar(&mut self, palette: &[String], axis: &Axis) {
        const WIDTH: f64 = 14.0;
        self.inner_width -= 62.0;
        let (left, bottom) = (
            self.left + self.inner_width + 12.0,
            self.top + self.inner_height,
        );
        let height = self.inner_height / palette.len() as f64;
        for (place, colour) in palette.iter().enumerate() {
            let y = bottom - (place + 1) as f64 * height;
            let _ = writeln!(
                self.over,
                "<rect shape-rendering=\"crispEdges\" fill=\"{colour}\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{WIDTH}\" height=\"{:.1}\"/>",
                height + 0.3
            );
        }
        for (value, text) in &axis.ticks {
            let _ = writeln!(
                self.over,
                "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\">{text}</text>",
                left + WIDTH + 5.0,
                bottom - axis.fraction(*value) * self.inner_height + 4.0
            );
        }
        let _ = writeln!(
            self.over,
            "<text class=\"label\" transform=\"translate({:.1} {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            left + WIDTH + 34.0,
            self.top + self.inner_height / 2.0,
            escape(&axis.label)
        );
    }

    /// The SVG element. `description` is for those who cannot see it.
    pub(crate) fn finish(self, description: &str) -> String {
        let Plot {
            width,
            height,
            left,
            top,
            inner_width,
            inner_height,
            ..
        } = self;
        let (right, bottom) = (left + inner_width, top + inner_height);
        let mut axes = String::new();
        for (value, text) in &self.x.ticks {
            let x = left + self.x.fraction(*value) * inner_width;
            let grid = match self.x.grid {
                true => format!("<path class=\"grid\" d=\"M{x:.1} {top:.1}V{bottom:.1}\"/>"),
                false => String::new(),
            };
            let _ = write!(
                axes,
                "{grid}<text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                bottom + 16.0
            );
        }
        for (value, text) in &self.y.ticks {
            let y = bottom - self.y.fraction(*value) * inner_height;
            let grid = match self.y.grid {
                true => format!("<path class=\"grid\" d=\"M{left:.1} {y:.1}H{right:.1}\"/>"),
                false => String::new(),
            };
            let _ = write!(
                axes,
                "{grid}<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                left - 7.0,
                y + 4.0
            );
        }
        let labels = format!(
            "<text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text class=\"label\" transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            left + inner_width / 2.0,
            height - 8.0,
            escape(&self.x.label),
            top + inner_height / 2.0,
            escape(&self.y.label),
        );
        format!(
            "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">\n\
             <clipPath id=\"clip-{clip}\"><rect x=\"{left}\" y=\"{top}\" width=\"{inner_width}\" height=\"{inner_height}\"/></clipPath>\n\
             {axes}\n<g clip-path=\"url(#clip-{clip})\">\n{}</g>\n\
             <rect class=\"frame\" x=\"{left}\" y=\"{top}\" width=\"{inner_width}\" height=\"{inner_height}\"/>\n\
             {labels}\n{}</svg>\n",
            escape(description),
            self.body,
            self.over,
            clip = self.clip
        )
    }
}

/// Colours of the viridis map, dark to bright, as `#rrggbb`.
pub(crate) fn viridis(count: usize) -> Vec<String> {
    const ANCHORS: [[f64; 3]; 9] = [
        [68.0, 1.0, 84.0],
        [72.0, 40.0, 120.0],
        [62.0, 74.0, 137.0],
        [49.0, 104.0, 142.0],
        [38.0, 130.0, 142.0],
        [31.0, 158.0, 137.0],
        [53.0, 183.0, 121.0],
        [110.0, 206.0, 88.0],
        [253.0, 231.0, 37.0],
    ];
    (0..count)
        .map(|index| {
            let position = index as f64 / (count - 1) as f64 * (ANCHORS.len() - 1) as f64;
            let low = (position as usize).min(ANCHORS.len() - 2);
            let fraction = position - low as f64;
            let channel = |c: usize| {
                (ANCHORS[low][c] + fraction * (ANCHORS[low + 1][c] - ANCHORS[low][c])).round() as u8
            };
            format!("#{:02x}{:02x}{:02x}", channel(0), channel(1), channel(2))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(number(0.003_456), "0.00346");
        assert_eq!(number(-1.25), "−1.25");
        assert_eq!(number(12_345.6), "12346");
        assert_eq!(number(2.5e-9), "2.5·10⁻⁹");
        assert_eq!(number(f64::NAN), "not available");
        assert_eq!(with_error(-3.814, 0.09), "−3.81 ± 0.09");
        assert_eq!(with_error(3.814, 0.012), "3.814 ± 0.012");
        assert_eq!(count(2000), "2000");
        assert_eq!(count(1_512_904), "1\u{202f}512\u{202f}904");
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let axis = Axis::linear(-0.37, 1.21, "");
        let texts: Vec<_> = axis.ticks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["0.0", "0.5", "1.0"]);
        let axis = Axis::logarithmic(3e-4, 20.0, "");
        let texts: Vec<_> = axis.ticks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["10⁻³", "10⁻²", "10⁻¹", "10⁰", "10¹"]);
        let axis = Axis::logarithmic(0.3, 4.0, "");
        let texts: Vec<_> = axis.ticks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["0.5", "1", "2"]);
        let axis = Axis::logarithmic(4e-5, 3e-4, "");
        let texts: Vec<_> = axis.ticks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["5·10⁻⁵", "1·10⁻⁴", "2·10⁻⁴"]);
    }
}
