"""SBM-VAE on CelebAMask-HQ: F1, the attack, missing modalities, supervised networks, runs, rendering."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from sklearn.metrics import f1_score
from torch import Tensor, nn

from repro.artifacts.inventory import artifacts
from repro.cli.main import main
from repro.datasets.base import Dataset, ModalitySpec
from repro.engine.store import RunStore
from repro.errors import NoProfileError
from repro.model import Loss, Stage, TrainableModel, isolated_rng
from repro.papers import paper
from repro.papers.sbm_vae.celeba.evaluation import PIXELS, small_pixels
from repro.papers.sbm_vae.celeba.experiment import ATTACKED, FACE_PROFILES, FACE_ROWS, celeba_spec
from repro.papers.sbm_vae.celeba.figures import SHOWN, attribute_names, faces, sample_pages
from repro.papers.sbm_vae.celeba.models import FaceBaseline, build_face_baseline
from repro.papers.sbm_vae.celeba.tables import FLOOR, absent, face_table
from repro.papers.sbm_vae.f1 import sample_f1
from repro.papers.sbm_vae.robustness import fgsm, percent_drop, transferred
from repro.papers.sbm_vae.staging import missing_mask, with_present
from repro.papers.sbm_vae.supervised import CLASSIFIER, MaskUNet, ModalityClassifiers, Supervised, WithClassifier
from repro.records import Metric, Record, RunSpec
from repro.training import TrainingSettings, TrainingStopped, train
from tests.support.experiments import (
    build_model,
    estimate,
    evaluate,
    figure_samples,
    load_data,
    render,
    results_of,
    training_settings,
)

pytestmark = pytest.mark.slow

SMALL = {
    "image": ModalitySpec((3, 8, 8), "image", (0.0, 1.0)),
    "mask": ModalitySpec((1, 8, 8), "binary", (0.0, 1.0)),
    "attributes": ModalitySpec((5,), "binary", (0.0, 1.0)),
}
ENVIRONMENT = {"commit": "0" * 40, "dirty": False, "device": "cpu", "device_name": "test", "versions": {"torch": "0"}}


def small_data(number: int = 24, seed: int = 0) -> Dataset:
    g = torch.Generator().manual_seed(seed)
    data = {
        "image": torch.rand(number, 3, 8, 8, generator=g),
        "mask": torch.rand(number, 1, 8, 8, generator=g).round(),
        "attributes": torch.rand(number, 5, generator=g).round(),
    }
    return Dataset("toy", "train", SMALL, data)


def small_baseline(method: str, **options) -> FaceBaseline:
    private = 3 if method == "mmvae_plus" else 0
    defaults = {"latent_dim": 6, "specific_dim": private, "beta": 0.5, "bernoulli": ["attributes"]}
    with isolated_rng(0):
        return build_face_baseline(method, SMALL, widths=(4, 4), hidden=(8,), **defaults | options)


# F1


def test_f1_is_scikit_learns() -> None:
    g = torch.Generator().manual_seed(1)
    scores, true = torch.rand(50, 18, generator=g), (torch.rand(50, 18, generator=g) > 0.8).float()
    true[:3], scores[:2] = 0, 0  # nothing there; nothing there and nothing predicted
    expected = f1_score(true.numpy(), (scores > 0.5).numpy(), average="samples", zero_division=0)
    assert sample_f1(scores, true) == pytest.approx(expected, abs=1e-12)
    masks, there = torch.rand(7, 1, 6, 5, generator=g), torch.rand(7, 1, 6, 5, generator=g).round()
    flat = f1_score(there.flatten(1).numpy(), (masks > 0.3).flatten(1).numpy(), average="samples")
    assert sample_f1(masks, there, threshold=0.3) == pytest.approx(flat, abs=1e-12)


def test_f1_by_hand() -> None:
    true = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    assert sample_f1(true, true) == 1.0
    assert sample_f1(1 - true, true) == 0.0
    found = torch.tensor([[0.9, 0.5, 0.51, 0.0], [0.0, 0.0, 0.0, 0.6]])  # 0.5 itself is not over 0.5
    assert sample_f1(found, true) == pytest.approx((0.5 + 1.0) / 2)
    # Averaged over samples, not over all values together.
    assert sample_f1(torch.tensor([[1.0] * 4, [0.0] * 4]), torch.ones(2, 4)) == 0.5


def test_f1_errors() -> None:
    for predicted, true in ((torch.zeros(3, 2), torch.zeros(3, 3)), (torch.zeros(3), torch.zeros(3))):
        with pytest.raises(ValueError, match=r"must be \(N, ...\)"):
            sample_f1(predicted, true)
    with pytest.raises(ValueError, match=r"must be \(N, ...\)"):
        sample_f1(torch.zeros(0, 2), torch.zeros(0, 2))
    with pytest.raises(ValueError, match="not numbers"):
        sample_f1(torch.full((2, 2), math.nan), torch.ones(2, 2))
    with pytest.raises(ValueError, match="are 0 and 1"):
        sample_f1(torch.zeros(2, 2), torch.full((2, 2), 0.5))


# The attack


def test_fgsm_of_a_linear_classifier_is_known() -> None:
    """With logits w x + b the gradient of the loss is (p - a) w: each pixel moves by epsilon against the attribute."""
    g = torch.Generator().manual_seed(2)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 1)).eval()
    x = 0.3 + 0.4 * torch.rand(6, 3, 2, 2, generator=g)
    target = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 1.0]).unsqueeze(1)
    with torch.no_grad():  # as runs are measured
        moved = fgsm(network, x, target, 0.05)
    weight = network[1].weight.detach().view(1, 3, 2, 2)
    expected = x - 0.05 * (2 * target.view(-1, 1, 1, 1) - 1) * weight.sign()
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-6)
    change = (network(moved) - network(x)).detach()
    reach = 0.05 * weight.abs().sum()
    torch.testing.assert_close(change, -reach * (2 * target - 1), rtol=1e-4, atol=1e-6)
    assert network[1].weight.grad is None
    assert not moved.requires_grad
    assert torch.equal(transferred(network, x, target, 0.05, batch_size=4), moved)


def test_fgsm_uses_every_attribute_and_stays_in_range() -> None:
    network = nn.Linear(2, 2).eval()
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[3.0, -1.0], [-1.0, 0.2]]))
        network.bias.zero_()
    x, target = torch.tensor([[0.02, 0.98]]), torch.tensor([[1.0, 0.0]])
    p = network(x).sigmoid()
    gradient = ((p - target) @ network.weight).detach()
    expected = (x + 0.05 * gradient.sign()).clamp(0, 1)
    assert torch.equal(fgsm(network, x, target, 0.05), expected)
    assert float(expected.min()) == 0.0  # it would have been -0.03
    wide = fgsm(network, x, target, 0.05, limits=(-1.0, 2.0))
    torch.testing.assert_close(wide - x, 0.05 * gradient.sign())


def test_fgsm_misleads_a_trained_classifier_and_noise_of_its_size_does_not() -> None:
    g = torch.Generator().manual_seed(3)
    x = torch.rand(200, 1, 4, 4, generator=g) * 0.5 + 0.25
    target = (x.flatten(1)[:, :8].mean(1) > x.flatten(1)[:, 8:].mean(1)).float().unsqueeze(1)
    with isolated_rng(0):
        network = nn.Sequential(nn.Flatten(), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(network.parameters(), 0.3)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(network(x), target).backward()
        optimizer.step()
    network.eval()

    def right(images: Tensor) -> float:
        return float(((network(images) > 0).float() == target).float().mean())

    noise = 0.05 * torch.randn(x.shape, generator=g).sign()
    assert right(x) > 0.95
    assert right(fgsm(network, x, target, 0.05)) < 0.75
    assert right(x + noise) > 0.85


def test_attack_errors() -> None:
    network, x, target = nn.Linear(3, 2).eval(), torch.rand(4, 3), torch.ones(4, 2)
    for epsilon in (0.0, -0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="must be positive and finite"):
            fgsm(network, x, target, epsilon)
    with pytest.raises(ValueError, match="training mode"):
        fgsm(nn.Linear(3, 2), x, target, 0.05)
    for bad in (x + 1, x - 1, torch.full_like(x, math.nan)):
        with pytest.raises(ValueError, match=r"values in \[0, 1\]"):
            fgsm(network, bad, target, 0.05)
    with pytest.raises(ValueError, match="values 0 and 1"):
        fgsm(network, x, target * 0.5, 0.05)
    with pytest.raises(ValueError, match=r"gives logits \(4, 2\) for attributes \(4, 3\)"):
        fgsm(network, x, torch.ones(4, 3), 0.05)
    with torch.no_grad():
        network.weight.fill_(math.nan)
    with pytest.raises(ValueError, match="gradient is not finite"):
        fgsm(network, x, target, 0.05)
    with pytest.raises(ValueError, match="needs a positive one"):
        percent_drop(0.0, 0.0)


def test_published_drops_are_those_of_table_1_given_the_image() -> None:
    printed = paper("sbm_vae").published
    column = printed["table1"]["columns"].index("attr_f1_img")
    for row, (attacked, drop) in printed["table3"]["rows"].items():
        clean = printed["table1"]["rows"][row][column][0]
        assert percent_drop(clean, attacked[0]) == pytest.approx(drop[0], abs=0.2), row


# Training with missing modalities


def test_missing_values_never_enter_training() -> None:
    present = missing_mask(24, 3, 0.25, torch.device("cpu"))
    assert present is not None
    data = small_data()
    other = {m: x.clone() for m, x in data.data.items()}
    for k, x in enumerate(other.values()):
        x[present[:, k] == 0] = 1 - x[present[:, k] == 0]  # other values where nothing is to be seen
    marked = [with_present(Dataset("toy", "train", SMALL, d), present) for d in (data.data, other)]
    for m in SMALL:
        assert torch.equal(marked[0].data[m], marked[1].data[m])
        kept = present[:, [*SMALL].index(m)] > 0
        assert torch.equal(marked[0].data[m][kept], data.data[m][kept])
        assert not torch.equal(marked[0].data[m], data.data[m])
    assert torch.equal(marked[0].data["present"], present)
    with pytest.raises(ValueError, match="toy: mask is missing in all samples"):
        with_present(data, torch.tensor([[1.0, 0.0, 1.0]]).expand(24, 3))
    with pytest.raises(ValueError, match=r"has shape \(24, 2\), expected \(24, 3\)"):
        with_present(data, present[:, :2])


@pytest.mark.parametrize("method", ["mopoe", "mvtcae"])
def test_baselines_train_with_missing_modalities(method: str) -> None:
    model = small_baseline(method, missing=0.25)
    history = train(model, small_data(), TrainingSettings(2, 12, 1e-3), seed=0)
    assert all(math.isfinite(e["loss"]) for e in history)
    model.eval()
    batch = dict(small_data(8).data)
    present = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1], [1, 1, 1]])

    def loss(values: Mapping[str, Tensor], shown: Tensor) -> Loss:
        with isolated_rng(4):
            return model.loss({**values, "present": shown.float()}, Stage())

    first = loss(batch, present)
    first.total.backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)
    changed = {m: torch.where(_like(present[:, k], x), x, 1 - x) for k, (m, x) in enumerate(batch.items())}
    value = first.total.item()
    assert loss(changed, present).total.item() == pytest.approx(value, rel=1e-6)
    assert loss(changed, torch.ones(8, 3)).total.item() != pytest.approx(value, rel=1e-3)


def _like(flags: Tensor, x: Tensor) -> Tensor:
    return flags.bool().view(-1, *[1] * (x.ndim - 1)).expand_as(x)


def test_one_observed_modality_leaves_its_own_negative_elbo() -> None:
    """MoPoE with one modality present has its expert alone: reconstruction and beta times its divergence."""
    model = small_baseline("mopoe", missing=0.25).eval()
    batch = dict(small_data(4).data)
    present = torch.tensor([[0.0, 0.0, 1.0]]).expand(4, 3)
    mean, log_variance = model.moments("attributes", batch["attributes"])
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
    many = {m: x.repeat(50, *[1] * (x.ndim - 1)) for m, x in batch.items()} | {"present": present.repeat(50, 1)}
    values = []
    for k in range(16):
        with isolated_rng(k), torch.no_grad():
            values.append(float(model.loss(many).total))
    z = mean + (0.5 * log_variance).exp() * torch.randn(4000, 4, 6, generator=torch.Generator().manual_seed(0))
    p = model.reconstruction("attributes", z.flatten(0, 1)).view(4000, 4, 5)
    costs = -(batch["attributes"] * p.log() + (1 - batch["attributes"]) * (1 - p).log()).sum(2)
    expected = (costs.mean(0) + 0.5 * kl).mean().item()
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) + costs.mean(1).std().item() / math.sqrt(4000)
    assert abs(float(np.mean(values)) - expected) < 5 * error


def test_with_all_present_masked_mvtcae_is_the_plain_one() -> None:
    plain, masked = (small_baseline("mvtcae", missing=m).eval() for m in (0.0, 0.25))
    batch = dict(small_data(6).data)
    with isolated_rng(5):
        expected = plain.loss(batch).total.item()
    with isolated_rng(5):
        found = masked.loss({**batch, "present": torch.ones(6, 3)}).total.item()
    assert found == pytest.approx(expected, rel=1e-6)


def test_bernoulli_attributes_of_baselines() -> None:
    """The decoder's logits are trained by the cross-entropy, and generation gives probabilities."""
    model = small_baseline("mvtcae").eval()
    batch = dict(small_data(6).data)
    logits, x = torch.randn(6, 5), batch["attributes"]
    found = model.multivae.recon_log_probs["attributes"](logits, x).sum(1)
    expected = torch.distributions.Bernoulli(logits=logits).log_prob(x).sum(1)
    torch.testing.assert_close(found, expected)
    drawn = model.generate(50, given={"image": batch["image"]}, generator=torch.Generator().manual_seed(0))
    assert 0 < float(drawn["attributes"].min()) < float(drawn["attributes"].max()) < 1
    z = torch.randn(3, 6)
    torch.testing.assert_close(
        model.reconstruction("attributes", z), model.multivae.decoders["attributes"](z).reconstruction.sigmoid()
    )
    with pytest.raises(ValueError, match=r"\['attributes'\] have a Bernoulli one"):
        model.log_likelihood(batch, num_importance_samples=4)
    gaussian = small_baseline("mmvae_plus", bernoulli=[], likelihood="laplace").eval()
    assert bool(torch.isfinite(gaussian.log_likelihood(batch, num_importance_samples=6)).all())


def test_baseline_errors() -> None:
    with pytest.raises(ValueError, match=r"unknown modalities \['sound'\]"):
        small_baseline("mopoe", bernoulli=["sound"])
    with pytest.raises(ValueError, match="missing is 1"):
        small_baseline("mopoe", missing=1.0)
    with pytest.raises(ValueError, match="mmvae_plus does not train with missing modalities"):
        small_baseline("mmvae_plus", missing=0.2)
    with pytest.raises(ValueError, match="unknown method 'gan'"):
        small_baseline("gan")
    model, batch = small_baseline("mopoe", missing=0.2), dict(small_data(4).data)
    with pytest.raises(ValueError, match="lacks all modalities"):
        model.loss({**batch, "present": torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 1, 1], [1, 1, 1]])})
    with pytest.raises(ValueError, match=r"'present' has shape \(4, 2\)"):
        model.loss({**batch, "present": torch.ones(4, 2)})
    with pytest.raises(ValueError, match="unknown modalities"):
        model.loss({**batch, "sound": torch.ones(4, 2), "present": torch.ones(4, 3)})


# Supervised networks


def test_supervised_networks_learn_what_the_image_shows() -> None:
    data = small_data(64)
    shown = {
        "image": data.data["image"],
        "mask": (data.data["image"].mean(1, keepdim=True) > 0.5).float(),
        "attributes": (data.data["image"][:, :, 0, 0].repeat(1, 2)[:, :5] > 0.5).float(),
    }
    data = Dataset("toy", "train", SMALL, shown)
    with isolated_rng(0):
        model = Supervised(SMALL, widths=(8, 8))
    history = train(model, data, TrainingSettings(24, 16, 6e-3), seed=0)
    assert history[-1]["mask"] < 0.5 * history[0]["mask"]
    with torch.no_grad():
        mask = model.networks["mask"](data.data["image"]).sigmoid()
    assert sample_f1(mask, shown["mask"]) > 0.85
    assert history[-1]["attributes"] < 0.8 * history[0]["attributes"]


def test_supervised_errors() -> None:
    with pytest.raises(ValueError, match="must be of 'attributes' and 'mask'"):
        Supervised(SMALL, widths=(4,), targets=("label",))
    with pytest.raises(ValueError, match=r"need the modalities \['mask'\]"):
        Supervised({m: s for m, s in SMALL.items() if m != "mask"}, widths=(4,))
    with pytest.raises(ValueError, match=r"\(6, 6\) cannot be halved 2 times"):
        MaskUNet(3, 1, (4, 4, 4))(torch.zeros(1, 3, 6, 6))
    classifiers = ModalityClassifiers({"image": SMALL["image"]}, widths=(4,))
    with pytest.raises(ValueError, match="trained with 'label' too"):
        classifiers.loss({"image": torch.zeros(2, 3, 8, 8)})


def test_a_judge_is_a_stage_of_its_own_and_the_same_beside_every_model(tmp_path) -> None:
    settings = TrainingSettings(1, 8, 1e-3, stages={CLASSIFIER: {"epochs": 2, "learning_rate": 1e-3}})
    classifiers = []
    for method in ("mopoe", "mvtcae"):
        whole = WithClassifier.build(small_baseline(method), Supervised, widths=(4, 4), targets=("attributes",))
        assert [s.name for s in whole.stages()] == ["train", CLASSIFIER]
        before = {n: p.detach().clone() for n, p in whole.named_parameters()}
        path = tmp_path / f"{method}.safetensors"
        stops = iter([False] * 4 + [True])  # in the evaluation classifier's first epoch
        with pytest.raises(TrainingStopped):
            train(whole, small_data(), settings, seed=3, checkpoint=path, stop=lambda stops=stops: next(stops, False))
        middle = {n: b.clone() for n, b in whole.model.state_dict().items()}
        again = WithClassifier.build(small_baseline(method), Supervised, widths=(4, 4), targets=("attributes",))
        train(again, small_data(), settings, seed=3, checkpoint=path)
        changed = {n.split(".")[0] for n, p in again.named_parameters() if not torch.equal(p, before[n])}
        assert changed == {"model", CLASSIFIER}
        # Nothing of the model moves while the evaluation classifier is trained, not even a running mean.
        assert all(torch.equal(x, middle[n]) for n, x in again.model.state_dict().items())
        classifiers.append(again.judge.state_dict())
    assert all(torch.equal(x, classifiers[1][n]) for n, x in classifiers[0].items())


def test_judge_errors() -> None:
    with pytest.raises(ValueError, match="the evaluation classifier has modalities"):
        WithClassifier(small_baseline("mopoe"), ModalityClassifiers({"image": SMALL["image"]}, widths=(4,)))

    class Named(TrainableModel):
        def stages(self):
            return (Stage(CLASSIFIER),)

        def loss(self, batch, stage=None):
            return Loss(torch.zeros(()))

    with pytest.raises(ValueError, match="a stage of Named is called 'judge' too"):
        WithClassifier(Named(SMALL), Supervised(SMALL, widths=(4, 4)))


# Runs on miniatures


def run(spec: RunSpec) -> tuple[Record, dict[str, np.ndarray]]:
    data = load_data(spec)
    with isolated_rng(spec.seed):
        model = build_model(spec)
    history = train(model, data["train"], training_settings(spec), seed=spec.seed)
    with torch.no_grad():
        metrics = list(evaluate(model, data, spec))
        pictures = {k: v.numpy() for k, v in figure_samples(model, spec).items()}
    return Record(spec, metrics, ENVIRONMENT, {}, "0" * 64, 1.0, 1.0, history), pictures


STAGES = {
    "sbm_vae": ["autoencoders", "score", "energy", CLASSIFIER],
    "sbm_rae_t": ["autoencoders", "contrastive", "score", CLASSIFIER],
    "mld": ["autoencoders", "score"],
    "mopoe": ["train", CLASSIFIER],
    "mmvae_plus": ["train", CLASSIFIER],
    "supervised": ["train"],
}


@pytest.mark.parametrize("method", list(STAGES))
def test_a_run_goes_through(method: str, miniature: Callable[[str], None]) -> None:
    miniature("celebamask_hq")
    record, pictures = run(celeba_spec(method, 0, "smoke"))
    values = {m.name: m for m in record.metrics}
    assert [e["stage"] for e in record.history] == STAGES[method]
    assert all(math.isfinite(m.value) for m in record.metrics)
    assert {"test/floor/f1/attributes", "test/floor/frechet/image", "test/fid/available"} <= set(values)
    assert values["test/floor/f1/mask"].value == 1.0  # all miniature masks are the same
    for how in ("plain", "guided") if method == "sbm_vae" else ("plain",):
        assert {f"test/image/{how}/f1/{m}" for m in ("attributes", "mask")} <= set(values)
        attacked = f"test/attacked/{how}/f1/attributes"
        assert (attacked in values) == (method in (*ATTACKED, "supervised"))
        assert attacked not in values or values[attacked].num_samples == 2
        if method != "supervised":
            assert {f"test/{g}/{how}/frechet/image" for g in ("both", "mask", "attributes")} <= set(values)
            assert {f"test/both/{how}/f1/{m}" for m in ("attributes", "mask")} <= set(values)
    scores = [m.value for name, m in values.items() if "/f1/" in name]
    assert all(0 <= v <= 1 for v in scores)
    if method == "supervised":
        assert pictures == {}
        return
    assert "test/nothing/plain/frechet/image" in values
    assert pictures["joint/image"].shape == (6, 3, 64, 64)
    assert pictures["given-image/attributes"].shape == (6, 18)
    assert pictures["true/attributes"].shape == (18,)
    # Images and masks of the dataset must not be passed on.
    assert [k for k in pictures if k.startswith("true/")] == ["true/attributes"]
    assert not any(k.startswith("given-image/image") for k in pictures)
    assert sum(x.nbytes for x in pictures.values()) < 299_000


def test_a_figure_through_the_command_line(miniature: Callable[[str], None], tmp_path: Path) -> None:
    """Weights with the evaluation classifier's among them are stored and read again, and the figure is drawn from what
    was exported.
    """
    miniature("celebamask_hq")
    command = ["run", "sbm-fig10", "--profile", "smoke", "--executor", "inline", "--device", "cpu"]
    command += ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    assert main(command) == 0
    (spec,) = paper("sbm_vae").plan("fig10", "smoke")["SBM-VAE"]
    drawn = tmp_path / "results" / "sbm_vae" / "smoke" / "fig10.png"
    before = drawn.read_bytes()
    assert (tmp_path / "results" / "sbm_vae" / "records" / f"{spec.key}.safetensors").stat().st_size < 300_000
    folder = RunStore(tmp_path / "runs").directory(spec)
    assert any(k.startswith("judge.") for k in load_file(folder / "weights.safetensors"))
    first = (folder / "record.json").read_text()
    (folder / "record.json").unlink()  # it is measured again, with the weights as they were stored
    assert main(command) == 0
    assert drawn.read_bytes() == before
    again = [Record.from_json(text, "") for text in (first, (folder / "record.json").read_text())]
    assert again[0].metrics == again[1].metrics


def test_a_run_with_missing_modalities_goes_through_and_renders(miniature: Callable[[str], None]) -> None:
    miniature("celebamask_hq")
    plan = paper("sbm_vae").plan("table11", "smoke")
    assert {s.params["model"]["missing"] for specs in plan.values() for s in specs} == {0.2}
    (spec,) = plan["MVTCAE"]
    record, _ = run(spec)
    only = {spec.key: record}
    files_ = render("sbm_vae/table11", "smoke", lookup=lambda s: only.get(s.key), samples=no_samples)
    text = files_["md"]
    value = record.metric("test/both/plain/f1/attributes").value
    assert f"{value:.3f}" in text
    assert "not run: `make sbm-table11 PROFILE=smoke`" in text
    assert "data not available" not in text


# Rendering


ARTIFACTS = [a.id for a in artifacts().values() if a.paper == "sbm_vae" and "celebamask_hq" in a.data]


def made_up(spec: RunSpec) -> Record:
    """A record of every metric, whose values tell rows and guidance apart."""
    base = 0.3 + 0.02 * sorted({m for m, _ in FACE_ROWS.values()}).index(spec.method) + 0.001 * spec.seed
    names = ["test/floor/f1/attributes", "test/floor/f1/mask", "test/floor/frechet/image"]
    hows = ("plain", "guided") if spec.params["model"].get("energy") else ("plain",)
    tasks = ["image/{how}/f1/attributes", "image/{how}/f1/mask"]
    if spec.params["evaluation"]["attack"]:
        tasks += ["attacked/{how}/f1/attributes", "attacked/{how}/drop/attributes"]
    if spec.method != "supervised":
        tasks += ["both/{how}/f1/attributes", "both/{how}/f1/mask"]
        tasks += [f"{g}/{{how}}/frechet/image" for g in ("both", "mask", "attributes")]
        names.append("test/nothing/plain/frechet/image")
    names += [f"test/{t.format(how=how)}" for how in hows for t in tasks]
    metrics = [Metric(n, base + 0.1 * ("guided" in n), "1", 20, "made up") for n in names]
    metrics.append(Metric("test/fid/available", 0.0, "1", 0, "no Inception weights: get them"))
    return Record(spec, metrics, ENVIRONMENT, {}, "0" * 64, 1.0, 1.0, [])


def made_up_samples(spec: RunSpec) -> Mapping[str, np.ndarray]:
    rng = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {"true/attributes": np.arange(18, dtype=np.uint8) % 2}
    for source in ("joint", "given-image", "given-mask", "given-attributes"):
        for m, c in (("image", 3), ("mask", 1)):
            found[f"{source}/{m}"] = rng.integers(0, 255, (6, c, 64, 64), dtype=np.uint8)
        found[f"{source}/attributes"] = rng.integers(0, 2, (6, 18), dtype=np.uint8)
    return found


def no_samples(spec: RunSpec) -> Mapping[str, np.ndarray]:
    raise AssertionError(f"samples of {spec.label} were asked for, it has no record")


@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_every_artifact_renders(artifact: str) -> None:
    if artifact.startswith("table"):
        made = render(f"sbm_vae/{artifact}", "paper", lookup=made_up, samples=made_up_samples)
        assert set(made) == {"md", "tex"}
        assert "data not available" not in made["md"]
        return
    figure = faces(results_of(f"sbm_vae/{artifact}", "paper", made_up, made_up_samples))
    pictures = {"image", "mask", "attributes"} & set(SHOWN[artifact][1]) - {"attributes"}
    rows = paper("sbm_vae").plan(artifact, "paper")
    assert sum(len(axis.images) for axis in figure.axes) == len(rows) * len(pictures)
    titles = [t.get_text() for t in figure.texts]
    assert set(rows) <= set(titles)
    given = any("Bangs + Blond_Hair" in t for t in titles)
    assert given == (artifact in ("fig36", "fig37"))


@pytest.mark.parametrize("artifact", ["table1", "table2", "table3", "table11", "fig10"])
def test_artifacts_render_without_records(artifact: str) -> None:
    made = render(f"sbm_vae/{artifact}", "paper", lookup=lambda s: None, samples=no_samples)
    if artifact.startswith("fig"):
        assert made["png"].startswith(b"\x89PNG")
        assert made["pdf"].startswith(b"%PDF-")
        return
    assert "data not available: `repro data fetch celebamask" in made["md"].replace("\\", "")
    assert "CelebAMask-HQ.zip" in made["md"]
    assert "No records." in made["md"]


@pytest.mark.parametrize("artifact", ["fig33", "fig36"])
def test_figures_without_records_say_why_in_every_panel(artifact: str) -> None:
    figure = faces(results_of(f"sbm_vae/{artifact}", "paper", lambda s: None, no_samples))
    texts = [" ".join(t.get_text().split()) for axis in figure.axes for t in axis.texts]
    assert len(texts) == len(figure.axes) > 0
    assert all(t.startswith("data not available: ") for t in texts)
    part = {s.key for s in paper("sbm_vae").plan(artifact, "paper")["SBM-VAE-C" if artifact == "fig36" else "MoPoE"]}
    lookup = lambda s: made_up(s) if s.key in part else None  # noqa: E731
    figure = faces(results_of(f"sbm_vae/{artifact}", "paper", lookup, made_up_samples))
    reasons = {t.get_text() for axis in figure.axes for t in axis.texts if "make" in t.get_text()}
    assert {" ".join(r.split()) for r in reasons} == {f"not run: `make sbm-{artifact}`"}


def test_every_empty_cell_says_why_beside_the_published_value() -> None:
    printed = paper("sbm_vae").published
    for artifact in ("table1", "table2", "table3", "table11"):
        table = face_table(results_of(f"sbm_vae/{artifact}", "paper", lambda s: None))
        rows = printed[artifact]["rows"]
        assert {r.label for r in table.rows} - {"Supervised"} == set(rows) - {"Supervised"}
        for row in table.rows:
            assert all(c.reason for c in row.cells.values())
            for key, values in zip(printed[artifact]["columns"], rows.get(row.label, [[]] * 9), strict=False):
                assert row.cells[key].published == (values[0] if values else None)
        assert all(c.reason for c in table.floors[0].cells.values())


def test_table1_shows_each_row_its_own_metrics() -> None:
    table = face_table(results_of("sbm_vae/table1", "paper", made_up))
    rows = {r.label: r.cells for r in table.rows}
    assert list(rows) == list(FACE_ROWS)
    assert rows["SBM-VAE-C"]["attr_f1_img"].mean == pytest.approx(rows["SBM-VAE"]["attr_f1_img"].mean + 0.1)
    assert rows["SBM-VAE"]["attr_f1_img"].n == 3
    assert rows["SBM-VAE"]["img_fid_both"].reason == "no Inception weights: get them"
    assert rows["Supervised"]["mask_f1_img"].mean is not None
    assert rows["Supervised"]["mask_f1_img"].published == 0.94
    assert rows["Supervised"]["img_fid_both"].reason == "predicts attributes and masks from images alone"
    (floor,) = table.floors
    assert floor.label == FLOOR
    assert floor.cells["pixels_both"].mean is not None
    three = {r.label: r.cells for r in face_table(results_of("sbm_vae/table3", "paper", made_up)).rows}
    assert "Supervised" not in three  # the attack on the classifier itself is no row to compare with
    (apart,) = face_table(results_of("sbm_vae/table3", "paper", made_up)).groups
    assert [r.label for r in apart.rows] == ["Supervised"]
    assert apart.rows[0].cells["f1_adversarial"].n == 3
    assert three["SBM-VAE-C"]["f1_adversarial"].mean == pytest.approx(rows["SBM-VAE-C"]["attr_f1_img"].mean)
    assert any("no attempt" in n for n in face_table(results_of("sbm_vae/table1", "quick", made_up)).notes)
    assert not any("no attempt" in n for n in table.notes)


def test_a_drop_that_does_not_exist_says_so() -> None:
    def lookup(spec: RunSpec) -> Record:
        record = made_up(spec)
        kept = [m for m in record.metrics if "/drop/" not in m.name]
        return Record(spec, kept, ENVIRONMENT, {}, "0" * 64, 1.0, 1.0, [])

    table = face_table(results_of("sbm_vae/table3", "paper", lookup))
    assert {r.cells["percent_drop"].reason for r in table.rows} == {"no drop: the F1 without the attack is 0"}


def test_words_and_pages() -> None:
    assert attribute_names(np.array([1, 0, 1]), ["Bald", "Bangs", "Male"], " + ") == "Bald + Male"
    assert attribute_names(np.array([0, 0, 0]), ["Bald", "Bangs", "Male"]) == "none"
    with pytest.raises(ValueError, match=r"shape \(2,\) for 3 names"):
        attribute_names(np.array([1, 0]), ["Bald", "Bangs", "Male"])
    image = np.zeros((2, 3, 4, 4), np.uint8)
    figure = sample_pages({"A": {"x": image, "y": ["Bald", "Male"]}, "B": {"x": "why", "y": "why"}}, title="t")
    texts = {t.get_text() for axis in figure.axes for t in axis.texts} | {t.get_text() for t in figure.texts}
    assert {"Bald", "Male", "why", "A", "B", "t"} <= texts
    assert sum(len(axis.images) for axis in figure.axes) == 1
    for rows in ({}, {"A": {}}, {"A": {"x": image}, "B": {"y": image}}):
        with pytest.raises(ValueError, match="expected the same ones in each"):
            sample_pages(rows, title="t")
    with pytest.raises(ValueError, match=r"panels of \[1, 2\] samples"):
        sample_pages({"A": {"x": image, "y": ["Bald"]}}, title="t")
    with pytest.raises(ValueError, match="expected \\(samples, 1 or 3, H, W\\)"):
        sample_pages({"A": {"x": image[:, :2]}}, title="t")


# Specifications


def test_specifications_are_the_papers() -> None:
    spec = celeba_spec("sbm_vae", 0, "paper")
    model = spec.params["model"]
    assert (model["latent_dim"], model["sde"], model["latents"]) == (256, [0.1, 20.0], "mean")
    assert model["gamma"] == 2000 / 256
    assert model["beta"] == {"image": 0.1, "mask": 1.0, "attributes": 1.0}
    assert spec.params["evaluation"]["sampling"] == {"sampler": "predictor_corrector", "num_steps": 1000}
    assert spec.params["evaluation"]["attack"] == 0.05
    assert spec.params["training"]["stages"]["score"]["learning_rate"] == 2e-4
    sizes = {m: celeba_spec(m, 0, "paper").params["model"] for m in ("mopoe", "mvtcae", "mmvae_plus")}
    assert [s["latent_dim"] for s in sizes.values()] == [1024, 1024, 128]
    assert [s["beta"] for s in sizes.values()] == [0.1, 0.5, 5.0]
    assert sizes["mmvae_plus"]["likelihood"] == "laplace"
    # Rows with and without guidance share one run; what is trained with missing modalities is another run.
    table = paper("sbm_vae").plan("table1", "paper")
    assert table["SBM-VAE"] == table["SBM-VAE-C"]
    assert len(table["MLD"]) == 3
    assert not set(table["MoPoE"]) & set(paper("sbm_vae").plan("table11", "paper")["MoPoE"])
    assert paper("sbm_vae").plan("table3", "paper")["SBM-VAE-C"] == table["SBM-VAE"]
    for profile, p in FACE_PROFILES.items():
        assert set(p["rows"]) <= set(FACE_ROWS)
        for artifact in ARTIFACTS:
            assert paper("sbm_vae").plan(artifact, profile)
    for method in {m for m, _ in FACE_ROWS.values()}:
        seconds, megabytes = estimate(celeba_spec(method, 0, "quick"))
        assert 0 < seconds < 4 * 3600
        assert megabytes > 0


def test_the_score_network_is_of_16_by_16() -> None:
    model = build_model(celeba_spec("sbm_vae", 0, "smoke"))
    assert isinstance(model, WithClassifier)
    assert (model.model.score.size, model.model.score.num_modalities) == (16, 3)
    assert model.model.autoencoders.likelihoods == {"image": "gaussian", "mask": "gaussian", "attributes": "bernoulli"}


def test_specification_errors() -> None:
    with pytest.raises(ValueError, match="unknown method 'jmvae' of CelebAMask-HQ"):
        celeba_spec("jmvae", 0, "quick")
    for share in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"missing is {share}"):
            celeba_spec("mopoe", 0, "quick", missing=share)
    for method in ("supervised", "mmvae_plus", "sbm_rae_t"):
        with pytest.raises(ValueError, match=f"{method} does not train with missing"):
            celeba_spec(method, 0, "quick", missing=0.2)
    for seeds in (None, 2):
        with pytest.raises(NoProfileError, match="no profile 'overnight'"):
            paper("sbm_vae").plan("table1", "overnight", seeds)
    assert absent("celebamask_hq", "table1", "paper", recorded=True) == "not run: `make sbm-table1`"
    assert absent("celebamask_hq", "table1", "quick", recorded=True) == "not run: `make sbm-table1 PROFILE=quick`"


def test_small_pixels_are_means_of_squares() -> None:
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = small_pixels(images).view(3, 3, 16, 16)
    torch.testing.assert_close(found[1, 2, 4, 5], images[1, 2, 8:10, 10:12].mean().double(), rtol=1e-6, atol=1e-7)
    assert "16 x 16" in PIXELS
