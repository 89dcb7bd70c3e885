# One node of a cluster, or the command with which to speak to one: `docker run lessor serve ...`, `docker run lessor status ...`.
FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# The dependencies first, in a layer of their own: they change far less often than the sources.
WORKDIR /build
COPY pyproject.toml ./
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
    print(*project['dependencies'], *project['optional-dependencies']['server'], sep='\n')" > requirements.txt \
    && pip install -r requirements.txt

COPY . ./
RUN pip install '.[server]' && rm -rf /build

# A node needs no rights but to its own data. A named volume takes its owner from this folder.
RUN useradd --system --uid 10001 --no-create-home lessor && install -d -o lessor -g lessor /data
USER lessor
WORKDIR /data
VOLUME /data

# Inside a container the node is reached from outside of it, so it listens on every address.
ENV LESSOR_DATA=/data LESSOR_BIND=0.0.0.0
# Clients, and the next four for the peers' proposer, acceptor and learner, and the event feed.
EXPOSE 7411 7412 7413 7414 7415

HEALTHCHECK --interval=5s --timeout=5s --start-period=10s \
    CMD ["lessor", "status", "--endpoints", "tcp://127.0.0.1:7411", "--json"]
ENTRYPOINT ["lessor"]
CMD ["serve"]
