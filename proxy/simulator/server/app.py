"""The simulated engine as an OpenAI-compatible HTTP server that monitoring takes for vLLM.

Every answer says that it is simulated: in its text, in the `server` header, in `owned_by` and in /version.
A client that goes away is aborted in the engine at once: aiohttp cancels its handler when the connection is lost.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any, Protocol

import orjson
from aiohttp import web

import proxy.simulator.server.bodies as bodies
import proxy.simulator.server.passes as passes
from proxy import __version__
from proxy.simulator.engine import Engine
from proxy.simulator.profiles import EngineProfile
from proxy.simulator.server.bodies import Asked, Field, RefusedError
from proxy.simulator.server.event_answers import MessagesAnswer, ResponsesAnswer, SpeechAnswer
from proxy.simulator.server.exposition import CONTENT_TYPE, exposition
from proxy.simulator.server.faults import Faults
from proxy.simulator.server.loop import EngineLoop, Piece
from proxy.simulator.server.openai_answers import ChatAnswer, CompletionAnswer, Identity
from proxy.simulator.server.streams import CutStream, FrameStream
from proxy.simulator.server.text import text_of

BODY_BYTES_MAX = 64 * 1024 * 1024  # a long context with images inside
TRANSCRIPT_TOKENS_MAX = 448  # Whisper's decoder
AUDIO_BYTES_PER_TOKEN = 640  # 20 ms of 16 kHz, 16 bit
SERVER = "penstock-simulator"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Answer(Protocol):
    """One dialect's bytes for one request, in the order in which a stream sends them."""

    content_type: str

    def preamble(self) -> bytes: ...
    def stream(self, index: int, transport: Any, chunked: bool) -> FrameStream: ...
    def closing(self) -> bytes: ...


class WholeAnswer(Answer, Protocol):
    def whole(self) -> dict[str, Any]: ...


def json_response(value: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")


class Simulator:
    """One engine and the handlers of its routes."""

    def __init__(self, profile: EngineProfile, speed: float, seed: int) -> None:
        self.profile = profile
        self.loop = EngineLoop(Engine(profile, bodies.seeded(seed)), speed)
        self.faults = Faults()
        self._lengths = bodies.seeded(seed + 1)
        self._answers = 0
        self._started = int(time.time())

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        yield "GET", "/v1/models", self.models
        yield "GET", "/health", self.health
        yield "GET", "/version", self.version
        yield "GET", "/metrics", self.metrics
        yield "GET", "/sim/control", self.control
        yield "POST", "/sim/control", self.control
        yield "POST", "/tokenize", self.tokenize
        yield "POST", "/detokenize", self.detokenize
        yield "POST", "/v1/messages/count_tokens", self.count_tokens
        inference: dict[str, Handler] = {
            "/v1/chat/completions": self.generation(bodies.CHAT, ChatAnswer),
            "/v1/completions": self.generation(bodies.COMPLETIONS, CompletionAnswer),
            "/v1/responses": self.generation(bodies.RESPONSES, ResponsesAnswer),
            "/v1/messages": self.generation(bodies.MESSAGES, MessagesAnswer),
            "/v1/audio/speech": self.speech,
            "/v1/audio/transcriptions": self.transcription,
            "/v1/embeddings": self.embeddings,
            **dict.fromkeys(("/v1/rerank", "/rerank"), self.rerank),
            **dict.fromkeys(("/v1/score", "/score"), self.score),
        }
        for path, handler in inference.items():
            yield "POST", path, self.failing(handler)

    def failing(self, handler: Handler) -> Handler:
        """Inference routes alone suffer the faults that `/sim/control` asks for."""

        async def answer(request: web.Request) -> web.StreamResponse:
            if (status := self.faults.next_failure()) is not None:
                raise RefusedError(status, "simulated_failure", "a failure asked for by /sim/control")
            if self.faults.next_reset() and request.transport is not None:
                request.transport.abort()
            return await handler(request)

        return answer

    def identity(self) -> Identity:
        self._answers += 1
        return Identity(self._answers, self.profile.model, int(time.time()))

    async def read(self, request: web.Request) -> dict[str, Any]:
        body = bodies.parse(await request.read())
        self.check_model(body.get("model"))
        return body

    def check_model(self, model: object) -> None:
        if model not in (None, self.profile.model):
            raise RefusedError(404, "model_not_found", f"The model `{model}` does not exist.", "model")

    def generation(self, field: Field, dialect: Callable[[Asked, Identity], WholeAnswer]) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            body = await self.read(request)
            asked = bodies.read_generation(body, field, self.profile, self._lengths)
            answer = dialect(asked, self.identity())
            if asked.stream:
                return await self.streamed(request, asked, answer)
            await self.computed(asked)
            return json_response(answer.whole())

        return handler

    async def computed(self, asked: Asked) -> None:
        job = self.loop.submit(asked.pieces, asked.priority)
        try:
            await job.done
        finally:
            job.abort()

    async def streamed(self, request: web.Request, asked: Asked, answer: Answer) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": answer.content_type, "cache-control": "no-cache"})
        chunked = request.version >= (1, 1)
        if chunked:
            response.enable_chunked_encoding()
        await response.prepare(request)
        if preamble := answer.preamble():
            await response.write(preamble)
        transport = request.transport
        assert transport is not None, "a lost connection cancels its handler"
        cut = self.faults.next_cut()
        pieces = []
        for index, piece in enumerate(asked.pieces):
            stream = answer.stream(index, transport, chunked)
            pieces.append(replace(piece, stream=stream if cut is None else CutStream(stream, transport, cut)))
        await self.computed(replace(asked, pieces=tuple(pieces)))
        await response.write(answer.closing())
        await response.write_eof()
        return response

    async def speech(self, request: web.Request) -> web.StreamResponse:
        asked = bodies.read_generation(await self.read(request), bodies.SPEECH, self.profile, self._lengths)
        return await self.streamed(request, asked, SpeechAnswer(asked, self.identity()))

    async def transcription(self, request: web.Request) -> web.Response:
        form = await request.post()
        self.check_model(form.get("model"))
        upload = form.get("file")
        if not isinstance(upload, web.FileField):
            raise bodies.invalid("file", "an uploaded file")
        sound_bytes = upload.file.seek(0, 2)
        prompt_tokens = max(1, -(-sound_bytes // AUDIO_BYTES_PER_TOKEN))
        bodies.fit(prompt_tokens + 1, self.profile)
        cap = min(TRANSCRIPT_TOKENS_MAX, self.profile.request_tokens_max - prompt_tokens)
        piece = Piece(prompt_tokens, *bodies.draw({}, cap, self.profile, self._lengths))
        await self.computed(Asked(False, False, 0, (piece,), prompt_tokens))
        text = text_of(piece.output_tokens)
        if form.get("response_format") == "text":
            return web.Response(text=text)
        return json_response({"text": text, "usage": {"type": "duration", "seconds": -(-sound_bytes // 32_000)}})

    async def embeddings(self, request: web.Request) -> web.Response:
        body = await self.read(request)
        asked = bodies.read_passes(body, bodies.texts(body, "input"), self.profile)
        answer = passes.embeddings(body, asked, self.profile.model)
        await self.computed(asked)
        return json_response(answer)

    async def rerank(self, request: web.Request) -> web.Response:
        body = await self.read(request)
        documents = bodies.texts(body, "documents")
        pairs: list[object] = [[body.get("query"), document] for document in documents]
        asked = bodies.read_passes(body, pairs, self.profile)
        answer = passes.rerank(documents, body, asked, self.profile.model)
        await self.computed(asked)
        return json_response(answer)

    async def score(self, request: web.Request) -> web.Response:
        body = await self.read(request)
        pairs = passes.score_pairs(bodies.texts(body, "text_1"), bodies.texts(body, "text_2"))
        asked = bodies.read_passes(body, pairs, self.profile)
        await self.computed(asked)
        return json_response(passes.score(asked, self.profile.model))

    async def tokenize(self, request: web.Request) -> web.Response:
        body = await self.read(request)
        prompt = body.get("prompt")
        if not isinstance(prompt, str):
            raise bodies.invalid("prompt", "text")
        tokens = passes.encode(prompt)
        room = self.profile.request_tokens_max
        return json_response({"count": len(tokens), "max_model_len": room, "tokens": tokens, "token_strs": None})

    async def detokenize(self, request: web.Request) -> web.Response:
        tokens = (await self.read(request)).get("tokens")
        if not isinstance(tokens, list):
            raise bodies.invalid("tokens", "a list of ids")
        return json_response({"prompt": passes.decode(tokens)})

    async def count_tokens(self, request: web.Request) -> web.Response:
        body = await self.read(request)
        return json_response({"input_tokens": bodies.tokens_of([body.get("system"), body.get("messages")])})

    async def models(self, request: web.Request) -> web.Response:
        model = {
            "id": self.profile.model,
            "object": "model",
            "created": self._started,
            "owned_by": SERVER,
            "root": self.profile.model,
            "parent": None,
            "max_model_len": self.profile.request_tokens_max,
        }
        return json_response({"object": "list", "data": [model]})

    async def health(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if self.faults.healthy else 503)

    async def version(self, request: web.Request) -> web.Response:
        return json_response({"version": f"{__version__}+{SERVER}"})

    async def metrics(self, request: web.Request) -> web.Response:
        text = exposition(self.loop.engine, self.loop.ended)
        return web.Response(body=text.encode(), headers={"content-type": CONTENT_TYPE})

    async def control(self, request: web.Request) -> web.Response:
        engine = self.loop.engine
        if request.method == "POST":
            try:
                self.faults.change(bodies.parse(await request.read()))
            except ValueError as error:
                raise RefusedError(400, "invalid_value", str(error)) from None
            engine.slowdown = self.faults.slowdown
            self.loop.abort_delay_s = self.faults.abort_delay_s
            self.loop.stall(self.faults.stall)
        state = {"running": engine.running, "waiting": engine.waiting, "aborted": engine.counters.aborted}
        return json_response({"faults": self.faults.state(), **state})


def error_response(request: web.Request, refusal: RefusedError) -> web.Response:
    anthropic = request.path.startswith("/v1/messages")
    headers = {"retry-after": "1"} if refusal.status in (429, 503) else None
    return web.Response(
        body=refusal.body(anthropic), status=refusal.status, content_type="application/json", headers=headers
    )


@web.middleware
async def shaped_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RefusedError as refusal:
        return error_response(request, refusal)
    except web.HTTPException as error:
        code = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}.get(error.status, "invalid_request")
        answer = error_response(request, RefusedError(error.status, code, error.reason))
        answer.headers.extend({name: value for name, value in error.headers.items() if name == "Allow"})
        return answer
    except ConnectionResetError:  # the client left while its answer was written; what is given back goes nowhere
        return web.Response()


async def name_itself(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["server"] = SERVER


def create_app(profile: EngineProfile, speed: float = 1.0, seed: int = 0) -> web.Application:
    """The server as an aiohttp application; serve it with `handler_cancellation` so that lost clients are aborted.

    `speed` divides all waiting; the same `seed` draws the same output lengths and step noise.
    """
    simulator = Simulator(profile, speed, seed)
    app = web.Application(middlewares=[shaped_errors], client_max_size=BODY_BYTES_MAX)
    app.on_response_prepare.append(name_itself)
    for method, path, handler in simulator.routes():
        app.router.add_route(method, path, handler)

    async def close(app: web.Application) -> None:
        simulator.loop.close()

    app.on_cleanup.append(close)
    return app
