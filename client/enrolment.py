"""A hospital's place in a federation: its key, its request, its certificate. Imports no torch.

All of it lies in the folder `federation` of the site's state:

    site.key          the private key, made here, mode 0600; it never leaves
    site.key.next     a new key that waits for its certificate (enroll --new-key)
    request.csr       the newest request, as it went to the centre
    site.pem  ca.pem  the site's certificate and the federation's authority, once it has joined
    federation.json   where the centre is
"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import yaml
from cryptography import x509

from common.admission import Admission, admission_of, check_address
from common.certificates import (
    CertificateError,
    certificate_of,
    certificate_pem,
    check_client,
    check_fingerprint,
    check_site_name,
    common_name,
    days_left,
    fingerprint,
    openssh_private,
    read_certificate,
    read_private_key,
    read_small,
    signing_request,
)
from common.credentials import Credentials
from common.locks import waited_for
from common.schema import SettingsError
from common.secret_files import PUBLIC, private_folder, replace_file
from common.system_errors import reason_of

FOLDER = "federation"
_REQUEST, _CA, _PLACE = "request.csr", "ca.pem", "federation.json"


@dataclass(frozen=True, kw_only=True)
class Centre:
    """Where the centre is; what federation.json says."""

    federation: str
    """The federation's name."""
    site: str
    """The name that this site has there."""
    hosts: list[str]
    """Names and addresses, the first tried first."""
    port: int
    """TCP port."""

    def __post_init__(self) -> None:
        check_site_name(self.site)
        check_address(self.hosts, self.port)


@dataclass(frozen=True, kw_only=True)
class Membership:
    """A site that has joined: all it needs to connect."""

    centre: Centre
    """Where to."""
    certificate: x509.Certificate
    """The site's certificate as it was read; it may have ended."""
    credentials: Credentials
    """The site's key and certificate; `load_into` puts them into a TLS context."""
    ca_certificate: Path
    """PEM file of the authority, the only one to trust."""
    authority: x509.Certificate
    """That authority."""

    def days_left(self, now: datetime) -> int:
        """Return the whole days until the certificate ends; below 0 once it has."""
        return days_left(self.certificate, now)

    def node_key(self) -> bytes:
        """Return the private key in OpenSSH's form, as Flower's SuperNode reads it.

        Secret: it may be written to a file of mode 0600 in the state folder and nowhere else.
        """
        return openssh_private(read_private_key(self.credentials.key_of(self.certificate)))


def site_basics(site_yaml: Path) -> tuple[Path, str | None]:
    """Return the state folder and the name of a site.yaml; the name may be absent.

    Raises:
        SettingsError: the file cannot be read, or one of the two is no text.
    """
    try:
        values = yaml.safe_load(site_yaml.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SettingsError(
            f"{site_yaml} cannot be read as a site's settings: {reason_of(error)}; name "
            "another with --site"
        ) from error
    if not isinstance(values, dict):
        raise SettingsError(f"{site_yaml} holds no settings; a site's has name and manifest")
    state, name = values.get("state", "state"), values.get("name")
    if type(state) is not str or not isinstance(name, str | None):
        raise SettingsError(
            f"{site_yaml}: name={name!r} and state={state!r} must both be text; correct the file"
        )
    return site_yaml.resolve().parent / state, name


def state_folder(site_yaml: Path) -> Path:
    """Return where a site remembers, as its site.yaml says; relative to that file.

    Raises:
        SettingsError: the file cannot be read, or `state` is no text.
    """
    return site_basics(site_yaml)[0]


def enroll(state: Path, name: str, *, new_key: bool = False) -> bytes:
    """Return a signing request (PEM) for this site's key; the key is made if there is none.

    Run again it keeps the key and makes the request again. With `new_key` the request is for a
    second key, which takes over when `join` installs its certificate.

    Raises:
        CertificateError: the name is not allowed, the site has another name already, or other
            users may read the key.
    """
    check_site_name(name)
    folder = state / FOLDER
    private_folder(folder)
    with waited_for(folder / ".lock"):
        credentials = _credentials(folder)
        if credentials.certificate.exists():
            joined = common_name(read_certificate(credentials.certificate))
            if joined != name:
                raise CertificateError(
                    f"this site has joined as {joined!r}, not {name!r}; give that name, or to "
                    f"leave that federation move {folder} away and enroll again"
                )
        request = signing_request(credentials.make_key(new=new_key), name)
        replace_file(folder / _REQUEST, request, PUBLIC)
        return request


def join(
    state: Path, content: bytes, now: datetime, ca_fingerprint: str | None = None
) -> Membership:
    """Install an admission file: for the first time, or with a renewed certificate.

    Raises:
        CertificateError: the file is none, or of another site, key or authority than it must be,
            or its certificate is not valid now. Nothing was changed.
    """
    admission = admission_of(content)
    folder = state / FOLDER
    credentials = _credentials(folder)
    if not credentials.key.exists():
        raise CertificateError(
            f"{folder} has no key yet; run wardround-site enroll here first: the admission file "
            "must answer this site's own request"
        )
    with waited_for(folder / ".lock"):
        ca = certificate_of(admission.ca.encode(), "the admission's authority")
        certificate = certificate_of(admission.certificate.encode(), "the admission")
        if ca_fingerprint is not None:
            check_fingerprint(ca, ca_fingerprint)
        _check_authority(folder, ca)
        check_client(certificate, ca, now)
        _check_name(folder, admission, certificate)
        _check_key(credentials, certificate)
        place = Centre(
            federation=admission.federation,
            site=admission.site,
            hosts=admission.hosts,
            port=admission.port,
        )
        replace_file(folder / _CA, certificate_pem(ca), PUBLIC)
        replace_file(folder / _PLACE, _json_of(place), PUBLIC)
        # The certificate last: with it the site has joined.
        credentials.install(certificate)
    return membership(state)


def membership(state: Path) -> Membership:
    """Return what a site that has joined needs to connect; also if its certificate has ended.

    Raises:
        CertificateError: it has not joined, or a file is broken.
    """
    folder = state / FOLDER
    credentials = _credentials(folder)
    if not credentials.certificate.exists():
        raise CertificateError(
            f"{folder}: this site has not joined a federation; run wardround-site enroll, send the "
            "request to the centre, then wardround-site join with the file that comes back"
        )
    return Membership(
        centre=_centre(folder / _PLACE),
        certificate=read_certificate(credentials.certificate),
        credentials=credentials,
        ca_certificate=folder / _CA,
        authority=read_certificate(folder / _CA),
    )


def _credentials(folder: Path) -> Credentials:
    return Credentials(key=folder / "site.key", certificate=folder / "site.pem")


def _check_authority(folder: Path, ca: x509.Certificate) -> None:
    # An authority without a certificate beside it is of a join that was cut short, not of one.
    if not (folder / _CA).exists() or not _credentials(folder).certificate.exists():
        return
    known = read_certificate(folder / _CA)
    if known != ca:
        raise CertificateError(
            f"the admission is of the authority {fingerprint(ca)}, and this site belongs to "
            f"{fingerprint(known)}; if the centre truly made a new federation, move {folder} away, "
            "enroll again and have the new request admitted; if not, do not join"
        )


def _check_name(folder: Path, admission: Admission, certificate: x509.Certificate) -> None:
    try:
        enrolled = common_name(x509.load_pem_x509_csr(read_small(folder / _REQUEST)))
    except ValueError as error:
        raise CertificateError(
            f"{folder / _REQUEST}: the site's request cannot be read ({error}); run wardround-site "
            "enroll again, which keeps the key"
        ) from error
    told = common_name(certificate)
    if not told == admission.site == enrolled:
        raise CertificateError(
            f"this site enrolled as {enrolled!r}; the admission is for {admission.site!r} and its "
            f"certificate for {told!r}; ask the centre for the file of {enrolled!r}"
        )


def _check_key(credentials: Credentials, certificate: x509.Certificate) -> None:
    try:
        credentials.key_of(certificate)
    except CertificateError as error:
        raise CertificateError(
            f"{error}; so the admission answers another request: run wardround-site enroll again, "
            "which keeps the key, and send that request to the centre"
        ) from error


def _json_of(centre: Centre) -> bytes:
    return (json.dumps(asdict(centre), indent=2, sort_keys=True) + "\n").encode()


def _centre(path: Path) -> Centre:
    try:
        return Centre(**json.loads(read_small(path)))
    except (ValueError, TypeError) as error:
        raise CertificateError(
            f"{path}: does not say where the centre is ({error}); join again with the admission "
            "file, which changes nothing else"
        ) from error
