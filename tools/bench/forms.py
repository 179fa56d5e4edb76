#!/usr/bin/env python3
"""Networks in the forms that people have, beside diffusers' U-Nets, with seeded random weights.

    pip install -r tools/bench/requirements-networks.txt
    python3 tools/bench/forms.py target/forms
    python3 tools/bench/vs_onnxruntime.py target/release/edgegen target/forms/*.onnx

Writes, each with a schedule in its metadata, by PyTorch's exporter (dynamo, opset 18, or 23 where attention is one node):

    lucidrains.onnx     32×32×3: RMS norms over channels, linear and full attention, pixels folded into channels
    maxpool.onnx        32×32×3: convolution, batch norm, ReLU; max pooling; bilinear upsampling with aligned corners
    wavenet.onnx        1×2048: dilated convolutions of a sequence with gates, as in DiffWave
    nafnet.onnx         64×64×3: layer norms over channels, depthwise convolutions, gates, channel attention by a global mean
    dit.onnx            32×32×4, patches of 2: a transformer with adaptive layer norms, attention as ONNX's operator
    ddpm.onnx           32×32×3: diffusers' U-Net with padding on one side before it halves an image, as google/ddpm has it
    dit.dynamic.onnx    the transformer, dynamically quantized by onnxruntime
"""

import math
import sys
from pathlib import Path

import onnx
import torch
from onnx import helper
from torch import nn
from torch.nn import functional as F

from networks import SCHEDULER


def embedding(t, width):
    half = width // 2
    angle = t[:, None].float() * torch.exp(-math.log(10000) * torch.arange(half) / half)[None]
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class Time(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.width, self.layers = width, nn.Sequential(nn.Linear(width, out), nn.SiLU(), nn.Linear(out, out), nn.SiLU())

    def forward(self, t):
        return self.layers(embedding(t, self.width))


class RmsNorm(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.g, self.scale = nn.Parameter(1 + 0.1 * torch.randn(1, c, 1, 1)), c**0.5

    def forward(self, x):
        return F.normalize(x, dim=1) * self.g * self.scale


class Lucidrains(nn.Module):
    class Block(nn.Module):
        def __init__(self, c_in, c_out, width):
            super().__init__()
            self.time, self.first, self.second = nn.Linear(width, 2 * c_out), nn.Conv2d(c_in, c_out, 3, padding=1), nn.Conv2d(c_out, c_out, 3, padding=1)
            self.a, self.b = RmsNorm(c_out), RmsNorm(c_out)
            self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

        def forward(self, x, e):
            scale, shift = self.time(e)[:, :, None, None].chunk(2, dim=1)
            h = F.silu(self.a(self.first(x)) * (scale + 1) + shift)
            return self.skip(x) + F.silu(self.b(self.second(h)))

    class LinearAttention(nn.Module):
        def __init__(self, c, heads=4, each=32):
            super().__init__()
            self.heads, self.each, self.norm = heads, each, RmsNorm(c)
            self.qkv, self.out = nn.Conv2d(c, 3 * heads * each, 1, bias=False), nn.Sequential(nn.Conv2d(heads * each, c, 1), RmsNorm(c))

        def forward(self, x):
            b, _, h, w = x.shape
            q, k, v = (part.reshape(b, self.heads, self.each, h * w) for part in self.qkv(self.norm(x)).chunk(3, dim=1))
            q, k = q.softmax(dim=-2) * self.each**-0.5, k.softmax(dim=-1)
            context = torch.einsum("bhdn,bhen->bhde", k, v)
            out = torch.einsum("bhde,bhdn->bhen", context, q)
            return x + self.out(out.reshape(b, self.heads * self.each, h, w))

    class Attention(LinearAttention):
        def __init__(self, c):
            super().__init__(c)
            self.out = nn.Conv2d(self.heads * self.each, c, 1)

        def forward(self, x):
            b, _, h, w = x.shape
            q, k, v = (part.reshape(b, self.heads, self.each, h * w) for part in self.qkv(self.norm(x)).chunk(3, dim=1))
            scores = torch.einsum("bhdi,bhdj->bhij", q * self.each**-0.5, k).softmax(dim=-1)
            out = torch.einsum("bhij,bhdj->bhid", scores, v)
            return x + self.out(out.permute(0, 1, 3, 2).reshape(b, self.heads * self.each, h, w))

    class Smaller(nn.Module):
        def __init__(self, c_in, c_out):
            super().__init__()
            self.conv = nn.Conv2d(4 * c_in, c_out, 1)

        def forward(self, x):
            return self.conv(F.pixel_unshuffle(x, 2))

    def __init__(self, dim=32, multiples=(1, 2, 4)):
        super().__init__()
        sizes, width = [dim * m for m in multiples], 4 * dim
        self.time, self.first = Time(dim, width), nn.Conv2d(3, dim, 7, padding=3)
        ins = [dim] + sizes[:-1]
        last = len(sizes) - 1
        self.down = nn.ModuleList(
            nn.ModuleList([self.Block(c, c, width), self.Block(c, c, width), self.LinearAttention(c) if k < last else self.Attention(c),
                           self.Smaller(c, o) if k < last else nn.Conv2d(c, o, 3, padding=1)]) for k, (c, o) in enumerate(zip(ins, sizes)))
        c = sizes[-1]
        self.middle = nn.ModuleList([self.Block(c, c, width), self.Attention(c), self.Block(c, c, width)])
        self.up = nn.ModuleList(
            nn.ModuleList([self.Block(o + c, o, width), self.Block(o + c, o, width), self.LinearAttention(o) if k < last else self.Attention(o),
                           nn.Conv2d(o, c, 3, padding=1)]) for k, (c, o) in reversed(list(enumerate(zip(ins, sizes)))))
        self.final, self.last = self.Block(2 * dim, dim, width), nn.Conv2d(dim, 3, 1)

    def forward(self, x, t):
        e, x = self.time(t), self.first(x)
        skips, r = [], x
        for a, b, attention, smaller in self.down:
            x = a(x, e)
            skips.append(x)
            x = attention(b(x, e))
            skips.append(x)
            x = smaller(x)
        a, attention, b = self.middle
        x = b(attention(a(x, e)), e)
        for k, (a, b, attention, wider) in enumerate(self.up):
            x = a(torch.cat([x, skips.pop()], dim=1), e)
            x = attention(b(torch.cat([x, skips.pop()], dim=1), e))
            x = wider(x if k == len(self.up) - 1 else F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.last(self.final(torch.cat([x, r], dim=1), e))


class MaxPool(nn.Module):
    class Double(nn.Module):
        def __init__(self, c_in, c_out):
            super().__init__()
            layers = []
            for c in (c_in, c_out):
                layers += [nn.Conv2d(c, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()]
            self.layers = nn.Sequential(*layers)

        def forward(self, x):
            return self.layers(x)

    def __init__(self, sizes=(32, 64, 128, 128), width=128):
        super().__init__()
        self.time, self.first = Time(width, width), self.Double(3, sizes[0])
        pairs = list(zip(sizes, sizes[1:]))
        self.down = nn.ModuleList(nn.ModuleList([self.Double(a, b), nn.Linear(width, b)]) for a, b in pairs)
        self.up = nn.ModuleList(nn.ModuleList([self.Double(a + b, a), nn.Linear(width, a)]) for a, b in reversed(pairs))
        self.last = nn.Conv2d(sizes[0], 3, 1)

    def forward(self, x, t):
        e, x = self.time(t), self.first(x)
        skips = []
        for block, time in self.down:
            skips.append(x)
            x = block(F.max_pool2d(x, 2)) + time(e)[:, :, None, None]
        for block, time in self.up:
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
            x = block(torch.cat([skips.pop(), x], dim=1)) + time(e)[:, :, None, None]
        return self.last(x)


class WaveNet(nn.Module):
    def __init__(self, c=64, layers=10, cycle=10, width=128):
        super().__init__()
        self.time, self.first = Time(width, width), nn.Conv1d(1, c, 1)
        self.layers = nn.ModuleList(
            nn.ModuleList([nn.Conv1d(c, 2 * c, 3, padding=2 ** (k % cycle), dilation=2 ** (k % cycle)), nn.Linear(width, c),
                           nn.Conv1d(c, 2 * c, 1)]) for k in range(layers))
        self.skip, self.last = nn.Conv1d(c, c, 1), nn.Conv1d(c, 1, 1)

    def forward(self, x, t):
        e, x, total = self.time(t), F.relu(self.first(x)), 0
        for dilated, time, both in self.layers:
            gate, value = dilated(x + time(e)[:, :, None]).chunk(2, dim=1)
            h, skip = both(torch.sigmoid(gate) * torch.tanh(value)).chunk(2, dim=1)
            x, total = (x + h) / math.sqrt(2.0), total + skip
        return self.last(F.relu(self.skip(total / math.sqrt(len(self.layers)))))


class NafNet(nn.Module):
    class Norm(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.weight, self.bias = nn.Parameter(1 + 0.1 * torch.randn(c)), nn.Parameter(0.1 * torch.randn(c))

        def forward(self, x):
            mean = x.mean(1, keepdim=True)
            variance = (x - mean).pow(2).mean(1, keepdim=True)
            y = (x - mean) / (variance + 1e-6).sqrt()
            return self.weight.view(1, -1, 1, 1) * y + self.bias.view(1, -1, 1, 1)

    class Block(nn.Module):
        def __init__(self, c, width):
            super().__init__()
            self.time = nn.Linear(width, 4 * c)
            self.norm1, self.norm2 = NafNet.Norm(c), NafNet.Norm(c)
            self.conv1, self.conv2 = nn.Conv2d(c, 2 * c, 1), nn.Conv2d(2 * c, 2 * c, 3, padding=1, groups=2 * c)
            self.attention, self.conv3 = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c, 1)), nn.Conv2d(c, c, 1)
            self.conv4, self.conv5 = nn.Conv2d(c, 2 * c, 1), nn.Conv2d(c, c, 1)
            self.beta, self.gamma = nn.Parameter(0.5 * torch.randn(1, c, 1, 1)), nn.Parameter(0.5 * torch.randn(1, c, 1, 1))

        def forward(self, x, e):
            shift1, scale1, shift2, scale2 = self.time(e)[:, :, None, None].chunk(4, dim=1)
            a, b = self.conv2(self.conv1(self.norm1(x) * (scale1 + 1) + shift1)).chunk(2, dim=1)
            h = a * b
            y = x + self.conv3(h * self.attention(h)) * self.beta
            a, b = self.conv4(self.norm2(y) * (scale2 + 1) + shift2).chunk(2, dim=1)
            return y + self.conv5(a * b) * self.gamma

    def __init__(self, c=32, depths=(1, 1, 2), width=64):
        super().__init__()
        self.time, self.first, self.last = Time(width, width), nn.Conv2d(3, c, 3, padding=1), nn.Conv2d(c, 3, 3, padding=1)
        sizes = [c * 2**k for k in range(len(depths))]
        self.down = nn.ModuleList(nn.ModuleList(self.Block(s, width) for _ in range(n)) for s, n in zip(sizes, depths))
        self.smaller = nn.ModuleList(nn.Conv2d(s, 2 * s, 2, stride=2) for s in sizes)
        self.middle = self.Block(2 * sizes[-1], width)
        self.larger = nn.ModuleList(nn.Conv2d(2 * s, 4 * s, 1, bias=False) for s in sizes)
        self.up = nn.ModuleList(self.Block(s, width) for s in sizes)

    def forward(self, x, t):
        e, h, skips = self.time(t), self.first(x), []
        for blocks, smaller in zip(self.down, self.smaller):
            for block in blocks:
                h = block(h, e)
            skips.append(h)
            h = smaller(h)
        h = self.middle(h, e)
        for k in reversed(range(len(self.up))):
            h = self.up[k](F.pixel_shuffle(self.larger[k](h), 2) + skips[k], e)
        return self.last(h)


class Dit(nn.Module):
    class Block(nn.Module):
        def __init__(self, c, heads):
            super().__init__()
            self.heads, self.modulation = heads, nn.Linear(c, 6 * c)
            self.a, self.b = (nn.LayerNorm(c, elementwise_affine=False, eps=1e-6) for _ in range(2))
            self.qkv, self.out = nn.Linear(c, 3 * c), nn.Linear(c, c)
            self.mlp = nn.Sequential(nn.Linear(c, 4 * c), nn.GELU(approximate="tanh"), nn.Linear(4 * c, c))

        def forward(self, x, e):
            shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(e)[:, None].chunk(6, dim=-1)
            b, n, c = x.shape
            h = self.a(x) * (1 + scale1) + shift1
            q, k, v = self.qkv(h).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
            h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
            x = x + gate1 * self.out(h)
            return x + gate2 * self.mlp(self.b(x) * (1 + scale2) + shift2)

    def __init__(self, side=32, channels=4, c=192, depth=6, heads=3):
        super().__init__()
        self.side, self.c, self.time = side // 2, c, Time(c, c)
        self.patch, self.place = nn.Conv2d(channels, c, 2, stride=2), nn.Parameter(0.1 * torch.randn(1, (side // 2) ** 2, c))
        self.blocks = nn.ModuleList(self.Block(c, heads) for _ in range(depth))
        self.modulation, self.norm = nn.Linear(c, 2 * c), nn.LayerNorm(c, elementwise_affine=False, eps=1e-6)
        self.last = nn.Linear(c, 4 * channels)

    def forward(self, x, t):
        e = self.time(t)
        h = self.patch(x).flatten(2).transpose(1, 2) + self.place
        for block in self.blocks:
            h = block(h, e)
        shift, scale = self.modulation(e)[:, None].chunk(2, dim=-1)
        h = self.last(self.norm(h) * (1 + scale) + shift)
        h = h.reshape(x.shape[0], self.side, self.side, 2, 2, x.shape[1])
        return torch.einsum("nhwpqc->nchpwq", h).reshape(x.shape)


class Ddpm(nn.Module):
    def __init__(self):
        super().__init__()
        import diffusers

        self.network = diffusers.UNet2DModel(
            sample_size=32, block_out_channels=(64, 128, 128), layers_per_block=1, norm_num_groups=32, norm_eps=1e-6,
            downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, act_fn="silu", attention_head_dim=None,
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"))

    def forward(self, x, t):
        return self.network(x, t, return_dict=False)[0]


FORMS = {
    "lucidrains": (Lucidrains, (1, 3, 32, 32), 18),
    "maxpool": (MaxPool, (1, 3, 32, 32), 18),
    "wavenet": (WaveNet, (1, 1, 2048), 18),
    "nafnet": (NafNet, (1, 3, 64, 64), 18),
    "dit": (Dit, (1, 4, 32, 32), 23),
    "ddpm": (Ddpm, (1, 3, 32, 32), 18),
}


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "target/forms")
    folder.mkdir(parents=True, exist_ok=True)

    def save(model, path):
        helper.set_model_props(model, {"edgegen.scheduler": SCHEDULER})
        onnx.save(model, path)
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")

    def export(name, opset):
        network, shape, _ = FORMS[name]
        torch.manual_seed(0)
        network = network().eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        path = folder / f"{name}.onnx"
        torch.onnx.export(network, (torch.randn(shape), torch.tensor([500.0])), path, dynamo=True, opset_version=opset,
                          external_data=False, input_names=["sample", "timestep"], output_names=["eps"])
        return path

    from onnxruntime.quantization import QuantType, quantize_dynamic

    plain = export("dit", 18)
    quantize_dynamic(plain, folder / "dit.dynamic.onnx", weight_type=QuantType.QInt8)
    save(onnx.load(folder / "dit.dynamic.onnx"), folder / "dit.dynamic.onnx")
    for name, (_, _, opset) in FORMS.items():
        path = export(name, opset)
        save(onnx.load(path), path)


if __name__ == "__main__":
    main()
