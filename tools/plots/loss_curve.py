#!/usr/bin/env python3
"""Draws the loss of training runs from the `loss.csv` files that `edgegen-trainer train` writes.

    python3 tools/plots/loss_curve.py out.svg name=run/loss.csv …
"""

import csv
import sys

from chart import line_chart


def curve(path, width=10):
    """(step, loss), each the mean of `width` rows: a row is the mean of 50 steps."""
    with open(path) as file:
        rows = [(int(r["step"]), float(r["loss"])) for r in csv.DictReader(file)]
    groups = [rows[i : i + width] for i in range(0, len(rows), width)]
    return [(g[-1][0], sum(loss for _, loss in g) / len(g)) for g in groups]


out, *runs = sys.argv[1:]
series = {name: curve(path) for name, path in (run.split("=", 1) for run in runs)}
with open(out, "w") as file:
    file.write(line_chart(series, "training step", "loss (mean square error of v)", logy=True))
