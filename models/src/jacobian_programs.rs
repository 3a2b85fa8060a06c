//! Programs that carry the exact Jacobian of the flow map on its subspace, from one tangent per basis vector.

use boltzmap_autodiff::builder::{Builder, Var};
use boltzmap_autodiff::ir::Program;
use boltzmap_autodiff::jvp::jvp;

use crate::flow_map::FlowMap;

/// Calls `program` (parameters…, x, times…) on new inputs and returns its outputs, each followed by the derivatives along
/// every basis vector of the subspace, `[d, …]`.
fn call_with_basis_tangents<'b>(
    map: &FlowMap,
    b: &'b Builder,
    program: &Program,
    batch: usize,
) -> Vec<(Var<'b>, Var<'b>)> {
    let (tokens, channels, dimension) = (map.tokens(), map.channels(), map.dimension());
    let x = map.layout().count();
    let differentiated = jvp(program, &[x], Some(dimension));
    let mut arguments: Vec<Var<'b>> = (0..program.inputs.len())
        .map(|i| b.input(&program.input_names[i], program.input_shape(i)))
        .collect();
    arguments.push(basis(map, b).broadcast_to(&[dimension, batch, tokens, channels])); // [d, B, T, C]
    let outputs = b.call(&differentiated, &arguments);
    let (primals, tangents) = outputs.split_at(program.outputs.len());
    primals
        .iter()
        .copied()
        .zip(tangents.iter().copied())
        .collect()
}

/// Basis vectors of the subspace as states, `[d, 1, T, C]`.
fn basis<'b>(map: &FlowMap, b: &'b Builder) -> Var<'b> {
    let (size, dimension) = (map.state_size(), map.dimension());
    let columns = map.subspace().basis(map.tokens(), map.channels()); // [T C, d]
    let rows = (0..dimension)
        .flat_map(|k| (0..size).map(move |i| (i, k)))
        .map(|(i, k)| columns[i * dimension + k])
        .collect();
    b.tensor(rows, &[dimension, 1, map.tokens(), map.channels()])
}

/// Program (parameters…, x `[B, T, C]`, t `[B]`) → `velocity` `[B, T, C]`, `divergence` `[B]`: the exact trace of
/// ∂v/∂x on the subspace, Σ_k q_k · (∂v/∂x q_k).
pub fn exact_divergence_program(map: &FlowMap, batch: usize) -> Program {
    let b = Builder::new();
    let (velocity, derivatives) =
        call_with_basis_tangents(map, &b, &map.velocity_program(batch), batch)[0];
    let divergence = (derivatives * basis(map, &b)).sum(&[0, 2, 3]); // [B]
    b.finish(&[("velocity", velocity), ("divergence", divergence)])
}

/// Program (parameters…, x `[B, T, C]`, s `[B]`, t `[B]`) → `state` `[B, T, C]`, `log_det` `[B]` (the head's),
/// `jacobian` `[B, d, d]`: Qᵀ (∂X/∂x) Q.
pub fn exact_step_program(map: &FlowMap, batch: usize) -> Program {
    let b = Builder::new();
    let outputs = call_with_basis_tangents(map, &b, &map.step_program(batch), batch);
    let ((state, derivatives), (log_det, _)) = (outputs[0], outputs[1]);
    let (size, dimension) = (map.state_size(), map.dimension());
    let columns = b.tensor(
        map.subspace().basis(map.tokens(), map.channels()),
        &[size, dimension],
    ); // [T C, d]
    let jacobian = derivatives
        .reshape(&[dimension, batch, size]) // [d (column), B, T C]
        .matmul(columns) // [d (column), B, d (row)]
        .permute(&[1, 2, 0]); // [B, d, d]
    b.finish(&[
        ("state", state),
        ("log_det", log_det),
        ("jacobian", jacobian),
    ])
}
