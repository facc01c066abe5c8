"""CONNECT: bulk rate, CPU a GB and connections a second, beside other relays. `python -m benchmarks.streams --help`."""
