//! Models in 16 bits. (That networks in 16 bits are those in 32 but for rounding, and that every CPU with 16-bit arithmetic
//! gives the same bits, is tested beside the plan and its kernels.)

use edgegen::{Model, ModelOptions, Precision, Request};
use std::path::{Path, PathBuf};

fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn open(name: &str, precision: Precision) -> edgegen::Result<Model> {
    ModelOptions::new().precision(precision).open(model(name))
}

/// A sample by ten steps.
fn sample(model: &Model) -> Vec<f32> {
    let mut generator = model.generator().steps(10).build().unwrap();
    generator.run(&Request::new(7, 3).class(8)).unwrap().sample.to_vec()
}

fn rms(all: impl ExactSizeIterator<Item = f32>) -> f64 {
    let len = all.len() as f64;
    (all.map(|v| f64::from(v).powi(2)).sum::<f64>() / len).sqrt()
}

#[test]
fn a_sample_in_16_bits_is_that_in_32_but_for_rounding() {
    let [wide, narrow] = [Precision::F32, Precision::F16].map(|p| open("models/fashion-mnist.onnx", p).unwrap());
    let (a, b) = (sample(&wide), sample(&narrow));
    let error = rms(a.iter().zip(&b).map(|(a, b)| a - b));
    assert!(error > 0.0 && error < 0.01 && rms(a.into_iter()) > 0.5, "{error}");
    assert!(narrow.engine().contains("in 16 bits") && !wide.engine().contains("in 16 bits"), "{}", narrow.engine());
    // memory to work in
    let work = |model: &Model| -> f64 {
        let engine = model.engine();
        engine.split(", ").find_map(|part| part.strip_suffix(" MB of work space a thread")).unwrap().parse().unwrap()
    };
    assert!(work(&narrow) < 0.6 * work(&wide), "{} of {}", work(&narrow), work(&wide));
}

#[test]
fn auto_is_16_bits_only_where_the_cpu_computes_in_them() {
    let auto = open("models/fashion-mnist.onnx", Precision::Auto).unwrap();
    #[cfg(target_arch = "aarch64")]
    let has = std::arch::is_aarch64_feature_detected!("fp16");
    #[cfg(not(target_arch = "aarch64"))]
    let has = false;
    assert_eq!(auto.engine().contains("in 16 bits"), has);
    // a model in 8 bits stays so where matrices of bytes are multiplied
    #[cfg(target_arch = "aarch64")]
    let bytes = std::arch::is_aarch64_feature_detected!("i8mm");
    #[cfg(not(target_arch = "aarch64"))]
    let bytes = false;
    let auto = open("models/fashion-mnist.int8.onnx", Precision::Auto).unwrap();
    assert_eq!(auto.engine().contains("in 16 bits"), has && !bytes);
}

#[test]
fn a_network_in_8_bits_runs_in_16_without_rounding_its_activations() {
    let of = |name, precision| sample(&open(name, precision).unwrap());
    let float = of("models/fashion-mnist.onnx", Precision::F32);
    let [bytes, halves] = [Precision::F32, Precision::F16].map(|p| of("models/fashion-mnist.int8.onnx", p));
    let error = |of: &[f32]| rms(of.iter().zip(&float).map(|(a, b)| a - b));
    // what is left is the rounding of its weights
    let [bytes, halves] = [bytes, halves].map(|of| error(&of));
    assert!(halves > 0.0 && halves < 0.8 * bytes, "{halves} {bytes}");
}

#[test]
fn what_has_no_16_bits_is_refused_in_one_line() {
    // run as it is written, it rounds to 8 bits
    let options = ModelOptions::new().precision(Precision::F16).exact_quantization(true);
    let error = options.open(model("models/fashion-mnist.int8.onnx")).err().unwrap().to_string();
    assert!(error.contains("rounds to 8 bits") && error.contains("take f32 or auto"), "{error}");
    let error = Precision::from_name("f8").unwrap_err().to_string();
    assert!(error.contains("f8") && error.contains("f32, f16 and auto"), "{error}");
}
