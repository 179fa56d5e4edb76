//! Functions of every number: activations, roots, and the forms that exporters write some of them in.

use super::image_map::{ImageFunction, ImageMap, Output};
use super::{Fusion, InHalves, Operation, Operator, same_shape};
use crate::compile::Compiler;
use crate::constant::Constant;
use crate::lower::{Lowered, Lowering};
use crate::node::{float, int, text};
use crate::place::{Access, Handle, PROVEN, Places, Strided};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, product};
use kernels::arena::StridedView;
use kernels::general::{StridedLoops, Unary};
use kernels::{Memory, Part};
use onnx::pb::NodeProto;
use onnx::pb::tensor_proto::DataType;

/// An operator that is one function.
macro_rules! function {
    ($name:literal, $f:expr) => {
        Operator::new($name).infer(same_shape).fold(|_, input| Ok(folded($f, input))).lower(|l, i| one(l, i, $f))
    };
}

/// What a function makes of a stored tensor, as a run would make it.
fn folded(f: Unary, input: &[Option<&Constant>]) -> Option<Vec<Constant>> {
    let x = input.first().copied().flatten()?;
    let mut memory = [x.values.as_slice(), x.values.as_slice()].concat();
    let (from, to) = (StridedView::row_major(0, &[x.len()]), StridedView::row_major(x.len(), &[x.len()]));
    let loops = StridedLoops::new(&[x.len()], [&to, &from].map(|p| (p.start, p.strides.as_slice())))?;
    kernels::unary(kernels::Isa::PORTABLE, f, &loops, Part::WHOLE, Memory::new(&mut memory, &mut []));
    Some(vec![Constant::of(x.dims.clone(), memory.split_off(x.len()), x.kind)])
}

pub static OPERATORS: &[Operator] = &[
    function!("Tanh", Unary::Tanh),
    function!("Relu", Unary::Relu),
    function!("Erf", Unary::Erf),
    function!("Mish", Unary::Mish),
    function!("Sqrt", Unary::Sqrt),
    function!("Exp", Unary::Exp),
    function!("Log", Unary::Log),
    function!("Sin", Unary::Sin),
    function!("Cos", Unary::Cos),
    function!("Neg", Unary::Negate),
    function!("Reciprocal", Unary::Reciprocal),
    function!("Abs", Unary::Absolute),
    function!("Floor", Unary::Floor),
    function!("Ceil", Unary::Ceil),
    function!("Round", Unary::Round),
    function!("Sign", Unary::Sign),
    function!("Softsign", Unary::Softsign),
    function!("HardSwish", Unary::HardSwish),
    function!("Tan", Unary::Tan),
    function!("Asin", Unary::Asin),
    function!("Acos", Unary::Acos),
    function!("Atan", Unary::Atan),
    function!("Sinh", Unary::Sinh),
    function!("Cosh", Unary::Cosh),
    function!("Asinh", Unary::Asinh),
    function!("Acosh", Unary::Acosh),
    function!("Atanh", Unary::Atanh),
    // those with attributes
    parametric("Elu", &["alpha"]),
    parametric("Celu", &["alpha"]),
    parametric("LeakyRelu", &["alpha"]),
    parametric("ThresholdedRelu", &["alpha"]),
    parametric("Selu", &["alpha", "gamma"]),
    parametric("HardSigmoid", &["alpha", "beta"]),
    parametric("Shrink", &["bias", "lambd"]),
    parametric("Gelu", &["approximate"]),
    Operator::new("IsNaN").infer(same_shape).lower(|l, i| one(l, i, Unary::IsNan)).fold(|_, input| {
        Ok(first(input).map(|x| vec![Constant { kind: DataType::Bool, ..x.map(|v| f32::from(v.is_nan())) }]))
    }),
    Operator::new("IsInf").attributes(&["detect_negative", "detect_positive"]).infer(same_shape).lower(|l, i| {
        let asked = |name: &str| int(l.node(i), name).unwrap_or(1) != 0;
        one(l, i, Unary::IsInf { above: asked("detect_positive"), below: asked("detect_negative") })
    }),
    function!("Sigmoid", Unary::Sigmoid).lower(|l, i| silu(l, i).or_else(|| one(l, i, Unary::Sigmoid))),
    function!("Softplus", Unary::Softplus).lower(|l, i| mish(l, i).or_else(|| one(l, i, Unary::Softplus))),
    Operator::new("Swish").attributes(&["alpha"]).infer(same_shape).lower(|l, i| {
        let plain = float(l.node(i), "alpha").unwrap_or(1.0) == 1.0;
        if plain { one(l, i, Unary::Silu) } else { None }
    }),
    Operator::new("Clip")
        .attributes(&["max", "min"])
        .infer(same_shape)
        .fold(|node, input| {
            let f = clamp(node, |k| input.get(k).copied().flatten());
            Ok(f.and_then(|f| folded(f, input)))
        })
        .lower(|l, i| one(l, i, clamp(l.node(i), |k| l.constant(l.node(i), k))?)),
];

/// An operator whose function depends on these attributes.
const fn parametric(name: &'static str, attributes: &'static [&'static str]) -> Operator {
    Operator::new(name)
        .attributes(attributes)
        .infer(same_shape)
        .fold(|node, input| Ok(of_attributes(node).and_then(|f| folded(f, input))))
        .lower(|l, i| one(l, i, of_attributes(l.node(i))?))
}

/// The function of a node with attributes.
fn of_attributes(node: &NodeProto) -> Option<Unary> {
    let of = |name: &str, default: f32| float(node, name).unwrap_or(default);
    Some(match node.op_type.as_str() {
        "Elu" => Unary::Elu(of("alpha", 1.0)),
        "Celu" => Unary::Celu(Some(of("alpha", 1.0)).filter(|a| *a != 0.0)?),
        "LeakyRelu" => Unary::LeakyRelu(of("alpha", 0.01)),
        "ThresholdedRelu" => Unary::ThresholdedRelu(of("alpha", 1.0)),
        "Selu" => Unary::Selu(of("alpha", 1.673_263_2), of("gamma", 1.050_701)),
        "HardSigmoid" => Unary::HardSigmoid(of("alpha", 0.2), of("beta", 0.5)),
        "Shrink" => Unary::Shrink { bias: of("bias", 0.0), lambda: of("lambd", 0.5) },
        "Gelu" if text(node, "approximate") == Some("tanh") => Unary::GeluTanh,
        "Gelu" => Unary::Gelu,
        _ => return None,
    })
}

fn first<'c>(input: &[Option<&'c Constant>]) -> Option<&'c Constant> {
    input.first().copied().flatten()
}

fn one<'a>(l: &Lowering<'a>, i: usize, f: Unary) -> Option<Lowered<'a>> {
    l.one(i, UnaryOperation { f, x: l.value(l.node(i), 0)? })
}

/// The function of a Clip whose inputs are stored, if they are.
fn clamp<'c>(node: &NodeProto, stored: impl Fn(usize) -> Option<&'c Constant>) -> Option<Unary> {
    // attributes once, inputs since opset 11
    let bound = |k: usize, name: &str, none: f32| match node.given(k) {
        Some(_) => stored(k)?.values.first().copied(),
        None => Some(float(node, name).unwrap_or(none)),
    };
    Some(Unary::Clamp(bound(1, "min", f32::NEG_INFINITY)?, bound(2, "max", f32::INFINITY)?))
}

/// x · sigmoid(x).
fn silu<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let sigmoid = l.node(i);
    let (j, product) = l.then(sigmoid, "Mul")?;
    times(l, sigmoid.input.first()?, Unary::Silu, product, vec![i, j])
}

/// x · tanh(softplus(x)).
fn mish<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let softplus = l.node(i);
    let (j, tanh) = l.then(softplus, "Tanh")?;
    let (k, product) = l.then(tanh, "Mul")?;
    times(l, softplus.input.first()?, Unary::Mish, product, vec![i, j, k])
}

fn times<'a>(
    l: &Lowering<'a>,
    x: &'a String,
    f: Unary,
    product: &'a NodeProto,
    covered: Vec<usize>,
) -> Option<Lowered<'a>> {
    let operation = UnaryOperation { f, x: l.same(x) };
    if product.input.contains(x) { l.fused(operation, &product.output, covered) } else { None }
}

/// x · (1 + erf(x / √2)) · ½, which begins with a division or a product.
pub fn gelu<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let first = l.node(i);
    let by = l.constant(first, 1)?.uniform()?;
    let root = if first.op_type == "Div" { by } else { 1.0 / by };
    let (j, erf) = l.then(first, "Erf").filter(|_| (root - std::f32::consts::SQRT_2).abs() < 1e-4)?;
    let (k, add) = l.then(erf, "Add").filter(|(_, n)| l.number(n) == Some(1.0))?;
    let (m, product) = l.then(add, "Mul")?;
    let x = first.input.first()?;
    let (n, half) = l.then(product, "Mul").filter(|(_, n)| l.number(n) == Some(0.5))?;
    if !product.input.contains(x) {
        return None;
    }
    l.fused(UnaryOperation { f: Unary::Gelu, x: l.same(x) }, &half.output, vec![i, j, k, m, n])
}

/// A function of every number of a value.
pub struct UnaryOperation<'a> {
    pub f: Unary,
    pub x: &'a str,
}

impl<'a> Operation<'a> for UnaryOperation<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn fusion(&self) -> Fusion<'_, 'a> {
        if self.f == Unary::Silu { Fusion::Silu } else { Fusion::None }
    }

    fn in_halves(&self, c: &Compiler<'_, 'a>, out: &str) -> InHalves {
        let image = c.dims(out).is_ok_and(|d| (3..=4).contains(&d.len()));
        if self.f == Unary::Silu && image { InHalves::LikeItsInputs } else { InHalves::Never }
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let input = c.value(self.x)?;
        let output = if c.yields(self.x, out, &input) { input.clone() } else { c.like(out, &input)? };
        match (self.f, input.view(), output.view()) {
            (Unary::Silu, Some(from), Some(to)) => {
                let mut places = Places::default();
                let output = Output::Float(places.image(Access::Write, to));
                let input = places.image(Access::Read, from);
                c.push(ImageMap { function: ImageFunction::Silu, input, output }, places);
            }
            _ => {
                let (kernel, places) = Function::new(self.f, c.strided([&output, &input])?);
                c.push(kernel, places);
            }
        }
        c.put(out, output);
        Ok(())
    }
}

/// A function of every number, in plain loops.
#[derive(Debug)]
pub struct Function {
    f: Unary,
    to: Handle<Strided>,
    from: Handle<Strided>,
}

impl Function {
    /// Of the second region into the first.
    pub fn new(f: Unary, [to, from]: [Strided; 2]) -> (Self, Places) {
        let mut places = Places::default();
        let (to, from) = (places.strided(Access::Write, to), places.strided(Access::Read, from));
        (Function { f, to, from }, places)
    }
}

impl Kernel for Function {
    fn name(&self, _: &Places) -> &'static str {
        match self.f {
            Unary::Copy => "copy",
            Unary::Silu => "SiLU",
            _ => "function",
        }
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (places.get(self.to).len().to_string(), 0)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        let each = if self.f == Unary::Copy { 15 } else { 100 };
        Some(product(&[each, places.get(self.to).len()]))
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (to, from) = (places.get(self.to), places.get(self.from));
        if to.dims == from.dims && to.matrix() == [(1, 0); 2] { Ok(()) } else { Err("values of unlike shapes".into()) }
    }

    fn works_in_place(&self) -> bool {
        true
    }

    fn run(&self, Call { isa, part, places, memory }: Call<'_>, _: &mut Scratch) {
        let loops = Strided::loops([places.get(self.to), places.get(self.from)]).expect(PROVEN);
        kernels::unary(isa, self.f, &loops, part, memory);
    }
}
