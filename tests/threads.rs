//! Threads inside a call: the same samples, and no allocation on any of them.

#![cfg(feature = "onnx")]

use edgegen::{Model, Request};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Of all threads: there is one test in this file, so that nothing else allocates meanwhile.
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn threads_that_share_a_call_change_no_bit_and_allocate_nothing() {
    for file in ["fashion-mnist.onnx", "fashion-mnist.int8.onnx"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(file);
        let model = Model::open(path).unwrap();
        let mut first: Option<Vec<u32>> = None;
        for threads in [1, 2, 3] {
            let mut generator = model.generator().steps(4).guidance(2.0).threads(threads).build().unwrap();
            generator.prepare().unwrap();
            let before = ALLOCATIONS.load(Relaxed);
            let run = generator.run(&Request::new(7, 0).class(9)).unwrap();
            assert_eq!(ALLOCATIONS.load(Relaxed) - before, 0, "{file} with {threads} threads");
            let bits: Vec<u32> = run.sample.iter().map(|v| v.to_bits()).collect();
            assert!(*first.get_or_insert(bits.clone()) == bits, "{file} with {threads} threads");
        }
    }
    assert!(ALLOCATIONS.load(Relaxed) > 0, "the counter does not count");
}
