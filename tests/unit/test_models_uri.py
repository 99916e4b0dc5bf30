from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from researcher.errors import ConnectFault, ModelError, RequestRejected, UserError
from researcher.models import uri as uris
from researcher.models.endpoint import CallLimits, Endpoint
from researcher.models.pool import Pool
from researcher.models.retry import RetryPolicy
from researcher.models.uri import ModelURI, Served, choose_model, open_model, parse_model_uri
from researcher.testing.model_server import ModelServer
from researcher.types import Message, ModelRequest

ASK = ModelRequest(messages=(Message(role="user", content="hi"),))
ONCE = CallLimits(retry=RetryPolicy(attempts=1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("embedded", ModelURI("embedded")),
        ("gguf:a/b.gguf", ModelURI("gguf", "a/b.gguf")),
        ("vllm:Qwen/Qwen3-8B", ModelURI("vllm", "Qwen/Qwen3-8B")),
        ("openai:gpt-4o", ModelURI("openai", "gpt-4o")),
        ("http://h:8000/v1#a/b", ModelURI("http", served=(Served("http://h:8000/v1", "a/b"),))),
        ("https://h/api/v1/", ModelURI("http", served=(Served("https://h/api/v1", None),))),
        ("http://h:8000", ModelURI("http", served=(Served("http://h:8000/v1", None),))),
        (
            "http://a/v1, http://b/v1#m",
            ModelURI("http", served=(Served("http://a/v1", "m"), Served("http://b/v1", "m"))),
        ),
    ],
)
def test_the_forms_of_a_model_uri(text: str, expected: ModelURI) -> None:
    assert parse_model_uri(text) == expected
    assert parse_model_uri(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("vlm:x", "did you mean vllm:x"),
        ("embeded", "did you mean embedded"),
        ("localhost:8000", "did you mean http://localhost:8000"),
        ("gpt-4o", "did you mean openai:gpt-4o"),
        ("weights/m.gguf", "did you mean gguf:weights/m.gguf"),
        ("Qwen/Qwen3-8B", "did you mean vllm:Qwen/Qwen3-8B"),
        ("ftp://host/x", "forms: embedded"),
        ("", "forms: embedded"),
        ("gguf:", "lacks its path"),
        ("vllm:", "lacks its name"),
        ("http://", "no host"),
        ("http://h:999999/v1", "not valid"),
        ("http://h/v1?key=x", "query"),
    ],
)
def test_a_wrong_uri_is_told_the_closest_form(text: str, hint: str) -> None:
    with pytest.raises(UserError, match=hint):
        parse_model_uri(text)


def test_a_key_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(UserError, match="RESEARCHER_API_KEY") as caught:
        parse_model_uri("http://user:hunter2@h/v1")
    assert "hunter2" not in str(caught.value)


@pytest.mark.anyio
async def test_without_a_choice_the_configured_the_local_then_the_embedded_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = await choose_model("openai:x", env={"RESEARCHER_MODEL": "embedded"})
    assert given.uri == "openai:x"
    configured = await choose_model(None, env={"RESEARCHER_MODEL": "vllm:y"})
    assert configured.uri == "vllm:y"
    assert "RESEARCHER_MODEL" in configured.reason
    with ModelServer(models=["m"]) as server:
        monkeypatch.setattr(uris, "LOCAL", server.url)
        local = await choose_model(None, env={})
        assert local.uri == f"{server.url}#m"
        assert server.url in local.reason
    nothing = await choose_model(None, env={})
    assert nothing.uri == "embedded"
    assert "none answers" in nothing.reason
    with ModelServer(models=["m", "n"]) as server:
        monkeypatch.setattr(uris, "LOCAL", server.url)
        unusable = await choose_model(None, env={})
        assert unusable.uri == "embedded"
        assert "serves 2 models (m, n)" in unusable.reason
    with pytest.raises(UserError, match="unknown model URI"):
        await choose_model(None, env={"RESEARCHER_MODEL": "nonsense"})


@pytest.mark.anyio
async def test_opening_one_server_several_and_a_hosted_one() -> None:
    async with AsyncExitStack() as stack:
        one, two = (stack.enter_context(ModelServer(key="k")) for _ in range(2))
        env = {"RESEARCHER_API_KEY": "k"}
        single = await stack.enter_async_context(open_model(f"{one.url}#test", env=env))
        assert isinstance(single, Endpoint)
        assert (await single.complete(ASK)).message.content == "ok"
        several = await stack.enter_async_context(open_model(f"{one.url},{two.url}", env=env))
        assert isinstance(several, Pool)
        assert (await several.complete(ASK)).message.content == "ok"
        hosted = await stack.enter_async_context(open_model("openai:x", env={"OPENAI_API_KEY": "k"}))
        assert hosted.uri == "https://api.openai.com/v1#x"


@pytest.mark.anyio
async def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        await open_model("openai:x", env={}).__aenter__()
    with pytest.raises(UserError, match="there is no model file"):
        await open_model(f"gguf:{tmp_path}/none.gguf").__aenter__()


@pytest.mark.anyio
async def test_a_server_that_is_down_has_another_key_or_another_model_says_so_at_start() -> None:
    async def fault(uri: str, key: str = "k") -> ModelError:
        async with open_model(uri, env={"RESEARCHER_API_KEY": key}, limits=ONCE) as model:
            with pytest.raises(ModelError) as caught:
                await model.capabilities()
        return caught.value

    with ModelServer(models=["small", "large"], key="k") as server:
        wrong = await fault(f"{server.url}#small", key="other")
        assert isinstance(wrong, RequestRejected)
        assert "check the API key" in str(wrong)
        assert "does not serve 'huge'; it serves: small, large" in str(await fault(f"{server.url}#huge"))
        assert "serves 2 models (small, large); name one" in str(await fault(server.url))
    down = await fault(f"{server.url}#small")
    assert isinstance(down, ConnectFault)
    assert str(down).endswith("connection refused; is the server running?")
