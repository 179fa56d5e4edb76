//! The whole way from a seed to a sample, for ONNX models.

mod builder;
mod driver;
mod encoder;
mod settings;

pub use builder::GeneratorBuilder;
pub use encoder::Encoder;
pub use settings::Settings;

use crate::condition::Condition;
use crate::model::{Model, Role, no_condition};
use crate::network::{Network, Tiled};
use crate::noise::Noise;
use crate::request::{Class, From, Request};
use crate::sampler::{Control, Outcome, Progress, SLOT};
use crate::schedule::{Level, Schedule, Start};
use crate::solver::Program;
use crate::{Error, ErrorKind, Result};
use driver::Driver;
use std::ops::ControlFlow;

/// Makes samples from a model, one after the other, in buffers made once. For several threads, make one
/// a thread: they share the model.
///
/// Conditions are taken, and samples given, in the units of the model's data ([`Model::normalizer`]). What a request's
/// callback sees on the way, and what its constraint keeps to, is in the network's.
///
/// ```
/// # #[cfg(feature = "embedded-model")] {
/// use edgegen::{Model, Request};
///
/// let model = Model::embedded()?;
/// let mut generator = model.generator().steps(4).build()?;
/// let boot = Request::new(7, 0).class(model.class("Ankle boot")?);
/// let run = generator.run(&boot)?;
/// assert_eq!(run.sample.len(), 28 * 28);
/// assert_eq!(run.outcome.steps, 4);
/// # }
/// # Ok::<(), edgegen::Error>(())
/// ```
pub struct Generator {
    model: Model,
    settings: Settings,
    network: Box<dyn Network + Send>,
    network_bytes: usize,
    schedule: Schedule,
    driver: Driver,
    /// Where the driver's runs begin.
    start: Start,
    /// The condition in the network's units.
    condition: Condition,
    /// The sample to start from in the network's units.
    init: Vec<f32>,
    x: Vec<f32>,
}

/// A sample that was made.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Generated<'a> {
    /// The sample, in the units of the model's data. It stays until the generator's next run.
    pub sample: &'a [f32],
    /// What the run came to.
    pub outcome: Outcome,
}

impl Generator {
    /// A generator for `model` with these settings: see [`Model::generator`].
    ///
    /// # Errors
    /// When the settings are out of range or do not fit the model.
    pub fn new(model: &Model, settings: &Settings) -> Result<Self> {
        let schedule = Schedule::from_config(model.scheduler_config())?;
        let mut network = settings.network(model)?;
        // so that every buffer is there: runs under other conditions need no more
        let condition = model.blank_condition();
        network.bind(SLOT, &condition)?;
        let wrapped = network.inner();
        let network_bytes = network.memory_bytes() + wrapped.memory_bytes() + wrapped.inner().memory_bytes();
        let network: Box<dyn Network + Send> = match settings.tiling {
            None => Box::new(network),
            Some(_) if model.normalizer().sample.is_some() => {
                return Err(Error::invalid("a model with a normalization of its samples cannot be run on tiles"));
            }
            Some(tiling) => Box::new(Tiled::new(network, tiling)?),
        };
        let len = network.sample_len();
        let driver = settings.driver(model, &schedule, Start::Noise, len)?;
        if let Driver::Table(sampler) = &driver {
            if settings.tiling.is_some() && sampler.program().reads_variance() {
                return Err(Error::invalid(
                    "a learned variance is not put together from tiles: give variance_type fixed_small",
                ));
            }
            sampler.check_variance(&*network)?;
        }
        Ok(Generator {
            driver,
            model: model.clone(),
            settings: settings.clone(),
            network,
            network_bytes,
            schedule,
            start: Start::Noise,
            condition,
            init: vec![0.0; len],
            x: vec![0.0; len],
        })
    }

    /// Makes the sample that is asked for.
    ///
    /// A run allocates nothing where a plan runs the network ([`Model::has_plan`]) and the solver is one of fixed steps;
    /// but the first that starts from a sample, at each strength or σ, compiles the solver for where it starts.
    ///
    /// # Errors
    /// When the request contradicts itself, the settings or the model: two starts, a class for a model without classes, a
    /// condition that is missing, unknown or not of its length; when a number is not finite; when the network fails.
    pub fn run(&mut self, request: &Request) -> Result<Generated<'_>> {
        if request.several_starts {
            return Err(Error::invalid(
                "a run has one start: noise, a sample near which to make another, or a noisy one",
            ));
        }
        self.take_condition(request)?;
        let mut noise = Noise::new(request.seed, request.index);
        self.take_start(&request.start, &mut noise)?;
        // given back after the run, so that a request may be run again
        let (mut on_step, mut constraint) = (request.on_step.take(), request.constraint.take());
        let mut control = Control {
            on_step: on_step.as_deref_mut().map(|f| f as _),
            cancel: request.cancel,
            deadline: request.deadline,
            constraint: constraint.as_deref_mut().map(|c| c as _),
        };
        let outcome = self.drive(&mut noise, &mut control);
        request.on_step.replace(on_step);
        request.constraint.replace(constraint);
        let outcome = outcome?;
        self.model.normalizer().unnormalize(&mut self.x);
        Ok(Generated { sample: &self.x, outcome })
    }

    /// As [`run`](Generator::run), into `out`, which holds a sample's numbers.
    ///
    /// # Errors
    /// As there, and when `out` is of the wrong length; it is then as it was.
    pub fn run_into(&mut self, request: &Request, out: &mut [f32]) -> Result<Outcome> {
        if out.len() != self.x.len() {
            let message = format!("a sample has {} numbers, but there is room for {}", self.x.len(), out.len());
            return Err(Error::new(ErrorKind::WrongSize, message));
        }
        let Generated { sample, outcome } = self.run(request)?;
        out.copy_from_slice(sample);
        Ok(outcome)
    }

    /// Takes a request's class and conditions, in the network's units. The network checks the rest when they are bound.
    fn take_condition(&mut self, request: &Request) -> Result<()> {
        let inputs = self.model.inputs();
        let one_hot = || inputs.iter().filter(|i| i.is_one_hot());
        let is_known = |name: &str| self.condition.named.contains_key(name) || one_hot().any(|i| i.name == name);
        if let Some((unknown, _)) = request.conditions.iter().find(|(name, _)| !is_known(name)) {
            return Err(no_condition(inputs, unknown));
        }
        for input in inputs.iter().filter(|i| i.role == Role::Condition) {
            let values = request.conditions.get(&input.name)?.ok_or_else(|| input.missing())?;
            input.check_len(values.len())?;
            let held = self.condition.named.get_mut(&input.name).expect("a blank condition has every name");
            held.copy_from_slice(values);
        }
        // a class may be given as its numbers too
        for input in one_hot() {
            match request.conditions.get(&input.name)? {
                Some(values) => _ = self.condition.named.insert(input.name.clone(), values.to_vec()),
                None => _ = self.condition.named.remove(&input.name),
            }
        }
        let by_its_numbers = one_hot().any(|input| self.condition.named.contains_key(&input.name));
        self.condition.class = match request.class {
            Class::Index(class) => Some(class),
            Class::Drawn if !by_its_numbers => self.model.drawn_class(request.seed, request.index),
            Class::Drawn | Class::No => None,
        };
        self.model.normalizer().normalize_conditions(&mut self.condition.named);
        Ok(())
    }

    /// Fills x with what the run starts from, and sees that the driver starts there.
    fn take_start(&mut self, from: &From, noise: &mut Noise) -> Result<()> {
        let (start, given) = match *from {
            From::Seed => (Start::Noise, None),
            From::Noise(z) => (Start::Noise, Some((z, "noise"))),
            From::Sample(sample, strength) => (Start::Strength(strength), Some((sample, "sample to start from"))),
            From::Noisy(sample, sigma) => (Start::Sigma(sigma), Some((sample, "sample to start from"))),
        };
        if let Some((values, what)) = given
            && values.len() != self.x.len()
        {
            let (len, found) = (self.x.len(), values.len());
            let message = format!("the {what} must have {len} numbers, but has {found}");
            return Err(Error::new(ErrorKind::WrongSize, message));
        }
        // all of the noise, and nothing of the sample
        let start = if start == Start::Strength(1.0) { Start::Noise } else { start };
        if start != self.start {
            self.driver = self.settings.driver(&self.model, &self.schedule, start, self.x.len())?;
            self.start = start;
        }
        // even where it is not used: what a stochastic solver draws comes after it
        noise.fill(&mut self.x);
        match *from {
            From::Noise(z) => self.x.copy_from_slice(z),
            From::Sample(sample, _) | From::Noisy(sample, _) if start != Start::Noise => {
                self.init.copy_from_slice(sample);
                self.model.normalizer().normalize(&mut self.init);
                let level = self.first_level();
                // a noisy sample has its noise already
                let sigma = if matches!(from, From::Noisy(..)) { 0.0 } else { level.sigma };
                Level { sigma, ..level }.noise(&self.init, &mut self.x);
            }
            _ => {}
        }
        Ok(())
    }

    fn drive(&mut self, noise: &mut Noise, control: &mut Control) -> Result<Outcome> {
        let (network, condition, x) = (&mut *self.network, &self.condition, &mut self.x);
        match &mut self.driver {
            Driver::Table(sampler) => sampler.run(network, condition, noise, x, control),
            Driver::Adaptive(sampler) => sampler.run(network, &self.schedule, condition, noise, x, control),
        }
    }

    fn first_level(&self) -> Level {
        match &self.driver {
            Driver::Table(sampler) => sampler.program().first_level(),
            Driver::Adaptive(sampler) => sampler.ends().0,
        }
    }

    /// The shape of a sample: the model's, or with [`Settings::tiling`] a larger picture's.
    pub fn sample_shape(&self) -> &[usize] {
        self.network.sample_shape()
    }

    /// Does beforehand what a first run would: touches every buffer, so that the system has given all its pages, and
    /// takes one step, so that the code and the weights are in memory. After this, runs neither allocate nor call the
    /// system, where [`run`](Self::run) says so.
    ///
    /// # Errors
    /// When the network fails.
    pub fn prepare(&mut self) -> Result<()> {
        if let Driver::Table(sampler) = &mut self.driver {
            sampler.touch();
        }
        let blank = self.model.blank_condition();
        let mut stop = |_: Progress<'_>| ControlFlow::Break(());
        let request = Request::new(0, 0).conditions(&blank).on_step(&mut stop);
        self.run(&request)?;
        Ok(())
    }

    /// The bytes of the buffers that this has beside the model: the solver's registers and the network's work space,
    /// as far as it is known (not of networks that tract runs).
    pub fn memory_bytes(&self) -> usize {
        let driver = match &self.driver {
            Driver::Table(sampler) => sampler.memory_bytes(),
            // made anew in each run
            Driver::Adaptive(_) => 0,
        };
        size_of_val(&*self.x) + size_of_val(&*self.init) + driver + self.network_bytes
    }

    /// The table that is run, unless the solver chooses its own steps.
    pub fn program(&self) -> Option<&Program> {
        match &self.driver {
            Driver::Table(sampler) => Some(sampler.program()),
            Driver::Adaptive(_) => None,
        }
    }
}

#[cfg(all(test, feature = "embedded-model"))]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::constraint::Replacement;

    fn refused(generator: &mut Generator, request: &Request, kind: ErrorKind, words: &str) {
        let error = generator.run(request).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.kind(), kind, "{error}");
    }

    #[test]
    fn what_a_request_contradicts_is_refused() {
        use ErrorKind::{InvalidArgument, NotFinite, WrongSize};
        let model = Model::embedded().unwrap();
        let mut generator = model.generator().sampler("ddim").steps(2).build().unwrap();
        let len = generator.sample_shape().iter().product();
        fn asked<'a>() -> Request<'a> {
            Request::new(1, 0).class(3)
        }
        let (sample, infinite) = (vec![0.25f32; len], vec![f32::INFINITY; len]);
        let wrong = &mut generator;
        refused(wrong, &asked().from_noise(&sample).near(&sample, 0.5), InvalidArgument, "one start");
        refused(wrong, &asked().from_noise(&sample[1..]), WrongSize, "784 numbers, but has 783");
        refused(wrong, &asked().near(&sample[1..], 0.5), WrongSize, "784 numbers, but has 783");
        refused(wrong, &asked().near(&sample, 1.5), InvalidArgument, "strength");
        refused(wrong, &asked().from_noisy(&sample, 0.0), InvalidArgument, "noise to start from");
        refused(wrong, &asked().condition("goal", &[0.0]), InvalidArgument, "no condition 'goal'");
        refused(wrong, &Request::new(1, 0).class(99), InvalidArgument, "labels below");
        refused(wrong, &asked().from_noise(&infinite), NotFinite, "finite");
        assert_eq!(wrong.run_into(&asked(), &mut [0.0; 3]).unwrap_err().kind(), WrongSize);
        let error = model.generator().sampler("rk45").steps(5).build().err().unwrap().to_string();
        assert!(error.contains("chooses its own steps"), "{error}");
        let error = model.generator().unconditional("goal", [0.0]).guidance(2.0).build().err().unwrap().to_string();
        assert!(error.contains("no condition 'goal'"), "{error}");
        // none of these is left behind
        let clean = model.generator().sampler("ddim").steps(2).build().unwrap().run(&asked()).unwrap().sample.to_vec();
        assert_eq!(generator.run(&asked()).unwrap().sample, clean);
    }

    #[test]
    fn a_request_says_where_a_run_starts_and_may_be_run_again() {
        let model = Model::embedded().unwrap();
        let mut generator = model.generator().sampler("ddim").steps(4).build().unwrap();
        fn asked<'a>() -> Request<'a> {
            Request::new(5, 2).class(8)
        }
        let plain = generator.run(&asked()).unwrap().sample.to_vec();
        let mut noise = vec![0.0; plain.len()];
        Noise::new(5, 2).fill(&mut noise);
        assert_eq!(generator.run(&asked().from_noise(&noise)).unwrap().sample, plain);
        let (steps, known) = (std::cell::Cell::new(0), vec![true; plain.len()]);
        let mut count = |_: Progress<'_>| {
            steps.set(steps.get() + 1);
            ControlFlow::Continue(())
        };
        let mut kept = Replacement::new(&plain, &known).unwrap();
        // at strength 1 nothing is left of the sample
        let whole = asked().near(&plain, 1.0).on_step(&mut count);
        for _ in 0..2 {
            assert_eq!(generator.run(&whole).unwrap().sample, plain);
        }
        assert_eq!(steps.get(), 8);
        let half = generator.run(&asked().near(&plain, 0.5)).unwrap();
        assert_eq!(half.outcome.steps, 2);
        assert_ne!(half.sample, plain);
        let clean = generator.run(&asked().from_noisy(&plain, 0.1)).unwrap();
        assert!(clean.outcome.steps < 4);
        assert_eq!(generator.run(&asked().constraint(&mut kept)).unwrap().sample, plain);
        assert_eq!(generator.run(&asked()).unwrap().sample, plain);
    }
}
