"""Validation: Dice of each organ on whole volumes, the cases distributed over the devices."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.distributed
from lightning_fabric import Fabric

from hsam.model import SegmentationModel
from pipeline.inference.volume import forward, predict_volume
from pipeline.scoring import dice
from pipeline.training.prepared import TrainingData, Volumes
from pipeline.training.validation_embeddings import ValidationEmbeddings

Scores = dict[str, float]  # organ to Dice; organs that a case doesn't show are left out


@dataclass(frozen=True)
class Validation:
    """Scores a model on the volumes with the role validation.

    Attributes:
        volumes: the volumes to score.
        class_names: organs; `class_names[k - 1]` is class k.
        embeddings: of the volumes, behind an encoder that isn't trained; None: it may be.
    """

    volumes: Volumes
    class_names: Sequence[str]
    embeddings: ValidationEmbeddings | None = None

    @classmethod
    def of(cls, data: TrainingData, embeddings: ValidationEmbeddings | None = None) -> "Validation":
        """The validation for these data."""
        return cls(data.volumes("validation"), data.class_names, embeddings)

    def __call__(self, model: SegmentationModel, fabric: Fabric, batch_size: int) -> Scores:
        """Mean Dice in [0, 1] of each organ over the cases that show it.

        To be called on all devices: each scores a part of the cases, and all get the result.

        Args:
            model: on fabric's device.
            fabric: of the training.
            batch_size: slices per forward pass.
        """
        own_cases = [
            self._score(model, case, str(fabric.device), batch_size)
            for case in self.volumes.cases[fabric.global_rank :: fabric.world_size]
        ]
        cases = _interleaved(_gathered(own_cases, fabric))
        by_organ = {
            organ: [case[organ] for case in cases if organ in case] for organ in self.class_names
        }
        return {organ: dice.mean(scores) for organ, scores in by_organ.items() if scores}

    def _score(self, model: SegmentationModel, case: str, device: str, batch_size: int) -> Scores:
        """Dice of one case."""
        images, truth = self.volumes.read(case)
        passes = forward if self.embeddings is None else self.embeddings.forward(case)
        predicted = predict_volume(
            model, images, batch_size=batch_size, device=device, forward=passes
        )
        return {
            organ: dice.dice(truth == label, predicted == label)
            for label, organ in enumerate(self.class_names, 1)
            if (truth == label).any()
        }


def _gathered(scores: list[Scores], fabric: Fabric) -> list[list[Scores]]:
    """The scores of every device, given those of this one."""
    if fabric.world_size == 1:
        return [scores]
    shares: list[list[Scores]] = [[] for _ in range(fabric.world_size)]
    torch.distributed.all_gather_object(shares, scores)
    return shares


def _interleaved(shares: list[list[Scores]]) -> list[Scores]:
    """The scores in the order of the cases: a mean is the same for any number of devices."""
    longest = max(len(share) for share in shares)
    return [share[i] for i in range(longest) for share in shares if i < len(share)]
