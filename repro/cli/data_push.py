"""Uploads a dataset as Parquet to the Hugging Face Hub, with its card as README."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from repro.datasets.card import Card

if TYPE_CHECKING:
    from repro.datasets.base import Dataset

__all__ = ["licence", "push", "size_text", "verdict"]

CARD_LINES = 12


def size_text(count: int) -> str:
    """A number of bytes in GB, MB, kB or B, each a thousand of the next."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


def licence(card: Card) -> str:
    """Name of a dataset's licence."""
    return str(card.header.get("license_name", card.license))


def verdict(card: Card, dataset: Dataset) -> tuple[bool, str]:
    """Whether the card does not contradict a split's hash, and what to say of it."""
    from repro.datasets.states import against_card

    known = dataset.provenance
    matches = against_card(card, dataset.split, known["sha256"], known.get("matches_card"))
    words = {True: "as the card states", False: "NOT what the card states", None: "the card states none for it"}
    return matches is not False, f"sha256 {known['sha256']}, {words[matches]}"


def push(card: Card, repo: str, *, upload: bool = False) -> None:
    """Writes every split at the loader's default options as Parquet, says what they are, and uploads them if asked to.

    The server is that of ``HF_ENDPOINT``, the token that of ``HF_TOKEN`` or of the cached login. All files go in one
    commit; where the repository holds them already there is none.

    Arguments:
        card: The dataset's card.
        repo: The dataset repository, ``"user/name"``; it is made where there is none.
        upload: Whether to upload; otherwise this is a dry run that reaches no server.

    Raises:
        ValueError: If its licence does not allow to pass it on, or a split is not what the card states.
        OSError: If a split cannot be had, or the upload fails.
    """
    from repro.datasets import load_dataset
    from repro.datasets.hf import check_redistributable, hub_card, to_parquet

    check_redistributable(card.name)
    token = _token() if upload else ""
    if not sys.stderr.isatty():
        _quiet()
    with TemporaryDirectory(prefix="repro-push-") as folder:
        files = {}
        for split in card.splits:
            print(f"converting {card.name} {split}", file=sys.stderr)
            dataset = load_dataset(card.name, split)
            sound, words = verdict(card, dataset)
            if not sound:
                raise ValueError(f"{card.name} {split}: {words}; nothing was uploaded")
            path = files[f"data/{split}.parquet"] = Path(folder) / f"{split}.parquet"
            size = size_text(to_parquet(dataset, path))
            print(f"{split}  {len(dataset):,} samples  data/{split}.parquet  {size}  {words}", flush=True)
        readme = hub_card(card.name, {Path(p).stem: p for p in files})
        if upload:
            _upload(card, repo, {"README.md": readme.encode(), **files}, token)
            return
    print(f"README.md  {size_text(len(readme.encode()))}, licence {licence(card)}, which begins:")
    print("\n".join(f"    {line}" for line in readme.splitlines()[:CARD_LINES]))
    print(f"nothing was uploaded; with --yes it goes to the dataset repository {repo}")


def _token() -> str:
    from huggingface_hub import get_token

    token = get_token()
    if not token:
        raise OSError("no token for the Hub; set HF_TOKEN or run `hf auth login`")
    return token


def _quiet() -> None:
    """No progress bars of the libraries where nobody watches them."""
    import datasets
    import huggingface_hub.utils as hub

    datasets.disable_progress_bars()
    hub.disable_progress_bars()


def _upload(card: Card, repo: str, files: Mapping[str, bytes | Path], token: str) -> None:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # that nothing has changed is said below, not warned of
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token)
    try:
        api.create_repo(repo, repo_type="dataset", exist_ok=True)
        before = api.repo_info(repo, repo_type="dataset").sha
        operations = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=file) for path, file in files.items()]
        message = f"{card.pretty_name}, as its card describes it"
        done = api.create_commit(repo, operations, commit_message=message, repo_type="dataset")
    except (HTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split()).replace(token, "***")
        raise OSError(f"upload to {repo} at {api.endpoint} failed: {reason}") from None
    print(f"{done.commit_url}  {'unchanged' if done.oid == before else 'uploaded'}")
