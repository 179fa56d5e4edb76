//! edgegen for Python: `edgegen.pyi` says what each function does.

use ::edgegen as native;
use native::Condition;
use native::config::{SchedulerConfig, Spacing};
use native::model::Role;
use native::ModelOptions;
use native::network::self;
use native::{Ending, Progress};
use native::sampler::Control;
use native::schedule::Start;
use native::solver::Solver;
use native::{ErrorKind, Settings};
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
    let message = error.to_string();
    match error.kind() {
        ErrorKind::InvalidArgument | ErrorKind::NotFinite => PyValueError::new_err(message),
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
struct Model(network::Model);

fn options(
    scheduler_config: Option<&str>,
    sample_shape: Option<Vec<usize>>,
    inputs: Option<&Bound<'_, PyDict>>,
) -> PyResult<ModelOptions> {
    let scheduler = scheduler_config.map(SchedulerConfig::from_json).transpose().map_err(raise)?;
    let mut roles = Vec::new();
    for (role, name) in inputs.into_iter().flatten() {
        let role: String = role.extract()?;
        let role = Role::from_name(&role).ok_or_else(|| {
            PyValueError::new_err(format!("there is no role '{role}': give sample, time, class or condition"))
        })?;
        roles.push((role, name.extract()?));
    }
    Ok(ModelOptions { scheduler, sample_shape, roles, ..Default::default() })
}

#[pymethods]
impl Model {
    #[new]
    #[pyo3(signature = (path, *, scheduler_config=None, sample_shape=None, inputs=None))]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        scheduler_config: Option<&str>,
        sample_shape: Option<Vec<usize>>,
        inputs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let options = options(scheduler_config, sample_shape, inputs)?;
        py.detach(|| network::Model::open(path, &options)).map(Model).map_err(raise)
    }

    #[staticmethod]
    #[pyo3(signature = (data, *, scheduler_config=None, sample_shape=None, inputs=None))]
    fn from_bytes(
        data: &[u8],
        scheduler_config: Option<&str>,
        sample_shape: Option<Vec<usize>>,
        inputs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let options = options(scheduler_config, sample_shape, inputs)?;
        network::Model::from_bytes(data, &options).map(Model).map_err(raise)
    }

    #[staticmethod]
    fn embedded() -> PyResult<Self> {
        network::Model::embedded().map(Model).map_err(raise)
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
        let input = |i: &network::Input| {
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

/// Makes samples in memory of its own.
#[pyclass(frozen)]
struct Generator {
    model: network::Model,
    starts_near: bool,
    state: Mutex<State>,
}

struct State {
    generator: native::Generator,
    outcome: Option<native::Outcome>,
}

#[pymethods]
impl Generator {
    #[new]
    #[pyo3(signature = (model, *, steps=None, sampler=None, spacing=None, guidance=None, strength=None, threads=1))]
    fn new(
        model: &Model,
        steps: Option<usize>,
        sampler: Option<&str>,
        spacing: Option<&str>,
        guidance: Option<f32>,
        strength: Option<f64>,
        threads: usize,
    ) -> PyResult<Self> {
        let model = &model.0;
        let build = || {
            let mut settings = match sampler {
                Some(name) => Settings::with_solver(model, Solver::from_name(name)?),
                None => Settings::of(model)?,
            };
            if let Some(name) = spacing {
                settings.spacing = Some(Spacing::from_name(name)?);
            }
            settings.steps = steps.unwrap_or(settings.steps);
            settings.guidance = guidance.unwrap_or(settings.guidance);
            settings.start = strength.map_or(settings.start, Start::Strength);
            settings.threads = threads;
            let mut generator = native::Generator::new(model, &settings)?;
            generator.prepare(&model.blank_condition())?;
            Ok(generator)
        };
        let state = Mutex::new(State { generator: build().map_err(raise)?, outcome: None });
        Ok(Generator { model: model.clone(), starts_near: strength.is_some(), state })
    }

    #[getter]
    fn sample_shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.model.sample_shape())
    }

    #[getter]
    fn outcome(&self) -> PyResult<Option<Outcome>> {
        Ok(self.state()?.outcome.map(|o| Outcome {
            ending: match o.ending {
                Ending::Complete => "complete",
                Ending::Callback | Ending::Cancelled => "callback",
                Ending::Deadline => "deadline",
            },
            steps: o.steps,
            nfe: o.nfe,
        }))
    }

    #[pyo3(signature = (seed=0, index=0, *, class_=None, conditions=None, noise=None, init=None, deadline=None, on_step=None, out=None))]
    #[allow(clippy::too_many_arguments)] // they have names in Python
    fn generate<'py>(
        &self,
        py: Python<'py>,
        seed: u64,
        index: u64,
        class_: Option<&Bound<'py, PyAny>>,
        conditions: Option<&Bound<'py, PyDict>>,
        noise: Option<PyReadonlyArrayDyn<'py, f32>>,
        init: Option<PyReadonlyArrayDyn<'py, f32>>,
        deadline: Option<f64>,
        on_step: Option<Py<PyAny>>,
        out: Option<Bound<'py, PyArrayDyn<f32>>>,
    ) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
        let start = Instant::now();
        let shape = self.model.sample_shape();
        let condition = self.condition(class_, conditions)?;
        let noise = noise.map(|a| numbers(&a, shape, "noise")).transpose()?;
        let init = init.map(|a| numbers(&a, shape, "init")).transpose()?;
        if init.is_some() != self.starts_near {
            return Err(PyValueError::new_err(match self.starts_near {
                true => "this generator has a strength: give the sample to start from as init",
                false => "init needs a generator with a strength",
            }));
        }
        if init.is_some() && noise.is_some() {
            return Err(PyValueError::new_err("give init or noise, not both"));
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
        let mut writable = out.try_readwrite().map_err(|e| PyValueError::new_err(format!("out cannot be written: {e}")))?;
        let to = writable.as_slice_mut().map_err(|_| PyValueError::new_err("out must lie together in C's order"))?;
        let deadline = match deadline {
            None => None,
            Some(seconds) => {
                let after = Duration::try_from_secs_f64(seconds)
                    .map_err(|_| PyValueError::new_err(format!("the deadline must be seconds from 0, but is {seconds}")))?;
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
            let mut control = Control { on_step: Some(&mut report), deadline, ..Default::default() };
            let (sample, result) = match (&noise, &init) {
                (Some(noise), _) => generator.generate_from(noise, seed, index, &condition, &mut control)?,
                (_, Some(init)) => generator.generate_near(init, seed, index, &condition, &mut control)?,
                _ => generator.generate(seed, index, &condition, &mut control)?,
            };
            to.copy_from_slice(sample);
            Ok(result)
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
fn numbers(array: &PyReadonlyArrayDyn<'_, f32>, shape: &[usize], what: &str) -> PyResult<Vec<f32>> {
    if array.shape() != shape {
        return Err(PyValueError::new_err(format!("{what} must have the shape {shape:?}, but has {:?}", array.shape())));
    }
    Ok(array.as_array().iter().copied().collect())
}

impl Generator {
    fn state(&self) -> PyResult<MutexGuard<'_, State>> {
        self.state.try_lock().map_err(|_| {
            PyRuntimeError::new_err("another call is using this generator, or failed in it: give each thread its own")
        })
    }

    fn condition(
        &self,
        class: Option<&Bound<'_, PyAny>>,
        conditions: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Condition> {
        let mut condition = Condition::default();
        condition.class = match class {
            None if self.model.takes_class() && self.model.metadata().null_class.is_none() => Some(0),
            None => None,
            Some(class) => {
                let name = class.extract::<String>().or_else(|_| class.extract::<usize>().map(|i| i.to_string()));
                let name = name.map_err(|_| PyTypeError::new_err("class_ must be an index or a name"))?;
                Some(self.model.class(&name).map_err(raise)?)
            }
        };
        for (name, values) in conditions.into_iter().flatten() {
            let name: String = name.extract()?;
            let values = if let Ok(array) = values.extract::<PyReadonlyArrayDyn<'_, f32>>() {
                array.as_array().iter().copied().collect()
            } else if let Ok(number) = values.extract::<f32>() {
                vec![number]
            } else {
                return Err(PyTypeError::new_err(format!("condition {name} must be a float32 array or a number")));
            };
            condition.named.insert(name, values);
        }
        self.model.check_condition(&condition).map_err(raise)?;
        Ok(condition)
    }
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
    Ok(())
}
