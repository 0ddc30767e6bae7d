#!/usr/bin/env bash
# Packs a built program with its manual pages and completions: scripts/package.sh TARGET [BINARY].
# Writes dist/qoft-TARGET.tar.gz and its SHA-256.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${1:?TARGET, such as x86_64-unknown-linux-gnu}
binary=${2:-target/release/qoft}
name=qoft-$target
stage=dist/$name
rm -rf "$stage"
mkdir -p "$stage/completions"
cp "$binary" README.md LICENSE-MIT LICENSE-APACHE "$stage"
"$binary" man "$stage/man"
for shell in bash elvish fish powershell zsh; do
    "$binary" completions "$shell" > "$stage/completions/qoft.$shell"
done
tar -C dist -czf "dist/$name.tar.gz" "$name"
rm -rf "$stage"
cd dist
if command -v sha256sum > /dev/null; then
    sha256sum "$name.tar.gz" > "$name.tar.gz.sha256"
else
    shasum -a 256 "$name.tar.gz" > "$name.tar.gz.sha256"
fi
cat "$name.tar.gz.sha256"
