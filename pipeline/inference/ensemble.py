"""Several models as one: the mean of their logits, as nnU-Net has it of the models of its folds.

Models whose encoders have the same weights share one, which is run once a batch: that of a frozen
encoder, of several seeds or of the snapshots of one training.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from hsam.model import EncodedModel, SegmentationModel
from hsam.output import Segmentation
from pipeline.inference.volume import Forward


def together(models: Sequence[SegmentationModel]) -> Forward:
    """A pass through each model, and the mean of their logits.

    Args:
        models: ready to predict, on one device, of one side, with the same classes; their encoders
            are shared from now on.

    Returns:
        What `predict_batches` takes; the model that it is called with is passed over.
    """
    share_encoders(models)

    def mean(_: SegmentationModel, images: Tensor, stages: Sequence[str]) -> dict[str, Tensor]:
        total: dict[str, Tensor] = {}
        for answer in answers(models, images):
            for stage in stages:
                logits = answer.logits(stage)
                total[stage] = total[stage] + logits if stage in total else logits
        return {stage: logits / len(models) for stage, logits in total.items()}

    return mean


def answers(models: Sequence[SegmentationModel], images: Tensor) -> Iterator[Segmentation]:
    """Each model's answer to images (B, C, S, S); an encoder that models share is run once."""
    embeddings: dict[nn.Module, Tensor] = {}
    for model in models:
        if isinstance(model, EncodedModel):
            encoder = model.image_encoder
            if encoder not in embeddings:
                embeddings[encoder] = model.embed(images)
            yield model(None, embedding=embeddings[encoder])
        else:
            yield model(images)


def share_encoders(models: Sequence[SegmentationModel]) -> None:
    """Give models one encoder where theirs are of one kind and have the same weights."""
    kept: list[EncodedModel] = []
    for model in models:
        if not isinstance(model, EncodedModel):
            continue
        same = (one for one in kept if _same(one.image_encoder, model.image_encoder))
        if (found := next(same, None)) is not None:
            model.image_encoder = found.image_encoder
        else:
            kept.append(model)


def _same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two modules are of one kind and have the same weights."""
    first, second = one.state_dict(), other.state_dict()
    return (
        repr(one) == repr(other)
        and first.keys() == second.keys()
        and all(torch.equal(first[name], second[name]) for name in first)
    )
