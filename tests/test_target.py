import pytest

from bot.target import TargetError, read_target


@pytest.mark.parametrize(
    "home", ["https://gitlab.example", "https://gitlab.example/gitlab", "http://gitlab.example:81"]
)
@pytest.mark.parametrize(
    ("below", "read"),
    [
        ("team", "team"),
        ("team/tools/shop", "team/tools/shop"),
        ("team/tools/shop.git", "team/tools/shop"),
        ("groups/team/tools/-/group_members", "team/tools"),
        ("team/shop/-/settings/integrations?page=2#top", "team/shop"),
        ("team/", "team"),
    ],
)
def test_the_address_of_a_page(home: str, below: str, read: str) -> None:
    assert read_target(f"{home}/{below}", home) == read


@pytest.mark.parametrize(
    ("text", "read"), [("42", 42), ("team", "team"), ("/team/a.b/c-d_e/", "team/a.b/c-d_e"), ("ünï/cøde", "ünï/cøde")]
)
def test_a_number_or_a_path(text: str, read: int | str) -> None:
    assert read_target(text, "https://gitlab.example") == read


@pytest.mark.parametrize(
    "text",
    ["https://gitlab.com/team", "https://gitlab.example/team", "https://gitlab.example/gitlabs/team"],
)
def test_another_server(text: str) -> None:
    with pytest.raises(TargetError, match=r"is not on https://gitlab\.example/gitlab,"):
        read_target(text, "https://gitlab.example/gitlab")


@pytest.mark.parametrize(
    "text", ["", "/", "a b", "a//b", "a/../b\n", "https://gitlab.example", "https://gitlab.example/"]
)
def test_nothing(text: str) -> None:
    with pytest.raises(TargetError, match="names no group and no project"):
        read_target(text, "https://gitlab.example")


def test_no_address() -> None:
    with pytest.raises(TargetError, match="is no address"):
        read_target("https://[/team", "https://gitlab.example")
