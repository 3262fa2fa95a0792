import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.merge_url import MergeUrl, MergeUrlError, read_merge_url

HOME = "https://gitlab.example"


@pytest.mark.parametrize(
    ("url", "home", "project", "iid"),
    [
        (f"{HOME}/team/shop/-/merge_requests/12", HOME, "team/shop", 12),
        (f"{HOME}/team/tools/old.shop_2/-/merge_requests/12", HOME, "team/tools/old.shop_2", 12),
        (f"{HOME}/team/shop/-/merge_requests/12/", HOME, "team/shop", 12),
        (f"{HOME}/team/shop/-/merge_requests/12/diffs", HOME, "team/shop", 12),
        (f"{HOME}/team/shop/-/merge_requests/12/diffs?commit_id=abc#diff-content-1", HOME, "team/shop", 12),
        (f"{HOME}/team/shop/-/merge_requests/12#note_1", HOME, "team/shop", 12),
        ("http://gitlab.example/team/shop/-/merge_requests/1", HOME, "team/shop", 1),  # the way is HOME's, not this
        (f"{HOME}:443/team/shop/-/merge_requests/1", HOME, "team/shop", 1),
        ("https://GitLab.Example/team/shop/-/merge_requests/1", HOME, "team/shop", 1),
        ("https://ann:pw@gitlab.example/team/shop/-/merge_requests/1", HOME, "team/shop", 1),
        ("http://gitlab:8929/team/shop/-/merge_requests/1", "http://gitlab:8929", "team/shop", 1),
        (f"{HOME}/gitlab/team/shop/-/merge_requests/1", f"{HOME}/gitlab", "team/shop", 1),
        (f"{HOME}/gitlab/team/shop/-/merge_requests/1", f"{HOME}/gitlab/", "team/shop", 1),
    ],
)
def test_what_an_address_names(url: str, home: str, project: str, iid: int) -> None:
    assert read_merge_url(url, home) == MergeUrl(project, iid)


@pytest.mark.parametrize(
    ("url", "home", "words"),
    [
        ("https://evil.example/team/shop/-/merge_requests/1", HOME, "evil.example is not the GitLab"),
        ("https://gitlab.example@evil.example/team/shop/-/merge_requests/1", HOME, "evil.example is not the GitLab"),
        ("https://gitlab.example.evil.example/a/b/-/merge_requests/1", HOME, "the token is for that one only"),
        ("https://gitlab.example:8443/a/b/-/merge_requests/1", HOME, "gitlab.example:8443 is not the GitLab"),
        ("https://gitlab.example/a/b/-/merge_requests/1", f"{HOME}:8443", "is not the GitLab"),
        ("main..HEAD", HOME, "--range"),
        ("gitlab.example/team/shop/-/merge_requests/1", HOME, f"{HOME}/group/project/-/merge_requests/12"),
        ("ssh://git@gitlab.example/team/shop.git", HOME, "no address of a merge request"),
        ("https:///team/shop/-/merge_requests/1", HOME, "no address of a merge request"),
        ("", HOME, "no address of a merge request"),
        ("https://gitlab.example:port/a/b/-/merge_requests/1", HOME, "is no address"),
        ("https://ann:pw@gitlab.example:port/a/b/-/merge_requests/1", HOME, "'gitlab.example:port/a/b/"),
        ("ssh://ann:pw@gitlab.example/a/b", HOME, "'gitlab.example/a/b' is no address"),
        ("https://[::1/a/b/-/merge_requests/1", HOME, "is no address"),
        (f"{HOME}/team/shop/-/merge_requests/1", f"{HOME}/gitlab", "is not below APPRENTICE_GITLAB_URL"),
        (f"{HOME}/gitlabber/shop/-/merge_requests/1", f"{HOME}/gitlab", "is not below APPRENTICE_GITLAB_URL"),
        (HOME, f"{HOME}/gitlab", "/ is not below"),
        (f"{HOME}/team/shop/-/merge_requests", HOME, "is no page of a merge request"),
        (f"{HOME}/team/shop/-/issues/1", HOME, "is no page of a merge request"),
        (f"{HOME}/shop/-/merge_requests/1", HOME, "is no page of a merge request"),
        (f"{HOME}/team/shop/-/merge_requests/1x", HOME, "is no page of a merge request"),
        (f"{HOME}/team/../shop/-/merge_requests/\u0661", HOME, "is no page of a merge request"),
        (f"{HOME}/team/shop/-/merge_requests/{'1' * 5000}", HOME, "is no page of a merge request"),
    ],
)
def test_what_names_no_merge_request_of_ours(url: str, home: str, words: str) -> None:
    with pytest.raises(MergeUrlError) as error:
        read_merge_url(url, home)
    assert words in str(error.value)
    assert "pw" not in str(error.value)


@given(st.text() | st.from_regex(r"https?://[^/]*/.*/-/merge_requests/[0-9]+"))
def test_any_text_is_read_or_refused_kindly(text: str) -> None:
    try:
        read = read_merge_url(text, HOME)
    except MergeUrlError:
        return
    assert read_merge_url(f"{HOME}/{read.project}/-/merge_requests/{read.iid}", HOME) == read
