#!/usr/bin/env python3
"""The benchmark's larger networks: U-Nets with seeded random weights, in float and static int8.

    pip install -r tools/bench/requirements-networks.txt
    python3 tools/bench/networks.py target/networks

Writes, each with a schedule in its metadata:

    unet-271m.onnx          28×28×1, 32 channels ×1 ×2 ×2, two residual blocks a level, attention at 7×7: 271 M multiply-adds
    unet-1418m.onnx         32×32×3, 64 channels, otherwise the same: 1,418 M multiply-adds
    einsum-128.onnx         128×128×3 as PyTorch's TorchScript exporter writes it, attention by einsum
    unet-….int8.onnx        the first two quantized by onnxruntime: QDQ, u8 activations, s8 weights a channel, all of Conv,
                            MatMul and Gemm, which is the form that onnxruntime itself runs fastest
    policy.onnx             the 1-D U-Net of diffusion policy, 256 to 1,024 channels over 16 actions: 67 M weights
    policy.f16.onnx         the same with its weights in 16 bits, cast to 32 in the graph
    policy.w8.onnx          the same with its weights in 8 bits (DequantizeLinear), activations in float
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SCHEDULER = json.dumps({"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 1000, "prediction_type": "epsilon"})


class Graph:
    """ONNX nodes and stored tensors, with random ones from a seed."""

    def __init__(self, seed):
        self.nodes, self.stored, self.random = [], [], np.random.default_rng(seed)

    def store(self, array):
        name = f"c{len(self.stored)}"
        self.stored.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def normal(self, *shape, scale):
        return self.store((self.random.standard_normal(shape) * scale).astype(np.float32))

    def op(self, kind, *inputs, **attributes):
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def ints(self, *values):
        return self.store(np.array(values, np.int64))

    def silu(self, x):
        return self.op("Mul", x, self.op("Sigmoid", x))

    def conv(self, x, c_in, c_out, kernel=3, stride=1, gain=1.0):
        weights = self.normal(c_out, c_in, kernel, kernel, scale=gain / math.sqrt(c_in * kernel**2))
        pads, bias = [(kernel - 1) // 2] * 4, self.normal(c_out, scale=0.05)
        return self.op("Conv", x, weights, bias, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads)

    def linear(self, x, c_in, c_out):
        return self.op("Gemm", x, self.normal(c_out, c_in, scale=c_in**-0.5), self.normal(c_out, scale=0.05), transB=1)

    def norm(self, x, c, side, groups=8):
        unit = [self.store(np.full(groups, v, np.float32)) for v in (1.0, 0.0)]
        x = self.op("InstanceNormalization", self.op("Reshape", x, self.ints(0, groups, -1)), *unit, epsilon=1e-5)
        x = self.op("Reshape", x, self.ints(1, c, side, side))
        scale = self.store((1 + 0.1 * self.random.standard_normal((1, c, 1, 1))).astype(np.float32))
        return self.op("Add", self.op("Mul", x, scale), self.normal(1, c, 1, 1, scale=0.1))

    def residual(self, x, embedding, c_in, c_out, side):
        h = self.conv(self.silu(self.norm(x, c_in, side)), c_in, c_out)
        h = self.op("Add", h, self.op("Unsqueeze", self.linear(embedding[0], embedding[1], c_out), self.ints(2, 3)))
        h = self.conv(self.silu(self.norm(h, c_out, side)), c_out, c_out, gain=0.7)
        return self.op("Add", x if c_in == c_out else self.conv(x, c_in, c_out, kernel=1), h)

    def attention(self, x, c, side):
        h, pixels = self.norm(x, c, side), side * side
        q, k, v = (self.op("Reshape", self.conv(h, c, c, kernel=1), self.ints(0, c, pixels)) for _ in range(3))
        scores = self.op("MatMul", self.op("Transpose", q, perm=[0, 2, 1]), k)
        weights = self.op("Softmax", self.op("Mul", scores, self.store(np.array(c**-0.5, np.float32))), axis=-1)
        h = self.op("MatMul", v, self.op("Transpose", weights, perm=[0, 2, 1]))
        return self.op("Add", x, self.conv(self.op("Reshape", h, self.ints(1, c, side, side)), c, c, kernel=1))


def unet(channels, side, colours, multiples=(1, 2, 2), blocks=2, classes=10, seed=0):
    g, width = Graph(seed), 4 * channels
    half = channels // 2
    frequencies = g.store(np.exp(-math.log(10000) * np.arange(half) / half).astype(np.float32)[None])
    angle = g.op("Mul", g.op("Unsqueeze", "timestep", g.ints(1)), frequencies)
    e = g.linear(g.op("Concat", g.op("Sin", angle), g.op("Cos", angle), axis=1), channels, width)
    e = g.linear(g.silu(e), width, width)
    e = g.op("Add", e, g.op("Gather", g.normal(classes + 1, width, scale=0.3), "class_labels", axis=0))
    e = (g.silu(e), width)
    h, c, n = g.conv("sample", colours, channels), channels, side
    skips = [(h, c)]
    for level, multiple in enumerate(multiples):
        for _ in range(blocks):
            h, c = g.residual(h, e, c, channels * multiple, n), channels * multiple
            skips.append((h, c))
        if level + 1 < len(multiples):
            h, n = g.conv(h, c, c, stride=2), n // 2
            skips.append((h, c))
    h = g.residual(g.attention(g.residual(h, e, c, c, n), c, n), e, c, c, n)
    for level, multiple in reversed(list(enumerate(multiples))):
        for _ in range(blocks + 1):
            skip, more = skips.pop()
            h, c = g.residual(g.op("Concat", h, skip, axis=1), e, c + more, channels * multiple, n), channels * multiple
        if level:
            scales, n = g.store(np.array([1, 1, 2, 2], np.float32)), 2 * n
            h = g.op("Resize", h, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
            h = g.conv(h, c, c)
    h = g.conv(g.silu(g.norm(h, c, n)), c, colours)
    value = helper.make_tensor_value_info
    inputs = [value("sample", TensorProto.FLOAT, [1, colours, side, side]), value("timestep", TensorProto.FLOAT, [1]),
              value("class_labels", TensorProto.INT64, [1])]
    outputs = [value(h, TensorProto.FLOAT, [1, colours, side, side])]
    model = helper.make_model(helper.make_graph(g.nodes, "unet", inputs, outputs, g.stored),
                              opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def quantize(path, target):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Noise(CalibrationDataReader):
        def __init__(self):
            shape, random = [d.dim_value for d in onnx.load(path).graph.input[0].type.tensor_type.shape.dim], np.random.default_rng(3)
            self.feeds = iter([{"sample": random.standard_normal(shape, dtype=np.float32), "timestep": np.array([125.0 * i], np.float32),
                                "class_labels": np.array([i], np.int64)} for i in range(8)])

        def get_next(self):
            return next(self.feeds, None)

    quantize_static(path, target, Noise(), quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["Conv", "MatMul", "Gemm"])


def einsum_network():
    """A 128×128 U-Net as PyTorch users write them: GroupNorm modules, einsum attention at 16×16 and 32×32."""
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, c_in, c_out, width):
            super().__init__()
            self.a, self.b = nn.GroupNorm(8, c_in), nn.GroupNorm(8, c_out)
            self.first, self.second = nn.Conv2d(c_in, c_out, 3, padding=1), nn.Conv2d(c_out, c_out, 3, padding=1)
            self.embed, self.skip = nn.Linear(width, c_out), nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

        def forward(self, x, e):
            h = self.first(nn.functional.silu(self.a(x))) + self.embed(e)[:, :, None, None]
            return self.skip(x) + self.second(nn.functional.silu(self.b(h)))

    class Attention(nn.Module):
        def __init__(self, c, heads=4):
            super().__init__()
            self.norm, self.qkv, self.out, self.heads = nn.GroupNorm(8, c), nn.Conv1d(c, 3 * c, 1), nn.Conv1d(c, c, 1), heads

        def forward(self, x):
            b, c, h, w = x.shape
            qkv = self.qkv(self.norm(x).reshape(b, c, h * w)).reshape(b * self.heads, 3 * c // self.heads, h * w)
            q, k, v = qkv.chunk(3, dim=1)
            scale = (c // self.heads) ** -0.25
            weights = torch.softmax(torch.einsum("bct,bcs->bts", q * scale, k * scale), dim=-1)
            mixed = torch.einsum("bts,bcs->bct", weights, v).reshape(b, c, h * w)
            return x + self.out(mixed).reshape(b, c, h, w)

    class Net(nn.Module):
        def __init__(self, channels=32, multiples=(1, 2, 4, 4)):
            super().__init__()
            self.channels, width = channels, 4 * channels
            self.embed = nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
            self.first = nn.Conv2d(3, channels, 3, padding=1)
            sizes = [channels * m for m in multiples]
            ins = [channels] + sizes[:-1]
            self.down = nn.ModuleList(Residual(i, o, width) for i, o in zip(ins, sizes))
            self.smaller = nn.ModuleList(nn.Conv2d(c, c, 3, stride=2, padding=1) for c in sizes[:-1])
            self.middle = nn.ModuleList([Residual(sizes[-1], sizes[-1], width), Attention(sizes[-1]), Residual(sizes[-1], sizes[-1], width)])
            self.up = nn.ModuleList(Residual(2 * o if k == len(sizes) - 1 else o + sizes[k + 1], o, width) for k, o in enumerate(sizes))
            self.attention = Attention(sizes[2])
            self.norm, self.last = nn.GroupNorm(8, channels), nn.Conv2d(channels, 3, 3, padding=1)

        def forward(self, sample, timestep):
            half = self.channels // 2
            angle = timestep[:, None].float() * torch.exp(-math.log(10000) * torch.arange(half) / half)[None]
            e = self.embed(torch.cat([angle.sin(), angle.cos()], dim=1))
            h, skips = self.first(sample), []
            for k, block in enumerate(self.down):
                h = block(h, e)
                h = self.attention(h) if k == 2 else h
                skips.append(h)
                h = self.smaller[k](h) if k < len(self.smaller) else h
            h = self.middle[2](self.middle[1](self.middle[0](h, e)), e)
            for k in reversed(range(len(self.up))):
                h = self.up[k](torch.cat([h, skips[k]], dim=1), e)
                h = nn.functional.interpolate(h, scale_factor=2.0, mode="nearest") if k else h
            return self.last(nn.functional.silu(self.norm(h)))

    torch.manual_seed(0)
    return Net().eval(), (torch.randn(1, 3, 128, 128), torch.tensor([500.0]))


def policy_network():
    sys.path.insert(0, str(Path(__file__).parent.parent / "fixtures"))
    import torch
    from exports import ConditionalUnet1D

    torch.manual_seed(0)
    network = ConditionalUnet1D(action=2, condition=66, step_dim=128, down=(256, 512, 1024), kernel=5, groups=8)
    return network.eval(), (torch.randn(1, 16, 2), torch.tensor([50]), torch.randn(1, 66))


def stored_smaller(model, bits):
    """The model with the weights of convolutions and matrices in 8 or 16 bits."""
    stored = {t.name: t for t in model.graph.initializer}
    transposed = {n.input[1] for n in model.graph.node if n.op_type == "ConvTranspose"}
    weights = {n.input[1] for n in model.graph.node if n.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")}
    for name in sorted(weights & stored.keys()):
        value, tensor = numpy_helper.to_array(stored[name]), stored[name]
        small = f"{name}.small"
        if bits == 16:
            node = helper.make_node("Cast", [small], [name], to=TensorProto.FLOAT)
            value = value.astype(np.float16)
        else:
            axis = 1 if name in transposed else 0
            scale = np.abs(value).max(axis=tuple(d for d in range(value.ndim) if d != axis)) / 127
            value = np.round(value / scale.reshape([-1 if d == axis else 1 for d in range(value.ndim)])).astype(np.int8)
            model.graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), f"{name}.scale"))
            node = helper.make_node("DequantizeLinear", [small, f"{name}.scale"], [name], axis=axis)
        model.graph.initializer.remove(tensor)
        model.graph.initializer.append(numpy_helper.from_array(value, small))
        model.graph.node.insert(0, node)
    return model


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "target/networks")
    folder.mkdir(parents=True, exist_ok=True)

    def save(model, name):
        classes = {"edgegen.null_class": "10"} if any(i.name == "class_labels" for i in model.graph.input) else {}
        helper.set_model_props(model, {"edgegen.scheduler": SCHEDULER} | classes)
        onnx.save(model, folder / name)

    for name, arguments in [("unet-271m", (32, 28, 1)), ("unet-1418m", (64, 32, 3))]:
        save(unet(*arguments), f"{name}.onnx")
        quantize(folder / f"{name}.onnx", folder / f"{name}.int8.onnx")
        save(onnx.load(folder / f"{name}.int8.onnx"), f"{name}.int8.onnx")
    import torch

    network, inputs = einsum_network()
    path = folder / "einsum-128.onnx"
    torch.onnx.export(network, inputs, path, dynamo=False, opset_version=17, input_names=["sample", "timestep"],
                      output_names=["eps"], dynamic_axes={"sample": {0: "batch"}, "timestep": {0: "batch"}})
    save(onnx.load(path), path.name)
    network, inputs = policy_network()
    path = folder / "policy.onnx"
    torch.onnx.export(network, inputs, path, dynamo=False, opset_version=17, input_names=["sample", "timestep", "global_cond"],
                      output_names=["eps"])
    save(onnx.load(path), path.name)
    for bits, form in [(16, "f16"), (8, "w8")]:
        save(stored_smaller(onnx.load(path), bits), f"policy.{form}.onnx")
    for file in sorted(folder.glob("*.onnx")):
        print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
