"""Where a teacher asks, with which headers and for which key in the store: settings, environment, client."""

from __future__ import annotations

import asyncio
import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dataset_builders.asking import Asker
from dataset_builders.figures import writers
from dataset_builders.settings import TeacherCotsSettings
from tests.waits import Waits
from toolkit.cli import main
from toolkit.collect import TeacherUnavailable, collect
from toolkit.collect_settings import CollectSettings
from toolkit.errors import UserError
from toolkit.prices import price_of
from toolkit.problem import Problem
from toolkit.store import Store
from toolkit.teachers.kinds import asked_of, make_teacher
from toolkit.teachers.openai_batches import BatchEndpoint
from toolkit.teachers.openai_compatible import OpenAIConfig, OpenAITeacher
from toolkit.teachers.protocol import Request, Sampling, TeacherError
from toolkit.testing.fault_server import FaultServer
from toolkit.testing.replies import Ask, Reply, completion, fault

KEY = "sk-loopback-5ecre7-key"
ENVIRONMENT = (
    "OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_BASE_URL", "OPENAI_CUSTOM_HEADERS", "OPENAI_ORG_ID",
    "OPENAI_PROJECT_ID", "OPENAI_API_VERSION", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "AZURE_OPENAI_ENDPOINT",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


def ask(**sampling: Any) -> Request:
    return Request("m", (("user", "1 + 1?"),), Sampling(**sampling))


def complete(**config: Any) -> None:
    async def once() -> None:
        teacher = make_teacher(OpenAIConfig(**{"model": "m", **config}))
        try:
            await teacher.check()
            await teacher.complete(ask())
        finally:
            await teacher.close()

    asyncio.run(once())


def sent(server: FaultServer, **config: Any) -> Ask:
    complete(**{"base_url": server.url, **config})
    return server.asks[-1]


# The environment's settings


def test_the_environment_names_address_organisation_and_project(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(lambda _: completion("2")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/")
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
        monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
        monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Team: cots\nx-cost-centre: 7")
        complete()
        headers = server.asks[0].headers
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert (headers["OpenAI-Organization"], headers["OpenAI-Project"]) == ("org-1", "proj-1")
    assert (headers["X-Team"], headers["X-Cost-Centre"]) == ("cots", "7")


def test_nothing_tells_what_machine_asks() -> None:
    with FaultServer(lambda _: completion("2")) as server:
        headers = sent(server).headers
    assert headers["User-Agent"] == "cot-distillery"
    assert not [name for name in headers if name.lower().startswith("x-stainless")]


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN"]
)
@pytest.mark.parametrize("mode", ["online", "batch"])
def test_another_provider_s_key_goes_nowhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, mode: str
) -> None:
    monkeypatch.setenv(name, "sk-for-openai-only")
    with FaultServer(lambda _: completion("2")) as server, Store(tmp_path / "s.sqlite") as store:
        teacher = OpenAITeacher(OpenAIConfig(model="m", base_url=server.url, api_key_env="UNSET_KEY"))
        asyncio.run(collect([ask()], teacher, store, CollectSettings(mode=mode), sleep=Waits()))
        assert "Authorization" not in server.asks[0].headers
        assert "api-key" not in server.asks[0].headers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENAI_ORG_ID", "org\n1"),
        ("OPENAI_PROJECT_ID", "pr\u00f6j"),
        ("OPENAI_CUSTOM_HEADERS", "X-A: \x01"),
        ("OPENAI_CUSTOM_HEADERS", "Bad Name: x"),
        ("OPENAI_CUSTOM_HEADERS", ": x"),
    ],
)
@pytest.mark.parametrize("mode", ["online", "batch"])
def test_a_header_that_cannot_be_sent_is_told_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch, store: Store, name: str, value: str, mode: str
) -> None:
    monkeypatch.setenv(name, value)
    with FaultServer(lambda _: completion("2")) as server:
        teacher = OpenAITeacher(OpenAIConfig(model="m", base_url=server.url))
        with pytest.raises(TeacherUnavailable, match=r"set a header .* that cannot be sent"):
            asyncio.run(collect([ask()], teacher, store, CollectSettings(mode=mode), sleep=Waits()))
        assert (server.requests_seen, server.models_seen) == (0, 0)


def test_batches_have_the_environment_s_headers_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FaultServer(lambda _: completion("2"), key=KEY) as server, Store(tmp_path / "s.sqlite") as store:
        teacher = OpenAITeacher(OpenAIConfig(model="m", base_url=server.url))
        asyncio.run(collect([ask()], teacher, store, CollectSettings(mode="batch"), sleep=Waits()))
        assert server.asks[0].headers["OpenAI-Organization"] == "org-1"


SECRET_ADDRESSES = [
    "https://user:hunter22@host/v1",
    "https://user@host/v1",
    "https://:hunter22@host/v1",
    "https://user:hun@ter22@host/v1",
    "https://user:hun/ter22@host/v1",
    "https://user%3Ahunter22%40host/v1",
    "user:hunter22@host:8000/v1",
    "https:\\\\user:hunter22@host/v1",
    "https:user:hunter22@host/v1",
    "https://host/v1?key=hunter22",
    "https://host/v1#hunter22",
    "https://host/sk-hunter22hunter22hunter22/v1",
    "//user:hunter22@host/v1",
    " https://user:hunter22@host/v1",
]


@pytest.mark.parametrize("address", SECRET_ADDRESSES)
@pytest.mark.parametrize("where", ["base_url", "second of a pool", "environment"])
def test_an_address_with_a_secret_is_refused_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, address: str, where: str
) -> None:
    base_url: Any = {"base_url": address, "second of a pool": ["http://a/v1", address]}.get(where)
    if where == "environment":
        monkeypatch.setenv("OPENAI_BASE_URL", address)
    with pytest.raises(ValidationError) as told:
        OpenAIConfig(model="m", base_url=base_url)
    (error,) = told.value.errors()
    assert error["type"] == "owned"
    assert "hunter" not in error["msg"]
    assert ("OPENAI_BASE_URL" in error["msg"]) == (where == "environment")


@pytest.mark.parametrize("address", SECRET_ADDRESSES)
def test_an_address_that_comes_into_the_environment_later_is_refused_too(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    config = OpenAIConfig(model="m")
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    for use in (make_teacher, price_of):
        with pytest.raises(UserError, match="OPENAI_BASE_URL") as told:
            use(config)
        assert "hunter" not in str(told.value)


@pytest.mark.parametrize(
    "address", ["localhost:8000/v1", "ftp://host/v1", "http://", "http://[::1/v1", "http://a:x/v1"]
)
def test_an_address_of_the_environment_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    with pytest.raises(ValidationError, match="OPENAI_BASE_URL: expected an address like"):
        OpenAIConfig(model="m")


def test_a_recipe_with_a_bad_address_in_the_environment_shows_none_of_it(tmp_path: Path) -> None:
    recipe = Path(__file__).parents[2] / "recipes" / "std_cot.yaml"
    code = (
        "import os; os.environ['OPENAI_BASE_URL'] = 'https://user:hunter22@host/v1'\n"
        "from toolkit.cli import main\n"
        f"raise SystemExit(main(['validate', {str(recipe)!r}, "
        "'dataset.config.teacher={kind: openai, model: m}']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "OPENAI_BASE_URL" in done.stderr + done.stdout
    assert "hunter" not in done.stderr + done.stdout


def test_an_empty_address_of_the_environment_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    assert OpenAITeacher(OpenAIConfig(model="m")).address == "https://api.openai.com/v1"


def test_the_environment_s_address_is_not_looked_at_where_the_recipe_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", SECRET_ADDRESSES[0])
    assert OpenAITeacher(OpenAIConfig(model="m", base_url="http://a/v1")).address == "http://a/v1"


@pytest.mark.parametrize(
    "override",
    [
        'dataset.config.teacher={kind: openai, model: m, base_url: "https://user:hunter22@host/v1"}',
        "dataset.config.teacher={kind: openai, model: m, base_url: 'user:hunter22@host/v1'}",
        "dataset.config.teacher={kind: openai, model: m, request: {api_key: hunter22hunter22}}",
        "dataset.config.teacher={kind: openai, model: m, request: {x: sk-hunter22hunter22hunter22}}",
        "dataset.config.teacher={kind: openai, model: m, query: {key: hunter22}}",
        "dataset.config.teacher=[{kind: procedural}, {kind: openai, model: m, request: {a: Bearer hunter2222}}]",
        "dataset.config.teacher={kind: openai, model: m, api_key: hunter22}",
        "dataset.config.teacher={kind: openai, model: m, api_key_env: sk-hunter22hunter22hunter22}",
    ],
)
def test_an_override_with_a_secret_is_refused_and_never_shown(
    override: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Path(__file__).parents[2] / "recipes" / "std_cot.yaml"
    assert main(["validate", str(recipe), override]) == 2
    printed = capsys.readouterr()
    assert "override 'dataset.config.teacher=...' dataset.config.teacher" in printed.err + printed.out
    assert "hunter" not in printed.err + printed.out


@pytest.mark.parametrize("value", [0.3, "none", "", 0, False, [], "Sampling"])
@pytest.mark.parametrize("name", ["temperature", "top_p", "seed", "stop"])
def test_a_parameter_has_no_value_of_its_own_in_a_teacher(name: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=rf"{name}\n.*null leaves the parameter out"):
        OpenAIConfig(model="m", **{name: value})


# What a recipe adds


def test_what_is_added_is_sent_with_every_request() -> None:
    added = {"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "low", "extra_body": {"top_k": 7}}
    query = {"api-version": "2024-10-21", "region": "a b&c"}
    with FaultServer(lambda _: completion("2")) as server:
        seen = _with_queries(server)
        body = sent(server, request=added, query=query).body
    assert {name: body[name] for name in added} == added
    assert body["messages"] == [{"role": "user", "content": "1 + 1?"}]
    assert [dict(each) for each in seen] == [query] * 2  # the list of models and the request


def test_what_is_added_is_sent_in_batches_too(tmp_path: Path) -> None:
    with FaultServer(lambda _: completion("2")) as server, Store(tmp_path / "s.sqlite") as store:
        seen = _with_queries(server)
        teacher = OpenAITeacher(
            OpenAIConfig(model="m", base_url=server.url, request={"top_k": 7}, query={"v": "1"}, temperature=None)
        )
        asyncio.run(collect([ask()], teacher, store, CollectSettings(mode="batch"), sleep=Waits()))
        body = server.asks[0].body
    assert (body["top_k"], "temperature" in body) == (7, False)
    assert {each.get("v") for each in seen} == {"1"}


def _with_queries(server: FaultServer) -> list[Any]:
    seen: list[Any] = []
    handle = server._handle

    async def noted(request: Any) -> Any:
        seen.append(request.query)
        return await handle(request)

    server._handle = noted  # type: ignore[method-assign]
    server._runner.server.request_handler = noted  # type: ignore[union-attr]
    return seen


OWNED = [
    "model", "messages", "n", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p",
    "seed", "stop", "logprobs", "top_logprobs",
]  # fmt: skip


@pytest.mark.parametrize("name", [*OWNED, "Messages", " stream ", "N"])
def test_what_the_engine_says_itself_cannot_be_added(name: str) -> None:
    with pytest.raises(ValidationError, match=rf"request\n.*{name.strip()}.*comes from"):
        OpenAIConfig(model="m", request={name: None})


@pytest.mark.parametrize("where", ["request", "query"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_key", "hunter22"),
        ("apikey", "hunter22"),
        ("api-key", "hunter22"),
        ("apiKey", "hunter22"),
        ("X-Api-Key", "hunter22"),
        ("key", "hunter22"),
        ("token", "hunter22"),
        ("access_token", "hunter22"),
        ("Ocp-Apim-Subscription-Key", "hunter22"),
        ("Authorization", "hunter22"),
        ("authorization", "Bearer hunter22"),
        ("password", "hunter22"),
        ("clientSecret", "hunter22"),
        ("sig", "hunter22"),
        ("code", "hunter22"),
        ("note", "sk-hunter22hunter22hunter22"),
        ("note", "hf_" + "hunter22" * 4),
        ("note", "AIza" + "hunter22" * 5),
        ("note", "Bearer hunter22hunter22"),
        ("note", "https://user:hunter22@host/"),
        ("note", "the environment's is hunter22-of-the-environment"),
        ("sk-hunter22hunter22hunter22", "x"),
    ],
)
def test_no_secret_is_added_and_none_is_shown(
    monkeypatch: pytest.MonkeyPatch, where: str, name: str, value: str
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "hunter22-of-the-environment")
    with pytest.raises(ValidationError) as told:
        OpenAIConfig(model="m", **{where: {name: value}})
    (error,) = told.value.errors()
    assert (error["type"], error["loc"]) == ("owned", (where,))
    assert "hunter" not in error["msg"]


@pytest.mark.parametrize(
    "value",
    [
        {"extra_headers": {"api_key": "hunter22"}},
        {"a": [{"b": {"password": "hunter22"}}]},
        {"a": ["Bearer hunter22xx"]},
    ],
)
def test_no_secret_is_added_at_any_depth(value: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="looks like a secret"):
        OpenAIConfig(model="m", request=value)


@pytest.mark.parametrize(
    "value",
    [
        {"prompt_cache_key": "cots", "safety_identifier": "a1"},
        {"logit_bias": {"50256": -100}},
        {"stop_token_ids": [1, 2], "skip_special_tokens": False, "thinking_token_budget": 100},
        {"provider": {"order": ["a"], "allow_fallbacks": False}},
        {"response_format": {"type": "json_object"}},
        {"metadata": {"run": "7"}, "user": "somebody", "store": False},
        {"empty": {}, "nothing": None, "number": 1.5, "list": []},
    ],
)
def test_anything_else_may_be_added(value: dict[str, Any]) -> None:
    assert OpenAIConfig(model="m", request=value).request == value


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        datetime.date(2024, 1, 1),
        {1: 2},
        {"a": {None: 1}},
        {"a"},
        b"a",
        "\ud800",
        [object()],
    ],
)
def test_what_json_cannot_carry_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError, match=r"request\n.*(JSON|UTF-8|texts as keys)"):
        OpenAIConfig(model="m", request={"x": value})


@pytest.mark.parametrize(
    ("value", "text"), [("2024-10-21", "2024-10-21"), (datetime.date(2024, 10, 21), "2024-10-21"), (7, "7")]
)
def test_a_query_is_text_as_yaml_reads_it(value: Any, text: str) -> None:
    assert OpenAIConfig(model="m", query={"api-version": value}).query == {"api-version": text}


@pytest.mark.parametrize("value", [True, None, 1.5, "", [], {}, "a\nb", datetime.datetime(2024, 1, 1)])
def test_anything_else_in_a_query_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError, match="text of one line"):
        OpenAIConfig(model="m", query={"api-version": value})


# The store's keys

# Written down from the release before there was anything to add.
DIGEST = "acf7d90f0607119b6d5b5eb57b674efa6f52e441008307f6f48ab2a9a0707da0"


def test_a_store_of_before_keeps_its_keys() -> None:
    request = Request("gpt", (("system", "Be brief."), ("user", "1 + 1?")), Sampling(0.7, 0.9, 64, ("\nQ:",), 5), 2)
    assert request.digest == DIGEST
    assert asked_of(OpenAIConfig(model="gpt"), request) == request


def test_what_is_added_or_left_out_is_another_request() -> None:
    configs: list[dict[str, Any]] = [
        {},
        {"request": {"reasoning_effort": "low"}},
        {"request": {"reasoning_effort": "high"}},
        {"query": {"reasoning_effort": "low"}},
        {"request": {"a": 1}, "query": {"b": "1"}},
        {"temperature": None},
        {"top_p": None},
        {"temperature": None, "top_p": None},
    ]
    asked = [asked_of(OpenAIConfig(model="m", **config), ask()) for config in configs]
    assert len({request.digest for request in asked}) == len(configs)
    assert len({request.prompt_digest for request in asked}) == 1, "a recording is found by its prompt"


def test_the_order_of_what_is_added_is_no_difference() -> None:
    one, other = ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1})
    digests = {asked_of(OpenAIConfig(model="m", request=added), ask()).digest for added in (one, other)}
    assert len(digests) == 1


def test_a_contrast_is_never_taken_for_what_is_added() -> None:
    extra = OpenAIConfig(model="m", request={"a": 1}).extra
    contrasted = Request("m", (("user", "q"),), contrast=extra)
    added = Request("m", (("user", "q"),), extra=extra)
    assert contrasted.digest != added.digest


def test_other_settings_are_not_answered_from_the_store(tmp_path: Path) -> None:
    with FaultServer(lambda _: completion("2")) as server, Store(tmp_path / "s.sqlite") as store:
        for config in ({}, {"request": {"top_k": 1}}, {"request": {"top_k": 1}}, {"temperature": None}):
            made = OpenAIConfig(model="m", base_url=server.url, **config)  # type: ignore[arg-type]
            request = asked_of(made, ask())
            asyncio.run(collect([request], OpenAITeacher(made), store, CollectSettings()))
        assert [ask.body.get("top_k") for ask in server.asks] == [None, 1, None]
        assert "temperature" not in server.asks[2].body


def test_what_was_added_comes_back_from_exports_and_batches(tmp_path: Path) -> None:
    from toolkit.batches import Submission
    from toolkit.store_exports import export, import_rows
    from toolkit.store_rows import request_of
    from toolkit.teachers.protocol import Completion

    request = asked_of(OpenAIConfig(model="m", request={"a": "é"}, query={"v": "1"}, seed=None), ask(seed=3))
    with Store(tmp_path / "s.sqlite") as store:
        store.put(request, Completion("2"))
        (packed,) = next(store.select("SELECT request FROM completions"))
    assert request_of(packed) == request
    for file in ("s.jsonl", "s.parquet"):
        export(tmp_path / "s.sqlite", tmp_path / file)
        report = import_rows(tmp_path / f"{file}.sqlite", tmp_path / file)
        assert (report.added, report.refused) == (1, 0)
    record = Submission.written(tmp_path / "batches", "http://a", "file-1", [request])
    assert list(Submission.read_all(tmp_path / "batches")[0].requests().values()) == [request]
    assert record.requests() == {request.digest: request}


def test_rows_say_what_was_left_out(tmp_path: Path) -> None:
    section = {"kind": "openai", "model": "m", "temperature": None, "stop": None, "request": {"a": 1}}
    settings = TeacherCotsSettings.model_validate({"problems": {"source": "procedural", "n": 1}, "teacher": section})
    with Store(tmp_path / "s.sqlite") as store:
        asker = Asker(settings, store, "openai", "m")
        request = asker.request("cot", Problem("p", "t", "1 + 1?", "2"), 0)
        chain = asker.chain(request, Problem("p", "t", "1 + 1?", "2"), "teacher")
    assert (request.sampling.temperature, request.sampling.top_p, json.loads(request.extra)) == (
        None,
        1.0,
        {"request": {"a": 1}},
    )
    assert (chain.provenance["temperature"], chain.provenance["top_p"]) == (None, 1.0)


@pytest.mark.parametrize(
    ("temperature", "top_p", "max_tokens", "said"),
    [
        (0.2, 1.0, 64, "temperature 0.2, top-p 1, at most 64 tokens"),
        (None, 1.0, 64, "temperature of the server, top-p 1, at most 64 tokens"),
        (None, None, 64, "temperature of the server, top-p of the server, at most 64 tokens"),
        (None, None, None, "not known"),
    ],
)
def test_the_card_says_what_was_left_out(
    temperature: float | None, top_p: float | None, max_tokens: int | None, said: str
) -> None:
    origin = {"teacher": "openai", "model": "m", "template": "cot@1", "completion": "2"}
    origin |= {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}  # type: ignore[dict-item]
    (writer,) = writers([{"chain": {"provenance": origin}}], ["chain"])
    assert writer.sampling == said


# Azure


def azure(server: FaultServer, **config: Any) -> OpenAIConfig:
    address = server.url.removesuffix("/v1")
    return OpenAIConfig(**{"model": "gpt-4o", "azure_deployment": "my-dep", "base_url": address, **config})


class Azure(FaultServer):
    """Answers at the addresses of Azure, and remembers where and with what it was asked."""

    def __init__(self, **more: Any) -> None:
        super().__init__(lambda _: completion("2"), **more)
        self.seen: list[tuple[str, str, dict[str, str], dict[str, str]]] = []

    async def _handle(self, request: Any) -> Any:
        self.seen.append((request.method, request.path, dict(request.query), dict(request.headers)))
        return await super()._handle(request)


@pytest.mark.parametrize(
    ("variables", "header", "value"),
    [
        ({"AZURE_OPENAI_API_KEY": "azure-key-0123456789"}, "api-key", "azure-key-0123456789"),
        ({"AZURE_OPENAI_AD_TOKEN": "azure-token-01234567"}, "Authorization", "Bearer azure-token-01234567"),
        (
            {"AZURE_OPENAI_AD_TOKEN": "azure-token-01234567", "AZURE_OPENAI_API_KEY": "azure-key-0123456789"},
            "Authorization",
            "Bearer azure-token-01234567",
        ),
    ],
    ids=["key", "token", "both"],
)
@pytest.mark.parametrize("mode", ["online", "batch"])
def test_azure_is_asked_at_its_deployment_with_its_own_credentials(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], header: str, value: str, mode: str
) -> None:
    for name, content in variables.items():
        monkeypatch.setenv(name, content)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-openai-only")
    with Azure() as server, Store(tmp_path / "s.sqlite") as store:
        teacher = OpenAITeacher(azure(server, query={"api-version": "2024-10-21"}))
        request = Request("gpt-4o", (("user", "q"),))
        report = asyncio.run(collect([request], teacher, store, CollectSettings(mode=mode), sleep=Waits()))
        seen, body = server.seen, server.asks[0].body
    assert report.answered == 1
    paths = {"/openai/models"} | (
        {"/openai/deployments/my-dep/chat/completions"}
        if mode == "online"
        else {"/openai/files", "/openai/batches", "/openai/batches/batch-1", "/openai/files/file-2/content"}
    )
    assert {path for _, path, _, _ in seen} == paths
    assert {query["api-version"] for _, _, query, _ in seen} == {"2024-10-21"}
    assert {headers.get(header) for *_, headers in seen} == {value}
    assert "sk-for-openai-only" not in str(seen)
    assert body["model"] == ("gpt-4o" if mode == "online" else "my-dep")


def test_azure_s_environment_names_address_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    with Azure() as server:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.url.removesuffix("/v1") + "/")
        monkeypatch.setenv("OPENAI_API_VERSION", "2025-01-01")
        monkeypatch.setenv("MY_AZURE_KEY", "azure-key-0123456789")
        complete(model="gpt-4o", azure_deployment="my-dep", api_key_env="MY_AZURE_KEY")
        _, path, query, headers = server.seen[-1]
    assert path == "/openai/deployments/my-dep/chat/completions"
    assert (query, headers["api-key"]) == ({"api-version": "2025-01-01"}, "azure-key-0123456789")


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"OPENAI_API_VERSION": "1"}, "AZURE_OPENAI_AD_TOKEN or AZURE_OPENAI_API_KEY is not set"),
        ({"AZURE_OPENAI_API_KEY": "azure-key-0123456789"}, r"query: \{api-version: \.\.\.\} or OPENAI_API_VERSION"),
    ],
)
def test_what_azure_lacks_is_told_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], reason: str
) -> None:
    for name, content in variables.items():
        monkeypatch.setenv(name, content)
    with Azure() as server:
        teacher = OpenAITeacher(azure(server))
        with pytest.raises(TeacherError, match=reason) as told:
            asyncio.run(teacher.check())
        assert (told.value.kind, server.seen) == ("fatal", [])


def test_azure_without_an_address_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="AZURE_OPENAI_ENDPOINT is not set"):
        make_teacher(OpenAIConfig(model="m", azure_deployment="d"))
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", SECRET_ADDRESSES[0])
    with pytest.raises(ValidationError, match="AZURE_OPENAI_ENDPOINT: must hold no user"):
        OpenAIConfig(model="m", azure_deployment="d")


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "a?b", "a\nb"])
def test_a_deployment_is_a_name(name: str) -> None:
    with pytest.raises(ValidationError, match="azure_deployment"):
        OpenAIConfig(model="m", azure_deployment=name)


def test_a_key_of_azure_is_taken_out_of_what_it_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key-0123456789")
    server = Azure(models=fault(401, "Access denied due to invalid key azure-key-0123456789"))
    with server:
        teacher = OpenAITeacher(azure(server, query={"api-version": "1"}))
        with pytest.raises(TeacherError, match=r"invalid key \[key\]"):
            asyncio.run(teacher.check())


# Through the client


@pytest.mark.parametrize(
    ("reply", "kind", "reason"),
    [
        (fault(401, "bad key"), "fatal", r"key refused \(HTTP 401: bad key\)"),
        (fault(429, "slow down", Retry_After="3"), "retry", "HTTP 429: slow down"),
        (fault(500), "retry", "HTTP 500: scripted fault"),
        (Reply(b"<html>gone</html>", 502, content_type="text/html"), "retry", "HTTP 502: <html>gone"),
        (fault(400, "no such file"), "permanent", "HTTP 400: no such file"),
        (fault(400, code="model_not_found"), "fatal", "unknown model"),
        (Reply(b"not json"), "retry", "not JSON: not json"),
        (Reply(b"[]"), "retry", "not a JSON object"),
        (Reply(b"{}"), "retry", "names nothing"),
        (Reply(b'{"id": 7}'), "retry", "names nothing"),
        (Reply(behaviour="reset"), "retry", "connection failed"),
        (Reply(b'{"id": "x"}', behaviour="truncate"), "retry", "connection failed"),
        (Reply(behaviour="hang"), "retry", "no answer within the timeout"),
        (fault(307, location="http://127.0.0.1:9/v1/files"), "fatal", "sends on to .*name that in base_url"),
    ],
)
def test_an_error_of_the_client_is_sorted_as_any_other(reply: Reply, kind: str, reason: str) -> None:
    async def upload(server: FaultServer) -> None:
        teacher = OpenAITeacher(OpenAIConfig(model="m", base_url=server.url, timeout=0.3))
        try:
            await BatchEndpoint(teacher).upload([b"{}\n"])
        finally:
            await teacher.close()

    def control(action: str, number: int) -> Reply:
        return reply

    with FaultServer(control=control) as server, pytest.raises(TeacherError, match=reason) as told:
        asyncio.run(upload(server))
    assert told.value.kind == kind
    assert told.value.retry_after == (3 if "429" in reason else None)


def test_a_server_that_is_not_there_is_unreachable_for_the_client_too(tmp_path: Path) -> None:
    with FaultServer() as server:
        url = server.url
    teacher = OpenAITeacher(OpenAIConfig(model="m", base_url=url))
    with pytest.raises(TeacherError, match="connection failed"):
        asyncio.run(BatchEndpoint(teacher).state("batch-1"))


@pytest.mark.parametrize(
    "error",
    [
        {"message": "@@"},
        {"message": "no", "metadata": {"raw": "y" * 150 + "@@"}},
        {"message": "y" * 150 + "@@", "metadata": {"raw": "z"}},
        {"message": "no", "metadata": {"@@": "@@"}},
    ],
)
def test_the_key_of_a_batch_is_in_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: dict[str, Any]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    repeats = Reply(json.dumps({"error": error}).replace("@@", "\\u0073" + KEY[1:]).encode(), 400)

    def control(action: str, number: int) -> Reply:
        return repeats

    with FaultServer(control=control) as server, Store(tmp_path / "s.sqlite") as store:
        teacher = OpenAITeacher(OpenAIConfig(model="m", base_url=server.url))
        with pytest.raises(TeacherUnavailable, match=r"HTTP 400: .*\[key\]") as told:
            asyncio.run(collect([ask()], teacher, store, CollectSettings(mode="batch"), sleep=Waits()))
    assert KEY[:8] not in str(told.value)
