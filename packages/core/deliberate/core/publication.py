"""What publishing a coprocessor would send: gathered and checked here, and nobody is contacted.

    run folder --prepare--> Publication

Folders of this machine that the run's files name, secrets and quoted texts are left out.
"""

import json
import math
import re
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from deliberate.core import fingerprint, hub, plain_file, plain_json, plain_yaml, weights_file
from deliberate.core.card import Subject, write_card
from deliberate.core.card_tables import PLOTS
from deliberate.core.checkpoint import CONFIG, EMBEDDED_FOLDERS, read_config, settings_of
from deliberate.core.errors import DeliberateError
from deliberate.core.hub_id import HubId, NotAnIdError, check_revision
from deliberate.core.hub_results import entries
from deliberate.core.local_paths import without_folders
from deliberate.core.redaction import values_without_secrets
from deliberate.core.run_results import EVALUATION, RunResults, read_results
from deliberate.core.weights_file import CHECKSUM, WEIGHTS

CARD, RECIPE = "README.md", "recipe.yaml"

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]{1,63}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class PublishError(DeliberateError):
    """A coprocessor that cannot be published, or not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """Exactly what is to be sent, and where."""

    repo: str
    """Hub id, `user/repo`."""

    private: bool
    """Whether only its owner may see it."""

    branch: str | None
    """Made if missing; none is the main one."""

    create_pr: bool
    """Whether it is proposed as a pull request and changes no branch."""

    tag: str | None
    """Name that the commit gets."""

    files: dict[str, Path | bytes]
    """Name in the repository to a file here, or to the content itself."""

    weights: str
    """SHA-256 of the file of weights when it was checked; no other is sent."""

    card: str
    """The model card, which is also among the files."""

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {
            name: len(content) if isinstance(content, bytes) else content.stat().st_size
            for name, content in self.files.items()
        }

    @property
    def url(self) -> str:
        """Where it is to be found."""
        return hub.page_of(self.repo)


def prepare(
    run: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    tag: str | None = None,
    licence: str | None = None,
    without_evaluation: bool = False,
) -> Publication:
    """Gather what publishing a run would send; nobody is contacted.

    Args:
        run: Folder of a training run, or the name of an embedded coprocessor.
        repo: Hub id: `user/repo`, `user/repo@branch`, `hf://user/repo`.
        private: Whether only its owner may see it.
        revision: Branch, where the id does not say it; none is the main one.
        create_pr: Whether it is proposed as a pull request.
        tag: Name that the commit gets.
        licence: Of the weights, as the Hub names it, such as `apache-2.0`.
        without_evaluation: Whether a run that was not evaluated may be published.

    Raises:
        PublishError: the id or a name cannot be used, there is no such folder, or it was not
            evaluated. What is wrong with the folder itself comes as another `DeliberateError`.
    """
    where = _where(repo, revision)
    _check_names(where.revision, tag, licence, create_pr=create_pr)
    folder = EMBEDDED_FOLDERS.get(str(run), Path(run))
    if not folder.is_dir():
        raise PublishError(
            f"no run folder at {str(run)!r}: give the folder that `deliberate train` wrote"
        )
    config = read_config(folder)
    settings = settings_of(config, folder)
    weights = weights_file.hash_of(folder / WEIGHTS) if (folder / WEIGHTS).is_file() else ""
    weights_file.verify(folder, config)
    parameters, dtype = _weights(folder / WEIGHTS)
    identity = fingerprint.of_coprocessor(folder, config["coprocessor"])
    results = read_results(folder, identity)
    if not results and not without_evaluation:
        raise PublishError(
            f"{str(run)!r} was not evaluated, so its card could say nothing of what it gains: run "
            f"`deliberate eval {shlex.quote(str(run))}` first, or add --without-evaluation"
        )
    card = write_card(
        Subject(
            repo=where.repo,
            config=values_without_secrets({**config, "coprocessor": asdict(settings)}),
            fingerprint=identity,
            parameters=parameters,
            dtype=dtype,
            results=results,
            license=licence,
        )
    )
    return Publication(
        repo=where.repo,
        private=private,
        branch=where.revision,
        create_pr=create_pr,
        tag=tag,
        files={CARD: card.encode(), **_files(folder, results, weights)},
        weights=weights,
        card=card,
    )


def _files(folder: Path, results: RunResults, weights: str) -> dict[str, Path | bytes]:
    """What goes beside the card, by its name there; the weights by their hash."""
    files: dict[str, Path | bytes] = {}
    for name in (CONFIG, WEIGHTS, RECIPE, EVALUATION):
        if (folder / name).is_file():
            _check_inside(folder / name, folder)
            files[name] = _without_folders(folder / name, weights)
    if EVALUATION not in files and results.perplexity is not None:
        shared = without_folders(values_without_secrets(results.perplexity))
        files[EVALUATION] = (json.dumps(shared, indent=2) + "\n").encode()
    for name, path in results.plots.items():
        _check_inside(path, folder)
        files[f"{PLOTS}/{name}"] = path
    for name, content in entries(results.bench).items():
        files[name] = yaml.safe_dump(content, sort_keys=False).encode()
    return files


def _where(repo: str, revision: str | None) -> HubId:
    try:
        return hub.named(repo, revision=revision, what="repository")
    except NotAnIdError as error:
        raise PublishError(
            f"{repo!r:.200} cannot be a repository's id: give 'user/repo' of letters, digits, "
            "'-', '_' and '.', at most 96 in all"
        ) from error


def _check_names(
    branch: str | None, tag: str | None, licence: str | None, *, create_pr: bool
) -> None:
    """See that what is named can be.

    Raises:
        PublishError: a branch is a commit, a tag is asked for of a pull request, or a licence is
            none.
    """
    if branch is not None and _COMMIT.fullmatch(branch):
        raise PublishError(f"{branch!r} is a commit, which nothing can be added to: name a branch")
    if tag is not None:
        check_revision(tag, of="a repository")
        if create_pr:
            raise PublishError(
                "a tag names a commit of a branch and a pull request is none yet: leave out "
                "--tag or --create-pr"
            )
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise PublishError(
            f"{licence!r:.80} is no licence as the Hub names them: give one such as 'apache-2.0', "
            "'mit', 'cc-by-4.0' or 'other'"
        )


def _weights(path: Path) -> tuple[int, str]:
    """How many weights there are, and their dtype."""
    parts = weights_file.header_of(path).parts.values()
    return sum(math.prod(part.shape) for part in parts), weights_file.dtypes_of(parts)


def _check_inside(path: Path, folder: Path) -> None:
    """See that a file is the folder's own, for a link would publish what it leads to.

    Raises:
        PublishError: it leads elsewhere.
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        raise PublishError(
            f"{str(path)!r} is a link that leads out of its folder: put the file itself there"
        )


def _without_folders(path: Path, weights: str) -> Path | bytes:
    """The file of weights itself, or what another holds, without folders of this machine.

    Raises:
        PublishError: it cannot be read.
    """
    if path.name == WEIGHTS:
        return path
    is_json = path.suffix == ".json"
    most = plain_json.MOST_BYTES if is_json else plain_yaml.MOST_BYTES
    try:
        read = plain_file.read(path, most=most)
        text = read.decode("utf-8")
        content = plain_json.parse(text, finite=False) if is_json else plain_yaml.parse(text)
    except (OSError, ValueError) as error:
        raise PublishError(
            f"cannot read {str(path)!r}: {' '.join(str(error).split())}; mend it, or remove it"
        ) from error
    shared = without_folders(values_without_secrets(content))
    if shared == content:
        return read
    if path.name == CONFIG and CHECKSUM in shared:
        shared[CHECKSUM] = weights_file.checksum_of(shared, weights)
    if is_json:
        return (json.dumps(shared, indent=2) + "\n").encode()
    return yaml.safe_dump(shared, sort_keys=False).encode()
