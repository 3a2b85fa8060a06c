//! Products of one matrix with the states of many conformations, one conformation per lane.

use boltzmap_kernels::real::Real;
use boltzmap_kernels::simd::Lanes;

/// Rows that are multiplied at a time: enough sums beside each other to hide the latency of additions.
pub(super) const PANEL: usize = 8;

/// A square matrix `[d, d]` in panels of [`PANEL`] rows, `[panel, column, PANEL]`, filled up with rows of zeros.
pub(super) struct Panels<T> {
    d: usize,
    values: Vec<T>,
}

impl<T: Real> Panels<T> {
    /// From the entry of each row and column.
    pub(super) fn new(d: usize, entry: impl Fn(usize, usize) -> T) -> Self {
        let mut values = vec![T::from_f64(0.0); d.div_ceil(PANEL) * d * PANEL];
        for row in 0..d {
            let panel = &mut values[row / PANEL * d * PANEL..];
            for column in 0..d {
                panel[column * PANEL + row % PANEL] = entry(row, column);
            }
        }
        Self { d, values }
    }

    /// The product with `vector` (`[d]` lanes) into `product`, which has room for whole panels. Every element is a sum in the order of the
    /// columns, whose terms are multiply-adds with `FUSED`, and products rounded before they are added without.
    #[inline(always)]
    pub(super) fn multiply<L: Lanes<Scalar = T>, const FUSED: bool>(
        &self,
        vector: &[L],
        product: &mut [L],
    ) {
        let panels = self.values.chunks_exact(self.d * PANEL);
        for (panel, product) in panels.zip(product.chunks_exact_mut(PANEL)) {
            let mut sums = [L::zero(); PANEL];
            for (column, &x) in panel.chunks_exact(PANEL).zip(vector) {
                for k in 0..PANEL {
                    let factor = L::splat(column[k]);
                    sums[k] = match FUSED {
                        true => factor.mul_add(x, sums[k]),
                        false => sums[k] + factor * x,
                    };
                }
            }
            product.copy_from_slice(&sums);
        }
    }
}
