"""What the relay knows of associations, groups and remotes: pure data and transitions, no sockets, no clock."""
