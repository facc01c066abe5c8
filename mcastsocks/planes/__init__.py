"""How datagrams move. A plane knows sockets and plain values; nothing of rules, users or TCP."""
