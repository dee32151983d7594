"""Start the same command twice at once, for every command that writes.

    PYTHONPATH=. python tests/campaigns/races.py --rounds 5 --seed 0 [--only NAME ...]

One may refuse in a sentence because the other is at it. Afterwards, and after the same command once
more, the result must be that of a single session, and nothing temporary may lie about.
"""

import collections
import random
import shutil
import sys
import time
from pathlib import Path

from tests.campaigns import commands
from tests.campaigns.commands import Case


def race(case: Case, base: Path, folder: Path, counts: collections.Counter[str]) -> list[str]:
    """Run a command twice at once, then once more; return all that is wrong."""
    commands.lay_out(case, base, folder)
    first = commands.start(case.words, folder)
    time.sleep(random.choice([0.0, random.uniform(0.0, 0.8 * case.length)]))
    second = commands.start(case.words, folder)
    ended = [commands.finish(first), commands.finish(second)]
    wrong = []
    for code, said in ended:
        wrong += [f"said: {line}" for line in commands.faults_in(said)]
        if code not in (0, 2, 3):
            wrong.append(f"ended with {code}: {said.strip()[-300:]}")
    done = sum(code == 0 for code, _ in ended)
    counts[f"races in which {('none', 'one', 'both')[done]} succeeded"] += 1
    if not done:
        wrong.append(f"both refused: {[said.strip()[-200:] for _, said in ended]}")
    code, said = commands.finish(commands.start(case.words, folder))
    wrong += [f"said: {line}" for line in commands.faults_in(said)]
    if code not in (0, 2, 3):
        wrong.append(f"the next run ended with {code}: {said.strip()[-300:]}")
    wrong += [f"left over: {name}" for name in commands.leftovers(folder)]
    wrong += commands.differences(commands.contents(folder), case.result)
    shutil.rmtree(folder)
    counts["races"] += 1
    return wrong


def campaign(
    folder: Path, rounds: int, only: list[str]
) -> tuple[collections.Counter[str], list[str]]:
    """Race every command so many times; return what was counted and what was wrong."""
    base = folder / "base"
    commands.prepare(base)
    counts: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    for case in commands.chosen(only):
        commands.measure(case, base, folder / "alone")
        for number in range(rounds):
            try:
                found = race(case, base, folder / f"work{number}", counts)
            except AssertionError as error:
                found = [str(error)]
                shutil.rmtree(folder / f"work{number}", ignore_errors=True)
            wrong += [f"{case.name} ({number}): {text}" for text in found]
    wrong += [f"left over in the cache: {name}" for name in commands.leftovers(base / "cache")]
    return counts, wrong


if __name__ == "__main__":
    sys.exit(commands.run_campaign(campaign, __doc__, "rounds", 5))
