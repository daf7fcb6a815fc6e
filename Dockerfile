# deita-train with the versions that its tests ran with. docs/slurm.md says how to use it.
#
#   docker build --tag deita-train .
#   docker run --gpus all --shm-size 16g --volume "$PWD":/work deita-train run recipes/quickstart.yaml
#
# torch's wheels bring CUDA with them, so the base needs none; the host needs NVIDIA's driver and container toolkit.
FROM python:3.11.7-slim-bookworm

# cpu: torch without CUDA, a far smaller image. gpu: torch as it is on PyPI.
ARG DEVICE=gpu
# Optional parts, such as eval,llm,tensorboard,trackio.
ARG EXTRAS=eval,llm
# Whose files a run writes to /work: your own with --build-arg USER_ID="$(id -u)".
ARG USER_ID=1000

# DeepSpeed and torch.compile build small kernels when a run starts.
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install --yes --no-install-recommends g++ \
  && rm -rf /var/lib/apt/lists/* \
  && useradd --create-home --uid "$USER_ID" deita \
  && install --directory --owner deita /work

WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY deita_train deita_train
COPY accelerate_configs accelerate_configs
COPY recipes recipes
RUN case "$DEVICE" in \
      cpu) export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu ;; \
      gpu) ;; \
      *) echo "DEVICE is cpu or gpu, not $DEVICE" && exit 1 ;; \
    esac \
  && pip install --no-cache-dir --constraint constraints.txt "/source${EXTRAS:+[$EXTRAS]}"

# PYTHONSAFEPATH: a checkout in /work is data, and its code is not what runs.
ENV HF_HOME=/work/cache/huggingface \
    DEITA_RUNS=/work/runs \
    PYTHONSAFEPATH=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER $USER_ID
WORKDIR /work
ENTRYPOINT ["deita-train"]
CMD ["--help"]
