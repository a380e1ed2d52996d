"""A small Hub on the loopback interface: enough of the Hub's HTTP protocol for the real huggingface_hub client.

It keeps repositories in memory and answers: whoami, create repository, create branch, pull requests, card validation,
upload modes, LFS batch and upload, commits (newline-delimited JSON), information on models and data sets, refs, file
tree, paths, and file resolution with ETag and X-Repo-Commit headers, in ranges too. Xet is not offered: clients are
started with HF_HUB_DISABLE_XET=1.
The packages on the index that carry "hub" or "mirror" in their names serve downloads only, hence this file.

    with HubServer() as hub:
        HfApi(endpoint=hub.endpoint, token=hub.token).create_repo("alice/model")
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".parquet")


@dataclass(frozen=True)
class Blob:
    """A stored file. `lfs` files are named by SHA-256 of their content, others by their git hash."""

    data: bytes
    lfs: bool

    @property
    def oid(self) -> str:
        if self.lfs:
            return hashlib.sha256(self.data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()


@dataclass
class Commit:
    message: str
    files: dict[str, Blob]
    oid: str


@dataclass
class Repository:
    repo_id: str
    private: bool
    refs: dict[str, Commit] = field(default_factory=dict)
    history: list[Commit] = field(default_factory=list)
    pull_requests: int = 0

    def __post_init__(self) -> None:
        self.commit("main", "initial commit", {".gitattributes": Blob(b"*.safetensors filter=lfs\n", lfs=False)})

    def commit(self, ref: str, message: str, files: dict[str, Blob]) -> Commit:
        """Adds a commit whose whole content is `files` to `ref`."""
        oid = hashlib.sha1(f"{self.repo_id} {ref} {len(self.history)}".encode()).hexdigest()
        commit = Commit(message, files, oid)
        self.refs[ref] = commit
        self.history.append(commit)
        return commit

    def open_pull_request(self) -> str:
        self.pull_requests += 1
        ref = f"refs/pr/{self.pull_requests}"
        self.refs[ref] = self.refs["main"]
        return ref

    def find(self, revision: str) -> Commit | None:
        return self.refs.get(revision) or next((c for c in self.history if c.oid == revision), None)


class HubError(Exception):
    """An HTTP error as the Hub words it: status, X-Error-Code, message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class HubServer(ThreadingHTTPServer):
    """Serves on a free loopback port while the `with` block runs. `tokens` maps a token to its user and scope."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.tokens = {"hf_alice_write": ("alice", "write"), "hf_alice_read": ("alice", "read")}
        self.token = "hf_alice_write"
        self.repositories: dict[str, Repository] = {}
        self.lfs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.sent = 0  # bytes of files
        self.lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """Path -> content of a revision, as a test wants to look at it."""
        return {path: blob.data for path, blob in self.repositories[repo_id].refs[revision].files.items()}

    def __enter__(self) -> HubServer:
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


class HubHandler(BaseHTTPRequestHandler):
    """One request: finds the route by method and path, answers JSON or a file."""

    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *arguments: object) -> None:  # the default writes each request to stderr
        pass

    def do_GET(self) -> None:
        self.dispatch("GET")

    def do_HEAD(self) -> None:
        self.dispatch("HEAD")

    def do_POST(self) -> None:
        self.dispatch("POST")

    def do_PUT(self) -> None:
        self.dispatch("PUT")

    def dispatch(self, method: str) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.body = self.read_body()
        self.server.requests.append(f"{method} {url.path}")
        try:
            with self.server.lock:
                self.route("GET" if method == "HEAD" else method, url.path)
        except HubError as error:
            headers = {"X-Error-Code": error.code, "X-Error-Message": str(error)}
            self.reply(error.status, json.dumps({"error": str(error)}).encode(), headers)

    def route(self, method: str, path: str) -> None:
        for route_method, pattern, answer in ROUTES:
            match = re.fullmatch(pattern, path)
            if route_method == method and match:
                answer(self, **{name: unquote(value) for name, value in match.groupdict().items()})
                return
        raise HubError(404, "NotFound", f"This test server does not know {method} {path}")

    def read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def reply_json(self, value: object, status: int = 200) -> None:
        self.reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    # Who asks, and for what

    def user(self, scope: str = "read") -> str | None:
        """The user of the token, or None for an anonymous request; writing needs a token that may write."""
        header = self.headers.get("Authorization")
        if header is None:
            if scope == "write":
                raise HubError(401, "", "Invalid username or password.")
            return None
        token = header.removeprefix("Bearer ")
        if token not in self.server.tokens:
            raise HubError(401, "", "Invalid credentials in Authorization header")
        user, granted = self.server.tokens[token]
        if scope == "write" and granted != "write":
            raise HubError(403, "", "You must use a write token to upload to a repository")
        return user

    def repository(self, repo_id: str) -> Repository:
        repository = self.server.repositories.get(repo_id)
        hidden = repository is not None and repository.private and self.user() != repo_id.split("/")[0]
        if repository is None or hidden:
            raise HubError(404 if self.user() else 401, "RepoNotFound", "Repository not found")
        return repository

    def writable(self, repo_id: str) -> Repository:
        user = self.user("write")
        if user != repo_id.split("/")[0]:
            raise HubError(403, "", f"You don't have the rights to write to {repo_id}")
        return self.repository(repo_id)

    def commit_of(self, repo_id: str, revision: str) -> Commit:
        commit = self.repository(repo_id).find(revision)
        if commit is None:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    # Accounts and repositories

    def whoami(self) -> None:
        user = self.user()
        if user is None:
            raise HubError(401, "", "Invalid username or password.")
        self.reply_json({"type": "user", "name": user, "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def create_repository(self) -> None:
        request = json.loads(self.body)
        user = self.user("write")
        owner = request.get("organization") or user
        if owner != user:
            raise HubError(403, "", f'You don\'t have the rights to create a model under the namespace "{owner}"')
        repo_id = f"{owner}/{request['name']}"
        url = f"{self.server.endpoint}/{repo_id}"
        if repo_id in self.server.repositories:
            body = json.dumps({"error": "You already created this model repo", "url": url}).encode()
            return self.reply(409, body, {"X-Error-Message": "You already created this model repo"})
        private = bool(request.get("private")) or request.get("visibility") == "private"
        self.server.repositories[repo_id] = Repository(repo_id, private)
        self.reply_json({"url": url, "id": repo_id, "name": repo_id})

    def create_branch(self, repo: str, revision: str) -> None:
        repository = self.writable(repo)
        if revision in repository.refs:
            raise HubError(409, "", f"Reference already exists: {revision}")
        repository.refs[revision] = repository.refs["main"]
        self.reply_json({})

    def open_discussion(self, repo: str) -> None:
        self.reply_json({"num": int(self.writable(repo).open_pull_request().rsplit("/", 1)[1])})

    def validate_yaml(self) -> None:
        content = json.loads(self.body)["content"]
        header = re.match(r"---\n(.*?)\n---\n", content, flags=re.DOTALL)
        errors = [] if header and isinstance(yaml.safe_load(header[1]), dict) else [{"message": "no metadata"}]
        self.reply_json({"errors": errors, "warnings": []}, status=400 if errors else 200)

    # Uploads

    def preupload(self, repo: str, revision: str) -> None:
        commit = self.writable(repo).find(revision)
        if commit is None:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
                "shouldIgnore": False,
                "oid": commit.files[file["path"]].oid if file["path"] in commit.files else None,
            }
            for file in json.loads(self.body)["files"]
        ]
        self.reply_json({"files": files})

    def lfs_batch(self, repo: str) -> None:
        self.writable(repo)
        objects = []
        for item in json.loads(self.body)["objects"]:
            upload = {"href": f"{self.server.endpoint}/lfs/{item['oid']}"}
            known = item["oid"] in self.server.lfs
            objects.append({**item} if known else {**item, "actions": {"upload": upload}})
        self.reply_json({"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise HubError(400, "", "The content does not have the announced SHA-256")
        self.server.lfs[oid] = self.body
        self.reply(200, b"")

    def commit(self, repo: str, revision: str) -> None:
        repository = self.writable(repo)
        if revision not in repository.refs:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        ref = repository.open_pull_request() if self.query.get("create_pr") == ["1"] else revision
        files, message = dict(repository.refs[ref].files), ""
        for line in self.body.splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header":
                message = value["summary"]
            elif key == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), lfs=False)
            elif key == "lfsFile":
                files[value["path"]] = Blob(self.server.lfs[value["oid"]], lfs=True)
            elif key == "deletedFile":
                del files[value["path"]]
            else:
                raise HubError(400, "", f"This test server does not know the operation {key}")
        oid = repository.commit(ref, message, files).oid
        answer = {"commitUrl": f"{self.server.endpoint}/{repo}/commit/{oid}", "commitOid": oid}
        if ref != revision:
            answer["pullRequestUrl"] = f"{self.server.endpoint}/{repo}/discussions/{ref.rsplit('/', 1)[1]}"
        self.reply_json(answer)

    # Downloads

    def model_info(self, repo: str, revision: str = "main") -> None:
        commit = self.commit_of(repo, revision)
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
        private = self.repository(repo).private
        self.reply_json({"_id": "0", "id": repo, "sha": commit.oid, "private": private, "siblings": siblings})

    def list_refs(self, repo: str) -> None:
        refs = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit.oid}
            for name, commit in self.repository(repo).refs.items()
            if not name.startswith("refs/")
        ]
        self.reply_json({"branches": refs, "tags": [], "converts": []})

    def tree(self, repo: str, revision: str, folder: str = "") -> None:
        files = self.commit_of(repo, revision).files
        prefix = f"{folder}/" if folder else ""
        entries = [self.describe(path, blob) for path, blob in sorted(files.items()) if path.startswith(prefix)]
        if not entries:
            raise HubError(404, "EntryNotFound", f"{folder} does not exist on {revision}")
        folders = {"/".join(e["path"].split("/")[:end]) for e in entries for end in range(1, e["path"].count("/") + 1)}
        entries += [{"type": "directory", "path": path, "size": 0, "oid": path} for path in sorted(folders)]
        entries = [entry for entry in entries if entry["path"].startswith(prefix)]
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("1", "true")
        self.reply_json([e for e in entries if recursive or "/" not in e["path"].removeprefix(prefix)])

    def paths_info(self, repo: str, revision: str) -> None:
        files = self.commit_of(repo, revision).files
        try:
            asked = json.loads(self.body)["paths"]
        except ValueError:
            asked = parse_qs(self.body.decode())["paths"]
        self.reply_json([self.describe(path, files[path]) for path in asked if path in files])

    @staticmethod
    def describe(path: str, blob: Blob) -> dict:
        entry = {"type": "file", "path": path, "size": len(blob.data), "oid": blob.oid}
        return {**entry, "lfs": {"oid": blob.oid, "size": len(blob.data), "pointerSize": 0}} if blob.lfs else entry

    def resolve(self, repo: str, revision: str, path: str) -> None:
        commit = self.commit_of(repo, revision)
        if path not in commit.files:
            raise HubError(404, "EntryNotFound", f"Entry not found: {path}")
        blob = commit.files[path]
        headers = {"ETag": f'"{blob.oid}"', "X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(part[1]), min(int(part[2] or len(blob.data)), len(blob.data) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(blob.data)}"
            self.server.sent += end + 1 - start
            return self.reply(206, blob.data[start : end + 1], headers)
        self.server.sent += len(blob.data) if self.command == "GET" else 0
        self.reply(200, blob.data, headers)


REPO = r"(?P<repo>[^/]+/[^/]+)"
REVISION = r"(?P<revision>refs(?:/|%2F)pr(?:/|%2F)\d+|[^/]+)"
MODEL = rf"/api/(?:models|datasets)/{REPO}"
ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", r"/api/whoami-v2", HubHandler.whoami),
    ("POST", r"/api/repos/create", HubHandler.create_repository),
    ("POST", r"/api/validate-yaml", HubHandler.validate_yaml),
    ("POST", rf"{MODEL}/branch/{REVISION}", HubHandler.create_branch),
    ("POST", rf"{MODEL}/discussions", HubHandler.open_discussion),
    ("POST", rf"{MODEL}/preupload/{REVISION}", HubHandler.preupload),
    ("POST", rf"{MODEL}/commit/{REVISION}", HubHandler.commit),
    ("POST", rf"{MODEL}/paths-info/{REVISION}", HubHandler.paths_info),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", HubHandler.lfs_batch),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", HubHandler.lfs_put),
    ("GET", rf"{MODEL}/refs", HubHandler.list_refs),
    ("GET", rf"{MODEL}/revision/{REVISION}", HubHandler.model_info),
    ("GET", rf"{MODEL}/tree/{REVISION}", HubHandler.tree),
    ("GET", rf"{MODEL}/tree/{REVISION}/(?P<folder>.+)", HubHandler.tree),
    ("GET", MODEL, HubHandler.model_info),
    ("GET", rf"/(?:datasets/)?{REPO}/resolve/{REVISION}/(?P<path>.+)", HubHandler.resolve),
]
