"""Which texts may leave a site: those whose every word is one that our own are made of."""

import re

LONGEST_TEXT = 600
_GROUPS = "study|privacy|training|model|task|data|strategy|policy|cohort|studies|may_leave"
_SETTING = rf"(?:{_GROUPS})(?:\.[a-z_0-9]+(?:\[\d\])?){{1,3}}"
_NUMBER = r"-?\d{1,5}(?:\.\d{1,6})?(?:e[+-]?\d{1,3})?"
_WORD = r"[a-z]+(?:[-_'][a-z]+)*"
_DIGEST = r"(?=\d*[a-f])(?:[0-9a-f]{12}|[0-9a-f]{64})"
_FORMULA = r"1/(?:patients|\(2)"
_KNOWN = "CPU|GPU|Request|Description|TrainReply|EvaluateReply|Refusal|Input"
_VALUE = rf"{_NUMBER}|{_WORD}"
_NAME = r"(?:model|task)\.name=[a-z][a-z0-9_]{0,31}"
_SPOKEN = re.compile(
    rf"\(?(?:{_NUMBER}|{_DIGEST}|{_KNOWN}|{_NAME}|(?:{_WORD}|{_SETTING}|{_FORMULA})(?:=(?:{_VALUE}))?)"
    r"\)?[.,:;]?"
)
_FILE = re.compile(r"\.(?:png|jpe?g|dcm|nii|gz|csv|tsv|json|ya?ml|npy|npz|txt|log|py)\b")


def speakable(text: str) -> bool:
    """Return whether a refusal's text is made of nothing but words that ours are made of.

    Those are words in small letters, short numbers, settings of a study or a policy, and digests.
    A path has slashes, a file a dot that is no setting's, a person a capital, a patient's number
    letters and digits together or many digits: all of these are no such words.
    """
    words = text.split(" ")
    plain = len(text) <= LONGEST_TEXT and not _FILE.search(text)
    return plain and all(_SPOKEN.fullmatch(word) for word in words)
