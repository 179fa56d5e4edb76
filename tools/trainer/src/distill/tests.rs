use super::*;
use crate::checkpoint::{Checkpoint, Header};
use crate::data::{Condition, Samples};
use crate::network::SequenceConfig;
use crate::noise_path::{TimeSampling, flow_config};
use crate::teacher::Teacher;
use crate::train::{TrainConfig, Trainer, Weighting};
use edgegen::schedule::Level;
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64;

/// Sequences of four pairs, each one of two ways round what is in between, under one number that says nothing.
struct Ways;

impl Samples for Ways {
    fn count(&self) -> usize {
        64
    }

    fn sample_shape(&self) -> &[usize] {
        &[4, 2]
    }

    fn append(&self, i: usize, out: &mut Vec<f32>) {
        let side = if i.is_multiple_of(2) { 0.8 } else { -0.8 };
        out.extend((0..4).flat_map(|k| [side, 0.5 - k as f32 / 3.0]));
    }

    fn given(&self, _: usize) -> Condition<'_> {
        Condition::Numbers(&[1.0])
    }
}

fn options(steps: u64, ema: f64) -> TrainConfig {
    TrainConfig {
        steps,
        batch: 32,
        rate: 4e-3,
        warm_up: 10,
        weight_decay: 0.0,
        clip: 1.0,
        ema,
        label_dropout: 0.0,
        flip: false,
        weighting: Weighting::Simple,
        time_sampling: TimeSampling::Uniform,
        seed: 5,
        guidance: 1.0,
    }
}

fn v() -> SchedulerConfig {
    let beta_schedule = edgegen::config::BetaSchedule::SquaredCosine;
    SchedulerConfig {
        num_train_timesteps: 100,
        beta_schedule,
        prediction_type: PredictionType::V,
        ..SchedulerConfig::default()
    }
}

fn trained(scheduler: SchedulerConfig, steps: u64) -> Teacher {
    let network = NetworkConfig::Sequence(SequenceConfig {
        shape: [4, 2],
        conditions: 1,
        base: 8,
        multipliers: vec![1, 2],
        blocks: 1,
        kernel: 3,
        groups: 4,
        prefix: 0,
    });
    let mut trainer = Trainer::new(network, scheduler, options(steps.max(1), 0.99), vec![], Device::Cpu).unwrap();
    (0..steps).for_each(|_| assert!(trainer.step(&Ways).unwrap().loss.is_finite()));
    let Checkpoint { header, ema, .. } = trainer.checkpoint(0.0).unwrap();
    Teacher { header, weights: ema }
}

fn copy(teacher: &Teacher) -> Teacher {
    Teacher { header: teacher.header.clone(), weights: teacher.weights.clone() }
}

/// Where runs of these calls lead from `count` x_T; deterministic DDIM, which in one call is the consistency function.
fn ends(header: &Header, weights: &Tensors, calls: usize, count: usize) -> Vec<f32> {
    let schedule = Schedule::from_config(&header.scheduler).unwrap();
    let last = last_time(&schedule);
    let mut rng = Pcg64::new(11, 0);
    let noise: Vec<f32> = (0..count * 8).map(|_| StandardNormal.sample(&mut rng)).collect();
    let mut x = Tensor::from_vec(noise, (count, 4, 2), &Device::Cpu).unwrap();
    let given = Given::Numbers(Tensor::ones((count, 1), candle_core::DType::F32, &Device::Cpu).unwrap());
    let student =
        Student { network: &header.network, scheduler: &header.scheduler, parameters: weights, average: weights };
    let level =
        |i: usize| if i == calls { Level::CLEAN } else { schedule.level(last * (1.0 - i as f64 / calls as f64)) };
    for (from, to) in (0..calls).map(|i| (level(i), level(i + 1))) {
        let at = batch::At::of(&vec![from; count], 2, &Device::Cpu).unwrap();
        let x0 = student.estimate(weights, &x, &at, &given).unwrap().detach();
        let ratio = to.sigma / from.sigma;
        x = ((x0 * (to.gamma - from.gamma * ratio)).unwrap() + (x * ratio).unwrap()).unwrap();
    }
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    (a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / a.len() as f64).sqrt()
}

/// One call of the student leads much nearer than one of its teacher to where many of the teacher's lead.
#[test]
fn one_call_learns_where_many_of_the_teachers_lead() {
    for scheduler in [v(), flow_config(100)] {
        let teacher = trained(scheduler, 400);
        let many = ends(&teacher.header, &teacher.weights, 60, 64);
        let one_of_teacher = distance(&many, &ends(&teacher.header, &teacher.weights, 1, 64));
        let config = DistillConfig { calls: 1, adversarial: 0.0 };
        let mut student = Trainer::distilled(copy(&teacher), options(400, 0.98), config, Device::Cpu).unwrap();
        (0..400).for_each(|_| assert!(student.step(&Ways).unwrap().loss.is_finite()));
        let one = distance(&many, &ends(student.header(), student.ema(), 1, 64));
        let path = teacher.header.scheduler.prediction_type;
        assert!(one < 0.5 * one_of_teacher, "{path:?}: {one} is not half of the teacher's {one_of_teacher}");
    }
}

fn bits(tensors: &Tensors) -> Vec<u32> {
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    tensors.values().flat_map(values).map(f32::to_bits).collect()
}

#[test]
fn a_student_is_resumed_bit_for_bit_with_its_teacher_and_heads() {
    let teacher = trained(v(), 5);
    let before = bits(&teacher.weights);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    let config = DistillConfig { calls: 4, adversarial: 0.1 };
    let student = || Trainer::distilled(copy(&teacher), options(20, 0.9), config, Device::Cpu).unwrap();
    let (mut straight, mut resumed) = (student(), student());
    let fresh = straight.checkpoint(0.0).unwrap().distillation;
    let fresh = (bits(&fresh.critic), bits(&fresh.critic_mean));
    for step in 0..5 {
        let report = straight.step(&Ways).unwrap();
        if step == 2 {
            resumed.checkpoint(0.0).unwrap().save(&path).unwrap();
            resumed = Trainer::from_checkpoint(Checkpoint::load(&path, &Device::Cpu).unwrap(), Device::Cpu).unwrap();
        }
        assert_eq!(report.loss.to_bits(), resumed.step(&Ways).unwrap().loss.to_bits(), "step {step}");
    }
    let (a, b) = (straight.checkpoint(0.0).unwrap(), resumed.checkpoint(0.0).unwrap());
    assert_eq!(a.header, b.header);
    let all = |c: &Checkpoint| {
        let d = &c.distillation;
        [&c.model, &c.ema, &c.adam_square, &d.critic, &d.critic_mean, &d.critic_square].map(bits)
    };
    assert_eq!(all(&a), all(&b));
    // the heads learn, the teacher does not
    assert_ne!((bits(&a.distillation.critic), bits(&a.distillation.critic_mean)), fresh);
    assert_eq!(bits(&a.distillation.teacher), before);
    assert_ne!(bits(&a.model), before);
}

/// A fresh network says 0, so that the teacher's estimate of x_0 is γ x, clipped, and DDIM has a closed form. Its average
/// says of what has no noise what it is given.
#[test]
fn the_target_is_two_ddim_steps_of_the_teacher() {
    let teacher = trained(v(), 0);
    let Header { network, scheduler, .. } = &teacher.header;
    let schedule = Schedule::from_config(scheduler).unwrap();
    let levels = [schedule.level(90.0), schedule.level(61.5), Level::CLEAN];
    let at = |level: Level| batch::At::of(&[level; 2], 2, &Device::Cpu).unwrap();
    let values: Vec<f32> = (0..16).map(|i| (i as f32 - 8.0) / 3.0).collect();
    let tensor = |values: &[f32]| Tensor::from_vec(values.to_vec(), (2, 4, 2), &Device::Cpu).unwrap();
    let given = || Given::Numbers(Tensor::ones((2, 1), candle_core::DType::F32, &Device::Cpu).unwrap());
    let [from, between, to] = levels.map(at);
    let batch = Batch {
        x: tensor(&values),
        from,
        between,
        to,
        given: given(),
        judged: at(levels[0]),
        noise: tensor(&values),
        real: tensor(&values),
        real_given: given(),
    };
    let config = DistillConfig { calls: 1, adversarial: 0.0 };
    let state = State { teacher: teacher.weights.clone(), ..Default::default() };
    let student = Student { network, scheduler, parameters: &teacher.weights, average: &teacher.weights };
    let target = Distillation::new(config, state).unwrap().target(&student, &batch).unwrap();
    for (x, got) in values.iter().zip(target.flatten_all().unwrap().to_vec1::<f32>().unwrap()) {
        let mut x = f64::from(*x);
        for (a, b) in [(levels[0], levels[1]), (levels[1], levels[2])] {
            let x0 = (a.gamma * x).clamp(-1.0, 1.0);
            x = b.gamma * x0 + b.sigma * (x - a.gamma * x0) / a.sigma;
        }
        assert!((f64::from(got) - x).abs() < 1e-6, "{got} should be {x}");
    }
}

#[test]
fn heads_learn_to_tell_what_differs() {
    let teacher = trained(v(), 50);
    let network = &teacher.header.network;
    let heads = CriticConfig::of(network);
    let start = heads.init(&mut Pcg64::new(1, 1), &Device::Cpu).unwrap();
    let critic: BTreeMap<String, Var> = start.iter().map(|(n, t)| (n.clone(), Var::from_tensor(t).unwrap())).collect();
    let zeros = || start.iter().map(|(n, t)| (n.clone(), t.zeros_like().unwrap())).collect::<Tensors>();
    let mut adam = AdamW { mean: zeros(), square: zeros(), weight_decay: 0.0, clip: 1.0, betas: BETAS[0] };
    let given = Given::Numbers(Tensor::ones((16, 1), candle_core::DType::F32, &Device::Cpu).unwrap());
    let time = Tensor::full(20f32, 16, &Device::Cpu).unwrap();
    let features = |mean: f32, seed: u64| {
        let mut rng = Pcg64::new(seed.into(), 0);
        let values: Vec<f32> = (0..128).map(|_| mean + 0.3 * rng.random_range(-1.0f32..1.0)).collect();
        let x = Tensor::from_vec(values, (16, 4, 2), &Device::Cpu).unwrap();
        network.encode(&teacher.weights, &x, &time, &given).unwrap()
    };
    use rand::RngExt;
    for step in 1..=60 {
        let parameters = tensors(&critic);
        let [real, made] = [(0.4, 2 * step), (-0.4, 2 * step + 1)]
            .map(|(mean, seed)| heads.forward(&parameters, &features(mean, seed)).unwrap());
        let hinge = ((made + 1.0).unwrap().relu().unwrap().mean_all().unwrap()
            + (1.0 - real).unwrap().relu().unwrap().mean_all().unwrap())
        .unwrap();
        adam.step(&critic, &hinge.backward().unwrap(), step, CRITIC_RATE).unwrap();
    }
    let said = |mean: f32| {
        let out = heads.forward(&tensors(&critic), &features(mean, 999)).unwrap();
        out.mean_all().unwrap().to_scalar::<f32>().unwrap()
    };
    assert!(said(0.4) > 0.5 && said(-0.4) < -0.5, "{} and {}", said(0.4), said(-0.4));
}

#[test]
fn runs_begin_at_pure_noise_and_fall() {
    for config in [v(), flow_config(100)] {
        let schedule = Schedule::from_config(&config).unwrap();
        let student = scheduler(&config).unwrap();
        for (steps, run) in &student.tuned_timesteps {
            assert_eq!((run.len(), run[0]), (*steps, last_time(&schedule)), "{run:?}");
            assert!(run.windows(2).all(|pair| pair[1] < pair[0]) && run.iter().all(|t| *t > 0.0), "{run:?}");
        }
        assert!(Schedule::from_config(&student).is_ok());
    }
}

#[test]
fn what_it_is_distilled_for_is_checked() {
    let error = |calls, adversarial| DistillConfig { calls, adversarial }.check().unwrap_err().to_string();
    assert_eq!(error(3, 0.0), "--calls must be 1, 2 or 4, not 3");
    assert!(error(1, -1.0).contains("--adversarial") && error(1, f64::NAN).contains("--adversarial"));
}
