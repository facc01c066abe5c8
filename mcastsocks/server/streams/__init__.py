"""The TCP streams of CONNECT and BIND (RFC 1928 §4, §6): made, awaited and moved, on plain non-blocking sockets."""
