"""A plain rendition of the published recipe's training step: what `train.py` measures against.

It includes: augmentation of one slice after the other on the CPU with SciPy (rotation, crop or
elastic deformation, image by cubic splines, label by nearest neighbour), bringing each from 512
pixels to the model's side the same way, a noise batch of the images' size that nothing reads,
SAM's own encoder with LoRA (windows padded up to whole ones, attention scores written out) in
float32 without TF32, SAM's own norm in the decoders, Dice class by class beside a cross entropy of
its own, AdamW one tensor at a time, and the loss read back every step.

It doesn't include reading files, worker processes or logging. Else the decoders are this library's.
"""

import itertools
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from slices import SIDE, npz_augment, npz_resize, recipe
from torch import Tensor

import hsam
from hsam import sam
from hsam.backbones import get_backbone
from hsam.lora import add_lora
from hsam.losses import resize_labels
from hsam.norm import LayerNorm2d
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


def _sams_norms(module: torch.nn.Module) -> None:
    """Put SAM's norm of maps in the place of this library's, everywhere below `module`."""
    for name, child in list(module.named_children()):
        if isinstance(child, LayerNorm2d):
            setattr(module, name, sam.LayerNorm2d(len(child.weight), child.eps))
        else:
            _sams_norms(child)


def _stage_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """0.9 Dice, one class after the other, + 0.1 cross entropy."""
    probability = logits.softmax(dim=1)
    classes = range(logits.shape[1])
    truth = torch.stack([labels == index for index in classes], dim=1).float()
    dice = 0.0
    for index in classes:
        p, t = probability[:, index], truth[:, index]
        overlap, size = (p * t).sum(), (p * p).sum() + (t * t).sum()
        dice = dice + 1 - (2 * overlap + 1e-5) / (size + 1e-5)
    return 0.9 * dice / len(classes) + 0.1 * F.cross_entropy(logits, labels)


class PublishedStep:
    """The step, on slices that lie decoded in memory."""

    def __init__(self, backbone: str, image_size: int, classes: int, device: str) -> None:
        """Build the model; its trained parts are those of H-SAM."""
        model = hsam.build_hsam(backbone, image_size=image_size, num_classes=classes - 1)
        frozen = not model.config["train_encoder"]
        model.image_encoder = sams_encoder(backbone, image_size).requires_grad_(not frozen)
        add_lora(model.image_encoder, rank=4)
        _sams_norms(model)
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
        output = self.model(image, label)
        small = resize_labels(label, output.coarse_logits.shape[-2:])
        loss = 0.4 * _stage_loss(output.coarse_logits, small)
        loss = loss + 0.6 * _stage_loss(output.fine_logits, label)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def _augment(self, image: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        one = draw(self.settings, next(self.seeds), SIDE)
        return npz_resize(npz_augment((image, label), one, self.settings), self.image_size)
