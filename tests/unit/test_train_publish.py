"""New weights to a server: what is asked of it, how it is proved, and what is said where it cannot be done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import msgspec
import pytest

from researcher.errors import ModelError, UserError
from researcher.models.endpoint import Endpoint
from researcher.models.exchange import Exchange
from researcher.models.requests import RequestEncoder
from researcher.models.transport import AiohttpTransport
from researcher.protocols import Progress
from researcher.testing.model_replies import Raw
from researcher.testing.model_server import ModelServer, Received
from researcher.types import Capabilities, Completion, FinishReason, Message, ModelRequest, Sampling, WeightSpan

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
safetensors = pytest.importorskip("safetensors")

from researcher.train import folder as folders  # noqa: E402
from researcher.train.batch import Batch  # noqa: E402
from researcher.train.fits import refuse_misfit  # noqa: E402
from researcher.train.folder import Folder, load_folder, read_folder, save_folder, weights_of  # noqa: E402
from researcher.train.lora import LoraSettings, with_adapters  # noqa: E402
from researcher.train.mismatch import differences, gap  # noqa: E402
from researcher.train.policy import LanguagePolicy  # noqa: E402
from researcher.train.publish.control import Control  # noqa: E402
from researcher.train.publish.live import LiveModel, labelled  # noqa: E402
from researcher.train.publish.served import same_tokenizer  # noqa: E402
from researcher.train.publish.versioned import CanaryFailed, apart  # noqa: E402
from researcher.train.publish.vllm import EMPTY, WholePublisher  # noqa: E402
from researcher.train.sample import Sample, Term  # noqa: E402

pytestmark = pytest.mark.anyio
torch.set_num_threads(1)
SHAPE = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
ASK = ModelRequest(messages=(Message(role="user", content="hi"),), sampling=Sampling(logprobs=True, token_ids=True))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that is no Qwen, with tied weights, as a folder."""
    path = tmp_path_factory.mktemp("llama") / "small"
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SHAPE, tie_word_embeddings=True, dtype="bfloat16")
    net: Any = transformers.LlamaForCausalLM(config).bfloat16()
    net.save_pretrained(path)
    words = {f"w{i}": i for i in range(40)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    made.save(str(path / "tokenizer.json"))
    (path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    return path


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "copy"))


class Weighty:
    """A vLLM as far as publishing goes: what it was asked, and logprobs that follow its weights."""

    def __init__(self, *, deaf: bool = False, checksums: bool = True, fails: str = "", names: bool = True) -> None:
        self.deaf, self.checksums, self.fails, self.names = deaf, checksums, fails, names
        self.weights, self.version, self.asked = "", "default", list[str]()

    def __call__(self, request: Received) -> Raw:
        route = request.path.removeprefix("/")
        self.asked.append(route)
        if route == self.fails:
            return Raw(500, body=b'{"error": {"message": "out of memory"}}')
        match route:
            case "collective_rpc":
                if not self.deaf:
                    self.weights = request.body["kwargs"]["weights_path"]
                return self._json({"results": [None]})
            case "weight_checker" if self.checksums:
                sums = {"dp0:tp0:model.norm.weight": f"sum {self.weights}", "dp0:tp0:model.qkv.weight": EMPTY}
                return self._json({"checksums": sums})
            case "update_weight_version" if self.names:
                self.version = request.body["new_version"]
                return self._json({"success": True})
            case "reset_prefix_cache?reset_running_requests=true":
                return self._json({"success": True})
            case "pause?mode=keep" | "resume":
                return self._json({})
            case "v1/chat/completions":
                return self._reply()
        return Raw(404, body=b'{"detail": "Not Found"}')

    def _json(self, body: Any) -> Raw:
        return Raw(headers={"Content-Type": "application/json"}, body=msgspec.json.encode(body))

    def _reply(self) -> Raw:
        # Like a server whose cache has the prompt from the second time on.
        logprob = -float(1 + len(self.weights)) - 0.01 * (self.asked.count("v1/chat/completions") > 1)
        choice = {
            "message": {"content": "a"}, "finish_reason": "stop", "token_ids": [1],
            "logprobs": {"content": [{"token": "a", "logprob": logprob}]},
        }  # fmt: skip
        return self._json({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})


LISTED = Raw(body=b'{"data": [{"id": "m", "max_model_len": 4096, "owned_by": "vllm"}]}')


@contextmanager
def serving(script: Any, **pages: Raw) -> Iterator[ModelServer]:
    there = {"/v1/models": LISTED, "/metrics": Raw(body=b""), **{f"/{name}": page for name, page in pages.items()}}
    with ModelServer(script, pages=there) as server:
        yield server


def exchange(url: str) -> Exchange:
    return Exchange(url, AiohttpTransport(), api_key=None, idle=5.0)


async def published(server: ModelServer, base: Folder, place: Path, net: Any) -> tuple[LiveModel, float]:
    """Where a first publish ends."""
    endpoint = Endpoint(server.url, "m")
    control = Control(endpoint.exchange)
    model, publisher = LiveModel(endpoint, "v0", splits=True), WholePublisher(base, place, control)
    try:
        await publisher.begin(load_folder(base), model)
        return model, await publisher.publish(net, model, "v1")
    finally:
        await endpoint.aclose()


def moved(base: Folder) -> Any:
    """A network with other weights than the folder's."""
    net: Any = load_folder(base)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1)
    return net


async def test_a_publish_is_done_in_order_and_named(model: Path, tmp_path: Path) -> None:
    base, script = read_folder(model), Weighty()
    with serving(script) as server:
        served, far = await published(server, base, tmp_path, moved(base))
    assert (served.version, script.version, served.splits) == ("v1", "v1", True)
    assert far > 0.0
    assert script.weights == str(tmp_path / "v1")
    start = script.asked.index("pause?mode=keep")
    assert script.asked[start : start + 5] == [
        "pause?mode=keep", "collective_rpc", "update_weight_version", "reset_prefix_cache?reset_running_requests=true",
        "resume",
    ]  # fmt: skip


async def test_what_bfloat16_does_not_show_is_not_published(model: Path, tmp_path: Path) -> None:
    base, script = read_folder(model), Weighty()
    net: Any = load_folder(base)
    with torch.no_grad():
        net.model.norm.weight.add_(1e-6)
    with serving(script) as server:
        served, far = await published(server, base, tmp_path, net)
    assert (served.version, far) == ("v0", 0.0)
    assert "collective_rpc" not in script.asked


@pytest.mark.parametrize("checksums", [True, False])
async def test_a_server_that_keeps_its_weights_is_found_out(model: Path, tmp_path: Path, checksums: bool) -> None:
    base, script = read_folder(model), Weighty(deaf=True, checksums=checksums)
    said = r"1 of 1 parameters .* did not \(model.norm.weight\)" if checksums else "still samples the old weights"
    with serving(script) as server, pytest.raises(CanaryFailed, match=said):
        await published(server, base, tmp_path, moved(base))
    assert script.asked.count("resume") == 1
    assert script.version == "v0", "what it samples keeps its name"


@pytest.mark.parametrize("fails", ["collective_rpc", "reset_prefix_cache?reset_running_requests=true"])
async def test_a_publish_that_fails_leaves_no_server_paused(model: Path, tmp_path: Path, fails: str) -> None:
    base, script = read_folder(model), Weighty(fails=fails)
    with serving(script) as server, pytest.raises(ModelError, match="out of memory"):
        await published(server, base, tmp_path, moved(base))
    assert script.asked[-1] == "resume"


async def test_a_server_without_names_of_versions_is_published_to_between_replies(model: Path, tmp_path: Path) -> None:
    base, script = read_folder(model), Weighty(names=False)
    with serving(script) as server:
        served, _ = await published(server, base, tmp_path, moved(base))
    assert not served.splits


@pytest.mark.parametrize("host", ["10.0.0.5", "gpu.example.org", "[2001:db8::1]", "127.0.0.1.example.org"])
def test_weights_go_to_this_machine_alone(host: str) -> None:
    with pytest.raises(UserError, match="not on this machine"):
        Control(exchange(f"http://{host}:8000/v1"))


@pytest.mark.parametrize(
    ("adapters", "flag"),
    [(False, "VLLM_SERVER_DEV_MODE=1"), (True, "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora")],
)
async def test_a_server_that_cannot_take_weights_is_told_the_flag(adapters: bool, flag: str) -> None:
    with serving(Weighty(fails="none")) as server:
        asked = exchange(server.url)
        with pytest.raises(UserError, match=flag):
            await Control(asked).check(adapters=adapters)
        if adapters:
            with pytest.raises(UserError, match=flag):
                await Control(asked).load("a", Path("/a"))
        await asked.aclose()
    route = "v1/load_lora_adapter" if adapters else "collective_rpc"
    with serving(Weighty(), **{route: Raw(405)}) as server:
        asked = exchange(server.url)
        await Control(asked).check(adapters=adapters)
        await asked.aclose()


async def test_an_adapter_that_cannot_be_loaded_is_not_a_missing_flag() -> None:
    broken = Raw(404, body=b'{"error": {"message": "Loading lora a failed: no adapter_config.json", "code": 404}}')
    with serving(lambda request: broken) as server:
        asked = exchange(server.url)
        with pytest.raises(ModelError, match="no adapter_config"):
            await Control(asked).load("a", Path("/a"))
        await asked.aclose()


def done(*spans: WeightSpan) -> Completion:
    message = Message(role="assistant", content="a")
    return Completion(message=message, finish=FinishReason.STOP, model="m", token_ids=(1, 2, 3), weight_spans=spans)


def test_a_reply_says_who_sampled_it() -> None:
    v1, v2 = WeightSpan("v1", 0, 2), WeightSpan("v2", 2, 3)
    assert labelled(done(WeightSpan("v1", 0, 3)), "v1", "v1") == msgspec.structs.replace(done(), weights="v1")
    assert labelled(done(v1, v2), "v1", "v2") == msgspec.structs.replace(done(v1, v2), weights="v2")
    assert labelled(done(), "v1", "v1").weights == "v1"
    assert labelled(done(), "v1", "v2").weights is None, "cut off in a change: nobody knows"


SPANS = [{"version": "v1", "start": 0, "end": 0}, {"version": "v1", "start": 0, "end": 2},
         {"version": "v2", "start": 2, "end": 3}]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
async def test_the_spans_of_a_servers_reply_are_read(stream: bool) -> None:
    def choice(ids: list[int], text: str, *, last: bool) -> dict[str, Any]:
        said = {"content": [{"token": "t", "logprob": -0.5}] * len(ids)}
        end = {"finish_reason": "stop", "weight_versions": SPANS} if last else {}
        return {"index": 0, "token_ids": ids, "text": text, "logprobs": said, **end}

    def answer(request: Received) -> Raw:
        if request.path == "/tokenize":
            return Raw(body=b'{"tokens": [7, 8]}')
        assert request.path == "/inference/v1/generate"
        assert request.body["token_ids"] == [7, 8]
        assert request.body["sampling_params"] == {"max_tokens": 9, "seed": 3, "logprobs": 0}
        usage = {"prompt_tokens": 2, "completion_tokens": 3}
        if not stream:
            body = {"choices": [choice([1, 2, 3], "<think>\nx\n</think>\n\nyes", last=True)], "usage": usage}
            return Raw(body=msgspec.json.encode(body))
        parts = [{"choices": [choice([1, 2], "<think>\nx\n</think>\n\n", last=False)]},
                 {"choices": [choice([3], "yes", last=True)], "usage": usage}]  # fmt: skip
        events = b"".join(b"data: " + msgspec.json.encode(part) + b"\n\n" for part in parts) + b"data: [DONE]\n\n"
        return Raw(headers={"Content-Type": "text/event-stream"}, body=events)

    sampling = Sampling(max_tokens=9, seed=3, logprobs=True, token_ids=True)
    with serving(answer) as server:
        endpoint = Endpoint(server.url, "m", versions=True)
        request = ModelRequest(messages=ASK.messages, sampling=sampling, stream=stream)
        found = await endpoint.complete(request)
        await endpoint.aclose()
    assert found.weight_spans == (WeightSpan("v1", 0, 2), WeightSpan("v2", 2, 3))
    assert (found.message.reasoning, found.message.content) == ("x", "yes")
    assert (found.prompt_ids, found.token_ids, found.logprobs) == ((7, 8), (1, 2, 3), (-0.5,) * 3)


def test_what_is_asked_of_the_route_with_versions() -> None:
    sampling = Sampling(temperature=0.5, stop=("\n",), keep_stop=True, token_ids=True, top_logprobs=2)
    body = json.loads(RequestEncoder().generation((1, 2), "m", sampling, stream=True))
    assert body["sampling_params"] == {
        "temperature": 0.5, "stop": ["\n"], "include_stop_str_in_output": True, "logprobs": 2
    }  # fmt: skip
    assert (body["stream"], body["output_mode"], body["model"]) == (True, "text", "m")


class Slow:
    """A model that answers when it is told to."""

    uri = "slow"

    def __init__(self) -> None:
        self.asked, self.go = anyio.Event(), anyio.Event()
        self.calls = 0

    async def capabilities(self) -> Capabilities:
        return Capabilities()

    async def complete(self, request: ModelRequest, progress: Progress | None = None) -> Completion:
        self.calls += 1
        self.asked.set()
        await self.go.wait()
        return done()


async def test_without_spans_no_reply_is_under_way_in_a_change() -> None:
    inner = Slow()
    live = LiveModel(inner, "v0", splits=False)
    found, happened = list[str | None](), list[str]()

    async def reply() -> None:
        found.append((await live.complete(ASK)).weights)
        happened.append("reply")

    async def change() -> None:
        async def apply() -> None:
            happened.append("applied")

        await live.change(apply, "v1")

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(reply)
            await inner.asked.wait()
            group.start_soon(change)
            await anyio.wait_all_tasks_blocked()
            group.start_soon(reply)
            await anyio.wait_all_tasks_blocked()
            assert (inner.calls, happened, live.version) == (1, [], "v0")
            inner.go.set()
    assert happened == ["reply", "applied", "reply"]
    assert found == ["v0", "v1"]


async def test_a_change_that_fails_keeps_the_name_and_lets_calls_through() -> None:
    inner = Slow()
    inner.go.set()
    live = LiveModel(inner, "v0", splits=False)

    async def broken() -> None:
        raise CanaryFailed("no")

    with pytest.raises(CanaryFailed):
        await live.change(broken, "v1")
    with anyio.fail_after(5):
        assert (await live.complete(ASK)).weights == "v0"


BROKEN: list[tuple[str, Any, str]] = [
    ("config.json", None, "it has no config.json"),
    ("config.json", "{", "config.json cannot be read"),
    ("tokenizer.json", None, "has no tokenizer.json"),
    ("model.safetensors", None, r"has no \*.safetensors"),
    ("chat_template.jinja", None, "has no chat template"),
    ("config.json", json.dumps({"vocab_size": 30}), "its tokenizer has 40 tokens and its model 30"),
]


@pytest.mark.parametrize(("file", "text", "said"), BROKEN, ids=[said for _, _, said in BROKEN])
def test_a_folder_that_is_no_model_is_refused_in_a_sentence(copy: Path, file: str, text: str | None, said: str) -> None:
    (copy / file).unlink()
    if text is not None:
        (copy / file).write_text(text)
    with pytest.raises(UserError, match=said):
        read_folder(copy)


def test_weights_that_do_not_load_are_refused_in_a_sentence(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="cannot be loaded by transformers"):
        load_folder(read_folder(copy))


def test_a_folder_makes_the_way_there_and_back(model: Path, tmp_path: Path) -> None:
    base = read_folder(model)
    assert base.dtype is torch.bfloat16
    net = moved(base)
    left = read_folder(save_folder(net, base, tmp_path / "out" / "model"))
    back: Any = load_folder(left)
    assert back.lm_head.weight is back.model.embed_tokens.weight, "still tied"
    for name, value in weights_of(net, torch.bfloat16).items():
        assert torch.equal(back.state_dict()[name], value.float()), name
    assert {path.name for path in left.path.iterdir()} == {path.name for path in model.iterdir()}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_tied_head_is_written_too(copy: Path, tmp_path: Path, dtype: str) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "dtype": dtype}))
    base = read_folder(copy)
    left = save_folder(load_folder(base), base, tmp_path / "out")
    with safetensors.safe_open(left / "model.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("lm_head.weight"), file.get_tensor("model.embed_tokens.weight"))
        assert file.get_tensor("lm_head.weight").dtype is base.dtype is getattr(torch, dtype)


def test_a_disk_without_room_is_said_before_anything_is_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = read_folder(model)
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"has 0.00 GiB left on its disk, and a version of the weights takes"):
        save_folder(load_folder(base), base, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


async def test_another_tokenizer_is_refused(model: Path) -> None:
    with serving(lambda request: Raw(body=b'{"tokens": [5, 5, 5]}')) as server:
        endpoint = Endpoint(server.url, "m")
        with pytest.raises(UserError, match="has another tokenizer than"):
            await same_tokenizer(endpoint, read_folder(model))
        await endpoint.aclose()


def test_adapters_are_merged_into_a_copy(model: Path) -> None:
    base = read_folder(model)
    net: Any = with_adapters(load_folder(base), LoraSettings(rank=4), seed=0)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    plain: Any = load_folder(base)
    ids = torch.arange(10)[None]
    was = plain(ids).logits
    plain.load_state_dict(weights_of(net, torch.float32))
    assert torch.allclose(plain(ids).logits, net(ids).logits, atol=1e-5)
    assert not torch.allclose(plain(ids).logits, was, atol=1e-2)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert {p.requires_grad for n, p in net.named_parameters() if "lora_" in n} == {True}
    assert not any(p.requires_grad for n, p in net.named_parameters() if "lora_" not in n)


def test_adapters_begin_the_same_and_add_nothing(model: Path) -> None:
    base = read_folder(model)
    one, other = (with_adapters(load_folder(base), LoraSettings(rank=4), seed=1) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    ids = torch.arange(10)[None]
    assert torch.equal(one(ids).logits, load_folder(base)(ids).logits)


def test_layers_and_ranks_that_there_are_not(model: Path) -> None:
    with pytest.raises(UserError, match=r"no such layers .*it has: down_proj, .*q_proj"):
        with_adapters(load_folder(read_folder(model)), LoraSettings(targets=("qproj",)), seed=0)
    with pytest.raises(ValueError, match="less than or equal to 512"):
        LoraSettings(rank=513)
    assert [LoraSettings(rank=rank).bound for rank in (1, 2, 8, 9, 300, 512)] == [1, 8, 8, 16, 320, 512]


FITS = ["Llama", "GPT2", "Phi3"]


@pytest.mark.parametrize("name", FITS)
def test_architectures_that_are_computed_as_they_are(name: str) -> None:
    own: dict[str, Any] = {"Phi3": {"num_key_value_heads": 4, "pad_token_id": 0}}.get(name, {})
    shape = {**SHAPE, **own} if name != "GPT2" else {"vocab_size": 40, "n_embd": 32, "n_layer": 2, "n_head": 4}
    config = getattr(transformers, f"{name}Config")(**shape)
    net = getattr(transformers, {"GPT2": "GPT2LMHeadModel"}.get(name, f"{name}ForCausalLM"))(config)
    refuse_misfit(net.float().eval(), 40)


MISFITS = [
    ("Granite", {"logits_scaling": 3.0}, "otherwise than its model does"),
    ("Mistral", {"sliding_window": 64}, "see 64 tokens back"),
]


@pytest.mark.parametrize(("name", "own", "said"), MISFITS, ids=[name for name, _, _ in MISFITS])
def test_architectures_that_would_be_trained_wrongly_are_refused(name: str, own: dict[str, Any], said: str) -> None:
    config = getattr(transformers, f"{name}Config")(**SHAPE, **own)
    net = getattr(transformers, f"{name}ForCausalLM")(config).float().eval()
    with pytest.raises(UserError, match=said):
        refuse_misfit(net, 40)


def test_the_gap_to_the_sampler_by_hand() -> None:
    ids, mask = (1, 2, 3, 4), (False, True, True, False)
    samples = [
        Sample(run="r", thread="a", task="q", ids=ids, mask=mask, logprobs=(0.0, -1.0, -2.0, 0.0)),
        Sample(run="r", thread="b", task="q", ids=ids, mask=mask),
    ]
    batch = Batch.of(samples)
    mine = torch.tensor([9.0, -1.5, -1.75, 9.0, 9.0, -7.0, -7.0, 9.0])
    found = gap(differences(batch, mine))
    wanted = (torch.exp(torch.tensor(-0.5)) + torch.exp(torch.tensor(0.25))) / 2
    assert found == {"mismatch/max": 0.5, "mismatch/ratio": pytest.approx(float(wanted), abs=1e-6)}
    assert gap(differences(Batch.of(samples[1:]), mine[4:])) == {}


def test_a_step_reports_the_gap(model: Path) -> None:
    from researcher.train.trainer import Trainer, TrainerConfig

    net = load_folder(read_folder(model))
    ids, mask = (1, 2, 3, 4), (False, True, True, True)
    plain = [
        Sample(run="r", thread=str(i), task="q", ids=ids[: 3 + i], mask=mask[: 3 + i], terms=(Term("a", float(i)),))
        for i in (0, 1)
    ]
    with torch.no_grad():
        mine = LanguagePolicy(net).score(Batch.of(plain)).logprobs.split([3, 4])
    samples = [msgspec.structs.replace(s, logprobs=tuple((m - 0.1).tolist())) for s, m in zip(plain, mine, strict=True)]
    for minibatches in (1, 2):
        steps = Trainer(LanguagePolicy(net), TrainerConfig(minibatches=minibatches, rate=1e-9)).update(samples)
        for step in steps:
            assert step["mismatch"] == pytest.approx(0.1, abs=1e-5)
            assert step["mismatch/max"] == pytest.approx(0.1, abs=1e-5)
            assert step["mismatch/ratio"] == pytest.approx(float(torch.exp(torch.tensor(0.1))), abs=1e-5)


def reply_of(ids: tuple[int, ...], logprobs: tuple[float, ...]) -> Completion:
    message = Message(role="assistant", content="x")
    return Completion(model="m", message=message, finish=FinishReason.STOP, token_ids=ids, logprobs=logprobs)


def test_a_canary_that_says_something_else_has_moved_by_a_finite_figure() -> None:
    old = reply_of((5, 6, 7), (-0.1, -0.5, -3.0))
    assert apart(old, old) == 0.0
    assert apart(old, reply_of((5, 6, 7), (-0.1, -0.7, -3.0))) == pytest.approx(0.2)
    # after the first token that differs the two are no longer asked the same
    assert apart(old, reply_of((5, 8, 9), (-0.1, -0.6, -9.0))) == pytest.approx(0.1)
    assert 0.0 < apart(old, reply_of((5, 8, 7), (-0.1, -0.5, -3.0))) < 1e-9
    assert 0.0 < apart(old, reply_of((5, 6), (-0.1, -0.5))) < 1e-9
