# docker build -t relay .
# As a sidecar the environment is enough; see docs/connect-sidecar.md.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md ./
COPY relay relay
RUN python -m venv /opt/relay && /opt/relay/bin/pip install --no-cache-dir --quiet '.[postgresql]'

FROM python:3.13-slim
COPY --from=build /opt/relay /opt/relay
RUN useradd --system --uid 10001 --home-dir /var/lib/relay --shell /usr/sbin/nologin relay \
    && install -d -o relay -g relay -m 0700 /var/lib/relay
ENV PATH=/opt/relay/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    RELAY_SPOOL_URL=sqlite:////var/lib/relay/spool.db
USER relay
WORKDIR /var/lib/relay
# accepted mail lives here: without a volume it goes with the container
VOLUME /var/lib/relay
EXPOSE 25 2525
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=20s --retries=3 CMD ["relay", "health"]
CMD ["relay", "run"]
