"""The demo's command line."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pylonny.cli import at_least


class Stopped(KeyboardInterrupt):
    """A signal asked the demo to end. A KeyboardInterrupt: what libraries know how to clean up after."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.status = 128 + signum


def main(argv: list[str] | None = None) -> int:
    """Run the demo; 0 all was as promised, 1 something was not or it could not run, 2 usage, 130 Ctrl-C."""
    try:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(signum) is not signal.SIG_IGN:  # as it is under nohup
                signal.signal(signum, stop)
        return demo(argv)
    except Stopped as stopped:
        say("\nStopped, and so is everything that was started.")
        return stopped.status
    except BrokenPipeError:  # nobody reads on; nor may the interpreter fail to flush at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def stop(signum: int, _: FrameType | None) -> NoReturn:
    """Begin to clean up. It takes a second or so, and a second Ctrl-C must not break it off."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(signum)


def demo(argv: list[str] | None) -> int:
    """Parse the arguments and run."""
    args = parser().parse_args(argv)
    try:
        import psycopg

        from pylonny.demo.processes import DemoError
        from pylonny.demo.run import Options, run
        from pylonny.demo.screen import open_screen
        from pylonny.errors import Error
        from pylonny.server import ServerError
    except ImportError as error:
        say(f"{error}: pip install 'pylonny[embedded]'")
        return 1
    options = Options(args.root, args.workers, args.batch, args.lock_ms, args.keep)
    try:
        return 0 if run(options, open_screen()) else 1
    except (DemoError, ServerError, Error, psycopg.Error) as error:
        say(f"The demo failed: {' '.join(str(error).split())}")
        return 1


def parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m pylonny.demo",
        description="Hash every file of this Python installation through a queue in a private PostgreSQL,"
        " kill a worker on the way, and verify everything at the end.",
    )
    parser.add_argument("--root", type=folder, help="hash the files in this folder instead")
    parser.add_argument("--keep", action="store_true", help="leave the server up at the end, to look into it")
    parser.add_argument(
        "--workers",
        type=at_least(2),
        default=4,
        help="worker processes, 2 or more: one will be killed (default: %(default)s)",
    )
    parser.add_argument(
        "--batch",
        type=at_least(1),
        default=10,
        help="messages that a worker takes at a time (default: %(default)s)",
    )
    parser.add_argument(
        "--lock-ms",
        type=at_least(100),
        default=3000,
        help="milliseconds until the killed worker's messages come back (default: %(default)s)",
    )
    return parser


def folder(text: str) -> Path:
    """An argument that names a folder that is there."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return Path(text)


def say(text: str) -> None:
    """Tell on standard error, if there is still somebody to tell."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
