"""What is measured: the data, the network, the batch and the bound of each case."""

from __future__ import annotations

from dataclasses import dataclass, replace

MNIST, COLOUR = (1, 28, 28), (3, 32, 32)
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name: as it is asked for.
        title: in words.
        measure: "step" of training, "epoch" with its data, "evidence" by importance sampling, or "import".
        event: shape of one datum.
        network: "mlp" or "conv".
        hidden: widths from the data inwards; for "conv" the channels.
        latent: number of latent dimensions.
        activation: "relu" or "tanh".
        batch: B, data in a batch.
        particles: K of the importance-weighted bound, or of the evidence; None is the ELBO with the closed-form KL.
        scale: σ of a normal likelihood; None is the Bernoulli on {0, 1}.
        images: data of an epoch, or data that the evidence is estimated of.
        memory: whether the memory of the steps alone is measured too.
    """

    name: str
    title: str
    measure: str = "step"
    event: tuple[int, ...] = MNIST
    network: str = "mlp"
    hidden: tuple[int, ...] = (400,)
    latent: int = 20
    activation: str = "relu"
    batch: int = 128
    particles: int | None = None
    scale: float | None = None
    images: int = 0
    memory: bool = False

    def small(self) -> Case:
        """The same comparison in a size that takes no time, to see that it runs."""
        return replace(
            self,
            hidden=tuple(8 for _ in self.hidden),
            latent=3,
            batch=4,
            particles=None if self.particles is None else 5,
            images=min(self.images, 10),
        )


_IWAE = {"hidden": (200, 200), "latent": 50, "activation": "tanh"}

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        *(Case(f"mlp{b}", f"step of the ELBO, MLP 784-400-20, B = {b}", batch=b) for b in (20, 128, 1000)),
        *(
            Case(
                f"iwae{b}",
                f"step of IWAE, K = 50, 784-200-200-50, B = {b}",
                batch=b,
                particles=50,
                memory=b == 100,
                **_IWAE,
            )
            for b in (20, 100)
        ),
        Case(
            "conv",
            "step of the ELBO, convolutions 32-64, 3×32×32, B = 128",
            event=COLOUR,
            network="conv",
            hidden=(32, 64),
            scale=0.1,
        ),
        Case(
            "evidence", "log evidence, 5,000 particles, 784-200-200-50", "evidence", particles=5000, images=40, **_IWAE
        ),
        Case("epoch", "epoch of MNIST with its data, MLP 784-400-20, B = 128", "epoch", images=60_000),
        Case("import", "fresh processes", "import"),
    )
}
