#!/bin/sh
# The container image from deploy/Containerfile, where there is no engine and nothing can be pulled: buildah executes its
# steps in a chroot, on a bare Debian that mmdebstrap makes. As root.
#
#   image.sh VERSION DIRECTORY ARCHIVE    works in DIRECTORY, writes an OCI archive
#
# Owns the base and the build's storage. What the image holds stands in the Containerfile, which every engine builds.
set -eu
version=$1 work=$(realpath -m "$2") archive=$(realpath -m "$3")
cd "$(dirname "$(realpath "$0")")/.."
build() { buildah --root "$work/storage" --runroot "$work/run" "$@"; }

mkdir -p "$work" "$(dirname "$archive")"
trap 'build rm --all >/dev/null 2>&1 || true; build rmi --all --force >/dev/null 2>&1 || true; rm -rf "$work"' EXIT

# What Debian's own slim image leaves out, too.
mmdebstrap --quiet --variant=minbase --dpkgopt='path-exclude=/usr/share/man/*' \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
	--dpkgopt='path-exclude=/usr/share/locale/*' bookworm "$work/base.tar" </dev/null
base=$(build from scratch)
build add --quiet "$base" "$work/base.tar" / >/dev/null
build commit --quiet "$base" udp-backend-base >/dev/null

# pip trusts what this machine trusts; what is mounted does not become part of the image.
printf '[global]\ncert = /run/trusted.crt\n' >"$work/pip.conf"
set -- --volume "${PIP_CERT:-/etc/ssl/certs/ca-certificates.crt}:/run/trusted.crt:ro" \
	--volume "$work/pip.conf:/etc/pip.conf:ro"
build bud --quiet --isolation chroot --pull-never --layers=false "$@" --file deploy/Containerfile \
	--build-arg BASE=localhost/udp-backend-base --build-arg VERSION="$version" --tag "udp-backend:$version" . >"$work/log" 2>&1 ||
	{ tail -40 "$work/log" >&2; exit 1; }
rm -f "$archive"
build push --quiet "udp-backend:$version" "oci-archive:$archive:udp-backend:$version"
