//! Strided views of buffers, and the joint simplification of several of them.

/// A rectangular array inside a buffer: element `(i₀, i₁, …)` lies at `offset + Σ iₐ strides[a]`. Stride 0 repeats.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    pub(super) buffer: usize,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// Number of elements of a shape.
pub(super) fn count(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Strides of a dense row-major array.
pub(super) fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; shape.len()];
    let mut step = 1;
    for axis in (0..shape.len()).rev() {
        strides[axis] = step;
        step *= shape[axis];
    }
    strides
}

impl View {
    /// The whole buffer as a dense array.
    pub(super) fn dense(buffer: usize, shape: &[usize]) -> Self {
        Self {
            buffer,
            offset: 0,
            shape: shape.to_vec(),
            strides: row_major(shape),
        }
    }

    /// Whether the elements follow each other in row-major order without gaps.
    pub(super) fn is_dense(&self) -> bool {
        let mut step = 1;
        for axis in (0..self.shape.len()).rev() {
            if self.shape[axis] != 1 {
                if self.strides[axis] != step {
                    return false;
                }
                step *= self.shape[axis];
            }
        }
        true
    }

    /// One past the last element read.
    pub(super) fn end(&self) -> usize {
        self.offset
            + 1
            + self
                .shape
                .iter()
                .zip(&self.strides)
                .map(|(n, s)| (n - 1) * s)
                .sum::<usize>()
    }

    /// Repeated to `shape`, axes aligned at the end.
    pub(super) fn broadcast_to(&self, shape: &[usize]) -> Self {
        let lead = shape.len() - self.shape.len();
        let strides = (0..shape.len())
            .map(|axis| {
                if axis < lead || self.shape[axis - lead] == 1 {
                    0
                } else {
                    self.strides[axis - lead]
                }
            })
            .collect();
        Self {
            buffer: self.buffer,
            offset: self.offset,
            shape: shape.to_vec(),
            strides,
        }
    }

    /// Axis i of the result is axis `permutation[i]`.
    pub(super) fn permute(&self, permutation: &[usize]) -> Self {
        Self {
            buffer: self.buffer,
            offset: self.offset,
            shape: permutation.iter().map(|&axis| self.shape[axis]).collect(),
            strides: permutation.iter().map(|&axis| self.strides[axis]).collect(),
        }
    }

    /// `length` entries from `start` along `axis`.
    pub(super) fn slice(&self, axis: usize, start: usize, length: usize) -> Self {
        let mut view = self.clone();
        view.offset += start * view.strides[axis];
        view.shape[axis] = length;
        view
    }

    /// The same elements under another shape, where strides can express that.
    pub(super) fn reshape(&self, shape: &[usize]) -> Option<Self> {
        let (old_shape, old_strides) = collapse(&self.shape, &[&self.strides]);
        let old_strides = &old_strides[0];
        // Match groups of new axes to merged old axes, from the last one.
        let mut strides = vec![0; shape.len()];
        let mut old = old_shape.len();
        let mut remaining = 1;
        let mut step = 0;
        for axis in (0..shape.len()).rev() {
            if shape[axis] == 1 {
                continue;
            }
            if remaining == 1 {
                old = old.checked_sub(1)?;
                remaining = old_shape[old];
                step = old_strides[old];
            }
            if !remaining.is_multiple_of(shape[axis]) {
                return None;
            }
            strides[axis] = step;
            step *= shape[axis];
            remaining /= shape[axis];
        }
        (remaining == 1 && old == 0).then(|| Self {
            buffer: self.buffer,
            offset: self.offset,
            shape: shape.to_vec(),
            strides,
        })
    }
}

/// Drops axes of size 1 and merges neighbours that every stride list walks as one axis.
pub(super) fn collapse(shape: &[usize], strides: &[&[usize]]) -> (Vec<usize>, Vec<Vec<usize>>) {
    let mut merged_shape: Vec<usize> = Vec::new();
    let mut merged: Vec<Vec<usize>> = vec![Vec::new(); strides.len()];
    for axis in 0..shape.len() {
        if shape[axis] == 1 {
            continue;
        }
        let joins = !merged_shape.is_empty()
            && merged.iter().zip(strides).all(|(merged, strides)| {
                *merged.last().unwrap_or(&0) == strides[axis] * shape[axis]
            });
        if joins {
            if let Some(last) = merged_shape.last_mut() {
                *last *= shape[axis];
            }
            for (merged, strides) in merged.iter_mut().zip(strides) {
                if let Some(last) = merged.last_mut() {
                    *last = strides[axis];
                }
            }
        } else {
            merged_shape.push(shape[axis]);
            for (merged, strides) in merged.iter_mut().zip(strides) {
                merged.push(strides[axis]);
            }
        }
    }
    (merged_shape, merged)
}

/// Calls `visit` with the offsets of every multi-index of `shape` in row-major order, one offset per stride list.
pub(super) fn for_each_offset<const N: usize>(
    shape: &[usize],
    strides: [&[usize]; N],
    start: [usize; N],
    mut visit: impl FnMut([usize; N]),
) {
    let mut index = [0usize; MAX_AXES];
    assert!(
        shape.len() <= MAX_AXES,
        "arrays have at most {MAX_AXES} axes"
    );
    let mut offsets = start;
    if shape.contains(&0) {
        return;
    }
    loop {
        visit(offsets);
        let mut axis = shape.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            index[axis] += 1;
            for i in 0..N {
                offsets[i] += strides[i][axis];
            }
            if index[axis] < shape[axis] {
                break;
            }
            for i in 0..N {
                offsets[i] -= shape[axis] * strides[i][axis];
            }
            index[axis] = 0;
        }
    }
}

/// More axes than any program has.
pub(super) const MAX_AXES: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshape_of_views() {
        let dense = View::dense(0, &[4, 6, 10]);
        assert_eq!(
            dense.reshape(&[24, 10]).map(|v| v.strides),
            Some(vec![10, 1])
        );
        let cut = dense.slice(2, 2, 4);
        assert_eq!(
            cut.reshape(&[24, 2, 2]).map(|v| (v.offset, v.strides)),
            Some((2, vec![10, 2, 1]))
        );
        assert_eq!(cut.reshape(&[96]), None);
        assert_eq!(dense.permute(&[1, 0, 2]).reshape(&[24, 10]), None);
        let repeated = View::dense(0, &[1]).broadcast_to(&[4, 6]);
        assert_eq!(
            repeated.reshape(&[2, 12]).map(|v| v.strides),
            Some(vec![0, 0])
        );
    }

    #[test]
    fn collapse_merges_jointly() {
        let (shape, strides) = collapse(&[4, 6, 1, 10], &[&[60, 10, 10, 1], &[10, 0, 0, 1]]);
        assert_eq!(shape, [4, 6, 10]);
        assert_eq!(strides, [vec![60, 10, 1], vec![10, 0, 1]]);
        let (shape, strides) = collapse(&[4, 6, 10], &[&[60, 10, 1], &[0, 0, 0]]);
        assert_eq!((shape, strides), (vec![240], vec![vec![1], vec![0]]));
    }
}
