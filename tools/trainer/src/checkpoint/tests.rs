use super::*;
use crate::network::UnetConfig;

fn small() -> Checkpoint {
    let header = Header {
        network: NetworkConfig::Unet(UnetConfig {
            shape: [1, 4, 4],
            classes: 2,
            patch: 1,
            base: 4,
            multipliers: vec![1],
            blocks: 1,
            middle_blocks: 1,
            attention: false,
            groups: 2,
        }),
        scheduler: SchedulerConfig::default(),
        train: serde_json::from_value(serde_json::json!({
            "steps": 10, "batch": 2, "rate": 1e-3, "warm_up": 1, "weight_decay": 0.0, "clip": 1.0, "ema": 0.9,
            "label_dropout": 0.1, "flip": false, "weighting": "simple", "seed": 7
        }))
        .unwrap(),
        class_names: vec!["a".into(), "b".into()],
        normalization: None,
        distill: None,
        step: 4,
        seconds: 2.5,
    };
    let tensors = |scale: f32| -> Tensors {
        // numbers that a careless writer would lose
        let special = [f32::MIN_POSITIVE / 4.0, -0.0, 1.5, f32::MAX].map(|v| v * scale);
        let tensor = |shape: Vec<usize>| {
            let values: Vec<f32> = special.iter().copied().cycle().take(shape.iter().product()).collect();
            Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
        };
        header.network.shapes().map(|(name, shape)| (name, tensor(shape))).collect()
    };
    let (model, ema, adam_mean, adam_square) = (tensors(1.0), tensors(0.5), tensors(0.25), tensors(0.1));
    Checkpoint { header, model, ema, adam_mean, adam_square, distillation: distill::State::default() }
}

fn bits(tensors: &Tensors) -> Vec<(String, Vec<usize>, Vec<u32>)> {
    let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect();
    tensors.iter().map(|(n, t)| (n.clone(), t.dims().to_vec(), bits(t))).collect()
}

#[test]
fn what_is_saved_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.safetensors");
    let saved = small();
    saved.save(&path).unwrap();
    let loaded = Checkpoint::load(&path, &Device::Cpu).unwrap();
    assert_eq!(saved.header, loaded.header);
    for ((_, a), (_, b)) in saved.groups().iter().zip(loaded.groups()) {
        assert_eq!(bits(a), bits(b));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn damaged_files_are_errors_of_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.safetensors");
    small().save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let error = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let error = Checkpoint::load(&path, &Device::Cpu).err().expect("a damaged file was taken for a checkpoint");
        let line = format!("{error:#}");
        assert!(line.contains("c.safetensors") && !line.contains('\n'), "{line}");
    };
    (0..whole.len()).step_by(101).for_each(|len| error(&whole[..len]));
    error(b"I am a text file, not a checkpoint, and longer than eight bytes");
    // a parameter too few
    let mut less = small();
    less.ema.remove("out.w").unwrap();
    less.save(&path).unwrap();
    error(&std::fs::read(&path).unwrap());
    // a safetensors file of something else
    let view = TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap();
    error(&safetensors::serialize([("x", view)], None).unwrap());
}

#[test]
fn a_file_that_cannot_be_written_leaves_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nowhere").join("c.safetensors");
    let error = format!("{:#}", small().save(&path).unwrap_err());
    assert!(error.contains("cannot write") && error.contains("nowhere"), "{error}");
}
