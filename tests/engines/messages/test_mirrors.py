"""Addresses that a page may name for the worker to ask: what passes, what is refused, and in which words."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from engines.errors import OptionError
from engines.messages import Fetch, pack, parse, unpack
from engines.messages.mirrors import ELSEWHERE, WANTED, forbidden
from tests.support.http import CJK
from webui.i18n import words

GOOD = (
    "",
    "https://hf-mirror.com",
    "https://hf-mirror.com/",
    "https://HF-Mirror.com:8443/api/huggingface",
    "https://93.184.216.34",
    "https://[2606:2800:220:1::1]:443",
    "http://192.168.1.9:8090",
    "http://10.0.0.2",
    "http://[fd12:3456::9]:8090",
    "http://nas:8090",
    "http://nas.local",
    "http://hub.home.arpa:80/hf",
)
THIS_MACHINE = (
    "https://localhost",
    "http://localhost:6379",
    "http://a.localhost",
    "http://LOCALHOST.",
    "http://127.0.0.1:7860",
    "https://127.8.8.8",
    "http://[::1]:7860",
    "http://[::ffff:127.0.0.1]",
    "http://0.0.0.0",
    "http://[::]",
    "http://169.254.169.254/latest/meta-data",
    "http://[fe80::1]",
    "http://100.100.100.200",
    "http://[fd00:ec2::254]",
    "https://168.63.129.16",
    "https://224.0.0.1",
    "https://255.255.255.255",
)
OTHER = (
    "hf-mirror.com",
    "ftp://hf-mirror.com",
    "file:///etc/passwd",
    "gopher://192.168.1.1:6379",
    "https://",
    "https:///x",
    "https://:443",
    "https://hf-mirror.com:99999",
    "https://hf-mirror.com:x",
    "https://hf-mirror.com:0",
    "https://[::1",
    "https://somebody:secret@hf-mirror.com",
    "https://hf-mirror.com@evil.example",
    "https://hf-mirror.com?x=1",
    "https://hf-mirror.com#x",
    "https://hf-mirror.com/../x",
    "https://hf-mirror.com\\@evil.example",
    "https://hf mirror.com",
    " https://hf-mirror.com",
    "https://hf-mirror.com\n",
    "https://hf-mirror.com\r\nX: y",
    "https://镜像.example",
    "http://hf-mirror.com",
    "http://93.184.216.34",
    "http://2130706433",
    "http://0x7f000001",
    "http://127.1",
    "https://0177.0.0.1",
    "https://0x7f.0.0.1",
    "javascript:alert(1)",
)


@pytest.mark.parametrize("address", GOOD)
def test_a_hub_elsewhere_can_be_named(address: str) -> None:
    assert unpack(pack(Fetch("gpen", endpoint=address))) == Fetch("gpen", endpoint=address)


@pytest.mark.parametrize("address", THIS_MACHINE)
def test_this_machine_itself_is_not_asked(address: str) -> None:
    with pytest.raises(OptionError) as caught:
        Fetch("gpen", endpoint=address)
    assert (caught.value.facts["field"], caught.value.facts["allowed"]) == ("endpoint", ELSEWHERE)


@pytest.mark.parametrize("address", OTHER)
def test_what_is_no_address_of_a_hub_is_refused(address: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(Fetch, {"model": "gpen", "endpoint": address})
    assert caught.value.facts["allowed"] == WANTED


@pytest.mark.parametrize("address", [None, 5, ["https://hf-mirror.com"], {}, "https://x.example/" + "x" * 200])
def test_whatever_is_sent_it_is_refused_in_words(address: object) -> None:
    with pytest.raises(OptionError):
        parse(Fetch, {"model": "gpen", "endpoint": address})


def test_a_download_that_an_earlier_version_stored_has_no_mirror() -> None:
    assert unpack('{"kind": "fetch", "model": "gpen", "mirror": "hf"}') == Fetch("gpen")


@pytest.mark.parametrize("allowed", [WANTED, ELSEWHERE])
def test_what_is_wanted_is_said_in_both_languages(allowed: str) -> None:
    assert CJK.search(words("zh").phrase(allowed)) and words("en").phrase(allowed) == allowed


def test_what_a_name_means_is_held_against_the_same_list() -> None:
    assert all(forbidden(ip_address(text)) for text in ("127.0.0.1", "::1", "::ffff:169.254.169.254", "0.0.0.0"))
    assert not any(forbidden(ip_address(text)) for text in ("192.168.1.9", "93.184.216.34", "fd12::1"))
