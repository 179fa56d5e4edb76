#!/usr/bin/env python3
"""edgegen beside onnxruntime on the same files: a network call, a 10-step picture, the first picture, memory.

The larger networks of the table in docs/performance.md are made by networks.py beside this script.

    cargo build --profile dist
    python3 tools/bench/vs_onnxruntime.py target/dist/edgegen models/fashion-mnist.onnx models/fashion-mnist.int8.onnx

One thread each, or --threads inside a call. The two take turns, --rounds times, so that what else the machine does falls on both; each
figure is the median of the rounds. onnxruntime's picture is a 10-step DDIM loop in numpy around its session,
and its first picture a fresh Python process that imports onnxruntime and numpy, opens the model and runs that
loop, which is the least that a user of it would have. Needs what requirements.txt pins.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

LOOP = 10


def ort_session(path, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def time_of(session, t):
    kind = next(i for i in session.get_inputs() if i.name == "timestep").type
    import numpy as np

    return np.array([t], np.int64 if "int64" in kind else np.float32)


def conditions(session):
    """The names and shapes of the inputs that are neither sample nor time nor class."""
    return {i.name: i.shape for i in session.get_inputs() if i.name not in ("sample", "timestep", "class_labels")}


def ort_feed(session):
    """Zeros for the sample and conditions, class 3 if there are classes, and a time in the middle."""
    import numpy as np

    sample = next(i for i in session.get_inputs() if i.name == "sample")
    shape = [d if isinstance(d, int) else 1 for d in sample.shape]
    feed = {"sample": np.zeros(shape, np.float32), "timestep": time_of(session, 500)}
    feed |= {name: np.zeros(shape, np.float32) for name, shape in conditions(session).items()}
    return feed | {i.name: np.array([3]) for i in session.get_inputs() if i.name == "class_labels"}


def squared_cosine(steps):
    """The share of the signal's variance at each of so many training steps of the squared-cosine schedule."""
    import numpy as np

    f = lambda u: np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.cumprod(1 - np.minimum(1 - f(np.arange(1, steps + 1) / steps) / f(np.arange(steps) / steps), 0.999))


def ort_picture(session):
    """A deterministic DDIM loop for v-prediction on the squared-cosine schedule, trailing steps."""
    import numpy as np

    alpha_bar = squared_cosine(1000)
    feed = ort_feed(session)
    x = np.random.default_rng(0).standard_normal(feed["sample"].shape, dtype=np.float32)
    times = [1000 - 100 * i - 1 for i in range(LOOP)]
    for i, t in enumerate(times):
        feed |= {"sample": x, "timestep": time_of(session, t)}
        v = session.run(None, feed)[0]
        gamma, sigma = alpha_bar[t] ** 0.5, (1 - alpha_bar[t]) ** 0.5
        x0, eps = np.clip(gamma * x - sigma * v, -1, 1), gamma * v + sigma * x
        next_bar = alpha_bar[times[i + 1]] if i + 1 < LOOP else 1.0
        x = (next_bar**0.5 * x0 + (1 - next_bar) ** 0.5 * eps).astype(np.float32)
    return x


def ort_first(path, threads):
    """What the fresh process runs: the first picture, and the memory it took, as edgegen measures its own: getrusage would
    count what this process' parent had taken before it started this one."""
    ort_picture(ort_session(path, threads))
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    print(json.dumps({"peak_rss_bytes": peak * 1024}))


def ort_round(session, path, calls, threads):
    feed = ort_feed(session)
    session.run(None, feed)
    network = []
    for _ in range(calls):
        start = time.perf_counter()
        session.run(None, feed)
        network.append(time.perf_counter() - start)
    pictures = []
    for _ in range(max(calls // 10, 3)):
        start = time.perf_counter()
        ort_picture(session)
        pictures.append(time.perf_counter() - start)
    start = time.perf_counter()
    fresh = subprocess.run([sys.executable, __file__, "--first", path, str(threads)], check=True, capture_output=True)
    first = time.perf_counter() - start
    return {"network_ms": 1e3 * statistics.median(network), "image_ms": 1e3 * statistics.median(pictures),
            "first_image_ms": 1e3 * first, "peak_rss_bytes": json.loads(fresh.stdout)["peak_rss_bytes"]}


def difference(program, session, path):
    """The greatest difference of the two outputs for noise at t = 999, and onnxruntime's root mean square. One DDIM step of
    a linear schedule from there gives (x - σ ε) / γ, of which ε is what the network gave."""
    import numpy as np

    alpha_bar = np.prod(1 - np.linspace(1e-4, 0.02, 1000))
    gamma, sigma = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    feed = ort_feed(session)
    feed |= {"sample": np.random.default_rng(1).standard_normal(feed["sample"].shape, dtype=np.float32),
             "timestep": time_of(session, 999)}
    theirs = session.run(None, feed)[0]
    with tempfile.TemporaryDirectory() as folder:
        noise, config, out = (os.path.join(folder, n) for n in ("noise.npy", "scheduler_config.json", "out.npy"))
        np.save(noise, feed["sample"])
        with open(config, "w") as file:
            json.dump({"beta_schedule": "linear", "prediction_type": "epsilon", "clip_sample": False}, file)
        classes = ["--class", "3"] if "class_labels" in feed else []
        for name in conditions(session):
            np.save(os.path.join(folder, f"{name}.npy"), feed[name])
            classes += ["--cond", f"{name}={folder}/{name}.npy"]
        subprocess.run([program, "-m", path, "--scheduler-config", config, "--noise", noise, "-s", "ddim", "-n", "1", "--spacing",
                        "trailing", "--quiet", *classes, out], check=True)
        ours = (feed["sample"] - gamma * np.load(out).astype(np.float64)) / sigma
    return np.abs(ours - theirs).max(), np.sqrt((theirs**2).mean())


def edgegen_round(program, path, calls, threads):
    command = [program, "bench", path, "--steps", str(LOOP), "--runs", str(max(calls // 5, 3)), "--report", "json",
               "--threads", str(threads)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def main():
    if len(sys.argv) == 4 and sys.argv[1] == "--first":
        return ort_first(sys.argv[2], int(sys.argv[3]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="the edgegen binary, stripped")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=100, help="network calls a round")
    parser.add_argument("--threads", type=int, default=1, help="threads that share a call")
    args = parser.parse_args()
    import onnxruntime

    print(f"edgegen {os.path.getsize(args.program) / 1e6:.1f} MB on disk; onnxruntime {onnxruntime.__version__} in Python "
          f"{sys.version.split()[0]}; threads: {args.threads}; medians of {args.rounds} rounds\n")
    print("| model | | edgegen | onnxruntime | ratio |\n|---|---|---|---|---|")
    for path in args.models:
        session = ort_session(path, args.threads)
        rounds = [(edgegen_round(args.program, path, args.calls, args.threads),
                   ort_round(session, path, args.calls, args.threads)) for _ in range(args.rounds)]
        for key, label, unit in [("network_ms", "network call, ms", 1), ("image_ms", "10-step picture, ms", 1),
                                 ("first_image_ms", "first picture from process start, ms", 1),
                                 ("peak_rss_bytes", "peak memory, MB", 1e6)]:
            ours, theirs = (statistics.median(r[i][key] for r in rounds) / unit for i in (0, 1))
            ratio = statistics.median(r[0][key] / r[1][key] for r in rounds)
            print(f"| {os.path.basename(path)} | {label} | {ours:.2f} | {theirs:.2f} | {ratio:.2f} |")
        off, size = difference(args.program, session, path)
        print(f"| {os.path.basename(path)} | greatest difference of outputs, of rms {size:.2f} | {off:.1e} | | |")
        print(f"| {os.path.basename(path)} | allocations a picture | {rounds[0][0]['allocations_per_image']} | | |")


if __name__ == "__main__":
    main()
