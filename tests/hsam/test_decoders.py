"""The two decoders, followed step by step."""

import pytest
import torch
import torch.nn.functional as F

from hsam.class_balance import ClassBalancedMaskAttention
from hsam.coarse_decoder import CoarseDecoder
from hsam.fine_decoder import FineDecoder, HierarchicalPixelDecoder, prior_mask
from hsam.two_way import CrossFirstTransformer, MaskedTransformer
from tests.hsam.seeded import seeded
from tests.hsam.toys import randomise

IMAGE = seeded("image", (2, 32, 4, 4)) * 20
POSITION = seeded("position", (1, 32, 4, 4)) * 20
DENSE = seeded("dense", (1, 32, 1, 1)) * 5


@pytest.fixture
def coarse():
    decoder = CoarseDecoder(CrossFirstTransformer(32, 2, 64), 32, classes=3)
    return randomise(decoder).eval()


@pytest.fixture
def fine():
    def make(gate="spatial", **parts):
        attention = ClassBalancedMaskAttention(3, 4, 64, gate)
        transformer = MaskedTransformer(32, 2, 64)
        return randomise(FineDecoder(transformer, 32, 3, attention, **parts)).eval()

    return make


def test_coarse_decoder_by_hand(coarse):
    output = coarse(IMAGE, POSITION, DENSE)
    tokens = torch.cat([coarse.iou_token.weight, coarse.mask_tokens.weight]).expand(2, -1, -1)
    tokens, keys = coarse.transformer(IMAGE + DENSE, POSITION, tokens)
    image = keys.transpose(1, 2).reshape(2, 32, 4, 4)
    upscaled = coarse.output_upscaling(image)
    logits = torch.einsum("bck,bkhw->bchw", coarse.class_mlps(tokens[:, 1:]), upscaled)
    torch.testing.assert_close(output.logits, logits)
    torch.testing.assert_close(output.iou, coarse.iou_prediction_head(tokens[:, 0]))
    assert torch.equal(output.tokens, tokens[:, 1:])
    assert torch.equal(output.image, image)
    assert output.upscaled.shape == (2, 4, 16, 16)


def test_fine_decoder_by_hand(coarse, fine):
    first, decoder = coarse(IMAGE, POSITION, DENSE), fine()
    prior = torch.einsum("bcd,bdhw->bchw", first.tokens, first.image).flatten(2)
    gate = decoder.cm_attention(prior).reshape(2, 1, 4, 4)
    mask = F.interpolate(first.logits, (4, 4), mode="bilinear").softmax(dim=1).flatten(2)
    tokens = decoder.mask_tokens.weight.expand(2, -1, -1)
    image = (IMAGE + DENSE) * (1 + gate)
    tokens, keys = decoder.transformer(image, POSITION, tokens, mask)
    upscaled = decoder.output_upscaling(keys.transpose(1, 2).reshape(2, 32, 4, 4))
    full = decoder.pixel_decoder.skip_connect(torch.cat([upscaled, first.upscaled], dim=1))
    logits = torch.einsum("bck,bkhw->bchw", decoder.class_mlps(tokens), full)
    output = decoder(IMAGE, POSITION, DENSE, first)
    # the gate is an exponential, which magnifies rounding
    torch.testing.assert_close(output.logits, logits, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(
        output.iou, decoder.iou_prediction_head(tokens[:, 0]), atol=1e-3, rtol=1e-3
    )


def test_constant_gate_doubles_the_image(coarse, fine):
    first = coarse(IMAGE, POSITION, DENSE)
    decoder = fine("constant")
    doubled = decoder(IMAGE, POSITION, DENSE, first).logits
    decoder.cm_attention = None
    expected = decoder(2 * IMAGE, POSITION, 2 * DENSE, first).logits
    torch.testing.assert_close(doubled, expected)


def test_without_pixel_decoder_logits_are_resized(coarse, fine):
    decoder = fine(pixel_decoder=False)
    logits = decoder(IMAGE, POSITION, DENSE, coarse(IMAGE, POSITION, DENSE)).logits
    assert logits.shape == (2, 3, 64, 64)
    # bilinear by four: straight lines between the centres of the coarse pixels
    assert logits[..., 30, 30:34].diff().diff().abs().max() < 1e-5 * logits.abs().max()


def test_pixel_decoder_puts_stage_two_first():
    decoder = randomise(HierarchicalPixelDecoder(32))
    fine, coarse = seeded("fine", (1, 4, 8, 8)), seeded("coarse", (1, 4, 8, 8))
    expected = decoder.skip_connect(torch.cat([fine, coarse], dim=1))
    assert torch.equal(decoder(fine, coarse), expected)
    assert expected.shape == (1, 2, 32, 32)


def test_prior_mask_is_a_distribution_over_classes():
    logits = seeded("logits", (2, 3, 16, 16)) * 9
    mask = prior_mask(logits, 4)
    assert mask.shape == (2, 3, 16)
    torch.testing.assert_close(mask.sum(dim=1), torch.ones(2, 16))
    # bilinear without aligned corners: a quarter of the side averages the middle 2 x 2 of 4 x 4
    first = logits[:, :, 1:3, 1:3].mean(dim=(2, 3)).softmax(dim=1)
    torch.testing.assert_close(mask[:, :, 0], first)
