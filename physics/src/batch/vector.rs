//! Three-vectors of lanes.

use boltzmap_kernels::simd::Lanes;

#[derive(Clone, Copy)]
pub(crate) struct V3<L> {
    pub(crate) x: L,
    pub(crate) y: L,
    pub(crate) z: L,
}

impl<L: Lanes> V3<L> {
    #[inline(always)]
    pub(crate) fn load(from: &[L], atom: usize) -> Self {
        let at = &from[3 * atom..3 * atom + 3];
        Self {
            x: at[0],
            y: at[1],
            z: at[2],
        }
    }

    #[inline(always)]
    pub(crate) fn minus(self, o: Self) -> Self {
        Self {
            x: self.x - o.x,
            y: self.y - o.y,
            z: self.z - o.z,
        }
    }

    #[inline(always)]
    pub(crate) fn plus(self, o: Self) -> Self {
        Self {
            x: self.x + o.x,
            y: self.y + o.y,
            z: self.z + o.z,
        }
    }

    #[inline(always)]
    pub(crate) fn times(self, s: L) -> Self {
        Self {
            x: self.x * s,
            y: self.y * s,
            z: self.z * s,
        }
    }

    #[inline(always)]
    pub(crate) fn dot(self, o: Self) -> L {
        self.x.mul_add(o.x, self.y.mul_add(o.y, self.z * o.z))
    }

    #[inline(always)]
    pub(crate) fn cross(self, o: Self) -> Self {
        Self {
            x: self.y * o.z - self.z * o.y,
            y: self.z * o.x - self.x * o.z,
            z: self.x * o.y - self.y * o.x,
        }
    }

    #[inline(always)]
    pub(crate) fn add_to(self, to: &mut [L], atom: usize) {
        let at = &mut to[3 * atom..3 * atom + 3];
        at[0] = at[0] + self.x;
        at[1] = at[1] + self.y;
        at[2] = at[2] + self.z;
    }

    #[inline(always)]
    pub(crate) fn subtract_from(self, to: &mut [L], atom: usize) {
        let at = &mut to[3 * atom..3 * atom + 3];
        at[0] = at[0] - self.x;
        at[1] = at[1] - self.y;
        at[2] = at[2] - self.z;
    }
}
