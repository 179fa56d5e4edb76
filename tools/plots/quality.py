#!/usr/bin/env python3
"""Sample quality against network calls, for every fixed-step sampler: docs/quality.md and docs/quality.svg.

    cargo build --release --workspace
    python3 tools/plots/quality.py --data /usr/share/datasets/fashion-mnist

Judges the shipped int8 model by `edgegen-trainer eval`: every sampler with the model's tuned steps, and the usual
ones with trailing steps too. Rows are kept in target/quality.jsonl as they come, and those that are there are not made
again. About ten minutes on two cores.
"""

import argparse
import json
import subprocess
from pathlib import Path

from chart import line_chart

ROOT = Path(__file__).resolve().parents[2]
CALLS = [2, 3, 4, 5, 6, 8, 10, 15, 20, 50]
TRAILING = ["ddim", "dpm++2m", "unipc-2"]
DRAWN = [("fitted", "tuned"), ("unipc-2", "tuned"), ("dpm++2m", "tuned"), ("deis-2", "tuned"), ("heun", "tuned"),
         ("ddpm", "tuned"), ("unipc-2", "trailing"), ("dpm++2m", "trailing"), ("ddim", "trailing")]


def samplers(edgegen):
    listed = subprocess.run([edgegen, "samplers"], check=True, capture_output=True, text=True).stdout
    return [line.split()[0] for line in listed.splitlines() if " fixed " in line]


def judge(args, names, spacing):
    """The rows of these samplers, one after the other as they come."""
    models = ROOT / "models"
    command = [args.bin / "edgegen-trainer", "eval", "--data", args.data, "--count", str(args.count), "--report", "json",
               "--calls", ",".join(map(str, CALLS)), "--sampler", ",".join(names), "--spacing", spacing,
               "--classifier", models / "fashion-mnist.classifier.safetensors", models / "fashion-mnist.int8.onnx"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield from map(json.loads, process.stdout)
    if process.returncode:
        raise SystemExit(process.returncode)


def at(rows, sampler, spacing, calls):
    """The row with the most calls that are allowed, if it is not one of fewer allowed."""
    found = [r for r in rows if (r["sampler"], r["spacing"]) == (sampler, spacing) and r["calls"] <= calls]
    best = max(found, key=lambda r: r["calls"], default=None)
    below = max((c for c in CALLS if c < calls), default=0)
    return best if best and best["calls"] > below else None


def table(rows, names, spacing, cell):
    lines = ["| sampler | " + " | ".join(map(str, CALLS)) + " |", "|---" * (len(CALLS) + 1) + "|"]
    for name in names:
        cells = [at(rows, name, spacing, calls) for calls in CALLS]
        lines.append(f"| `{name}` | " + " | ".join(cell(c) if c else "" for c in cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder of Fashion-MNIST")
    parser.add_argument("--bin", type=Path, default=ROOT / "target/release", help="where the programs are")
    parser.add_argument("--count", type=int, default=500, help="samples for each cell")
    args = parser.parse_args()
    names = samplers(args.bin / "edgegen")
    kept = ROOT / "target/quality.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    rows = [r for r in rows if r["count"] == args.count]
    for spacing, of in [("tuned", names), ("trailing", TRAILING)]:
        # a sampler's last row is the one with the most calls
        done = {r["sampler"] for r in rows if r["spacing"] == spacing and r["calls"] >= CALLS[-1] - 2}
        missing = [name for name in of if name not in done]
        rows = [r for r in rows if r["spacing"] != spacing or r["sampler"] in done]
        for row in judge(args, missing, spacing) if missing else []:
            rows.append(row)
            with kept.open("a") as file:
                file.write(json.dumps(row) + "\n")
    real = next(r for r in rows if r["what"] == "real pictures")
    distance = lambda r: f"{r['frechet']:.1f}" if r["frechet"] < 1000 else "–"
    recognised = lambda r: f"{100 * r['accuracy']:.0f}"
    parts = [
        "# Quality against network calls",
        "The shipped int8 model under every sampler of fixed steps, with as many steps as the calls of a column allow; a",
        "cell is empty where a sampler's number of calls falls into another column. Made by `tools/plots/quality.py`, "
        f"{args.count} samples",
        f"a cell, seed 0. Real test pictures, as many: distance {real['frechet']:.1f}, {100 * real['accuracy']:.0f} % "
        "recognised. A covariance of few samples is",
        "off by itself, so distances depend on their number: compare within this page. At this number they go up and down by",
        "some tenths with the seed. `ddpm`, `pc`, `langevin` and what has `sde`, `maruyama` or `ancestral` in its name draw noise.",
        "",
        "![Fréchet distance against network calls](quality.svg)",
    ]
    for title, cell in [("Fréchet distance", distance), ("Recognised as the class asked for, %", recognised)]:
        for spacing, of in [("tuned", names), ("trailing", TRAILING)]:
            parts += [f"\n## {title}, {spacing} steps", table(rows, of, spacing, cell)]
    (ROOT / "docs/quality.md").write_text("\n".join(parts) + "\n")
    points = lambda key: [(r["calls"], r["frechet"]) for r in rows if (r["sampler"], r["spacing"]) == key and r["frechet"] < 60]
    series = {f"{name}, {spacing}": points((name, spacing)) for name, spacing in DRAWN}
    chart = line_chart(series, "network calls", "Fréchet distance", logx=True, logy=True)
    (ROOT / "docs/quality.svg").write_text(chart)


if __name__ == "__main__":
    main()
