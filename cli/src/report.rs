//! The report: one HTML file with inline SVG and nothing to fetch.

pub(crate) mod figures;
pub(crate) mod page;
mod summary;
pub mod surface;
pub(crate) mod svg;
mod verdict;

pub use summary::Summary;
pub use verdict::{Statement, Tone, verdict};

use std::path::Path;

use anyhow::Result;

use crate::run_dir::write_atomically;

/// Conformations as the figures see them.
#[derive(Clone, Debug, Default)]
pub struct Ensemble {
    /// φ of the residue that the figures show, rad.
    pub phi: Vec<f64>,
    /// ψ of the same residue, rad.
    pub psi: Vec<f64>,
    /// Potential energy, kT.
    pub energy_kt: Vec<f64>,
    /// Weights of any scale; empty for equal ones.
    pub weights: Vec<f64>,
}

/// A curve with its uncertainty; NaN where there is no estimate.
#[derive(Clone, Debug, Default)]
pub struct Band {
    /// The estimate.
    pub value: Vec<f64>,
    /// Lower end of the interval.
    pub low: Vec<f64>,
    /// Upper end of the interval.
    pub high: Vec<f64>,
}

/// Free energy along φ.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// Centres of the bins, rad.
    pub phi: Vec<f64>,
    /// From the reference dynamics, kT, lowest value 0.
    pub reference: Band,
    /// From the re-weighted samples, kT.
    pub reweighted: Band,
    /// From the proposal without weights, kT.
    pub proposal: Vec<f64>,
}

/// One quantity of training over its steps.
#[derive(Clone, Debug, Default)]
pub struct Curve {
    /// What it is.
    pub name: String,
    /// Steps.
    pub steps: Vec<f64>,
    /// Values.
    pub values: Vec<f64>,
}

/// How to make a run again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    /// The command for the configuration that the run directory holds.
    pub command: String,
    /// Why that command alone does not make this run: files that other settings made. Empty where it does.
    pub caveats: Vec<String>,
}

/// Everything that the report shows.
#[derive(Clone, Debug)]
pub struct Report {
    /// The numbers.
    pub summary: Summary,
    /// How to make this run again.
    pub recipe: Recipe,
    /// Frames of the dynamics, unweighted.
    pub reference: Ensemble,
    /// Samples as drawn, unweighted.
    pub proposal: Ensemble,
    /// The samples that carry weights (those audited, where weights are exact).
    pub reweighted: Ensemble,
    /// Free energy along φ.
    pub profile: Profile,
    /// The course of training.
    pub curves: Vec<Curve>,
    /// Log-likelihood by the head of the audited samples, nats.
    pub head_log_q: Vec<f64>,
    /// Their exact log-likelihood, nats, in the same order.
    pub exact_log_q: Vec<f64>,
    /// ln(w/⟨w⟩) of the samples that carry weights, with the mean as the reference frames tell it.
    pub sample_log_weights: Vec<f64>,
    /// The same of the reference frames that were traced back; +∞ where no noise leads to one.
    pub reference_log_weights: Vec<f64>,
}

impl Report {
    /// The page.
    pub fn html(&self) -> String {
        page::html(self)
    }

    /// Writes `summary.json` last, for it marks the run as finished.
    pub fn write(&self, report: &Path, summary: &Path) -> Result<()> {
        write_atomically(report, self.html().as_bytes())?;
        write_atomically(summary, self.summary.to_json().as_bytes())
    }
}

/// The weighted counts of φ (rad) in equal bins over (−π, π], as a free energy −ln p in kT with its minimum at 0.
///
/// Empty weights stand for equal ones. Bins without weight are NaN. Values that are not finite are left out.
pub fn free_energy_profile(phi: &[f64], weights: &[f64], bins: usize) -> Vec<f64> {
    let mut mass = vec![0.0; bins];
    for (index, phi) in phi.iter().enumerate().filter(|(_, phi)| phi.is_finite()) {
        let turn =
            (phi + std::f64::consts::PI).rem_euclid(std::f64::consts::TAU) / std::f64::consts::TAU;
        mass[((turn * bins as f64) as usize).min(bins - 1)] +=
            weights.get(index).copied().unwrap_or(1.0);
    }
    let most = mass.iter().copied().fold(0.0, f64::max);
    mass.iter()
        .map(|&m| if m > 0.0 { -(m / most).ln() } else { f64::NAN })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::evaluate::{BasinShares, ReferenceQuality};
    use crate::pipeline::normalisation::{Estimate, Normalisation, Region};
    use boltzmap_kernels::random::Stream;
    use std::f64::consts::PI;

    fn ensemble(n: usize, seed: u64, spread: f64, heavy: bool) -> Ensemble {
        let mut stream = Stream::new(seed, 0, 0);
        let wrap = |angle: f64| (angle + PI).rem_euclid(2.0 * PI) - PI;
        let mut made = Ensemble::default();
        for _ in 0..n {
            let which = stream.uniform();
            let (phi, psi, width) = match which {
                w if w < 0.45 => (-1.4, 2.6, 0.35),
                w if w < 0.8 => (-1.3, -0.5, 0.3),
                w if w < 0.97 => (-2.6, 2.8, 0.3),
                _ => (1.0, 0.6, 0.25),
            };
            made.phi
                .push(wrap(phi + spread * width * stream.standard_normal()));
            made.psi
                .push(wrap(psi + spread * width * stream.standard_normal()));
            let tail = if heavy {
                (1.5 * stream.standard_normal()).exp() * 3.0
            } else {
                0.0
            };
            made.energy_kt
                .push(-24.0 + 5.4 * stream.standard_normal() + tail);
        }
        made
    }

    fn normalisation() -> Normalisation {
        let estimate = |value, standard_error| Estimate {
            value,
            standard_error,
        };
        let region = |torsions: [f64; 2], share, head| Region {
            torsions: torsions.to_vec(),
            reference_share: share,
            effective_samples: 500.0 * share + 110.0,
            exact: estimate(0.02, 0.03),
            head: estimate(0.02 - head, 0.03),
            head_minus_exact: estimate(head, 0.01),
        };
        Normalisation {
            regions: vec![
                region([-1.4, 2.6], 0.6, -0.1),
                region([1.0, 0.6], 0.02, -0.27),
            ],
            log_z_samples: estimate(-195.6, 0.013),
            log_z_head: estimate(-195.5, 0.013),
            log_z_traced: estimate(-195.6, 0.02),
            log_z_frames: estimate(-195.61, 0.02),
        }
    }

    pub(super) fn synthetic() -> Report {
        let reference = ensemble(8000, 1, 1.0, false);
        let proposal = ensemble(10_000, 2, 1.25, true);
        let n_audited = 2000;
        let mut reweighted = Ensemble {
            phi: proposal.phi[..n_audited].to_vec(),
            psi: proposal.psi[..n_audited].to_vec(),
            energy_kt: proposal.energy_kt[..n_audited].to_vec(),
            weights: Vec::new(),
        };
        reweighted.weights = reweighted
            .energy_kt
            .iter()
            .map(|energy| (-0.3 * (energy + 22.0)).exp())
            .collect();
        let mut stream = Stream::new(3, 0, 0);
        let exact_log_q: Vec<f64> = (0..n_audited)
            .map(|_| 150.0 + 6.0 * stream.standard_normal())
            .collect();
        let head_log_q: Vec<f64> = exact_log_q
            .iter()
            .map(|q| q - 0.3 + 1.4 * stream.standard_normal())
            .collect();
        let bins = 72;
        let band = |phi: &[f64], weights: &[f64], width: f64| {
            let value = free_energy_profile(phi, weights, bins);
            let spread = |sign: f64| {
                value
                    .iter()
                    .map(|v| v + sign * width * (0.1 + 0.1 * v))
                    .collect()
            };
            Band {
                low: spread(-1.0),
                high: spread(1.0),
                value: value.clone(),
            }
        };
        let profile = Profile {
            phi: (0..bins)
                .map(|i| -PI + 2.0 * PI * (i as f64 + 0.5) / bins as f64)
                .collect(),
            reference: band(&reference.phi, &[], 0.7),
            reweighted: band(&reweighted.phi, &reweighted.weights, 2.5),
            proposal: free_energy_profile(&proposal.phi, &[], bins),
        };
        let mut curve = |name: &str, scale: f64| {
            let steps: Vec<f64> = (0..600).map(|i| f64::from(i) * 10.0).collect();
            let values = steps.iter().map(|s| {
                scale * (0.05 + (-s / 900.0).exp()) * (0.3 * stream.standard_normal()).exp()
            });
            Curve {
                name: name.into(),
                values: values.collect(),
                steps,
            }
        };
        let curves = vec![
            curve("velocity loss", 2.0),
            curve("divergence loss", 90.0),
            curve("map loss", 0.4),
            curve("log-determinant loss", 10.0),
            curve("gradient norm", 3.0),
            curve("learning rate", 1e-3),
        ];
        Report {
            summary: Summary {
                name: "ala2".into(),
                system: "Ace-A-Nme".into(),
                force_field: "amber99sbildn+obc2".into(),
                temperature: 300.0,
                n_samples: 10_000,
                n_drawn: 10_250,
                n_reference: 8000,
                method: "scallop".into(),
                likelihood_head: true,
                calibration: None,
                nfe: 8,
                exact_tangents_per_step: 60,
                folded_steps: 0,
                n_audited,
                likelihood: boltzmap_sampling::Likelihood::Exact,
                guidance: 0.0,
                ess_head: 0.061,
                ess_head_audited: 0.07,
                ess_exact: 0.0321,
                ess_exact_clipped: 0.11,
                n_traced: 1000,
                n_unreached: 0,
                heavy_share: 2e-3,
                ess_reference: 0.021,
                ess_reference_error: 0.004,
                proposal_seen: 0.93,
                proposal_seen_error: 0.02,
                likelihood_gap_mean: -0.31,
                likelihood_gap_std: 1.43,
                e_w2: 0.91,
                e_w2_proposal: 7.3,
                e_w2_floor: 0.11,
                t_w2: 0.31,
                t_w2_proposal: 0.44,
                t_w2_floor: 0.21,
                reference: ReferenceQuality {
                    ladders: 8,
                    frames: 8000,
                    independent: vec![("phi ALA 2".into(), 640.0), ("psi ALA 2".into(), 1500.0)],
                    independent_least: 640.0,
                    independent_delta_f: 420.0,
                    lowest_acceptance: 0.31,
                    round_trips: 900,
                    temperatures: 7,
                },
                delta_f_state: "0 < phi ALA 2 < 2 rad".into(),
                delta_f_mirrored: false,
                delta_f_kt: 3.62,
                delta_f_error_kt: 0.28,
                delta_f_head_kt: 3.35,
                delta_f_head_error_kt: 0.3,
                delta_f_head_minus_exact_kt: -0.27,
                delta_f_head_minus_exact_error_kt: 0.04,
                delta_f_reference_kt: 3.81,
                delta_f_reference_error_kt: 0.09,
                basins: [(-PI, 0.05, 0.978), (0.05, 2.4, 0.022)]
                    .map(|(low, high, share)| BasinShares {
                        torsion: "phi ALA 2".into(),
                        low,
                        high,
                        reference: share,
                        reference_error: 0.002,
                        proposal: 0.5,
                        reweighted: share,
                        reweighted_error: 0.004,
                        by_head: share,
                    })
                    .to_vec(),
                normalisation: Some(normalisation()),
                chirality_centres: 1,
                chirality_proposal: 0.9994,
                chirality_weighted: 1.0,
                epsilon: 2e-3,
                n_parameters: 1_512_904,
                training_steps: 6000,
                skipped_steps: 0,
                seconds: [
                    ("data", 210.0),
                    ("train", 640.0),
                    ("sample", 22.0),
                    ("audit", 81.0),
                    ("evaluate", 31.0),
                ]
                .map(|(name, seconds)| (name.to_owned(), seconds))
                .to_vec(),
                threads: 2,
                simd_tier: "avx512".into(),
                seed: 1,
                version: "0.1.0".into(),
                commit: "0123456789ab".into(),
                date: "2026-01-31T12:00:00Z".into(),
            },
            recipe: Recipe {
                command: "boltzmap run ala2 --seed 1".into(),
                caveats: Vec::new(),
            },
            reference,
            proposal,
            reweighted,
            profile,
            curves,
            head_log_q,
            exact_log_q,
            sample_log_weights: (0..n_audited)
                .map(|_| stream.standard_normal() - 0.5)
                .collect(),
            reference_log_weights: (0..1000).map(|_| stream.standard_normal() + 0.5).collect(),
        }
    }

    #[test]
    fn page_is_self_contained_and_every_figure_is_well_formed() {
        let html = synthetic().html();
        if let Ok(path) = std::env::var("BOLTZMAP_TEST_REPORT") {
            std::fs::write(path, &html).unwrap();
        }
        for outside in ["http:", "https:", "<script", "<link", "@import", "src="] {
            assert!(!html.contains(outside), "{outside}");
        }
        let figures: Vec<&str> = html
            .split("<svg")
            .skip(1)
            .map(|rest| rest.split("</svg>").next().unwrap())
            .collect();
        assert!(figures.len() >= 10, "{}", figures.len());
        for figure in figures {
            let text = format!("<svg{figure}</svg>");
            roxmltree::Document::parse(&text)
                .unwrap_or_else(|error| panic!("{error}: {}", &text[..300]));
            assert!(
                !text.contains("NaN") && !text.contains("inf"),
                "{}",
                &text[..300]
            );
        }
        assert!(html.contains("must not be trusted"));
    }

    #[test]
    fn page_survives_missing_numbers() {
        let mut report = synthetic();
        report.reweighted = Ensemble::default();
        report.reference = Ensemble::default();
        report.head_log_q.clear();
        report.exact_log_q.clear();
        report.sample_log_weights.clear();
        report.reference_log_weights.clear();
        report.summary.n_traced = 0;
        report.curves.clear();
        report.profile = Profile::default();
        report
            .proposal
            .energy_kt
            .iter_mut()
            .step_by(3)
            .for_each(|energy| *energy = f64::NAN);
        report.summary.delta_f_kt = f64::NAN;
        report.summary.n_audited = 0;
        report.summary.likelihood_gap_std = f64::NAN;
        report.summary.ess_exact = f64::NAN;
        let html = report.html();
        assert!(!html.contains("NaN"));
        assert!(html.contains("Not audited"));
        let json: serde_json::Value = serde_json::from_str(&report.summary.to_json()).unwrap();
        assert!(json["delta_f_kt"].is_null());
        assert_eq!(json["seconds"]["train"], 640.0);
    }

    #[test]
    fn verdicts_follow_the_numbers() {
        let mut summary = synthetic().summary;
        let tones = |summary: &Summary| verdict(summary).iter().map(|s| s.tone).collect::<Vec<_>>();
        use Tone::{Bad, Caution, Good};
        // 64 effective samples: too few to judge distances and ΔF by.
        assert_eq!(
            tones(&summary),
            [
                Bad, Good, Caution, Caution, Good, Caution, Bad, Caution, Good
            ]
        );
        summary.likelihood_gap_std = 0.2;
        summary.ess_exact = 0.2;
        summary.delta_f_kt = 5.0;
        summary.chirality_weighted = 0.9;
        summary.e_w2 = 0.12;
        summary.heavy_share = 0.0;
        summary.ess_reference = 0.19;
        assert_eq!(
            tones(&summary),
            [Caution, Good, Good, Good, Good, Bad, Good, Good, Bad]
        );
        summary.n_unreached = 20;
        summary.heavy_share = 0.02;
        assert_eq!(tones(&summary)[3], Bad);
        summary.n_traced = 0;
        assert_eq!(tones(&summary).len(), 8);
        // Good as it stands, but the heaviest samples halve it.
        summary.ess_exact_clipped = 0.45;
        let statement = &verdict(&summary)[2];
        assert_eq!(statement.tone, Caution);
        assert!(statement.text.contains("45.0 %"), "{}", statement.text);
    }

    fn about<'s>(statements: &'s [Statement], subject: &str) -> &'s Statement {
        statements
            .iter()
            .find(|statement| statement.subject == subject)
            .unwrap()
    }

    #[test]
    fn a_shift_of_the_free_energy_by_the_head_is_said() {
        let mut summary = synthetic().summary;
        summary.likelihood_gap_std = 0.2;
        let statements = verdict(&summary);
        let head = about(&statements, "Likelihood head");
        assert!(head.tone == Tone::Caution && head.text.contains("−0.27 ± 0.04"));
        summary.delta_f_head_minus_exact_kt = -1.5;
        assert_eq!(about(&verdict(&summary), "Likelihood head").tone, Tone::Bad);
        summary.delta_f_head_minus_exact_kt = 0.02;
        assert_eq!(
            about(&verdict(&summary), "Likelihood head").tone,
            Tone::Good
        );
        // Likelihoods that do not integrate to one where the reference is.
        if let Some(found) = &mut summary.normalisation {
            found.regions[1].exact.value = 0.3;
        }
        assert_eq!(about(&verdict(&summary), "Normalisation").tone, Tone::Bad);
        // Twenty heavy-tailed ratios tell nothing, whatever their error says.
        if let Some(found) = &mut summary.normalisation {
            found.regions[1].effective_samples = 21.0;
        }
        let statements = verdict(&summary);
        let left_out = about(&statements, "Normalisation");
        assert!(left_out.tone == Tone::Caution && left_out.text.contains("too few samples"));
        // What was integrated is not called exact, and guidance is no fault of the method.
        summary.likelihood = boltzmap_sampling::Likelihood::Integrated { tolerance: 1e-4 };
        summary.likelihood_head = false;
        summary.guidance = 0.01;
        let statements = verdict(&summary);
        for subject in ["Likelihood head", "Effective samples", "Normalisation"] {
            let text = &about(&statements, subject).text;
            assert!(text.to_lowercase().contains("integrated"), "{text}");
        }
        assert!(
            about(&statements, "Likelihood head")
                .text
                .contains("guided")
        );
    }

    #[test]
    fn nothing_good_is_said_of_one_effective_sample() {
        let mut summary = synthetic().summary;
        summary.ess_exact = 1.14 / summary.n_audited as f64;
        summary.t_w2 = 0.2;
        summary.t_w2_proposal = 0.1;
        let statements = verdict(&summary);
        for subject in ["Energies", "Torsions", "Free energy"] {
            let statement = about(&statements, subject);
            assert_ne!(statement.tone, Tone::Good, "{subject}");
            assert!(
                statement.text.contains("1.14 effective samples"),
                "{}",
                statement.text
            );
        }
        let torsions = about(&statements, "Torsions");
        assert!(torsions.text.contains("made it worse"), "{}", torsions.text);
    }

    #[test]
    fn a_reference_that_did_not_exchange_is_no_judge() {
        let mut summary = synthetic().summary;
        summary.ess_exact = 0.3;
        summary.e_w2 = 0.1;
        assert_eq!(about(&verdict(&summary), "Energies").tone, Tone::Good);
        summary.reference.round_trips = 0;
        let statements = verdict(&summary);
        assert_eq!(about(&statements, "Reference").tone, Tone::Bad);
        assert_eq!(about(&statements, "Energies").tone, Tone::Caution);
        // A basin without an error bar: the sentence and the numbers of `summary.json` agree.
        summary.delta_f_kt = 15.998;
        summary.delta_f_error_kt = f64::NAN;
        let text = &about(&verdict(&summary), "Free energy").text.clone();
        assert!(text.contains("16.0 kT, with too little"), "{text}");
        // Glycine has no handedness to speak of.
        summary.chirality_centres = 0;
        assert!(verdict(&summary).iter().all(|s| s.subject != "Chirality"));
    }

    #[test]
    fn profile_is_minus_log_of_the_weights() {
        let profile = free_energy_profile(&[-3.0, -3.0, 1.0, f64::NAN], &[1.0, 1.0, 4.0, 9.0], 4);
        assert_eq!(profile[2], 0.0);
        assert!(
            (profile[0] - 2_f64.ln()).abs() < 1e-12 && profile[1].is_nan() && profile[3].is_nan()
        );
    }
}
