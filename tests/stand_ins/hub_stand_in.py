"""What a stand-in of the Hub holds, and what is to go wrong with it; a test sees and changes it."""

import hashlib
from dataclasses import dataclass, field

TOKEN = "hf_standin"


@dataclass
class Commit:
    """One revision: all files after it, and the names that it added, changed or removed."""

    sha: str
    message: str
    files: dict[str, bytes]
    changed: set[str]


@dataclass
class Repository:
    """A repository's visibility and history; the Hub itself makes the first, empty commit."""

    private: bool
    gated: bool = False
    commits: list[Commit] = field(default_factory=list)
    """Of the main branch."""

    branches: dict[str, list[Commit]] = field(default_factory=dict)
    """The others by name, pull requests among them."""

    tags: dict[str, str] = field(default_factory=dict)
    """Commits by name."""

    def commit(
        self, message: str, *, added: dict[str, bytes], removed: set[str], branch: str = "main"
    ) -> Commit:
        history = self.commits if branch == "main" else self.branches[branch]
        before = history[-1].files if history else {}
        files = {name: content for name, content in before.items() if name not in removed}
        named = f"{id(self)} {branch} {len(history)} {message}"
        sha = hashlib.sha1(named.encode()).hexdigest()
        history.append(Commit(sha, message, {**files, **added}, {*added, *removed}))
        return history[-1]

    def at(self, revision: str) -> Commit | None:
        histories = {**self.branches, "main": self.commits}
        if revision in histories:
            return histories[revision][-1]
        sha = self.tags.get(revision, revision)
        return next((one for each in histories.values() for one in each if one.sha == sha), None)


@dataclass
class Fault:
    """What goes wrong with the next requests whose `METHOD path` matches."""

    pattern: str
    times: int = 1
    status: int = 0
    says: str = "a fault"
    """What is answered beside the status."""

    headers: dict[str, str] = field(default_factory=dict)
    cut: int = -1
    """Bytes of what is sent, either way, before the connection is cut."""

    delay: float = 0
    """Seconds before the answer."""

    lost: bool = False
    """Whether it is done and nothing is answered."""

    flip: bool = False
    """Whether a bit of the answer is flipped."""


@dataclass
class HubStandIn:
    """What a test sees of the stand-in."""

    url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    """Large files by their sha256."""

    requests: list[str] = field(default_factory=list)
    """`METHOD path` of every request."""

    refusals: dict[str, int] = field(default_factory=dict)
    """Status to answer with, by a regular expression over `METHOD path`."""

    faults: list[Fault] = field(default_factory=list)
    """What else goes wrong."""

    sent: list[str] = field(default_factory=list)
    """The ranges that were asked for of files."""

    def add(self, repo: str, files: dict[str, bytes], *, private: bool = False) -> Repository:
        """Put a repository there."""
        repository = self.repositories[repo] = Repository(private)
        repository.commit("initial commit", added={".gitattributes": b""}, removed=set())
        if files:
            repository.commit("add", added=files, removed=set())
        return repository

    def forget(self) -> None:
        """Be as at first."""
        self.repositories.clear()
        self.uploads.clear()

    def fail(self, pattern: str, **how: object) -> None:
        """Have something go wrong, as `Fault` says."""
        self.faults.append(Fault(pattern, **how))

    def environment(self, home: object) -> dict[str, str]:
        """Settings that send a client in another process here; it keeps its files in `home`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
