#!/usr/bin/env python3
"""Makes random valid ONNX graphs and stores them with onnxruntime's results, for tests/random_graphs.rs.

    python3 tools/fuzz/random_graphs.py SEED COUNT OUT.gz

A graph is a chain of one to nine steps that may branch off earlier values. Each step is a rule below: an operator, or a
form in which exporters write one, with attributes drawn at random over all that the operator takes. Rules need not care
whether what they draw is valid, since onnxruntime evaluates each node as it is added and a refused one is taken back.
"""

import math
import os
import pickle
import random
import sys
from collections import Counter

import numpy as np
from onnx import TensorProto as T

from graphs import Builder, Rejected, fold_matrix, measure, write

OPSETS = [9, 11, 12, 13, 14, 16, 17, 18, 19, 20, 21, 21, 22, 23, 24]
SHAPES = [(1, 4, 4, 4), (1, 2, 5, 3), (1, 4, 6), (1, 3, 7), (1, 6), (1, 16, 3, 3), (1, 8, 2), (1, 1, 6, 5)]
RULES = []


def rule(weight=1):
    """Makes a function a rule: it is given a Draw and the name of a value, and returns the name of its result."""

    def register(function):
        RULES.extend([function] * weight)
        return function

    return register


class Draw:
    """A graph that grows, and the source of the random choices."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.numpy = np.random.default_rng(seed)
        shape = self.random.choice(SHAPES)
        self.time_is_integer = self.random.random() < 0.3
        time = np.array([self.random.randrange(1000)], np.int64 if self.time_is_integer else np.float32)
        self.sample = self.normal(shape)
        self.graph = Builder(self.random.choice(OPSETS), {"x": self.sample, "t": time})

    def chance(self, probability):
        return self.random.random() < probability

    def normal(self, shape, scale=1.0):
        """Random numbers of few digits, which take little room in a file."""
        return (np.round(self.numpy.standard_normal(tuple(shape)) * 16) / 16 * scale).astype(np.float32)

    def weights(self, *shape, scale=0.5):
        return self.graph.floats(self.normal(shape, scale))

    def axis(self, rank):
        """A dimension, which may be counted from the end."""
        axis = self.random.randrange(rank)
        return axis - rank if self.chance(0.3) else axis

    def broadcast_shape(self, shape):
        """A shape that broadcasts to this one."""
        dims = [d if self.chance(0.6) else 1 for d in shape]
        return dims[self.random.randrange(len(dims) + 1) :] if self.chance(0.4) else dims

    def earlier(self, test):
        """The name of an earlier float value of the graph that passes the test."""
        values = self.graph.values
        made = ["x"] + [o for node in self.graph.nodes for o in node.output if o in values]
        fit = [name for name in made if values[name].dtype == np.float32 and test(values[name].shape)]
        if not fit:
            raise Rejected("no such value")
        return self.random.choice(fit)


@rule(4)
def unary(d, v):
    plain = ["Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Erf", "Identity", "Floor", "Ceil", "Sin", "Cos", "Exp", "Softplus"]
    plain += ["Softsign", "Sign", "Reciprocal", "Sqrt", "Log", "Atan", "Sinh", "Cosh", "Selu", "Round", "HardSwish", "Mish"]
    with_alpha = {"Elu": 1, "LeakyRelu": 1, "ThresholdedRelu": 1, "Celu": 1, "HardSigmoid": 2}
    op = d.random.choice(plain + list(with_alpha))
    names = ["alpha", "beta"][: with_alpha.get(op, 0)]
    given = {name: d.random.choice([0.125, 0.5, 1.0, 1.5]) for name in names if d.chance(0.6)}
    return d.graph.apply(op, [v], **given)


@rule()
def gelu(d, v):
    return d.graph.apply("Gelu", [v], **({"approximate": d.random.choice(["none", "tanh"])} if d.chance(0.7) else {}))


@rule()
def prelu(d, v):
    return d.graph.apply("PRelu", [v, d.weights(*d.broadcast_shape(d.graph.shape(v)))])


@rule(3)
def with_constant(d, v):
    op = d.random.choice(["Add", "Sub", "Mul", "Div", "Min", "Max", "Pow"])
    constant = d.graph.floats(d.normal(d.broadcast_shape(d.graph.shape(v))) + np.float32(2))
    return d.graph.apply(op, [v, constant] if d.chance(0.5) else [constant, v])


@rule(3)
def with_earlier(d, v):
    other = d.earlier(lambda shape: shape == d.graph.values[v].shape)
    op = d.random.choice(["Add", "Sub", "Mul", "Min", "Max", "Div", "Sum", "Mean"])
    return d.graph.apply(op, [v, other] if d.chance(0.5) else [other, v])


@rule()
def with_broadcast_earlier(d, v):
    shape = d.graph.shape(v)
    other = d.earlier(lambda s: len(s) <= len(shape) and all(a in (1, b) for a, b in zip(s[::-1], shape[::-1])))
    return d.graph.apply(d.random.choice(["Add", "Sub", "Mul"]), [v, other] if d.chance(0.5) else [other, v])


@rule()
def many_operands(d, v):
    others = [d.earlier(lambda s: s == d.graph.values[v].shape) for _ in range(d.random.randrange(2))]
    return d.graph.apply(d.random.choice(["Sum", "Mean", "Max", "Min"]), [v, *others, d.weights(*d.graph.shape(v))])


@rule()
def with_time(d, v):
    g = d.graph
    time = g.apply("Cast", ["t"], to=T.FLOAT) if d.time_is_integer else "t"
    scaled = g.apply("Mul", [time, g.floats(0.001)])
    if d.chance(0.4):
        scaled = g.apply(d.random.choice(["Sin", "Cos", "Sigmoid"]), [scaled])
    return g.apply(d.random.choice(["Add", "Mul", "Sub"]), [v, scaled] if d.chance(0.5) else [scaled, v])


@rule()
def with_time_table(d, v):
    g = d.graph
    index = "t" if d.time_is_integer else g.apply("Cast", ["t"], to=T.INT64)
    channels = g.shape(v)[1]
    table = g.floats(np.outer(np.arange(1000) % 16 - 8, np.arange(1, channels + 1)).astype(np.float32) / 8)
    row = g.apply("Gather", [table, index], axis=0)
    row = g.apply("Reshape", [row, g.integers(1, channels, *[1] * (len(g.shape(v)) - 2))])
    return g.apply("Add", [v, row])


@rule()
def integer_arithmetic(d, v):
    g = d.graph
    index = "t" if d.time_is_integer else g.apply("Cast", ["t"], to=T.INT64)
    op = d.random.choice(["Add", "Sub", "Mul", "Div", "Mod", "Max", "Min"])
    number = g.integers(d.random.choice([2, 3, 7, 1000, -5]))
    made = g.apply(op, [index, number] if d.chance(0.7) else [number, index])
    return g.apply("Add", [v, g.apply("Mul", [g.apply("Cast", [made], to=T.FLOAT), g.floats(0.001)])])


@rule()
def comparison(d, v):
    g = d.graph
    op = d.random.choice(["Less", "Greater", "Equal", "LessOrEqual", "GreaterOrEqual"])
    test = g.apply(op, [v, d.weights(*d.broadcast_shape(g.shape(v)))])
    if d.chance(0.3):
        test = g.apply("Not", [test])
    if d.chance(0.5):
        return g.apply("Where", [test, v, g.floats(0.25)])
    return g.apply("Add", [v, g.apply("Cast", [test], to=T.FLOAT)])


@rule()
def where(d, v):
    g = d.graph
    test = g.constant(d.numpy.random(tuple(d.broadcast_shape(g.shape(v)))) < 0.5, np.bool_)
    other = d.weights(*d.broadcast_shape(g.shape(v)))
    return g.apply("Where", [test, v, other] if d.chance(0.5) else [test, other, v])


@rule()
def clip(d, v):
    least, greatest = d.random.choice([-0.5, -1.0, 0.0]), d.random.choice([0.5, 1.0, 6.0])
    if d.graph.opset < 11:
        bounds = {"min": least, "max": greatest}
        return d.graph.apply("Clip", [v], **{k: b for k, b in bounds.items() if d.chance(0.7)})
    inputs = [v, d.graph.floats(least) if d.chance(0.7) else "", d.graph.floats(greatest) if d.chance(0.7) else ""]
    return d.graph.apply("Clip", inputs[: d.random.choice([2, 3])])


@rule()
def power(d, v):
    g = d.graph
    return g.apply("Pow", [g.apply("Abs", [v]), g.floats(d.random.choice([2.0, 3.0, 0.5, 1.0, -1.0, 1.7]))])


@rule()
def cast(d, v):
    g = d.graph
    kind = d.random.choice([T.INT32, T.INT64, T.INT8, T.INT16, T.BOOL, T.DOUBLE])
    return g.apply("Cast", [g.apply("Cast", [g.apply("Mul", [v, g.floats(3.0)])], to=kind)], to=T.FLOAT)


@rule(4)
def convolution(d, v):
    shape = d.graph.shape(v)
    sides = len(shape) - 2
    group = d.random.choice([1, 1, 1, 1, 2, shape[1]])
    outputs = group * d.random.choice([1, 2, 4, 5, 8, 17])
    kernel = [d.random.choice([1, 2, 3])] * sides if d.chance(0.8) else [d.random.choice([1, 2, 3]) for _ in range(sides)]
    weights = d.weights(outputs, shape[1] // group, *kernel, scale=0.3)
    given = {"group": group} if group > 1 or d.chance(0.5) else {}
    if d.chance(0.7):
        given["kernel_shape"] = kernel
    if d.chance(0.15):
        given["auto_pad"] = d.random.choice(["SAME_UPPER", "SAME_LOWER", "VALID"])
    elif d.chance(0.7):
        before = [d.random.randrange(k) for k in kernel]
        given["pads"] = before + (before if d.chance(0.7) else [d.random.randrange(k) for k in kernel])
    if d.chance(0.4):
        given["strides"] = [d.random.choice([1, 2, 3])] * sides if d.chance(0.7) else [1, 2][:sides]
    if d.chance(0.2):
        given["dilations"] = [2] * sides if d.chance(0.7) else [1, 2][:sides]
    return d.graph.apply("Conv", [v, weights] + ([d.weights(outputs)] if d.chance(0.7) else []), **given)


@rule(2)
def transposed_convolution(d, v):
    shape = d.graph.shape(v)
    sides = len(shape) - 2
    group = 1 if d.chance(0.8) else 2
    each = d.random.choice([1, 2, 4])
    kernel = [d.random.choice([1, 2, 3, 4])] * sides
    given = {"group": group} if group > 1 else {}
    if d.chance(0.6):
        given["pads"] = [d.random.randrange(kernel[0])] * (2 * sides)
    elif d.chance(0.3):
        given["auto_pad"] = d.random.choice(["SAME_UPPER", "SAME_LOWER", "VALID"])
    if d.chance(0.7):
        given["strides"] = [d.random.choice([1, 2, 3])] * sides
    if d.chance(0.3):
        given["output_padding"] = [1] * sides
    if d.chance(0.15):
        given["dilations"] = [2] * sides
    inputs = [v, d.weights(shape[1], each, *kernel, scale=0.3)]
    return d.graph.apply("ConvTranspose", inputs + ([d.weights(each * group)] if d.chance(0.5) else []), **given)


@rule(2)
def gemm(d, v):
    g = d.graph
    shape = g.shape(v)
    rows, inner, columns = math.prod(shape[:-1]), shape[-1], d.random.choice([1, 3, shape[-1], 16, 19])
    given = {}
    if d.chance(0.3):
        matrix = g.apply("Reshape", [v, g.integers(inner, rows)])
        given["transA"] = 1
    else:
        matrix = g.apply("Reshape", [v, g.integers(rows, inner)])
    if d.chance(0.5):
        given["transB"] = 1
    if d.chance(0.2):
        given["alpha"] = d.random.choice([0.5, 1.0, 2.0])
    if d.chance(0.2):
        given["beta"] = d.random.choice([0.0, 0.5, 1.0])
    weights = d.weights(columns, inner) if "transB" in given else d.weights(inner, columns)
    bias = d.random.choice([None, [columns], [1, columns], [1], [], [rows, 1], [rows, columns]])
    return g.apply("Gemm", [matrix, weights] + ([d.weights(*bias)] if bias is not None else []), **given)


@rule(3)
def linear(d, v):
    g = d.graph
    columns = d.random.choice([1, 2, g.shape(v)[-1], 16, 19])
    made = g.apply("MatMul", [v, d.weights(g.shape(v)[-1], columns)])
    if d.chance(0.6):
        rank = len(g.shape(made))
        bias = d.weights(*d.random.choice([[columns], [1], [1, columns], [1] * (rank - 1) + [columns], [1] * rank]))
        made = g.apply("Add", [made, bias] if d.chance(0.5) else [bias, made])
    return made


@rule()
def product_with_constant_first(d, v):
    rows = d.random.choice([1, 3, 8])
    return d.graph.apply("MatMul", [d.weights(rows, d.graph.shape(v)[-2]), v])


@rule(3)
def attention(d, v):
    g = d.graph
    rank = len(g.shape(v))
    turn = list(range(rank))
    turn[-2:] = turn[:-3:-1]
    keys = g.apply("Transpose", [d.earlier(lambda s: s == g.values[v].shape)], perm=turn)
    scores = g.apply("MatMul", [v, keys])
    for _ in range(d.random.choice([0, 1, 1])):
        scores = g.apply(d.random.choice(["Mul", "Div"]), [scores, g.floats(d.random.choice([0.5, 2.0, 3.0]))])
    if d.chance(0.4):
        scores = g.apply("Add", [scores, d.weights(*d.broadcast_shape(g.shape(scores)))])
    elif d.chance(0.2):
        mask = g.constant(np.tril(np.ones(g.shape(scores)[-2:], np.bool_)), np.bool_)
        scores = g.apply("Where", [mask, scores, g.floats(d.random.choice([-1e4, -3e38, -2.0]))])
    if d.chance(0.8):
        scores = g.apply("Softmax", [scores], axis=d.random.choice([-1, -1, -1, rank - 1, -2, 0]))
        if d.chance(0.2):
            scores = g.apply("Transpose", [scores], perm=turn)
    return g.apply("MatMul", [scores, v]) if d.chance(0.8) else g.apply("MatMul", [keys, scores])


@rule(2)
def reshape(d, v):
    g = d.graph
    shape = g.shape(v)
    size = math.prod(shape)
    options = [[1, -1], [-1], [1, size], [size, 1], [0, -1], [0, 0, -1], [-1, *shape[1:]], [*shape, 1]]
    for a in (2, 3, 4):
        options += [[1, a, size // a], [a, -1], [1, a, -1], [1, a, 2, -1], [1, 2, -1, a]]
    given = {"allowzero": 1} if g.opset >= 14 and d.chance(0.1) else {}
    return g.apply("Reshape", [v, g.integers(*d.random.choice(options))], **given)


@rule(2)
def transpose(d, v):
    turn = list(range(len(d.graph.shape(v))))
    d.random.shuffle(turn)
    return d.graph.apply("Transpose", [v], **({"perm": turn} if d.chance(0.85) else {}))


@rule(3)
def concat(d, v):
    shape = d.graph.shape(v)
    axis = d.axis(len(shape))
    at = axis % len(shape)
    alike = lambda s: len(s) == len(shape) and all(s[i] == shape[i] for i in range(len(s)) if i != at)
    parts = [v] + [d.earlier(alike) for _ in range(d.random.randrange(1, 3))]
    if d.chance(0.3):
        parts.append(d.weights(*[d.random.choice([1, 2]) if i == at else n for i, n in enumerate(shape)]))
    d.random.shuffle(parts)
    return d.graph.apply("Concat", parts, axis=axis)


@rule(2)
def slice_(d, v):
    g = d.graph
    shape = g.shape(v)
    axes = d.random.sample(range(len(shape)), d.random.choice([1, 1, 2]) if len(shape) > 1 else 1)
    starts = [d.random.randrange(-shape[a], shape[a]) for a in axes]
    steps = [d.random.choice([1, 1, 1, 2, 3, -1]) for _ in axes]
    ends = [-(2**62) if s < 0 else d.random.choice([shape[a], shape[a] - 1, 2**62, -1]) for a, s in zip(axes, steps)]
    named = [a - len(shape) if d.chance(0.3) else a for a in axes]
    if g.opset < 10:
        return g.apply("Slice", [v], starts=starts, ends=ends, axes=axes)
    inputs = [v, g.integers(*starts), g.integers(*ends), g.integers(*named)]
    return g.apply("Slice", inputs + ([g.integers(*steps)] if min(steps) < 0 or max(steps) > 1 or d.chance(0.5) else []))


@rule(2)
def split(d, v):
    g = d.graph
    shape = g.shape(v)
    axis = d.axis(len(shape))
    length = shape[axis]
    if length < 2:
        raise Rejected("nothing to split")
    first = d.random.randrange(1, length)
    sizes = [first, length - first]
    if g.opset >= 18 and d.chance(0.3):
        parts = g.apply("Split", [v], d.random.choice([2, 3]), axis=axis, num_outputs=2)
    elif g.opset < 18 and d.chance(0.3):
        parts = g.apply("Split", [v], 2, axis=axis)
    elif g.opset >= 13:
        parts = g.apply("Split", [v, g.integers(*sizes)], 2, axis=axis)
    else:
        parts = g.apply("Split", [v], 2, axis=axis, split=sizes)
    return d.random.choice(parts)


@rule(2)
def softmax(d, v):
    rank = len(d.graph.shape(v))
    given = {"axis": d.random.choice([-1, rank - 1, d.axis(rank)])} if d.chance(0.8) else {}
    return d.graph.apply(d.random.choice(["Softmax", "Softmax", "Softmax", "LogSoftmax"]), [v], **given)


@rule(3)
def reduce(d, v):
    g = d.graph
    rank = len(g.shape(v))
    op = d.random.choice(["Mean", "Mean", "Sum", "Sum", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp"])
    axes = [a - rank if d.chance(0.3) else a for a in d.random.sample(range(rank), d.random.randrange(1, rank + 1))]
    given = {"keepdims": d.random.choice([0, 1])} if d.chance(0.8) else {}
    inputs = [v]
    as_input = g.opset >= (13 if op == "Sum" else 18)
    if as_input:
        if d.chance(0.2):
            given["noop_with_empty_axes"] = d.random.choice([0, 1])
        if d.chance(0.9):
            inputs.append(g.integers(*(axes if d.chance(0.9) else [])))
    elif d.chance(0.9):
        given["axes"] = axes
    made = g.apply("Reduce" + op, inputs, **given)
    return g.apply("Mul", [v, made]) if d.chance(0.3) else made


@rule(2)
def pad(d, v):
    g = d.graph
    rank = len(g.shape(v))
    pads = [d.random.choice([0, 0, 0, 1, 2, -1] if d.chance(0.2) else [0, 0, 1, 2]) for _ in range(2 * rank)]
    mode = d.random.choice(["constant", "constant", "constant", "edge", "reflect"])
    given = {"mode": mode} if mode != "constant" or d.chance(0.5) else {}
    value = d.random.choice([None, 0.0, 1.5])
    if g.opset < 11:
        return g.apply("Pad", [v], pads=pads, **given, **({} if value is None else {"value": value}))
    inputs = [v, g.integers(*pads), "" if value is None else g.floats(value)]
    if g.opset >= 18 and d.chance(0.3):
        axes = d.random.sample(range(rank), d.random.randrange(1, rank + 1))
        inputs[1] = g.integers(*[d.random.choice([0, 1, 2]) for _ in range(2 * len(axes))])
        inputs.append(g.integers(*axes))
    return g.apply("Pad", inputs, **given)


@rule(3)
def resize(d, v):
    g = d.graph
    shape = g.shape(v)
    sides = len(shape) - 2
    if sides < 1 or max(shape[2:]) > 12:
        raise Rejected("no picture")
    if d.chance(0.5):
        scales = [d.random.choice([1.0, 2.0, 3.0])] * sides
    else:
        scales = [d.random.choice([1.5, 2.1, 0.5, 2.9, 2.0, 1.0]) for _ in range(sides)]
    mode = d.random.choice(["nearest", "nearest", "nearest", "linear", "cubic"])
    given = {"mode": mode} if mode != "nearest" or d.chance(0.7) else {}
    if g.opset < 10:
        return g.apply("Upsample", [v, g.floats([1.0, 1.0, *scales])], **given)
    if g.opset < 11:
        return g.apply("Resize", [v, g.floats([1.0, 1.0, *scales])], **given)
    if d.chance(0.8):
        kinds = ["asymmetric", "asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel"]
        given["coordinate_transformation_mode"] = d.random.choice(kinds)
    if d.chance(0.7):
        given["nearest_mode"] = d.random.choice(["floor", "floor", "round_prefer_floor", "ceil", "round_prefer_ceil"])
    if g.opset >= 18 and d.chance(0.15):
        given["antialias"] = d.random.choice([0, 1])
    if g.opset >= 18 and d.chance(0.2):
        axes = list(range(2, len(shape)))
        d.random.shuffle(axes)
        return g.apply("Resize", [v, "", g.floats(scales)], axes=axes, **given)
    nothing = "" if g.opset >= 13 else g.floats(np.zeros(0))
    if d.chance(0.6):
        return g.apply("Resize", [v, nothing, g.floats([1.0, 1.0, *scales])], **given)
    sizes = shape[:2] + [max(1, int(n * s)) for n, s in zip(shape[2:], scales)]
    return g.apply("Resize", [v, nothing, "" if g.opset >= 13 else g.floats(np.zeros(0)), g.integers(*sizes)], **given)


@rule(3)
def pool(d, v):
    shape = d.graph.shape(v)
    sides = len(shape) - 2
    if sides < 1:
        raise Rejected("no picture")
    op = d.random.choice(["AveragePool", "AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool", "LpPool"])
    if op.startswith("Global"):
        return d.graph.apply(op, [v])
    kernel = [d.random.choice([1, 2, 3]) for _ in range(sides)]
    given = {"kernel_shape": kernel}
    if d.chance(0.8):
        given["strides"] = [d.random.choice([1, 2]) for _ in range(sides)]
    if d.chance(0.3):
        given["pads"] = [d.random.randrange(k) for k in kernel] * 2
    elif d.chance(0.1):
        given["auto_pad"] = d.random.choice(["SAME_UPPER", "SAME_LOWER", "VALID"])
    if d.chance(0.15):
        given["ceil_mode"] = 1
    if op == "AveragePool" and d.chance(0.3):
        given["count_include_pad"] = d.random.choice([0, 1])
    if op == "MaxPool" and d.chance(0.15):
        given["dilations"] = [2] * sides
    return d.graph.apply(op, [v], **given)


@rule()
def expand(d, v):
    g = d.graph
    target = [n if n > 1 and d.chance(0.5) else (1 if n > 1 else d.random.choice([1, 2, 3])) for n in g.shape(v)]
    if d.chance(0.2):
        target = [2, *target]
    elif d.chance(0.2):
        target = target[1:] or [1]
    return g.apply("Expand", [v, g.integers(*target)])


@rule()
def tile(d, v):
    return d.graph.apply("Tile", [v, d.graph.integers(*[d.random.choice([1, 1, 2]) for _ in d.graph.shape(v)])])


@rule(2)
def gather(d, v):
    g = d.graph
    shape = g.shape(v)
    axis = d.axis(len(shape))
    length = shape[axis]
    index = [d.random.randrange(-length, length) for _ in range(d.random.choice([1, 1, 2, 3]))]
    form = d.random.choice([index, index[0], [index]])
    return g.apply("Gather", [v, g.constant(form, np.int64 if d.chance(0.8) else np.int32)], axis=axis)


@rule()
def gather_others(d, v):
    g = d.graph
    shape = g.shape(v)
    if d.chance(0.5):
        axis = d.axis(len(shape))
        dims = [d.random.randrange(1, n + 1) for n in shape]
        index = d.numpy.integers(-shape[axis], shape[axis], dims)
        return g.apply("GatherElements", [v, g.constant(index, np.int64)], axis=axis)
    depth = d.random.randrange(1, len(shape) + 1)
    rows = d.random.randrange(1, 4)
    index = np.stack([d.numpy.integers(-n, n, rows) for n in shape[:depth]], -1)
    return g.apply("GatherND", [v, g.constant(index, np.int64)])


@rule()
def scatter(d, v):
    g = d.graph
    shape = g.shape(v)
    reduction = d.random.choice(["none", "add", "mul", "max", "min"])
    given = {"reduction": reduction} if g.opset >= 16 and d.chance(0.6) else {}
    if d.chance(0.5):
        index = np.unique(np.stack([d.numpy.integers(0, n, 3) for n in shape], -1), axis=0)
        return g.apply("ScatterND", [v, g.constant(index, np.int64), d.weights(len(index))], **given)
    index = np.zeros([1] * len(shape), np.int64) + d.random.randrange(shape[0])
    return g.apply("ScatterElements", [v, g.constant(index, np.int64), d.weights(*index.shape)], axis=0, **given)


@rule(2)
def layer_normalization(d, v):
    g = d.graph
    shape = g.shape(v)
    axis = d.axis(len(shape)) if d.chance(0.3) else -1
    given = {"axis": axis} if axis != -1 or d.chance(0.5) else {}
    dims = shape[axis:] if axis < 0 else shape[axis:]
    inputs = [v, d.weights(*dims)] + ([d.weights(*dims)] if d.chance(0.7) else [])
    return g.apply("LayerNormalization", inputs, epsilon=d.random.choice([1e-5, 1e-3, 0.1]), **given)


@rule()
def layer_normalization_by_parts(d, v):
    g = d.graph
    axes = {"axes": [-1]} if g.opset < 18 else {}
    also = [g.integers(-1)] if g.opset >= 18 else []
    centred = g.apply("Sub", [v, g.apply("ReduceMean", [v, *also], **axes)])
    variance = g.apply("ReduceMean", [g.apply("Pow", [centred, g.floats(2.0)]), *also], **axes)
    normal = g.apply("Div", [centred, g.apply("Sqrt", [g.apply("Add", [variance, g.floats(1e-3)])])])
    return g.apply("Add", [g.apply("Mul", [normal, d.weights(g.shape(v)[-1])]), d.weights(g.shape(v)[-1])])


@rule(2)
def group_normalization(d, v):
    g = d.graph
    channels = g.shape(v)[1]
    groups = d.random.choice([1, 2, channels])
    each = channels if g.opset >= 21 else groups
    inputs = [v, d.weights(each), d.weights(each)]
    return g.apply("GroupNormalization", inputs, num_groups=groups, epsilon=d.random.choice([1e-5, 1e-2]))


@rule(2)
def group_normalization_by_parts(d, v):
    g = d.graph
    shape = g.shape(v)
    groups = d.random.choice([1, 2, shape[1]])
    cut = g.apply("Reshape", [v, g.integers(shape[0], groups, -1)])
    scale, shift = (d.weights(groups), d.weights(groups)) if d.chance(0.5) else (
        g.floats(np.ones(groups)), g.floats(np.zeros(groups)))
    made = g.apply("InstanceNormalization", [cut, scale, shift], epsilon=1e-2)
    made = g.apply("Reshape", [made, g.integers(*shape)])
    dims = [shape[1]] + [1] * (len(shape) - 2)
    for op in ("Mul", "Add"):
        if d.chance(0.7):
            made = g.apply(op, [made, d.weights(*(dims if d.chance(0.7) else [1, *dims]))])
    return made


@rule()
def channel_normalization(d, v):
    g = d.graph
    channels = g.shape(v)[1]
    if d.chance(0.5):
        return g.apply("InstanceNormalization", [v, d.weights(channels), d.weights(channels)], epsilon=1e-2)
    variance = g.floats(np.abs(d.normal([channels])) + 0.5)
    inputs = [v, d.weights(channels), d.weights(channels), d.weights(channels), variance]
    return g.apply("BatchNormalization", inputs, epsilon=1e-3)


@rule()
def other_normalization(d, v):
    g = d.graph
    op = d.random.choice(["LpNormalization", "LRN", "MeanVarianceNormalization"])
    if op == "LRN":
        return g.apply(op, [v], size=3)
    return g.apply(op, [v], axis=d.axis(len(g.shape(v))), p=2) if op == "LpNormalization" else g.apply(op, [v])


@rule()
def dropout(d, v):
    g = d.graph
    if g.opset >= 12 and d.chance(0.5):
        return g.apply("Dropout", [v, g.floats(0.5)])
    return g.apply("Dropout", [v], **({"ratio": 0.3} if g.opset < 12 and d.chance(0.5) else {}))


@rule(2)
def one_dimension_more_or_less(d, v):
    g = d.graph
    shape = g.shape(v)
    if d.chance(0.5):
        axes = [d.axis(len(shape) + 1)]
        return g.apply("Unsqueeze", [v, g.integers(*axes)]) if g.opset >= 13 else g.apply("Unsqueeze", [v], axes=axes)
    axes = [d.axis(len(shape))]
    if d.chance(0.2):
        return g.apply("Squeeze", [v])
    return g.apply("Squeeze", [v, g.integers(*axes)]) if g.opset >= 13 else g.apply("Squeeze", [v], axes=axes)


@rule()
def flatten(d, v):
    rank = len(d.graph.shape(v))
    axis = d.random.randrange(-rank, rank + 1)
    return d.graph.apply("Flatten", [v], **({"axis": axis} if d.chance(0.8) else {}))


@rule(2)
def einsum(d, v):
    g = d.graph
    rank = len(g.shape(v))
    letters = "abcde"[:rank]
    other = d.earlier(lambda s: s == g.values[v].shape)
    turn = list(letters)
    d.random.shuffle(turn)
    equations = [(f"{letters}->{''.join(turn)}", [v]), (f"{letters},{letters}->{letters}", [v, other])]
    equations += [(f"{letters}->{letters[:-1]}", [v]), (f"...{letters[-1]}->...{letters[-1]}", [v])]
    if rank >= 3:
        batch, row, inner = letters[:-2], letters[-2], letters[-1]
        equations += [(f"{batch}{row}{inner},{batch}k{inner}->{batch}{row}k", [v, other])] * 3
        equations += [(f"{batch}{row}{inner},{batch}k{inner}->{batch}k{row}", [v, other])]
        weights = d.weights(g.shape(v)[-1], 3)
        equations += [(f"{batch}{row}{inner},{inner}k->{batch}{row}k", [v, weights])]
        weights = d.weights(*g.shape(v)[:-2], g.shape(v)[-1], 3)
        equations += [(f"{batch}{row}{inner},{batch}{inner}k->{batch}{row}k", [v, weights])]
    equation, inputs = d.random.choice(equations)
    return g.apply("Einsum", inputs, equation=equation.replace("->", " -> ") if d.chance(0.2) else equation)


@rule()
def depth_and_space(d, v):
    given = {"mode": d.random.choice(["DCR", "CRD"])} if d.graph.opset >= 11 and d.chance(0.7) else {}
    if d.chance(0.6):
        return d.graph.apply("DepthToSpace", [v], blocksize=2, **given)
    return d.graph.apply("SpaceToDepth", [v], blocksize=2)


@rule(2)
def gated(d, v):
    """x · sigmoid(x), x · ½ (1 + erf(x / √2)) and x · tanh(softplus(x)), as exporters write them."""
    g = d.graph
    form = d.random.choice(["silu", "gelu", "mish", "quick"])
    swap = lambda pair: pair[::-1] if d.chance(0.5) else pair
    if form == "silu":
        return g.apply("Mul", swap([v, g.apply("Sigmoid", [v])]))
    if form == "quick":
        return g.apply("Mul", swap([v, g.apply("Sigmoid", [g.apply("Mul", [v, g.floats(1.702)])])]))
    if form == "mish":
        return g.apply("Mul", swap([v, g.apply("Tanh", [g.apply("Softplus", [v])])]))
    erf = g.apply("Erf", [g.apply("Div", [v, g.floats(2**0.5)])])
    gate = g.apply("Mul", swap([v, g.apply("Add", swap([erf, g.floats(1.0)]))]))
    return g.apply("Mul", swap([gate, g.floats(0.5)]))


@rule(2)
def quantized(d, v):
    g = d.graph
    kind = d.random.choice([np.uint8, np.int8])
    zero = d.random.randrange(0, 256) if kind == np.uint8 else d.random.randrange(-128, 128)
    scale, zero = g.floats(0.25), g.constant(zero, kind)
    rounded = g.apply("QuantizeLinear", [v, scale, zero])
    return g.apply("DequantizeLinear", [rounded, scale, zero])


@rule()
def quantized_weights(d, v):
    g = d.graph
    inner, columns = g.shape(v)[-1], 5
    kind = d.random.choice([np.uint8, np.int8])
    stored = g.constant(d.numpy.integers(0, 100, (inner, columns)), kind)
    if g.opset >= 13 and d.chance(0.6):
        scale, zero = g.floats(np.full(columns, 0.01) * range(1, 6)), g.constant(range(columns), kind)
        weights = g.apply("DequantizeLinear", [stored, scale, zero], axis=1)
    else:
        weights = g.apply("DequantizeLinear", [stored, g.floats(0.01)] + ([g.constant(3, kind)] if d.chance(0.5) else []))
    return g.apply("MatMul", [v, weights])


@rule()
def shape_arithmetic(d, v):
    """Reshape by what Shape, Gather, Mul and Concat work out, as traced graphs do."""
    g = d.graph
    shape = g.apply("Shape", [v])
    pick = lambda i: g.apply("Gather", [shape, g.constant([i], np.int64)], axis=0)
    rank = len(g.shape(v))
    if rank < 3:
        raise Rejected("of two dimensions")
    joined = g.apply("Mul", [pick(rank - 1), pick(rank - 2)])
    if d.chance(0.3):
        joined = g.apply("Div", [g.apply("Mul", [joined, g.integers(6)]), g.integers(6)])
    return g.apply("Reshape", [v, g.apply("Concat", [pick(0), g.integers(-1), joined], axis=0)])


@rule()
def others(d, v):
    g = d.graph
    rank = len(g.shape(v))
    kind = d.random.choice(["CumSum", "Trilu", "ArgMax", "TopK", "OneHot", "Mod", "IsNaN", "Hardmax", "Size", "ReverseSequence"])
    if kind == "CumSum":
        given = {k: 1 for k in ("exclusive", "reverse") if d.chance(0.3)}
        return g.apply("CumSum", [v, g.constant(d.axis(rank), np.int64)], **given)
    if kind == "Trilu":
        return g.apply("Trilu", [v] + ([g.constant(d.random.choice([-1, 0, 1]), np.int64)] if d.chance(0.5) else []),
                       **({"upper": d.random.choice([0, 1])} if d.chance(0.7) else {}))
    if kind == "ArgMax":
        made = g.apply(d.random.choice(["ArgMax", "ArgMin"]), [v], axis=d.axis(rank), keepdims=d.random.choice([0, 1]))
        return g.apply("Cast", [made], to=T.FLOAT)
    if kind == "TopK":
        k = g.integers(d.random.choice([1, 2]))
        return g.apply("TopK", [v, k], 2, axis=d.axis(rank), **({"largest": 0} if g.opset >= 11 and d.chance(0.5) else {}))[0]
    if kind == "Mod":
        return g.apply("Mod", [v, g.floats(0.75)], fmod=1)
    if kind == "Hardmax":
        return g.apply("Hardmax", [v], **({"axis": d.axis(rank)} if d.chance(0.6) else {}))
    if kind == "IsNaN":
        return g.apply("Where", [g.apply("IsNaN", [v]), g.floats(0.0), v])
    if kind == "Size":
        return g.apply("Mul", [v, g.apply("Cast", [g.apply("Size", [v])], to=T.FLOAT)])
    raise Rejected(kind)


def finish(d, v):
    """Ends with a value of the sample's shape that depends on every number of `v`."""
    g = d.graph
    shape = list(d.sample.shape)
    if g.shape(v) == shape and v != "x" and d.chance(0.8):
        return v if d.chance(0.5) else g.apply("Add", ["x", v])
    size, target = math.prod(g.shape(v)), math.prod(shape)
    if size * target > 200_000:
        raise Rejected("too large to end")
    flat = g.apply("Reshape", [v, g.integers(1, size)])
    return g.apply("Reshape", [g.apply("MatMul", [flat, g.floats(fold_matrix(size, target))]), g.integers(*shape)])


def graph(seed):
    """A random case, or Rejected."""
    d = Draw(seed)
    v = "x"
    for _ in range(d.random.randrange(1, 10)):
        for _ in range(6):
            mark = len(d.graph.nodes)
            try:
                v = d.random.choice(RULES)(d, v)
                break
            except (Rejected, IndexError, ValueError, ZeroDivisionError):
                d.graph.restore(mark)
        if d.chance(0.15):
            v = d.earlier(lambda shape: True)
    if d.graph.values[v].dtype != np.float32:
        raise Rejected("not of floats")
    out = finish(d, v)
    if d.graph.values[out].dtype != np.float32:
        raise Rejected("not of floats")
    model = d.graph.model(out)
    if not {"x", "t"} & {name for node in model.graph.node for name in node.input}:
        raise Rejected("depends on no input")
    return measure(f"seed {seed} opset {d.graph.opset}", model, d.sample, d.graph.inputs["t"])


def in_child(function, *arguments):
    """The function's result, or None if it is Rejected or its process dies: some invalid nodes abort onnxruntime."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            with os.fdopen(writer, "wb") as pipe:
                pickle.dump(function(*arguments), pipe)
        except Rejected:
            pass
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    return pickle.loads(data) if data else None


def main():
    first, count, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    cases, seed, operators = [], first, Counter()
    while len(cases) < count:
        case = in_child(graph, seed)
        seed += 1
        if case is not None:
            cases.append(case)
            operators.update(set(case.ops()))
    write(path, cases)
    print(f"{count} graphs of the seeds {first} to {seed - 1}; graphs with each operator:")
    print(", ".join(f"{op} {n}" for op, n in operators.most_common()))


if __name__ == "__main__":
    main()
