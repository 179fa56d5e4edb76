#!/usr/bin/env python3
"""Trains four small networks of the kinds that people bring, and exports them: trained_networks.py FOLDER [MINUTES]

    pip install -r tools/bench/requirements-trained.txt
    nice -n 10 python3 tools/bench/trained_networks.py target/trained 8

FOLDER gets NAME.onnx in float, with its schedule, and the data that it was trained on in NAME/, as `edgegen-trainer quantize
--data` reads it: samples.npy, and a file for each condition by its input's name. The networks are

    unet2d      diffusers' UNet2DModel: 80 and 160 channels, attention at 7×7, ten classes
    dit         diffusers' DiTTransformer2DModel: four blocks of 256 channels, patches of 2×2, ten classes
    lucidrains  denoising_diffusion_pytorch's Unet: 64 and 128 channels, linear and full attention with memories
    lerobot     LeRobot's DiffusionConditionalUnet1d: 128, 256 and 512 channels over 16 actions

The first three see Fashion-MNIST with every 2×2 pixels together, [4, 14, 14]. The last sees paths on a plane from a start to a
goal, past an obstacle on either side, under what a policy would observe: those three places.
"""

import gzip
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import functional as F

PICTURES = Path("/usr/share/datasets/fashion-mnist")
SCHEDULER = {"_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2",
             "prediction_type": "epsilon", "clip_sample": True, "timestep_spacing": "trailing"}
SAVED = 4096


class First(nn.Module):
    """A network of diffusers with its inputs in order, and its first output alone."""

    def __init__(self, network, names):
        super().__init__()
        self.network, self.names = network, names

    def forward(self, *inputs):
        return self.network(**dict(zip(self.names, inputs)), return_dict=False)[0]


def idx(name, header):
    return np.frombuffer(gzip.decompress((PICTURES / name).read_bytes()), np.uint8)[header:]


def pictures(classes):
    x = torch.from_numpy(idx("train-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28).copy()).float() / 127.5 - 1
    x = F.pixel_unshuffle(x, 2)
    labels = torch.from_numpy(idx("train-labels-idx1-ubyte.gz", 8).astype(np.int64))
    return x, {"class_labels": labels} if classes else {}


def paths(count=50000, horizon=16):
    """Paths from a start to a goal that bend past an obstacle near their middle, on the side that a coin says."""
    random = np.random.default_rng(7)
    start, goal = random.uniform(-0.8, 0.8, (2, count, 2))
    obstacle = (start + goal) / 2 + random.normal(0, 0.05, (count, 2))
    along = goal - start
    across = np.stack([-along[:, 1], along[:, 0]], 1) / (np.linalg.norm(along, axis=1, keepdims=True) + 1e-6)
    side = random.choice([-1.0, 1.0], (count, 1)) * random.uniform(0.2, 0.35, (count, 1))
    s = np.linspace(0, 1, horizon)[None, :, None]
    path = start[:, None] + s * along[:, None] + np.sin(np.pi * s) * (side * across)[:, None]
    sample = torch.from_numpy(path.clip(-1, 1).astype(np.float32))
    return sample, {"global_cond": torch.from_numpy(np.concatenate([start, goal, obstacle], 1).astype(np.float32))}


def unet2d():
    import diffusers

    network = diffusers.UNet2DModel(
        sample_size=14, in_channels=4, out_channels=4, block_out_channels=(80, 160), layers_per_block=1, norm_num_groups=16,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=40, num_class_embeds=10)
    return First(network, ["sample", "timestep", "class_labels"]), pictures(True), 1e-3


def dit():
    import diffusers

    network = diffusers.DiTTransformer2DModel(
        num_attention_heads=4, attention_head_dim=64, in_channels=4, num_layers=4, sample_size=14, patch_size=2,
        num_embeds_ada_norm=10, activation_fn="gelu-approximate", attention_bias=True)
    return First(network, ["hidden_states", "timestep", "class_labels"]), pictures(True), 5e-4


def lucidrains():
    from denoising_diffusion_pytorch.denoising_diffusion_pytorch import Unet

    return Unet(dim=64, channels=4, dim_mults=(1, 2), flash_attn=False), pictures(False), 1e-3


def lerobot():
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionConditionalUnet1d

    config = DiffusionConfig(down_dims=(128, 256, 512), output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))})
    return DiffusionConditionalUnet1d(config, global_cond_dim=6), paths(), 5e-4


NETWORKS = {"lerobot": lerobot, "unet2d": unet2d, "dit": dit, "lucidrains": lucidrains}


def alphas_cumprod(steps=1000):
    bar = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
    return torch.from_numpy(np.cumprod(1 - np.minimum(1 - bar[1:] / bar[:-1], 0.999))).float()


def train(network, samples, conditions, rate, minutes, batch=16):
    """The network with the average of its weights, trained for so long to predict the noise."""
    bar, start, step = alphas_cumprod(), time.monotonic(), 0
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-4)
    average = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99))
    recent = []
    while (share := (time.monotonic() - start) / (60 * minutes)) < 1:
        optimizer.param_groups[0]["lr"] = rate * min(1, (step + 1) / 50) * (0.5 + 0.5 * np.cos(np.pi * share))
        i, t = torch.randint(len(samples), (batch,)), torch.randint(1000, (batch,))
        noise = torch.randn(batch, *samples.shape[1:])
        level = bar[t].reshape(-1, *[1] * (samples.dim() - 1))
        loss = F.mse_loss(network(level.sqrt() * samples[i] + (1 - level).sqrt() * noise, t, *[c[i] for c in conditions.values()]), noise)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(network)
        recent, step = [*recent[-199:], loss.item()], step + 1
    print(f"{step} steps of {batch}, loss {np.mean(recent):.4f}, {sum(p.numel() for p in network.parameters()):,} weights", flush=True)
    return average.module.eval()


def main():
    folder, minutes = Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 8
    for name in sys.argv[3:] or NETWORKS:
        torch.manual_seed(0)
        network, (samples, conditions), rate = NETWORKS[name]()
        print(name, end=": ", flush=True)
        trained = train(network, samples, conditions, rate, minutes)
        (folder / name).mkdir(parents=True, exist_ok=True)
        np.save(folder / name / "samples.npy", samples[:SAVED].numpy())
        for key, value in conditions.items():
            np.save(folder / name / f"{key}.npy", value[:SAVED].numpy())
        inputs, path = (samples[:1], torch.tensor([500]), *[c[:1] for c in conditions.values()]), folder / f"{name}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(trained, inputs, path, dynamo=False, opset_version=17, output_names=["eps"],
                              input_names=["sample", "timestep", *conditions])
        proto = onnx.load(path)
        classes = {"edgegen.classes": json.dumps([str(k) for k in range(10)])} if "class_labels" in conditions else {}
        onnx.helper.set_model_props(proto, {"edgegen.scheduler": json.dumps(SCHEDULER)} | classes)
        onnx.save(proto, path)


if __name__ == "__main__":
    main()
