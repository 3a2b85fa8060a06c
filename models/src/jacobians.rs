//! Exact Jacobians of the flow map and of its velocity on their subspace.

use boltzmap_autodiff::exec::InputRole;
use boltzmap_autodiff::ir::Program;
use boltzmap_autodiff::jacobian::{Basis, Jacobian};
use boltzmap_kernels::real::Real;

use crate::flow_map::FlowMap;

/// Tangents that all samples of a block carry together: their rows fill tall products, and the widest activations of a
/// small network still fit the second-level cache.
const TANGENTS_OF_A_BLOCK: usize = 24;

/// Qᵀ (∂X_{s,t}/∂x) Q for blocks of `block` states. Inputs: parameters…, x `[B, T, C]`, s `[B]`, t `[B]`.
pub fn step_jacobian<T: Real>(map: &FlowMap, block: usize) -> Jacobian<T> {
    jacobian(map, &map.map_program(block), block)
}

/// Qᵀ (∂v/∂x) Q for blocks of `block` states. Inputs: parameters…, x `[B, T, C]`, t `[B]`.
pub fn velocity_jacobian<T: Real>(map: &FlowMap, block: usize) -> Jacobian<T> {
    jacobian(map, &map.velocity_program(block), block)
}

/// As [`velocity_jacobian`], for `probes` tangents of one's own at a time.
pub(crate) fn velocity_along_probes<T: Real>(
    map: &FlowMap,
    block: usize,
    probes: usize,
) -> Jacobian<T> {
    let tangents = (TANGENTS_OF_A_BLOCK / block).clamp(1, probes.max(1));
    with_tangents(map, &map.velocity_program(block), tangents)
}

/// Qᵀ (∂f/∂x) Q of a program (parameters…, x `[B, T, C]`, …) whose first output has the shape of x.
pub(crate) fn jacobian<T: Real>(map: &FlowMap, program: &Program, block: usize) -> Jacobian<T> {
    let tangents = (TANGENTS_OF_A_BLOCK / block).max(map.channels());
    with_tangents(map, program, tangents)
}

fn with_tangents<T: Real>(map: &FlowMap, program: &Program, tangents: usize) -> Jacobian<T> {
    let parameters = map.layout().count();
    let roles = input_roles(parameters, program.inputs.len() - parameters);
    let basis = Basis::new(
        map.state_size(),
        map.dimension(),
        map.subspace().basis(map.tokens(), map.channels()),
    );
    Jacobian::compile(program, parameters, 0, roles, Some(basis), tangents)
}

/// Roles of (parameters…, state and times): the former shared by all blocks, the latter cut along the batch.
pub fn input_roles(parameters: usize, per_block: usize) -> Vec<InputRole> {
    let mut roles = vec![InputRole::Shared; parameters];
    roles.extend(std::iter::repeat_n(
        InputRole::PerBlock { axis: 0 },
        per_block,
    ));
    roles
}
