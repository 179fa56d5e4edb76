#!/usr/bin/env python3
"""A training step of edgegen-trainer against the same step in PyTorch, on a CPU.

The same network (the default one), the same weights, batch and number of threads; the two take turns,
several rounds, and the ratio of each round's medians is reported, so that what else the machine does
falls on both. First both take the loss and the gradient's norm of one batch from the same weights, which
must agree to 1e-4.

    cargo build --release -p edgegen-trainer
    python3 tools/trainer/bench/step_vs_torch.py target/release/edgegen-trainer

Needs torch and numpy.
"""

import argparse
import json
import math
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

BASE, MULT, PATCH, GROUPS = 48, (1, 2), 2, 8


def read_safetensors(path):
    """The tensors of a safetensors file, by name. The format is a length, JSON and raw numbers."""
    raw = Path(path).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header, body = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            kind = {"F32": "<f4", "U32": "<u4"}[entry["dtype"]]
            values = np.frombuffer(body[start:end], dtype=kind).reshape(entry["shape"])
            tensors[name] = torch.tensor(values.astype("<i8" if kind == "<u4" else kind))
    return tensors


class Unet:
    """The network of src/unet.rs in PyTorch's own operators."""

    def __init__(self, parameters):
        self.p = {name: t.clone().requires_grad_() for name, t in parameters.items()}

    def linear(self, name, x):
        return F.linear(x, self.p[name + ".w"], self.p[name + ".b"])

    def conv(self, name, x, stride=1):
        w = self.p[name + ".w"]
        return F.conv2d(x, w, self.p[name + ".b"], stride=stride, padding=w.shape[-1] // 2)

    def norm(self, name, x):
        return F.group_norm(x, GROUPS, self.p[name + ".w"], self.p[name + ".b"])

    def block(self, name, x, embedding):
        h = F.conv2d(F.silu(self.norm(name + ".n1", x)), self.p[name + ".c1.w"], padding=1)
        h = h + self.linear(name + ".e", embedding)[:, :, None, None]
        h = self.conv(name + ".c2", F.silu(self.norm(name + ".n2", h)))
        return h + (self.conv(name + ".s", x) if name + ".s.w" in self.p else x)

    def attention(self, x):
        b, c, h, w = x.shape
        q, k, v = self.conv("attn.qkv", self.norm("attn.n", x)).reshape(b, 3, c, h * w).unbind(1)
        weights = F.softmax(q.transpose(1, 2) @ k / math.sqrt(c), dim=-1)
        return x + self.conv("attn.o", (v @ weights.transpose(1, 2)).reshape(b, c, h, w))

    def __call__(self, x, t, labels):
        half = BASE // 2
        angles = t[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / (half - 1))[None]
        time_embedding = self.linear("t1", torch.cat([angles.sin(), angles.cos()], 1))
        embedding = F.silu(self.linear("t2", F.silu(time_embedding)) + self.p["label.w"][labels])
        h = self.conv("in", F.pixel_unshuffle(x, PATCH))
        skips = []
        for level in range(len(MULT)):
            h = self.block(f"d{level}.0", h, embedding)
            skips.append(h)
            if level + 1 < len(MULT):
                h = self.conv(f"down{level}", h, stride=2)
        h = self.attention(self.block("m0", h, embedding))
        for level in reversed(range(len(MULT))):
            h = self.block(f"u{level}.0", torch.cat([h, skips[level]], 1), embedding)
            if level > 0:
                h = self.conv(f"up{level}", F.interpolate(h, scale_factor=2, mode="nearest"))
        return F.pixel_shuffle(self.conv("out", F.silu(self.norm("out.n", h))), PATCH)


class Training:
    """The step of src/train.rs: v-prediction, clipping, AdamW, moving average."""

    def __init__(self, parameters, batch):
        self.net, self.batch = Unet(parameters), batch
        self.parameters = list(self.net.p.values())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-3, weight_decay=0.0)
        self.ema = [p.detach().clone() for p in self.parameters]
        steps = torch.arange(1001, dtype=torch.float64) / 1000
        alpha_bar = torch.cos((steps + 0.008) / 1.008 * math.pi / 2) ** 2
        beta = (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)
        self.alpha_bar = torch.cumprod(1 - beta, 0).float()
        self.pixels = torch.randint(0, 256, (4 * batch, 1, 28, 28), dtype=torch.uint8)

    def step(self):
        chosen = torch.randint(0, len(self.pixels), (self.batch,))
        x0 = self.pixels[chosen].float() / 127.5 - 1
        t = torch.randint(0, 1000, (self.batch,))
        labels = torch.where(torch.rand(self.batch) < 0.1, 10, chosen % 10)
        eps = torch.randn_like(x0)
        gamma = self.alpha_bar[t].sqrt()[:, None, None, None]
        sigma = (1 - self.alpha_bar[t]).sqrt()[:, None, None, None]
        output = self.net(gamma * x0 + sigma * eps, t.float(), labels)
        loss = F.mse_loss(output, gamma * eps - sigma * x0)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.ema, self.parameters, 1e-3)
        return loss.item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="the edgegen-trainer binary")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="steps of each side a round")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    def ours(steps, *more):
        command = [args.program, "bench-step", "--batch", str(args.batch), "--threads", str(args.threads)]
        out = subprocess.run([*command, "--steps", str(steps), *more], check=True, capture_output=True)
        return json.loads(out.stdout)

    with tempfile.TemporaryDirectory() as folder:
        report = ours(10, "--save", folder)
        model = read_safetensors(f"{folder}/model.safetensors")
        batch = read_safetensors(f"{folder}/batch.safetensors")
    parameters = {name.removeprefix("model."): t for name, t in model.items() if name.startswith("model.")}
    training = Training(parameters, args.batch)
    count = sum(p.numel() for p in training.parameters)
    print(f"torch {torch.__version__}, {args.threads} threads, batch {args.batch}, {count} parameters, "
          f"{report['multiply_adds'] / 1e6:.1f} M multiply-adds a sample")
    loss = F.mse_loss(training.net(batch["x"], batch["t"], batch["labels"]), batch["target"])
    loss.backward()
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in training.parameters))
    for what, mine, theirs in ("loss", report["loss"], loss.item()), ("gradient norm", report["gradient_norm"], norm):
        print(f"{what} of one batch: edgegen-trainer {mine:.7f}, torch {theirs:.7f}")
        assert abs(mine - theirs) < 1e-4 * theirs, what
    training.step()
    ratios = []
    for round_ in range(args.rounds):
        mine = statistics.median(ours(args.steps)["seconds"])
        theirs = []
        for _ in range(args.steps):
            start = time.perf_counter()
            training.step()
            theirs.append(time.perf_counter() - start)
        theirs = statistics.median(theirs)
        ratios.append(mine / theirs)
        print(f"round {round_}: edgegen-trainer {mine * 1e3:.0f} ms, torch {theirs * 1e3:.0f} ms, ratio {mine / theirs:.2f}")
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
