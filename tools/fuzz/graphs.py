"""What the comparison with onnxruntime is made of: small ONNX graphs, their inputs, and what onnxruntime makes of them.

A graph maps a sample `x` and a time `t` to one output of the sample's shape, as a diffusion network does. `Builder` makes
one node after the other and evaluates each at once with onnxruntime, so that shapes need not be worked out here: a node
that onnxruntime refuses is not added. `Case` is a finished graph with its result, and `write` stores cases in the form
that tests/random_graphs.rs reads.
"""

import gzip
import struct
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

IR_VERSION = 10


class Rejected(Exception):
    """onnxruntime does not take this node or graph."""


def evaluate(model, feeds, outputs=None):
    """What onnxruntime makes of a model, without its own rewriting of the graph."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return session.run(outputs, feeds)
    except Exception as error:  # onnxruntime raises a class of its own for each status
        raise Rejected(str(error).replace("\n", " ")) from error


def value_info(name, array):
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def assemble(nodes, initializers, inputs, output, opset, functions=(), domains=()):
    """A model of these nodes. `inputs` are the example arrays by name; `output` is a name and its array."""
    graph = helper.make_graph(
        nodes,
        "g",
        [value_info(name, array) for name, array in inputs.items()],
        [value_info(*output)],
        initializers,
    )
    imports = [helper.make_opsetid("", opset)] + [helper.make_opsetid(domain, version) for domain, version in domains]
    model = helper.make_model(graph, opset_imports=imports, functions=list(functions))
    model.ir_version = IR_VERSION
    return model


class Builder:
    """A graph that grows by one node at a time, with the value of everything that it has made."""

    def __init__(self, opset, inputs):
        self.opset = opset
        self.inputs = inputs
        self.values = dict(inputs)
        self.constants = {}
        self.nodes = []

    def constant(self, array, dtype=None):
        name = f"c{len(self.constants)}"
        self.constants[name] = np.ascontiguousarray(np.asarray(array, dtype)).reshape(np.shape(array))
        self.values[name] = self.constants[name]
        return name

    def floats(self, array):
        return self.constant(array, np.float32)

    def integers(self, *values):
        return self.constant(np.array(values, np.int64))

    def shape(self, name):
        return list(self.values[name].shape)

    def apply(self, op, inputs, outputs=1, **attributes):
        """Adds a node and returns the name of its result, or the names if there are several."""
        names = [f"v{len(self.values)}_{i}" for i in range(outputs)]
        node = helper.make_node(op, inputs, names, **attributes)
        feeds = {name: self.values[name] for name in inputs if name}
        graph = helper.make_graph(
            [node], "one", [value_info(*item) for item in feeds.items()], [onnx.ValueInfoProto(name=n) for n in names]
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        model.ir_version = IR_VERSION
        for name, value in zip(names, evaluate(model, feeds)):
            if value.size == 0 or value.size > 6000 or value.ndim > 5:
                raise Rejected("too large, or empty")
            if value.dtype.kind == "f" and not (np.isfinite(value).all() and np.abs(value).max() < 1e4):
                raise Rejected("not of moderate numbers")
            self.values[name] = value
        self.nodes.append(node)
        return names[0] if outputs == 1 else names

    def restore(self, mark):
        """Takes back all nodes since `mark`, a number of nodes."""
        for node in self.nodes[mark:]:
            for name in node.output:
                self.values.pop(name)
        del self.nodes[mark:]

    def model(self, output):
        """The model whose output is this value; constants that nothing reads are left out."""
        read = {name for node in self.nodes for name in node.input}
        initializers = [numpy_helper.from_array(array, name) for name, array in self.constants.items() if name in read]
        nodes = needed(self.nodes, output)
        return assemble(nodes, initializers, self.inputs, (output, self.values[output]), self.opset)


def needed(nodes, output):
    """The nodes that an output depends on, in their order."""
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    return kept[::-1]


def fold_matrix(size, target):
    """A matrix that makes `target` numbers of `size`, each of which has a say: number i goes to place i mod target, with a
    sign and a factor of its own. It is of zeros mostly, and so small in a file."""
    fold = np.zeros((size, target), np.float32)
    for i in range(size):
        fold[i, i % target] = (-1) ** (i // target) * (1 + i // target % 3)
    return fold


@dataclass
class Case:
    """A graph, its inputs, and onnxruntime's result: None if it refuses the graph, or refuses to run it."""

    name: str
    model: bytes
    x: np.ndarray
    t: float
    result: np.ndarray | None
    tolerance: float = 0.0

    def ops(self):
        return [node.op_type for node in onnx.load_from_string(self.model).graph.node]


def perturbed(model, x, seed):
    """The model and the sample with every float changed by one in a million, up or down at random."""
    random = np.random.default_rng(seed)

    def change(array):
        return (array * (1 + random.choice([-1e-6, 1e-6], array.shape))).astype(array.dtype)

    other = onnx.ModelProto()
    other.CopyFrom(model)
    for tensor in other.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind == "f" and array.size:
            tensor.CopyFrom(numpy_helper.from_array(change(array), tensor.name))
    return other, change(x)


def measure(name, model, x, t):
    """The case of a model. Its tolerance is what rounding may do: some units in the last place of the greatest number,
    and several times what a change of the sample and of all weights by one in a million does to the result. Where such a
    change does much, as at a step of Floor, no comparison is possible and the graph is rejected."""
    feeds = {i.name: x if i.name == "x" else t for i in model.graph.input if i.name in ("x", "t")}
    (result,) = evaluate(model, feeds)
    if result.size == 0 or not np.isfinite(result).all():
        raise Rejected("the result is not finite")
    result = result.astype(np.float64)
    greatest = np.abs(result).max()
    moved = 0.0
    for seed in range(2):
        changed, sample = perturbed(model, x, seed)
        (other,) = evaluate(changed, feeds | {"x": sample})
        moved = max(moved, np.abs(other.astype(np.float64) - result).max())
    if not moved < 1e-4 * greatest:
        raise Rejected("too sensitive to compare")
    tolerance = 2e-5 * greatest + 8 * moved
    return Case(name, model.SerializeToString(), x, float(np.ravel(t)[0]), result.astype(np.float32), tolerance)


def write(path, cases):
    """Stores cases: for each its name, model, time, sample, tolerance and result, each after its length in bytes."""

    def field(data):
        return struct.pack("<I", len(data)) + data

    body = b""
    for case in cases:
        result = b"" if case.result is None else np.ascontiguousarray(case.result, "<f4").tobytes()
        body += field(case.name.encode()) + field(case.model) + field(struct.pack("<f", case.t))
        body += field(np.ascontiguousarray(case.x, "<f4").tobytes())
        body += field(struct.pack("<f", case.tolerance)) + field(result)
    with open(path, "wb") as file, gzip.GzipFile("", "wb", 9, file, 0) as packed:
        packed.write(body)
    return len(body)


def read(path):
    """The cases that `write` stored."""
    with gzip.open(path) as file:
        body = memoryview(file.read())

    def field():
        nonlocal body
        (length,) = struct.unpack("<I", body[:4])
        data, body = bytes(body[4 : 4 + length]), body[4 + length :]
        return data

    cases = []
    while body:
        name, model, t, x, tolerance, result = (field() for _ in range(6))
        floats = [np.frombuffer(data, "<f4") for data in (t, x, tolerance, result)]
        result = floats[3] if floats[3].size else None
        cases.append(Case(name.decode(), model, floats[1], float(floats[0][0]), result, float(floats[2][0])))
    return cases
