"""The limit through real sockets, before an engine that shares no line with the laboratory."""
