"""The admission: what the centre hands to a hospital, and all that a site needs to connect.

One JSON file without a secret. Who can change it on its way can name another centre, so its
authority's fingerprint is compared by telephone.
"""

import json
from dataclasses import asdict, dataclass

from common.certificates import CertificateError, check_host, check_site_name

FORMAT = 1
_AGAIN = "ask the centre for the admission file again"


@dataclass(frozen=True, kw_only=True)
class Admission:
    """Where the centre is, how it is known, and the site's own certificate."""

    federation: str
    """The federation's name."""
    site: str
    """The site's name; the certificate says it too."""
    hosts: list[str]
    """Names and addresses of the centre, the first tried first."""
    port: int
    """TCP port there."""
    ca: str
    """The authority's certificate in PEM."""
    certificate: str
    """The site's certificate in PEM."""
    format: int = FORMAT
    """Version of this file."""

    def __post_init__(self) -> None:
        texts = (self.federation, self.site, self.ca, self.certificate)
        if type(self.hosts) is not list or {type(t) for t in (*texts, *self.hosts)} != {str}:
            raise CertificateError(f"an admission has a value of another type; {_AGAIN}")
        if self.format != FORMAT:
            raise CertificateError(
                f"an admission of format {self.format!r} is not known here, only {FORMAT}; "
                "site and centre need versions of wardround that fit"
            )
        # It is shown on a terminal before anybody has vouched for it.
        if not self.federation.isprintable():
            raise CertificateError(f"the federation's name {self.federation!r} is not fit to show")
        check_site_name(self.site)
        check_address(self.hosts, self.port)

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        return (json.dumps(asdict(self), indent=2, sort_keys=True) + "\n").encode()


def admission_of(content: bytes) -> Admission:
    """Return the admission in a file's content.

    Raises:
        CertificateError: it is no admission, or one with more or less in it than there is to say.
    """
    if b"PRIVATE KEY" in content:
        raise CertificateError(
            "this file holds a private key, which no centre may have; do not join with it"
        )
    try:
        return Admission(**json.loads(content))
    except CertificateError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise CertificateError(f"this is no admission file ({error}); {_AGAIN}") from error


def check_address(hosts: list[str], port: int) -> None:
    """Raise CertificateError unless these are one or more hosts and a port."""
    if not hosts:
        raise CertificateError("a federation without a host cannot be reached; give one or more")
    for host in hosts:
        check_host(host)
    if type(port) is not int or not 1 <= port <= 65_535:
        raise CertificateError(f"the port {port!r} is not allowed; give one from 1 to 65535")
