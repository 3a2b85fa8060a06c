//! The programs behind a Jacobian: one that evaluates the map and everything all tangents share, once for a block of
//! samples, and one that carries a chunk of tangents.

use super::analysis::Analysis;
use super::reassociate::reassociated;
use crate::builder::Builder;
use crate::factored::{Factored, LEAD, Tangents, Term, is_view};
use crate::ir::{Op, Program, ValueId};
use crate::linearize::{lift, linearize};
use crate::shape::element_count;
use crate::var::Var;
use std::collections::HashMap;

/// Where an input of a chunk's program comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Source {
    /// This input of the original program.
    Original(usize),
    /// This output of the primal program.
    Kept(usize),
    /// The chunk's tokens of this output of the primal program, whose first axis runs over all tokens.
    KeptTokens(usize),
    /// `[n, T]`, 1 where a tangent's token is.
    Place,
    /// Tangents `[K, …]` of the state.
    Tangents,
}

/// What is computed of J.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wanted {
    /// J_kk of a chunk's k: output `[n, C, B]`.
    Diagonal,
    /// Columns of a chunk: output `[B, D, n·C]`.
    Matrix,
}

/// Programs of one block of samples.
#[derive(Debug)]
pub(super) struct Programs {
    /// Inputs: the originals. Outputs: the map's, then what is kept for the chunks.
    pub(super) primal: Program,
    /// Of every input of the chunks' programs.
    pub(super) sources: Vec<Source>,
    /// One for each size of chunk, with one output.
    pub(super) chunks: Vec<Program>,
}

/// K arbitrary tangents at a time: the output is J v `[K, B, …]`.
pub(super) fn arbitrary(program: &Program, input: usize, tangents: usize) -> Programs {
    let parts = linearize(program, &[input], Some(tangents));
    let mut primal = parts.primal;
    let mut sources = Vec::new();
    let (mut outputs, mut names) = (
        vec![primal.outputs[0]],
        vec![primal.output_names[0].clone()],
    );
    for (output, name) in primal.outputs.iter().zip(&primal.output_names).skip(1) {
        match primal.instructions[output.index()].op {
            Op::Input(number) => sources.push(Source::Original(number)),
            _ => {
                sources.push(Source::Kept(outputs.len()));
                outputs.push(*output);
                names.push(name.clone());
            }
        }
    }
    sources.push(Source::Tangents);
    (primal.outputs, primal.output_names) = (outputs, names);
    Programs {
        primal,
        sources,
        chunks: vec![parts.linear],
    }
}

/// All basis vectors e_(τ,c) of a state `[B, T, …]`, n tokens at a time for every n in `sizes`.
///
/// Tangents go forwards from the input, cotangents backwards from the output, both as small factors
/// ([`crate::factored`]) computed with the primal for all basis vectors at once. Cotangents go back as far as they stay
/// small; the values where they end are the *cut*, and J_kl is the sum over the cut of ⟨cotangent k, tangent l⟩. Only
/// what lies between the end of the small tangents and the cut is evaluated with whole arrays, chunk by chunk.
pub(super) fn local(program: &Program, input: usize, sizes: &[usize], wanted: Wanted) -> Programs {
    let shape = program.input_shape(input).to_vec();
    let tangents = Tangents {
        tokens: shape.get(1).copied().unwrap_or(1),
        channels: shape.iter().skip(2).product(),
    };
    let parts = linearize(program, &[input], None);
    let builder = Builder::new();
    let inputs: Vec<Var> = (0..program.inputs.len())
        .map(|i| builder.input(&program.input_names[i], program.input_shape(i)))
        .collect();
    let results = builder.call(&parts.primal, &inputs);
    let (at, residuals) = (parts.residual_count, &results[1..]);
    let analyse =
        |linear| Analysis::new(&builder, linear, at, residuals, tangents, shape[0], wanted);
    let mut analysis = analyse(&parts.linear);
    let cheaper = reassociated(&parts.linear, &analysis.depends, &analysis.dense());
    if let Some(linear) = &cheaper {
        analysis = analyse(linear);
    }
    let dense = analysis.dense_part();
    let mut kept: Vec<Var> = vec![results[0]];
    let mut sources = Vec::new();
    let mut chunks = Vec::new();
    for &size in sizes {
        let (chunk, its_sources) = analysis.chunk(&dense, size, wanted, &mut kept);
        debug_assert!(chunks.is_empty() || sources == its_sources);
        sources = its_sources;
        chunks.push(chunk);
    }
    let names: Vec<String> = (1..kept.len()).map(|i| format!("kept_{i}")).collect();
    let outputs: Vec<(&str, Var)> = std::iter::once(program.output_names[0].as_str())
        .chain(names.iter().map(String::as_str))
        .zip(kept)
        .collect();
    Programs {
        primal: builder.finish(&outputs),
        sources,
        chunks,
    }
}

/// The part of the linear program that works on whole arrays.
struct DensePart<'b> {
    /// Inputs: entries, coefficients. Outputs: the cut's values that are not small.
    program: Program,
    entries: Vec<ValueId>,
    coefficients: Vec<Var<'b>>,
    outputs: Vec<ValueId>,
}

impl<'b> Analysis<'_, 'b> {
    /// The instructions between small tangents and the cut.
    fn dense_part(&self) -> DensePart<'b> {
        let n = self.linear.instructions.len();
        let mut needed = self.dense();
        let outputs: Vec<ValueId> = self
            .cut
            .iter()
            .map(|(v, _)| *v)
            .filter(|v| needed[v.index()])
            .collect();
        let mut entries: Vec<ValueId> = Vec::new();
        for (position, instruction) in self.linear.instructions.iter().enumerate().rev() {
            if needed[position] && self.forms[position].is_none() {
                for operand in instruction.op.operands() {
                    needed[operand.index()] = true;
                    if self.small_tangent(operand).is_some() && !entries.contains(&operand) {
                        entries.push(operand);
                    }
                }
            }
        }
        let builder = Builder::new();
        let mut values: Vec<Option<Var>> = vec![None; n];
        for (i, entry) in entries.iter().enumerate() {
            values[entry.index()] =
                Some(builder.input(&format!("entry_{i}"), self.linear.shape(*entry)));
        }
        // Coefficients: inputs, except constants and views of others.
        let mut reads = needed.clone();
        for position in (0..n).rev() {
            let op = &self.linear.instructions[position].op;
            if reads[position] && !self.depends[position] && is_view(op) {
                reads[op.operands()[0].index()] = true;
            }
        }
        let mut coefficients = Vec::new();
        for (position, instruction) in self.linear.instructions.iter().enumerate() {
            if !reads[position] || values[position].is_some() {
                continue;
            }
            let op = &instruction.op;
            let repeated = is_view(op) || matches!(op, Op::Constant(_) | Op::ConstantTensor(_));
            values[position] = Some(if self.depends[position] || repeated {
                let op = op.map_operands(|v| match values[v.index()] {
                    Some(value) => value.id,
                    None => unreachable!("operands of what is read are read"),
                });
                builder.emit(op, &instruction.shape)
            } else {
                coefficients.push(self.coefficient(ValueId(position as u32)));
                let name = format!("coefficient_{}", coefficients.len());
                builder.input(&name, &instruction.shape)
            });
        }
        let names: Vec<String> = (0..outputs.len()).map(|i| format!("cut_{i}")).collect();
        let named: Vec<(&str, Var)> = names
            .iter()
            .map(String::as_str)
            .zip(outputs.iter().filter_map(|v| values[v.index()]))
            .collect();
        DensePart {
            program: builder.finish(&named),
            entries,
            coefficients,
            outputs,
        }
    }

    /// The program of n tokens' tangents, and the sources of its inputs.
    fn chunk(
        &self,
        dense: &DensePart<'b>,
        n: usize,
        wanted: Wanted,
        kept: &mut Vec<Var<'b>>,
    ) -> (Program, Vec<Source>) {
        let Tangents { tokens, channels } = self.tangents;
        let builder = Builder::new();
        let mut imports = Imports {
            builder: &builder,
            kept,
            tokens,
            n,
            seen: HashMap::new(),
            sources: Vec::new(),
        };
        let place = (tokens > 1).then(|| {
            imports.sources.push(Source::Place);
            builder.input("place", &[n, tokens])
        });
        let mut arguments: Vec<Var> = Vec::new();
        for entry in &dense.entries {
            if let Some(value) = self.small_tangent(*entry) {
                arguments.push(imports.dense(self.tangents, value, place));
            }
        }
        for coefficient in &dense.coefficients {
            arguments.push(imports.shared(*coefficient));
        }
        let entries: Vec<usize> = (0..dense.entries.len()).collect();
        let lifted = lift(&dense.program, &entries, &[n, channels]);
        let results = builder.call(&lifted, &arguments);
        let mut total: Option<Var> = None;
        for (v, cotangent) in &self.cut {
            let tangent = match dense.outputs.iter().position(|other| other == v) {
                Some(number) => results[number],
                None => match self.small_tangent(*v) {
                    Some(value) => imports.dense(self.tangents, value, place),
                    None => unreachable!("a value of the cut is small or an output"),
                },
            };
            let axis = self.batch_axes[v.index()].filter(|_| self.batch > 1);
            let product = match wanted {
                Wanted::Diagonal => {
                    let summed: Vec<usize> = (LEAD..tangent.rank())
                        .filter(|&i| Some(i) != axis.map(|axis| axis + LEAD))
                        .collect();
                    (tangent * imports.dense(self.tangents, cotangent, place))
                        .sum(&summed)
                        .reshape(&[n, channels, self.batch])
                }
                Wanted::Matrix => self.entries_of_matrix(tangent, cotangent, axis, &mut imports),
            };
            total = Some(total.map_or(product, |total| total + product));
        }
        let shape = match wanted {
            Wanted::Diagonal => [n, channels, self.batch],
            Wanted::Matrix => [self.batch, tokens * channels, n * channels],
        };
        let total = total.unwrap_or_else(|| builder.constant(0.0, &shape));
        let sources = std::mem::take(&mut imports.sources);
        (builder.finish(&[("jacobian", total)]), sources)
    }

    /// ⟨cotangent k, tangent l⟩ for all k and the chunk's l: `[B, D, n·C]`.
    fn entries_of_matrix<'c>(
        &self,
        tangent: Var<'c>,
        cotangent: &Factored<'b>,
        batch_axis: Option<usize>,
        imports: &mut Imports<'_, 'b, 'c>,
    ) -> Var<'c> {
        let Tangents { tokens, channels } = self.tangents;
        let rank = cotangent.shape.len();
        let columns = imports.n * channels;
        let mut total: Option<Var<'c>> = None;
        let mut supports: Vec<Option<usize>> =
            cotangent.terms.iter().map(|term| term.support).collect();
        supports.sort_unstable();
        supports.dedup();
        for support in supports {
            let terms: Vec<Term<'b>> = cotangent
                .terms
                .iter()
                .filter(|term| term.support == support)
                .cloned()
                .collect();
            let rest: Vec<usize> = (0..rank)
                .filter(|&axis| Some(axis) != batch_axis && Some(axis) != support)
                .map(|axis| axis + LEAD)
                .collect();
            let size = element_count(&cotangent.shape)
                / self.batch
                / support.map_or(1, |axis| cotangent.shape[axis]);
            let batch = batch_axis.map(|axis| axis + LEAD);
            let rows = self.rows(&terms, &cotangent.shape, support);
            let product = match support.map(|axis| axis + LEAD) {
                // Token by token: only the tangents' entries at the cotangent's token count.
                Some(axis) => {
                    let order: Vec<usize> = batch
                        .into_iter()
                        .chain([0, 1])
                        .chain(rest.iter().copied())
                        .chain([axis])
                        .collect();
                    let rows = rows
                        .permute(&order)
                        .reshape(&[self.batch, tokens, channels, size]);
                    let order: Vec<usize> =
                        batch.into_iter().chain([axis, 0, 1]).chain(rest).collect();
                    let tangent = tangent
                        .permute(&order)
                        .reshape(&[self.batch, tokens, columns, size]);
                    imports.shared(rows).matmul_t(tangent)
                }
                None => {
                    let order: Vec<usize> = batch.into_iter().chain([0, 1]).chain(rest).collect();
                    let rows = rows
                        .permute(&order)
                        .reshape(&[self.batch, tokens * channels, size]);
                    let tangent = tangent
                        .permute(&order)
                        .reshape(&[self.batch, columns, size]);
                    imports.shared(rows).matmul_t(tangent)
                }
            };
            let product = product.reshape(&[self.batch, tokens * channels, columns]);
            total = Some(total.map_or(product, |total| total + product));
        }
        total.unwrap_or_else(|| {
            imports
                .builder
                .constant(0.0, &[self.batch, tokens * channels, columns])
        })
    }

    /// Terms of one support written out for all basis vectors, `[T, C, shape…]` with size 1 at the support.
    fn rows(&self, terms: &[Term<'b>], shape: &[usize], support: Option<usize>) -> Var<'b> {
        let tokens = self.tangents.tokens;
        let mut shape = shape.to_vec();
        support.iter().for_each(|&axis| shape[axis] = 1);
        let terms = terms.iter().map(|term| Term {
            support: None,
            ..term.clone()
        });
        let value = self.tangents.gathered(&Factored {
            terms: terms.collect(),
            shape,
        });
        self.tangents
            .dense(&value, tokens, self.builder, None, |factor| factor)
    }
}

/// Values of the primal program that a chunk's program reads.
struct Imports<'k, 'b, 'c> {
    builder: &'c Builder,
    kept: &'k mut Vec<Var<'b>>,
    tokens: usize,
    n: usize,
    seen: HashMap<(ValueId, bool), Var<'c>>,
    sources: Vec<Source>,
}

impl<'b, 'c> Imports<'_, 'b, 'c> {
    /// A factor, cut to the chunk's tokens if it depends on them.
    fn factor(&mut self, value: Var<'b>) -> Var<'c> {
        let cut = self.tokens > 1 && value.shape()[0] == self.tokens;
        self.import(value, cut)
    }

    /// The chunk's tangents written out, `[n, C, shape…]`.
    fn dense(
        &mut self,
        tangents: Tangents,
        value: &Factored<'b>,
        place: Option<Var<'c>>,
    ) -> Var<'c> {
        let (n, builder) = (self.n, self.builder);
        tangents.dense(&tangents.gathered(value), n, builder, place, |factor| {
            self.factor(factor)
        })
    }

    /// A value that is the same for all chunks.
    fn shared(&mut self, value: Var<'b>) -> Var<'c> {
        self.import(value, false)
    }

    fn import(&mut self, value: Var<'b>, cut: bool) -> Var<'c> {
        if let Some(&known) = self.seen.get(&(value.id, cut)) {
            return known;
        }
        let mut shape = value.shape();
        if cut {
            shape[0] = self.n;
        }
        let op = value.builder().with_instruction(value.id, |i| i.op.clone());
        let imported = match op {
            Op::Constant(number) => self.builder.constant(number, &shape),
            Op::Input(number) if !cut => {
                self.sources.push(Source::Original(number));
                self.builder.input(&format!("original_{number}"), &shape)
            }
            _ => {
                let number = self
                    .kept
                    .iter()
                    .skip(1)
                    .position(|other| other.id == value.id)
                    .map_or(self.kept.len(), |position| position + 1);
                if number == self.kept.len() {
                    self.kept.push(value);
                }
                self.sources.push(if cut {
                    Source::KeptTokens(number)
                } else {
                    Source::Kept(number)
                });
                let name = format!("kept_{number}_{}", self.sources.len());
                self.builder.input(&name, &shape)
            }
        };
        self.seen.insert((value.id, cut), imported);
        imported
    }
}
