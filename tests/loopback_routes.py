"""What the loopback Hub answers to each request; a handler's name is what `hub.fail` and `hub.before` know it by."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from aiohttp import web
from huggingface_hub import DatasetCard, ModelCard

from tests.loopback_cards import faults_of
from tests.loopback_repositories import Commit, File, Refused, Repository

if TYPE_CHECKING:
    from tests.loopback_hub import Collection, LoopbackHub, User

_API = "/api/{kind:models|datasets}/{owner}/{name}"
_CARD = "README.md"


def _hub(request: web.Request) -> LoopbackHub:
    return request.app["hub"]


def _user(request: web.Request) -> User | None:
    header = request.headers.get("Authorization")
    if header is None:
        return None
    user = _hub(request).users.get(header.removeprefix("Bearer "))
    if user is None:
        raise Refused(401, "Invalid credentials in Authorization header")
    return user


def _writer(request: web.Request, namespace: str) -> User:
    user = _user(request)
    if user is None:
        raise Refused(401, "Invalid username or password.")
    if not user.owns(namespace) or user.role != "write":
        raise Refused(403, f"you must use a write token to upload to a repository of {namespace}")
    return user


def _repo(request: web.Request, *, write: bool = False, content: bool = False) -> Repository:
    """Return the repository that a path names, for whoever may see it, write to it or read its files."""
    told = request.match_info
    is_dataset = told.get("kind") in ("datasets", None) and (told.get("kind") or request.path.startswith("/datasets/"))
    user = _user(request)
    repository = _hub(request).repositories.get(f"{'datasets/' if is_dataset else ''}{told['owner']}/{told['name']}")
    is_owner = user is not None and user.owns(told["owner"])
    if repository is None or (repository.private and not is_owner):
        # Whoever has no token is told 401 of what is not there as well, so that names of private ones stay secret.
        raise Refused(404 if user else 401, "Repository not found", "RepoNotFound")
    if write:
        _writer(request, told["owner"])
    if content and repository.gated and not is_owner:
        what = f"Access to {repository.kind} {repository.repo_id} is restricted and you are not in the authorized list."
        raise Refused(403 if user else 401, what, "GatedRepo")
    return repository


def _name(repository: Repository) -> str:
    return f"{'datasets/' if repository.kind == 'dataset' else ''}{repository.repo_id}"


def _last(commit: Commit) -> dict[str, str]:
    return {"id": commit.oid, "title": commit.title, "date": commit.date}


def _paged(request: web.Request, entries: list[Any], size: int) -> web.Response:
    start = int(request.query.get("cursor", 0))
    headers = {}
    if start + size < len(entries):
        following = request.url.update_query(cursor=start + size)
        headers["Link"] = f'<{following}>; rel="next"'
    return web.json_response(entries[start : start + size], headers=headers)


async def whoami(request: web.Request) -> web.Response:
    user = _user(request)
    if user is None:
        raise Refused(401, "Invalid username or password.")
    orgs = [{"type": "org", "name": name, "roleInOrg": "admin"} for name in user.orgs]
    token = {"type": "access_token", "accessToken": {"displayName": "loopback", "role": user.role}}
    return web.json_response({"type": "user", "id": user.name, "name": user.name, "orgs": orgs, "auth": token})


async def create_repo(request: web.Request) -> web.Response:
    sent = await request.json()
    kind = sent.get("type") or "model"
    user = _user(request)
    owner = sent["organization"] or (user.name if user else "")
    _writer(request, owner)
    if kind not in ("dataset", "model"):
        raise LookupError(f"a repository of kind {kind}")
    repo = f"{'datasets/' if kind == 'dataset' else ''}{owner}/{sent['name']}"
    url = f"{_hub(request).url}/{repo}"
    if repo in _hub(request).repositories:
        raise Refused(409, f"You already created this {kind} repo: {owner}/{sent['name']}", url=url)
    _hub(request).create(repo, private=sent.get("visibility") == "private" or bool(sent.get("private")))
    return web.json_response({"url": url, "name": f"{owner}/{sent['name']}"})


async def delete_repo(request: web.Request) -> web.Response:
    sent = await request.json()
    repo = f"{'datasets/' if sent.get('type') == 'dataset' else ''}{sent['organization']}/{sent['name']}"
    _writer(request, sent["organization"])
    if _hub(request).repositories.pop(repo, None) is None:
        raise Refused(404, "Repository not found", "RepoNotFound")
    return web.Response()


async def settings(request: web.Request) -> web.Response:
    repository, sent = _repo(request, write=True), await request.json()
    if "visibility" in sent:
        repository.private = sent["visibility"] == "private"
    if "gated" in sent:
        repository.gated = bool(sent["gated"])
    return web.json_response({})


async def auth_check(request: web.Request) -> web.Response:
    _repo(request, content=True, write=request.path.endswith("/write"))
    return web.json_response({})


async def info(request: web.Request) -> web.Response:
    repository = _repo(request)
    commit = repository.at(request.match_info.get("rev", "main"))
    siblings = []
    for path, file in commit.files.items():
        details = {"size": file.size, "blobId": file.oid, **(file.pointer() if file.lfs else {})}
        siblings.append({"rfilename": path, **(details if "blobs" in request.query else {})})
    card = commit.files.get(_CARD)
    kind = DatasetCard if repository.kind == "dataset" else ModelCard
    told: dict[str, Any] = {
        "author": repository.repo_id.split("/")[0],
        "sha": commit.oid,
        "lastModified": commit.date,
        "createdAt": repository.history("main")[-1].date,
        "private": repository.private,
        "gated": "auto" if repository.gated else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "cardData": kind(card.path.read_text("utf-8"), ignore_metadata_errors=True).data.to_dict() if card else None,
        "siblings": siblings,
    }
    wanted = request.query.getall("expand", []) + request.query.getall("expand[]", [])
    if wanted:
        told = {key: value for key, value in told.items() if key in wanted}
    return web.json_response({"_id": repository.repo_id, "id": repository.repo_id, **told})


async def refs(request: web.Request) -> web.Response:
    repository = _repo(request)
    kinds = {"branches": ("heads", repository.branches), "tags": ("tags", repository.tags)}
    told: dict[str, list[dict[str, str]]] = {
        kind: [{"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": oid} for name, oid in known.items()]
        for kind, (folder, known) in kinds.items()
    }
    return web.json_response({**told, "converts": [], "pullRequests": []})


async def commits(request: web.Request) -> web.Response:
    entries = [
        {"id": c.oid, "title": c.title, "message": c.message, "date": c.date, "authors": [{"user": "maker"}]}
        for c in _repo(request).history(request.match_info["rev"])
    ]
    return _paged(request, entries, _hub(request).page)


async def tree(request: web.Request) -> web.Response:
    repository = _repo(request)
    commit = repository.at(request.match_info["rev"])
    is_recursive, is_expanded = (request.query.get(name) == "true" for name in ("recursive", "expand"))
    entries = list(repository.entries(commit, request.match_info.get("path", ""), is_recursive))
    if is_expanded:
        for entry in entries:
            entry["lastCommit"] = _last(repository.last_change(commit, entry["path"]))
    return _paged(request, entries, _hub(request).page)


async def paths_info(request: web.Request) -> web.Response:
    repository = _repo(request)
    commit = repository.at(request.match_info["rev"])
    sent = await request.post()
    entries = []
    for path in map(str, sent.getall("paths", [])):
        if any(name == path or name.startswith(f"{path}/") for name in commit.files):
            entry = repository.entry(commit, path)
            if str(sent.get("expand")).lower() == "true":
                entry["lastCommit"] = _last(repository.last_change(commit, path))
            entries.append(entry)
    return web.json_response(entries)


async def tag(request: web.Request) -> web.Response:
    repository, name = _repo(request, write=True), request.match_info["rev"]
    if request.method == "DELETE":
        if repository.tags.pop(name, None) is None:
            raise Refused(404, f"Invalid rev id: {name}", "RevisionNotFound")
        return web.Response()
    commit = repository.at(name)
    new = (await request.json())["tag"]
    if new in repository.tags:
        raise Refused(409, f"Tag reference {new} already exists")
    repository.tags[new] = commit.oid
    return web.Response(status=201)


async def branch(request: web.Request) -> web.Response:
    repository, name = _repo(request, write=True), request.match_info["branch"]
    if request.method == "DELETE":
        if repository.branches.pop(name, None) is None:
            raise Refused(404, f"Invalid rev id: {name}", "RevisionNotFound")
        return web.Response()
    start = repository.at((await request.json()).get("startingPoint", "main"))
    if name in repository.branches:
        raise Refused(409, f"Reference {name} already exists")
    repository.branches[name] = start.oid
    return web.Response(status=201)


async def preupload(request: web.Request) -> web.Response:
    repository, sent = _repo(request, write=True), await request.json()
    if "gitIgnore" in sent or "create_pr" in request.query:
        raise LookupError("uploads with a .gitignore or as a pull request")
    known = repository.at(request.match_info["rev"]).files
    answers = []
    for told in sent["files"]:
        path, there = told["path"], known.get(told["path"])
        mode = repository.upload_mode(path, told["size"], base64.b64decode(told["sample"]))
        oid = {"oid": there.etag} if there else {}
        answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **oid})
    return web.json_response({"files": answers})


async def lfs_batch(request: web.Request) -> web.Response:
    _repo(request, write=True)
    hub, sent = _hub(request), await request.json()
    if sent["operation"] != "upload" or sent["hash_algo"] != "sha256" or "basic" not in sent["transfers"]:
        raise LookupError(f"an LFS batch of {sent}")
    objects = []
    for told in sent["objects"]:
        oid, actions = told["oid"], {}
        if not hub.objects.path(oid).exists():
            hub.uploads[oid] = told["size"]
            verify = f"{hub.url}{request.path.removesuffix('/objects/batch')}/verify"
            upload = {"href": f"{hub.storage_url}/storage/{oid}?X-Amz-Signature=signed"}
            actions = {"actions": {"upload": upload, "verify": {"href": verify}}}
        objects.append({"oid": oid, "size": told["size"], **actions})
    content_type = "application/vnd.git-lfs+json"
    return web.json_response({"transfer": "basic", "objects": objects}, content_type=content_type)


async def lfs_upload(request: web.Request) -> web.Response:
    hub, oid, content = _hub(request), request.match_info["oid"], await request.read()
    _stranger_to_tokens(request)
    if oid not in hub.uploads or request.query.get("X-Amz-Signature") != "signed":
        raise Refused(403, "no such upload was agreed")
    if len(content) != hub.uploads[oid] or hashlib.sha256(content).hexdigest() != oid:
        raise Refused(400, "the content is not what was announced")
    hub.objects.add(content)
    return web.Response(headers={"ETag": f'"{oid}"'})


async def lfs_verify(request: web.Request) -> web.Response:
    _repo(request, write=True)
    sent = await request.json()
    path = _hub(request).objects.path(sent["oid"])
    if not path.exists() or path.stat().st_size != sent["size"]:
        raise Refused(404, "the content was not uploaded")
    return web.json_response({})


async def commit(request: web.Request) -> web.Response:
    repository, branch_name = _repo(request, write=True), request.match_info["rev"]
    if "create_pr" in request.query:
        raise LookupError("commits as a pull request")
    header, *operations = (json.loads(line) for line in (await request.text()).splitlines() if line)
    told = header["value"]
    if header["key"] != "header" or not told["summary"]:
        raise Refused(400, "the first line must be a header with a summary")
    before, changes = repository.at(branch_name), {}
    for operation in operations:
        changes.update(_change(_hub(request), before, operation["key"], operation["value"]))
    card = changes.get(_CARD)
    if card and (errors := faults_of(card.path.read_text("utf-8"), repository.kind)[0]):
        raise Refused(400, f"Invalid metadata in README.md: {'; '.join(errors)}")
    parent = told.get("parentCommit")
    new = repository.commit(branch_name, changes, told["summary"], told["description"], parent)
    url = f"{_hub(request).url}/{_name(repository)}/commit/{new.oid}"
    return web.json_response({"success": True, "commitOid": new.oid, "commitUrl": url, "hookOutput": ""})


def _change(hub: LoopbackHub, before: Commit, key: str, value: dict[str, Any]) -> dict[str, File | None]:
    """Return what one line of a commit does: the new file by its path, None where one goes."""
    path = value["path"]
    if key == "file":
        if value["encoding"] != "base64":
            raise LookupError(f"a file in {value['encoding']}")
        return {path: hub.objects.file(base64.b64decode(value["content"], validate=True))}
    if key == "lfsFile":
        return {path: hub.objects.lfs_file(value["oid"])}
    gone = [name for name in before.files if name == path or (key == "deletedFolder" and name.startswith(path))]
    if key not in ("deletedFile", "deletedFolder"):
        raise LookupError(f"a line {key!r} of a commit")
    if not gone:
        raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
    return dict.fromkeys(gone)


async def resolve(request: web.Request) -> web.Response:
    repository = _repo(request, content=True)
    told = repository.at(request.match_info["rev"])
    path, headers = request.match_info["path"], {"X-Repo-Commit": told.oid}
    file = told.files.get(path)
    if file is None:
        raise Refused(404, "Entry not found", "EntryNotFound", headers=headers)
    headers.update({"X-Linked-Size": str(file.size), "X-Linked-ETag": f'"{file.etag}"', "ETag": f'"{file.etag}"'})
    if file.lfs:  # 302 to another host; what git keeps itself, 307 to the same one: as the Hub does
        where = f"{_hub(request).storage_url}/storage/{file.sha256}?X-Amz-Signature=signed"
        return web.Response(status=302, headers={**headers, "Location": where})
    where = f"/api/resolve-cache/{repository.kind}s/{repository.repo_id}/{told.oid}/{path}"
    return web.Response(status=307, headers={**headers, "Location": where})


async def file(request: web.Request) -> web.Response:
    repository = _repo(request, content=True)
    told = repository.at(request.match_info["rev"])
    return _content(request, told.files[request.match_info["path"]], {"X-Repo-Commit": told.oid})


async def lfs_file(request: web.Request) -> web.Response:
    _stranger_to_tokens(request)
    if request.query.get("X-Amz-Signature") != "signed":
        raise Refused(403, "the address is not signed")
    return _content(request, _hub(request).objects.lfs_file(request.match_info["oid"]), {})


def _stranger_to_tokens(request: web.Request) -> None:
    if "Authorization" in request.headers:
        raise AssertionError("a client sent its token to the storage, which is another host")


def _content(request: web.Request, file: File, headers: dict[str, str]) -> web.Response:
    """Answer with a file's bytes, or with the range of them that is asked for."""
    headers = {**headers, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
    content = file.path.read_bytes()
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", ""))
    if wanted is None:
        return web.Response(body=content, headers=headers)
    first, last = wanted.groups()
    start = int(first) if first else max(0, file.size - int(last))
    end = min(int(last) + 1 if first and last else file.size, file.size)
    if start >= end:
        raise Refused(416, "no such range", headers={"Content-Range": f"bytes */{file.size}"})
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
    return web.Response(status=206, body=content[start:end], headers=headers)


async def validate_yaml(request: web.Request) -> web.Response:
    sent = await request.json()
    errors, warnings = faults_of(sent["content"], sent["repoType"])
    status = 400 if errors else 200
    if request.headers.get("Accept") == "text/plain":
        return web.Response(status=status, text="\n".join([*errors, *warnings]))
    told = {"errors": [{"message": text} for text in errors], "warnings": [{"message": text} for text in warnings]}
    return web.json_response(told, status=status)


async def create_collection(request: web.Request) -> web.Response:
    from tests.loopback_hub import Collection

    hub, sent = _hub(request), await request.json()
    _writer(request, sent["namespace"])
    if len(sent["title"]) > 59 or len(sent.get("description", "")) > 150:
        raise Refused(400, "the title or the description is too long")
    slug = f"{sent['namespace']}/{re.sub('[^a-z0-9]+', '-', sent['title'].lower())}-{len(hub.collections):024x}"
    same = [c for c in hub.collections.values() if (c.owner, c.title) == (sent["namespace"], sent["title"])]
    if same:
        raise Refused(409, "You already have a collection of this title", slug=same[0].slug)
    told = Collection(slug, sent["title"], sent["namespace"], sent.get("description"), sent["private"])
    hub.collections[slug] = told
    return _collection(told)


async def collection(request: web.Request) -> web.Response:
    return _collection(_found(request))


async def collection_items(request: web.Request) -> web.Response:
    told, sent = _found(request), await request.json()
    _writer(request, told.owner)
    item = sent["item"]
    if (item["id"] if item["type"] == "model" else f"{item['type']}s/{item['id']}") not in _hub(request).repositories:
        raise Refused(404, f"no {item['type']} {item['id']}", "RepoNotFound")
    if any((there["id"], there["type"]) == (item["id"], item["type"]) for there in told.items):
        raise Refused(409, "This item is in the collection already")
    note = {"note": {"text": sent["note"]}} if "note" in sent else {}
    told.items.append({"_id": f"{len(told.items):024x}", **item, "position": len(told.items), **note})
    return _collection(told)


def _found(request: web.Request) -> Collection:
    told = _hub(request).collections.get(f"{request.match_info['owner']}/{request.match_info['slug']}")
    user = _user(request)
    if told is None or (told.private and not (user and user.owns(told.owner))):
        raise Refused(404, "Collection not found")
    return told


def _collection(told: Collection) -> web.Response:
    more = {"lastUpdated": "2026-01-01T00:00:00.000Z", "position": 0, "theme": "green", "upvotes": 0}
    known = {"slug": told.slug, "title": told.title, "owner": {"name": told.owner}, "items": told.items, **more}
    return web.json_response({**known, "private": told.private, "description": told.description})


async def not_offered(request: web.Request) -> web.Response:
    """Refuse what a client may ask of any Hub and does without: Xet, telemetry, the list of agents."""
    raise Refused(404, "not offered here")


_FILES = "/resolve/{rev}/{path:.+}"
_LFS = "/{owner}/{name}.git/info/lfs"
ROUTES = [
    ("GET", "/api/whoami-v2", whoami),
    ("POST", "/api/repos/create", create_repo),
    ("DELETE", "/api/repos/delete", delete_repo),
    ("PUT", f"{_API}/settings", settings),
    ("GET", f"{_API}/auth-check", auth_check),
    ("GET", f"{_API}/auth-check/write", auth_check),
    ("GET", _API, info),
    ("GET", f"{_API}/revision/{{rev}}", info),
    ("GET", f"{_API}/refs", refs),
    ("GET", f"{_API}/commits/{{rev}}", commits),
    ("GET", f"{_API}/tree/{{rev}}", tree),
    ("GET", f"{_API}/tree/{{rev}}/{{path:.+}}", tree),
    ("POST", f"{_API}/paths-info/{{rev}}", paths_info),
    ("POST", f"{_API}/tag/{{rev}}", tag),
    ("DELETE", f"{_API}/tag/{{rev}}", tag),
    ("POST", f"{_API}/branch/{{branch}}", branch),
    ("DELETE", f"{_API}/branch/{{branch}}", branch),
    ("POST", f"{_API}/preupload/{{rev}}", preupload),
    ("POST", f"{_API}/commit/{{rev}}", commit),
    ("POST", f"/datasets{_LFS}/objects/batch", lfs_batch),
    ("POST", f"{_LFS}/objects/batch", lfs_batch),
    ("POST", f"/datasets{_LFS}/verify", lfs_verify),
    ("POST", f"{_LFS}/verify", lfs_verify),
    ("PUT", "/storage/{oid}", lfs_upload),
    ("*", "/storage/{oid}", lfs_file),
    ("*", f"/datasets/{{owner}}/{{name}}{_FILES}", resolve),
    ("*", f"/{{owner}}/{{name}}{_FILES}", resolve),
    ("*", f"/api/resolve-cache/{_API.removeprefix('/api/')}/{{rev}}/{{path:.+}}", file),
    ("POST", "/api/validate-yaml", validate_yaml),
    ("POST", "/api/collections", create_collection),
    ("GET", "/api/collections/{owner}/{slug}", collection),
    ("POST", "/api/collections/{owner}/{slug}/items", collection_items),
    ("GET", f"{_API}/{{right:xet-(read|write)-token}}/{{rev}}", not_offered),
    ("*", "/api/telemetry/{path:.+}", not_offered),
    ("GET", "/api/agent-harnesses", not_offered),
]
