#!/usr/bin/env python3
"""A network call of edgegen, onnxruntime, openvino, ncnn, MNN and tract on the same files, one thread each.

    python3 -m venv target/peers && target/peers/bin/pip install -r tools/bench/requirements-peers.txt
    cargo build --release
    cargo build --release --manifest-path tools/bench/stock_tract/Cargo.toml
    target/peers/bin/python tools/bench/vs_peers.py target/release/edgegen models/*.onnx \\
        --tract tools/bench/stock_tract/target/release/stock_tract

Every engine has a process of its own for each file, and they take turns, --rounds times, each with --calls calls, or as many
as fit into a second. A figure is the median of the rounds' medians; the least is in brackets. All compute in f32, or in 8 bits
where the file is quantized. An engine that does not run a file has a dash, with the reason on standard error, and so has one
whose output differs from onnxruntime's by more than --limit of its root mean square.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from vs_onnxruntime import difference, edgegen_round, ort_feed, ort_session


def inputs_of(path):
    """Noise, t = 999 and class 3, in the order of the file's inputs."""
    import numpy as np

    session = ort_session(path, 1)
    feed = ort_feed(session)
    feed |= {"sample": np.random.default_rng(1).standard_normal(feed["sample"].shape, dtype=np.float32),
             "timestep": np.array([999], np.float32)}
    return session, {i.name: feed[i.name] for i in session.get_inputs()}


# Each of these returns a function that makes a call and returns what came out, and the engine's version. They run in a process
# of their own, in an empty folder, with the network at network.onnx.


def onnxruntime(path, feed, session):
    import onnxruntime

    return lambda: session.run(None, feed)[0], onnxruntime.__version__


def openvino(path, feed, session, precision="f32"):
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape({name: list(array.shape) for name, array in feed.items()})
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(model, "CPU", settings | {"INFERENCE_PRECISION_HINT": precision}).create_infer_request()
    for name, array in feed.items():
        request.set_tensor(name, openvino.Tensor(array))

    def call():
        request.infer()
        return request.get_output_tensor().data

    return call, openvino.__version__.split("-")[0]


def openvino_bf16(path, feed, session):
    return openvino(path, feed, session, "bf16")


def for_ncnn(path, feed):
    """Writes the network as ncnn can take it: the class stored, as it has no Gather, and instance norm over pictures."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    graph, stored = model.graph, {i.name: i for i in model.graph.initializer}
    values = lambda name: numpy_helper.to_array(stored[name])
    made = {node.output[0]: node for node in graph.node}
    for node in list(graph.node):
        if node.op_type == "Gather" and node.input[1] == "class_labels" and node.input[0] in stored:
            graph.initializer.append(numpy_helper.from_array(values(node.input[0])[feed["class_labels"]], node.output[0]))
            graph.node.remove(node)
        before = made.get(node.input[0]) if node.op_type == "InstanceNormalization" else None
        if before is not None and before.op_type == "Reshape" and before.input[1] in stored and len(values(before.input[1])) == 3:
            shape = numpy_helper.from_array(np.append(values(before.input[1]), 1), f"{before.name}/4")
            graph.initializer.append(shape)
            before.input[1] = shape.name
    used = {name for node in graph.node for name in node.input}
    for i in [i for i in graph.input if i.name not in used]:
        graph.input.remove(i)
    onnx.save(model, path)
    return {i.name: feed[i.name] for i in graph.input}


def unknown_layers():
    import ncnn

    with open("network.ncnn.param") as file:
        kinds = {line.split()[0] for line in file.readlines()[2:]}
    return "it has no " + ", ".join(sorted(k for k in kinds if ncnn.layer_to_index(k) < 0))


def ncnn(path, feed, session):
    import ncnn
    import numpy as np

    if "class_labels" in feed:
        feed = for_ncnn(path, feed)
    kinds = {"float32": "f32", "int64": "i64"}
    shapes = ",".join(f"{list(a.shape)}{kinds[a.dtype.name]}".replace(" ", "") for a in feed.values())
    converted = subprocess.run([os.path.join(os.path.dirname(sys.executable), "pnnx"), path, f"inputshape={shapes}", "fp16=0"],
                               capture_output=True, text=True, errors="replace")
    if not os.path.exists("network.ncnn.param"):
        raise RuntimeError(f"pnnx ended with {converted.returncode}: {last_line(converted.stderr)}")
    net = ncnn.Net()
    net.opt.num_threads = 1
    for half in ["fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"]:
        setattr(net.opt, f"use_{half}", False)
    if net.load_param("network.ncnn.param") or net.load_model("network.ncnn.bin"):
        raise RuntimeError("ncnn does not load it: " + unknown_layers())
    arrays = [a[0] if a.ndim > 1 else a.astype(np.int32 if a.dtype == np.int64 else a.dtype) for a in feed.values()]
    mats = [ncnn.Mat(np.ascontiguousarray(a)).clone() for a in arrays]

    def call():
        with net.create_extractor() as extractor:
            for index, mat in enumerate(mats):
                if extractor.input(f"in{index}", mat):
                    raise RuntimeError(f"there is no input in{index}")
            code, out = extractor.extract("out0")
            if code:
                raise RuntimeError(f"extract gave {code}")
            return np.array(out)

    return call, ncnn.__version__


def mnn(path, feed, session):
    import MNN
    import numpy as np

    # the converter without its wrapper, which installs a package and reports home
    converter = ["import _tools", f"_tools.mnnconvert(['', '-f', 'ONNX', '--modelFile', {path!r}, '--MNNModel', 'network.mnn'])"]
    converted = subprocess.run([sys.executable, "-c", "\n".join(converter)], capture_output=True, text=True, errors="replace")
    if not os.path.exists("network.mnn"):
        raise RuntimeError(f"mnnconvert ended with {converted.returncode}: {last_line(converted.stdout + converted.stderr)}")
    net = MNN.Interpreter("network.mnn")
    run = net.createSession({"backend": "CPU", "numThread": 1, "precision": "high"})
    kinds = {"float32": MNN.Halide_Type_Float, "int32": MNN.Halide_Type_Int}
    hosts = []
    for name, array in feed.items():
        array = array.astype(np.int32) if array.dtype == np.int64 else array
        tensor = net.getSessionInput(run, name)
        net.resizeTensor(tensor, array.shape)
        host = MNN.Tensor(array.shape, kinds[array.dtype.name], array, MNN.Tensor_DimensionType_Caffe)
        hosts.append((name, host))
    net.resizeSession(run)
    made = net.getSessionOutput(run)
    out = MNN.Tensor(made.getShape(), MNN.Halide_Type_Float, np.zeros(made.getShape(), np.float32), MNN.Tensor_DimensionType_Caffe)

    def call():
        for name, host in hosts:
            net.getSessionInput(run, name).copyFrom(host)
        if code := net.runSession(run):
            raise RuntimeError(f"runSession gave {code}")
        made.copyToHostTensor(out)
        return np.array(out.getNumpyData())

    return call, MNN.version()


ENGINES = {"onnxruntime": onnxruntime, "openvino": openvino, "openvino bf16": openvino_bf16, "ncnn": ncnn, "MNN": mnn}


def last_line(text):
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "nothing was said"


def serve(engine, calls):
    """What an engine's process does: a call whose output it stores, then the calls of a round for every line that it reads."""
    import numpy as np

    # engines print to standard output
    say, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    os.dup2(2, 1)
    try:
        session, feed = inputs_of("network.onnx")
        call, version = ENGINES[engine](os.path.abspath("network.onnx"), feed, session)
        np.asarray(call(), np.float32).tofile("out.f32")
    except Exception as e:
        print(f"failed {type(e).__name__}: {' '.join(str(e).split())}", file=say, flush=True)
        return
    print(version, file=say, flush=True)
    for _ in sys.stdin:
        call()
        times = []
        while len(times) < calls and (len(times) < 3 or sum(times) < 1):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        print(1e3 * statistics.median(times), file=say, flush=True)


class Worker:
    """An engine's process in a folder of its own."""

    def __init__(self, command, folder):
        self.log = open(os.path.join(folder, "log"), "w+", errors="replace")
        self.process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)

    def line(self):
        answer = self.process.stdout.readline().strip()
        if answer and not answer.startswith("failed "):
            return answer
        self.log.seek(0)
        code = self.process.wait()
        raise RuntimeError(answer.removeprefix("failed ") or f"ended with {code}: {last_line(self.log.read())}")

    def round(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.line())

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.log.close()


def measure(path, args, folder, versions):
    """Times and differences by engine, for one file; and onnxruntime's root mean square."""
    import numpy as np

    session, feed = inputs_of(path)
    theirs = session.run(None, feed)[0].astype(np.float64)
    rms = np.sqrt((theirs**2).mean())
    workers, off = {}, {"edgegen": difference(args.program, session, path)[0]}
    for engine in [e for e in args.engines if e != "tract" or args.tract]:
        place = os.path.join(folder, engine)
        os.mkdir(place)
        shutil.copy(path, os.path.join(place, "network.onnx"))
        command = [sys.executable, os.path.abspath(__file__), "--serve", engine, str(args.calls)]
        if engine == "tract":
            feed["sample"].tofile(os.path.join(place, "sample.f32"))
            command = [args.tract, "network.onnx", "sample.f32", "out.f32", str(args.calls)]
        worker = Worker(command, place)
        try:
            versions[engine] = worker.line()
            ours = np.fromfile(os.path.join(place, "out.f32"), np.float32)
            off[engine] = np.abs(ours.reshape(theirs.shape) - theirs).max()
            if not off[engine] <= args.limit * rms:
                raise RuntimeError(f"its output is off by up to {off[engine]:.2g}, with an rms of {rms:.2g}")
            workers[engine] = worker
        except (RuntimeError, ValueError) as e:
            print(f"{os.path.basename(path)}: {engine}: {e}", file=sys.stderr)
            worker.close()
    times = {engine: [] for engine in ["edgegen", *workers]}
    for _ in range(args.rounds):
        times["edgegen"].append(edgegen_round(args.program, path, args.calls, 1)["network_ms"])
        for engine, worker in workers.items():
            times[engine].append(worker.round())
    for worker in workers.values():
        worker.close()
    return times, off, rms


def main():
    if len(sys.argv) == 4 and sys.argv[1] == "--serve":
        return serve(sys.argv[2], int(sys.argv[3]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="the edgegen binary")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--tract", type=os.path.abspath, help="the stock_tract binary")
    parser.add_argument("--engines", nargs="+", default=[*ENGINES, "tract"], choices=[*ENGINES, "tract"], metavar="ENGINE")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=50, help="network calls a round")
    parser.add_argument("--limit", type=float, default=0.3, help="greatest difference of outputs, of their rms")
    args = parser.parse_args()
    args.program = os.path.abspath(args.program)

    engines, versions, speeds, offs = ["edgegen", *args.engines], {}, [], []
    for path in args.models:
        with tempfile.TemporaryDirectory() as folder:
            times, off, rms = measure(path, args, folder, versions)
        name = os.path.basename(path)
        cells = [f"{statistics.median(times[e]):.2f} ({min(times[e]):.2f})" if e in times else "–" for e in engines]
        speeds.append(f"| {name} | {' | '.join(cells)} |")
        offs.append(f"| {name} | {rms:.2f} | {' | '.join(f'{off[e]:.1e}' if e in off else '–' for e in engines)} |")
        print(speeds[-1], file=sys.stderr)
    print(", ".join(f"{e} {versions[e]}" for e in engines if e in versions), f"\nms a call, median (least) of {args.rounds} rounds\n")
    print(f"| network | {' | '.join(engines)} |\n|---{'|---' * len(engines)}|", *speeds, sep="\n")
    print("\ngreatest difference from onnxruntime's output\n")
    print(f"| network | rms | {' | '.join(engines)} |\n|---|---{'|---' * len(engines)}|", *offs, sep="\n")


if __name__ == "__main__":
    main()
