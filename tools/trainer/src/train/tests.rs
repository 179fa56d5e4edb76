use super::*;
use crate::data::{Condition, Dataset, to_unit};
use crate::network::{SequenceConfig, UnetConfig};
use crate::noise_path::flow_config;
use rand_distr::{Distribution, StandardNormal};

mod prefix;

/// Pictures of 4×4, one channel, two classes, every picture unlike the others.
fn data(len: usize) -> Dataset {
    let pixels = (0..len * 16).map(|i| if i % 16 / 4 % 2 == i / 16 % 2 { 200 + (i / 16) as u8 } else { 20 }).collect();
    let labels = (0..len).map(|i| i % 2).collect();
    Dataset { pixels, shape: [1, 4, 4], labels, class_names: vec!["a".into(), "b".into()] }
}

fn options() -> TrainConfig {
    TrainConfig {
        steps: 60,
        batch: 8,
        rate: 2e-3,
        warm_up: 5,
        weight_decay: 0.01,
        clip: 1.0,
        ema: 0.99,
        label_dropout: 0.1,
        flip: true,
        weighting: Weighting::Simple,
        time_sampling: TimeSampling::Uniform,
        seed: 3,
        guidance: 1.0,
    }
}

fn trainer(prediction_type: PredictionType, train: TrainConfig) -> Trainer {
    trainer_with(SchedulerConfig { prediction_type, ..SchedulerConfig::default() }, train).unwrap()
}

fn trainer_with(scheduler: SchedulerConfig, train: TrainConfig) -> Result<Trainer> {
    let unet = UnetConfig {
        shape: [1, 4, 4],
        classes: 2,
        patch: 1,
        base: 8,
        multipliers: vec![1, 2],
        blocks: 1,
        middle_blocks: 1,
        attention: true,
        groups: 4,
    };
    Trainer::new(NetworkConfig::Unet(unet), scheduler, train, vec!["a".into(), "b".into()], Device::Cpu)
}

fn bits(tensors: &Tensors) -> Vec<u32> {
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    tensors.values().flat_map(values).map(f32::to_bits).collect()
}

#[test]
fn the_loss_falls() {
    for prediction in [PredictionType::V, PredictionType::Epsilon] {
        for weighting in [Weighting::Simple, Weighting::Likelihood] {
            let mut trainer = trainer(prediction, TrainConfig { weighting, steps: 250, rate: 5e-3, ..options() });
            let losses: Vec<f64> = (0..250).map(|_| trainer.step(&data(24)).unwrap().loss).collect();
            let mean = |l: &[f64]| l.iter().sum::<f64>() / l.len() as f64;
            let (first, last) = (mean(&losses[..20]), mean(&losses[230..]));
            // λ = β puts nearly all the weight where there is hardly any noise, of which little can be learnt
            let bound = if weighting == Weighting::Simple { 0.6 } else { 0.8 };
            assert!(last < bound * first, "{prediction:?}, {weighting:?}: the loss went from {first} to {last}");
        }
    }
}

#[test]
fn resuming_gives_the_same_bits() {
    let data = data(20);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    let mut straight = trainer(PredictionType::V, options());
    let mut resumed = trainer(PredictionType::V, options());
    for step in 0..9 {
        let report = straight.step(&data).unwrap();
        // at the third step in the middle of an epoch, at the sixth in another one
        if step == 3 || step == 6 {
            resumed.checkpoint(1.5).unwrap().save(&path).unwrap();
            let loaded = Checkpoint::load(&path, &Device::Cpu).unwrap();
            resumed = Trainer::from_checkpoint(loaded, Device::Cpu).unwrap();
        }
        let again = resumed.step(&data).unwrap();
        assert_eq!((report.loss.to_bits(), report.rate), (again.loss.to_bits(), again.rate), "step {step}");
    }
    let (a, b) = (straight.checkpoint(0.0).unwrap(), resumed.checkpoint(0.0).unwrap());
    assert_eq!(a.header, b.header);
    for (a, b) in [(&a.model, &b.model), (&a.ema, &b.ema), (&a.adam_mean, &b.adam_mean)] {
        assert_eq!(bits(a), bits(b));
    }
    assert_eq!(bits(&a.adam_square), bits(&b.adam_square));
    assert_ne!(bits(&a.model), bits(&a.ema));
}

#[test]
fn the_moving_average_is_of_the_weights() {
    let mut trainer = trainer(PredictionType::V, options());
    let mut want = trainer.checkpoint(0.0).unwrap().ema["in.w"].flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for step in 0..200 {
        trainer.step(&data(8)).unwrap();
        let decay = options().ema.min((1.0 + step as f64) / (10.0 + step as f64));
        let weights = trainer.variables["in.w"].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (mean, w) in want.iter_mut().zip(weights) {
            *mean = (f64::from(*mean) * decay + f64::from(w) * (1.0 - decay)) as f32;
        }
    }
    for (got, want) in trainer.ema()["in.w"].flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().zip(want) {
        assert!((got - want).abs() < 1e-6, "{got} should be {want}");
    }
}

#[test]
fn an_epoch_visits_every_sample_once() {
    let mut trainer = trainer(PredictionType::V, options());
    let mut epoch = |n: u64| -> Vec<usize> { (n * 3..n * 3 + 3).flat_map(|step| trainer.indices(24, step)).collect() };
    let (first, second, again) = (epoch(0), epoch(1), epoch(0));
    assert_eq!(first, again);
    assert_ne!(first, second);
    for mut epoch in [first, second] {
        epoch.sort_unstable();
        assert_eq!(epoch, (0..24).collect::<Vec<_>>());
    }
    // fewer samples than a batch holds
    assert_eq!(trainer.indices(5, 0).len(), 8);
}

/// The clean sample that x_t and the target stand for.
fn clean(trainer: &Trainer, t: usize, x: f32, target: f32) -> f64 {
    let (gamma, sigma, x, target) =
        (trainer.schedule.gamma(t), trainer.schedule.sigma(t), f64::from(x), f64::from(target));
    match trainer.header.scheduler.prediction_type {
        PredictionType::V => gamma * x - sigma * target,
        _ => (x - sigma * target) / gamma,
    }
}

#[test]
fn batches_are_noised_data() {
    let data = data(24);
    for prediction in [PredictionType::V, PredictionType::Epsilon] {
        let train = TrainConfig { batch: 24, flip: false, label_dropout: 0.25, ..options() };
        let mut trainer = trainer(prediction, train);
        let (mut dropped, mut noise) = (0, Vec::new());
        for step in 0..40 {
            let indices = trainer.indices(data.len(), step);
            let batch = trainer.batch(&data, step).unwrap();
            let [x, target] = [&batch.x, &batch.target].map(|t| t.flatten_from(1).unwrap().to_vec2::<f32>().unwrap());
            let Given::Labels(labels) = &batch.given else { panic!("pictures have labels") };
            let (t, labels) = (batch.t.to_vec1::<f32>().unwrap(), labels.to_vec1::<u32>().unwrap());
            for (j, i) in indices.into_iter().enumerate() {
                let t = t[j] as usize;
                let part = (1000 * j / 24, (1000 * (j + 1)).div_ceil(24));
                assert!((part.0..part.1).contains(&t), "one t in each part of the training steps");
                for k in 0..16 {
                    let x0 = clean(&trainer, t, x[j][k], target[j][k]);
                    // of ε, little is left of x_0 where it is nearly all noise
                    let bound = 1e-6 / trainer.schedule.gamma(t);
                    let want = f64::from(to_unit(data.sample(i)[k]));
                    assert!((x0 - want).abs() < bound, "{prediction:?}, t {t}: {x0} should be {want}");
                    noise.push((f64::from(x[j][k]) - trainer.schedule.gamma(t) * want) / trainer.schedule.sigma(t));
                }
                let label = labels[j] as usize;
                assert!(label == data.labels[i] || label == 2);
                dropped += usize::from(label == 2);
            }
        }
        // 960 labels, 15,360 numbers: five standard deviations
        assert!((dropped as f64 / 960.0 - 0.25).abs() < 0.07, "{dropped} of 960 labels dropped");
        let n = noise.len() as f64;
        let mean = noise.iter().sum::<f64>() / n;
        let variance = noise.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / n;
        assert!(mean.abs() < 5.0 / n.sqrt() && (variance - 1.0).abs() < 5.0 * (2.0 / n).sqrt(), "{mean} {variance}");
    }
}

/// The batch of a flow and its loss, computed number by number from the data and the definition alone: x_t lies on the
/// straight line between x_0 and ε, and the target is the line's direction.
#[test]
fn the_loss_of_a_flow_is_the_mean_square_error_of_the_velocity() {
    for time_sampling in [TimeSampling::Uniform, TimeSampling::LogitNormal] {
        let data = data(24);
        let train = TrainConfig { batch: 24, flip: false, label_dropout: 0.0, time_sampling, ..options() };
        let mut trainer = trainer_with(flow_config(50), train).unwrap();
        for step in 0..3 {
            trainer.step(&data).unwrap();
            assert_eq!(trainer.header().step, step + 1);
        }
        let indices = trainer.indices(data.len(), 3);
        let batch = trainer.batch(&data, 3).unwrap();
        let rows = |t: &Tensor| t.flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
        let [x, target] = [&batch.x, &batch.target].map(rows);
        let times = batch.t.to_vec1::<f32>().unwrap();
        let output = trainer.header.network.forward(&tensors(&trainer.variables), &batch.x, &batch.t, &batch.given);
        let output = rows(&output.unwrap());
        let (mut sum, mut noise) = (0.0, Vec::new());
        for (j, i) in indices.into_iter().enumerate() {
            // the network is told t · 50
            let t = f64::from(times[j]) / 50.0;
            assert!((0.0..=1.0).contains(&t) && t.fract() != 0.0);
            for k in 0..16 {
                let x0 = f64::from(to_unit(data.sample(i)[k]));
                let eps = f64::from(target[j][k]) + x0;
                let on_the_line = (1.0 - t) * x0 + t * eps;
                assert!((f64::from(x[j][k]) - on_the_line).abs() < 1e-5, "t {t}: {} is not {on_the_line}", x[j][k]);
                sum += (f64::from(output[j][k]) - (eps - x0)).powi(2);
                noise.push(eps);
            }
        }
        let loss = trainer.step(&data).unwrap().loss;
        let want = sum / (24.0 * 16.0);
        assert!((loss - want).abs() < 1e-5 * want, "{time_sampling:?}: the loss is {loss}, not {want}");
        // 384 numbers, standard normal: five standard deviations
        let n = noise.len() as f64;
        let mean = noise.iter().sum::<f64>() / n;
        let variance = noise.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / n;
        assert!(mean.abs() < 5.0 / n.sqrt() && (variance - 1.0).abs() < 5.0 * (2.0 / n).sqrt(), "{mean} {variance}");
    }
}

#[test]
fn flows_are_learnt_and_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    let train = TrainConfig { steps: 250, rate: 5e-3, time_sampling: TimeSampling::LogitNormal, ..options() };
    let mut straight = trainer_with(flow_config(1000), train.clone()).unwrap();
    let mut resumed = trainer_with(flow_config(1000), train.clone()).unwrap();
    let mut losses = Vec::new();
    for step in 0..250 {
        losses.push(straight.step(&data(24)).unwrap().loss);
        if step == 3 {
            resumed.checkpoint(1.5).unwrap().save(&path).unwrap();
            resumed = Trainer::from_checkpoint(Checkpoint::load(&path, &Device::Cpu).unwrap(), Device::Cpu).unwrap();
            assert_eq!((&resumed.header.scheduler, &resumed.header.train), (&flow_config(1000), &train));
        }
        if step < 6 {
            assert_eq!(resumed.step(&data(24)).unwrap().loss.to_bits(), losses[step].to_bits(), "step {step}");
        }
    }
    let mean = |l: &[f64]| l.iter().sum::<f64>() / l.len() as f64;
    let (first, last) = (mean(&losses[..20]), mean(&losses[230..]));
    assert!(last < 0.6 * first, "the loss went from {first} to {last}");
}

#[test]
fn what_is_of_the_other_path_is_refused() {
    let refused = |scheduler, train, words: &str| {
        let error = trainer_with(scheduler, train).err().unwrap().to_string();
        assert!(error.contains(words) && !error.contains('\n'), "{error}");
    };
    refused(flow_config(100), TrainConfig { weighting: Weighting::Likelihood, ..options() }, "--weighting simple");
    let logit_normal = TrainConfig { time_sampling: TimeSampling::LogitNormal, ..options() };
    refused(SchedulerConfig::default(), logit_normal, "--path flow");
    for (scheduler, prediction_type) in [
        (SchedulerConfig::default(), PredictionType::Flow),
        (flow_config(100), PredictionType::Epsilon),
        (flow_config(100), PredictionType::V),
    ] {
        // a class of diffusers' says that it is a flow; without one the prediction does
        let mut scheduler = SchedulerConfig { prediction_type, ..scheduler };
        scheduler.class.class_name.get_or_insert("DDIMScheduler".into());
        refused(scheduler, options(), "predicts its velocity");
    }
}

#[test]
fn flips_mirror_rows() {
    let mut data = data(24);
    data.pixels = (0..24 * 16).map(|i| (i % 4 * 60) as u8).collect();
    let mut trainer = trainer(PredictionType::V, TrainConfig { batch: 24, ..options() });
    let batch = trainer.batch(&data, 0).unwrap();
    let [x, target] = [&batch.x, &batch.target].map(|t| t.flatten_from(1).unwrap().to_vec2::<f32>().unwrap());
    let t = batch.t.to_vec1::<f32>().unwrap();
    let mut mirrored = 0;
    for j in 0..24 {
        let row: Vec<u8> = (0..4)
            .map(|k| ((clean(&trainer, t[j] as usize, x[j][k], target[j][k]) + 1.0) * 127.5).round() as u8)
            .collect();
        assert!(row == [0, 60, 120, 180] || row == [180, 120, 60, 0], "{row:?}");
        mirrored += usize::from(row[0] == 180);
    }
    assert!((3..=21).contains(&mirrored), "{mirrored} of 24 mirrored");
}

#[test]
fn weights_of_v_and_epsilon_stand_for_the_same_loss() {
    let schedule = Schedule::from_config(&SchedulerConfig::default()).unwrap();
    let of_eps = loss_weights(&schedule, Weighting::Likelihood, PredictionType::Epsilon);
    let of_v = loss_weights(&schedule, Weighting::Likelihood, PredictionType::V);
    // an error of ε at t, as a loss of ε and as a loss of v
    let losses = |t: usize| {
        let (gamma, sigma, x0, eps, wrong_eps) = (schedule.gamma(t), schedule.sigma(t), 0.3, -0.8, -0.55);
        let x = gamma * x0 + sigma * eps;
        let wrong_x0 = (x - sigma * wrong_eps) / gamma;
        let v_error = (gamma * wrong_eps - sigma * wrong_x0) - (gamma * eps - sigma * x0);
        (of_eps[t] * (wrong_eps - eps).powi(2), of_v[t] * v_error.powi(2))
    };
    let (eps_0, v_0) = losses(0);
    for t in [1, 100, 500, 999] {
        let (eps, v) = losses(t);
        assert!((eps / eps_0 - v / v_0).abs() < 1e-9 * eps / eps_0, "t {t}: {} and {}", eps / eps_0, v / v_0);
        // λ = β: weight β/σ² of the loss of ε
        let want = schedule.beta(t) / schedule.sigma(t).powi(2) / (schedule.beta(0) / schedule.sigma(0).powi(2));
        assert!((eps / eps_0 - want).abs() < 1e-9 * want);
    }
    assert!(loss_weights(&schedule, Weighting::Simple, PredictionType::Epsilon).iter().all(|w| *w == 1.0));
}

#[test]
fn the_learning_rate_rises_and_falls() {
    let train = TrainConfig { steps: 1000, warm_up: 100, rate: 1.0, ..options() };
    assert!((train.rate_at(0) - 0.01).abs() < 1e-6);
    assert!((train.rate_at(49) - 0.5).abs() < 5e-3);
    assert!((train.rate_at(500) - 0.51).abs() < 1e-9);
    assert!((train.rate_at(1000) - LAST_RATE).abs() < 1e-9);
    assert!((100..1000).all(|s| train.rate_at(s + 1) < train.rate_at(s)));
}

#[test]
fn what_does_not_fit_is_an_error() {
    let wrong = Dataset { shape: [1, 2, 8], ..data(8) };
    let error = trainer(PredictionType::V, options()).step(&wrong).unwrap_err().to_string();
    assert!(error.contains("[1, 2, 8]") && error.contains("[1, 4, 4]"), "{error}");
    let diverging = TrainConfig { rate: 1e30, warm_up: 0, ..options() };
    let mut trainer = trainer(PredictionType::V, diverging);
    let error = (0..20).find_map(|_| trainer.step(&data(8)).err()).unwrap().to_string();
    assert!(error.contains("--rate"), "{error}");
}

/// The mean squared difference between the student's plain prediction and its teacher's guided one.
fn misses(student: &mut Trainer) -> f64 {
    let batch = student.batch(&data(24), 0).unwrap();
    let guided = student.guided(student.teacher.as_ref().unwrap(), &batch).unwrap();
    let parameters = tensors(&student.variables);
    let own = student.header.network.forward(&parameters, &batch.x, &batch.t, &batch.given).unwrap();
    f64::from((own - guided).unwrap().sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap())
}

#[test]
fn a_student_learns_its_teachers_guided_prediction() {
    let mut teacher = trainer(PredictionType::V, TrainConfig { steps: 300, rate: 5e-3, ..options() });
    for _ in 0..300 {
        teacher.step(&data(24)).unwrap();
    }
    let teacher = teacher.checkpoint(0.0).unwrap();
    let student = |guidance| {
        let train = TrainConfig { guidance, steps: 200, warm_up: 1, rate: 2e-3, ema: 0.9, ..options() };
        Trainer::student(&teacher, train, Device::Cpu).unwrap()
    };
    assert!(misses(&mut student(1.0)) < 1e-12, "without guidance it is its teacher to begin with");
    let mut student = student(3.0);
    let before = misses(&mut student);
    for _ in 0..200 {
        student.step(&data(24)).unwrap();
    }
    let after = misses(&mut student);
    assert!(before > 1e-4 && after < 0.3 * before, "{before} became {after}");
    assert!(trainer(PredictionType::Epsilon, options()).set_teacher(&teacher).is_err(), "another schedule");
}

/// Sequences of 8 steps of 2 numbers, which the two numbers that they are given under decide.
struct Waves(Vec<[f32; 2]>, Vec<f32>);

impl Waves {
    fn new(count: usize) -> Self {
        let given: Vec<[f32; 2]> = (0..count).map(|i| [(i % 5) as f32 / 2.5 - 1.0, (i % 3) as f32 - 1.0]).collect();
        let step = |i: usize, k: usize| given[i][k % 2] * (1.0 - (k / 2) as f32 / 8.0);
        let actions = (0..count).flat_map(|i| (0..16).map(move |k| (i, k))).map(|(i, k)| step(i, k)).collect();
        Waves(given, actions)
    }
}

impl Samples for Waves {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn sample_shape(&self) -> &[usize] {
        &[8, 2]
    }

    fn append(&self, i: usize, out: &mut Vec<f32>) {
        out.extend_from_slice(&self.1[i * 16..][..16]);
    }

    fn given(&self, i: usize) -> Condition<'_> {
        Condition::Numbers(&self.0[i])
    }
}

fn sequence_trainer(train: TrainConfig) -> Trainer {
    let network = NetworkConfig::Sequence(SequenceConfig {
        shape: [8, 2],
        conditions: 2,
        base: 8,
        multipliers: vec![1, 2],
        blocks: 1,
        kernel: 5,
        groups: 4,
        prefix: 0,
    });
    let scheduler = SchedulerConfig { prediction_type: PredictionType::V, ..SchedulerConfig::default() };
    let train = TrainConfig { flip: false, label_dropout: 0.0, ..train };
    Trainer::new(network, scheduler, train, Vec::new(), Device::Cpu).unwrap()
}

#[test]
fn sequences_are_learnt() {
    let mut trainer = sequence_trainer(TrainConfig { steps: 250, rate: 5e-3, ..options() });
    let data = Waves::new(30);
    let losses: Vec<f64> = (0..250).map(|_| trainer.step(&data).unwrap().loss).collect();
    let mean = |l: &[f64]| l.iter().sum::<f64>() / l.len() as f64;
    let (first, last) = (mean(&losses[..20]), mean(&losses[230..]));
    assert!(last < 0.6 * first, "the loss went from {first} to {last}");
}

#[test]
fn resuming_sequences_gives_the_same_bits() {
    let data = Waves::new(20);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    let normalization = Normalization::from_json(r#"{"sample": {"min": [0.1, -7], "max": [0.3, 2]}}"#).unwrap();
    let start = || sequence_trainer(options()).with_normalization(normalization.clone());
    let (mut straight, mut resumed) = (start(), start());
    for step in 0..5 {
        straight.step(&data).unwrap();
        if step == 2 {
            resumed.checkpoint(1.5).unwrap().save(&path).unwrap();
            let loaded = Checkpoint::load(&path, &Device::Cpu).unwrap();
            resumed = Trainer::from_checkpoint(loaded, Device::Cpu).unwrap();
        }
        resumed.step(&data).unwrap();
    }
    let (a, b) = (straight.checkpoint(0.0).unwrap(), resumed.checkpoint(0.0).unwrap());
    assert_eq!(a.header, b.header);
    for (a, b) in [(&a.model, &b.model), (&a.ema, &b.ema), (&a.adam_mean, &b.adam_mean)] {
        assert_eq!(bits(a), bits(b));
    }
    assert_eq!(bits(&a.adam_square), bits(&b.adam_square));
}

/// The gradient of the loss by every parameter of a network of sequences, along a random direction of each, against
/// differences of the loss.
#[test]
fn the_gradient_of_a_network_of_sequences_is_that_of_its_loss() {
    let data = Waves::new(20);
    let mut trainer = sequence_trainer(options());
    // away from where fresh parameters are zero
    for step in 0..20 {
        assert_eq!(trainer.header().step, step);
        trainer.step(&data).unwrap();
    }
    let batch = trainer.batch(&data, 99).unwrap();
    let network = trainer.header.network.clone();
    let loss = |parameters: &Tensors| {
        let output = network.forward(parameters, &batch.x, &batch.t, &batch.given).unwrap();
        (output - &batch.target).unwrap().sqr().unwrap().sum_all().unwrap()
    };
    let parameters = tensors(&trainer.variables);
    let gradients = loss(&parameters).backward().unwrap();
    let mut numbers = rng(5, Stream::Init, 0);
    for (name, variable) in &trainer.variables {
        let direction: Vec<f32> = (0..variable.elem_count()).map(|_| StandardNormal.sample(&mut numbers)).collect();
        let direction = Tensor::from_vec(direction, variable.shape(), &Device::Cpu).unwrap();
        let gradient = gradients.get(variable).unwrap_or_else(|| panic!("no gradient of {name}"));
        let slope = (gradient * &direction).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        let h = 2e-3;
        let moved = |by: f64| {
            let mut moved = parameters.clone();
            moved.insert(name.clone(), (&parameters[name] + (&direction * by).unwrap()).unwrap());
            loss(&moved).to_scalar::<f32>().unwrap()
        };
        let difference = (moved(h) - moved(-h)) / (2.0 * h as f32);
        let bound = 0.02 * slope.abs() + 0.05;
        assert!((slope - difference).abs() < bound, "{name}: slope {slope}, difference {difference}");
    }
}
