"""The card of a model that its user saves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

from torch import nn

from repro import __version__

__all__ = ["saved_card"]


def _cell(name: str) -> str:
    return name.replace("\\", "\\\\").replace("|", "\\|")


class _Multimodal(Protocol):
    modalities: Mapping[str, Any]


def saved_card(model: _Multimodal, license: str | None, source: str = "path/to/this/folder") -> str:
    """The README of a saved model: metadata of the Hub, what it is made of, and how it is loaded.

    Arguments:
        model: The model.
        license: Its licence, as the Hub abbreviates it; none is stated if None.
        source: What loads it.

    Raises:
        ValueError: If the licence is no line of text.
    """
    from huggingface_hub import ModelCardData

    assert isinstance(model, nn.Module)
    tags = ["multimodal", "variational-autoencoder"]
    if license is not None and not (isinstance(license, str) and license.isprintable() and license.strip()):
        raise ValueError(f"license is {license!r}, must be a name such as 'mit', or None")
    data = ModelCardData(license=license, library_name="repro", tags=tags, pipeline_tag=None)
    name = type(model).__name__
    rows = [
        f"| {_cell(m)} | {' x '.join(map(str, s.shape))} | {s.kind} | {list(s.range or ()) or ''} | {_cell(s.unit)} |"
        for m, s in model.modalities.items()
    ]
    first = json.dumps(next(iter(model.modalities)), ensure_ascii=False)
    parameters = sum(p.numel() for p in model.parameters())
    return f"""---
{data.to_yaml().strip()}
---

# {name} of {len(rows)} modalities

{parameters:,} parameters; saved with version {__version__} of the package repro.

| modality | shape | kind | range | unit |
|:--|:--|:--|:--|:--|
{chr(10).join(rows)}

## How to use it

```python
from repro.model import MultimodalModel

model = MultimodalModel.from_pretrained("{source}")
joint = model.generate(10)  # modality to tensor
rest = model.generate(5, given={{{first}: joint[{first}]}})  # the others given one
```

The package builds the model from `config.json` with its own classes, checks the SHA-256 of the weights, and loads
`model.safetensors` strictly. Nothing in this folder is executed or unpickled.
"""
