"""Pythae: its trainer in its usual configuration, given the network of the case as encoder and decoder.

An epoch is timed from its begin to its end by the trainer's own events; what it writes after the last one, into a
folder that is thrown away, is not in it. No checkpoints and no evaluation set. Its decoder returns probabilities.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import Tensor

from . import networks
from .cases import LEARNING_RATE, Case
from .networks import Net


class Encoder(BaseEncoder):
    """The encoder of the case, its second half read as the log variance."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.body = net.encoder

    def forward(self, x: Tensor) -> ModelOutput:
        loc, log_variance = self.body(x).chunk(2, -1)
        return ModelOutput(embedding=loc, log_covariance=log_variance)


class Decoder(BaseDecoder):
    """The decoder of the case, to probabilities."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.body = net.decoder

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.body(z).sigmoid())


class Clock(TrainingCallback):
    """The seconds between the begin and the end of epochs."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def on_epoch_begin(self, training_config: Any, **kwargs: Any) -> None:
        self.started = time.perf_counter()

    def on_epoch_end(self, training_config: Any, **kwargs: Any) -> None:
        self.seconds += time.perf_counter() - self.started


def epoch(case: Case, data: np.ndarray) -> Callable[[int], float]:
    """Epochs of the trainer, by its own events."""
    x = networks.rows(case, data).float()
    net = Net(case)
    config = VAEConfig(input_dim=tuple(x.shape[1:]), latent_dim=case.latent, reconstruction_loss="bce")
    vae = VAE(config, encoder=Encoder(net), decoder=Decoder(net))
    labels = x.new_zeros(len(x))

    def go(n: int) -> float:
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            training = BaseTrainerConfig(
                output_dir=folder,
                num_epochs=n,
                per_device_train_batch_size=case.batch,
                learning_rate=LEARNING_RATE,
                no_cuda=True,
            )
            BaseTrainer(vae, BaseDataset(x, labels), training_config=training, callbacks=[clock]).train()
        return clock.seconds

    return go
