#!/usr/bin/env bash
# ./run.sh release [FOLDER]: what is committed, as one file that an installation without git is updated with, and its sum.
# The same commit gives the same bytes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() { echo "✗ $*" >&2; exit 1; }

git rev-parse --git-dir >/dev/null 2>&1 || die "只能在 git 仓库里打包 · a release is packed in a clone"
[ -z "$(git status --porcelain --untracked-files=no)" ] || echo "! 没有提交的改动不在其中 · what is not committed is not in it" >&2
version=$(git show HEAD:pyproject.toml | sed -n 's/^version = "\(.*\)"$/\1/p')
[ -n "$version" ] || die "pyproject.toml: version?"
folder=${1:-dist}
mkdir -p "$folder"
name=awportrait-edge-$version
# git gives all files the time of the commit; modes and the compression do not depend on this machine.
git -c tar.umask=0022 archive --format=tar --prefix="$name/" HEAD | gzip -9 -n > "$folder/.$name.tar.gz"
mv "$folder/.$name.tar.gz" "$folder/$name.tar.gz"
(cd "$folder" && sha256sum "$name.tar.gz" | tee "$name.tar.gz.sha256")
echo "✓ $folder/$name.tar.gz"
