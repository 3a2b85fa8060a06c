//! Copies of the right factor of a product in the order the kernel reads it: panels of two vectors of columns, row
//! after row, the columns beyond the last one filled up with zeros.

use super::product::{Factor, PANEL_VECTORS};
use crate::real::Real;
use crate::simd::{Kernel, Lanes, Simd, Tier, dispatch};

/// Columns of a panel on the active tier.
pub fn panel_columns<T: Real>() -> usize {
    let bytes = match Tier::active() {
        Tier::Portable => 16,
        Tier::Avx2 => 32,
        Tier::Avx512 => 64,
    };
    PANEL_VECTORS * bytes / size_of::<T>()
}

/// Elements of a k × n factor in panels.
pub fn panels_length<T: Real>(k: usize, n: usize) -> usize {
    n.next_multiple_of(panel_columns::<T>()) * k
}

/// Lays a k × n factor out in panels for [`RightFactor::Panels`](super::RightFactor::Panels).
///
/// # Panics
/// When `panels` is shorter than [`panels_length`].
///
/// # Safety
/// Every element that the sizes and strides reach is readable and not part of `panels`.
pub unsafe fn pack_panels<T: Real>(factor: Factor<T>, k: usize, n: usize, panels: &mut [T]) {
    assert!(
        panels.len() >= panels_length::<T>(k, n),
        "the panels of a {k} x {n} factor take {} elements, got {}",
        panels_length::<T>(k, n),
        panels.len()
    );
    dispatch(Pack {
        factor,
        k,
        n,
        panels,
    });
}

struct Pack<'a, T> {
    factor: Factor<T>,
    k: usize,
    n: usize,
    panels: &'a mut [T],
}

impl<T: Real> Kernel for Pack<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let panel = PANEL_VECTORS * T::Lanes::<S>::WIDTH;
        for column in (0..self.n).step_by(panel) {
            let target = self.panels[column * self.k..][..panel * self.k].as_mut_ptr();
            // SAFETY: the promise of the caller of `pack_panels`; the target is one panel.
            unsafe {
                let source = Factor {
                    data: self.factor.data.add(column * self.factor.column),
                    ..self.factor
                };
                pack_panel::<T, S>(source, self.k, panel.min(self.n - column), target);
            }
        }
    }
}

/// Copies k rows of up to a panel's columns.
///
/// # Safety
/// The factor's elements are readable, `target` has k rows of a panel, and they do not overlap.
#[inline(always)]
pub(super) unsafe fn pack_panel<T: Real, S: Simd>(
    factor: Factor<T>,
    k: usize,
    columns: usize,
    target: *mut T,
) {
    let width = T::Lanes::<S>::WIDTH;
    for v in 0..PANEL_VECTORS {
        let first = (v * width).min(columns);
        let count = width.min(columns - first);
        // SAFETY: the caller's; vector `v` of every row of the target.
        unsafe {
            let source = Factor {
                data: factor.data.add(first * factor.column),
                ..factor
            };
            pack_vectors::<T, S>(source, k, count, target.add(v * width));
        }
    }
}

/// Copies k rows of `count` columns, at most one vector, to the first vector of every row of a panel.
///
/// # Safety
/// As [`pack_panel`].
#[inline(always)]
unsafe fn pack_vectors<T: Real, S: Simd>(
    source: Factor<T>,
    k: usize,
    count: usize,
    target: *mut T,
) {
    let width = T::Lanes::<S>::WIDTH;
    let panel = PANEL_VECTORS * width;
    let slice = |data: *const T, length: usize| {
        // SAFETY: the caller's promise; every use below stays inside the factor.
        unsafe { std::slice::from_raw_parts(data, length) }
    };
    let mut p = 0;
    // SAFETY: the caller's.
    unsafe {
        if source.column == 1 || count <= 1 {
            while p < k {
                let row = slice(source.data.add(p * source.row), count);
                let vector = if count == width {
                    T::Lanes::<S>::load(row)
                } else {
                    T::Lanes::<S>::load_partial(row, T::zero())
                };
                vector.store(std::slice::from_raw_parts_mut(target.add(p * panel), width));
                p += 1;
            }
            return;
        }
        // Columns are contiguous: squares of them are transposed in registers.
        while source.row == 1 && p + width <= k {
            let mut square = [T::Lanes::<S>::zero(); 16];
            for (j, column) in square.iter_mut().enumerate().take(count) {
                *column = T::Lanes::<S>::load(slice(source.data.add(p + j * source.column), width));
            }
            T::Lanes::<S>::transpose(&mut square);
            for (i, row) in square.iter().enumerate().take(width) {
                row.store(std::slice::from_raw_parts_mut(
                    target.add((p + i) * panel),
                    width,
                ));
            }
            p += width;
        }
        while p < k {
            let row = target.add(p * panel);
            for j in 0..width {
                *row.add(j) = if j < count {
                    *source.data.add(p * source.row + j * source.column)
                } else {
                    T::zero()
                };
            }
            p += 1;
        }
    }
}
