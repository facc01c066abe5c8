"""`python -m benchmarks` lists the questions; `python -m benchmarks NAME` answers one. Needs root and a C compiler."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from benchmarks.effort import FULL, QUICK, Effort
from benchmarks.errors import BenchmarkError
from benchmarks.machine import machine
from benchmarks.programs import program
from benchmarks.questions import associations, fanout, throughput
from benchmarks.report import show, show_machine, write
from benchmarks.subjects.catalogue import Choice

QUESTIONS = {"throughput": throughput, "fan-out": fanout, "associations": associations}
_WIDTH = 140
_RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    if options.question is None:
        for name, question in QUESTIONS.items():
            console.print(f"{name:14}{(question.__doc__ or '').splitlines()[0]}", highlight=False)
        return 0
    try:
        _answer(options, console)
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    return 0


def _answer(options: argparse.Namespace, console: Console) -> None:
    question, effort = QUESTIONS[options.question], _effort(options)
    choice = Choice(options.plane.split(","), dict(options.peer), frozenset(options.only))
    cases = [case for case in question.cases(effort) if options.case in str(case)]
    program("generator")  # a missing compiler is said before anything runs
    described = machine()
    show_machine(console, described)
    table = question.answer(effort, choice, cases)
    file = options.json or _RESULTS / f"{options.question}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    write(file, described, {"question": options.question, **asdict(effort)}, table)
    show(console, table, question.FIGURES)
    console.print(f"written to {file}", highlight=False, soft_wrap=True)


def _effort(options: argparse.Namespace) -> Effort:
    effort = QUICK if options.quick else FULL
    return replace(effort, rounds=options.rounds) if options.rounds else effort


def _peer(text: str) -> tuple[str, str]:
    name, equals, command = text.partition("=")
    if not (name and equals and command.strip()):
        raise argparse.ArgumentTypeError("expected NAME=COMMAND")
    return name, command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("question", nargs="?", choices=list(QUESTIONS), help="without one: list them")
    parser.add_argument("--plane", default="portable,batch", help="of this relay, with commas between")
    parser.add_argument(
        "--peer",
        action="append",
        type=_peer,
        default=[],
        metavar="NAME=COMMAND",
        help="where a known peer's program is (hev=/opt/hev-socks5-server), or how another SOCKS 5 relay is started; "
        "{inside} and {port} stand for where it has to listen, {border} for its address outside",
    )
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="of these subjects, e.g. dante")
    parser.add_argument("--case", default="", metavar="WORDS", help='with these words, e.g. "runs of 16"')
    parser.add_argument("--rounds", type=int, help="in place of three, or of one with --quick")
    parser.add_argument("--quick", action="store_true", help="fewer cases and shorter loads: under two minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: benchmarks/results/")
    return parser


if __name__ == "__main__":
    sys.exit(main())
