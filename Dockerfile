# The image holds a virtual environment with pinned dependencies and the compiled wheel; nothing of the build remains.
FROM python:3.13-slim AS build
WORKDIR /src
RUN apt-get update -qq \
 && apt-get install -qq --yes --no-install-recommends gcc libc6-dev >/dev/null \
 && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/penstock
COPY requirements.lock ./
RUN /opt/penstock/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY config config
COPY grafana grafana
COPY proxy proxy
RUN PENSTOCK_COMPILE=1 pip wheel --no-cache-dir --no-deps --wheel-dir /wheel . \
 && /opt/penstock/bin/pip install --no-cache-dir --no-deps /wheel/*.whl

FROM python:3.13-slim
LABEL org.opencontainers.image.title="penstock" \
      org.opencontainers.image.description="Adaptive batching proxy for LLM inference servers" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin penstock
COPY --from=build /opt/penstock /opt/penstock
ENV PATH=/opt/penstock/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /tmp
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=8s --start-period=15s --retries=3 CMD ["penstock", "healthcheck"]
ENTRYPOINT ["penstock"]
CMD ["serve"]
