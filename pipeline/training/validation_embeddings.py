"""Embeddings of validation slices, kept in memory while an encoder that isn't trained validates.

Validations then cost the decoders alone from the second one on, across all trials of a search. They
are kept as they are, so scores are those of a pass through the whole model.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from hsam.model import EncodedModel, SegmentationModel
from pipeline.inference.volume import Forward

MIB = 2**20


class ValidationEmbeddings:
    """What an encoder made of validation cases: the first batches that fit.

    Args:
        mib: memory for them, MiB.
    """

    def __init__(self, mib: float) -> None:
        self._room = mib * MIB  # bytes
        self._encoder: Path | None = None
        self._kept: dict[tuple[str, int, int], Tensor] = {}  # case, first slice, slices

    def behind(self, encoder: Path) -> "ValidationEmbeddings":
        """These, without what another encoder made.

        Args:
            encoder: names it: the folder of its embeddings of the training slices.
        """
        if encoder != self._encoder:
            self._encoder, self._kept = encoder, {}
        return self

    def forward(self, case: str) -> Forward:
        """A pass through a model behind the encoder, for the batches of a case from its first."""
        first = 0

        def forward(
            model: SegmentationModel, images: Tensor, stages: Sequence[str]
        ) -> dict[str, Tensor]:
            nonlocal first
            assert isinstance(model, EncodedModel), "has an encoder"
            key = (case, first, len(images))
            first += len(images)
            embedding = self._kept.get(key)
            if embedding is None:
                embedding = model.embed(images)
                self._keep(key, embedding)
            answer = model(None, embedding=embedding.to(images.device))
            return {stage: answer.logits(stage) for stage in stages}

        return forward

    def _keep(self, key: tuple[str, int, int], embedding: Tensor) -> None:
        if sum(kept.nbytes for kept in (*self._kept.values(), embedding)) <= self._room:
            self._kept[key] = embedding.cpu()
