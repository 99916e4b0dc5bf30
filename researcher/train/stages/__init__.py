"""The kinds of stages that recipes are made of, one file each."""

from researcher.train.stages.base import Bench, Left, Stage
from researcher.train.stages.curate import CurationStage
from researcher.train.stages.distill import DistillStage
from researcher.train.stages.filter import FilterStage
from researcher.train.stages.head import HeadStage
from researcher.train.stages.journey import JourneyStage
from researcher.train.stages.label import LabellingStage
from researcher.train.stages.rationalise import RationaliseStage
from researcher.train.stages.rl import ReinforcementStage
from researcher.train.stages.sample import SamplingStage
from researcher.train.stages.sft import FineTuningStage
from researcher.train.stages.topk import TopKStage

KINDS: dict[str, type[Stage]] = {
    "rl": ReinforcementStage,
    "sft": FineTuningStage,
    "sample": SamplingStage,
    "filter": FilterStage,
    "curate": CurationStage,
    "distill": DistillStage,
    "journey": JourneyStage,
    "label": LabellingStage,
    "head": HeadStage,
    "rationalise": RationaliseStage,
    "topk": TopKStage,
}

__all__ = ["KINDS", "Bench", "Left", "Stage"]
