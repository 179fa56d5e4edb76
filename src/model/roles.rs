//! Which input of a model is the sample, which the time, which the class label.

use crate::error::Hint;
use crate::{Error, ErrorKind, Result};

/// What an input of the network is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// The noisy sample x_t.
    Sample,
    /// The time t.
    Time,
    /// An integer class label.
    Class,
    /// Any other condition, given by the input's name.
    Condition,
}

impl Role {
    /// The role's name on the command line and in a model's metadata.
    pub fn name(self) -> &'static str {
        match self {
            Role::Sample => "sample",
            Role::Time => "time",
            Role::Class => "class",
            Role::Condition => "condition",
        }
    }

    /// The role with this [`name`](Role::name).
    pub fn from_name(name: &str) -> Option<Self> {
        [Role::Sample, Role::Time, Role::Class, Role::Condition].into_iter().find(|r| r.name() == name)
    }

    /// Input names that exporters commonly give this role.
    fn common_names(self) -> &'static [&'static str] {
        match self {
            Role::Sample => &[
                "sample",
                "x",
                "x_t",
                "xt",
                "noisy",
                "noisy_sample",
                "noisy_action",
                "input",
                "latent",
                "hidden_states",
            ],
            Role::Time => &["timestep", "timesteps", "t", "time", "sigma", "step"],
            Role::Class => &["class_labels", "class_label", "class", "label", "labels", "y"],
            Role::Condition => &["encoder_hidden_states", "global_cond", "cond", "condition"],
        }
    }
}

/// What is known of an input before its role is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct InputInfo {
    /// The input's name in the file.
    pub name: String,
    /// Whether its elements are integers.
    pub integer: bool,
    /// Its dimensions; `None` where the file leaves one open.
    pub shape: Vec<Option<usize>>,
}

impl InputInfo {
    /// `name (int64, [N, 3])`, for messages.
    pub(super) fn describe(&self) -> String {
        let dims: Vec<String> = self.shape.iter().map(|d| d.map_or("?".into(), |d| d.to_string())).collect();
        format!("{} ({}, [{}])", self.name, if self.integer { "integer" } else { "float" }, dims.join(", "))
    }

    /// Whether this may be a time: a scalar, or one number a sample.
    fn is_scalar_per_sample(&self) -> bool {
        matches!(self.shape.as_slice(), [] | [_] | [_, Some(1)])
    }

    fn may_be(&self, role: Role) -> bool {
        match role {
            Role::Sample => !self.integer && self.shape.len() >= 2,
            Role::Time => self.is_scalar_per_sample(),
            Role::Class => self.integer && self.is_scalar_per_sample(),
            Role::Condition => true,
        }
    }
}

/// The role of every input: from `named` (the caller's and the model's own word, in that order of
/// precedence), else from common names, else from shape and type.
///
/// # Errors
/// When no input can be the sample or the time, or when several could be and nothing tells which.
pub(super) fn resolve(inputs: &[InputInfo], named: &[(Role, String)]) -> Result<Vec<Role>> {
    let mut roles: Vec<Option<Role>> = vec![None; inputs.len()];
    for (role, name) in named {
        let Some(i) = inputs.iter().position(|input| input.name == *name) else {
            return Err(no_such_input(name, *role, inputs));
        };
        let taken = *role != Role::Condition && roles.contains(&Some(*role));
        if roles[i].is_none() && !taken {
            roles[i] = Some(*role);
        }
    }
    for role in [Role::Sample, Role::Time, Role::Class] {
        if roles.contains(&Some(role)) {
            continue;
        }
        let free = |i: usize| roles[i].is_none() && inputs[i].may_be(role);
        let by_name = role
            .common_names()
            .iter()
            .find_map(|common| (0..inputs.len()).find(|&i| free(i) && inputs[i].name.eq_ignore_ascii_case(common)));
        let found = match by_name {
            Some(i) => Some(i),
            // A class is never guessed from its shape while a time is still to be found, and an input
            // with a name of its own is a condition rather than a class.
            None => {
                let candidates: Vec<usize> =
                    (0..inputs.len()).filter(|&i| free(i) && !has_other_name(&inputs[i], role)).collect();
                match (role, candidates.as_slice()) {
                    (_, [one]) => Some(*one),
                    (Role::Class, _) => None,
                    (_, []) => return Err(unclear(role, "none fits", inputs)),
                    _ => return Err(unclear(role, "several fit", inputs)),
                }
            }
        };
        if let Some(i) = found {
            roles[i] = Some(role);
        }
    }
    Ok(roles.into_iter().map(|r| r.unwrap_or(Role::Condition)).collect())
}

/// Whether an input's name says that it is for something other than `role`.
fn has_other_name(input: &InputInfo, role: Role) -> bool {
    [Role::Sample, Role::Time, Role::Class, Role::Condition]
        .into_iter()
        .any(|r| r != role && r.common_names().iter().any(|n| input.name.eq_ignore_ascii_case(n)))
}

fn list(inputs: &[InputInfo]) -> String {
    inputs.iter().map(InputInfo::describe).collect::<Vec<_>>().join(", ")
}

fn unclear(role: Role, why: &str, inputs: &[InputInfo]) -> Error {
    Error::new(
        ErrorKind::Model,
        format!("cannot tell which input is the {} ({why}) of the model's inputs, {}", role.name(), list(inputs)),
    )
    .with_hint(Hint::Input(role.name()))
}

fn no_such_input(name: &str, role: Role, inputs: &[InputInfo]) -> Error {
    Error::invalid(format!(
        "the model has no input '{name}' to take as its {}; its inputs are: {}",
        role.name(),
        list(inputs)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str, integer: bool, shape: &[usize]) -> InputInfo {
        // 0 stands for an open dimension
        let shape = shape.iter().map(|&d| (d > 0).then_some(d)).collect();
        InputInfo { name: name.into(), integer, shape }
    }

    #[test]
    fn diffusers_names_are_found() {
        let inputs = [
            input("timestep", true, &[]),
            input("class_labels", true, &[0]),
            input("sample", false, &[0, 3, 32, 32]),
            input("encoder_hidden_states", false, &[0, 77, 64]),
        ];
        assert_eq!(resolve(&inputs, &[]).unwrap(), [Role::Time, Role::Class, Role::Sample, Role::Condition]);
    }

    #[test]
    fn strange_names_are_told_by_shape_and_type() {
        let inputs = [input("onnx::Conv_0", false, &[1, 3, 8, 8]), input("onnx::Mul_1", false, &[1])];
        assert_eq!(resolve(&inputs, &[]).unwrap(), [Role::Sample, Role::Time]);
        let inputs = [input("a", false, &[0, 1, 28, 28]), input("t", false, &[0]), input("b", true, &[0])];
        assert_eq!(resolve(&inputs, &[]).unwrap(), [Role::Sample, Role::Time, Role::Class]);
    }

    #[test]
    fn what_the_caller_says_comes_before_what_the_model_says() {
        let inputs = [input("p", false, &[0, 16, 2]), input("q", false, &[0, 16, 2]), input("t", true, &[])];
        let error = resolve(&inputs, &[]).unwrap_err().to_string();
        assert!(
            error.contains("ModelOptions::input (role sample)") && error.contains("q (float, [?, 16, 2])"),
            "{error}"
        );
        let roles = resolve(&inputs, &[(Role::Sample, "q".into()), (Role::Sample, "p".into())]).unwrap();
        assert_eq!(roles, [Role::Condition, Role::Sample, Role::Time]);
    }

    #[test]
    fn a_name_that_is_not_there_is_an_error() {
        let inputs = [input("x", false, &[0, 2]), input("t", true, &[])];
        let error = resolve(&inputs, &[(Role::Time, "tt".into())]).unwrap_err().to_string();
        assert!(error.contains("no input 'tt'") && error.contains("x (float, [?, 2])"), "{error}");
    }

    #[test]
    fn a_scalar_condition_is_not_taken_for_the_time() {
        let inputs = [input("sample", false, &[0, 4]), input("difficulty", false, &[0]), input("timestep", false, &[])];
        assert_eq!(resolve(&inputs, &[]).unwrap(), [Role::Sample, Role::Condition, Role::Time]);
    }
}
