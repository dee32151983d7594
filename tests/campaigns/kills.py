"""Kill every command that writes at random moments, and run the same command again.

    PYTHONPATH=. python tests/campaigns/kills.py --kills 200 --seed 0 [--only NAME ...]

After every kill the same command is killed again or left to end. Then its result must be that of a
session that was never killed, nothing temporary may lie about, and no session may have ended by a
signal that is not ours or have printed a traceback.
"""

import collections
import itertools
import random
import shutil
import sys
from pathlib import Path

from tests.campaigns import commands
from tests.campaigns.commands import Case


def attempt(case: Case, base: Path, folder: Path, counts: collections.Counter[str]) -> list[str]:
    """Kill a command, once or several times, then let it end; return all that is wrong."""
    commands.lay_out(case, base, folder)
    wrong: list[str] = []
    while True:
        running = commands.start(case.words, folder)
        delay = random.uniform(0.0, 1.1 * case.length)
        ended = commands.kill(running, delay, all_of_it=random.random() < 0.5)
        if ended is not None:
            wrong += _judge(ended, counts)
            break
        counts["kills"] += 1
        counts[f"kills of {case.name}"] += 1
        left = len(commands.leftovers(folder))
        counts["kills that left something temporary"] += left > 0
        if random.random() < 0.6:
            break
    wrong += _judge(commands.finish(commands.start(case.words, folder)), counts)
    wrong += [f"left over: {name}" for name in commands.leftovers(folder)]
    wrong += commands.differences(commands.contents(folder), case.result)
    shutil.rmtree(folder)
    counts["results"] += 1
    return wrong


def _judge(ended: tuple[int, str], counts: collections.Counter[str]) -> list[str]:
    """Say what is wrong about how a session ended that was left alone."""
    code, said = ended
    wrong = [f"said: {line}" for line in commands.faults_in(said)]
    if code < 0:
        wrong.append(f"ended by signal {-code}")
    elif code in (2, 3):  # it is there already: whether that is right, its result tells
        counts["refused, the result being there"] += 1
    elif code:
        wrong.append(f"ended with {code}: {said.strip()[-300:]}")
    return wrong


def campaign(
    folder: Path, kills: int, only: list[str]
) -> tuple[collections.Counter[str], list[str]]:
    """Kill until there were so many; return what was counted and what was wrong."""
    base = folder / "base"
    commands.prepare(base)
    cases = commands.chosen(only)
    for case in cases:
        commands.measure(case, base, folder / "alone")
    counts: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    for number, case in enumerate(itertools.cycle(cases)):
        if counts["kills"] >= kills:
            break
        try:
            found = attempt(case, base, folder / f"work{number}", counts)
        except AssertionError as error:
            found = [str(error)]
        wrong += [f"{case.name} ({number}): {text}" for text in found]
    wrong += [f"left over in the cache: {name}" for name in commands.leftovers(base / "cache")]
    return counts, wrong


if __name__ == "__main__":
    sys.exit(commands.run_campaign(campaign, __doc__, "kills", 200))
