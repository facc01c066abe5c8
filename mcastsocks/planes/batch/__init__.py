"""Datagrams by the batch: recvmmsg and sendmmsg over numpy arrays, with UDP_GRO and UDP_SEGMENT where there is one."""
