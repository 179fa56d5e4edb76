//! Conditions on the command line: `NAME=0.4`, `NAME=1,2,3` or `NAME=FILE.npy`.

use anyhow::{Context, Result, bail, ensure};
use edgegen::model::Role;
use edgegen::{Condition, Model, output};
use std::collections::BTreeMap;
use std::path::Path;

/// Splits NAME=VALUE.
pub fn parse(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("give NAME=VALUE")?;
    Ok((name.into(), value.into()))
}

/// The condition of this class, and of the model's conditions that are given.
pub fn read(model: &Model, class: Option<usize>, given: &[(String, String)]) -> Result<Condition> {
    let mut condition = Condition::default();
    condition.class = class;
    condition.named = values(model, given)?;
    Ok(condition)
}

/// The values of the model's conditions that are given.
pub fn values(model: &Model, given: &[(String, String)]) -> Result<BTreeMap<String, Vec<f32>>> {
    let known = || model.inputs().iter().filter(|i| i.role == Role::Condition);
    let mut values = BTreeMap::new();
    for (name, value) in given {
        let Some(input) = known().find(|i| i.name == *name) else {
            let names: Vec<&str> = known().map(|i| i.name.as_str()).collect();
            let names =
                if names.is_empty() { "it takes none".into() } else { format!("it takes {}", names.join(", ")) };
            bail!("the model has no condition '{name}': {names}");
        };
        let numbers = if value.ends_with(".npy") {
            let (shape, numbers) = output::read_npy(Path::new(value))?;
            ensure!(
                without_ones(&shape) == without_ones(&input.shape),
                "condition {name}: the array in {value} has shape {shape:?}, but the model takes {:?}",
                input.shape
            );
            numbers
        } else {
            let numbers = value.split(',').map(|v| v.trim().parse::<f32>().ok().filter(|v| v.is_finite()));
            numbers.collect::<Option<Vec<f32>>>().with_context(|| {
                format!("condition {name}: '{value}' is neither numbers separated by commas nor an npy file")
            })?
        };
        let len: usize = input.shape.iter().product();
        ensure!(
            numbers.len() == len,
            "condition {name} has {} numbers, but the model takes {len} (shape {:?})",
            numbers.len(),
            input.shape
        );
        ensure!(values.insert(name.clone(), numbers).is_none(), "condition {name} is given twice");
    }
    Ok(values)
}

/// A shape without its leading ones: an array of one sample fits with its batch and without.
fn without_ones(shape: &[usize]) -> &[usize] {
    let ones = shape.iter().take_while(|d| **d == 1).count();
    &shape[ones..]
}
