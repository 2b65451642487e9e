#!/usr/bin/env bash
# A stand-in for debian:bookworm-slim where no registry can be reached: Debian's minimal system, made of its packages and
# imported under a name that the Dockerfile's BASE can have. Needs mmdebstrap and podman or docker, and qemu-user-static for
# another architecture. As root:
#   deploy/docker/base.sh [NAME] [amd64|arm64]     then: podman build --build-arg BASE=NAME ...
set -euo pipefail
name=${1:-localhost/debian:bookworm-slim}
architecture=${2:-$(dpkg --print-architecture)}
mirror=${MIRROR:-http://deb.debian.org/debian}
security=${SECURITY_MIRROR:-http://deb.debian.org/debian-security}
engine=${ENGINE:-$(command -v podman || command -v docker)}

folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
slim=()  # what the public image leaves out too
for path in man doc locale info lintian groff; do slim+=(--dpkgopt="path-exclude=/usr/share/$path/*"); done
slim+=(--dpkgopt='path-include=/usr/share/doc/*/copyright')
mmdebstrap --quiet --variant=minbase --include=usr-is-merged --architectures="$architecture" "${slim[@]}" \
  --customize-hook='chroot "$1" apt-get purge -y -q --autoremove usrmerge "*perl*[^e]" perl-modules-5.36 >/dev/null' bookworm "$folder/base.tar" \
  "deb $mirror bookworm main" "deb $mirror bookworm-updates main" "deb $security bookworm-security main"
"$engine" import --arch "$architecture" "$folder/base.tar" "$name"
