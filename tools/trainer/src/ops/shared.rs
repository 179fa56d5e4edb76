//! What the operators share: access to a CPU tensor's numbers, and output split between threads.

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};

/// The numbers of a contiguous f32 CPU storage.
pub(super) fn as_f32<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(v), Some((from, to))) => Ok(&v[from..to]),
        _ => bail!("a contiguous f32 tensor is needed"),
    }
}

/// Calls `f` with the numbers of contiguous f32 CPU tensors.
pub(super) fn with_f32<const N: usize, R>(tensors: [&Tensor; N], f: impl FnOnce([&[f32]; N]) -> R) -> Result<R> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut slices: [&[f32]; N] = [&[]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        *slice = match &**storage {
            Storage::Cpu(cpu) => as_f32(cpu, layout)?,
            _ => bail!("a CPU tensor is needed"),
        };
    }
    Ok(f(slices))
}

/// A buffer that several threads fill at once, each its own disjoint part.
#[derive(Clone, Copy)]
pub(super) struct Parts(*mut f32);

// SAFETY: a `Parts` is only used through `part`, whose callers promise disjoint ranges.
unsafe impl Send for Parts {}
// SAFETY: as above.
unsafe impl Sync for Parts {}

impl Parts {
    /// The parts of `buffer`, which must outlive every slice taken from them.
    pub(super) fn of(buffer: &mut [f32]) -> Self {
        Parts(buffer.as_mut_ptr())
    }

    /// `len` numbers from `start`.
    ///
    /// # Safety
    /// The range must lie inside the buffer, which must be alive, and no other live slice may overlap it.
    #[allow(clippy::mut_from_ref, reason = "the caller promises disjoint ranges")]
    pub(super) unsafe fn part<'a>(&self, start: usize, len: usize) -> &'a mut [f32] {
        // SAFETY: the start of a range inside the buffer, by the caller's promise.
        let first = unsafe { self.0.add(start) };
        // SAFETY: the range is inside the buffer, which lives, and no other slice overlaps it, by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(first, len) }
    }
}

/// The sum, in 16 interleaved lanes so that it vectorises and loses less to rounding.
#[inline(always)]
pub(super) fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let mut chunks = values.chunks_exact(16);
    for chunk in &mut chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += v;
        }
    }
    chunks.remainder().iter().sum::<f32>() + lanes.iter().sum::<f32>()
}

/// Runs `task` compiled for the widest vectors of this machine. Only what is inlined into its `call` gains.
#[inline]
pub(super) fn vectorised<T: pulp::NullaryFnOnce>(task: T) -> T::Output {
    pulp::Arch::new().dispatch(task)
}
