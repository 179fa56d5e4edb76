//! The same picture for the same seed on every machine: the bits of samples of the shipped models, pinned. CI runs this
//! on x86-64 and, emulated, on the cores of the Raspberry Pi 3, 4 and 5.

use edgegen::config::Spacing;
use edgegen::solver::Solver;
use edgegen::{Model, Request};

/// Whether the network's kernels fuse multiplication and addition here: on x86-64 from Haswell on, on 64-bit ARM always.
fn fuses() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    return cfg!(target_arch = "aarch64");
}

/// FNV-1a of the numbers' bits.
fn hash(sample: &[f32]) -> u64 {
    let bytes = sample.iter().flat_map(|v| v.to_bits().to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn samples_have_the_same_bits_on_every_machine() {
    if !fuses() {
        eprintln!("this CPU does not fuse multiplication and addition: its samples differ by rounding");
        return;
    }
    // the sampler, its steps, and what the float and the int8 model gave
    let pinned: &[(&str, usize, [u64; 2])] = &[
        ("ddim", 10, [0xe153_c979_24ee_e6af, 0xac45_1810_7241_c97b]),
        ("dpm++2m", 5, [0xbb83_c94a_72b9_d2f1, 0xfb17_0097_bff4_718d]),
        ("unipc-2", 8, [0x4c1b_248f_84e0_9931, 0xafcf_3e9f_7685_9a85]),
        ("heun", 4, [0x311e_41a7_bfb4_4e04, 0xb163_ef7c_f793_65e1]),
        ("euler-ancestral", 6, [0xa0a5_d200_48ba_1458, 0xdda2_d5aa_a79b_6d1b]),
        ("fitted", 5, [0xa663_5ccb_7275_f2e1, 0xc7f2_ab93_fa76_acd9]),
    ];
    let models = ["models/fashion-mnist.onnx", "models/fashion-mnist.int8.onnx"].map(|file| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        Model::open(path).unwrap()
    });
    let mut wrong = Vec::new();
    for (sampler, steps, expected) in pinned {
        let got = models.each_ref().map(|model| {
            let solver = Solver::from_name(sampler).unwrap();
            let mut builder = model.generator().solver(solver).steps(*steps);
            if solver != Solver::Fitted {
                builder = builder.spacing(Spacing::Karras);
            }
            hash(builder.build().unwrap().run(&Request::new(7, 3).class(8)).unwrap().sample)
        });
        if got != *expected {
            wrong.push((sampler, steps, got, expected));
        }
    }
    assert!(wrong.is_empty(), "sampler, steps, got, pinned: {wrong:#x?}");
}
