//! Which input of a model is the sample, which the time, which the class label.

use super::names::{self, NONE};
use super::role::Role;
use crate::error::Hint;
use crate::{Error, ErrorKind, Result};

/// What is known of an input before its role is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct InputInfo {
    /// The input's name in the file.
    pub name: String,
    /// Whether its elements are integers.
    pub integer: bool,
    /// Its dimensions; `None` where the file leaves one open.
    pub shape: Vec<Option<usize>>,
    /// What the file calls a dimension that it leaves open: those of one name are of one size.
    pub symbols: Vec<Option<String>>,
}

impl InputInfo {
    /// `name (int64, [N, 3])`, for messages.
    pub(super) fn describe(&self) -> String {
        let dims: Vec<String> = self.shape.iter().map(|d| d.map_or("?".into(), |d| d.to_string())).collect();
        format!("{} ({}, [{}])", self.name, if self.integer { "integer" } else { "float" }, dims.join(", "))
    }

    /// Whether this is one number a sample, in any number of dimensions.
    fn is_scalar_per_sample(&self) -> bool {
        self.shape.iter().skip(1).all(|d| *d == Some(1))
    }

    /// Whether this may be a time, by its shape alone: as well one for each token of a sequence where the name says so.
    fn may_be_time(&self, named: bool) -> bool {
        self.is_scalar_per_sample() || (named && self.shape.len() == 2)
    }

    /// Whether this has a number for each of several classes.
    fn is_one_hot(&self) -> bool {
        matches!(self.shape.as_slice(), [_, Some(2..)])
    }

    fn may_be(&self, role: Role) -> bool {
        let named = names::rank(&self.name, role).is_some();
        match role {
            Role::Sample => !self.integer && self.shape.len() >= 2,
            Role::Time => self.may_be_time(named),
            Role::Next => named && self.may_be_time(true),
            Role::Class => (self.integer && self.is_scalar_per_sample()) || (named && self.is_one_hot()),
            Role::Condition => true,
        }
    }

    /// Whether the name says that this is for something other than `role`, which it may be.
    fn is_for_another(&self, role: Role) -> bool {
        Role::ALL
            .into_iter()
            .any(|other| other != role && names::rank(&self.name, other).is_some() && self.may_be(other))
    }
}

/// What is known of a network's inputs from elsewhere.
#[derive(Clone, Copy, Default)]
pub(super) struct Known<'a> {
    /// The caller's and the model's own word, in that order of precedence.
    pub named: &'a [(Role, String)],
    /// Names of conditions, if they are inputs.
    pub conditions: &'a [&'a str],
    /// The dimensions of each output that could be the prediction, as far as the file says them.
    pub outputs: &'a [Vec<Option<usize>>],
}

/// The role of every input: what is known of it, else from common names, else from shape and type.
///
/// # Errors
/// When no input can be the sample or the time, or when several could be and nothing tells which.
pub(super) fn resolve(inputs: &[InputInfo], known: Known) -> Result<Vec<Role>> {
    let mut roles: Vec<Option<Role>> = vec![None; inputs.len()];
    let mut without = Vec::new();
    for (role, name) in known.named {
        let found = inputs.iter().position(|input| input.name == *name);
        if found.is_none() && name == NONE && matches!(role, Role::Time | Role::Next | Role::Class) {
            without.push(*role);
            continue;
        }
        let i = found.ok_or_else(|| no_such_input(name, *role, inputs))?;
        let taken = *role != Role::Condition && (roles.contains(&Some(*role)) || without.contains(role));
        if roles[i].is_none() && !taken {
            roles[i] = Some(*role);
        }
    }
    for (input, role) in inputs.iter().zip(&mut roles) {
        if role.is_none() && known.conditions.contains(&input.name.as_str()) {
            *role = Some(Role::Condition);
        }
    }
    for role in [Role::Sample, Role::Time, Role::Next, Role::Class] {
        if roles.contains(&Some(role)) || without.contains(&role) {
            continue;
        }
        if let Some(i) = find(inputs, &roles, role, known.outputs)? {
            roles[i] = Some(role);
        }
    }
    Ok(roles.into_iter().map(|r| r.unwrap_or(Role::Condition)).collect())
}

/// The input of a role that is still to be found.
fn find(
    inputs: &[InputInfo],
    roles: &[Option<Role>],
    role: Role,
    outputs: &[Vec<Option<usize>>],
) -> Result<Option<usize>> {
    let free = (0..inputs.len()).filter(|&i| roles[i].is_none() && inputs[i].may_be(role));
    let free: Vec<usize> = free.collect();
    let rank = |i: &usize| names::rank(&inputs[*i].name, role);
    if let Some(i) = free.iter().copied().filter(|i| rank(i).is_some()).min_by_key(rank) {
        return Ok(Some(i));
    }
    // a class is never guessed from its shape while a time is still to be found, and an input with a name of its own is a
    // condition rather than a class
    let unnamed: Vec<usize> = free.into_iter().filter(|&i| !inputs[i].is_for_another(role)).collect();
    let left = if role == Role::Sample { likely_samples(inputs, unnamed, outputs) } else { unnamed };
    match (role, left.as_slice()) {
        (_, [one]) => Ok(Some(*one)),
        (Role::Class | Role::Next, _) => Ok(None),
        (_, []) => Err(unclear(role, "none fits", inputs)),
        _ => Err(unclear(role, "several fit", inputs)),
    }
}

/// Of several inputs that may be the sample, those that its name, or the prediction's shape, speaks for.
fn likely_samples(inputs: &[InputInfo], mut left: Vec<usize>, outputs: &[Vec<Option<usize>>]) -> Vec<usize> {
    let like_an_output = |i: &usize| {
        let shape = &inputs[*i].shape;
        let fits = |(a, b): (&Option<usize>, &Option<usize>)| a.is_none() || b.is_none() || a == b;
        outputs.iter().any(|output| output.len() == shape.len() && output[1..].iter().zip(&shape[1..]).all(fits))
    };
    let tests: [&dyn Fn(&usize) -> bool; 3] =
        [&like_an_output, &|i| !names::is_conditional(&inputs[*i].name), &|i| names::is_noisy(&inputs[*i].name)];
    for test in tests {
        if left.len() > 1 && left.iter().any(test) {
            left.retain(test);
        }
    }
    left
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
        let shape: Vec<_> = shape.iter().map(|&d| (d > 0).then_some(d)).collect();
        InputInfo { name: name.into(), integer, symbols: vec![None; shape.len()], shape }
    }

    fn resolve_named(inputs: &[InputInfo], named: &[(Role, String)]) -> Result<Vec<Role>> {
        resolve(inputs, Known { named, ..Known::default() })
    }

    #[test]
    fn diffusers_names_are_found() {
        let inputs = [
            input("timestep", true, &[]),
            input("class_labels", true, &[0]),
            input("sample", false, &[0, 3, 32, 32]),
            input("encoder_hidden_states", false, &[0, 77, 64]),
        ];
        assert_eq!(
            resolve(&inputs, Known::default()).unwrap(),
            [Role::Time, Role::Class, Role::Sample, Role::Condition]
        );
    }

    #[test]
    fn strange_names_are_told_by_shape_and_type() {
        let inputs = [input("onnx::Conv_0", false, &[1, 3, 8, 8]), input("onnx::Mul_1", false, &[1])];
        assert_eq!(resolve(&inputs, Known::default()).unwrap(), [Role::Sample, Role::Time]);
        let inputs = [input("a", false, &[0, 1, 28, 28]), input("t", false, &[0]), input("b", true, &[0])];
        assert_eq!(resolve(&inputs, Known::default()).unwrap(), [Role::Sample, Role::Time, Role::Class]);
    }

    #[test]
    fn what_the_caller_says_comes_before_what_the_model_says() {
        let inputs = [input("p", false, &[0, 16, 2]), input("q", false, &[0, 16, 2]), input("t", true, &[])];
        let error = resolve(&inputs, Known::default()).unwrap_err().to_string();
        assert!(
            error.contains("ModelOptions::input (role sample)") && error.contains("q (float, [?, 16, 2])"),
            "{error}"
        );
        let roles = resolve_named(&inputs, &[(Role::Sample, "q".into()), (Role::Sample, "p".into())]).unwrap();
        assert_eq!(roles, [Role::Condition, Role::Sample, Role::Time]);
    }

    #[test]
    fn a_name_that_is_not_there_is_an_error() {
        let inputs = [input("x", false, &[0, 2]), input("t", true, &[])];
        let error = resolve_named(&inputs, &[(Role::Time, "tt".into())]).unwrap_err().to_string();
        assert!(error.contains("no input 'tt'") && error.contains("x (float, [?, 2])"), "{error}");
    }

    #[test]
    fn a_scalar_condition_is_not_taken_for_the_time() {
        let inputs = [input("sample", false, &[0, 4]), input("difficulty", false, &[0]), input("timestep", false, &[])];
        assert_eq!(resolve(&inputs, Known::default()).unwrap(), [Role::Sample, Role::Condition, Role::Time]);
    }

    #[test]
    fn of_several_pictures_the_sample_is_told_by_its_name_or_by_the_predictions_shape() {
        use Role::{Condition, Sample, Time};
        let inputs = [
            input("cond_image", false, &[1, 3, 8, 8]),
            input("noisy_image", false, &[1, 3, 8, 8]),
            input("gammas", false, &[1]),
        ];
        assert_eq!(resolve(&inputs, Known::default()).unwrap(), [Condition, Sample, Time]);
        let inputs = [input("a", false, &[0, 1, 8, 8]), input("b", false, &[0, 3, 8, 8]), input("t", true, &[])];
        assert!(resolve(&inputs, Known::default()).is_err());
        let outputs = [vec![None, Some(3), None, None]];
        let known = Known { outputs: &outputs, ..Known::default() };
        assert_eq!(resolve(&inputs, known).unwrap(), [Condition, Sample, Time]);
        // what is given as a condition is none
        let known = Known { conditions: &["b"], ..Known::default() };
        assert_eq!(resolve(&inputs, known).unwrap(), [Sample, Condition, Time]);
    }

    #[test]
    fn a_time_has_any_shape_that_is_one_number_or_one_for_each_token() {
        use Role::{Class, Condition, Next, Sample, Time};
        let with = |time: InputInfo| [input("sample", false, &[1, 8, 4]), time];
        for shape in [&[][..], &[1], &[0], &[0, 1], &[1, 1, 1], &[4, 1, 1, 1], &[1, 8]] {
            assert_eq!(resolve(&with(input("timestep", true, shape)), Known::default()).unwrap(), [Sample, Time]);
        }
        // without its name it could be anything
        assert!(resolve(&with(input("a", false, &[1, 8])), Known::default()).is_err());
        let none = [(Time, NONE.to_string())];
        let inputs = [input("sample", false, &[1, 2]), input("goal", false, &[1, 2])];
        assert_eq!(resolve_named(&inputs, &none).unwrap(), [Sample, Condition]);
        let inputs = [
            input("x", false, &[0, 2]),
            input("t", false, &[0]),
            input("t_next", false, &[0]),
            input("y", false, &[0, 10]),
        ];
        assert_eq!(resolve(&inputs, Known::default()).unwrap(), [Sample, Time, Next, Class]);
    }
}
