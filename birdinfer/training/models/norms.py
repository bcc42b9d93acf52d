"""BatchNorm as it will be in prediction: a network in training whose norms keep their running statistics.

In training a norm divides by the spread of its own batch. A window that is far louder than others, or has more
contrast, is made usual layer by layer, and no loss ever sees what the running statistics make of it in prediction: in
a deep network its activations grow with every layer, to a hundred times those of other windows. Such a window's logits
mean little, and in 8 bits nothing is left for the others. Trained for some epochs with norms that hold still, as in
quantisation-aware training (Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference",
section 3.2), the network learns to do without.
"""

import torch

_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d, torch.nn.SyncBatchNorm)


def freeze_norms(model: torch.nn.Module) -> None:
    """Let every BatchNorm of a network in training mode use its running statistics and leave them as they are.

    Their weights and biases still learn. ``model.train()`` undoes it.
    """
    for module in model.modules():
        if isinstance(module, _NORMS):
            module.eval()
