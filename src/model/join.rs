//! What a network takes in one input with its sample: masks and pictures beside it, in channels of their own.

use super::made_up::MadeUp;
use super::role::Role;
use super::roles::InputInfo;
use crate::error::{Hint, model_error};
use crate::{Error, Result};
use std::collections::BTreeMap;

/// A part of what the network takes in one with its sample.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Join {
    pub name: String,
    pub shape: Option<Vec<usize>>,
    pub channels: Option<usize>,
}

impl Join {
    /// All that is left beside the other parts.
    pub fn rest(name: &str) -> Self {
        Join { name: name.into(), shape: None, channels: None }
    }

    /// Whether this is the sample's place among what is joined.
    pub fn is_sample(&self, input: &str) -> bool {
        self.shape.is_none() && self.channels.is_none() && (self.name == input || self.name == Role::Sample.name())
    }

    /// How much it has along dimension `axis` of a sample of `rank` dimensions, where that is known.
    pub fn size(&self, axis: usize, rank: usize) -> Option<usize> {
        self.channels.or_else(|| aligned(self.shape.as_deref()?, rank)?.get(axis).copied())
    }
}

/// What is given of the shapes.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    /// One sample's.
    pub sample: Option<&'a [usize]>,
    /// The prediction's, as far as the file says.
    pub output: Option<&'a [Option<usize>]>,
    /// Those of conditions.
    pub conditions: &'a BTreeMap<String, Vec<usize>>,
    /// What the sample is joined with.
    pub joins: &'a [Join],
    /// Whether what is open may be made up.
    pub make_up: bool,
}

/// A shape without its leading ones.
pub(super) fn without_ones(shape: &[usize]) -> &[usize] {
    &shape[shape.iter().take_while(|d| **d == 1).count()..]
}

/// `shape` in so many dimensions: leading ones are put before it, or left out.
pub(super) fn aligned(shape: &[usize], rank: usize) -> Option<Vec<usize>> {
    let bare = without_ones(shape);
    let ones = rank.checked_sub(bare.len())?;
    Some(std::iter::repeat_n(1, ones).chain(bare.iter().copied()).collect())
}

/// What the input of the sample is made of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Joined {
    /// The sample's own shape, with the batch.
    pub sample: Vec<usize>,
    /// The dimension along which the parts lie one after the other: the channels.
    pub axis: usize,
    /// The parts in their order: their sizes along it, and their names; the sample has none.
    pub parts: Vec<(Option<String>, usize)>,
}

impl Joined {
    /// The shape of this part.
    pub fn part(&self, size: usize) -> Vec<usize> {
        let mut shape = self.sample.clone();
        shape[self.axis] = size;
        shape
    }

    /// The shape that the network takes.
    pub fn whole(&self) -> Vec<usize> {
        self.part(self.parts.iter().fold(0, |sum, (_, size)| sum.saturating_add(*size)))
    }
}

/// What the input of the sample is made of: all of it is the sample where nothing is joined and the prediction is of its
/// shape. With it comes what was made up.
///
/// # Errors
/// When what is given does not fit the input, leaves a dimension open, or leaves open what the network takes beside the sample.
pub(super) fn join(info: &InputInfo, given: Given) -> Result<(Joined, Vec<MadeUp>)> {
    let known = info.shape.get(1..).unwrap_or_default();
    let sample = given.sample.map(|shape| of_rank(shape, info)).transpose()?;
    let axis = axis(known, sample.as_deref(), given);
    let mut made_up = Vec::new();
    let Some(axis) = axis else {
        let shape = (0..known.len()).map(|i| dimension(info, i, sample.as_deref(), &[], None));
        let shape: Vec<usize> = std::iter::once(Ok(1)).chain(shape).collect::<Result<_>>()?;
        check(info, sample.as_deref(), &shape)?;
        return Ok((Joined { axis: 1, parts: vec![(None, shape[1])], sample: shape }, made_up));
    };
    let output = given.output.and_then(|output| output.get(axis + 1).copied().flatten());
    let own = sample.as_ref().map(|sample| sample[axis]);
    let made_up_join = [Join::rest("joined")];
    let joins = match (given.joins, known[axis]) {
        ([], _) if given.make_up => {
            made_up.push(MadeUp::Join(made_up_join[0].name.clone()));
            &made_up_join
        }
        ([], Some(whole)) => return Err(unknown_part(info, whole, own.or(output))),
        (joins, _) => joins,
    };
    let parts =
        sizes(info, axis, joins, own.or(output.filter(|_| joins.iter().any(|j| j.size(axis, known.len()).is_none()))))?;
    let size = parts.iter().find(|(name, _)| name.is_none()).map_or(0, |(_, size)| *size);
    let shape = (0..known.len()).map(|i| dimension(info, i, sample.as_deref(), joins, Some((axis, size))));
    let shape: Vec<usize> = std::iter::once(Ok(1)).chain(shape).collect::<Result<_>>()?;
    let joined = Joined { sample: shape, axis: axis + 1, parts };
    check(info, None, &joined.whole())?;
    for join in joins {
        let expected = join.size(axis, known.len()).map(|size| joined.part(size));
        if let (Some(found), Some(expected)) = (join.shape.as_deref(), expected)
            && aligned(found, known.len()).as_deref() != Some(&expected[1..])
        {
            return Err(Error::invalid(format!(
                "{} of shape {found:?} cannot be joined with samples of shape {:?}",
                join.name,
                &joined.sample[1..]
            )));
        }
    }
    Ok((joined, made_up))
}

/// A sample's shape as it is given, without a batch of one.
fn of_rank(shape: &[usize], info: &InputInfo) -> Result<Vec<usize>> {
    let rank = info.shape.len().saturating_sub(1);
    let shape = if shape.len() == rank + 1 && shape[0] == 1 { &shape[1..] } else { shape };
    if shape.len() == rank && !shape.contains(&0) { Ok(shape.to_vec()) } else { Err(misfit(info, shape)) }
}

/// Along which dimension something is joined with the sample, if something is: the one that the sample, or the prediction, or
/// what is joined, has less of than the network takes; the channels, if none of these tells.
fn axis(known: &[Option<usize>], sample: Option<&[usize]>, given: Given) -> Option<usize> {
    // of a picture the channels alone; a sequence may be [C, T] or [T, D]
    let axes = if known.len() == 2 { 2 } else { known.len().min(1) };
    let less = |of: &dyn Fn(usize) -> Option<usize>| {
        let less = (0..axes).filter(|i| matches!((known[*i], of(*i)), (Some(whole), Some(part)) if part < whole));
        less.collect::<Vec<_>>()
    };
    let from_sample = sample.map(|sample| less(&|i| sample.get(i).copied())).unwrap_or_default();
    let output = given.output.filter(|output| output.len() == known.len() + 1);
    let from_output = output.map(|output| less(&|i| output[i + 1])).unwrap_or_default();
    let predicted = |i: usize| output.and_then(|output| output[i + 1]);
    match (from_sample.as_slice(), from_output.as_slice()) {
        ([one], _) if predicted(*one).is_none_or(|size| Some(size) != known[*one]) => return Some(*one),
        ([], [one]) => return Some(*one),
        _ if given.joins.is_empty() => return None,
        _ => {}
    }
    let of_shapes = given.joins.iter().filter_map(|join| aligned(join.shape.as_deref()?, known.len()));
    let from_shapes = of_shapes.map(|shape| less(&|i| shape.get(i).copied())).find(|axes| axes.len() == 1);
    Some(from_shapes.map_or(if known.len() == 2 { 1 } else { 0 }, |axes| axes[0]))
}

/// The sizes of all parts; `own` is the sample's where it is known.
fn sizes(info: &InputInfo, axis: usize, joins: &[Join], own: Option<usize>) -> Result<Vec<(Option<String>, usize)>> {
    let rank = info.shape.len() - 1;
    let mut parts: Vec<(Option<String>, Option<usize>)> = Vec::new();
    if !joins.iter().any(|join| join.is_sample(&info.name)) {
        parts.push((None, own));
    }
    for join in joins {
        if join.name == info.name && !join.is_sample(&info.name) {
            let message = format!("{} is the sample itself: what is joined with it is called otherwise", join.name);
            return Err(Error::invalid(message));
        }
        let part =
            if join.is_sample(&info.name) { (None, own) } else { (Some(join.name.clone()), join.size(axis, rank)) };
        if parts.iter().any(|(name, _)| *name == part.0) {
            return Err(Error::invalid(format!("{} is joined twice", join.name)));
        }
        parts.push(part);
    }
    let sum = parts.iter().filter_map(|(_, size)| *size).fold(0, usize::saturating_add);
    let open: Vec<usize> = (0..parts.len()).filter(|i| parts[*i].1.is_none()).collect();
    match (open.as_slice(), info.shape[axis + 1]) {
        ([], _) => {}
        ([one], Some(whole)) if whole > sum => parts[*one].1 = Some(whole - sum),
        ([_], Some(whole)) => {
            return Err(Error::invalid(format!(
                "what is joined with the sample has {sum} channels, and leaves none of the {whole} of the model's input {}",
                info.describe()
            )));
        }
        _ => {
            let message =
                format!("it is not known how many channels of the model's input {} are the sample's", info.describe());
            return Err(model_error(message).with_hint(Hint::SampleShape));
        }
    }
    Ok(parts.into_iter().map(|(name, size)| (name, size.unwrap_or(0))).collect())
}

/// Dimension `i` of the sample.
fn dimension(
    info: &InputInfo,
    i: usize,
    sample: Option<&[usize]>,
    joins: &[Join],
    joined: Option<(usize, usize)>,
) -> Result<usize> {
    if let Some((axis, size)) = joined
        && axis == i
    {
        return Ok(size);
    }
    let rank = info.shape.len() - 1;
    let beside = || joins.iter().find_map(|join| aligned(join.shape.as_deref()?, rank).map(|shape| shape[i]));
    sample.map(|sample| sample[i]).or(info.shape[i + 1]).or_else(beside).ok_or_else(|| {
        model_error(format!("the model leaves dimension {} of its input {} open", i + 1, info.describe()))
            .with_hint(Hint::SampleShape)
    })
}

/// Whether the whole of this shape is what the input takes.
fn check(info: &InputInfo, sample: Option<&[usize]>, whole: &[usize]) -> Result<()> {
    let fits =
        whole[1..].iter().zip(&info.shape[1..]).all(|(size, dim)| *size > 0 && dim.is_none_or(|dim| dim == *size));
    if fits { Ok(()) } else { Err(misfit(info, sample.unwrap_or(&whole[1..]))) }
}

fn misfit(info: &InputInfo, shape: &[usize]) -> Error {
    Error::invalid(format!("a sample of shape {shape:?} does not fit the model's input {}", info.describe()))
}

/// That the network takes more than the sample, and nobody says what.
fn unknown_part(info: &InputInfo, whole: usize, own: Option<usize>) -> Error {
    let own = own.unwrap_or_default();
    let message = format!(
        "the model's input {} has {} channels more than the {own} that it predicts, for what is joined with the sample",
        info.describe(),
        whole.saturating_sub(own),
    );
    model_error(message).with_hint(Hint::Join)
}
