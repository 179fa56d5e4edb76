//! The inputs of a loaded network, and the conditions that they take.

use super::role::Role;
use crate::condition::Condition;
use crate::error::Hint;
use crate::{Error, ErrorKind, Result};
use ::onnx::pb::tensor_proto::DataType;

/// One input of a loaded model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Input {
    /// Its name in the file.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its shape at a batch of one.
    pub shape: Vec<usize>,
    pub(super) element: DataType,
}

impl Input {
    /// The name of its element type, such as `F32` or `I64`.
    pub fn element_type(&self) -> String {
        let name = match self.element {
            DataType::Float => "F32",
            DataType::Double => "F64",
            DataType::Int64 => "I64",
            DataType::Int32 => "I32",
            other => return format!("{other:?}").to_uppercase(),
        };
        name.into()
    }

    /// The number of its elements.
    #[allow(clippy::len_without_is_empty, reason = "no input is empty")]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// That a condition is not given.
    pub(crate) fn missing(&self) -> Error {
        let Input { name, shape, .. } = self;
        Error::invalid(format!("the model needs the condition {name} of shape {shape:?}"))
            .with_hint(Hint::Condition(name.clone()))
    }

    /// Whether a condition of so many numbers is of its length.
    pub(crate) fn check_len(&self, given: usize) -> Result<()> {
        let Input { name, shape, .. } = self;
        if given == self.len() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::WrongSize,
            format!("condition {name} has {given} numbers, but the model takes {} (shape {shape:?})", self.len()),
        ))
    }

    /// Whether its elements are whole numbers.
    pub fn is_whole(&self) -> bool {
        self.range().is_some()
    }

    /// The least and the greatest number that an input of whole numbers takes.
    fn range(&self) -> Option<(f64, f64)> {
        Some(match self.element {
            DataType::Bool => (0.0, 1.0),
            DataType::Uint8 => (0.0, f64::from(u8::MAX)),
            DataType::Int8 => (f64::from(i8::MIN), f64::from(i8::MAX)),
            DataType::Uint16 => (0.0, f64::from(u16::MAX)),
            DataType::Int16 => (f64::from(i16::MIN), f64::from(i16::MAX)),
            DataType::Uint32 => (0.0, f64::from(u32::MAX)),
            DataType::Int32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
            DataType::Uint64 => (0.0, u64::MAX as f64),
            DataType::Int64 => (i64::MIN as f64, i64::MAX as f64),
            _ => return None,
        })
    }

    /// Whether it is a class, as a number for each of several; these may also be given, as a condition of its name.
    pub(crate) fn is_one_hot(&self) -> bool {
        self.role == Role::Class && self.len() > 1
    }

    /// Whether it keeps its value over a run.
    #[cfg(feature = "tract")]
    pub(super) fn is_bound(&self) -> bool {
        matches!(self.role, Role::Class | Role::Condition)
    }
}

/// That no condition of this name is taken.
pub(crate) fn no_condition(inputs: &[Input], name: &str) -> Error {
    let known: Vec<&str> = inputs.iter().filter(|i| i.role == Role::Condition).map(|i| i.name.as_str()).collect();
    let known = if known.is_empty() { "none".into() } else { known.join(", ") };
    Error::invalid(format!("the model has no condition '{name}': it takes {known}"))
}

/// The label to ask for, for this input of the class. Of one that has a number for each class, "no class" is all zeros: the
/// label after the last.
///
/// # Errors
/// When none is given, or there is none of it.
pub(super) fn label(condition: &Condition, null_class: Option<usize>, input: &Input) -> Result<usize> {
    let one_hot = input.is_one_hot().then(|| input.len());
    let label = condition.class.or(null_class).or(one_hot).ok_or_else(|| {
        Error::invalid(format!("the model needs a class (its input {})", input.name)).with_hint(Hint::Class)
    })?;
    match one_hot {
        Some(classes) if condition.class.is_some_and(|class| class >= classes && null_class != Some(class)) => {
            Err(Error::invalid(format!("the model knows classes below {classes}, not {label}")))
        }
        _ => Ok(label),
    }
}

/// Writes a class as a number for each of several: 1 for it, and 0 for the others.
pub(super) fn write_one_hot(label: usize, numbers: &mut [f32]) {
    numbers.fill(0.0);
    if let Some(number) = numbers.get_mut(label) {
        *number = 1.0;
    }
}

/// Whether a condition is what the inputs take.
pub(super) fn check_condition(inputs: &[Input], null_class: Option<usize>, condition: &Condition) -> Result<()> {
    let given = |i: &Input| condition.named.contains_key(&i.name);
    let named = || inputs.iter().filter(|i| i.role == Role::Condition || (i.is_one_hot() && given(i)));
    if let Some(unknown) = condition.named.keys().find(|name| !named().any(|i| i.name == **name)) {
        return Err(no_condition(inputs, unknown));
    }
    match inputs.iter().find(|i| i.role == Role::Class) {
        Some(input) if given(input) && condition.class.is_some() => {
            let message = format!("the class is given twice: by its index, and as the numbers of {}", input.name);
            return Err(Error::invalid(message));
        }
        Some(input) => _ = label(condition, null_class, input)?,
        None if condition.class.is_some() => return Err(Error::invalid("this model takes no class")),
        None => {}
    }
    for input in named() {
        let name = &input.name;
        let values = condition.named.get(name).ok_or_else(|| input.missing())?;
        input.check_len(values.len())?;
        if let Some(value) = values.iter().find(|v| !v.is_finite()) {
            let message = format!("condition {name} must be finite, but has {value}");
            return Err(Error::new(ErrorKind::NotFinite, message));
        }
        if let Some(value) = values.iter().find(|v| input.is_whole() && v.fract() != 0.0) {
            return Err(Error::invalid(format!("condition {name} takes whole numbers, but has {value}")));
        }
        let beyond =
            |(least, most): &(f64, f64)| values.iter().copied().find(|v| !(*least..=*most).contains(&f64::from(*v)));
        if let Some((least, most)) = input.range()
            && let Some(value) = beyond(&(least, most))
        {
            return Err(Error::invalid(format!(
                "condition {name} takes numbers from {least} to {most}, but has {value}"
            )));
        }
    }
    Ok(())
}

/// That a slot is used before a condition is bound to it.
pub(super) fn unbound(slot: usize) -> Error {
    Error::invalid(format!("no condition is bound to slot {slot}: call Network::bind first"))
}
