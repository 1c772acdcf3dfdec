# One image for the MLflow server and the trainer, so that both have the same MLflow.
#
#   docker build --tag watkins-ml:0.1.0-cpu --build-arg TORCH_INDEX=... .
#   docker build --tag watkins-ml:0.1.0-cuda --build-arg VARIANT=cuda .
#
# TORCH_INDEX is PyTorch's own index of CPU or CUDA wheels (pytorch.org, "Get started"). Without it the default package
# index is used, whose Linux wheels for x86 carry CUDA: they run on a CPU too, and take some gigabytes more.
# BASE (docker/pin-images.sh) may be any image with Python 3.11 or newer and its venv module.
ARG BASE=python:3.12.13-slim-bookworm@sha256:8a7e7cc04fd3e2bd787f7f24e22d5d119aa590d429b50c95dfe12b3abe52f48b

# The list of dependencies alone, so that another change of pyproject.toml does not install them again.
FROM ${BASE} AS dependencies
COPY pyproject.toml /
RUN python3 -c "import tomllib; file = tomllib.load(open('/pyproject.toml', 'rb')); project = file['project']; \
    print(*file['build-system']['requires'], *project['dependencies'], \
    *project['optional-dependencies']['service'], sep='\n')" > /requirements.txt

FROM ${BASE}
ARG VARIANT=cpu
ARG TORCH_INDEX=
RUN case "$VARIANT" in cpu | cuda) ;; *) echo "VARIANT is cpu or cuda, not '$VARIANT'" >&2; exit 1 ;; esac

ENV PATH=/opt/watkins/bin:$PATH PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
COPY --from=dependencies /requirements.txt /opt/build/
COPY constraints.txt /opt/build/
RUN set -eu; cd /opt/build; python3 -m venv /opt/watkins; \
    if [ -n "$TORCH_INDEX" ]; then \
        pip install --index-url "$TORCH_INDEX" --no-deps --constraint constraints.txt torch torchvision torchaudio; \
    fi; \
    pip install --constraint constraints.txt --requirement requirements.txt; \
    has=$(python -c "import torch; print('cuda' if torch.version.cuda else 'cpu')"); \
    case "$VARIANT-$has-$TORCH_INDEX" in \
        cuda-cpu-*) echo "this torch has no CUDA; give a TORCH_INDEX of CUDA wheels" >&2; exit 1 ;; \
        cpu-cuda-?*) echo "this torch has CUDA; give a TORCH_INDEX of CPU wheels" >&2; exit 1 ;; \
    esac

COPY . /opt/build/
RUN pip install --no-deps --no-build-isolation /opt/build \
    && mkdir /work && cp -r /opt/build/experiments /work/ && rm -r /opt/build

# Any user id works: the home is everybody's, and USER stands in where an id has no name.
RUN useradd --uid 1000 --home-dir /home/watkins watkins \
    && install --directory --mode=1777 /home/watkins /home/watkins/.cache /work \
    && install --directory --owner=watkins --group=watkins /srv/artifacts
ENV HOME=/home/watkins USER=watkins MPLCONFIGDIR=/home/watkins/.cache/matplotlib
USER watkins
WORKDIR /work
ENTRYPOINT ["watkins"]
CMD ["--help"]
