//! The same picture for the same seed on every machine: the bits of samples of the shipped models, pinned. CI runs this
//! on x86-64 and, emulated, on the cores of the Raspberry Pi 3, 4 and 5.

use edgegen::condition::Condition;
use edgegen::config::Spacing;
use edgegen::network::{Model, ModelOptions};
use edgegen::sampler::Control;
use edgegen::solver::Solver;
use edgegen::{Generator, Settings};

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
        ("ddim", 10, [0x0236_2f6e_f4ca_594d, 0xa4ac_05fa_a447_37a4]),
        ("dpm++2m", 5, [0x2579_dafa_7bfe_d2eb, 0x6273_7879_4b01_1646]),
        ("unipc-2", 8, [0xfbe4_e741_7a3b_7d53, 0x7477_6f74_86d1_a588]),
        ("heun", 4, [0xe9b7_c362_2887_9efa, 0x0c59_0507_6c31_9008]),
        ("euler-ancestral", 6, [0x099a_7ac5_9e49_9f23, 0xf733_d694_8904_6b4c]),
        ("fitted", 5, [0x9198_1d4c_7fd0_14ba, 0xa3e5_fc42_0b83_6789]),
    ];
    let models = ["models/fashion-mnist.onnx", "models/fashion-mnist.int8.onnx"].map(|file| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        Model::open(path, &ModelOptions::default()).unwrap()
    });
    let mut wrong = Vec::new();
    for (sampler, steps, expected) in pinned {
        let got = models.each_ref().map(|model| {
            let solver = Solver::from_name(sampler).unwrap();
            let mut settings = Settings { steps: *steps, ..Settings::with_solver(model, solver) };
            if solver != Solver::Fitted {
                settings.spacing = Some(Spacing::Karras);
            }
            let mut generator = Generator::new(model, &settings).unwrap();
            let (sample, _) = generator.generate(7, 3, &Condition::class(8), &mut Control::default()).unwrap();
            hash(sample)
        });
        if got != *expected {
            wrong.push((sampler, steps, got, expected));
        }
    }
    assert!(wrong.is_empty(), "sampler, steps, got, pinned: {wrong:#x?}");
}
