//! Row and elementwise kernels: every tier against the scalar twins, and AVX2 against AVX-512 bit by bit.

use boltzmap_kernels::elementwise::{
    AdamW, AdamWStep, Axpy, Binary, Dot, Map1, Map1InPlace, Map2, Map2InPlace, Operand, Select,
    Sum, Unary,
};
use boltzmap_kernels::random::Stream;
use boltzmap_kernels::rows::{
    AddColumnSums, LayerNormRows, LayerNormTangentRows, ReciprocalStdRows, RowSums, SoftmaxRows,
    SoftmaxTangentRows,
};
use boltzmap_kernels::{Real, Tier, dispatch_on, reference};
use proptest::prelude::*;

fn random<T: Real>(stream: &mut Stream, count: usize) -> Vec<T> {
    let mut values = vec![T::zero(); count];
    stream.fill_standard_normal(&mut values);
    values
}

fn wide<T: Real>(values: &[T]) -> Vec<f64> {
    values.iter().map(|value| value.as_f64()).collect()
}

/// Runs `work` on every tier; the results must be within `tolerance` (in units of epsilon, relative to the larger of 1 and
/// the expected value) of `expected`, and the same bits on the tiers with fused multiply-add.
fn check<T: Real>(name: &str, expected: &[f64], tolerance: f64, work: impl Fn(Tier) -> Vec<T>) {
    let mut fused: Option<Vec<T>> = None;
    for tier in Tier::available() {
        let result = work(tier);
        assert_eq!(result.len(), expected.len());
        for (i, (value, &expected)) in result.iter().zip(expected).enumerate() {
            let error = (value.as_f64() - expected).abs() / expected.abs().max(1.0);
            assert!(
                error <= tolerance * T::epsilon().as_f64() || value.as_f64() == expected,
                "{name} {} {} element {i}: {value} for {expected}",
                tier.name(),
                T::NAME
            );
        }
        if tier != Tier::Portable {
            let first = fused.get_or_insert_with(|| result.clone());
            let same =
                bytemuck::cast_slice::<T, u8>(first) == bytemuck::cast_slice::<T, u8>(&result);
            assert!(same, "{name}: {} differs from the tier before", tier.name());
        }
    }
}

fn unary<T: Real>(seed: u64, length: usize) {
    let mut stream = Stream::new(seed, 0, 0);
    for &function in Unary::ALL {
        let mut x = random::<T>(&mut stream, length);
        if matches!(
            function,
            Unary::Ln | Unary::Sqrt | Unary::Rsqrt | Unary::Reciprocal
        ) {
            x.iter_mut().for_each(|x| *x = x.abs() + T::from_f64(0.01));
        }
        let expected: Vec<f64> = x
            .iter()
            .map(|x| reference::unary(function, x.as_f64()))
            .collect();
        check(&format!("{function:?}"), &expected, 8.0, |tier| {
            let mut y = vec![T::nan(); length];
            dispatch_on(
                tier,
                Map1 {
                    function,
                    x: &x,
                    y: &mut y,
                },
            );
            y
        });
        check(&format!("{function:?} in place"), &expected, 8.0, |tier| {
            let mut y = x.clone();
            dispatch_on(
                tier,
                Map1InPlace {
                    function,
                    x: &mut y,
                },
            );
            y
        });
    }
}

fn at<T: Real>(operand: Operand<'_, T>, i: usize) -> f64 {
    match operand {
        Operand::Dense(slice) => slice[i].as_f64(),
        Operand::Scalar(value) => value.as_f64(),
        Operand::Periodic(slice) => slice[i % slice.len()].as_f64(),
        Operand::Repeated(slice, count) => slice[i / count].as_f64(),
    }
}

fn binary<T: Real>(seed: u64, length: usize, period: usize, count: usize) {
    let mut stream = Stream::new(seed, 0, 0);
    let (first, second, third) = (
        random::<T>(&mut stream, length),
        random::<T>(&mut stream, length),
        random::<T>(&mut stream, length),
    );
    let mask: Vec<T> = third
        .iter()
        .map(|&x| if x > T::zero() { T::one() } else { T::zero() })
        .collect();
    let kinds = |slice| {
        [
            Operand::Dense(slice),
            Operand::Scalar(T::from_f64(0.75)),
            Operand::Periodic(&slice[..period.min(length).max(1).min(slice.len())]),
            Operand::Repeated(slice, count),
        ]
    };
    if length == 0 {
        let mut y: Vec<T> = Vec::new();
        dispatch_on(
            Tier::Portable,
            Map2 {
                function: Binary::Add,
                a: Operand::Dense(&[]),
                b: Operand::Scalar(T::one()),
                y: &mut y,
            },
        );
        return;
    }
    for a in kinds(&first) {
        for b in kinds(&second) {
            for &function in Binary::ALL {
                let expected: Vec<f64> = (0..length)
                    .map(|i| reference::binary(function, at(a, i), at(b, i)))
                    .collect();
                check(&format!("{function:?}"), &expected, 1.0, |tier| {
                    let mut y = vec![T::nan(); length];
                    dispatch_on(
                        tier,
                        Map2 {
                            function,
                            a,
                            b,
                            y: &mut y,
                        },
                    );
                    y
                });
            }
            for mask in kinds(&mask) {
                let expected: Vec<f64> = (0..length)
                    .map(|i| {
                        if at(mask, i) != 0.0 {
                            at(a, i)
                        } else {
                            at(b, i)
                        }
                    })
                    .collect();
                check("select", &expected, 0.0, |tier| {
                    let mut y = vec![T::nan(); length];
                    dispatch_on(
                        tier,
                        Select {
                            mask,
                            on_true: a,
                            on_false: b,
                            y: &mut y,
                        },
                    );
                    y
                });
            }
        }
        for &function in Binary::ALL {
            let expected: Vec<f64> = (0..length)
                .map(|i| reference::binary(function, third[i].as_f64(), at(a, i)))
                .collect();
            check(&format!("{function:?} in place"), &expected, 1.0, |tier| {
                let mut y = third.clone();
                dispatch_on(
                    tier,
                    Map2InPlace {
                        function,
                        a: &mut y,
                        b: a,
                    },
                );
                y
            });
        }
    }
    let expected: Vec<f64> = (0..length)
        .map(|i| -1.5 * first[i].as_f64() + second[i].as_f64())
        .collect();
    check("axpy", &expected, 4.0, |tier| {
        let mut y = second.clone();
        dispatch_on(
            tier,
            Axpy {
                a: T::from_f64(-1.5),
                x: &first,
                y: &mut y,
            },
        );
        y
    });
}

/// Σ of the terms with compensation (Neumaier), and Σ of their magnitudes.
fn exact_sum(terms: &[f64]) -> (f64, f64) {
    let (mut sum, mut lost, mut magnitude) = (0.0f64, 0.0, 0.0);
    for &term in terms {
        let next = sum + term;
        lost += if sum.abs() >= term.abs() {
            (sum - next) + term
        } else {
            (term - next) + sum
        };
        sum = next;
        magnitude += term.abs();
    }
    (sum + lost, magnitude)
}

fn sums<T: Real>(seed: u64, length: usize) {
    let mut stream = Stream::new(seed, 0, 0);
    let (a, b) = (
        random::<T>(&mut stream, length),
        random::<T>(&mut stream, length),
    );
    // A term passes through the additions of its lane within a block, the tree over the lanes, and one for each block;
    // each rounds by half a unit. One more for the product, one for the comparison.
    let additions = length.min(4096) / T::VIRTUAL_WIDTH + 5 + 1 + length / 4096;
    let bound = 0.5 * (additions + 2) as f64;
    let (sum, magnitude) = exact_sum(&wide(&a));
    let tolerance = |sum: f64, magnitude: f64| bound * magnitude / sum.abs().max(1.0);
    check("sum", &[sum], tolerance(sum, magnitude), |tier| {
        vec![T::from_f64(dispatch_on(tier, Sum { x: &a }))]
    });
    let products: Vec<f64> = wide(&a).iter().zip(wide(&b)).map(|(a, b)| a * b).collect();
    let (dot, magnitude) = exact_sum(&products);
    check("dot", &[dot], tolerance(dot, magnitude), |tier| {
        vec![T::from_f64(dispatch_on(tier, Dot { a: &a, b: &b }))]
    });
}

fn rows<T: Real>(seed: u64, rows: usize, columns: usize, repeats: usize) {
    let mut stream = Stream::new(seed, 0, 0);
    let x = random::<T>(&mut stream, rows * columns);
    let v = random::<T>(&mut stream, repeats * rows * columns);
    let exact = wide(&x);
    let tolerance = 8.0 + 2.0 * columns as f64;

    let softmax: Vec<f64> = exact
        .chunks_exact(columns)
        .flat_map(reference::softmax)
        .collect();
    check("softmax", &softmax, tolerance, |tier| {
        let mut y = vec![T::nan(); x.len()];
        dispatch_on(
            tier,
            SoftmaxRows {
                x: &x,
                columns,
                y: &mut y,
            },
        );
        y
    });
    let y: Vec<T> = softmax.iter().map(|&y| T::from_f64(y)).collect();
    let expected: Vec<f64> = (0..repeats * rows)
        .flat_map(|i| {
            let y = &y[i % rows * columns..][..columns];
            reference::softmax_tangent(&wide(y), &wide(&v[i * columns..][..columns]))
        })
        .collect();
    check("softmax tangent", &expected, tolerance, |tier| {
        let mut out = vec![T::nan(); v.len()];
        dispatch_on(
            tier,
            SoftmaxTangentRows {
                softmax: &y,
                direction: &v,
                columns,
                out: &mut out,
            },
        );
        out
    });

    let normed: Vec<(Vec<f64>, f64)> = exact
        .chunks_exact(columns)
        .map(|x| reference::layer_norm(x, 1e-2))
        .collect();
    let mut expected: Vec<f64> = normed.iter().flat_map(|(y, _)| y.clone()).collect();
    expected.extend(normed.iter().map(|(_, r)| r));
    // The deviation from the mean is divided by √ε = 0.1 at worst.
    check("layer norm", &expected, 20.0 * tolerance, |tier| {
        let mut y = vec![T::nan(); x.len()];
        let mut r = vec![T::nan(); rows];
        dispatch_on(
            tier,
            LayerNormRows {
                x: &x,
                columns,
                epsilon: 1e-2,
                y: &mut y,
                reciprocal_std: &mut r,
            },
        );
        y.extend(r);
        y
    });
    let expected: Vec<f64> = normed.iter().map(|(_, r)| *r).collect();
    check("reciprocal std", &expected, 20.0 * tolerance, |tier| {
        let mut r = vec![T::nan(); rows];
        dispatch_on(
            tier,
            ReciprocalStdRows {
                x: &x,
                columns,
                epsilon: 1e-2,
                out: &mut r,
            },
        );
        r
    });
    let y: Vec<T> = normed
        .iter()
        .flat_map(|(y, _)| y.iter().map(|&y| T::from_f64(y)))
        .collect();
    let r: Vec<T> = normed.iter().map(|(_, r)| T::from_f64(*r)).collect();
    let expected: Vec<f64> = (0..repeats * rows)
        .flat_map(|i| {
            let y = &y[i % rows * columns..][..columns];
            reference::layer_norm_tangent(
                &wide(y),
                r[i % rows].as_f64(),
                &wide(&v[i * columns..][..columns]),
            )
        })
        .collect();
    check("layer norm tangent", &expected, 20.0 * tolerance, |tier| {
        let mut out = vec![T::nan(); v.len()];
        let kernel = LayerNormTangentRows {
            normalized: &y,
            reciprocal_std: &r,
            direction: &v,
            columns,
            out: &mut out,
        };
        dispatch_on(tier, kernel);
        out
    });

    let expected: Vec<f64> = exact
        .chunks_exact(columns)
        .map(|x| x.iter().sum())
        .collect();
    check("row sums", &expected, tolerance, |tier| {
        let mut out = vec![T::nan(); rows];
        dispatch_on(
            tier,
            RowSums {
                x: &x,
                columns,
                out: &mut out,
            },
        );
        out
    });
    let expected: Vec<f64> = (0..columns)
        .map(|j| 1.0 + exact.iter().skip(j).step_by(columns).sum::<f64>())
        .collect();
    check("column sums", &expected, 8.0 + 2.0 * rows as f64, |tier| {
        let mut out = vec![T::one(); columns];
        dispatch_on(
            tier,
            AddColumnSums {
                x: &x,
                out: &mut out,
            },
        );
        out
    });
}

fn adamw<T: Real>(seed: u64, length: usize, number: u64) {
    let mut stream = Stream::new(seed, 0, 0);
    let mut draw = || random::<T>(&mut stream, length);
    let (p, g, m, mut v, a) = (draw(), draw(), draw(), draw(), draw());
    v.iter_mut().for_each(|v| *v = *v * *v);
    let step = AdamWStep {
        step: number,
        learning_rate: 1e-2,
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-8,
        weight_decay: 0.1,
        gradient_scale: 0.5,
        ema_decay: 0.98,
    };
    let mut expected = vec![0.0; 4 * length];
    for i in 0..length {
        let moments = (m[i].as_f64(), v[i].as_f64());
        let after =
            reference::adamw_ema(p[i].as_f64(), g[i].as_f64(), moments, a[i].as_f64(), step);
        for (part, value) in [after.0, after.1, after.2, after.3].into_iter().enumerate() {
            expected[part * length + i] = value;
        }
    }
    check("adamw", &expected, 16.0, |tier| {
        let (mut p, mut m, mut v, mut a) = (p.clone(), m.clone(), v.clone(), a.clone());
        let kernel = AdamW {
            parameters: &mut p,
            gradient: &g,
            first_moment: &mut m,
            second_moment: &mut v,
            average: &mut a,
            step,
        };
        dispatch_on(tier, kernel);
        [p, m, v, a].concat()
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn unary_maps(seed in any::<u64>(), length in 0usize..70) {
        unary::<f32>(seed, length);
        unary::<f64>(seed, length);
    }

    #[test]
    fn binary_maps(seed in any::<u64>(), length in 0usize..70, period in 1usize..40, count in 1usize..40) {
        binary::<f32>(seed, length, period, count);
        binary::<f64>(seed, length, period, count);
    }

    #[test]
    fn fixed_order_sums(seed in any::<u64>(), length in 0usize..10_000) {
        sums::<f32>(seed, length);
        sums::<f64>(seed, length);
    }

    #[test]
    fn row_kernels(seed in any::<u64>(), count in 0usize..5, columns in 1usize..70, repeats in 1usize..4) {
        rows::<f32>(seed, count, columns, repeats);
        rows::<f64>(seed, count, columns, repeats);
    }

    #[test]
    fn optimiser(seed in any::<u64>(), length in 0usize..70, number in 1u64..2000) {
        adamw::<f32>(seed, length, number);
        adamw::<f64>(seed, length, number);
    }
}

#[test]
fn softmax_ignores_minus_infinity() {
    for tier in Tier::available() {
        let x = [0.0f32, f32::NEG_INFINITY, 0.0];
        let mut y = [f32::NAN; 3];
        dispatch_on(
            tier,
            SoftmaxRows {
                x: &x,
                columns: 3,
                y: &mut y,
            },
        );
        assert_eq!(y, [0.5, 0.0, 0.5]);
    }
}
