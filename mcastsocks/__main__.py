"""`python -m mcastsocks`."""

from mcastsocks.cli.main import run

run()
