"""TRL's side of `benchmarks.train`: its own `train()` on rollouts that are given."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.train_case import GROUP, LONGEST, RATE, WEIGHTS, Case, Stopwatch, Took
from researcher.train.batch import Batch


def padded(batch: Batch, case: Case, pad: int, device: str) -> dict[str, Tensor]:
    """The batch in the shape that TRL's generation leaves."""
    assert batch.advantages is not None
    counts = torch.bincount(batch.sequence, minlength=batch.samples).tolist()
    rows = batch.ids.split(counts)
    completions = [row[case.prompt :] for row in rows]
    longest = max(map(len, completions))
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for at, completion in enumerate(completions):
        ids[at, : len(completion)], mask[at, : len(completion)] = completion, 1
    prompts = torch.stack([row[: case.prompt] for row in rows])
    found = {
        "prompt_ids": prompts,
        "prompt_mask": torch.ones_like(prompts),
        "completion_ids": ids,
        "completion_mask": mask,
        "advantages": torch.stack([part[-1] for part in batch.advantages.split(counts)]),
        "num_items_in_batch": mask.sum(),
    }
    return {name: value.to(device) for name, value in found.items()}


def train_with_trl(
    net: nn.Module, batch: Batch, case: Case, options: argparse.Namespace, after: Callable[[Took], None], steps: int
) -> None:
    """TRL's own training on the batch, step after step; `after` is called between them with what each took."""
    from datasets import Dataset
    from transformers import TrainerCallback

    tokenizer, where = _tokenizer(), options.device
    inputs = padded(batch, case, tokenizer.pad_token_id, where)

    class Timed(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.watch = Stopwatch(where)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.took = self.watch.took(0.0, 0.0)

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "grad_norm" in logs:
                after(self.took._replace(loss=float(torch.stack(trainer.losses).sum()), norm=float(logs["grad_norm"])))

    with tempfile.TemporaryDirectory() as folder:
        trainer = _recorded_losses()(
            model=net,
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=_trl_config(folder, batch.samples, options, steps),
            train_dataset=Dataset.from_dict({"prompt": [str(group) for group in range(case.groups)] * (steps + 1)}),
            processing_class=tokenizer,
        )
        trainer.given = inputs
        _quieten(trainer)
        trainer.add_callback(Timed())
        trainer.train()


def _recorded_losses() -> Any:
    from trl import GRPOTrainer

    class Recorded(GRPOTrainer):
        """TRL's trainer with rollouts that are given, and the value of each micro-batch's loss kept."""

        given: dict[str, Tensor]
        losses: list[Tensor]

        def _generate_and_score_completions(self, _: Any) -> dict[str, Tensor]:
            self.losses = []
            return dict(self.given)

        def _compute_loss(self, model: Any, inputs: Any) -> Tensor:
            loss: Tensor = super()._compute_loss(model, inputs)
            self.losses.append(loss.detach())
            return loss

    return Recorded


def _trl_config(folder: str, samples: int, options: argparse.Namespace, steps: int) -> Any:
    """What its users set, and what differs from its defaults: see the module's docstring."""
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=options.micro,
        gradient_accumulation_steps=samples // options.micro,
        num_generations=GROUP,
        max_completion_length=LONGEST,
        temperature=1.0,
        loss_type="dapo",
        epsilon=0.2,
        epsilon_high=0.28,
        beta=0.0,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        adam_beta1=0.9,
        adam_beta2=0.95,
        weight_decay=0.0,
        max_grad_norm=1.0,
        bf16=options.bf16,
        gradient_checkpointing=options.checkpointing,
        use_cpu=options.device == "cpu",
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )


def _tokenizer() -> Any:
    """The shipped tokenizer: TRL wants one, and nothing is tokenised."""
    from transformers import AutoTokenizer

    from researcher.train.embedded.convert import export_hf

    with tempfile.TemporaryDirectory() as folder:
        export_hf(WEIGHTS, Path(folder))
        return AutoTokenizer.from_pretrained(folder)


def _quieten(trainer: Any) -> None:
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
