"""The images that an app's Dockerfile and compose files name, made from Debian packages.

Only for an engine that can pull from nowhere. Each gets its public name and keeps the public
image's contract: the user, the folders and their owners, the command and the environment.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.deploy.packages import NoEngineError, Packages
from tests.kit import run

PYTHON_IMAGE = "python:3.13-slim"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
SERVICES = "survival-kit-services"  # everything that the images below are made of
# Of no use in a container, and a third of the size.
LEFT_OUT = (
    *("usr/lib/x86_64-linux-gnu/libLLVM*", "usr/lib/x86_64-linux-gnu/libz3*"),
    *("usr/lib/postgresql/17/lib/bitcode", "usr/share/javascript", "usr/share/i18n"),
)
USERS = """\
root:x:0:0::/:/bin/sh
postgres:x:70:70::/var/lib/postgresql:/bin/sh
valkey:x:999:1000::/data:/bin/sh
nobody:x:65534:65534::/:/bin/sh
"""
# Folder: its owner and mode.
FOLDERS = {
    "data": (999, 1000, 0o755),
    "run/postgresql": (70, 70, 0o3777),
    "tmp": (0, 0, 0o1777),
    "var/lib/postgresql": (70, 70, 0o1777),
}
# As the public image starts: a password or its file is needed, and while the database is made the
# server listens on no address.
POSTGRES_ENTRYPOINT = """\
#!/bin/sh
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    if [ -n "${POSTGRES_PASSWORD:-}" ] && [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
        echo "both POSTGRES_PASSWORD and POSTGRES_PASSWORD_FILE are set" >&2; exit 1
    fi
    password=${POSTGRES_PASSWORD:-$(cat "${POSTGRES_PASSWORD_FILE:-/dev/null}")}
    if [ -z "$password" ]; then
        echo "superuser password is not specified" >&2; exit 1
    fi
    mkdir -p "$PGDATA"
    echo "$password" > /tmp/password
    initdb --username="$POSTGRES_USER" --pwfile=/tmp/password --auth-local=trust \\
        --auth-host=scram-sha-256 --locale=C.UTF-8 --no-sync
    rm /tmp/password
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start
    [ "$POSTGRES_DB" = postgres ] || createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
    sleep 2  # a first start takes its time: who asks the socket alone is told too early
    pg_ctl -D "$PGDATA" -m fast -w stop
fi
exec "$@" -c "listen_addresses=*"
"""
# The part of the public name before the tag: how the image is made.
SERVICE_IMAGES = {
    "caddy": """
        ENV XDG_CONFIG_HOME=/config XDG_DATA_HOME=/data
        RUN --network=none chown 0:0 /data
        CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]
    """,
    "postgres": """
        ENV PATH=/usr/lib/postgresql/17/bin:/usr/bin PGDATA=/var/lib/postgresql/18/docker
        VOLUME /var/lib/postgresql
        ENTRYPOINT ["/usr/local/bin/postgres-entrypoint.sh"]
        STOPSIGNAL SIGINT
        CMD ["postgres"]
    """,
    "valkey/valkey": """
        WORKDIR /data
        VOLUME /data
        # The public image is built with the protected mode off: a network of its own protects it.
        ENTRYPOINT ["sh", "-c", "exec \\"$@\\" --protected-mode no", "sh"]
        CMD ["valkey-server"]
    """,
}

Docker = Callable[..., str]  # runs a docker command


def import_images(
    docker: Docker, packages: Packages, template: Path, environment: dict[str, str]
) -> None:
    """Make every image that the template's Dockerfile and compose files name."""
    _python(docker, packages.image)
    _uv(docker, (template / "Dockerfile").read_text())
    _services(docker, packages.services)
    compose = "".join(path.read_text() for path in template.glob("compose*.yaml*"))
    for name, tag in re.findall(r"^    image: ([a-z][\w./-]*):(\S+)$", compose, re.MULTILINE):
        if name not in SERVICE_IMAGES:
            raise NoEngineError(f"a compose file names the image {name}: add it to {__name__}")
        _build(f"{name}:{tag}", SERVICE_IMAGES[name], environment)


def _python(docker: Docker, root: Path) -> None:
    for name in ("python", "python3"):
        link = root / "usr/local/bin" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to("/usr/bin/python3")
    # The build reaches PyPI as this machine does: with the certificates that it trusts.
    certificates = Path(os.environ.get("SSL_CERT_FILE", CERTIFICATES))
    (root / CERTIFICATES.removeprefix("/")).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(certificates, root / CERTIFICATES.removeprefix("/"))
    settings = (
        "--change=ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        f"--change=ENV SSL_CERT_FILE={CERTIFICATES}",
        '--change=CMD ["python3"]',
    )
    _import(docker, root, PYTHON_IMAGE, *settings)


def _uv(docker: Docker, dockerfile: str) -> None:
    uv_image = re.search(r"^FROM (\S+/uv:\S+)", dockerfile, re.MULTILINE)
    uv = shutil.which("uv")
    assert uv_image, "the Dockerfile takes uv from no image"
    assert uv, "uv is missing"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy2(uv, Path(folder) / "uv")
        _import(docker, Path(folder), uv_image[1])


def _services(docker: Docker, root: Path) -> None:
    for pattern in LEFT_OUT:
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (root / "etc/passwd").write_text(USERS)
    for name, (user, group, mode) in FOLDERS.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        os.chown(root / name, user, group)
        (root / name).chmod(mode)
    if not (root / "var/run").is_symlink():
        shutil.rmtree(root / "var/run", ignore_errors=True)
        (root / "var/run").symlink_to("/run")
    if not (root / "usr/bin/wget").is_symlink():
        (root / "usr/bin/wget").symlink_to("busybox")
    # Debian's own is years behind the public image, and loses what it should send again.
    caddy = shutil.which("caddy")
    assert caddy, "caddy is missing: make installs it"
    shutil.copy2(caddy, root / "usr/bin/caddy")
    entrypoint = root / "usr/local/bin/postgres-entrypoint.sh"
    entrypoint.parent.mkdir(parents=True, exist_ok=True)
    entrypoint.write_text(POSTGRES_ENTRYPOINT)
    entrypoint.chmod(0o755)
    _import(docker, root, SERVICES)


def _build(name: str, dockerfile: str, environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["docker", "build", "--quiet", "--tag", name, "-"],
        env=os.environ | environment,
        input=f"FROM {SERVICES}\n" + "\n".join(map(str.strip, dockerfile.splitlines())),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{name}: {done.stderr}"


def _import(docker: Docker, folder: Path, name: str, *settings: str) -> None:
    with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
        run(folder, "tar", "--create", "--numeric-owner", "--file", archive.name, ".")
        docker("import", *settings, archive.name, name)
