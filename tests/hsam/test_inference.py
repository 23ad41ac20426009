import torch

import hsam
from hsam.inference import HalfEncoder
from hsam.lora import lora_layers
from tests.hsam.seeded import seeded_image


def test_the_function_stays_and_lora_is_merged(toy):
    model = toy()
    image = seeded_image(1, 64)
    before = model.eval()(image).logits()
    ready = hsam.for_inference(model)
    assert all(layer.merged for layer in lora_layers(ready)) and not ready.training
    torch.testing.assert_close(ready(image).logits(), before, rtol=1e-3, atol=1e-3)


def test_a_half_encoder_gives_nearly_the_same_in_float32(toy):
    image = seeded_image(1, 64)
    encoder = hsam.for_inference(toy()).image_encoder
    with torch.inference_mode():
        before, after = encoder(image), HalfEncoder(encoder)(image)
    assert after.dtype == torch.float32
    error = (after - before).std() / before.std()
    assert 0 < error < 0.05


def test_a_half_encoder_keeps_its_weights_in_bfloat16(toy):
    image = seeded_image(1, 64)
    encoder = hsam.for_inference(toy()).image_encoder
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        cast_at_each_product = encoder(image).float()
    half = hsam.for_inference(toy(), half_encoder=True).image_encoder
    products = [m for m in half.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    assert products and all(m.weight.dtype == torch.bfloat16 for m in products)
    assert half.encoder.pos_embed.dtype == torch.float32
    with torch.inference_mode():
        assert torch.equal(half(image), cast_at_each_product)


def test_a_model_without_sams_encoder_is_taken_as_well():
    model = hsam.for_inference(hsam.build("unet", image_size=32, num_classes=2))
    assert not model.training
