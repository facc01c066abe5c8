"""Arguments, output and exit codes; no protocol knowledge."""
