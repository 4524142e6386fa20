"""The command ``repro data push``: a dataset as Parquet to the Hugging Face Hub, with its card as README."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import datasets
from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import disable_progress_bars, logging

from repro.cli.data import card_of, licence
from repro.cli.data_splits import verdict
from repro.datasets import load_dataset
from repro.datasets.card import Card
from repro.datasets.hf import check_redistributable, hub_card, to_parquet
from repro.errors import UsageError
from repro.report.text import size_text

__all__ = ["push_dataset"]

CARD_LINES = 12


def push_dataset(options: argparse.Namespace) -> None:
    """Writes every split at the loader's default options as Parquet, says what they are, and uploads them if asked to.

    The server is that of ``HF_ENDPOINT``, the token that of ``HF_TOKEN`` or of the cached login. All files go in one
    commit; where the repository holds them already there is none. Without ``--yes`` no server is reached.

    Raises:
        UsageError: If there is no such dataset, or the repository is not ``user/name``.
        ValueError: If its licence does not allow to pass it on, or a split is not what the card states.
        OSError: If a split cannot be had, or the upload fails.
    """
    repo, upload = options.repo, options.yes
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repo, re.ASCII):
        raise UsageError(f"the repository is {repo!r}, must be such as user/name")
    card = card_of(options.name)
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
    token = get_token()
    if not token:
        raise OSError("no token for the Hub; set HF_TOKEN or run `hf auth login`")
    return token


def _quiet() -> None:
    """No progress bars of the libraries where nobody watches them."""
    datasets.disable_progress_bars()
    disable_progress_bars()


def _upload(card: Card, repo: str, files: Mapping[str, bytes | Path], token: str) -> None:
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
