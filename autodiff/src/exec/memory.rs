//! Raw addresses of a run's buffers.
//!
//! One step reads and writes several ranges of one arena, some of them in place, which slices cannot. All pointers of
//! the executor are made here; [`super::plan`] keeps buffers alive at the same time apart, and
//! [`super::Executable::compile`] checks that every view ends inside its buffer.

use boltzmap_kernels::{Lanes, Real, Simd};

/// Alignment of the arena and of every buffer in it, in bytes: one cache line.
pub(super) const ALIGNMENT: usize = 64;

/// Elements that start on a cache line.
#[derive(Debug)]
pub(super) struct Aligned<T> {
    storage: Vec<T>,
    /// Elements of `storage` before the first aligned one.
    skip: usize,
}

impl<T: Real> Aligned<T> {
    pub(super) fn new(length: usize) -> Self {
        let storage = vec![T::zero(); length + ALIGNMENT / size_of::<T>()];
        let misaligned = storage.as_ptr() as usize % ALIGNMENT;
        let skip = if misaligned == 0 {
            0
        } else {
            (ALIGNMENT - misaligned) / size_of::<T>()
        };
        Self { storage, skip }
    }

    pub(super) fn length(&self) -> usize {
        self.storage.len() - ALIGNMENT / size_of::<T>()
    }

    pub(super) fn values(&self) -> &[T] {
        &self.storage[self.skip..]
    }

    pub(super) fn values_mut(&mut self) -> &mut [T] {
        &mut self.storage[self.skip..]
    }
}

/// Memory reserved for one run at a time: the arena, and scratch for the steps.
#[derive(Debug)]
pub struct Arena<T> {
    storage: Aligned<T>,
    scratch_start: usize,
    bases: Vec<Base<T>>,
}

#[derive(Clone, Copy, Debug)]
struct Base<T>(*mut T);

// SAFETY: the pointers are only used during a run, which borrows the arena exclusively; between runs they are dead.
unsafe impl<T: Send> Send for Base<T> {}

impl<T: Real> Arena<T> {
    pub(super) fn new(arena_length: usize, scratch_length: usize, buffers: usize) -> Self {
        let line = ALIGNMENT / size_of::<T>();
        let scratch_start = arena_length.next_multiple_of(line);
        Self {
            storage: Aligned::new(scratch_start + scratch_length),
            scratch_start,
            bases: vec![Base(std::ptr::null_mut()); buffers],
        }
    }

    pub(super) fn fits(&self, arena_length: usize, scratch_length: usize, buffers: usize) -> bool {
        let line = ALIGNMENT / size_of::<T>();
        self.scratch_start == arena_length.next_multiple_of(line)
            && self.storage.length() == self.scratch_start + scratch_length
            && self.bases.len() == buffers
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.storage.length() * size_of::<T>()
    }

    /// The address of every buffer for one run. `place` gives a buffer's first element; the arena's own buffers are
    /// given by their offset.
    pub(super) fn bind(&mut self, mut place: impl FnMut(usize) -> Address<T>) -> Memory<'_, T> {
        let arena = self.storage.values_mut().as_mut_ptr();
        for (buffer, base) in self.bases.iter_mut().enumerate() {
            base.0 = match place(buffer) {
                // SAFETY: the plan's offsets lie inside the arena length that `new` allocated.
                Address::Arena(offset) => unsafe { arena.add(offset) },
                Address::External(pointer) => pointer,
            };
        }
        // SAFETY: `new` allocated the scratch behind the arena.
        let scratch = unsafe { arena.add(self.scratch_start) };
        Memory {
            bases: &self.bases,
            scratch,
        }
    }
}

/// Where a buffer starts.
pub(super) enum Address<T> {
    Arena(usize),
    External(*mut T),
}

/// The addresses of one run.
pub(super) struct Memory<'a, T> {
    bases: &'a [Base<T>],
    scratch: *mut T,
}

impl<T: Real> Memory<'_, T> {
    /// First element of a view of the buffer starting at `offset`.
    #[inline]
    pub(super) fn at(&self, buffer: usize, offset: usize) -> *mut T {
        self.bases[buffer].0.wrapping_add(offset)
    }

    /// Scratch of the compiled scratch length.
    pub(super) fn scratch(&self) -> *mut T {
        self.scratch
    }

    /// A range of a buffer for reading.
    ///
    /// # Safety
    /// The range lies inside the buffer and nothing writes to it while the slice lives.
    #[inline]
    pub(super) unsafe fn read<'s>(&self, buffer: usize, offset: usize, length: usize) -> &'s [T] {
        // SAFETY: the caller's.
        unsafe { std::slice::from_raw_parts(self.at(buffer, offset), length) }
    }

    /// A range of a buffer for writing.
    ///
    /// # Safety
    /// The range lies inside the buffer, which is not an input or constant, and nothing else accesses it while the
    /// slice lives.
    #[inline]
    pub(super) unsafe fn write<'s>(
        &self,
        buffer: usize,
        offset: usize,
        length: usize,
    ) -> &'s mut [T] {
        // SAFETY: the caller's.
        unsafe { std::slice::from_raw_parts_mut(self.at(buffer, offset), length) }
    }
}

/// # Safety
/// `pointer` has the vector's width of elements.
#[inline(always)]
pub(super) unsafe fn load<T: Real, S: Simd>(pointer: *const T) -> T::Lanes<S> {
    // SAFETY: the caller's.
    T::Lanes::<S>::load(unsafe { std::slice::from_raw_parts(pointer, T::Lanes::<S>::WIDTH) })
}

/// # Safety
/// `pointer` has the vector's width of elements.
#[inline(always)]
pub(super) unsafe fn store<T: Real, S: Simd>(pointer: *mut T, value: T::Lanes<S>) {
    // SAFETY: the caller's.
    value.store(unsafe { std::slice::from_raw_parts_mut(pointer, T::Lanes::<S>::WIDTH) });
}
