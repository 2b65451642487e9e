#!/usr/bin/env bash
# Pin the image that all others begin with: write its digest of today, of all architectures, into the Dockerfile.
#   pin.sh            asks the registry, by docker or skopeo
#   pin.sh --check    fails where it is not pinned: for those who publish images
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

line=$(grep -m 1 '^ARG BASE=' Dockerfile)
base=${line#ARG BASE=}
if [ "${1:-}" = --check ]; then
  [[ "$base" =~ @sha256:[0-9a-f]{64}$ ]] || { echo "✗ BASE 未按摘要固定:运行 pin.sh · BASE is not pinned by digest: run pin.sh" >&2; exit 1; }
  exit 0
fi
name=${base%@*}
if command -v skopeo >/dev/null; then digest=$(skopeo inspect --format '{{.Digest}}' "docker://$name")
else digest=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$name"); fi
[[ "$digest" =~ ^sha256:[0-9a-f]{64}$ ]] || { echo "✗ 不是摘要 · no digest: $digest" >&2; exit 1; }
sed -i "s|^ARG BASE=.*|ARG BASE=$name@$digest|" Dockerfile
echo "$name@$digest"
