"""edgegen's policies in closed loop on Meta-World, from nothing to the tables: python run.py OUT --edgegen-trainer PATH

Every stage is skipped whose output is in OUT, so a run that was interrupted goes on where it was.
"""

import argparse
import json
import subprocess
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

import loop
import report
import tasks

OBSERVATIONS = ["--obs-steps", "1"]  # Meta-World's observation has the step before in it.
TRAINING = "--base 32 --batch 128 --rate 2e-3 --warm-up 100 --ema 0.995 --sample-every 0".split()
# The last two are trained to be given the first of a plan's actions, as many as the longest delay.
NETWORKS = {
    "vp": ["--path", "vp"],
    "flow": ["--path", "flow"],
    "prefix-vp": ["--path", "vp", "--prefix", "4"],
    "prefix-flow": ["--path", "flow", "--prefix", "4"],
}
HERE = Path(__file__).parent


def demonstrations(name, out, count, noise):
    path = out / f"{name}.npz"
    if not path.exists():
        episodes, tries = tasks.demonstrate(name, count, noise)
        ends = np.cumsum([len(actions) for actions, _ in episodes])
        actions, observations = (np.concatenate(arrays) for arrays in zip(*episodes))
        write(path, lambda file: np.savez(file, actions=actions, observations=observations, ends=ends, tries=tries))
        print(f"{name}: {count} demonstrations of {tries} episodes, {ends[-1] / count:.0f} steps each", flush=True)
    return path


def write(path, save):
    """Writes the whole file or none, so that what is there can be relied on."""
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        save(file)
    part.rename(path)


def join(paths, out):
    """All tasks' demonstrations as the trainer wants them."""
    if (out / "episode_ends.npy").exists():
        return
    out.mkdir(exist_ok=True)
    arrays = [np.load(path) for path in paths]
    lengths = np.concatenate([np.diff(a["ends"], prepend=0) for a in arrays])
    np.save(out / "actions.npy", np.concatenate([a["actions"] for a in arrays]).astype(np.float32))
    np.save(out / "obs.npy", np.concatenate([a["observations"] for a in arrays]).astype(np.float32))
    write(out / "episode_ends.npy", lambda file: np.save(file, np.cumsum(lengths).astype(np.int64)))


def train(trainer, data, out, name, steps, threads):
    """The network's float and int8 models."""
    checkpoint = out / name
    models = {form: out / f"{name}.{form}.onnx" for form in ("float", "int8")}
    if not models["float"].exists():
        begun = (checkpoint / "checkpoint.safetensors").exists()
        options = [*NETWORKS[name], "--steps", steps, "--threads", threads, *OBSERVATIONS, *TRAINING]
        run(trainer, "train", "--data", data, "--out", checkpoint, *options, *["--resume"] * begun)
    for form, model in models.items():
        if not model.exists():
            part = model.with_suffix(".part.onnx")
            more = ["--format", "int8", "--data", data] if form == "int8" else []
            run(trainer, "export", "--checkpoint", checkpoint, "--out", part, "--sampler", "ddim", *OBSERVATIONS, *more)
            part.rename(model)
    return models


def run(*command):
    subprocess.run([str(c) for c in command], check=True)


def cells(actions, calls_late):
    """What is compared: network calls without delay, then delays by what the robot does meanwhile."""
    plain = {"actions": actions, "timing": "synchronous", "joint": "switch", "jacobian": "diagonal", "delay": 0}
    floats = [{**plain, "path": path, "form": "float"} for path in ("vp", "flow")]
    with_prefix = [{**plain, "path": path, "form": "float", "calls": calls_late} for path in NETWORKS if path.startswith("prefix")]
    for cell in floats:
        for calls in (10, 2, 1, 3, 5):
            yield {**cell, "calls": calls}
    for cell in floats:
        for delay in (2, 4, 1, 3):
            yield from late({**cell, "calls": calls_late, "delay": delay})
    for cell in floats:
        for calls in (2, 5):
            yield {**cell, "form": "int8", "calls": calls}
    for cell in floats:
        often = {**cell, "calls": calls_late, "actions": actions // 2}
        yield often
        yield from late({**often, "delay": 2})
    for cell in with_prefix:
        yield cell
        for delay in (2, 4, 1, 3):
            yield {**cell, "delay": delay, "timing": "simulated", "joint": "prefix"}
            yield {**cell, "delay": delay, "timing": "simulated"}


def late(cell):
    yield {**cell, "timing": "waiting"}
    yield {**cell, "timing": "simulated"}
    yield {**cell, "timing": "simulated", "joint": "chunk", "jacobian": "difference"}
    yield {**cell, "timing": "simulated", "joint": "chunk"}


def evaluate(out, model, name, cell, episodes):
    label = "-".join(str(cell[k]) for k in ("path", "form", "calls", "actions", "timing", "joint", "jacobian", "delay"))
    path = out / f"{label}-{name}-{episodes}.json"
    if not path.exists():
        row = {"task": name, **cell, **loop.evaluate(model, name, cell, episodes)}
        write(path, lambda file: file.write(json.dumps(row).encode()))
    return json.loads(path.read_text())


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="where to keep demonstrations, models and episodes")
    parser.add_argument("--edgegen-trainer", default="edgegen-trainer", help="the program, if it is not in PATH")
    parser.add_argument("--demonstrations", type=int, default=80, help="of each task (%(default)s)")
    parser.add_argument("--noise", type=float, default=0.2, help="of the demonstrating hand (%(default)s)")
    parser.add_argument("--train-steps", type=int, default=6000, help="of each path (%(default)s)")
    parser.add_argument("--episodes", type=int, default=30, help="of each task and cell (%(default)s)")
    parser.add_argument("--actions", type=int, default=8, help="carried out of each plan (%(default)s of 16)")
    parser.add_argument("--calls", type=int, default=5, help="network calls of a plan that is late (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes, and threads of the training (%(default)s)")
    parser.add_argument("--cells", type=int, help="only so many of the cells, the most telling first")
    return parser.parse_args()


def remember(settings, path):
    """Refuses to go on with what other settings have made."""
    text = json.dumps({k: settings[k] for k in ("demonstrations", "noise", "train_steps")})
    if path.exists() and path.read_text() != text:
        raise SystemExit(f"{path.parent} was made with {path.read_text()}, not {text}: give another folder")
    path.write_text(text)


def main():
    a = arguments()
    a.out.mkdir(parents=True, exist_ok=True)
    remember(vars(a), a.out / "settings.json")
    for folder in ("demonstrations", "episodes"):
        (a.out / folder).mkdir(exist_ok=True)
    with ProcessPoolExecutor(a.jobs) as pool:
        folder = a.out / "demonstrations"
        jobs = [pool.submit(demonstrations, t, folder, a.demonstrations, a.noise) for t in tasks.TASKS]
        paths = [job.result() for job in jobs]
    join(paths, a.out / "data")
    models = {name: train(a.edgegen_trainer, a.out / "data", a.out, name, a.train_steps, a.jobs) for name in NETWORKS}
    with ProcessPoolExecutor(a.jobs) as pool:
        chosen = list(cells(a.actions, a.calls))[: a.cells]
        jobs = [
            pool.submit(evaluate, a.out / "episodes", models[c["path"]][c["form"]], t, c, a.episodes)
            for c in chosen
            for t in tasks.TASKS
        ]
        rows = [job.result() for job in jobs]
    report.write(rows, paths, vars(a), HERE, HERE.parents[1] / "docs")


if __name__ == "__main__":
    main()
