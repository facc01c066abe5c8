"""The relay as a process: listeners, sessions, configuration, records."""
