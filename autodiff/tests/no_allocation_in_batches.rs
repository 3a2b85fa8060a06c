//! The blocks of a batch allocate nothing: a run over many makes as many allocations as a run over few.

use boltzmap_autodiff::{Batched, Builder, InputRole, OutputRole, grad};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
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

const BLOCK: usize = 3;

#[test]
fn blocks_allocate_nothing() {
    let b = Builder::new();
    let x = b.input("x", &[BLOCK, 7, 12]);
    let w = b.input("w", &[40, 12]);
    let v = b.input("v", &[12, 40]);
    let h = (x.matmul_t(w).gelu().matmul_t(v) + x).layer_norm(1e-6);
    let mixed = h.matmul_t(x).softmax().matmul(h);
    let per_sample = mixed.square().sum(&[1, 2]);
    let outputs = [
        ("loss", per_sample.sum(&[0])),
        ("per sample", per_sample),
        ("mixed", mixed),
    ];
    let program = grad(&b.finish(&outputs), &[1, 2]);
    let per_block = OutputRole::PerBlock { axis: 0 };
    let summed = OutputRole::Summed;
    let batched = Batched::<f32>::compile(
        &program,
        vec![
            InputRole::PerBlock { axis: 0 },
            InputRole::Shared,
            InputRole::Shared,
        ],
        vec![summed, per_block, per_block, summed, summed],
    );
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .expect("a thread pool");
    let (w, v) = (vec![0.2f32; 40 * 12], vec![0.1f32; 12 * 40]);
    let allocations = |blocks: usize| {
        let samples = blocks * BLOCK;
        let x: Vec<f32> = (0..samples * 84).map(|i| (i % 13) as f32 * 0.1).collect();
        let lengths = [1, samples, samples * 84, 40 * 12, 12 * 40];
        let mut outputs: Vec<Vec<f32>> = lengths.iter().map(|&n| vec![0.0; n]).collect();
        let mut targets: Vec<&mut [f32]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
        let inputs: [&[f32]; 3] = [&x, &w, &v];
        pool.install(|| {
            // The first run makes the arena.
            batched.run(samples, &inputs, &mut targets);
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            assert!(before > 0, "the counter counts");
            batched.run(samples, &inputs, &mut targets);
            ALLOCATIONS.load(Ordering::Relaxed) - before
        })
    };
    let (few, many) = (allocations(2), allocations(50));
    assert_eq!(few, many, "allocations of 2 and of 50 blocks");
}
