#!/usr/bin/env python3
"""Writes graphs of operators that edgegen writes out as others (crates/edgegen-onnx/src/expand), with onnxruntime's results,
for tests/random_graphs.rs.

    python3 tools/fuzz/expanded.py tests/fixtures/graphs/expanded.gz

The rows are as in directed.py. Operators that onnxruntime's CPU build does not have, or not in this form, come with nodes of
ONNX that say the same (`like`), of which the result is.
"""

import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

import directed
from directed import case, model_of, weights
from graphs import Case, evaluate, write

CASES = []
MS = [("com.microsoft", 1)]


def row(name, nodes, opset=17, shape=(1, 4, 4, 4), like=None, tolerance=0.0, change=None, time=np.float32(999), domains=MS, **stored):
    CASES.append((name, nodes, opset, shape, like, tolerance, change, time, domains, stored))


def made(name, nodes, opset, shape, like, tolerance, change, time, domains, stored):
    if like is None:
        result = case(name, nodes, opset, shape, time, "", domains, change, stored)
        result.tolerance = max(result.tolerance, tolerance)
        return result
    model = model_of(nodes, opset, shape, time, "", domains, change, stored)
    read = {name for node in model.graph.node for name in node.input}
    expected = case(name, like, opset, shape, time, "", (), None, stored)
    assert expected.result is not None, name
    for tensor in [t for t in model.graph.initializer if t.name not in read]:
        model.graph.initializer.remove(tensor)
    return Case(name, model.SerializeToString(), expected.x, expected.t, expected.result, max(expected.tolerance, tolerance))


# Activations with what is added before.
row("Gelu", "y = com.microsoft.Gelu (x)")
row("BiasGelu", "y = com.microsoft.BiasGelu (x, b)", b=weights(4))
row("FastGelu", "y = com.microsoft.FastGelu (x)")
row("FastGelu with a bias", "y = com.microsoft.FastGelu (x, b)", b=weights(4))
row("QuickGelu", "y = com.microsoft.QuickGelu (x)")
row("QuickGelu that is SiLU", "y = com.microsoft.QuickGelu <alpha = 1.0> (x)")
row("BiasAdd", "y = com.microsoft.BiasAdd (x, b, s)", shape=(1, 6, 4), b=weights(4), s=weights(1, 6, 4),
    like="a = Add (x, b) y = Add (a, s)")
row("BiasSplitGelu", "h = MatMul (x, w) g = com.microsoft.BiasSplitGelu (h, b) y = MatMul (g, v)", 20, (1, 6, 4), w=weights(4, 16), b=weights(16),
    v=weights(8, 4), like="h = MatMul (x, w) a = Add (h, b) l, r = Split <axis = 2, num_outputs = 2> (a) e = Gelu (r) g = Mul (l, e) y = MatMul (g, v)")
row("an operator with an attribute that it does not have", "y = com.microsoft.Gelu <axis = 1> (x)")
row("an operator that is not known", "y = com.microsoft.Inverse (x)", like=None, change=lambda m: m.graph.node[0].attribute.append(
    helper.make_attribute("none", 1)))

# Products.
for a in (0, 1):
    for b in (0, 1):
        row(f"FusedMatMul of values, transA {a}, transB {b}", f"h = Tanh (x) y = com.microsoft.FusedMatMul <transA = {a}, transB = {b}, alpha = 0.5> (x, h)",
            shape=(1, 2, 4, 4))
        row(f"FusedMatMul by a stored matrix, transA {a}, transB {b}", f"y = com.microsoft.FusedMatMul <transA = {a}, transB = {b}> (x, w)",
            shape=(2, 4, 4), w=weights(4, 4))
row("FusedMatMul whose batch lies inside", "y = com.microsoft.FusedMatMul <transBatchA = 1, transB = 1, alpha = 0.25> (x, w)", shape=(3, 2, 4),
    w=weights(2, 5, 4))
row("FusedMatMul whose batches lie inside", "y = com.microsoft.FusedMatMul <transBatchA = 1, transBatchB = 1, transB = 1> (x, w)", shape=(3, 2, 4),
    w=weights(5, 2, 4))
row("TransposeMatMul", "y = com.microsoft.TransposeMatMul <transA = 1, alpha = 2.0> (x, w)", shape=(2, 4, 4), w=weights(4, 4))
for activation, numbers in (("Relu", ""), ("Tanh", ""), ("LeakyRelu", ", activation_alpha = 0.2"), ("Sigmoid", "")):
    row(f"FusedGemm with {activation}", f'y = com.microsoft.FusedGemm <activation = "{activation}"{numbers}, transB = 1> (x, w, b)', shape=(3, 4),
        w=weights(5, 4), b=weights(5))
row("FusedGemm with an activation that is not known", 'y = com.microsoft.FusedGemm <activation = "Sine"> (x, w)', shape=(3, 4), w=weights(4, 5))

# Normalization.
for name, inputs in (("", "x, s, g"), (" with a shift", "x, s, g, b"), (" with a bias", "x, s, g, b, c"), (" with a bias alone", "x, s, g, , c")):
    stored = dict(s=weights(1, 6, 4), g=weights(4), b=weights(4), c=weights(4))
    row(f"SkipLayerNormalization{name}", f"y = com.microsoft.SkipLayerNormalization <epsilon = 0.01> ({inputs})", shape=(1, 6, 4), **stored)
    row(f"SkipLayerNormalization{name}, and its sum", f"n, , , s2 = com.microsoft.SkipLayerNormalization ({inputs}) y = Mul (n, s2)", shape=(1, 6, 4),
        **stored)
row("SkipLayerNormalization and its mean", "n, m = com.microsoft.SkipLayerNormalization (x, s, g) y = Add (n, m)", shape=(1, 6, 4),
    s=weights(1, 6, 4), g=weights(4))
row("SkipSimplifiedLayerNormalization", "n, , , s2 = com.microsoft.SkipSimplifiedLayerNormalization <epsilon = 0.01> (x, s, g, c) y = Mul (n, s2)",
    shape=(1, 6, 4), s=weights(1, 6, 4), g=weights(4), c=weights(4))
row("SimplifiedLayerNormalization", "y = SimplifiedLayerNormalization <epsilon = 0.01, axis = -1> (x, g)", shape=(1, 6, 4), g=weights(4))
row("LayerNormalization before ONNX had it", "y = LayerNormalization <epsilon = 0.01> (x, g, b)", 13, (1, 6, 4), g=weights(4), b=weights(4))
NORM = """r = Reshape (x, c) n = InstanceNormalization <epsilon = 0.01> (r, o, z) i = Reshape (n, h) m = Mul (i, g1) a = Add (m, b1)"""
NORM_STORED = dict(c=np.int64([1, 2, -1]), o=np.float32([1, 1]), z=np.float32([0, 0]), h=np.int64([1, 4, 4, 4]))
G, B = weights(4), weights(4)
AFFINE = dict(g=G, b=B, g1=G.reshape(4, 1, 1), b1=B.reshape(4, 1, 1))
row("GroupNorm of channels that come first", "y = com.microsoft.GroupNorm <groups = 2, activation = 0, channels_last = 0, epsilon = 0.01> (x, g, b)",
    like=f"{NORM} y = Identity (a)", **NORM_STORED, **AFFINE)
row("GroupNorm with SiLU of channels that come last", """last = Transpose <perm = [0, 2, 3, 1]> (x)
    k = com.microsoft.GroupNorm <groups = 2, activation = 1, epsilon = 0.01> (last, g, b) y = Transpose <perm = [0, 3, 1, 2]> (k)""",
    like=f"{NORM} s = Sigmoid (a) y = Mul (a, s)", **NORM_STORED, **AFFINE)
for name, skip, shape in (("image", "Transpose <perm = [0, 2, 3, 1]> (e)", (1, 4, 4, 4)), ("number a channel", "Reshape (e, f)", (1, 4))):
    E_, F_ = weights(*shape), np.int64([1, 4])
    row(f"SkipGroupNorm with an {name}", f"""last = Transpose <perm = [0, 2, 3, 1]> (x) e = Neg (w) s0 = {skip}
        k, s1 = com.microsoft.SkipGroupNorm <groups = 2, activation = 1, epsilon = 0.01> (last, g, b, s0, c0) l = Mul (k, s1)
        y = Transpose <perm = [0, 3, 1, 2]> (l)""",
        like=f"""e = Neg (w) e1 = Reshape (e, f1) x0 = Add (x, e1) x1 = Add (x0, c1) {NORM.replace("Reshape (x,", "Reshape (x1,")}
        s = Sigmoid (a) m1 = Mul (a, s) y = Mul (m1, x1)""",
        w=E_, f=F_, f1=np.int64([*shape, *[1] * (4 - len(shape))]), c0=G, c1=G.reshape(4, 1, 1), **NORM_STORED, **AFFINE)

# Convolutions.
W = weights(4, 4, 3, 3)
row("NhwcConv", """last = Transpose <perm = [0, 2, 3, 1]> (x) c = com.microsoft.NhwcConv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (last, w, b)
    y = Transpose <perm = [0, 3, 1, 2]> (c)""", like="y = Conv <pads = [1, 1, 1, 1]> (x, w1, b)", w=W.transpose(0, 2, 3, 1), w1=W,
    b=weights(4))
for activation, numbers in (("", ""), ("Relu", ""), ("LeakyRelu", ", activation_params = [0.2]"), ("Clip", ", activation_params = [-0.25, 0.5]"),
                            ("HardSigmoid", ", activation_params = [0.2, 0.5]")):
    text = f', activation = "{activation}"{numbers}' if activation else ""
    row(f"FusedConv {activation}", f"y = com.microsoft.FusedConv <pads = [1, 1, 1, 1]{text}> (x, w, b)", w=W, b=weights(4))
row("FusedConv with a sum", 'y = com.microsoft.FusedConv <pads = [1, 1, 1, 1], activation = "Relu"> (x, w, b, z)', w=weights(4, 4, 3, 3), b=weights(4),
    z=weights(1, 4, 4, 4))

# Attention.
for rank, shape in ((4, (1, 2, 6, 4)), (3, (1, 6, 8))):
    heads = "q_num_heads = 2, kv_num_heads = 2" if rank == 3 else ""
    for name, attributes, inputs, opset in (
        ("", "", "x, k, v", 23), (" with a scale", "scale = 0.25", "x, k, v", 23), (" that is causal", "is_causal = 1", "x, k, v", 23),
        (" with a softcap", "softcap = 2.0", "x, k, v", 23), (" with a softcap and a mask", "softcap = 2.0", "x, k, v, m", 24),
        (" with a mask of numbers", "", "x, k, v, m", 23),
        (" with a mask of truths", "", "x, k, v, seen", 23), (" with both", "is_causal = 1", "x, k, v, m", 24), (" of opset 24", "", "x, k, v, m", 24),
    ):
        joined = ", ".join(a for a in (heads, attributes) if a)
        row(f"Attention of {rank} dimensions{name}", f"k = Tanh (x) v = Sin (x) y = Attention <{joined}> ({inputs})" if joined else
            f"k = Tanh (x) v = Sin (x) y = Attention ({inputs})", opset, shape, m=weights(6, 6), seen=np.tril(np.ones((6, 6), bool)))
row("Attention whose heads share keys", "k = Slice (x, b, e, a) v = Tanh (k) y = Attention (x, k, v)", 23, (1, 4, 6, 4), b=np.int64([0]), e=np.int64([2]),
    a=np.int64([1]))
row("Attention of rows whose heads share keys", "k = MatMul (x, w) v = Tanh (k) y = Attention <q_num_heads = 4, kv_num_heads = 2> (x, k, v)", 23, (1, 6, 16),
    w=weights(16, 8))
row("Attention to fewer keys with a mask a head", "y = Attention (x, k, v, m)", 23, (1, 2, 6, 4), k=weights(1, 2, 3, 4), v=weights(1, 2, 3, 5), m=weights(1, 2, 6, 3))
row("Attention with what is kept", "k = Tanh (x) y, p, q = Attention <is_causal = 1> (x, k, x, , o, l)", 23, (1, 2, 6, 4), o=weights(1, 2, 3, 4),
    l=weights(1, 2, 3, 4))
row("Attention whose mask is computed", "k = Tanh (x) s = Slice (x, b, e, a) m = MatMul (s, w) y = Attention (x, k, x, m)", 23, (1, 2, 6, 4), b=np.int64([0]),
    e=np.int64([1]), a=np.int64([1]), w=weights(4, 6))
row("MultiHeadAttention", "k = Tanh (x) v = Sin (x) y = com.microsoft.MultiHeadAttention <num_heads = 2> (x, k, v)", shape=(1, 6, 8))
row("MultiHeadAttention with a bias", "k = Tanh (x) v = Sin (x) y = com.microsoft.MultiHeadAttention <num_heads = 2, scale = 0.3> (x, k, v, b)", shape=(1, 6, 8),
    b=weights(24))
row("MultiHeadAttention that is causal", "k = Tanh (x) y = com.microsoft.MultiHeadAttention <num_heads = 2, unidirectional = 1> (x, k, x)", shape=(1, 6, 8))
row("MultiHeadAttention with keys left out", "k = Tanh (x) y = com.microsoft.MultiHeadAttention <num_heads = 2> (x, k, x, , m)", shape=(1, 6, 8),
    m=np.int32([[1, 1, 1, 1, 0, 0]]))
row("MultiHeadAttention with numbers added", "k = Tanh (x) y = com.microsoft.MultiHeadAttention <num_heads = 2> (x, k, x, , , m)", shape=(1, 6, 8),
    m=weights(1, 2, 6, 6))
row("MultiHeadAttention to fewer keys", "k = MatMul (e, w) v = Tanh (k) y = com.microsoft.MultiHeadAttention <num_heads = 2> (x, k, v)", shape=(1, 6, 8),
    e=weights(1, 3, 5), w=weights(5, 8))
row("MultiHeadAttention with keys by heads", "y = com.microsoft.MultiHeadAttention <num_heads = 2> (x, k, v)", shape=(1, 6, 8), k=weights(1, 2, 3, 4),
    v=weights(1, 2, 3, 4))
APART = "a = Reshape (p, h) q, k, v = Split <axis = 3, num_outputs = 3> (a) q1 = Squeeze (q, n) k1 = Squeeze (k, n) v1 = Squeeze (v, n)"
row("MultiHeadAttention of what is packed", "p = MatMul (x, w) a = Reshape (p, h) y = com.microsoft.MultiHeadAttention <num_heads = 2> (a)", 18, (1, 6, 8),
    w=weights(8, 24), h=np.int64([1, 6, 2, 3, 4]), n=np.int64([3]), s=np.float32(0.5), r=np.int64([0, 0, -1]),
    like=f"""p = MatMul (x, w) {APART} q2 = Transpose <perm = [0, 2, 1, 3]> (q1) k2 = Transpose <perm = [0, 2, 3, 1]> (k1)
        v2 = Transpose <perm = [0, 2, 1, 3]> (v1) m = MatMul (q2, k2) c = Mul (m, s) f = Softmax <axis = 3> (c) o = MatMul (f, v2)
        t1 = Transpose <perm = [0, 2, 1, 3]> (o) y = Reshape (t1, r)""")
row("onnxruntime's Attention", "y = com.microsoft.Attention <num_heads = 2> (x, w, b)", shape=(1, 6, 8), w=weights(8, 24), b=weights(24))
row("onnxruntime's Attention with a mask, causal", "y = com.microsoft.Attention <num_heads = 2, unidirectional = 1, scale = 0.3> (x, w, b, m)", shape=(1, 6, 8),
    w=weights(8, 24), b=weights(24), m=np.int32([[1, 1, 1, 1, 1, 0]]))
row("onnxruntime's Attention with numbers added", "y = com.microsoft.Attention <num_heads = 2> (x, w, b, , , m)", shape=(1, 6, 8), w=weights(8, 24), b=weights(24),
    m=weights(1, 2, 6, 6))
row("onnxruntime's Attention with heads of other values", "y = com.microsoft.Attention <num_heads = 2, qkv_hidden_sizes = [8, 8, 4]> (x, w, b)", shape=(1, 6, 8),
    w=weights(8, 20), b=weights(20))
row("onnxruntime's Attention with lengths of its keys", "y = com.microsoft.Attention <num_heads = 2> (x, w, b, m)", shape=(1, 6, 8), w=weights(8, 24),
    b=weights(24), m=np.int32([4]), change=lambda m: None, like=None)

# Rotary embedding.
for inter in (0, 1):
    for turned in (0, 4):
        half = (turned or 8) // 2
        for rank, shape, heads in ((4, (1, 2, 6, 8), ""), (3, (1, 6, 16), ", num_heads = 2")):
            text = f"interleaved = {inter}, rotary_embedding_dim = {turned}{heads}"
            row(f"RotaryEmbedding of {rank} dimensions, {text}", f"y = RotaryEmbedding <{text}> (x, c, s)", 23, shape, c=weights(1, 6, half), s=weights(1, 6, half))
            row(f"RotaryEmbedding of {rank} dimensions at positions, {text}", f"y = RotaryEmbedding <{text}> (x, c, s, p)", 23, shape, c=weights(9, half),
                s=weights(9, half), p=np.int64([[3, 1, 4, 0, 8, 2]]))
    row(f"onnxruntime's RotaryEmbedding, interleaved {inter}", f"y = com.microsoft.RotaryEmbedding <interleaved = {inter}> (x, p, c, s)", shape=(1, 6, 16),
        c=weights(9, 4), s=weights(9, 4), p=np.int64([[3, 1, 4, 0, 8, 2]]))
    row(f"onnxruntime's RotaryEmbedding from a position on, interleaved {inter}", f"y = com.microsoft.RotaryEmbedding <interleaved = {inter}> (x, p, c, s)",
        shape=(1, 2, 6, 8), c=weights(9, 4), s=weights(9, 4), p=np.int64([2]))
row("onnxruntime's RotaryEmbedding of a part", "y = com.microsoft.RotaryEmbedding <rotary_embedding_dim = 4, num_heads = 2> (x, p, c, s)", shape=(1, 6, 16),
    c=weights(9, 2), s=weights(9, 2), p=np.int64([[3, 1, 4, 0, 8, 2]]))

# Weights of a few bits.
BYTES = np.random.default_rng(11)


def few(*shape):
    return BYTES.integers(0, 256, shape, dtype=np.uint8)


for bits in (2, 4, 8):
    for block, k in ((16, 32), (32, 40)):
        n, blocks = 5, -(-k // block)
        text = f"K = {k}, N = {n}, bits = {bits}, block_size = {block}"
        stored = dict(w=few(n, blocks, block * bits // 8), s=weights(n, blocks), z=few(n, -(-blocks * bits // 8)), b=weights(n))
        for name, inputs in (("", "x, w, s"), (" with zero points", "x, w, s, z"), (" with a bias", "x, w, s, z, , b")):
            row(f"MatMulNBits, {text}{name}", f"y = com.microsoft.MatMulNBits <{text}> ({inputs})", shape=(3, k), **stored)
row("MatMulNBits with zero points that are floats", "y = com.microsoft.MatMulNBits <K = 32, N = 5, bits = 4, block_size = 16> (x, w, s, z)", shape=(3, 32),
    w=few(5, 2, 8), s=weights(5, 2), z=weights(5, 2))
row("GatherBlockQuantized of bytes", "i = Cast <to = 7> (t) r = com.microsoft.GatherBlockQuantized <bits = 4, block_size = 16> (w, i, s, z) y = Add (x, r)",
    shape=(1, 32), time=np.float32(3), w=few(7, 16), s=weights(7, 2), z=few(7, 1))


def packed(dims, kind, signed=False, bits=4):
    """Stores a tensor of fewer bits than a byte."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    values = BYTES.integers(low, high, int(np.prod(dims)))
    return lambda name: helper.make_tensor(name, kind, dims, values)


def storing(**tensors):
    return lambda m: m.graph.initializer.extend(make(name) for name, make in tensors.items())


T = onnx.TensorProto
for name, kind, signed, bits, opset in (("INT4", T.INT4, True, 4, 21), ("UINT4", T.UINT4, False, 4, 21)):
    row(f"DequantizeLinear of {name}", "w = DequantizeLinear (q, s) y = MatMul (x, w)", opset, (3, 6), s=np.float32(0.1),
        change=storing(q=packed([6, 5], kind, signed, bits)))
    row(f"DequantizeLinear of {name} a column", "w = DequantizeLinear <axis = 1> (q, s, z) y = MatMul (x, w)", opset, (3, 6), s=weights(5),
        change=storing(q=packed([6, 5], kind, signed, bits), z=packed([5], kind, signed, bits)))
    row(f"DequantizeLinear of {name} in blocks", "w = DequantizeLinear <axis = 0, block_size = 2> (q, s, z) y = MatMul (x, w)", opset, (3, 6), s=weights(3, 5),
        change=storing(q=packed([6, 5], kind, signed, bits), z=packed([3, 5], kind, signed, bits)))
row("DequantizeLinear of INT8 in blocks", "w = DequantizeLinear <axis = 0, block_size = 3> (q, s) y = MatMul (x, w)", 21, (3, 6), s=weights(2, 5),
    q=few(6, 5).view(np.int8))
row("DequantizeLinear of INT16", "w = DequantizeLinear <axis = 1> (q, s, z) y = MatMul (x, w)", 21, (3, 6), s=weights(5) / 1000, q=(weights(6, 5) * 9999).astype(np.int16),
    z=np.int16([1, 2, 3, 4, -5]))
for name, kind, zero in (("UINT16", np.uint16, 30000), ("INT16", np.int16, -7)):
    row(f"a value rounded to {name}", "q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)", 21, s=np.float32(0.0001), z=kind(zero))
    row(f"a value rounded to {name} by onnxruntime", "q = com.microsoft.QuantizeLinear (x, s, z) y = com.microsoft.DequantizeLinear (q, s, z)", 17,
        s=np.float32(0.0001), z=kind(zero))

# Products of what is rounded by its range.
for kind, zero in ((np.uint8, 120), (np.int8, 0), (np.int8, 3)):
    w = few(8, 5).view(kind) if kind == np.int8 else few(8, 5)
    for name, scale, point in (("", np.float32(0.02), kind(zero)), (" a column", np.abs(weights(5)) + np.float32(0.01), np.full(5, zero, kind))):
        row(f"MatMulInteger by {kind.__name__} around {zero}{name}", """q, s, z = DynamicQuantizeLinear (x) i = MatMulInteger (q, w, z, p) f = Cast <to = 1> (i)
            k = Mul (s, c) m = Mul (f, k) y = Add (m, b)""", shape=(1, 6, 8), w=w, p=point, c=scale, b=weights(5))
        row(f"DynamicQuantizeMatMul by {kind.__name__} around {zero}{name}", "y = com.microsoft.DynamicQuantizeMatMul (x, w, c, p, b)", shape=(1, 6, 8), w=w, p=point,
            c=scale, b=weights(5))
row("two products of what is rounded once", """q, s, z = DynamicQuantizeLinear (x) i = MatMulInteger (q, w, z) f = Cast <to = 1> (i) k = Mul (s, c) m = Mul (f, k)
    j = MatMulInteger (q, v, z) g = Cast <to = 1> (j) l = Mul (s, d) n = Mul (g, l) y = Sub (m, n)""", shape=(1, 6, 8), w=few(8, 5).view(np.int8),
    v=few(8, 5).view(np.int8), c=np.float32(0.02), d=np.float32(0.03))
row("ConvInteger", """q, s, z = DynamicQuantizeLinear (x) i = ConvInteger <pads = [1, 1, 1, 1]> (q, w, z, p) f = Cast <to = 1> (i) k = Mul (s, c) m = Mul (f, k)
    y = Add (m, b)""", w=few(6, 4, 3, 3), p=np.uint8(120), c=np.float32(0.02), b=weights(1, 6, 1, 1))

# Control flow.
THEN = "then_branch = a () => (float[N] p) { p = Tanh (x) }, else_branch = b () => (float[M] q) { q = Neg (x) }"
for value in (True, False):
    row(f"If of {value}", f"y = If <{THEN}> (c)", c=np.bool_(value))
row("If by a shape", f"s = Shape (x) d = Gather (s, i) c = Equal (d, k) y = If <{THEN}> (c)", i=np.int64(1), k=np.int64(4))
row("If by a value", f"r = ReduceSum <keepdims = 0> (x) c = Greater (r, k) y = If <{THEN}> (c)", k=np.float32(0))
row("If whose other branch is unknown", "y = If <then_branch = a () => (float[N] p) { p = Tanh (x) }, else_branch = b () => (float[M] q) { q = Tanh (x) }> (c)",
    c=np.bool_(True), change=lambda m: setattr(m.graph.node[0].attribute[1].g.node[0], "op_type", "Unheard"), like="y = Tanh (x)")
row("If in an If", f"y = If <then_branch = o () => (float[N] r) {{ u = Sin (x) r = If <{THEN.replace('(x)', '(u)')}> (d) }}, else_branch = e () => (float[M] w) {{ w = Neg (x) }}> (c)",
    c=np.bool_(True), d=np.bool_(False))
BODY = "body = l (int64 i, bool g, float[N] a) => (bool h, float[N] b, float[N] o) { h = Identity (g) b = Tanh (a) o = Mul (a, a) }"
row("Loop", f"u, v = Loop <{BODY}> (n, c, x) r = ReduceSum <keepdims = 0> (v, k) y = Add (u, r)", n=np.int64(3), c=np.bool_(True), k=np.int64([0]))
row("Loop until a condition", """u = Loop <body = l (int64 i, bool g, float[N] a) => (bool h, float[N] b) { h = Less (i, m) f = Cast <to = 1> (i) b = Add (a, f) }> (n, , x)
    y = Tanh (u)""", n=np.int64(100), m=np.int64(4))
row("Loop of no turn", f"u, v = Loop <{BODY}> (n, c, x) y = Sin (u)", n=np.int64(0), c=np.bool_(True))
row("Loop whose turns are computed", "r = ReduceSum <keepdims = 0> (x) n = Cast <to = 7> (r) y = Loop <body = l (int64 i, bool g, float[N] a) => (bool h, float[N] b) "
    "{ h = Identity (g) b = Tanh (a) }> (n, , x)")
for direction in (0, 1):
    row(f"Scan in direction {direction}", f"""u, v = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1], scan_input_directions = [{direction}],
        scan_output_directions = [{direction}], body = b (float[1, 4, 4] s, float[1, 4, 4] e) => (float[1, 4, 4] n, float[1, 4, 4] o) {{ n = Add (s, e) o = Identity (n) }}> (z, x)
        w = Unsqueeze (u, k) y = Add (v, w)""", z=weights(1, 4, 4), k=np.int64([1]))
row("a sequence that is put together", "h = Tanh (x) s = SequenceConstruct (x, h, x) y = ConcatFromSequence <axis = 1> (s)")
row("a sequence that becomes a dimension", "h = Tanh (x) s = SequenceConstruct (x, h) y = ConcatFromSequence <axis = -1, new_axis = 1> (s)")
row("a tensor in parts", "s = SplitToSequence <axis = 1> (x, n) a = SequenceAt (s, i) b = SequenceAt (s, j) y = Sub (a, b)", n=np.int64(2), i=np.int64(0), j=np.int64(-1))
row("a tensor in parts of one", "s = SplitToSequence <axis = 2, keepdims = 0> (x) a = SequenceAt (s, i) y = Tanh (a)", i=np.int64(1))
row("a tensor in parts of several lengths", "s = SplitToSequence <axis = 3> (x, n) a = SequenceAt (s, i) y = Tanh (a)", n=np.int64([1, 3]), i=np.int64(1))
row("a sequence that grows", "e = SequenceEmpty () a = SequenceInsert (e, x) h = Tanh (x) b = SequenceInsert (a, h, i) c = SequenceInsert (b, h) d = SequenceErase (c, j) "
    "n = SequenceLength (d) f = Cast <to = 1> (n) u = ConcatFromSequence <axis = 0> (d) y = Mul (u, f)", i=np.int64(0), j=np.int64(-1))
row("an operator that nothing reads", "n = NonZero (x) y = Tanh (x)")

# Recurrent layers and Fourier transforms.
for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
    for direction in ("forward", "reverse", "bidirectional"):
        n = 2 if direction == "bidirectional" else 1
        stored = dict(w=weights(n, gates * 3, 4), r=weights(n, gates * 3, 3), b=weights(n, gates * 6))
        start = ", , h" + (", c" if op == "LSTM" else "")
        states = dict(h=weights(n, 2, 3), c=weights(n, 2, 3))
        text = f'hidden_size = 3, direction = "{direction}"'
        row(f"{op}, {direction}", f"y = {op} <{text}> (x, w, r, b)", 14, (5, 2, 4), **stored)
        row(f"{op}, {direction}, from a state", f"y = {op} <{text}> (x, w, r, b{start})", 14, (5, 2, 4), **stored, **states)
        row(f"{op}, {direction}, its last state", f"u, y = {op} <{text}> (x, w, r)", 14, (5, 2, 4), **stored)
row("GRU that multiplies before it resets", "y = GRU <hidden_size = 3, linear_before_reset = 1> (x, w, r, b)", 14, (5, 2, 4), w=weights(1, 9, 4), r=weights(1, 9, 3),
    b=weights(1, 18))
row("LSTM and its last cell", "u, v, z = LSTM <hidden_size = 3> (x, w, r, b) y = Add (v, z)", 14, (5, 2, 4), w=weights(1, 12, 4), r=weights(1, 12, 3), b=weights(1, 24))
row("LSTM with other activations", 'y = LSTM <hidden_size = 3, activations = ["Relu", "Tanh", "Tanh"]> (x, w, r)', 14, (5, 2, 4), w=weights(1, 12, 4), r=weights(1, 12, 3))
row("RNN with Relu", 'y = RNN <hidden_size = 3, direction = "bidirectional", activations = ["Relu", "Tanh"]> (x, w, r, b)', 14, (5, 2, 4), w=weights(2, 3, 4), r=weights(2, 3, 3), b=weights(2, 6))
row("GRU with other activations", 'y = GRU <hidden_size = 3, activations = ["Softsign", "Relu"]> (x, w, r, b)', 14, (5, 2, 4), w=weights(1, 9, 4), r=weights(1, 9, 3), b=weights(1, 18))
row("RNN with an activation of parameters", 'y = RNN <hidden_size = 3, activations = ["LeakyRelu"], activation_alpha = [0.5]> (x, w, r)', 14, (5, 2, 4), w=weights(1, 3, 4), r=weights(1, 3, 3))
row("DFT of real numbers", "y = DFT <axis = 1> (x)", 17, (1, 6, 3, 1))
row("DFT of real numbers, one half", "y = DFT <axis = 2, onesided = 1> (x)", 17, (1, 3, 7, 1))
row("DFT of complex numbers", "y = DFT <axis = 1> (x)", 17, (1, 6, 3, 2))
row("DFT of opset 20", "y = DFT <onesided = 1> (x, , a)", 20, (1, 6, 3, 1), a=np.int64(-3))
row("DFT of another length", "y = DFT <axis = 1> (x, n)", 17, (1, 6, 3, 1), n=np.int64(4))
row("DFT of a longer one", "y = DFT <axis = 1> (x, n)", 17, (1, 6, 3, 2), n=np.int64(8))
row("DFT backward", "y = DFT <axis = 1, inverse = 1> (x)", 17, (1, 6, 3, 2))

# Stored indices.
row("Gather of several", "y = Gather <axis = 1> (x, i)", i=np.int64([3, 0, 3, -2]))
row("Gather by a matrix", "y = Gather <axis = 2> (x, i)", i=np.int64([[1, 0], [-1, 2]]))
row("GatherND", "y = GatherND (x, i)", i=np.int64([[[0, 1], [0, -1]], [[0, 3], [0, 0]]]))
row("GatherND within a batch", "y = GatherND <batch_dims = 1> (x, i)", shape=(2, 3, 4), i=np.int64([[[1], [2]], [[0], [-1]]]))
row("GatherND within two dimensions", "y = GatherND <batch_dims = 2> (x, i)", shape=(2, 3, 4), i=np.int64([[[1], [2], [0]], [[0], [-1], [3]]]))
row("GatherElements by stored indices", "y = GatherElements <axis = 1> (x, i)", 13, (2, 3), i=np.int64([[1, 0, -1, 2], [0, 2, 1, 1]]))
row("GatherElements of fewer", "y = GatherElements <axis = 0> (x, i)", 13, (4, 3), i=np.int64([[1, 0], [3, -1]]))
row("ScatterElements by stored indices", "h = Tanh (x) u = Slice (h, b, e, a) y = ScatterElements <axis = 1> (x, i, u)", 16, (2, 4),
    i=np.int64([[1, -1], [0, 2]]), b=np.int64([2]), e=np.int64([4]), a=np.int64([1]))
row("ScatterElements that adds", 'y = ScatterElements <axis = 1, reduction = "add"> (x, i, v)', 16, (2, 4), i=np.int64([[1, 1], [0, 2]]), v=weights(2, 2))
row("ScatterND by stored indices", "h = Tanh (x) u = Gather (h, k) y = ScatterND (x, i, u)", 16, (4, 3, 2), i=np.int64([[2], [-4]]), k=np.int64([1, 3]))
row("ScatterND of numbers", "y = ScatterND (x, i, v)", 16, (4, 3), i=np.int64([[2, 1], [0, -1]]), v=weights(2))
row("OneHot of a label", "i = Cast <to = 7> (t) y = OneHot (i, d, v)", 11, (1, 6), time=np.float32(4), d=np.int64(6), v=np.float32([0.5, 2]))
row("OneHot along the first dimension", "i = Cast <to = 7> (t) y = OneHot <axis = 0> (i, d, v)", 11, (6, 1), time=np.float32(2), d=np.int64([6]), v=np.float32([-1, 1]))
row("OneHot of a label from the end", "i = Cast <to = 7> (t) j = Sub (i, k) y = OneHot (j, d, v)", 11, (1, 6), time=np.float32(1), d=np.int64(6), v=np.float32([0, 1]),
    k=np.int64(3))
row("OneHot of stored labels", "o = OneHot (i, d, v) y = MatMul (o, x)", 11, (4, 3), i=np.int64([1, -1, 0]), d=np.int64(4), v=np.float32([0, 1]))
for upper in (0, 1):
    for k in (-1, 0, 2):
        row(f"Trilu, upper {upper}, at {k}", f"y = Trilu <upper = {upper}> (x, k)", 14, (1, 2, 3, 5), k=np.int64(k))
row("Trilu of a stored mask", "m = Trilu <upper = 0> (o) y = Mul (x, m)", 14, o=np.ones((4, 4), np.float32))
for exclusive in (0, 1):
    for reverse in (0, 1):
        row(f"CumSum, exclusive {exclusive}, reverse {reverse}", f"y = CumSum <exclusive = {exclusive}, reverse = {reverse}> (x, a)", 14, (2, 3, 4), a=np.int64(1))
row("CumSum of stored ones", "c = CumSum (o, a) f = Cast <to = 1> (c) y = Mul (x, f)", 14, o=np.ones(4, np.int64), a=np.int64(0))
row("NonZero of a stored tensor", "n = NonZero (m) f = Cast <to = 1> (n) y = MatMul (f, x)", 13, (3, 4), m=np.float32([[1, 0], [2, 3]]))
row("EyeLike", "e = EyeLike <k = 1> (x) y = Add (x, e)", 9, (3, 4))
row("Tile of a stored tensor", "c = Tile (w, n) y = Mul (x, c)", 13, (4, 6), w=weights(2, 3), n=np.int64([2, 2]))
row("Size", "s = Size (x) f = Cast <to = 1> (s) y = Mul (x, f)", 13)
row("whole numbers that stay small", "i = Cast <to = 7> (t) j = Mul (i, a) k = Add (j, b) f = Cast <to = 1> (k) y = Mul (x, f)", time=np.float32(7), a=np.int64(-3),
    b=np.int64(5))
row("whole numbers that grow large", "i = Cast <to = 7> (t) j = Mul (i, a) k = Add (j, b) f = Cast <to = 1> (k) y = Mul (x, f)", time=np.float32(7),
    a=np.int64(1000003), b=np.int64(5))
row("a slice that goes backward", "y = Slice (x, b, e, a, s)", 13, b=np.int64([-1, 3]), e=np.int64([-9, 0]), a=np.int64([1, 3]), s=np.int64([-1, -2]))


def blocked(name, nodes, shape, **stored):
    """A graph as onnxruntime optimises it for this kind of CPU."""
    plain = case(name, nodes, 17, shape, np.float32(0), "", (), None, stored)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        options.optimized_model_filepath = file.name
        ort.InferenceSession(plain.model, options, providers=["CPUExecutionProvider"])
        model = onnx.load(file.name)
    domains = {node.domain for node in model.graph.node}
    assert "com.microsoft.nchwc" in domains, (name, domains)
    model.ir_version = 10
    del model.metadata_props[:]
    return Case(name, model.SerializeToString(), plain.x, plain.t, plain.result, plain.tolerance)


def in_blocks():
    w = [weights(16, 3, 3, 3), weights(32, 16, 3, 3), weights(3, 32, 1, 1), weights(32, 1, 3, 3)]
    pads = "pads = [1, 1, 1, 1]"
    yield blocked("channels in blocks", f"a = Conv <{pads}> (x, w0, b0) r = Relu (a) c = Conv <{pads}> (r, w1) y = Conv (c, w2)", (1, 3, 6, 5), w0=w[0], b0=weights(16),
                  w1=w[1], w2=w[2])
    yield blocked("channels in blocks, pooled and added", f"""a = Conv <{pads}> (x, w0) c = Conv <{pads}> (a, w1) d = MaxPool <kernel_shape = [3, 3], {pads}> (c)
        e = Conv <{pads}, group = 32> (d, w3) f = Add (e, d) g = Relu (f) y = Conv (g, w2)""", (1, 3, 6, 5), w0=w[0], w1=w[1], w2=w[2], w3=w[3])


def one_sample(found):
    """The case with its sample as one of a batch of one: several places of a batch would each get the same sample."""
    if found.x.shape[0] == 1:
        return found
    model = onnx.load_from_string(found.model)
    graph, whole = model.graph, [1, *found.x.shape]

    def rename(nodes):
        for node in nodes:
            node.input[:] = ["x_inside" if name == "x" else name for name in node.input]
            for attribute in node.attribute:
                rename(attribute.g.node)

    rename(graph.node)
    result = graph.output[0].name
    graph.initializer.extend([numpy_helper.from_array(np.array(found.x.shape, np.int64), "shape_inside"),
                              numpy_helper.from_array(np.array(whole, np.int64), "shape_whole")])
    graph.node.insert(0, helper.make_node("Reshape", ["x", "shape_inside"], ["x_inside"]))
    graph.node.append(helper.make_node("Reshape", [result, "shape_whole"], ["result_whole"]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("result_whole", onnx.TensorProto.FLOAT, whole))
    for value in graph.input:
        if value.name == "x":
            value.CopyFrom(helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, whole))
    wider = lambda a: None if a is None else a.reshape(whole)
    return Case(found.name, model.SerializeToString(), wider(found.x), found.t, wider(found.result), found.tolerance)


def main():
    directed.CASES.clear()
    cases = [one_sample(found) for found in [*(made(*entry) for entry in CASES), *in_blocks()]]
    names = [c.name for c in cases]
    assert len(set(names)) == len(names), f"two rows of one name: {[n for n in names if names.count(n) > 1]}"
    write(sys.argv[1], cases)
    print(f"{len(cases)} rows, of which onnxruntime refuses {sum(c.result is None for c in cases)}")


if __name__ == "__main__":
    main()
