"""What a browser is sent at its first visit is as small as it can be, and the same as without that."""

from __future__ import annotations

import gzip
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import brotli
import pytest
from gradio.routes import BUILD_PATH_LIB

from tests.support.http import wire
from webui import asset_files, page
from webui.gradio_patches.frontend import Frontend, without_ciphers
from webui.i18n import LANGUAGES, words

if TYPE_CHECKING:
    from tests.support.server import Rig

GRADIOS = Path(BUILD_PATH_LIB)
SCRIPTS = sorted(GRADIOS.glob("*.js"))
CIPHERED = [path for path in SCRIPTS if "CryptoJS" in path.read_text(encoding="utf-8")]
ENTRY = next(GRADIOS.glob("index-*.js")).name
DECODERS = {"br": brotli.decompress, "gzip": gzip.decompress, "identity": bytes}


def config_of(html: str) -> Any:
    match = re.search(r"window\.gradio_config = (\{.*?\});</script>", html, re.DOTALL)
    assert match
    return json.loads(match[1])


# ---- the page


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_brings_the_words_of_its_language_alone(rig: Rig, language: str) -> None:
    say = words(language)
    with rig.session(say.tag) as visit:
        translations = config_of(visit.client.get("/").text)["i18n_translations"]
    assert list(translations) == [say.tag] and translations[say.tag]["portrait_prompt"] == say("portrait_prompt")


def test_the_page_brings_every_word_that_it_is_asked_to_show(rig: Rig) -> None:
    with rig.session("en") as visit:
        html = visit.client.get("/").text
    asked = set(re.findall(r'__i18n__\{[^}]*?\\"key\\": \\"([\w-]+)', html))
    assert len(asked) > 50 and asked <= set(config_of(html)["i18n_translations"]["en"])


def test_words_that_only_the_server_says_stay_there() -> None:
    for language in LANGUAGES:
        say = words(language)
        sent = page.i18n().translations_dict[say.tag]
        assert not any("{" in text for text in sent.values())
        assert sent == {key: say.table[key] for key in sent} and len(sent) < len(say.table)


def test_the_page_describes_no_endpoints_and_programs_are_told_them(rig: Rig) -> None:
    with rig.session() as visit:
        html, info = visit.client.get("/").text, visit.client.get("/gradio_api/info").json()
    assert 'window.gradio_api_info = {"named_endpoints": {}, "unnamed_endpoints": {}};' in html
    assert "/generate" in info["named_endpoints"]


def test_the_page_cannot_be_resized_by_another(rig: Rig) -> None:
    with rig.session() as visit:
        assert "iframeResizer" not in visit.client.get("/").text


@pytest.mark.parametrize("accepted", ["gzip, deflate, br, zstd", "br;q=1.0", "gzip", "deflate", "brother"])
def test_answers_are_compressed_as_their_reader_can_read_them(rig: Rig, accepted: str) -> None:
    answer = wire(rig.url, "/openapi.json", headers={"Accept-Encoding": accepted})
    encoding = answer.headers.get("content-encoding", "identity")
    assert encoding == {"gzip": "gzip", "deflate": "identity", "brother": "identity"}.get(accepted, "br")
    assert "paths" in json.loads(DECODERS[encoding](answer.body))
    assert "accept-encoding" in answer.headers["vary"].lower()


# ---- Gradio's scripts and styles


@pytest.mark.parametrize("encoding", sorted(DECODERS))
@pytest.mark.parametrize("name", [ENTRY, next(GRADIOS.glob("index-*.css")).name])
def test_a_file_of_gradios_page_is_kept_for_a_year(rig: Rig, name: str, encoding: str) -> None:
    """Its name holds a digest of what is in it."""
    answer = wire(rig.url, f"/assets/{name}", headers={"Accept-Encoding": encoding})
    assert answer.status == 200 and answer.headers.get("content-encoding", "identity") == encoding
    assert DECODERS[encoding](answer.body) == (GRADIOS / name).read_bytes()
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-type"].startswith("text/css" if name.endswith("css") else "text/javascript")


@pytest.mark.parametrize("name", ["none.js", "..", "%2e%2e", "../index.html", "..%2findex.html", "%00.js", "a/b.js"])
def test_no_other_file_is_served(rig: Rig, name: str) -> None:
    assert wire(rig.url, f"/assets/{name}").status == 404


def test_what_is_no_text_comes_as_it_is() -> None:
    picture = next(path for path in GRADIOS.iterdir() if path.suffix in (".woff2", ".ttf", ".png", ".wasm"))
    answer = Frontend(GRADIOS).answer(picture.name, "br")
    assert answer.body == picture.read_bytes() and "content-encoding" not in answer.headers


def test_whoever_comes_later_gets_less() -> None:
    """The first visitor does not wait for the best compression."""
    frontend = Frontend(GRADIOS)
    first = frontend.answer(ENTRY, "br").body
    deadline = time.monotonic() + 60
    while len(later := frontend.answer(ENTRY, "br").body) == len(first):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(later) < 0.95 * len(first) and brotli.decompress(bytes(later)) == brotli.decompress(bytes(first))


def test_what_the_browser_remembers_is_not_encrypted() -> None:
    """One of Gradio's scripts holds a library of ciphers, for gr.BrowserState; the rest of it stays as it is."""
    [path] = CIPHERED
    script = path.read_text(encoding="utf-8")
    leaner = without_ciphers(script)
    assert len(leaner) < len(script) / 50 and "CryptoJS" not in leaner
    imports, component = script.partition(";")[0], script[script.index("var q=new Set") :]
    assert leaner.startswith(imports) and leaner.endswith(component)
    answer = Frontend(GRADIOS).answer(path.name, "")
    assert answer.body == leaner.encode()
    assert answer.headers["cache-control"] == "no-cache", "it may change under its name"


def test_no_other_script_is_changed() -> None:
    scripts = [path.read_text(encoding="utf-8") for path in SCRIPTS if path not in CIPHERED]
    assert len(scripts) > 100 and all(without_ciphers(script) == script for script in scripts)


# ---- its own


def test_comments_stay_with_their_writers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(asset_files, "FOLDER", tmp_path)
    (tmp_path / "a.js").write_text('// why\nif (a) {\n  // how\n  b("// said"); // where\n}\n', encoding="utf-8")
    (tmp_path / "a.css").write_text("/* a\n b */\na { b: c }\n\n  @media d { /* e */\n    f { } }\n", encoding="utf-8")
    assert asset_files.script("a.js") == 'if (a) {\nb("// said"); // where\n}\n'
    assert asset_files.style("a.css") == "a { b: c }\n@media d { \nf { } }\n"


@pytest.mark.parametrize("path", sorted(asset_files.FOLDER.glob("*.js")), ids=lambda path: path.name)
def test_no_text_of_a_script_spans_lines(path: Path) -> None:
    """What is left out at the beginning of a line would be missing in it."""
    assert all(line.count("`") % 2 == 0 for line in path.read_text(encoding="utf-8").splitlines())
