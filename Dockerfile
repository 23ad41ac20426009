# docker build --tag hsam .                              computes on the CPU
# docker build --tag hsam --build-arg DEVICE=cuda .      on NVIDIA's GPUs too; the image is larger
FROM python:3.12-slim-bookworm

ARG DEVICE=cpu
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# git: DVC and Snakemake's reports ask it for the commit
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/hsam
COPY requirements.txt ./
# PyTorch alone differs: pip's own build brings CUDA along
RUN case "$DEVICE" in \
        cpu) pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu \
            "$(grep '^torch==' requirements.txt)" ;; \
        cuda) ;; \
        *) echo "DEVICE=$DEVICE: expected cpu or cuda" >&2; exit 2 ;; \
    esac
RUN pip install --no-cache-dir --requirement requirements.txt \
    snakemake-executor-plugin-cluster-generic==1.0.9
COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
    && git config --system --add safe.directory '*'

# jobs work in a folder of the host's, under whatever user id `docker run --user` names: one without
# a home and a name, which matplotlib, numba, DVC and PyTorch ask for
ENV HOME=/tmp USER=hsam MPLCONFIGDIR=/tmp/matplotlib NUMBA_CACHE_DIR=/tmp/numba
RUN useradd --uid 1000 --no-create-home hsam
USER hsam
WORKDIR /work
CMD ["hsam", "--help"]
