"""EfficientNet-B0 with all its nine stages, but narrow and flat: to train it costs a tenth."""

from __future__ import annotations

import pytest


def narrow(patch: pytest.MonkeyPatch) -> None:
    """Until the patch ends, the family `efficientnet_b0` is built of stages a quarter as wide, with one block each.

    For tests that are about stages, whatever is in them: a tenth of the weights, of the tensors a half.
    """
    import torchvision.models
    from torchvision.models.efficientnet import EfficientNet, _efficientnet_conf

    setting, last = _efficientnet_conf("efficientnet_b0", width_mult=0.25, depth_mult=0.25)
    patch.setattr(torchvision.models, "efficientnet_b0", lambda weights: EfficientNet(setting, 0.2, last_channel=last))
