//! Conditions on the command line: `NAME=0.4`, `NAME=1,2,3` or `NAME=FILE.npy`.

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use edgegen::model::Role;
use edgegen::{Condition, Model, ModelOptions, output};
use std::collections::BTreeMap;
use std::path::Path;

/// What samples are conditioned on beside a class.
#[derive(Args, Clone, Debug, Default)]
pub struct ConditionArgs {
    /// Another condition: numbers separated by commas, or an npy file (repeatable)
    #[arg(long = "cond", value_name = "NAME=VALUE|FILE.npy", value_parser = parse)]
    pub conditions: Vec<(String, String)>,
    /// An array that the network takes in one input with its sample, in channels after those of the sample: a mask, or a
    /// picture to go by (repeatable, in their order; `--join sample` puts the sample between them)
    #[arg(long = "join", value_name = "NAME=FILE.npy", help_heading = "Model")]
    pub joins: Vec<String>,
}

/// What was read of them.
#[derive(Clone, Debug, Default)]
pub struct Given {
    arrays: Vec<Array>,
    /// What is joined with the sample, in its order; the sample where that is said, and the names of conditions.
    joins: Vec<String>,
}

/// The numbers of a condition.
#[derive(Clone, Debug)]
struct Array {
    name: String,
    shape: Vec<usize>,
    numbers: Vec<f32>,
    /// The file that it is from.
    file: Option<String>,
}

/// Splits NAME=VALUE.
pub fn parse(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("give NAME=VALUE")?;
    Ok((name.into(), value.into()))
}

impl ConditionArgs {
    /// The names of what is given.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let joins = self.joins.iter().map(|join| join.split_once('=').map_or(join.as_str(), |(name, _)| name));
        self.conditions.iter().map(|(name, _)| name.as_str()).chain(joins)
    }

    /// Reads the arrays.
    pub fn read(&self) -> Result<Given> {
        let mut arrays = self.conditions.iter().map(|(name, value)| array(name, value)).collect::<Result<Vec<_>>>()?;
        let mut joins = Vec::new();
        for join in &self.joins {
            joins.push(match join.split_once('=') {
                None => join.clone(),
                Some((name, file)) => {
                    ensure!(file.ends_with(".npy"), "--join {join}: give an npy file, or give the numbers by --cond");
                    arrays.push(array(name, file)?);
                    name.into()
                }
            });
        }
        for (i, array) in arrays.iter().enumerate() {
            let again = arrays[..i].iter().any(|other| other.name == array.name);
            ensure!(!again, "condition {} is given twice", array.name);
        }
        Ok(Given { arrays, joins })
    }
}

impl Given {
    /// The model's options, with what these arrays tell of its inputs.
    pub fn tell(&self, mut options: ModelOptions) -> ModelOptions {
        let shape = |name: &String| self.arrays.iter().find(|array| array.name == *name).map(|array| &*array.shape);
        for name in &self.joins {
            options = match shape(name) {
                Some(shape) => options.join(name, shape),
                None => options.join_rest(name),
            };
        }
        for array in self.arrays.iter().filter(|array| !self.joins.contains(&array.name)) {
            options = options.condition_shape(&array.name, array.shape.as_slice());
        }
        options
    }

    /// The condition of this class, and of what is given.
    pub fn condition(&self, model: &Model, class: Option<usize>) -> Result<Condition> {
        let mut condition = Condition::default();
        condition.class = class;
        condition.named = fitted(model, &self.arrays)?;
        Ok(condition)
    }
}

/// The class of this name or index; `None` for "none", where no class is called that.
pub fn class(model: &Model, name: &str) -> Result<Option<usize>> {
    match model.class(name) {
        Err(_) if name.eq_ignore_ascii_case("none") && model.takes_class() => Ok(None),
        class => Ok(class.map(Some)?),
    }
}

/// The values of the model's conditions that are given.
pub fn values(model: &Model, given: &[(String, String)]) -> Result<BTreeMap<String, Vec<f32>>> {
    let arrays = given.iter().map(|(name, value)| array(name, value)).collect::<Result<Vec<_>>>()?;
    fitted(model, &arrays)
}

/// Reads numbers, or the file that holds them.
fn array(name: &str, value: &str) -> Result<Array> {
    let name = name.to_string();
    if value.ends_with(".npy") {
        let (shape, numbers) = output::read_npy(Path::new(value))?;
        return Ok(Array { name, shape, numbers, file: Some(value.into()) });
    }
    let numbers = value.split(',').map(|v| v.trim().parse::<f32>().ok().filter(|v| v.is_finite()));
    let numbers = numbers.collect::<Option<Vec<f32>>>().with_context(|| {
        format!("condition {name}: '{value}' is neither numbers separated by commas nor an npy file")
    })?;
    Ok(Array { name, shape: vec![numbers.len()], numbers, file: None })
}

/// The arrays by their names, each of the shape that the model takes.
fn fitted(model: &Model, arrays: &[Array]) -> Result<BTreeMap<String, Vec<f32>>> {
    let known = || model.inputs().iter().filter(|i| i.role == Role::Condition);
    let mut values = BTreeMap::new();
    for Array { name, shape, numbers, file } in arrays {
        let Some(input) = known().find(|i| i.name == *name) else {
            let names: Vec<&str> = known().map(|i| i.name.as_str()).collect();
            let names =
                if names.is_empty() { "it takes none".into() } else { format!("it takes {}", names.join(", ")) };
            bail!("the model has no condition '{name}': {names}");
        };
        if let Some(file) = file {
            ensure!(
                without_ones(shape) == without_ones(&input.shape),
                "condition {name}: the array in {file} has shape {shape:?}, but the model takes {:?}",
                input.shape
            );
        }
        ensure!(
            numbers.len() == input.len(),
            "condition {name} has {} numbers, but the model takes {} (shape {:?})",
            numbers.len(),
            input.len(),
            input.shape
        );
        ensure!(values.insert(name.clone(), numbers.clone()).is_none(), "condition {name} is given twice");
    }
    Ok(values)
}

/// A shape without its leading ones: an array of one sample fits with its batch and without.
fn without_ones(shape: &[usize]) -> &[usize] {
    let ones = shape.iter().take_while(|d| **d == 1).count();
    &shape[ones..]
}
