//! A run allocates nothing.

use boltzmap_autodiff::{Builder, Executable, grad};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_run_allocates_nothing() {
    let b = Builder::new();
    let x = b.input("x", &[4, 70, 12]);
    let w = b.input("w", &[12, 130]);
    let v = b.input("v", &[130, 12]);
    let h = (x.matmul(w).gelu().matmul(v) + x).layer_norm(1e-6);
    let mixed = h.matmul_t(x).softmax().matmul(h);
    let turned = mixed.permute(&[1, 0, 2]).gather(0, &[3, 1, 3]).pad(0, 1, 2);
    let loss = turned.square().sum(&[0, 1, 2]) + b.concat(&[x, h], 2).exp().mean(&[0, 1, 2]);
    let program = grad(&b.finish(&[("loss", loss)]), &[0, 1, 2]);
    let executable = Executable::<f32>::compile(&program);
    let inputs = [
        vec![0.1f32; 4 * 70 * 12],
        vec![0.2; 12 * 130],
        vec![0.3; 130 * 12],
    ];
    let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let mut outputs: Vec<Vec<f32>> = executable
        .output_shapes()
        .iter()
        .map(|shape| vec![0.0; shape.iter().product()])
        .collect();
    let mut outputs: Vec<&mut [f32]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
    let mut arena = executable.arena();
    // The first run fills thread-local packing buffers of the general matrix product.
    executable.run_into(&mut arena, &inputs, &mut outputs);
    let before = ALLOCATIONS.with(Cell::get);
    assert!(before > 0, "the counter counts");
    executable.run_into(&mut arena, &inputs, &mut outputs);
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
}
