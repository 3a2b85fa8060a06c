//! What renaming and moving elements does to terms: where factors split, merge or are cut.

use super::{Factored, LEAD, Term, Window};
use crate::var::Var;
use std::ops::Range;

/// Most entries of an axis that become terms of their own.
const MOST_ENTRIES: usize = 16;

pub(super) fn map_factors<'b>(term: &Term<'b>, rule: impl Fn(Var<'b>) -> Var<'b>) -> Term<'b> {
    Term {
        factors: term.factors.iter().map(|factor| rule(*factor)).collect(),
        support: term.support,
        windows: term.windows.clone(),
    }
}

/// The value with axes of size 1 put in front up to this rank.
pub(super) fn align<'b>(value: &Factored<'b>, rank: usize) -> Factored<'b> {
    let missing = rank - value.shape.len();
    if missing == 0 {
        return value.clone();
    }
    let ones = vec![1; missing];
    let lengthen = |factor: Var<'b>| {
        let own = factor.shape();
        factor.reshape(&[&own[..LEAD], &ones, &own[LEAD..]].concat())
    };
    Factored {
        shape: [&ones, &value.shape[..]].concat(),
        terms: value
            .terms
            .iter()
            .map(|term| Term {
                support: term.support.map(|axis| axis + missing),
                windows: map_windows(term, |axis| axis + missing),
                ..map_factors(term, lengthen)
            })
            .collect(),
    }
}

/// The term's windows with their axes renamed.
fn map_windows(term: &Term<'_>, image: impl Fn(usize) -> usize) -> Vec<Window> {
    let mut windows: Vec<Window> = term
        .windows
        .iter()
        .map(|window| Window {
            axis: image(window.axis),
            ..*window
        })
        .collect();
    windows.sort_by_key(|window| window.axis);
    windows
}

/// The last two axes exchanged, if asked for.
pub(super) fn exchanged<'b>(value: &Factored<'b>, exchange: bool) -> Factored<'b> {
    if !exchange {
        return value.clone();
    }
    let rank = value.shape.len();
    let mut permutation: Vec<usize> = (0..rank).collect();
    permutation.swap(rank - 1, rank - 2);
    Factored {
        shape: permutation.iter().map(|&axis| value.shape[axis]).collect(),
        terms: value
            .terms
            .iter()
            .map(|term| permuted(term, &permutation))
            .collect(),
    }
}

pub(super) fn permuted<'b>(term: &Term<'b>, permutation: &[usize]) -> Term<'b> {
    let order: Vec<usize> = (0..LEAD)
        .chain(permutation.iter().map(|axis| axis + LEAD))
        .collect();
    let image = |axis: usize| {
        let found = permutation.iter().position(|&source| source == axis);
        found.expect("a permutation has every axis")
    };
    Term {
        support: term.support.map(image),
        windows: map_windows(term, image),
        ..map_factors(term, |factor| factor.permute(&order))
    }
}

/// A range of a factor's axis, the factor itself where it does not vary along that.
pub(super) fn part(factor: Var<'_>, axis: usize, start: usize, length: usize) -> Var<'_> {
    if factor.shape()[LEAD + axis] == 1 && length > 0 {
        factor
    } else {
        factor.slice(LEAD + axis, start, length)
    }
}

/// Entries `start..start + length` of an axis; no term where they are all zero.
pub(super) fn sliced<'b>(
    term: &Term<'b>,
    axis: usize,
    start: usize,
    length: usize,
) -> Option<Vec<Term<'b>>> {
    if term.support == Some(axis) {
        return None;
    }
    let (first, end) = match term.window(axis) {
        None => (start, start + length),
        Some(window) => {
            let from = window.start.max(start);
            let to = (window.start + window.length).min(start + length);
            if from >= to {
                return Some(Vec::new());
            }
            (from - window.start, to - window.start)
        }
    };
    let mut result = map_factors(term, |factor| part(factor, axis, first, end - first));
    for window in result.windows.iter_mut().filter(|w| w.axis == axis) {
        (window.start, window.length) = (window.start + first - start, end - first);
    }
    result
        .windows
        .retain(|w| w.axis != axis || w.length < length);
    Some(vec![result])
}

/// The term with zeros before and after it along an axis of this size.
pub(super) fn padded<'b>(
    term: &Term<'b>,
    axis: usize,
    size: usize,
    before: usize,
    after: usize,
) -> Option<Term<'b>> {
    if term.support == Some(axis) {
        return None;
    }
    let mut term = term.clone();
    match term.windows.iter_mut().find(|w| w.axis == axis) {
        Some(window) => window.start += before,
        None if before + after > 0 => {
            term.windows.push(Window {
                axis,
                start: before,
                length: size,
            });
            term.windows.sort_by_key(|w| w.axis);
        }
        None => {}
    }
    Some(term)
}

/// The term under another shape of the same elements. Where axes merge, factors must vary along all or none of them;
/// else every entry of the first, as every head of an attention, becomes a term with a window.
pub(super) fn reshaped<'b>(term: &Term<'b>, old: &[usize], new: &[usize]) -> Option<Vec<Term<'b>>> {
    let parts = matching_parts(old, new);
    let mut open = vec![term.clone()];
    let mut done = Vec::new();
    while let Some(term) = open.pop() {
        let axis = parts
            .iter()
            .find_map(|(from, to)| axis_to_split(&term, old, from, &new[to.clone()]));
        match axis {
            Some(axis) => {
                let entries = extent(&term, axis, old);
                if entries > MOST_ENTRIES {
                    return None;
                }
                (0..entries)
                    .rev()
                    .for_each(|i| open.push(entry(&term, axis, i)));
            }
            None => done.push(renamed(&term, &parts, old, new)?),
        }
    }
    Some(done)
}

fn long_axes<'s>(shape: &'s [usize], range: &Range<usize>) -> impl Iterator<Item = usize> + 's {
    range.clone().filter(|&axis| shape[axis] > 1)
}

/// Where the term may be nonzero along an axis, the length.
fn extent(term: &Term<'_>, axis: usize, shape: &[usize]) -> usize {
    term.window(axis)
        .map_or(shape[axis], |window| window.length)
}

/// One entry of an axis alone.
fn entry<'b>(term: &Term<'b>, axis: usize, index: usize) -> Term<'b> {
    let start = term.window(axis).map_or(0, |window| window.start) + index;
    let mut result = map_factors(term, |factor| part(factor, axis, index, 1));
    result.windows.retain(|w| w.axis != axis);
    let length = 1;
    result.windows.push(Window {
        axis,
        start,
        length,
    });
    result.windows.sort_by_key(|w| w.axis);
    result
}

/// The axis of a part to take apart so that the term can be renamed: the first long one of several that merge, if what
/// follows it is not one range of the merged axis, or some factor varies along some of them only.
fn axis_to_split(
    term: &Term<'_>,
    old: &[usize],
    from: &Range<usize>,
    to: &[usize],
) -> Option<usize> {
    let merges = to.iter().filter(|&&size| size > 1).count() == 1;
    if !merges || term.support.is_some_and(|axis| from.contains(&axis)) {
        return None;
    }
    let axes: Vec<usize> = long_axes(old, from)
        .skip_while(|&axis| extent(term, axis, old) == 1)
        .collect();
    let (first, later) = axes.split_first()?;
    let one_range = later.iter().all(|&axis| term.window(axis).is_none());
    let all_or_none = term.factors.iter().all(|factor| {
        let shape = factor.shape();
        let varies = |axis: &usize| shape[LEAD + axis] > 1;
        axes.iter().all(varies) || !axes.iter().any(varies)
    });
    let one_part = later.is_empty() || (one_range && all_or_none);
    (!one_part).then_some(*first)
}

/// The factors under another shape of the same elements, axis by axis or part by part.
fn renamed<'b>(
    term: &Term<'b>,
    parts: &[(Range<usize>, Range<usize>)],
    old: &[usize],
    new: &[usize],
) -> Option<Term<'b>> {
    let mut term = term.clone();
    let mut windows = Vec::new();
    // The extents of all axes, and of their images.
    let (mut before, mut after) = (old.to_vec(), new.to_vec());
    for (from, to) in parts {
        if !term.windows.iter().any(|w| from.contains(&w.axis)) {
            continue;
        }
        let mut images = long_axes(new, to);
        match (images.next(), images.next()) {
            (Some(image), None) => {
                let (mut start, mut length) = (0, 1);
                for axis in from.clone() {
                    let window = term.window(axis);
                    start = start * old[axis] + window.map_or(0, |w| w.start);
                    before[axis] = extent(&term, axis, old);
                    length *= before[axis];
                }
                after[image] = length;
                windows.push(Window {
                    axis: image,
                    start,
                    length,
                });
            }
            _ => {
                for axis in from.clone() {
                    term = term.whole_along(axis, old[axis]);
                }
            }
        }
    }
    let factors: Option<Vec<Var<'b>>> = term
        .factors
        .iter()
        .map(|factor| {
            let own = factor.shape();
            let mut target = own[..LEAD].to_vec();
            for (from, to) in parts {
                let sizes = &own[LEAD..][from.clone()];
                if sizes.iter().all(|&size| size == 1) {
                    target.extend(std::iter::repeat_n(1, to.len()));
                } else if sizes == &before[from.clone()] {
                    target.extend(&after[to.clone()]);
                } else {
                    return None;
                }
            }
            Some(factor.reshape(&target))
        })
        .collect();
    let support = match term.support {
        None => None,
        Some(axis) => {
            let (from, to) = parts.iter().find(|(from, _)| from.contains(&axis))?;
            let image = to.clone().find(|&i| new[i] == old[axis])?;
            if long_axes(old, from).count() != 1 || long_axes(new, to).count() != 1 {
                return None;
            }
            Some(image)
        }
    };
    windows.sort_by_key(|w| w.axis);
    Some(Term {
        factors: factors?,
        support,
        windows,
    })
}

/// Ranges of axes of two shapes of the same elements that hold the same number of elements each, as short as possible.
fn matching_parts(old: &[usize], new: &[usize]) -> Vec<(Range<usize>, Range<usize>)> {
    let mut parts = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        let (first_i, first_j) = (i, j);
        let (mut p, mut q) = (1, 1);
        let mut take_old = |i: &mut usize| {
            let size = old.get(*i).copied();
            *i += usize::from(size.is_some());
            p *= size.unwrap_or(1);
            p
        };
        let mut take_new = |j: &mut usize| {
            let size = new.get(*j).copied();
            *j += usize::from(size.is_some());
            q *= size.unwrap_or(1);
            q
        };
        let (mut p, mut q) = (take_old(&mut i), take_new(&mut j));
        while p != q {
            if p < q {
                p = take_old(&mut i);
            } else {
                q = take_new(&mut j);
            }
        }
        parts.push((first_i..i, first_j..j));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_reshapes() {
        assert_eq!(
            matching_parts(&[4, 6, 1], &[1, 4, 2, 3]),
            [(0..1, 0..2), (1..2, 2..4), (2..3, 4..4)]
        );
        assert_eq!(
            matching_parts(&[2, 3, 5], &[6, 5]),
            [(0..2, 0..1), (2..3, 1..2)]
        );
    }
}
