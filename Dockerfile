# The code location with web UI and daemon. For a GPU: --build-arg TORCH="torch==2.13.0" --build-arg EXTRAS=ui,vllm,kernels
# For more than one machine (docs/deployment.md): EXTRAS=ui,cluster
FROM python:3.11-slim

ARG TORCH="torch==2.13.0+cpu --index-url https://download.pytorch.org/whl/cpu"
ARG EXTRAS=ui

RUN useradd --create-home --uid 1000 dasd && mkdir -p /opt/dasd /data && chown dasd:dasd /opt/dasd /data
WORKDIR /opt/dasd

# bubblewrap: the sandbox of programs that models write. What the container must be allowed for it: docs/verifiers.md.
# g++: vLLM compiles kernels as it loads a model.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bubblewrap \
    && case "$EXTRAS" in *vllm*) apt-get install --yes --no-install-recommends g++ libc6-dev ;; esac \
    && rm -rf /var/lib/apt/lists/*

# Dependencies first: they change seldom, the source often.
RUN pip install --no-cache-dir --no-deps ${TORCH}
COPY pyproject.toml constraints.txt README.md ./
RUN mkdir dasd dasd_assets dasd_resources && touch dasd/__init__.py dasd_assets/__init__.py dasd_resources/__init__.py \
    && pip install --no-cache-dir ".[${EXTRAS}]" --constraint constraints.txt \
    && pip uninstall --yes dasd && rm -rf dasd dasd_assets dasd_resources build

COPY dasd dasd
COPY dasd_assets dasd_assets
COPY dasd_resources dasd_resources
COPY workspace.yaml ./
COPY deploy/workspace.yaml deploy/workspace.yaml
RUN pip install --no-cache-dir --no-deps --editable .

USER 1000:1000
# The hub's cache is in the home, too: models and kernels that one container fetched are there for all, and stay.
ENV DASD_HOME=/data DAGSTER_HOME=/data/dagster HF_HOME=/data/hub HF_HUB_DISABLE_TELEMETRY=1
VOLUME /data
EXPOSE 3000
HEALTHCHECK --interval=30s --start-period=60s --timeout=5s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:3000/server_info', timeout=4)"]
# In exec form: `dasd ui` is the first process, gets the container's SIGTERM itself, and ends all others in order.
# Inside the container the UI must listen on all interfaces; publish it on the host's loopback: -p 127.0.0.1:3000:3000
CMD ["dasd", "ui", "--host", "0.0.0.0"]
