"""The page to drop photos on, operated in a real browser."""

from __future__ import annotations

import pytest

from tests import browser, servers

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium is installed here")

_COUNT = "document.querySelectorAll('#rows tr').length"


@pytest.fixture(scope="module")
def page_and_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    engines = (servers.oracle_engine(folder / "oracle"), servers.null_engine(folder / "null"))
    with (
        servers.serving(folder, f"finder={engines[0]}", f"nothing={engines[1]}") as running,
        browser.browser(folder / "profile") as page,
    ):
        yield page, running


@pytest.fixture
def page(page_and_server):
    page, running = page_and_server
    page.requests.clear()
    page.go(f"{running.url}/", 1200, 900)
    page.until("document.getElementById('engine').options.length == 2")
    yield page
    assert page.errors == []
    assert all(
        request.startswith((f"{running.url}/", "blob:", "data:")) for request in page.requests
    )


def photos(folder):
    paths = []
    for color, box in enumerate([(8, 16, 40, 48), (20, 20, 60, 60)]):
        path = folder / f"photo{color}.png"
        path.write_bytes(servers.picture(color=color, box=box))
        paths.append(path)
    return paths


def pixel(page, x, y):
    return page.ask(
        f"[...document.getElementById('canvas').getContext('2d').getImageData({x},{y},1,1).data]"
    )


def test_photos_get_their_boxes_and_the_keyboard_does_the_rest(page, tmp_path):
    page.choose("#files", *photos(tmp_path))
    page.until("document.querySelectorAll('#strip button').length == 2")
    page.until("document.querySelector('#rows td')?.textContent == 'green'")
    assert page.ask("document.getElementById('canvas').getAttribute('aria-label')") == "1 green"
    page.press("ArrowLeft")
    assert page.ask("document.querySelector('#rows').textContent") == "red0.9008 16 40 48"
    facts = page.ask("document.getElementById('facts').textContent")
    assert facts.startswith("64 x 64 · 1 found · ")
    assert "infer" in facts
    page.ask("document.querySelector('#confidence').value = 0.85; undefined")
    for _ in range(2):
        page.press("+")
    assert page.ask("document.getElementById('least').textContent") == "0.95"
    assert page.ask(_COUNT) == 0
    page.press("-")
    page.press("-")
    assert page.ask(_COUNT) == 1


def test_the_box_is_drawn_where_it_was_found(page, tmp_path):
    page.choose("#files", photos(tmp_path)[0])
    page.until(f"{_COUNT} == 1")
    assert pixel(page, 30, 30) == [255, 0, 0, 255]  # inside: the photo as it is
    assert pixel(page, 8, 40) != [255, 0, 0, 255]
    assert pixel(page, 8, 40)[:3] != [0, 0, 0]  # the left side's line
    assert pixel(page, 60, 60) == [0, 0, 0, 255]  # outside


def test_another_engine_answers_for_the_same_photo(page, tmp_path):
    page.choose("#files", photos(tmp_path)[0])
    page.until(f"{_COUNT} == 1")
    page.ask(
        "(e => { e.value = 'nothing'; e.dispatchEvent(new Event('change')); })"
        "(document.getElementById('engine'))"
    )
    page.until(f"{_COUNT} == 3")
    assert page.ask("document.querySelector('#rows td').textContent") == "a"


def test_what_is_no_image_is_told_and_harms_nothing(page, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    page.choose("#files", broken)
    page.until("document.getElementById('status').classList.contains('wrong')")
    assert "no image format" in page.ask("document.getElementById('status').textContent")
    page.errors[:] = [error for error in page.errors if "415" not in error]
    page.choose("#files", photos(tmp_path)[0])
    page.until(f"{_COUNT} == 1")


def test_on_a_phone_nothing_lies_outside(page, page_and_server, tmp_path):
    running = page_and_server[1]
    page.go(f"{running.url}/", 390, 844, phone=True)
    page.until("document.getElementById('engine').options.length == 2")
    page.choose("#files", *photos(tmp_path))
    page.until("document.querySelectorAll('#strip button').length == 2")
    assert page.ask("document.documentElement.scrollWidth") <= 390
    sizes = page.ask(
        "[...document.querySelectorAll('.button, select, #strip button')]"
        ".map(e => e.getBoundingClientRect().height)"
    )
    assert min(sizes) >= 24  # a finger meets it (WCAG 2.2, target size)


def test_the_page_asks_nobody_else_and_says_so(page_and_server):
    _, running = page_and_server
    with running.client() as client:
        for path in ("/", "/page.js", "/page.css"):
            answer = client.get(path)
            assert answer.status_code == 200
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert "http://" not in answer.text
            assert "https://" not in answer.text
