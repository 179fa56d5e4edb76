//! A model with the state to run it.

use super::engine::Engine;
use super::input::{Input, check_condition, label, unbound, write_one_hot};
use super::role::Role;
use super::time::TimeAs;
use super::tract::TractState;
use crate::condition::Condition;
use crate::guard::guarded;
use crate::network::{Network, one_time};
use crate::schedule::Level;
use crate::{Error, ErrorKind, Result};
use std::sync::Arc;

/// A [`Model`](super::Model) with the state to run it, for one caller. Nothing is allocated after the first use of each
/// slot, where a plan runs the network.
pub struct ModelNetwork {
    state: State,
    inputs: Arc<[Input]>,
    sample_shape: Arc<[usize]>,
    null_class: Option<usize>,
    /// Room for the class as a number for each, if the network takes it so.
    one_hot: Vec<f32>,
    /// What the network is told of the noise, and the training steps of its schedule.
    time: (TimeAs, usize),
    /// The numbers of a prediction: those of a sample, unless this is a decoder.
    result_len: usize,
    /// What it is told of where the step leads, once that is known.
    next: Option<f64>,
    /// The rows of the sample that are clean, and what it is told of them.
    clean: (usize, f64),
    /// The most rows that it was trained to be given clean, where the file says so.
    longest: Option<usize>,
    /// Whether it gives a variance beside each prediction.
    has_variance: bool,
}

/// What changes while a network runs.
enum State {
    Plan {
        engine: Arc<Engine>,
        workspace: Box<exec::Workspace>,
        /// The class that is bound to each slot; 0 for a network that takes none.
        classes: Vec<Option<usize>>,
    },
    Tract(Box<TractState>),
}

impl ModelNetwork {
    pub(super) fn new(
        engine: Arc<Engine>,
        inputs: Arc<[Input]>,
        sample_shape: Arc<[usize]>,
        null_class: Option<usize>,
        time: (TimeAs, usize),
        threads: usize,
    ) -> Result<Self> {
        if threads == 0 {
            return Err(Error::invalid("a call needs at least 1 thread"));
        }
        let state = match &*engine {
            Engine::Plan(plan) => {
                let workspace = plan
                    .shared_workspace(threads)
                    .map_err(|e| Error::new(ErrorKind::Io, format!("{threads} threads cannot be started: {e}")))?;
                State::Plan { engine: engine.clone(), workspace: Box::new(workspace), classes: Vec::new() }
            }
            Engine::Tract(tract) => State::Tract(Box::new(tract.state(&inputs)?)),
        };
        let result_len = engine.result_len();
        let one_hot = vec![0.0; inputs.iter().find(|i| i.is_one_hot()).map_or(0, Input::len)];
        Ok(ModelNetwork {
            state,
            inputs,
            one_hot,
            sample_shape,
            null_class,
            time,
            result_len,
            next: None,
            clean: (0, 0.0),
            longest: None,
            has_variance: false,
        }
        .observing(0))
    }

    /// The same, of a model of which so many values are observed.
    pub(super) fn observing(self, count: usize) -> Self {
        let has_variance = match &self.state {
            State::Plan { workspace, .. } => workspace.observed().len() > count,
            State::Tract(_) => false,
        };
        ModelNetwork { has_variance, ..self }
    }

    /// The same, of a model that was trained to be given at most so many rows clean.
    pub(super) fn trained_with_prefix(self, longest: Option<usize>) -> Self {
        ModelNetwork { longest, ..self }
    }

    /// The values that were asked for with [`ModelOptions::observe`](super::ModelOptions::observe), in that order, as the latest
    /// prediction made them: their numbers in ONNX's order.
    pub fn observed(&self) -> &[Vec<f32>] {
        match &self.state {
            State::Plan { workspace, .. } => &workspace.observed()[usize::from(self.has_variance)..],
            State::Tract(_) => &[],
        }
    }

    /// The bytes that it works in, where they are known: not where tract runs it.
    pub(crate) fn memory_bytes(&self) -> usize {
        match &self.state {
            State::Plan { engine, workspace, .. } => {
                engine.plan().map_or(0, exec::Plan::workspace_bytes)
                    + workspace.bytes_of_other_threads()
                    + workspace.bytes_of_other_slots()
            }
            State::Tract(_) => 0,
        }
    }

    /// How often what depends on conditions alone was worked out.
    #[cfg(test)]
    pub(crate) fn bindings(&self) -> Option<u64> {
        match &self.state {
            State::Plan { workspace, .. } => Some(workspace.bindings()),
            State::Tract(_) => None,
        }
    }
}

/// That a check of the plan's own was not met: a mistake of this library.
fn failed() -> Error {
    Error::new(ErrorKind::Network, "the network failed an internal check")
}

impl Network for ModelNetwork {
    fn sample_shape(&self) -> &[usize] {
        &self.sample_shape
    }

    fn bind(&mut self, slot: usize, condition: &Condition) -> Result<()> {
        let (inputs, null_class) = (&self.inputs, self.null_class);
        match &mut self.state {
            State::Tract(tract) => tract.bind(inputs, null_class, slot, condition),
            State::Plan { engine, workspace, classes } => {
                let plan = engine.plan().expect("made for a plan");
                check_condition(inputs, null_class, condition)?;
                let class = match inputs.iter().find(|i| i.role == Role::Class) {
                    Some(input) => label(condition, null_class, input)?,
                    None => 0,
                };
                write_one_hot(class, &mut self.one_hot);
                if let Some(classes) = plan.classes().filter(|n| class >= *n) {
                    return Err(Error::invalid(format!("the model knows labels below {classes}, not {class}")));
                }
                let conditions = inputs.iter().filter(|i| i.role == Role::Condition || i.is_one_hot());
                let one_hot = self.one_hot.as_slice();
                let conditions =
                    conditions.map(|input| condition.named.get(&input.name).map_or(one_hot, Vec::as_slice));
                guarded(|| plan.bind(workspace, slot, conditions)).ok_or_else(failed)?;
                if classes.len() <= slot {
                    classes.resize(slot + 1, None);
                }
                classes[slot] = Some(class);
                Ok(())
            }
        }
    }

    fn lead_to(&mut self, level: Level) {
        let (time, steps) = self.time;
        self.next = Some(time.of_end(level, steps));
    }

    fn hold_clean(&mut self, rows: usize, level: Level) -> Result<()> {
        let of_rows = |i: &&Input| matches!(i.role, Role::Time | Role::Next) && i.len() != self.sample_shape[0];
        let takes_time = self.inputs.iter().any(|i| i.role == Role::Time);
        if rows > 0 && (!takes_time || self.sample_shape[0] == 1 || self.inputs.iter().find(of_rows).is_some()) {
            return Err(one_time());
        }
        if rows > 0 && matches!(self.state, State::Tract(_)) {
            return Err(Error::invalid("a part of a sample can be given clean only to a network with a plan"));
        }
        if let Some(longest) = self.longest.filter(|longest| rows > *longest) {
            let message = format!(
                "the network was trained with at most {longest} clean rows at its sample's beginning, not {rows}"
            );
            return Err(Error::invalid(message));
        }
        let (time, steps) = self.time;
        let told = time.of_end(level, steps);
        if rows > 0 && !told.is_finite() {
            let message =
                "the network cannot be told that a part of its sample is clean: by what it takes, that is no number";
            return Err(Error::invalid(message));
        }
        self.clean = (rows, told);
        Ok(())
    }

    fn variance(&self) -> Option<&[f32]> {
        match &self.state {
            State::Plan { workspace, .. } => {
                workspace.observed().first().filter(|_| self.has_variance).map(Vec::as_slice)
            }
            State::Tract(tract) => tract.variance(),
        }
    }

    fn time_of(&self, level: Level) -> f64 {
        let (time, steps) = self.time;
        time.of(level, steps)
    }

    fn predict(&mut self, x: &[f32], t: f64, slot: usize, out: &mut [f32]) -> Result<()> {
        let (len, result) = (self.sample_len(), self.result_len);
        if x.len() != len || out.len() != result {
            return Err(Error::invalid(format!(
                "a sample of this model has {len} numbers (shape {:?}), but the input has {} and the output {}{}",
                self.sample_shape,
                x.len(),
                out.len(),
                if result == len { String::new() } else { format!(" of {result}") }
            )));
        }
        let takes_next = self.inputs.iter().find(|i| i.role == Role::Next);
        let next = match (takes_next, self.next) {
            (None, _) => 0.0,
            (Some(_), Some(next)) => next,
            (Some(input), None) => {
                let message = format!(
                    "the network's input {} takes the time that a step leads to: use a sampler of fixed steps",
                    input.name
                );
                return Err(Error::invalid(message));
            }
        };
        if !(t.is_finite() && next.is_finite()) {
            let message =
                "the network is to be told of noise by a number that is not finite, as the log-SNR of a clean sample";
            return Err(Error::new(ErrorKind::NotFinite, message));
        }
        match &mut self.state {
            State::Tract(tract) => tract.predict(&self.inputs, (x, [t, next], slot), out),
            State::Plan { engine, workspace, classes } => {
                let plan = engine.plan().expect("made for a plan");
                let class = classes.get(slot).copied().flatten().ok_or_else(|| unbound(slot))?;
                // its bits are part of what is remembered
                let first = if self.clean.0 > 0 { self.clean } else { (0, 0.0) };
                guarded(|| plan.run(workspace, exec::At { x, t, next, class, slot, first }, out)).ok_or_else(failed)?;
                if plan.looks_up() && out.iter().any(|v| v.is_nan()) {
                    let what = "the network gave no numbers: perhaps one of its tables has no row for this time";
                    return Err(Error::new(ErrorKind::Network, what));
                }
                if plan.has_halves() && out.iter().any(|v| !v.is_finite()) {
                    let what = "the network gave no finite numbers: 16 bits may be too few for it; run it in f32";
                    return Err(Error::new(ErrorKind::NotFinite, what));
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::engine::plan;
    use super::super::file::File;
    use super::super::{Model, ModelOptions};
    use super::*;
    use crate::config::SchedulerConfig;
    use crate::network::Guided;
    use crate::noise::Noise;
    use ::onnx::budget::Budget;
    use ::onnx::fold::drop_quantization_but_of_weighted;
    use std::path::Path;

    /// What a plan for `isa` makes of the shipped model at some times.
    fn predictions(isa: exec::Isa, precision: exec::Precision, file: &File) -> Vec<u32> {
        let plan = plan(isa, file, &exec::Numbers::of(precision), &Budget::of_files()).unwrap();
        let sample = file.inputs.iter().find(|i| i.role == Role::Sample).unwrap();
        let mut x = vec![0.0; sample.shape.iter().product()];
        Noise::new(1, 0).fill(&mut x);
        let (mut workspace, mut out) = (plan.workspace(), vec![0.0; x.len()]);
        plan.bind(&mut workspace, 0, [].into_iter());
        let mut all = Vec::new();
        for t in [0.0, 321.5, 999.0] {
            plan.run(&mut workspace, exec::At { x: &x, t, class: 7, ..exec::At::default() }, &mut out);
            all.extend(out.iter().map(|v| v.to_bits()));
        }
        all
    }

    #[test]
    fn cpus_that_fuse_multiplication_and_addition_give_the_same_bits() {
        for name in ["fashion-mnist.onnx", "fashion-mnist.int8.onnx"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name);
            let bytes = std::fs::read(path).unwrap().into();
            let mut file = File::read(bytes, None, &ModelOptions::new(), &Budget::of_files()).unwrap();
            drop_quantization_but_of_weighted(file.graph());
            let mut kinds = exec::Isa::available();
            // it rounds products before it adds them
            kinds.retain(|isa| !isa.is_portable());
            let of_each: Vec<Vec<u32>> =
                kinds.iter().map(|isa| predictions(*isa, exec::Precision::F32, &file)).collect();
            for (isa, bits) in kinds.iter().zip(&of_each) {
                let different = bits.iter().zip(&of_each[0]).filter(|(a, b)| a != b).count();
                assert_eq!(different, 0, "{name}: {isa:?} and {:?} differ", kinds[0]);
            }
        }
    }

    #[test]
    fn cpus_that_compute_in_16_bits_give_the_pinned_bits() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fashion-mnist.onnx");
        let file = File::read(std::fs::read(path).unwrap().into(), None, &ModelOptions::new(), &Budget::of_files());
        let file = file.unwrap();
        let isa = exec::Isa::detect();
        if isa.is_portable() {
            return eprintln!("what is in 32 bits is rounded otherwise on this CPU");
        }
        let float = |bits: &u32| f64::from(f32::from_bits(*bits));
        let exact = predictions(isa, exec::Precision::F32, &file);
        // by software, and by FEAT_FP16 where the CPU has it
        for isa in [isa.emulating_halves(), isa] {
            if !isa.computes_in_halves() {
                continue;
            }
            let bits = predictions(isa, exec::Precision::F16, &file);
            let error: f64 = bits.iter().zip(&exact).map(|(a, b)| (float(a) - float(b)).powi(2)).sum();
            let error = (error / bits.len() as f64).sqrt();
            assert!(error < 0.01, "{error} where the result is 0.8");
            let bytes = bits.iter().flat_map(|v| v.to_le_bytes());
            let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
            assert_eq!(hash, 0xb0a5_00c5_11b1_77c6, "{isa:?}: {hash:#x}, {error}");
        }
    }

    /// Every model that comes with the sources and has a plan, but those whose weights lie in other files.
    fn models() -> Vec<(String, Model)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut all = Vec::new();
        for folder in ["models", "tests/fixtures/exports"] {
            for entry in std::fs::read_dir(root.join(folder)).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                let mut bytes = std::fs::read(&path).unwrap_or_default();
                if name.ends_with(".gz") {
                    let mut unpacked = Vec::new();
                    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*bytes), &mut unpacked).unwrap();
                    bytes = unpacked;
                } else if !name.ends_with(".onnx") {
                    continue;
                }
                let model = ModelOptions::new().scheduler_config(SchedulerConfig::default()).read(&bytes);
                all.extend(model.ok().filter(Model::has_plan).map(|model| (name, model)));
            }
        }
        all
    }

    fn plans() -> Vec<(String, exec::Plan)> {
        models().into_iter().map(|(name, model)| (name, model.plan().expect("it has one").clone())).collect()
    }

    #[test]
    fn what_depends_on_conditions_alone_is_worked_out_once_a_run_for_each_half_of_guidance() {
        let (_, model) = models().into_iter().find(|(name, _)| name == "conditional_unet1d.ts20.onnx.gz").unwrap();
        let input = model.inputs().iter().find(|i| i.role == Role::Condition).unwrap();
        let mut network = Guided::new(model.network().unwrap(), 2.0).unwrap();
        let (x, mut out) = (vec![0.5; network.sample_len()], vec![0.0; network.sample_len()]);
        let mut run = |value: f32| {
            network.bind(0, &Condition::default().with(&input.name, vec![value; input.len()])).unwrap();
            for t in [900.0, 700.0, 500.0, 300.0, 100.0] {
                network.predict(&x, t, 0, &mut out).unwrap();
            }
            network.inner().bindings()
        };
        // the conditional half and the unconditional one
        assert_eq!(run(0.5), Some(2));
        // nothing has changed
        assert_eq!(run(0.5), Some(2));
        // the unconditional half is the same: zeros
        assert_eq!(run(0.25), Some(3));
    }

    #[test]
    fn any_number_of_threads_makes_the_same_bits() {
        let plans = plans();
        assert!(plans.len() > 10, "{}", plans.len());
        for (name, plan) in plans {
            // small steps too
            let plan = plan.sharing_small_steps(4);
            let len = plan.sample_len();
            let run = |w: &mut exec::Workspace| {
                let conditions: Vec<Vec<f32>> = plan.conditions().iter().map(|len| vec![0.5; *len]).collect();
                plan.bind(w, 0, conditions.iter().map(Vec::as_slice));
                let mut all = Vec::new();
                // the second call finds what the first left
                for t in [3.0, 700.0] {
                    let (mut x, mut out) = (vec![0.0; len], vec![f32::NAN; len]);
                    Noise::new(t as u64, 0).fill(&mut x);
                    plan.run(w, exec::At { x: &x, t, class: 1, ..exec::At::default() }, &mut out);
                    all.extend(out.into_iter().map(f32::to_bits));
                }
                all
            };
            let alone = run(&mut plan.workspace());
            for threads in [2, 3, 4] {
                let mut w = plan.shared_workspace(threads).unwrap();
                assert!(run(&mut w) == alone, "{name} with {threads} threads");
            }
        }
    }

    #[test]
    fn slots_keep_what_their_conditions_came_to() {
        let mut with_conditions = 0;
        for (name, plan) in plans().into_iter().filter(|(_, plan)| !plan.conditions().is_empty()) {
            with_conditions += 1;
            let mut x = vec![0.0; plan.sample_len()];
            Noise::new(5, 0).fill(&mut x);
            let conditions = |value: f32| -> Vec<Vec<f32>> {
                let of = |len: &usize| (0..*len).map(|i| value * (i as f32 + 1.0).sin()).collect();
                plan.conditions().iter().map(of).collect()
            };
            let bind = |w: &mut exec::Workspace, slot: usize, value: f32| {
                plan.bind(w, slot, conditions(value).iter().map(Vec::as_slice));
            };
            let run = |w: &mut exec::Workspace, slot: usize, t: f64| -> Vec<u32> {
                let mut out = vec![f32::NAN; x.len()];
                plan.run(w, exec::At { x: &x, t, slot, ..exec::At::default() }, &mut out);
                out.into_iter().map(f32::to_bits).collect()
            };
            // each by itself, in a fresh work space
            let alone = |value: f32, t: f64| {
                let mut w = plan.workspace();
                bind(&mut w, 0, value);
                run(&mut w, 0, t)
            };
            let mut w = plan.workspace();
            bind(&mut w, 0, 0.5);
            bind(&mut w, 1, 0.0);
            // the second round finds the times remembered
            for t in [700.0, 3.0, 700.0, 3.0] {
                assert!(run(&mut w, 0, t) == alone(0.5, t), "{name}: slot 0 at {t}");
                assert!(run(&mut w, 1, t) == alone(0.0, t), "{name}: slot 1 at {t}");
            }
            assert_ne!(run(&mut w, 0, 3.0), run(&mut w, 1, 3.0), "{name}: the condition has no effect");
            // conditions that are there already are not worked out again
            bind(&mut w, 0, 0.5);
            assert_eq!(w.bindings(), 2, "{name}");
            bind(&mut w, 0, 0.25);
            assert_eq!(w.bindings(), 3, "{name}");
            assert!(run(&mut w, 0, 3.0) == alone(0.25, 3.0), "{name}: bound anew");
        }
        assert!(with_conditions > 3, "{with_conditions}");
    }

    #[test]
    fn borders_go_with_the_step_after_them() {
        let (_, plan) = plans().into_iter().find(|(name, _)| name == "fashion-mnist.int8.onnx").unwrap();
        let (beside, borders) = plan.borders_beside();
        assert!(beside > 10 && beside < borders, "{beside} of {borders}");
    }
}
