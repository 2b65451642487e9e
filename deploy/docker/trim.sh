#!/bin/sh
# Leave out of a folder of packages what nothing here uses: what is large, by name, with what it weighs (MB) on amd64.
#   trim.sh PACKAGES edge|torch
set -eu
cd "$1"
kind=$2

# Tests 26 (numpy.testing is no test), types and headers 9
find . -type d -name tests -not -path './torch/*' -prune -exec rm -r {} +
find . -type f \( -name '*.pyi' -o -name '*.pxd' -o -name '*.pyx' \) -delete

# OpenVINO: the engine computes on the CPU (engines/backends) and reads IR and ONNX. The GPU's plugin 42, the GPU's cache 9,
# the NPU's plugin 11, other frameworks' formats 13, headers 5
rm -rf openvino/include openvino/cmake openvino/libs/cache.json
for part in intel_gpu_plugin intel_npu_plugin pytorch_frontend tensorflow_frontend tensorflow_lite_frontend \
            paddle_frontend jax_frontend gguf_frontend; do
  rm -f openvino/libs/libopenvino_"$part".*
done

# ONNX Runtime: the library for programs in C 29; Python has its own copy of all of it
rm -f onnxruntime/capi/libonnxruntime.so*

# Gradio: a video cutter 32, pages rendered by node 12, examples' media 7, plots 8. The page has no video and no plot.
rm -rf gradio/templates/frontend/static/ffmpeg gradio/templates/frontend/static/bokeh gradio/templates/node \
       gradio/media_assets gradio/test_data gradio/CHANGELOG.md
rm -f gradio/templates/frontend/assets/PlotlyPlot-* gradio/templates/frontend/assets/AltairPlot-*

if [ "$kind" = edge ]; then  # what makes bundles, which needs PyTorch
  rm -rf onnxruntime/transformers onnxruntime/tools
fi

# Symbols that only debuggers read, of five that are large and were not stripped: 15
for library in _brotli.*.so PIL/_imaging.*.so yaml/_yaml.*.so tokenizers/tokenizers.*.so \
               cryptography/hazmat/bindings/_rust.*.so; do
  strip --strip-unneeded "$library"
done
find . -depth -type d -empty -delete
