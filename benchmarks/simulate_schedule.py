"""How well the volumes of the real study spread over many workers: a simulation, nothing is computed.

    python -m benchmarks.simulate_schedule [--designs 64] [--lost-per-hour 0.05] [--seed 0]

A unit is one volume with all objects and designs. Its seconds are modelled: an encode takes 24 ms and a
tracked slice 17.4 ms (hiera_l at 1024 pixels on an A100, from frame rates that SAM 2's authors published);
of the tracked slices of all designs the share is distinct that the benchmark finds with the miniature.
Numbers of volumes and objects are the manifest's where it knows them; what is assumed is marked. Workers
take the longest unit that is left. One that is lost (preempted, out of memory) loses what it was at and is
back after a minute; the unit is begun anew.
"""

import argparse
import heapq
from dataclasses import dataclass

import numpy as np

WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
ENCODE_S, STEP_S = 0.024, 0.0174
# Distinct tracked slices for each slice that an object fills: 24 designs and 64, one object (docs/speed.md).
STEPS_PER_SLICE = {24: 20.0, 64: 43.0}
FILLED = 0.45  # of a volume's slices, by one object; assumed
RESTART_S = 60.0


@dataclass(frozen=True)
class Volumes:
    """Volumes of a data set: how many, slices (smallest, usual, largest), and objects."""

    number: int
    slices: tuple[int, int, int]
    objects: int


# Slices of the Medical Segmentation Decathlon's sets as published; those marked are assumed.
STUDY = {
    "mri_spine": Volumes(40, (3, 12, 28), 2),  # assumed
    "mri_heart": Volumes(20, (90, 115, 130), 1),
    "mri_prostate": Volumes(40, (15, 22, 30), 1),  # assumed
    "mri_brain": Volumes(1250, (155, 155, 155), 3),  # number assumed
    "mri_breast": Volumes(100, (100, 160, 200), 2),  # assumed
    "ct_liver": Volumes(131, (74, 430, 987), 1),  # assumed
    "ct_organ": Volumes(140, (60, 200, 600), 5),  # assumed
    "ct_spleen": Volumes(41, (31, 90, 168), 1),
    "ct_colon": Volumes(126, (37, 95, 729), 1),
    "ct_pancreas": Volumes(281, (37, 93, 751), 1),
    "ct_hepatic_vessel": Volumes(303, (24, 49, 181), 1),
    "pet_wholebody": Volumes(501, (250, 320, 500), 1),  # assumed; those with a lesion
}


def unit_seconds(designs: int, seed: int) -> list[float]:
    """Return the modelled seconds of every volume; depths are drawn from a triangle of the three given."""
    draw, found = np.random.default_rng(seed), []
    for volumes in STUDY.values():
        low, usual, high = volumes.slices
        depths = (
            np.full(volumes.number, usual)
            if low == high
            else draw.triangular(low, usual, high, volumes.number).round()
        )
        filled = FILLED * depths * draw.uniform(0.5, 1.5, volumes.number)
        found.append(depths * ENCODE_S + volumes.objects * filled * STEPS_PER_SLICE[designs] * STEP_S)
    return [float(value) for value in np.concatenate(found)]


def simulate(seconds: list[float], workers: int, lost_per_hour: float, seed: int) -> tuple[float, int]:
    """Return when the last unit is finished, in seconds, and how often a worker was lost.

    Examples
    --------
    >>> simulate([4.0, 3.0, 2.0, 2.0, 1.0], 2, 0.0, seed=0)
    (6.0, 0)
    """
    draw = np.random.default_rng(seed)
    left = [-value for value in seconds]
    heapq.heapify(left)
    free = [0.0] * workers
    finished, losses = 0.0, 0
    while left:
        now, unit = heapq.heappop(free), -heapq.heappop(left)
        lives = draw.exponential(3600 / lost_per_hour) if lost_per_hour else np.inf
        if lives < unit:
            losses += 1
            heapq.heappush(left, -unit)
            heapq.heappush(free, now + lives + RESTART_S)
        else:
            finished = max(finished, now + unit)
            heapq.heappush(free, now + unit)
    return finished, losses


def main() -> None:
    """Print hours and efficiency by number of workers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--designs", type=int, choices=tuple(STEPS_PER_SLICE), default=24)
    parser.add_argument("--lost-per-hour", type=float, default=0.05, help="of one worker")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    seconds = unit_seconds(options.designs, options.seed)
    total = sum(seconds)
    print(
        f"{len(seconds)} volumes, {options.designs} designs: {total / 3600:.0f} hours of work; "
        f"a unit takes {np.mean(seconds) / 60:.1f} min, the longest {max(seconds) / 60:.1f} (modelled)"
    )
    for workers in WORKERS:
        whole, _ = simulate(seconds, workers, 0.0, options.seed)
        ended, losses = simulate(seconds, workers, options.lost_per_hour, options.seed)
        print(
            f"{workers:4} workers: {whole / 3600:7.2f} h, efficiency {total / workers / whole:6.1%}; "
            f"with losses {ended / 3600:7.2f} h, {total / workers / ended:6.1%} ({losses} lost)"
        )


if __name__ == "__main__":
    main()
