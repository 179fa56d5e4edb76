#!/usr/bin/env python3
"""Writes the tables of operators that edgegen checks nodes against: those of ONNX, from the definitions in the onnx package,
and those that onnxruntime adds, from the definitions in the onnxruntime package.

    python3 tools/fuzz/signatures.py > crates/edgegen-onnx/src/signatures.txt
    python3 tools/fuzz/signatures.py --onnxruntime > crates/edgegen-onnx/src/signatures_onnxruntime.txt

Only operators of the list below are in it: those whose results are compared with onnxruntime, by the random graphs, the
table of single rules or tests/quantized.rs. What is not in the table is refused.
"""

import sys
from types import SimpleNamespace

from onnx import AttributeProto, defs, helper

FIRST_OPSET = 7
OPERATORS = """
Abs Acos Acosh Add AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization Cast CastLike Ceil Celu CenterCropPad Clip Col2Im Concat
ConcatFromSequence Constant ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh CumSum DFT DepthToSpace DequantizeLinear Div Dropout
DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual
GridSample GroupNormalization HardSigmoid HardSwish Hardmax Identity If InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu
Less LessOrEqual Log LogSoftmax Loop LpNormalization MatMul MatMulInteger Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonZero Not
OneHot Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization RNN Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize RotaryEmbedding Round Scan
ScatterElements ScatterND Selu SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength
Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split SplitToSequence Sqrt Squeeze Sub Sum Swish Tan Tanh
ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
""".split()

TYPES = {
    "float": "f32", "float16": "f16", "double": "f64", "bfloat16": "bf16", "bool": "bool",
    "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64",
    "uint8": "u8", "uint16": "u16", "uint32": "u32", "uint64": "u64",
    "int2": "i2", "uint2": "u2", "int4": "i4", "uint4": "u4",
}
KINDS = {"INT": "int", "FLOAT": "float", "STRING": "string", "TENSOR": "tensor", "INTS": "ints", "FLOATS": "floats",
         "STRINGS": "strings", "SPARSE_TENSOR": "sparse", "GRAPH": "graph"}

HEADER = f"""\
# The operators of ONNX that edgegen knows, as each opset defines them, from opset {FIRST_OPSET} on. Written by
# tools/fuzz/signatures.py from the definitions in the onnx package: do not edit.
# operator, first opset of this form | inputs | outputs | element types of each variable | attributes
# Inputs and outputs: a type or a variable, ? if it may be left out, * if there may be any number from there on.
# Attributes: name:kind, then ! if it must be given, or = and its default."""


# The operators that onnxruntime adds when it optimises or quantizes a graph, by their domains; and what it calls by ONNX's
# domain without it being ONNX's, or in opsets before ONNX had it.
ADDED = {
    "com.microsoft": """
Attention BiasAdd BiasGelu BiasSplitGelu DequantizeLinear DynamicQuantizeMatMul FastGelu FusedConv FusedGemm FusedMatMul
FusedMatMulActivation GatherBlockQuantized Gelu GroupNorm MatMulIntegerToFloat MatMulNBits MultiHeadAttention NhwcConv QGemm QLinearAdd
QLinearAveragePool QLinearConcat QLinearConv QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearReduceMean QLinearSigmoid
QLinearSoftmax QLinearWhere QuantizeLinear QuickGelu RotaryEmbedding SkipGroupNorm SkipLayerNormalization
SkipSimplifiedLayerNormalization TransposeMatMul
""".split(),
    "com.microsoft.nchwc": "AveragePool Conv GlobalAveragePool GlobalMaxPool MaxPool ReorderInput ReorderOutput Upsample".split(),
    "": ["LayerNormalization", "SimplifiedLayerNormalization"],
}

HEADER_ADDED = """\
# The operators that onnxruntime adds to ONNX's, by their domains, in the form of signatures.txt. Written by
# tools/fuzz/signatures.py from the definitions in the onnxruntime package: do not edit.
opsets 1 to 1"""


def short(name):
    """The table's word for a type; a sequence is known by what its tensors are made of."""
    return TYPES.get(name.removeprefix("seq(").removeprefix("tensor(").rstrip(")"))


def parameter(p):
    mark = {"Single": "", "Optional": "?", "Variadic": "*"}[str(p.option).split(".")[-1]]
    return (short(p.type_str) or p.type_str) + mark


def attribute(name, a):
    text = f"{name}:{KINDS[str(a.type).split('.')[-1]]}"
    if a.required:
        return text + "!"
    if not a.default_value.type:
        return text
    value = helper.get_attribute_value(a.default_value)
    value = value.decode() if isinstance(value, bytes) else value
    return f"{text}={','.join(map(str, value)) if isinstance(value, list) else format(value, '.9g') if isinstance(value, float) else value}"


def inputs(schema):
    """The inputs. Resize of opset 11 must have a region and scales, which may be empty: exporters leave them out."""
    texts = [parameter(p) for p in schema.inputs]
    return [texts[0]] + [t.rstrip("?") + "?" for t in texts[1:]] if (schema.name, schema.since_version) == ("Resize", 11) else texts


def form(schema):
    variables = []
    for constraint in schema.type_constraints:
        allowed = [short(t) for t in constraint.allowed_type_strs]
        variables.append(f"{constraint.type_param_str}: " + " ".join(t for t in TYPES.values() if t in allowed))
    # an optional output may not be marked as one: how many there must be is said beside
    outputs = [parameter(p) for p in schema.outputs]
    outputs = [o + "?" if i >= schema.min_output and o[-1] not in "?*" else o for i, o in enumerate(outputs)]
    attributes = [attribute(name, a) for name, a in sorted(schema.attributes.items())]
    return " | ".join([" ".join(inputs(schema)), " ".join(outputs), "; ".join(variables), " ".join(attributes)])


class Added:
    """A definition of onnxruntime's with the names that the onnx package has for its parts."""

    def __init__(self, schema):
        self.name, self.since_version, self.min_output = schema.name, schema.since_version, schema.min_output
        self.inputs, self.outputs = [list(map(Added.parameter, all)) for all in (schema.inputs, schema.outputs)]
        self.type_constraints = schema.type_constraints
        self.attributes = {name: Added.attribute(a) for name, a in schema.attributes.items()}

    @staticmethod
    def parameter(p):
        return SimpleNamespace(type_str=p.typeStr, option=p.option)

    @staticmethod
    def attribute(a):
        default = AttributeProto.FromString(a._default_value)
        return SimpleNamespace(type=a.type, required=a.required, default_value=default)


def added():
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

    schemas = [s for s in get_all_operator_schema() if s.name in ADDED.get(s.domain, ()) and s.since_version == 1]
    print(HEADER_ADDED)
    rows = {f"{s.domain}.{s.name}".lstrip("."): form(Added(s)) for s in schemas}
    for name in sorted(rows):
        print(f"{name} 1 | {rows[name]}".rstrip())


def main():
    if sys.argv[1:] == ["--onnxruntime"]:
        return added()
    schemas = [s for s in defs.get_all_schemas_with_history() if s.domain == "" and s.name in OPERATORS]
    print(HEADER)
    print(f"opsets {FIRST_OPSET} to {defs.onnx_opset_version()}")
    for op in OPERATORS:
        history = sorted((s for s in schemas if s.name == op), key=lambda s: s.since_version)
        # the form that is in force at the first opset, and those after it
        current = [s for s in history if s.since_version <= FIRST_OPSET][-1:]
        last = None
        for schema in current + [s for s in history if s.since_version > FIRST_OPSET]:
            # GroupNormalization of opset 18 was mended in 21, and marked as deprecated since
            text = "none" if schema.deprecated and op != "GroupNormalization" else form(schema)
            if text != last:
                print(f"{op} {max(schema.since_version, FIRST_OPSET)} | {text}".rstrip())
            last = text


if __name__ == "__main__":
    main()
