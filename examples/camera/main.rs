//! Restoring pictures that a camera spoilt, beside methods that know nothing of what they show.
//!
//! ```text
//! cargo run --release --example camera -- t10k-images-idx3-ubyte.gz                      the table of docs/restoration.md
//! cargo run --release --example camera -- t10k-images-idx3-ubyte.gz --draw pictures.png  its picture
//! ```
//! The file is Fashion-MNIST's test set, in IDX, packed or not. `--count N` takes its first N pictures [default: 200].

mod baseline;
mod metrics;

use edgegen::constraint::Degradation;
use edgegen::noise::Noise;
use edgegen::output::{Format, Image, Picture, encode_picture, write_file};
use edgegen::restore::{Damage, Restorer};
use edgegen::solver::{Resample, Solver};
use edgegen::{Condition, Model};
use image::imageops::FilterType;
use std::error::Error;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

/// The side of a picture.
pub const SIDE: usize = 28;
const LEN: usize = SIDE * SIDE;

type Pixels = Vec<f32>;

/// What is done to a picture.
#[derive(Clone, Copy, PartialEq)]
enum Task {
    /// The middle quarter is lost.
    Square,
    /// Every other pixel is lost, at random.
    Half,
    /// Noise of this standard deviation, of a range from 0 to 1.
    Noise(f32),
    /// The same, stored in 8 bits: what is below black or above white is lost.
    Stored(f32),
    /// Means of squares of so many pixels' side.
    Smaller(usize),
}

impl Task {
    const ALL: [Task; 8] = [
        Task::Square,
        Task::Half,
        Task::Smaller(2),
        Task::Smaller(4),
        Task::Noise(0.1),
        Task::Noise(0.2),
        Task::Stored(0.1),
        Task::Stored(0.2),
    ];

    fn name(self) -> String {
        match self {
            Task::Square => "square of 14×14 lost".into(),
            Task::Half => "half of the pixels lost".into(),
            Task::Noise(s) => format!("noise, σ = {s}"),
            Task::Stored(s) => format!("noise, σ = {s}, in 8 bits"),
            Task::Smaller(f) => format!("{f}× smaller"),
        }
    }

    fn spoil(self, truth: &[f32], index: u64) -> Spoilt {
        let mut noise = Noise::new(77, index);
        let of = |known: Option<Vec<bool>>, degradation: Degradation| {
            let measured = degradation.apply(truth);
            Spoilt { measured, known, damage: Damage::Linear { degradation, noise: 0.0 } }
        };
        let mask = |known: Vec<bool>| {
            let degradation = Degradation::mask(&SHAPE, &known).expect("of the picture's size");
            of(Some(known), degradation)
        };
        let middle = |i: usize| (7..21).contains(&i);
        match self {
            Task::Square => mask((0..LEN).map(|i| !(middle(i / SIDE) && middle(i % SIDE))).collect()),
            Task::Half => mask((0..LEN).map(|_| noise.uniform() < 0.5).collect()),
            Task::Smaller(factor) => of(None, Degradation::box_average(&SHAPE, factor).expect("it divides 28")),
            Task::Noise(s) | Task::Stored(s) => {
                let noisy = truth.iter().map(|v| v + s * noise.sample());
                let stored =
                    |v: f32| if self == Task::Noise(s) { v } else { (v * 255.0).round().clamp(0.0, 255.0) / 255.0 };
                // the model's range is twice as wide
                Spoilt { measured: noisy.map(stored).collect(), known: None, damage: Damage::Noise(2.0 * s) }
            }
        }
    }
}

const SHAPE: [usize; 3] = [1, SIDE, SIDE];

/// What is left of a picture.
struct Spoilt {
    /// From 0 to 1.
    measured: Pixels,
    /// Which pixels are.
    known: Option<Vec<bool>>,
    damage: Damage,
}

impl Spoilt {
    /// As a picture.
    fn shown(&self) -> Pixels {
        match &self.known {
            Some(known) => self.measured.iter().zip(known).map(|(v, known)| if *known { *v } else { 0.5 }).collect(),
            None if self.measured.len() < LEN => baseline::enlarge(&self.measured, FilterType::Nearest),
            None => self.measured.clone(),
        }
    }

    /// What methods without a model make of it; the last is the best.
    fn baselines(&self) -> Vec<(String, Pixels)> {
        let y = &self.measured;
        match (&self.known, &self.damage) {
            (Some(known), _) => vec![
                ("nearest pixel".into(), baseline::nearest(y, known)),
                ("harmonic".into(), baseline::harmonic(y, known)),
            ],
            (None, Damage::Noise(sigma)) => {
                // the best of 0.4, 0.5, … 1 for this noise
                let spread = if *sigma < 0.3 { 0.5 } else { 0.6 };
                vec![
                    ("as it is".into(), y.clone()),
                    ("median of 3×3".into(), baseline::median(y)),
                    (format!("Gaussian of {spread} pixels"), baseline::gaussian(y, spread)),
                ]
            }
            _ => vec![
                ("bilinear".into(), baseline::enlarge(y, FilterType::Triangle)),
                ("bicubic".into(), baseline::enlarge(y, FilterType::CatmullRom)),
            ],
        }
    }
}

/// How edgegen is run.
struct Way {
    name: &'static str,
    eta: f64,
    steps: usize,
    resample: usize,
    average: usize,
}

const fn way(name: &'static str, eta: f64, steps: usize, resample: usize, average: usize) -> Way {
    Way { name, eta, steps, resample, average }
}

/// The last is the default, but for the mean of several.
const WAYS: [Way; 7] = [
    way("DDIM, 20 steps", 0.0, 20, 1, 1),
    way("DDIM η = 1, 10 steps", 1.0, 10, 1, 1),
    way("DDIM η = 1, 40 steps", 1.0, 40, 1, 1),
    way("5 steps 4 times", 1.0, 5, 4, 1),
    way("10 steps 4 times, mean of 4", 1.0, 10, 4, 4),
    way("10 steps 4 times, mean of 16", 1.0, 10, 4, 16),
    way("**10 steps 4 times**", 1.0, 10, 4, 1),
];
const WAYS_OF_NOISE: [Way; 4] = [
    way("1 step", 0.0, 1, 1, 1),
    way("20 steps", 0.0, 20, 1, 1),
    way("20 steps, η = 1", 1.0, 20, 1, 1),
    way("**5 steps**", 0.0, 5, 1, 1),
];

fn ways(damage: &Damage) -> &'static [Way] {
    if matches!(damage, Damage::Noise(_)) { &WAYS_OF_NOISE } else { &WAYS }
}

impl Way {
    /// The picture, the network calls and the milliseconds.
    fn restore(&self, model: &Model, spoilt: &Spoilt, seed: u64) -> Result<(Pixels, usize, f64), edgegen::Error> {
        let mut settings = Restorer::settings(model, &spoilt.damage);
        settings.steps = self.steps;
        settings.solver = Solver::Ddim { eta: self.eta };
        settings.resample = Resample { times: self.resample, jump: 1 };
        let mut restorer = Restorer::new(model, &settings, spoilt.damage.clone(), self.average)?;
        let measured: Pixels = spoilt.measured.iter().map(|v| 2.0 * v - 1.0).collect();
        let start = Instant::now();
        let (x, calls) = restorer.restore(&measured, seed, &Condition::default())?;
        let ms = start.elapsed().as_secs_f64() * 1e3;
        Ok((x.iter().map(|v| (v + 1.0) / 2.0).collect(), calls, ms))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "give the IDX file of the pictures, and --count N or --draw FILE.png";
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (file, count, draw) = match words[..] {
        [file] => (file, 200, None),
        [file, "--count", n] => (file, n.parse().map_err(|_| usage)?, None),
        [file, "--draw", out] => (file, 12, Some(out)),
        _ => return Err(usage.into()),
    };
    let pictures = read_pictures(Path::new(file), count)?;
    let model = Model::embedded()?;
    match draw {
        Some(out) => draw_rows(&model, &pictures, Path::new(out)),
        None => Ok(Task::ALL.iter().try_for_each(|task| print_table(&model, *task, &pictures))?),
    }
}

/// The first `count` pictures of an IDX file, with values from 0 to 1.
fn read_pictures(path: &Path, count: usize) -> Result<Vec<Pixels>, Box<dyn Error>> {
    let mut bytes = std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let packed = std::mem::take(&mut bytes);
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes)?;
    }
    let side = [0, 0, 0, SIDE as u8];
    if bytes.len() < 16 + LEN * count || bytes[..4] != [0, 0, 8, 3] || bytes[8..12] != side || bytes[12..16] != side {
        return Err(format!("{} is no IDX file of {count} pictures of 28×28 bytes", path.display()).into());
    }
    let picture = |p: &[u8]| p.iter().map(|v| f32::from(*v) / 255.0).collect();
    Ok(bytes[16..].chunks_exact(LEN).take(count).map(picture).collect())
}

/// A method's figures, summed over pictures.
#[derive(Clone, Default)]
struct Figures {
    name: String,
    psnr: Vec<f64>,
    ssim: f64,
    calls: usize,
    ms: Vec<f64>,
}

impl Figures {
    fn add(&mut self, name: &str, truth: &[f32], x: &[f32]) {
        let x: Pixels = x.iter().map(|v| v.clamp(0.0, 1.0)).collect();
        self.name = name.into();
        self.psnr.push(metrics::psnr(truth, &x));
        self.ssim += metrics::ssim(truth, &x, SIDE);
    }
}

fn print_table(model: &Model, task: Task, pictures: &[Pixels]) -> Result<(), edgegen::Error> {
    let mut table: Vec<Figures> = vec![Figures::default(); 16];
    for (i, truth) in pictures.iter().enumerate() {
        let spoilt = task.spoil(truth, i as u64);
        let baselines = spoilt.baselines();
        baselines.iter().zip(&mut table).for_each(|((name, x), row)| row.add(name, truth, x));
        for (way, row) in ways(&spoilt.damage).iter().zip(&mut table[baselines.len()..]) {
            let (x, calls, ms) = way.restore(model, &spoilt, i as u64)?;
            row.add(way.name, truth, &x);
            row.calls = calls;
            row.ms.push(ms);
        }
    }
    println!("| {} | PSNR, dB | SSIM | calls | ms |\n|---|---|---|---|---|", task.name());
    let n = pictures.len() as f64;
    for Figures { name, psnr, ssim, calls, mut ms } in table.into_iter().filter(|row| !row.psnr.is_empty()) {
        ms.sort_by(f64::total_cmp);
        let cost = ms.get(ms.len() / 2).map_or(" | ".into(), |ms| format!("{calls} | {ms:.1}"));
        println!("| {name} | {:.2} | {:.3} | {cost} |", psnr.iter().sum::<f64>() / n, ssim / n);
    }
    println!();
    Ok(())
}

/// For each task four rows: the pictures, what is left of them, the best without a model, and the default.
fn draw_rows(model: &Model, pictures: &[Pixels], out: &Path) -> Result<(), Box<dyn Error>> {
    let mut rows: Vec<Pixels> = Vec::new();
    for task in [Task::Square, Task::Half, Task::Smaller(2), Task::Noise(0.2)] {
        let spoilt: Vec<Spoilt> = pictures.iter().enumerate().map(|(i, truth)| task.spoil(truth, i as u64)).collect();
        rows.extend_from_slice(pictures);
        rows.extend(spoilt.iter().map(Spoilt::shown));
        rows.extend(spoilt.iter().filter_map(|s| Some(s.baselines().pop()?.1)));
        for (i, s) in spoilt.iter().enumerate() {
            let default = ways(&s.damage).last().expect("there are some");
            rows.push(default.restore(model, s, i as u64)?.0);
        }
    }
    let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
    let drawn = Picture::new(&SHAPE, (0.0, 1.0))?.grid(&rows, pictures.len());
    let [width, height] = [drawn.width(), drawn.height()];
    let grey =
        image::GrayImage::from_raw(width as u32, height as u32, drawn.to_grey()).expect("a level for each pixel");
    let larger = image::imageops::resize(&grey, 2 * grey.width(), 2 * grey.height(), FilterType::Nearest);
    let drawn = Image::from_grey(2 * width, 2 * height, larger.into_raw())?;
    Ok(write_file(out, &encode_picture(&drawn, Format::from_path(out)?)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture of waves and the same one changed, as scikit-image 0.26 measures them.
    #[test]
    fn psnr_and_ssim_are_those_of_the_papers() {
        let a: Pixels =
            (0..LEN).map(|i| 0.5 + 0.5 * ((i % SIDE) as f32 * 0.7).sin() * ((i / SIDE) as f32 * 0.3).cos()).collect();
        let b: Pixels = a
            .iter()
            .enumerate()
            .map(|(i, v)| (v * 0.8 + 0.05 + 0.1 * (i as f32 * 1.3).sin()).clamp(0.0, 1.0))
            .collect();
        assert!((metrics::psnr(&a, &b) - PSNR).abs() < 1e-3, "{}", metrics::psnr(&a, &b));
        assert!((metrics::ssim(&a, &b, SIDE) - SSIM).abs() < 1e-4, "{}", metrics::ssim(&a, &b, SIDE));
        assert!((metrics::ssim(&a, &a, SIDE) - 1.0).abs() < 1e-9);
    }

    const PSNR: f64 = 20.08;
    const SSIM: f64 = 0.899708;

    #[test]
    fn baselines_keep_what_is_smooth() {
        let flat = vec![0.25; LEN];
        let known: Vec<bool> = (0..LEN).map(|i| i % 3 == 0).collect();
        for x in [baseline::harmonic(&flat, &known), baseline::median(&flat), baseline::gaussian(&flat, 0.5)] {
            assert!(x.iter().all(|v| (v - 0.25).abs() < 1e-6));
        }
        // a plane is harmonic
        let plane: Pixels = (0..LEN).map(|i| (i % SIDE) as f32 / SIDE as f32).collect();
        let inside = |i: usize| (1..SIDE - 1).contains(&(i % SIDE)) && (1..SIDE - 1).contains(&(i / SIDE));
        let known: Vec<bool> = (0..LEN).map(|i| !inside(i)).collect();
        let filled = baseline::harmonic(&plane, &known);
        assert!(filled.iter().zip(&plane).all(|(a, b)| (a - b).abs() < 1e-3));
    }

    #[test]
    fn restoring_beats_filling_in() {
        let model = Model::embedded().unwrap();
        let boot = edgegen::Request::new(3, 0).class(model.class("Ankle boot").unwrap());
        let mut generator = model.generator().build().unwrap();
        let truth: Pixels =
            generator.run(&boot).unwrap().sample.iter().map(|v| ((v + 1.0) / 2.0).clamp(0.0, 1.0)).collect();
        for task in [Task::Half, Task::Smaller(2), Task::Noise(0.1)] {
            let spoilt = task.spoil(&truth, 0);
            let (ours, _, _) = ways(&spoilt.damage).last().unwrap().restore(&model, &spoilt, 0).unwrap();
            let theirs = spoilt.baselines().pop().unwrap().1;
            let [ours, theirs] = [ours, theirs].map(|x| metrics::psnr(&truth, &x));
            assert!(ours > theirs, "{}: {ours} dB and {theirs} dB", task.name());
        }
    }
}
