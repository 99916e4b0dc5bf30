"""A process reward model with a head: two classes, bad and good, read off the trunk at the end of each step.

The form is that of Qwen2.5-Math-PRM (Zhang et al. 2025): question and solution as two turns, a tag token after each
step, and at the tags alone cross-entropy with the step's label. vLLM's pooling server gives the probabilities at the
tags, which the verifier `pooling` reads.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer
from torch import Tensor, nn
from transformers import AutoModelForTokenClassification, PreTrainedTokenizerFast

from researcher.train.batch import Batch
from researcher.train.packing import Row
from researcher.train.policy import LanguagePolicy, Scored
from researcher.train.process import Labelled
from researcher.train.sample import Sample

TAG = "<extra_0>"
"""After each step; what the verifier `pooling` puts there, unless it is told otherwise."""
GOOD = 1
Labels = Literal["hard", "soft"]


class Solution(NamedTuple):
    """The steps of a solution and the label of each; None where nothing could judge one."""

    question: str
    steps: tuple[str, ...]
    labels: tuple[float | None, ...]


def solutions(labels: Iterable[tuple[str, Labelled]], kind: Labels) -> list[Solution]:
    """The solutions that labelled beginnings are of, the longest ones; a beginning that several share counts once."""
    by_question: dict[str, dict[tuple[str, ...], float]] = {}
    for question, made in labels:
        by_question.setdefault(question, {})[made.steps] = float(made.hard) if kind == "hard" else made.soft
    found = []
    for question, known in by_question.items():
        shorter = {steps[:n] for steps in known for n in range(len(steps))}
        counted: set[tuple[str, ...]] = set()
        for steps in known:
            if steps not in shorter:
                begun = [steps[: n + 1] for n in range(len(steps))]
                found.append(Solution(question, steps, tuple(None if b in counted else known.get(b) for b in begun)))
                counted.update(begun)
    return found


def make_head(net: nn.Module, vocabulary: int) -> nn.Module:
    """The network's trunk with a new head of two classes and room for so many tokens; `net` is used up."""
    inner: Any = net
    if inner.get_input_embeddings().weight.shape[0] < vocabulary:
        inner.resize_token_embeddings(vocabulary, mean_resizing=False)
        with torch.no_grad():  # a tag begins as any token does, and not by chance
            table = inner.get_input_embeddings().weight
            table[-1] = table[:-1].mean(0)
    config = deepcopy(inner.config)
    config.num_labels, config.classifier_dropout, config.tie_word_embeddings = 2, 0.0, False
    config.id2label, config.label2id = {0: "bad", GOOD: "good"}, {"bad": 0, "good": GOOD}
    make: Any = AutoModelForTokenClassification
    head = make.from_config(config)
    setattr(head, head.base_model_prefix, inner.model)
    with torch.no_grad():  # no opinion at first, so that the trunk learns from its first step what it says
        head.score.weight.zero_()
        head.score.bias.zero_()
    made: nn.Module = head.float().eval()
    return made


class HeadPolicy(LanguagePolicy):
    """Scores the labels of a batch: where the trainer has a token's logprob, sum_c y_c log p_c of the two classes."""

    def score_row(self, row: Row, batch: Batch, *, entropy: bool = False) -> Scored:
        """For the labelled tokens of one row's samples; there is no entropy."""
        logits = self._logits(row, batch)
        if batch.labels is None:
            raise ValueError("the batch has no labels")
        good = batch.labels.to(self.device)
        known = ~torch.isnan(good)
        y = torch.where(known, good, 0.0)
        classes = logits.log_softmax(-1)
        return Scored(torch.where(known, (1.0 - y) * classes[:, 1 - GOOD] + y * classes[:, GOOD], 0.0))

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        """The probability of a good step at each token, [N]."""
        return self.score(replace(batch, labels=torch.ones(len(batch.ids)))).logprobs.exp()

    def _logits(self, row: Row, batch: Batch) -> Tensor:
        """[N, 2] in float32, N the tokens of the row's samples."""
        with self._computing():
            hidden = self._hidden(row)[row.slots.to(self.device)]
            logits: Tensor = self._inner().score(hidden)
        return logits.float()


def head_batch(samples: Sequence[Sample]) -> Batch:
    """A batch on which cross-entropy at labelled step ends alone counts; `Sample.steps` has the labels, at the tokens
    of its mask."""
    batch = Batch.of(samples)
    labels = torch.full((len(batch.ids),), torch.nan)
    labels[batch.mask] = torch.tensor([label for sample in samples for label in sample.steps])
    counts = (~torch.isnan(labels)).float()
    return replace(batch, labels=labels, cross_entropy=counts, policy=counts * 0.0)


class HeadRenderer:
    """Turns solutions into samples with a model's template, as a pooling server will see them."""

    def __init__(self, tokenizer: Tokenizer, chat_template: str) -> None:
        self.tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self.tokenizer.add_special_tokens([AddedToken(TAG, special=True, normalized=False)])
        tag = self.tokenizer.token_to_id(TAG)
        assert tag is not None
        self.tag = tag
        make: Any = PreTrainedTokenizerFast
        self._chat: Any = make(tokenizer_object=self.tokenizer, chat_template=chat_template)

    @property
    def vocabulary(self) -> int:
        """How many tokens there are, the tag included."""
        return self.tokenizer.get_vocab_size(with_added_tokens=True)

    def sample(self, solution: Solution) -> Sample:
        """The solution with its labels at the tags; nan: none."""
        said = "".join(f"{step.replace(TAG, '').strip()}{TAG}" for step in solution.steps)
        question = solution.question.replace(TAG, "")
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": said}]
        text: str = self._chat.apply_chat_template(messages, tokenize=False)
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        mask = tuple(token == self.tag for token in ids)
        if sum(mask) != len(solution.steps):
            raise ValueError(f"the template gives {sum(mask)} tags for {len(solution.steps)} steps")
        labels = tuple(float("nan") if label is None else label for label in solution.labels)
        name = solution.question
        return Sample(run="labels", thread=name, task=name, ids=tuple(ids), mask=mask, steps=labels)


def save_head(net: nn.Module, renderer: HeadRenderer, source: Path, folder: Path) -> None:
    """A transformers folder of the model with its head, with the template and the settings of `source`'s tokenizer."""
    shutil.rmtree(folder, ignore_errors=True)
    saved: Any = deepcopy(net).to(torch.bfloat16)
    saved.save_pretrained(folder)
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    renderer.tokenizer.save(str(folder / "tokenizer.json"))
    pooler = json.dumps({"pooling_type": "STEP", "step_tag_id": renderer.tag})
    (folder / "SERVE.md").write_text(
        f"vllm serve {folder.name} --runner pooling --pooler-config '{pooler}'\n\n"
        f"researcher run --verifier 'pooling:http://127.0.0.1:8000/v1#{folder.name}' ...\n",
        "utf-8",
    )


def auc(scores: NDArray[np.float64], good: NDArray[np.bool_]) -> float:
    """The probability that a good step has a higher score than a bad one (Mann and Whitney 1947), ties half; nan where
    one kind is missing."""
    above, below = scores[good][:, None], scores[~good][None]
    return float(((above > below) + 0.5 * (above == below)).mean()) if above.size and below.size else float("nan")


def judge(policy: HeadPolicy, samples: Sequence[Sample], prior: float) -> dict[str, float]:
    """How well labels of samples are told, beside a constant: `prior`, the share of good steps learned from."""
    batch = head_batch(samples)
    assert batch.labels is not None
    at = ~torch.isnan(batch.labels)
    told = policy.predict(batch).cpu()[at].double().numpy()
    truth = batch.labels[at].double().numpy()
    good = truth > 0.5

    def entropy(p: NDArray[np.float64]) -> float:
        sure = p.clip(1e-6, 1.0 - 1e-6)
        return float(-(truth * np.log(sure) + (1.0 - truth) * np.log(1.0 - sure)).mean())

    return {
        "accuracy": float(((told > 0.5) == good).mean()),
        "accuracy_prior": float((good == (prior > 0.5)).mean()),
        "auc": auc(told, good),
        "cross_entropy": entropy(told),
        "cross_entropy_prior": entropy(np.full(len(truth), prior)),
        "steps": float(len(truth)),
    }
