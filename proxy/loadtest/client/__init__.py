"""The shell of the load test: sockets, clock, files."""
