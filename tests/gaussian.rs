//! The program and the library on ONNX networks that are exact for Gaussian data (`tools/fixtures/gaussian.py`): what starts from
//! a picture, fills it, restores it or goes back to its noise on a rectified flow, and the samplers of score-based SDEs, against
//! closed forms and loops in f64.
#![cfg(feature = "cli")]

mod common;
#[path = "common/program.rs"]
mod program;

use common::{Folder, fixtures};
use edgegen::noise::Noise;
use edgegen::output::{encode_npy, read_npy};
use edgegen::{Encoder, Model, Request};
use program::{fails, succeeds};

const LEN: usize = 16;
const VARIANCE: f64 = 0.25;

fn mean(i: usize) -> f64 {
    f64::from((0.3 * (i as f64).cos()) as f32)
}

fn network(name: &str) -> String {
    fixtures().join("gaussian").join(format!("{name}.onnx")).to_str().unwrap().to_string()
}

fn write(folder: &Folder, name: &str, values: &[f64]) -> String {
    let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
    let path = folder.path(name);
    std::fs::write(&path, encode_npy(&[&values], &[1, 4, 4]).unwrap()).unwrap();
    path
}

fn read(path: &str) -> Vec<f64> {
    read_npy(path.as_ref()).unwrap().1.into_iter().map(f64::from).collect()
}

fn noise(seed: u64) -> Vec<f64> {
    let mut noise = Noise::new(seed, 0);
    (0..LEN).map(|_| f64::from(noise.sample())).collect()
}

/// A picture, in the network's units.
fn picture() -> Vec<f64> {
    (0..LEN).map(|i| f64::from((0.8 * (0.7 * i as f64).sin()) as f32)).collect()
}

/// A level of a rectified flow by its σ.
#[derive(Clone, Copy)]
struct Level {
    gamma: f64,
    sigma: f64,
}

fn level(sigma: f64) -> Level {
    Level { gamma: 1.0 - sigma, sigma }
}

fn spread(level: Level) -> f64 {
    (level.gamma.powi(2) * VARIANCE + level.sigma.powi(2)).sqrt()
}

/// Where the probability-flow ODE leads: it stretches every element's distance from its mean.
fn along_the_flow(x: &[f64], from: Level, to: Level) -> Vec<f64> {
    let stretch = spread(to) / spread(from);
    x.iter().enumerate().map(|(i, x)| to.gamma * mean(i) + stretch * (x - from.gamma * mean(i))).collect()
}

#[track_caller]
fn close(what: &str, a: &[f64], b: &[f64], bound: f64) {
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    println!("{what}: {worst:.1e}");
    assert!(worst < bound && a.len() == b.len(), "{what} is off by {worst:.1e}: {a:?} for {b:?}");
}

/// σ of the class's i-th of n steps.
fn class_sigma(i: usize, n: usize) -> f64 {
    1.0 - i as f64 * 0.999 / (n - 1) as f64
}

#[test]
fn a_run_from_a_picture_begins_where_its_strength_says() {
    let folder = Folder::new();
    let (init, out) = (write(&folder, "init.npy", &picture()), folder.path("out.npy"));
    let n = 200;
    for (strength, begins) in [("0.25", 150), ("0.5", 100), ("0.8", 40)] {
        let flow = network("flow");
        let n_text = n.to_string();
        succeeds(&[
            "-m",
            &flow,
            "--init",
            &init,
            "--strength",
            strength,
            "-s",
            "rk4",
            "-n",
            &n_text,
            "--seed",
            "7",
            &out,
        ]);
        let at = level(class_sigma(begins, n));
        let noisy: Vec<f64> = picture().iter().zip(noise(7)).map(|(x, z)| at.gamma * x + at.sigma * z).collect();
        close(&format!("strength {strength}"), &read(&out), &along_the_flow(&noisy, at, level(0.0)), 2e-5);
    }
    // by the library, a sample that has noise of a known size
    let model = Model::open(network("flow")).unwrap();
    let mut generator = model.generator().sampler("rk4").steps(300).build().unwrap();
    let noisy: Vec<f32> = picture().iter().map(|v| *v as f32).collect();
    let run = generator.run(&Request::new(0, 0).from_noisy(&noisy, 0.5)).unwrap();
    let shrink = (VARIANCE / (VARIANCE + 0.25)).sqrt();
    let expected: Vec<f64> = picture().iter().enumerate().map(|(i, y)| mean(i) + shrink * (y - mean(i))).collect();
    close("noisy", &run.sample.iter().map(|v| f64::from(*v)).collect::<Vec<_>>(), &expected, 2e-5);
}

#[test]
fn a_mask_keeps_what_it_does_not_fill() {
    let folder = Folder::new();
    let (init, out) = (write(&folder, "init.npy", &picture()), folder.path("out.npy"));
    let fills = |i: usize| !i.is_multiple_of(3);
    let mask: Vec<f64> = (0..LEN).map(|i| f64::from(u8::from(fills(i)))).collect();
    let mask = write(&folder, "mask.npy", &mask);
    succeeds(&["-m", &network("flow"), "--init", &init, "--mask", &mask, "-s", "rk4", "-n", "60", "--seed", "3", &out]);
    // what is filled does not depend on the rest: it is what the noise would have become
    let filled = along_the_flow(&noise(3), level(1.0), level(0.0));
    let expected: Vec<f64> = (0..LEN).map(|i| if fills(i) { filled[i] } else { picture()[i] }).collect();
    let found = read(&out);
    close("mask", &found, &expected, 1e-4);
    assert!((0..LEN).all(|i| fills(i) || found[i] == picture()[i]));
}

#[test]
fn pictures_go_back_to_their_noise_and_have_their_likelihood() {
    let folder = Folder::new();
    let other: Vec<f64> = (0..LEN).map(|i| f64::from((0.5 * (1.3 * i as f64).cos()) as f32)).collect();
    let (a, b) = (write(&folder, "a.npy", &picture()), write(&folder, "b.npy", &other));
    let (z, out, flow) = (folder.path("z.npy"), folder.path("out.npy"), network("flow"));
    // the steps are even in log-SNR from next to pure noise to training step 0, σ = 1/1000
    let (noisy, data) = (level(0.999), level(1e-3));
    let latent =
        |x: &[f64]| -> Vec<f64> { along_the_flow(&x.iter().map(|v| data.gamma * v).collect::<Vec<_>>(), data, noisy) };
    succeeds(&["encode", "-m", &flow, "-s", "rk4", "-n", "120", &a, &z]);
    close("encode", &read(&z), &latent(&picture()), 2e-5);
    succeeds(&["-m", &flow, "--noise", &z, "-s", "rk4", "-n", "120", "--spacing", "log-snr", &out]);
    close("and back", &read(&out), &picture(), 2e-5);
    // through times that are given
    let times: Vec<String> = (0..200).map(|i| format!("{}", 999.0 * (0.97f64).powi(i))).collect();
    succeeds(&["encode", "-m", &flow, "-s", "rk4", "--timesteps", &times.join(","), &a, &z]);
    let last = level(0.999 * 0.97f64.powi(199));
    let scaled: Vec<f64> = picture().iter().map(|v| last.gamma * v).collect();
    close("encode through times", &read(&z), &along_the_flow(&scaled, last, noisy), 5e-5);

    succeeds(&["interpolate", "-m", &flow, "-s", "rk4", "-n", "120", "--frames", "3", &a, &b, &out]);
    let (za, zb) = (latent(&picture()), latent(&other));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let angle = (dot(&za, &zb) / (dot(&za, &za) * dot(&zb, &zb)).sqrt()).acos();
    let share = (0.5 * angle).sin() / angle.sin();
    let middle: Vec<f64> = za.iter().zip(&zb).map(|(a, b)| share * (a + b)).collect();
    let decoded: Vec<f64> = along_the_flow(&middle, noisy, data).iter().map(|v| v / data.gamma).collect();
    close("interpolate", &read(&out), &[picture(), decoded, other].concat(), 5e-5);

    let report = succeeds(&["likelihood", "-m", &flow, "--rtol", "1e-5", "--atol", "1e-5", "--report", "json", &a]);
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    let of = |(i, x): (usize, &f64)| {
        let square = (x - mean(i)).powi(2) / VARIANCE;
        -0.5 * (square + (2.0 * std::f64::consts::PI * VARIANCE).ln())
    };
    let exact: f64 = picture().iter().enumerate().map(of).sum();
    let found = report["log_likelihood"].as_f64().unwrap();
    println!("likelihood: {found:.4} for {exact:.4}");
    // along random signs the trace of a multiple of the identity is exact
    assert!((found - exact).abs() < 2e-3 * LEN as f64, "{found} {exact}");

    // the encoder of the library, by Runge and Kutta's method with chosen steps, to pure noise itself
    let model = Model::open(&flow).unwrap();
    let solver = edgegen::solver::Solver::from_name("rk45").unwrap().with_tolerance(Some(1e-6), Some(1e-6)).unwrap();
    let mut encoder: Encoder = model.generator().solver(solver).build_encoder().unwrap();
    let sample: Vec<f32> = picture().iter().map(|v| *v as f32).collect();
    let found = encoder.encode(&sample, &edgegen::Condition::default()).unwrap();
    let scaled: Vec<f64> = picture().iter().map(|v| data.gamma * v).collect();
    let expected = along_the_flow(&scaled, data, level(1.0));
    close("rk45", &found.iter().map(|v| f64::from(*v)).collect::<Vec<_>>(), &expected, 5e-5);
}

#[test]
fn spoilt_pictures_are_restored_on_a_flow() {
    let folder = Folder::new();
    let levels: Vec<u8> = (0..LEN).map(|i| (37 * i % 256) as u8).collect();
    let measured: Vec<f64> = levels.iter().map(|l| f64::from(*l) / 255.0 * 2.0 - 1.0).collect();
    let save = |name: &str, levels: &[u8]| {
        let path = folder.path(name);
        let shape = [1, 4, 4];
        let values: Vec<f32> = levels.iter().map(|l| f32::from(*l) / 255.0 * 2.0 - 1.0).collect();
        let picture = edgegen::output::Picture::new(&shape, (-1.0, 1.0)).unwrap().grid(&[&values], 1);
        let png = edgegen::output::encode_picture(&picture, edgegen::output::Format::Png).unwrap();
        std::fs::write(&path, png).unwrap();
        path
    };
    let (input, out, flow) = (save("in.png", &levels), folder.path("out.npy"), network("flow"));
    // 51 levels of 255 are 0.4 of the range from -1 to 1
    succeeds(&["restore", "-m", &flow, "--task", "denoise", "--sigma", "51", "-s", "rk4", "-n", "300", &input, &out]);
    let sigma = 0.4f64;
    let at = level(sigma / (1.0 + sigma));
    let scaled: Vec<f64> = measured.iter().map(|y| at.gamma * y).collect();
    close("denoise", &read(&out), &along_the_flow(&scaled, at, level(0.0)), 5e-5);
    // what is black in the mask is measured, and kept; the rest is a sample, since elements are independent
    let fills = |i: usize| i % 2 == 1;
    let mask: Vec<u8> = (0..LEN).map(|i| if fills(i) { 255 } else { 0 }).collect();
    let mask = save("mask.png", &mask);
    let all =
        ["restore", "-m", &flow, "--task", "inpaint", "--mask", &mask, "--resample", "1", "-s", "rk4", "-n", "300"];
    succeeds(&[&all[..], &["--seed", "5", &input, &out]].concat());
    // whose steps begin next to pure noise
    let filled = along_the_flow(&noise(5), level(0.999), level(0.0));
    let expected: Vec<f64> = (0..LEN).map(|i| if fills(i) { filled[i] } else { measured[i] }).collect();
    close("inpaint", &read(&out), &expected, 5e-5);
    // boxes of 2 by 2 have the means that were measured
    let small: Vec<u8> = (0..LEN).map(|i| (29 * i % 256) as u8).collect();
    let small = save("small.png", &small);
    succeeds(&["restore", "-m", &flow, "--task", "super-resolution", "--overlap", "2", "-n", "12", &small, &out]);
    let large = read(&out);
    for i in 0..LEN {
        let corner = i / 4 * 16 + i % 4 * 2;
        let found = [0, 1, 8, 9].iter().map(|place| large[corner + place]).sum::<f64>() / 4.0;
        assert!((found - (f64::from((29 * i % 256) as u8) / 255.0 * 2.0 - 1.0)).abs() < 1e-5, "{i}: {found}");
    }
}

/// Euler's method through the σ that the class shifts by μ, in f64.
fn euler_by_hand(mu: f64, steps: usize, z: &[f64]) -> Vec<f64> {
    let shifted = |sigma: f64| mu.exp() / (mu.exp() + 1.0 / sigma - 1.0);
    let sigmas: Vec<f64> = (0..steps).map(|i| shifted(class_sigma(i, steps))).chain([0.0]).collect();
    through(&sigmas, z)
}

/// Euler's method through these σ, in f64.
fn through(sigmas: &[f64], z: &[f64]) -> Vec<f64> {
    let mut x = z.to_vec();
    for pair in sigmas.windows(2) {
        let at = level(pair[0]);
        for (i, x) in x.iter_mut().enumerate() {
            let q = (*x - at.gamma * mean(i)) / spread(at).powi(2);
            let velocity = at.sigma * q - (mean(i) + at.gamma * VARIANCE * q);
            *x += (pair[1] - pair[0]) * velocity;
        }
    }
    x
}

#[test]
fn mu_and_times_place_the_steps_of_a_flow() {
    let folder = Folder::new();
    let (out, flow) = (folder.path("out.npy"), network("flow"));
    let config = folder.path("scheduler_config.json");
    let class = "FlowMatchEulerDiscreteScheduler";
    std::fs::write(&config, format!(r#"{{"_class_name": "{class}", "use_dynamic_shifting": true}}"#)).unwrap();
    let with = |more: &[&str]| {
        succeeds(&[&["-m", &flow, "--scheduler-config", &config, "--seed", "2", "-n", "7"], more, &[&out]].concat());
        read(&out)
    };
    close("mu 0.8", &with(&["--mu", "0.8"]), &euler_by_hand(0.8, 7, &noise(2)), 1e-6);
    close("mu -0.5", &with(&["--mu", "-0.5"]), &euler_by_hand(-0.5, 7, &noise(2)), 1e-6);
    // of 2 by 2 patches there are four
    let slope = (1.15 - 0.5) / (4096.0 - 256.0);
    close("mu by size", &with(&[]), &euler_by_hand(4.0 * slope + 0.5 - slope * 256.0, 7, &noise(2)), 1e-6);
    let at_times = |times: &str| succeeds(&["-m", &flow, "--seed", "2", "--timesteps", times, &out]);
    at_times("1000,640,333.5,120");
    close("times", &read(&out), &through(&[1.0, 0.64, 0.3335, 0.12, 0.0], &noise(2)), 1e-6);

    let refused = |more: &[&str], words: &str| {
        fails(&[&["-m", &flow, "--scheduler-config", &config], more, &[&out]].concat(), words);
    };
    refused(&["--mu", "200"], "mu must be a number from -100 to 100, not 200");
    refused(&["--mu", "NaN"], "mu must be a number from -100 to 100, not NaN");
    refused(&["--mu", "0.5", "--spacing", "trailing"], "mu shifts the steps of the scheduler's class");
    refused(&["--mu", "0.5", "--timesteps", "1000,500"], "mu shifts the steps of the scheduler's class");
    refused(&["--mu", "0.5", "-s", "rk45"], "has none for mu to shift");
    fails(
        &["-m", &flow, "--mu", "0.5", &out],
        "mu is for a flow whose scheduler configuration has use_dynamic_shifting",
    );
    for (times, words) in [
        ("500,1000", "the noise must fall"),
        ("500,500", "the noise must fall"),
        ("1001", "the network's times are from 0 to 1000: 1001 is not one"),
        ("-1", "times are from 0 to 1000"),
        ("NaN", "times are from 0 to 1000"),
    ] {
        fails(&["-m", &flow, &format!("--timesteps={times}"), &out], words);
    }
    fails(&["-m", &flow, "--timesteps", "900,500", "-n", "3", &out], "2 times are no run of 3 steps: give as many");
    fails(&["-m", &network("score"), "--timesteps", "9,5", &out], "this scheduler class places its times itself");
}

#[test]
fn the_predictor_and_corrector_run_where_variance_explodes() {
    let folder = Folder::new();
    let (out, model) = (folder.path("out.npy"), network("score"));
    let (n, max, min, snr, end) = (30, 50.0f64, 0.01f64, 0.15f64, 1e-5);
    succeeds(&["-m", &model, "-n", "30", "--seed", "4", &out]);
    let mut stream = Noise::new(4, 0);
    let mut draw = || -> Vec<f64> { (0..LEN).map(|_| f64::from(stream.sample())).collect() };
    let mut y: Vec<f64> = draw().iter().map(|z| max * z).collect();
    let at = |time: f64| min * (max / min).powf(time);
    let norm = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
    for i in 0..n {
        let sigma = at(1.0 - i as f64 * (1.0 - end) / (n - 1) as f64);
        let score = |y: &[f64]| -> Vec<f64> {
            y.iter().enumerate().map(|(k, y)| (mean(k) - y) / (VARIANCE + sigma * sigma)).collect()
        };
        let (grad, z) = (score(&y), draw());
        let step = 2.0 * (snr * norm(&z) / norm(&grad)).powi(2);
        (0..LEN).for_each(|k| y[k] += step * grad[k] + (2.0 * step).sqrt() * z[k]);
        let discrete = |i: usize| at(1.0 - i as f64 / (n - 1) as f64);
        let next = if i + 1 < n { discrete(i + 1) } else { 0.0 };
        let variance = discrete(i).powi(2) - next.powi(2);
        let (grad, z) = (score(&y), draw());
        let noise = if i + 1 < n { variance.sqrt() } else { 0.0 };
        (0..LEN).for_each(|k| y[k] += variance * grad[k] + noise * z[k]);
    }
    close("predictor and corrector", &read(&out), &y, 1e-5);
    // other samplers run on the same network: the ODE's way
    succeeds(&["-m", &model, "-n", "60", "-s", "rk4", "--seed", "4", &out]);
    let shrink = (VARIANCE / (VARIANCE + max * max)).sqrt();
    let expected: Vec<f64> = noise(4).iter().enumerate().map(|(k, z)| mean(k) + shrink * (max * z - mean(k))).collect();
    close("rk4", &read(&out), &expected, 1e-3);
    fails(&["-m", &model, "-n", "1", &out], "the number of steps of this class must be from 2 to 100000, not 1");
}

#[test]
fn the_reverse_sde_runs_where_variance_is_preserved() {
    let folder = Folder::new();
    let (out, model) = (folder.path("out.npy"), network("sde"));
    let n = 40;
    succeeds(&["-m", &model, "-n", "40", "--seed", "6", &out]);
    let mut stream = Noise::new(6, 0);
    let mut draw = || -> Vec<f64> { (0..LEN).map(|_| f64::from(stream.sample())).collect() };
    let mut x = draw();
    for i in 0..n {
        let t = 1.0 - i as f64 * (1.0 - 1e-3) / (n - 1) as f64;
        let gamma = (-0.25 * t * t * 19.9 - 0.05 * t).exp();
        let (sigma, b) = ((1.0 - gamma * gamma).sqrt(), (0.1 + t * 19.9) / n as f64);
        let z = if i + 1 < n { draw() } else { vec![0.0; LEN] };
        for k in 0..LEN {
            let eps = sigma * (x[k] - gamma * mean(k)) / (gamma * gamma * VARIANCE + sigma * sigma);
            x[k] += b * (0.5 * x[k] - eps / sigma) + b.sqrt() * z[k];
        }
    }
    close("reverse SDE", &read(&out), &x, 1e-5);
    succeeds(&["-m", &model, "-n", "60", "-s", "rk4", "--spacing", "log-snr", "--seed", "6", &out]);
}
