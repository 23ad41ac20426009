"""A plain rendition of the published code's training step: what `train.py` measures against.

It includes, as the published code does them:

- augmentation of one slice after the other on the CPU (`slices.py`), its resizing from 512 pixels
  to the model's side, and a copy of its label for the coarse stage;
- a batch of noisy images that nothing reads, made on the CPU in bytes: Gaussian noise on half of
  them, a new value for three pixels in ten on nine of ten;
- SAM's own encoder (windows padded up to whole ones, attention scores written out), q and v updated
  by layers of their own that are added into the projection's output;
- an MLP of its own for each class, SAM's own norm of maps, both stages' masks at the model's side;
- Dice class by class beside a cross entropy of its own, each class's Dice read back;
- AdamW one tensor at a time, and the losses read back every step.

All in float32 without TF32. It doesn't include reading files, worker processes or logging, nor the
affine part of the deformation. The two transformers, CMAttn and its noise are this library's.
"""

import itertools
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from slices import SIDE, npz_augment, npz_resize, recipe
from torch import Tensor, nn

import hsam
from hsam import sam
from hsam.backbones import get_backbone
from hsam.class_mlps import ClassMLPs
from hsam.norm import LayerNorm2d
from pipeline.training.augment import draw


class ApartLoRA(nn.Module):
    """A low-rank update of q and v by two layers each."""

    def __init__(self, qkv: nn.Linear, rank: int) -> None:
        super().__init__()
        self.qkv, self.dim = qkv, qkv.in_features
        self.down_q, self.down_v = (nn.Linear(self.dim, rank, bias=False) for _ in range(2))
        self.up_q, self.up_v = (nn.Linear(rank, self.dim, bias=False) for _ in range(2))
        for up in (self.up_q, self.up_v):
            nn.init.zeros_(up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., 3 dim)."""
        qkv = self.qkv(x)
        qkv[..., : self.dim] += self.up_q(self.down_q(x))
        qkv[..., -self.dim :] += self.up_v(self.down_v(x))
        return qkv


class ApartMLPs(nn.Module):
    """One MLP a class, one after the other, with the sizes of a `ClassMLPs`."""

    def __init__(self, joined: ClassMLPs) -> None:
        super().__init__()
        classes, out, _ = joined.weights[-1].shape
        width, layers = joined.weights[0].shape[-1], len(joined.weights)
        self.mlps = nn.ModuleList(sam.MLP(width, width, out, layers) for _ in range(classes))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, C, width) -> (B, C, out)."""
        return torch.stack([mlp(tokens[:, index]) for index, mlp in enumerate(self.mlps)], dim=1)


def sams_encoder(name: str, image_size: int) -> nn.Module:
    """SAM's own encoder with the sizes of a backbone."""
    backbone = get_backbone(name)
    return sam.ImageEncoderViT(
        image_size,
        embed_dim=backbone.sizes["embed_dim"],
        depth=backbone.sizes["depth"],
        num_heads=backbone.sizes["num_heads"],
        out_chans=backbone.width,
        use_rel_pos=True,
        window_size=backbone.sizes["window"],
        global_attn_indexes=backbone.sizes["global_blocks"],
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )


def _plain_parts(module: nn.Module) -> None:
    """Put SAM's norm of maps and an MLP a class in the place of this library's, below `module`."""
    for name, child in list(module.named_children()):
        if isinstance(child, LayerNorm2d):
            setattr(module, name, sam.LayerNorm2d(len(child.weight), child.eps))
        elif isinstance(child, ClassMLPs):
            setattr(module, name, ApartMLPs(child))
        else:
            _plain_parts(child)


def _stage_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """0.9 Dice, one class after the other, + 0.1 cross entropy."""
    probability = logits.softmax(dim=1)
    classes = range(logits.shape[1])
    truth = torch.cat([(labels == index).unsqueeze(1) for index in classes], dim=1).float()
    dice = 0.0
    for index in classes:
        p, t = probability[:, index], truth[:, index]
        overlap, size = (p * t).sum(), (p * p).sum() + (t * t).sum()
        loss = 1 - (2 * overlap + 1e-5) / (size + 1e-5)
        loss.item()
        dice = dice + loss
    return 0.9 * dice / len(classes) + 0.1 * F.cross_entropy(logits, labels)


def _upscaled(logits: Tensor, side: int) -> Tensor:
    """Masks at the image's side, and once more at that of the original, which is the same."""
    for _ in range(2):
        logits = F.interpolate(logits, (side, side), mode="bilinear", align_corners=False)
    return logits


def _noisy(image: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """A noisy copy, in three colours: (S, S) in [0, 1] -> (3, S, S)."""
    side = len(image)
    pixels = np.repeat((image * 255).astype(np.uint8)[..., None], 3, axis=2)
    if random.random() < 0.5:
        noise = random.uniform(0, 45) * random.normal(1, 0.5, (side, side, 1))
        noisy = np.repeat(noise, 3, axis=2) + pixels
        noisy[noisy > 255] = 255
        pixels = noisy.astype(np.uint8)
    if random.random() < 0.9:
        kinds = random.choice(3, (side, side, 1), p=[0.7, 0.15, 0.15])
        kinds = np.repeat(kinds, 3, axis=2)
        pixels = pixels.copy()
        pixels[kinds == 1], pixels[kinds == 2] = 255, 0
    return pixels.transpose(2, 0, 1).astype(np.float32) / 255


class PublishedStep:
    """The step, on slices that lie decoded in memory."""

    def __init__(self, backbone: str, image_size: int, classes: int, device: str) -> None:
        """Build the model; its trained parts are those of H-SAM."""
        model = hsam.build_hsam(backbone, image_size=image_size, num_classes=classes - 1)
        frozen = not model.config["train_encoder"]
        model.image_encoder = sams_encoder(backbone, image_size).requires_grad_(not frozen)
        for block in model.image_encoder.blocks:
            block.attn.qkv = ApartLoRA(block.attn.qkv, rank=4)
        _plain_parts(model)
        self.model = model.to(device)
        self.optimizer = torch.optim.AdamW(
            model.trainable_parameters(), 2.5e-3, weight_decay=0.1, foreach=False
        )
        self.image_size, self.device = image_size, device
        self.settings = recipe()
        self.seeds = itertools.count()
        self.random = np.random.default_rng(0)

    def __call__(self, images: np.ndarray, labels: np.ndarray) -> list[float]:
        """One step on (B, 512, 512) float32 images in [0, 1] and labels; its losses."""
        slices = [self._augment(*pair) for pair in zip(images, labels, strict=True)]
        image, label, small = (np.stack(kind) for kind in zip(*slices, strict=True))
        noisy = np.stack([_noisy(one, self.random) for one in image])
        torch.from_numpy(noisy).to(self.device)  # read by nothing
        image = torch.from_numpy(image)[:, None].repeat(1, 3, 1, 1).to(self.device)
        label, small = (torch.from_numpy(x).long().to(self.device) for x in (label, small))
        output = self.model(image, label)
        _upscaled(output.coarse_logits, self.image_size)
        _upscaled(output.fine_logits, self.image_size)
        coarse = _stage_loss(output.coarse_logits, small)
        fine = _stage_loss(output.fine_logits, label)
        loss = 0.4 * coarse + 0.6 * fine
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return [value.item() for value in (loss, coarse, fine)]

    def _augment(self, image: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, ...]:
        one = draw(self.settings, next(self.seeds), SIDE)
        image, label = npz_resize(npz_augment((image, label), one, self.settings), self.image_size)
        return image, label, ndimage.zoom(label, 1 / 4, order=0)
