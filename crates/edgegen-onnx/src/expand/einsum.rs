//! Einsum of any equation: sums over what one operand alone has, and products of matrices, two operands at a time. What is one
//! product of stacked matrices stays as it is: whoever runs it knows that form.

use super::writer::ints;
use super::{Known, Writer, shape, unknown};
use crate::Result;
use crate::pb::NodeProto;
use std::collections::HashMap;

/// A value and the letters of its dimensions.
#[derive(Clone, Debug)]
struct Term {
    name: String,
    letters: Vec<char>,
}

pub fn expansion(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    let equation: String = node.text("equation").unwrap_or_default().chars().filter(|c| !c.is_whitespace()).collect();
    let (terms, result, sizes) = read(&equation, node, known)?;
    if is_plain(&equation, &terms, &result) {
        return Ok(None);
    }
    let mut w = Writer::new(node, known);
    let mut terms: Vec<Term> = terms.into_iter().map(|term| without_ones(&mut w, term)).collect();
    terms.reverse();
    let mut all = terms.pop().ok_or("it has no operand")?;
    while let Some(next) = terms.pop() {
        let later: Vec<char> = terms.iter().flat_map(|t| &t.letters).chain(&result).copied().collect();
        all = product(&mut w, all, next, &later, &sizes);
    }
    let summed = sum_but(&mut w, all, &result);
    // letters that no operand has in full are dimensions of one
    let missing: Vec<char> = result.iter().filter(|c| !summed.letters.contains(c)).copied().collect();
    let letters = [&missing[..], &summed.letters].concat();
    let name = if missing.is_empty() { summed.name } else { w.reshape(&summed.name, &of(&letters, &sizes)) };
    let name = arranged(&mut w, Term { name, letters }, &result);
    Ok(Some(w.finish_one(node, name)))
}

/// The operands with their letters, those of the result, and how long each dimension is.
type Read = (Vec<(Term, Vec<usize>)>, Vec<char>, HashMap<char, usize>);

fn read(equation: &str, node: &NodeProto, known: &dyn Known) -> Result<Read> {
    let (operands, result) = match equation.split_once("->") {
        Some((operands, result)) => (operands, Some(result)),
        None => (equation, None),
    };
    let operands: Vec<&str> = operands.split(',').collect();
    if operands.len() != node.input.len() {
        return Err(format!("its equation has {} operands, and it {}", operands.len(), node.input.len()));
    }
    let mut sizes: HashMap<char, usize> = HashMap::new();
    let mut terms = Vec::new();
    let mut longest = Vec::new();
    for (i, operand) in operands.iter().enumerate() {
        let dims = shape(node, known, i)?;
        let named = operand.replace("...", "").chars().count();
        let more = dims.len().checked_sub(named).ok_or("an operand has fewer dimensions than letters")?;
        let letters = letters(operand, more)?;
        if letters.len() != dims.len() {
            return Err("an operand has more dimensions than letters".into());
        }
        if letters.iter().enumerate().any(|(i, c)| letters[..i].contains(c)) {
            return Err(unknown("a letter that an operand has twice"));
        }
        for (letter, size) in letters.iter().zip(dims) {
            let before = sizes.entry(*letter).or_insert(*size);
            // a dimension of one is repeated
            if *before != *size && *before != 1 && *size != 1 {
                return Err(format!("the dimension {letter} has several sizes"));
            }
            *before = (*before).max(*size);
        }
        let inside: Vec<char> = letters.iter().filter(|c| !c.is_alphabetic()).copied().collect();
        if inside.len() > longest.len() {
            longest = inside;
        }
        terms.push((Term { name: node.given(i).unwrap_or_default().into(), letters }, dims.to_vec()));
    }
    let result = match result {
        Some(result) => letters(result, longest.len())?,
        None => {
            let all: Vec<char> = terms.iter().flat_map(|(t, _)| &t.letters).copied().collect();
            let once = |c: &char| c.is_alphabetic() && all.iter().filter(|o| *o == c).count() == 1;
            let mut alone: Vec<char> = all.iter().filter(|c| once(c)).copied().collect();
            alone.sort_unstable();
            [longest, alone].concat()
        }
    };
    if result.iter().any(|c| !sizes.contains_key(c)) {
        return Err("its result has a letter that no operand has".into());
    }
    Ok((terms, result, sizes))
}

/// The letters of a term, with digits for the dimensions that an ellipsis stands for, the last of which is 0.
fn letters(term: &str, ellipsis: usize) -> Result<Vec<char>> {
    let digits: Option<Vec<char>> = (0..ellipsis).rev().map(|i| char::from_digit(i as u32, 10)).collect();
    let digits = digits.ok_or_else(|| unknown("an ellipsis of more than ten dimensions"))?;
    let (before, after) = term.split_once("...").map_or((term, None), |(before, after)| (before, Some(after)));
    let mut all: Vec<char> = before.chars().collect();
    if let Some(after) = after {
        all.extend(digits);
        all.extend(after.chars());
    }
    let known = all.iter().all(|c| c.is_ascii_alphabetic() || c.is_ascii_digit());
    if known { Ok(all) } else { Err(format!("its equation has '{}'", crate::signature::shown(term))) }
}

/// Whether it is a transposition, or one product of stacked matrices.
fn is_plain(equation: &str, terms: &[(Term, Vec<usize>)], result: &[char]) -> bool {
    let has = |t: &[char], c: &char| t.contains(c);
    match terms {
        _ if equation.contains("...") || !equation.contains("->") => false,
        [(x, _)] => x.letters.len() == result.len(),
        [(x, x_dims), (y, y_dims)] => {
            let only = |t: &[char], f: &dyn Fn(&char) -> bool| t.iter().filter(|c| f(c)).count();
            let (x, y) = (&x.letters, &y.letters);
            let rows = only(x, &|c| has(result, c) && !has(y, c));
            let columns = only(y, &|c| has(result, c) && !has(x, c));
            let inner = only(x, &|c| has(y, c) && !has(result, c));
            let batch = only(x, &|c| has(y, c) && has(result, c));
            let whole = x.len() == batch + 2 && y.len() == x.len() && result.len() == x.len();
            let same = x.iter().zip(x_dims).all(|(c, n)| y.iter().zip(y_dims).all(|(d, m)| c != d || n == m));
            [rows, columns, inner] == [1; 3] && whole && same
        }
        _ => false,
    }
}

fn of(letters: &[char], sizes: &HashMap<char, usize>) -> Vec<usize> {
    letters.iter().map(|c| sizes[c]).collect()
}

/// Without its dimensions of one.
fn without_ones(w: &mut Writer, (term, dims): (Term, Vec<usize>)) -> Term {
    if dims.iter().all(|n| *n != 1) {
        return term;
    }
    let kept: Vec<usize> = dims.iter().copied().filter(|n| *n != 1).collect();
    let letters = term.letters.iter().zip(&dims).filter(|(_, n)| **n != 1).map(|(c, _)| *c).collect();
    Term { name: w.reshape(&term.name, &kept), letters }
}

/// The sum over the letters that are not among those kept.
fn sum_but(w: &mut Writer, term: Term, kept: &[char]) -> Term {
    let axes: Vec<i64> =
        (0..term.letters.len()).filter(|i| !kept.contains(&term.letters[*i])).map(|i| i as i64).collect();
    if axes.is_empty() {
        return term;
    }
    let letters = term.letters.into_iter().filter(|c| kept.contains(c)).collect();
    let name = if w.opset() < 13 {
        let keepdims = super::writer::int("keepdims", 0);
        w.with("ReduceSum", &[&term.name], vec![ints("axes", &axes), keepdims])
    } else {
        let list = w.list(&axes);
        w.with("ReduceSum", &[&term.name, &list], vec![super::writer::int("keepdims", 0)])
    };
    Term { name, letters }
}

/// With its dimensions in another order.
fn arranged(w: &mut Writer, term: Term, letters: &[char]) -> String {
    let perm: Vec<usize> = letters.iter().filter_map(|c| term.letters.iter().position(|o| o == c)).collect();
    if perm.is_sorted() { term.name } else { w.transpose(&term.name, &perm) }
}

/// The product of two operands, summed over what neither the result nor a later operand has.
fn product(w: &mut Writer, a: Term, b: Term, later: &[char], sizes: &HashMap<char, usize>) -> Term {
    let with = |letters: &[char]| [later, letters].concat();
    let (a, b) = (sum_but(w, a.clone(), &with(&b.letters)), sum_but(w, b, &with(&a.letters)));
    let pick = |t: &Term, f: &dyn Fn(&char) -> bool| t.letters.iter().filter(|c| f(c)).copied().collect::<Vec<char>>();
    let batch = pick(&a, &|c| b.letters.contains(c) && later.contains(c));
    let inner = pick(&a, &|c| b.letters.contains(c) && !later.contains(c));
    let (rows, columns) = (pick(&a, &|c| !b.letters.contains(c)), pick(&b, &|c| !a.letters.contains(c)));
    let product_of = |letters: &[char]| of(letters, sizes).into_iter().fold(1, usize::saturating_mul);
    let letters = [&batch[..], &rows, &columns].concat();
    let x = arranged(w, a, &[&batch[..], &rows, &inner].concat());
    let name = if inner.is_empty() {
        // number by number, with the others' dimensions as ones
        let y = arranged(w, b, &[&batch[..], &columns].concat());
        let x = w.reshape(&x, &[of(&batch, sizes), of(&rows, sizes), vec![1; columns.len()]].concat());
        let y = w.reshape(&y, &[of(&batch, sizes), vec![1; rows.len()], of(&columns, sizes)].concat());
        w.op("Mul", &[&x, &y])
    } else {
        let y = arranged(w, b, &[&batch[..], &inner, &columns].concat());
        let x = w.reshape(&x, &[of(&batch, sizes), vec![product_of(&rows), product_of(&inner)]].concat());
        let y = w.reshape(&y, &[of(&batch, sizes), vec![product_of(&inner), product_of(&columns)]].concat());
        let all = w.op("MatMul", &[&x, &y]);
        w.reshape(&all, &of(&letters, sizes))
    };
    Term { name, letters }
}
