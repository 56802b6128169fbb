"""Where the API server is and how one is let in: a kubeconfig file, a URL alone, or what a pod finds in its files.

Owns the choice, the words for what is wrong with it, and whether the files have been renewed since; reading them and
using what they say is lightkube's. Opens no connection.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx2
import msgspec
import yaml
from lightkube import ConfigError as LightkubeError
from lightkube import KubeConfig, SingleConfig
from lightkube.config.client_adapter import user_auth, verify_cluster
from lightkube.config.kubeconfig import SERVICE_ACCOUNT
from lightkube.config.models import Cluster, User

from udpbackend.errors import ConfigError, UsageError
from udpbackend.settings import Settings

BROKEN = (LightkubeError, OSError, yaml.YAMLError, msgspec.ValidationError, ValueError, TypeError, AttributeError)
"""What a kubeconfig that is none may end with; KeyError beside these, for a name that it does not define."""


Stamps = Mapping[Path, tuple[int, int, int] | None]
"""Files, and by what one sees that they have changed; None for one that is not there."""


@dataclass(frozen=True, slots=True)
class Access:
    """One API server and the way in."""

    url: str
    verify: ssl.SSLContext
    auth: httpx2.Auth | None
    """A token out of a file is read again whenever the server no longer takes it."""
    _again: Callable[[], Access] = field(repr=False)
    _made_of: Stamps = field(repr=False)
    """The kubeconfig and the certificates, as they were just before they were read."""

    def renewed(self) -> Access | None:
        """What the files give now, None if they are as they were. Reads files. Raises ConfigError."""
        return None if self._made_of == _stamps(self._made_of) else self._again()


def find_access(settings: Settings) -> Access:
    """What the settings ask for. Reads files. Raises ConfigError, UsageError for a URL that is none."""
    url, file = settings.kube_api_url, settings.kubeconfig_file
    again = partial(find_access, settings)
    if url is not None:
        try:
            _require_url("--kube-api-url", url)
        except ConfigError as error:
            raise UsageError(str(error)) from None
    if file is not None:
        with _explained(f"--kubeconfig-file {file}"):
            before = _stamps([Path(file)])
            return _access(KubeConfig.from_file(file).get(), again, before, url)
    if url is not None:
        return _access(KubeConfig.from_one(cluster=Cluster(server=url)).get(), again, {})
    with _explained("in-cluster configuration"):
        if not all(os.environ.get(f"KUBERNETES_SERVICE_{it}") for it in ("HOST", "PORT")):
            raise ConfigError(
                "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: expected to run in a pod, or "
                "--kubeconfig-file, or --kube-api-url"
            )
        return _access(KubeConfig.from_service_account(SERVICE_ACCOUNT).get(), again, {})


def _access(
    config: SingleConfig | None, again: Callable[[], Access], made_of: Stamps, url: str | None = None
) -> Access:
    """`made_of`: where `config` was read from; `url`: in place of the one in `config`."""
    if config is None:
        raise ConfigError("expected a current-context")
    user = config.user or User()
    if user.token_file is not None:
        user.token_file = str(config.abs_file(user.token_file))
    for file in (user.token_file, config.cluster.certificate_auth):
        if file is not None:
            Path(config.abs_file(file)).read_bytes()  # refused now, and by its name, if it is not there
    server = url or config.cluster.server
    _require_url("server", server)
    named = (config.cluster.certificate_auth, user.client_cert, user.client_key)
    made_of = {**made_of, **_stamps(Path(config.abs_file(it)) for it in named if it is not None)}
    return Access(server, verify_cluster(config.cluster, user, config.abs_file), user_auth(user), again, made_of)


def _stamps(files: Iterable[Path]) -> Stamps:
    return {file: _stamp(file) for file in files}


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def _require_url(place: str, url: str) -> None:
    try:
        found = httpx2.URL(url)
    except httpx2.InvalidURL:
        found = httpx2.URL()
    if found.userinfo:  # it would stand in the status, for everybody to read
        raise ConfigError(f"{place}: expected a URL without a user in it: name the user in a kubeconfig")
    if found.scheme not in ("http", "https") or not found.host or found.query or found.fragment:
        raise ConfigError(f"{place}: expected a URL, like https://192.0.2.7:6443, got {url!r}")


@contextmanager
def _explained(place: str) -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        raise ConfigError(f"{place}: expected {error}, which is not there") from None
    except (ConfigError, *BROKEN) as error:
        raise ConfigError(f"{place}: {error}") from None
