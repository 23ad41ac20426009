"""SAM's modules from the package segment-anything, without torchvision.

`import segment_anything` imports torchvision, which only its automatic mask generator needs. So the
package's folder `modeling`, whose imports are all relative, is loaded alone, under a private name.

Source: segment-anything 1.0, `segment_anything/modeling/`.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

_PRIVATE_NAME = "_hsam_sam_modeling"


def _load_modeling() -> ModuleType:
    """Load `segment_anything.modeling` from its folder, once per process.

    Raises:
        ImportError: segment_anything is not installed.
    """
    if _PRIVATE_NAME in sys.modules:
        return sys.modules[_PRIVATE_NAME]
    package = importlib.util.find_spec("segment_anything")  # without importing it
    if package is None or not package.submodule_search_locations:
        raise ImportError("hsam needs the package segment-anything 1.0, found no such package")
    folder = Path(next(iter(package.submodule_search_locations))) / "modeling"
    spec = importlib.util.spec_from_file_location(
        _PRIVATE_NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None or not (folder / "__init__.py").is_file():
        raise ImportError(f"expected SAM's modules in {folder}, found none")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_PRIVATE_NAME] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[_PRIVATE_NAME]
        raise
    return module


_modeling = _load_modeling()

ImageEncoderViT = _modeling.ImageEncoderViT
EncoderBlock = _modeling.image_encoder.Block
EncoderAttention = _modeling.image_encoder.Attention
PromptEncoder = _modeling.PromptEncoder
TwoWayTransformer = _modeling.TwoWayTransformer
TwoWayAttentionBlock = _modeling.transformer.TwoWayAttentionBlock
DecoderAttention = _modeling.transformer.Attention
MLP = _modeling.mask_decoder.MLP
MLPBlock = _modeling.common.MLPBlock
LayerNorm2d = _modeling.common.LayerNorm2d
