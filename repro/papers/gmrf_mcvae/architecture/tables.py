"""Tables IV to IX of GMRF MCVAE, printed from the modules that are built."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from repro.experiment import Results, artifact
from repro.networks.cost import LayerCall, count_parameters, trace_layers
from repro.networks.mlp import GaussianMLPEncoder
from repro.networks.resnet import RESNETS, ResidualBlock, ResNetSettings, resnet_encoder
from repro.papers import paper
from repro.papers.gmrf_mcvae.architecture.complexity import EXPERIMENTS, build, capacities, thresholds
from repro.report.plain_tables import NONE, PlainTable, yes_no

__all__ = ["table4", "table5", "table6", "table7", "table8", "table9"]

RESNET_EXPERIMENTS = ("PolyMNIST", "BIKED")


def _encoder_calls(experiment: str) -> list[LayerCall]:
    """The model's encoder, followed by the modality-specific heads that factorized baselines add."""
    e = EXPERIMENTS[experiment]
    own = build(experiment).encoders["m0"]
    with torch.device("meta"):
        if e.resnet is None:
            factorized = GaussianMLPEncoder(e.shape[0], e.latent_dim, specific_dim=e.latent_dim)
        else:
            factorized = resnet_encoder(e.resnet, latent_dim=e.latent_dim, specific_dim=e.latent_dim)

    def specific(x: Tensor) -> None:
        factorized.specific_heads(factorized.features(x))

    whole = (ResidualBlock,)
    heads = [c for c in trace_layers(factorized, e.shape, run=specific, whole=whole) if c.name.startswith("specific")]
    return trace_layers(own, e.shape, whole=whole) + heads


def _size(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _activation(layer: nn.Module) -> str:
    return f"LeakyReLU ({layer.negative_slope:g})" if isinstance(layer, nn.LeakyReLU) else type(layer).__name__


def _units(layer: nn.Linear) -> str:
    return f"{layer.in_features} × {layer.out_features}"


@artifact("table4")
def table4(results: Results) -> PlainTable:
    """Table IV: encoder and decoder of the copula experiment, layer by layer, beside what is printed."""
    model, d = build("Copula"), EXPERIMENTS["Copula"].latent_dim
    encoder, decoder = model.encoders["m0"], model.decoders["m0"]
    labels = {
        "mean": "Fully Connected - mean (paper: σ_shared)",
        "log_variance": "Fully Connected - log-variance (paper: logvar_shared)",
        "specific_mean": "(if factorized) Fully Connected - mean (paper: σ_specific)",
        "specific_log_variance": "(if factorized) Fully Connected - log-variance (paper: logvar_specific)",
    }
    published = [("2 × 256", "ReLU"), ("256 × 256", "ReLU"), *[("256 × latent", "Linear")] * 4]
    published += [("input × 256", "ReLU"), ("256 × 256", "ReLU"), ("256 × 2", "Linear")]
    rows: list[tuple[str, ...]] = []
    for part, calls in {"Encoder": _encoder_calls("Copula"), "Decoder": trace_layers(decoder, (d,))}.items():
        following = [*(c.layer for c in calls[1:]), None]
        for call, after in zip(calls, following, strict=True):
            if not isinstance(call.layer, nn.Linear):
                continue
            units, activation = published[len(rows)]
            obtained = (_units(call.layer), "Linear" if isinstance(after, nn.Linear | None) else _activation(after))
            expected = (units.replace("latent", str(d)).replace("input", str(d)), activation)
            parameters = str(count_parameters(call.layer))
            label = labels.get(call.name, "Fully Connected")
            rows.append((part, label, units, activation, *obtained, parameters, yes_no(expected == obtained)))
    settings = paper("gmrf_mcvae").published["polymnist_settings"]
    place = settings["rows"][results.rename.get("GMRF MCVAE", "GMRF MCVAE")][settings["columns"].index("place")]
    layers = [m for m in model.global_encoder.modules() if isinstance(m, nn.Linear)]
    return PlainTable(
        "Table IV: encoder and decoder of the copula experiment",
        ("Component", "Layer", "Units (paper)", "Activation (paper)", "Units", "Activation", "Parameters", "Agrees"),
        tuple(rows),
        (
            f"latent = input = {d}, the latents of GMRF MCVAE. The factorized heads are the baselines'.",
            f"Not in the table: a linear embedding {_units(model.embeddings['m0'])} of each encoder's last hidden "
            f"layer and the global encoder {', '.join(map(_units, layers))} with ReLU between ({place}).",
            f"One encoder has {count_parameters(encoder)} parameters, one decoder {count_parameters(decoder)}, "
            f"the model with its prior {count_parameters(model)}.",
        ),
    )


@artifact("table5")
def table5(results: Results) -> PlainTable:
    """Table V: the layers of a residual block whose channels differ, in the order in which they run."""
    blocks = [m for m in build("PolyMNIST").encoders["m0"].modules() if isinstance(m, ResidualBlock)]
    block = next(b for b in blocks if isinstance(b.shortcut, nn.Conv2d))
    published = {
        "conv_0": "fin → fhidden, 3 × 3, stride 1, padding 1",
        "conv_1": "fhidden → fout, 3 × 3, stride 1, padding 1, bias enabled",
        "shortcut": "fin → fout, 1 × 1, stride 1, learned (no padding)",
    }
    rows = []
    for call in trace_layers(block, (block.conv_0.in_channels, 8, 8)):
        layer = call.layer
        if isinstance(layer, nn.Conv2d):
            note = f"padding {layer.padding[0]}, {'no bias' if layer.bias is None else 'bias'}"
            channels = f"{layer.in_channels} → {layer.out_channels}"
            cells = (channels, _size(layer.kernel_size), str(layer.stride[0]), note, str(count_parameters(layer)))
            rows.append((f"Conv2d ({call.name})", published[call.name], *cells))
        else:
            rows.append(("Activation", _activation(layer), NONE, NONE, NONE, _activation(layer), "0"))
    return PlainTable(
        "Table V: residual block",
        ("Layer", "Paper", "Channels", "Kernel", "Stride", "Note", "Parameters"),
        tuple(rows),
        (
            "Shown for the first block of PolyMNIST's encoder whose channels differ; fhidden = min(fin, fout).",
            "The paper lists each activation after its convolution; here, as in the author's code, it runs before.",
            f"The result is shortcut + {block.residual_scale:g} × residual (the author's code); where the channels do "
            "not differ the shortcut is the identity.",
        ),
    )


_IMAGE_COLUMNS = ("Dataset", "Stage", "Layer", "Output (paper)", "Output", "Activation", "Parameters", "Agrees")


def _image_row(
    experiment: str, stage: str, paper: str, resolved: str | None, shape: Sequence[int], layer: nn.Module | None = None
) -> tuple[str, ...]:
    """A row of Tables VI and VII; ``resolved`` is the published size in numbers, which the shape must end in."""
    description, activation = NONE, NONE
    if isinstance(layer, ResidualBlock):
        description = f"ResNet block ({layer.conv_0.in_channels} → {layer.conv_1.out_channels})"
        activation = _activation(layer.activation)
    elif isinstance(layer, nn.Conv2d):
        description = f"Conv2d ({layer.in_channels} → {layer.out_channels}, kernel={layer.kernel_size[0]})"
    elif isinstance(layer, nn.Linear):
        description = f"Fully connected ({_units(layer)})"
    elif isinstance(layer, nn.LeakyReLU):
        description, activation = "Activation", _activation(layer)
    elif layer is not None:
        description = type(layer).__name__
    parameters = "0" if layer is None else str(count_parameters(layer))
    agrees = NONE if resolved is None else yes_no(f" × {_size(shape)}".endswith(f" × {resolved}"))
    return (experiment, stage, description, paper, _size(shape), activation, parameters, agrees)


def _settings(experiment: str) -> ResNetSettings:
    return RESNETS[EXPERIMENTS[experiment].resnet or ""]


def _first_width(s: ResNetSettings, max_channels: int) -> int:
    """nf0, the channels at the size s0."""
    return min(max_channels, s.channels * s.shape[1] // s.start_size)


@artifact("table6")
def table6(results: Results) -> PlainTable:
    """Table VI: the encoder of both image datasets, beside the printed output sizes."""
    rows, blocks, stems = [], [], []
    for experiment in RESNET_EXPERIMENTS:
        model, s = build(experiment), _settings(experiment)
        d, nf0 = EXPERIMENTS[experiment].latent_dim, _first_width(s, s.encoder_max_channels)
        calls = _encoder_calls(experiment)
        last = max(i for i, c in enumerate(calls) if isinstance(c.layer, ResidualBlock))
        image = _size(s.shape[1:])
        rows.append(_image_row(experiment, "Input", "Input size", image, s.shape))
        for i, call in enumerate(calls):
            stage, paper, resolved = "ResNet Blocks", NONE, None
            if call.name == "stem":
                stage, paper, resolved = "Initial Conv", "Input size", image
                stems.append(f"{call.layer.in_channels} → {call.layer.out_channels} ({experiment})")
            elif i == last:
                paper, resolved = "nf0 × s0 × s0", _size((nf0, s.start_size, s.start_size))
            elif isinstance(call.layer, nn.Flatten):
                stage, paper, resolved = "Flatten", "nf0·s0²", str(nf0 * s.start_size**2)
            elif isinstance(call.layer, nn.Linear):
                kind = "mod (baselines)" if call.name.startswith("specific") else "joint"
                stage, paper, resolved = f"FC Layers {kind}", "Latent Dimension", str(d)
            rows.append(_image_row(experiment, stage, paper, resolved, call.shape, call.layer))
        embedding = model.embeddings["m0"]
        shape = (embedding.out_features,)
        rows.append(_image_row(experiment, "FC Layer off-diag", "Latent Dimension", str(d), shape, embedding))
        blocks.append(f"{sum(isinstance(c.layer, ResidualBlock) for c in calls)} ({experiment})")
    return PlainTable(
        "Table VI: encoder for PolyMNIST and BIKED",
        _IMAGE_COLUMNS,
        tuple(rows),
        (
            f"The initial convolution is printed as 3 → 32; with Table VIII's nf it is {' and '.join(stems)}.",
            f"The paper counts 3 ResNet blocks; the sizes need {' and '.join(blocks)}.",
            "Where the paper leaves the arrangement open, it is that of the author's code: AvgPool2d(3, stride 2, "
            "padding 1), and the map is flattened without a further activation.",
        ),
    )


@artifact("table7")
def table7(results: Results) -> PlainTable:
    """Table VII: the decoder of both image datasets, beside the printed output sizes."""
    rows, outputs = [], []
    for experiment in RESNET_EXPERIMENTS:
        s, d = _settings(experiment), EXPERIMENTS[experiment].latent_dim
        nf0 = _first_width(s, s.decoder_max_channels)
        calls = trace_layers(build(experiment).decoders["m0"], (d,), whole=(ResidualBlock,))
        last = max(i for i, c in enumerate(calls) if isinstance(c.layer, ResidualBlock))
        rows.append(_image_row(experiment, "Input", "Latent Dimension", str(d), (d,)))
        for i, call in enumerate(calls):
            stage, paper, resolved = "Upsampling", NONE, None
            if isinstance(call.layer, nn.Linear):
                stage, paper, resolved = "FC Layer", "nf0 × s0 × s0", str(nf0 * s.start_size**2)
            elif isinstance(call.layer, nn.Unflatten):
                stage, paper, resolved = "Reshape", "256 × 8 × 8", "256 × 8 × 8"
            elif i == last:
                paper, resolved = "nf × 64 × 64", f"{s.channels} × 64 × 64"
            elif isinstance(call.layer, nn.Conv2d):
                stage, paper, resolved = "Output Conv", "Output size", _size(s.shape[1:])
                outputs.append(f"{call.layer.in_channels} → {call.layer.out_channels} ({experiment})")
            rows.append(_image_row(experiment, stage, paper, resolved, call.shape, call.layer))
    return PlainTable(
        "Table VII: decoder for PolyMNIST and BIKED",
        _IMAGE_COLUMNS,
        tuple(rows),
        (
            "The paper captions the table PolyMNIST, but 256 × 8 × 8 and nf × 64 × 64 are BIKED's sizes.",
            f"The output convolution is printed as nf → 3; it is {' and '.join(outputs)}.",
        ),
    )


@artifact("table8")
def table8(results: Results) -> PlainTable:
    """Table VIII: widths and sizes of the networks that are built, beside the published ones."""
    published = {
        "Encoder": [
            ("s0", "7", "8"),
            ("nf", "64", "32"),
            ("nf_max", "1024", "512"),
            ("Image Size", "28 × 28", "64 × 64"),
        ],
        "Decoder": [
            ("s0", "7", "8"),
            ("nf", "64", "32"),
            ("nf_max", "512", "256"),
            ("Output Size", "28 × 28", "64 × 64"),
        ],
    }
    obtained: dict[tuple[str, str], list[str]] = {}
    for experiment in RESNET_EXPERIMENTS:
        model, e = build(experiment), EXPERIMENTS[experiment]
        networks = {"Encoder": (model.encoders["m0"], e.shape), "Decoder": (model.decoders["m0"], (e.latent_dim,))}
        for part, (network, shape) in networks.items():
            maps = [c.shape for c in trace_layers(network, shape, whole=(ResidualBlock,)) if len(c.shape) == 3]
            full = network.stem.out_channels if part == "Encoder" else network.output.in_channels
            values = (
                str(min(m[1] for m in maps)),
                str(full),
                str(network.max_channels),
                _size(max(m[1:] for m in maps)),
                str(max(m[0] for m in maps)),
                str(count_parameters(network)),
            )
            names = [*(name for name, *_ in published[part]), "Widest map (channels)", "Parameters"]
            for name, value in zip(names, values, strict=True):
                obtained.setdefault((part, name), []).append(value)
    prints = {(part, name): values for part, lines in published.items() for name, *values in lines}
    rows = []
    for (part, name), (first, second) in obtained.items():
        paper = prints.get((part, name))
        left, right = paper or (NONE, NONE)
        rows.append((part, name, left, first, right, second, yes_no(paper == [first, second]) if paper else NONE))
    columns = ("Network", "Parameter", "PolyMNIST (paper)", "PolyMNIST", "BIKED (paper)", "BIKED", "Agrees")
    return PlainTable("Table VIII: widths of the residual networks", columns, tuple(rows))


@artifact("table9")
def table9(results: Results) -> list[PlainTable]:
    """Table IX, and the latent capacities of sections -C1 and -C2."""
    return [thresholds(), capacities()]
