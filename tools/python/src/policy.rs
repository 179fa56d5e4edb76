//! A policy in a control loop.

use super::{Model, Sampling, numbers_of, raise};
use ::edgegen as native;
use native::policy::{Action, Chunking, Jacobian, Joint, Observation, PolicyBuilder, Timing, WhenDry};
use numpy::{PyArray1, PyReadonlyArrayDyn};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// What the control steps so far came to.
#[pyclass(frozen, get_all)]
pub struct Stats {
    steps: u64,
    plans: u64,
    discarded: u64,
    cut_short: u64,
    missed: u64,
    failed: u64,
    dropped: u64,
    stale: u64,
    late: u64,
    waiting: u64,
    dry: u64,
    delay: usize,
    longest_delay: usize,
    plan_time: f64,
    longest_plan_time: f64,
}

#[pymethods]
impl Stats {
    fn __repr__(&self) -> String {
        let Stats { steps, plans, discarded, cut_short, missed, failed, dropped, stale, late, waiting, dry, .. } = self;
        format!(
            "Stats(steps={steps}, plans={plans}, discarded={discarded}, cut_short={cut_short}, missed={missed}, \
             failed={failed}, dropped={dropped}, stale={stale}, late={late}, waiting={waiting}, dry={dry}, \
             delay={}, longest_delay={}, plan_time={:.6}, longest_plan_time={:.6})",
            self.delay, self.longest_delay, self.plan_time, self.longest_plan_time
        )
    }
}

/// A policy in a control loop.
#[pyclass(frozen)]
pub struct Policy(Mutex<Running>);

struct Running {
    policy: native::Policy,
    /// Of the latest control step.
    state: Option<&'static str>,
    plan: Option<u64>,
    place: usize,
}

/// A condition, and the arrays that it is made of, with their lengths.
type Parts = (String, Vec<(String, usize)>);

/// What is given of how a policy is run, beside how its plans are sampled.
struct Given<'a, 'py> {
    timing: (&'a str, usize),
    joint: (&'a str, &'a str, f64),
    when_dry: Option<&'a Bound<'py, PyAny>>,
    budget: Option<f64>,
    conditions: Option<&'a Bound<'py, PyDict>>,
    observed_as: Option<Vec<Parts>>,
    lerobot_config: Option<&'a str>,
}

impl Given<'_, '_> {
    fn settings(self, mut settings: PolicyBuilder) -> PyResult<PolicyBuilder> {
        let (timing, delay) = self.timing;
        settings = settings.timing(match (timing, delay) {
            ("simulated", delay) => Timing::Simulated { delay },
            ("waiting", delay) => Timing::Waiting { delay },
            ("synchronous", 0) => Timing::Synchronous,
            ("asynchronous", 0) => Timing::Asynchronous,
            ("synchronous" | "asynchronous", _) => {
                return Err(PyValueError::new_err("delay is for the timings simulated and waiting"));
            }
            _ => {
                return Err(PyValueError::new_err(format!(
                    "there is no timing '{timing}': give synchronous, asynchronous, simulated or waiting"
                )));
            }
        });
        let (joint, jacobian, most) = self.joint;
        let jacobian = match jacobian {
            "diagonal" => Jacobian::Diagonal,
            "difference" => Jacobian::Difference,
            other => {
                return Err(PyValueError::new_err(format!(
                    "there is no jacobian '{other}': give diagonal or difference"
                )));
            }
        };
        settings = settings.joint(match joint {
            "switch" => Joint::Switch,
            "inpaint" => Joint::Inpaint,
            "prefix" => Joint::Prefix,
            "chunk" => {
                let mut chunking = Chunking::default();
                (chunking.jacobian, chunking.most) = (jacobian, most);
                Joint::Chunk(chunking)
            }
            other => {
                return Err(PyValueError::new_err(format!(
                    "there is no joint '{other}': give switch, inpaint, chunk or prefix"
                )));
            }
        });
        if let Some(given) = self.when_dry {
            settings = settings.when_dry(match given.extract::<String>().as_deref() {
                Ok("hold") => WhenDry::Hold,
                Ok("error") => WhenDry::Error,
                Ok(other) => {
                    let message = format!("when_dry must be 'hold', 'error' or the safe action, not '{other}'");
                    return Err(PyValueError::new_err(message));
                }
                Err(_) => WhenDry::Safe(measured("when_dry", given)?),
            });
        }
        if let Some(seconds) = self.budget {
            let budget = Duration::try_from_secs_f64(seconds);
            let wrong = |_| PyValueError::new_err(format!("the budget must be seconds from 0, but is {seconds}"));
            settings = settings.budget(budget.map_err(wrong)?);
        }
        for (name, values) in self.conditions.into_iter().flatten() {
            let name: String = name.extract()?;
            let values = numbers_of(&name, &values)?;
            settings = settings.condition(name, values);
        }
        for (name, parts) in self.observed_as.into_iter().flatten() {
            let parts: Vec<(&str, usize)> = parts.iter().map(|(part, len)| (part.as_str(), *len)).collect();
            settings = settings.observed_as(name, &parts);
        }
        match self.lerobot_config {
            Some(text) => settings.lerobot_config(text).map_err(raise),
            None => Ok(settings),
        }
    }
}

#[pymethods]
impl Policy {
    #[new]
    #[pyo3(signature = (model, *, n_obs_steps=None, n_action_steps=None, first_action=None, timing="synchronous", delay=0, joint="switch", jacobian="difference", most_guidance=5.0, warm_start=None, ensemble=None, when_dry=None, stale_after=None, budget=None, expected_delay=None, seed=0, class_=None, conditions=None, observed_as=None, lerobot_config=None, steps=None, sampler=None, spacing=None, timesteps=None, mu=None, guidance=None, threads=1))]
    #[allow(clippy::too_many_arguments)] // they have names in Python
    fn new(
        py: Python<'_>,
        model: &Model,
        n_obs_steps: Option<usize>,
        n_action_steps: Option<usize>,
        first_action: Option<usize>,
        timing: &str,
        delay: usize,
        joint: &str,
        jacobian: &str,
        most_guidance: f64,
        warm_start: Option<f64>,
        ensemble: Option<f64>,
        when_dry: Option<&Bound<'_, PyAny>>,
        stale_after: Option<usize>,
        budget: Option<f64>,
        expected_delay: Option<usize>,
        seed: u64,
        class_: Option<&Bound<'_, PyAny>>,
        conditions: Option<&Bound<'_, PyDict>>,
        observed_as: Option<Vec<Parts>>,
        lerobot_config: Option<&str>,
        steps: Option<usize>,
        sampler: Option<&str>,
        spacing: Option<&str>,
        timesteps: Option<Vec<f64>>,
        mu: Option<f64>,
        guidance: Option<f32>,
        threads: usize,
    ) -> PyResult<Self> {
        let sampling = Sampling { steps, sampler, spacing, timesteps, mu, guidance, threads };
        let mut settings = sampling.builder(&model.0).map_err(raise)?.policy().seed(seed);
        let (timing, joint) = ((timing, delay), (joint, jacobian, most_guidance));
        let given = Given { timing, joint, when_dry, budget, conditions, observed_as, lerobot_config };
        settings = given.settings(settings)?;
        settings = n_obs_steps.into_iter().fold(settings, PolicyBuilder::n_obs_steps);
        settings = n_action_steps.into_iter().fold(settings, PolicyBuilder::n_action_steps);
        settings = first_action.into_iter().fold(settings, PolicyBuilder::first_action);
        settings = warm_start.into_iter().fold(settings, PolicyBuilder::warm_start);
        settings = ensemble.into_iter().fold(settings, PolicyBuilder::ensemble);
        settings = stale_after.into_iter().fold(settings, PolicyBuilder::stale_after);
        settings = expected_delay.into_iter().fold(settings, PolicyBuilder::expected_delay);
        settings = class_.map(|class| model.class(class)).transpose()?.flatten().into_iter().fold(settings, PolicyBuilder::class);
        let policy = py.detach(|| settings.build()).map_err(raise)?;
        Ok(Policy(Mutex::new(Running { policy, state: None, plan: None, place: 0 })))
    }

    #[pyo3(signature = (observation, *, age=0))]
    fn act<'py>(
        &self,
        py: Python<'py>,
        observation: Option<&Bound<'py, PyDict>>,
        age: usize,
    ) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let arrays = observed(observation)?;
        let mut running = self.running()?;
        let Running { policy, state, plan, place } = &mut *running;
        let acted = py.detach(|| {
            policy.act(&borrowed(arrays.as_deref(), age)).map(|Action { state, plan, place, .. }| (state, plan, place))
        });
        // after an error that let the step pass, too
        let (of, from, at) = acted.map_err(raise)?;
        (*state, *plan, *place) = (Some(of.name()), from, at);
        Ok(PyArray1::from_slice(py, policy.action()))
    }

    #[pyo3(signature = (observation, *, age=0))]
    fn prime(&self, py: Python<'_>, observation: &Bound<'_, PyDict>, age: usize) -> PyResult<()> {
        let arrays = observed(Some(observation))?;
        let mut running = self.running()?;
        let policy = &mut running.policy;
        py.detach(|| policy.prime(&borrowed(arrays.as_deref(), age))).map_err(raise)
    }

    fn reset(&self, seed: u64) -> PyResult<()> {
        let mut running = self.running()?;
        running.policy.reset(seed);
        (running.state, running.plan, running.place) = (None, None, 0);
        Ok(())
    }

    #[getter]
    fn action<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<f32>>> {
        Ok(PyArray1::from_slice(py, self.running()?.policy.action()))
    }

    #[getter]
    fn state(&self) -> PyResult<Option<&'static str>> {
        Ok(self.running()?.state)
    }

    #[getter]
    fn plan(&self) -> PyResult<Option<u64>> {
        Ok(self.running()?.plan)
    }

    #[getter]
    fn place(&self) -> PyResult<usize> {
        Ok(self.running()?.place)
    }

    #[getter]
    fn plan_shape(&self) -> PyResult<(usize, usize)> {
        let [horizon, width] = self.running()?.policy.plan_shape();
        Ok((horizon, width))
    }

    #[getter]
    fn stats(&self) -> PyResult<Stats> {
        let stats = self.running()?.policy.stats();
        Ok(Stats {
            steps: stats.steps,
            plans: stats.plans,
            discarded: stats.discarded,
            cut_short: stats.cut_short,
            missed: stats.missed,
            failed: stats.failed,
            dropped: stats.dropped,
            stale: stats.stale,
            late: stats.late,
            waiting: stats.waiting,
            dry: stats.dry,
            delay: stats.delay,
            longest_delay: stats.longest_delay,
            plan_time: stats.plan_time.as_secs_f64(),
            longest_plan_time: stats.longest_plan_time.as_secs_f64(),
        })
    }
}

impl Policy {
    fn running(&self) -> PyResult<MutexGuard<'_, Running>> {
        self.0.try_lock().map_err(|_| {
            PyRuntimeError::new_err("another call is using this policy, or failed in it: give each thread its own")
        })
    }
}

type Arrays = Vec<(String, Vec<f32>)>;

/// An observation's arrays; none for a missing one.
fn observed(observation: Option<&Bound<'_, PyDict>>) -> PyResult<Option<Arrays>> {
    let Some(observation) = observation else { return Ok(None) };
    let mut arrays = Vec::new();
    for (name, values) in observation {
        let name: String = name.extract()?;
        let values = measured(&name, &values)?;
        arrays.push((name, values));
    }
    Ok(Some(arrays))
}

/// The numbers of an array, which are rounded to float32: a measurement is no exact number, and numpy's floats are float64.
fn measured(name: &str, values: &Bound<'_, PyAny>) -> PyResult<Vec<f32>> {
    // without a call of numpy
    if let Ok(array) = values.extract::<PyReadonlyArrayDyn<'_, f64>>() {
        return Ok(array.as_array().iter().map(|v| *v as f32).collect());
    }
    numbers_of(name, values)
}

fn borrowed(arrays: Option<&[(String, Vec<f32>)]>, age: usize) -> Observation<'_> {
    let Some(arrays) = arrays else { return Observation::missing() };
    arrays.iter().fold(Observation::new().age(age), |seen, (name, values)| seen.with(name, values))
}
