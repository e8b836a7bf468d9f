# The two halves of a hospital. Build from the repository's root:
#   docker build -f docker/site.Dockerfile --target courier -t wardround-courier .
#   docker build -f docker/site.Dockerfile --target trainer -t wardround-trainer .
# For a GPU, torch's CUDA wheels bring all but the driver:
#   --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130
# Another base (one with CUDA, say) must have python3.11 with venv and pip:
#   --build-arg BASE=...
# The base is pinned by version. Who has a registry pins it by digest as well.
ARG BASE=docker.io/library/python:3.11.14-slim-bookworm

FROM ${BASE} AS courier-packages
WORKDIR /src
COPY constraints.txt docker/courier.txt pyproject.toml README.md LICENSE ./
COPY client client
COPY common common
COPY configs configs
# No torch, no MONAI, no Opacus: only what the courier imports (docker/courier.txt).
RUN python3.11 -m venv --without-pip /opt/wardround \
 && python3.11 -m pip --python /opt/wardround/bin/python install --no-cache-dir --no-deps \
    -c constraints.txt -r courier.txt .

FROM ${BASE} AS trainer-packages
# Where torch comes from; empty: where pip looks for everything.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
COPY constraints.txt ./
RUN python3.11 -m venv --without-pip /opt/wardround \
 && python3.11 -m pip --python /opt/wardround/bin/python install --no-cache-dir --no-deps \
    ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} -c constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY common common
COPY configs configs
RUN python3.11 -m pip --python /opt/wardround/bin/python install --no-cache-dir \
    -c constraints.txt '.[clinical]'

# What both halves have: their users, and the folder of the socket between them. The folder gives
# its group (10010, the courier's) to the socket, so the trainer need not be in that group.
FROM ${BASE} AS users
RUN rm -rf /usr/local/lib/python3.11/site-packages/* /usr/local/bin/pip* \
 && groupadd --gid 10010 wardround-socket \
 && groupadd --gid 10003 wardround-trainer \
 && useradd --uid 10002 --gid 10010 --no-create-home --home-dir /tmp \
    --shell /usr/sbin/nologin wardround-courier \
 && useradd --uid 10003 --gid 10003 --no-create-home --home-dir /tmp \
    --shell /usr/sbin/nologin wardround-trainer
ENV PATH=/opt/wardround/bin:$PATH \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /site

FROM users AS courier
RUN install -d -o 10002 -g 10010 -m 0700 /site /site/state \
 && install -d -o 10003 -g 10010 -m 2750 /site/state/trainer
COPY --from=courier-packages /opt/wardround /opt/wardround
USER 10002:10010
HEALTHCHECK --interval=30s --timeout=15s --start-period=60s --retries=3 \
    CMD ["wardround-site", "status"]
CMD ["wardround-site", "start", "--no-trainer"]

FROM users AS trainer
RUN install -d -o 10003 -g 10003 -m 0700 /site /site/state \
 && install -d -o 10003 -g 10010 -m 2750 /site/state/trainer
COPY --from=trainer-packages /opt/wardround /opt/wardround
COPY docker/health.py /opt/wardround/health.py
USER 10003:10003
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "/opt/wardround/health.py", "unix:/site/state/trainer/trainer.sock"]
CMD ["wardround-site", "trainer"]
