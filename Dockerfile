# Two images, for CPUs and for NVIDIA GPUs:
#
#   docker build --target cpu -t stylecli .
#   docker build --target cuda -t stylecli:cuda .
#   docker run --rm -v "$PWD:/data" -v stylecli-cache:/cache stylecli demo
#   docker run --rm --gpus all -v "$PWD:/data" -v stylecli-cache:/cache stylecli:cuda doctor
#
# Both start from the plain Python image: torch's wheels for Linux contain CUDA's libraries, and the NVIDIA
# container toolkit provides the driver. User 1000 must be able to write to the folder mounted at /data.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY stylecli stylecli
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:${PYTHON}-slim AS base
ENV PYTHONUNBUFFERED=1 STYLECLI_CACHE=/cache
RUN useradd --uid 1000 --create-home stylecli \
    && install --directory --owner=stylecli --group=stylecli /cache /data
WORKDIR /data
VOLUME ["/cache"]
ENTRYPOINT ["stylecli"]
CMD ["--help"]

FROM base AS cpu
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "torch>=2.9,<3"
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    pip install --no-cache-dir "$(echo /dist/*.whl)[demo,metrics]"
USER 1000

FROM base AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    pip install --no-cache-dir "$(echo /dist/*.whl)[cuda,demo,metrics]"
USER 1000
