"""From bytes to a ticket: the checks that need only the head, then the body, then tenant, model and class.

Head-only checks come first and in the order path, method, head, key, size, so that `100 Continue` is never granted to
a request that will be refused. Everything refused here raises `Rejected`; nothing here waits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Final
from urllib.parse import unquote

from proxy.adapters.inbound import Inbound, KnownHead
from proxy.adapters.tenant_counters import OTHER
from proxy.dispatcher import Dispatcher
from proxy.native import mypyc_attr
from proxy.server.errors import BY_CODE, BY_OUTCOME, INVALID, Refusal
from proxy.server.own_head import own_lines
from proxy.server.tenancy import Tenancy
from proxy.types import Outcome, Ticket
from proxy.wire.errors import BadRequest
from proxy.wire.facts import RequestFacts
from proxy.wire.headers import HeadFacts, HeadReader
from proxy.wire.multipart import MultipartScanner
from proxy.wire.openai import WHOLE_BYTES_MAX, read_body
from proxy.wire.priority import ClassChoice, ClassRule, TenantRule, choose_class
from proxy.wire.routes import MODEL_PREFIX, READ, Route, find_route, split_target
from proxy.wire.scan import BodyScanner

DRAIN_RETRY_S: Final = 5.0  # long enough for a load balancer to have noticed
HEAD_MAX_BYTES: Final = 64 * 1024  # nginx allows 4 x 8 kB, Envoy 60 kB
HEADER_MAX_BYTES: Final = 8 * 1024  # nginx's large_client_header_buffers
TARGET_MAX_BYTES: Final = HEADER_MAX_BYTES
HEADERS_MAX: Final = 128
VERSIONS: Final = frozenset({"1.0", "1.1"})
HEALTH: Final = b'{"status":"ok"}'


class Rejected(Exception):  # noqa: N818 - an ending of a request, not a fault
    """A request that ends here, with its row of the table of refusals."""

    def __init__(
        self,
        row: Refusal,
        retry_after_s: float | None = None,
        detail: str = "",
        param: str | None = None,
        allow: bytes = b"",
    ) -> None:
        super().__init__(row.code)
        self.row, self.retry_after_s, self.detail, self.param, self.allow = row, retry_after_s, detail, param, allow

    @classmethod
    def of(cls, bad: BadRequest) -> Rejected:
        known = BY_CODE.get(bad.code)
        row = (
            replace(known, status=bad.status, message=bad.message)
            if known is not None
            else Refusal(bad.status, INVALID, bad.code, bad.message, Outcome.BAD_REQUEST, retry=False)
        )
        return cls(row, param=bad.param)


def head_fault(inbound: Inbound) -> Refusal | None:
    """The row for a head, whole or still coming, that is beyond its bounds."""
    if inbound.head_bytes > HEADER_MAX_BYTES:
        if len(inbound.target) > TARGET_MAX_BYTES:
            return BY_CODE["uri_too_long"]
        if any(len(name) + len(value) > HEADER_MAX_BYTES for name, value in inbound.headers):
            return BY_CODE["header_too_large"]
        if sum(len(name) + len(value) for name, value in inbound.headers) > HEAD_MAX_BYTES:
            return BY_CODE["header_too_large"]
    return BY_CODE["header_too_large"] if len(inbound.headers) > HEADERS_MAX else None


@dataclass(frozen=True, slots=True)
class IntakeConfig:
    """Bounds in bytes, seconds and bytes per second; classes highest first."""

    classes: tuple[ClassRule, ...]
    max_body_bytes: int = 33_554_432
    body_timeout_s: float = 60.0
    body_min_bytes_per_s: float = 65_536.0
    max_choices: int = 128


@mypyc_attr(allow_interpreted_subclasses=True)
class Models(ABC):
    """What is known of the models behind the proxy. No protocol: compiled, those are called by name."""

    @abstractmethod
    def knows(self, model: str) -> bool: ...
    @abstractmethod
    def sole_model(self) -> str: ...
    @abstractmethod
    def listing(self, model: str | None) -> bytes | None: ...
    @abstractmethod
    def retry_after_s(self) -> float: ...


class Intake:
    """Turns requests into tickets. Replaced as a whole by a reload."""

    def __init__(
        self,
        config: IntakeConfig,
        tenancy: Tenancy,
        heads: HeadReader,
        models: Models,
        account: Dispatcher,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        ticket_ids: count[int],
    ) -> None:
        self.config, self.tenancy, self.heads, self.models = config, tenancy, heads, models
        self.account, self.clock, self.new_id = account, clock, new_id
        self.ticket_ids = ticket_ids
        self.draining = False
        self._model = self._shown = ""  # of the last ticket, and how logs and labels name it

    # ---- head ----
    def check_head(self, inbound: Inbound) -> bytes | None:
        """Raise `Rejected`, or return a local answer (health, models), or None: the body decides."""
        try:
            return self._check_head(inbound)
        except BadRequest as bad:
            raise Rejected.of(bad) from None

    def _check_head(self, inbound: Inbound) -> bytes | None:
        fault = head_fault(inbound)
        if fault is not None:
            raise Rejected(fault)
        if inbound.version not in VERSIONS:
            raise Rejected(BY_CODE["http_version_not_supported"])
        if inbound.method in (b"CONNECT", b"TRACE"):
            raise Rejected(BY_CODE["not_implemented"])
        path, _ = split_target(inbound.target)
        route = inbound.route = find_route(path)
        if route is None and path != b"/health":
            raise Rejected(BY_CODE["not_found"])
        if inbound.method not in (route.methods if route is not None else READ):
            raise Rejected(BY_CODE["method_not_allowed"], allow=route.allow if route is not None else b"GET, HEAD")
        head = inbound.head = self.heads.read(inbound.headers, inbound.version == "1.1")
        inbound.headers = []
        inbound.request_id = head.request_id or self.new_id()
        if route is None:
            return self._local(inbound, HEALTH)
        rule = inbound.rule = self.tenancy.find(head, inbound.client_ip)
        if rule is None:
            raise Rejected(BY_OUTCOME[Outcome.AUTH])
        inbound.tenant = rule.name
        if self.draining:
            raise Rejected(BY_OUTCOME[Outcome.SHUTTING_DOWN], retry_after_s=DRAIN_RETRY_S)
        if route.local:
            return self._models(inbound, path)
        if (head.content_length or 0) > self.config.max_body_bytes:
            raise Rejected(BY_CODE["body_too_large"])
        inbound.body_started_s = self.clock()
        return None

    def _models(self, inbound: Inbound, path: bytes) -> bytes:
        name = path[len(MODEL_PREFIX) :].decode("ascii") if len(path) > len(MODEL_PREFIX) else None
        body = self.models.listing(unquote(name) if name is not None else None)
        if body is None:
            raise Rejected(BY_CODE["model_not_found"])
        return self._local(inbound, body)

    def _local(self, inbound: Inbound, body: bytes) -> bytes:
        identity = inbound.request_id.encode()
        head = b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\nx-request-id: %b\r\nrequest-id: %b\r\n%b\r\n" % (
            own_lines(),
            len(body),
            identity,
            identity,
            b"" if inbound.keep_alive else b"connection: close\r\n",
        )
        return head if inbound.method == b"HEAD" else head + body

    # ---- body ----
    def body_deadline_s(self, inbound: Inbound) -> float:
        """Absolute: a fixed time plus the time that the body's bytes may take at the slowest rate allowed."""
        size = inbound.declared_bytes if inbound.declared_bytes is not None else inbound.body_bytes
        return inbound.body_started_s + self.config.body_timeout_s + size / self.config.body_min_bytes_per_s

    def check_size(self, inbound: Inbound) -> None:
        if inbound.body_bytes > self.config.max_body_bytes:
            raise Rejected(BY_CODE["body_too_large"])

    def read_body(self, inbound: Inbound) -> Ticket | None:
        """A ticket as soon as enough of the body is here; None: more must come."""
        self.check_size(inbound)
        if not inbound.count_body(self.account):
            raise Rejected(BY_OUTCOME[Outcome.QUEUE_FULL], retry_after_s=self.models.retry_after_s())
        route = inbound.route
        assert route is not None
        try:
            if inbound.known is not None and inbound.body_bytes <= WHOLE_BYTES_MAX:
                return self._ticket(inbound, route, read_body(inbound.body[0], route, self.config.max_choices))
            facts = self._read_facts(inbound, route)
        except BadRequest as bad:
            raise Rejected.of(bad) from None
        return None if facts is None else self._ticket(inbound, route, facts)

    def _read_facts(self, inbound: Inbound, route: Route) -> RequestFacts | None:
        if inbound.scanner is None:
            if route.multipart:
                assert inbound.head is not None
                if inbound.head.boundary is None:
                    raise Rejected(BY_CODE["invalid_header"], detail="This path takes multipart/form-data.")
                inbound.scanner = MultipartScanner(inbound.head.boundary)
            elif inbound.complete and inbound.body_bytes <= WHOLE_BYTES_MAX:
                body = inbound.body[0] if len(inbound.body) == 1 else b"".join(inbound.body)
                inbound.body = [body]
                return read_body(body, route, self.config.max_choices)
            elif inbound.body_bytes <= WHOLE_BYTES_MAX:
                return None
            else:
                inbound.scanner = BodyScanner(route, self.config.max_choices)
        scanner = inbound.scanner
        while inbound.scanned_pieces < len(inbound.body):
            scanner.feed(inbound.body[inbound.scanned_pieces])
            inbound.scanned_pieces += 1
        if isinstance(scanner, MultipartScanner):
            return scanner.facts(inbound.complete, route, inbound.body_bytes)
        return scanner.finish() if inbound.complete else None

    # ---- ticket ----
    def _ticket(self, inbound: Inbound, route: Route, facts: RequestFacts) -> Ticket:
        head, rule = inbound.head, inbound.rule
        assert head is not None and rule is not None
        model = facts.model or self.models.sole_model()
        if not model:
            raise Rejected(BY_CODE["invalid_value"], detail="The field model is required.", param="model")
        if not self.models.knows(model):
            inbound.model = OTHER  # the name itself came from outside and is nobody's
            raise Rejected(BY_CODE["model_not_found"], param="model")
        if rule.models is not None and model not in rule.models:
            raise Rejected(BY_CODE["model_not_allowed"], param="model")
        choice = self._choice(inbound.known, rule, head, facts)
        class_index = choice.class_index
        if model != self._model:  # most often it is the one before
            self._model, self._shown = model, model if model.isascii() and model.isprintable() else OTHER
        inbound.model = self._shown
        inbound.streaming = facts.stream
        inbound.class_name = self.config.classes[class_index].name
        inbound.clamped, inbound.unknown_priority = choice.clamped, choice.unknown
        inbound.priority_span = facts.priority_span
        now, deadline_s = self.clock(), None
        if head.timeout_s is not None:
            deadline_s = inbound.received_s + head.timeout_s
            if deadline_s <= now:
                raise Rejected(BY_OUTCOME[Outcome.DEADLINE_EXCEEDED])
        return Ticket(
            next(self.ticket_ids), rule.name, class_index, model, route.work, facts.stream, facts.estimate,
            inbound.body_bytes, now, deadline_s, facts.retryable and inbound.complete,
        )  # fmt: skip

    def _choice(self, known: KnownHead | None, rule: TenantRule, head: HeadFacts, facts: RequestFacts) -> ClassChoice:
        """The class; that of a known head stands as long as no body asks for another one."""
        if known is None or facts.priority is not None or facts.service_tier is not None or facts.odd_class:
            return choose_class(self.config.classes, rule, head.priorities, facts)
        if known.choice is None:
            known.choice = choose_class(self.config.classes, rule, head.priorities, facts)
        return known.choice
