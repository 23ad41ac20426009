import pytest
import torch

from pipeline.inference.precision import Precision, inference_precision, set_tf32
from pipeline.inference.trained import model_precision


@pytest.mark.parametrize(("native", "encoder"), [(True, "bf16"), (False, "fp32")])
def test_a_gpu_without_bfloat16_predicts_in_float32(monkeypatch, native, encoder):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert inference_precision("cuda") == Precision(encoder, "fp32", tf32=False)
    assert model_precision({"config": {"model": "hsam", "backbone": "vit_b"}}, "cuda").encoder == (
        encoder
    )


def test_the_cpu_and_models_without_sams_encoder_predict_in_float32():
    assert inference_precision("cpu") == Precision("fp32")
    assert model_precision({"config": {"model": "unet"}}, "cuda") == Precision("fp32")


def test_tf32_is_set_for_products_and_convolutions():
    before = torch.backends.cudnn.allow_tf32
    try:
        for allowed in (True, False):
            set_tf32(allowed)
            assert torch.backends.cuda.matmul.allow_tf32 == allowed
            assert torch.backends.cudnn.allow_tf32 == allowed
    finally:
        set_tf32(False)
        torch.backends.cudnn.allow_tf32 = before
