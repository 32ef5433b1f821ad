# docker build -t relay .          (or podman, buildah; see docs/containers.md)
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim
FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY pyproject.toml README.md ./
COPY relay relay
# pip stays behind: nothing in the result installs or builds anything
RUN python3 -m venv /opt/relay \
    && /opt/relay/bin/pip install --no-cache-dir --quiet '.[postgresql]' \
    && /opt/relay/bin/pip uninstall --yes --quiet pip setuptools

FROM ${PYTHON_IMAGE}
# nor do the base image's own pip and what could bring it back
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/site-packages/pip* /usr/local/lib/python3*/ensurepip \
    /usr/lib/python3*/ensurepip /usr/share/python-wheels
COPY --from=build /opt/relay /opt/relay
RUN useradd --system --uid 10001 --home-dir /var/lib/relay --shell /usr/sbin/nologin relay \
    && install -d -o relay -g relay -m 0700 /var/lib/relay
ENV PATH=/opt/relay/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    RELAY_SPOOL_URL=sqlite:////var/lib/relay/spool.db
USER 10001
WORKDIR /var/lib/relay
# accepted mail lives here: without a volume it goes with the container
VOLUME /var/lib/relay
EXPOSE 25 2525
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=20s --retries=3 CMD ["relay", "health"]
CMD ["relay", "run"]
