//! Generators: making samples.

use super::handle::Exclusive;
use super::model::{Loaded, edgegen_model, get};
use super::status::{Failure, edgegen_error, edgegen_status, guarded};
use super::{Opaque, numbers, place, text};
use crate::condition::Condition;
use crate::config::Spacing;
use crate::sampler::{Control, Ending, Progress};
use crate::solver::Solver;
use crate::{Generator, Settings};
use std::ffi::{c_char, c_int, c_void};
use std::ops::ControlFlow;
use std::ptr;
use std::time::{Duration, Instant};

/// Makes samples, one at a time, in memory of its own. Give each thread its own: one that finds it in use is told
/// EDGEGEN_STATUS_BUSY.
pub struct edgegen_generator(Opaque);

/// A generator with the condition that requests are written into.
pub struct Prepared {
    generator: Generator,
    condition: Condition,
    takes_class: bool,
    classes: Option<usize>,
    len: usize,
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

/// What to make. All zeros stand for sample 0 of seed 0, of class 0 if the model has classes, without a deadline.
#[repr(C)]
pub struct edgegen_request {
    /// The seed. The sample depends on (seed, index), the model, the options and the conditions alone.
    pub seed: u64,
    /// The sample's number in the seed's run.
    pub index: u64,
    /// The class; less than 0 for the model's "no class". A model that takes no class does not look at it.
    pub class_index: i32,
    /// The other conditions. Those that are not given keep their values of the last request (zeros before the first).
    pub conditions: *const edgegen_condition,
    pub num_conditions: usize,
    /// Standard normal numbers to start from instead of the seed's; null for the seed's.
    pub noise: *const f32,
    pub noise_len: usize,
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
    // SAFETY: the caller's promise, here and in the functions below.
    unsafe {
        guarded(error, || {
            let settings = Settings::of(&get(model)?.model)?;
            if options.is_null() {
                return Err(Failure::null("options"));
            }
            let (sampler, spacing) = (ptr::null(), ptr::null());
            let Settings { steps, guidance, .. } = settings;
            options.write(edgegen_options { steps, sampler, spacing, guidance, threads: 1 });
            Ok(())
        })
    }
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
    unsafe {
        guarded(error, || {
            let loaded = get(model)?;
            let bytes = place(bytes, "bytes")?;
            *bytes = Generator::new(&loaded.model, &settings(loaded, options)?)?.memory_bytes();
            Ok(())
        })
    }
}

/// Makes a generator and does all that a first run would: allocates, touches every page, and runs a step. After this,
/// `edgegen_generate` neither allocates nor locks nor calls the system but for the clock, if the model has a plan and
/// the sampler is one of fixed steps; several threads also wake each other. `options` may be null. Free the generator with `edgegen_generator_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_prepare(
    model: *const edgegen_model,
    options: *const edgegen_options,
    generator: *mut *mut edgegen_generator,
    error: *mut edgegen_error,
) -> edgegen_status {
    unsafe {
        guarded(error, || {
            let to = place(generator, "generator")?;
            *to = ptr::null_mut();
            let loaded = get(model)?;
            let model = &loaded.model;
            let condition = model.blank_condition();
            let mut generator = Generator::new(model, &settings(loaded, options)?)?;
            generator.prepare(&condition)?;
            *to = Exclusive::new(Prepared {
                generator,
                condition,
                takes_class: model.takes_class(),
                classes: model.num_classes(),
                len: model.sample_shape().iter().product(),
            })
            .cast();
            Ok(())
        })
    }
}

/// Frees a generator and sets the caller's pointer to null. One that is in use stays, and the answer is EDGEGEN_STATUS_BUSY. Null, or
/// a pointer to null, is OK and does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_generator_free(
    generator: *mut *mut edgegen_generator,
    error: *mut edgegen_error,
) -> edgegen_status {
    unsafe {
        guarded(error, || {
            if generator.is_null() || (*generator).is_null() {
                return Ok(());
            }
            Exclusive::free((*generator).cast::<Exclusive<Prepared>>(), "generator")?;
            *generator = ptr::null_mut();
            Ok(())
        })
    }
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
    unsafe {
        guarded(error, || {
            let mut used = Exclusive::<Prepared>::acquire(generator.cast(), "generator")?;
            let prepared = used.get();
            let request = request.as_ref().ok_or_else(|| Failure::null("request"))?;
            if out.is_null() {
                return Err(Failure::null("out"));
            }
            if out_len != prepared.len || !out.is_aligned() {
                return Err(Failure::new(
                    edgegen_status::WRONG_SIZE,
                    format!("a sample of this model has {} floats, but out has room for {out_len}", prepared.len),
                ));
            }
            prepared.set_condition(request)?;
            let on_step = request.on_step;
            let mut report = |progress: Progress<'_>| {
                let Some(on_step) = on_step else { return ControlFlow::Continue(()) };
                let Progress { step, steps, x, x0 } = progress;
                let progress = edgegen_progress { step, steps, x: x.as_ptr(), x0: x0.as_ptr(), len: x.len() };
                // SAFETY: the caller's own function.
                match on_step(request.user, &progress) {
                    0 => ControlFlow::Continue(()),
                    _ => ControlFlow::Break(()),
                }
            };
            let mut control = Control { on_step: Some(&mut report), ..Default::default() };
            if request.deadline_us > 0 {
                // a deadline beyond what the clock counts is none
                control.deadline = start.checked_add(Duration::from_micros(request.deadline_us));
            }
            let Prepared { generator, condition, .. } = prepared;
            let (sample, result) = if request.noise.is_null() {
                generator.generate(request.seed, request.index, condition, &mut control)?
            } else {
                let noise = numbers(request.noise, request.noise_len, "noise")?;
                if noise.len() != out_len {
                    return Err(Failure::new(
                        edgegen_status::WRONG_SIZE,
                        format!("the noise must have {out_len} floats, but has {}", noise.len()),
                    ));
                }
                generator.generate_from(noise, request.seed, request.index, condition, &mut control)?
            };
            out.copy_from_nonoverlapping(sample.as_ptr(), sample.len());
            if !outcome.is_null() {
                outcome.write(edgegen_outcome {
                    ending: match result.ending {
                        Ending::Complete => edgegen_ending::COMPLETE,
                        Ending::Callback | Ending::Cancelled => edgegen_ending::CALLBACK,
                        Ending::Deadline => edgegen_ending::DEADLINE,
                    },
                    steps: result.steps,
                    nfe: result.nfe,
                });
            }
            Ok(())
        })
    }
}

impl Prepared {
    /// Writes a request's conditions into memory that is there already. Nothing of them is kept if one is wrong.
    ///
    /// # Safety
    /// The request's pointers are null or point to what they say.
    unsafe fn set_condition(&mut self, request: &edgegen_request) -> Result<(), Failure> {
        let class = usize::try_from(request.class_index).ok().filter(|_| self.takes_class);
        if let (Some(class), Some(classes)) = (class, self.classes)
            && class >= classes
        {
            return Err(Failure::new(
                edgegen_status::INVALID_ARGUMENT,
                format!("there is no class {class}: the model has {classes}"),
            ));
        }
        if request.num_conditions > 0 && (request.conditions.is_null() || !request.conditions.is_aligned()) {
            return Err(Failure::null("conditions"));
        }
        for write in [false, true] {
            for i in 0..request.num_conditions {
                // SAFETY: the caller's promise.
                let (name, values) = unsafe { read_condition(&*request.conditions.add(i))? };
                if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                    let message = format!("condition {name} must be finite, but element {i} is {}", values[i]);
                    return Err(Failure::new(edgegen_status::NOT_FINITE, message));
                }
                let place = self.place_for(name, values.len())?;
                if write {
                    place.copy_from_slice(values);
                }
            }
        }
        self.condition.class = class;
        Ok(())
    }

    fn place_for(&mut self, name: &str, len: usize) -> Result<&mut [f32], Failure> {
        if !self.condition.named.contains_key(name) {
            let names: Vec<&str> = self.condition.named.keys().map(String::as_str).collect();
            return Err(Failure::new(
                edgegen_status::INVALID_ARGUMENT,
                format!("the model takes no condition '{name}'; it takes: [{}]", names.join(", ")),
            ));
        }
        let place = self.condition.named.get_mut(name).expect("just found");
        if place.len() != len {
            let message = format!("condition {name} has {len} floats, but the model takes {}", place.len());
            return Err(Failure::new(edgegen_status::WRONG_SIZE, message));
        }
        Ok(place)
    }
}

/// # Safety
/// The pointers are null or point to what they say, and stay so for `'a`.
unsafe fn read_condition<'a>(condition: &edgegen_condition) -> Result<(&'a str, &'a [f32]), Failure> {
    // SAFETY: the caller's promise.
    let (name, values) = unsafe {
        let name = text(condition.name, "a condition's name")?;
        (name, numbers(condition.values, condition.len, "a condition's values")?)
    };
    Ok((name.ok_or_else(|| Failure::null("a condition's name"))?, values))
}

/// # Safety
/// Pointers are null or point to what they say.
unsafe fn settings(loaded: &Loaded, options: *const edgegen_options) -> Result<Settings, Failure> {
    let model = &loaded.model;
    // SAFETY: the caller's promise.
    let Some(options) = (unsafe { options.as_ref() }) else { return Ok(Settings::of(model)?) };
    // SAFETY: the caller's promise.
    let (sampler, spacing) = unsafe { (text(options.sampler, "sampler")?, text(options.spacing, "spacing")?) };
    let mut settings = match sampler {
        Some(name) => Settings::with_solver(model, Solver::from_name(name)?),
        None => Settings::of(model)?,
    };
    if let Some(name) = spacing {
        settings.spacing = Some(Spacing::from_name(name)?);
    }
    settings.steps = options.steps;
    settings.guidance = options.guidance;
    settings.threads = options.threads.max(1);
    Ok(settings)
}
