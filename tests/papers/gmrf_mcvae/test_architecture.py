"""Printed architectures against the modules, the published tables and closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from repro.datasets.base import ModalitySpec
from repro.networks.cost import count_parameters
from repro.networks.resnet import ResidualBlock
from repro.papers import paper
from repro.papers.gmrf_mcvae.architecture import complexity
from repro.papers.gmrf_mcvae.architecture import tables as architecture
from repro.papers.gmrf_mcvae.architecture.complexity import EXPERIMENTS
from repro.papers.gmrf_mcvae.model import GMRFMCVAE
from repro.report.plain_tables import PlainTable
from tests.support.experiments import results_of

NOTHING = results_of("gmrf_mcvae/table4", "paper", lambda spec: None)
FUNCTIONS = ("table4", "table5", "table6", "table7", "table8", "table9")


def only(table: PlainTable, experiment: str) -> PlainTable:
    rows = tuple(row for row in table.rows if row[0] == experiment)
    return PlainTable(table.title, table.columns, rows)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_tables_are_functions_of_nothing_and_draw_no_random_number(name: str) -> None:
    state = torch.get_rng_state()
    table = getattr(architecture, name)(NOTHING)
    assert table == getattr(architecture, name)(NOTHING)
    assert torch.equal(torch.get_rng_state(), state)


def test_table4_prints_the_layers_of_the_model_that_runs() -> None:
    model = GMRFMCVAE({f"m{i}": ModalitySpec((2,)) for i in range(4)})
    encoder, decoder = model.encoders["m0"], model.decoders["m0"]
    hidden = list(encoder.hidden.layers)
    layers = [*hidden, encoder.mean, encoder.log_variance, encoder.mean, encoder.log_variance]
    layers += [*decoder.hidden.layers, decoder.linear]
    table = architecture.table4(NOTHING)
    assert table.column("Units") == tuple(f"{layer.in_features} × {layer.out_features}" for layer in layers)
    assert table.column("Parameters") == tuple(str(count_parameters(layer)) for layer in layers)
    assert isinstance(encoder.hidden.activation, nn.ReLU)
    assert table.column("Activation") == ("ReLU", "ReLU", *["Linear"] * 4, "ReLU", "ReLU", "Linear")
    assert set(table.column("Agrees")) == {"yes"}


def test_table5_prints_the_block() -> None:
    table = architecture.table5(NOTHING)
    block = ResidualBlock(64, 128)
    assert table.column("Layer") == (
        "Activation",
        "Conv2d (conv_0)",
        "Activation",
        "Conv2d (conv_1)",
        "Conv2d (shortcut)",
    )
    assert table.column("Channels") == ("—", "64 → 64", "—", "64 → 128", "64 → 128")
    assert table.column("Kernel") == ("—", "3 × 3", "—", "3 × 3", "1 × 1")
    assert sum(map(int, table.column("Parameters"))) == count_parameters(block)


@pytest.mark.parametrize("experiment", ["PolyMNIST", "BIKED"])
def test_rows_of_encoder_and_decoder_hold_every_parameter(experiment: str) -> None:
    model = complexity.build(experiment)
    encoder, decoder = only(architecture.table6(NOTHING), experiment), only(architecture.table7(NOTHING), experiment)
    head = count_parameters(model.encoders["m0"].mean)
    beside = 2 * head + count_parameters(model.embeddings["m0"])  # the baselines' heads and the off-diagonal layer
    assert sum(map(int, encoder.column("Parameters"))) == count_parameters(model.encoders["m0"]) + beside
    assert sum(map(int, decoder.column("Parameters"))) == count_parameters(model.decoders["m0"])
    shape = " × ".join(map(str, EXPERIMENTS[experiment].shape))
    assert encoder.column("Output")[0] == decoder.column("Output")[-1] == shape


def test_encoder_sizes_agree_and_the_decoder_table_is_that_of_biked() -> None:
    assert set(architecture.table6(NOTHING).column("Agrees")) == {"yes", "—"}
    table = architecture.table7(NOTHING)
    different = [(row[0], row[3], row[4]) for row in table.rows if row[-1] == "no"]
    assert different == [
        ("PolyMNIST", "256 × 8 × 8", "256 × 7 × 7"),
        ("PolyMNIST", "nf × 64 × 64", "64 × 28 × 28"),
    ]


def test_table8_agrees_with_the_paper() -> None:
    table = architecture.table8(NOTHING)
    published = [row for row in table.rows if row[2] != "—"]
    assert len(published) == 8
    assert all(row[2] == row[3] and row[4] == row[5] and row[6] == "yes" for row in published)


def test_thresholds_of_equation_17() -> None:
    assert complexity.cost_threshold(4, 2) == pytest.approx(5.33, abs=0.005)
    assert complexity.cost_threshold(5, 16) == 320
    assert complexity.cost_threshold(5, 4) == 20
    for m, d in [(4, 2), (5, 16), (5, 4)]:
        cost = complexity.cost_threshold(m, d)
        assert (m * d) ** 2 + m * cost == pytest.approx(m**2 * cost)  # both sides of eq. 17
    with pytest.raises(ValueError, match="components is 1"):
        complexity.cost_threshold(1, 2)


def test_published_thresholds_are_those_of_the_published_tables() -> None:
    rows = paper("gmrf_mcvae").published["table9"]["rows"]
    built = {n: [e.components, e.latent_dim, float(e.published_threshold)] for n, e in EXPERIMENTS.items()}
    assert built == {name: list(map(float, values)) for name, values in rows.items()}


def test_table9_costs() -> None:
    table, _ = architecture.table9(NOTHING)
    assert table.column("Threshold") == ("5.33", "320", "20")
    assert set(table.column("Agrees")) == {"yes"}
    sample = [int(c.replace(",", "")) for c in table.column("C a sample")]
    batch = [int(c.replace(",", "")) for c in table.column("C a batch")]
    assert batch == [s * b for s, b in zip(sample, (500, 32, 32), strict=True)]
    assert sample[0] == 3 * 2 * (2 * 256 + 256 * 256 + 256 * 2)

    def block(fin: int, fout: int, size: int) -> int:
        hidden = min(fin, fout)
        return 2 * size**2 * (9 * fin * hidden + 9 * hidden * fout + (fin * fout if fin != fout else 0))

    linear, output = 2 * 16 * 256 * 49, 2 * 28**2 * 9 * 64 * 3
    assert sample[1] == 3 * (linear + block(256, 128, 7) + block(128, 64, 14) + block(64, 64, 28) + output)
    ratios = [float(r) for r in table.column("C a sample / threshold")]
    assert ratios == pytest.approx([s / t for s, t in zip(sample, (16 / 3, 320, 20), strict=True)], rel=0.005)


def test_capacities_are_counted_and_660_is_not_reproduced() -> None:
    counts = [row[1:] for row in complexity.capacities().rows]
    assert counts == [
        ("44", "44", "yes"),
        ("48", "48", "yes"),
        ("665", "665", "yes"),
        ("660", "800", "no"),
        ("660", "950", "no"),
        ("—", "3320", "—"),
    ]


def test_unknown_experiment_is_named() -> None:
    with pytest.raises(ValueError, match="no experiment 'MNIST', one of Copula, PolyMNIST, BIKED"):
        complexity.build("MNIST")
