"""Training through a real vLLM: rollouts, a step, new weights under a new name, rollouts with these."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from researcher.errors import ModelError
from researcher.evals.split import split
from researcher.evals.suites import open_suite
from researcher.models.endpoint import Endpoint
from researcher.models.requests import RequestEncoder
from researcher.models.uri import KEY
from researcher.models.vllm import ARGS, PYTHON, VllmSettings, open_vllm
from researcher.protocols import Progress
from researcher.types import Completion, Message, ModelRequest, Sampling

torch = pytest.importorskip("torch")

from researcher.cli.main import main  # noqa: E402
from researcher.store import RunReader  # noqa: E402
from researcher.train.batch import Batch  # noqa: E402
from researcher.train.folder import Folder, read_folder, save_folder, weights_of  # noqa: E402
from researcher.train.loop import Iteration, Loop, LoopConfig  # noqa: E402
from researcher.train.lora import LoraSettings, with_adapters  # noqa: E402
from researcher.train.paths import paths_of  # noqa: E402
from researcher.train.policy import LanguagePolicy  # noqa: E402
from researcher.train.publish.control import Control  # noqa: E402
from researcher.train.publish.live import LiveModel  # noqa: E402
from researcher.train.publish.served import SAMPLING, Served, open_served, served_by  # noqa: E402
from researcher.train.publish.versioned import CanaryFailed  # noqa: E402
from researcher.train.publish.vllm import WholePublisher  # noqa: E402
from researcher.train.sample import Sample  # noqa: E402
from researcher.train.trainer import Trainer, TrainerConfig  # noqa: E402
from researcher.train.weights import load_net  # noqa: E402

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.anyio]
torch.set_num_threads(1)
# float32, so that what differs between the server and the trainer is not rounding.
SERVER = ("--enforce-eager", "--dtype", "float32", "--max-num-seqs", "16", "--max-model-len", "2048")
LORA = LoraSettings(rank=8, alpha=16.0)
ADAPTING = ("--enable-lora", "--max-lora-rank", "8", "--max-loras", "2", "--max-cpu-loras", "4")
QUESTION = (Message(role="user", content="Use the numbers 3, 5, 8 once each with + - * / to make 64."),)
EXACT = 2e-4  # nats


class Endless(RequestEncoder):
    """Encodes requests so that the server goes on to their last token."""

    def generation(self, *args: Any, **options: Any) -> bytes:
        body = msgspec.json.decode(super().generation(*args, **options))
        body["sampling_params"]["ignore_eos"] = True
        return msgspec.json.encode(body)

    def chat(self, *args: Any, **options: Any) -> bytes:
        return msgspec.json.encode(msgspec.json.decode(super().chat(*args, **options)) | {"ignore_eos": True})


@pytest.fixture(scope="module")
async def server(hf_model: Path, vllm_python: str, anyio_backend: str) -> AsyncIterator[Endpoint]:
    """The shipped model on a server that takes weights and adapters."""
    env = {**os.environ, "VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    settings, args = VllmSettings(versions=True), (*SERVER, *SAMPLING, *ADAPTING)
    async with open_vllm(str(hf_model), python=vllm_python, args=args, settings=settings, env=env, say=print) as found:
        yield found


@pytest.fixture
async def folder(server: Endpoint, hf_model: Path) -> Folder:
    """What the server begins with in each test."""
    found = read_folder(hf_model)
    control, written = Control(server.exchange), await anyio.to_thread.run_sync(whole, found)
    await control.pause()
    await control.reload(written)
    await control.forget()
    await control.resume()
    return found


def whole(folder: Folder) -> Path:
    """The folder with its head beside the embeddings that it is tied to: without, vLLM keeps the one of before."""
    path = folder.path.with_name("whole")
    return path if path.is_dir() else save_folder(load_net(folder), folder, path)


def again(server: Endpoint, *, versions: bool = True, endless: bool = False) -> Endpoint:
    """Another endpoint on the same server."""
    made = Endpoint(server.base_url, server.model, api_key=server.exchange.key, versions=versions)
    if endless:
        made._encoder = Endless()
    return made


def shaken(net: Any, seed: int, *, by: float = 0.05) -> None:
    """Other weights, as a step would leave them, and as they are published: in bfloat16."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=rng) * (float(parameter.std()) or 0.02) * by
                parameter.copy_((parameter + noise).bfloat16().float())


def scored(net: Any, done: Completion) -> Any:
    """The trainer's logprobs of what was sampled."""
    assert done.prompt_ids is not None
    assert done.token_ids is not None
    given = len(done.prompt_ids)
    ids, mask = done.prompt_ids + done.token_ids, (False,) * given + (True,) * len(done.token_ids)
    batch = Batch.of([Sample(run="r", thread="t", task="q", ids=ids, mask=mask, temperature=1.0)])
    with torch.no_grad():
        return LanguagePolicy(net).score(batch).logprobs[given:]


def off(net: Any, done: Completion, start: int = 0, end: int | None = None) -> float:
    """How far the server's logprobs are from the trainer's, at most, of the tokens [start, end)."""
    return float((scored(net, done) - torch.tensor(done.logprobs))[start:end].abs().max())


def sampled(home: Path) -> list[Sample]:
    """The samples of every run that is kept there, the oldest first."""
    found: list[Sample] = []
    for path in sorted((home / "runs").glob("*.db"), key=lambda file: file.stat().st_mtime_ns):
        with RunReader(path) as reader:
            found += paths_of(reader.read(), path.stem).samples
    return found


def loop(net: Any, served: Served, out: Path, iterations: int) -> Loop:
    config = LoopConfig.model_validate(
        {
            "iterations": iterations, "tasks": 2, "group": 8, "params": {"temperature": 2.0, "max_tokens": 160},
            "sampling": {"refills": 0, "keep": "all"},
            "rewards": [{"name": "accuracy"}, {"name": "cosine", "params": {"limit": 160}}],
        }
    )  # fmt: skip
    tasks = split(open_suite("countdown:3"), 8, 0).train
    trainer = Trainer(LanguagePolicy(net), TrainerConfig(rate=1e-3, warmup=0))
    return Loop(config, trainer, served.model, served.publisher, tasks=tasks, folder=out)


async def test_the_loop_samples_with_what_it_has_learned(server: Endpoint, folder: Folder, tmp_path: Path) -> None:
    told: list[Iteration] = []
    net, endpoint = load_net(folder), again(server)
    served = await served_by(endpoint, folder, net, tmp_path / "published")
    await loop(net, served, tmp_path, 2).run(told.append)
    assert [each.number for each in told] == [1, 2]
    assert all(each.metrics["canary"] > 0.0 for each in told)
    assert told[0].metrics["mismatch"] < EXACT
    assert told[0].metrics["mismatch/max"] < 10 * EXACT
    assert told[0].metrics["mismatch/ratio"] == pytest.approx(1.0, abs=EXACT)
    assert told[1].metrics["mismatch"] < 0.05, "but for bfloat16, in which weights are published"
    made = sampled(tmp_path / "rollouts")
    assert {span.version for sample in made for span in sample.versions} == {"v0", "v1"}
    for sample in made:
        spans = [(span.start, span.end) for span in sample.versions]
        assert sum(end - start for start, end in spans) == sample.sampled, "each token has a version"

    # The same folder again: the weights of its last version are brought back under their name.
    begun = load_net(folder)
    server_again = await served_by(endpoint, folder, begun, tmp_path / "published", reload=True)
    await loop(begun, server_again, tmp_path, 3).run(told.append)
    assert told[-1].number == 3
    assert sampled(tmp_path / "rollouts")[-1].versions[0].version == "v2"
    assert [path.name for path in (tmp_path / "published").iterdir()] == ["v3"]
    await endpoint.aclose()


async def test_weights_that_come_in_the_middle_of_a_reply(
    server: Endpoint, folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, endpoint = load_net(folder), again(server, endless=True)
    served = await served_by(endpoint, folder, net, tmp_path)
    old = load_net(folder)
    shaken(net, 1)
    wanted = Sampling(temperature=1.0, max_tokens=700, seed=0, logprobs=True, token_ids=True)
    progress, found = Progress(), list[Completion]()

    async def reply() -> None:
        request = ModelRequest(messages=QUESTION, sampling=wanted, stream=True)
        found.append(await served.model.complete(request, progress))

    pause = Control.pause

    async def in_the_middle(control: Control) -> None:
        """Begin the reply when all is ready for the change, so that it is in its middle on the fastest machine too."""
        group.start_soon(reply)
        with anyio.fail_after(60):
            while progress.completion_tokens < 40:  # noqa: ASYNC110
                await anyio.sleep(0.005)
        await pause(control)
        assert not found, "it is published in the middle"

    monkeypatch.setattr(Control, "pause", in_the_middle)
    async with anyio.create_task_group() as group:
        assert await served.publisher.publish(net, served.model, "v1") > 0.0
    (done,) = found
    assert done.token_ids is not None
    (before, start, cut), (after, at, end) = done.weight_spans
    assert (before, start, after, end) == ("v0", 0, "v1", len(done.token_ids))
    assert 40 <= cut == at < end
    assert done.weights == "v1"
    assert off(old, done, 0, cut) < EXACT
    assert off(net, done, cut) < EXACT, "the new weights read the whole beginning again"
    assert off(old, done, cut) > 0.1
    assert off(net, done, 0, cut) > 0.1
    await endpoint.aclose()


async def test_without_spans_a_publish_waits_for_replies_and_replies_for_it(
    server: Endpoint, folder: Folder, tmp_path: Path
) -> None:
    net, endpoint = load_net(folder), again(server, versions=False, endless=True)
    served = await served_by(endpoint, folder, net, tmp_path)
    old = load_net(folder)
    shaken(net, 2)
    wanted = Sampling(temperature=1.0, max_tokens=300, seed=0, logprobs=True, token_ids=True)
    found: list[Completion] = []

    async def reply(progress: Progress) -> None:
        request = ModelRequest(messages=QUESTION, sampling=wanted, stream=True)
        found.append(await served.model.complete(request, progress))

    async with anyio.create_task_group() as group:
        first = Progress()
        group.start_soon(reply, first)
        with anyio.fail_after(60):
            while first.completion_tokens < 10:  # noqa: ASYNC110
                await anyio.sleep(0.005)
        await served.publisher.publish(net, served.model, "v1")
        assert len(found) == 1
        group.start_soon(reply, Progress())
    assert [(done.weights, done.weight_spans) for done in found] == [("v0", ()), ("v1", ())]
    assert off(old, found[0]) < EXACT
    assert off(net, found[1]) < EXACT
    await endpoint.aclose()


async def test_adapters_come_under_new_names_and_go_when_nobody_uses_them(
    server: Endpoint, folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, endpoint = with_adapters(load_net(folder), LORA, seed=0), again(server, versions=False, endless=True)
    served = await served_by(endpoint, folder, net, tmp_path, lora=LORA)
    wanted = Sampling(temperature=1.0, max_tokens=300, seed=0, logprobs=True, token_ids=True)
    request = ModelRequest(messages=QUESTION, sampling=wanted, stream=True)

    async def names() -> list[str]:
        reply = await endpoint.exchange.get(f"{endpoint.base_url}/models")
        return [each["id"] for each in msgspec.json.decode(reply.body)["data"]]

    assert await served.publisher.publish(net, served.model, "v1") == 0.0, "adapters that add nothing"
    shaken(net, 3, by=1.0)
    assert await served.publisher.publish(net, served.model, "v1") > 0.0
    first = await served.model.complete(request)
    assert (first.weights, first.model) == ("v1", "reasoner-v1")
    assert off(net, first) < EXACT

    progress, found, over, complete = Progress(), list[Completion](), anyio.Event(), Endpoint.complete

    async def held(model: Endpoint, request: ModelRequest, given: Progress | None = None) -> Completion:
        """The reply that is looked at does not end before its time, however fast this machine is."""
        done = await complete(model, request, given)
        if given is progress:
            await over.wait()
        return done

    monkeypatch.setattr(Endpoint, "complete", held)

    async def reply() -> None:
        found.append(await served.model.complete(request, progress))

    before = {name: value.clone() for name, value in net.state_dict().items()}
    async with anyio.create_task_group() as group:
        group.start_soon(reply)
        with anyio.fail_after(60):
            while progress.completion_tokens < 10:  # noqa: ASYNC110
                await anyio.sleep(0.005)
        shaken(net, 4, by=1.0)
        assert await served.publisher.publish(net, served.model, "v2") > 0.0
        assert not found
        assert await names() == ["reasoner", "reasoner-v1", "reasoner-v2"]
        over.set()
    assert await names() == ["reasoner", "reasoner-v2"]
    second = await served.model.complete(request)
    assert (found[0].weights, second.weights, second.model) == ("v1", "v2", "reasoner-v2")
    assert off(net, second) < EXACT
    net.load_state_dict(before)
    assert off(net, found[0]) < EXACT, "a reply ends with the adapter that it began with"
    await served.model.aclose()
    assert await names() == ["reasoner"]
    assert [path async for path in anyio.Path(tmp_path).iterdir()] == []
    await endpoint.aclose()


async def test_adapters_of_a_rank_that_the_server_was_not_started_for(
    server: Endpoint, folder: Folder, tmp_path: Path
) -> None:
    wide = LoraSettings(rank=16)
    net, endpoint = with_adapters(load_net(folder), wide, seed=0), again(server, versions=False)
    served = await served_by(endpoint, folder, net, tmp_path, lora=wide)
    shaken(net, 6, by=1.0)
    with pytest.raises(ModelError, match=r"(?i)rank"):
        await served.publisher.publish(net, served.model, "v1")
    assert served.model.version == "v0"
    await served.model.aclose()
    await endpoint.aclose()


async def test_a_server_that_runs_is_given_the_folders_weights_first(
    server: Endpoint, folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, endpoint = load_net(folder), again(server)
    served = await served_by(endpoint, folder, net, tmp_path / "before")
    shaken(net, 7)
    await served.publisher.publish(net, served.model, "v9")
    await endpoint.aclose()

    monkeypatch.setenv(KEY, server.exchange.key or "")
    begun = load_net(folder)
    opened = open_served(
        folder, begun, folder.path, tmp_path / "now", lora=None, say=print, server=f"{server.base_url}#{server.model}"
    )
    async with opened as running:
        assert isinstance(running.model, LiveModel)
        assert running.model.splits
        wanted = Sampling(temperature=1.0, max_tokens=24, seed=0, logprobs=True, token_ids=True)
        done = await running.model.complete(ModelRequest(messages=QUESTION, sampling=wanted))
        assert done.weights == "v0"
        assert off(begun, done) < EXACT


class Deaf(Control):
    """A server that says yes to new weights, and leaves it at that."""

    async def reload(self, folder: Path) -> None:
        return


@pytest.mark.parametrize("checksums", [True, False])
async def test_a_server_that_keeps_its_weights_ends_the_training(
    server: Endpoint, folder: Folder, tmp_path: Path, checksums: bool
) -> None:
    class Server(Deaf):
        async def checksums(self) -> dict[str, str] | None:
            return await super().checksums() if checksums else None

    net, endpoint = load_net(folder), again(server)
    model, publisher = LiveModel(endpoint, "v0", splits=True), WholePublisher(folder, tmp_path, Server(server.exchange))
    await publisher.begin(net, model)
    shaken(net, 5)
    with pytest.raises(CanaryFailed, match="old weights"):
        await publisher.publish(net, model, "v1")
    assert model.version == "v0"
    done = await model.complete(ModelRequest(messages=QUESTION, sampling=Sampling(max_tokens=8, temperature=0.0)))
    assert done.usage is not None, "it is not left paused"
    await endpoint.aclose()


def test_the_command_trains_adapters_and_merges_them(
    hf_model: Path,
    vllm_python: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RESEARCHER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(PYTHON, vllm_python)
    monkeypatch.setenv(ARGS, " ".join(SERVER))
    out = tmp_path / "out"
    settings = [
        "iterations=1", "tasks=2", "group=8", "params.max_tokens=160", "params.temperature=2.0", "lora.rank=8",
        "sampling.refills=0", "sampling.keep=all", "trainer.rate=1e-2", "trainer.warmup=0",
        "rewards=[{name='accuracy'},{name='cosine', params={limit=160}}]",
    ]  # fmt: skip
    arguments = ["train", "r1-zero", "--suite", "countdown:3", "--model", f"vllm:{hf_model}", "--out", str(out),
                 "--held-out", "1", "--problems", "8", "--json",
                 *(part for text in settings for part in ("--set", f"rl.{text}"))]  # fmt: skip
    assert main(arguments) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    last = next(record for record in records if record.get("iteration") == 1)
    assert last["canary"] > 0.0
    assert last["mismatch"] < EXACT
    assert records[-1]["model"] == str(out / "model")
    left, begun = read_folder(out / "model"), read_folder(hf_model)
    new, old = weights_of(load_net(left), left.dtype), weights_of(load_net(begun), begun.dtype)
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed
    assert all("_proj" in name for name in changed), "adapters are on the linear layers"
    assert {path.name for path in (out / "model").iterdir()} >= {"config.json", "tokenizer.json", "chat_template.jinja"}
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["done"] == "before"
