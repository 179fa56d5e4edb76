#!/usr/bin/env python3
"""Writes the table of ONNX operators that edgegen checks nodes against, from the definitions in the onnx package.

    python3 tools/fuzz/signatures.py > crates/edgegen-onnx/src/signatures.txt

Only operators of the list below are in it: those whose results are compared with onnxruntime, by the random graphs, the
table of single rules or tests/quantized.rs. What is not in the table is refused.
"""

from onnx import defs, helper

FIRST_OPSET = 7
OPERATORS = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Celu Clip Concat Constant
ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand
Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual
GroupNormalization HardSigmoid HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu
Less LessOrEqual Log LogSoftmax LpNormalization MatMul Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg Not
OneHot Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize Round ScatterElements ScatterND Selu
Shape Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tan Tanh
ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
""".split()

TYPES = {
    "float": "f32", "float16": "f16", "double": "f64", "bfloat16": "bf16", "bool": "bool",
    "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64",
    "uint8": "u8", "uint16": "u16", "uint32": "u32", "uint64": "u64",
}
KINDS = {"INT": "int", "FLOAT": "float", "STRING": "string", "TENSOR": "tensor", "INTS": "ints", "FLOATS": "floats",
         "STRINGS": "strings", "SPARSE_TENSOR": "sparse", "GRAPH": "graph"}

HEADER = f"""\
# The operators of ONNX that edgegen knows, as each opset defines them, from opset {FIRST_OPSET} on. Written by
# tools/fuzz/signatures.py from the definitions in the onnx package: do not edit.
# operator, first opset of this form | inputs | outputs | element types of each variable | attributes
# Inputs and outputs: a type or a variable, ? if it may be left out, * if there may be any number from there on.
# Attributes: name:kind, then ! if it must be given, or = and its default."""


def short(name):
    return TYPES.get(name.removeprefix("tensor(").removesuffix(")"))


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


def main():
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
