import string
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.redact import redact, redact_many

# Made up, and put together here so that no scanner takes this file for a leak.
BODY = "aB3dE6gH9jK2mN5pQ8sT"
LONG = "Qm7Xr2Lk9Vb4Nc8Zt1Hp6Wd3Fs5Gj0Ya" * 3
SECRETS = {
    "glpat-" + BODY: "token = X",
    "gldt-" + BODY: "deploy(X)",
    "GR1348941" + BODY: "register X",
    "ghp_" + LONG[:36]: "git clone with X",
    "github_pat_" + LONG[:60]: "X",
    "AKIA" + "Q2M7XR3LK5VB4NC6": "key X;",
    "xoxb-" + "123456789012-" + BODY: "slack X",
    "AIza" + LONG[:35]: "maps?key=X&z=1",
    "sk_live_" + BODY: "stripe X",
    "npm_" + LONG[:36]: "//registry/:_authToken=X",
    "pypi-" + LONG[:60]: "X",
    "sk-proj-" + LONG[:40]: "openai X",
    "eyJ" + LONG[:20] + ".eyJ" + LONG[:30] + "." + LONG[:30]: "jwt X",
    "whsec_" + LONG[:43] + "=": "hook X",
}
ASSIGNED = {
    "password = 'hunter2hunter2'": "hunter2hunter2",
    '"api_key": "Xk29fj20dkQ1",': "Xk29fj20dkQ1",
    "client_secret := `Ab12Cd34Ef56`": "Ab12Cd34Ef56",
    "DB_PASSWORD=wJalrXUtnFEMI7K8MDENG": "wJalrXUtnFEMI7K8MDENG",
    "export AUTH_TOKEN=9f8e7d6c5b4a39281706": "9f8e7d6c5b4a39281706",
    "url = 'postgres://app:s3cr3tpw@db/x'": "s3cr3tpw",
    "Authorization: Bearer abcdef123456789": "abcdef123456789",
    "headers['Authorization'] = 'Basic dXNlcjpwYXNzd29yZA=='": "dXNlcjpwYXNzd29yZA==",
}
HARMLESS = """\
password = os.environ["DB_PASSWORD"]
password = getpass.getpass()
api_key: ${API_KEY}
api_key: "{{ api_key }}"
token = get_token(user, 1)
token: <your-token-here>
secret = "changeme"
password = "your-password-1"
PASSWORD_FIELD = "user-password-field"
const tokenKind = "refresh-token";
if token == "Bearer":
self.password_hash = hash_password(password, salt2)
uuid = "123e4567-e89b-12d3-a456-426614174000"
commit = "7282ed863ca7e6f928bae9162c9a63a98775a19d"
integrity = "sha512-9Zt5uXcK3cP6yqzvVw8Vv9mB4pQ2dS7fG1hJ0kL3nX5rT8wY6zA2cE4gI6kM8oQ0sU2wY4aC6eG8iK0mO2qS4u=="
sha256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
image = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
postgres://localhost:5432/app
postgres://app:changeme@db/app
https://example.com:8443/path@v2
git@gitlab.example.com:group/project.git
def test_password_must_hold_8_characters():
token_type: Literal["access_v1", "refresh"]
tokens = tokenizer.encode("hello world 42")
    key = f"{prefix}:{name}:2"
secrets_path: /run/secrets/app2/token
private_key_file = "/etc/ssl/private/app2.pem"
PASSWORD_RESET_TIMEOUT = 259200
auth_token_header = X-Auth-Token
access_key.rotate(days=30)
api_keys.map(key => key.id2)
""".splitlines()


@pytest.mark.parametrize(("secret", "line"), SECRETS.items())
def test_known_tokens_go_and_the_rest_stays(secret: str, line: str) -> None:
    done = redact(line.replace("X", secret))
    assert secret not in done.text
    assert sum(done.found.values()) == 1
    before, _, after = line.partition("X")
    assert done.text.startswith(before[:4])
    assert done.text.endswith(after)


@pytest.mark.parametrize(("line", "secret"), ASSIGNED.items())
def test_passwords_in_assignments_headers_and_addresses_go(line: str, secret: str) -> None:
    done = redact(line)
    assert secret not in done.text
    assert "[redacted:" in done.text
    assert sum(done.found.values()) == 1


@pytest.mark.parametrize("line", HARMLESS)
def test_code_that_only_speaks_of_secrets_is_left_alone(line: str) -> None:
    assert redact(line).text == line


@pytest.mark.parametrize(
    "end",
    ["\n-----END RSA PRIVATE " + "KEY-----\nx = 1\n", "\n\ndef f():\n    return 1\n", ""],
    ids=("whole", "cut", "last"),
)
def test_a_private_key_goes_line_by_line(end: str) -> None:
    lines = "\n".join([LONG[:64]] * 4)
    text = "a = 1\n-----BEGIN RSA PRIVATE " + f"KEY-----\n{lines}{end}"
    done = redact(text)
    assert LONG[:16] not in done.text
    assert done.text.count("\n") == text.count("\n")
    assert done.text.startswith("a = 1\n")
    assert done.text.endswith(end.rpartition("KEY-----")[2])
    assert done.found == {"private key": 1}


def test_a_begin_line_alone_is_no_secret() -> None:
    text = "if line == '-----BEGIN PRIVATE " + "KEY-----':\n    start()\n"
    assert redact(text).text == text


def test_secrets_side_by_side_and_after_odd_characters() -> None:
    first, second = "glpat-" + BODY, "ghp_" + LONG[:36]
    done = redact(f"ä\0\u2028\ud800😀 {first} {second}\r\n{first}")
    assert first not in done.text
    assert second not in done.text
    assert done.text.startswith("ä\0\u2028\ud800😀 ")
    assert sum(done.found.values()) == 3


def test_many_are_done_as_one_by_one() -> None:
    texts = ["x = 1", "glpat-" + BODY]
    assert redact_many(texts) == [redact(text) for text in texts]


def test_what_was_redacted_is_not_in_any_representation() -> None:
    secret = "glpat-" + BODY
    assert secret not in repr(redact(f"a {secret}"))


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200), st.sampled_from(sorted(SECRETS)), st.text(max_size=200))
def test_a_planted_secret_is_gone_and_no_line_with_it(before: str, secret: str, after: str) -> None:
    text = f"{before} {secret} {after}"
    done = redact(text)
    assert secret not in done.text
    assert done.text.count("\n") == text.count("\n")
    assert sum(done.found.values()) >= 1


@settings(max_examples=200, deadline=None)
@given(
    st.text(st.characters() | st.sampled_from("\n:='\"@/ "))
    | st.lists(st.sampled_from([*SECRETS, *ASSIGNED, *HARMLESS, "\n", " ", string.ascii_letters]), max_size=8).map(
        "".join
    )
)
def test_once_is_enough_and_any_text_is_fine(text: str) -> None:
    once = redact(text)
    again = redact(once.text)
    assert again.text == once.text
    assert not again.found
    assert once.text.count("\n") == text.count("\n")


@pytest.mark.parametrize(
    "evil",
    ["a", "password=", "://", "-----BEGIN PRIVATE " + "KEY-----", "eyJ", "authorization:", "secret", " ", "token = '"],
)
def test_hostile_repetition_ends(evil: str) -> None:
    redact(evil * (300_000 // len(evil)))


def test_the_scanner_is_loaded_when_it_is_needed_only() -> None:
    program = "import sys, bot.redact; print('kingfisher_sdk' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout.strip() == b"False"
