"""A policy that LeRobot's own code trains, run by PyTorch and by edgegen on the same episodes:

    pip install -r tools/fixtures/requirements-lerobot.txt -r tools/metaworld/requirements.txt      # and edgegen's wheel
    pip install --no-deps lerobot==0.4.4
    python tools/metaworld/lerobot_policy.py OUT

LeRobot's DiffusionPolicy learns one task of tasks.py by its own loss, optimizer, schedule and processors, and is exported as
docs/models.md says. Every stage is skipped whose output is in OUT; demonstrations are those of run.py.
"""

import argparse
import json
from collections import deque
from pathlib import Path

import edgegen
import numpy as np
import torch
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.policies.diffusion.processor_diffusion import make_diffusion_pre_post_processors

import report
import run
from tasks import EPISODE_SEEDS, MOST_STEPS, Task

HAND = 4  # Of Meta-World's 39 numbers, where the hand is and how far its fingers are apart; the others are of the objects and the goal.
SEEN = 39
STATE, ENVIRONMENT = "observation.state", "observation.environment_state"
CALLS = [10, 5, 3, 2, 1]
HERE = Path(__file__).parent


def split(observation):
    return {STATE: observation[..., :HAND], ENVIRONMENT: observation[..., HAND:SEEN]}


class Windows(torch.utils.data.Dataset):
    """The demonstrations as LeRobot's policy takes them: what it asks for of each moment, the ends repeated."""

    def __init__(self, path, config):
        arrays = np.load(path)
        self.actions, self.observations = (torch.from_numpy(arrays[k].astype(np.float32)) for k in ("actions", "observations"))
        ends = arrays["ends"]
        starts = np.concatenate([[0], ends[:-1]])
        last = ends - config.drop_n_last_frames
        self.places = [(at, s, e) for s, l, e in zip(starts, last, ends) for at in range(s, max(l, s + 1))]
        self.seen, self.done = np.array(config.observation_delta_indices), np.array(config.action_delta_indices)

    def __len__(self):
        return len(self.places)

    def __getitem__(self, i):
        at, start, end = self.places[i]
        inside = lambda places: np.clip(places, start, end - 1)
        done = at + self.done
        return {
            **split(self.observations[inside(at + self.seen)]),
            "action": self.actions[inside(done)],
            "action_is_pad": torch.from_numpy((done < start) | (done >= end)),
        }

    def statistics(self):
        whole = {**split(self.observations), "action": self.actions}
        kinds = {"min": lambda x: x.amin(0), "max": lambda x: x.amax(0), "mean": lambda x: x.mean(0), "std": lambda x: x.std(0)}
        return {name: {kind: of(x) for kind, of in kinds.items()} for name, x in whole.items()}


def configuration():
    feature = lambda kind, width: PolicyFeature(getattr(FeatureType, kind), (width,))
    scaled = {"STATE": NormalizationMode.MIN_MAX, "ENV": NormalizationMode.MIN_MAX, "ACTION": NormalizationMode.MIN_MAX}
    return DiffusionConfig(
        input_features={STATE: feature("STATE", HAND), ENVIRONMENT: feature("ENV", SEEN - HAND)},
        output_features={"action": feature("ACTION", 4)},
        normalization_mapping=scaled, device="cpu", down_dims=(64, 128), diffusion_step_embed_dim=64,
        noise_scheduler_type="DDIM", num_inference_steps=10, optimizer_lr=1e-3, scheduler_warmup_steps=100)


def train(demonstrations, out, steps):
    """LeRobot's policy, saved as `save_pretrained` does with its processors."""
    if (out / "model.safetensors").exists():
        return
    torch.manual_seed(1)
    config = configuration()
    data = Windows(demonstrations, config)
    policy = DiffusionPolicy(config)
    before, after = processors = make_diffusion_pre_post_processors(config, data.statistics())
    optimizer = config.get_optimizer_preset().build(policy.get_optim_params())
    rate = config.get_scheduler_preset().build(optimizer, steps)
    print(f"{len(data)} windows, {sum(p.numel() for p in policy.parameters())} weights", flush=True)
    loader, step, losses = torch.utils.data.DataLoader(data, batch_size=64, shuffle=True, drop_last=True), 0, []
    policy.train()
    while step < steps:
        for batch in loader:
            padding = batch.pop("action_is_pad")
            loss, _ = policy.forward({**before(batch), "action_is_pad": padding})
            loss.backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
            optimizer.step()
            rate.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            step += 1
            if step % 500 == 0:
                print(f"step {step}/{steps}: loss {np.mean(losses[-500:]):.4f}", flush=True)
            if step == steps:
                break
    for processor in processors:
        processor.save_pretrained(out)
    policy.save_pretrained(out)


class Whole(torch.nn.Module):
    """As in docs/models.md, "Whole policies"."""

    def __init__(self, policy, features):
        super().__init__()
        self.model, self.features = policy.diffusion, features

    def forward(self, sample, timestep, *observations):
        batch = dict(zip(self.features, observations))
        return self.model.unet(sample, timestep, global_cond=self.model._prepare_global_conditioning(batch))


def export(policy, folder):
    config, path = policy.config, folder / "model.onnx"
    if path.exists():
        return
    features = list(config.input_features)
    seen = [torch.zeros(1, config.n_obs_steps, *config.input_features[name].shape) for name in features]
    example = (torch.zeros(1, config.horizon, config.action_feature.shape[0]), torch.tensor([5]), *seen)
    torch.onnx.export(Whole(policy, features).eval(), example, str(path), dynamo=True, opset_version=18, external_data=False,
                      input_names=["sample", "timestep", *features], output_names=["output"], verbose=False)


def difference(policy, processors, model, data, count=50):
    """The greatest difference of whole plans from the same noise, relative to the greatest action, for what demonstrations saw."""
    before, after = processors
    random, generator, worst, size = np.random.default_rng(0), edgegen.Generator(model), 0.0, 0.0
    shape = (1, policy.config.horizon, 4)
    for place in random.choice(len(data), count, replace=False):
        seen = {name: data[place][name].numpy() for name in (STATE, ENVIRONMENT)}
        noise = random.standard_normal(shape).astype(np.float32)
        ours = generator.generate(conditions=seen, noise=noise[0])
        batch = before({name: torch.from_numpy(x)[None] for name, x in seen.items()})
        with torch.no_grad():
            condition = policy.diffusion._prepare_global_conditioning(batch)
            theirs = after(policy.diffusion.conditional_sample(1, global_cond=condition, noise=torch.from_numpy(noise)))[0].numpy()
        worst, size = max(worst, np.abs(ours - theirs).max()), max(size, np.abs(theirs).max())
    return float(worst / size)


def by_pytorch(policy, processors, calls):
    before, after = processors
    policy.diffusion.num_inference_steps = calls

    def begin(seed):
        torch.manual_seed(seed)
        policy.reset()

    def act(observation):
        batch = before({name: torch.from_numpy(x.copy()) for name, x in split(observation).items()})
        return after(policy.select_action(batch))[0].numpy()

    return begin, act


def from_the_same_noise(model, config, calls):
    """edgegen's plans from the noise that PyTorch draws, so that episodes are alike but for rounding."""
    generator, moments, queue = edgegen.Generator(model, steps=calls), deque(maxlen=config.n_obs_steps), deque()

    def begin(seed):
        torch.manual_seed(seed)
        moments.clear()
        queue.clear()

    def act(observation):
        moments.extend([split(observation)] * (1 if moments else config.n_obs_steps))
        if not queue:
            seen = {name: np.stack([moment[name] for moment in moments]) for name in moments[0]}
            noise = torch.randn(1, config.horizon, 4).numpy()[0]
            first = config.n_obs_steps - 1
            queue.extend(generator.generate(conditions=seen, noise=noise)[first:first + config.n_action_steps])
        return queue.popleft()

    return begin, act


def by_edgegen(model, calls, spacing):
    policy = edgegen.Policy(model, steps=calls, spacing=spacing)
    return policy.reset, lambda observation: policy.act(split(observation))


def episodes(task, begin, act, count):
    rows = []
    for seed in range(count):
        begin(seed)
        observation, success, steps = task.reset(EPISODE_SEEDS + seed), False, 0
        while not success and steps < MOST_STEPS:
            observation, success = task.step(np.clip(act(observation[:SEEN]), -1, 1))
            steps += 1
        rows.append((int(success), steps))
    return {"succeeded": "".join(str(s) for s, _ in rows), "mean_steps": round(float(np.mean([n for _, n in rows])), 1)}


def rate(cell):
    done = np.array(list(map(int, cell["succeeded"])))
    return f"{100 * done.mean():.1f} ± {100 * done.std() / np.sqrt(len(done)):.1f} %"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="where to keep demonstrations, the policy and episodes: run.py's, or another")
    parser.add_argument("--task", default="push-v3", help="of tasks.py (%(default)s)")
    parser.add_argument("--train-steps", type=int, default=6000, help="%(default)s")
    parser.add_argument("--episodes", type=int, default=100, help="of each cell (%(default)s)")
    a = parser.parse_args()
    torch.set_num_threads(1)
    folder, name = a.out / f"lerobot-{a.task}", a.task
    for part in (folder / "episodes", a.out / "demonstrations"):
        part.mkdir(parents=True, exist_ok=True)
    train(run.demonstrations(name, a.out / "demonstrations", 80, 0.2), folder, a.train_steps)
    policy = DiffusionPolicy.from_pretrained(folder).eval()
    export(policy, folder)
    data = Windows(a.out / "demonstrations" / f"{name}.npz", policy.config)
    processors = make_diffusion_pre_post_processors(policy.config, data.statistics())
    model, task = edgegen.Model(str(folder)), Task(name)
    apart = difference(policy, processors, model, data)
    cells = []
    for calls in CALLS:
        ways = {
            "PyTorch": lambda: by_pytorch(policy, processors, calls),
            "edgegen, the same noise": lambda: from_the_same_noise(model, policy.config, calls),
            "edgegen": lambda: by_edgegen(model, calls, None),
            "edgegen, trailing": lambda: by_edgegen(model, calls, "trailing"),
        }
        for way, make in ways.items():
            path = folder / "episodes" / f"{way.replace(', ', '-')}-{calls}-{a.episodes}.json"
            if not path.exists():
                cell = {"by": way, "calls": calls, **episodes(task, *make(), a.episodes)}
                run.write(path, lambda file: file.write(json.dumps(cell).encode()))
            cells.append(json.loads(path.read_text()))
            print(cells[-1]["by"], calls, rate(cells[-1]), cells[-1]["mean_steps"], flush=True)
    head = {"task": name, "train_steps": a.train_steps, "episodes": a.episodes, "plans_differ_by": apart}
    text = ",\n".join("    " + json.dumps(cell) for cell in cells)
    (HERE / "lerobot.json").write_text(json.dumps(head).removesuffix("}") + f',\n"cells": [\n{text}\n]}}\n')
    of = lambda way, calls: next(c for c in cells if (c["by"], c["calls"]) == (way, calls))
    alike = {n: sum(map(str.__eq__, *(of(w, n)["succeeded"] for w in ("PyTorch", "edgegen, the same noise")))) for n in CALLS}
    lines = [[n, *(rate(of(way, n)) for way in ways), f"{alike[n]} of {a.episodes}"] for n in CALLS]
    print(report.table(["calls", *ways, "end alike from the same noise"], lines))
    print(f"plans from the same noise differ by {apart:.1e} of the greatest action")


if __name__ == "__main__":
    main()
