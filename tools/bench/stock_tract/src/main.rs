//! tract as it comes, for vs_peers.py: `stock_tract MODEL SAMPLE OUT CALLS`. It writes what comes out of MODEL to OUT, says
//! its version, and for every line that it reads makes CALLS calls, or as many as fit into a second, and says their median
//! in milliseconds.
//!
//! SAMPLE and OUT are raw f32. The other inputs are the 999th time and class 3; symbolic dimensions are 1.

use std::error::Error;
use std::time::Instant;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::Factoid;
use tract_onnx::tract_hir::internal::{DimLike, InferenceModelExt};

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, sample, out, calls] = &arguments[..] else { return Err("MODEL SAMPLE OUT CALLS".into()) };
    let calls = calls.parse()?;
    let sample: Vec<f32> = std::fs::read(sample)?.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();

    let mut graph = tract_onnx::onnx().with_ignore_value_info(true).model_for_path(model)?;
    let mut inputs: TVec<TValue> = tvec!();
    for index in 0..graph.inputs.len() {
        let fact = graph.input_fact(index)?.clone();
        let dims: Vec<usize> = fact.shape.dims().map(|d| d.concretize().and_then(|d| d.to_usize().ok()).unwrap_or(1)).collect();
        let kind = fact.datum_type.concretize().ok_or("an input without a type")?;
        graph.set_input_fact(index, InferenceFact::dt_shape(kind, &dims))?;
        let name = graph.node(graph.inputs[index].node).name.clone();
        inputs.push(match name.as_str() {
            "sample" => Tensor::from_shape(&dims, &sample)?.into(),
            "timestep" => tensor1(&[999f32]).into(),
            "class_labels" => tensor1(&[3i64]).into(),
            _ => return Err(format!("an input {name}").into()),
        });
    }
    graph.set_output_fact(0, Default::default())?;
    let plan = graph.into_optimized()?.into_runnable()?;
    let mut state = plan.spawn()?;

    let result = state.run(inputs.clone())?;
    let bytes: Vec<u8> = result[0].to_plain_array_view::<f32>()?.iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(out, bytes)?;

    println!("0.23.9");
    for line in std::io::stdin().lines() {
        line?;
        state.run(inputs.clone())?;
        let (mut times, began) = (Vec::new(), Instant::now());
        while times.len() < calls && (times.len() < 3 || began.elapsed().as_secs() < 1) {
            let start = Instant::now();
            state.run(inputs.clone())?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        println!("{}", times[times.len() / 2]);
    }
    Ok(())
}
