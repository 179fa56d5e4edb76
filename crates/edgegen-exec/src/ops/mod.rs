//! The operators, one file each, and the list of them.
//!
//! A file of an operator holds all that is known of it: the shape of its result, what it makes of stored tensors, how it is
//! recognised in a graph, and its step. `docs/adding-operators.md` walks through one.

use crate::compile::{Compiler, Layout8};
use crate::constant::Constant;
use crate::graph::{Graph, Inference};
use crate::lower::{Lowered, Lowering, Operand};
use crate::reason::Reason;
use kernels::conv8::QuantParams;
use onnx::pb::NodeProto;

mod by_index;
mod computed_conv;
pub(crate) mod convert;
mod depthwise;
mod image_map;
mod indexed;
mod norm_forms;
mod pick;
mod product_by_range;
mod rearrange;
mod row_op;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod window;
pub(crate) mod zeros;

/// The files of operators.
macro_rules! operators {
    ($($file:ident),* $(,)?) => {
        $(pub(crate) mod $file;)*
        static OPERATORS: &[&[Operator]] = &[$($file::OPERATORS),*];
    };
}

operators! {
    arg,
    attention,
    batch_norm,
    binary,
    cast,
    col2im,
    comparison,
    concat,
    constant,
    conv,
    conv_transpose,
    cum_sum,
    depth_to_space,
    dynamic_quantize,
    einsum,
    expand,
    gather,
    gather_nd,
    grid_sample,
    group_norm,
    identity,
    layer_norm,
    linear,
    matmul,
    non_zero,
    one_hot,
    pad,
    pool,
    quantize,
    reduce,
    reshape,
    resize,
    scatter,
    shape,
    slice,
    softmax,
    split,
    top_k,
    transpose,
    trilu,
    unary,
}

/// The shapes of a node's results.
pub type InferFn = fn(&Inference) -> Result<Vec<Vec<usize>>, Reason>;
/// What a node makes of stored tensors alone; `None` where that is not worked out.
pub type FoldFn = fn(&NodeProto, &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason>;
/// The operations that a node, and perhaps some that follow it, stand for; `None` for a form that there is no kernel for.
pub type LowerFn = for<'a> fn(&Lowering<'a>, usize) -> Option<Lowered<'a>>;
/// What is known of a result from the shapes of the inputs alone.
pub type KnownFromShapesFn = fn(&Inference) -> Result<Option<Constant>, Reason>;

/// An operator of ONNX.
pub struct Operator {
    /// Its name in ONNX.
    pub name: &'static str,
    /// The shapes of its results.
    pub infer: InferFn,
    /// What it makes of stored tensors.
    pub fold: FoldFn,
    /// How it is recognised.
    pub lower: LowerFn,
    /// What is known of it from shapes alone.
    pub known_from_shapes: KnownFromShapesFn,
    /// The attributes that its rules read, or that change nothing of what they make. A node with another is not run.
    pub attributes: &'static [&'static str],
    /// Whether it takes values of any type, since it moves or converts them, or reads them as indices. Others take f32 alone,
    /// and stored integers that f32 holds.
    pub any_type: bool,
    /// Whether it also takes what is true or false, and whole numbers, which it compares or chooses.
    pub truths: bool,
}

impl Operator {
    /// An operator that is not supported yet in any way.
    pub const fn new(name: &'static str) -> Self {
        Operator {
            name,
            infer: |_| Err("there is no kernel for this operator".into()),
            fold: |_, _| Ok(None),
            lower: |_, _| None,
            known_from_shapes: |_| Ok(None),
            attributes: &[],
            any_type: false,
            truths: false,
        }
    }

    /// With the shapes of its results.
    pub const fn infer(self, infer: InferFn) -> Self {
        Operator { infer, ..self }
    }

    /// With what it makes of stored tensors.
    pub const fn fold(self, fold: FoldFn) -> Self {
        Operator { fold, ..self }
    }

    /// With how it is recognised.
    pub const fn lower(self, lower: LowerFn) -> Self {
        Operator { lower, ..self }
    }

    /// With what is known of its result from shapes alone.
    pub const fn known_from_shapes(self, known_from_shapes: KnownFromShapesFn) -> Self {
        Operator { known_from_shapes, ..self }
    }

    /// With the attributes that its rules read, or that change nothing of what they make.
    pub const fn attributes(self, attributes: &'static [&'static str]) -> Self {
        Operator { attributes, ..self }
    }

    /// With what is true or false, and whole numbers.
    pub const fn truths(self) -> Self {
        Operator { truths: true, ..self }
    }

    /// With values of any type.
    pub const fn any_type(self) -> Self {
        Operator { any_type: true, ..self }
    }
}

/// The operator of this name, if it has a file.
pub fn operator(name: &str) -> Option<&'static Operator> {
    OPERATORS.iter().copied().flatten().find(|operator| operator.name == name)
}

/// Whether a node passes its input `x` on as it is.
pub fn passes_on(graph: &Graph, node: &NodeProto, x: &str) -> bool {
    match node.op_type.as_str() {
        "Identity" | "Dropout" => true,
        "Cast" => cast::changes_nothing(graph, node, x),
        _ => false,
    }
}

/// The same shape as the first input's: the shape rule of most functions.
pub fn same_shape(inference: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    Ok(vec![inference.shape(0)?.to_vec()])
}

/// An operation on named values, as recognised in a graph.
pub trait Operation<'a> {
    /// The values that it reads.
    fn inputs(&self) -> Vec<&'a str>;

    /// Pushes its steps, and says where its result `out` lies.
    ///
    /// # Errors
    /// When there is no kernel for its form.
    fn compile(&self, compiler: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason>;

    /// What operations before it may do with it.
    fn fusion(&self) -> Fusion<'_, 'a> {
        Fusion::None
    }

    /// The value that it reads with zeros around it, and how many rows and columns of them.
    fn border(&self) -> Option<(&'a str, [usize; 2])> {
        None
    }

    /// Whether its steps read and write values in 16 bits.
    fn in_halves(&self, _: &Compiler<'_, 'a>, _out: &str) -> InHalves {
        InHalves::Never
    }

    /// How it reads the value `name`, which is rounded to 8 bits, in those 8 bits; `None` if it reads it in f32.
    fn reads_8bit(&self, _: &Compiler<'_, 'a>, _: &str) -> Option<Layout8> {
        None
    }
}

/// Whether an operation is done in 16 bits, in a plan of such numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InHalves {
    /// Its kernels take 32 bits alone.
    Never,
    /// It is: what it reads is rounded for it, if that is in 32 bits.
    Always,
    /// It is if all that it reads is.
    LikeItsInputs,
}

/// What operations that come before one may do with it: make it part of their own step.
pub enum Fusion<'o, 'a> {
    /// Nothing.
    None,
    /// The sum of two values.
    Add(&'o Operand<'a>, &'o Operand<'a>),
    /// SiLU of what comes before.
    Silu,
    /// Rounding of what comes before.
    Round(QuantParams),
    /// Rounding to levels that are known when the value is there alone.
    RoundByRange,
    /// A concatenation: what comes before may be made in its place.
    Concat { parts: &'o [Operand<'a>], axis: usize },
    /// A value read anew, which has no place of its own.
    Reread,
}
