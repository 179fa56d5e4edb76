//! edgegen for Python: `edgegen.pyi` says what each function does.

mod policy;

use ::edgegen as native;
use native::config::{SchedulerConfig, Spacing};
use native::model::{self, Role, TimeAs};
use native::{Ending, ErrorKind, GeneratorBuilder, Hint, ModelOptions, Precision, Progress, Request};
use numpy::{PyArray1, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

pyo3::create_exception!(edgegen, EdgegenError, pyo3::exceptions::PyException);

fn raise(error: native::Error) -> PyErr {
    let message = match (error.message(), error.hint()) {
        (message, Some(Hint::SampleShape)) => format!("{message}: give sample_shape"),
        (message, Some(Hint::Schedule)) => {
            format!("{message}: put its scheduler_config.json beside it, or give it as scheduler_config")
        }
        (message, Some(Hint::Input(role))) => format!("{message}: name it in inputs, by its role {role}"),
        (message, Some(Hint::MaxMemory)) => format!("{message}: allow more by max_memory"),
        (message, Some(Hint::TimeAs)) => format!("{message}: say what it is told by time_as"),
        (message, Some(Hint::Class)) => format!("{message}: give class_"),
        (message, Some(Hint::ConditionShape(name))) => {
            format!("{message}: give the shape of '{name}' in condition_shapes")
        }
        (message, Some(Hint::Join)) => format!("{message}: say what it is in join"),
        (message, Some(Hint::LatentScale)) => format!("{message}: give it as scale"),
        (message, Some(Hint::Output)) => format!("{message}: name it as output"),
        (message, Some(Hint::Condition(name))) => format!("{message}: give '{name}' in conditions"),
        _ => error.to_string(),
    };
    match error.kind() {
        ErrorKind::InvalidArgument | ErrorKind::NotFinite | ErrorKind::WrongSize => PyValueError::new_err(message),
        ErrorKind::Io => PyOSError::new_err(message),
        _ => EdgegenError::new_err(message),
    }
}

/// An input of a network.
#[pyclass(frozen, get_all)]
struct Input {
    name: String,
    role: &'static str,
    shape: Py<PyTuple>,
    element_type: String,
}

/// What a run came to.
#[pyclass(frozen, get_all)]
struct Outcome {
    ending: &'static str,
    steps: usize,
    nfe: usize,
}

/// A loaded network.
#[pyclass(frozen)]
struct Model(native::Model);

/// A scheduler's configuration: a dict, the text of its JSON, or the path of its file.
fn scheduler_config(given: &Bound<'_, PyAny>) -> PyResult<SchedulerConfig> {
    let config = if given.is_instance_of::<PyDict>() {
        let text: String = given.py().import("json")?.call_method1("dumps", (given,))?.extract()?;
        SchedulerConfig::from_json(&text)
    } else {
        match given.extract::<String>() {
            Ok(text) if text.trim_start().starts_with('{') => SchedulerConfig::from_json(&text),
            _ => {
                let message = "scheduler_config must be a dict, JSON text or a path";
                let path = given.extract::<PathBuf>().map_err(|_| PyTypeError::new_err(message))?;
                SchedulerConfig::open(&path)
            }
        }
    };
    config.map_err(raise)
}

/// What is given of a model.
struct Given<'a, 'py> {
    scheduler_config: Option<&'a Bound<'py, PyAny>>,
    sample_shape: Option<Vec<usize>>,
    inputs: Option<&'a Bound<'py, PyDict>>,
    time_as: Option<&'a str>,
    output: Option<&'a str>,
    condition_shapes: Option<&'a Bound<'py, PyDict>>,
    join: Option<Vec<(String, Option<Vec<usize>>)>>,
    max_memory: Option<usize>,
    precision: &'a str,
}

impl Given<'_, '_> {
    fn options(self) -> PyResult<ModelOptions> {
        let precision = Precision::from_name(self.precision).map_err(raise)?;
        let mut options = ModelOptions::new().precision(precision);
        if let Some(bytes) = self.max_memory {
            options = options.max_memory(bytes);
        }
        if let Some(name) = self.time_as {
            options = options.time_as(TimeAs::from_name(name).map_err(raise)?);
        }
        if let Some(name) = self.output {
            options = options.output(name);
        }
        if let Some(given) = self.scheduler_config {
            options = options.scheduler_config(scheduler_config(given)?);
        }
        if let Some(shape) = self.sample_shape {
            options = options.sample_shape(shape);
        }
        for (role, name) in self.inputs.into_iter().flatten() {
            let role: String = role.extract()?;
            let role = Role::from_name(&role).ok_or_else(|| {
                PyValueError::new_err(format!("there is no role '{role}': give sample, time, next, class or condition"))
            })?;
            options = options.input(role, name.extract::<String>()?);
        }
        for (name, shape) in self.condition_shapes.into_iter().flatten() {
            options = options.condition_shape(name.extract::<String>()?, shape.extract::<Vec<usize>>()?);
        }
        for (name, shape) in self.join.into_iter().flatten() {
            options = match shape {
                Some(shape) => options.join(name, shape),
                None => options.join_rest(name),
            };
        }
        Ok(options)
    }
}

#[pymethods]
impl Model {
    #[new]
    #[pyo3(signature = (path, *, scheduler_config=None, sample_shape=None, inputs=None, time_as=None, output=None, condition_shapes=None, join=None, max_memory=None, precision="f32"))]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        scheduler_config: Option<&Bound<'_, PyAny>>,
        sample_shape: Option<Vec<usize>>,
        inputs: Option<&Bound<'_, PyDict>>,
        time_as: Option<&str>,
        output: Option<&str>,
        condition_shapes: Option<&Bound<'_, PyDict>>,
        join: Option<Vec<(String, Option<Vec<usize>>)>>,
        max_memory: Option<usize>,
        precision: &str,
    ) -> PyResult<Self> {
        let given = Given { scheduler_config, sample_shape, inputs, time_as, output, condition_shapes, join, max_memory, precision };
        let options = given.options()?;
        py.detach(|| options.open(path)).map(Model).map_err(raise)
    }

    #[staticmethod]
    #[pyo3(signature = (data, *, scheduler_config=None, sample_shape=None, inputs=None, time_as=None, output=None, condition_shapes=None, join=None, max_memory=None, precision="f32"))]
    fn from_bytes(
        data: &[u8],
        scheduler_config: Option<&Bound<'_, PyAny>>,
        sample_shape: Option<Vec<usize>>,
        inputs: Option<&Bound<'_, PyDict>>,
        time_as: Option<&str>,
        output: Option<&str>,
        condition_shapes: Option<&Bound<'_, PyDict>>,
        join: Option<Vec<(String, Option<Vec<usize>>)>>,
        max_memory: Option<usize>,
        precision: &str,
    ) -> PyResult<Self> {
        let given = Given { scheduler_config, sample_shape, inputs, time_as, output, condition_shapes, join, max_memory, precision };
        let options = given.options()?;
        options.read(data).map(Model).map_err(raise)
    }

    #[staticmethod]
    fn embedded() -> PyResult<Self> {
        native::Model::embedded().map(Model).map_err(raise)
    }

    #[getter]
    fn sample_shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.sample_shape())
    }

    #[getter]
    fn value_range(&self) -> (f32, f32) {
        self.0.value_range()
    }

    #[getter]
    fn classes(&self) -> Vec<String> {
        self.0.metadata().classes.clone()
    }

    #[getter]
    fn inputs(&self, py: Python<'_>) -> PyResult<Vec<Input>> {
        let input = |i: &model::Input| {
            let shape = PyTuple::new(py, &i.shape)?.unbind();
            Ok(Input { name: i.name.clone(), role: i.role.name(), shape, element_type: i.element_type() })
        };
        self.0.inputs().iter().map(input).collect()
    }

    #[getter]
    fn engine(&self) -> String {
        self.0.engine()
    }

    fn __repr__(&self) -> String {
        format!("<edgegen.Model of samples {:?}>", self.0.sample_shape())
    }
}

impl Model {
    /// The class that is asked for; `None` for "none", where no class is called that.
    fn class(&self, class: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
        let name = class.extract::<String>().or_else(|_| class.extract::<usize>().map(|i| i.to_string()));
        let name = name.map_err(|_| PyTypeError::new_err("class_ must be an index, a name or \"none\""))?;
        match self.0.class(&name) {
            Err(_) if name == "none" && self.0.takes_class() => Ok(None),
            class => class.map(Some).map_err(raise),
        }
    }
}

/// How samples are made; what is not given is what suits the model.
struct Sampling<'a> {
    steps: Option<usize>,
    sampler: Option<&'a str>,
    spacing: Option<&'a str>,
    timesteps: Option<Vec<f64>>,
    mu: Option<f64>,
    guidance: Option<f32>,
    threads: usize,
}

impl Sampling<'_> {
    fn builder(self, model: &native::Model) -> native::Result<GeneratorBuilder> {
        let mut builder = model.generator().threads(self.threads);
        if let Some(name) = self.sampler {
            builder = builder.sampler(name);
        }
        if let Some(name) = self.spacing {
            builder = builder.spacing(Spacing::from_name(name)?);
        }
        if let Some(steps) = self.steps {
            builder = builder.steps(steps);
        }
        if let Some(times) = self.timesteps {
            builder = builder.timesteps(times);
        }
        if let Some(mu) = self.mu {
            builder = builder.mu(mu);
        }
        if let Some(weight) = self.guidance {
            builder = builder.guidance(weight);
        }
        Ok(builder)
    }
}

/// Makes samples in memory of its own.
#[pyclass(frozen)]
struct Generator {
    model: Model,
    state: Mutex<State>,
}

struct State {
    generator: native::Generator,
    outcome: Option<native::Outcome>,
}

#[pymethods]
impl Generator {
    #[new]
    #[pyo3(signature = (model, *, steps=None, sampler=None, spacing=None, timesteps=None, mu=None, guidance=None, threads=1))]
    #[allow(clippy::too_many_arguments)] // they have names in Python
    fn new(
        model: &Model,
        steps: Option<usize>,
        sampler: Option<&str>,
        spacing: Option<&str>,
        timesteps: Option<Vec<f64>>,
        mu: Option<f64>,
        guidance: Option<f32>,
        threads: usize,
    ) -> PyResult<Self> {
        let build = || {
            let sampling = Sampling { steps, sampler, spacing, timesteps, mu, guidance, threads };
            let mut generator = sampling.builder(&model.0)?.build()?;
            generator.prepare()?;
            Ok(generator)
        };
        let state = Mutex::new(State { generator: build().map_err(raise)?, outcome: None });
        Ok(Generator { model: Model(model.0.clone()), state })
    }

    #[getter]
    fn sample_shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.model.0.sample_shape())
    }

    #[getter]
    fn outcome(&self) -> PyResult<Option<Outcome>> {
        Ok(self.state()?.outcome.map(|o| Outcome {
            ending: match o.ending {
                Ending::Complete => "complete",
                Ending::Deadline => "deadline",
                // a wheel's runs have no other way to end
                _ => "callback",
            },
            steps: o.steps,
            nfe: o.nfe,
        }))
    }

    #[pyo3(signature = (seed=0, index=0, *, class_=None, conditions=None, noise=None, init=None, strength=None, sigma=None, deadline=None, on_step=None, out=None))]
    #[allow(clippy::too_many_arguments)] // they have names in Python
    fn generate<'py>(
        &self,
        py: Python<'py>,
        seed: u64,
        index: u64,
        class_: Option<&Bound<'py, PyAny>>,
        conditions: Option<&Bound<'py, PyDict>>,
        noise: Option<&Bound<'py, PyAny>>,
        init: Option<&Bound<'py, PyAny>>,
        strength: Option<f64>,
        sigma: Option<f64>,
        deadline: Option<f64>,
        on_step: Option<Py<PyAny>>,
        out: Option<Bound<'py, PyArrayDyn<f32>>>,
    ) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
        let start = Instant::now();
        let shape = self.model.0.sample_shape();
        let class = class_.map(|class| self.model.class(class)).transpose()?;
        let conditions = named(conditions)?;
        let noise = noise.map(|a| numbers(a, shape, "noise")).transpose()?;
        let init = init.map(|a| numbers(a, shape, "init")).transpose()?;
        if (strength.is_some() && sigma.is_some()) || init.is_some() != (strength.is_some() || sigma.is_some()) {
            return Err(PyValueError::new_err("a sample to start from is given as init with either strength or sigma"));
        }
        let out = match out {
            Some(out) if out.shape() == shape => out,
            Some(out) => {
                let given = out.shape();
                return Err(PyValueError::new_err(format!("out must have the shape {shape:?}, but has {given:?}")));
            }
            None => PyArrayDyn::zeros(py, shape, false),
        };
        // what else writes to it would be told
        let mut writable =
            out.try_readwrite().map_err(|e| PyValueError::new_err(format!("out cannot be written: {e}")))?;
        let to = writable.as_slice_mut().map_err(|_| PyValueError::new_err("out must lie together in C's order"))?;
        let deadline = match deadline {
            None => None,
            Some(seconds) => {
                let after = Duration::try_from_secs_f64(seconds).map_err(|_| {
                    PyValueError::new_err(format!("the deadline must be seconds from 0, but is {seconds}"))
                })?;
                start.checked_add(after)
            }
        };

        let mut state = self.state()?;
        // kept for after the run: an error of the callback's ends it
        let mut raised = None;
        let mut report = |progress: Progress<'_>| match call(on_step.as_ref(), shape, progress) {
            Ok(flow) => flow,
            Err(error) => {
                raised = Some(error);
                ControlFlow::Break(())
            }
        };
        let State { generator, outcome } = &mut *state;
        let result = py.detach(|| {
            let mut request = Request::new(seed, index).on_step(&mut report);
            match class {
                Some(Some(class)) => request = request.class(class),
                Some(None) => request = request.without_class(),
                None => {}
            }
            for (name, values) in &conditions {
                request = request.condition(name, values);
            }
            if let Some(noise) = &noise {
                request = request.from_noise(noise);
            }
            match (&init, strength, sigma) {
                (Some(init), Some(strength), _) => request = request.near(init, strength),
                (Some(init), _, Some(sigma)) => request = request.from_noisy(init, sigma),
                _ => {}
            }
            if let Some(deadline) = deadline {
                request = request.deadline(deadline);
            }
            generator.run_into(&request, to)
        });
        if let Some(error) = raised {
            return Err(error);
        }
        *outcome = Some(result.map_err(raise)?);
        drop(writable);
        Ok(out)
    }
}

/// What a callback says of going on.
fn call(on_step: Option<&Py<PyAny>>, shape: &[usize], progress: Progress<'_>) -> PyResult<ControlFlow<()>> {
    Python::attach(|py| {
        // Ctrl-C ends a run
        py.check_signals()?;
        let Some(on_step) = on_step else { return Ok(ControlFlow::Continue(())) };
        let x0 = PyArray1::from_slice(py, progress.x0).reshape(shape)?;
        let ends = on_step.call1(py, (progress.step, progress.steps, x0))?.is_truthy(py)?;
        Ok(if ends { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })
}

/// An array's numbers, which must be of the shape.
fn numbers(values: &Bound<'_, PyAny>, shape: &[usize], what: &str) -> PyResult<Vec<f32>> {
    let (found, numbers) = array(values, what)?;
    if found != shape {
        return Err(PyValueError::new_err(format!("{what} must have the shape {shape:?}, but has {found:?}")));
    }
    Ok(numbers)
}

impl Generator {
    fn state(&self) -> PyResult<MutexGuard<'_, State>> {
        self.state.try_lock().map_err(|_| {
            PyRuntimeError::new_err("another call is using this generator, or failed in it: give each thread its own")
        })
    }
}

/// Makes pictures of samples that are latents.
#[pyclass(frozen)]
struct Decoder {
    sample_shape: Vec<usize>,
    decoder: Mutex<model::Decoder>,
}

#[pymethods]
impl Decoder {
    #[new]
    #[pyo3(signature = (path, model, *, scale=None, shift=None, threads=1, max_memory=None))]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        model: &Model,
        scale: Option<f64>,
        shift: Option<f64>,
        threads: usize,
        max_memory: Option<usize>,
    ) -> PyResult<Self> {
        let mut scaling = model::Scaling::new();
        (scaling.factor, scaling.shift) = (scale, shift);
        let sample_shape = model.0.sample_shape().to_vec();
        let open = || model::Decoder::open_with(path, &sample_shape, scaling, (threads, max_memory));
        let decoder = Mutex::new(py.detach(open).map_err(raise)?);
        Ok(Decoder { sample_shape, decoder })
    }

    #[getter]
    fn picture_shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.acquire()?.picture_shape())
    }

    fn decode<'py>(
        &self,
        py: Python<'py>,
        sample: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
        let sample = numbers(sample, &self.sample_shape, "sample")?;
        let mut acquired = self.acquire()?;
        // the lock stays with this thread while Python's is let go
        let decoder: &mut model::Decoder = &mut acquired;
        let shape = decoder.picture_shape().to_vec();
        let mut picture = vec![0.0; decoder.picture_len()];
        py.detach(|| decoder.decode(&sample, &mut picture)).map_err(raise)?;
        PyArray1::from_vec(py, picture).reshape(shape)
    }
}

impl Decoder {
    fn acquire(&self) -> PyResult<MutexGuard<'_, model::Decoder>> {
        self.decoder.try_lock().map_err(|_| {
            PyRuntimeError::new_err("another call is using this decoder, or failed in it: give each thread its own")
        })
    }
}

/// Conditions by their names.
fn named(conditions: Option<&Bound<'_, PyDict>>) -> PyResult<Vec<(String, Vec<f32>)>> {
    let mut named = Vec::new();
    for (name, values) in conditions.into_iter().flatten() {
        let name: String = name.extract()?;
        let values = numbers_of(&name, &values)?;
        named.push((name, values));
    }
    Ok(named)
}

/// The numbers of a condition: an array of any kind of numbers, a list, or a number.
fn numbers_of(name: &str, values: &Bound<'_, PyAny>) -> PyResult<Vec<f32>> {
    Ok(array(values, &format!("condition {name}"))?.1)
}

/// The shape and the numbers of whatever numpy makes an array of.
fn array(values: &Bound<'_, PyAny>, what: &str) -> PyResult<(Vec<usize>, Vec<f32>)> {
    let is_float = |values: &Bound<'_, PyAny>| {
        let array = values.extract::<PyReadonlyArrayDyn<'_, f32>>().ok()?;
        Some((array.shape().to_vec(), array.as_array().iter().copied().collect()))
    };
    // without a call of numpy, for loops in real time
    if let Some(found) = is_float(values) {
        return Ok(found);
    }
    let not_numbers = || PyTypeError::new_err(format!("{what} must be numbers: an array, a list or a number"));
    let array = values.py().import("numpy")?.call_method1("asarray", (values,)).map_err(|_| not_numbers())?;
    let kind: String = array.getattr("dtype")?.getattr("kind")?.extract()?;
    let as_kind = |name: &str| array.call_method1("astype", (name,));
    match kind.as_str() {
        "b" | "f" => is_float(&as_kind("float32")?).ok_or_else(not_numbers),
        "i" => {
            let array = as_kind("int64")?.extract::<PyReadonlyArrayDyn<'_, i64>>()?;
            let exact = array.as_array().iter().map(|v| exact(what, i128::from(*v))).collect::<PyResult<_>>()?;
            Ok((array.shape().to_vec(), exact))
        }
        "u" => {
            let array = as_kind("uint64")?.extract::<PyReadonlyArrayDyn<'_, u64>>()?;
            let exact = array.as_array().iter().map(|v| exact(what, i128::from(*v))).collect::<PyResult<_>>()?;
            Ok((array.shape().to_vec(), exact))
        }
        _ => Err(not_numbers()),
    }
}

/// A whole number as a float that is no other.
fn exact(what: &str, number: i128) -> PyResult<f32> {
    let float = number as f32;
    let message = || format!("{what} has {number}, which float32 cannot tell apart from its neighbours");
    (float as i128 == number).then_some(float).ok_or_else(|| PyValueError::new_err(message()))
}

/// Samples from a diffusion model, on the device itself.
#[pymodule]
fn edgegen(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    m.add("EdgegenError", m.py().get_type::<EdgegenError>())?;
    m.add_class::<Input>()?;
    m.add_class::<Outcome>()?;
    m.add_class::<Model>()?;
    m.add_class::<Generator>()?;
    m.add_class::<Decoder>()?;
    m.add_class::<policy::Policy>()?;
    m.add_class::<policy::Stats>()?;
    Ok(())
}
