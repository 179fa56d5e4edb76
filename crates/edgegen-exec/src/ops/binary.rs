//! Sums, differences, products, quotients and powers of two values.

use super::image_map::{ImageFunction, ImageMap, Output};
use super::unary::{UnaryOperation, gelu};
use super::{Fusion, InHalves, Operation, Operator, norm_forms};
use crate::compile::Compiler;
use crate::constant::{Constant, broadcast, is_integer, made};
use crate::graph::{Inference, unknown_form};
use crate::lower::{Lowered, Lowering, Operand};
use crate::node::int;
use crate::place::{Access, Handle, PROVEN, Places, Strided};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, product};
use kernels::arena::Precision;
use kernels::arena::StridedView;
use kernels::general::{Binary, Unary};
use onnx::pb::NodeProto;
use onnx::pb::tensor_proto::DataType;

pub static OPERATORS: &[Operator] = &[
    Operator::new("Add").infer(infer).fold(fold).lower(|l, i| one(l, i, Binary::Add)),
    Operator::new("Sub").infer(infer).fold(fold).lower(|l, i| one(l, i, Binary::Subtract)),
    Operator::new("Mul").infer(infer).fold(fold).lower(|l, i| {
        gelu(l, i).or_else(|| norm_forms::rms_norm(l, i)).or_else(|| one(l, i, Binary::Multiply))
    }),
    Operator::new("Div").infer(infer).fold(fold).lower(divide),
    Operator::new("Min").infer(infer).fold(fold).lower(|l, i| one(l, i, Binary::Least)),
    Operator::new("Max").infer(infer).fold(fold).lower(|l, i| one(l, i, Binary::Greatest)),
    Operator::new("Mod").attributes(&["fmod"]).infer(infer).fold(fold).lower(remainder),
    // the slope of the second input has as many dimensions as the first, or fewer
    Operator::new("PRelu").infer(|n| infer(n).and_then(|dims| if dims[0] == n.shape(0)? { Ok(dims) } else { Err(unknown_form()) }))
        .lower(|l, i| one(l, i, Binary::PRelu)),
    Operator::new("Pow").infer(infer).fold(fold).lower(|l, i| norm_forms::rms_norm(l, i).or_else(|| pow(l, i))),
];

fn infer(n: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    if n.node.input.len() != 2 {
        return Err(unknown_form());
    }
    Ok(vec![broadcast(n.shape(0)?, n.shape(1)?)?])
}

fn fold(node: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let &[Some(a), Some(b)] = input else { return Ok(None) };
    let like_c = int(node, "fmod") == Some(1);
    if a.is_integer() {
        let result = whole(&node.op_type, like_c, a, b)?;
        return Ok(Some(vec![result]));
    }
    let f = |x: f32, y: f32| match node.op_type.as_str() {
        "Add" => x + y,
        "Sub" => x - y,
        "Mul" => x * y,
        "Div" => x / y,
        "Pow" => libm::powf(x, y),
        // of two of which one is no number, that
        "Min" => if x < y || x.is_nan() { x } else { y },
        "Max" => if x > y || x.is_nan() { x } else { y },
        // fmod, as floats need it
        _ => x % y,
    };
    Ok(Some(vec![zip(a, b, a.kind, f)?]))
}

/// What an operator makes of two stored tensors of integers, which f32 holds.
fn whole(op: &str, like_c: bool, a: &Constant, b: &Constant) -> Result<Constant, Reason> {
    let unknown = || Reason::from("it computes with integers that are too large");
    if !b.is_integer() {
        return Err("it computes with integers and floats".into());
    }
    let f = |x: i64, y: i64| match op {
        "Add" => x.checked_add(y).ok_or_else(unknown),
        "Sub" => x.checked_sub(y).ok_or_else(unknown),
        "Mul" => x.checked_mul(y).ok_or_else(unknown),
        "Div" | "Mod" if y == 0 => Err(Reason::Malformed("it divides by zero".into())),
        "Div" => x.checked_div(y).ok_or_else(unknown),
        "Mod" if like_c => Ok(x % y),
        "Mod" => Ok((x % y + y) % y),
        "Pow" => u32::try_from(y).ok().and_then(|y| x.checked_pow(y)).ok_or_else(unknown),
        "Min" => Ok(x.min(y)),
        "Max" => Ok(x.max(y)),
        _ => Err(unknown()),
    };
    let dims = broadcast(&a.dims, &b.dims)?;
    made(&dims, a.values.len().saturating_add(b.values.len()))?;
    let (x, y) = (a.expanded(&dims).integers(), b.expanded(&dims).integers());
    let results = x.into_iter().zip(y).map(|(x, y)| f(x, y)).collect::<Result<Vec<i64>, Reason>>()?;
    // in others they would wrap
    let fits = a.kind == DataType::Int64 || (a.kind == DataType::Int32 && results.iter().all(|v| i32::try_from(*v).is_ok()));
    if fits { Ok(Constant::whole(dims, results, a.kind)) } else { Err(unknown()) }
}

/// A number of every two of two stored tensors that are broadcast together.
pub fn zip(a: &Constant, b: &Constant, kind: DataType, f: impl Fn(f32, f32) -> f32) -> Result<Constant, Reason> {
    let dims = broadcast(&a.dims, &b.dims)?;
    made(&dims, a.values.len().saturating_add(b.values.len()))?;
    let (x, y) = (a.expanded(&dims), b.expanded(&dims));
    Ok(Constant::of(dims, x.values.iter().zip(y.values.iter()).map(|(x, y)| f(*x, *y)).collect(), kind))
}

/// An operation of node `i` on its two inputs.
pub fn one<'a>(l: &Lowering<'a>, i: usize, f: Binary) -> Option<Lowered<'a>> {
    let node = l.node(i);
    l.one(i, BinaryOperation { f, a: l.operand(node, 0)?, b: l.operand(node, 1)? })
}

/// Whether the first value of a node holds whole numbers.
fn is_whole(l: &Lowering, node: &NodeProto) -> bool {
    node.input.first().and_then(|x| l.graph.type_of(x)).is_some_and(is_integer)
}

/// A quotient; of whole numbers without its fraction: those that f32 holds have none that it rounds away.
fn divide<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    match is_whole(l, l.node(i)) {
        true => one(l, i, Binary::WholeQuotient),
        false => gelu(l, i).or_else(|| one(l, i, Binary::Divide)),
    }
}

/// A remainder with the sign of the first number, or of whole numbers with that of the second.
fn remainder<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    match int(l.node(i), "fmod") == Some(1) {
        true => one(l, i, Binary::Remainder),
        false if is_whole(l, l.node(i)) => one(l, i, Binary::WholeRemainder),
        false => None,
    }
}

fn pow<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let Some(power) = l.constant(node, 1).and_then(Constant::uniform) else { return one(l, i, Binary::Power) };
    let f = match power {
        2.0 => Unary::Square,
        3.0 => Unary::Cube,
        0.5 => Unary::Sqrt,
        _ => return one(l, i, Binary::Power),
    };
    match l.value(node, 0) {
        Some(x) => l.one(i, UnaryOperation { f, x }),
        None => one(l, i, Binary::Power),
    }
}

/// A number of every two numbers of two values.
struct BinaryOperation<'a> {
    f: Binary,
    a: Operand<'a>,
    b: Operand<'a>,
}

impl<'a> Operation<'a> for BinaryOperation<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        [&self.a, &self.b].into_iter().filter_map(Operand::value).collect()
    }

    fn fusion(&self) -> Fusion<'_, 'a> {
        if self.f == Binary::Add { Fusion::Add(&self.a, &self.b) } else { Fusion::None }
    }

    /// A sum of images is, and one that may become part of the step that makes an image.
    fn in_halves(&self, c: &Compiler<'_, 'a>, out: &str) -> InHalves {
        let images = c.dims(out).is_ok_and(|d| (3..=4).contains(&d.len()));
        let [a, b] = [&self.a, &self.b].map(|operand| operand.value());
        let (Binary::Add, true, Some(a), Some(b)) = (self.f, images, a, b) else { return InHalves::Never };
        let alike = |name: &str| c.dims(name).ok() == c.dims(out).ok() && c.precision_of(name) == Precision::F16;
        let may = |x: &str, y: &str| alike(x) && (alike(y) || c.is_before_sample(y));
        if may(a, b) || may(b, a) { InHalves::Always } else { InHalves::Never }
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let dims = c.dims(out)?;
        let alike = |name: &str| c.dims(name).is_ok_and(|d| d == dims);
        if self.f != Binary::Add || !self.inputs().into_iter().all(alike) {
            c.in_floats(&self.inputs())?;
        }
        let inputs = [c.operand(&self.a)?, c.operand(&self.b)?];
        let whole = |k: usize| inputs[k].dims == dims;
        let yields = |c: &Compiler, k: usize, operand: &Operand| {
            operand.value().is_some_and(|name| whole(k) && c.yields(name, out, &inputs[k]))
        };
        let output = match () {
            () if yields(c, 0, &self.a) => inputs[0].clone(),
            () if yields(c, 1, &self.b) => inputs[1].clone(),
            () => c.like(out, &inputs[usize::from(!whole(0) && whole(1))])?,
        };
        let mut places = Places::default();
        match (self.f, [inputs[0].view(), inputs[1].view(), output.view()]) {
            (Binary::Add, [Some(input), Some(other), Some(to)]) if whole(0) && whole(1) => {
                let output = Output::Float(places.image(Access::Write, to));
                let input = places.image(Access::Read, input);
                let function = ImageFunction::Add(places.image(Access::Read, other));
                c.push(ImageMap { function, input, output }, places);
            }
            _ => {
                let [to, a, b] = c.strided([&output, &inputs[0], &inputs[1]])?;
                let to = places.strided(Access::Write, to);
                let from = [a, b].map(|x| places.strided(Access::Read, x));
                c.push(BinaryStep { f: self.f, to, from }, places);
            }
        }
        c.put(out, output);
        Ok(())
    }
}

/// Pushes a step that adds to each number of `to` that of `other`, which is broadcast.
pub fn add_to(c: &mut Compiler, to: &StridedView, other: &StridedView) -> Result<(), Reason> {
    let [to, other] = c.strided([to, other])?;
    let mut places = Places::default();
    let from = [to, other].map(|x| places.strided(Access::Read, x));
    let to = places.strided(Access::Write, to);
    c.push(BinaryStep { f: Binary::Add, to, from }, places);
    Ok(())
}

#[derive(Debug)]
struct BinaryStep {
    f: Binary,
    to: Handle<Strided>,
    from: [Handle<Strided>; 2],
}

impl Kernel for BinaryStep {
    fn name(&self, _: &Places) -> &'static str {
        match self.f {
            Binary::Add | Binary::Subtract | Binary::Multiply | Binary::Divide => "sum or product",
            _ => "function of two",
        }
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (places.get(self.to).len().to_string(), 0)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        Some(product(&[15, places.get(self.to).len()]))
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let to = places.get(self.to);
        let alike = self.from.iter().all(|x| places.get(*x).dims == to.dims) && to.matrix() == [(1, 0); 2];
        if alike { Ok(()) } else { Err("values of unlike shapes".into()) }
    }

    fn works_in_place(&self) -> bool {
        true
    }

    fn run(&self, Call { isa, part, places, memory }: Call<'_>, _: &mut Scratch) {
        let [a, b] = self.from.map(|x| places.get(x));
        kernels::binary(isa, self.f, &Strided::loops([places.get(self.to), a, b]).expect(PROVEN), part, memory);
    }
}
