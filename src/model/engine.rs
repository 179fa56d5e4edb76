//! What runs a network: a plan of our own where it covers the graph, else tract.

use super::file::File;
use super::input::Input;
use super::options::{ModelOptions, Precision};
use super::role::Role;
use super::tract::Tract;
use crate::Result;
use crate::error::{Hint, model_error};
use crate::noise::Noise;
use ::onnx::budget::Budget;
use ::onnx::fold::{
    drop_activation_quantization, drop_all_quantization, drop_quantization_but_of_weighted, round_16_bits_in_float,
    round_activations_in_float,
};
use ::onnx::mend::widen;
use ::onnx::pb::tensor_proto::DataType;
use ::onnx::{for_tract, signature};
use std::collections::BTreeMap;

/// What runs a network.
pub(super) enum Engine {
    /// A plan of our own, which covers the whole graph.
    Plan(Box<exec::Plan>),
    /// tract, where the build has it.
    Tract(Tract),
}

impl Engine {
    /// What runs the graph of `file`, and the steps or operators of a call, with how often each is.
    ///
    /// # Errors
    /// When nothing does.
    pub fn of(file: &mut File, options: &ModelOptions, budget: &Budget) -> Result<(Self, Vec<(String, usize)>)> {
        let isa = exec::Isa::detect();
        #[cfg(feature = "emulate-halves")]
        let isa = if isa.computes_in_halves() { isa } else { isa.emulating_halves() };
        let precision = prepare_numbers(isa, file, options);
        let mut planned = plan_without_overflow(isa, file, precision, budget);
        // shapes that are written for a batch: the sample is run in every place of it
        let mut repeated = file.repeated(budget);
        if let (Err(first), Some(repeated)) = (&planned, &repeated)
            && !matches!(first, exec::Reason::TooLarge(_))
        {
            budget.restore();
            match (plan_without_overflow(isa, repeated, precision, budget), first) {
                // at a batch of one, a graph for several contradicts itself
                (Err(second), exec::Reason::Malformed(_)) => planned = Err(second),
                (Err(_), _) => {}
                (plan, _) => planned = plan,
            }
        }
        let none = |why: &str| Err(model_error(format!("there is no f16 of this model, {why}: take f32 or auto")));
        match planned {
            Ok(plan) if options.precision == Precision::F16 && !plan.has_halves() => {
                none("which rounds to 8 bits as it runs or has no convolution, linear layer or attention")
            }
            Ok(plan) => {
                let names = count_names(plan.kernels());
                Ok((Engine::Plan(Box::new(plan)), names))
            }
            // another engine has no more memory
            Err(exec::Reason::TooLarge(reason)) => Err(model_error(reason).with_hint(Hint::MaxMemory)),
            Err(exec::Reason::Malformed(reason)) => Err(model_error(format!("the graph is malformed: {reason}"))),
            Err(reason) if options.precision == Precision::F16 => none(&format!("which has no plan ({reason})")),
            Err(reason) if !options.observed.is_empty() => Err(model_error(format!(
                "only a network with a plan can be observed, and this one has none ({reason})"
            ))),
            Err(reason) => {
                let reason = reason.to_string();
                let by_tract = tract(file, options, &reason, budget);
                match &mut repeated {
                    Some(repeated) => {
                        by_tract.or_else(|error| tract(repeated, options, &reason, budget).map_err(|_| error))
                    }
                    None => by_tract,
                }
            }
        }
    }

    /// What it is, for a person.
    pub fn describe(&self) -> String {
        match self {
            Engine::Plan(plan) => {
                let numbers = match plan.in_f32() {
                    _ if !plan.has_halves() => String::new(),
                    [] => " in 16 bits".into(),
                    kept => format!(" in 16 bits but for {}, which 16 bits do not hold", kept.join(", ")),
                };
                format!(
                    "plan of {} steps{numbers}, {:.2} MB of weights, {:.2} MB of work space a thread",
                    plan.kernels().count(),
                    plan.weight_bytes() as f64 / 1e6,
                    plan.workspace_bytes() as f64 / 1e6
                )
            }
            Engine::Tract(tract) => format!("tract ({})", tract.reason()),
        }
    }

    /// The numbers that it gives, of which those of the prediction come first.
    pub fn result_len(&self) -> usize {
        match self {
            Engine::Plan(plan) => plan.result_len(),
            Engine::Tract(tract) => tract.result_shape().iter().product(),
        }
    }

    pub fn plan(&self) -> Option<&exec::Plan> {
        match self {
            Engine::Plan(plan) => Some(plan),
            Engine::Tract(_) => None,
        }
    }
}

/// What the plan is to compute in, with the graph's rounding made such that it can.
fn prepare_numbers(isa: exec::Isa, file: &mut File, options: &ModelOptions) -> exec::Precision {
    let precision = options.precision.on(isa, file.rounds_activations());
    if options.exact_quantization {
        round_16_bits_in_float(file.graph());
        return precision;
    }
    if precision == exec::Precision::F16 {
        // what was stored in 8 bits is computed with in 16, if all of it is
        let as_it_is = file.graph().clone();
        drop_all_quantization(file.graph());
        if options.precision == Precision::F16 || !file.rounds_activations() {
            return precision;
        }
        *file.graph() = as_it_is;
    }
    // a fallback drops the rest
    drop_quantization_but_of_weighted(file.graph());
    exec::Precision::F32
}

/// What runs the graph of `file` by tract.
fn tract(
    file: &mut File,
    options: &ModelOptions,
    reason: &str,
    budget: &Budget,
) -> Result<(Engine, Vec<(String, usize)>)> {
    widen(file.graph());
    ::onnx::expand::work_out_blocks(file.graph()).map_err(model_error)?;
    if options.exact_quantization {
        round_activations_in_float(file.graph());
    } else {
        drop_activation_quantization(file.graph());
    }
    let opset = signature::opset(&file.proto).map_err(model_error)?;
    for_tract::prepare(file.graph(), opset).map_err(model_error)?;
    let (tract, names) = Tract::load(&file.proto, (&file.inputs, file.result), reason.into(), budget)?;
    Ok((Engine::Tract(tract), count_names(names.into_iter())))
}

/// A plan of our own, and where it is in 16 bits, one that keeps in 32 what proved too large for them, of noise at the first,
/// the last and the second of a thousand times, which is the last of those that are counted to one.
fn plan_without_overflow(
    isa: exec::Isa,
    file: &File,
    precision: exec::Precision,
    budget: &Budget,
) -> std::result::Result<exec::Plan, exec::Reason> {
    let mut numbers = exec::Numbers::of(precision);
    loop {
        let plan = plan(isa, file, &numbers, budget)?;
        if !plan.has_halves() {
            return Ok(plan);
        }
        let mut x = vec![0.0; plan.sample_len()];
        Noise::new(0, 0).fill(&mut x);
        let mut workspace = plan.workspace();
        let conditions: Vec<Vec<f32>> = plan.conditions().iter().map(|len| vec![0.0; *len]).collect();
        plan.bind(&mut workspace, 0, conditions.iter().map(Vec::as_slice));
        let times: &[f64] = if plan.looks_up() { &[0.0, 1.0] } else { &[0.0, 1.0, 999.0] };
        let at = |t: f64| exec::At { x: &x, t, next: t, ..exec::At::default() };
        let Some(large) = times.iter().map(|t| plan.overflows(&mut workspace, at(*t))).find(|names| !names.is_empty())
        else {
            return Ok(plan);
        };
        numbers.in_f32.extend(large);
        budget.restore();
    }
}

/// A plan of our own for a kind of CPU, or why there is none. Quantization that is not of convolutions must be gone.
pub(super) fn plan(
    isa: exec::Isa,
    file: &File,
    numbers: &exec::Numbers,
    budget: &Budget,
) -> std::result::Result<exec::Plan, exec::Reason> {
    let inputs = &file.inputs;
    let of = |role: Role| inputs.iter().filter(move |i| i.role == role);
    let input = |i: &Input| {
        let whole = i.is_whole();
        let known = whole || matches!(i.element, DataType::Float | DataType::Double);
        let dims = i.shape.clone();
        Some((dims, whole)).filter(|_| known).ok_or_else(|| format!("{} is of an unknown type", i.name))
    };
    fn named<'a>(i: &'a Input, (dims, integer): (Vec<usize>, bool)) -> exec::GraphInput<'a> {
        exec::GraphInput { name: &i.name, dims, integer }
    }
    let one = |role: Role| of(role).next().map(|i| Ok::<_, exec::Reason>(named(i, input(i)?))).transpose();
    let sample = one(Role::Sample)?.ok_or("the network takes no sample")?;
    let class = inputs.iter().find(|i| i.role == Role::Class && !i.is_one_hot());
    let class = class.map(|i| Ok::<_, exec::Reason>(named(i, input(i)?))).transpose()?;
    let conditions = inputs.iter().filter(|i| i.role == Role::Condition || i.is_one_hot());
    let conditions = conditions.map(|i| Ok(named(i, input(i)?))).collect::<std::result::Result<_, exec::Reason>>()?;
    let graph = file.proto.graph.as_ref().expect("reading found one");
    let opset = signature::opset(&file.proto)?;
    let (time, next, result) = (one(Role::Time)?, one(Role::Next)?, file.result);
    let inputs = exec::Inputs { opset, sample, time, next, class, conditions, result };
    exec::compile(isa, graph, &inputs, numbers, budget)
}

fn count_names(names: impl Iterator<Item = impl Into<String>>) -> Vec<(String, usize)> {
    let mut counts = BTreeMap::<String, usize>::new();
    names.for_each(|name| *counts.entry(name.into()).or_default() += 1);
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts
}
