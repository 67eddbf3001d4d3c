# edgevit serve on ARM64, with onnxruntime alone:
# docker build -f export/docker/arm64.Dockerfile --platform linux/arm64 -t edgevit-serve .
FROM python:3.12-slim-bookworm AS build
COPY pyproject.toml README.md LICENSE constraints.txt /source/
COPY edgevit /source/edgevit
COPY export /source/export
COPY calibration /source/calibration
RUN python -m venv /opt/edgevit \
    && /opt/edgevit/bin/pip install --no-cache-dir -c /source/constraints.txt "/source[onnxruntime,serve,sign]"

FROM python:3.12-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin edgevit
COPY --from=build /opt/edgevit /opt/edgevit
# Nothing but an engine that is unpacked for TensorRT needs the cache, and nothing else is written.
ENV PATH=/opt/edgevit/bin:$PATH PYTHONDONTWRITEBYTECODE=1 EDGEVIT_CACHE=/tmp/edgevit
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=4)"]
# Started without a shell, so that SIGTERM reaches it, and it finishes what it has accepted.
ENTRYPOINT ["edgevit", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["/models/model.edgevit.zip"]
