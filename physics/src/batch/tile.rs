//! Between conformations `[n][atom][xyz]` and a tile `[atom][xyz]` of lanes.

use boltzmap_kernels::real::Real;
use boltzmap_kernels::simd::Lanes;

/// Lane l of `tile[k]` becomes element k of row l of `rows`, whose rows are as long as the tile; lanes beyond the last row
/// repeat it.
#[inline(always)]
pub(crate) fn load_tile<L: Lanes>(rows: &[L::Scalar], tile: &mut [L]) {
    let size = tile.len();
    let last = rows.len() / size - 1;
    let mut buffer = [<L::Scalar as Real>::from_f64(0.0); 16];
    for k in 0..size {
        for lane in 0..L::WIDTH {
            buffer[lane] = rows[lane.min(last) * size + k];
        }
        tile[k] = L::load(&buffer);
    }
}

/// The inverse of [`load_tile`]; lanes beyond the last row are dropped.
#[inline(always)]
pub(crate) fn store_tile<L: Lanes>(tile: &[L], rows: &mut [L::Scalar]) {
    let size = tile.len();
    let count = rows.len() / size;
    let mut buffer = [<L::Scalar as Real>::from_f64(0.0); 16];
    for k in 0..size {
        tile[k].store(&mut buffer);
        for lane in 0..count {
            rows[lane * size + k] = buffer[lane];
        }
    }
}
