//! Models: opening them, and what can be asked of one.

use super::handle::{Handle, Handled};
use super::pointer::{array, free, given, place, text, told};
use super::status::{Failure, edgegen_error, edgegen_status, guarded};
use crate::config::SchedulerConfig;
use crate::model::{Model, ModelOptions, Precision, Role, TimeAs};
use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;
use std::ptr;

/// A loaded network: immutable, and shared by any number of generators and threads.
pub struct edgegen_model(());

/// A model with the strings that C may ask of it.
pub struct Loaded {
    pub(super) model: Model,
    engine: CString,
    inputs: Vec<(CString, CString)>,
    classes: Vec<CString>,
}

impl Handled for Loaded {
    const MARK: u64 = 0x6564_6765_6765_6e6d;
    const NAME: &str = "model";
}

/// The most dimensions that a shape has here.
pub const EDGEGEN_MAX_RANK: usize = 8;

/// What an input of a network is for.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum edgegen_role {
    /// The noisy sample.
    SAMPLE = 0,
    /// The time of the step.
    TIME = 1,
    /// A class' index: `class_index` of a request.
    CLASS = 2,
    /// Any other condition: given by its name in a request.
    CONDITION = 3,
    /// The time that a step leads to.
    NEXT = 4,
}

/// The shape of an array.
#[repr(C)]
pub struct edgegen_shape {
    /// What it belongs to.
    pub name: *const c_char,
    /// Its dimensions.
    pub shape: *const usize,
    /// The number of them.
    pub rank: usize,
}

/// How to read a model. All zeros stand for what the file says of itself.
#[repr(C)]
pub struct edgegen_model_options {
    /// The text (not the name) of a diffusers scheduler_config.json, for a model that has no noise schedule of its own.
    pub scheduler_config: *const c_char,
    /// One sample's shape, for a graph that leaves it open; null if it does not.
    pub sample_shape: *const usize,
    /// The number of its dimensions.
    pub sample_rank: usize,
    /// The names of the sample's, the time's and the class' input, if they cannot be told; else null. "none" for a network
    /// that takes no time, or no class.
    pub sample_input: *const c_char,
    pub time_input: *const c_char,
    pub class_input: *const c_char,
    /// The bytes that the model may take in all: its weights, what is made of them, and the memory that it runs in. 0 stands
    /// for 16 times the size of its files, and at least 1 GiB.
    pub max_memory: usize,
    /// What the network is told of the noise: "step", "alpha-bar", "gamma", "sigma", "log-snr", "unit" or
    /// "quarter-log-sigma"; null for what the model or its input's name says, else the training step.
    pub time_as: *const c_char,
    /// The name of the input that takes the time that a step leads to, of a network that takes both ends of a step; else null.
    pub next_input: *const c_char,
    /// The name of the output that is the prediction, of a network that has several and where it cannot be told; else null.
    pub output: *const c_char,
    /// The shapes of the arrays that are given for conditions, where the file leaves them open.
    pub condition_shapes: *const edgegen_shape,
    pub num_condition_shapes: usize,
    /// What the network takes in one input with its sample, in channels after the sample's: masks and pictures to go by.
    /// Requests give them as conditions of these names. One called "sample", of a null shape, is the sample's place among
    /// them; one of another name and a null shape takes all channels that the others leave.
    pub joins: *const edgegen_shape,
    pub num_joins: usize,
    /// What the model computes in: "f32", "f16" (values take half the room, and a CPU with FEAT_FP16 is faster) or "auto" (16
    /// bits on such a CPU); null for "f32".
    pub precision: *const c_char,
}

/// What a model is. Strings live as long as the model.
#[repr(C)]
pub struct edgegen_model_info {
    /// One sample's shape, such as 1, 28, 28: the first `sample_rank` of these.
    pub sample_shape: [usize; EDGEGEN_MAX_RANK],
    pub sample_rank: usize,
    /// The numbers of one sample, which is how many floats a buffer for it must hold.
    pub sample_len: usize,
    /// The number of inputs: see `edgegen_model_input`.
    pub inputs: usize,
    /// The number of classes that may be asked for; 0 if there are none, or the file does not say how many.
    pub classes: usize,
    /// Whether the model takes a class.
    pub takes_class: bool,
    /// The least and the greatest value of a sample, black and white of a picture.
    pub value_min: f32,
    pub value_max: f32,
    /// The number of stored weights.
    pub parameters: usize,
    /// Bytes of the packed weights, which all generators share; 0 if not known (`has_plan` is false).
    pub weight_bytes: usize,
    /// Whether calls of the network allocate nothing: they are run by a plan made when the model was opened.
    pub has_plan: bool,
    /// What runs the network, for a person.
    pub engine: *const c_char,
}

/// An input of a model. Its strings live as long as the model.
#[repr(C)]
pub struct edgegen_input {
    pub name: *const c_char,
    pub role: edgegen_role,
    /// Its shape: the first `rank` of these.
    pub shape: [usize; EDGEGEN_MAX_RANK],
    pub rank: usize,
    /// The number of its elements.
    pub len: usize,
    /// Its elements' type in the file, such as "F32" or "I64"; requests give floats whatever it is.
    pub element_type: *const c_char,
}

/// Opens the ONNX file at `path`. `options` may be null. A scheduler_config.json beside the file is read if there is
/// no other noise schedule. Free the model with `edgegen_model_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_model_open(
    path: *const c_char,
    options: *const edgegen_model_options,
    model: *mut *mut edgegen_model,
    error: *mut edgegen_error,
) -> edgegen_status {
    // SAFETY: C's promise.
    let error = unsafe { told(error) };
    guarded(error, || {
        // SAFETY: C's promise.
        let model = unsafe { place(model, "model")? };
        open(model, || {
            // SAFETY: C's promise.
            let path = unsafe { text(path, "path")? }.ok_or_else(|| Failure::null("path"))?;
            // SAFETY: C's promise.
            let options = unsafe { model_options(options)? };
            Ok(options.open(path)?)
        })
    })
}

/// Opens an ONNX model that is in memory, such as one linked into the firmware. The memory may be freed afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_model_from_memory(
    bytes: *const u8,
    len: usize,
    options: *const edgegen_model_options,
    model: *mut *mut edgegen_model,
    error: *mut edgegen_error,
) -> edgegen_status {
    // SAFETY: C's promise.
    let error = unsafe { told(error) };
    guarded(error, || {
        // SAFETY: C's promise.
        let model = unsafe { place(model, "model")? };
        open(model, || {
            // SAFETY: C's promise.
            let bytes = unsafe { array(bytes, len, "bytes")? };
            // SAFETY: C's promise.
            let options = unsafe { model_options(options)? };
            Ok(options.read(bytes)?)
        })
    })
}

/// Opens the model that is built into the library, which draws 28×28 garments of ten classes. It is there to try
/// things with; a library built without it answers EDGEGEN_STATUS_UNSUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_model_embedded(
    model: *mut *mut edgegen_model,
    error: *mut edgegen_error,
) -> edgegen_status {
    // SAFETY: C's promise.
    let error = unsafe { told(error) };
    guarded(error, || {
        // SAFETY: C's promise.
        let model = unsafe { place(model, "model")? };
        #[cfg(feature = "embedded-model")]
        return open(model, || Ok(Model::embedded()?));
        #[cfg(not(feature = "embedded-model"))]
        return open(model, || {
            Err(Failure::new(edgegen_status::UNSUPPORTED, "this library was built without a model in it"))
        });
    })
}

/// Frees a model and sets the caller's pointer to null. Generators made from it stay usable. Null, or a pointer to
/// null, is OK and does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_model_free(
    model: *mut *mut edgegen_model,
    error: *mut edgegen_error,
) -> edgegen_status {
    // SAFETY: C's promise.
    let error = unsafe { told(error) };
    // SAFETY: C's promise.
    guarded(error, || unsafe { free(model, |_: &Loaded| Ok(())) })
}

/// Says what a model is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_model_describe(
    model: *const edgegen_model,
    info: *mut edgegen_model_info,
    error: *mut edgegen_error,
) -> edgegen_status {
    // SAFETY: C's promise.
    let error = unsafe { told(error) };
    guarded(error, || {
        // SAFETY: C's promise.
        let loaded = unsafe { get(model)? };
        // SAFETY: C's promise.
        let info = unsafe { place(info, "info")? };
        let model = &loaded.model;
        let (sample_shape, sample_rank) = dimensions(model.sample_shape())?;
        let (value_min, value_max) = model.value_range();
        info.write(edgegen_model_info {
            sample_shape,
            sample_rank,
            sample_len: model.sample_shape().iter().product(),
            inputs: loaded.inputs.len(),
            classes: if model.takes_class() { model.num_classes().unwrap_or(0) } else { 0 },
            takes_class: model.takes_class(),
            value_min,
            value_max,
            parameters: model.parameters(),
            weight_bytes: model.weight_bytes().unwrap_or(0),
            has_plan: model.has_plan(),
            engine: loaded.engine.as_ptr(),
        });
        Ok(())
    })
}

/// Says what input number `index` of a model is, from 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_model_input(
    model: *const edgegen_model,
    index: usize,
    input: *mut edgegen_input,
    error: *mut edgegen_error,
) -> edgegen_status {
    // SAFETY: C's promise.
    let error = unsafe { told(error) };
    guarded(error, || {
        // SAFETY: C's promise.
        let loaded = unsafe { get(model)? };
        // SAFETY: C's promise.
        let input = unsafe { place(input, "input")? };
        let inputs = loaded.model.inputs();
        let of = inputs.get(index).ok_or_else(|| out_of_range("input", index, inputs.len()))?;
        let (name, element_type) = &loaded.inputs[index];
        let (dims, rank) = dimensions(&of.shape)?;
        let role = match of.role {
            Role::Sample => edgegen_role::SAMPLE,
            Role::Time => edgegen_role::TIME,
            Role::Class => edgegen_role::CLASS,
            Role::Condition => edgegen_role::CONDITION,
            Role::Next => edgegen_role::NEXT,
        };
        let (name, element_type) = (name.as_ptr(), element_type.as_ptr());
        let len = of.len();
        input.write(edgegen_input { name, role, shape: dims, rank, len, element_type });
        Ok(())
    })
}

/// Writes the name of class `index` of a model to `name`; it lives as long as the model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_model_class_name(
    model: *const edgegen_model,
    index: usize,
    name: *mut *const c_char,
    error: *mut edgegen_error,
) -> edgegen_status {
    // SAFETY: C's promise.
    let error = unsafe { told(error) };
    guarded(error, || {
        // SAFETY: C's promise.
        let classes = &unsafe { get(model)? }.classes;
        // SAFETY: C's promise.
        let name = unsafe { place(name, "name")? };
        name.write(classes.get(index).ok_or_else(|| out_of_range("class", index, classes.len()))?.as_ptr());
        Ok(())
    })
}

/// Writes the index of the class called `name`, in any case of letters, to `index`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_model_class_index(
    model: *const edgegen_model,
    name: *const c_char,
    index: *mut i32,
    error: *mut edgegen_error,
) -> edgegen_status {
    // SAFETY: C's promise.
    let error = unsafe { told(error) };
    guarded(error, || {
        // SAFETY: C's promise.
        let loaded = unsafe { get(model)? };
        // SAFETY: C's promise.
        let name = unsafe { text(name, "name")? }.ok_or_else(|| Failure::null("name"))?;
        // SAFETY: C's promise.
        let index = unsafe { place(index, "index")? };
        index.write(loaded.model.class(name)? as i32);
        Ok(())
    })
}

/// # Safety
/// As [`Handle::get`].
pub(super) unsafe fn get<'a>(model: *const edgegen_model) -> Result<&'a Loaded, Failure> {
    // SAFETY: the caller's promise.
    unsafe { Handle::get(model.cast()) }
}

fn out_of_range(what: &str, index: usize, count: usize) -> Failure {
    Failure::new(edgegen_status::INVALID_ARGUMENT, format!("there is no {what} {index}: the model has {count}"))
}

pub(super) fn dimensions(dims: &[usize]) -> Result<([usize; EDGEGEN_MAX_RANK], usize), Failure> {
    let mut shape = [0; EDGEGEN_MAX_RANK];
    let room = shape.get_mut(..dims.len()).ok_or_else(|| {
        Failure::new(edgegen_status::UNSUPPORTED, format!("a shape of {} dimensions is too long", dims.len()))
    })?;
    room.copy_from_slice(dims);
    Ok((shape, dims.len()))
}

/// Puts what `open` makes into `model`, which is null if there is none.
fn open(
    model: &mut MaybeUninit<*mut edgegen_model>,
    open: impl FnOnce() -> Result<Model, Failure>,
) -> Result<(), Failure> {
    let model = model.write(ptr::null_mut());
    let opened = open()?;
    // a name with a zero in it is cut there
    let c_string = |s: &str| CString::new(s.split('\0').next().unwrap_or_default()).expect("cut at the first zero");
    let inputs = opened.inputs().iter().map(|i| (c_string(&i.name), c_string(&i.element_type()))).collect();
    let classes = opened.metadata().classes.iter().map(|c| c_string(c)).collect();
    *model = Handle::new(Loaded { engine: c_string(&opened.engine()), inputs, classes, model: opened }).cast();
    Ok(())
}

/// # Safety
/// C's promise.
unsafe fn model_options(options: *const edgegen_model_options) -> Result<ModelOptions, Failure> {
    let mut read = ModelOptions::default();
    // SAFETY: C's promise.
    let Some(options) = (unsafe { given(options, "options")? }) else { return Ok(read) };
    // SAFETY: C's promise.
    if let Some(json) = unsafe { text(options.scheduler_config, "scheduler_config")? } {
        read = read.scheduler_config(SchedulerConfig::from_json(json)?);
    }
    if !options.sample_shape.is_null() {
        if options.sample_rank == 0 || options.sample_rank >= EDGEGEN_MAX_RANK {
            return Err(Failure::new(
                edgegen_status::WRONG_SIZE,
                format!("a sample of {} dimensions is not possible", options.sample_rank),
            ));
        }
        // SAFETY: C's promise.
        read = read.sample_shape(unsafe { array(options.sample_shape, options.sample_rank, "sample_shape")? });
    }
    for (role, name, what) in [
        (Role::Sample, options.sample_input, "sample_input"),
        (Role::Time, options.time_input, "time_input"),
        (Role::Class, options.class_input, "class_input"),
        (Role::Next, options.next_input, "next_input"),
    ] {
        // SAFETY: C's promise.
        if let Some(name) = unsafe { text(name, what)? } {
            read = read.input(role, name);
        }
    }
    // SAFETY: C's promise.
    if let Some(name) = unsafe { text(options.time_as, "time_as")? } {
        read = read.time_as(TimeAs::from_name(name)?);
    }
    // SAFETY: C's promise.
    if let Some(name) = unsafe { text(options.output, "output")? } {
        read = read.output(name);
    }
    // SAFETY: C's promise.
    let conditions = unsafe { shapes(options.condition_shapes, options.num_condition_shapes, "condition_shapes")? };
    for (name, dims) in conditions {
        read = read.condition_shape(name, dims.ok_or_else(|| Failure::null("a condition's shape"))?);
    }
    // SAFETY: C's promise.
    for (name, dims) in unsafe { shapes(options.joins, options.num_joins, "joins")? } {
        read = match dims {
            Some(dims) => read.join(name, dims),
            None => read.join_rest(name),
        };
    }
    if options.max_memory > 0 {
        read = read.max_memory(options.max_memory);
    }
    // SAFETY: C's promise.
    if let Some(name) = unsafe { text(options.precision, "precision")? } {
        read = read.precision(Precision::from_name(name)?);
    }
    Ok(read)
}

/// A name with its shape.
type NamedShape<'a> = (&'a str, Option<&'a [usize]>);

/// Names with their shapes, which are `None` where they are null.
///
/// # Safety
/// C's promise.
unsafe fn shapes<'a>(first: *const edgegen_shape, count: usize, what: &str) -> Result<Vec<NamedShape<'a>>, Failure> {
    if count == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: C's promise.
    let all = unsafe { array(first, count, what)? };
    let read = |of: &'a edgegen_shape| {
        // SAFETY: C's promise.
        let name = unsafe { text(of.name, what)? }.ok_or_else(|| Failure::null("the name of a shape"))?;
        if of.shape.is_null() {
            return Ok((name, None));
        }
        if of.rank > EDGEGEN_MAX_RANK {
            let message = format!("a shape of {} dimensions is too long", of.rank);
            return Err(Failure::new(edgegen_status::UNSUPPORTED, message));
        }
        // SAFETY: C's promise.
        Ok((name, Some(unsafe { array(of.shape, of.rank, what)? })))
    };
    all.iter().map(read).collect()
}
