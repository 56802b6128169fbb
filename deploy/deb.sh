#!/bin/sh
# The Debian package, in a build tree of its own: deploy/debian, the unit and its defaults, and the wheel in dist/.
#
#   deb.sh VERSION PYTHON DIRECTORY       PYTHON has pip; the package lands in DIRECTORY
#
# Owns the build tree. What goes into the package and where stands in debian/rules.
set -eu
version=$1 python=$(realpath -s "$2") to=$(realpath -m "$3")
deploy=$(dirname "$(realpath "$0")")
tree=$to/udp-backend-$version

rm -rf "$to" && mkdir -p "$tree"
cp -r "$deploy/debian" "$tree/debian"
# The unit names the program where the package puts it; its first lines are for those who install by hand.
sed -e '1,/^$/d' -e 's|/opt/udp-backend/bin/|/usr/sbin/|' "$deploy/systemd/udp-backend.service" >"$tree/debian/udp-backend.service"
cp "$deploy/systemd/udp-backend.default" "$tree/debian/udp-backend.default"
cp "$deploy/completion/udp-backend.bash" "$tree/"
cat >"$tree/debian/changelog" <<ENTRY
udp-backend ($version) unstable; urgency=medium

  * $version; what is new stands in CHANGELOG.md.

 -- udpbackend maintainers <maintainers@udpbackend.invalid>  $(date -uR -d "@${SOURCE_DATE_EPOCH:-$(date +%s)}")
ENTRY
# The manual comes from the program that is built with: the package's own cannot run before it is installed.
ln -s "$(dirname "$python")/udp-backend" "$tree/man-program"

cd "$tree"
DEPLOY=$deploy INSTALLER=$python VERSION=$version WHEEL=$(ls "$deploy"/../dist/udpbackend-"$version"-*.whl) \
	dpkg-buildpackage --build=binary --no-sign --no-check-builddeps >../build.log 2>&1 || { tail -40 ../build.log >&2; exit 1; }
