//! Which of a network's outputs is the prediction.

use super::names;
use super::roles::InputInfo;
use crate::error::{Hint, model_error};
use crate::{Error, Result};

/// The number of the prediction among the outputs: the one that is `named`, or the only one, or the one that its shape, and
/// then its name, speaks for. `sample` is the sample's input.
///
/// # Errors
/// When there is none, none of the name, or nothing tells which it is.
pub(super) fn prediction(outputs: &[InputInfo], named: Option<&str>, sample: Option<&InputInfo>) -> Result<usize> {
    let listed = |of: &[usize]| of.iter().map(|i| outputs[*i].describe()).collect::<Vec<_>>().join(", ");
    let all: Vec<usize> = (0..outputs.len()).collect();
    if let Some(name) = named {
        let found = outputs.iter().position(|output| output.name == name);
        return found.ok_or_else(|| {
            Error::invalid(format!("the model has no output '{name}': its outputs are {}", listed(&all)))
        });
    }
    let mut left = all.clone();
    let tests: [&dyn Fn(&usize) -> bool; 4] = [
        &|i| !outputs[*i].integer && sample.is_none_or(|sample| may_be_of(&outputs[*i].shape, &sample.shape)),
        &|i| sample.is_some_and(|sample| is_of(&outputs[*i].shape, &sample.shape)),
        &|i| !names::is_beside_a_prediction(&outputs[*i].name),
        &|i| names::is_prediction(&outputs[*i].name),
    ];
    for test in tests {
        if left.len() > 1 && left.iter().any(test) {
            left.retain(test);
        }
    }
    match left.as_slice() {
        [one] => Ok(*one),
        [] => Err(model_error("the graph has no output")),
        several => {
            let message =
                format!("the model has {} outputs that may be its prediction: {}", several.len(), listed(several));
            Err(model_error(message).with_hint(Hint::Output))
        }
    }
}

/// Whether an output may be a prediction for such a sample: of its shape, but for the channels.
fn may_be_of(output: &[Option<usize>], sample: &[Option<usize>]) -> bool {
    let fits = |(i, (a, b)): (usize, (&Option<usize>, &Option<usize>))| {
        i == 0 || (i == 1 && sample.len() > 2) || a.is_none() || b.is_none() || a == b
    };
    output.len() == sample.len() && output.iter().zip(sample).enumerate().all(fits)
}

/// Whether it is of the sample's shape, as far as both are known.
fn is_of(output: &[Option<usize>], sample: &[Option<usize>]) -> bool {
    let fits = |(a, b): (&Option<usize>, &Option<usize>)| a.is_none() || b.is_none() || a == b;
    output.len() == sample.len() && output.iter().zip(sample).skip(1).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str, shape: &[usize]) -> InputInfo {
        let shape: Vec<_> = shape.iter().map(|d| Some(*d)).collect();
        InputInfo { name: name.into(), integer: false, symbols: vec![None; shape.len()], shape }
    }

    #[test]
    fn shapes_and_names_tell_the_prediction() {
        let sample = value("sample", &[1, 3, 8, 8]);
        let of = |outputs: &[InputInfo], named: Option<&str>| prediction(outputs, named, Some(&sample));
        let hidden = value("mid", &[1, 16, 4, 4]);
        let [a, b] = ["sample_out", "variance"].map(|name| value(name, &[1, 3, 8, 8]));
        assert_eq!(of(&[hidden.clone(), a.clone()], None).unwrap(), 1);
        assert_eq!(of(&[b.clone(), a.clone(), hidden.clone()], None).unwrap(), 1);
        assert_eq!(of(&[b.clone(), a.clone()], Some("variance")).unwrap(), 0);
        // the learned variance in the same output
        assert_eq!(of(&[hidden, value("a", &[1, 6, 8, 8])], None).unwrap(), 1);
        let [one, other] = ["a", "b"].map(|name| value(name, &[1, 3, 8, 8]));
        let error = of(&[one, other], None).unwrap_err();
        assert_eq!(error.hint(), Some(&Hint::Output));
        assert!(
            error.to_string().contains("2 outputs that may be its prediction: a (float, [1, 3, 8, 8]), b"),
            "{error}"
        );
        assert!(of(&[a, b], Some("c")).unwrap_err().to_string().contains("no output 'c'"));
    }
}
