//! The roof: the rate of plain matrix products at the shapes a task really has, on all threads at once.

use std::time::Instant;

use boltzmap_autodiff::ir::{Op, Program};
use boltzmap_kernels::gemm::{GemmShape, gemm};
use boltzmap_kernels::random::Stream;

/// A product against a matrix without batch axes, as often as a block's program has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DenseProduct {
    /// Sizes, batch axes taken into the rows.
    pub shape: GemmShape,
    /// Whether A is stored transposed.
    pub transpose_a: bool,
    /// Whether B is stored transposed.
    pub transpose_b: bool,
    /// Times per block.
    pub count: usize,
}

impl DenseProduct {
    fn operations(&self) -> f64 {
        let GemmShape { m, n, k } = self.shape;
        2.0 * m as f64 * n as f64 * k as f64 * self.count as f64
    }
}

/// Products that together make up less than this share of the dense ones are left out.
const LEAST_SHARE: f64 = 0.01;
/// Least seconds of one measurement.
const SECONDS: f64 = 0.03;

/// Floating-point operations in all matrix products of a program.
pub fn product_operations(program: &Program) -> f64 {
    let operations = program.instructions.iter().map(|instruction| {
        let Op::MatMul { a, transpose_a, .. } = instruction.op else {
            return 0.0;
        };
        let a = program.shape(a);
        let k = a[a.len() - if transpose_a { 2 } else { 1 }];
        2.0 * k as f64 * instruction.shape.iter().product::<usize>() as f64
    });
    operations.sum()
}

/// The dense products of a block's program. Small products with batch axes on both sides (attention) are not among
/// them: the roof gives their operations the rate of the dense ones.
pub fn dense_products(program: &Program) -> Vec<DenseProduct> {
    let mut found: Vec<DenseProduct> = Vec::new();
    for instruction in &program.instructions {
        let Op::MatMul {
            a,
            b,
            transpose_a,
            transpose_b,
        } = instruction.op
        else {
            continue;
        };
        let (a, b) = (program.shape(a), program.shape(b));
        let count = |shape: &[usize]| shape[..shape.len() - 2].iter().product::<usize>();
        let out = &instruction.shape;
        let (rows, n) = (out[out.len() - 2], out[out.len() - 1]);
        let k = a[a.len() - if transpose_a { 2 } else { 1 }];
        let m = match (count(a), count(b)) {
            (1, 1) => rows,
            (batch, 1) if !transpose_a => batch * rows,
            _ => continue,
        };
        let product = DenseProduct {
            shape: GemmShape { m, n, k },
            transpose_a,
            transpose_b,
            count: 1,
        };
        match found.iter_mut().find(|other| {
            DenseProduct {
                count: 1,
                ..**other
            } == product
        }) {
            Some(other) => other.count += 1,
            None => found.push(product),
        }
    }
    let total: f64 = found.iter().map(DenseProduct::operations).sum();
    found.retain(|product| product.operations() >= LEAST_SHARE * total);
    found
}

/// Measures the rate of a list of products.
pub struct Roof {
    products: Vec<DenseProduct>,
    rounds: usize,
}

impl Roof {
    /// Prepares the measurement; `None` where there is nothing to measure.
    pub fn new(products: &[DenseProduct], pool: &rayon::ThreadPool) -> Option<Self> {
        if products.is_empty() {
            return None;
        }
        let mut roof = Self {
            products: products.to_vec(),
            rounds: 1,
        };
        let once = roof.seconds(pool);
        roof.rounds = ((SECONDS / once).ceil() as usize).clamp(1, 10_000);
        Some(roof)
    }

    /// Floating-point operations per second of all threads together: each runs the block's products in turn, in its
    /// own memory.
    pub fn measure(&self, pool: &rayon::ThreadPool) -> f64 {
        let operations: f64 = self.products.iter().map(DenseProduct::operations).sum();
        operations * (self.rounds * pool.current_num_threads()) as f64 / self.seconds(pool)
    }

    fn seconds(&self, pool: &rayon::ThreadPool) -> f64 {
        let largest = |size: fn(GemmShape) -> usize| {
            self.products
                .iter()
                .map(|product| size(product.shape))
                .max()
                .unwrap_or(0)
        };
        let lengths = [
            largest(|s| s.m * s.k),
            largest(|s| s.k * s.n),
            largest(|s| s.m * s.n),
        ];
        // Threads wait for each other after they have filled their memory.
        let barrier = std::sync::Barrier::new(pool.current_num_threads());
        pool.broadcast(|_| {
            let mut stream = Stream::new(1, 2, 3);
            let [a, b, mut c] = lengths.map(|length| {
                let mut values = vec![0.0f32; length];
                stream.fill_standard_normal(&mut values);
                values
            });
            let mut run = |rounds: usize| {
                for _ in 0..rounds {
                    for product in &self.products {
                        for _ in 0..product.count {
                            let (ta, tb) = (product.transpose_a, product.transpose_b);
                            gemm(product.shape, 1.0, &a, ta, &b, tb, 0.0, &mut c);
                        }
                    }
                }
            };
            run(1);
            barrier.wait();
            let clock = Instant::now();
            run(self.rounds);
            clock.elapsed().as_secs_f64()
        })
        .into_iter()
        .fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltzmap_autodiff::Builder;

    #[test]
    fn dense_products_are_collected_with_their_rows_and_counts() {
        let b = Builder::new();
        let x = b.input("x", &[4, 22, 128]);
        let w = b.input("w", &[384, 128]);
        let v = b.input("v", &[384, 128]);
        // Two products of one shape, and one of batches with batches, which is not dense.
        let (q, k) = (x.matmul_t(w), x.matmul_t(v));
        let scores = q.matmul_t(k); // [4, 22, 22]
        let program = b.finish(&[("scores", scores)]);
        let shape = GemmShape {
            m: 88,
            n: 384,
            k: 128,
        };
        let expected = DenseProduct {
            shape,
            transpose_a: false,
            transpose_b: true,
            count: 2,
        };
        assert_eq!(dense_products(&program), [expected]);
        let (dense, attention) = (2 * 2 * 88 * 384 * 128, 2 * 4 * 22 * 22 * 384);
        assert_eq!(product_operations(&program), (dense + attention) as f64);
    }

    #[test]
    fn rates_are_positive_and_there_is_none_of_nothing() {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(2)
            .build()
            .unwrap();
        assert!(Roof::new(&[], &pool).is_none());
        let product = DenseProduct {
            shape: GemmShape { m: 8, n: 8, k: 8 },
            transpose_a: false,
            transpose_b: false,
            count: 1,
        };
        let roof = Roof::new(&[product], &pool).unwrap();
        assert!(roof.measure(&pool) > 0.0);
    }
}
