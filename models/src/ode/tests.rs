//! Order conditions, convergence, error control and failures.

use super::*;

/// y' = cos(t) y, y(0) = 1: y = exp(sin t). Not autonomous, so that the nodes are tested as well.
fn growth(t: f64, y: &[f64], slope: &mut [f64]) -> Result<(), ModelError> {
    slope[0] = t.cos() * y[0];
    slope[1] = -2.0 * t * y[1] * y[1]; // y = 1/(1 + t²)
    Ok(())
}

fn error_at_two(tableau: &Tableau, steps: usize) -> f64 {
    let mut y = [1.0, 1.0];
    integrate_fixed(tableau, growth, &mut y, 0.0, 2.0, steps).unwrap();
    (y[0] - 2.0f64.sin().exp()).abs().max((y[1] - 0.2).abs())
}

/// A rooted tree: the subtrees at its root's children, in a normal form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Tree(Vec<Tree>);

impl Tree {
    fn order(&self) -> u32 {
        1 + self.0.iter().map(Tree::order).sum::<u32>()
    }

    /// γ: the order times the densities of the subtrees.
    fn density(&self) -> f64 {
        f64::from(self.order()) * self.0.iter().map(Tree::density).product::<f64>()
    }

    /// Π over the children of Σ_j a_ij Φ_j(child), for every stage i.
    fn stage_weights(&self, tableau: &Tableau) -> Vec<f64> {
        let children: Vec<Vec<f64>> = self.0.iter().map(|c| c.stage_weights(tableau)).collect();
        let stages = tableau.stages.iter();
        stages
            .map(|row| {
                children
                    .iter()
                    .map(|child| row.iter().zip(child).map(|(a, w)| a * w).sum::<f64>())
                    .product()
            })
            .collect()
    }

    /// Every tree of one more vertex, made by hanging a leaf somewhere.
    fn grown(&self) -> Vec<Tree> {
        let mut children = self.0.clone();
        children.push(Tree(Vec::new()));
        let mut all = vec![Tree(children)];
        for (i, child) in self.0.iter().enumerate() {
            for larger in child.grown() {
                let mut children = self.0.clone();
                children[i] = larger;
                all.push(Tree(children));
            }
        }
        for tree in &mut all {
            tree.0.sort();
        }
        all
    }
}

/// All rooted trees of 1, 2, … vertices.
fn trees(largest: u32) -> Vec<Vec<Tree>> {
    let mut orders = vec![vec![Tree(Vec::new())]];
    for _ in 1..largest {
        let smaller = orders.last().expect("a tree of one vertex");
        let mut larger: Vec<Tree> = smaller.iter().flat_map(Tree::grown).collect();
        larger.sort();
        larger.dedup();
        orders.push(larger);
    }
    orders
}

/// The largest violation of Σ b_i Φ_i(τ) = 1/γ(τ) over the trees.
fn violation(tableau: &Tableau, weights: &[f64], trees: &[Tree]) -> f64 {
    trees
        .iter()
        .map(|tree| {
            let stages = tree.stage_weights(tableau);
            let sum: f64 = weights.iter().zip(&stages).map(|(b, w)| b * w).sum();
            (sum - 1.0 / tree.density()).abs()
        })
        .fold(0.0, f64::max)
}

#[test]
fn every_solution_fulfils_the_conditions_of_its_order_and_no_more() {
    let trees = trees(6);
    let counts: Vec<usize> = trees.iter().map(Vec::len).collect();
    assert_eq!(counts, [1, 1, 2, 4, 9, 20], "rooted trees");
    for tableau in Tableau::ALL {
        let mut solutions = vec![(tableau.order, tableau.weights.to_vec())];
        if let Some(embedded) = tableau.embedded {
            let weights = tableau.weights.iter().zip(embedded.error_weights);
            solutions.push((embedded.order, weights.map(|(b, e)| b - e).collect()));
        }
        for (order, weights) in solutions {
            assert_eq!(weights.len(), tableau.nodes.len());
            let order = order as usize;
            // Coefficients reach 13, and products of four of them are summed with both signs.
            for (k, of_order) in trees[..order].iter().enumerate() {
                let violation = violation(&tableau, &weights, of_order);
                let name = tableau.name;
                assert!(
                    violation < 5e-14,
                    "{name}, trees of {}: {violation:e}",
                    k + 1
                );
            }
            // Were the next order's conditions fulfilled too, the order would be given too low.
            let next = violation(&tableau, &weights, &trees[order]);
            assert!(next > 1e-5, "{}: {next:e}", tableau.name);
        }
    }
}

#[test]
fn nodes_are_the_sums_of_their_rows() {
    for tableau in Tableau::ALL {
        assert_eq!(tableau.stages.len(), tableau.nodes.len());
        for (i, (row, node)) in tableau.stages.iter().zip(tableau.nodes).enumerate() {
            assert_eq!(row.len(), i, "an explicit method");
            let sum: f64 = row.iter().sum();
            assert!((sum - node).abs() < 1e-14, "{}: {sum} {node}", tableau.name);
        }
    }
    let reuse = Tableau::ALL.map(|tableau| tableau.first_same_as_last());
    assert_eq!(reuse, [false, false, false, true, true]);
}

#[test]
fn every_tableau_converges_at_its_order() {
    for (tableau, steps) in [
        (Tableau::EULER, 2000),
        (Tableau::HEUN, 400),
        (Tableau::RK4, 80),
        (Tableau::DORMAND_PRINCE, 100),
        (Tableau::TSITOURAS, 80),
    ] {
        let order = (error_at_two(&tableau, steps) / error_at_two(&tableau, 2 * steps)).log2();
        assert!(
            (order - f64::from(tableau.order)).abs() < 0.25,
            "{}: {order}",
            tableau.name
        );
    }
}

#[test]
fn fixed_steps_count_their_evaluations() {
    for (tableau, evaluations) in Tableau::ALL.into_iter().zip([10, 20, 40, 61, 61]) {
        let mut calls = 0;
        let counted = |t: f64, y: &[f64], slope: &mut [f64]| {
            calls += 1;
            growth(t, y, slope)
        };
        let mut y = [1.0, 1.0];
        let statistics = integrate_fixed(&tableau, counted, &mut y, 0.0, 2.0, 10).unwrap();
        assert_eq!(
            statistics,
            Statistics {
                accepted: 10,
                rejected: 0,
                evaluations
            },
            "{}",
            tableau.name
        );
        assert_eq!(calls, evaluations);
    }
}

#[test]
fn adaptive_errors_are_proportional_to_the_tolerance_in_both_directions() {
    for (tableau, finest) in [
        (Tableau::DORMAND_PRINCE, 10),
        (Tableau::TSITOURAS, 10),
        (Tableau::HEUN, 8),
    ] {
        let (mut previous, mut errors) = (0, Vec::new());
        for digits in (4..=finest).step_by(2) {
            let tolerance = 10f64.powi(-digits);
            let tolerances = Tolerances {
                relative: tolerance,
                absolute: tolerance,
                max_steps: 1_000_000,
            };
            let mut calls = 0;
            let counted = |t: f64, y: &[f64], slope: &mut [f64]| {
                calls += 1;
                growth(t, y, slope)
            };
            let mut y = [1.0, 1.0];
            let statistics =
                integrate_adaptive(&tableau, counted, &mut y, 2, 0.0, 2.0, &tolerances).unwrap();
            let error = (y[0] - 2.0f64.sin().exp()).abs().max((y[1] - 0.2).abs());
            assert!(
                error < 20.0 * tolerance,
                "{}: {error} at {tolerance}",
                tableau.name
            );
            errors.push(error);
            assert_eq!(calls, statistics.evaluations);
            assert!(calls > previous);
            previous = calls;
            // Two evaluations for the first step's size; the first stage is free after a refusal, or where it is the
            // last stage of the step before.
            let tried = statistics.accepted + statistics.rejected;
            let fresh = if tableau.first_same_as_last() {
                0
            } else {
                statistics.accepted - 1
            };
            assert_eq!(calls, 2 + tried * (tableau.nodes.len() - 1) + fresh);
            integrate_adaptive(&tableau, growth, &mut y, 2, 2.0, 0.0, &tolerances).unwrap();
            assert!(
                (y[0] - 1.0).abs() < 100.0 * tolerance && (y[1] - 1.0).abs() < 100.0 * tolerance
            );
        }
        // Slope of ln error over ln tolerance.
        let slope = (errors[0] / errors[errors.len() - 1]).ln() / (10f64.powi(finest - 4)).ln();
        assert!(
            (slope - 1.0).abs() < 0.2,
            "{}: errors {errors:?} go with the power {slope} of the tolerance",
            tableau.name
        );
    }
}

#[test]
fn the_worst_sample_decides_the_step() {
    // One slow and one fast oscillation as two rows: the joint root mean square would hide the fast one's error.
    let system = |_: f64, y: &[f64], slope: &mut [f64]| {
        for (i, frequency) in [1.0, 40.0].into_iter().enumerate() {
            slope[2 * i] = frequency * y[2 * i + 1];
            slope[2 * i + 1] = -frequency * y[2 * i];
        }
        Ok(())
    };
    let tolerances = Tolerances {
        relative: 1e-8,
        absolute: 1e-8,
        max_steps: 10_000,
    };
    let mut y = [0.0, 1.0, 0.0, 1.0];
    integrate_adaptive(
        &Tableau::DORMAND_PRINCE,
        system,
        &mut y,
        2,
        0.0,
        1.0,
        &tolerances,
    )
    .unwrap();
    assert!((y[2] - 40.0f64.sin()).abs() < 1e-5 && (y[0] - 1.0f64.sin()).abs() < 1e-7);
}

#[test]
fn a_blow_up_and_a_step_limit_are_errors() {
    let blow_up = |_: f64, y: &[f64], slope: &mut [f64]| {
        slope[0] = y[0] * y[0];
        Ok(())
    };
    let mut y = [1.0];
    let tolerances = Tolerances::default();
    let result = integrate_adaptive(
        &Tableau::DORMAND_PRINCE,
        blow_up,
        &mut y,
        1,
        0.0,
        2.0,
        &tolerances,
    );
    assert!(
        matches!(result, Err(ModelError::Integration { .. })),
        "{result:?}"
    );
    let few = Tolerances {
        max_steps: 3,
        ..tolerances
    };
    let result = integrate_adaptive(
        &Tableau::DORMAND_PRINCE,
        growth,
        &mut [1.0, 1.0],
        2,
        0.0,
        2.0,
        &few,
    );
    assert!(
        result
            .unwrap_err()
            .to_string()
            .contains("3 steps were not enough")
    );
}
