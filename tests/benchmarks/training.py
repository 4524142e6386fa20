"""Speed of training on this machine: part of `make bench`.

Samples a second of this package's loop for GMRF MCVAE and MVAE, of multivae's own trainer for the same MVAE (networks,
data, batch, optimiser, one thread), their ratio, and the share of the machine's measured matrix-product peak that GMRF
MCVAE's training reaches, with what its time is made of. Both of this package's are measured with hidden layers in
float32, as the recorded runs have them, and in bfloat16 where the processor has units for it. Each figure is the median
over repetitions, taken in turn so that a busy machine slows all; the first of each is printed at once.
"""

from __future__ import annotations

import logging
import statistics
import sys
import tempfile

import torch
from multivae.data.datasets.base import MultimodalBaseDataset
from multivae.trainers import BaseTrainer, BaseTrainerConfig
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from repro.model import MultimodalModel, isolated_rng
from repro.papers.gmrf_mcvae.copula.experiment import BATCH_SIZE, LEARNING_RATE, copula_spec
from repro.training import TrainingSettings, train
from tests.benchmarks.support import measured_dtypes, peak_flops, seconds
from tests.support.experiments import build_model, load_data

EPOCHS = 3
REPETITIONS, MORE = 3, 5
# What an operation of torch is counted as; the first that its name holds.
KINDS = {
    "matrix products": ("mm", "matmul", "linear"),
    "optimiser": ("adam", "Optimizer"),
    "activations and their gradients": ("relu", "threshold", "gelu", "tanh", "sigmoid", "exp"),
    "batches (indexing, copies)": ("index", "copy", "cat", "slice", "select"),
    "small linear algebra": ("cholesky", "triangular", "tril", "diag", "inverse"),
}


def fresh(method: str, dtype: str = "float32") -> MultimodalModel:
    with isolated_rng(0):
        return build_model(copula_spec(method, 0, "paper", hidden_dtype=dtype))


def own_rate(method: str, dtype: str) -> float:
    data, settings = load_data(copula_spec(method, 0, "paper"))["train"], TrainingSettings(EPOCHS, BATCH_SIZE, 1e-3)
    model = fresh(method, dtype)
    return EPOCHS * len(data) / seconds(lambda: train(model, data, settings, seed=0))


def reference_rate() -> float:
    """multivae's trainer on the MVAE that the package's own loop trains, with its set-up time taken off."""
    data = load_data(copula_spec("mvae", 0, "paper"))["train"]

    def run(epochs: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            config = BaseTrainerConfig(
                output_dir=folder,
                per_device_train_batch_size=BATCH_SIZE,
                num_epochs=epochs,
                learning_rate=LEARNING_RATE,
                no_cuda=True,
            )
            wrapped = MultimodalBaseDataset(data=dict(data.data))
            trainer = BaseTrainer(fresh("mvae").multivae, train_dataset=wrapped, training_config=config)
            return seconds(trainer.train)

    return EPOCHS * len(data) / (run(EPOCHS + 1) - run(1))


def flops_per_sample(method: str) -> float:
    model, data = fresh(method), load_data(copula_spec(method, 0, "paper"))["train"]
    batch = next(data.batches(BATCH_SIZE, shuffle=False))
    with FlopCounterMode(display=False) as counter:
        model.loss(batch).total.backward()
    return counter.get_total_flops() / BATCH_SIZE


def breakdown(method: str, dtype: str) -> dict[str, float]:
    """Shares of an epoch's time by kind of operation; what no operation of torch accounts for is the interpreter's."""
    data = load_data(copula_spec(method, 0, "paper"))["train"]
    model, settings = fresh(method, dtype), TrainingSettings(1, BATCH_SIZE, LEARNING_RATE)
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as measured:
        whole = seconds(lambda: train(model, data, settings, seed=0))
    shares = dict.fromkeys([*KINDS, "other operations"], 0.0)
    for event in measured.key_averages():
        kind = next((k for k, names in KINDS.items() if any(n in event.key for n in names)), "other operations")
        shares[kind] += event.self_cpu_time_total / 1e6 / whole
    return shares | {"between operations": max(0.0, 1 - sum(shares.values()))}


def main() -> None:
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    repetitions = MORE if "--long" in sys.argv else REPETITIONS
    print(f"  torch {torch.__version__}, one thread, batch {BATCH_SIZE}, medians of {repetitions}", flush=True)
    dtypes = measured_dtypes()
    flops = flops_per_sample("gmrf_mcvae")
    reference = statistics.median(reference_rate() for _ in range(repetitions))
    print(f"  MVAE, multivae's trainer           {reference:10,.0f} samples/s", flush=True)
    for name, dtype in dtypes.items():
        print(f"  hidden layers in {name}", flush=True)
        rates: dict[str, list[float]] = {"peak": [], "gmrf_mcvae": [], "mvae": []}
        for _ in range(repetitions):
            rates["peak"].append(peak_flops(dtype))
            for method in ("gmrf_mcvae", "mvae"):
                rates[method].append(own_rate(method, name))
        peak, gmrf, mvae = (statistics.median(found) for found in rates.values())
        print(f"    matrix-product peak              {peak / 1e9:10.1f} GFLOP/s", flush=True)
        print(f"    GMRF MCVAE, this package         {gmrf:10,.0f} samples/s", flush=True)
        print(f"    MVAE, this package               {mvae:10,.0f} samples/s", flush=True)
        print(f"    MVAE, ratio to multivae's trainer{mvae / reference:10.2f}", flush=True)
        print(f"    GMRF MCVAE's share of the peak   {gmrf * flops / peak:10.1%}", flush=True)
        for kind, share in sorted(breakdown("gmrf_mcvae", name).items(), key=lambda x: -x[1]):
            print(f"      of its time: {kind:<36}{share:6.1%}", flush=True)


if __name__ == "__main__":
    main()
