//! Which blocks of atoms are close enough to interact.
//!
//! With a cutoff the atoms are put in an order in which a block is a compact piece of space: the set is halved across its longest side,
//! at a whole number of blocks, until single blocks are left. The halvings are a tree of boxes, and a block finds its partners by going
//! down it, in a time that hardly grows with the molecule. All is done anew for every conformation, so that no list is ever out of date, and
//! boxes are compared a little generously, so that only the distance of a pair itself decides.

use boltzmap_kernels::real::Real;

/// How much farther than the cutoff boxes may be (squared distance, relative), beyond what any rounding of a pair's distance may do.
const GENEROSITY: f64 = 1.0 + 1e-5;
/// Atoms below which halves are not worth a thread of their own.
const SERIAL_BELOW: usize = 1024;

/// A partner of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    /// Index of the partner block.
    pub(super) block: u32,
    /// Bit r: row r of the block, its r-th atom, may have an atom of the partner within reach.
    pub(super) rows: u32,
}

/// An axis-parallel box.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    low: [f64; 3],
    high: [f64; 3],
}

impl Bounds {
    fn of<T: Real>(x: &[T], atoms: &[u32]) -> Self {
        let mut bounds = Self {
            low: [f64::INFINITY; 3],
            high: [f64::NEG_INFINITY; 3],
        };
        for &atom in atoms {
            bounds = bounds.with(&Self::point(x, atom));
        }
        bounds
    }

    fn point<T: Real>(x: &[T], atom: u32) -> Self {
        let at = std::array::from_fn(|axis| x[3 * atom as usize + axis].as_f64());
        Self { low: at, high: at }
    }

    fn with(self, other: &Self) -> Self {
        Self {
            low: std::array::from_fn(|axis| self.low[axis].min(other.low[axis])),
            high: std::array::from_fn(|axis| self.high[axis].max(other.high[axis])),
        }
    }

    fn longest_axis(&self) -> usize {
        let side = |axis: usize| self.high[axis] - self.low[axis];
        let longer = |a: usize, b: usize| if side(b) > side(a) { b } else { a };
        longer(longer(0, 1), 2)
    }

    fn squared_distance(&self, other: &Self) -> f64 {
        (0..3)
            .map(|axis| {
                let gap = (self.low[axis] - other.high[axis])
                    .max(other.low[axis] - self.high[axis])
                    .max(0.0);
                gap * gap
            })
            .sum()
    }
}

/// The order of the atoms in space and the boxes of its halvings.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Atom at every place.
    pub(super) order: Vec<u32>,
    /// The whole, then the tree of its first half, then that of its second.
    nodes: Vec<Bounds>,
    width: usize,
}

/// Nodes of the tree over that many blocks.
fn tree_size(blocks: usize) -> usize {
    2 * blocks - 1
}

/// Blocks of the first half.
fn first_half(blocks: usize) -> usize {
    blocks.div_ceil(2)
}

impl Tree {
    /// `atoms` atoms in the order of their numbers, without boxes.
    pub(super) fn unordered(atoms: usize) -> Self {
        Self {
            order: (0..atoms as u32).collect(),
            ..Self::default()
        }
    }

    /// Orders the atoms of `x` `[atoms, 3]` into blocks of `width`.
    pub(super) fn build<T: Real>(&mut self, x: &[T], width: usize) {
        let n = x.len() / 3;
        self.width = width;
        self.order.clear();
        self.order.extend(0..n as u32);
        let nothing = Bounds {
            low: [0.0; 3],
            high: [0.0; 3],
        };
        self.nodes.clear();
        self.nodes.resize(tree_size(n.div_ceil(width)), nothing);
        halve(x, &mut self.order, &mut self.nodes, width);
    }

    /// Adds the partners of a block from itself on, in rising order, to `found`; `reach` is the squared cutoff.
    pub(super) fn neighbours<T: Real>(
        &self,
        x: &[T],
        block: usize,
        reach: f64,
        found: &mut Vec<Neighbour>,
    ) {
        let reach = reach * GENEROSITY;
        let first = block * self.width;
        let atoms = &self.order[first..(first + self.width).min(self.order.len())];
        let own = Bounds::of(x, atoms);
        // (node, first block, blocks)
        let mut open = vec![(0, 0, self.order.len().div_ceil(self.width))];
        while let Some((node, from, blocks)) = open.pop() {
            let bounds = &self.nodes[node];
            if from + blocks <= block || own.squared_distance(bounds) > reach {
                continue;
            }
            if blocks == 1 {
                let mut rows = 0;
                for (row, &atom) in atoms.iter().enumerate() {
                    let near = Bounds::point(x, atom).squared_distance(bounds) <= reach;
                    rows |= u32::from(near) << row;
                }
                if rows != 0 {
                    found.push(Neighbour {
                        block: from as u32,
                        rows,
                    });
                }
                continue;
            }
            let half = first_half(blocks);
            open.push((node + 1 + tree_size(half), from + half, blocks - half));
            open.push((node + 1, from, half));
        }
    }
}

/// Orders `atoms` and fills in the boxes of their tree.
fn halve<T: Real>(x: &[T], atoms: &mut [u32], nodes: &mut [Bounds], width: usize) {
    let bounds = Bounds::of(x, atoms);
    nodes[0] = bounds;
    if nodes.len() == 1 {
        return;
    }
    let blocks = nodes.len().div_ceil(2);
    let half = first_half(blocks);
    let axis = bounds.longest_axis();
    // Atoms at one height stay in the order of their numbers, so that there is one result.
    let height = |atom: u32| x[3 * atom as usize + axis].as_f64();
    atoms.select_nth_unstable_by(half * width, |&a, &b| {
        height(a).total_cmp(&height(b)).then(a.cmp(&b))
    });
    let large = atoms.len() >= SERIAL_BELOW;
    let (first, second) = atoms.split_at_mut(half * width);
    let (first_nodes, second_nodes) = nodes[1..].split_at_mut(tree_size(half));
    if large {
        rayon::join(
            || halve(x, first, first_nodes, width),
            || halve(x, second, second_nodes, width),
        );
    } else {
        halve(x, first, first_nodes, width);
        halve(x, second, second_nodes, width);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltzmap_kernels::random::Stream;

    fn squared_distance(x: &[f64], a: u32, b: u32) -> f64 {
        let (a, b) = (3 * a as usize, 3 * b as usize);
        (0..3).map(|axis| (x[a + axis] - x[b + axis]).powi(2)).sum()
    }

    /// Every pair within reach is found, once; and a list is not simply all there is.
    #[test]
    fn no_pair_within_reach_is_missed() {
        let mut stream = Stream::new(3, 1, 4);
        for n in [1usize, 7, 8, 9, 100, 1237] {
            let mut x: Vec<f64> = (0..3 * n).map(|_| 4.0 * stream.standard_normal()).collect();
            if n == 100 {
                // Many in one point, and one far away.
                for atom in 0..40 {
                    x.copy_within(0..3, 3 * atom);
                }
                x[299] = 1e200;
            }
            let mut tree = Tree::default();
            tree.build(&x, 8);
            let mut sorted = tree.order.clone();
            sorted.sort_unstable();
            assert!(
                sorted
                    .iter()
                    .enumerate()
                    .all(|(k, &atom)| k == atom as usize)
            );
            let (mut listed, mut within) = (0, 0);
            for block in 0..n.div_ceil(8) {
                let mut found = Vec::new();
                tree.neighbours(&x, block, 1.0, &mut found);
                assert!(found.windows(2).all(|pair| pair[0].block < pair[1].block));
                listed += found.len();
                for place in 8 * block..(8 * block + 8).min(n) {
                    for partner in place + 1..n {
                        if squared_distance(&x, tree.order[place], tree.order[partner]) <= 1.0 {
                            within += 1;
                            let of = found
                                .iter()
                                .find(|entry| entry.block as usize == partner / 8)
                                .expect("the partner's block is listed");
                            assert!(of.rows >> (place % 8) & 1 == 1);
                        }
                    }
                }
            }
            assert!(within > 0 || n < 10);
            let blocks = n.div_ceil(8);
            assert!(n < 1000 || listed < blocks * blocks / 4, "{listed}");
        }
    }
}
