"""`keys hash`: the line that stands for a tenant's key, so that files hold no key."""

from __future__ import annotations

import getpass
import hashlib
import sys
from argparse import Namespace

from proxy.commands.base import CommandError, Commands, add_command, say

KEY_BYTES_MAX = 4096


def declare(commands: Commands) -> None:
    keys = add_command(
        commands,
        "keys",
        run,
        "print the SHA-256 line of a key for the tenants file",
        "openssl rand -hex 32 | tee acme.key | penstock keys hash",
    )
    keys.add_argument("what", choices=("hash",), help="reads the key from standard input, or asks for it")


def run(arguments: Namespace) -> int:
    text = getpass.getpass("key: ") if sys.stdin.isatty() else sys.stdin.read(KEY_BYTES_MAX + 1)
    key = text.rstrip("\r\n")
    if not key or len(key) > KEY_BYTES_MAX:
        raise CommandError(f"no key of 1 to {KEY_BYTES_MAX} characters on standard input; pipe one in")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise CommandError("the key has characters that no header can carry; give printable ASCII in one line")
    say("sha256:" + hashlib.sha256(key.encode()).hexdigest())
    return 0
