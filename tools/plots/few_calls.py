#!/usr/bin/env python3
"""Samples of a teacher (left) and of its student (right) in 1, 2, 4 and 10 network calls, a row each, from the same seeds
and classes: docs/few_calls.png.

    cargo build --release
    python3 tools/plots/few_calls.py TEACHER.onnx STUDENT.onnx docs/few_calls.png

Needs Pillow. A number of calls is given as --steps; the rest is what each file says of itself.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
CALLS = [1, 2, 4, 10]
COLUMNS, SEED, SCALE, GAP = 12, 11, 2, 12


def row(edgegen, model, calls, folder):
    """One row of pictures, their classes drawn from the seed."""
    out = folder / f"{model.stem}-{calls}.png"
    command = [edgegen, "-m", model, "--steps", str(calls), "--seed", str(SEED), "--grid", f"{COLUMNS}x1", out]
    subprocess.run(command, check=True)
    return Image.open(out).convert("L")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("student", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--edgegen", type=Path, default=ROOT / "target/release/edgegen")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [[row(args.edgegen, model, calls, Path(folder)) for model in (args.teacher, args.student)]
                for calls in CALLS]
    width, height = rows[0][0].size
    page = Image.new("L", (2 * width + GAP, len(rows) * height), 255)
    for y, pair in enumerate(rows):
        for x, picture in enumerate(pair):
            page.paste(picture, (x * (width + GAP), y * height))
    page.resize((page.width * SCALE, page.height * SCALE), Image.Resampling.NEAREST).save(args.out, optimize=True)


if __name__ == "__main__":
    main()
