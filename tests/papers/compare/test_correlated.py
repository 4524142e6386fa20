"""The papers' models beside each other: what is the same for all, measures against known answers, runs, the table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from repro.artifacts.inventory import find
from repro.artifacts.render import plan, unique
from repro.cli.main import main
from repro.datasets.base import Dataset, ModalitySpec
from repro.datasets.correlated_mnist import covariance, gaussians
from repro.engine.store import RunStore
from repro.errors import UsageError
from repro.hub.cite import cite
from repro.model import Loss, MultimodalModel, Stage, isolated_rng
from repro.papers import paper
from repro.papers.compare.building import build, decoders
from repro.papers.compare.correlated import evaluation
from repro.papers.compare.correlated.evaluation import evaluate_triples
from repro.papers.compare.correlated.experiment import Correlated
from repro.papers.compare.correlated.measures import (
    fit_readout,
    generated,
    latent_correlation,
    paired_correlation,
    pairs_of,
)
from repro.papers.compare.correlated.settings import LABELS, MODALITIES, RHOS, compare_spec
from repro.papers.compare.correlated.tables import COLUMNS, correlated_table
from repro.records import Metric, Record

SPECS = {m: ModalitySpec((1, 28, 28), "image", (0.0, 1.0)) for m in MODALITIES}
RHO, DIM = 0.8, 10


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawing(seed: int = 0) -> Tensor:
    """From latents to logits of pixels."""
    return torch.randn(DIM, 784, generator=generator(seed)) / 3


def toy(split: str, n: int, rho: float = RHO, latents: bool = False) -> Dataset:
    z = gaussians(n, 0, split, rho=rho, modalities=3, name="toy")
    truth = {f"z{k}": torch.from_numpy(x).float() for k, x in enumerate(z)}
    images = {m: torch.sigmoid(x @ drawing()).reshape(n, 1, 28, 28) for m, x in zip(SPECS, truth.values(), strict=True)}
    specs = SPECS | ({m: ModalitySpec((DIM,)) for m in truth} if latents else {})
    return Dataset("toy", split, specs, images | (truth if latents else {}), None, {"sha256": "0" * 64})


def splits(train: int, test: int, rho: float = RHO) -> dict[str, Dataset]:
    return {
        "train": toy("train", train, rho),
        "test": toy("test", test, rho),
        "train_truth": toy("train", train, rho, latents=True),
        "truth": toy("test", test, rho, latents=True),
    }


class Oracle(MultimodalModel):
    """Knows how the toy images are drawn, and believes in a correlation."""

    def __init__(self, rho: float) -> None:
        super().__init__(SPECS)
        self.decoders = nn.ModuleDict({m: nn.Linear(DIM, 784, bias=False) for m in SPECS})
        for decoder in self.decoders.values():
            decoder.weight.data.copy_(drawing().T)
        self.inverse = torch.linalg.pinv(drawing())
        self.matrix = torch.from_numpy(covariance(rho, 1, 3)).float()

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        raise NotImplementedError

    def log_likelihood(self, *args: object, **options: object) -> Tensor:
        raise NotImplementedError

    def generate(
        self,
        num_samples: int = 1,
        *,
        given: Mapping[str, Tensor] | None = None,
        generator: torch.Generator | None = None,
        sample_likelihood: bool = False,
    ) -> dict[str, Tensor]:
        known = [k for k, m in enumerate(SPECS) if given and m in given]
        rest = [k for k in range(3) if k not in known]
        size = (num_samples,) if given is None else (num_samples, len(next(iter(given.values()))))
        z = torch.empty(*size, 3, DIM)
        mean = torch.zeros(*size, len(rest), DIM)
        covariance_ = self.matrix[rest][:, rest]
        if known:
            seen = torch.stack([given[m].flatten(1).logit() @ self.inverse for m in SPECS if m in given], 1)
            z[..., known, :] = seen.expand(num_samples, *seen.shape)
            gain = self.matrix[rest][:, known] @ torch.linalg.inv(self.matrix[known][:, known])
            mean = gain @ z[..., known, :]
            covariance_ = covariance_ - gain @ self.matrix[known][:, rest]
        noise = torch.randn(*size, len(rest), DIM, generator=generator)
        z[..., rest, :] = mean + torch.linalg.cholesky(covariance_) @ noise if rest else mean
        return {m: torch.sigmoid(self.decoders[m](z[..., k, :])).reshape(*size, 1, 28, 28) for k, m in enumerate(SPECS)}


# What is the same for all


def test_models_differ_in_what_the_note_says_alone() -> None:
    for profile in ("paper", "quick"):
        specs = {m: compare_spec(m, 0, profile, 0.9).params for m in LABELS}
        for key in ("networks", "widths", "likelihood"):
            assert len({str(p["model"][key]) for p in specs.values() if key in p["model"]}) <= 1
        assert len({str(p["data"]) for p in specs.values()}) == 1
        common = {"epochs", "batch_size", "learning_rate", "optimizer", "plateau"}
        assert len({str({k: p["training"][k] for k in sorted(common)}) for p in specs.values()}) == 1
        assert {m: set(p["training"].get("stages", {})) for m, p in specs.items()} == {
            "covae": {"deep_cca"},
            "gmrf_mcvae": set(),
            "sbm_vae": {"score"},
        }
        same = [{k: p["evaluation"][k] for k in ("points", "draws", "seed")} for p in specs.values()]
        assert same[0] == same[1] == same[2]


@pytest.mark.parametrize("profile", ["paper", "quick"])
def test_encoders_and_decoders_are_the_same_but_for_the_latents(profile: str) -> None:
    networks = {}
    sizes = {"covae": 10, "gmrf_mcvae": 10, "sbm_vae": 16}
    for method, size in sizes.items():
        spec = compare_spec(method, 0, profile, 0.9)
        model = build(method, SPECS, spec.params["model"], spec.params["evaluation"].get("sampling"))
        encoder = (model.autoencoders if method == "sbm_vae" else model).encoders["m0"]
        for name, network in (("encoder", encoder), ("decoder", decoders(model)["m0"])):
            shapes = [tuple(p.shape) for p in network.parameters()]
            assert any(size in s for s in shapes)
            networks[name, method] = sorted(tuple(0 if n == size else n for n in s) for s in shapes)
    for name in ("encoder", "decoder"):
        assert networks[name, "covae"] == networks[name, "gmrf_mcvae"] == networks[name, "sbm_vae"]


def test_plan_and_what_it_costs() -> None:
    artifact = find("compare/correlated")
    assert find("compare-correlated") is artifact
    assert artifact.built
    quick = unique(plan(artifact, "quick"))
    assert len(quick) == 3 * len(RHOS["quick"]) == len({s.key for s in quick})
    assert {0.3, 0.9} <= {s.params["data"]["rho"] for s in quick}
    assert len(unique(plan(artifact, "paper"))) == 3 * 6 * 5
    assert {len(s) for s in plan(artifact, "quick", 2).values()} == {2}
    assert sum(Correlated().cost(s).seconds for s in quick) < 15 * 60
    with pytest.raises(UsageError, match="compare has no artifact 'corelated'; did you mean compare/correlated"):
        find("compare/corelated")


def test_every_model_s_paper_is_cited_once() -> None:
    text = cite("compare/correlated")
    for name in LABELS:
        own = (files(f"repro.papers.{name}") / "citation.bib").read_text(encoding="utf-8").strip()
        key = own.splitlines()[0]
        assert text.count(key) == 1
        assert own in text or name == "covae"  # whose entry is the dataset's own


def test_specifications_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="unknown method 'mvae'; one of covae, gmrf_mcvae, sbm_vae"):
        compare_spec("mvae", 0, "quick", 0.5)
    with pytest.raises(ValueError, match=r"rho is 1.0, must be in \[0, 1\)"):
        compare_spec("covae", 0, "quick", 1.0)
    with pytest.raises(ValueError, match="unknown method 'mvae'; covae, gmrf_mcvae or sbm_vae"):
        build("mvae", SPECS, {})
    with pytest.raises(KeyError):
        paper("compare").plan("table1", "quick")


@pytest.mark.parametrize("method", LABELS)
def test_every_stage_trains_and_latents_are_what_decoders_take(method: str) -> None:
    spec = compare_spec(method, 0, "smoke", 0.5)
    with isolated_rng(0):
        model = Correlated().build(spec)
    data = toy("train", 160)
    for stage in model.stages():
        model.train()
        with torch.no_grad():
            batch = next(iter(model.stage_data(stage, data).batches(80)))
        model.zero_grad()
        model.loss(batch, stage).total.backward()
        trained = [p for n, p in model.named_parameters() if n.startswith(stage.parameters or ("",))]
        assert any(p.grad is not None and bool(p.grad.any()) for p in trained)
    model.eval()
    given = {m: data.data[m][:4] for m in ("m0", "m2")}
    for known, lead in ((None, (3,)), (given, (3, 4)), ({m: x[:4] for m, x in data.data.items()}, (3, 4))):
        images, latents = generated(model, 3, given=known, generator=generator())
        for m, decoder in decoders(model).items():
            assert images[m].shape == (*lead, 1, 28, 28)
            assert latents[m].shape == (*lead, 16 if method == "sbm_vae" else 10)
            with torch.no_grad():
                again = decoder(latents[m].flatten(0, -2)).reshape(images[m].shape)
            torch.testing.assert_close(again, images[m])
    assert not any(d._forward_pre_hooks for network in decoders(model).values() for d in network.modules())


# Measures


def test_readout_is_ridge_regression() -> None:
    data = toy("train", 300, latents=True)
    images, latents = data.data["m0"], data.data["z0"]
    found = fit_readout(images, latents, ridge=2.0)
    reference = Ridge(alpha=2.0).fit(images.flatten(1).double().numpy(), latents.double().numpy())
    other = toy("test", 50, latents=True)
    expected = reference.predict(other.data["m0"].flatten(1).double().numpy())
    np.testing.assert_allclose(found(other.data["m0"]).numpy(), expected, atol=1e-8)
    score = reference.score(other.data["m0"].flatten(1).double().numpy(), other.data["z0"].double().numpy())
    assert found.determination(other.data["m0"], other.data["z0"]) == pytest.approx(score, abs=1e-6)
    with pytest.raises(ValueError, match="300 images and 299 latents"):
        fit_readout(images, latents[:299])
    with pytest.raises(ValueError, match=r"ridge is 0\.0, must be positive"):
        fit_readout(images, latents, ridge=0.0)


def test_paired_correlation_is_the_mean_of_pearson_s() -> None:
    a, b = torch.randn(2, 50, 3, generator=generator())
    expected = np.mean([np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(3)])
    assert paired_correlation(a, b) == pytest.approx(expected, abs=1e-6)
    assert paired_correlation(a, a) == pytest.approx(1.0)
    constant = torch.cat([a[:, :1], torch.ones(50, 1)], 1)
    assert paired_correlation(constant, a[:, :2]) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="shapes"):
        paired_correlation(a, b[:, :2])
    with pytest.raises(ValueError, match="2 samples have no correlation"):
        paired_correlation(a[:2], b[:2])


def test_latents_that_are_not_used_do_not_count() -> None:
    n = 20_000
    z = gaussians(n, 0, "train", rho=0.6, latent_dim=4, modalities=3, name="toy")
    noise = torch.randn(3, n, 2, generator=generator())
    latents = {f"m{k}": torch.cat([torch.from_numpy(x), noise[k]], 1) for k, x in enumerate(z)}
    found = latent_correlation(latents, pairs_of(list(latents)), 4)
    assert found == pytest.approx(0.6, abs=5 * (1 - 0.6**2) / np.sqrt(4 * n))
    assert latent_correlation(latents, pairs_of(list(latents)), 6) < 0.45


class Projection(nn.Module):
    """Features that cost nothing, instead of the classifier's."""

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ torch.randn(784, 12, generator=generator(3))


@pytest.fixture(scope="module")
def oracles() -> dict[float, dict[str, Metric]]:
    """What models are measured to have that believe in the true correlation, and in none."""
    spec = compare_spec("gmrf_mcvae", 0, "smoke", RHO)
    params = {**spec.params, "evaluation": {"points": 400, "draws": 3, "seed": 0}}
    data = splits(400, 400)
    own = dataclasses.replace(spec, params=params)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "load_classifier", lambda _: Projection().eval())
        return {rho: {m.name: m for m in evaluate_triples(Oracle(rho), data, own)} for rho in (RHO, 0.0)}


def test_the_true_model_is_measured_as_true_images_are(oracles: dict[float, dict[str, Metric]]) -> None:
    found = {name: m.value for name, m in oracles[RHO].items()}
    assert found["test/readout/determination"] > 0.95
    # One correlation of 400 samples has the standard error 0.018 at 0.8, and the means of ten coordinates less.
    for task in ("joint", "given-one", "given-two", "given-one-missing"):
        assert found[f"test/images/{task}"] == pytest.approx(found["test/images/data"], abs=0.05), task
    for task in ("joint", "given-one", "given-two"):
        assert found[f"test/latents/{task}"] == pytest.approx(found["test/latents/data"], abs=0.05), task
    assert found["test/frechet/joint"] < 2 * found["test/frechet/data"]
    # The least squared error falls from 1 - 0.8^2 = 0.36 to 0.2 * 2.6 / 1.8 = 0.29 of the variance.
    assert found["test/mae/given-two"] < found["test/mae/given-one"] < found["test/mae/data"]


def test_a_model_without_correlation_is_seen(oracles: dict[float, dict[str, Metric]]) -> None:
    true, none = ({name: m.value for name, m in oracles[rho].items()} for rho in (RHO, 0.0))
    for task in ("joint", "given-one", "given-two", "given-one-missing"):
        assert abs(none[f"test/images/{task}"]) < 0.06, task
    assert none["test/latents/given-one"] < 0.3  # the bias of canonical correlations, 10 + 10 latents at 400 points
    assert none["test/mae/given-one"] > true["test/mae/given-one"]
    assert none["test/frechet/joint"] < 2 * none["test/frechet/data"]  # each image by itself is right
    for name in ("test/latents/data", "test/images/data", "test/frechet/data", "test/mae/data"):
        assert none[name] == true[name]


# The smoke profile, end to end


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Correlated, "load", lambda self, spec: splits(160, 80, spec.params["data"]["rho"]))
        command = ["run", "compare/correlated", "--profile", "smoke", "--executor", "inline", "--device", "cpu"]
        assert main([*command, "--runs", str(root / "runs"), "--results", str(root / "results")]) == 0
    return root


def records(root: Path) -> dict[str, list[Record]]:
    store, found = RunStore(root / "runs"), {}
    for spec in unique(plan(find("compare/correlated"), "smoke")):
        found[spec.method] = [store.record(spec)]
    return found


def test_table_through_the_command_line(smoke: Path) -> None:
    folder = smoke / "results" / "compare"
    text = (folder / "smoke" / "correlated.md").read_text()
    latex = (folder / "smoke" / "correlated.tex").read_text()
    for label in (*LABELS.values(), "True images"):
        assert f"| {label} | obtained |" in text
        assert label in latex
    assert "| published |" not in text
    assert "Profile smoke; seeds 0; 3 records" in text
    value = records(smoke)["gmrf_mcvae"][0].metric("test/mae/given-one").value
    assert f"{value:.4f}" in next(line for line in text.splitlines() if line.startswith("| GMRF MCVAE"))
    assert len(list((folder / "records").glob("*.json"))) == 3
    assert list((folder / "records").glob("*.safetensors")) == []


def test_all_models_have_the_same_metrics_and_the_same_data(smoke: Path) -> None:
    found = {m: rs[0] for m, rs in records(smoke).items()}
    names = [{m.name for m in r.metrics} for r in found.values()]
    assert names[0] == names[1] == names[2]
    assert {f"test/{key}" for key in COLUMNS} <= names[0]
    for column in COLUMNS.values():
        assert len({r.metric(f"test/{column[4]}").value for r in found.values()}) == 1
    assert all(r.metric("model/parameters").value > 1000 for r in found.values())


def test_missing_models_are_cells_with_a_reason(smoke: Path) -> None:
    found = records(smoke) | {"sbm_vae": []}
    text = correlated_table("smoke", 0.6, found).to_markdown()
    line = next(line for line in text.splitlines() if line.startswith("| SBM-VAE"))
    assert line.count("— [1]") == len(COLUMNS)
    assert "[1] not run" in text
    assert "β is each paper's own" not in text  # GMRF MCVAE's paper has another
    assert "CoVAE's and SBM-VAE's β are their papers'; GMRF MCVAE's is CoVAE's" in text
    with pytest.raises(ValueError, match=r"no records at rho 0\.6"):
        correlated_table("smoke", 0.6, {m: [] for m in LABELS})


def test_measuring_again_gives_the_same(smoke: Path) -> None:
    spec = compare_spec("gmrf_mcvae", 0, "smoke", 0.6)
    with isolated_rng(0):
        model = Correlated().build(spec)
    data = splits(60, 60)
    first, second = ([m.value for m in Correlated().evaluate(model, data, spec)] for _ in range(2))
    assert first == second
