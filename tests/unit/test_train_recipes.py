"""Recipes and the parts of their stages that need no rollouts: reading, filtering, hints, votes, fine-tuning."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from researcher_tools.verifiers import get_verifier
from train_harness import network

from researcher.errors import UserError
from researcher.evals.split import mixed, split
from researcher.evals.suites import open_suite
from researcher.models.embedded import SHIPPED
from researcher.strategies.prompts import process_prompt
from researcher.testing.scripted_model import ScriptedModel
from researcher.train.consensus import consensus_metrics, label_of
from researcher.train.course import Course
from researcher.train.curation import draw_diverse, quality
from researcher.train.embedded.convert import Packed
from researcher.train.embedded.tasks import names
from researcher.train.embedded.tasks.countdown import is_held_out
from researcher.train.files import checksum, read_samples, write_samples
from researcher.train.journal import Journal
from researcher.train.journey import Step, linearise
from researcher.train.loop import LoopConfig
from researcher.train.losses import LossConfig
from researcher.train.policy import LanguagePolicy
from researcher.train.process import Labelled, Labeller, balanced
from researcher.train.recipe import load_recipe, recipe_names
from researcher.train.sample import Sample
from researcher.train.sft import Renderer, SFTConfig, batch_of, fine_tune, members, read_examples
from researcher.train.stages.base import Stage
from researcher.train.stages.curate import CurationStage
from researcher.train.stages.distill import distill
from researcher.train.stages.filter import FilterStage
from researcher.train.stages.label import lesson
from researcher.train.stages.rationalise import RationaliseStage, unhinted
from researcher.train.stages.rl import ReinforcementStage
from researcher.train.stages.sft import FineTuningStage
from researcher.train.trainer import Trainer, TrainerConfig
from researcher.train.weights import load_net, read_packed, save_net
from researcher.types import FinishReason, ModelRequest, Outcome, Task, VerdictStatus

torch.set_num_threads(1)
RIGHT, WRONG = VerdictStatus.CORRECT, VerdictStatus.WRONG


def sample(
    task: str = "t", answer: str | None = "1", *, right: bool | None = None, length: int = 3, **more: Any
) -> Sample:
    """A sample with two tokens of a question and `length` that were said."""
    verdict = None if right is None else (RIGHT if right else WRONG)
    fields: dict[str, Any] = {
        "run": f"run-{task}", "thread": "x", "task": task, "ids": (1, 2, *range(10, 10 + length)),
        "mask": (False, False) + (True,) * length, "verdict": verdict, "canonical": answer, "answer": answer,
    }  # fmt: skip
    return Sample(**{**fields, **more})


@pytest.fixture(scope="module")
def packed() -> Packed:
    return read_packed(SHIPPED)


def test_every_packaged_recipe_is_read_and_says_what_it_is() -> None:
    assert {"r1-zero", "rejection-sampling", "star", "ttrl", "kimi", "r1"} <= set(recipe_names())
    for name in recipe_names():
        recipe = load_recipe(name)
        assert recipe.about
        assert recipe.name == name
        json.dumps(recipe.described())


def test_a_loss_begins_from_its_preset_and_changes_of_the_command_line_win() -> None:
    recipe = load_recipe("r1-zero", {"rl.iterations": 3, "rl.trainer.loss.preset": "grpo", "rl.trainer.loss.beta": 0.5})
    stage = recipe.stages["rl"]
    assert isinstance(stage, ReinforcementStage)
    assert (stage.iterations, stage.trainer.loss.aggregate, stage.trainer.loss.beta) == (3, "sequence_mean", 0.5)
    assert load_recipe("star", {"rounds": 7}).rounds == 7


BROKEN: list[Any] = [
    pytest.param("about = 3 3", ":1: not valid TOML in about", id="syntax"),
    pytest.param("about = 'x'", "has none", id="no-stages"),
    pytest.param("abut = 'x'\n[stages.a]\nkind = 'rl'", ":1: abut is not a field", id="field-of-recipe"),
    pytest.param("[stages.a]\nkind = 'r1'", ":1: stage a is of the kind 'r1'", id="kind"),
    pytest.param("[stages.a]\nkind = 'rl'\ngroup = 1", ":3: stages.a.group must be greater", id="value"),
    pytest.param("[stages.a]\nkind = 'rl'\n[stages.a.trainer]\nlr = 1", ":4: stages.a.trainer.lr is", id="extra"),
    pytest.param("[stages.a]\nkind='rl'\n[stages.a.trainer.loss]\npreset='ppo'", "no loss 'ppo'", id="preset"),
    pytest.param("[stages.a]\nkind='rl'\nrewards=[{name=1}]", ":3: stages.a.rewards.name must be a valid", id="list"),
    pytest.param("[stages.a]\nkind='filter'\ndata='b'", ":1: stage a needs samples of b", id="source"),
    pytest.param("rounds = 0\n[stages.a]\nkind='rl'", ":1: rounds must be greater", id="rounds"),
]


@pytest.mark.parametrize(("text", "said"), BROKEN)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        load_recipe(str(file))
    assert said in str(caught.value)
    assert str(file) in str(caught.value)


def test_names_that_are_none_and_changes_of_no_stage() -> None:
    with pytest.raises(UserError, match="did you mean r1-zero"):
        load_recipe("r1-zer")
    with pytest.raises(UserError, match="there is no stage rll; did you mean rl"):
        load_recipe("r1-zero", {"rll.group": 3})
    with pytest.raises(UserError, match=r"--set rl\.group: stages\.rl\.group must be"):
        load_recipe("r1-zero", {"rl.group": "many"})


def test_training_problems_are_none_of_the_evaluation() -> None:
    suite = open_suite("countdown:3")
    tasks = split(suite, 300, 20)
    assert [task.question for task in tasks.held_out] == [p.question for p in suite.problems(20)]

    def key(data: Any) -> tuple[int, ...]:
        return (*sorted(data["numbers"]), data["target"])

    evaluated = {key(problem.data) for problem in suite.problems(2000)}
    assert len(tasks.train) == 300
    assert not evaluated & {key(task.data) for task in tasks.train}


INVENTED = re.compile(rf"\b(?=[A-Z])(?i:(?:[{names.CONSONANTS}][{names.VOWELS}]){{2,3}}[{names.FINALS}]?)\b")


def test_training_questions_over_documents_have_names_that_no_evaluation_has() -> None:
    suite = open_suite("documents:comparison")
    tasks = split(suite, 12, 4)
    assert [task.question for task in tasks.held_out] == [p.question for p in suite.problems(4)]
    assert len({task.question for task in tasks.train}) == 12
    assert set(tasks.texts) == {task.question for task in (*tasks.train, *tasks.held_out)}
    assert all(task.tools == ("search", "read") and task.gold and task.verifier == "exact" for task in tasks.train)
    assert split(suite, 6, 4).train == tasks.train[:6]
    for side, held_out in ((tasks.train, False), (tasks.held_out, True)):
        words = {word for task in side for word in INVENTED.findall(task.question)} - {"River"}
        assert len(words) >= 2 * len(side)
        assert {names.is_held_out(word) for word in words} == {held_out}


WITHOUT_TOOLS = {"journey": "search", "kimi": "rl", "prm": "label", "star": "rationalise"}


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.anyio
async def test_a_recipe_that_calls_no_tools_refuses_tasks_that_want_them_before_it_begins(
    name: str, tmp_path: Path
) -> None:
    for tools in (("search", "read"), ()):
        course = Course(load_recipe(name), tmp_path / "out", SHIPPED, [Task(question="How high?", tools=tools)])
        refused = [stage for stage, made in course.recipe.stages.items() if not takes(made, course.tasks)]
        assert refused == ([WITHOUT_TOOLS[name]] if tools and name in WITHOUT_TOOLS else [])
        if refused:
            with pytest.raises(UserError, match=rf"^Stage {refused[0]}: .* tool"):
                await course.run(lambda record: None)
            assert not course.folder.exists()


def takes(stage: Stage, tasks: Sequence[Task]) -> bool:
    """Whether the stage works on the tasks."""
    try:
        stage.takes(tasks)
    except UserError:
        return False
    return True


def test_of_a_file_what_comes_after_the_held_out_problems_is_trained_on(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text("".join(json.dumps({"question": f"{i}+1?", "answer": str(i + 1)}) + "\n" for i in range(6)))
    tasks = split(open_suite(f"jsonl:{file}"), 100, 2)
    assert [task.gold for task in tasks.held_out] == ["1", "2"]
    assert [task.gold for task in tasks.train] == ["3", "4", "5", "6"]
    with pytest.raises(UserError, match="none is left to train on"):
        split(open_suite(f"jsonl:{file}"), 100, 6)


def test_suites_are_mixed_and_what_one_holds_out_none_trains_on(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text("".join(json.dumps({"question": f"{i}+1?", "answer": str(i + 1)}) + "\n" for i in range(4)))
    numbers, whole = open_suite(f"jsonl:{file}"), split(open_suite(f"jsonl:{file}"), 4, 0)
    texts = split(open_suite("documents:one_hop"), 3, 1)
    tasks = mixed([whole, texts, split(numbers, 2, 2)])
    assert [task.gold for task in tasks.held_out] == [texts.held_out[0].gold, "1", "2"]
    assert [task.question for task in tasks.train] == ["2+1?", "3+1?", *(task.question for task in texts.train)]
    assert tasks.texts == texts.texts
    assert mixed([whole]) is whole
    with pytest.raises(UserError, match="give each suite once"):
        mixed([texts, texts])


def test_of_a_mix_every_kind_of_task_is_looked_at() -> None:
    plain, asking = Task(question="1+1?"), Task(question="Who?", tools=("search",))
    config = LoopConfig.model_validate({"params": {"over_params": {"style": "steps"}}})
    config.refuse([plain])
    for tasks in ([asking], [plain, asking], [asking, plain]):
        with pytest.raises(UserError, match="tool"):
            config.refuse(tasks)


def test_games_of_24_are_trained_on_where_they_are_not_held_out() -> None:
    suite = open_suite("game24:0-1361:held-out")
    tasks = split(suite, 2000, 100)
    assert len(tasks.held_out) == 100
    assert len(tasks.train) + suite.size == 1362
    assert all(is_held_out(task.data["numbers"], 24) for task in tasks.held_out)
    assert not any(is_held_out(task.data["numbers"], 24) for task in tasks.train)
    with pytest.raises(UserError, match="none is left to train on; give a wider range"):
        split(open_suite("game24:1-1:held-out"), 10, 1)


def test_the_filter_keeps_right_different_short_samples() -> None:
    samples = [
        sample("a", right=True, length=9), sample("a", right=True, length=9), sample("a", right=False, length=2),
        sample("a", right=True, length=4), sample("b", right=True, length=5), sample("b", answer=None),
        sample("a", right=True, length=6), sample("c", right=False), sample("d", right=None),
    ]  # fmt: skip
    kept = FilterStage(data="s", most=2, prefer="shortest").choose(samples)
    assert [(s.task, s.sampled) for s in kept] == [("a", 4), ("a", 6), ("b", 5)]
    assert all(s.terms[-1].name == "accuracy" for s in kept)
    first = FilterStage(data="s", most=None, distinct=False).choose(samples)
    assert [s.sampled for s in first] == [9, 9, 4, 6, 5]
    both = FilterStage.model_validate({"data": "s", "rewards": [{"name": "accuracy"}, {"name": "format"}]})
    tagged = sample("e", right=True, thought="so", text="<answer>1</answer>")
    assert both.choose([*samples, tagged])[0].task == "e"


def test_a_hint_is_taken_off_again() -> None:
    plain = sample("plain", right=False, length=4)
    hinted = sample(
        "hinted", right=True, ids=(1, 7, 8, 2, 30, 31, 32), mask=(False,) * 4 + (True,) * 3, logprobs=(0.0,) * 7
    )
    made = unhinted(hinted, plain)
    assert made is not None
    assert made.ids == (1, 2, 30, 31, 32)
    assert made.mask == (False, False, True, True, True)
    assert (made.task, made.logprobs) == ("plain", ())
    turns = sample("hinted", ids=(1, 2, 3, 4), mask=(False, True, False, True))
    assert unhinted(turns, plain) is None


def test_only_failures_with_a_known_answer_are_asked_again() -> None:
    from researcher.train.paths import task_id
    from researcher.train.stages.base import Bench
    from researcher.types import Task

    tasks = [Task(question=f"q{i}", gold=None if i == 3 else str(i)) for i in range(5)]
    names = [task_id(task) for task in tasks]
    samples = [sample(names[0], right=True), sample(names[1], right=False), sample(names[1], right=True),
               sample(names[2], right=False), sample(names[2], answer=None), sample(names[3], right=False)]  # fmt: skip
    stage = RationaliseStage(data="s")
    bench = Bench(folder=Path(), model=Path(), base=Path(), tasks=tasks, held_out=())
    assert [task.question for task, _ in stage.failed(samples, bench)] == ["q2"]
    assert stage.hinted(tasks[2]).question == "q2 (The answer is 2.)"
    assert stage.hinted(tasks[2]).gold == "2"


def test_the_label_is_the_mode_and_its_accuracy_is_that_of_the_mode() -> None:
    group = [sample("a", x, right=x == "1") for x in "22113"]
    assert label_of(group) == "2"  # of equal counts the first
    assert label_of([sample(answer=None)]) is None
    more = [sample("b", x, right=x == "4") for x in "4445"]
    found = consensus_metrics([*group, *more, sample("c", None, outcome=Outcome.EXHAUSTED)])
    assert found == {"majority": pytest.approx((2 / 5 + 3 / 4) / 2), "label_accuracy": 0.5}
    assert "label_accuracy" not in consensus_metrics([sample("d", "1")])


def test_rewards_that_begin_later_and_groups_of_which_some_are_trained_on() -> None:
    stage = load_recipe("kimi").stages["rl"]
    assert isinstance(stage, LoopConfig)
    assert stage.begins == {"kimi_length": 20}
    assert (stage.trainer.loss.objective, stage.trainer.reset_optimizer, stage.sampling.order) == (
        "mirror", True, "prioritised",
    )  # fmt: skip
    assert stage.trainer.loss.tau == stage.trainer.advantages.tau
    votes = load_recipe("ttrl").stages["rl"]
    assert isinstance(votes, LoopConfig)
    assert (votes.group, votes.trained) == (64, 32)


def test_a_journal_holds_each_iteration_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "m.jsonl")
    for number in range(1, 5):
        journal.add(number, {"loss": 1.0 / number})
    with open(tmp_path / "m.jsonl", "a") as file:
        file.write('{"iteration": 5, "lo')  # a kill
    assert [line["iteration"] for line in journal.resume(3)] == [1, 2, 3]
    journal.add(4, {"loss": 0.5})
    assert [line["iteration"] for line in journal.lines()] == [1, 2, 3, 4]
    assert journal.resume(0) == journal.lines() == []


def test_epochs_are_permutations_that_steps_go_across() -> None:
    seen = [i for step in range(10) for i in members(7, 4, step, seed=1)]
    assert sorted(seen[:7]) == sorted(seen[7:14]) == list(range(7))
    assert seen[:7] != seen[7:14]
    assert SFTConfig(epochs=2, batch=4).steps(7) == 4


def test_samples_survive_their_file(tmp_path: Path) -> None:
    samples = [sample(right=True, logprobs=(0.0, 0.0, -1.5, -0.25, -3.0)), sample("ü", None)]
    write_samples(tmp_path / "s.jsonl", samples)
    assert read_samples(tmp_path / "s.jsonl") == samples
    (tmp_path / "s.jsonl").write_bytes(b'{"run": 1}\n')
    with pytest.raises(UserError, match=r"s\.jsonl:1: not a sample"):
        read_samples(tmp_path / "s.jsonl")


def test_conversations_are_rendered_with_the_models_template(tmp_path: Path, packed: Packed) -> None:
    file = tmp_path / "d.jsonl"
    messages = [
        {"role": "system", "content": "Think."}, {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "<answer>2</answer>", "reasoning_content": "1+1=2"},
        {"role": "user", "content": "And 2+2?"}, {"role": "assistant", "content": "<answer>4</answer>"},
    ]  # fmt: skip
    file.write_text(json.dumps({"messages": messages}) + "\n\n")
    [made] = read_examples(file, packed)
    said = packed.tokenizer.decode(
        [i for i, m in zip(made.ids, made.mask, strict=True) if m], skip_special_tokens=False
    )
    assert said.replace("\n", "") == "<think>1+1=2</think><answer>2</answer><|im_end|><answer>4</answer><|im_end|>"
    assert packed.tokenizer.decode(list(made.ids), skip_special_tokens=False).startswith("<|im_start|>system\nThink.")
    for line, why in (
        ("[]", "an example (a JSON object"), ("{", "an example"), ('{"messages": 3}', "an example"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "no assistant"),
        (json.dumps({"run": "", "thread": "", "task": "", "ids": [5000], "mask": [True]}), "another tokenizer"),
    ):  # fmt: skip
        file.write_text(f"\n{line}\n")
        with pytest.raises(UserError, match=r"d\.jsonl:2: ") as caught:
            read_examples(file, packed)
        assert why in str(caught.value)


@pytest.mark.slow
def test_fine_tuning_learns_resumes_to_the_bit_and_begins_where_it_is_told(tmp_path: Path, packed: Packed) -> None:
    examples = [sample(str(i), ids=(1, 2, 5 + i, 9, 30 + i), mask=(False, False, True, True, True)) for i in range(6)]
    how = SFTConfig(batch=4, rate=1e-3, save_every=2)
    whole = load_net(packed)
    figures = fine_tune(whole, examples, how, folder=tmp_path / "a", steps=6)
    assert figures["loss_last"] < figures["loss_first"] - 1.0

    class Killed(Exception):
        pass

    def kill(step: int, metrics: Any) -> None:
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        fine_tune(load_net(packed), examples, how, folder=tmp_path / "b", steps=6, tell=kill)
    again = load_net(packed)
    fine_tune(again, examples, how, folder=tmp_path / "b", steps=6)
    save_net(whole, packed, tmp_path / "a.gguf")
    save_net(again, packed, tmp_path / "b.gguf")
    assert checksum(tmp_path / "a.gguf") == checksum(tmp_path / "b.gguf") != checksum(SHIPPED)
    assert Journal(tmp_path / "a/metrics.jsonl").lines() == Journal(tmp_path / "b/metrics.jsonl").lines()


def test_cross_entropy_counts_what_was_said_alone() -> None:
    batch = batch_of([sample(temperature=0.3), sample(length=1)])
    assert batch.cross_entropy is not None
    assert batch.cross_entropy.tolist() == [0, 0, 1, 1, 1, 0, 0, 1]
    assert batch.policy is not None
    assert not batch.policy.any()
    assert batch.temperature.tolist() == [1.0, 1.0]


def test_stars_rounds_grow() -> None:
    stage = load_recipe("star").stages["train"]
    assert isinstance(stage, FineTuningStage)
    assert stage.begin == "base"
    assert stage.first_steps is not None
    assert [round(stage.first_steps * stage.growth**i) for i in range(3)] == [40, 48, 58]


def test_weights_make_the_way_there_and_back(tmp_path: Path, packed: Packed) -> None:
    save_net(load_net(packed), packed, tmp_path / "m.gguf")
    again = read_packed(tmp_path / "m.gguf")
    assert all((again.weights[name] == bits).all() for name, bits in packed.weights.items())
    (tmp_path / "no.gguf").write_bytes(b"GGUF" + b"\0" * 64)
    with pytest.raises(UserError, match="cannot be trained"):
        read_packed(tmp_path / "no.gguf")


def trace(task: str, length: int, **more: Any) -> Sample:
    fields = {"right": True, "finish": FinishReason.STOP, "thought": "so it is", **more}
    return sample(task, length=length, **fields)


def test_s1_drops_the_broken_and_the_easy_and_draws_each_domain() -> None:
    traces = [
        trace("easy", 9), trace("hard", 5), trace("hard", 8), trace("cut", 9, finish=FinishReason.LENGTH),
        trace("mute", 9, thought=" "), trace("none", 9, answer=None), trace("wrong", 9, right=False),
        trace("other", 4), trace("untried", 3),
    ]  # fmt: skip
    small = [sample("easy", right=True), sample("hard", right=False), sample("other", right=False)]
    large = [sample("hard", right=False), sample("other", answer=None)]
    large.append(msgspec.structs.replace(sample("other", answer=None), outcome=Outcome.EXHAUSTED))
    domains = {"hard": "x", "other": "y", "untried": "x"}
    kept, figures = CurationStage(data="d").choose(traces, [small, large], domains, 0)
    assert sorted((s.task, s.sampled) for s in kept) == [("hard", 8), ("other", 4), ("untried", 3)]
    assert figures == {"of": 9.0, "whole": 5.0, "hard": 4.0, "kept": 3.0}


def test_s1_draws_domains_evenly_and_the_rank_of_length_with_half_the_chance_each() -> None:
    many = [trace(f"x{i}", 40 - i) for i in range(12)] + [trace("y0", 5), trace("y1", 7)]
    domains = {s.task: s.task[0] for s in many}
    first = Counter(draw_diverse(many, domains, 1, seed)[0].task for seed in range(4000))
    assert first["y0"] + first["y1"] == pytest.approx(2000, abs=110)  # 3.5 standard deviations
    assert first["x0"] == pytest.approx(2000 * 0.5, abs=100)
    assert first["x1"] == pytest.approx(2000 * 0.25, abs=85)
    assert first["y1"] == pytest.approx(2000 * 2 / 3, abs=110)
    everything = draw_diverse(many, domains, 99, 0)
    assert sorted(s.task for s in everything) == sorted(s.task for s in many)
    assert draw_diverse(many, domains, 5, 3) == draw_diverse(many, domains, 5, 3)


def test_limo_keeps_what_is_solved_seldom_and_ranks_by_how_it_thinks() -> None:
    def tries(task: str, right: int) -> list[Sample]:
        return [sample(task, right=i < right) for i in range(32)]

    tried = [s for task, right in (("a", 1), ("b", 3), ("c", 4), ("d", 0)) for s in tries(task, right)]
    traces = [
        trace("a", 10, thought="one two three four"), trace("a", 10, thought="check it, perhaps, since x"),
        trace("b", 20, thought="one two three four"), trace("c", 30), trace("d", 30),
    ]  # fmt: skip
    stage = load_recipe("limo").stages["curate"]
    assert isinstance(stage, CurationStage)
    kept, figures = stage.choose(traces, [tried], {}, 0)
    assert [(s.task, s.thought[:5]) for s in kept] == [("a", "check"), ("b", "one t")]
    assert figures["hard"] == 3.0
    # lengths 10, 10, 20 weigh 0.3; the second has all of the words and half of the length
    assert quality(traces[:3]) == pytest.approx([0.15, 0.15 + 0.7, 0.3])


def tiny(seed: int) -> Any:
    return network(seed, vocabulary=48, scale=6.0)


@pytest.mark.slow
def test_on_policy_distillation_lowers_the_reverse_kl() -> None:
    """On a vocabulary of 48 the KL can be summed up exactly; sampled tokens alone move it."""
    student, teacher = tiny(0), tiny(1)
    trainer = Trainer(LanguagePolicy(student), TrainerConfig(rate=1e-3, loss=LossConfig.preset("reinforce")))
    judge = LanguagePolicy(teacher)

    def exact() -> float:
        with torch.no_grad():
            asked = torch.tensor([[1, 2]])
            mine, wanted = (net(input_ids=asked).logits[0, -1].log_softmax(-1) for net in (student, teacher))
        return float((mine.exp() * (mine - wanted)).sum())

    before, draws, told = exact(), torch.Generator().manual_seed(0), []
    for _ in range(40):
        with torch.no_grad():
            chances = student(input_ids=torch.tensor([[1, 2]])).logits[0, -1].softmax(-1)
        drawn = torch.multinomial(chances, 64, replacement=True, generator=draws).tolist()
        samples = [sample(str(i), ids=(1, 2, token), mask=(False, False, True)) for i, token in enumerate(drawn)]
        told += distill(trainer, judge, samples)
    assert told[0]["teacher_kl"] == pytest.approx(before, rel=0.35)
    assert exact() < 0.6 * before


def test_a_student_that_is_its_teacher_has_nothing_to_learn() -> None:
    trainer = Trainer(LanguagePolicy(tiny(0)), TrainerConfig(rate=1e-3, loss=LossConfig.preset("reinforce")))
    [metrics] = distill(trainer, LanguagePolicy(tiny(0)), [sample("a"), sample("b", length=6)])
    assert metrics["teacher_kl"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["gradient"] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.anyio
async def test_math_shepherds_labels_of_a_constructed_solution() -> None:
    """From step 1 one of four rollouts is right, from step 2 none; the whole is judged by itself."""
    replies = {"": ["a\nb\n<answer>9</answer>", " "], "a\n": ["<answer>3</answer>", "x", "<answer>7</answer>", "c"]}
    said: dict[str, int] = {}

    def reply(request: ModelRequest) -> str:
        said[request.prefix] = said.get(request.prefix, -1) + 1
        assert request.raw
        return replies.get(request.prefix, ["<answer>1</answer>"] * 4)[said[request.prefix]]

    task = Task(question="q", verifier="exact", gold="7")
    labeller = Labeller(
        ScriptedModel(reply), get_verifier("exact"), completions=4, temperature=0.8, max_tokens=9, at_once=1
    )
    [solution] = await labeller.solutions(task, 2, 0)
    labels = await labeller.label(task, solution, 0)
    assert [(made.steps[-1], made.soft, made.hard, made.of) for made in labels] == [
        ("a", 0.25, True, 4), ("b", 0.0, False, 4), ("<answer>9</answer>", 0.0, False, 1),
    ]  # fmt: skip
    assert [made.hard for _, made in balanced([("q", made) for made in labels])] == [True, False]
    assert balanced([("q", labels[1])]) == []


def test_a_lesson_asks_what_the_verifier_asks_and_says_the_label(packed: Packed) -> None:
    made = lesson(Renderer(packed), "Make 5.", Labelled(("2+3=5 left 5",), 0.5, 4))
    text = packed.tokenizer.decode(list(made.ids), skip_special_tokens=False)
    assert process_prompt("Make 5.", ["2+3=5 left 5"]).user in text
    counted = [token for token, said in zip(made.ids, made.mask, strict=True) if said]
    assert packed.tokenizer.decode(counted, skip_special_tokens=False) == "+<|im_end|>"
    assert made.terms[-1].value == 0.5


def test_a_search_is_written_down_with_its_wrong_turns() -> None:
    steps = [
        Step("a", "", "1+1=2"), Step("b", "", "2+2=4"), Step("c", "", "3+3=6"), Step("d", "", "4+4=8"),
        Step("aa", "a", "<answer>2</answer>", False), Step("ba", "b", "4+1=5"), Step("bb", "b", "4+2=6"),
        Step("baa", "ba", "no more"), Step("bba", "bb", "so <answer>6</answer>", True), Step("bab", "ba", "unseen"),
        Step("ca", "c", "<answer>6</answer>", True), Step("e", "", "5+5=10"),
    ]  # fmt: skip
    way = linearise(steps, most=2)
    assert way is not None
    assert way.answer == "6"
    assert way.turns == 3
    back = "That does not lead there. Back to"
    assert way.thought.splitlines() == [
        "1+1=2", "2", f"{back} the start.", "4+4=8", f"{back} the start.",  # c leads there, e is one too many
        "2+2=4", "4+1=5", "no more", f"{back} 2+2=4.", "4+2=6", "so",
    ]  # fmt: skip
    shortcut = linearise(steps, most=0)
    assert shortcut is not None
    assert shortcut.thought == "2+2=4\n4+2=6\nso"
    assert linearise([step for step in steps if not step.right]) is None
