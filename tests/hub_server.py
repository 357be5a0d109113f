"""A small Hub on 127.0.0.1: unmodified clients push to it, by Xet or LFS, and load from it; it fails when told to.

    with Hub() as hub:             # hub.url goes into HF_ENDPOINT, before any client is imported
        hub.faults.append(("commit", "503"))

With Xet, set HF_XET_XORB_COMPRESSION_POLICY=none for the client: nothing is decompressed here.
Repositories live in memory; a private one shows itself to its owner and the members of its owner, an organization.
Whoever sends a token is "ada", or who `hub.accounts` says. `hub.requests` lists every request as (kind, status);
`hub.tokens` every token received.
Start it in the client's own process: it is a thread.
"""

import base64
import hashlib
import json
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REPO = r"(?P<repo>[^/]+/[^/]+)"
API = r"/api/(?P<type>model|dataset)s/" + REPO
FILE = r"/(?:(?P<type>dataset)s/)?" + REPO
ROUTES = [
    ("POST", "create_repo", r"/api/repos/create"),
    ("GET", "whoami", r"/api/whoami-v2"),
    ("POST", "validate_yaml", r"/api/validate-yaml"),
    ("POST", "branch", API + r"/branch/(?P<rev>.+)"),
    ("POST", "tag", API + r"/tag/(?P<rev>.+)"),
    ("GET", "refs", API + r"/refs"),
    ("GET", "discussions", API + r"/discussions"),
    ("POST", "open_discussion", API + r"/discussions"),
    ("GET", "discussion", API + r"/discussions/(?P<number>\d+)"),
    ("POST", "status", API + r"/discussions/(?P<number>\d+)/status"),
    ("POST", "create_collection", r"/api/collections"),
    ("GET", "collection", r"/api/collections/(?P<slug>[^/]+/[^/]+)"),
    ("POST", "collection_item", r"/api/collections/(?P<slug>[^/]+/[^/]+)/items"),
    ("GET", "xet_token", API + r"/xet-write-token/(?P<rev>.+)"),
    ("POST", "xet_xorb", r"/v1/xorbs/default/(?P<hash>[0-9a-f]{64})"),
    ("POST", "xet_shard", r"/v1/shards"),
    ("POST", "preupload", API + r"/preupload/(?P<rev>.+)"),
    ("POST", "commit", API + r"/commit/(?P<rev>.+)"),
    ("POST", "paths_info", API + r"/paths-info/(?P<rev>[^/]+)"),
    ("GET", "tree", API + r"/tree/(?P<rev>[^/]+)(?:/(?P<path>.+))?"),
    ("GET", "info", API + r"(?:/revision/(?P<rev>[^/]+))?"),
    ("POST", "lfs_batch", FILE + r"\.git/info/lfs/objects/batch"),
    ("PUT", "lfs_put", r"/lfs/(?P<oid>[0-9a-f]{64})"),
    ("POST", "lfs_verify", r"/lfs-verify"),
    ("HEAD", "resolve_head", FILE + r"/resolve/(?P<rev>[^/]+)/(?P<path>.+)"),
    ("GET", "resolve_get", FILE + r"/resolve/(?P<rev>[^/]+)/(?P<path>.+)"),
]
LARGE = (".parquet", ".safetensors", ".png")


@dataclass
class Repo:
    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # sha -> path -> content, oldest first
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: list[dict] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        sha = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def sha(self, revision: str | None) -> str | None:
        revision = unquote(revision or "main")
        return revision if revision in self.commits else self.branches.get(revision) or self.tags.get(revision)


class Failure(Exception):
    def __init__(self, status: int, message: str, code: str = ""):
        super().__init__(message)
        self.status, self.headers = status, {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}


class Hub:
    """`faults` holds (kind, fault); the first that fits a request strikes, once. A kind may be a number: strike the
    n-th of the requests since `requests` was cleared, whatever it is.

    A fault is a status such as "503" (its answer echoes the token sent), "reset", "lost" (the work is done, the answer
    is not sent), "odd" (an answer of 200 that says nothing), "raced" (somebody
    commits a file just before) or "hang".
    """

    def __init__(self):
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.xorbs: dict[str, bytes] = {}
        self.collections: dict[str, dict] = {}
        self.faults: list[tuple[str, str]] = []
        self.requests: list[tuple[str, int]] = []
        self.tokens: set[str] = set()
        self.accounts: dict[str, str] = {}  # token -> name
        self.members: dict[str, set[str]] = {}  # organization -> names
        self.closing = threading.Event()

    def __enter__(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def add(self, repo_type: str, repo_id: str, files: dict[str, bytes], private: bool = True) -> Repo:
        """A repository as a client's `create_repo` leaves it, and `files` on top."""
        repo = self.repos[repo_type, repo_id] = Repo(private)
        repo.commit("main", {".gitattributes": b"*.parquet filter=lfs\n"})
        if files:
            repo.commit("main", {**repo.commits[repo.branches["main"]], **files})
        return repo

    def count(self, kind: str) -> int:
        return sum(kind == asked for asked, _ in self.requests)

    def fault(self, kind: str) -> str | None:
        for entry in self.faults:
            if entry[0] in (kind, len(self.requests)):
                self.faults.remove(entry)
                return entry[1]
        return None


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_request(self):
        self.body = self.received()
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.account = None
        if token:
            self.hub.tokens.add(token)
            self.account = self.hub.accounts.get(token, "ada")
        kind, found = self.route(urlsplit(self.path).path)
        fault = self.hub.fault(kind)
        if fault == "hang":
            self.hub.closing.wait()
        if fault in ("reset", "hang"):
            return self.drop(kind)
        if fault and fault.isdigit():
            page = f"<html>{token}</html>" if int(fault) >= 500 else json.dumps({"error": f"not with {token}"})
            return self.answer(kind, int(fault), page.encode(), {"Retry-After": "0"})
        if fault == "raced":
            repo = self.hub.repos[found["type"], found["repo"]]
            repo.commit("main", {**repo.commits[repo.branches["main"]], "raced.md": b"By hand"})
        if fault == "odd":
            return self.answer(kind, 200, b"{}", {})
        try:
            status, content, headers = getattr(self, kind)(**found)
        except Failure as failure:
            status, content, headers = failure.status, {"error": str(failure)}, failure.headers
        if fault == "lost":
            return self.drop(kind)
        self.answer(kind, status, content if isinstance(content, bytes) else json.dumps(content).encode(), headers)

    def received(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def route(self, path: str) -> tuple[str, dict]:
        for method, kind, pattern in ROUTES:
            found = method == self.command and re.fullmatch(pattern, path)
            if found:
                return kind, {k: unquote(v) if v else v for k, v in found.groupdict().items()}
        return "unknown", {}

    def answer(self, kind: str, status: int, body: bytes, headers: dict[str, str]):
        self.hub.requests.append((kind, status))
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def drop(self, kind: str):
        self.hub.requests.append((kind, 0))
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_):
        pass

    def find(self, type: str | None, repo: str) -> Repo:
        if (type or "model", repo) not in self.hub.repos:
            raise Failure(404, "Repository not found", "RepoNotFound")
        found = self.hub.repos[type or "model", repo]
        if found.private and not self.belongs(repo):
            # The Hub does not say whether there is one.
            raise Failure(404 if self.account else 401, "Repository not found", "RepoNotFound")
        return found

    def belongs(self, repo: str) -> bool:
        owner = repo.partition("/")[0]
        return self.account in {owner, *self.hub.members.get(owner, ())}

    def must_write(self, repo: str):
        if not self.belongs(repo):
            raise Failure(403 if self.account else 401, "You don't have the rights to write here")

    def at(self, type: str | None, repo: str, rev: str | None) -> tuple[Repo, str, dict[str, bytes]]:
        found = self.find(type, repo)
        sha = found.sha(rev)
        if sha is None:
            raise Failure(404, f"Invalid rev id: {rev}", "RevisionNotFound")
        return found, sha, found.commits[sha]

    def unknown(self):
        raise Failure(404, f"No such route: {self.command} {self.path}")

    def whoami(self):
        if self.account is None:
            raise Failure(401, "Invalid username or password")
        return 200, {"type": "user", "name": self.account, "orgs": [], "auth": {"accessToken": {"role": "write"}}}, {}

    def create_repo(self):
        asked = json.loads(self.body)
        type, repo = asked.get("type", "model"), f"{asked['organization'] or self.account}/{asked['name']}"
        self.must_write(repo)
        url = f"{self.hub.url}/{'datasets/' if type == 'dataset' else ''}{repo}"
        if (type, repo) in self.hub.repos:
            return 409, {"error": "You already created this repo", "url": url}, {}
        self.hub.add(type, repo, {}, private=asked.get("visibility") == "private")
        return 200, {"url": url, "name": repo, "id": repo}, {}

    def validate_yaml(self):
        return 200, {"errors": [], "warnings": []}, {}

    def branch(self, type, repo, rev):
        found, sha, _ = self.at(type, repo, "main")
        self.must_write(repo)
        if rev in found.branches:
            return 409, {"error": "Reference already exists"}, {}
        found.branches[rev] = sha
        return 200, {}, {}

    def tag(self, type, repo, rev):
        found, sha, _ = self.at(type, repo, rev)
        self.must_write(repo)
        name = json.loads(self.body)["tag"]
        if name in found.tags:
            return 409, {"error": "Tag reference exists already"}, {}
        found.tags[name] = sha
        return 200, {}, {}

    def refs(self, type, repo):
        found = self.find(type, repo)
        told = [
            [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha} for name, sha in names.items()]
            for kind, names in (("heads", found.branches), ("tags", found.tags))
        ]
        return 200, {"branches": told[0], "converts": [], "tags": told[1]}, {}

    def discussions(self, type, repo):
        pulls = self.find(type, repo).pulls
        return 200, {"discussions": pulls, "count": len(pulls), "start": 0}, {}

    def open_discussion(self, type, repo):
        found, sha, _ = self.at(type, repo, "main")
        number, asked, author = len(found.pulls) + 1, json.loads(self.body), {"name": self.account}
        pull = {"num": number, "title": asked["title"], "status": "draft", "isPullRequest": True}
        said = {"edited": False, "hidden": False, "latest": {"raw": asked.get("description", "")}}
        told = {"id": "d", "type": "comment", "createdAt": "2026-01-01T00:00:00.000Z", "author": author, "data": said}
        pull |= {"author": author, "createdAt": "2026-01-01T00:00:00.000Z", "events": [told]}
        pull |= {
            "repo": {"name": repo, "type": type},
            "changes": {"base": "refs/heads/main"},
            "filesWithConflicts": [],
        }
        found.pulls.append(pull)
        found.branches[f"refs/pr/{number}"] = sha
        return 200, pull, {}

    def discussion(self, type, repo, number):
        return 200, self.find(type, repo).pulls[int(number) - 1], {}

    def status(self, type, repo, number):
        pull = self.find(type, repo).pulls[int(number) - 1]
        pull["status"] = json.loads(self.body)["status"]
        event = {
            "id": "e",
            "type": "status-change",
            "createdAt": pull["createdAt"],
            "data": {"status": pull["status"]},
        }
        return 200, {"newStatus": event}, {}

    def create_collection(self):
        asked = json.loads(self.body)
        slug = f"{asked['namespace']}/{asked['title'].lower().replace(' ', '-')}-{'0' * 24}"
        if slug in self.hub.collections:
            return 409, {"error": "Exists", "slug": slug}, {}
        made = {"slug": slug, "title": asked["title"], "private": asked["private"], "owner": {}, "items": []}
        made |= {"lastUpdated": "2026-01-01T00:00:00.000Z", "position": 0, "theme": "blue", "upvotes": 0}
        self.hub.collections[slug] = made
        return 200, made, {}

    def collection(self, slug):
        if slug not in self.hub.collections:
            raise Failure(404, "Collection not found")
        return 200, self.hub.collections[slug], {}

    def collection_item(self, slug):
        _, found, _ = self.collection(slug)
        item = json.loads(self.body)["item"]
        if item["id"] in [known["id"] for known in found["items"]]:
            return 409, {"error": "Already in it"}, {}
        found["items"].append({"_id": "i", "id": item["id"], "type": item["type"], "position": 0})
        return 200, found, {}

    def xet_token(self, type, repo, rev):
        self.find(type, repo)
        told = {"casUrl": self.hub.url, "exp": int(time.time()) + 3600, "accessToken": "xet"}
        names = {"X-Xet-Cas-Url": "casUrl", "X-Xet-Token-Expiration": "exp", "X-Xet-Access-Token": "accessToken"}
        return 200, told, {name: str(told[key]) for name, key in names.items()}

    def xet_xorb(self, hash):
        self.hub.xorbs[hash] = self.body
        return 200, {"was_inserted": True}, {}

    def xet_shard(self):
        for sha256, content in rebuilt(self.body, self.hub.xorbs):
            if hashlib.sha256(content).hexdigest() != sha256:
                raise Failure(400, "The chunks do not make up the file that was announced")
            self.hub.objects[sha256] = content
        return 200, {"result": 1}, {}

    def preupload(self, type, repo, rev):
        _, _, files = self.at(type, repo, rev)
        return 200, {"files": [self.upload_mode(f["path"], files) for f in json.loads(self.body)["files"]]}, {}

    def upload_mode(self, path: str, files: dict[str, bytes]) -> dict:
        ignored = path.rpartition(".")[2].encode() in files.get(".gitignore", b"").replace(b"*.", b"").split()
        mode = {"path": path, "uploadMode": "lfs" if path.endswith(LARGE) else "regular", "shouldIgnore": ignored}
        return {**mode, "oid": etag(path, files[path])} if path in files else mode

    def lfs_batch(self, type, repo):
        self.find(type, repo)
        objects = [self.transfer(asked["oid"], asked["size"]) for asked in json.loads(self.body)["objects"]]
        return 200, {"transfer": "basic", "objects": objects}, {}

    def transfer(self, oid: str, size: int) -> dict:
        if oid in self.hub.objects:
            return {"oid": oid, "size": size}
        links = {"upload": {"href": f"{self.hub.url}/lfs/{oid}"}, "verify": {"href": f"{self.hub.url}/lfs-verify"}}
        return {"oid": oid, "size": size, "actions": links}

    def lfs_put(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Failure(400, "The bytes do not have the hash they were announced with")
        self.hub.objects[oid] = self.body
        return 200, {}, {}

    def lfs_verify(self):
        if json.loads(self.body)["oid"] not in self.hub.objects:
            raise Failure(404, "No such object")
        return 200, {}, {}

    def commit(self, type, repo, rev):
        found, head, files = self.at(type, repo, rev)
        if not rev.startswith("refs/pr/"):
            self.must_write(repo)
        header, *lines = [json.loads(line) for line in self.body.splitlines()]
        if header["value"].get("parentCommit", head) != head:
            raise Failure(412, "A commit has happened since. Please refresh and try again.")
        files = dict(files)
        for line in lines:
            change(files, line["key"], line["value"], self.hub.objects)
        sha = found.commit(rev, files)
        url = f"{self.hub.url}/{'datasets/' if type == 'dataset' else ''}{repo}/commit/{sha}"
        return 200, {"success": True, "commitOid": sha, "commitUrl": url}, {}

    def info(self, type, repo, rev=None):
        found, sha, files = self.at(type, repo, rev)
        siblings = [{"rfilename": path} for path in sorted(files)]
        return 200, {"id": repo, "sha": sha, "private": found.private, "siblings": siblings, "tags": []}, {}

    def tree(self, type, repo, rev, path=None):
        _, _, files = self.at(type, repo, rev)
        entries = [entry(name, files) for name in listing(files, path, "recursive=true" in self.path.lower())]
        if path and not entries:
            raise Failure(404, f"{path} does not exist", "EntryNotFound")
        return 200, entries, {}

    def paths_info(self, type, repo, rev):
        _, _, files = self.at(type, repo, rev)
        asked = [unquote(pair[6:].replace("+", " ")) for pair in self.body.decode().split("&") if pair[:6] == "paths="]
        return 200, [entry(path, files) for path in asked if path in listing(files, None, True)], {}

    def resolve_get(self, type, repo, rev, path):
        _, sha, files = self.at(type, repo, rev)
        if path not in files:
            raise Failure(404, "Entry not found", "EntryNotFound")
        tag = f'"{etag(path, files[path])}"'
        return 200, files[path], {"X-Repo-Commit": sha, "ETag": tag, "Content-Type": "application/octet-stream"}

    resolve_head = resolve_get


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def etag(path: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if path.endswith(LARGE) else git_hash(content)


def entry(path: str, files: dict[str, bytes]) -> dict:
    if path not in files:
        return {"type": "directory", "path": path, "oid": git_hash(path.encode()), "size": 0}
    found = {"type": "file", "path": path, "oid": git_hash(files[path]), "size": len(files[path])}
    lfs = {"lfs": {"oid": etag(path, files[path]), "size": len(files[path]), "pointerSize": 130}}
    return {**found, **lfs} if path.endswith(LARGE) else found


def listing(files: dict[str, bytes], folder: str | None, recursive: bool) -> list[str]:
    """Paths of files and folders under `folder`."""
    parts = [path.split("/") for path in files]
    paths = {"/".join(p[:depth]) for p in parts for depth in range(1, len(p) + 1)}
    base = f"{folder}/" if folder else ""
    return sorted(p for p in paths if p.startswith(base) and (recursive or "/" not in p.removeprefix(base)))


def change(files: dict[str, bytes], key: str, value: dict, objects: dict[str, bytes]) -> None:
    """Carry out one line of a commit on `files`."""
    if key == "file":
        files[value["path"]] = base64.b64decode(value["content"])
    elif key == "lfsFile" and value["oid"] in objects:
        files[value["path"]] = objects[value["oid"]]
    elif key == "deletedFile" and value["path"] in files:
        del files[value["path"]]
    else:
        raise Failure(400, f"Cannot carry out {key} on {value['path']}")


def rebuilt(shard: bytes, xorbs: dict[str, bytes]):
    """SHA-256 and content of every file a shard describes, as huggingface.co/docs/xet/shard lays it out."""
    at = 48
    while shard[at : at + 32] != b"\xff" * 32:
        flags, entries = struct.unpack_from("<II", shard, at + 32)
        parts = [struct.unpack_from("<32sIIII", shard, at + 48 * (1 + i)) for i in range(entries)]
        at += 48 * (1 + entries * (2 if flags >> 31 else 1))
        content = b"".join(b"".join(chunks(xorbs[hexed(xorb)])[first:end]) for xorb, _, _, first, end in parts)
        if flags >> 30 & 1:
            yield hexed(shard[at : at + 32]), content
            at += 48


def hexed(digest: bytes) -> str:
    """Xet writes a hash as four little-endian numbers."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", digest))


def chunks(xorb: bytes) -> list[bytes]:
    """The chunks of an uncompressed xorb."""
    found, at = [], 0
    while at + 8 <= len(xorb) and xorb[at : at + 7] != b"XETBLOB":
        size, scheme = int.from_bytes(xorb[at + 1 : at + 4], "little"), xorb[at + 4]
        if scheme:
            raise Failure(400, "Compressed chunks are not understood here")
        found.append(xorb[at + 8 : at + 8 + size])
        at += 8 + size
    return found
