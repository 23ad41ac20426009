"""A plain rendition of the published recipe's training step: what `train.py` measures against.

It includes: augmentation of one slice after the other on the CPU with SciPy (rotation, crop or
elastic deformation, image by cubic splines, label by nearest neighbour), bringing each from 512
pixels to the model's side the same way, a noise batch of the images' size that nothing reads,
SAM's own encoder with LoRA (windows padded up to whole ones, attention scores written out) in
float32 without TF32, both losses, AdamW one tensor at a time, and the loss read back every step.

It doesn't include reading files, worker processes or logging. Decoders and losses are this
library's, so what differs is the encoder, the precision and the data's way.
"""

import itertools
from functools import partial

import numpy as np
import torch
from slices import SIDE, npz_augment, npz_resize, recipe
from torch import Tensor

import hsam
from hsam import sam
from hsam.backbones import get_backbone
from hsam.lora import add_lora
from pipeline.augment import draw


def sams_encoder(name: str, image_size: int) -> torch.nn.Module:
    """SAM's own encoder with the sizes of a backbone."""
    backbone = get_backbone(name)
    return sam.ImageEncoderViT(
        image_size,
        embed_dim=backbone.embed_dim,
        depth=backbone.depth,
        num_heads=backbone.num_heads,
        out_chans=backbone.width,
        use_rel_pos=True,
        window_size=backbone.window,
        global_attn_indexes=backbone.global_blocks,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
    )


class PublishedStep:
    """The step, on slices that lie decoded in memory."""

    def __init__(self, backbone: str, image_size: int, classes: int, device: str) -> None:
        """Build the model; its trained parts are those of H-SAM."""
        model = hsam.build_hsam(backbone, image_size=image_size, num_classes=classes - 1)
        frozen = not model.config["train_encoder"]
        model.image_encoder = sams_encoder(backbone, image_size).requires_grad_(not frozen)
        add_lora(model.image_encoder, rank=4)
        self.model = model.to(device)
        self.optimizer = torch.optim.AdamW(
            model.trainable_parameters(), 2.5e-3, weight_decay=0.1, foreach=False
        )
        self.image_size, self.device = image_size, device
        self.settings = recipe()
        self.seeds = itertools.count()

    def __call__(self, images: np.ndarray, labels: np.ndarray) -> float:
        """One step on (B, 512, 512) float32 images in [0, 1] and labels; the loss."""
        pairs = [self._augment(*pair) for pair in zip(images, labels, strict=True)]
        image = torch.from_numpy(np.stack([p[0] for p in pairs]))[:, None].to(self.device)
        label = torch.from_numpy(np.stack([p[1] for p in pairs])).long().to(self.device)
        return self.train(image, label)

    def train(self, image: Tensor, label: Tensor) -> float:
        """The step after augmentation: (B, 1, S, S) images, (B, S, S) labels on the device."""
        torch.randn_like(image.expand(-1, 3, -1, -1))  # drawn each step, read by nothing
        loss = hsam.two_stage_loss(self.model(image, label), label, 0.4).total
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def _augment(self, image: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        one = draw(self.settings, next(self.seeds), SIDE)
        return npz_resize(npz_augment((image, label), one, self.settings), self.image_size)
