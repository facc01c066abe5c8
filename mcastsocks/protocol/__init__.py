"""Sans-IO machines of both ends: octets in, events and octets out, the time passed in."""
