//! What passes its input on: Identity, and Dropout, which does nothing once a network is trained.

use super::{Operator, same_shape};

pub static OPERATORS: &[Operator] = &[
    Operator::new("Identity").infer(same_shape).any_type().fold(|_, input| Ok(first(input))),
    Operator::new("Dropout")
        .attributes(&["ratio", "seed"])
        .infer(|n| Ok(vec![n.shape(0)?.to_vec(); n.node.output.len()]))
        .fold(|_, input| Ok(first(input))),
];

fn first(input: &[Option<&crate::constant::Constant>]) -> Option<Vec<crate::constant::Constant>> {
    input.first().copied().flatten().map(|x| vec![x.clone()])
}
