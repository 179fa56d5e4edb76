#!/usr/bin/env python3
"""Finds the operator at fault: writes, for graphs of a set, one graph for each value that they compute on the way.

    python3 tools/fuzz/prefixes.py SET.gz OUT.gz NAME...

A graph is written if its name starts with a NAME. The first of its prefixes that tests/random_graphs.rs finds wrong ends
in the operator to look at. To print a graph of a set: `onnx.printer.to_text(onnx.load_from_string(case.model))`.
"""

import sys

import numpy as np
import onnx
from onnx import helper, numpy_helper

from graphs import Case, Rejected, evaluate, fold_matrix, measure, read, write


def prefixes(case):
    model = onnx.load_from_string(case.model)
    time = next((i for i in model.graph.input if i.name == "t"), None)
    kind = helper.tensor_dtype_to_np_dtype(time.type.tensor_type.elem_type)
    t = np.array([case.t], kind)
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    for k, node in enumerate(model.graph.node):
        for output in node.output:
            cut = onnx.ModelProto()
            cut.CopyFrom(model)
            del cut.graph.node[k + 1 :]
            del cut.graph.output[:]
            cut.graph.output.append(onnx.ValueInfoProto(name=output))
            feeds = {i.name: case.x.reshape(shape) if i.name == "x" else t for i in cut.graph.input}
            try:
                (value,) = evaluate(cut, feeds)
                if value.dtype.kind == "f" and value.size:
                    fold = fold_matrix(value.size, case.x.size)
                    cut.graph.initializer.extend([
                        numpy_helper.from_array(np.array([1, -1], np.int64), "_flat"),
                        numpy_helper.from_array(fold.astype(value.dtype), "_fold"),
                        numpy_helper.from_array(np.array(shape, np.int64), "_shape"),
                    ])
                    cut.graph.node.extend([
                        helper.make_node("Reshape", [output, "_flat"], ["_a"]),
                        helper.make_node("MatMul", ["_a", "_fold"], ["_b"]),
                        helper.make_node("Reshape", ["_b", "_shape"], ["_out"]),
                    ])
                    del cut.graph.output[:]
                    cut.graph.output.append(
                        helper.make_tensor_value_info("_out", helper.np_dtype_to_tensor_dtype(value.dtype), shape))
                    yield measure(f"{case.name} node {k} {node.op_type}", cut, case.x.reshape(shape), t)
            except Rejected:
                pass


def main():
    source, out, *names = sys.argv[1:]
    chosen = [case for case in read(source) if any(case.name.startswith(name) for name in names)]
    write(out, [prefix for case in chosen for prefix in prefixes(case)])


if __name__ == "__main__":
    main()
