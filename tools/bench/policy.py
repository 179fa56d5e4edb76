#!/usr/bin/env python3
"""A whole LeRobot diffusion policy, camera to action: edgegen beside onnxruntime.

    pip install -r tools/bench/requirements-networks.txt
    pip install -r tools/fixtures/requirements-lerobot.txt && pip install --no-deps lerobot==0.4.4
    python3 tools/bench/policy.py target/dist/edgegen target/policy

The policy is LeRobot's with seeded random weights: a ResNet18 with group norms, spatial softmax, two moments of one camera
of 96×96, cropped to 84×84, and a FiLM U-Net of 16 actions of 2 numbers (--down-dims), ten steps of DDIM. onnxruntime gets what
someone would give it who knows that the picture does not change within an action: the encoder exported by itself,
run once, and the U-Net, run ten times in a numpy loop. edgegen gets the one graph. One thread each, in turns. In 8 bits, both
are quantized by onnxruntime's quantize_static (QDQ, a scale a channel, u8 activations), calibrated on the same noise.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quant_pre_process, quantize_static

from vs_onnxruntime import ort_session, squared_cosine

STEPS, HORIZON, SIZE = 10, 16, 96
STATE, IMAGE = "observation.state", "observation.images.top"


def policy(down_dims):
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionModel

    config = DiffusionConfig(
        input_features={STATE: PolicyFeature(FeatureType.STATE, (2,)), IMAGE: PolicyFeature(FeatureType.VISUAL, (3, SIZE, SIZE))},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))}, device="cpu", crop_shape=(84, 84),
        down_dims=down_dims, noise_scheduler_type="DDIM", num_inference_steps=STEPS)
    torch.manual_seed(0)
    return config, DiffusionModel(config).eval()


class Encoder(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, state, image):
        return self.model._prepare_global_conditioning({STATE: state, "observation.images": image[:, :, None]})


class Whole(Encoder):
    def forward(self, sample, timestep, state, image):
        return self.model.unet(sample, timestep, global_cond=super().forward(state, image))


class UNet(Encoder):
    def forward(self, sample, timestep, global_cond):
        return self.model.unet(sample, timestep, global_cond=global_cond)


class Feeds(CalibrationDataReader):
    def __init__(self, feeds):
        self.feeds = iter(feeds)

    def get_next(self):
        return next(self.feeds, None)


def export(folder, down_dims):
    """The three graphs, in float and in 8 bits."""
    config, model = policy(down_dims)
    config._save_pretrained(folder)
    rng = np.random.default_rng(0)
    draw = lambda: {"sample": rng.standard_normal((1, HORIZON, 2), np.float32), "timestep": rng.integers(0, 100, 1),
                    STATE: rng.uniform(-1, 1, (1, 2, 2)).astype(np.float32),
                    IMAGE: rng.standard_normal((1, 2, 3, SIZE, SIZE), np.float32)}
    feeds = [draw() for _ in range(16)]
    encode = lambda feed: model._prepare_global_conditioning({STATE: torch.from_numpy(feed[STATE]), "observation.images": torch.from_numpy(feed[IMAGE])[:, :, None]})
    with torch.no_grad():
        for feed in feeds:
            feed["global_cond"] = encode(feed).numpy()
    for name, module, inputs in [("whole", Whole, ["sample", "timestep", STATE, IMAGE]), ("encoder", Encoder, [STATE, IMAGE]),
                                 ("unet", UNet, ["sample", "timestep", "global_cond"])]:
        path = str(folder / f"{name}.onnx")
        torch.onnx.export(module(model).eval(), tuple(torch.from_numpy(feeds[0][n]) for n in inputs), path, dynamo=True, opset_version=18,
                          external_data=False, input_names=inputs, output_names=["output"], verbose=False)
        prepared = str(folder / f"{name}.prepared.onnx")
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        quantize_static(prepared, str(folder / f"{name}.int8.onnx"), Feeds([{n: f[n] for n in inputs} for f in feeds]),
                        quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                        op_types_to_quantize=["Conv", "Gemm", "MatMul", "ConvTranspose"])
        Path(prepared).unlink()


class Loop:
    """The encoder once and the U-Net ten times, in a DDIM loop with clipping."""

    def __init__(self, folder, kind):
        self.encoder, self.unet = (ort_session(str(folder / f"{part}{kind}.onnx"), 1) for part in ("encoder", "unet"))
        self.alpha_bar = squared_cosine(100)

    def act(self, noise, state, image):
        cond = self.encoder.run(None, {STATE: state, IMAGE: image})[0]
        x = noise
        for t in range(100 - 100 // STEPS, -1, -100 // STEPS):
            eps = self.unet.run(None, {"sample": x, "timestep": np.array([t]), "global_cond": cond})[0]
            bar, after = self.alpha_bar[t], self.alpha_bar[t - 100 // STEPS] if t >= 100 // STEPS else 1.0
            x0 = np.clip((x - (1 - bar) ** 0.5 * eps) / bar**0.5, -1, 1)
            x = (after**0.5 * x0 + (1 - after) ** 0.5 * eps).astype(np.float32)
        return x

    def round(self, inputs, actions):
        times = []
        for _ in range(actions):
            start = time.perf_counter()
            self.act(*inputs)
            times.append(time.perf_counter() - start)
        return 1e3 * statistics.median(times)


def conditions(folder, inputs):
    arguments = []
    for name, values in zip((STATE, IMAGE), inputs[1:]):
        np.save(folder / f"{name}.npy", values)
        arguments += ["--cond", f"{name}={folder / name}.npy"]
    return arguments


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="the edgegen binary")
    parser.add_argument("folder", help="where to put the exported policy")
    parser.add_argument("--down-dims", type=int, nargs=3, default=(128, 256, 512))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--actions", type=int, default=20, help="actions a round")
    args = parser.parse_args()
    folder = Path(args.folder)
    if not (folder / "whole.int8.onnx").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        export(folder, tuple(args.down_dims))
    rng = np.random.default_rng(1)
    inputs = (rng.standard_normal((1, HORIZON, 2), np.float32), rng.uniform(-1, 1, (1, 2, 2)).astype(np.float32),
              rng.standard_normal((1, 2, 3, SIZE, SIZE), np.float32))
    given = conditions(folder, inputs)
    print(f"onnxruntime {onnxruntime.__version__}; one thread; medians of {args.rounds} rounds of {args.actions} actions\n")
    print("| policy | edgegen, ms an action | onnxruntime | ratio | difference of actions | allocations an action |\n|---|---|---|---|---|---|")
    for kind in ("", ".int8"):
        loop, path = Loop(folder, kind), str(folder / f"whole{kind}.onnx")
        theirs = loop.act(*inputs)
        np.save(folder / "noise.npy", inputs[0])
        out = folder / "actions.npy"
        subprocess.run([args.program, "-m", path, "--noise", str(folder / "noise.npy"), *given, "--quiet", str(out)], check=True)
        off = np.abs(np.load(out).reshape(theirs.shape) - theirs).max()
        rounds = []
        for _ in range(args.rounds):
            run = subprocess.run([args.program, "bench", path, *given, "--runs", str(args.actions), "--report", "json"], check=True, capture_output=True)
            rounds.append((json.loads(run.stdout), loop.round(inputs, args.actions)))
        ours, ort = statistics.median(r[0]["image_ms"] for r in rounds), statistics.median(r[1] for r in rounds)
        ratio = statistics.median(r[0]["image_ms"] / r[1] for r in rounds)
        print(f"| whole{kind}.onnx | {ours:.2f} | {ort:.2f} | {ratio:.2f} | {off:.1e} | {rounds[0][0]['allocations_per_image']} |")


if __name__ == "__main__":
    sys.exit(main())
