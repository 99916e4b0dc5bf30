"""Verifiers that ask a model, on the embedded one: its alternatives of a token make a score."""

from __future__ import annotations

import pytest
from researcher_tools.verifiers import get_verifier

from researcher.models.endpoint import Endpoint
from researcher.protocols import ModelVerifier, StepVerifier
from researcher.types import Task, VerdictStatus

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.anyio]

TASK = Task(
    question="Use the numbers 4, 6, 5 once each with + - * / to make 29.", data={"numbers": [4, 6, 5], "target": 29}
)


@pytest.mark.parametrize("name", ["orm", "prm", "prm:min"])
async def test_the_embedded_model_scores_solutions_and_steps(embedded: Endpoint, name: str) -> None:
    verifier = get_verifier(name)
    assert isinstance(verifier, ModelVerifier)
    bound = verifier.bound(embedded.complete)
    first, second = [
        await bound.verify(TASK, "6*4=24 left 5 24\n24+5=29 left 29\n<answer>6 * 4 + 5</answer>") for _ in range(2)
    ]
    assert first.status is not VerdictStatus.UNVERIFIED, first.reason
    assert first.score is not None
    assert 0.0 < first.score < 1.0
    assert second.score == pytest.approx(first.score, abs=0.02)
    if isinstance(bound, StepVerifier):
        step = await bound.verify_step(TASK, ["6*4=24 left 5 24\n"])
        assert step.score is not None, step.reason


async def test_a_judge_that_has_not_learned_to_judge_is_unverified_or_a_score(embedded: Endpoint) -> None:
    verifier = get_verifier("judge")
    assert isinstance(verifier, ModelVerifier)
    verdict = await verifier.bound(embedded.complete).verify(TASK, "<answer>6 * 4 + 5</answer>")
    assert (verdict.status is VerdictStatus.UNVERIFIED) == (verdict.score is None)
    assert verdict.score is not None or verdict.reason
