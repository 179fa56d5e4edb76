#!/usr/bin/env python3
"""Checks what `edgegen-trainer export` writes: onnx's own full check, and onnxruntime against candle.

    cargo build --release -p edgegen-trainer
    python3 tools/trainer/check/onnx_check.py target/release/edgegen-trainer [CHECKPOINT …]

Networks of several shapes are trained for a few steps on made-up pictures and exported; checkpoints given are
exported as they are. In float, onnxruntime's prediction must be candle's to 1e-4. In int8 (static
quantization, calibrated on the same pictures) the relative error is printed, and must be below 0.25: it says
that the graph is sound; how good it is, is what `edgegen-trainer eval` says. Needs what requirements.txt pins.
"""

import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

SHAPES = [["--patch", "1", "--mult", "1,2"], ["--patch", "2", "--mult", "1,2", "--middle", "2"],
          ["--patch", "2", "--mult", "1,2", "--no-attention"], ["--patch", "1", "--mult", "1,2,2", "--blocks", "2"]]


def write_idx(path, array):
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", d) for d in array.shape) + array.tobytes())


def made_up_data(folder):
    rng = np.random.default_rng(0)
    write_idx(folder / "train-images-idx3-ubyte", rng.integers(0, 256, (60, 16, 16), dtype=np.uint8))
    write_idx(folder / "train-labels-idx1-ubyte", (np.arange(60) % 3).astype(np.uint8))


SEQUENCES = [["--mult", "1,2"], ["--mult", "2", "--blocks", "2", "--kernel", "3"], ["--mult", "1,2", "--prefix", "5"]]


def made_up_sequences(folder):
    rng = np.random.default_rng(0)
    folder.mkdir()
    np.save(folder / "actions.npy", rng.standard_normal((60, 16, 3)).astype(np.float32).cumsum(1))
    np.save(folder / "obs.npy", rng.standard_normal((60, 4)).astype(np.float32))


def run(*command):
    subprocess.run([str(c) for c in command], check=True, capture_output=True)


def predict(path, arrays):
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {"sample": arrays["x"], "timestep": arrays["t"]}
    if "labels" in arrays:
        feeds["class_labels"] = arrays["labels"].astype(np.int64)
    if "cond" in arrays:
        feeds["global_cond"] = arrays["cond"]
    return session.run(None, feeds)[0]


def check(trainer, checkpoint, data, folder, what):
    for name in ("labels", "cond"):
        (folder / f"{name}.npy").unlink(missing_ok=True)
    run(trainer, "dump-forward", "--checkpoint", checkpoint, "--out", folder)
    names = ("x", "t", "labels", "cond", "prediction")
    arrays = {name: np.load(folder / f"{name}.npy") for name in names if (folder / f"{name}.npy").exists()}
    expected = arrays["prediction"]
    spread = expected.std()
    assert spread > 0.1, "a network that says nothing proves nothing"
    run(trainer, "export", "--checkpoint", checkpoint, "--out", folder / "float.onnx")
    worst = np.abs(predict(folder / "float.onnx", arrays) - expected).max()
    assert worst < 1e-4, f"{what}: float is {worst} off"
    line = f"{what}: float off by {worst:.1e} at most"
    if data:
        run(trainer, "export", "--checkpoint", checkpoint, "--out", folder / "int8.onnx", "--format", "int8",
            "--data", data)
        error = np.sqrt(np.square(predict(folder / "int8.onnx", arrays) - expected).mean()) / spread
        assert error < 0.25, f"{what}: int8 has a relative error of {error}"
        line += f"; int8 relative error {error:.3f}"
    print(line + f" (predictions spread by {spread:.2f})")


def main():
    trainer, checkpoints = Path(sys.argv[1]).resolve(), sys.argv[2:]
    onnxruntime.set_default_logger_severity(4)
    print(f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made_up_data(folder)
        for i, shape in enumerate(SHAPES):
            run(trainer, "train", "--data", folder, "--out", folder / f"run{i}", "--base", "16", "--groups", "4",
                "--batch", "16", "--steps", "60", "--warm-up", "1", "--rate", "4e-3", "--ema", "0.5", "--sample-every", "0", *shape)
            check(trainer, folder / f"run{i}", folder, folder, " ".join(shape))
        made_up_sequences(folder / "sequences")
        for i, shape in enumerate(SEQUENCES):
            run(trainer, "train", "--data", folder / "sequences", "--out", folder / f"sequence{i}", "--base", "16",
                "--groups", "4", "--batch", "16", "--steps", "60", "--warm-up", "1", "--rate", "4e-3", "--ema", "0.5", *shape)
            check(trainer, folder / f"sequence{i}", folder / "sequences", folder, "sequences " + " ".join(shape))
        for checkpoint in checkpoints:
            check(trainer, checkpoint, None, folder, Path(checkpoint).name)


if __name__ == "__main__":
    main()
