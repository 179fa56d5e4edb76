"""What onnxruntime.sh counts: ort_calls.py MODEL CALLS, by one thread."""

import sys

import numpy as np
import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
feed = {}
for i in session.get_inputs():
    shape = [d if isinstance(d, int) else 1 for d in i.shape]
    feed[i.name] = {"sample": np.random.default_rng(1).standard_normal(shape, dtype=np.float32),
                    "timestep": np.array([999], np.float32), "class_labels": np.array([3])}[i.name]
for _ in range(int(sys.argv[2])):
    session.run(None, feed)
