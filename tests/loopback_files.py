"""How files come to the loopback Hub and from it: preupload, LFS, commits; redirects, ranges."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.loopback_access import hub_of, name_of, repository_of
from tests.loopback_cards import faults_of
from tests.loopback_repositories import CARD, Commit, File, Refused

if TYPE_CHECKING:
    from tests.loopback_hub import LoopbackHub


async def preupload(request: web.Request) -> web.Response:
    repository, sent = repository_of(request, write=True), await request.json()
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
    repository_of(request, write=True)
    hub, sent = hub_of(request), await request.json()
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
    hub, oid, content = hub_of(request), request.match_info["oid"], await request.read()
    _stranger_to_tokens(request)
    if oid not in hub.uploads or request.query.get("X-Amz-Signature") != "signed":
        raise Refused(403, "no such upload was agreed")
    if len(content) != hub.uploads[oid] or hashlib.sha256(content).hexdigest() != oid:
        raise Refused(400, "the content is not what was announced")
    hub.objects.add(content)
    return web.Response(headers={"ETag": f'"{oid}"'})


async def lfs_verify(request: web.Request) -> web.Response:
    repository_of(request, write=True)
    sent = await request.json()
    path = hub_of(request).objects.path(sent["oid"])
    if not path.exists() or path.stat().st_size != sent["size"]:
        raise Refused(404, "the content was not uploaded")
    return web.json_response({})


async def commit(request: web.Request) -> web.Response:
    repository, branch_name = repository_of(request, write=True), request.match_info["rev"]
    if "create_pr" in request.query:
        raise LookupError("commits as a pull request")
    header, *operations = (json.loads(line) for line in (await request.text()).splitlines() if line)
    told = header["value"]
    if header["key"] != "header" or not told["summary"]:
        raise Refused(400, "the first line must be a header with a summary")
    before, changes = repository.at(branch_name), {}
    for operation in operations:
        changes.update(_change(hub_of(request), before, operation["key"], operation["value"]))
    card = changes.get(CARD)
    if card and (errors := faults_of(card.path.read_text("utf-8"), repository.kind)[0]):
        raise Refused(400, f"Invalid metadata in README.md: {'; '.join(errors)}")
    parent = told.get("parentCommit")
    new = repository.commit(branch_name, changes, told["summary"], told["description"], parent)
    url = f"{hub_of(request).url}/{name_of(repository)}/commit/{new.oid}"
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
    repository = repository_of(request, content=True)
    told = repository.at(request.match_info["rev"])
    path, headers = request.match_info["path"], {"X-Repo-Commit": told.oid}
    file = told.files.get(path)
    if file is None:
        raise Refused(404, "Entry not found", "EntryNotFound", headers=headers)
    headers.update({"X-Linked-Size": str(file.size), "X-Linked-ETag": f'"{file.etag}"', "ETag": f'"{file.etag}"'})
    if file.lfs:  # 302 to another host; what git keeps itself, 307 to the same one: as the Hub does
        where = f"{hub_of(request).storage_url}/storage/{file.sha256}?X-Amz-Signature=signed"
        return web.Response(status=302, headers={**headers, "Location": where})
    where = f"/api/resolve-cache/{repository.kind}s/{repository.repo_id}/{told.oid}/{path}"
    return web.Response(status=307, headers={**headers, "Location": where})


async def file(request: web.Request) -> web.Response:
    repository = repository_of(request, content=True)
    told = repository.at(request.match_info["rev"])
    return _content(request, told.files[request.match_info["path"]], {"X-Repo-Commit": told.oid})


async def lfs_file(request: web.Request) -> web.Response:
    _stranger_to_tokens(request)
    if request.query.get("X-Amz-Signature") != "signed":
        raise Refused(403, "the address is not signed")
    return _content(request, hub_of(request).objects.lfs_file(request.match_info["oid"]), {})


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
