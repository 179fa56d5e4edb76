#!/usr/bin/env python3
"""Writes graphs that each show one rule of ONNX, with onnxruntime's results, for tests/random_graphs.rs.

    python3 tools/fuzz/directed.py tests/fixtures/graphs/directed.gz [--tract]

A row of the table is a name, and nodes in ONNX's textual syntax that make `y` of the sample `x` ([1, 4, 4, 4] if nothing
else is said) and the time `t`. `y` may be of any shape and type: what follows makes a result of the sample's shape of it.
Where onnxruntime refuses a graph, edgegen must refuse it too. With --tract, next to nothing is added to the result by an
operator that edgegen's own plan lacks, so that tract runs all of the graph.
"""

import sys

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

from graphs import IR_VERSION, Case, Rejected, evaluate, fold_matrix, write

CASES = []
RANDOM = np.random.default_rng(5)


def weights(*shape):
    return (np.round(RANDOM.standard_normal(shape) * 16) / 32).astype(np.float32)


def row(name, nodes, opset=17, shape=(1, 4, 4, 4), time=np.float32(999), functions="", domains=(), change=None, **stored):
    """A row of the table. `stored` are initializers; `change` edits the model, for what the syntax cannot say."""
    CASES.append((name, nodes, opset, shape, time, functions, domains, change, stored))


def model_of(nodes, opset, shape, time, functions, domains, change, stored):
    imports = ", ".join(f'"{domain}" : {version}' for domain, version in [("", opset), *domains])
    time_type = "int64" if isinstance(time, np.int64) else "float"
    text = f"""<ir_version: {IR_VERSION}, opset_import: [{imports}]>
        g (float[{",".join(map(str, shape))}] x, {time_type}[1] t) => (float[{",".join(map(str, shape))}] y) {{ {nodes} }}
        {functions}"""
    model = parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in stored.items())
    if change:
        change(model)
    return model


def extend(model, nodes, output, shape):
    """Adds nodes after `y`, and makes `output` the result."""
    model.graph.node.extend(nodes)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, shape))


# float16 is computed with as float32, so results differ by its rounding
HALF = 2.0**-10


def case(name, nodes, opset, shape, time, *rest):
    model = model_of(nodes, opset, shape, time, *rest)
    x = (np.round(np.random.default_rng(7).standard_normal(shape) * 16) / 16).astype(np.float32)
    t = np.array([time])
    read = {i.name for i in model.graph.input}
    feeds = {n: a for n, a in {"x": x, "t": t}.items() if n in read}
    open_output = onnx.ModelProto()
    open_output.CopyFrom(model)
    open_output.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="y"))
    try:
        (y,) = evaluate(open_output, feeds)
        added, last = [], "y"
        if y.dtype != np.float32:
            added.append(helper.make_node("Cast", [last], ["_float"], to=onnx.TensorProto.FLOAT))
            last = "_float"
        if y.shape != tuple(shape):
            model.graph.initializer.extend([
                numpy_helper.from_array(np.array([1, y.size], np.int64), "_flat"),
                numpy_helper.from_array(np.array(shape, np.int64), "_shape"),
                numpy_helper.from_array(fold_matrix(y.size, x.size), "_fold"),
            ])
            added.append(helper.make_node("Reshape", [last, "_flat"], ["_a"]))
            added.append(helper.make_node("MatMul", ["_a", "_fold"], ["_b"]))
            added.append(helper.make_node("Reshape", ["_b", "_shape"], ["_out"]))
            last = "_out"
        if "--tract" in sys.argv:
            model.graph.initializer.append(numpy_helper.from_array(np.float32(1e-30), "_tiny"))
            added.append(helper.make_node("Sign", ["x"], ["_sign"]))
            added.append(helper.make_node("Mul", ["_sign", "_tiny"], ["_nothing"]))
            added.append(helper.make_node("Add", [last, "_nothing"], ["_last"]))
            last = "_last"
        extend(model, added, last, shape)
        (result,) = evaluate(model, feeds)
    except Rejected as reason:
        print(f"refused by onnxruntime: {name}: {str(reason)[:150]}")
        return Case(name, model.SerializeToString(), x, float(time), None)
    finite = result[np.isfinite(result)]
    tolerance = (HALF if "float16" in name else 2e-5) * max(1e-2, np.abs(finite).max(initial=0.0))
    return Case(name, model.SerializeToString(), x, float(time), result, tolerance)


# Opsets: what changed its meaning.
for op in ("Softmax", "LogSoftmax", "Hardmax"):
    for opset in (9, 11, 12, 13, 17, 22):
        row(f"{op} by default in opset {opset}", f"y = {op} (x)", opset)
    for axis in (0, 1, 2, 3):
        row(f"{op} of dimension {axis} in opset 11", f"y = {op} <axis = {axis}> (x)", 11)
        row(f"{op} of dimension {axis} in opset 13", f"y = {op} <axis = {axis}> (x)", 13)
    row(f"{op} of dimension -1 in opset 11", f"y = {op} <axis = -1> (x)", 11)
    row(f"{op} of dimension -2 in opset 12", f"y = {op} <axis = -2> (x)", 12)
    row(f"{op} of dimension 4, which there is not", f"y = {op} <axis = 4> (x)", 13)
row("attention with a softmax of opset 11", """
    k = Transpose <perm = [0, 1, 3, 2]> (x)
    s = MatMul (x, k)
    p = Softmax <axis = 2> (s)
    y = MatMul (p, x)""", 11)
row("Clip with attributes", "y = Clip <min = -0.25, max = 0.5> (x)", 10)
row("Clip with one attribute", "y = Clip <max = 0.25> (x)", 7)
row("Clip with attributes in opset 11, which has none", "y = Clip <max = 0.25> (x)", 11)
row("Clip with bounds", "y = Clip (x, a, b)", 12, a=np.float32(-0.25), b=np.float32(0.5))
row("Clip with the upper bound alone", "y = Clip (x, , b)", 12, b=np.float32(0.5))
row("Clip whose bounds are the wrong way round", "y = Clip (x, a, b)", 12, a=np.float32(0.5), b=np.float32(-0.25))
row("Clip with a bound that is not a number", "y = Clip (x, a)", 12, a=np.float32("nan"))
row("Clip with a bound of one dimension", "y = Clip (x, a)", 12, a=np.float32([0.1]))
row("Dropout", "y = Dropout (x)", 11)
row("Dropout with its mask", "d, m = Dropout (x) f = Cast <to = 1> (m) y = Add (d, f)", 11)
row("Dropout with a ratio", "y = Dropout (x, r)", 13, r=np.float32(0.5))
row("Dropout that says it is not training", "y = Dropout (x, r, m)", 13, r=np.float32(0.5), m=np.bool_(False))
row("Dropout with a training mode of two numbers", "y = Dropout (x, r, m)", 13, r=np.float32(0.5), m=np.array([False, True]))
row("BatchNormalization", "y = BatchNormalization <epsilon = 0.01> (x, s, b, m, v)", 15, s=weights(4), b=weights(4),
    m=weights(4), v=np.abs(weights(4)) + 0.5)
row("BatchNormalization of opset 9", "y = BatchNormalization (x, s, b, m, v)", 9, s=weights(4), b=weights(4),
    m=weights(4), v=np.abs(weights(4)) + 0.5)
row("BatchNormalization that is training", "y, a, c = BatchNormalization <training_mode = 1> (x, s, b, m, v)", 15,
    s=weights(4), b=weights(4), m=weights(4), v=np.abs(weights(4)) + 0.5)
row("Upsample by attributes", "y = Upsample <scales = [1.0, 1.0, 2.0, 2.0]> (x)", 7)
row("Upsample by an input", "y = Upsample (x, s)", 9, s=np.float32([1, 1, 2, 2]))
row("Upsample, linear", 'y = Upsample <mode = "linear"> (x, s)', 9, s=np.float32([1, 1, 2, 2]))
row("Upsample by a fraction", "y = Upsample (x, s)", 9, s=np.float32([1, 1, 1.5, 2.5]))
row("Upsample in opset 11, which has none", "y = Upsample (x, s)", 11, s=np.float32([1, 1, 2, 2]))
row("Resize of opset 10", "y = Resize (x, s)", 10, s=np.float32([1, 1, 2, 2]))
row("Resize of opset 10 by a fraction", "y = Resize (x, s)", 10, s=np.float32([1, 1, 1.5, 0.5]))
row("Resize of opset 10, linear", 'y = Resize <mode = "linear"> (x, s)', 10, s=np.float32([1, 1, 2, 2]))
row("an opset that is too old", "y = Relu (x)", 6)
row("an opset that is yet to come", "y = Relu (x)", 99)
row("Gelu before it was an operator", "y = Gelu (x)", 19)
row("LayerNormalization before it was an operator", "y = LayerNormalization (x, s)", 16, s=weights(4))
row("Mish in opset 17, which has none", "y = Mish (x)", 17)
row("Swish", "y = Swish (x)", 24)
row("Swish with a factor", "y = Swish <alpha = 1.5> (x)", 24)
row("RMSNormalization", "y = RMSNormalization (x, s)", 23, s=weights(4))
row("RMSNormalization over two dimensions", "y = RMSNormalization <axis = -2, epsilon = 0.1> (x, s)", 23, s=weights(4, 4))

# Domains and functions.
row("an operator of another domain", "y = Sigmoid (x)", domains=[("nowhere", 1)],
    change=lambda m: setattr(m.graph.node[0], "domain", "nowhere"))
row("com.microsoft's FastGelu", "y = com.microsoft.FastGelu (x)", domains=[("com.microsoft", 1)])
row("com.microsoft's QuickGelu", "y = com.microsoft.QuickGelu <alpha = 3.0> (x)", domains=[("com.microsoft", 1)])
row("com.microsoft's Gelu", "y = com.microsoft.Gelu (x)", domains=[("com.microsoft", 1)])
row("ai.onnx as the name of the standard domain", "y = Relu (x)", change=lambda m: setattr(m.graph.node[0], "domain", "ai.onnx"))
row("a function that is called Relu", "y = own.Relu (x)", domains=[("own", 1)], functions="""
    <domain: "own", opset_import: ["" : 17]> Relu (a) => (b) { b = Neg (a) }""")
row("a function with attributes", "y = own.scaled <by = 3.0> (x)", domains=[("own", 1)], functions="""
    <domain: "own", opset_import: ["" : 17]> scaled <by> (a) => (b) {
        k = Constant <value_float: float = @by> () b = Mul (a, k) }""")
row("a function with an attribute by default", "y = own.leaky (x)", domains=[("own", 1)], functions="""
    <domain: "own", opset_import: ["" : 17]> leaky <slope: float = 0.5> (a) => (b) {
        b = LeakyRelu <alpha: float = @slope> (a) }""")
row("a function with an attribute that nobody gives", "y = own.leaky (x)", domains=[("own", 1)], functions="""
    <domain: "own", opset_import: ["" : 17]> leaky <slope> (a) => (b) { b = LeakyRelu <alpha: float = @slope> (a) }""")
row("functions in functions", "z = own.twice (x) y = own.twice (z)", domains=[("own", 1)], functions="""
    <domain: "own", opset_import: ["" : 17, "own" : 1]> twice (a) => (c) { b = own.once (a) c = own.once (b) }
    <domain: "own", opset_import: ["" : 17]> once (a) => (b) { h = Tanh (a) b = Add (a, h) }""")
row("a function whose input is left out", "y = own.clip (x, , m)", domains=[("own", 1)], m=np.float32(0.25), functions="""
    <domain: "own", opset_import: ["" : 17]> clip (a, l, h) => (b) { b = Clip (a, l, h) }""")
row("a function that calls itself", "y = own.again (x)", domains=[("own", 1)], functions="""
    <domain: "own", opset_import: ["" : 17, "own" : 1]> again (a) => (b) { b = own.again (a) }""")
row("a function of another opset", "y = own.f (x)", domains=[("own", 1)], functions="""
    <domain: "own", opset_import: ["" : 11]> f (a) => (b) { b = Softmax (a) }""")
row("a function with two results", "p, q = own.both (x) y = Sub (q, p)", domains=[("own", 1)], functions="""
    <domain: "own", opset_import: ["" : 17]> both (a) => (b, c) { b = Tanh (a) c = Exp (a) }""")
row("a function that passes its input on", "y = own.same (x)", domains=[("own", 1)], functions="""
    <domain: "own", opset_import: ["" : 17]> same (a) => (b) { b = Identity (a) }""")

# Attributes, and operators' forms.
for axis in (-4, -3, -2, -1, 0, 1, 2, 3, 4):
    row(f"Flatten at {axis}", f"y = Flatten <axis = {axis}> (x)", 13)
row("Flatten at -1 in opset 9, which counts from the front", "y = Flatten <axis = -1> (x)", 9)
row("Flatten at -5", "y = Flatten <axis = -5> (x)", 13)
for keep in (0, 1):
    row(f"ReduceMean over no axes, keepdims {keep}", f"y = ReduceMean <keepdims = {keep}> (x, a)", 18, a=np.int64([]))
    row(f"ReduceMean over no axes that does nothing, keepdims {keep}",
        f"y = ReduceMean <keepdims = {keep}, noop_with_empty_axes = 1> (x, a)", 18, a=np.int64([]))
    row(f"ReduceSum without axes, keepdims {keep}", f"y = ReduceSum <keepdims = {keep}> (x)", 13)
    row(f"ReduceSum without axes that does nothing, keepdims {keep}",
        f"y = ReduceSum <keepdims = {keep}, noop_with_empty_axes = 1> (x)", 13)
for op in ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp"):
    row(f"Reduce{op} over two dimensions", f"a = Abs (x) y = Reduce{op} <axes = [1, -1]> (a)", 11)
    row(f"Reduce{op} of all", f"a = Abs (x) y = Reduce{op} (a)", 11)
row("ReduceProd of a stored tensor over one dimension", "p = ReduceProd <axes = [0], keepdims = 0> (c) y = Mul (x, p)", 13,
    c=np.float32([[1, 2, 3, 4], [5, 6, 7, 8]]))
row("ReduceMean of a stored tensor", "p = ReduceMean <axes = [0]> (c) y = Mul (x, p)", 13, c=weights(3, 4))
row("ReduceSum over a dimension that there is not", "y = ReduceSum (x, a)", 13, a=np.int64([4]))
row("ReduceSum over a dimension twice", "y = ReduceSum (x, a)", 13, a=np.int64([1, 1]))
row("Mod of integers", "m = Mod (t, k) f = Cast <to = 1> (m) y = Add (x, f)", 13, time=np.int64(999), k=np.int64([7]))
row("Mod of integers by a negative one", "m = Mod (t, k) f = Cast <to = 1> (m) y = Add (x, f)", 13, time=np.int64(999), k=np.int64([-7]))
row("Mod of integers as C has it", "m = Mod <fmod = 1> (t, k) f = Cast <to = 1> (m) y = Add (x, f)", 13, time=np.int64(999),
    k=np.int64([-7]))
row("Mod of floats", "y = Mod <fmod = 1> (x, k)", 13, k=np.float32(0.75))
row("Mod of floats without fmod", "y = Mod (x, k)", 13, k=np.float32(0.75))
row("Mod of stored integers", "m = Mod (a, b) f = Cast <to = 1> (m) y = Mul (x, f)", 13, a=np.int64([-7, 7, -7, 7]),
    b=np.int64([3, 3, -3, -3]))
row("Mod of stored integers as C has it", "m = Mod <fmod = 1> (a, b) f = Cast <to = 1> (m) y = Mul (x, f)", 13,
    a=np.int64([-7, 7, -7, 7]), b=np.int64([3, 3, -3, -3]))
row("Mod of stored floats", "m = Mod <fmod = 1> (a, b) y = Mul (x, m)", 13, a=np.float32([-5.5, 5.5, -5.5, 5.5]),
    b=np.float32([3, 3, -3, -3]))
row("Div of stored integers", "m = Div (a, b) f = Cast <to = 1> (m) y = Mul (x, f)", 13, a=np.int64([-7, 7, -7, 7]),
    b=np.int64([2, 2, -2, -2]))
row("Div of stored integers by zero", "m = Div (a, b) f = Cast <to = 1> (m) y = Mul (x, f)", 13, a=np.int64([7]), b=np.int64([0]))
row("Div of computed integers", "m = Div (t, k) f = Cast <to = 1> (m) y = Add (x, f)", 13, time=np.int64(999), k=np.int64([2]))
row("Div of negative computed integers", "n = Neg (t) m = Div (n, k) f = Cast <to = 1> (m) y = Add (x, f)", 13, time=np.int64(999),
    k=np.int64([2]))
row("Mul of integers beyond 2^24", "a = Mul (t, k) b = Sub (a, q) f = Cast <to = 1> (b) y = Add (x, f)", 13,
    time=np.int64(999), k=np.int64([1000003]), q=np.int64([999 * 1000003 - 7]))
row("stored integers beyond 2^24", "a = Sub (p, q) f = Cast <to = 1> (a) y = Mul (x, f)", 13, p=np.int64([2**24 + 3]),
    q=np.int64([2**24 + 1]))
row("stored integers beyond 2^53", "a = Sub (p, q) f = Cast <to = 1> (a) y = Mul (x, f)", 13, p=np.int64([2**60 + 3]),
    q=np.int64([2**60 + 1]))
row("the least integer", "a = Add (p, q) f = Cast <to = 1> (a) y = Add (x, f)", 13, p=np.int64([-(2**63)]),
    q=np.int64([2**62]))
row("integers that wrap", "a = Mul (p, p) f = Cast <to = 1> (a) y = Add (x, f)", 13, p=np.int64([2**33 + 1]))
row("integers of 32 bits that wrap", "a = Mul (p, p) f = Cast <to = 1> (a) y = Add (x, f)", 13, p=np.int32([70001]))
row("bytes that wrap", "a = Add (p, p) f = Cast <to = 1> (a) y = Add (x, f)", 14, p=np.uint8([200]))
row("Pow of integers", "p = Pow (t, k) f = Cast <to = 1> (p) y = Add (x, f)", 13, time=np.int64(99), k=np.int64([2]))
row("Pow of stored integers", "p = Pow (a, k) f = Cast <to = 1> (p) y = Mul (x, f)", 13, a=np.int64([3, -3, 5, 2]), k=np.int64([3]))
row("Pow of floats by integers", "y = Pow (x, k)", 13, k=np.int64(2))
row("Pow of a negative number by a fraction", "y = Pow (x, k)", 13, k=np.float32(0.5))
row("Pow of a stored number", "a = Abs (x) y = Pow (k, a)", 13, k=np.float32(2))
row("Abs and Sign of integers", "n = Neg (t) a = Abs (n) s = Sign (n) m = Mul (a, s) f = Cast <to = 1> (m) y = Add (x, f)", 13,
    time=np.int64(99))
row("Max of integers", "m = Max (t, k) f = Cast <to = 1> (m) y = Add (x, f)", 13, time=np.int64(99), k=np.int64([500]))
for kind, name in ((2, "uint8"), (3, "int8"), (5, "int16"), (6, "int32"), (7, "int64"), (9, "bool"), (11, "double"), (10, "float16")):
    row(f"Cast of floats to {name}", f"s = Mul (x, k) c = Cast <to = {kind}> (s) y = Cast <to = 1> (c)", 13, k=np.float32(3))
    row(f"Cast of stored floats to {name}", f"c = Cast <to = {kind}> (k) f = Cast <to = 1> (c) y = Mul (x, f)", 13,
        k=np.float32([1.5, 2.5, 3.75, 0.25]))
for kind, name in ((2, "uint8"), (3, "int8"), (6, "int32"), (9, "bool")):
    row(f"Cast of an integer to {name}", f"c = Cast <to = {kind}> (t) f = Cast <to = 1> (c) y = Add (x, f)", 13, time=np.int64(999))
    row(f"Cast of stored integers to {name}", f"c = Cast <to = {kind}> (k) f = Cast <to = 1> (c) y = Mul (x, f)", 13,
        k=np.int64([-3, 0, 300, 70000]))
row("Cast of the time to bool", "c = Cast <to = 9> (t) f = Cast <to = 1> (c) y = Add (x, f)", 13, time=np.float32(0.5))
row("Cast of stored floats to float16 loses digits", "c = Cast <to = 10> (k) f = Cast <to = 1> (c) y = Mul (x, f)", 13,
    k=np.float32([0.1, 1 / 3, 2049, 0.7]))
row("Cast to a type that there is not", "c = Cast <to = 77> (x) y = Cast <to = 1> (c)", 13)
row("Gemm with factors", "r = Reshape (x, s) y = Gemm <alpha = 0.5, beta = 2.0> (r, w, b)", 13, s=np.int64([16, 4]),
    w=weights(4, 5), b=weights(5))
row("Gemm with a factor of zero", "r = Reshape (x, s) y = Gemm <beta = 0.0> (r, w, b)", 13, s=np.int64([16, 4]),
    w=weights(4, 5), b=weights(5))
for dims in ((), (1,), (5,), (1, 5), (16, 1), (16, 5), (1, 1), (16,), (5, 1), (2, 5)):
    row(f"Gemm with a bias of {list(dims)}", "r = Reshape (x, s) y = Gemm (r, w, b)", 13, s=np.int64([16, 4]), w=weights(4, 5),
        b=weights(*dims))
row("Gemm of five rows with a bias a row", "r = Reshape (x, s) y = Gemm (r, w, b)", 13, s=np.int64([5, 5]), w=weights(5, 5),
    b=weights(5, 1), shape=(1, 5, 5))
row("Gemm, both transposed", "r = Reshape (x, s) y = Gemm <transA = 1, transB = 1> (r, w)", 13, s=np.int64([4, 16]), w=weights(5, 4))
row("Gemm with a flag of two", "r = Reshape (x, s) y = Gemm <transB = 2> (r, w)", 13, s=np.int64([16, 4]), w=weights(4, 4))
row("Squeeze of a dimension that is not one", "y = Squeeze (x, a)", 13, a=np.int64([3]))
row("Squeeze of a stored dimension that is not one", "s = Squeeze (w, a) y = Add (x, s)", 13, a=np.int64([0]), w=weights(4, 4))
row("Squeeze of all", "y = Squeeze (x)", 13, shape=(1, 4, 1, 4))
row("Squeeze of nothing", "y = Squeeze (x, a)", 13, shape=(1, 4, 1, 4), a=np.int64([]))
row("Squeeze by an attribute", "y = Squeeze <axes = [-2]> (x)", 11, shape=(1, 4, 1, 4))
row("Unsqueeze of two", "y = Unsqueeze (x, a)", 13, a=np.int64([0, -1]))
row("Unsqueeze of one twice", "y = Unsqueeze (x, a)", 13, a=np.int64([1, 1]))
row("Unsqueeze beyond", "y = Unsqueeze (x, a)", 13, a=np.int64([7]))
row("Reshape with zeros that copy", "y = Reshape (x, s)", 14, s=np.int64([0, 2, -1]))
row("Reshape with zeros that are zeros", "y = Reshape <allowzero = 1> (x, s)", 14, s=np.int64([0, 2, 32]))
row("Reshape with -1 beside allowzero", "y = Reshape <allowzero = 1> (x, s)", 14, s=np.int64([2, -1]))
row("Reshape with two of -1", "y = Reshape (x, s)", 14, s=np.int64([-1, 2, -1]))
row("Reshape that does not fit", "y = Reshape (x, s)", 14, s=np.int64([3, -1]))
row("Reshape with -2", "y = Reshape (x, s)", 14, s=np.int64([1, -2, 4, 8]))
row("Reshape with a zero beyond the rank", "y = Reshape (x, s)", 14, s=np.int64([1, 4, 4, 4, 0]))
row("allowzero in opset 13, which has none", "y = Reshape <allowzero = 1> (x, s)", 13, s=np.int64([2, -1]))

row("Pad with a value", "y = Pad (x, p, v)", 13, p=np.int64([0, 0, 1, 0, 0, 0, 0, 2]), v=np.float32(1.5))
row("Pad by attributes", "y = Pad <pads = [0, 0, 1, 0, 0, 0, 0, 2], value = 1.5> (x)", 10)
row("Pad of channels", "y = Pad (x, p)", 13, p=np.int64([0, 1, 1, 0, 0, 2, 0, 2]))
row("Pad of the batch", "y = Pad (x, p)", 13, p=np.int64([1, 0, 0, 0, 1, 0, 0, 0]))
row("Pad by less than nothing", "y = Pad (x, p)", 13, p=np.int64([0, 0, -1, 0, 0, 0, 0, -2]))
row("Pad of some axes", "y = Pad (x, p, , a)", 18, p=np.int64([1, 0, 0, 2]), a=np.int64([3, 1]))
row("Pad of some axes, from the end", "y = Pad (x, p, , a)", 18, p=np.int64([1, 0, 0, 2]), a=np.int64([-1, -2]))
row("Pad of all axes, the other way round", "y = Pad (x, p, , a)", 18, p=np.int64([1, 0, 0, 0, 0, 0, 0, 0]), a=np.int64([3, 2, 1, 0]))
for mode in ("edge", "reflect", "wrap"):
    row(f"Pad, {mode}", f'y = Pad <mode = "{mode}"> (x, p)', 19, p=np.int64([0, 0, 1, 0, 0, 0, 0, 2]))
    row(f"Pad, {mode}, with a value that nobody needs", f'y = Pad <mode = "{mode}"> (x, p, v)', 19,
        p=np.int64([0, 0, 1, 0, 0, 0, 0, 2]), v=np.float32(1.5))
row("Pad in a mode that there is not", 'y = Pad <mode = "elsewhere"> (x, p)', 19, p=np.int64([0, 0, 1, 0, 0, 0, 0, 2]))
row("Pad with a value that is computed", "s = ReduceMax <keepdims = 0> (x) y = Pad (x, p, s)", 13, p=np.int64([0, 0, 1, 0, 0, 0, 0, 2]))
row("Pad of a stored tensor", "s = Pad (w, p) y = Mul (x, s)", 13, p=np.int64([0, 1]), w=weights(3))

coordinates = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric", "tf_crop_and_resize")
for mode in ("nearest", "linear", "cubic"):
    for coordinate in coordinates:
        for scales in ([2, 2], [3, 1], [1.5, 2.6], [0.5, 0.75]):
            roundings = ("floor", "round_prefer_floor", "ceil", "round_prefer_ceil") if mode == "nearest" else ("floor",)
            for rounding in roundings:
                if coordinate in ("half_pixel_symmetric", "tf_crop_and_resize") and (rounding != "floor" or scales != [1.5, 2.6]):
                    continue
                roi = "r" if coordinate == "tf_crop_and_resize" else ""
                stored = {"r": np.float32([0, 0, 0.1, 0.1, 1, 1, 0.9, 0.8])} if roi else {}
                row(f"Resize {mode} {coordinate} {rounding} by {scales}",
                    f'y = Resize <mode = "{mode}", coordinate_transformation_mode = "{coordinate}", nearest_mode = "{rounding}">'
                    f" (x, {roi}, s)", 19, s=np.float32([1, 1, *scales]), **stored)
plain = 'mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"'
row("Resize of some axes", f"y = Resize <{plain}, axes = [3]> (x, , s)", 18, s=np.float32([2]))
row("Resize of axes the other way round", f"y = Resize <{plain}, axes = [3, 2]> (x, , s)", 18, s=np.float32([2, 1]))
row("Resize of all axes in another order", f"y = Resize <{plain}, axes = [0, 1, 3, 2]> (x, , s)", 18, s=np.float32([1, 1, 2, 1]))
row("Resize to sizes", f"y = Resize <{plain}> (x, , , s)", 13, s=np.int64([1, 4, 8, 12]))
row("Resize to sizes that are no multiples", f"y = Resize <{plain}> (x, , , s)", 13, s=np.int64([1, 4, 7, 3]))
row("Resize of some axes to sizes", f"y = Resize <{plain}, axes = [3, 2]> (x, , , s)", 18, s=np.int64([12, 4]))
for policy in ("not_larger", "not_smaller"):
    row(f"Resize, {policy}", f'y = Resize <{plain}, keep_aspect_ratio_policy = "{policy}", axes = [2, 3]> (x, , , s)', 18,
        s=np.int64([8, 12]))
row("Resize with scales and sizes", f"y = Resize <{plain}> (x, , f, s)", 13, f=np.float32([1, 1, 2, 2]), s=np.int64([1, 4, 8, 8]))
row("Resize, antialiased", 'y = Resize <mode = "linear", antialias = 1> (x, , s)', 18, s=np.float32([1, 1, 0.5, 0.5]))
row("Resize, cubic without what lies outside", 'y = Resize <mode = "cubic", exclude_outside = 1> (x, , s)', 18,
    s=np.float32([1, 1, 2, 2]))
row("Resize, cubic with another coefficient", 'y = Resize <mode = "cubic", cubic_coeff_a = -0.5> (x, , s)', 18,
    s=np.float32([1, 1, 2, 2]))
row("Resize of channels", f"y = Resize <{plain}> (x, , s)", 13, s=np.float32([1, 2, 1, 1]))
row("Resize of a sequence", f"y = Resize <{plain}> (x, , s)", 13, s=np.float32([1, 1, 2]), shape=(1, 4, 6))

# Windows of convolutions and pools in every form.
for group, c_out in ((1, 5), (2, 6), (4, 4), (4, 8)):
    for kernel, strides, dilations, pads in (
        ([3, 3], [1, 1], [1, 1], [0, 0, 0, 0]),
        ([3, 3], [1, 1], [1, 1], [1, 1, 1, 1]),
        ([3, 3], [2, 2], [1, 1], [0, 0, 1, 1]),
        ([3, 2], [1, 2], [2, 1], [2, 0, 1, 3]),
        ([2, 3], [3, 1], [1, 3], [5, 4, 0, 2]),
        ([1, 4], [1, 1], [1, 2], [0, 3, 0, 3]),
    ):
        text = f"group = {group}, kernel_shape = {kernel}, strides = {strides}, dilations = {dilations}, pads = {pads}"
        row(f"Conv to {c_out}, {text}", f"y = Conv <{text}> (x, w, b)", 13, w=weights(c_out, 4 // group, *kernel), b=weights(c_out),
            shape=(1, 4, 7, 9))
        if max(pads) < 3:
            text += ", output_padding = [0, 1]" if strides[1] > 1 else ""
            row(f"ConvTranspose to {c_out}, {text}", f"y = ConvTranspose <{text}> (x, w, b)", 13,
                w=weights(4, c_out // group, *kernel), b=weights(c_out), shape=(1, 4, 7, 9))
for channels in (16, 32):
    row(f"Conv of {channels} channels with one row less after than before",
        "y = Conv <pads = [1, 1, 0, 0]> (x, w)", 13, w=weights(channels, channels, 3, 3), shape=(1, channels, 6, 8))
    row(f"Conv of {channels} channels in groups of 16", f"y = Conv <pads = [1, 1, 1, 1], group = {channels // 16}> (x, w)", 13,
        w=weights(channels, 16, 3, 3), shape=(1, channels, 6, 8))
    row(f"ConvTranspose of {channels} channels by steps of 2", "y = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w, b)",
        13, w=weights(channels, 16, 4, 4), b=weights(16), shape=(1, channels, 4, 3))
for strides in ([1, 1], [2, 3]):
    for auto in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        text = f'auto_pad = "{auto}", strides = {strides}'
        row(f"Conv, {text}", f"y = Conv <{text}, dilations = [2, 1]> (x, w)", 13, w=weights(3, 4, 3, 2), shape=(1, 4, 7, 9))
        row(f"ConvTranspose, {text}", f"y = ConvTranspose <{text}> (x, w)", 13, w=weights(4, 3, 3, 4), shape=(1, 4, 5, 4))
        for op in ("MaxPool", "AveragePool"):
            row(f"{op}, {text}", f"y = {op} <{text}, kernel_shape = [3, 2]> (x)", 13, shape=(1, 4, 7, 9))
        row(f"ConvTranspose, {text}, output_shape", f"y = ConvTranspose <{text}, output_shape = [9, 11]> (x, w)", 13,
            w=weights(4, 3, 3, 4), shape=(1, 4, 5, 4))
row("ConvTranspose to a shape of odd sides", "y = ConvTranspose <strides = [2, 2], output_shape = [9, 8]> (x, w)", 13, w=weights(4, 3, 3, 3),
    shape=(1, 4, 5, 4))
row("ConvTranspose to a shape with the batch", "y = ConvTranspose <strides = [2, 2], output_shape = [1, 3, 9, 8]> (x, w)", 13,
    w=weights(4, 3, 3, 3), shape=(1, 4, 5, 4))
row("ConvTranspose whose kernel is shorter than its stride", "y = ConvTranspose <strides = [3, 4]> (x, w, b)", 13,
    w=weights(4, 3, 2, 1), b=weights(3), shape=(1, 4, 5, 4))
row("ConvTranspose whose first results come from the second number",
    "y = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w, b)", 13, w=weights(4, 3, 2, 2), b=weights(3), shape=(1, 4, 3, 4))
row("ConvTranspose of a sequence", "y = ConvTranspose <strides = [2], pads = [1, 1]> (x, w, b)", 13, w=weights(4, 3, 4), b=weights(3),
    shape=(1, 4, 6))
row("ConvTranspose of one number", "y = ConvTranspose <strides = [2], pads = [1, 1]> (x, w, b)", 13, w=weights(4, 3, 4), b=weights(3),
    shape=(1, 4, 1))
row("Conv of a sequence, dilated and grouped", "y = Conv <dilations = [4], pads = [8, 0], group = 2> (x, w)", 13, w=weights(6, 2, 3),
    shape=(1, 4, 11))
row("Conv with a residual, a norm and an activation",
    "c = Conv <pads = [1, 1, 1, 1]> (x, w, b) n = BatchNormalization (c, s, h, m, v) a = Relu (n) y = Add (a, x)", 13,
    w=weights(4, 4, 3, 3), b=weights(4), s=weights(4), h=weights(4), m=weights(4), v=np.abs(weights(4)) + 0.5)
row("BatchNormalization of a sequence", "y = BatchNormalization (x, s, h, m, v)", 13, s=weights(4), h=weights(4), m=weights(4),
    v=np.abs(weights(4)) + 0.5, shape=(1, 4, 6))
row("BatchNormalization of rows", "y = BatchNormalization (x, s, h, m, v)", 13, s=weights(4), h=weights(4), m=weights(4),
    v=np.abs(weights(4)) + 0.5, shape=(3, 4))
for op in ("MaxPool", "AveragePool"):
    for kernel, strides, pads in (([2, 2], [2, 2], [0, 0, 0, 0]), ([3, 3], [2, 2], [1, 1, 1, 1]), ([3, 2], [2, 1], [0, 1, 2, 0]),
                                  ([2, 3], [3, 2], [1, 2, 0, 1])):
        for ceil in (0, 1):
            text = f"kernel_shape = {kernel}, strides = {strides}, pads = {pads}, ceil_mode = {ceil}"
            row(f"{op}, {text}", f"y = {op} <{text}> (x)", 19, shape=(1, 4, 7, 8))
            row(f"{op} of many channels, {text}", f"y = {op} <{text}> (x)", 19, shape=(1, 19, 7, 8))
            if op == "AveragePool":
                row(f"{op}, {text}, with padding", f"y = {op} <{text}, count_include_pad = 1> (x)", 19, shape=(1, 4, 7, 8))
        text = f"kernel_shape = {kernel}, strides = {strides}, pads = {pads}, dilations = [1, 2]"
        row(f"{op}, {text}", f"y = {op} <{text}> (x)", 19, shape=(1, 4, 7, 8))
    row(f"{op} of a sequence", f"y = {op} <kernel_shape = [3], strides = [2], pads = [1, 0]> (x)", 13, shape=(1, 4, 9))
    row(f"Global{op} as a factor", f"p = Global{op} (x) y = Mul (x, p)", 13, shape=(1, 18, 5, 6))
    row(f"Global{op} of a sequence", f"p = Global{op} (x) y = Mul (x, p)", 13, shape=(1, 4, 9))
row("MaxPool with the places of what it finds", "y, i = MaxPool <kernel_shape = [2, 2]> (x)", 13)

# Rows along any dimensions.
for op in ("Softmax", "LogSoftmax"):
    for axis in range(-4, 4):
        row(f"{op} at {axis}", f"y = {op} <axis = {axis}> (x)", 13, shape=(1, 5, 3, 7))
        row(f"{op} of opset 11 at {axis}", f"y = {op} <axis = {axis}> (x)", 11, shape=(1, 5, 3, 7))
    row(f"{op} of an image's channels, after a convolution", f"c = Conv (x, w) y = {op} <axis = 1> (c)", 13, w=weights(19, 4, 1, 1))
for axis in (1, 2, 3, -1):
    dims = (1, 4, 3, 5)[axis:]
    row(f"LayerNormalization from {axis} on", f"y = LayerNormalization <axis = {axis}> (x, s, b)", 17, s=weights(*dims), b=weights(*dims),
        shape=(1, 4, 3, 5))
    row(f"LayerNormalization at {axis} with fewer weights", f"y = LayerNormalization <axis = {axis}> (x, s)", 17, s=weights(dims[-1]),
        shape=(1, 4, 3, 5))
    row(f"RMSNormalization at {axis}", f"y = RMSNormalization <axis = {axis}> (x, s)", 23, s=weights(*dims), shape=(1, 4, 3, 5))
for op in ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp"):
    for axes in ([0], [1], [2, 3], [1, 3], [1, 2, 3], [-1]):
        row(f"Reduce{op} of an image over {axes}", f"c = Conv (x, w) a = Abs (c) r = Reduce{op} <axes = {axes}> (a) y = Add (a, r)", 11,
            w=weights(18, 4, 1, 1))
    row(f"Reduce{op} of four dimensions in five", f"r = Reshape (x, h) a = Abs (r) y = Reduce{op} <axes = [0, 2, 4], keepdims = 0> (a)", 11,
        h=np.int64([2, 2, 2, 2, 4]))
row("InstanceNormalization with an epsilon", "y = InstanceNormalization <epsilon = 0.01> (x, s, b)", 13, s=weights(4), b=weights(4))
row("InstanceNormalization of a sequence", "y = InstanceNormalization (x, s, b)", 13, s=weights(4), b=weights(4), shape=(1, 4, 9))

# Truth, and what is made of it.
for op in ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"):
    row(f"{op} of computed numbers", f"a = Tanh (x) b = Sin (x) c = {op} (a, b) y = Where (c, a, b)", 16)
    row(f"{op} and a number", f"c = {op} (x, k) f = Cast <to = 1> (c) y = Mul (x, f)", 16, k=np.float32(0.25))
for op in ("And", "Or", "Xor"):
    row(f"{op} of what is computed", f"a = Less (x, k) b = Greater (x, l) c = {op} (a, b) n = Not (c) y = Where (n, x, k)", 16,
        k=np.float32(0.25), l=np.float32(-0.25))
row("Where with stored numbers on both sides", "c = Less (x, k) y = Where (c, k, l)", 16, k=np.float32(0.25), l=weights(4, 1, 1))
row("Where by a stored tensor", "y = Where (c, x, k)", 16, k=np.float32(0.25), c=np.array([True, False, True, False]))
row("Cast of floats to bool and back", "c = Cast <to = 9> (x) y = Cast <to = 1> (c)", 13)
row("PRelu of a sequence", "y = PRelu (x, s)", 16, s=weights(4, 1), shape=(1, 4, 9))
row("PRelu whose slope is computed", "s = Sigmoid (x) y = PRelu (x, s)", 16)
row("PRelu whose slope has more dimensions", "y = PRelu (x, s)", 16, s=weights(1, 4, 1), shape=(4, 1))
row("Pow of two computed values", "a = Abs (x) b = Tanh (x) y = Pow (a, b)", 13)
row("Pow by a number", "a = Abs (x) y = Pow (a, k)", 13, k=np.float32(1.7))
row("Shrink", "y = Shrink <bias = 0.25, lambd = 0.75> (x)", 13)

# Several images at once, as cameras and steps of an observation are.
SEVERAL = np.int64([3, 4, 4, 5])
for name, nodes, stored in (
    ("Conv", "y = Conv <pads = [1, 1, 1, 1]> (r, w, b)", {"w": weights(6, 4, 3, 3), "b": weights(6)}),
    ("two of Conv with a sum", "c = Conv <pads = [1, 1, 1, 1]> (r, w, b) d = Conv <pads = [0, 1, 2, 1]> (c, w) y = Add (d, r)",
     {"w": weights(4, 4, 3, 3), "b": weights(4)}),
    ("Conv of 16 channels", "q = Conv (r, k) c = Conv <pads = [1, 1, 1, 1]> (q, w) y = Relu (c)",
     {"k": weights(16, 4, 1, 1), "w": weights(16, 16, 3, 3)}),
    ("grouped Conv", "y = Conv <strides = [2, 1], group = 2> (r, w)", {"w": weights(6, 2, 3, 2)}),
    ("depthwise Conv", "y = Conv <pads = [1, 1, 1, 1], group = 4> (r, w, b)", {"w": weights(4, 1, 3, 3), "b": weights(4)}),
    ("ConvTranspose", "y = ConvTranspose <strides = [2, 2]> (r, w, b)", {"w": weights(4, 3, 3, 2), "b": weights(3)}),
    ("dilated ConvTranspose", "y = ConvTranspose <dilations = [2, 1]> (r, w)", {"w": weights(4, 3, 2, 2)}),
    ("MaxPool", "y = MaxPool <kernel_shape = [3, 2], strides = [1, 2], pads = [1, 0, 1, 0]> (r)", {}),
    ("AveragePool after a Conv", "c = Conv (r, w) y = AveragePool <kernel_shape = [2, 2]> (c)", {"w": weights(6, 4, 1, 1)}),
    ("GlobalAveragePool", "p = GlobalAveragePool (r) y = Mul (r, p)", {}),
    ("Resize", 'y = Resize <mode = "linear"> (r, , s)', {"s": np.float32([1, 1, 2, 1.5])}),
    ("Resize to twice", 'y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (r, , s)',
     {"s": np.float32([1, 1, 2, 2])}),
    ("BatchNormalization", "y = BatchNormalization (r, s, h, m, v)",
     {"s": weights(4), "h": weights(4), "m": weights(4), "v": np.abs(weights(4)) + 0.5}),
    ("GroupNormalization", "y = GroupNormalization <num_groups = 2> (r, s, h)", {"s": weights(4), "h": weights(4)}),
    ("InstanceNormalization and SiLU", "n = InstanceNormalization (r, s, h) g = Sigmoid (n) y = Mul (n, g)",
     {"s": weights(4), "h": weights(4)}),
    ("Pad and Conv", 'q = Pad <mode = "reflect"> (r, p) y = Conv (q, w)', {"p": np.int64([0, 0, 1, 1, 0, 0, 1, 1]), "w": weights(4, 4, 3, 3)}),
    ("Concat and Conv", "c = Conv (r, k) q = Concat <axis = 1> (r, c) y = Conv <pads = [1, 1, 1, 1]> (q, w)",
     {"k": weights(2, 4, 1, 1), "w": weights(3, 6, 3, 3)}),
    ("Softmax over channels", "c = Conv (r, w) y = Softmax <axis = 1> (c)", {"w": weights(5, 4, 1, 1)}),
    ("Flatten and Gemm", "c = Conv (r, w) f = Flatten (c) y = Gemm <transB = 1> (f, g, b)",
     {"w": weights(4, 4, 1, 1), "g": weights(7, 80), "b": weights(7)}),
    ("means of pixels", "c = Conv (r, w) y = ReduceMean <axes = [2, 3]> (c)", {"w": weights(17, 4, 1, 1)}),
):
    row(f"several images: {name}", f"r = Reshape (x, several) {nodes}", 21 if name == "GroupNormalization" else 13, shape=(1, 12, 4, 5),
        several=SEVERAL, **stored)
row("several sequences: Conv", "r = Reshape (x, several) y = Conv <dilations = [2], pads = [2, 2]> (r, w, b)", 13, shape=(1, 12, 9),
    several=np.int64([3, 4, 9]), w=weights(5, 4, 3), b=weights(5))

# Norms that are written out.
for axis in (1, 2, -1):
    dims = [(1, 5, 1, 1), (6, 1), (7,)][axis]
    for square in ("q = Pow (d, two)", "q = Mul (d, d)"):
        for quotient in ("n = Div (d, r)", "i = Reciprocal (r) n = Mul (i, d)"):
            row(f"layer norm at {axis} by {square} and {quotient}",
                f"m = ReduceMean <axes = [{axis}]> (x) d = Sub (x, m) {square} v = ReduceMean <axes = [{axis}]> (q) e = Add (v, eps) "
                f"r = Sqrt (e) {quotient} s = Mul (n, w) y = Add (b, s)", 13, shape=(1, 5, 6, 7), two=np.float32(2), eps=np.float32(1e-5),
                w=weights(*dims), b=weights(*dims))
            square_of_x, quotient_of_x = square.replace("d", "x"), quotient.replace("(d,", "(x,").replace(", d)", ", x)")
            row(f"RMS norm at {axis} by {square} and {quotient}",
                f"{square_of_x} v = ReduceMean <axes = [{axis}]> (q) e = Add (eps, v) r = Sqrt (e) {quotient_of_x} y = Mul (w, n)", 13,
                shape=(1, 5, 6, 7), two=np.float32(2), eps=np.float32(1e-5), w=weights(*dims))
row("layer norm whose mean is read elsewhere too",
    "m = ReduceMean <axes = [1]> (x) d = Sub (x, m) q = Mul (d, d) v = ReduceMean <axes = [1]> (q) e = Add (v, eps) r = Sqrt (e) "
    "n = Div (d, r) y = Add (n, m)", 13, eps=np.float32(1e-5))
row("layer norm whose root is over other dimensions",
    "m = ReduceMean <axes = [1]> (x) d = Sub (x, m) q = Mul (d, d) v = ReduceMean <axes = [2]> (q) e = Add (v, eps) r = Sqrt (e) "
    "y = Div (d, r)", 13, eps=np.float32(1e-5))
row("layer norm upside down",
    "m = ReduceMean <axes = [1]> (x) d = Sub (x, m) q = Mul (d, d) v = ReduceMean <axes = [1]> (q) e = Add (v, eps) r = Sqrt (e) "
    "y = Div (r, d)", 13, eps=np.float32(1e-5))
row("layer norm with the mean the wrong way round",
    "m = ReduceMean <axes = [1]> (x) d = Sub (m, x) q = Mul (d, d) v = ReduceMean <axes = [1]> (q) e = Add (v, eps) r = Sqrt (e) "
    "y = Div (d, r)", 13, eps=np.float32(1e-5))
row("layer norm over two dimensions, with a scale over pixels",
    "m = ReduceMean <axes = [1, 3]> (x) d = Sub (x, m) q = Mul (d, d) v = ReduceMean <axes = [1, 3]> (q) e = Add (v, eps) r = Sqrt (e) "
    "n = Div (d, r) y = Mul (n, w)", 13, shape=(1, 5, 6, 7), eps=np.float32(1e-5), w=weights(6, 1))
row("layer norm over two dimensions",
    "m = ReduceMean <axes = [3, 1]> (x) d = Sub (x, m) q = Mul (d, d) v = ReduceMean <axes = [3, 1]> (q) e = Add (v, eps) r = Sqrt (e) "
    "n = Div (d, r) s = Mul (n, w) y = Add (s, b)", 13, shape=(1, 5, 6, 7), eps=np.float32(1e-5), w=weights(5, 1, 7), b=weights(7))
for least in ("c = Max (n, l)", "c = Clip (n, l)"):
    row(f"a value over its norm, {least}", f"n = ReduceL2 <axes = [1]> (x) {least} q = Div (x, c) g = Mul (q, w) y = Mul (g, k)", 13,
        shape=(1, 5, 6, 7), l=np.float32(1.5), w=weights(1, 5, 1, 1), k=np.float32(2.5))
row("a value over its norm, spread", "n = ReduceL2 <axes = [1]> (x) c = Clip (n, l) e = Expand (c, h) y = Div (x, e)", 13,
    shape=(1, 5, 6, 7), l=np.float32(1e-12), h=np.int64([1, 5, 6, 7]))
row("a value over its norm, with a bound above", "n = ReduceL2 <axes = [1]> (x) c = Clip (n, l, h) y = Div (x, c)", 13,
    shape=(1, 5, 6, 7), l=np.float32(0.5), h=np.float32(1.5))

# Products by equations.
for equation, a, b in (
    ("abc,acd->abd", (2, 3, 4), (2, 4, 5)), ("abc,abd->acd", (2, 3, 4), (2, 3, 5)), ("abc,abc->ab", (2, 3, 4), (2, 3, 4)),
    ("abc,abc->abc", (2, 3, 4), (2, 3, 4)), ("abc,c->ab", (2, 3, 4), (4,)), ("abc,bc->a", (2, 3, 4), (3, 4)), ("abc,bc->ac", (2, 3, 4), (3, 4)),
    ("ab,cd->abcd", (2, 3), (4, 5)), ("ab,cd->dacb", (2, 3), (4, 5)), ("abc,dc->adb", (2, 3, 4), (5, 4)), ("abcd,abce->bde", (2, 3, 2, 4), (2, 3, 2, 2)),
    ("...ab,...bc->...ac", (2, 3, 4), (2, 4, 5)), ("...ab,bc->...ac", (2, 3, 4), (4, 5)), ("a...,a...->...", (2, 3, 4), (2, 3, 4)),
    ("ab,bc", (2, 3), (3, 4)), ("ba,cb", (2, 3), (4, 2)), ("abc,acd->abd", (1, 3, 4), (2, 4, 5)), ("abc,adc->abd", (2, 3, 1), (2, 5, 4)),
    ("abc,bd->ad", (2, 3, 4), (3, 5)), ("abhw,cb->achw", (1, 4, 2, 3), (5, 4)),
):
    row(f"Einsum {equation} of {list(a)} and {list(b)}", f'p = Reshape (x, h) y = Einsum <equation = "{equation}"> (p, w)', 13,
        shape=(1, int(np.prod(a))), h=np.int64(a), w=weights(*b))
    row(f"Einsum {equation} of {list(a)} and {list(b)}, both computed",
        f'p = Reshape (x, h) z = Tanh (w) m = ReduceMean <keepdims = 0> (x) q = Mul (w, m) y = Einsum <equation = "{equation}"> (p, q)', 13,
        shape=(1, int(np.prod(a))), h=np.int64(a), w=weights(*b))
for equation, a in (("abc->cab", (2, 3, 4)), ("abc->ab", (2, 3, 4)), ("abc->", (2, 3, 4)), ("abc", (2, 3, 4)), ("...a->...", (2, 3, 4)),
                    ("a...->...a", (2, 3, 4)), ("aab->ab", (2, 2, 3))):
    row(f"Einsum {equation} of {list(a)}", f'p = Reshape (x, h) y = Einsum <equation = "{equation}"> (p)', 13, shape=(1, int(np.prod(a))),
        h=np.int64(a))
row("Einsum of three operands", 'p = Reshape (x, h) y = Einsum <equation = "ab,bc,cd->ad"> (p, v, w)', 13, shape=(1, 6), h=np.int64([2, 3]),
    v=weights(3, 4), w=weights(4, 5))
row("Einsum of three operands that share a letter", 'p = Reshape (x, h) y = Einsum <equation = "ab,ac,ad->abcd"> (p, v, w)', 13, shape=(1, 6),
    h=np.int64([2, 3]), v=weights(2, 4), w=weights(2, 2))
for alpha, beta, turned, dims in ((0.5, 1.0, 0, (5,)), (1.0, 0.25, 0, (1, 5)), (2.0, 0.5, 1, (4, 5)), (1.0, 1.0, 1, (4, 1)), (1.0, 0.0, 0, (5,))):
    row(f"Gemm of a computed matrix, {alpha}, {beta}, {turned}, {list(dims)}",
        f"p = Reshape (x, h) y = Gemm <alpha = {alpha}, beta = {beta}, transA = {turned}> (p, w, c)", 13, shape=(1, 12),
        h=np.int64([3, 4] if turned else [4, 3]), w=weights(3, 5), c=weights(*dims))
for op in ("Sum", "Mean", "Max", "Min"):
    for count in (1, 2, 3, 5):
        names = ", ".join(["x", "k", "l", "x", "m"][:count])
        row(f"{op} of {count} values", f"y = {op} ({names})", 13, k=weights(4, 1, 1), l=np.float32(0.25), m=weights(1, 4))
row("MatMul of a vector and rows", "p = Reshape (x, h) y = MatMul (p, w)", 13, shape=(1, 4), h=np.int64([4]), w=weights(3, 4, 5))
row("MatMul of rows and a vector", "p = Reshape (x, h) y = MatMul (p, w)", 13, shape=(1, 24), h=np.int64([2, 3, 4]), w=weights(4))
row("MatMul of two vectors", "p = Reshape (x, h) y = MatMul (p, w)", 13, shape=(1, 4), h=np.int64([4]), w=weights(4))
row("SpaceToDepth of 3", "y = SpaceToDepth <blocksize = 3> (x)", 13, shape=(1, 2, 6, 9))
row("GatherElements from a table by the time", "i = Cast <to = 7> (t) g = GatherElements <axis = 0> (k, i) y = Mul (x, g)", 13,
    time=np.float32(3), k=weights(7))
for op in ("Sum", "Prod", "Max", "Min", "Mean"):
    row(f"Reduce{op} of stored integers", f"r = Reduce{op} <keepdims = 0> (k) f = Cast <to = 1> (r) y = Mul (x, f)", 11, k=np.int64([3, 4, 9]))

for op in ("ArgMax", "ArgMin"):
    for axis in (0, 1, 3, -2):
        row(f"{op} along {axis}", f"i = {op} <axis = {axis}> (x) f = Cast <to = 1> (i) y = Add (x, f)", 13)
        row(f"{op} along {axis} without it", f"i = {op} <axis = {axis}, keepdims = 0> (x) y = Cast <to = 1> (i)", 13)
    row(f"{op} of a convolution's channels", f"c = Conv (x, w) i = {op} <axis = 1> (c) y = Cast <to = 1> (i)", 13, w=weights(9, 4, 1, 1))
row("GatherND by the time", "i = Cast <to = 7> (t) r = Reshape (i, h) y = GatherND (k, r)", 13, time=np.float32(3), k=weights(7, 2),
    h=np.int64([1, 1]))
row("a whole number that is compared", "i = Cast <to = 7> (t) e = Equal (i, k) f = Cast <to = 1> (e) y = Mul (x, f)", 13,
    time=np.float32(2), k=np.int64([0, 1, 2, 3]))
row("whole numbers that are chosen", "i = Cast <to = 7> (t) e = Less (i, k) w = Where (e, i, k) f = Cast <to = 1> (w) y = Mul (x, f)", 13,
    time=np.float32(2), k=np.int64([0, 1, 2, 3]))
row("Clip of stored numbers", "c = Clip (k, a, b) y = Mul (x, c)", 13, k=weights(4), a=np.float32(-0.25), b=np.float32(0.25))

row("Split without sizes", "a, b = Split <axis = 1> (x) y = Sub (b, a)", 13)
row("Split in three without sizes", "a, b, y = Split <axis = 1, num_outputs = 3> (x)", 18, shape=(1, 7, 3))
row("Split in parts that do not divide", "a, y = Split <axis = 1, num_outputs = 2> (x)", 18, shape=(1, 7, 3))
row("Split in parts that do not divide, before opset 18", "a, y = Split <axis = 1> (x)", 13, shape=(1, 7, 3))
row("Split in another number of parts than it says", "a, y = Split <axis = 1, num_outputs = 3> (x)", 18, shape=(1, 6, 3))
row("Split with neither sizes nor a number", "a, y = Split <axis = 1> (x)", 18)
row("Split with sizes and a number", "a, y = Split <axis = 1, num_outputs = 2> (x, s)", 18, s=np.int64([1, 3]))
row("Split by sizes", "a, b = Split <axis = -1> (x, s) y = Concat <axis = 3> (b, a)", 13, s=np.int64([1, 3]))
row("Split by an attribute", "a, b = Split <axis = 1, split = [1, 3]> (x) y = Concat <axis = 1> (b, a)", 11)
row("Split by sizes that do not fit", "a, y = Split <axis = 1> (x, s)", 13, s=np.int64([1, 2]))
row("Split into one", "y = Split <axis = 1> (x)", 13)
row("Split of a stored tensor", "a, b = Split <axis = 0> (w, s) m = Mul (x, a) y = Add (m, b)", 13, w=weights(2, 4), s=np.int64([1, 1]))

row("Slice backwards", "y = Slice (x, s, e, a, p)", 13, s=np.int64([-1]), e=np.int64([-(2**63)]), a=np.int64([2]), p=np.int64([-1]))
row("Slice backwards by two, of two dimensions", "y = Slice (x, s, e, a, p)", 13, s=np.int64([3, -2]), e=np.int64([0, -9]),
    a=np.int64([1, 3]), p=np.int64([-2, -1]))
row("Slice to beyond the end", "y = Slice (x, s, e, a)", 13, s=np.int64([1]), e=np.int64([2**63 - 1]), a=np.int64([1]))
row("Slice without axes", "y = Slice (x, s, e)", 13, s=np.int64([0, 1]), e=np.int64([1, 3]))
row("Slice of nothing", "s2 = Slice (x, s, e, a) y = Concat <axis = 1> (x, s2)", 13, s=np.int64([3]), e=np.int64([1]), a=np.int64([1]))
row("Slice by a step of zero", "y = Slice (x, s, e, a, p)", 13, s=np.int64([0]), e=np.int64([4]), a=np.int64([1]), p=np.int64([0]))
row("Slice of a dimension twice", "y = Slice (x, s, e, a)", 13, s=np.int64([0, 1]), e=np.int64([3, 4]), a=np.int64([1, 1]))
row("Slice by attributes", "y = Slice <starts = [1], ends = [-1], axes = [2]> (x)", 9)
row("Slice with integers of 32 bits", "y = Slice (x, s, e, a)", 13, s=np.int32([1]), e=np.int32([2**31 - 1]), a=np.int32([-1]))
row("Slice from a computed place", "i = Cast <to = 7> (t) j = Mul (i, z) e = Add (j, o) y = Slice (x, j, e, a)", 13, z=np.int64([0]),
    o=np.int64([2]), a=np.int64([1]))

row("Concat of a stored tensor and a value on channels", "a = Tanh (x) k = Concat <axis = 1> (c, a) y = Conv (k, w)",
    c=weights(1, 2, 4, 4), w=weights(4, 6, 1, 1))
row("Concat with a stored tensor in the middle", "a = Tanh (x) b = Sin (x) k = Concat <axis = 1> (a, c, b) y = Conv (k, w)",
    c=weights(1, 2, 4, 4), w=weights(4, 10, 1, 1))
row("Concat with a stored tensor last", "a = Tanh (x) k = Concat <axis = 1> (a, c) y = Conv (k, w)", c=weights(1, 3, 4, 4),
    w=weights(4, 7, 3, 3))
row("Concat with a stored tensor first, and reduced", "a = Tanh (x) k = Concat <axis = 1> (c, a) y = ReduceMean <axes = [1]> (k)",
    c=weights(1, 2, 4, 4))
row("Concat with stored rows", "a = Tanh (x) y = Concat <axis = 2> (c, a)", c=weights(1, 4, 2, 4))
row("Concat with stored columns", "a = Tanh (x) y = Concat <axis = 3> (a, c)", c=weights(1, 4, 4, 3))
row("Concat of a value with itself", "a = Tanh (x) k = Concat <axis = 1> (a, x, a) y = Conv (k, w)", w=weights(4, 12, 1, 1))
row("Concat of sequences with a stored token", "a = MatMul (x, w) k = Concat <axis = 1> (c, a) q = MatMul (k, w) y = Relu (q)",
    shape=(1, 5, 4), w=weights(4, 4), c=weights(1, 1, 4))
row("Concat of one", "y = Concat <axis = 1> (x)")
row("Concat without an axis", "y = Concat (x, x)")
row("Concat of other shapes", "y = Concat <axis = 1> (x, c)", c=weights(1, 4, 4, 3))
row("Concat of floats and integers", "y = Concat <axis = 0> (t, k)", k=np.int64([1]))

row("Einsum whose sizes differ", 'y = Einsum <equation = "bcij,bcjk->bcik"> (x, w)', w=weights(1, 4, 3, 4))
row("Einsum whose sizes differ the other way", 'y = Einsum <equation = "bcij,bcjk->bcik"> (x, w)', w=weights(1, 4, 9, 4))
row("Einsum with a batch that stands for all", 'y = Einsum <equation = "bcij,bcjk->bcik"> (x, w)', w=weights(1, 1, 4, 4))
row("Einsum with a repeated letter", 'y = Einsum <equation = "bcii->bci"> (x)')
row("Einsum that sums", 'y = Einsum <equation = "bcij->bc"> (x)')
row("Einsum with an ellipsis", 'y = Einsum <equation = "...ij,...jk->...ik"> (x, w)', w=weights(1, 4, 4, 3))
row("Einsum without a result", 'y = Einsum <equation = "bcij,bcjk"> (x, w)', w=weights(1, 4, 4, 3))
row("Einsum that turns", 'y = Einsum <equation = "bcij->bjci"> (x)')
row("Einsum of three", 'y = Einsum <equation = "bcij,jk,kl->bcil"> (x, v, w)', v=weights(4, 3), w=weights(3, 2))
row("Einsum, outer", 'y = Einsum <equation = "bcij,k->bcijk"> (x, w)', w=weights(2))
row("Einsum with a letter of none", 'y = Einsum <equation = "bcij->bcik"> (x)')
row("Einsum of too few operands", 'y = Einsum <equation = "bcij,bcjk->bcik"> (x)')
row("Einsum with capital letters", 'y = Einsum <equation = "Bcij, BcjK -> BcKi"> (x, w)', w=weights(1, 4, 4, 3))

for approximate in ("none", "tanh"):
    row(f"Gelu, {approximate}", f'y = Gelu <approximate = "{approximate}"> (x)', 20)
row("Gelu in a way that there is not", 'y = Gelu <approximate = "sigmoid"> (x)', 20)
for axis in (1, 2, -1, -3):
    dims = (4,) * (4 - axis if axis > 0 else -axis)
    row(f"LayerNormalization at {axis}", f"y = LayerNormalization <axis = {axis}, epsilon = 0.1> (x, s, b)", s=weights(*dims),
        b=weights(*dims))
row("LayerNormalization with a scale of one number", "y = LayerNormalization (x, s)", s=weights(1))
row("LayerNormalization with a scale of more dimensions", "y = LayerNormalization (x, s, b)", s=weights(4, 1, 4), b=weights(4))
row("LayerNormalization with its mean", "n, y = LayerNormalization (x, s)", s=weights(4))
row("GroupNormalization a group", "y = GroupNormalization <num_groups = 2> (x, s, b)", 18, s=weights(2), b=weights(2))
row("GroupNormalization a channel before opset 21", "y = GroupNormalization <num_groups = 2> (x, s, b)", 18, s=weights(4), b=weights(4))
row("GroupNormalization a channel", "y = GroupNormalization <num_groups = 2> (x, s, b)", 21, s=weights(4), b=weights(4))
row("GroupNormalization a group in opset 21", "y = GroupNormalization <num_groups = 2> (x, s, b)", 21, s=weights(2), b=weights(2))
row("GroupNormalization of groups that do not divide", "y = GroupNormalization <num_groups = 3> (x, s, b)", 21, s=weights(4), b=weights(4))
row("InstanceNormalization", "y = InstanceNormalization <epsilon = 0.1> (x, s, b)", s=weights(4), b=weights(4))
row("InstanceNormalization with too few scales", "y = InstanceNormalization (x, s, b)", s=weights(2), b=weights(2))
row("group normalisation whose groups lie across channels", """
    r = Reshape (x, a) i = InstanceNormalization (r, s, b) q = Reshape (i, c) y = Mul (q, m)""", a=np.int64([1, 2, -1]),
    c=np.int64([1, 4, 4, 4]), s=weights(2), b=weights(2), m=weights(4, 1, 1))
row("group normalisation with a factor a column", """
    r = Reshape (x, a) i = InstanceNormalization (r, s, b) q = Reshape (i, c) y = Mul (q, m)""", a=np.int64([1, 2, -1]),
    c=np.int64([1, 4, 4, 4]), s=weights(2), b=weights(2), m=weights(4))
row("group normalisation with a factor a row", """
    r = Reshape (x, a) i = InstanceNormalization (r, s, b) q = Reshape (i, c) y = Mul (q, m)""", a=np.int64([1, 2, -1]),
    c=np.int64([1, 4, 4, 4]), s=weights(2), b=weights(2), m=weights(4, 1))

for kind in (np.uint8, np.int8):
    name = np.dtype(kind).name
    row(f"quantization to {name}", "q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)", 13, s=np.float32(0.125), z=kind(5))
    row(f"quantization to {name} that saturates", "q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)", 13, s=np.float32(0.01),
        z=kind(5))
    row(f"quantization to {name}, a scale a channel",
        "q = QuantizeLinear <axis = 1> (x, s, z) y = DequantizeLinear <axis = 1> (q, s, z)", 13,
        s=np.float32([0.1, 0.2, 0.3, 0.4]), z=kind([1, 2, 3, 4]))
    row(f"quantization to {name}, read with another scale", "q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, r, z)", 13,
        s=np.float32(0.125), r=np.float32(0.25), z=kind(5))
    row(f"quantized weights of {name}, a scale a column", "d = DequantizeLinear <axis = 1> (w, s, z) y = MatMul (x, d)", 13,
        w=np.arange(20).reshape(4, 5).astype(kind), s=np.float32([0.1, 0.2, 0.3, 0.4, 0.5]), z=kind([1, 2, 3, 4, 5]))
    row(f"quantized weights of {name}, a scale a row", "d = DequantizeLinear <axis = 0> (w, s, z) y = MatMul (x, d)", 13,
        w=np.arange(20).reshape(4, 5).astype(kind), s=np.float32([0.1, 0.2, 0.3, 0.4]), z=kind([1, 2, 3, 4]))
    row(f"quantized weights of {name}, axis -1", "d = DequantizeLinear <axis = -1> (w, s) y = MatMul (x, d)", 13,
        w=np.arange(20).reshape(4, 5).astype(kind), s=np.float32([0.1, 0.2, 0.3, 0.4, 0.5]))
    row(f"quantized weights of {name} in blocks", "d = DequantizeLinear <axis = 0, block_size = 2> (w, s) y = MatMul (x, d)", 21,
        w=np.arange(20).reshape(4, 5).astype(kind), s=weights(2, 5))
row("quantization without a zero point", "q = QuantizeLinear (x, s) y = DequantizeLinear (q, s)", 13, s=np.float32(0.01))
row("quantization to a type by its number", "q = QuantizeLinear <output_dtype = 3> (x, s) y = DequantizeLinear (q, s)", 21, s=np.float32(0.01))
row("quantization to 16 bits", "q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)", 21, s=np.float32(0.01), z=np.int16(5))
row("quantization whose middle is rounded to even", "q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)", 13, s=np.float32(0.125),
    z=np.int8(0))
row("quantization of a stored tensor", "q = QuantizeLinear (w, s, z) d = DequantizeLinear (q, s, z) y = Mul (x, d)", 13, w=weights(4),
    s=np.float32(0.01), z=np.int8(5))

row("an input beyond those that there are", "y = Relu (x, x)")
row("an input too few", "y = Add (x)")
row("an output beyond those that there are", "y, z = Relu (x)")
row("an attribute that there is not", "y = Relu <alpha = 1.0> (x)")
row("an attribute of another kind", "y = Softmax <axis = 1.0> (x)")
row("an attribute twice", "y = Softmax <axis = 1> (x)",
    change=lambda m: m.graph.node[0].attribute.append(helper.make_attribute("axis", 3)))
row("an attribute that refers to a function's", "y = LeakyRelu <alpha = 0.5> (x)",
    change=lambda m: setattr(m.graph.node[0].attribute[0], "ref_attr_name", "slope"))
row("a value made twice", "z = Relu (x) z = Neg (x) y = Add (z, x)")
row("a stored tensor twice", "y = Mul (x, w)", w=np.float32(2),
    change=lambda m: m.graph.initializer.append(numpy_helper.from_array(np.float32(3), "w")))
row("a stored tensor by the name of a value", "w = Neg (x) y = Mul (x, w)", w=np.float32(2))
row("an input with a default", "y = Mul (x, w)", w=np.float32(2),
    change=lambda m: m.graph.input.append(helper.make_tensor_value_info("w", 1, [])))
row("a value that nobody makes", "y = Mul (x, nothing)")
row("an operator that there is not", "y = Nothing (x)")
row("Add of floats and integers", "y = Add (x, k)", k=np.int64(2))
row("Add of floats and doubles", "y = Add (x, k)", k=np.float64(2))
row("Where of floats and integers", "y = Where (c, x, k)", c=np.array([True, False, True, False]), k=np.int64(2))
row("Where by floats", "y = Where (c, x, k)", c=np.float32([1, 0, 1, 0]), k=np.float32(2))
row("Where of a computed test", "c = Less (x, k) y = Where (c, x, k)", k=np.float32(0.25))
row("Where with two stored", "c = Less (x, k) y = Where (c, k, l)", k=np.float32(0.25), l=np.float32(3))
row("Where of stored ones", "s = Where (c, k, l) y = Mul (x, s)", c=np.array([True, False, True, False]), k=np.float32(2), l=weights(4))
row("Where of not a number", "s = Log (x) c = IsNaN (s) y = Where (c, k, s)", k=np.float32(2))
row("Equal of floats", "c = Equal (x, k) y = Where (c, k, x)", k=np.float32(0.25))
row("And, Or, Xor, Not", """a = Less (x, k) b = Greater (x, l) c = And (a, b) d = Or (a, b) e = Xor (c, d) n = Not (e)
    y = Where (n, x, k)""", k=np.float32(0.5), l=np.float32(-0.5))
row("Constant of each kind", """
    a = Constant <value_float = 0.5> () b = Constant <value_floats = [1.0, 2.0, 3.0, 4.0]> () m = Mul (x, a) n = Mul (m, b)
    i = Constant <value_ints = [1, 4, 16]> () y = Reshape (n, i)""")
row("Constant of one integer", "i = Constant <value_int = 1> () g = Gather <axis = 1> (x, i) y = Neg (g)")
row("Constant of text", 'i = Constant <value_string = "a"> () y = Neg (x)')
row("ConstantOfShape", "z = ConstantOfShape (s) y = Add (x, z)", s=np.int64([4]))
row("ConstantOfShape with a value", "z = ConstantOfShape <value = float[1] {2.5}> (s) y = Mul (x, z)", s=np.int64([4]))
row("ConstantOfShape of nothing", "z = ConstantOfShape <value = float[1] {2.5}> (s) y = Mul (x, z)", s=np.int64([]))
row("ConstantOfShape of integers", "z = ConstantOfShape <value = int64[1] {3}> (s) f = Cast <to = 1> (z) y = Mul (x, f)", s=np.int64([4]))
row("Range of integers", "r = Range (a, b, c) f = Cast <to = 1> (r) y = Mul (x, f)", a=np.int64(9), b=np.int64(1), c=np.int64(-2))
row("Range of floats", "r = Range (a, b, c) y = Mul (x, r)", a=np.float32(0.1), b=np.float32(0.9), c=np.float32(0.2))
row("Range of great integers", "r = Range (a, b, c) s = Sub (r, a) f = Cast <to = 1> (s) y = Mul (x, f)", a=np.int64(2**40),
    b=np.int64(2**40 + 4), c=np.int64(1))
row("Shape of a part", "s = Shape <start = 1, end = -1> (x) f = Cast <to = 1> (s) y = ReduceSum <keepdims = 0> (f)", 15)
row("Size", "s = Size (x) f = Cast <to = 1> (s) y = Mul (x, f)")

for label, index in (("a negative index", -2), ("the last index", 3), ("an index beyond", 4), ("an index before", -5)):
    row(f"Gather with {label}", "y = Gather <axis = 1> (x, i)", i=np.int64([index]))
    row(f"Gather of a stored tensor with {label}", "g = Gather (w, i) y = Mul (x, g)", w=weights(4, 4), i=np.int64([index]))
for label, minus in (("", 990), (" and a negative index", 1001), (" and the least index", 1010), (" beyond", 980), (" before", 1011)):
    row(f"Gather by the time{label}", "u = Sub (t, k) g = Gather (w, u) y = Add (x, g)", time=np.int64(999), k=np.int64([minus]),
        w=weights(10, 4))
row("Gather by the time beyond, and Relu", "u = Sub (t, k) g = Gather (w, u) h = Relu (g) y = Add (x, h)", time=np.int64(999),
    k=np.int64([980]), w=weights(10, 4))
row("Gather of several", "y = Gather <axis = 2> (x, i)", i=np.int64([[0, -1], [2, 1]]))
row("Gather by floats", "y = Gather <axis = 1> (x, i)", i=np.float32([1]))
row("GatherElements", "y = GatherElements <axis = 1> (x, i)", i=np.int64([[[[0, 1, -1, 2]]]]))
row("GatherND", "y = GatherND (x, i)", i=np.int64([[0, 1], [0, 3]]))
row("GatherND with a batch", "y = GatherND <batch_dims = 1> (x, i)", i=np.int64([[1]]))
row("ScatterND", "y = ScatterND (x, i, u)", i=np.int64([[0, 1], [0, 3]]), u=weights(2, 4, 4))
for reduction in ("none", "add", "mul", "max", "min"):
    row(f"ScatterND, {reduction}", f'y = ScatterND <reduction = "{reduction}"> (x, i, u)', 18, i=np.int64([[0, 1], [0, 3]]),
        u=weights(2, 4, 4))
    row(f"ScatterND of a stored tensor, {reduction}", f's = ScatterND <reduction = "{reduction}"> (w, i, u) y = Mul (x, s)', 18,
        w=weights(4), i=np.int64([[1], [3]]), u=weights(2))
    row(f"ScatterElements, {reduction}", f'y = ScatterElements <axis = 3, reduction = "{reduction}"> (x, i, u)', 18,
        i=np.int64([[[[2, 1]]]]), u=weights(1, 1, 1, 2))
row("ScatterND of an index twice, added", 'y = ScatterND <reduction = "add"> (x, i, u)', 18, i=np.int64([[0, 1], [0, 1]]), u=weights(2, 4, 4))
row("ScatterND beyond", "y = ScatterND (x, i, u)", 18, i=np.int64([[0, 4]]), u=weights(1, 4, 4))
row("TopK", "y, i = TopK <axis = 2> (x, k)", 11, k=np.int64([2]))
row("TopK, the least", "y, i = TopK <axis = 1, largest = 0> (x, k)", 11, k=np.int64([3]))
row("TopK's indices", "v, y = TopK (x, k)", 11, k=np.int64([2]))
for op in ("ArgMax", "ArgMin"):
    row(op, f"y = {op} <axis = 2, keepdims = 0> (x)", 13)
    row(f"{op}, the last of equals", f"c = Ceil (x) y = {op} <axis = 3, select_last_index = 1> (c)", 13)
row("CumSum", "y = CumSum (x, a)", 14, a=np.int64(2))
row("CumSum from the end, without itself", "y = CumSum <exclusive = 1, reverse = 1> (x, a)", 14, a=np.int64(-1))
row("Trilu", "y = Trilu (x)", 14)
row("Trilu, lower", "y = Trilu <upper = 0> (x, k)", 14, k=np.int64(-1))
row("OneHot", "i = Cast <to = 7> (x) y = OneHot <axis = 1> (i, d, v)", 11, d=np.int64([4]), v=np.float32([-1, 2]))
row("Tile", "y = Tile (x, r)", 13, r=np.int64([1, 2, 1, 3]))
row("Tile of a stored tensor", "s = Tile (w, r) y = Mul (x, s)", 13, w=weights(2), r=np.int64([2]))
row("Expand of one batch to three", "y = Expand (x, s)", 13, s=np.int64([3, 1, 1, 1]), shape=(1, 1, 1, 1))
row("Expand to more dimensions", "y = Expand (x, s)", 13, s=np.int64([2, 1, 4, 1, 1]))
row("Expand to fewer dimensions", "y = Expand (x, s)", 13, s=np.int64([4]))
row("Expand that does not fit", "y = Expand (x, s)", 13, s=np.int64([3]))
row("Transpose without an order", "y = Transpose (x)", 13)
row("Transpose with a dimension twice", "y = Transpose <perm = [0, 2, 2, 3]> (x)", 13)
for mode in ("DCR", "CRD"):
    row(f"DepthToSpace {mode}", f'y = DepthToSpace <blocksize = 2, mode = "{mode}"> (x)', 13, shape=(1, 8, 2, 3))
row("DepthToSpace in an order that there is not", 'y = DepthToSpace <blocksize = 2, mode = "RCD"> (x)', 13)
row("SpaceToDepth", "y = SpaceToDepth <blocksize = 2> (x)", 13)

for op in ("Conv", "ConvTranspose"):
    for name, attributes in (("dilated", "dilations = [2, 2]"), ("with other strides a side", "strides = [1, 2]"),
                             ("with other pads a side", "pads = [0, 1, 0, 1]"), ("with pads of one side", "pads = [1, 1, 0, 0]"),
                             ("as at the top", 'auto_pad = "SAME_UPPER", strides = [2, 2]'), ("as at the bottom", 'auto_pad = "SAME_LOWER", strides = [2, 2]'),
                             ("of valid places", 'auto_pad = "VALID"'), ("with pads beside VALID", 'auto_pad = "VALID", pads = [1, 1, 1, 1]'),
                             ("with great pads", "pads = [3, 3, 3, 3]"), ("whose kernel_shape is another", "kernel_shape = [3, 3]"),
                             ("of a mode that there is not", 'auto_pad = "ELSEWHERE"'), ("with negative pads", "pads = [-1, 0, 0, 0]")):
        row(f"{op} {name}", f"y = {op} <{attributes}> (x, w, b)", 13, w=weights(4, 4, 2, 2), b=weights(4))
    row(f"{op} of groups", f"y = {op} <group = 2> (x, w, b)", 13, w=weights(4, 2, 2, 2), b=weights(4))
    row(f"{op} with a bias of two dimensions", f"y = {op} (x, w, b)", 13, w=weights(4, 4, 2, 2), b=weights(2, 2))
    row(f"{op} with computed weights", f"w = Tanh (v) z = Add (w, m) y = {op} (x, z)", 13, v=weights(4, 4, 2, 2), m=weights(1))
row("ConvTranspose with an output padding", "y = ConvTranspose <strides = [2, 2], output_padding = [1, 0]> (x, w)", 13, w=weights(4, 3, 2, 2))
row("ConvTranspose to a shape", "y = ConvTranspose <strides = [2, 2], output_shape = [9, 10]> (x, w)", 13, w=weights(4, 3, 3, 3))
for op in ("Sub", "Div", "Mul", "Add", "Min", "Max"):
    for name, stored in (("a number", np.float32(3)), ("a number a channel", weights(4, 1, 1) + np.float32(2))):
        row(f"{op} of {name} and a dilated Conv", f"a = Conv <dilations = [2, 2], pads = [2, 2, 2, 2]> (x, w) y = {op} (b, a)", 13,
            w=weights(4, 4, 3, 3), b=stored)
        row(f"{op} of a dilated Conv and {name}", f"a = Conv <dilations = [2, 2], pads = [2, 2, 2, 2]> (x, w) y = {op} (a, b)", 13,
            w=weights(4, 4, 3, 3), b=stored)
    row(f"{op} of a number and a Conv of groups", f"a = Conv <group = 2, pads = [1, 1, 1, 1]> (x, w) y = {op} (b, a)", 13,
        w=weights(4, 2, 3, 3), b=np.float32(3))
    row(f"{op} of a number and a Gemm with a factor", f"r = Reshape (x, s) g = Gemm <alpha = 0.5> (r, w, c) y = {op} (b, g)", 13,
        s=np.int64([16, 4]), w=weights(4, 4), c=weights(4), b=np.float32(3))
row("Slice by steps after a dilated Conv", "c = Conv <dilations = [2], pads = [2, 2]> (x, w) y = Slice (c, s, e, a, p)", 13, shape=(1, 8, 4),
    w=weights(4, 8, 3), s=np.int64([-1]), e=np.int64([2**62]), a=np.int64([-1]), p=np.int64([2]))
for op in ("AveragePool", "MaxPool"):
    for name, attributes in (("", ""), (", strided", ", strides = [2, 2]"), (", padded", ", pads = [1, 1, 1, 1]"),
                             (", as at the top", ', auto_pad = "SAME_UPPER"'), (", rounded up", ", ceil_mode = 1, strides = [3, 3]"),
                             (", padded and rounded up", ", ceil_mode = 1, strides = [2, 2], pads = [0, 1, 0, 1]"), (", dilated", ", dilations = [2, 2]")):
        row(f"{op}{name}", f"y = {op} <kernel_shape = [2, 2]{attributes}> (x)", 19)
row("AveragePool that counts zeros", "y = AveragePool <kernel_shape = [2, 2], pads = [1, 1, 1, 1], count_include_pad = 1> (x)", 19)
row("MaxPool with its indices", "a, y = MaxPool <kernel_shape = [2, 2]> (x)", 12)
row("GlobalAveragePool", "y = GlobalAveragePool (x)")
row("GlobalMaxPool", "y = GlobalMaxPool (x)")

# Numbers that are none, and the ends of functions.
NUMBERS = np.float32(["nan", "inf", "-inf", -0.0])
for op in ("Relu", "Abs", "Neg", "Sign", "Floor", "Ceil", "Round", "Exp", "Sqrt", "Log", "Erf", "Sigmoid", "Tanh", "Sin", "Cos", "Reciprocal", "Softplus",
           "LeakyRelu", "Elu", "Selu", "HardSigmoid", "HardSwish", "Celu", "Softsign", "Identity", "ThresholdedRelu", "Atan", "Sinh", "Cosh", "Tan",
           "Asin", "Acos", "Asinh", "Acosh", "Atanh", "Gelu", "Mish"):
    opset = 20 if op in ("Gelu", "Mish") else 17
    row(f"{op} of numbers that are none", f"z = Mul (x, o) n = Add (z, k) y = {op} (n)", opset, o=np.float32(0), k=NUMBERS)
    row(f"{op} of great and small numbers", f"n = Mul (x, k) y = {op} (n)", opset, k=np.float32([1e-6, 1e-2, 40, 2000]))
    row(f"{op} of stored numbers", f"s = {op} (k) y = Add (x, s)", opset, k=np.float32([-0.75, 0.5, 1.5, -2.5]))
row("Round of halves", "n = Mul (x, k) y = Round (n)", k=np.float32(8))
row("Clip of numbers that are none", "z = Mul (x, o) n = Add (z, k) y = Clip (n, a, b)", o=np.float32(0), k=NUMBERS, a=np.float32(-1), b=np.float32(1))
row("Softmax of numbers that are none", "n = Add (x, k) y = Softmax <axis = 2> (n)", k=NUMBERS)
row("Softmax with an infinity", "n = Add (x, k) y = Softmax (n)", k=np.float32([0, "-inf", 0, 0]))
row("Softmax of infinities alone", "n = Add (x, k) y = Softmax (n)", k=np.float32(["-inf"] * 4))
row("Softmax of great numbers", "n = Mul (x, k) y = Softmax (n)", k=np.float32(1e5))
row("LogSoftmax of great numbers", "n = Mul (x, k) y = LogSoftmax (n)", k=np.float32(1e3))
for op in ("Min", "Max"):
    row(f"{op} of numbers that are none", f"z = Mul (x, o) n = Add (z, k) y = {op} (n, c)", o=np.float32(0), k=NUMBERS, c=np.float32(0))
    row(f"{op} of a stored number that is none", f"y = {op} (x, c)", c=np.float32("nan"))
    row(f"{op} of stored numbers that are none", f"s = {op} (k, c) y = Add (x, s)", k=NUMBERS, c=np.float32(0))
row("ReduceMax of numbers that are none", "n = Add (x, k) y = ReduceMax <axes = [2]> (n)", 13, k=NUMBERS)
row("MaxPool of numbers that are none", "n = Add (x, k) y = MaxPool <kernel_shape = [2, 1]> (n)", 13, k=NUMBERS)
row("comparisons of numbers that are none", "z = Mul (x, o) n = Add (z, k) c = Less (n, o) y = Where (c, x, n)", o=np.float32(0), k=NUMBERS)
for op, attributes in (("LeakyRelu", "alpha = 0.3"), ("Elu", "alpha = 1.5"), ("Selu", "alpha = 1.5, gamma = 0.5"), ("Celu", "alpha = 1.5"),
                       ("HardSigmoid", "alpha = 0.3, beta = 0.4"), ("ThresholdedRelu", "alpha = 0.3")):
    row(f"{op} with {attributes}", f"y = {op} <{attributes}> (x)", 13)
row("PRelu a channel", "y = PRelu (x, s)", 13, s=weights(4, 1, 1))
row("MatMul of a vector", "y = MatMul (x, w)", w=weights(4))
row("MatMul of a vector first", "y = MatMul (w, x)", w=weights(4))
row("MatMul of stacks", "y = MatMul (x, w)", w=weights(4, 4, 3))
row("MatMul of stacks that stand for all", "y = MatMul (x, w)", w=weights(1, 1, 4, 3))
row("MatMul that does not fit", "y = MatMul (x, w)", w=weights(3, 4))
row("Sum of three", "y = Sum (x, a, b)", 13, a=weights(4), b=weights(4, 1))
row("Mean of two", "y = Mean (x, a)", 13, a=weights(4))
row("Max of three", "y = Max (x, a, b)", 13, a=weights(4), b=weights(4, 1))
row("Min of one", "y = Min (x)", 13)
row("doubles", "d = Cast <to = 11> (x) e = Mul (d, k) y = Cast <to = 1> (e)", 13, k=np.float64(1.1))
row("doubles that cancel", "d = Cast <to = 11> (x) e = Add (d, k) f = Sub (e, k) y = Cast <to = 1> (f)", 13, k=np.float64(1e8))

# What is found, sorted, taken and written by computed indices.
row("TopK of all, sorted", "y, i = TopK <axis = 1> (x, k)", 11, k=np.int64([4]))
row("TopK of equal numbers", "r = Round (x) y, i = TopK (r, k) z, j = TopK (r, k)", 13, k=np.int64([3]))
row("TopK's indices of equal numbers", "r = Round (x) v, y = TopK <largest = 0> (r, k)", 13, k=np.int64([3]))
row("TopK's numbers and indices", "v, i = TopK <axis = 2> (x, k) f = Cast <to = 1> (i) y = Mul (v, f)", 13, k=np.int64([3]))
row("TopK of integers", "i = Cast <to = 7> (x) v, j = TopK (i, k) y = Cast <to = 1> (v)", 13, k=np.int64([3]))
row("TopK of a stored tensor", "v, i = TopK <axis = 0> (w, k) y = Add (x, v)", 13, w=weights(4, 4), k=np.int64([4]))
row("TopK of more than there are", "y, i = TopK (x, k)", 13, k=np.int64([5]))
row("TopK of opset 9", "y, i = TopK <axis = 3, k = 2> (x)", 9)
row("Gather by computed indices", "i = ArgMax <axis = 1, keepdims = 0> (x) s = ReduceMax <axes = [0, 1, 2], keepdims = 0> (i) y = Gather <axis = 2> (x, s)", 13)
row("Gather by many computed indices", "v, i = TopK (x, k) j = Gather (i, o) y = Gather <axis = 1> (x, j)", 13, k=np.int64([2]), o=np.int64(0))
row("Gather of a stored tensor's last dimension", "i = ArgMax <axis = 1, keepdims = 0> (x) g = Gather <axis = 1> (w, i) y = Mul (g, x)", 13, w=weights(1, 4))
row("Gather by computed indices from the end", "i = ArgMax <axis = 1, keepdims = 0> (x) n = Sub (i, k) y = Gather <axis = 3> (x, n)", 13, k=np.int64(4))
row("GatherElements by computed indices", "i = ArgMax <axis = 2> (x) y = GatherElements <axis = 2> (x, i)", 13)
row("GatherElements in another's order", "v, i = TopK <axis = 1> (x, k) h = Tanh (x) y = GatherElements <axis = 1> (h, i)", 13, k=np.int64([4]))
row("GatherND by computed indices", "v, i = TopK (x, k) y = GatherND (w, i)", 13, k=np.int64([2]), w=weights(4, 4, 3))
row("GatherND by computed indices, in batches", "v, i = TopK (x, k) y = GatherND <batch_dims = 3> (x, i)", 13, k=np.int64([1]))
for reduction in ("none", "add", "mul", "max", "min"):
    row(f"ScatterElements by computed indices, {reduction}",
        f'v, i = TopK <axis = 1> (x, k) y = ScatterElements <axis = 1, reduction = "{reduction}"> (x, i, u)', 18, k=np.int64([2]), u=weights(1, 2, 4, 4))
    row(f"ScatterND by computed indices, {reduction}",
        f'v, i = TopK (x, k) j = Reshape (i, s) y = ScatterND <reduction = "{reduction}"> (w, j, u)', 18, k=np.int64([1]), s=np.int64([8, 2]),
        w=weights(4, 4, 3), u=weights(8, 3))

# Whole numbers that a run computes.
WHOLE = "i = Cast <to = 7> (t) f = Cast <to = 7> (x)"
for name, nodes in (("a quotient", "q = Div (i, k)"), ("a quotient of negative ones", "n = Neg (i) q = Div (n, k)"), ("a quotient of small ones", "q = Div (f, j)"),
                    ("a remainder", "q = Mod (i, k)"), ("a remainder of negative ones", "q = Mod (f, j)"), ("a remainder by a negative one", "n = Neg (f) q = Mod (n, m)"),
                    ("a remainder as C has it", "q = Mod <fmod = 1> (f, j)"), ("the less", "q = Min (i, k)"), ("the greater", "q = Max (f, j)"),
                    ("a sum of all", "q = ReduceSum (f)"), ("the greatest", "q = ReduceMax (f)"), ("a choice", "c = Greater (i, k) d = Sub (i, k) q = Where (c, d, i)"),
                    ("bounds", "q = Clip (i, j, k)"), ("a division by zero", "q = Div (i, z)"), ("a product that is too large", "a = Mul (i, i) b = Mul (a, a) q = Mul (b, b)")):
    row(f"whole numbers, {name}", f"{WHOLE} {nodes} g = Cast <to = 1> (q) y = Add (x, g)", 14, k=np.int64(7), j=np.int64(2), m=np.int64(-2), z=np.int64(0))

# Images read at coordinates.
for opset, modes in ((16, ("bilinear", "nearest", "bicubic")), (20, ("linear", "nearest", "cubic"))):
    for mode in modes:
        for padding in ("zeros", "border", "reflection"):
            for corners in (0, 1):
                text = f'mode = "{mode}", padding_mode = "{padding}", align_corners = {corners}'
                row(f"GridSample of opset {opset}, {mode}, {padding}, {corners}", f"y = GridSample <{text}> (x, g)", opset, (1, 3, 4, 5), g=4 * weights(1, 3, 5, 2))
row("GridSample by a computed grid", "s, r = Split <axis = 1> (x) g = Transpose <perm = [0, 2, 3, 1]> (s) y = GridSample (x, g)", 16)
row("GridSample of a stored image", "s, r = Split <axis = 1> (x) g = Transpose <perm = [0, 2, 3, 1]> (s) y = GridSample (w, g)", 16, w=weights(1, 3, 2, 5))
row("GridSample of several images", "y = GridSample (x, g)", 16, (2, 3, 4, 5), g=2 * weights(2, 3, 5, 2))
row("GridSample of one row", "y = GridSample <align_corners = 1> (x, g)", 16, (1, 3, 1, 5), g=weights(1, 3, 5, 2))
row("GridSample of other than pairs", "y = GridSample (x, g)", 16, g=weights(1, 3, 5, 3))
for corners in (0, 1):
    row(f"AffineGrid, {corners}", f"g = AffineGrid <align_corners = {corners}> (w, s) y = GridSample (x, g)", 20, w=weights(1, 2, 3), s=np.int64([1, 4, 3, 5]))
    row(f"AffineGrid of a volume, {corners}", f"m = Reshape (x, d) y = AffineGrid <align_corners = {corners}> (m, s)", 20, (1, 1, 3, 4), s=np.int64([1, 4, 3, 5, 2]),
        d=np.int64([1, 3, 4]))

def with_attributes(text):
    return f"<{text}> " if text else ""


# Overlapping blocks.
for name, shape, image, block, attributes in (
    ("", (1, 12, 6), (3, 4), (2, 2), ""), (" a stride apart", (1, 8, 4), (4, 4), (2, 2), "strides = [2, 2]"), (" that overlap, padded", (1, 18, 4), (3, 3), (3, 3), "strides = [2, 2], pads = [1, 1, 1, 1]"),
    (" that are dilated", (1, 4, 6), (4, 5), (2, 2), "dilations = [2, 2]"), (" of a sequence", (1, 6, 4), (5,), (2,), ""), (" of several images", (2, 12, 6), (3, 4), (2, 2), ""),
    (" that do not fit", (1, 12, 6), (4, 4), (2, 2), "")):
    row(f"Col2Im{name}", f"y = Col2Im {with_attributes(attributes)}(x, i, b)", 18, shape, i=np.int64(image), b=np.int64(block))

# Convolutions whose weights a run computes.
for name, weight, attributes in (("", (4, 4, 2, 2), ""), (", grouped", (4, 2, 2, 2), "group = 2"), (", each channel", (4, 1, 3, 3), "group = 4, pads = [1, 1, 1, 1]"),
                                 (", strided and padded", (3, 4, 3, 3), "strides = [2, 1], pads = [1, 0, 2, 1]"), (", dilated", (2, 4, 2, 2), "dilations = [2, 1]"),
                                 (", as large as its image", (4, 4, 3, 2), 'auto_pad = "SAME_UPPER"')):
    row(f"Conv by computed weights{name}", f"m = Tanh (t) w = Mul (v, m) y = Conv {with_attributes(attributes)}(x, w)", 17, v=weights(*weight), time=np.float32(0.5))
    row(f"Conv by computed weights with a bias{name}", f"m = ReduceMean <keepdims = 0> (x) w = Mul (v, m) b = Mul (c, m) y = Conv {with_attributes(attributes)}(x, w, b)", 17, v=weights(*weight), c=weights(weight[0]))
for name, weight, attributes in (("", (4, 3, 2, 2), ""), (", grouped", (4, 2, 2, 2), "group = 2, strides = [2, 2]"), (", each channel", (4, 1, 3, 3), "group = 4, pads = [1, 1, 1, 1]"),
                                 (", strided and padded", (4, 3, 3, 3), "strides = [2, 1], pads = [1, 0, 2, 1], output_padding = [1, 0]"), (", dilated", (4, 2, 2, 2), "dilations = [2, 1]")):
    row(f"ConvTranspose by computed weights{name}", f"m = Tanh (t) w = Mul (v, m) y = ConvTranspose {with_attributes(attributes)}(x, w)", 17, v=weights(*weight), time=np.float32(0.5))
row("ConvTranspose by computed weights with a bias", "m = ReduceMean <keepdims = 0> (x) w = Mul (v, m) b = Mul (c, m) y = ConvTranspose (x, w, b)", 17, v=weights(4, 3, 2, 2), c=weights(3))
row("Conv of a sequence by computed weights", "m = ReduceMean (x) w = Mul (v, m) y = Conv <pads = [1, 0]> (x, w)", 17, (1, 4, 6), v=weights(3, 4, 2))
row("Conv of several images by computed weights", "m = ReduceMean (x) w = Mul (v, m) y = Conv <pads = [1, 0, 0, 1]> (x, w)", 17, (2, 3, 4, 4), v=weights(3, 3, 2, 2))
row("Conv of a stored image by computed weights", "w = Reshape (x, s) y = Conv (v, w)", 17, v=weights(1, 4, 3, 3), s=np.int64([4, 4, 2, 2]))
row("Conv with a computed bias", "m = ReduceMean <keepdims = 0> (x) b = Mul (c, m) y = Conv (x, w, b)", 17, w=weights(3, 4, 2, 2), c=weights(3))

# Volumes.
VOLUME = (1, 2, 4, 3, 4)
for name, weight, attributes in (("", (3, 2, 2, 2, 2), ""), (", padded", (3, 2, 3, 3, 3), "pads = [1, 1, 1, 1, 1, 1]"), (", strided", (3, 2, 3, 2, 2), "strides = [2, 1, 2], pads = [1, 0, 0, 1, 1, 0]"),
                                 (", dilated", (2, 2, 2, 2, 2), "dilations = [2, 1, 2]"), (", grouped", (4, 1, 2, 1, 3), "group = 2, pads = [0, 0, 1, 1, 0, 1]"), (", of depth alone", (2, 2, 3, 1, 1), "pads = [1, 0, 0, 1, 0, 0]"),
                                 (", of images alone", (2, 2, 1, 3, 3), "pads = [0, 1, 1, 0, 1, 1]"), (", as large as its volume", (2, 2, 2, 3, 2), 'auto_pad = "SAME_LOWER", strides = [1, 2, 1]')):
    row(f"Conv of a volume{name}", f"y = Conv {with_attributes(attributes)}(x, w, b)", 17, VOLUME, w=weights(*weight), b=weights(weight[0]))
row("Conv of several volumes", "y = Conv <pads = [1, 0, 1, 0, 1, 0]> (x, w)", 17, (2, 2, 3, 3, 4), w=weights(3, 2, 2, 2, 2))
row("Conv of a volume by computed weights", "m = ReduceMean (x) w = Mul (v, m) y = Conv (x, w)", 17, VOLUME, v=weights(3, 2, 2, 2, 2))
for name, weight, attributes in (("", (2, 3, 2, 2, 2), ""), (", strided", (2, 2, 4, 2, 2), "strides = [2, 1, 2], pads = [1, 0, 0, 1, 1, 0]"), (", padded out", (2, 2, 3, 3, 3), "strides = [2, 2, 2], pads = [1, 1, 1, 1, 1, 1], output_padding = [1, 1, 1]"),
                                 (", dilated", (2, 2, 2, 2, 2), "dilations = [2, 1, 2]"), (", grouped", (2, 2, 2, 1, 2), "group = 2")):
    row(f"ConvTranspose of a volume{name}", f"y = ConvTranspose {with_attributes(attributes)}(x, w, b)", 17, VOLUME, w=weights(*weight), b=weights(weight[1] * (2 if "group" in attributes else 1)))
for op in ("MaxPool", "AveragePool"):
    for name, attributes in (("", ""), (", strided", ", strides = [2, 1, 2]"), (", padded", ", pads = [1, 0, 1, 0, 1, 1]"), (", as at the top", ', auto_pad = "SAME_UPPER"'),
                             (", rounded up", ", ceil_mode = 1, strides = [3, 2, 3]"), (", dilated", ", dilations = [2, 1, 2]")):
        row(f"{op} of a volume{name}", f"y = {op} <kernel_shape = [2, 2, 2]{attributes}> (x)", 19, VOLUME)
row("AveragePool of a volume that counts zeros", "y = AveragePool <kernel_shape = [2, 2, 2], pads = [1, 1, 0, 0, 1, 1], count_include_pad = 1> (x)", 19, VOLUME)
for op in ("GlobalAveragePool", "GlobalMaxPool"):
    row(f"{op} of a volume", f"y = {op} (x)", 17, VOLUME)
for mode in ("nearest", "linear"):
    row(f"Resize of a volume, {mode}", f'y = Resize <mode = "{mode}"> (x, , s)', 13, VOLUME, s=np.float32([1, 1, 2, 2, 1.5]))
    row(f"Resize of a volume to sizes, {mode}", f'y = Resize <mode = "{mode}", coordinate_transformation_mode = "align_corners"> (x, , , s)', 13, VOLUME, s=np.int64([1, 2, 3, 5, 4]))
row("BatchNormalization of a volume", "y = BatchNormalization (x, a, b, m, v)", 15, VOLUME, a=weights(2), b=weights(2), m=weights(2), v=np.float32([0.5, 1.5]))
row("InstanceNormalization of a volume", "y = InstanceNormalization (x, a, b)", 15, VOLUME, a=weights(2), b=weights(2))
row("GroupNormalization of a volume", "y = GroupNormalization <num_groups = 1> (x, a, b)", 21, VOLUME, a=weights(2), b=weights(2))
row("LRN", "y = LRN <size = 3, alpha = 0.5> (x)", 13)

# Types and sizes that are those of others.
row("CastLike", "i = CastLike (x, k) y = CastLike (i, x)", 15, k=np.int64(1))
row("CenterCropPad", "y = CenterCropPad (x, s)", 18, (1, 3, 4, 5), s=np.int64([1, 4, 3, 8]))
row("CenterCropPad of some dimensions", "y = CenterCropPad <axes = [-1, 2]> (x, s)", 18, (1, 3, 4, 5), s=np.int64([2, 7]))



def main():
    cases = [case(*entry) for entry in CASES]
    names = [c.name for c in cases]
    assert len(set(names)) == len(names), f"two rows of one name: {[n for n in names if names.count(n) > 1]}"
    write(sys.argv[1], cases)
    print(f"{len(cases)} rows, of which onnxruntime refuses {sum(c.result is None for c in cases)}")


if __name__ == "__main__":
    main()
