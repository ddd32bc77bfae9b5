"""A stand-in of the Hub on the loopback interface: what pushing and loading need, in memory."""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml
from hub_stand_in import TOKEN, Fault, HubStandIn


@contextmanager
def hub_stand_in() -> Iterator[HubStandIn]:
    """Run a stand-in while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    hub = server.hub = HubStandIn(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Answers(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answer("GET")

    do_HEAD = do_GET

    def do_POST(self):
        self._answer("POST")

    def do_PUT(self):
        self._answer("PUT")

    def _answer(self, method):
        self.hub = self.server.hub
        path = unquote(urlsplit(self.path).path)
        line = f"{self.command} {path}"
        self.hub.requests.append(line)
        self.fault = next(
            (x for x in self.hub.faults if x.times and re.search(x.pattern, line)), Fault("")
        )
        self.fault.times -= 1
        size = int(self.headers.get("Content-Length") or 0)
        if size and self.fault.cut >= 0:
            self.rfile.read(min(size, self.fault.cut))
            self.close_connection = True
            return None
        self.body = self.rfile.read(size)
        time.sleep(self.fault.delay)
        if self.fault.status:
            return self._send(self.fault.status, {"error": self.fault.says}, **self.fault.headers)
        for pattern, status in self.hub.refusals.items():
            if re.search(pattern, line):
                return self._send(status, {"error": "refused by the test"})
        for route, name in _ROUTES.items():
            if match := re.fullmatch(route, f"{method} {path}"):
                return getattr(self, name)(**match.groupdict())
        return self._send(404, {"error": "no such route"})

    def _send(self, status, content=b"", **headers):
        if self.fault.lost:
            self.close_connection = True
            return
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault.flip:
            body = body[:-1] + bytes([body[-1] ^ 1])
        with suppress(ConnectionError):  # the client may have given up
            self.wfile.write(body if self.fault.cut < 0 else body[: self.fault.cut])
        self.close_connection = self.close_connection or self.fault.cut >= 0

    @property
    def _known(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repository(self, repo, *, write=False):
        """A repository that the client may see or write to; otherwise the refusal is sent."""
        repository = self.hub.repositories.get(repo)
        if write and not self._known:
            return self._send(401, {"error": "Invalid username or password."})
        if repository is None or (repository.private and not self._known):
            status = 404 if self._known else 401
            return self._send(
                status, {"error": "Repository not found"}, X_Error_Code="RepoNotFound"
            )
        if repository.gated and "/resolve/" in self.path:
            return self._send(403, {"error": "gated"}, X_Error_Code="GatedRepo")
        return repository

    def create(self):
        asked = json.loads(self.body)
        repo = f"{asked['organization']}/{asked['name']}"
        if not self._known:
            return self._send(401, {"error": "Invalid username or password."})
        url = {"url": f"{self.hub.url}/{repo}"}
        if repo in self.hub.repositories:
            return self._send(409, {"error": "You already created this repo", **url})
        # Old clients (1.3) say `private`, new ones (2.4) `visibility`.
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.hub.add(repo, {}, private=private)
        return self._send(200, url)

    def validate(self):
        card = json.loads(self.body)["content"]
        errors = []
        if not isinstance(yaml.safe_load(card.split("---")[1]), dict):
            errors.append({"message": "no metadata"})
        self._send(400 if errors else 200, {"errors": errors, "warnings": []})

    def branch(self, repo, revision):
        if repository := self._repository(repo, write=True):
            if revision in repository.branches or revision == "main":
                return self._send(409, {"error": "Reference already exists"})
            repository.branches[revision] = list(repository.commits)
            return self._send(200)
        return None

    def tag(self, repo, revision):
        if repository := self._repository(repo, write=True):
            name = json.loads(self.body)["tag"]
            if name in repository.tags:
                return self._send(409, {"error": "Reference already exists"})
            repository.tags[name] = repository.at(revision).sha
            return self._send(200)
        return None

    def refs(self, repo):
        if repository := self._repository(repo):
            heads = {"main": repository.commits, **repository.branches}
            named = {name: history[-1].sha for name, history in heads.items()}
            self._send(200, {
                "branches": [_ref("heads", *ref) for ref in named.items()],
                "tags": [_ref("tags", *ref) for ref in repository.tags.items()],
                "converts": [],
            })  # fmt: skip

    def preupload(self, repo, revision):
        if repository := self._repository(repo, write=True):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if _is_large(file["path"]) else "regular",
                    "shouldIgnore": False,
                    "oid": _oid(file["path"], repository.at(revision).files.get(file["path"])),
                }
                for file in json.loads(self.body)["files"]
            ]
            self._send(200, {"files": files})

    def batch(self, repo):
        if self._repository(repo, write=True):
            objects = json.loads(self.body)["objects"]
            for file in objects:
                if file["oid"] not in self.hub.uploads:
                    file["actions"] = {"upload": {"href": f"{self.hub.url}/uploads/{file['oid']}"}}
            self._send(200, {"transfer": "basic", "objects": objects})

    def upload(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self._send(400, {"error": "wrong hash"})
        self.hub.uploads[oid] = self.body
        return self._send(200)

    def commit(self, repo, revision):
        if repository := self._repository(repo, write=True):
            lines = [json.loads(line) for line in self.body.splitlines()]
            values = {kind: [x["value"] for x in lines if x["key"] == kind] for kind in _LINES}
            added = {x["path"]: base64.b64decode(x["content"]) for x in values["file"]}
            added |= {x["path"]: self.hub.uploads[x["oid"]] for x in values["lfsFile"]}
            removed = {x["path"] for x in values["deletedFile"]}
            summary, answer = values["header"][0]["summary"], {}
            if "create_pr=1" in urlsplit(self.path).query:
                number = len(repository.branches) + 1
                base, revision = revision, f"refs/pr/{number}"
                start = repository.commits if base == "main" else repository.branches[base]
                repository.branches[revision] = list(start)
                answer = {"pullRequestUrl": f"{self.hub.url}/{repo}/discussions/{number}"}
            made = repository.commit(summary, added=added, removed=removed, branch=revision)
            url = f"{self.hub.url}/{repo}/commit/{made.sha}"
            self._send(200, {"success": True, "commitOid": made.sha, "commitUrl": url, **answer})

    def info(self, repo, revision=None):
        if found := self._commit(repo, revision or "main"):
            private = self.hub.repositories[repo].private
            files = [{"rfilename": name} for name in found.files]
            self._send(200, {"id": repo, "private": private, "sha": found.sha, "siblings": files})

    def tree(self, repo, revision, folder=None):
        if found := self._commit(repo, revision):
            within = f"{folder}/" if folder else ""
            files = {n: content for n, content in found.files.items() if n.startswith(within)}
            if not files:
                return self._send(404, {"error": "no folder"}, X_Error_Code="EntryNotFound")
            return self._send(200, [_entry(name, content) for name, content in files.items()])
        return None

    def resolve(self, repo, revision, name):
        if found := self._commit(repo, revision):
            if name not in found.files:
                return self._send(404, {"error": "no file"}, X_Error_Code="EntryNotFound")
            content = found.files[name]
            headers = {"ETag": f'"{_oid(name, content)}"', "X_Repo_Commit": found.sha}
            if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
                self.hub.sent.append(asked[0])
                begin, size = int(asked[1]), len(content)
                headers["Content_Range"] = f"bytes {begin}-{size - 1}/{size}"
                return self._send(206, content[begin:], **headers)
            return self._send(200, content, **headers)
        return None

    def _commit(self, repo, revision):
        repository = self._repository(repo)
        found = repository and repository.at(revision)
        if repository and not found:
            self._send(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
        return found


_LINES = ("header", "file", "lfsFile", "deletedFile")
_REPO = r"(?P<repo>[^/]+/[^/]+)"
_ROUTES = {
    r"POST /api/repos/create": "create",
    r"POST /api/validate-yaml": "validate",
    rf"POST /api/models/{_REPO}/branch/(?P<revision>.+)": "branch",
    rf"POST /api/models/{_REPO}/tag/(?P<revision>.+)": "tag",
    rf"GET /api/models/{_REPO}/refs": "refs",
    rf"POST /api/models/{_REPO}/preupload/(?P<revision>.+)": "preupload",
    rf"POST /{_REPO}\.git/info/lfs/objects/batch": "batch",
    r"PUT /uploads/(?P<oid>\w+)": "upload",
    rf"POST /api/models/{_REPO}/commit/(?P<revision>.+)": "commit",
    rf"GET /api/(models|datasets)/{_REPO}(/revision/(?P<revision>.+))?": "info",
    rf"GET /api/(models|datasets)/{_REPO}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?": "tree",
    rf"GET (/datasets)?/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<name>.+)": "resolve",
}


def _ref(kind, name, sha):
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha}


def _is_large(name):
    return name.endswith(".safetensors")


def _oid(name, content):
    if content is None:
        return None
    if _is_large(name):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def _entry(name, content):
    entry = {"type": "file", "path": name, "size": len(content), "oid": _oid("", content)}
    if _is_large(name):
        large = {"oid": _oid(name, content), "size": len(content), "pointerSize": 134}
        entry["lfs"] = large
    return entry
