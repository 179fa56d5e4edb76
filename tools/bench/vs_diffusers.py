#!/usr/bin/env python3
"""The cost of sampling without the network, beside diffusers' schedulers on tensors of the same size.

    pip install -r tools/fixtures/requirements-diffusers.txt
    python3 tools/bench/vs_diffusers.py [NUMBERS A SAMPLE, 784]

A run is ten steps with a network that returns what it is given; the median of many, in microseconds, on
one thread. diffusers also computes its tables in every run; that is not counted here.
"""

import statistics
import subprocess
import sys
import time
import warnings

import diffusers
import torch

# our solver: diffusers' class and options
PAIRS = {
    "ddim": ("DDIMScheduler", dict(clip_sample=False, timestep_spacing="trailing")),
    "ddpm": ("DDPMScheduler", dict(clip_sample=False, timestep_spacing="trailing")),
    "euler": ("EulerDiscreteScheduler", dict(timestep_spacing="trailing")),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", dict(timestep_spacing="trailing")),
    "heun": ("HeunDiscreteScheduler", dict(timestep_spacing="trailing")),
    "lms": ("LMSDiscreteScheduler", dict(timestep_spacing="trailing")),
    "plms": ("PNDMScheduler", dict(skip_prk_steps=True, timestep_spacing="trailing")),
    "deis-log-rho": ("DEISMultistepScheduler", dict(solver_order=3, timestep_spacing="trailing")),
    "dpm++2m": ("DPMSolverMultistepScheduler", dict(timestep_spacing="trailing")),
    "dpm++3m": ("DPMSolverMultistepScheduler", dict(solver_order=3, timestep_spacing="trailing")),
    "dpm++2m-sde": ("DPMSolverMultistepScheduler", dict(algorithm_type="sde-dpmsolver++", timestep_spacing="trailing")),
    "unipc-2": ("UniPCMultistepScheduler", dict(timestep_spacing="trailing")),
    "unipc-3": ("UniPCMultistepScheduler", dict(solver_order=3, timestep_spacing="trailing")),
}


def ours(length):
    command = ["cargo", "run", "-q", "--release", "--example", "solver_overhead", "--no-default-features", "--"]
    out = subprocess.run([*command, str(length)], check=True, capture_output=True, text=True).stdout
    return {name: float(value) for name, value in (line.split() for line in out.splitlines())}


def theirs(name, options, length, runs=60):
    scheduler = getattr(diffusers, name)(**options)
    times = []
    for _ in range(runs):
        scheduler.set_timesteps(10)
        x = torch.full((1, length, 1, 1), 0.5)
        start = time.perf_counter()
        for t in scheduler.timesteps:
            network = scheduler.scale_model_input(x, t).clone()
            x = scheduler.step(network, t, x).prev_sample
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def main():
    warnings.simplefilter("ignore")
    diffusers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    length = int(sys.argv[1]) if len(sys.argv) > 1 else 784
    mine = ours(length)
    print(f"{'us for ten steps':<18} {'edgegen':>9} {'diffusers':>10} {'ratio':>6}")
    for name, (scheduler, options) in PAIRS.items():
        other = theirs(scheduler, options, length)
        print(f"{name:<18} {mine[name]:>9.1f} {other:>10.0f} {other / mine[name]:>6.0f}")


if __name__ == "__main__":
    main()
