"""The same trouble for longer: python -m tests.chaos.turns --seconds 300."""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import monotonic

from redis import Redis

from tests.chaos.turns.world import story, world
from tests.services import OwnServices, Services

LENGTH = 80


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.turns", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to go on")
    parser.add_argument("--seed", type=int, default=1, help="the first story; others follow")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fairq-chaos-") as directory:
        given = Services.from_environment() or OwnServices(Path(directory))
        with given as services:
            counts = play(services, first=chosen.seed, seconds=chosen.seconds)
    for what, count in sorted(counts.items()):
        print(f"{count:8} {what}")
    return 0


def play(services: Services, *, first: int, seconds: float) -> Counter[str]:
    """Play stories one after the other; raises Broken at the first broken promise."""
    counts: Counter[str] = Counter()
    database_url = services.fresh_database()
    until, seed = monotonic() + seconds, first
    with Redis.from_url(services.redis_url, decode_responses=True) as redis:
        while monotonic() < until:
            counts += tell(database_url, redis, seed)
            seed += 1
    return counts


def tell(database_url: str, redis: Redis, seed: int) -> Counter[str]:
    with world(database_url, redis, run_ahead=bool(seed % 2)) as made:
        try:
            for name, each in story(seed, LENGTH):
                made.act(name, each)
            made.settle()
        except BaseException:
            print(f"story {seed}", file=sys.stderr)
            raise
        return made.counts + Counter({"stories": 1})


if __name__ == "__main__":
    sys.exit(main())
