# An image with replicad and nothing of an application. Build on it, or copy the wheel out of it (README.md):
#
#   docker build -t replicad:0.1.0 .
#
# The base is pinned by tag. A digest pins harder: replace the tag by name@sha256:... as your registry shows it;
# none is written here because it could not be looked up where this file was written.
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY replicad ./replicad
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /dist .
# A virtual environment without pip of its own: every dependency comes as a wheel, so no compiler is needed.
RUN python -m venv --without-pip /opt/replicad \
 && python -m pip --python /opt/replicad/bin/python install --no-cache-dir --only-binary :all: "$(echo /dist/*.whl)[encryption]" \
 && /opt/replicad/bin/replicad version

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/replicad /opt/replicad
COPY --from=build /dist /opt/replicad/dist
# A link instead of a PATH entry: the application's own `python` and `pip` stay the ones of its base image.
RUN ln -s /opt/replicad/bin/replicad /usr/local/bin/replicad \
 && groupadd --gid 10001 replicad \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin replicad \
 && install --directory --owner=replicad --group=replicad --mode=0750 /data
USER 10001:10001
WORKDIR /data
# /healthz is about the process alone and never asks the bucket: an outage of the bucket must not restart the
# application. The port follows REPLICAD_HTTP_LISTEN; `localhost` finds a listener on either family.
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
  CMD ["python3", "-c", "import os, urllib.request; port = os.environ.get('REPLICAD_HTTP_LISTEN', '127.0.0.1:9090').rpartition(':')[2]; urllib.request.urlopen(f'http://localhost:{port}/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
# The command of the container follows: `docker run … replicad:0.1.0 python3 app.py`. Without one it is a sidecar.
ENTRYPOINT ["replicad", "run", "--"]
