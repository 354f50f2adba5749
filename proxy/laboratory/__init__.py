"""A laboratory in virtual time: the real dispatcher in front of simulated engines."""
