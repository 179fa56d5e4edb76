//! Einsum of one operand, which is a transpose, and of two, which is a product of stacked matrices.

use super::attention::attention;
use super::matmul::{MatMul, product_of};
use super::rearrange::{Rearrange, view};
use super::Operator;
use crate::graph::{Inference, unknown_form};
use crate::lower::{Lowered, Lowering, Matrices};
use crate::node::text;
use crate::reason::Reason;
use onnx::pb::NodeProto;
use std::collections::HashMap;

pub static OPERATORS: &[Operator] = &[Operator::new("Einsum").attributes(&["equation"]).infer(infer).lower(lower)];

/// The letters of an Einsum's operands and of its result.
fn terms(node: &NodeProto) -> Option<(Vec<Vec<char>>, Vec<char>)> {
    let equation: String = text(node, "equation")?.chars().filter(|c| !c.is_whitespace()).collect();
    let (terms, result) = equation.split_once("->")?;
    let terms: Vec<Vec<char>> = terms.split(',').map(|t| t.chars().collect()).collect();
    let plain = |t: &Vec<char>| t.iter().enumerate().all(|(i, c)| c.is_alphabetic() && !t[..i].contains(c));
    let result = result.chars().collect();
    (terms.iter().all(plain) && plain(&result) && terms.len() == node.input.len()).then_some((terms, result))
}

fn infer(n: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    let (terms, result) = terms(n.node).ok_or_else(unknown_form)?;
    let mut sizes: HashMap<char, usize> = HashMap::new();
    for (i, term) in terms.iter().enumerate() {
        let dims = n.shape(i)?;
        if dims.len() != term.len() {
            return Err(unknown_form());
        }
        for (letter, size) in term.iter().zip(dims) {
            if sizes.insert(*letter, *size).is_some_and(|before| before != *size) {
                return Err(Reason::Malformed(format!("the dimension {letter} has several sizes")));
            }
        }
    }
    let dims: Option<Vec<usize>> = result.iter().map(|c| sizes.get(c).copied()).collect();
    Ok(vec![dims.ok_or_else(unknown_form)?])
}

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    attention(l, i).or_else(|| transpose(l, i)).or_else(|| l.one(i, product_of(l, l.node(i))?))
}

/// One operand, whose dimensions come in another order.
fn transpose<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let (terms, result) = terms(l.node(i))?;
    let [term] = terms.as_slice() else { return None };
    let perm = result.iter().map(|c| term.iter().position(|o| o == c)).collect::<Option<Vec<_>>>()?;
    if perm.len() == term.len() { view(l, i, Rearrange::Permute(perm)) } else { None }
}

/// Two operands as stacks of matrices.
pub fn as_product<'a>(l: &Lowering<'a>, node: &'a NodeProto) -> Option<MatMul<'a>> {
    let (terms, result) = terms(node)?;
    let [x, y] = terms.as_slice() else { return None };
    let place = |t: &[char], c: char| t.iter().position(|o| *o == c);
    let only = |t: &[char], with: &[&[char]], without: &[&[char]]| -> Vec<char> {
        let fits = |c: &char| with.iter().all(|w| w.contains(c)) && !without.iter().any(|w| w.contains(c));
        t.iter().copied().filter(fits).collect()
    };
    let batch = only(x, &[y, &result], &[]);
    let [row] = only(x, &[&result], &[y])[..] else { return None };
    let [column] = only(y, &[&result], &[x])[..] else { return None };
    let [inner] = only(x, &[y], &[&result])[..] else { return None };
    let order = |t: &[char], last: [char; 2]| -> Option<Vec<usize>> {
        batch.iter().copied().chain(last).map(|c| place(t, c)).collect()
    };
    let whole = x.len() == batch.len() + 2 && y.len() == x.len() && result.len() == x.len();
    whole.then_some(MatMul {
        a: Matrices { x: l.operand(node, 0)?, order: order(x, [row, inner])? },
        b: Matrices { x: l.operand(node, 1)?, order: order(y, [inner, column])? },
        order: order(&result, [row, column])?,
    })
}
