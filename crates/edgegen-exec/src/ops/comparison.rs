//! Comparisons, logic and choices. What holds is 1, and what does not is 0.

use super::binary::{one, zip};
use super::unary::UnaryOperation;
use super::{Operation, Operator, same_shape};
use crate::compile::Compiler;
use crate::constant::{Constant, broadcast, made};
use crate::graph::Inference;
use crate::lower::Operand;
use crate::place::{Access, Handle, PROVEN, Places, Strided};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, product};
use kernels::general::{Binary, Unary};
use onnx::pb::NodeProto;
use onnx::pb::tensor_proto::DataType;

pub static OPERATORS: &[Operator] = &[
    comparison("Equal").lower(|l, i| one(l, i, Binary::Equal)),
    comparison("Less").lower(|l, i| one(l, i, Binary::Less)),
    comparison("LessOrEqual").lower(|l, i| one(l, i, Binary::LessOrEqual)),
    comparison("Greater").lower(|l, i| one(l, i, Binary::Greater)),
    comparison("GreaterOrEqual").lower(|l, i| one(l, i, Binary::GreaterOrEqual)),
    comparison("And").lower(|l, i| one(l, i, Binary::And)),
    comparison("Or").lower(|l, i| one(l, i, Binary::Or)),
    comparison("Xor").lower(|l, i| one(l, i, Binary::Xor)),
    Operator::new("Not")
        .truths()
        .infer(same_shape)
        .fold(|_, input| {
            let x = input.first().copied().flatten();
            Ok(x.map(|x| vec![x.map(|v| f32::from(v == 0.0))]))
        })
        .lower(|l, i| l.one(i, UnaryOperation { f: Unary::Not, x: l.value(l.node(i), 0)? })),
    Operator::new("Where")
        .truths()
        .infer(|n| Ok(vec![broadcast(n.shape(0)?, &broadcast(n.shape(1)?, n.shape(2)?)?)?]))
        .fold(choose)
        .lower(|l, i| {
            let node = l.node(i);
            let operands = [l.operand(node, 0)?, l.operand(node, 1)?, l.operand(node, 2)?];
            l.one(i, Choice { operands })
        }),
];

const fn comparison(name: &'static str) -> Operator {
    Operator::new(name).truths().infer(infer).fold(compare)
}

fn infer(n: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    Ok(vec![broadcast(n.shape(0)?, n.shape(1)?)?])
}

fn compare(node: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let &[Some(a), Some(b)] = input else { return Ok(None) };
    let f = |x: f32, y: f32| match node.op_type.as_str() {
        "Equal" => x == y,
        "Less" => x < y,
        "LessOrEqual" => x <= y,
        "Greater" => x > y,
        "GreaterOrEqual" => x >= y,
        "Xor" => (x != 0.0) != (y != 0.0),
        "And" => x != 0.0 && y != 0.0,
        _ => x != 0.0 || y != 0.0,
    };
    Ok(Some(vec![zip(a, b, DataType::Bool, |x, y| f32::from(f(x, y)))?]))
}

fn choose(_: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let &[Some(test), Some(a), Some(b)] = input else { return Ok(None) };
    let dims = broadcast(&broadcast(&test.dims, &a.dims)?, &b.dims)?;
    made(&dims, a.values.len().saturating_add(b.values.len()))?;
    let (test, x, y) = (test.expanded(&dims), a.expanded(&dims), b.expanded(&dims));
    let chosen = test.values.iter().zip(x.values.iter().zip(y.values.iter()));
    let values = chosen.map(|(t, (x, y))| if *t != 0.0 { *x } else { *y }).collect();
    Ok(Some(vec![Constant::of(dims, values, a.kind)]))
}

/// The numbers of the second operand where the first is not 0, else those of the third.
struct Choice<'a> {
    operands: [Operand<'a>; 3],
}

impl<'a> Operation<'a> for Choice<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        self.operands.iter().filter_map(Operand::value).collect()
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let [test, a, b] = &self.operands;
        let (test, a, b) = (c.operand(test)?, c.operand(a)?, c.operand(b)?);
        let dims = c.dims(out)?;
        let like = [&a, &b, &test].into_iter().find(|p| p.dims == dims).unwrap_or(&a);
        let output = c.like(out, like)?;
        let [to, test, a, b] = c.strided([&output, &test, &a, &b])?;
        let mut places = Places::default();
        let to = places.strided(Access::Write, to);
        let from = [test, a, b].map(|x| places.strided(Access::Read, x));
        c.push(ChoiceStep { to, from }, places);
        c.put(out, output);
        Ok(())
    }
}

#[derive(Debug)]
struct ChoiceStep {
    to: Handle<Strided>,
    from: [Handle<Strided>; 3],
}

impl Kernel for ChoiceStep {
    fn name(&self, _: &Places) -> &'static str {
        "choice"
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (places.get(self.to).len().to_string(), 0)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        Some(product(&[20, places.get(self.to).len()]))
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let to = places.get(self.to);
        let alike = self.from.iter().all(|x| places.get(*x).dims == to.dims) && to.matrix() == [(1, 0); 2];
        if alike { Ok(()) } else { Err("values of unlike shapes".into()) }
    }

    fn run(&self, Call { isa, part, places, memory }: Call<'_>, _: &mut Scratch) {
        let [test, a, b] = self.from.map(|x| places.get(x));
        kernels::choose(isa, &Strided::loops([places.get(self.to), test, a, b]).expect(PROVEN), part, memory);
    }
}
