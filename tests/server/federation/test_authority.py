import ipaddress
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from common.certificates import CertificateError, new_key
from server.federation.authority import Authority, new_authority
from tests.server.federation.homes import NOW

_KEY = new_key()
AUTHORITY = Authority(key=_KEY, certificate=new_authority("f", _KEY, NOW), federation="f")
HOSTS = ["fed.example.org", "127.0.0.1", "::1"]


def _verify_server(certificate: x509.Certificate, host: x509.DNSName | x509.IPAddress) -> None:
    builder = PolicyBuilder().store(Store([AUTHORITY.certificate])).time(NOW)
    builder.build_server_verifier(host).verify(certificate, [])


def test_the_authority_signs_no_other_authority_and_lasts_ten_years() -> None:
    certificate = AUTHORITY.certificate
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.digital_signature) == (True, False)
    assert certificate.not_valid_after_utc - NOW == timedelta(days=3653, seconds=1)


def test_the_servers_certificate_is_for_each_of_its_hosts_and_no_other() -> None:
    certificate = AUTHORITY.server_certificate(HOSTS, new_key().public_key(), NOW)
    _verify_server(certificate, x509.DNSName(HOSTS[0]))
    for address in HOSTS[1:]:
        _verify_server(certificate, x509.IPAddress(ipaddress.ip_address(address)))
    with pytest.raises(VerificationError):
        _verify_server(certificate, x509.DNSName("evil.example.org"))


def test_a_sites_certificate_is_none_for_a_server() -> None:
    certificate = AUTHORITY.site_certificate("st-marys", new_key().public_key(), NOW)
    with pytest.raises(VerificationError):
        _verify_server(certificate, x509.DNSName("st-marys"))


def test_no_certificate_outlives_its_authority() -> None:
    end = AUTHORITY.certificate.not_valid_after_utc
    late = AUTHORITY.site_certificate("st-marys", new_key().public_key(), end - timedelta(days=3))
    assert late.not_valid_after_utc == end
    with pytest.raises(CertificateError, match=r"authority ended.*init"):
        AUTHORITY.site_certificate("st-marys", new_key().public_key(), end)


@pytest.mark.parametrize("days", [0, -1, 3654])
def test_days_beyond_the_authoritys_are_refused(days: int) -> None:
    with pytest.raises(CertificateError, match=f"days={days}"):
        AUTHORITY.site_certificate("st-marys", new_key().public_key(), NOW, days)
