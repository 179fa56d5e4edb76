//! Threads inside a call: the same samples, and no allocation on any of them.

#![cfg(feature = "onnx")]

#[path = "common/allocations.rs"]
mod counting;

use counting::Counting;
use edgegen::{Model, Request};
use std::path::Path;

/// There is one test in this file, so that nothing else allocates meanwhile.
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
            let before = Counting::of_all_threads();
            let run = generator.run(&Request::new(7, 0).class(9)).unwrap();
            assert_eq!(Counting::of_all_threads() - before, 0, "{file} with {threads} threads");
            let bits: Vec<u32> = run.sample.iter().map(|v| v.to_bits()).collect();
            assert!(*first.get_or_insert(bits.clone()) == bits, "{file} with {threads} threads");
        }
    }
    assert!(Counting::of_all_threads() > 0, "the counter does not count");
}
