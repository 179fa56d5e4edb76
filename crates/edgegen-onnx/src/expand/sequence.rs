//! Sequences of tensors whose lengths are known: each becomes the tensors that it is of.

use super::normalization::from_the_start;
use super::writer::{int, ints};
use super::{Known, Writer, shape, unknown};
use crate::Result;
use crate::pb::NodeProto;
use crate::signature::called;
use std::collections::HashMap;

/// The sequences of a graph, each with the names of its tensors.
#[derive(Default)]
pub struct Sequences {
    all: HashMap<String, Vec<String>>,
}

/// The most tensors of a sequence.
const LONGEST: usize = 1 << 12;

impl Sequences {
    /// The nodes that stand for one that makes a sequence or reads one; `None` for any other.
    ///
    /// # Errors
    /// When a position, or what is made of a sequence, is not known.
    pub fn expansion(&mut self, node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
        self.nodes(node, known).map_err(|reason| format!("{}: {reason}", called(node)))
    }

    fn nodes(&mut self, node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
        let mut w = Writer::new(node, known);
        let first = node.given(0).and_then(|name| self.all.get(name));
        let sequence = || first.ok_or("its input is no sequence that is known");
        // a position among so many
        let position = |i: usize, length: usize, none: usize| match node.given(i) {
            None => Ok(none),
            Some(name) => {
                let at = known.integers(name).filter(|at| at.len() == 1).ok_or("a position is not known")?;
                from_the_start(at[0], length)
            }
        };
        let made = match node.op_type.as_str() {
            "SequenceConstruct" => node.input.clone(),
            "SequenceEmpty" => Vec::new(),
            "Identity" if first.is_some() => sequence()?.clone(),
            "SequenceInsert" => {
                let mut all = sequence()?.clone();
                let at = position(2, all.len() + 1, all.len())?;
                all.insert(at, node.given(1).unwrap_or_default().into());
                all
            }
            "SequenceErase" => {
                let mut all = sequence()?.clone();
                let last = all.len().checked_sub(1).ok_or("it is empty")?;
                all.remove(position(1, all.len(), last)?);
                all
            }
            "SplitToSequence" => {
                let (parts, written) = split(w, node, known)?;
                self.all.insert(node.output[0].clone(), parts);
                return Ok(Some(written));
            }
            "SequenceLength" => {
                let length = w.integers(&[], &[sequence()?.len() as i64]);
                return Ok(Some(w.finish_one(node, length)));
            }
            "SequenceAt" => {
                let all = sequence()?;
                let name = all[position(1, all.len(), 0)?].clone();
                return Ok(Some(w.finish_one(node, name)));
            }
            "ConcatFromSequence" => {
                let mut all = sequence()?.clone();
                let mut axis = node.int("axis").unwrap_or(0);
                let rank = all.first().and_then(|name| known.dims(name)).ok_or("it is of an unknown shape")?.len();
                if node.int("new_axis").unwrap_or(0) == 1 {
                    axis = from_the_start(axis, rank + 1)? as i64;
                    all = all.iter().map(|name| w.unsqueeze(name, axis as usize)).collect();
                }
                let parts: Vec<&str> = all.iter().map(String::as_str).collect();
                let result = w.with("Concat", &parts, vec![int("axis", axis)]);
                return Ok(Some(w.finish_one(node, result)));
            }
            _ => return Ok(None),
        };
        if made.len() > LONGEST {
            return Err(unknown("a sequence of that length"));
        }
        self.all.insert(node.output.first().cloned().unwrap_or_default(), made);
        Ok(Some(Vec::new()))
    }
}

/// The parts of a tensor along a dimension, and the nodes that make them.
fn split(mut w: Writer, node: &NodeProto, known: &dyn Known) -> Result<(Vec<String>, Vec<NodeProto>)> {
    let (x, dims) = (node.given(0).unwrap_or_default(), shape(node, known, 0)?);
    let axis = from_the_start(node.int("axis").unwrap_or(0), dims.len())?;
    let length = dims[axis];
    let given = match node.given(1) {
        None => None,
        Some(name) => Some((known.integers(name).ok_or("its lengths are not known")?, known.dims(name).unwrap_or(&[]))),
    };
    let lengths: Vec<usize> = match given {
        None => vec![1; length],
        // one length for all but the last
        Some((each, [])) => {
            let each = each.first().and_then(|n| usize::try_from(*n).ok()).filter(|n| *n > 0);
            let each = each.ok_or("its length is none")?;
            (0..length.div_ceil(each)).map(|i| each.min(length - i * each)).collect()
        }
        Some((all, _)) => all.iter().map(|n| usize::try_from(*n).unwrap_or(usize::MAX)).collect(),
    };
    let sum = lengths.iter().fold(0usize, |sum, n| sum.saturating_add(*n));
    if sum != length || lengths.len() > LONGEST || lengths.contains(&0) {
        return Err("its lengths do not fit its input".into());
    }
    let single = node.given(1).is_none() && node.int("keepdims").unwrap_or(1) == 0;
    let (mut parts, mut start) = (Vec::new(), 0);
    for length in lengths {
        let mut part = w.slice(x, axis, start, start + length);
        start += length;
        if single && known.opset() < 13 {
            part = w.with("Squeeze", &[&part], vec![ints("axes", &[axis as i64])]);
        } else if single {
            let axes = w.list(&[axis as i64]);
            part = w.op("Squeeze", &[&part, &axes]);
        }
        parts.push(part);
    }
    Ok((parts, w.finish(node, &[])))
}
