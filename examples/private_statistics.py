"""Two hospitals' patients in one study; no row leaves its hospital, and nobody sees who is counted.

python examples/private_statistics.py
    starts alice, bob and the provider as processes of this machine, for some seconds. Each hospital has
    patients' age, dose, and the change of their blood pressure. Only patients of 50 and older count,
    which is decided on shares. Prints what both learn: for the treated and the others how many they are,
    mean and deviation of the change; t of the two groups; the correlation of dose and change; and the
    slopes of the change by age and dose. All within 1e-3 of the exact ones, t within 5e-3.
"""

import numpy as np

import mpc


def patients(hospital, count=400):
    """Return made-up rows: age, dose, treated or not, and the change of the pressure in mmHg."""
    random = np.random.default_rng(sum(hospital.encode()))
    age, treated = random.uniform(30, 80, count), random.integers(0, 2, count)
    dose = treated * random.uniform(1, 4, count)
    change = -4 * dose + 0.1 * (age - 55) + random.normal(0, 3, count)
    return np.column_stack([age, dose, treated, change]).round(3)


def program(session):
    """Run one party: the same program at both, each with its own rows."""
    rows = [
        session.share(
            patients(owner) if session.me == owner else None, owner, shape=(400, 4), bound=128
        )
        for owner in session.parties
    ]
    age, dose, treated, change = np.concatenate(rows).T
    counted = age >= 50  # secret bits
    groups = np.stack([counted * treated, counted * (1 - treated)]).with_bound(1)
    # Mean and deviation by group. A difference from the mean is counted where the bit is 1.
    size = groups.sum(axis=1)
    mean = (groups @ change) / size
    apart = (groups * (change - mean.reshape(2, 1))).truncate()
    variance = np.einsum("gi,gi->g", apart, apart) / (size - 1)
    t = (mean[0] - mean[1]) / (variance / size).sum().sqrt()
    # Correlation of dose and change, and the change by age and dose, over all that count.
    columns = np.stack([age / 64 - 1, dose / 4, change / 16])
    total = counted.sum()
    centred = columns - (columns @ counted).reshape(3, 1) / total
    kept = (centred * counted).truncate()
    spread = (kept @ kept.T) / total
    deviation = np.diagonal(spread).sqrt()
    correlation = spread[1, 2] / (deviation[1] * deviation[2])
    slopes = np.linalg.solve(spread[:2, :2], spread[:2, 2]) * np.array([16 / 64, 16 / 4])
    results = size, mean, variance.sqrt(), t, correlation, slopes
    names = "patients", "mean", "deviation", "t", "correlation", "slopes"
    return {name: result.reveal().tolist() for name, result in zip(names, results, strict=True)}


if __name__ == "__main__":
    for name, found in mpc.launch(program, ranges="check")["alice"].items():
        print(f"{name}: {np.round(found, 3)}")
