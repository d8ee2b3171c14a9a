"""Generative stories, one file each. A new model is a new model function."""

from .autoencoder import Autoencoder, ContractiveAutoencoder, DenoisingAutoencoder
from .bayesian_decoder import BayesianDecoderVAE
from .conditional import ConditionalVAE
from .counts import CountVAE
from .discrete import DiscreteVAE
from .enumerable import EnumerableVAE
from .gaussian_mixture import GaussianMixtureVAE
from .hierarchical import HierarchicalVAE
from .linear_gaussian import LinearGaussian
from .multimodal import MultimodalVAE
from .semi_supervised import SemiSupervisedVAE
from .sequential import SequentialVAE
from .topics import TopicModel
from .vae import VAE

__all__ = [
    "VAE",
    "Autoencoder",
    "BayesianDecoderVAE",
    "ConditionalVAE",
    "ContractiveAutoencoder",
    "CountVAE",
    "DenoisingAutoencoder",
    "DiscreteVAE",
    "EnumerableVAE",
    "GaussianMixtureVAE",
    "HierarchicalVAE",
    "LinearGaussian",
    "MultimodalVAE",
    "SemiSupervisedVAE",
    "SequentialVAE",
    "TopicModel",
]
