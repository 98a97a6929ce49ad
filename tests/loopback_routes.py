"""What the loopback Hub answers to each request; a handler's name is what `hub.fail` and `hub.before` know it by."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web
from huggingface_hub import DatasetCard, ModelCard

from tests import loopback_files as files
from tests.loopback_access import hub_of, repository_of, user_of, writer_of
from tests.loopback_cards import faults_of
from tests.loopback_repositories import CARD, Collection, Commit, Refused


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
    user = user_of(request)
    if user is None:
        raise Refused(401, "Invalid username or password.")
    orgs = [{"type": "org", "name": name, "roleInOrg": "admin"} for name in user.orgs]
    token = {"type": "access_token", "accessToken": {"displayName": "loopback", "role": user.role}}
    return web.json_response({"type": "user", "id": user.name, "name": user.name, "orgs": orgs, "auth": token})


async def create_repo(request: web.Request) -> web.Response:
    sent = await request.json()
    kind = sent.get("type") or "model"
    user = user_of(request)
    owner = sent["organization"] or (user.name if user else "")
    writer_of(request, owner)
    if kind not in ("dataset", "model"):
        raise LookupError(f"a repository of kind {kind}")
    repo = f"{'datasets/' if kind == 'dataset' else ''}{owner}/{sent['name']}"
    url = f"{hub_of(request).url}/{repo}"
    if repo in hub_of(request).repositories:
        raise Refused(409, f"You already created this {kind} repo: {owner}/{sent['name']}", url=url)
    hub_of(request).create(repo, private=sent.get("visibility") == "private" or bool(sent.get("private")))
    return web.json_response({"url": url, "name": f"{owner}/{sent['name']}"})


async def delete_repo(request: web.Request) -> web.Response:
    sent = await request.json()
    repo = f"{'datasets/' if sent.get('type') == 'dataset' else ''}{sent['organization']}/{sent['name']}"
    writer_of(request, sent["organization"])
    if hub_of(request).repositories.pop(repo, None) is None:
        raise Refused(404, "Repository not found", "RepoNotFound")
    return web.Response()


async def settings(request: web.Request) -> web.Response:
    repository, sent = repository_of(request, write=True), await request.json()
    if "visibility" in sent:
        repository.private = sent["visibility"] == "private"
    if "gated" in sent:
        repository.gated = bool(sent["gated"])
    return web.json_response({})


async def auth_check(request: web.Request) -> web.Response:
    repository_of(request, content=True, write=request.path.endswith("/write"))
    return web.json_response({})


def _card_data(card: Path, kind: str) -> dict[str, Any] | None:
    """Return a card's front matter as the Hub gives it, which gives none of a card that it cannot read."""
    made = DatasetCard if kind == "dataset" else ModelCard
    try:
        text = card.read_text("utf-8")
        if "&" in text.partition("\n---")[0]:  # anchors, whose aliases may stand for any amount of data
            return None
        data = made(text, ignore_metadata_errors=True).data.to_dict()
        return dict(json.loads(json.dumps(data, default=str)))
    except (ValueError, TypeError, RecursionError, yaml.YAMLError):
        return None


async def info(request: web.Request) -> web.Response:
    repository = repository_of(request)
    commit = repository.at(request.match_info.get("rev", "main"))
    siblings = []
    for path, file in commit.files.items():
        details = {"size": file.size, "blobId": file.oid, **(file.pointer() if file.lfs else {})}
        siblings.append({"rfilename": path, **(details if "blobs" in request.query else {})})
    card = commit.files.get(CARD)
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
        "siblings": siblings,
    }
    wanted = request.query.getall("expand", []) + request.query.getall("expand[]", [])
    if not wanted or "cardData" in wanted:
        told["cardData"] = _card_data(card.path, repository.kind) if card else None
    if wanted:
        told = {key: value for key, value in told.items() if key in wanted}
    return web.json_response({"_id": repository.repo_id, "id": repository.repo_id, **told})


async def refs(request: web.Request) -> web.Response:
    repository = repository_of(request)
    kinds = {"branches": ("heads", repository.branches), "tags": ("tags", repository.tags)}
    told: dict[str, list[dict[str, str]]] = {
        kind: [{"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": oid} for name, oid in known.items()]
        for kind, (folder, known) in kinds.items()
    }
    return web.json_response({**told, "converts": [], "pullRequests": []})


async def commits(request: web.Request) -> web.Response:
    entries = [
        {"id": c.oid, "title": c.title, "message": c.message, "date": c.date, "authors": [{"user": "maker"}]}
        for c in repository_of(request).history(request.match_info["rev"])
    ]
    return _paged(request, entries, hub_of(request).page)


async def tree(request: web.Request) -> web.Response:
    repository = repository_of(request)
    commit = repository.at(request.match_info["rev"])
    is_recursive, is_expanded = (request.query.get(name) == "true" for name in ("recursive", "expand"))
    entries = list(repository.entries(commit, request.match_info.get("path", ""), is_recursive))
    if is_expanded:
        for entry in entries:
            entry["lastCommit"] = _last(repository.last_change(commit, entry["path"]))
    return _paged(request, entries, hub_of(request).page)


async def paths_info(request: web.Request) -> web.Response:
    repository = repository_of(request)
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
    repository, name = repository_of(request, write=True), request.match_info["rev"]
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
    repository, name = repository_of(request, write=True), request.match_info["branch"]
    if request.method == "DELETE":
        if repository.branches.pop(name, None) is None:
            raise Refused(404, f"Invalid rev id: {name}", "RevisionNotFound")
        return web.Response()
    start = repository.at((await request.json()).get("startingPoint", "main"))
    if name in repository.branches:
        raise Refused(409, f"Reference {name} already exists")
    repository.branches[name] = start.oid
    return web.Response(status=201)


async def validate_yaml(request: web.Request) -> web.Response:
    sent = await request.json()
    errors, warnings = faults_of(sent["content"], sent["repoType"])
    status = 400 if errors else 200
    if request.headers.get("Accept") == "text/plain":
        return web.Response(status=status, text="\n".join([*errors, *warnings]))
    told = {"errors": [{"message": text} for text in errors], "warnings": [{"message": text} for text in warnings]}
    return web.json_response(told, status=status)


async def create_collection(request: web.Request) -> web.Response:
    hub, sent = hub_of(request), await request.json()
    writer_of(request, sent["namespace"])
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
    writer_of(request, told.owner)
    item = sent["item"]
    if (item["id"] if item["type"] == "model" else f"{item['type']}s/{item['id']}") not in hub_of(request).repositories:
        raise Refused(404, f"no {item['type']} {item['id']}", "RepoNotFound")
    if any((there["id"], there["type"]) == (item["id"], item["type"]) for there in told.items):
        raise Refused(409, "This item is in the collection already")
    note = {"note": {"text": sent["note"]}} if "note" in sent else {}
    told.items.append({"_id": f"{len(told.items):024x}", **item, "position": len(told.items), **note})
    return _collection(told)


def _found(request: web.Request) -> Collection:
    told = hub_of(request).collections.get(f"{request.match_info['owner']}/{request.match_info['slug']}")
    user = user_of(request)
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


_API = "/api/{kind:models|datasets}/{owner}/{name}"
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
    ("POST", f"{_API}/preupload/{{rev}}", files.preupload),
    ("POST", f"{_API}/commit/{{rev}}", files.commit),
    ("POST", f"/datasets{_LFS}/objects/batch", files.lfs_batch),
    ("POST", f"{_LFS}/objects/batch", files.lfs_batch),
    ("POST", f"/datasets{_LFS}/verify", files.lfs_verify),
    ("POST", f"{_LFS}/verify", files.lfs_verify),
    ("PUT", "/storage/{oid}", files.lfs_upload),
    ("*", "/storage/{oid}", files.lfs_file),
    ("*", f"/datasets/{{owner}}/{{name}}{_FILES}", files.resolve),
    ("*", f"/{{owner}}/{{name}}{_FILES}", files.resolve),
    ("*", f"/api/resolve-cache/{_API.removeprefix('/api/')}/{{rev}}/{{path:.+}}", files.file),
    ("POST", "/api/validate-yaml", validate_yaml),
    ("POST", "/api/collections", create_collection),
    ("GET", "/api/collections/{owner}/{slug}", collection),
    ("POST", "/api/collections/{owner}/{slug}/items", collection_items),
    ("GET", f"{_API}/{{right:xet-(read|write)-token}}/{{rev}}", not_offered),
    ("*", "/api/telemetry/{path:.+}", not_offered),
    ("GET", "/api/agent-harnesses", not_offered),
]
