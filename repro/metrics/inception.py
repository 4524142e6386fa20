"""Inception v3 features of torch-fidelity: those by which a Frechet distance is the FID.

The published weights are read from torch's cache or from a given file, compared with their sha256, and loaded with
``weights_only``. Nothing is downloaded here.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from repro.metrics.frechet import FID_FEATURE

__all__ = [
    "INPUT_RANGES",
    "WEIGHTS_SHA256",
    "InceptionFeatures",
    "InceptionUnavailableError",
    "inception_features",
    "load_inception",
    "optional_inception",
    "unavailable_reason",
    "weights_path",
]

# torch-fidelity states the first eight digits, in the name of the file that it publishes.
WEIGHTS_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
LAYERS = ("64", "192", "768", "2048", "logits_unbiased", "logits")

# What the first layer sees is s y + t, where y = (byte - 128) / 128 is right. The other two are mistakes that published
# numbers may come from: bytes given to code that maps [0, 1] to [-1, 1], and [0, 1] given to code that expects bytes.
INPUT_RANGES: Mapping[str, tuple[float, float]] = {
    "right": (1.0, 0.0),
    "bytes as unit": (256.0, 255.0),
    "unit as bytes": (1.0 / 255.0, 1.0 / 255.0 - 1.0),
}


class InceptionUnavailableError(RuntimeError):
    """The published Inception weights are not on this machine; the message has the command that gets them."""


class InceptionFeatures:
    """Function from images to Inception features.

    Arguments:
        network: torch-fidelity's network, in evaluation mode, with one feature layer; images are moved to its device.
        name: What the features are called; ``FID_FEATURE`` for those of the FID alone.
    """

    def __init__(self, network: nn.Module, name: str) -> None:
        self.network = network
        self.name = name

    def __call__(self, images: Tensor) -> Tensor:
        """Features ``(N, d)`` in float32 of images ``(N, C, H, W)`` in [0, 1], with one channel or three.

        Images are rounded to bytes, a single channel is repeated, and the network resizes to 299 x 299 as TensorFlow's
        did.

        Raises:
            ValueError: If the shape is another, or a value is not finite or outside [0, 1].
        """
        if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
            raise ValueError(f"{self.name}: images have shape {tuple(images.shape)}, expected (N, 1 or 3, H, W)")
        if not images.is_floating_point() or not bool(((images >= 0) & (images <= 1)).all()):
            raise ValueError(f"{self.name}: images need floating-point values in [0, 1], got others or {images.dtype}")
        device = next(self.network.parameters()).device
        content = (images.detach().to(device) * 255.0).round().to(torch.uint8).expand(-1, 3, -1, -1)
        with torch.no_grad():
            return self.network(content)[0]


def _published() -> ModuleType:
    """torch-fidelity's network and the address of its weights, which takes longer to import than most measures."""
    from torch_fidelity import feature_extractor_inceptionv3

    return feature_extractor_inceptionv3


def weights_path(path: Path | None = None) -> Path:
    """Where the weights are looked for: the given file, else torch-fidelity's name in torch's cache."""
    return path or Path(torch.hub.get_dir()) / "checkpoints" / _published().URL_INCEPTION_V3.rsplit("/", 1)[-1]


def unavailable_reason() -> str:
    """What a table's cell says where the weights were not available: the command that gets them, for a default
    cache.
    """
    place = f"~/.cache/torch/hub/checkpoints/{_published().URL_INCEPTION_V3.rsplit('/', 1)[-1]}"
    return f"Inception weights not available: curl -fL --create-dirs -o {place} {_published().URL_INCEPTION_V3}"


def load_inception(
    path: Path | None = None, *, layer: str = "2048", input_range: str = "right", sha256: str = WEIGHTS_SHA256
) -> InceptionFeatures:
    """Reads the weights, checks them, and returns the function from images to features.

    Arguments:
        path: The file; torch's cache where it is None.
        layer: Number of features of the layer, 64, 192, 768 or 2048, which is the FID's; or ``"logits_unbiased"`` or
            ``"logits"``, of which there are 1008.
        input_range: One of ``INPUT_RANGES``; other ones than ``"right"`` are for explaining published numbers.
        sha256: Hash that the file must have; the features of other weights than the published have another name.

    Raises:
        InceptionUnavailableError: If there is no such file; the text is what a table's cell says.
        ValueError: As :func:`inception_features`.
    """
    place = weights_path(path)
    if not place.is_file():
        home = Path(os.path.expanduser("~"))  # stays as it is for a user without one
        # The cell of a table is the same for every user.
        shown = Path("~") / place.relative_to(home) if place.is_relative_to(home) else place
        raise InceptionUnavailableError(
            f"Inception weights not available: curl -fL --create-dirs -o {shown} {_published().URL_INCEPTION_V3}"
        )
    return inception_features(place.read_bytes(), layer=layer, input_range=input_range, sha256=sha256)


def optional_inception(device: str) -> tuple[dict[str, InceptionFeatures], str]:
    """The features under their name, or nothing and what a table's cell says instead.

    Arguments:
        device: Where the network is to compute.
    """
    try:
        found = load_inception()
    except InceptionUnavailableError as error:
        return {}, str(error)
    found.network.to(device)
    return {FID_FEATURE: found}, ""


def inception_features(
    content: bytes, *, layer: str = "2048", input_range: str = "right", sha256: str = WEIGHTS_SHA256
) -> InceptionFeatures:
    """Builds the function from images to features from the bytes of a weight file.

    Arguments:
        content: The bytes of a file of tensors by name, in torch's format.
        layer: As in :func:`load_inception`.
        input_range: As in :func:`load_inception`.
        sha256: Hash that the content must have.

    Raises:
        ValueError: If an option is unknown, the hash is another, or the content is not the network's tensors.
    """
    if layer not in LAYERS:
        raise ValueError(f"unknown Inception layer {layer!r}; one of {', '.join(LAYERS)}")
    if input_range not in INPUT_RANGES:
        raise ValueError(f"unknown Inception input range {input_range!r}; one of {', '.join(INPUT_RANGES)}")
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise ValueError(f"Inception weights have sha256 {found}, expected {sha256}; get the file again")
    try:
        tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"Inception weights are not a file of tensors: {str(error).splitlines()[0]}") from error
    network = _network(tensors, layer)
    _set_input_range(network, *INPUT_RANGES[input_range])
    name = FID_FEATURE.replace("2048", layer)
    if input_range != "right":
        name += f", input {input_range}"
    if sha256 != WEIGHTS_SHA256:
        name += f", other weights {sha256[:8]}"
    return InceptionFeatures(network, name)


def _network(tensors: Mapping[str, Tensor], layer: str) -> nn.Module:
    """Returns torch-fidelity's network with the given tensors."""

    class Network(_published().FeatureExtractorInceptionV3):
        """Its constructor unpickles a file in full; here that is an empty one of our own, which it loads none of."""

        def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False) -> Any:
            return super().load_state_dict(state_dict, strict, assign) if state_dict else None

    if not isinstance(tensors, Mapping) or not tensors:
        raise ValueError("Inception weights hold no tensors by name")
    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    # Without storage nothing is drawn at random: neither time nor the stream of random numbers is spent.
    with torch.device("meta"):
        network = Network("inception-v3-compat", [layer], feature_extractor_weights_path=nothing)
    try:
        network.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(f"Inception weights do not fit the network: {' '.join(str(error).split())[:200]}") from error
    return network.float().eval()


def _set_input_range(network: nn.Module, scale: float, shift: float) -> None:
    """Makes the network see ``scale * y + shift`` for each input y, by its first, unpadded and unbiased convolution."""
    first = network.Conv2d_1a_3x3
    with torch.no_grad():
        first.bn.running_mean -= shift * first.conv.weight.sum((1, 2, 3))
        first.conv.weight *= scale
