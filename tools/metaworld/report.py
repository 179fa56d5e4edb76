"""What the episodes came to: results.json and the tables and the chart of docs/policy.md."""

import json
import math
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "plots"))
from chart import line_chart  # noqa: E402

from tasks import STEPS_AFTER_SUCCESS  # noqa: E402

CELL = ["path", "form", "calls", "actions", "timing", "joint", "jacobian", "delay"]
METHODS = {
    ("waiting", "switch", "diagonal"): "waiting",
    ("simulated", "switch", "diagonal"): "switch",
    ("simulated", "prefix", "diagonal"): "prefix",
    ("simulated", "chunk", "diagonal"): "chunk, diagonal",
    ("simulated", "chunk", "difference"): "chunk, difference",
}
DEADLINES = [1, 1.25, 1.5]  # in the median steps of the task's demonstrations
FIGURES = ["success", "mean steps", "jump at a border", "elsewhere"]
PATHS = {"vp": "diffusion", "flow": "flow", "prefix-vp": "diffusion, prefixes", "prefix-flow": "flow, prefixes"}


def method(cell):
    return METHODS.get(tuple(cell[k] for k in ("timing", "joint", "jacobian")))


def summarize(rows):
    """Cells of all tasks, in the order in which they come."""
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[k] for k in CELL), []).append(row)
    return [{**dict(zip(CELL, key)), **summary(group)} for key, group in groups.items()]


def summary(group):
    episodes = sum(row["episodes"] for row in group)
    rates = [np.mean(row["succeeded"]) for row in group]
    # Tasks are given, and only episodes are drawn: the variances are those within the tasks.
    variance = sum(p * (1 - p) * row["episodes"] for p, row in zip(rates, group))
    sums = lambda key: np.sum([row[key] for row in group], axis=0)
    rms = lambda count, squares: round(math.sqrt(squares / count), 4) if count else None
    return {
        "episodes": episodes,
        "success": round(float(sums("succeeded").sum()) / episodes, 4),
        "standard_error": round(math.sqrt(variance) / episodes, 4),
        "mean_steps": round(float(sum(np.sum(row["steps"]) for row in group)) / episodes, 1),
        "jump_at_border": rms(*sums("border")),
        "jump_elsewhere": rms(*sums("elsewhere")),
        "succeeded": {row["task"]: "".join(map(str, row["succeeded"])) for row in group},
        "steps": {row["task"]: row["steps"] for row in group},
    }


def successes(cell, within=None):
    """By task, whether each episode succeeded, and within so many of the task's steps if they are given."""
    done = {task: np.array(list(map(int, text))) for task, text in cell["succeeded"].items()}
    return {task: d * (np.array(cell["steps"][task]) <= within[task]) if within else d for task, d in done.items()}


def difference(one, other, within=None):
    """The other's success less the one's in points, and the standard error: episodes are paired by their seeds."""
    one, other = successes(one, within), successes(other, within)
    of_task = [other[task] - one[task] for task in one]
    count = sum(map(len, of_task))
    error = math.sqrt(sum(len(d) * d.var() for d in of_task)) / count
    return 100 * sum(d.sum() for d in of_task) / count, 100 * error


def table(head, lines):
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in [head, ["---"] * len(head), *lines]) + "\n"


def figures(cell):
    jumps = [f"{cell[k]:.2f}" if cell[k] is not None else "" for k in ("jump_at_border", "jump_elsewhere")]
    rate = f"{100 * cell['success']:.1f} ± {100 * cell['standard_error']:.1f} %"
    return [rate, cell["mean_steps"], *jumps]


def compared(one, other):
    return "{:+.1f} ± {:.1f}".format(*difference(one, other))


def find(cells, **kind):
    return next((c for c in cells if all(c[k] == v for k, v in kind.items())), None)


def by_calls(cells):
    plain = [c for c in cells if c["timing"] == "synchronous"]
    lines = []
    for c in sorted(plain, key=lambda c: (c["form"], list(PATHS).index(c["path"]), c["calls"])):
        ten = find(plain, path=c["path"], form="float", calls=10)
        less = "" if c is ten or not ten else compared(ten, c)
        lines.append([PATHS[c["path"]], c["form"], c["calls"], *figures(c), less])
    return table(["", "", "calls", *FIGURES, "from ten calls, points"], lines)


def by_delay(cells):
    late = [c for c in cells if c["delay"]]
    delays = sorted({c["delay"] for c in late})
    lines = []
    for path, name in PATHS.items():
        for what in METHODS.values():
            row = {c["delay"]: c for c in late if c["path"] == path and method(c) == what}
            if row:
                rates = [figures(row[d])[0] if d in row else "" for d in delays]
                lines.append([name, what, *rates])
    return table(["", "meanwhile", *(f"delay {d}" for d in delays)], lines)


def by_task(cells):
    lines, names = [], list(cells[0]["succeeded"])
    for c in cells:
        if c["timing"] == "synchronous" and c["form"] == "float" and c["calls"] in (2, 10):
            rates = [f"{100 * np.mean(list(map(int, c['succeeded'][name]))):.0f} %" for name in names]
            lines.append([PATHS[c["path"]], c["calls"], *rates])
    return table(["", "calls", *(name.removesuffix("-v3") for name in names)], lines)


def by_joint(cells):
    """Chunking against what else a late robot can do, at a delay of two."""
    lines = []
    for actions in sorted({c["actions"] for c in cells}, reverse=True):
        for path, name in PATHS.items():
            kind = [c for c in cells if c["actions"] == actions and c["path"] == path and c["form"] == "float"]
            row = {method(c): c for c in kind if c["delay"] == 2}
            calls = {c["calls"] for c in row.values()}
            at_once = [("none", c) for c in kind if c["timing"] == "synchronous" and c["calls"] in calls]
            for what, c in [*at_once, *row.items()]:
                less = "" if what == "switch" or "switch" not in row else compared(row["switch"], c)
                lines.append([actions, name, what, *figures(c)[:3], less])
    return table(["actions", "", "delay 2", *FIGURES[:3], "from switch, points"], lines)


def by_deadline(cells, medians):
    """Success where an episode may take no longer than demonstrations do, and what is won back of what waiting costs."""
    lines = []
    for path, name in PATHS.items():
        kind = [c for c in cells if c["path"] == path and c["form"] == "float"]
        row = {method(c): c for c in kind if c["delay"] == 2}
        at_once = find(kind, timing="synchronous", calls=next(iter(row.values()))["calls"]) if row else None
        for what, c in [("none", at_once), *row.items()] if row else []:
            rates = []
            for factor in DEADLINES:
                within = {task: factor * median for task, median in medians.items()}
                done = successes(c, within)
                count = sum(map(len, done.values()))
                error = math.sqrt(sum(len(d) * d.var() for d in done.values())) / count
                less = "" if what == "none" else "{:+.1f} ± {:.1f}".format(*difference(at_once, c, within))
                rates += [f"{100 * sum(d.sum() for d in done.values()) / count:.1f} ± {100 * error:.1f} %", less]
            lines.append([name, what, *rates])
    head = [part for factor in DEADLINES for part in (f"within {factor:g} times", "from none, points")]
    return table(["", "delay 2", *head], lines)


def tables(cells, actions, medians):
    main = [c for c in cells if c["actions"] == actions]
    return "\n".join([by_calls(main), by_delay(main), by_joint(cells), by_deadline(main, medians), by_task(main)])


def chart(cells):
    """Success by delay; chunking by differences alone, so that lines can be told apart."""
    lines = {}
    for path, name in PATHS.items():
        kind = [c for c in cells if c["path"] == path and c["form"] == "float"]
        late = [c for c in kind if c["delay"]]
        at_once = [c for c in kind if c["timing"] == "synchronous" and late and c["calls"] == late[0]["calls"]]
        for what in ("prefix",) if path.startswith("prefix") else ("waiting", "switch", "chunk, difference"):
            points = [(c["delay"], 100 * c["success"]) for c in late if method(c) == what]
            if points:
                lines[name if what == "prefix" else f"{name}, {what.split(',')[0]}"] = [(0, 100 * c["success"]) for c in at_once] + sorted(points)
    if not lines:
        return None
    least = min(y for line in lines.values() for _, y in line)
    bounds = (min(80, 10 * math.floor(least / 10)), 100)
    return line_chart(lines, "control steps until a plan is there", "success, %", size=(760, 400), bounds=bounds)


def write(rows, demonstrations, settings, here, docs):
    cells = summarize(rows)
    # A demonstration goes on for some steps after its success.
    lengths = {path.stem: np.diff(np.load(path)["ends"], prepend=0) - STEPS_AFTER_SUCCESS for path in demonstrations}
    medians = {task: float(np.median(of)) for task, of in lengths.items()}
    tries = {path.stem: [len(np.load(path)["ends"]), int(np.load(path)["tries"])] for path in demonstrations}
    keys = ["demonstrations", "noise", "train_steps", "episodes", "actions", "calls"]
    head = {"settings": {k: settings[k] for k in keys}, "demonstrations_of_tries": tries, "demonstrations_steps": medians}
    # One line a cell, so that a change can be read.
    lines = ",\n".join("    " + json.dumps(cell) for cell in cells)
    text = json.dumps(head).removesuffix("}") + f',\n"cells": [\n{lines}\n]}}\n'
    json.loads(text)
    (here / "results.json").write_text(text)
    drawing = chart([c for c in cells if c["actions"] == settings["actions"]])
    if drawing:
        (docs / "metaworld.svg").write_text(drawing)
    print(tables(cells, settings["actions"], medians))
