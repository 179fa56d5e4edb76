#!/usr/bin/env python3
"""edgegen-trainer quantize beside onnxruntime's static quantization: quantize.py TRAINER EDGEGEN FOLDER [NAME…]

    nice -n 10 python3 tools/bench/trained_networks.py target/trained 8
    python3 tools/bench/quantize.py target/release/edgegen-trainer target/release/edgegen target/trained

Quantized files are written beside NAME.onnx, and those that are there are taken. onnxruntime's calibration (MinMax, Entropy,
Percentile), a scale for each output channel, of Conv, MatMul and Gemm, sees the data noised to levels spread over the schedule.
All files then make samples from the same noise under the same conditions by the same 20-step DDIM loop, run by onnxruntime, and by
edgegen. Distances are root mean squares over all numbers, from the float network's samples by the same runtime. Times are a
network call's by edgegen, the files taking turns.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

STEPS, SAMPLES, CALIBRATION, ROUNDS = 20, 16, 96, 5
CALIBRATIONS = {"MinMax": CalibrationMethod.MinMax, "Entropy": CalibrationMethod.Entropy, "Percentile": CalibrationMethod.Percentile}


def alphas_cumprod(steps=1000):
    bar = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.cumprod(1 - np.minimum(1 - bar[1:] / bar[:-1], 0.999))


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Data:
    """What a network was trained on."""

    def __init__(self, folder):
        arrays = {file.stem: np.load(file) for file in folder.glob("*.npy")}
        self.samples, self.conditions = arrays.pop("samples"), arrays

    def given(self, i):
        return {name: values[i:i + 1] for name, values in self.conditions.items()}


class Noised(CalibrationDataReader):
    """Samples of the data at levels of noise spread over the schedule."""

    def __init__(self, data):
        random, bar = np.random.default_rng(3), alphas_cumprod()
        def feed(k):
            i, t = int(random.integers(len(data.samples))), int((k + 0.5) / CALIBRATION * 1000)
            x = bar[t] ** 0.5 * data.samples[i:i + 1] + (1 - bar[t]) ** 0.5 * random.standard_normal(data.samples[:1].shape)
            return {"sample": x.astype(np.float32), "timestep": np.array([t]), **data.given(i)}
        self.feeds = iter([feed(k) for k in range(CALIBRATION)])

    def get_next(self):
        return next(self.feeds, None)


def by_onnxruntime(path, data):
    """Samples by deterministic DDIM with trailing steps."""
    network, bar, all_of = session(path), alphas_cumprod(), []
    times = [1000 - 1000 // STEPS * i - 1 for i in range(STEPS)]
    for k in range(SAMPLES):
        x = np.random.default_rng(100 + k).standard_normal(data.samples[:1].shape).astype(np.float32)
        for i, t in enumerate(times):
            eps = network.run(None, {"sample": x, "timestep": np.array([t]), **data.given(len(data.samples) - 1 - k)})[0]
            x0 = np.clip((x - (1 - bar[t]) ** 0.5 * eps) / bar[t] ** 0.5, -1, 1)
            following = bar[times[i + 1]] if i + 1 < STEPS else 1.0
            x = (following**0.5 * x0 + (1 - following) ** 0.5 * eps).astype(np.float32)
        all_of.append(x)
    return np.concatenate(all_of)


def by_edgegen(program, path, data, place):
    """The same by edgegen, which is given the noise and the conditions one by one."""
    all_of = []
    for k in range(SAMPLES):
        np.save(f"{place}/noise.npy", np.random.default_rng(100 + k).standard_normal(data.samples[:1].shape).astype(np.float32))
        given = []
        for name, values in data.given(len(data.samples) - 1 - k).items():
            if name == "class_labels":
                given += ["--class", str(values[0])]
            else:
                np.save(f"{place}/{name}.npy", values)
                given += ["--cond", f"{name}={place}/{name}.npy"]
        subprocess.run([program, "-m", path, "--sampler", "ddim", "--steps", str(STEPS), "--noise", f"{place}/noise.npy", *given,
                        f"{place}/out.npy"], check=True, capture_output=True)
        all_of.append(np.load(f"{place}/out.npy").reshape(data.samples[:1].shape))
    return np.concatenate(all_of)


def rms(a, b):
    return float(np.sqrt(np.mean((a.astype(np.float64) - b) ** 2)))


def milliseconds(program, path):
    done = subprocess.run([program, "bench", path, "--runs", "5", "--report", "json"], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["network_ms"]


def main():
    trainer, program, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    for name in sys.argv[4:] or sorted(file.stem for file in folder.glob("*.onnx") if "." not in file.stem):
        source, data = folder / f"{name}.onnx", Data(folder / name)
        with tempfile.TemporaryDirectory() as place:
            print(name)
            files = {"edgegen": folder / f"{name}.int8.onnx"}
            if not files["edgegen"].exists():
                done = subprocess.run([trainer, "quantize", source, "--data", folder / name, "--out", files["edgegen"]],
                                      check=True, capture_output=True, text=True)
                print("\n".join("  " + line for line in done.stdout.splitlines()[-3:]), flush=True)
            for kind, method in CALIBRATIONS.items():
                files[kind] = folder / f"{name}.{kind}.onnx"
                if files[kind].exists():
                    continue
                quantize_static(str(source), str(files[kind]), Noised(data), quant_format=QuantFormat.QDQ, per_channel=True,
                                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, calibrate_method=method,
                                op_types_to_quantize=["Conv", "MatMul", "Gemm"])
                # what edgegen is to know of it
                model = onnx.load(files[kind])
                model.metadata_props.extend(onnx.load(source).metadata_props)
                onnx.save(model, files[kind])
            exact = by_onnxruntime(source, data)
            distances = {kind: rms(by_onnxruntime(path, data), exact) for kind, path in files.items()}
            ours = by_edgegen(program, source, data, place)
            own = {kind: rms(by_edgegen(program, path, data, place), ours) for kind, path in files.items()}
            best = min((d, k) for k, d in distances.items() if k != "edgegen")
            print(f"  float: {rms(exact, ours):.1e} between the runtimes, of {exact.std():.2f}")
            for kind in files:
                print(f"  {kind:<11} {distances[kind]:.4f} by onnxruntime, {own[kind]:.4f} by edgegen")
            print(f"  {distances['edgegen'] / best[0]:.2f} of the best of onnxruntime's ({best[1]})")
            times = [[milliseconds(program, path) for path in (source, files["edgegen"], files["MinMax"])] for _ in range(ROUNDS)]
            f, q, m = (statistics.median(column) for column in zip(*times))
            ratio = statistics.median(b / a for a, b, _ in times)
            print(f"  a call by edgegen: float {f:.2f} ms, 8 bits {q:.2f} ms ({ratio:.2f}); onnxruntime's file {m:.2f} ms", flush=True)


if __name__ == "__main__":
    main()
