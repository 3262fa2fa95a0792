import base64
import string
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bot import redact as module
from bot.redact import Redacted, RedactionError, redact

# Secrets are put together at run time, so that nobody's scanner takes this file for a leak.
ALNUM = string.ascii_letters + string.digits
LOWER = string.ascii_lowercase + string.digits
HEX = "0123456789abcdef"
UPPER = string.ascii_uppercase + "234567"
BASE64 = ALNUM + "+/"


def chars(count: int, alphabet: str = ALNUM, *, step: int = 7) -> str:
    """The same well mixed characters each time."""
    size = len(alphabet)
    return "".join(alphabet[(step * index * index + 11 * index + 3) % size] for index in range(count))


def pem(kind: str = "RSA PRIVATE KEY", lines: int = 12, prefix: str = "", end: str = "\n") -> str:
    body = [chars(64, BASE64, step=step) for step in range(3, 3 + lines)]
    rule = "-" * 5
    return end.join([f"{rule}BEGIN {kind}{rule}", *(prefix + line for line in body), f"{prefix}{rule}END {kind}{rule}"])


def jwt() -> str:
    return ".".join(["eyJ" + chars(20), "eyJ" + chars(30), chars(43)])


# How a token looks, without what stands around it: (kind, token).
TOKENS = [
    ("gitlab-token", "glpat-" + "x" * 20),
    ("gitlab-token", "glpat-" + chars(20)),
    ("gitlab-token", "glpat-" + chars(27) + ".01." + chars(9, LOWER)),
    ("gitlab-token", "gldt-" + chars(20)),
    ("gitlab-token", "glrt-t1_" + chars(20)),
    ("gitlab-token", "glptt-" + chars(40, HEX)),
    ("gitlab-token", "glcbt-64_" + chars(20)),
    ("gitlab-token", "GR1348941" + chars(20)),
    ("github-token", "ghp_" + chars(36)),
    ("github-token", "gho_" + chars(36)),
    ("github-token", "ghs_" + chars(36)),
    ("github-token", "github_pat_" + chars(22) + "_" + chars(59)),
    ("aws-key-id", "AKIA" + chars(16, UPPER)),
    ("aws-key-id", "ASIA" + "A2" * 8),
    ("google-key", "AIza" + chars(35)),
    ("google-key", "GOCSPX-" + chars(28)),
    ("slack-token", "xoxb-" + chars(12, string.digits) + "-" + chars(24)),
    ("slack-token", "xapp-1-" + chars(30)),
    ("stripe-key", "sk_live_" + chars(24)),
    ("stripe-key", "whsec_" + chars(32)),
    ("npm-token", "npm_" + chars(36)),
    ("pypi-token", "pypi-AgE" + chars(120)),
    ("openai-key", "sk-proj-" + chars(60)),
    ("openai-key", "sk-" + chars(48)),
    ("huggingface-token", "hf_" + chars(34)),
    ("jwt", jwt()),
    ("sendgrid", "SG." + chars(22) + "." + chars(43)),  # from here on it is Kingfisher that knows
    ("digitaloceanapikey", "dop_v1_" + chars(64, HEX)),
    ("shopify-access-token", "shpat_" + chars(32, HEX)),
]
# What is a secret by what stands around it: (kind, before, secret, after).
PLACES = [
    ("password", 'password = "', "Tr0ub4dor&3x", '"'),
    ("password", "db_password: str = '", "hunter2", "'"),
    ("password", '"adminPassword": "', "Summer2024!", '",'),
    ("password", "$config['password'] = '", chars(12), "';"),
    ("password", ":passwd => `", chars(12), "`"),
    ("password", "setPassword('", "p4ss-w0rd-1x", "')"),
    ("password", 'if password == "', "123456", '":'),
    ("password", '#define PASSWORD "', "ab%cd12", '"'),
    ("password", 'body = "{\\"password\\": \\"', chars(14), '\\"}"'),
    ("password", "  db_password: ", chars(14), "\n"),
    ("password", "PGPASSWORD=", chars(14), " psql"),
    ("password", "Server=db;Pwd=", chars(14), ";Timeout=3"),
    ("password", "<password>", chars(14), "</password>"),
    ("password", "mysql --password=", chars(14), " -h db"),
    ("secret", "SECRET_KEY = '", "django-insecure-" + chars(30) + "(#", "'"),
    ("secret", "secret_key_base: ", chars(64, HEX), "\n"),
    ("secret", "export AWS_SECRET_ACCESS_KEY=", chars(40, BASE64), "\n"),
    ("secret", 'api_key: "', chars(32, HEX), '"'),
    ("secret", "PRIVATE-TOKEN: ", chars(20), "\n"),
    ("secret", 'clientSecret = @"', "aBcDeFgHiJkLmNoPqR", '"'),
    ("secret", 'var token string = "', chars(20), '"'),
    ("authorization", "Authorization: Bearer ", chars(40), '"'),
    ("authorization", '"Authorization", "Basic ', base64.b64encode(b"admin:x1").decode().rstrip("="), '"'),
    ("url-password", "postgres://app:", "s3cr", "@db:5432/x"),
    ("url-password", "redis://:", "p@ss" + chars(8), "@cache"),
    ("azure-key", "AccountName=x;AccountKey=", chars(86, BASE64) + "==", ";Endpoint"),
    (
        "slack-webhook",
        "url: ",
        "https://hooks.slack.com/services/T" + chars(8, UPPER) + "/B" + chars(8, UPPER) + "/" + chars(24),
        '"',
    ),
    ("curl-auth-user", "curl -u ", "admin:" + chars(12), " https://x.example.com/"),  # Kingfisher
]
# A line a time. None of it is a secret, however random it looks.
INNOCENT = r"""
commit 3f786850e387550fdab836ed7e6dc881de23b001
index 83db48f..bf2a1c9 100644
"integrity": "sha512-9Qa6LBRV5cWW4XzYTCNgU5ZS0z0VrVVjLS0n3Ss0fVfGC0zhaXyXTj1pTZ8b5nTqNPbNBEhmMIEsNVVJ3AFQUw==",
"resolved": "https://registry.npmjs.org/@babel/core/-/core-7.24.0.tgz#56cbda6b185ae9d9bed369816a8f4423c5f2ff1b",
    --hash=sha256:2b8c1b3a5e1f0c1f5f9f0f2d6d0f7d0b4a9f2f6c3e8d7b6a5f4e3d2c1b0a9f8e
github.com/stretchr/testify v1.9.0 h1:HtqpIVDClZ4nwg75+f6Lvsy/wHu+3BoSGCbBAcpTsTg=
checksum = "4c7cc4b9d4ef4b2b8c8a7f6c0c1d0e1f2a3b4c5d6e7f8091a2b3c4d5e6f70819"
id = uuid.UUID("550e8400-e29b-41d4-a716-446655440000")
<img src="data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR">
FROM python@sha256:8a7d2b6c5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f9a8b
password = os.environ["DB_PASSWORD"]
password: ${{ secrets.DB_PASSWORD_2 }}
password = "changeme"
password: str = Field(min_length=12)
db_password = get_secret("prod/db1/password")
DB_PASSWORD=$DB_PASSWORD1
PASSWORD="${PASSWORD:-default1}"
password = "<your-password-1>"
passwords = ["a1b2c3d4e5", "z9y8x7w6v5"]
password = input("Enter your 1st password: ")
"password": "********",
password = f"{user1}"
const passwordPattern = "^[a-z0-9]{8,}$";
token = tokens[i2] if token.kind == TokenKind.INT64 else next_token2
if (token.type === "STRING_LITERAL_2") return parseToken1(token);
token: "[a-z0-9_]+"
access_token: Optional[str] = None
self.secret = secrets.token_urlsafe(32)
secretName: my-app-tls-2
private_key = "/etc/ssl/private/server1.pem"
api_key = config.get("api_key_v2", "")
max_tokens=4096, token_count = 12345678
url = "https://user:password@example.com/" # https://$USER:${PASS}@host http://localhost:8080/@scope/pkg
git@gitlab.com:group/project.git ssh://git@gitlab.com:22/group/project.git
Authorization: Bearer ${TOKEN}
"Authorization": "Bearer " + access_token_value_2
see RFC 7617 for Basic operation, Basic authentication1 and Bearer authentication_schemes
assert is_private_key("-----BEGIN PRIVATE KEY-----") and "-----END PRIVATE KEY-----"
-----BEGIN CERTIFICATE-----
.sk-circle-bounce-delay-animation { color: #a1b2c3; } .glide-slider__track {}
const eyJson = eyJSON.parse(eyJustAName.eyJ);
ASIAPACIFICREGIONNAMES AKIA npm_config_registry hf_hub_download gh_token xoxo-hugs
"""
LINES = [line for line in INNOCENT.split("\n") if line]


@pytest.mark.parametrize(("kind", "token"), TOKENS, ids=[token[:10] for _, token in TOKENS])
def test_tokens_are_known_wherever_they_stand(kind: str, token: str) -> None:
    for before, after in [
        ("", ""),
        ("x = '", "'"),
        ("+\t", " # é\u2028"),
        ('"\\n', '\\n"'),
        ("é", "é\n"),
        ("\0", "\0"),
    ]:
        assert redact(before + token + after) == Redacted(f"{before}[redacted:{kind}]{after}", {kind: 1})


@pytest.mark.parametrize(("kind", "before", "secret", "after"), PLACES)
def test_a_secret_is_known_by_its_place(kind: str, before: str, secret: str, after: str) -> None:
    for start, end in [("", ""), ("a = 1\n+   ", "\nb = 2\r\n"), ("é\u2028 ", "é\0")]:
        text = start + before + secret + after + end
        assert redact(text) == Redacted(f"{start}{before}[redacted:{kind}]{after}{end}", {kind: 1})


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_what_only_looks_like_a_secret_stays(line: str) -> None:
    assert redact(f"{line}\n") == Redacted(f"{line}\n", {})


def test_innocent_lines_stay_together_too() -> None:
    assert len(LINES) >= 30
    assert redact(INNOCENT) == Redacted(INNOCENT, {})


def test_a_text_without_secrets_is_the_same_text() -> None:
    source = Path(module.__file__).read_text(encoding="utf-8")
    assert redact(source) == Redacted(source, {})
    assert redact("") == Redacted("", {})


def test_counts_by_kind_and_shows_no_value() -> None:
    token, other, word = "ghp_" + chars(36), "ghp_" + chars(36, step=5), chars(12)
    result = redact(f"a {token}, {other}\npassword='{word}' {token}\n")
    mark = "[redacted:github-token]"
    assert result.text == f"a {mark}, {mark}\npassword='[redacted:password]' {mark}\n"
    assert result.found == {"github-token": 3, "password": 1}
    assert not any(secret in repr(result) for secret in (token, other, word))


def test_the_kind_that_says_most_names_an_overlap() -> None:
    assert redact(f"token = 'glpat-{chars(20)}'").text == "token = '[redacted:gitlab-token]'"
    assert redact(f"password='a1b2{jwt()}'").found == {"jwt": 1}
    uri = f"mongodb+srv://user:{chars(12)}@cluster0.abcde.mongodb.net/x"
    assert redact(f"x = '{uri}'").text == "x = '[redacted:url-password]'"


def test_a_secret_in_base64_is_found() -> None:
    hidden = base64.b64encode(f"the key is glpat-{chars(20)} indeed".encode()).decode()
    assert redact(f"data: {hidden}\n").text == "data: [redacted:gitlab-pat]\n"


@pytest.mark.parametrize("kind", ["PRIVATE KEY", "RSA PRIVATE KEY", "OPENSSH PRIVATE KEY", "PGP PRIVATE KEY BLOCK"])
@pytest.mark.parametrize(("prefix", "end"), [("", "\n"), ("+", "\n"), ("-    ", "\n"), ("# ", "\r\n"), (" * ", "\n")])
def test_each_line_of_a_private_key_is_replaced(kind: str, prefix: str, end: str) -> None:
    before, after = f"key{end}{prefix}", f"{end}{prefix}x = 1{end}"
    result = redact(before + pem(kind, prefix=prefix, end=end) + after)
    marks = end.join([prefix + "[redacted:private-key]"] * 14)[len(prefix) :]
    assert result == Redacted(before + marks + after, {"private-key": 1})


def test_a_private_key_in_a_literal() -> None:
    one_line = pem(end="\\n")
    assert redact(f'{{"key": "{one_line}\\n"}}').text == '{"key": "[redacted:private-key]\\n"}'
    concatenated = pem(end='\\n" +\n    "')
    result = redact(f'key = "{concatenated}\\n";\nx = 1;\n')
    assert result.text.startswith('key = "[redacted:private-key]\n    [redacted:private-key]\n')
    assert result.text.endswith('    [redacted:private-key]\\n";\nx = 1;\n')
    assert result.text.count("\n") == 15


@pytest.mark.parametrize("prefix", ["", "+", "  "])
def test_half_of_a_private_key_is_found(prefix: str) -> None:
    lines = pem(prefix=prefix).split("\n")
    mark = prefix + "[redacted:private-key]"
    top = "\n".join([lines[0], prefix + "Proc-Type: 4,ENCRYPTED", prefix, *lines[1:6]])
    assert redact(f"{prefix}{top}\n").text == "\n".join([mark] * 8) + "\n"
    bottom = "\n".join(lines[6:])
    result = redact(f"{prefix}x = 1\n{bottom}\n{prefix}y = 2\n").text
    assert result.startswith(f"{prefix}x = 1\n")
    assert result.endswith(f"[redacted:private-key]\n{prefix}y = 2\n")
    assert result.count("[redacted:private-key]") == len(lines[6:])
    both = f"{bottom}\n{prefix}between(1, 2)\n{prefix}{top}\n"
    assert redact(both).found == {"private-key": 2}
    assert f"{prefix}between(1, 2)\n" in redact(both).text


def test_far_apart_edges_are_no_block() -> None:
    lines = pem().split("\n")
    code = "print(first, second)\n" * 20
    text = f"{lines[0]}\n{lines[1]}\n{code}{lines[-2]}\n{lines[-1]}\n"
    assert redact(text).text.count(code) == 1
    assert redact(text).found == {"private-key": 2}


def test_marks_are_left_alone_and_other_brackets_are_not() -> None:
    text = "password = '[redacted:password]' + [redacted:gitlab-token]\nBearer [redacted:authorization] and=1more\n"
    assert redact(text) == Redacted(text, {})
    token = "glpat-" + "x" * 20
    assert redact(f"[redacted:{token}]").text == "[redacted:[redacted:gitlab-token]]"


def test_every_kind_fits_a_mark() -> None:
    kinds = module._kingfisher.kinds() | module._OWN_KINDS
    assert len(kinds) > 300
    for kind in kinds:
        match = module._MARK.fullmatch(f"[redacted:{kind}]")
        assert match is not None
        assert match[1] == kind


@pytest.mark.parametrize("lead", ["", "\xff\xfe", "\ufeff", "\0" * 50, "x\0" * 50, "\ud800", "𝕏é\u2028\x85"])
def test_odd_characters_do_not_hide_a_secret(lead: str) -> None:
    token = "dop_v1_" + chars(64, HEX)  # known to Kingfisher alone
    assert redact(f"{lead} {token} {lead}") == Redacted(
        f"{lead} [redacted:digitaloceanapikey] {lead}", {"digitaloceanapikey": 1}
    )


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> module._Kingfisher:
    scanner = module._Kingfisher()
    monkeypatch.setattr(module, "_kingfisher", scanner)
    return scanner


def test_without_the_scanner_nothing_passes(
    fresh: module._Kingfisher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "kingfisher_sdk", None)
    module.warm_up(tmp_path)
    wait_for_loading()
    with pytest.raises(RedactionError, match="Install kingfisher-secret-scanner again"):
        redact("harmless")
    monkeypatch.undo()
    monkeypatch.setattr(module, "_kingfisher", fresh)
    assert redact("harmless") == Redacted("harmless", {})


def test_a_text_that_cannot_be_scanned_is_withheld(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_SCAN_SECONDS", 1e-9)
    mark = "[redacted:withheld]"
    assert redact("one\ntwo\r\n\nfour") == Redacted("\n".join([mark] * 4), {"withheld": 1})
    assert redact("") == Redacted(mark, {"withheld": 1})


def test_a_text_that_needs_too_many_passes_is_withheld(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_PASSES", 1)
    assert redact(f"a\nglpat-{chars(20)}\n").text == "\n".join(["[redacted:withheld]"] * 3)


@pytest.mark.process  # none of its own, but five seconds: Kingfisher compiles all its rules
def test_loading_in_the_background_keeps_its_rules(fresh: module._Kingfisher, tmp_path: Path) -> None:
    module.warm_up(tmp_path)
    assert redact(f"glpat-{chars(20)}").found == {"gitlab-token": 1}
    wait_for_loading()
    assert len(list((tmp_path / "kingfisher").iterdir())) == 1
    assert fresh.load() is fresh.load()


def wait_for_loading() -> None:
    for thread in threading.enumerate():
        if thread.name == "kingfisher":
            thread.join()


ANY_TEXT = st.text(st.characters(codec=None), max_size=60)
PIECES = st.sampled_from(
    [
        *(token for _, token in TOKENS),
        *(before + secret + after for _, before, secret, after in PLACES),
        *(before for _, before, _, _ in PLACES),
        *LINES,
        *(f"[redacted:{kind}]" for kind in ("password", "secret", "jwt", "nothing")),
        pem(),
        pem().split("\n")[0],
        pem().split("\n")[1] + "\n",
        pem().split("\n")[-1],
        *"\n\r\"'=:@/[]{}() \t\\\0é",
        "eyJ",
        "://",
        "bearer ",
        chars(12),
    ]
)
MIXED = st.lists(PIECES | ANY_TEXT, max_size=12).map("".join)


@settings(max_examples=200, deadline=None)
@given(MIXED)
def test_any_text_keeps_its_lines_and_needs_no_second_time(text: str) -> None:
    result = redact(text)
    assert result.text.count("\n") == text.count("\n")
    assert redact(result.text) == Redacted(result.text, {})
    assert bool(result.found) == (result.text != text)
    assert sum(result.found.values()) <= result.text.count("[redacted:")


@settings(max_examples=200, deadline=None)
@given(before=MIXED, token=st.sampled_from([token for _, token in TOKENS]), after=MIXED)
def test_a_token_planted_anywhere_is_gone(before: str, token: str, after: str) -> None:
    assume(not before.endswith("[redacted:"))
    result = redact(before + token + after)
    assert token not in result.text
    assert token not in repr(result)


@settings(max_examples=150, deadline=None)
@given(before=ANY_TEXT, place=st.sampled_from(PLACES), after=ANY_TEXT)
def test_a_secret_planted_at_its_place_is_gone(before: str, place: tuple[str, str, str, str], after: str) -> None:
    _, lead, secret, tail = place
    assume(secret not in before + after)
    assert secret not in redact(f"{before}\n{lead}{secret}{tail}\n{after}").text


@settings(max_examples=100, deadline=None)
@given(before=ANY_TEXT, after=ANY_TEXT, prefix=st.sampled_from(["", "+", "-", "  ", "# "]))
def test_a_private_key_planted_anywhere_is_gone(before: str, after: str, prefix: str) -> None:
    key = pem(prefix=prefix)
    result = redact(before + key + after)
    assert not any(line.strip() in result.text for line in key.split("\n"))
    assert result.text.count("\n") == (before + key + after).count("\n")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(LINES), min_size=1, max_size=20).map("\n".join))
def test_innocent_lines_stay_in_any_order(text: str) -> None:
    assert redact(text) == Redacted(text, {})


HOSTILE = [
    "a",
    " ",
    "-",
    "\\",
    "<",
    "{a",
    "x1",
    "é",
    "\0",
    "password",
    "password=",
    "password='",
    'password="\\',
    "pwd=\"pwd='pwd=`",
    "password='1_",
    "password: a ",
    "token=a1b2c3d4(",
    "secret:a=",
    "token,",
    "eyJ",
    "eyJaaaaaaaaa.",
    "://",
    "://a:",
    "://a:b",
    "bearer ",
    "basic aaaaaaaa=",
    "ASIA",
    "glpat-",
    "[redacted:",
    "[redacted:password]",
    "-----BEGIN PRIVATE KEY-----\n",
    "-----END PRIVATE KEY-----\n",
    "-----BEGIN A ",
]


@pytest.mark.no_cover  # a tracer would take most of the time
@pytest.mark.parametrize(
    ("start", "piece"),
    [
        *(("", piece) for piece in HOSTILE),
        ("password='", "1"),
        ("password='", "<"),
        ("password='", "%"),
        ("password='", "aA"),
        ("token: ", "a "),
        ("token:", " "),
        ("-----BEGIN PRIVATE KEY-----", "a-"),
        ("-----BEGIN PRIVATE KEY-----\n", "a: \n"),
        ("-----BEGIN PRIVATE KEY-----", "\\n"),
    ],
)
def test_time_grows_with_the_length_and_no_faster(start: str, piece: str) -> None:
    def seconds(length: int) -> float:
        text = start + piece * (length // len(piece)) + "_'"
        begin = time.thread_time()
        list(module._own_spans(text))
        return time.thread_time() - begin

    small, large = min(seconds(30_000) for _ in range(2)), seconds(240_000)
    if large >= max(0.05, 24 * small):  # something may have come between: once more
        large = min(large, seconds(240_000))
    assert large < 0.05 or large < 24 * small  # eight times the text: 8 if linear, 64 if quadratic


@pytest.mark.no_cover  # a tracer would take most of the time
@pytest.mark.parametrize("piece", ["a", "password=", "password='", "eyJ", "://a:b"])
def test_a_great_deal_of_it_passes(piece: str) -> None:
    text = piece * (300_000 // len(piece))
    assert redact(text).text.count("\n") == 0
