"""What each engine tells about itself. `ENGINES[name]` for the names that the setting `engine` may have, but `auto`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from proxy.adapters.engines.base import Engine
from proxy.adapters.engines.dynamo import Dynamo
from proxy.adapters.engines.llamacpp import Llamacpp
from proxy.adapters.engines.ollama import Ollama
from proxy.adapters.engines.openai import OpenAi
from proxy.adapters.engines.sglang import Sglang
from proxy.adapters.engines.tgi import Tgi
from proxy.adapters.engines.trtllm import Trtllm
from proxy.adapters.engines.vllm import Vllm

_ALL: tuple[Engine, ...] = (Vllm(), Sglang(), Trtllm(), Dynamo(), Tgi(), Llamacpp(), Ollama(), OpenAi())
ENGINES: Mapping[str, Engine] = MappingProxyType({engine.name: engine for engine in _ALL})
