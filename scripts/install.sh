#!/bin/sh
# Installs the newest release of qoft for this machine into ~/.local/bin, after its checksum was compared.
# QOFT_RELEASES is the address of the archives, QOFT_BIN another folder.
set -eu
releases=${QOFT_RELEASES:?the address of the archives, such as https://github.com/OWNER/qoft/releases/latest/download}
bin=${QOFT_BIN:-$HOME/.local/bin}
case "$(uname -s)-$(uname -m)" in
    Linux-x86_64) target=x86_64-unknown-linux-gnu ;;
    Linux-aarch64 | Linux-arm64) target=aarch64-unknown-linux-gnu ;;
    Darwin-arm64) target=aarch64-apple-darwin ;;
    Darwin-x86_64) target=x86_64-apple-darwin ;;
    *)
        echo "no archive for $(uname -s) on $(uname -m); cargo install --path crates/qoft-cli builds it" >&2
        exit 1
        ;;
esac
archive=qoft-$target.tar.gz
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fetch() {
    curl --fail --silent --show-error --location --output "$work/$1" "$releases/$1" || {
        echo "$releases/$1 cannot be fetched" >&2
        exit 1
    }
}
fetch "$archive"
fetch "$archive.sha256"
cd "$work"
if command -v sha256sum > /dev/null; then check="sha256sum -c"; else check="shasum -a 256 -c"; fi
$check "$archive.sha256" > /dev/null || {
    echo "$archive: the checksum differs; nothing was installed" >&2
    exit 1
}
tar -xzf "$archive"
mkdir -p "$bin"
# Beside it first: a program that runs cannot be written over.
cp "qoft-$target/qoft" "$bin/.qoft.new"
mv "$bin/.qoft.new" "$bin/qoft"
echo "$("$bin/qoft" -V) is in $bin"
case ":$PATH:" in
    *":$bin:"*) ;;
    *) echo "$bin is not in PATH" ;;
esac
