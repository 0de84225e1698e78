# robustdml on CPUs: docker build -t robustdml . && docker run --rm -v "$PWD:/work" robustdml evaluate --config evaluate.toml
# For GPUs, leave out the line with --index-url and start it with --gpus all.
FROM python:3.12-slim
WORKDIR /src
COPY constraints.txt pyproject.toml setup.py README.md LICENSE ./
RUN pip install --no-cache-dir -c constraints.txt torch torchvision --index-url https://download.pytorch.org/whl/cpu
COPY robustdml robustdml
COPY attacks attacks
COPY reports reports
RUN pip install --no-cache-dir -c constraints.txt ".[timm,hf,openclip,onnx]" && robustdml doctor
RUN useradd --create-home user
USER user
WORKDIR /work
ENTRYPOINT ["robustdml"]
CMD ["--help"]
