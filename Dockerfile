# The server in a container: docker build -t nemo-duplex . ; docs/serving.md tells how to run it.
# The agent is no part of the image: it is mounted, with a file of API keys.

FROM python:3.11-slim AS build
# gcc: some packages of NeMo are built here
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc g++ \
 && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/nemo_duplex
ENV PATH=/opt/nemo_duplex/bin:$PATH
WORKDIR /src
COPY constraints.txt setup.py pyproject.toml README.md LICENSE MANIFEST.in ./
# torch first, alone, from the index of its CPU builds; for GPUs: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" "$(grep '^torch==' constraints.txt)" \
 && pip install --no-cache-dir --constraint constraints.txt setuptools
COPY nemo_duplex nemo_duplex
COPY conf conf
RUN pip install --no-cache-dir --no-build-isolation --constraint constraints.txt '.[serve,webrtc]'

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 agent
COPY --from=build /opt/nemo_duplex /opt/nemo_duplex
COPY examples/serve.py /opt/nemo_duplex/serve.py
ENV PATH=/opt/nemo_duplex/bin:$PATH PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
USER agent
WORKDIR /home/agent
EXPOSE 8998
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8998/healthz', timeout=2)"]
# SIGTERM, which `docker stop` sends, lets open calls end: docker stop --time 60
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "/opt/nemo_duplex/serve.py", "host=0.0.0.0", "log=json"]
CMD ["model=/agent/agent.nemo", "api_keys=/agent/api_keys"]
