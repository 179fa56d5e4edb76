//! An allocator that counts. A test that wants it says `#[global_allocator] static ALLOCATOR: Counting = Counting;`.
#![allow(dead_code, reason = "each test uses some of it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Of all threads.
static ALL: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Of this thread, so that tests do not disturb each other.
    static OF_THREAD: Cell<usize> = const { Cell::new(0) };
    /// The bytes of the greatest one.
    static GREATEST: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, and what was asked of it.
pub struct Counting;

impl Counting {
    fn note(layout: Layout) {
        ALL.fetch_add(1, Relaxed);
        OF_THREAD.set(OF_THREAD.get() + 1);
        GREATEST.set(GREATEST.get().max(layout.size()));
    }

    /// How often all threads have allocated.
    pub fn of_all_threads() -> usize {
        ALL.load(Relaxed)
    }

    /// How often this thread has allocated.
    pub fn of_this_thread() -> usize {
        OF_THREAD.get()
    }

    /// The bytes of the greatest allocation of this thread since this was called last.
    pub fn take_greatest() -> usize {
        GREATEST.take()
    }
}

// SAFETY: every call goes on to the system's allocator as it is; the counters touch no memory of the heap.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::note(layout);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::note(layout);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}
