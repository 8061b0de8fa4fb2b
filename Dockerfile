FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY distributor distributor
COPY config config
COPY posts posts
COPY templates templates
# hatchling is taken by name, not from the lock: nothing of it reaches the second stage.
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
ENV PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /app
COPY requirements.lock ./
RUN pip install --require-hashes -r requirements.lock
COPY --from=build /wheels /tmp/wheels
RUN pip install --no-deps /tmp/wheels/*.whl
COPY config config
COPY posts posts
COPY templates templates
# A named volume takes the owner of the folder it is first mounted on, so these exist before anything is mounted.
RUN useradd --system --no-create-home --uid 10001 distributor \
    && mkdir -p var /data/inbox \
    && chown distributor var /data/inbox
USER distributor
# Each service of docker-compose.yml has a health check of its own; none fits all of them.
HEALTHCHECK NONE
ENTRYPOINT ["distributor"]
CMD ["--help"]
