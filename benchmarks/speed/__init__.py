"""Speed, side by side: pyrovae, PyTorch written by hand, Pyro, NumPyro and Pythae on the same data, network and batch.

    python -m benchmarks.speed [--cases mlp128,...] [--only NAME,...] [--threads 2] [--output FILE.md]

Protocol. Every contender is a process of its own (`worker.py`) that builds its model, takes its first step, which
compiles, and then waits on its standard input. The driver (`driver.py`) goes round by round, asks each contender in
turn for so many steps that a turn lasts a fraction of a second, and begins every round with another contender; only one
computes at a time, and the disturbances of a machine with other work on it fall on all alike. A figure is the median
over the rounds, its spread the quartiles; a ratio is the median over the rounds of the two times in one round.

All are given the same threads: OMP_NUM_THREADS, MKL_NUM_THREADS and torch's own are set, and every process is held to
that many cores, from which XLA takes its number. All are given the same arrays, the same widths and activations,
float32, and Adam at 1e-3. The numbers that they draw differ, and nothing is made of the values.

Memory is told twice: what the whole process held at its peak and how far that is above what it held before the model
was built, late libraries and compilers included; and, where a case asks for it, that of the steps alone. For it a
second process has trained a tiny model first, so that everything is loaded, and its peak is restarted after the first
step of the real one.
"""
