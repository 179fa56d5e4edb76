//! `edgegen schedule`: the noise schedule, and the steps that a run takes on it.

use super::args::{ModelArgs, SamplingArgs};
use super::conditions::Given;
use super::stdout::print;
use anyhow::{Result, ensure};
use clap::Args;
use edgegen::model::MadeUp;
use edgegen::output::{Format, Image, encode_picture, write_file};
use edgegen::schedule::{Level, Schedule};
use edgegen::solver::Solver;
use image::{Rgb, RgbImage};
use std::path::PathBuf;

#[derive(Args, Debug)]
pub struct ScheduleArgs {
    /// The ONNX network [default: the one built in]
    #[arg(short, long, value_name = "FILE", help_heading = "Model")]
    model: Option<PathBuf>,
    #[command(flatten)]
    model_args: ModelArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Draw beta, alpha-bar, sigma and log-SNR over the training steps, with the run's steps marked, to a .png
    #[arg(long, value_name = "OUT.png")]
    plot: Option<PathBuf>,
}

pub fn run(args: &ScheduleArgs) -> Result<()> {
    let model = args.model_args.open_made_up(args.model.as_deref(), &Given::default())?;
    ensure!(
        !model.made_up().contains(&MadeUp::Schedule),
        "the model does not say what noise schedule it was trained with: name its scheduler_config.json with --scheduler-config"
    );
    let settings = args.sampling.settings(&model)?;
    let schedule = Schedule::from_config(model.scheduler_config())?;
    let grid = match settings.solver {
        Solver::Adaptive(_) => None,
        _ => Some(settings.grid(model.scheduler_config(), &schedule)?),
    };
    let mut out = format!(
        "{:>4} {:>9} {:>10} {:>10} {:>11} {:>9}\n",
        "step", "time", "alpha-bar", "sigma", "sigma/gamma", "log-SNR"
    );
    let levels: Vec<_> = grid.iter().flat_map(|g| g.levels()).collect();
    for (i, level) in levels.iter().enumerate() {
        let time = if level.time.is_nan() { "clean".into() } else { format!("{:.2}", level.time) };
        out += &format!(
            "{i:>4} {time:>9} {:>10.6} {:>10.6} {:>11.4} {:>9.3}\n",
            level.gamma.powi(2),
            level.sigma,
            level.edm_sigma(),
            level.log_snr()
        );
    }
    print(&out)?;
    match &args.plot {
        Some(path) => {
            let drawn = plot(&schedule, &levels);
            let [width, height] = [drawn.width(), drawn.height()].map(|side| side as usize);
            let drawn = Image::from_rgb(width, height, drawn.into_raw())?;
            let drawn = encode_picture(&drawn, Format::from_path(path)?)?;
            Ok(write_file(path, &drawn)?)
        }
        None => Ok(()),
    }
}

/// A panel's size in pixels, and the margins of its drawing.
const PANEL: (u32, u32) = (420, 260);
const MARGIN: (u32, u32) = (64, 28);
const GREY: Rgb<u8> = Rgb([200, 200, 200]);
const BLACK: Rgb<u8> = Rgb([0, 0, 0]);
const BLUE: Rgb<u8> = Rgb([30, 90, 200]);
const RED: Rgb<u8> = Rgb([210, 60, 40]);

/// Four panels over the training steps; the levels that a run visits are marked on the curves.
fn plot(schedule: &Schedule, levels: &[Level]) -> RgbImage {
    let mut image = RgbImage::from_pixel(2 * PANEL.0, 2 * PANEL.1, Rgb([255, 255, 255]));
    let last = schedule.len() - 1;
    type Curve<'a> = (&'a str, Box<dyn Fn(f64) -> f64 + 'a>);
    let curves: [Curve; 4] = [
        ("beta", Box::new(|t| schedule.beta(t.round() as usize))),
        ("alpha-bar", Box::new(|t| schedule.level(t).gamma.powi(2))),
        ("sigma", Box::new(|t| schedule.level(t).sigma)),
        ("log-snr", Box::new(|t| schedule.level(t).log_snr())),
    ];
    let times: Vec<f64> = levels.iter().map(|l| l.time).filter(|t| (0.0..=last as f64).contains(t)).collect();
    for (i, (title, curve)) in curves.iter().enumerate() {
        let corner = (i as u32 % 2 * PANEL.0, i as u32 / 2 * PANEL.1);
        panel(&mut image, corner, title, curve, last, &times);
    }
    image
}

fn panel(
    image: &mut RgbImage,
    corner: (u32, u32),
    title: &str,
    curve: &dyn Fn(f64) -> f64,
    last: usize,
    times: &[f64],
) {
    let (left, right) = (corner.0 + MARGIN.0, corner.0 + PANEL.0 - 16);
    let (top, bottom) = (corner.1 + MARGIN.1, corner.1 + PANEL.1 - MARGIN.1);
    let values: Vec<f64> = (0..=last).map(|t| curve(t as f64)).filter(|v| v.is_finite()).collect();
    let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    let span = if high > low { high - low } else { 1.0 };
    let y_of = |value: f64| {
        let up = ((value - low) / span).clamp(0.0, 1.0) * f64::from(bottom - top);
        bottom - up.round() as u32
    };
    let x_of = |time: f64| left + (time / last.max(1) as f64 * f64::from(right - left)).round() as u32;
    for x in left..=right {
        [top, bottom].into_iter().for_each(|y| image.put_pixel(x, y, GREY));
    }
    for y in top..=bottom {
        [left, right].into_iter().for_each(|x| image.put_pixel(x, y, GREY));
    }
    let mut before = None;
    for x in left..=right {
        let time = f64::from(x - left) / f64::from(right - left) * last as f64;
        let y = y_of(curve(time));
        // down or up to where the column before was, so that steep parts have no holes
        let from = before.unwrap_or(y);
        (y.min(from)..=y.max(from)).for_each(|y| image.put_pixel(x, y, BLUE));
        before = Some(y);
    }
    for &time in times {
        let (x, y) = (x_of(time), y_of(curve(time)));
        for (dx, dy) in (0..7).flat_map(|dx| (0..7).map(move |dy| (dx, dy))) {
            image.put_pixel((x + dx).saturating_sub(3), (y + dy).saturating_sub(3), RED);
        }
    }
    write(image, (left, corner.1 + 10), title);
    let number = |v: f64| if v != 0.0 && v.abs() < 0.01 { format!("{v:.0e}") } else { format!("{v:.2}") };
    write(image, (corner.0 + 4, top), &number(high));
    write(image, (corner.0 + 4, bottom - 10), &number(low));
    write(image, (left, bottom + 8), "0");
    let end = last.to_string();
    write(image, (right - 8 * end.len() as u32, bottom + 8), &end);
}

/// Writes `text` with its top left corner at `place`, in letters of three by five dots of two pixels.
fn write(image: &mut RgbImage, place: (u32, u32), text: &str) {
    for (i, letter) in text.chars().enumerate() {
        let rows = LETTERS.iter().find(|(known, _)| *known == letter).map_or([0; 5], |(_, rows)| *rows);
        for (row, bits) in rows.into_iter().enumerate() {
            for column in (0..3).filter(|c| bits >> (2 - c) & 1 == 1) {
                for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                    let x = place.0 + 8 * i as u32 + 2 * column + dx;
                    image.put_pixel(x, place.1 + 2 * row as u32 + dy, BLACK);
                }
            }
        }
    }
}

/// What a plot's titles and numbers need, each row's dots as bits.
const LETTERS: &[(char, [u8; 5])] = &[
    ('0', [0b111, 0b101, 0b101, 0b101, 0b111]),
    ('1', [0b010, 0b110, 0b010, 0b010, 0b111]),
    ('2', [0b111, 0b001, 0b111, 0b100, 0b111]),
    ('3', [0b111, 0b001, 0b111, 0b001, 0b111]),
    ('4', [0b101, 0b101, 0b111, 0b001, 0b001]),
    ('5', [0b111, 0b100, 0b111, 0b001, 0b111]),
    ('6', [0b111, 0b100, 0b111, 0b101, 0b111]),
    ('7', [0b111, 0b001, 0b010, 0b010, 0b010]),
    ('8', [0b111, 0b101, 0b111, 0b101, 0b111]),
    ('9', [0b111, 0b101, 0b111, 0b001, 0b111]),
    ('-', [0b000, 0b000, 0b111, 0b000, 0b000]),
    ('.', [0b000, 0b000, 0b000, 0b000, 0b010]),
    ('a', [0b111, 0b001, 0b111, 0b101, 0b111]),
    ('b', [0b100, 0b100, 0b111, 0b101, 0b111]),
    ('e', [0b111, 0b101, 0b111, 0b100, 0b111]),
    ('g', [0b111, 0b101, 0b111, 0b001, 0b111]),
    ('h', [0b100, 0b100, 0b111, 0b101, 0b101]),
    ('i', [0b010, 0b000, 0b010, 0b010, 0b010]),
    ('l', [0b010, 0b010, 0b010, 0b010, 0b011]),
    ('m', [0b000, 0b111, 0b111, 0b101, 0b101]),
    ('n', [0b000, 0b000, 0b110, 0b101, 0b101]),
    ('o', [0b000, 0b000, 0b111, 0b101, 0b111]),
    ('p', [0b000, 0b111, 0b101, 0b111, 0b100]),
    ('r', [0b000, 0b000, 0b111, 0b100, 0b100]),
    ('s', [0b011, 0b100, 0b010, 0b001, 0b110]),
    ('t', [0b010, 0b111, 0b010, 0b010, 0b011]),
];
