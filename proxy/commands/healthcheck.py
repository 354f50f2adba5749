"""`healthcheck`: asks the admin listener whether the proxy is ready, for container health checks without curl."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from proxy.commands.base import CommandError, Commands, add_command, port, say
from proxy.commands.configuration import settings_from

TIMEOUT_S = 5.0
EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # where a listener on all addresses is asked


def declare(commands: Commands) -> None:
    parser = add_command(
        commands, "healthcheck", run, "exit 0 when a running proxy is ready", "penstock healthcheck --admin-port 8081"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration of the running proxy")
    parser.add_argument("--admin-host", metavar="HOST", help="address of its admin listener (default 127.0.0.1)")
    parser.add_argument("--admin-port", type=port, metavar="PORT", help="port of its admin listener (default 8081)")


def run(arguments: Namespace) -> int:
    import http.client

    given = {"host": arguments.admin_host, "port": arguments.admin_port}
    admin = settings_from(
        arguments.config, {"admin": {name: value for name, value in given.items() if value is not None}}
    ).admin
    host = EVERY_ADDRESS.get(admin.host, admin.host)
    connection = http.client.HTTPConnection(host, admin.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/ready")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        reason = str(error) or type(error).__name__
        raise CommandError(f"no answer from {host}:{admin.port} ({reason}); is penstock serve running there?") from None
    finally:
        connection.close()
    if status != 200:
        raise CommandError(f"{host}:{admin.port} is not ready (status {status}); see its /admin/state")
    say("ready")
    return 0
