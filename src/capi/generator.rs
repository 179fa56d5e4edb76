//! Generators: making samples.

use super::handle::{Exclusive, Handle, Handled};
use super::model::{Loaded, edgegen_model, get};
use super::pointer::{array, free, given, place, text, told};
use super::status::{Failure, edgegen_error, edgegen_status, guarded};
use crate::config::Spacing;
use crate::generator::{Generator, GeneratorBuilder};
use crate::request::Request;
use crate::sampler::{Ending, Outcome, Progress};
use crate::solver::Solver;
use std::ffi::{c_char, c_int, c_void};
use std::ops::ControlFlow;
use std::ptr;
use std::time::{Duration, Instant};

/// Makes samples, one at a time, in memory of its own. Give each thread its own: one that finds it in use is told
/// EDGEGEN_STATUS_BUSY.
pub struct edgegen_generator(());

/// A generator, and what is known of its model.
pub struct Prepared {
    generator: Generator,
    takes_class: bool,
    classes: Option<usize>,
    len: usize,
}

impl Handled for Exclusive<Prepared> {
    const MARK: u64 = 0x6564_6765_6765_6e67;
    const NAME: &str = "generator";
}

/// How samples are made. `edgegen_options_init` fills in what suits a model.
#[repr(C)]
pub struct edgegen_options {
    /// The number of solver steps.
    pub steps: usize,
    /// The solver's name, such as "ddim" or "dpm++2m"; null for the model's own.
    pub sampler: *const c_char,
    /// Which noise levels the steps visit: "leading", "trailing", "linspace", "karras", "log-snr" or "tuned"; null for
    /// the model's own.
    pub spacing: *const c_char,
    /// The weight of classifier-free guidance: 1 is none, any other calls the network twice a step.
    pub guidance: f32,
    /// Threads that share each network call; 0 stands for 1. The sample has the same bits for any number.
    pub threads: usize,
    /// The times that the steps visit, as the network counts them, from the noisiest on, in place of `steps` and `spacing`;
    /// null for those.
    pub timesteps: *const f64,
    pub num_timesteps: usize,
    /// By how much the steps of a flow whose schedule has use_dynamic_shifting are shifted to noise: mu; null for what follows
    /// from the sample's size.
    pub mu: *const f64,
}

/// A condition, by the name of the network's input.
#[repr(C)]
pub struct edgegen_condition {
    pub name: *const c_char,
    /// Its numbers, as many as the input has elements.
    pub values: *const f32,
    pub len: usize,
}

/// How far a run is. Pointers are good during the callback alone.
#[repr(C)]
pub struct edgegen_progress {
    /// Steps done, from 1.
    pub step: usize,
    /// Steps in all; 0 if the solver chooses them.
    pub steps: usize,
    /// The noisy sample now.
    pub x: *const f32,
    /// The estimate of the clean sample.
    pub x0: *const f32,
    /// How many numbers each has.
    pub len: usize,
}

/// Called after every step; anything but 0 ends the run. It must return: neither throw nor `longjmp`.
pub type edgegen_on_step = Option<unsafe extern "C" fn(user: *mut c_void, progress: *const edgegen_progress) -> c_int>;

/// The class of a request that is drawn from its seed and its index, as the program and the other languages do where no class is
/// given.
pub const EDGEGEN_CLASS_DRAWN: i32 = -2;

/// What to make. All zeros stand for sample 0 of seed 0, of class 0 if the model has classes, without a deadline.
#[repr(C)]
pub struct edgegen_request {
    /// The seed. The sample depends on (seed, index), the model, the options and the conditions alone.
    pub seed: u64,
    /// The sample's number in the seed's run.
    pub index: u64,
    /// The class: -1 for the model's "no class", EDGEGEN_CLASS_DRAWN for one that is drawn. For a model that takes no class, 0
    /// or less.
    pub class_index: i32,
    /// The other conditions: each that the model takes.
    pub conditions: *const edgegen_condition,
    pub num_conditions: usize,
    /// Standard normal numbers to start from instead of the seed's; null for the seed's.
    pub noise: *const f32,
    pub noise_len: usize,
    /// A sample to start from instead of noise; null for noise. With `strength` or `sigma`.
    pub init: *const f32,
    pub init_len: usize,
    /// Makes another sample near `init`, or renews a plan: it is noised to where this share of the steps is to be run,
    /// above 0 and at most 1. 0 where `sigma` is given, or there is no `init`. The first request of each strength or
    /// sigma allocates.
    pub strength: f64,
    /// Takes the noise from `init`, which has noise of this standard deviation, in the network's units; else 0.
    pub sigma: f64,
    /// Microseconds from now after which no further step begins; 0 for none. The sample is then the best there is: the
    /// estimate of the clean sample by then. A step under way is ended, so allow for the time of one.
    pub deadline_us: u64,
    /// Called after every step; null for none.
    pub on_step: edgegen_on_step,
    /// Handed to it.
    pub user: *mut c_void,
}

/// Why a run ended.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum edgegen_ending {
    /// Every step was taken.
    COMPLETE = 0,
    /// The callback asked for it.
    CALLBACK = 1,
    /// The deadline passed.
    DEADLINE = 2,
}

/// What a run came to.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct edgegen_outcome {
    /// Why it ended.
    pub ending: edgegen_ending,
    /// Steps taken. If the deadline passed before the first, this is 0, and the sample is noise.
    pub steps: usize,
    /// Network calls made.
    pub nfe: usize,
}

/// Fills `options` in with what suits `model`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_options_init(
    model: *const edgegen_model,
    options: *mut edgegen_options,
    error: *mut edgegen_error,
) -> edgegen_status {
    // SAFETY: C's promise.
    let error = unsafe { told(error) };
    guarded(error, || {
        // SAFETY: C's promise.
        let settings = unsafe { get(model)? }.model.generator().settings()?;
        // SAFETY: C's promise.
        let options = unsafe { place(options, "options")? };
        let (sampler, spacing) = (ptr::null(), ptr::null());
        let (steps, guidance) = (settings.steps, settings.guidance);
        let (timesteps, num_timesteps, mu) = (ptr::null(), 0, ptr::null());
        options.write(edgegen_options { steps, sampler, spacing, guidance, threads: 1, timesteps, num_timesteps, mu });
        Ok(())
    })
}

/// Writes the bytes that a generator with these options works in to `bytes`, beside those of the model
/// (`weight_bytes`). `options` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_memory_needed(
    model: *const edgegen_model,
    options: *const edgegen_options,
    bytes: *mut usize,
    error: *mut edgegen_error,
) -> edgegen_status {
    // SAFETY: C's promise.
    let error = unsafe { told(error) };
    guarded(error, || {
        // SAFETY: C's promise.
        let loaded = unsafe { get(model)? };
        // SAFETY: C's promise.
        let bytes = unsafe { place(bytes, "bytes")? };
        // SAFETY: C's promise.
        let builder = unsafe { builder(loaded, options)? };
        bytes.write(builder.build()?.memory_bytes());
        Ok(())
    })
}

/// Makes a generator and does all that a first run would: allocates, touches every page, and runs a step. After this,
/// `edgegen_generate` neither allocates nor waits for a lock nor calls the system but for the clock, if the model has a
/// plan and the sampler is one of fixed steps; several threads also wake each other. `options` may be null. Free the
/// generator with `edgegen_generator_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_prepare(
    model: *const edgegen_model,
    options: *const edgegen_options,
    generator: *mut *mut edgegen_generator,
    error: *mut edgegen_error,
) -> edgegen_status {
    // SAFETY: C's promise.
    let error = unsafe { told(error) };
    guarded(error, || {
        // SAFETY: C's promise.
        let to = unsafe { place(generator, "generator")? }.write(ptr::null_mut());
        // SAFETY: C's promise.
        let loaded = unsafe { get(model)? };
        // SAFETY: C's promise.
        let builder = unsafe { builder(loaded, options)? };
        let mut generator = builder.build()?;
        generator.prepare()?;
        let model = &loaded.model;
        *to = Handle::new(Exclusive::new(Prepared {
            generator,
            takes_class: model.takes_class(),
            classes: model.num_classes(),
            len: model.sample_shape().iter().product(),
        }))
        .cast();
        Ok(())
    })
}

/// Frees a generator and sets the caller's pointer to null. One that is in use stays, and the answer is
/// EDGEGEN_STATUS_BUSY. Null, or a pointer to null, is OK and does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_generator_free(
    generator: *mut *mut edgegen_generator,
    error: *mut edgegen_error,
) -> edgegen_status {
    // SAFETY: C's promise.
    let error = unsafe { told(error) };
    // SAFETY: C's promise. Who has acquired it is the last to use it.
    guarded(error, || unsafe { free(generator, Exclusive::<Prepared>::retire) })
}

/// Makes a sample into `out`, which holds `out_len` floats: `sample_len` of the model. `outcome` may be null. After
/// anything but EDGEGEN_STATUS_OK, `out` is as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_generate(
    generator: *mut edgegen_generator,
    request: *const edgegen_request,
    out: *mut f32,
    out_len: usize,
    outcome: *mut edgegen_outcome,
    error: *mut edgegen_error,
) -> edgegen_status {
    let start = Instant::now();
    // SAFETY: C's promise.
    let error = unsafe { told(error) };
    guarded(error, || {
        // SAFETY: C's promise.
        let handle: &Exclusive<Prepared> = unsafe { Handle::get(generator.cast())? };
        let mut prepared = handle.acquire()?;
        // SAFETY: C's promise.
        let request = unsafe { given(request, "request")? }.ok_or_else(|| Failure::null("request"))?;
        if out.is_null() {
            return Err(Failure::null("out"));
        }
        if out_len != prepared.len || !out.is_aligned() {
            let message = format!("a sample of this model has {} floats, but out has room for {out_len}", prepared.len);
            return Err(Failure::new(edgegen_status::WRONG_SIZE, message));
        }
        let mut report = reporting(request);
        // SAFETY: C's promise.
        let mut asked = unsafe { prepared.request(request)? };
        if request.on_step.is_some() {
            asked = asked.on_step(&mut report);
        }
        if request.deadline_us > 0 {
            // a deadline beyond what the clock counts is none
            if let Some(deadline) = start.checked_add(Duration::from_micros(request.deadline_us)) {
                asked = asked.deadline(deadline);
            }
        }
        let result = prepared.generator.run(&asked)?;
        // SAFETY: `out` is not null and aligned, and has as many numbers as a sample, by C's promise. The sample is the
        // generator's own.
        unsafe { out.copy_from_nonoverlapping(result.sample.as_ptr(), result.sample.len()) };
        if !outcome.is_null() {
            // SAFETY: C's promise.
            unsafe { place(outcome, "outcome")? }.write(result.outcome.into());
        }
        Ok(())
    })
}

impl From<Outcome> for edgegen_outcome {
    fn from(outcome: Outcome) -> Self {
        edgegen_outcome {
            ending: match outcome.ending {
                Ending::Complete => edgegen_ending::COMPLETE,
                Ending::Callback | Ending::Cancelled => edgegen_ending::CALLBACK,
                Ending::Deadline => edgegen_ending::DEADLINE,
            },
            steps: outcome.steps,
            nfe: outcome.nfe,
        }
    }
}

/// Calls a request's `on_step`, if it has one.
fn reporting(request: &edgegen_request) -> impl FnMut(Progress<'_>) -> ControlFlow<()> {
    |Progress { step, steps, x, x0 }| {
        let Some(on_step) = request.on_step else { return ControlFlow::Continue(()) };
        let progress = edgegen_progress { step, steps, x: x.as_ptr(), x0: x0.as_ptr(), len: x.len() };
        // SAFETY: the function is the caller's own, who promises that it returns; `progress` and the numbers that it
        // points to live for longer.
        match unsafe { on_step(request.user, &progress) } {
            0 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    }
}

impl Prepared {
    /// The library's form of a request, but for its callback and its deadline.
    ///
    /// # Safety
    /// C's promise, for `'a`.
    unsafe fn request<'a>(&self, request: &'a edgegen_request) -> Result<Request<'a>, Failure> {
        let mut asked = Request::new(request.seed, request.index);
        match usize::try_from(request.class_index).ok() {
            Some(class) if self.takes_class => {
                if let Some(classes) = self.classes.filter(|n| class >= *n) {
                    let message = format!("there is no class {class}: the model has {classes}");
                    return Err(Failure::new(edgegen_status::INVALID_ARGUMENT, message));
                }
                asked = asked.class(class);
            }
            None if request.class_index == EDGEGEN_CLASS_DRAWN => {}
            // 0 is what a request of zeros says
            Some(0) | None => asked = asked.without_class(),
            Some(class) => asked = asked.class(class),
        }
        // SAFETY: the caller's promise.
        for (name, values) in unsafe { named(request.conditions, request.num_conditions, "conditions")? } {
            asked = asked.condition(name, values);
        }
        if !request.noise.is_null() {
            // SAFETY: the caller's promise.
            let noise = unsafe { array(request.noise, request.noise_len, "noise")? };
            self.check_len(noise, "noise")?;
            asked = asked.from_noise(noise);
        }
        if !request.init.is_null() {
            // SAFETY: the caller's promise.
            let init = unsafe { array(request.init, request.init_len, "init")? };
            self.check_len(init, "init")?;
            asked = match (request.strength != 0.0, request.sigma != 0.0) {
                (true, false) => asked.near(init, request.strength),
                (false, true) => asked.from_noisy(init, request.sigma),
                _ => {
                    return Err(Failure::new(
                        edgegen_status::INVALID_ARGUMENT,
                        "init needs either a strength or a sigma",
                    ));
                }
            };
        } else if request.strength != 0.0 || request.sigma != 0.0 {
            let message = "a strength or a sigma needs an init to start from";
            return Err(Failure::new(edgegen_status::INVALID_ARGUMENT, message));
        }
        Ok(asked)
    }

    fn check_len(&self, values: &[f32], what: &str) -> Result<(), Failure> {
        if values.len() == self.len {
            return Ok(());
        }
        let message = format!("{what} must have {} floats, but has {}", self.len, values.len());
        Err(Failure::new(edgegen_status::WRONG_SIZE, message))
    }
}

/// Arrays by their names, without allocating.
///
/// # Safety
/// C's promise, for `'a`.
pub(super) unsafe fn named<'a>(
    first: *const edgegen_condition,
    count: usize,
    what: &'a str,
) -> Result<impl Iterator<Item = (&'a str, &'a [f32])>, Failure> {
    // SAFETY: the caller's promise.
    let all: &[edgegen_condition] = if count == 0 { &[] } else { unsafe { array(first, count, what)? } };
    let read = move |one: &'a edgegen_condition| -> Result<(&'a str, &'a [f32]), Failure> {
        // SAFETY: the caller's promise.
        let name = unsafe { text(one.name, what)? };
        let name = name.ok_or_else(|| Failure::null(&format!("a name in {what}")))?;
        if one.values.is_null() {
            return Err(Failure::null(&format!("the values of {name} in {what}")));
        }
        // SAFETY: the caller's promise.
        Ok((name, unsafe { array(one.values, one.len, what)? }))
    };
    // all are looked at before the first is used
    all.iter().try_for_each(|one| read(one).map(drop))?;
    Ok(all.iter().filter_map(move |one| read(one).ok()))
}

/// # Safety
/// C's promise.
pub(super) unsafe fn builder(loaded: &Loaded, options: *const edgegen_options) -> Result<GeneratorBuilder, Failure> {
    let mut builder = loaded.model.generator();
    // SAFETY: C's promise.
    let Some(options) = (unsafe { given(options, "options")? }) else { return Ok(builder) };
    // SAFETY: C's promise.
    if let Some(name) = unsafe { text(options.sampler, "sampler")? } {
        builder = builder.sampler(name);
    }
    // SAFETY: C's promise.
    if let Some(name) = unsafe { text(options.spacing, "spacing")? } {
        builder = builder.spacing(Spacing::from_name(name)?);
    }
    // one that chooses its own steps takes no number of them, and here there is always one
    if !options.timesteps.is_null() {
        // SAFETY: C's promise.
        builder = builder.timesteps(unsafe { array(options.timesteps, options.num_timesteps, "timesteps")? });
    } else if !matches!(builder.settings()?.solver, Solver::Adaptive(_)) {
        builder = builder.steps(options.steps);
    }
    // SAFETY: C's promise.
    if let Some(mu) = unsafe { given(options.mu, "mu")? } {
        builder = builder.mu(*mu);
    }
    Ok(builder.guidance(options.guidance).threads(options.threads.max(1)))
}
