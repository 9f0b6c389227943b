"""Debian packages for the throwaway engine and its images, unpacked and not installed."""

import shutil
from pathlib import Path

from tests.deploy.debian import Debian, NoMirrorError, suite_of_this_machine

SUITE = "trixie"  # the Debian that has Python 3.13, and that the public image is made of
ENGINE_PACKAGES = ("containerd", "docker-buildx", "docker-cli", "docker-compose", "docker.io")
# These need the libraries of the Debian that runs here.
HOST_PACKAGES = ("runc", "tini")
# The engine sends a container's questions for names to itself with it, inside the container's own
# network alone.
FIREWALL_PACKAGES = ("iptables",)
IMAGE_PACKAGES = (
    *("base-files", "coreutils", "dash", "findutils", "grep", "libc-bin", "python3"),
    "libstdc++6",  # the public image has it through apt, and compiled packages need it
)
# What stands beside the app: the stores, and what looks at the proxy's health.
SERVICE_PACKAGES = (
    *("base-files", "busybox", "coreutils", "dash", "libc-bin"),
    *("postgresql-17", "valkey-server", "valkey-tools"),
)


class NoEngineError(Exception):
    """No engine runs here, and none can be started. The text says why."""


class Packages:
    """Unpacked into `engine/`, `image/` and `services/`; apt's own state stays as it is."""

    def __init__(self, cache: Path) -> None:
        self.engine = cache / "engine"
        self.image = cache / "image"
        self.services = cache / "services"
        self.firewall = cache / "firewall"
        self._cache = cache
        self._complete = cache / "complete"

    def fetch(self) -> None:
        """Download and unpack what is not there yet."""
        wanted = " ".join(
            (
                *(SUITE, *ENGINE_PACKAGES, *HOST_PACKAGES, *FIREWALL_PACKAGES, "/"),
                *(*IMAGE_PACKAGES, "/", *SERVICE_PACKAGES),
            )
        )
        if self._complete.exists() and self._complete.read_text() == wanted:
            return
        here = suite_of_this_machine(SUITE)
        try:
            debian = Debian(self._cache, *{SUITE, here})
        except NoMirrorError as error:
            raise NoEngineError(f"no Docker engine runs here, and {error}") from None
        debian.alone(
            *(f"{name}/{SUITE}" for name in ENGINE_PACKAGES),
            *(f"{name}/{here}" for name in HOST_PACKAGES),
            into=self.engine,
        )
        # For apt nothing is installed, so it brings everything that an image's packages need.
        for packages, root in (
            (IMAGE_PACKAGES, self.image),
            (SERVICE_PACKAGES, self.services),
            (FIREWALL_PACKAGES, self.firewall),
        ):
            debian.with_all_they_need(*packages, into=root)
        self._wrap_iptables()
        for unread in ("usr/share/doc", "usr/share/locale", "usr/share/man"):
            shutil.rmtree(self.services / unread, ignore_errors=True)
        self._complete.write_text(wanted)

    def _wrap_iptables(self) -> None:
        """It is not installed: its own loader and libraries come with it."""
        libraries = self.firewall / "usr/lib/x86_64-linux-gnu"
        wrapper = self.engine / "usr/sbin/iptables"
        wrapper.write_text(
            f"#!/bin/sh\nexport XTABLES_LIBDIR={libraries}/xtables\n"
            f"exec {libraries}/ld-linux-x86-64.so.2 --library-path {libraries}"
            f' --argv0 iptables {self.firewall}/usr/sbin/xtables-nft-multi "$@"\n'
        )
        wrapper.chmod(0o755)
