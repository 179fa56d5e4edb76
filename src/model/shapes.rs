//! The shapes of a network's inputs at a batch of one, once what is given has bound the dimensions that the file leaves open.

use super::join::{Given, Joined, aligned, join, without_ones};
use super::made_up::MadeUp;
use super::role::Role;
use super::roles::InputInfo;
use crate::error::{Hint, model_error};
use crate::{Error, Result};
use std::collections::HashMap;

/// The shapes of all inputs.
pub(super) struct Bound {
    /// In the order of the inputs; that of the sample is without what it is joined with.
    pub shapes: Vec<Vec<usize>>,
    /// What the network takes in one with the sample.
    pub joined: Option<Joined>,
    /// What was made up.
    pub made_up: Vec<MadeUp>,
}

/// How many places an open dimension of a condition is taken to have where nobody says: the tokens of a prompt.
const MADE_UP: usize = 77;

/// Binds the shapes of inputs.
///
/// # Errors
/// When what is given does not fit the file, or leaves a dimension open.
pub(super) fn bind(infos: &[InputInfo], roles: &[Role], given: Given) -> Result<Bound> {
    let sample = roles.iter().position(|role| *role == Role::Sample).expect("roles::resolve found one");
    let (joined, mut made_up) = join(&infos[sample], given)?;
    let mut sizes = HashMap::new();
    learn(&infos[sample], &joined.whole(), &mut sizes);
    let mut shapes: Vec<Vec<usize>> = infos.iter().map(|_| Vec::new()).collect();
    // what is given first, for it binds dimensions of others
    let is_given = |i: &usize| given.conditions.contains_key(&infos[*i].name);
    let (first, rest): (Vec<usize>, Vec<usize>) = (0..infos.len()).filter(|i| *i != sample).partition(is_given);
    for i in first.into_iter().chain(rest) {
        let info = &infos[i];
        shapes[i] = match given.conditions.get(&info.name) {
            // where the file says it all, what is given is checked where it is used
            Some(shape) if roles[i] == Role::Condition && is_open(info) => of_array(info, shape, &sizes)?,
            _ => of_file(info, roles[i], &sizes, given.make_up, &mut made_up)?,
        };
        learn(info, &shapes[i], &mut sizes);
    }
    shapes[sample] = joined.sample.clone();
    let joined = Some(joined).filter(|joined| joined.parts.len() > 1);
    Ok(Bound { shapes, joined, made_up })
}

/// Whether a dimension other than the batch is open, or the only one.
fn is_open(info: &InputInfo) -> bool {
    info.shape.iter().skip(usize::from(info.shape.len() > 1)).any(Option::is_none)
}

/// Notes of what size the dimensions are that the file calls by a name.
fn learn<'a>(info: &'a InputInfo, shape: &[usize], sizes: &mut HashMap<&'a str, usize>) {
    // the batch, whatever its name, is one
    for (symbol, size) in info.symbols.iter().zip(shape).skip(1) {
        if let Some(symbol) = symbol {
            sizes.entry(symbol).or_insert(*size);
        }
    }
}

/// The shape of a condition's input that an array of this shape is given for.
fn of_array(info: &InputInfo, given: &[usize], sizes: &HashMap<&str, usize>) -> Result<Vec<usize>> {
    let fits = |shape: &Vec<usize>| {
        let known = |(i, (size, dim)): (usize, (&usize, &Option<usize>))| match dim {
            // the batch is one, whatever the file was exported with
            _ if i == 0 && info.shape.len() > 1 => *size == 1,
            Some(dim) => dim == size,
            None => {
                let named = info.symbols[i].as_ref().and_then(|symbol| sizes.get(symbol.as_str()));
                *size > 0 && named.is_none_or(|named| named == size)
            }
        };
        shape.iter().zip(&info.shape).enumerate().all(known)
    };
    if let Some(shape) = aligned(given, info.shape.len()).filter(fits) {
        return Ok(shape);
    }
    // so many numbers, in the one dimension that is open
    let batch = usize::from(info.shape.len() > 1);
    let open: Vec<usize> = (batch..info.shape.len()).filter(|i| info.shape[*i].is_none()).collect();
    let count = given.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    let known = info.shape.iter().skip(batch).flatten().try_fold(1usize, |n, d| n.checked_mul(*d));
    let mut shape: Vec<usize> = info.shape.iter().map(|dim| dim.unwrap_or(1)).collect();
    shape[..batch].fill(1);
    match (open.as_slice(), count, known) {
        ([one], Some(count), Some(known)) if without_ones(given).len() <= 1 && known > 0 && count % known == 0 => {
            shape[*one] = count / known;
        }
        ([], Some(count), Some(known)) if without_ones(given).len() <= 1 && count == known => {}
        _ => {
            let name = &info.name;
            let message = format!(
                "condition {name}: an array of shape {given:?} does not fit the model's input {}",
                info.describe()
            );
            return Err(Error::invalid(message));
        }
    }
    Ok(shape)
}

/// The shape of an input of which nothing is given.
fn of_file(
    info: &InputInfo,
    role: Role,
    sizes: &HashMap<&str, usize>,
    make_up: bool,
    made_up: &mut Vec<MadeUp>,
) -> Result<Vec<usize>> {
    let mut shape = Vec::with_capacity(info.shape.len());
    let mut open = false;
    for (axis, (dim, symbol)) in info.shape.iter().zip(&info.symbols).enumerate() {
        let named = symbol.as_ref().and_then(|symbol| sizes.get(symbol.as_str())).copied();
        shape.push(match (axis, dim) {
            // the batch, whatever the file was exported with
            (0, _) if info.shape.len() > 1 || role != Role::Condition => 1,
            (0, None) => named.unwrap_or(1),
            (_, Some(size)) => *size,
            (_, None) => match (named, role) {
                (Some(size), _) => size,
                (None, Role::Condition) if make_up => {
                    open = true;
                    MADE_UP
                }
                // one number for all
                (None, Role::Time | Role::Next) => 1,
                (None, _) => {
                    let message = format!("the model leaves dimension {axis} of its input {} open", info.describe());
                    return Err(model_error(message).with_hint(Hint::ConditionShape(info.name.clone())));
                }
            },
        });
    }
    if open {
        made_up.push(MadeUp::Shape(info.name.clone(), shape.clone()));
    }
    Ok(shape)
}
