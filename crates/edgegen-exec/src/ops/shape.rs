//! Shape, which is known before anything runs, and products over such shapes.

use super::Operator;
use crate::constant::Constant;
use crate::node::int;

pub static OPERATORS: &[Operator] = &[
    Operator::new("Shape").known_from_shapes(|n| {
        let dims = n.shape(0)?;
        let rank = i64::try_from(dims.len()).unwrap_or(i64::MAX);
        let bound = |v: i64| (if v < 0 { v.saturating_add(rank) } else { v }).clamp(0, rank) as usize;
        let (start, end) = (bound(int(n.node, "start").unwrap_or(0)), bound(int(n.node, "end").unwrap_or(rank)));
        Ok(Some(Constant::list(dims[start..end.max(start)].iter().map(|d| *d as i64))))
    }),
    Operator::new("ReduceProd").fold(|_, input| {
        let x = input.first().copied().flatten();
        Ok(x.map(|x| vec![Constant::of(vec![], vec![x.values.iter().product()], x.kind)]))
    }),
];
