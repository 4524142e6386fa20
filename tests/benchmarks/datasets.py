"""Speed of the datasets on this machine, against what they are to reach: part of `make bench`.

Each figure comes from its own process with an empty cache, so that its memory and its first load are its own. The
reference for iterating is multivae's MMNISTDataset in a DataLoader of two workers, on the same samples in the same
batches.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GENERATED = {
    "polymnist": (("train",), {"source": "generated"}, "60,000 x 5 in at most 10 s and 1.5 GB"),
    "extended_polymnist": (("train", "validation", "test"), {}, "70,000 x 10 in at most 30 s"),
    "biked_rendered": (("train", "validation", "test"), {}, "4,554 in at most 60 s"),
}
BATCH, REPETITIONS = 256, 3
SHORT = ("polymnist", "iterate")  # under five minutes with all other benchmarks


def generate(name: str) -> None:
    """Builds a dataset and loads it again; prints seconds and peak memory."""
    from repro.datasets import load_dataset

    splits, options, target = GENERATED[name]
    start = time.perf_counter()
    for split in splits:
        load_dataset(name, split, **options)
    built = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    start = time.perf_counter()
    for split in splits:
        load_dataset(name, split, **options)
    again = time.perf_counter() - start
    print(f"  {name}: built in {built:.1f} s, {peak:.2f} GB ({target}); loaded again in {again:.3f} s (under 1 s)")


def iterate() -> None:
    """Prints samples a second of both ways to iterate PolyMNIST's test split, and their ratio."""
    import torch
    from multivae.data.datasets import MMNISTDataset
    from torch.utils.data import DataLoader

    from repro.datasets import load_dataset

    dataset = load_dataset("polymnist", "test", source="generated")
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "MMNIST" / "test"
        folder.mkdir(parents=True)
        for m, x in dataset.data.items():
            torch.save(x.float() / 255.0, folder / f"{m}.pt")
        torch.save(dataset.labels, folder / "labels.pt")
        loader = DataLoader(MMNISTDataset(root, split="test"), batch_size=BATCH, num_workers=2)
        for a, b in zip(loader, dataset.batches(BATCH, shuffle=False), strict=True):
            assert all(torch.equal(a["data"][m], b[m]) for m in b)
        resident = dataset.floats()
        ways = {
            "multivae, DataLoader of 2 workers": lambda: loader,
            "from bytes, shuffled": lambda: dataset.batches(BATCH),
            "from bytes, in order": lambda: dataset.batches(BATCH, shuffle=False),
            "from floats, shuffled": lambda: resident.batches(BATCH),
            "from floats, in order": lambda: resident.batches(BATCH, shuffle=False),
        }
        rates = {way: [] for way in ways}
        for _ in range(REPETITIONS):  # in turn, so that a busy machine slows all
            for way, batches in ways.items():
                rates[way].append(rate(len(dataset), batches()))
    (_, reference), *others = ((way, statistics.median(r)) for way, r in rates.items())
    print(f"  polymnist batches of {BATCH}: multivae {reference:,.0f} samples/s (the target is 50 x, same batches)")
    for way, mine in others:
        print(f"    {way}: {mine:,.0f} samples/s, {mine / reference:,.0f} x")


def rate(count: int, batches) -> float:
    """Samples a second of going through the batches."""
    start = time.perf_counter()
    for _ in batches:
        pass
    return count / (time.perf_counter() - start)


def main() -> None:
    """Runs every figure in its own process."""
    asked = [a for a in sys.argv[1:] if a != "--long"]
    if asked:
        return iterate() if asked[0] == "iterate" else generate(asked[0])
    names = (*GENERATED, "iterate") if "--long" in sys.argv else SHORT
    with tempfile.TemporaryDirectory() as cache:
        for name in names:
            command = [sys.executable, "-m", "tests.benchmarks.datasets", name]
            done = subprocess.run(
                command, env={**os.environ, "REPRO_CACHE": cache}, stderr=subprocess.PIPE, text=True, check=False
            )
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                print(f"  {name}: not measured: {reason}", flush=True)
    for name in (n for n in (*GENERATED, "iterate") if n not in names):
        print(f"  {name}: not measured; ARGS=--long", flush=True)
    return None


if __name__ == "__main__":
    main()
