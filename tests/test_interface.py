"""What every model promises, held for all models at once: see CONTRIBUTING, "A model's interface"."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings as drawing
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Identity

from repro.baselines import build_baseline
from repro.datasets.base import ModalitySpec
from repro.model import MultimodalModel, isolated_rng
from repro.papers.covae.building import build
from repro.papers.covae.model import CoVAE
from repro.papers.covae.networks import build_networks
from repro.papers.gmrf_mcvae.model import GMRFMCVAE
from repro.papers.mrf_mvae.networks import fully_connected_networks
from repro.papers.mrf_mvae.variants import VARIANTS
from repro.papers.sbm_vae.autoencoders import Autoencoders
from repro.training import NonFiniteLossError, TrainingSettings, TrainingStopped, train
from repro.training.checkpoints import CheckpointError
from tests.support.models import CHAINS, LIKELIHOODS, NAMES, SPECS, batch, dataset, density, make, same_tensors

ONE_EPOCH = TrainingSettings(epochs=1, batch_size=16, learning_rate=1e-3)
TYPES: dict[str, Callable[[Tensor], Any]] = {
    "float64": lambda x: x.double(),
    "float16": lambda x: x.half(),
    "bfloat16": lambda x: x.bfloat16(),
    "int64": lambda x: x.long(),
    "int8": lambda x: x.to(torch.int8),
    "bool": lambda x: x > 0,
    "numpy float64": lambda x: x.numpy().astype(np.float64),
    "numpy int32": lambda x: x.numpy().astype(np.int32),
    "numpy uint16": lambda x: x.numpy().clip(0).astype(np.uint16),
    "numpy backwards": lambda x: x.numpy()[::-1],
    "numpy big-endian": lambda x: x.numpy().astype(">f8"),
    "lists": lambda x: x.tolist(),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rounded(size: int) -> dict[str, Tensor]:
    """Values that all types hold: 0, 1, 2, 3."""
    return {m: x.mul(2).round().clamp(0, 3) for m, x in batch(size).items()}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", NAMES)
def test_given_may_have_any_real_type(name: str, kind: str) -> None:
    model, x = make(name), rounded(4)["a"]
    value = TYPES[kind](x)
    same = torch.as_tensor(np.ascontiguousarray(value) if kind == "numpy backwards" else np.asarray(x))
    if kind == "bool":
        same = (x > 0).float()
    expected = model.generate(2, given={"a": same.float()}, generator=generator())
    assert same_tensors(model.generate(2, given={"a": value}, generator=generator()), expected)


@pytest.mark.parametrize("name", NAMES)
def test_complex_text_and_too_large_values_are_refused_by_name(name: str) -> None:
    model = make(name)
    for value, message in (
        (torch.zeros(2, 3, dtype=torch.complex64), "modality 'a' has values of type torch.complex64"),
        (np.array([["x", "y", "z"]]), "modality 'a' has values of type <U1"),
        (np.array([["1", "2", "3"]], dtype=object), "modality 'a' is a ndarray of values that are not all numbers"),
        (np.ma.masked_greater(np.ones((2, 3)), 0), "modality 'a' has masked values"),
        (torch.zeros(2, 3, device="meta"), "modality 'a' has values of type torch.float32, needs dense real numbers"),
        (torch.full((2, 3), 2**24 + 1), "modality 'a' has values of type int64 that float32 cannot hold"),
        (torch.full((2, 3), 1e300, dtype=torch.float64), "modality 'a' has values of type float64 that float32 cannot"),
    ):
        with pytest.raises(ValueError, match=message):
            model.generate(1, given={"a": value})


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_double_precision_stays_one(name: str) -> None:
    model = make(name).double()
    single = train(make(name), dataset(40), ONE_EPOCH, seed=0)
    data = dataset(40)
    data = type(data)("mine", "train", SPECS, {m: x.double() for m, x in data.data.items()})
    history = train(model, data, ONE_EPOCH, seed=0)
    assert [e["stage"] for e in history] == [e["stage"] for e in single]
    found = model.generate(2, given={"a": data.data["a"][:3]}, generator=generator())
    assert {x.dtype for x in found.values()} == {torch.float64}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["float64", "int64", "bool"])
def test_training_takes_any_real_type(name: str, kind: str) -> None:
    x = rounded(40)
    data = dataset(40)
    values = {m: TYPES[kind](v) for m, v in x.items()}
    same = {m: TYPES[kind](v).float() for m, v in x.items()}
    losses = [train(make(name), type(data)("mine", "train", SPECS, v), ONE_EPOCH, seed=0) for v in (values, same)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("name", NAMES)
def test_inference_is_in_evaluation_mode_and_leaves_the_model_as_it_was(name: str) -> None:
    model, x = make(name), batch(4)
    train(model, dataset(40), ONE_EPOCH, seed=0)
    expected = model.generate(2, given={"a": x["a"]}, generator=generator())
    nats = density(model, x) if name in LIKELIHOODS else None
    model.train()
    first = next(m for m in model.modules() if m is not model)
    first.eval()
    modes = [m.training for m in model.modules()]
    before = {n: v.clone() for n, v in model.state_dict().items()}
    assert same_tensors(model.generate(2, given={"a": x["a"]}, generator=generator()), expected)
    assert nats is None or torch.equal(density(model, x), nats)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items() if v.is_floating_point())
    assert not any(v.requires_grad for v in model.generate(2, generator=generator()).values())


@pytest.mark.parametrize("name", NAMES)
def test_generating_while_training_changes_nothing(name: str) -> None:
    models = make(name), make(name)
    settings = TrainingSettings(epochs=2, batch_size=16, learning_rate=1e-3)
    histories = [
        train(models[0], dataset(40), settings, seed=0),
        train(models[1], dataset(40), settings, seed=0, on_epoch=lambda entry: models[1].eval().generate(2) and None),
    ]
    assert histories[0] == histories[1]
    one, other = (m.state_dict() for m in models)
    assert all(torch.equal(one[n], other[n]) for n in one if one[n].is_floating_point() and not one[n].isnan().any())


@drawing(max_examples=4, deadline=None)
@drawn(order=st.permutations(list(SPECS)), left_out=st.sampled_from([None, *SPECS]))
@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_given_does_not_matter(name: str, order: list[str], left_out: str | None) -> None:
    model, x = make(name), batch(3)
    kept = [m for m in order if m != left_out]
    sets = [{m: x[m] for m in names} for names in (kept, [m for m in SPECS if m in kept])]
    one, other = (model.generate(2, given=g, generator=generator()) for g in sets)
    assert list(one) == list(other) == list(SPECS)
    assert same_tensors(one, other)
    if name in LIKELIHOODS and left_out is not None:
        target = {left_out: x[left_out]}
        values = [density(model, target, given=g) for g in sets]
        assert torch.equal(*values)
        assert bool(values[0].isfinite().all())


def faulty(fault: str) -> dict[str, Tensor]:
    x = batch(4)
    changes = {
        "unequal": {"b": x["b"][:3]},
        "empty": {m: v[:0] for m, v in x.items()},
        "NaN": {"b": x["b"].clone().fill_(float("nan"))},
        "infinite": {"b": x["b"] / 0},
        "unknown": {"z": x["a"]},
        "shape": {"b": x["b"][:, :2]},
    }
    return {"a": x["a"], "b": x["b"], **changes[fault]} if fault != "empty" else {m: v[:0] for m, v in x.items()}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("unequal", r"^modalities of unequal batch sizes \{'a': 4, 'b': 3\}$"),
        ("empty", r"^the batch of \['a', 'b', 'c'\] has no sample$"),
        ("NaN", r"^modality 'b' has values that are not finite$"),
        ("infinite", r"^modality 'b' has values that are not finite$"),
        ("unknown", r"^unknown modalities \['z'\]; the model has \['a', 'b', 'c'\]$"),
        ("shape", r"^modality 'b' has shape \(4, 2\), the model needs \(batch, 4\)$"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_faulty_batches_are_refused_alike(name: str, fault: str, message: str) -> None:
    model, x = make(name), faulty(fault)
    with pytest.raises(ValueError, match=message):
        model.generate(1, given=x)
    with pytest.raises(ValueError, match=message):
        model.log_likelihood(x, num_importance_samples=6)


@pytest.mark.parametrize("name", NAMES)
def test_calls_that_make_no_sense_are_refused_alike(name: str) -> None:
    model, x = make(name), batch(4)
    for count in (0, -1, 1.5, "2"):
        with pytest.raises(ValueError, match=r"^num_samples is "):
            model.generate(count)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"^num_importance_samples is "):
            model.log_likelihood(x, num_importance_samples=count)  # type: ignore[arg-type]
    assert not {"num_samples", "given", "generator", "colour"} & set(model.generation_options)
    with pytest.raises(ValueError, match=r"^generate has no options \['colour'\]"):
        model.generate(1, colour=2)
    for value in (x["a"], [x["a"]]):
        with pytest.raises(ValueError, match=r"^modalities are given by name, in a mapping, not in a (Tensor|list)$"):
            model.generate(1, given=value)  # type: ignore[arg-type]
    for call in (model.generate, lambda **k: model.log_likelihood(x, **k)):
        with pytest.raises(ValueError, match=r"^generator is 3, must be a torch.Generator or None$"):
            call(generator=3)
    with pytest.raises(ValueError, match=r"^the batch has modalities \[\]"):
        model.generate(1, given={})
    with pytest.raises(ValueError, match=r"^modalities \['a'\] are both in the batch"):
        model.log_likelihood({"a": x["a"]}, given={"a": x["a"]})
    with pytest.raises(ValueError, match=r"unequal batch sizes"):
        model.log_likelihood({"a": x["a"]}, given={"b": x["b"][:2]})


@pytest.mark.parametrize("name", NAMES)
def test_global_random_state_is_not_touched(name: str) -> None:
    model = make(name)
    before = torch.get_rng_state()
    model.generate(2, given={"a": batch(3)["a"]}, generator=generator(), sample_likelihood=name != "sbm_rae")
    assert torch.equal(torch.get_rng_state(), before)


@drawing(max_examples=5, deadline=None)
@drawn(size=st.integers(1, 50), batch_size=st.integers(1, 20))
@pytest.mark.parametrize("name", NAMES)
def test_any_size_is_trained_whole_or_refused_before_the_first_step(name: str, size: int, batch_size: int) -> None:
    model, data = make(name), dataset(size)
    seen: list[int] = []
    whole = model.loss

    def counted(x: Any, stage: Any = None) -> Any:
        seen.append(len(next(iter(x.values()))))
        return whole(x, stage)

    model.loss = counted  # type: ignore[method-assign]
    settings = TrainingSettings(epochs=1, batch_size=batch_size, learning_rate=1e-3)
    try:
        history = train(model, data, settings, seed=0)
    except ValueError:
        assert not seen
        return
    sizes = [len(data)] * len(history)
    if history[0]["stage"] == "deep_cca":
        sizes[0] -= round(0.3 * len(data))
    assert sum(seen) == sum(sizes)
    model.loss = whole  # type: ignore[method-assign]


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_of_another_run_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    history = train(make(name), dataset(40), ONE_EPOCH, seed=0, checkpoint=path)
    assert train(make(name, seed=1), dataset(40), ONE_EPOCH, seed=0, checkpoint=str(path)) == history
    content = path.read_bytes()
    for data, settings, seed in (
        (dataset(40), ONE_EPOCH, 1),
        (dataset(40, seed=1), ONE_EPOCH, 0),
        (dataset(40), TrainingSettings(1, 16, 2e-3), 0),
        (dataset(40), TrainingSettings(1, 8, 1e-3), 0),
    ):
        with pytest.raises(CheckpointError, match="belongs to another run, of ") as caught:
            train(make(name), data, settings, seed=seed, checkpoint=path)
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", NAMES)
def test_models_are_pickled_with_what_they_compute(name: str) -> None:
    model, x = make(name), batch(5)
    train(model, dataset(40), ONE_EPOCH, seed=0)
    again = pickle.loads(pickle.dumps(model))
    calls = [m.generate(2, given={"a": x["a"]}, generator=generator()) for m in (model, again)]
    assert same_tensors(*calls)
    losses = []
    for m in (model, again):
        torch.manual_seed(0)
        losses.append(m.loss(x).total)
    assert torch.equal(*losses)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihoods_of_all_of_some_and_given_others(name: str) -> None:
    model, x = make(name), batch(3)
    subsets = [{"a": x["a"]}, {"b": x["b"], "c": x["c"]}, x]
    for part in subsets:
        found = density(model, part)
        assert tuple(found.shape) == (3,)
        assert bool(found.isfinite().all())
    given = density(model, {"a": x["a"]}, given={"c": x["c"]})
    assert tuple(given.shape) == (3,)


@pytest.mark.parametrize("reserved", ["type", "values", "gene.expression", "training", ""])
@pytest.mark.parametrize("name", NAMES)
def test_names_that_no_part_can_have_are_refused_at_once(name: str, reserved: str) -> None:
    with pytest.raises(ValueError, match=f"modality is called {reserved!r}"):
        make(name, {reserved: ModalitySpec((3,)), "b": ModalitySpec((4,))})


@pytest.mark.parametrize("other", ["mean", "present", "scale", "embedding", "latents", "module", "a b", "Ä-1", "stage"])
@pytest.mark.parametrize("name", NAMES)
def test_any_other_name_works(name: str, other: str) -> None:
    specs = {other: ModalitySpec((3,)), "b": ModalitySpec((4,))}
    model, data = make(name, specs), dataset(40, specs)
    train(model, data, ONE_EPOCH, seed=0)
    found = model.generate(2, given={other: data.data[other][:3]}, generator=generator())
    assert {m: tuple(x.shape) for m, x in found.items()} == {other: (2, 3, 3), "b": (2, 3, 4)}


def with_networks(name: str, order: list[str]) -> MultimodalModel:
    """A model made of the same networks, handed over in an order of its own."""
    with isolated_rng(3):
        sizes = dict.fromkeys(SPECS, 2)
        covae = build_networks("mlp", SPECS, encoded=sizes, decoded=sizes, joint_outputs=6 + 21, widths=(8,))
        encoders, decoders = fully_connected_networks(SPECS, 2, width=8, layers=1)
        if name == "covae":
            encoders, decoders = covae.encoders, covae.decoders
        networks = {
            "encoders": {m: encoders[m] for m in order},
            "decoders": {m: decoders[m] for m in order},
        }
        if name == "covae":
            return CoVAE(SPECS, latent_dims=dict.fromkeys(order, 2), joint_encoder=covae.joint, **networks).eval()
        if name in VARIANTS:
            chains = {"chains": CHAINS} if name == "nnmrf" else {}
            return VARIANTS[name](SPECS, latent_dim=2, **networks, **chains).eval()
        return build_baseline(name, SPECS, latent_dim=2, beta=0.1, widths=(8,), **networks).eval()


@pytest.mark.parametrize("name", ["covae", *VARIANTS, "mvae", "mmvae", "mopoe", "mvtcae", "jmvae"])
def test_networks_are_matched_by_name(name: str) -> None:
    one, other = with_networks(name, list(SPECS)), with_networks(name, [*SPECS][::-1])
    for part in ({"a": batch(4)["a"]}, batch(4)):
        assert torch.equal(*[density(m, part) for m in (one, other)])
    losses = []
    for model in (one, other):
        torch.manual_seed(0)
        losses.append(model.loss(batch(4)).total)
    assert torch.equal(*losses)


@pytest.mark.parametrize("part", ["encoders", "decoders"])
def test_networks_that_are_not_by_name_or_of_other_modalities_are_refused_alike(part: str) -> None:
    encoders, decoders = fully_connected_networks(SPECS, 2, width=8, layers=1)
    networks = {"encoders": encoders, "decoders": decoders}
    own = dict(networks[part])
    some, more = {"a": own["a"]}, {**own, "z": own["a"]}
    for given, message in (
        (some, rf"^{part} are for \['a'\], the modalities are \['a', 'b', 'c'\]$"),
        (more, rf"^{part} are for \['a', 'b', 'c', 'z'\], the modalities are "),
        ({}, rf"^{part} are for \[\], the modalities are "),
        (list(own.values()), rf"^{part} are a list, must be a mapping from each modality's name$"),
    ):
        changed: dict[str, Any] = networks | {part: given}
        sizes, joint = dict.fromkeys(SPECS, 2), Identity()
        makers: list[Callable[..., Any]] = [partial(VARIANTS[name], latent_dim=2) for name in VARIANTS]
        makers += [partial(build_baseline, "mvae", latent_dim=2), partial(Autoencoders, latent_dim=2)]
        makers += [partial(CoVAE, latent_dims=sizes, joint_encoder=joint)]
        for make_it in makers:
            with pytest.raises(ValueError, match=message):
                make_it(modalities=SPECS, **changed)


def test_latents_of_unknown_modalities_are_refused() -> None:
    for dims in ({"a": 2}, {**dict.fromkeys(SPECS, 2), "z": 2}):
        with pytest.raises(ValueError, match=r"^latent_dims are for \['a'.*\], the modalities are"):
            build("covae", SPECS, {"latent_dims": dims})


ALIKE = {"a": ModalitySpec((3,)), "b": ModalitySpec((3,))}


def sharing(name: str) -> MultimodalModel:
    """A model with one encoder and one decoder for both modalities."""
    with isolated_rng(3):
        encoders, decoders = fully_connected_networks({"a": ALIKE["a"]}, 2, width=8, layers=1)
        networks = {"encoders": dict.fromkeys(ALIKE, encoders["a"]), "decoders": dict.fromkeys(ALIKE, decoders["a"])}
        if name in VARIANTS:
            return VARIANTS[name](ALIKE, latent_dim=2, **networks)
        return build_baseline(name, ALIKE, latent_dim=2, beta=0.1, widths=(8,), **networks)


@pytest.mark.parametrize("name", [*VARIANTS, "mvae", "mmvae", "mopoe", "mvtcae", "jmvae"])
def test_shared_parameters_are_saved_and_continued_bit_for_bit(name: str, tmp_path: Path) -> None:
    settings, path = TrainingSettings(epochs=3, batch_size=16, learning_rate=1e-3), tmp_path / "x.safetensors"
    whole = sharing(name)
    history = train(whole, dataset(40, ALIKE), settings, seed=0)
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == 5

    with pytest.raises(TrainingStopped):
        train(sharing(name), dataset(40, ALIKE), settings, seed=0, checkpoint=path, stop=stop)
    resumed = sharing(name)
    assert train(resumed, dataset(40, ALIKE), settings, seed=0, checkpoint=path) == history
    assert same_tensors(resumed.state_dict(), whole.state_dict())
    assert len(list(resumed.parameters())) < len(resumed.state_dict())  # the parts are still one


@pytest.mark.parametrize("beta", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
def test_the_scale_of_the_noise_follows_beta_in_every_family(beta: float, likelihood: str) -> None:
    """A smaller β is a smaller scale, by the same rule, so that held-out likelihoods can choose between them."""
    sizes = dict.fromkeys(SPECS, 2)
    options = {"beta": beta, "likelihood": likelihood}
    latents = {"networks": "mlp", "widths": (8,), "posterior": "cholesky", "latent_dims": sizes}
    models = [
        GMRFMCVAE(SPECS, **options),
        build("covae", SPECS, latents | options),
        build_baseline("mvae", SPECS, latent_dim=2, **options),
        build_baseline("jmvae", SPECS, latent_dim=2, **options),
    ]
    for model in models:
        assert model.noise_scale("a") == pytest.approx(beta**0.5 if likelihood == "gaussian" else beta)
        with pytest.raises(ValueError, match="unknown modality 'z'"):
            model.noise_scale("z")


@pytest.mark.parametrize("name", NAMES)
def test_options_of_a_type_of_none_are_refused_by_name(name: str) -> None:
    model = make(name)
    with pytest.raises(ValueError, match=r"^sample_likelihood is 'no', must be True or False$"):
        model.generate(1, sample_likelihood="no")  # type: ignore[arg-type]
    for option in model.generation_options:
        for value in ("nonsense", -1, object()):
            with pytest.raises(ValueError, match=rf"^{option} is ") as caught:
                model.generate(1, **{option: value})
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_losses_take_tensors_by_name_alone(name: str) -> None:
    model, x = make(name), batch(4)
    for value, kind in ((x["a"].numpy(), "ndarray"), (x["a"].tolist(), "list"), (None, "NoneType")):
        with pytest.raises(ValueError, match=rf"^modality 'a' is a {kind}, must be a tensor$"):
            model.loss({**x, "a": value})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"^modalities are given by name, in a mapping, not in a Tensor$"):
        model.loss(x["a"])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_training_that_leaves_all_bounds_ends_in_one_line(name: str, tmp_path: Path) -> None:
    """Whatever a distribution or a factorisation says of what the parameters have become."""
    settings, path = TrainingSettings(epochs=3, batch_size=16, learning_rate=1e12), tmp_path / "x.safetensors"
    with pytest.raises((NonFiniteLossError, ValueError)) as caught:
        train(make(name), dataset(40), settings, seed=0, checkpoint=path)
    assert "\n" not in str(caught.value)
    assert "to satisfy the constraint" not in str(caught.value) or isinstance(caught.value, NonFiniteLossError)
