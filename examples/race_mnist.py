"""A race on MNIST: one model, one start, several objectives, equal cost.

    PYROVAE_DATA=data python examples/race_mnist.py --epochs 20

At equal epochs IWAE with five particles is five times the work of the ELBO. Here each has what the other costs: with
--cost passes the same number of rows through the decoder, with --cost seconds the same time, with --cost epochs the
same number of steps. Held-out log evidence is drawn against all three.
"""

import argparse
from pathlib import Path

import pyrovae as pv


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--epochs", type=int, default=20, help="of the cheapest objective")
    parser.add_argument("--cost", default="passes", help="what is equal: passes, seconds or epochs")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--points", type=int, default=10, help="evaluations on the way")
    parser.add_argument("--folder", type=Path, default=Path("runs/race-mnist"))
    given = parser.parse_args()

    data = pv.data.load(given.data, binarise=None if given.data == "digits" else "dynamic")
    table = pv.lab.race(
        lambda: pv.models.VAE.build(data, latent=20),
        data,
        ["ELBO(kl=analytic)", "IWAE(5)", "IWAE(5, gradient=dreg)", "IWAE(5, backward_particles=1)"],
        cost=given.cost,
        epochs=given.epochs,
        points=given.points,
        seeds=range(given.seeds),
        folder=given.folder,
    )
    last = table.groupby(["objective", "particles", "seed"]).last()
    print(last[["epoch", "seconds", "decoder_passes", "log_evidence", "log_evidence_error"]].round(2).to_string())
    print(f"figure: {given.folder}/race.png")


if __name__ == "__main__":
    main()
