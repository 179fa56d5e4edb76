//! `edgegen OUT`: generate.

use super::args::{ModelArgs, Report, SamplingArgs};
use super::conditions::{ConditionArgs, Given, class};
use super::decoder::DecoderArgs;
use super::flow::read_sample;
use super::made::{Made, Sample};
use super::stdout::{self, print};
use super::{limits, measure};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use edgegen::constraint::Replacement;
use edgegen::output::{self, Format};
use edgegen::solver::Resample;
use edgegen::{Condition, Ending, Generated, Generator, Model, Progress, Request, Settings};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[derive(Args, Debug)]
pub struct GenerateArgs {
    /// The file to write: .png, .jpg, .gif (the way from noise to picture), .npy or .csv; `-` for standard output.
    /// With {index} in the name, a file for each sample
    #[arg(value_name = "OUT", required = true)]
    out: Option<PathBuf>,
    /// The ONNX network [default: the one built in]
    #[arg(short, long, value_name = "FILE", help_heading = "Model")]
    model: Option<PathBuf>,
    #[command(flatten)]
    model_args: ModelArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Where the noise comes from: a number, or `random`
    #[arg(long, default_value = "0", value_name = "N", value_parser = parse_seed)]
    seed: Seed,
    /// How many samples [default: 1, or as many as --grid has places]
    #[arg(long, value_name = "N")]
    count: Option<usize>,
    /// Lay pictures out in C columns and R rows [default: as square as the count allows]
    #[arg(long, value_name = "CxR", value_parser = parse_grid)]
    grid: Option<(usize, usize)>,
    /// Make every pixel of a picture a square of so many pixels a side
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    scale: u8,
    /// The index of the first sample
    #[arg(long, default_value_t = 0, value_name = "N")]
    first_index: u64,
    /// The class, by name or index, or none [default: drawn from the seed for each sample]
    #[arg(long, value_name = "NAME|N")]
    class: Option<String>,
    #[command(flatten)]
    conditions: ConditionArgs,
    #[command(flatten)]
    decoder: DecoderArgs,
    /// Start from this noise, [N, …sample shape] in npy, instead of the seed's
    #[arg(long, value_name = "FILE.npy", conflicts_with_all = ["count", "grid"])]
    noise: Option<PathBuf>,
    /// Start from this picture, or sample in npy, noised part of the way
    #[arg(long, value_name = "FILE", conflicts_with = "noise", help_heading = "From a picture")]
    init: Option<PathBuf>,
    /// How much of the way: near 0 keeps --init as it is, 1 nothing of it [default: 0.5, or 1 with --mask]
    #[arg(long, value_name = "X", requires = "init", allow_negative_numbers = true, help_heading = "From a picture")]
    strength: Option<f64>,
    /// Fill only what is white in this picture (or not 0 in this npy file), and keep the rest of --init
    #[arg(long, value_name = "FILE", requires = "init", help_heading = "From a picture")]
    mask: Option<PathBuf>,
    /// Run each block of steps so often, for what is filled to fit the rest (RePaint)
    #[arg(long, value_name = "N", default_value_t = 1, requires = "mask", help_heading = "From a picture")]
    resample: usize,
    /// The steps of a block
    #[arg(long, value_name = "J", default_value_t = 1, requires = "mask", help_heading = "From a picture")]
    jump: usize,
    /// The format of the output, where its name does not tell: png, jpg, gif, npy or csv
    #[arg(long, value_name = "NAME")]
    format: Option<PathBuf>,
    /// Threads: each works on a sample of its own, and if there are more threads than samples, several share one
    /// [default: every core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Stop each sample after so many milliseconds and take the best there is by then
    #[arg(long, value_name = "MS")]
    deadline: Option<u64>,
    /// No progress bar
    #[arg(short, long)]
    quiet: bool,
    /// Say afterwards what it took: time, network calls, memory, allocations
    #[arg(long, value_enum, value_name = "text|json")]
    report: Option<Report>,
}

#[derive(Clone, Copy, Debug)]
enum Seed {
    Fixed(u64),
    Random,
}

fn parse_seed(text: &str) -> Result<Seed, String> {
    match text {
        "random" => Ok(Seed::Random),
        _ => text.parse().map(Seed::Fixed).map_err(|_| "give a number from 0 to 2^64-1, or random".into()),
    }
}

fn parse_grid(text: &str) -> Result<(usize, usize), String> {
    let parse = || -> Option<(usize, usize)> {
        let (columns, rows) = text.split_once('x')?;
        Some((columns.parse().ok()?, rows.parse().ok()?))
    };
    parse().filter(|(c, r)| *c > 0 && *r > 0).ok_or("give columns and rows, such as 8x4".into())
}

/// Everything that is to be generated.
struct Job {
    seed: u64,
    first_index: u64,
    count: usize,
    /// Noise to start from, one sample after the other.
    noise: Option<Vec<f32>>,
    /// The sample to start from.
    init: Option<Vec<f32>>,
    /// The share of the steps that is run from there.
    strength: f64,
    /// Which of its elements are kept.
    kept: Option<Replacement>,
    /// The condition of each sample.
    conditions: Vec<Condition>,
    deadline: Option<Duration>,
    /// Whether every x_t is kept.
    trajectory: bool,
}

pub fn run(args: &GenerateArgs) -> Result<()> {
    let start = Instant::now();
    let out = args.out.as_deref().context("no output file was given: try edgegen out.png")?;
    let format = Format::from_path(args.format.as_deref().unwrap_or(if out == Path::new("-") {
        Path::new("png")
    } else {
        out
    }))?;
    check_name(out, format)?;
    ensure!(
        args.scale == 1 || format.is_picture(),
        "--scale is for pictures, but {} files hold numbers",
        format.name()
    );
    limits::threads(args.threads())?;
    let given = args.conditions.read()?;
    let model = args.model_args.open(args.model.as_deref(), &given)?;
    let load = start.elapsed();
    let job = job(args, &model, &given, format)?;
    let mut decoder = args.decoder.open(model.sample_shape(), (args.threads(), args.model_args.max_memory))?;
    let made = Made::of(&model, decoder.as_ref(), format, args.scale.into())?;
    check_size(args, &model, &made, format, &job)?;
    let sampling = Instant::now();
    let mut samples = sample_all(args, &model, &job)?;
    let sampling = sampling.elapsed();
    check_deadline(&samples, args.deadline)?;
    if let Some(decoder) = &mut decoder {
        samples.iter_mut().try_for_each(|sample| sample.decode(decoder))?;
    }
    write(args, out, format, &made, &job, &samples)?;
    warn_of_deadline(&samples);
    if args.report.is_none() && !args.quiet && std::io::stderr().is_terminal() {
        eprintln!("{}", summary(&model, &job, &samples, sampling, out));
    }
    if let Some(report) = args.report {
        print_report(report, args, &job, &samples, [load, sampling, start.elapsed()], out)?;
    }
    Ok(())
}

/// Whether the output can be written where its name says.
fn check_name(out: &Path, format: Format) -> Result<()> {
    if out == Path::new("-") {
        stdout::check()?;
        ensure!(
            format == Format::Csv || !std::io::stdout().is_terminal(),
            "a terminal shows no {} files: send the standard output to a file or a program, or give a file's name",
            format.name()
        );
    }
    let name = out.to_string_lossy();
    let other = name.split('{').skip(1).filter_map(|rest| rest.split_once('}')).find(|(key, _)| *key != "index");
    if let Some((key, _)) = other {
        bail!("the output's name has {{{key}}}, which stands for nothing: {{index}} stands for the sample's index");
    }
    Ok(())
}

fn job(args: &GenerateArgs, model: &Model, given: &Given, format: Format) -> Result<Job> {
    let shape = model.sample_shape();
    let (noise, count) = match &args.noise {
        Some(path) => {
            let (noise, count) = read_noise(path, shape)?;
            (Some(noise), count)
        }
        None => {
            let places =
                args.grid.map(|(c, r)| c.checked_mul(r).with_context(|| format!("--grid {c}x{r} is too large")));
            let places = places.transpose()?;
            let count = args.count.or(places).unwrap_or(1);
            ensure!(places.is_none_or(|p| p >= count), "--grid has {} places for {count} samples", places.unwrap_or(0));
            (None, count)
        }
    };
    ensure!(count > 0, "--count must be at least 1");
    ensure!(
        args.first_index.checked_add(count as u64).is_some(),
        "the indices of {count} samples from --first-index {} go beyond 2^64",
        args.first_index
    );
    let init = args.init.as_deref().map(|path| read_sample(path, model)).transpose()?;
    let kept = match (&args.mask, &init) {
        (Some(mask), Some(init)) => {
            let mut values = init.clone();
            model.normalizer().normalize(&mut values);
            Some(Replacement::new(&values, &read_mask(mask, model)?)?)
        }
        _ => None,
    };
    let seed = match args.seed {
        Seed::Fixed(seed) => seed,
        Seed::Random => {
            let seed = random_seed();
            eprintln!("edgegen: seed {seed}");
            seed
        }
    };
    Ok(Job {
        seed,
        first_index: args.first_index,
        count,
        noise,
        init,
        strength: args.strength.unwrap_or(if args.mask.is_some() { 1.0 } else { 0.5 }),
        kept,
        conditions: conditions(args, model, given, (seed, count))?,
        deadline: args.deadline.map(Duration::from_millis),
        trajectory: format == Format::Gif,
    })
}

/// Whether there is memory for all samples, and whether they can be laid out as asked for.
fn check_size(args: &GenerateArgs, model: &Model, made: &Made, format: Format, job: &Job) -> Result<()> {
    let (shape, named) = (made.shape.as_slice(), &job.conditions[0].named);
    let len = shape.iter().product::<usize>().max(model.sample_shape().iter().product());
    let kept = if job.trajectory { settings(args, model)?.steps.saturating_add(1) } else { 1 };
    let conditions: usize = named.values().map(Vec::len).sum();
    // the numbers and those of each frame, the condition, and the encoded result
    let scale = usize::from(args.scale);
    let each = len
        .saturating_mul(scale * scale)
        .saturating_mul(4)
        .saturating_mul(kept.saturating_add(2))
        .saturating_add(4 * conditions);
    let each = each.saturating_add(size_of::<(Sample, Condition)>());
    limits::memory(args.asks_for_count(), job.count, each)?;
    if let (true, &[_, height, width]) = (format.is_picture(), shape) {
        let layout = if args.writes_each() { (1, 1) } else { args.layout(job.count) };
        limits::grid(format, layout, (width.saturating_mul(scale), height.saturating_mul(scale)))?;
    }
    Ok(())
}

impl GenerateArgs {
    /// The output's name.
    pub fn out_name(&self) -> std::borrow::Cow<'_, str> {
        self.out.as_deref().unwrap_or(Path::new("")).to_string_lossy()
    }

    /// The command that was meant, if the output's name is nearly that of one and says no format.
    pub fn misspelt<'a>(&self, command: &'a clap::Command) -> Option<&'a str> {
        let name = self.out_name();
        let says_format = self.format.is_some() || name.is_empty() || Format::from_path(Path::new(&*name)).is_ok();
        let names = command.get_subcommands().map(clap::Command::get_name);
        edgegen::suggest::nearest(&name, names).filter(|_| !says_format)
    }

    /// The threads that work.
    fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// The flag that says how many samples there are.
    fn asks_for_count(&self) -> &'static str {
        match (&self.noise, self.count, self.grid) {
            (Some(_), ..) => "--noise",
            (None, None, Some(_)) => "--grid",
            _ => "--count",
        }
    }

    /// Whether each sample has a file of its own.
    fn writes_each(&self) -> bool {
        self.out.as_ref().is_some_and(|out| out.to_string_lossy().contains("{index}"))
    }

    /// The columns and the rows that so many samples are laid out in.
    fn layout(&self, count: usize) -> (usize, usize) {
        let columns = self.grid.map_or((count as f64).sqrt().ceil() as usize, |(columns, _)| columns);
        let columns = columns.clamp(1, count);
        (columns, count.div_ceil(columns))
    }
}

fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // the standard library seeds its hashers from the system
    RandomState::new().hash_one(std::process::id())
}

fn read_noise(path: &Path, shape: &[usize]) -> Result<(Vec<f32>, usize)> {
    let (found, noise) = output::read_npy(path)?;
    let fits = found == shape || (found.len() == shape.len() + 1 && found[1..] == *shape);
    ensure!(
        fits,
        "the noise in {} has shape {found:?}, but the model's samples have {shape:?}: give that, or [N, …] of it",
        path.display()
    );
    if let Some(i) = noise.iter().position(|v| !v.is_finite()) {
        bail!("the noise in {} must be finite, but element {i} is {}", path.display(), noise[i]);
    }
    let count = noise.len() / shape.iter().product::<usize>().max(1);
    ensure!(count > 0, "{} holds no samples", path.display());
    Ok((noise, count))
}

/// Which elements a mask keeps: those that are black in a picture, or 0 in an npy file.
fn read_mask(path: &Path, model: &Model) -> Result<Vec<bool>> {
    let shape = model.sample_shape();
    if path.extension().is_some_and(|e| e == "npy") {
        let (found, mask) = output::read_npy(path)?;
        // one mask, or one in a batch, as samples are written
        ensure!(
            found == shape || found.strip_prefix(&[1]) == Some(shape),
            "the mask {} has shape {found:?}, but the samples have {shape:?}",
            path.display()
        );
        return Ok(mask.iter().map(|v| *v == 0.0).collect());
    }
    let image = output::read_picture(path)?;
    let &[channels, height, width] = shape else {
        bail!("samples of shape {shape:?} are not pictures: give the mask in npy");
    };
    ensure!(
        (image.width(), image.height()) == (width, height),
        "the mask {} has {}x{} pixels, but the picture has {width}x{height}",
        path.display(),
        image.width(),
        image.height()
    );
    let kept: Vec<bool> = image.to_grey().into_iter().map(|level| level < 128).collect();
    Ok(kept.repeat(channels))
}

/// The settings, with which steps are taken again.
fn settings(args: &GenerateArgs, model: &Model) -> Result<Settings> {
    let mut settings = args.sampling.settings(model)?;
    settings.resample = Resample { times: args.resample, jump: args.jump };
    Ok(settings)
}

fn conditions(
    args: &GenerateArgs,
    model: &Model,
    given: &Given,
    (seed, count): (u64, usize),
) -> Result<Vec<Condition>> {
    let common = given.condition(model, None)?;
    let named: usize = common.named.values().map(Vec::len).sum();
    limits::memory(args.asks_for_count(), count, size_of::<Condition>().saturating_add(4 * named))?;
    let asked = args.class.as_deref().map(|name| class(model, name)).transpose()?;
    let of_sample = |i: usize| {
        let mut condition = common.clone();
        condition.class = asked.unwrap_or_else(|| model.drawn_class(seed, args.first_index + i as u64));
        condition
    };
    let conditions: Vec<Condition> = (0..count).map(of_sample).collect();
    model.check_condition(&conditions[0])?;
    Ok(conditions)
}

/// Samples in the order of their indices, made by so many threads: as many samples at a time as there are, and the
/// threads that are left share the network calls of the first ones.
fn sample_all(args: &GenerateArgs, model: &Model, job: &Job) -> Result<Vec<Sample>> {
    let threads = args.threads();
    let at_a_time = threads.min(job.count);
    let settings = settings(args, model)?;
    let each = |i: usize| {
        let mut settings = settings.clone();
        settings.threads = (threads + at_a_time - 1 - i) / at_a_time;
        settings
    };
    // The first generator is made here, so that wrong settings are told before anything is started.
    let generators = (0..at_a_time).map(|i| Generator::new(model, &each(i))).collect::<Result<Vec<_>, _>>()?;
    let bar = progress_bar(args.quiet, (job.count * settings.steps) as u64);
    let samples = Mutex::new(vec![Sample::default(); job.count]);
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = |mut generator: edgegen::Generator| -> Result<()> {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= job.count || failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            let sample = sample_one(&mut generator, job, i, &bar, &failed)
                .inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            samples.lock().expect("no thread panics holding it")[i] = sample;
        }
    };
    let results: Vec<Result<()>> = if at_a_time == 1 {
        generators.into_iter().map(work).collect()
    } else {
        std::thread::scope(|scope| {
            let handles: Vec<_> = generators.into_iter().map(|g| scope.spawn(|| work(g))).collect();
            handles.into_iter().map(|h| h.join().unwrap_or_else(|_| bail!("a sampling thread failed"))).collect()
        })
    };
    bar.finish_and_clear();
    results.into_iter().collect::<Result<()>>()?;
    Ok(samples.into_inner().expect("no thread panics holding it"))
}

fn sample_one(
    generator: &mut Generator,
    job: &Job,
    i: usize,
    bar: &ProgressBar,
    failed: &AtomicBool,
) -> Result<Sample> {
    let mut trajectory = Vec::new();
    let index = job.first_index + i as u64;
    let mut on_step = |progress: Progress<'_>| {
        bar.inc(1);
        if job.trajectory {
            trajectory.push(progress.x.to_vec());
        }
        ControlFlow::Continue(())
    };
    let mut kept = job.kept.clone();
    let mut request = Request::new(job.seed, index).without_class().conditions(&job.conditions[i]);
    request = request.cancel(failed).on_step(&mut on_step);
    if let Some(deadline) = job.deadline {
        request = request.deadline(Instant::now() + deadline);
    }
    if let Some(kept) = &mut kept {
        request = request.constraint(kept);
    }
    if let Some(init) = &job.init {
        request = request.near(init, job.strength);
    }
    if let Some(noise) = &job.noise {
        let len = noise.len() / job.count;
        request = request.from_noise(&noise[i * len..][..len]);
    }
    let before = measure::allocations_of_this_thread();
    let Generated { sample, outcome, .. } = generator.run(&request)?;
    let allocations = measure::allocations_of_this_thread() - before;
    let x = sample.to_vec();
    drop(request);
    let late = outcome.ending == Ending::Deadline;
    Ok(Sample { x, trajectory, nfe: outcome.nfe, steps: outcome.steps, allocations, late })
}

fn progress_bar(quiet: bool, length: u64) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{wide_bar} {pos}/{len} steps, {eta} left").expect("the template is well formed");
    ProgressBar::new(length).with_style(style)
}

fn write(args: &GenerateArgs, out: &Path, format: Format, made: &Made, job: &Job, samples: &[Sample]) -> Result<()> {
    let name = out.to_string_lossy();
    if args.writes_each() {
        for (i, sample) in samples.iter().enumerate() {
            let index = job.first_index + i as u64;
            let file = PathBuf::from(name.replace("{index}", &index.to_string()));
            let bytes = made.encode(format, std::slice::from_ref(sample), 1)?;
            output::write_file(&file, &bytes)?;
        }
        return Ok(());
    }
    let (columns, _) = args.layout(samples.len());
    Ok(output::write_file(out, &made.encode(format, samples, columns)?)?)
}

/// Whether every sample had time for a step: what had none is noise.
fn check_deadline(samples: &[Sample], deadline: Option<u64>) -> Result<()> {
    let noise = samples.iter().filter(|sample| sample.late && sample.steps == 0).count();
    ensure!(
        noise == 0,
        "in {} ms, {noise} of {} samples had no time for a step and are nothing but noise: give --deadline more",
        deadline.unwrap_or(0),
        samples.len()
    );
    Ok(())
}

fn warn_of_deadline(samples: &[Sample]) {
    let late: Vec<&Sample> = samples.iter().filter(|s| s.late).collect();
    if let Some(fewest) = late.iter().map(|s| s.steps).min() {
        eprintln!(
            "edgegen: the deadline ended {} of {} samples early, after {fewest} steps or more",
            late.len(),
            samples.len()
        );
    }
}

/// What was made, in one line.
fn summary(model: &Model, job: &Job, samples: &[Sample], sampling: Duration, out: &Path) -> String {
    let class = job.conditions[0].class.filter(|class| job.conditions.iter().all(|c| c.class == Some(*class)));
    let class = class.map(|class| match model.metadata().classes.get(class) {
        Some(name) => format!("{name}, "),
        None => format!("class {class}, "),
    });
    let index = match (samples.len(), job.first_index) {
        (1, 0) => String::new(),
        (1, index) => format!(" index {index},"),
        (count, first) => format!(" {count} samples from index {first},"),
    };
    let steps = samples.iter().map(|sample| sample.steps).max().unwrap_or(0);
    let calls = samples.iter().map(|sample| sample.nfe).max().unwrap_or(0);
    let ms = sampling.as_secs_f64() * 1e3;
    format!(
        "{}: {}seed {},{index} {steps} steps, {calls} network calls, {ms:.0} ms",
        out.display(),
        class.unwrap_or_default(),
        job.seed
    )
}

fn print_report(
    report: Report,
    args: &GenerateArgs,
    job: &Job,
    samples: &[Sample],
    times: [Duration; 3],
    out: &Path,
) -> Result<()> {
    let [load, sampling, total] = times.map(|t| t.as_secs_f64() * 1e3);
    let nfe: usize = samples.iter().map(|s| s.nfe).sum();
    let allocations: u64 = samples.iter().map(|s| s.allocations).sum();
    let peak = measure::peak_rss_bytes();
    let text = match report {
        Report::Json => serde_json::json!({
            "samples": samples.len(),
            "seed": job.seed,
            "first_index": job.first_index,
            "classes": job.conditions.iter().map(|c| c.class).collect::<Vec<_>>(),
            "nfe": nfe / samples.len(),
            "load_ms": load,
            "sampling_ms": sampling,
            "image_ms": sampling / samples.len() as f64,
            "total_ms": total,
            "peak_rss_bytes": peak,
            "allocations_per_image": allocations / samples.len() as u64,
            "complete": samples.iter().all(|s| !s.late),
        })
        .to_string(),
        Report::Text => format!(
            "{} samples, {} network calls each; load {load:.1} ms, sampling {sampling:.1} ms ({:.1} ms a sample), {total:.1} ms in all; peak memory {}; {} allocations a sample",
            samples.len(),
            nfe / samples.len(),
            sampling / samples.len() as f64,
            peak.map_or("unknown".into(), |b| format!("{:.1} MB", b as f64 / 1e6)),
            allocations / samples.len() as u64,
        ),
    };
    // Standard output is the picture's if it goes there.
    if out == Path::new("-") || args.out.is_none() {
        eprintln!("{text}");
        return Ok(());
    }
    print(&(text + "\n"))
}
