//! Between conformations `[n][atom][xyz]` and a tile `[atom][xyz]` of lanes.

use boltzmap_kernels::real::Real;
use boltzmap_kernels::simd::Lanes;

/// Lane l of `tile[k]` becomes element k of row l of `rows`, whose rows are as long as the tile; lanes beyond the last row
/// repeat it.
#[inline(always)]
pub(crate) fn load_tile<L: Lanes>(rows: &[L::Scalar], tile: &mut [L]) {
    let size = tile.len();
    let last = rows.len() / size - 1;
    let whole = size / L::WIDTH * L::WIDTH;
    let mut block = [L::zero(); 16];
    for from in (0..whole).step_by(L::WIDTH) {
        for lane in 0..L::WIDTH {
            block[lane] = L::load(&rows[lane.min(last) * size + from..]);
        }
        L::transpose(&mut block);
        tile[from..from + L::WIDTH].copy_from_slice(&block[..L::WIDTH]);
    }
    let mut buffer = [<L::Scalar as Real>::from_f64(0.0); 16];
    for k in whole..size {
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
    let whole = size / L::WIDTH * L::WIDTH;
    let mut block = [L::zero(); 16];
    for from in (0..whole).step_by(L::WIDTH) {
        block[..L::WIDTH].copy_from_slice(&tile[from..from + L::WIDTH]);
        L::transpose(&mut block);
        for lane in 0..count {
            block[lane].store(&mut rows[lane * size + from..]);
        }
    }
    let mut buffer = [<L::Scalar as Real>::from_f64(0.0); 16];
    for k in whole..size {
        tile[k].store(&mut buffer);
        for lane in 0..count {
            rows[lane * size + k] = buffer[lane];
        }
    }
}
