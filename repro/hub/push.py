"""Weights to the Hub: every recorded model with its card in one commit, a tag, and pinned revisions written back."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HTTPError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import disable_progress_bars, logging

from repro import __version__
from repro.engine.store import RunStore, file_sha256, read_record
from repro.errors import HubError, RunError
from repro.hub.card import check_card, collection_card, model_card
from repro.hub.manifest import Entry, manifest_path, packaged_files, read_manifest, write_manifest
from repro.hub.package import contents_of, new_entry
from repro.hub.registry import Model, best_run, find_entry, models
from repro.records import Record
from repro.weights.endpoint import endpoint, one_line
from repro.weights.folder import check_repo, package_folder
from repro.weights.shared import content_hash

__all__ = ["Bundle", "collect", "push"]


@dataclass(frozen=True)
class Bundle:
    """What goes up of one model.

    Arguments:
        model: The model.
        record: Its record.
        entry: Its entry of the manifest, without a revision yet.
        contents: Each file's content, or where it lies.
    """

    model: Model
    record: Record
    entry: Entry
    contents: Mapping[str, bytes | Path]


def collect(names: Sequence[str], store: RunStore, figures: Path | None = None) -> list[Bundle]:
    """The files of models that have a sound record: those inside the package, and those of the run directories.

    Arguments:
        names: The models; all that have a record if empty.
        store: Where run directories lie.
        figures: Where committed records lie; ``figures`` if None.

    Raises:
        ValueError: If a name is unknown.
        RunError: If one of these has no record, or one that may not be passed on; it says which and why.
    """
    if unknown := [name for name in names if name not in models()]:
        raise ValueError(f"unknown weights {', '.join(unknown)}; one of {', '.join(models())}")
    found = []
    for name in names or models():
        model = models()[name]
        if (package_folder() / name / "weights.safetensors").is_file():
            found.append(_packaged(model))
        elif names or (not model.block and store.record(best_run(model, store)) is not None):
            if model.block:
                raise RunError(f"{name} does not lie in the package; `repro weights ship {name}` puts it there")
            contents, entry = contents_of(name, store, figures)
            found.append(Bundle(model, _record(contents["record.json"]), entry, contents))
    for bundle in found:
        readme = bundle.contents["README.md"]
        check_card(_bytes(readme).decode(), f"{bundle.model.name}: README.md")
    return found


def _bytes(content: bytes | Path) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


def _record(content: bytes | Path) -> Record:
    return Record.from_json(_bytes(content).decode(), "record.json")


def _packaged(model: Model) -> Bundle:
    """A model that ships inside the package: its files as they are, a building block's in the form of the Hub."""
    name, folder = model.name, package_folder() / model.name
    hashes = packaged_files(find_entry(name))
    assert hashes is not None
    for file, expected in hashes.items():
        if not (folder / file).is_file() or file_sha256(folder / file) != expected:
            raise RunError(f"weights/{name}/{file} is not what the manifest states; ship it again")
    record = read_record(folder / "record.json", model.spec())
    if record is None:
        raise RunError(f"weights/{name} has no record; ship it again")
    if record.spec.profile == "smoke":
        raise RunError(f"{name} is of the smoke profile, which is for tests alone")
    if record.environment["dirty"] is not False or record.environment["training"]["dirty"] is not False:
        raise RunError(f"{name} was run from a checkout with changes; run it from a clean commit")
    if not model.block:
        if file_sha256(folder / "weights.safetensors") != record.weights_sha256:
            raise RunError(f"weights/{name}/weights.safetensors is not what its record was measured with")
        return Bundle(model, record, find_entry(name), {file: folder / file for file in hashes})
    contents: dict[str, bytes | Path] = {
        "config.json": model.config(record.spec).to_json().encode(),
        "weights.safetensors": folder / "weights.safetensors",
        "record.json": folder / "record.json",
        "README.md": model_card(model, record).encode(),
    }
    hub = new_entry(name, record, model.headline, contents, {})
    return Bundle(model, record, replace(find_entry(name), hub_bytes=hub.bytes, hub_sha256=hub.sha256), contents)


def push(
    repo: str,
    bundles: Sequence[Bundle],
    *,
    upload: bool = False,
    onto: str = "",
    manifest: Path | None = None,
) -> None:
    """Lists what goes up, and uploads it if asked to: one commit, a tag of the package's version, pinned revisions.

    The server is that of ``HF_ENDPOINT``, the token that of ``HF_TOKEN`` or of the cached login. Files that the
    repository holds already are not sent again, so that a push that was cut continues and one without changes makes no
    commit.

    Arguments:
        repo: The model repository, ``"user/name"``; it is made where there is none.
        bundles: What :func:`collect` found.
        upload: Whether to upload; otherwise this is a dry run that reaches no server.
        onto: The repository's latest commit, where somebody else made it and this push may replace its files.
        manifest: Where the pinned revisions are written to; the package's manifest if None.

    Raises:
        ValueError: If the repository's name is none, or there is nothing to push.
        HubError: If there is no token, the upload fails, or somebody else has pushed since what the manifest pins, be
            it before this push or during it; nothing is committed in parts.
    """
    check_repo(repo, "push")
    if not bundles:
        raise ValueError("nothing to push: no model of the package and no run directory has a record")
    path = manifest or manifest_path()
    known = read_manifest(path)
    # Models that went up before stay, and stay listed.
    listed = {n: e.value for n, e in known.items() if e.repo == repo and n in models()}
    readme = collection_card(listed | {b.model.name: b.entry.value for b in bundles})
    check_card(readme, "README.md")
    for bundle in bundles:
        print(f"{bundle.model.name}  record {bundle.record.spec.key}, commit {_commit(bundle.record)}")
        sizes, hashes = bundle.entry.on_the_hub
        for file, size in sizes.items():
            print(f"    {file:20s} {size / 1e6:9.3f} MB  sha256 {hashes[file]}")
    total = sum(sum(b.entry.on_the_hub[0].values()) for b in bundles)
    print(f"README.md of all models, and {len(bundles)} models, {total / 1e6:.1f} MB in all", flush=True)
    if not upload:
        cards = {"README.md": readme} | {f"{b.model.name}/README.md": _card(b) for b in bundles}
        for name, card in cards.items():
            print(f"\n{name}:\n" + "\n".join(f"    {line}" for line in card.splitlines()))
        print(f"\nnothing was uploaded; with --yes it goes to the model repository {repo}")
        return
    files: dict[str, bytes | Path] = {"README.md": readme.encode()}
    files |= {f"{b.model.name}/{file}": content for b in bundles for file, content in b.contents.items()}
    pinned = {e.revision for e in known.values() if e.repo == repo}
    commit, changed = _Upload(repo, pinned, onto).run(files)
    for bundle in bundles:
        before = known.get(bundle.model.name)
        # Where nothing has changed, the commit that was pinned holds the same files.
        same = before is not None and (before.repo, before.on_the_hub) == (repo, bundle.entry.on_the_hub)
        kept = same and not changed
        revision = before.revision if before is not None and kept else commit
        known[bundle.model.name] = replace(bundle.entry, repo=repo, revision=revision)
    write_manifest(known, path)
    print(f"{path}: {len(bundles)} models pinned to {repo}")


def _card(bundle: Bundle) -> str:
    return _bytes(bundle.contents["README.md"]).decode()


def _commit(record: Record) -> str:
    return str(record.environment["training"]["commit"])[:7]


class _Upload:
    """One commit and one tag, by the Hub's client.

    Arguments:
        repo: The repository.
        pinned: Its commits that the manifest pins.
        onto: As :func:`push` takes it.
    """

    def __init__(self, repo: str, pinned: Set[str], onto: str) -> None:
        token = get_token()
        if not token:
            raise HubError("no token for the Hub; set HF_TOKEN or run `hf auth login`")
        self.repo, self.api = repo, HfApi(endpoint=endpoint(), token=token, library_name="repro")
        self.pinned, self.onto = pinned, onto

    def run(self, files: Mapping[str, bytes | Path]) -> tuple[str, bool]:
        """The commit that holds the files, and whether it is a new one.

        Raises:
            HubError: If the server refuses, or cannot be reached.
        """
        logging.set_verbosity_error()  # that nothing has changed is said below, not warned of
        if not sys.stderr.isatty():
            disable_progress_bars()
        try:
            return self._run(files)
        except HubError:
            raise
        except (HTTPError, OSError, ValueError, RuntimeError) as error:
            advice = "what was sent is kept; the same command continues"
            raise HubError(f"push to {self.repo} at {self.api.endpoint} failed: {one_line(error)}; {advice}") from None

    def _run(self, files: Mapping[str, bytes | Path]) -> tuple[str, bool]:
        self.api.create_repo(self.repo, exist_ok=True)
        before = str(self.api.repo_info(self.repo).sha)
        if before not in self.pinned and not (len(self.onto) >= 7 and before.startswith(self.onto)):
            self._check_others(before, files)
        operations = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=file) for path, file in files.items()]
        message = f"Weights of repro {__version__}"
        # On top of what was there: another maintainer's push in between is refused, not overwritten.
        done: Any = self.api.create_commit(self.repo, operations, commit_message=message, parent_commit=before)
        changed = done.oid != before
        print(f"{done.commit_url}  {'uploaded' if changed else 'unchanged'}")
        self._tag(done.oid)
        return str(done.oid), changed

    def _tree(self, commit: str) -> dict[str, str]:
        """Every file of a commit with the hash that the Hub states, of its content or of git's object."""
        found = self.api.list_repo_tree(self.repo, recursive=True, revision=commit)
        return {f.path: f.lfs.sha256 if f.lfs is not None else f.blob_id for f in found if isinstance(f, RepoFile)}

    def _check_others(self, head: str, files: Mapping[str, bytes | Path]) -> None:
        """Refuses to replace what somebody else pushed before this push began.

        A file at the latest commit is nobody else's if it is as at a pinned commit, or as it goes up now: an earlier
        push that was cut after its commit left it so.
        """
        now, earlier = self._tree(head), []
        for commit in sorted(self.pinned):
            with contextlib.suppress(RevisionNotFoundError):  # history that was rewritten
                earlier.append(self._tree(commit))
        changed = []
        for path, content in files.items():
            states = {tree.get(path, "") for tree in earlier} or {""}
            found = now.get(path, "")
            if found not in states and found != content_hash(_bytes(content), found):
                changed.append(path)
        if changed:
            what = changed[0] + (f" and {len(changed) - 1} more" if len(changed) > 1 else "")
            raise HubError(
                f"push to {self.repo} refused: somebody else has pushed {what} since what the manifest pins; take over "
                f"their manifest, or look at commit {head[:12]} and push with --onto {head[:12]} to replace it"
            )

    def _tag(self, commit: str) -> None:
        """The tag of this version names the latest commit that it was pushed with; pinned revisions are commits."""
        tag = f"v{__version__}"
        tags = {t.name: t.target_commit for t in self.api.list_repo_refs(self.repo).tags}
        if tags.get(tag) == commit:
            return
        if tag in tags:
            self.api.delete_tag(self.repo, tag=tag)
        self.api.create_tag(self.repo, tag=tag, revision=commit)
        print(f"tag {tag} {'moved from ' + tags[tag][:7] + ' to' if tag in tags else 'names'} {commit[:7]}")
