#!/usr/bin/env bash
# Build the three images where there is no Docker engine and no registry: buildah in a chroot, on a
# Debian that debootstrap makes. It proves the Dockerfiles; images that go to a hospital are built
# on the base that they name.
#
#   apt-get install buildah debootstrap        # then, as root, from anywhere:
#   docker/build-without-docker.sh WORK_FOLDER [BUILDAH ARGUMENT ...]
#
# BUILDAH ARGUMENTs go to every build: --volume /etc/pip.conf:/etc/pip.conf:ro for a package index
# of one's own, --build-arg TORCH_INDEX= to take torch from there too.
set -euo pipefail
work=$(mkdir -p "$1" && cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."
buildah() { # vfs copies every image whole, and works everywhere; overlay takes less room and time
    command buildah --storage-driver "${STORAGE_DRIVER:-vfs}" --root "$work/storage" \
        --runroot "$work/run" "$@"
}

if [ ! -e "$work/base/rootfs.tar" ]; then
    rm -rf "$work/rootfs"
    debootstrap --variant=minbase --include=ca-certificates,python3,python3-pip,python3-venv \
        bookworm "$work/rootfs"
    mkdir -p "$work/base"
    tar -C "$work/rootfs" --exclude='./dev/*' --exclude='./proc/*' -cf "$work/base/rootfs.part" .
    mv "$work/base/rootfs.part" "$work/base/rootfs.tar"
    rm -rf "$work/rootfs"
fi
printf 'FROM scratch\nADD rootfs.tar /\n' > "$work/base/Dockerfile"
buildah bud --isolation chroot --format docker -t localhost/wardround-base "$work/base"
for target in server courier trainer; do
    file=docker/site.Dockerfile
    [ "$target" != server ] || file=docker/server.Dockerfile
    buildah bud --isolation chroot --format docker --pull-never -f "$file" --target "$target" \
        --build-arg BASE=localhost/wardround-base "$@" -t "localhost/wardround-$target" .
done
buildah images
