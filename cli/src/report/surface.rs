//! Free energies over one or two dihedrals as a picture of its own.

use super::svg::{Axis, Plot, viridis};

/// Shades of the map.
const SHADES: usize = 24;

/// The style of a picture outside the report.
const STYLE: &str = "<style>svg{background:#fff;font:13px system-ui,sans-serif}\
 .grid{stroke:#dfe3e7;fill:none}.frame{stroke:#60676f;fill:none}\
 .tick,.label,.note{fill:#1c2024}.weighted{stroke:#0b69c7;fill:none;stroke-width:2}\
 .band{fill:#0b69c7;fill-opacity:.25;stroke:none}</style>";

/// An SVG file of free energies (kT, infinite where unknown) in cells of the circle or torus: for one dihedral a line with its standard
/// errors, for two a map, φ along x.
pub fn picture(free: &[f64], errors: &[f64], bins: usize, dimension: usize) -> String {
    let highest = free
        .iter()
        .copied()
        .filter(|f| f.is_finite())
        .fold(1.0, f64::max);
    let svg = if dimension == 1 {
        let mut plot = Plot::new(
            "profile",
            560.0,
            380.0,
            Axis::degrees("φ, degrees"),
            Axis::linear(0.0, 1.05 * highest, "free energy, kT"),
        );
        let at = |bin: usize| -180.0 + 360.0 * (bin as f64 + 0.5) / bins as f64;
        let band: Vec<(f64, f64, f64)> = (0..bins)
            .map(|bin| (at(bin), free[bin] - errors[bin], free[bin] + errors[bin]))
            .collect();
        let line: Vec<(f64, f64)> = (0..bins).map(|bin| (at(bin), free[bin])).collect();
        plot.band("band", &band);
        plot.line("weighted", &line);
        plot.finish("Free energy along the dihedral with its standard error")
    } else {
        let mut plot = Plot::new(
            "surface",
            600.0,
            520.0,
            Axis::degrees("φ, degrees"),
            Axis::degrees("ψ, degrees"),
        );
        let mut palette = viridis(SHADES);
        palette.reverse();
        plot.colour_bar(&palette, &Axis::linear(0.0, highest, "free energy, kT"));
        let shade = |row: usize, column: usize| {
            let value = free[column * bins + row];
            value
                .is_finite()
                .then(|| ((value / highest * SHADES as f64) as usize).min(SHADES - 1))
        };
        plot.cells(bins, shade, &palette);
        plot.finish("Free energy over both dihedrals")
    };
    svg.replacen("<svg ", "<svg xmlns=\"http://www.w3.org/2000/svg\" ", 1)
        .replacen(">\n", &format!(">\n{STYLE}\n"), 1)
}
