//! How the pairs of one conformation are shared out, and what each task keeps.
//!
//! Task t of n has the blocks t, t + n, t + 2n, …, whose rows are long and short in turn. How many tasks there are depends on the molecule
//! alone and their sums are added in order, so that results have the same bits for any number of threads.

use super::neighbours::{Neighbour, Tree};
use super::{Blocks, Places};
use boltzmap_kernels::real::Real;

/// Blocks that are worth a task of their own.
const BLOCKS_PER_TASK: usize = 16;
/// Bytes about pairs that the tasks of one conformation keep from pass to pass. That much stays in the caches; more would take about as long
/// to write and read as to compute again.
const KEPT_BYTES: usize = 8 << 20;
/// Most tasks; each has arrays over all atoms.
const MOST_TASKS: usize = 32;

/// How many tasks share that many blocks.
pub(super) fn number_of_tasks(blocks: usize) -> usize {
    (blocks / BLOCKS_PER_TASK).clamp(1, MOST_TASKS)
}

/// Partners in one block with which a row does not interact by the general rule.
#[derive(Clone, Copy)]
pub(super) struct Exception {
    pub(super) block: u32,
    /// Bit l: lane l.
    pub(super) lanes: u32,
}

/// The blocks of one task and their partners.
#[derive(Default)]
pub(super) struct Lists {
    task: usize,
    tasks: usize,
    blocks: usize,
    width: usize,
    /// Bits of all rows.
    all_rows: u32,
    /// Partners of the own blocks one after the other, and where they end; without a cutoff there are none, and all blocks from the own
    /// on are partners.
    neighbours: Option<Vec<Neighbour>>,
    neighbour_ends: Vec<usize>,
    /// Exceptions of the rows of the own blocks one after the other, and where they end.
    exceptions: Vec<Exception>,
    exception_ends: Vec<usize>,
    /// How often a row of the own blocks meets a block.
    meetings: usize,
}

impl Lists {
    fn new<T: Real>(of: &Blocks<T>, task: usize, tasks: usize) -> Self {
        Self {
            task,
            tasks,
            blocks: of.n_blocks(),
            width: T::VIRTUAL_WIDTH,
            all_rows: of.full,
            neighbours: of.parameters.cutoff.map(|_| Vec::new()),
            ..Self::default()
        }
    }

    /// Number of blocks of this task.
    #[inline(always)]
    pub(super) fn own_blocks(&self) -> usize {
        (self.blocks - self.task).div_ceil(self.tasks)
    }

    /// Index of an own block among all.
    #[inline(always)]
    pub(super) fn block(&self, own: usize) -> usize {
        self.task + own * self.tasks
    }

    /// Number of partner blocks.
    #[inline(always)]
    pub(super) fn neighbours(&self, own: usize) -> usize {
        match self.neighbours {
            Some(_) => self.neighbour_ends[own] - self.first_neighbour(own),
            None => self.blocks - self.block(own),
        }
    }

    #[inline(always)]
    fn first_neighbour(&self, own: usize) -> usize {
        match own {
            0 => 0,
            _ => self.neighbour_ends[own - 1],
        }
    }

    /// A partner block; they are in rising order.
    #[inline(always)]
    pub(super) fn neighbour(&self, own: usize, entry: usize) -> Neighbour {
        match &self.neighbours {
            Some(list) => list[self.first_neighbour(own) + entry],
            None => Neighbour {
                block: (self.block(own) + entry) as u32,
                rows: self.all_rows,
            },
        }
    }

    /// The exceptions of one row, in rising order of blocks.
    #[inline(always)]
    pub(super) fn exceptions(&self, own: usize, row: usize) -> &[Exception] {
        let at = own * self.width + row;
        let first = match at {
            0 => 0,
            _ => self.exception_ends[at - 1],
        };
        &self.exceptions[first..self.exception_ends[at]]
    }

    /// Finds partners and exceptions for atoms in the order of the places.
    fn fill<T: Real>(&mut self, of: &Blocks<T>, x: &[T], tree: &Tree, place: &[u32]) {
        self.neighbour_ends.clear();
        self.exceptions.clear();
        self.exception_ends.clear();
        if let (Some(found), Some(cutoff)) = (&mut self.neighbours, of.parameters.cutoff) {
            found.clear();
            let reach = (cutoff * cutoff).as_f64();
            for own in 0..(self.blocks - self.task).div_ceil(self.tasks) {
                tree.neighbours(x, self.task + own * self.tasks, reach, found);
                self.neighbour_ends.push(found.len());
            }
        }
        self.meetings = (0..self.own_blocks())
            .map(|own| {
                let rows = of.rows(self.block(own));
                match self.neighbours {
                    Some(_) => (0..self.neighbours(own))
                        .map(|entry| self.neighbour(own, entry).rows.count_ones() as usize)
                        .sum(),
                    None => rows * self.neighbours(own),
                }
            })
            .sum();
        let mut later = Vec::new();
        for own in 0..self.own_blocks() {
            let first = self.block(own) * self.width;
            for i in first..first + self.width {
                if let Some(&atom) = tree.order.get(i) {
                    later.clear();
                    let partners = of.exceptions.of(atom as usize).iter();
                    later.extend(
                        partners
                            .map(|&j| place[j as usize])
                            .filter(|&j| j > i as u32),
                    );
                    later.sort_unstable();
                    self.add_exceptions(&later);
                }
                self.exception_ends.push(self.exceptions.len());
            }
        }
    }

    /// Exceptions of one row with the partners at these places, in rising order.
    fn add_exceptions(&mut self, places: &[u32]) {
        let first = self.exceptions.len();
        for &place in places {
            let (block, lane) = (place / self.width as u32, place % self.width as u32);
            match self.exceptions[first..].last_mut() {
                Some(last) if last.block == block => last.lanes |= 1 << lane,
                _ => self.exceptions.push(Exception {
                    block,
                    lanes: 1 << lane,
                }),
            }
        }
    }
}

/// One task: its blocks, and its sums over all atoms in the order of the places.
pub(super) struct Task<T> {
    pub(super) lists: Lists,
    filled: bool,
    /// For every meeting of a row with a block: (dI_i/dr)/r of the row's Born integral and (dI_j/dr)/r of those of the block's atoms, and
    /// 1/r, then (dE/dr)/r at fixed radii. Empty if nothing is kept.
    pub(super) kept: Vec<T>,
    /// Born integrals.
    pub(super) integral: Vec<T>,
    /// Σ 2 ∂E/∂B over [`Blocks::born_share`]
    pub(super) force: Vec<T>,
    /// Forces, axis by axis.
    pub(super) f: [Vec<T>; 3],
    /// Direct energy of the pairs, kJ/mol.
    pub(super) nonbonded: f64,
    /// Born energy of the pairs, less its sign and [`Blocks::born_share`], kJ/mol.
    pub(super) polar: f64,
}

impl<T: Real> Task<T> {
    pub(super) fn new(of: &Blocks<T>, task: usize, tasks: usize) -> Self {
        let zeros = || vec![T::from_f64(0.0); of.padded()];
        let born = || match of.parameters.born {
            Some(_) => zeros(),
            None => Vec::new(),
        };
        Self {
            lists: Lists::new(of, task, tasks),
            filled: false,
            kept: Vec::new(),
            integral: born(),
            force: zeros(),
            f: [zeros(), zeros(), zeros()],
            nonbonded: 0.0,
            polar: 0.0,
        }
    }

    /// Lists for the conformation and sums of nothing.
    pub(super) fn prepare(&mut self, of: &Blocks<T>, x: &[T], places: &Places<T>) {
        // Without a cutoff nothing in the lists depends on the conformation.
        if !self.filled || of.parameters.cutoff.is_some() {
            self.lists.fill(of, x, &places.tree, &places.place);
            self.filled = true;
            let kept = 3 * T::VIRTUAL_WIDTH * self.lists.meetings;
            let fits = kept * size_of::<T>() <= KEPT_BYTES / self.lists.tasks;
            let born = of.parameters.born.is_some();
            let length = if born && fits { kept } else { 0 };
            self.kept.resize(length, T::from_f64(0.0));
        }
        let [fx, fy, fz] = &mut self.f;
        for array in [&mut self.integral, &mut self.force, fx, fy, fz] {
            array.fill(T::from_f64(0.0));
        }
        (self.nonbonded, self.polar) = (0.0, 0.0);
    }
}
