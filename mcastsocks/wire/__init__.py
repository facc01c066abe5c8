"""Octets to values and back: no sockets, no clock, no state.

Every message is a frozen dataclass with `parse` and `encode`. On a stream, `parse` returns the message and
how many octets it took, or None while there are too few. What a peer gets wrong raises WireError, and
nothing else does.
"""
