"""Where exported files come from, and whether they are still what was exported.

provenance.json    study, rounds, participants, and the SHA-256 of every file beside it
signature.json     signature of provenance.json's bytes (ECDSA on P-384, SHA-384), and the
                   certificate of the key, by which its federation is known
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from common.certificates import (
    SERVER_NAME,
    CertificateError,
    certificate_of,
    certificate_pem,
    common_name,
    fingerprint,
    read_small,
)
from common.files import write_atomic, write_json
from common.finished import Finished

PROVENANCE, SIGNATURE = "provenance.json", "signature.json"
SCHEMA_VERSION = 1
_ALGORITHM = ec.ECDSA(hashes.SHA384())
_NOT_LISTED = frozenset({PROVENANCE, SIGNATURE})


@dataclass(frozen=True, kw_only=True)
class Signer:
    """Who signs."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What was found of an exported folder."""

    wrong: list[str]
    """What is not as it was exported, one sentence each; empty: all is whole."""
    signer: x509.Certificate | None
    """Whose signature is right; None: it is signed by nobody."""
    provenance: Mapping[str, Any]


def mark_of(finished: Finished) -> dict[str, str]:
    """Return the short form that each exported file carries in itself."""
    return {
        "wardround.study": finished.study.name,
        "wardround.study_digest": finished.digest,
        "wardround.rounds": str(finished.rounds or ""),
        "wardround.participants": ", ".join(participants_of(finished)),
        "wardround.weights_sha256": sha256_of(finished.weights),
        "wardround.version": version("wardround"),
    }


def participants_of(finished: Finished) -> list[str]:
    """Return the sites whose updates are in the model; empty where the run does not tell."""
    return sorted({site for record in finished.records for site in record["participants"]})


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path, finished: Finished, signer: Signer | None) -> None:
    """Write down what lies in an exported folder, and sign it where there is somebody to."""
    write_json(
        folder / PROVENANCE,
        {
            "schema_version": SCHEMA_VERSION,
            "study": finished.study.name,
            "study_digest": finished.digest,
            "rounds": finished.rounds,
            "participants": participants_of(finished),
            "participants_by_round": {
                str(of["round"]): of["participants"] for of in finished.records
            },
            "weights_sha256": sha256_of(finished.weights),
            "wardround": version("wardround"),
            "signed_by": None if signer is None else common_name(signer.certificate),
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "files": _hashes(folder),
        },
    )
    (folder / SIGNATURE).unlink(missing_ok=True)
    if signer is None:
        return
    signature = signer.key.sign((folder / PROVENANCE).read_bytes(), _ALGORITHM)
    told = {
        "algorithm": "ECDSA P-384 SHA-384",
        "signature": base64.b64encode(signature).decode(),
        "certificate": certificate_pem(signer.certificate).decode(),
    }
    write_atomic(folder / SIGNATURE, (json.dumps(told, indent=2) + "\n").encode())


def verify(folder: Path, authority: x509.Certificate | None, by: str = SERVER_NAME) -> Verified:
    """Return what of an exported folder is not as it was exported, and who signed it.

    authority: who must have issued the signer's certificate; None: whose it is, is only told.
    by: the common name of whom the authority knows the signer as.

    Raises:
        CertificateError: the folder holds no export.
    """
    if not folder.is_dir():
        raise CertificateError(f"{folder} is no folder; give the folder that export wrote")
    if not (folder / PROVENANCE).is_file():
        raise CertificateError(
            f"{folder} holds no export: it has no {PROVENANCE}; give the folder that export wrote"
        )
    try:
        raw = (folder / PROVENANCE).read_bytes()
        told = json.loads(raw)
        listed: dict[str, str] = dict(told["files"])
        told["participants"] = [str(site) for site in told.get("participants") or []]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CertificateError(
            f"{folder} holds no export that can be read ({PROVENANCE}: {error}); give the folder "
            "that export wrote"
        ) from error
    found = _hashes(folder)
    wrong = [
        f"{name} was changed" for name in listed if found.get(name, listed[name]) != listed[name]
    ]
    wrong += [f"{name} is missing" for name in sorted(set(listed) - set(found))]
    wrong += [f"{name} was added" for name in sorted(set(found) - set(listed))]
    wrong += [f"{name} is a link, or no file" for name in _no_files(folder)]
    signer, why = _signer(folder, raw, told, authority, by)
    return Verified(wrong=[*wrong, *why], signer=signer, provenance=told)


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: sha256_of(path) for name, path in names.items() if name not in _NOT_LISTED}


def _no_files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not (path.is_file() or path.is_dir())
    )


def _signer(
    folder: Path,
    signed: bytes,
    told: Mapping[str, Any],
    authority: x509.Certificate | None,
    by: str,
) -> tuple[x509.Certificate | None, list[str]]:
    path = folder / SIGNATURE
    if not path.exists():
        said = told.get("signed_by")
        if said is not None:
            return None, [f"{SIGNATURE} is missing: it was signed by {said}"]
        return None, [] if authority is None else ["it is signed by nobody"]
    try:
        about = json.loads(read_small(path))
        certificate = certificate_of(about["certificate"].encode(), SIGNATURE)
        signature = base64.b64decode(about["signature"], validate=True)
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise CertificateError("its key is of another kind than a federation's")
        key.verify(signature, signed, _ALGORITHM)
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        return None, [f"{SIGNATURE} cannot be read ({error})"]
    except InvalidSignature:
        return None, [f"{PROVENANCE} is not what was signed"]
    return certificate, _strange(certificate, told, authority, by)


def _strange(
    certificate: x509.Certificate,
    told: Mapping[str, Any],
    authority: x509.Certificate | None,
    by: str,
) -> list[str]:
    """Return why a right signature is not this federation's."""
    if authority is None:
        return []
    try:
        certificate.verify_directly_issued_by(authority)
        made = datetime.fromisoformat(told["made_at"])
        if not certificate.not_valid_before_utc <= made <= certificate.not_valid_after_utc:
            return ["its signer's certificate was not valid when it was made"]
        if common_name(certificate) != by:
            return [f"it is signed by {common_name(certificate)}, not by {by}"]
    except (KeyError, ValueError, TypeError, InvalidSignature):
        return [
            f"its signer {common_name(certificate)} is not of the authority "
            f"{fingerprint(authority)}"
        ]
    return []
