"""Dice of each organ on the validation cases, shared out to the devices of a training."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.distributed
from lightning_fabric import Fabric

from hsam.model import SegmentationModel
from pipeline.core.params.blocks import Train
from pipeline.inference.volume import predict_volume
from pipeline.scoring import dice
from pipeline.training.prepared import TrainingData, Volumes

AT_ONCE = 16  # slices per forward pass, where the parameters leave the number open

Scores = dict[str, float]  # of one case: an organ that isn't in it is left out


@dataclass(frozen=True)
class Validation:
    """Scores models on whole volumes of the held-out training subjects.

    Attributes:
        volumes: of these subjects.
        class_names: organs, in the order of the labels 1, 2, ...
        batch_size: slices per forward pass.
    """

    volumes: Volumes
    class_names: Sequence[str]
    batch_size: int

    @classmethod
    def of(cls, data: TrainingData, settings: Train) -> "Validation":
        """The validation of a training."""
        if settings.micro_batch == "auto":
            at_once = min(settings.batch_size, AT_ONCE)
        else:
            at_once = settings.micro_batch
        return cls(data.volumes("validation"), data.class_names, at_once)

    def __call__(self, model: SegmentationModel, fabric: Fabric) -> Scores:
        """Organ to its mean Dice over the cases that show it, in [0, 1].

        Called on every device, each scores its share of the cases and all get the result.
        """
        mine = [
            self._score(model, case, str(fabric.device))
            for case in self.volumes.cases[fabric.global_rank :: fabric.world_size]
        ]
        cases = _interleaved(_gathered(mine, fabric))
        found = {
            organ: [case[organ] for case in cases if organ in case] for organ in self.class_names
        }
        return {organ: dice.mean(scores) for organ, scores in found.items() if scores}

    def _score(self, model: SegmentationModel, case: str, device: str) -> Scores:
        images, truth = self.volumes.read(case)
        predicted = predict_volume(model, images, batch_size=self.batch_size, device=device)
        return {
            organ: dice.dice(truth == label, predicted == label)
            for label, organ in enumerate(self.class_names, 1)
            if (truth == label).any()
        }


def _gathered(mine: list[Scores], fabric: Fabric) -> list[list[Scores]]:
    if fabric.world_size == 1:
        return [mine]
    shares: list[list[Scores]] = [[] for _ in range(fabric.world_size)]
    torch.distributed.all_gather_object(shares, mine)
    return shares


def _interleaved(shares: list[list[Scores]]) -> list[Scores]:
    """The cases in their order again, so that a mean is the same for any number of devices."""
    longest = max(len(share) for share in shares)
    return [share[i] for i in range(longest) for share in shares if i < len(share)]
