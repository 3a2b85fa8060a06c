//! Exact optimal transport between weighted points on a torus, with the dual solution that proves it.
//!
//! Primal: minimise Σ f_ij c_ij over flows f ≥ 0 with given row and column sums. Dual: maximise Σ s_i u_i + Σ d_j v_j subject to
//! u_i + v_j ≤ c_ij. The cost c_ij = Σ_k min(|Δ|, 2π − |Δ|)² is evaluated on the fly; only a sparse set of arcs is ever stored.
//!
//! 1. A coarse problem on a quarter of the mass, solved the same way, gives duals by c-transform: v_j = min_i (c_ij − u_i).
//! 2. The arcs of least reduced cost c − u − v of every row and column form the sparse problem, which is solved by a primal-dual method: Dijkstra
//!    from all unshipped rows at once, then flow along all the shortest paths found and whatever else has become tight.
//! 3. One pass over all pairs sets u_i = min_j (c_ij − v_j). Rows whose u had to fall get the violated arcs, lose their flow and are shipped again;
//!    when there are none, u and v are feasible for the complete problem and equal the flow's cost: the proof of optimality.

use rayon::prelude::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::f64::consts::{PI, TAU};

/// Arcs of least reduced cost that are stored per row and per column at the start. With 12 nearly every row was violated
/// after the first solution and was shipped again ten times over; with 40 it takes two or three repairs of few rows.
const NEAREST: usize = 40;
/// At most this many violated arcs per row are added in a pass.
const ADDED: usize = 30;
/// Problems with this many points on a side, or fewer, are solved with all arcs.
const DENSE: usize = 160;
/// Ratio of the sizes of successive levels.
const COARSENING: i64 = 4;

/// No parent.
const NONE: u32 = u32::MAX;

/// Distinct points on the torus [0, 2π)^d with integer masses.
#[derive(Clone, Debug)]
pub(crate) struct Points {
    dimension: usize,
    /// `[d, n]`, each in [0, 2π)
    coordinates: Vec<f64>,
    mass: Vec<i64>,
}

impl Points {
    /// Merges equal rows of `angles` `[n, d]`; each row has mass `unit`.
    pub(crate) fn merged(angles: &[f64], dimension: usize, unit: i64) -> Self {
        let wrapped: Vec<f64> = angles
            .iter()
            .map(|a| {
                let w = a.rem_euclid(TAU);
                if w >= TAU { 0.0 } else { w }
            })
            .collect();
        let mut rows: Vec<&[f64]> = wrapped.chunks_exact(dimension).collect();
        rows.sort_by(|a, b| {
            a.iter()
                .zip(*b)
                .map(|(x, y)| x.total_cmp(y))
                .find(|o| o.is_ne())
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        let mut distinct: Vec<(&[f64], i64)> = Vec::new();
        for row in rows {
            match distinct.last_mut() {
                Some((last, mass)) if *last == row => *mass += unit,
                _ => distinct.push((row, unit)),
            }
        }
        Self::from_rows(&distinct, dimension)
    }

    fn from_rows(rows: &[(&[f64], i64)], dimension: usize) -> Self {
        let coordinates = (0..dimension)
            .flat_map(|k| rows.iter().map(move |(row, _)| row[k]))
            .collect();
        Self {
            dimension,
            coordinates,
            mass: rows.iter().map(|r| r.1).collect(),
        }
    }

    fn len(&self) -> usize {
        self.mass.len()
    }

    fn total(&self) -> i64 {
        self.mass.iter().sum()
    }

    /// `units` units of mass at evenly spaced quantiles of the points in their order.
    fn coarse(&self, units: i64) -> Self {
        let n = self.len();
        let total = i128::from(self.total());
        let mut kept: Vec<(Vec<f64>, i64)> = Vec::new();
        let (mut point, mut reached, mut last) = (0, i128::from(self.mass[0]), usize::MAX);
        for k in 0..i128::from(units) {
            let place = (2 * k + 1) * total / (2 * i128::from(units));
            while reached <= place && point + 1 < n {
                point += 1;
                reached += i128::from(self.mass[point]);
            }
            if last == point {
                if let Some(entry) = kept.last_mut() {
                    entry.1 += 1;
                }
            } else {
                let row = (0..self.dimension)
                    .map(|d| self.coordinates[d * n + point])
                    .collect();
                kept.push((row, 1));
                last = point;
            }
        }
        let rows: Vec<(&[f64], i64)> = kept
            .iter()
            .map(|(row, mass)| (row.as_slice(), *mass))
            .collect();
        Self::from_rows(&rows, self.dimension)
    }

    /// out_j = c(point i of `from`, own point j) − minus_j.
    fn reduced_row(&self, from: &Points, i: usize, minus: &[f64], out: &mut [f64]) {
        let n = self.len();
        for (o, m) in out.iter_mut().zip(minus) {
            *o = -m;
        }
        for k in 0..self.dimension {
            let x = from.coordinates[k * from.len() + i];
            for (o, y) in out.iter_mut().zip(&self.coordinates[k * n..(k + 1) * n]) {
                let delta = (x - y).abs();
                let delta = delta.min(TAU - delta);
                *o += delta * delta;
            }
        }
    }

    fn cost(&self, from: &Points, i: usize, j: usize) -> f64 {
        let (n, m) = (from.len(), self.len());
        (0..self.dimension)
            .map(|k| {
                let delta = (from.coordinates[k * n + i] - self.coordinates[k * m + j]).abs();
                let delta = delta.min(TAU - delta);
                delta * delta
            })
            .sum()
    }
}

/// An optimal transport plan's value and its certificate, for total mass 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Certificate {
    /// Σ f c / Σ f of the plan found: an upper bound of the optimum.
    pub primal: f64,
    /// Σ s u + Σ d v of feasible duals: a lower bound of the optimum.
    pub dual: f64,
}

impl Certificate {
    /// (primal − dual)/primal, and 0 when both vanish to rounding.
    pub fn relative_gap(&self) -> f64 {
        if self.primal.abs() < 1e-14 && self.dual.abs() < 1e-12 {
            return 0.0;
        }
        (self.primal - self.dual) / self.primal
    }
}

#[derive(Clone, Copy)]
struct Arc {
    column: u32,
    cost: f64,
}

pub(crate) struct Solution {
    u: Vec<f64>,
    pub(crate) certificate: Certificate,
}

struct Solver<'a> {
    rows: &'a Points,
    columns: &'a Points,
    u: Vec<f64>,
    v: Vec<f64>,
    arcs: Vec<Vec<Arc>>,
    /// Positive flows into each column: (row, amount).
    flows: Vec<Vec<(u32, i64)>>,
    excess: Vec<i64>,
    deficit: Vec<i64>,
    /// Reduced costs within this of zero count as zero.
    tolerance: f64,
}

/// Solves the transport problem between point sets of equal total mass.
pub(crate) fn solve(rows: &Points, columns: &Points) -> Solution {
    let dense = rows.len() <= DENSE || columns.len() <= DENSE;
    let v = if dense {
        vec![0.0; columns.len()]
    } else {
        let units = rows.len().max(columns.len()) as i64 / COARSENING;
        let (few_rows, few_columns) = (rows.coarse(units), columns.coarse(units));
        let coarse = solve(&few_rows, &few_columns);
        (0..columns.len())
            .into_par_iter()
            .map_init(
                || vec![0.0; few_rows.len()],
                |buffer, j| {
                    few_rows.reduced_row(columns, j, &coarse.u, buffer);
                    buffer.iter().copied().fold(f64::INFINITY, f64::min)
                },
            )
            .collect()
    };
    let mut solver = Solver {
        rows,
        columns,
        u: vec![0.0; rows.len()],
        v,
        arcs: vec![Vec::new(); rows.len()],
        flows: vec![Vec::new(); columns.len()],
        excess: rows.mass.clone(),
        deficit: columns.mass.clone(),
        tolerance: 1e-14 * rows.dimension as f64 * PI * PI,
    };
    solver.start(if dense { usize::MAX } else { NEAREST });
    loop {
        while solver.phase() {}
        if !solver.repair() {
            break;
        }
    }
    let certificate = solver.certificate();
    Solution {
        u: solver.u,
        certificate,
    }
}

/// The `k` smallest entries as (value, index), in no particular order.
fn smallest(values: &[f64], k: usize) -> Vec<(f64, u32)> {
    if values.len() <= k {
        return values
            .iter()
            .enumerate()
            .map(|(j, &v)| (v, j as u32))
            .collect();
    }
    // The k-th smallest of a sample of block minima bounds the k-th smallest from above, so that few entries are selected from.
    let block = (values.len() / (4 * k)).max(1);
    let mut minima: Vec<f64> = values
        .chunks(block)
        .map(|chunk| chunk.iter().copied().fold(f64::INFINITY, f64::min))
        .collect();
    let (_, bound, _) = minima.select_nth_unstable_by(k - 1, f64::total_cmp);
    let bound = *bound;
    let mut few: Vec<(f64, u32)> = values
        .iter()
        .enumerate()
        .filter(|(_, v)| **v <= bound)
        .map(|(j, &v)| (v, j as u32))
        .collect();
    if few.len() > k {
        few.select_nth_unstable_by(k - 1, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        few.truncate(k);
    }
    few
}

impl Solver<'_> {
    /// Feasible duals, the first arcs, and a feasible plan's arcs so that shipping can always finish.
    fn start(&mut self, nearest: usize) {
        let (n, m) = (self.rows.len(), self.columns.len());
        let by_row: Vec<Vec<(f64, u32)>> = (0..n)
            .into_par_iter()
            .map_init(
                || vec![0.0; m],
                |buffer, i| {
                    self.columns.reduced_row(self.rows, i, &self.v, buffer);
                    smallest(buffer, nearest)
                },
            )
            .collect();
        for (u, row) in self.u.iter_mut().zip(&by_row) {
            *u = row.iter().map(|e| e.0).fold(f64::INFINITY, f64::min);
        }
        let by_column: Vec<Vec<(f64, u32)>> = (0..m)
            .into_par_iter()
            .map_init(
                || vec![0.0; n],
                |buffer, j| {
                    self.rows.reduced_row(self.columns, j, &self.u, buffer);
                    smallest(buffer, nearest.min(n))
                },
            )
            .collect();
        let mut wanted: Vec<Vec<u32>> = by_row
            .iter()
            .map(|row| row.iter().map(|e| e.1).collect())
            .collect();
        for (j, column) in by_column.iter().enumerate() {
            self.v[j] = column.iter().map(|e| e.0).fold(f64::INFINITY, f64::min);
            for &(_, i) in column {
                wanted[i as usize].push(j as u32);
            }
        }
        // The north-west corner plan: feasible, with at most n + m − 1 arcs.
        let (mut i, mut j) = (0, 0);
        let (mut left, mut room) = (self.rows.mass[0], self.columns.mass[0]);
        loop {
            wanted[i].push(j as u32);
            let moved = left.min(room);
            left -= moved;
            room -= moved;
            if left == 0 {
                i += 1;
                if i == n {
                    break;
                }
                left = self.rows.mass[i];
            }
            if room == 0 {
                j += 1;
                if j == m {
                    break;
                }
                room = self.columns.mass[j];
            }
        }
        for (i, mut list) in wanted.into_iter().enumerate() {
            list.sort_unstable();
            list.dedup();
            self.arcs[i] = list
                .into_iter()
                .map(|column| Arc {
                    column,
                    cost: self.columns.cost(self.rows, i, column as usize),
                })
                .collect();
        }
        // Ship along tight arcs at once.
        for i in 0..n {
            self.ship_tight(i);
        }
    }

    fn ship_tight(&mut self, i: usize) {
        for arc in &self.arcs[i] {
            let j = arc.column as usize;
            let moved = self.excess[i].min(self.deficit[j]);
            if moved > 0 && arc.cost - self.u[i] - self.v[j] <= self.tolerance {
                self.excess[i] -= moved;
                self.deficit[j] -= moved;
                add_flow(&mut self.flows[j], i as u32, moved);
            }
        }
    }

    /// One Dijkstra from all rows with excess, then flow along every shortest path found. False when nothing is left to ship.
    fn phase(&mut self) -> bool {
        let (n, m) = (self.rows.len(), self.columns.len());
        let sources: Vec<usize> = (0..n).filter(|&i| self.excess[i] > 0).collect();
        if sources.is_empty() {
            return false;
        }
        let enough = (sources.len() / 2).max(1);
        let mut row_distance = vec![f64::INFINITY; n];
        let mut row_parent = vec![NONE; n];
        let mut column_distance = vec![f64::INFINITY; m];
        let mut column_parent = vec![NONE; m];
        let mut done = vec![false; m];
        let mut heap: BinaryHeap<Reverse<(u64, u32)>> = BinaryHeap::new();
        let mut terminals = Vec::new();
        let mut limit = 0.0;
        let mut reached: Vec<usize> = sources.clone();
        for &i in &sources {
            row_distance[i] = 0.0;
        }
        let mut next = 0;
        loop {
            while next < reached.len() {
                let i = reached[next];
                next += 1;
                for arc in &self.arcs[i] {
                    let j = arc.column as usize;
                    if done[j] {
                        continue;
                    }
                    let reduced = (arc.cost - self.u[i] - self.v[j]).max(0.0);
                    let distance = row_distance[i] + reduced;
                    if distance < column_distance[j] {
                        column_distance[j] = distance;
                        column_parent[j] = i as u32;
                        // Bits of non-negative floats are ordered as the numbers are.
                        heap.push(Reverse((distance.to_bits(), j as u32)));
                    }
                }
            }
            let Some(Reverse((bits, j))) = heap.pop() else {
                break;
            };
            let j = j as usize;
            if done[j] {
                continue;
            }
            let distance = f64::from_bits(bits);
            done[j] = true;
            limit = distance;
            if self.deficit[j] > 0 {
                terminals.push(j);
                if terminals.len() >= enough {
                    break;
                }
            }
            // Flow arcs are tight: their rows are as far as the column.
            for &(i, _) in &self.flows[j] {
                let i = i as usize;
                if row_distance[i] == f64::INFINITY {
                    row_distance[i] = distance;
                    row_parent[i] = j as u32;
                    reached.push(i);
                }
            }
        }
        for &i in &reached {
            self.u[i] += limit - row_distance[i];
        }
        for j in 0..m {
            if done[j] {
                self.v[j] -= limit - column_distance[j];
            }
        }
        for &terminal in &terminals {
            let mut amount = self.deficit[terminal];
            let mut column = terminal;
            loop {
                let row = column_parent[column] as usize;
                if row_parent[row] == NONE {
                    amount = amount.min(self.excess[row]);
                    break;
                }
                column = row_parent[row] as usize;
                amount = amount.min(flow_of(&self.flows[column], row as u32));
            }
            if amount == 0 {
                continue;
            }
            self.augment(terminal, amount, &column_parent, &row_parent);
        }
        self.ship_along_tight(&sources, row_parent, column_parent);
        true
    }

    /// Moves `amount` along the path of parents that ends in the column `terminal` and starts in a row without parent.
    fn augment(&mut self, terminal: usize, amount: i64, column_parent: &[u32], row_parent: &[u32]) {
        self.deficit[terminal] -= amount;
        let mut column = terminal;
        loop {
            let row = column_parent[column];
            add_flow(&mut self.flows[column], row, amount);
            let parent = row_parent[row as usize];
            if parent == NONE {
                self.excess[row as usize] -= amount;
                return;
            }
            column = parent as usize;
            add_flow(&mut self.flows[column], row, -amount);
        }
    }

    /// Depth-first searches over tight arcs from every row of `sources` that still has excess: most of what a change of the
    /// duals made possible is shipped before the next Dijkstra. The parent arrays are scratch.
    fn ship_along_tight(
        &mut self,
        sources: &[usize],
        mut row_parent: Vec<u32>,
        mut column_parent: Vec<u32>,
    ) {
        let mut row_seen = vec![false; row_parent.len()];
        let mut column_seen = vec![false; column_parent.len()];
        let mut stack: Vec<usize> = Vec::new();
        for &source in sources {
            while self.excess[source] > 0 && !row_seen[source] {
                row_seen[source] = true;
                row_parent[source] = NONE;
                stack.clear();
                stack.push(source);
                let mut found = None;
                'search: while let Some(row) = stack.pop() {
                    for arc in &self.arcs[row] {
                        let j = arc.column as usize;
                        if column_seen[j] || arc.cost - self.u[row] - self.v[j] > self.tolerance {
                            continue;
                        }
                        column_seen[j] = true;
                        column_parent[j] = row as u32;
                        if self.deficit[j] > 0 {
                            found = Some(j);
                            break 'search;
                        }
                        for &(i, _) in &self.flows[j] {
                            let i = i as usize;
                            // A row that still has excess starts its own search.
                            if !row_seen[i] {
                                row_seen[i] = true;
                                row_parent[i] = j as u32;
                                stack.push(i);
                            }
                        }
                    }
                }
                let Some(terminal) = found else { break };
                let mut amount = self.deficit[terminal].min(self.excess[source]);
                let mut column = terminal;
                // The path may be used again; rows that were explored without success stay marked.
                column_seen[column] = false;
                loop {
                    let row = column_parent[column] as usize;
                    row_seen[row] = false;
                    if row_parent[row] == NONE {
                        break;
                    }
                    column = row_parent[row] as usize;
                    column_seen[column] = false;
                    amount = amount.min(flow_of(&self.flows[column], row as u32));
                }
                for &row in &stack {
                    row_seen[row] = false;
                }
                self.augment(terminal, amount, &column_parent, &row_parent);
            }
        }
    }

    /// Makes u feasible for all pairs. Rows whose u falls get the arcs that were violated and lose their flow. False when none did.
    fn repair(&mut self) -> bool {
        let m = self.columns.len();
        let violated: Vec<(f64, Vec<(f64, u32)>)> = (0..self.rows.len())
            .into_par_iter()
            .map_init(
                || vec![0.0; m],
                |buffer, i| {
                    self.columns.reduced_row(self.rows, i, &self.v, buffer);
                    let least = buffer.iter().copied().fold(f64::INFINITY, f64::min);
                    let bound = self.u[i] - self.tolerance;
                    let list = if least < bound {
                        let mut list = smallest(buffer, ADDED);
                        list.retain(|e| e.0 < bound);
                        list
                    } else {
                        Vec::new()
                    };
                    (least, list)
                },
            )
            .collect();
        let mut fallen = vec![false; self.rows.len()];
        for (i, (least, list)) in violated.into_iter().enumerate() {
            if !list.is_empty() {
                fallen[i] = true;
                self.u[i] = least;
                for (_, column) in list {
                    let cost = self.columns.cost(self.rows, i, column as usize);
                    self.arcs[i].push(Arc { column, cost });
                }
            }
        }
        let mut any = false;
        for j in 0..m {
            let (rows, deficit, excess) = (&fallen, &mut self.deficit, &mut self.excess);
            self.flows[j].retain(|&(i, amount)| {
                if rows[i as usize] {
                    any = true;
                    deficit[j] += amount;
                    excess[i as usize] += amount;
                }
                !rows[i as usize]
            });
        }
        any
    }

    fn certificate(&self) -> Certificate {
        let total = self.rows.total() as f64;
        let m = self.columns.len();
        // Feasible to the last bit that the arithmetic has: the bound does not lean on any tolerance.
        let least: Vec<f64> = (0..self.rows.len())
            .into_par_iter()
            .map_init(
                || vec![0.0; m],
                |buffer, i| {
                    self.columns.reduced_row(self.rows, i, &self.v, buffer);
                    buffer.iter().copied().fold(f64::INFINITY, f64::min)
                },
            )
            .collect();
        let primal: f64 = self
            .flows
            .iter()
            .enumerate()
            .flat_map(|(j, list)| {
                list.iter().map(move |&(i, amount)| {
                    self.columns.cost(self.rows, i as usize, j) * amount as f64
                })
            })
            .sum();
        let rows: f64 = least
            .iter()
            .zip(&self.rows.mass)
            .map(|(u, &s)| u * s as f64)
            .sum();
        let columns: f64 = self
            .v
            .iter()
            .zip(&self.columns.mass)
            .map(|(v, &d)| v * d as f64)
            .sum();
        Certificate {
            primal: primal / total,
            dual: (rows + columns) / total,
        }
    }
}

fn flow_of(flows: &[(u32, i64)], row: u32) -> i64 {
    flows.iter().find(|f| f.0 == row).map_or(0, |f| f.1)
}

fn add_flow(flows: &mut Vec<(u32, i64)>, row: u32, amount: i64) {
    match flows.iter().position(|f| f.0 == row) {
        Some(k) => {
            flows[k].1 += amount;
            if flows[k].1 == 0 {
                flows.swap_remove(k);
            }
        }
        None => flows.push((row, amount)),
    }
}
