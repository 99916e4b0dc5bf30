from __future__ import annotations

import os
import resource
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest
from researcher_tools.verifiers import get_verifier
from researcher_tools.verifiers.consensus import Consensus
from researcher_tools.verifiers.json_schema import JsonSchema
from researcher_tools.verifiers.plain import read_plain, write_plain
from researcher_tools.verifiers.unit_tests import UnitTests

from researcher.errors import UserError
from researcher.protocols import ExecRequest, ExecResult
from researcher.testing.fake_sandbox import FakeSandbox
from researcher.testing.verifier_conformance import check_verifier
from researcher.types import Task, VerdictStatus

pytestmark = pytest.mark.anyio

CHOICE = Task(question="q", gold="B", data={"options": ["Paris", "London (UK)", "Rome", "a river"]})


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


async def test_multiple_choice_keeps_every_rule() -> None:
    await check_verifier(get_verifier("multiple_choice"), CHOICE, right="B", wrong="C")


@pytest.mark.parametrize(
    "answer",
    [
        "B", "b", "(B)", "[b]", "B.", "B)", " B: ", "London (UK)", "london (uk).", "B) London (UK)", "(B) London (UK)",
        "B. London (UK)", "B - London (UK)", "Option B", "The answer is B.", "The correct answer is (B)", "Answer: B",
        "Final answer: B) London (UK)", "\\boxed{B}", "\\boxed{\\text{B}}", "$B$", "$\\boxed{B}$", "**B**", "**B.**",
        "The answer is **B**.", "The answer is \\boxed{B}.",
    ],
)  # fmt: skip
async def test_an_option_can_be_named_in_many_ways(answer: str) -> None:
    assert (await get_verifier("multiple_choice").verify(CHOICE, answer)).status is VerdictStatus.CORRECT


@pytest.mark.parametrize(
    ("gold", "data", "answer", "status"),
    [
        ("London (UK)", {"options": ["Paris", "London (UK)"]}, "B", "correct"),
        ("B", {"choices": {"a": "Paris", "b": "London"}}, "London", "correct"),
        ("b", {"options": [1, 2.5, 3]}, "2.5", "correct"),
        ("B", {}, "B", "correct"),
        ("B", {}, "The answer is B", "correct"),
        ("B", {}, "London", "wrong"),
        ("E", {"options": ["x", "y"]}, "A", "unverified"),  # the gold is none of them
        ("z", {"options": ["x", "y"]}, "A", "unverified"),
        ("x", {"options": ["x", "x"]}, "A", "unverified"),  # the gold is two of them
        (None, {"options": ["x", "y"]}, "A", "unverified"),
        ("A", {"options": "xy"}, "A", "unverified"),
        ("A", {"options": [None, True]}, "A", "unverified"),
        ("A", {"options": ["", "y"]}, "A", "unverified"),
        ("A", {"options": {"AB": "x"}}, "A", "unverified"),
        ("A", {"options": ["x"] * 27}, "A", "unverified"),
        ("London", {}, "London", "unverified"),  # without options the gold must be a letter
        ("A", {"options": ["B", "A"]}, "A", "correct"),  # a letter is a letter first
        ("A", {"options": ["I", "II", "III"]}, "I", "correct"),  # and a text where it is no option's letter
        ("A", {"options": ["x", "y"]}, "I", "wrong"),
    ],
)
async def test_what_the_task_says_decides(gold: str | None, data: dict[str, object], answer: str, status: str) -> None:
    verdict = await get_verifier("multiple_choice").verify(Task(question="q", gold=gold, data=data), answer)
    assert verdict.status.value == status


@pytest.mark.parametrize(
    ("votes", "answer", "status", "score"),
    [
        (["24", "24.0", "25"], "24", "correct", 2 / 3),
        (["24", "24.0", "25"], "25", "wrong", 1 / 3),
        (["24", "24", "25"], "26", "wrong", 0.0),
        (["Velar.", "velar", "", ""], "VELAR", "correct", 0.5),  # a vote without an answer agrees with nobody
        (["1/2", "0.5"], "0.50", "correct", 1.0),
        (["24", "25"], "24", "unverified", None),  # nobody has two
        (["24", "24", "25", "25", "1"], "24", "unverified", None),  # a tie
        (["", " "], "", "unverified", None),
        ([], "24", "unverified", None),
        (["24", 24], "24", "unverified", None),
        ("2424", "24", "unverified", None),
        (["24", "24"], "", "wrong", 0.0),
    ],
)
async def test_consensus_is_agreement_with_the_largest_class(
    votes: object, answer: str, status: str, score: float | None
) -> None:
    verdict = await get_verifier("consensus").verify(Task(question="q", data={"votes": votes}), answer)
    assert verdict.status.value == status
    assert verdict.score == (None if score is None else pytest.approx(score))
    assert status == "unverified" or "agreement is no proof" in verdict.reason


async def test_consensus_keeps_every_rule_and_its_least() -> None:
    task = Task(question="q", data={"votes": ["24", "24", "25"]})
    await check_verifier(get_verifier("consensus"), task, right="24", wrong="25")
    assert (await get_verifier("consensus:3").verify(task, "24")).status is VerdictStatus.UNVERIFIED
    assert (await Consensus(votes=["a", "a"]).verify(Task(question="q"), "A")).status is VerdictStatus.CORRECT


@pytest.fixture(scope="module")
async def schema_verifier(anyio_backend: str) -> AsyncIterator[JsonSchema]:
    pytest.importorskip("jsonschema")
    verifier = JsonSchema(seconds=60.0)
    yield verifier
    await verifier.aclose()


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": "^[A-Z]"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.slow
async def test_json_schema_keeps_every_rule(schema_verifier: JsonSchema) -> None:
    task = Task(question="q", data={"schema": PERSON})
    await check_verifier(schema_verifier, task, right='{"name": "Ann", "age": 3}', wrong='{"name": "ann"}', seconds=200)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schema", "answer", "status", "reason"),
    [
        (PERSON, '```json\n{"name": "Ann"}\n```', "correct", ""),
        (PERSON, '{"name": "Ann", "age": -1}', "wrong", "$.age: -1 is less than the minimum of 0"),
        (PERSON, '{"age": 1}', "wrong", "$: 'name' is a required property"),
        ({"type": "integer"}, "1.0", "correct", ""),
        ({"type": "integer"}, "true", "wrong", "$: True is not of type 'integer'"),
        (True, "[]", "correct", ""),
        (False, "[]", "wrong", None),
        ({"type": "nonsense"}, "1", "unverified", None),
        ({"pattern": "("}, '"x"', "unverified", None),
        ({"$ref": "https://example.org/schema.json"}, "1", "unverified", None),
        ({"$ref": "#/$defs/x"}, "1", "unverified", None),
        ({"$ref": "#"}, "1", "unverified", None),
        ({"x": {1, 2}}, "1", "unverified", None),
    ],
    ids=lambda value: ascii(value)[:30],
)
async def test_json_schema_says_what_is_wrong(
    schema: object, answer: str, status: str, reason: str | None, schema_verifier: JsonSchema
) -> None:
    verdict = await schema_verifier.verify(Task(question="q", data={"schema": schema}), answer)
    assert verdict.status.value == status, verdict.reason
    assert verdict.reason == reason if reason is not None else verdict.reason


@pytest.mark.slow
async def test_a_validation_runs_in_a_process_that_holds_many_files(schema_verifier: JsonSchema) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < 2048:
        pytest.skip("fewer files may be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 2048), limits[1]))
    with ExitStack() as held:
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        for _ in range(1100):
            held.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        await schema_verifier.aclose()  # the next one's pipes have numbers above 1,023
        verdict = await schema_verifier.verify(Task(question="q", data={"schema": True}), "1")
        assert (verdict.status, verdict.reason) == (VerdictStatus.CORRECT, "")
        await schema_verifier.aclose()


@pytest.mark.slow
async def test_a_validation_that_never_ends_is_unverified_and_the_next_one_works(schema_verifier: JsonSchema) -> None:
    await schema_verifier.verify(Task(question="q", data={"schema": True}), "1")
    schema_verifier._worker._seconds = 1.0
    task = Task(question="q", data={"schema": {"pattern": "^(a+)+$"}})
    late = await schema_verifier.verify(task, '"' + "a" * 60 + 'b"')
    assert (late.status, late.reason) == (VerdictStatus.UNVERIFIED, "the validation did not end within 1 s")
    schema_verifier._worker._seconds = 60.0
    assert (await schema_verifier.verify(task, '"aaa"')).status is VerdictStatus.CORRECT


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -3,
        2.5,
        float("inf"),
        "a'\n",
        b"\0",
        [1, [2]],
        (1,),
        (),
        {1: {"a": None}},
        {1},
        set(),
        frozenset({3}),
    ],
)
async def test_plain_data_survives_text(value: object) -> None:
    assert read_plain(repr(value)) == value
    assert eval(write_plain(value)) == value


@pytest.mark.parametrize(
    "text", ["", "x", "<A object at 0x1>", "f()", "1+1", "__import__('os')", "[" * 100 + "]" * 100, "(" * 9000,
             "{[]: 1}", "{**{}}", "set(1, 2)", "-'a'", "-True", "[x for x in 1]", "1 if 1 else 2", "...", "set(x=1)"]
)  # fmt: skip
async def test_what_is_no_plain_data_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"plain data|nested"):
        read_plain(text)


ADD = {"tests": ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"]}


@pytest.fixture(scope="module")
async def code_verifier(anyio_backend: str) -> AsyncIterator[UnitTests]:
    pytest.importorskip("pydantic_monty")
    verifier = UnitTests(seconds=20.0)
    yield verifier
    await verifier.aclose()


async def test_unit_tests_keep_every_rule(code_verifier: UnitTests) -> None:
    await check_verifier(
        code_verifier,
        Task(question="q", data=ADD),
        right="def add(a, b):\n    return a + b",
        wrong="```python\ndef add(a, b):\n    return a - b\n```",
    )


@pytest.mark.parametrize(
    ("data", "code", "status"),
    [
        (ADD, "```js\nadd\n```\n```python\ndef add(a, b):\n  return a + b\n```", "correct"),
        (ADD, "```bash\npip install it\n```\nThen:\n```python\ndef add(a, b):\n  return a + b\n```\nDone.", "correct"),
        (ADD, "```python\ndef add(a, b):\n  return a + b\n```\nIt prints\n```text\n3\n```", "correct"),
        (ADD, "```py\r\ndef add(a, b):\r\n  return a + b\r\n```", "correct"),
        (ADD, "I write\n```py\nx = 1\n```\nand then\n```\ndef add(a, b):\n  return a + b\n```\nDone.", "correct"),
        (
            {
                "tests": "def check(candidate):\n  assert candidate([1, 2]) == 3\n  for i in range(3):\n"
                "    assert candidate([i, i]) == 2 * i\n",
                "entry_point": "total",
            },
            "def total(numbers):\n  return sum(numbers)",
            "correct",
        ),
        ({"tests": "n = [3, 1]\norder(n)\nassert n == [1, 3]"}, "def order(x):\n  x.sort()", "correct"),
        (
            {"tests": "try:\n  f(-1)\n  assert False\nexcept ValueError as e:\n  assert str(e) == 'no'\nassert f(4)"},
            "def f(x):\n  if x < 0:\n    raise ValueError('no')\n  return 2",
            "correct",
        ),
        ({"tests": "assert f(k=1) == {1}\nassert f() == set()"}, "def f(k=0):\n  return {k} - {0}", "correct"),
        ({"tests": "import math\nassert math.isclose(f(), math.pi)"}, "def f():\n  return 3.1415926536", "correct"),
        ({"tests": "assert f() == float('inf')"}, "import math\ndef f():\n  return math.inf", "correct"),
        (ADD, "def add(a, b) return a + b", "wrong"),
        (ADD, "def plus(a, b):\n  return a + b", "wrong"),
        (ADD, "def add(a):\n  return a", "wrong"),
        (ADD, "", "wrong"),
        (ADD, "x" * 40_000, "wrong"),
        ({"tests": "assert f(lambda: 1) == 1"}, "def f(g):\n  return g()", "unverified"),  # no plain data
        ({"tests": "s = Stack()\nassert s.pop() is None"}, "class Stack:\n  pass", "unverified"),
        ({"tests": "assert LIMIT == 1"}, "LIMIT = 1", "unverified"),
        ({"tests": "import random\nassert f(random.random())"}, "def f(x):\n  return True", "unverified"),
        ({"tests": "assert 1 == 1"}, "x = 1", "unverified"),  # says nothing of the answer
        ({"tests": "assert f( == 1"}, "x = 1", "unverified"),
        ({"tests": "import numpy\nassert f() == 1"}, "def f():\n  return 1", "unverified"),
        (ADD, "import numpy\ndef add(a, b):\n  return a + b", "unverified"),  # what this sandbox lacks
        (ADD, "def add(a, b):\n  yield a + b", "unverified"),
        (ADD, "def add(a, b):\n  memoryview(b'')\n  return a + b", "unverified"),
        (ADD, "def add(a, b):\n  str.maketrans('a', 'b')\n  return a + b", "unverified"),
        ({}, "x = 1", "unverified"),
        ({"tests": []}, "x = 1", "unverified"),
        ({"tests": ["assert f()"], "entry_point": "f()"}, "x = 1", "unverified"),
    ],
)  # fmt: skip
async def test_code_is_what_it_returns(
    data: dict[str, object], code: str, status: str, code_verifier: UnitTests
) -> None:
    verdict = await code_verifier.verify(Task(question="q", data=data), code)
    assert verdict.status.value == status, verdict.reason


async def test_a_sandbox_that_breaks_or_is_missing_is_unverified(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(question="q", data=ADD)
    broken = await UnitTests(sandbox=FakeSandbox(broken=True)).verify(task, "x = 1")
    assert (broken.status, broken.reason) == (VerdictStatus.UNVERIFIED, "the fake sandbox is broken")

    def missing() -> None:
        raise UserError("The embedded sandbox is not installed.")

    monkeypatch.setattr("researcher_sandbox.monty.MontySandbox", missing)
    verdict = await UnitTests().verify(task, "x = 1")
    assert (verdict.status, verdict.reason) == (VerdictStatus.UNVERIFIED, "The embedded sandbox is not installed.")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("timeout", "wrong"), ("oom", "wrong"), ("output_limit", "wrong"),
        ("killed", "unverified"), ("unsupported", "unverified"),
    ],
)  # fmt: skip
async def test_how_a_job_ends_decides(status: str, expected: str) -> None:
    def reply(request: ExecRequest) -> ExecResult | str:
        if "def _ask" not in request.code:
            return ExecResult(status, error="as it goes")
        mark = request.code.split('print("\\n')[1].split(" ")[0]
        return f"\n{mark} ask 0 ('add', (1, 2), {{}})\n"

    verdict = await UnitTests(sandbox=FakeSandbox(reply)).verify(Task(question="q", data=ADD), "x = 1")
    assert verdict.status.value == expected


async def test_the_sandbox_that_was_given_stays_open() -> None:
    sandbox = FakeSandbox()
    verifier = UnitTests(sandbox=sandbox)
    await verifier.aclose()
    assert not sandbox.closed
