"""Loaders of image datasets on miniatures in the published formats."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from repro.datasets import load_card, load_dataset
from repro.datasets.blended import blend
from repro.datasets.celebamask_hq import read_attributes, shrink
from repro.datasets.extended_polymnist import crop, membership
from repro.datasets.fetch import FetchError
from repro.datasets.mhd import read_tuple, spectrogram
from repro.datasets.mnist import parse_idx
from repro.datasets.places import cache_root
from repro.datasets.polymnist import read_pictures
from tests.support import miniatures

Place = Callable[[str], None]


def mnist_image(dataset, modality: str, n: int) -> int:
    """Which MNIST image a triple shows: the miniature's corner pixel tells."""
    return int(dataset.data[modality][n, 0, 0, 0])


def test_mnist(miniature: Place) -> None:
    miniature("mnist")
    for split in ("train", "test"):
        dataset = load_dataset("mnist", split)
        images, labels = miniatures.mnist_digits(split)
        assert torch.equal(dataset.data["image"][:, 0], torch.from_numpy(images))
        assert dataset.labels.tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an IDX file"),
        (b"\0\0\x0d\x01", "is not an IDX file"),
        (b"\0\0\x08\x03\0\0", "header is cut off"),
        (b"\0\0\x08\x01\0\0\0\x05abc", "3 values"),
    ],
)
def test_bad_idx(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_idx(content, "file")


@pytest.mark.parametrize("alike", ["image", "digit"])
def test_triples(alike: str, miniature: Place) -> None:
    miniature("mnist_triples")
    dataset = load_dataset("mnist_triples", "train", alike=alike)
    _, labels = miniatures.mnist_digits("train")
    shown = np.array([[mnist_image(dataset, m, n) for m in ("m0", "m1", "m2")] for n in range(len(dataset))])
    assert np.array_equal(labels[shown[:, 0]], dataset.labels)
    assert np.array_equal(labels[shown[:, 1]], dataset.labels)
    assert not np.array_equal(labels[shown[:, 2]], dataset.labels)
    assert (np.sort(shown, axis=0) == np.arange(60)[:, None]).all()
    assert np.array_equal(shown[:, 0], shown[:, 1]) == (alike == "image")
    other = load_dataset("mnist_triples", "train", seed=1, alike=alike)
    assert other.provenance["sha256"] != dataset.provenance["sha256"]


def test_a_reading_of_the_triples_that_is_unknown_is_refused(miniature: Place) -> None:
    miniature("mnist_triples")
    for alike in ("digits", ["image"], np.array("image"), None):
        with pytest.raises(ValueError, match=r"alike is .*, must be one of image, digit"):
            load_dataset("mnist_triples", "train", alike=alike)


@pytest.mark.parametrize("seed", [-1, 0.0, "0", None, True], ids=repr)
def test_a_bad_seed_of_the_triples_leaves_nothing_behind(seed: object, miniature: Place) -> None:
    miniature("mnist_triples")
    with pytest.raises(ValueError, match=f"seed is {seed!r}, must be a whole number"):
        load_dataset("mnist_triples", "train", seed=seed)
    assert list(cache_root().rglob("*.lock")) == []


def test_a_seed_of_the_triples_may_be_numpys(miniature: Place) -> None:
    miniature("mnist_triples")
    one, other = (load_dataset("mnist_triples", "train", seed=seed) for seed in (0, np.int64(0)))
    assert one.provenance == other.provenance


def test_the_same_image_twice_is_the_default(miniature: Place) -> None:
    miniature("mnist_triples")
    one, other = (load_dataset("mnist_triples", "train", **o) for o in ({}, {"alike": "image"}))
    assert one.provenance["sha256"] == other.provenance["sha256"]


def test_blend_inverts_where_the_digit_is_bright() -> None:
    background = np.arange(3 * 30 * 40, dtype=np.int64).astype(np.uint8).reshape(3, 30, 40)
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 5, 7], image[0, 5, 8] = 129, 128
    out = blend(image, background, np.array([[1, 2]]))
    expected = background[:, 1:29, 2:30].copy()
    expected[:, 5, 7] = 255 - expected[:, 5, 7]
    assert np.array_equal(out[0], expected)


def shown_digits(dataset, split_images: np.ndarray) -> np.ndarray:
    """Which of the images each modality of each sample shows, by comparing the masks between two crops."""
    masks = split_images.reshape(len(split_images), -1) > 128
    found = np.empty((len(dataset), len(dataset.data)), dtype=int)
    for k, (name, x) in enumerate(dataset.data.items()):
        picture = backgrounds(dataset, name)
        windows = np.lib.stride_tricks.sliding_window_view(picture, (28, 28), axis=(1, 2))[:, :-1, :-1]
        flat = windows.transpose(1, 2, 0, 3, 4).reshape(-1, 3, 784)
        for n in range(len(dataset)):
            pixels = x[n].numpy().reshape(3, 784)
            differs = flat != pixels
            crop_index = int((differs.any(1)[:, None] == masks[None]).mean(2).max(1).argmax())
            found[n, k] = int((differs.any(1)[crop_index] == masks).mean(1).argmax())
            assert np.array_equal(pixels, np.where(masks[found[n, k]], 255 - flat[crop_index], flat[crop_index]))
    return found


def backgrounds(dataset, modality: str) -> np.ndarray:
    """The background of a modality, decoded anew from the file that the provenance names."""
    name = dataset.provenance["backgrounds"][modality]
    with Image.open(backgrounds.folder / name) as image:
        return np.asarray(image).transpose(2, 0, 1)


def test_generated_polymnist_shows_the_labels_digit(miniature: Place, mirror: Path) -> None:
    miniature("polymnist")
    backgrounds.folder = mirror / "polymnist_backgrounds_sbmae"
    dataset = load_dataset("polymnist", "test", source="generated")
    images, labels = miniatures.mnist_digits("test")
    assert np.array_equal(dataset.labels, labels)
    shown = shown_digits(dataset, images)
    assert (labels[shown] == labels[:, None]).all()
    assert (np.sort(shown, axis=0) == np.arange(20)[:, None]).all()
    assert len({tuple(column) for column in shown.T}) > 1
    again = load_dataset("polymnist", "test", source="generated")
    assert again.provenance["sha256"] == dataset.provenance["sha256"]
    other = load_dataset("polymnist", "test", source="generated", seed=1)
    assert other.provenance["sha256"] != dataset.provenance["sha256"]


def test_substitute_is_named_in_the_provenance(mirror: Path, cards: Callable[..., None]) -> None:
    write = miniatures.write_backgrounds
    splits = {"train": 45, "validation": 15, "test": 20}
    card = write(mirror, "extended_polymnist", splits, without="01The_Scream.jpg")
    cards(mnist=miniatures.write_mnist(mirror), extended_polymnist=card)
    dataset = load_dataset("extended_polymnist", "test")
    assert dataset.provenance["substitutes"] == {"01The_Scream.jpg": "01The_Scream.substitute.jpg"}
    (mirror / "polymnist_backgrounds_sbmae" / "02lena3.jpg").unlink()
    with pytest.raises(FetchError, match="02lena3"):
        load_dataset("extended_polymnist", "validation")


def test_extended_polymnist(miniature: Place) -> None:
    miniature("extended_polymnist")
    sizes = {"train": 45, "validation": 15, "test": 20}
    members = {split: {i[0, 0].item() for i in membership(split, 15, 0)[0]} for split in ("train", "validation")}
    assert {s: len(m) for s, m in members.items()} == {"train": 45, "validation": 15}
    assert not members["train"] & members["validation"]
    for split, count in sizes.items():
        dataset = load_dataset("extended_polymnist", split, padded=True)
        assert len(dataset) == count
        assert dataset.provenance["substitutes"] == {}
        assert dataset[0]["m9"].shape == (3, 32, 32)
        assert torch.equal(crop(dataset[0]["m9"]), load_dataset("extended_polymnist", split)[0]["m9"])
    with pytest.raises(ValueError, match=r"expected .*32, 32"):
        crop(torch.zeros(2, 3, 28, 28))
    with pytest.raises(ValueError, match="validation split of 60 of 60"):
        membership("train", 60, 0)


def check_poly(split: str, source: str) -> None:
    """The archive's arrays, in order of the index."""
    dataset = load_dataset("polymnist", split)
    arrays, labels = miniatures.poly_arrays(split)
    assert dataset.labels.tolist() == labels.tolist()
    for m, array in enumerate(arrays):
        assert torch.equal(dataset.data[f"m{m}"], torch.from_numpy(array))
    assert dataset.provenance["layout"] == source


def test_polymnist_tensors(miniature: Place) -> None:
    miniature("polymnist")
    for split in ("train", "test"):
        check_poly(split, "tensors")


@pytest.mark.parametrize("packed", [False, True])
def test_polymnist_pictures_pair_by_key(miniature: Place, mirror: Path, packed: bool) -> None:
    miniature("polymnist")
    (mirror / "polymnist" / "PolyMNIST.zip").unlink()
    folder = miniatures.write_poly_pictures(mirror)
    if packed:
        with zipfile.ZipFile(folder / "MMNIST.zip", "w") as file:
            for path in sorted(folder.rglob("*.png"), key=lambda p: hash(p.name)):
                file.write(path, path.relative_to(folder))
        for split in ("train", "test"):
            shutil.rmtree(folder / split)
    for split in ("train", "test"):
        check_poly(split, "pictures")


class Sink:
    """Takes arrays without a disk."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}

    def array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        self.arrays[name] = np.zeros(shape, np.uint8)
        return self.arrays[name]

    def put(self, name: str, values: np.ndarray) -> None:
        self.arrays[name] = values


def test_order_of_the_directory_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = miniatures.write_poly_pictures(tmp_path) / "train"
    listed = Path.iterdir
    results = []
    for order in (lambda names: names, lambda names: names[::-1], lambda names: names[1::2] + names[::2]):
        monkeypatch.setattr(Path, "iterdir", lambda self, order=order: iter(order(sorted(listed(self)))))
        sink = Sink()
        read_pictures(sink, folder, [f"m{m}" for m in range(5)])
        results.append(sink.arrays)
    for other in results[1:]:
        assert all(np.array_equal(results[0][name], other[name]) for name in results[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: next((f / "m2").iterdir()).unlink(), "is not in both m0 and m2"),
        (lambda f: shutil.rmtree(f / "m3"), "m3 is missing"),
        (lambda f: (f / "m1" / "x.png").write_bytes(b""), "INDEX.DIGIT.png"),
        (lambda f: Image.new("RGB", (32, 32)).save(next((f / "m4").iterdir())), r"shape \(32, 32, 3\)"),
    ],
)
def test_bad_pictures(tmp_path: Path, change: Callable[[Path], None], message: str) -> None:
    folder = miniatures.write_poly_pictures(tmp_path) / "test"
    change(folder)
    with pytest.raises(ValueError, match=message):
        read_pictures(Sink(), folder, [f"m{m}" for m in range(5)])


def test_polymnist_errors(miniature: Place, mirror: Path) -> None:
    miniature("polymnist")
    with pytest.raises(ValueError, match="source is 'zenodo'"):
        load_dataset("polymnist", "train", source="zenodo")
    archive = mirror / "polymnist" / "PolyMNIST.zip"
    archive.unlink()
    with pytest.raises(FetchError, match='source="generated"'):
        load_dataset("polymnist", "train")
    buffer = io.BytesIO()
    torch.save(torch.zeros(20, 3, 28, 28), buffer)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("MMNIST/test/m0.pt", buffer.getvalue())
    with pytest.raises(ValueError, match=r"labels\.pt is missing"):
        load_dataset("polymnist", "test")


@pytest.mark.parametrize("preprocessed", [False, True])
def test_celebamask(mirror: Path, cards: Callable[..., None], preprocessed: bool) -> None:
    cards(celebamask_hq=miniatures.write_celeba(mirror, preprocessed))
    for split, members in miniatures.FACE_SPLITS.items():
        dataset = load_dataset("celebamask_hq", split)
        assert len(dataset) == len(members)
        for n, k in enumerate(sorted(members)):
            assert abs(float(dataset[n]["image"].mean()) - (k % 200) / 255) < 0.01
            assert dataset[n]["attributes"].tolist() == [float((k + a) % 3 == 0) for a in range(18)]
            mask = dataset[n]["mask"][0]
            assert mask.unique().tolist() == [0.0, 1.0]
            assert mask[:32].all()
            assert mask[64:96, 64:96].all()
            assert int(mask.sum()) == 32 * 128 + 32 * 32
    assert dataset.provenance["layout"] == ("preprocessed" if preprocessed else "published")


def test_celebamask_errors(mirror: Path, cards: Callable[..., None], tmp_path: Path) -> None:
    cards(celebamask_hq=miniatures.write_celeba(mirror))
    base = mirror / "celebamask_hq"
    shutil.rmtree(base / "CelebAMask-HQ-mask-anno" / "1")
    with pytest.raises(ValueError, match="no mask of image 2001"):
        load_dataset("celebamask_hq", "train")
    with pytest.raises(ValueError, match="no attribute 'Tall'"):
        read_attributes(base / "CelebAMask-HQ-attribute-anno.txt", ["Tall"])
    (tmp_path / "a.txt").write_text("Bald Male\n0.jpg  1  0\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"line of '0.jpg'"):
        read_attributes(tmp_path / "a.txt", ["Bald"])
    with pytest.raises(ValueError, match="does not shrink"):
        shrink(Image.new("RGB", (300, 300)), 128)
    shutil.rmtree(base)
    with pytest.raises(FetchError, match=r"placed by hand.*drive.google.com.*CelebA-HQ-img"):
        load_dataset("celebamask_hq", "test")


@pytest.mark.parametrize("blocks", [False, True])
def test_mhd(mirror: Path, cards: Callable[..., None], blocks: bool) -> None:
    cards(mhd=miniatures.write_mhd(mirror, blocks))
    two, three = load_dataset("mhd", "train"), load_dataset("mhd", "train", trajectory=True)
    assert list(two.modalities) == ["image", "audio"]
    assert list(three.modalities) == ["image", "audio", "trajectory"]
    assert two.labels.tolist() == list(range(8))
    expected = torch.Generator().manual_seed(8)
    assert torch.equal(two.data["audio"], torch.randn(8, 1, 32, 128, generator=expected))
    assert two.provenance["normalisation"] == [{"min": 0.0}, {"max": 2.0}]


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple:
        return print, ("code ran",)


def test_mhd_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapes = {m: s.shape for m, s in load_card("mhd").modalities.items()}
    file = tmp_path / "mhd_train.pt"
    good = [torch.zeros(2), torch.zeros(2, 1, 28, 28), torch.zeros(2, 200), torch.zeros(2, 1, 32, 128), {}, {}]
    for content, message in (
        (good[:5], "tuple of 6"),
        ([*good[:1], torch.zeros(2, 1, 32, 32), *good[2:]], "image has shape"),
        ([*good[:1], torch.full((2, 1, 28, 28), 255.0), *good[2:]], r"outside \[0, 1\]"),
        ([*good[:3], torch.zeros(2, 3, 32, 32), *good[4:]], r"expected \(1, 32, 128\)"),
        (Evil(), "cannot be read"),
    ):
        torch.save(content, file)
        with pytest.raises(ValueError, match=message):
            read_tuple(file, shapes)
    assert "code ran" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="audio of shape"):
        spectrogram(torch.zeros(2, 32, 128), "x")
