# The coordinating centre. Build from the repository's root:
#   docker build -f docker/server.Dockerfile -t wardround-server .
# The base is pinned by version. Who has a registry pins it by digest as well:
#   --build-arg BASE=docker.io/library/python:3.11.14-slim-bookworm@sha256:...
ARG BASE=docker.io/library/python:3.11.14-slim-bookworm

FROM ${BASE} AS packages
# Where torch comes from; empty: where pip looks for everything.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
COPY constraints.txt ./
# The environment has no pip of its own, so the last stage has none either.
RUN python3.11 -m venv --without-pip /opt/wardround \
 && python3.11 -m pip --python /opt/wardround/bin/python install --no-cache-dir --no-deps \
    ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} -c constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY common common
COPY configs configs
COPY server server
RUN python3.11 -m pip --python /opt/wardround/bin/python install --no-cache-dir \
    -c constraints.txt .

FROM ${BASE} AS server
RUN rm -rf /usr/local/lib/python3.11/site-packages/* /usr/local/bin/pip* \
 && groupadd --gid 10001 wardround-server \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp \
    --shell /usr/sbin/nologin wardround-server \
 && install -d -o 10001 -g 10001 -m 0700 /federation
COPY --from=packages /opt/wardround /opt/wardround
COPY docker/health.py /opt/wardround/health.py
ENV PATH=/opt/wardround/bin:$PATH \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    WARDROUND_HOME=/federation
USER 10001:10001
WORKDIR /federation
EXPOSE 8443
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "/opt/wardround/health.py", "127.0.0.1:8081", "", "link", "exec"]
CMD ["wardround-server", "start"]
