"""The HTML report in a real browser: what clicks and keys show; hostile runs do no harm."""

import pytest

from harness.report.html import page as pages
from harness.store.index import entries
from report.made import HOSTILE, made_run

pytestmark = pytest.mark.browser

READY = "document.documentElement.dataset.ready === 'yes'"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two honest runs, one with hostile words in every text, and reports: all, one and hostile."""
    where = tmp_path_factory.mktemp("runs")
    made_run(where, nodes=14, seed=1, name="a-honest")
    made_run(where, nodes=9, seed=2, name="b-honest")
    made_run(where, nodes=9, seed=3, agent=HOSTILE, words=HOSTILE, name="c-hostile")
    pages.write(entries([where]), where / "all.html")
    pages.write(entries([where / "a-honest"]), where / "one.html")
    pages.write(entries([where / "c-hostile"]), where / "hostile.html")
    return where


class Opened:
    """One open page; ``trouble`` collects its console messages, errors, dialogs and requests.

    The ``with`` block ends with a check that there were none.
    """

    def __init__(self, browser, file, *, width=1280, theme="light", fragment=""):
        self.trouble: list[str] = []
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme
        )
        self.page = self.context.new_page()
        self.page.on("console", lambda m: self.trouble.append(f"console: {m.text}"))
        self.page.on("pageerror", lambda e: self.trouble.append(f"error: {e}"))
        self.page.on("dialog", lambda d: self.trouble.append("dialog"))
        address = file.as_uri()
        self.page.on(
            "request",
            lambda r: (
                None
                if r.url.partition("#")[0] == address or r.url == "data:,"
                else self.trouble.append(f"request: {r.url[:200]}")
            ),
        )
        self.page.goto(address + fragment)
        self.page.wait_for_function(READY, timeout=10_000)

    def __enter__(self):
        return self.page

    def __exit__(self, *failed):
        self.context.close()
        if failed[0] is None:
            assert self.trouble == []


def tab(page, name):
    page.locator(".detail [role=tab]", has_text=name).first.click()
    return page.locator(".detail [role=tabpanel]").first


def test_a_click_in_the_list_shows_source_diff_prompt_answer_log_and_evidence(chromium, folder):
    source = (folder / "a-honest/nodes/0007/train.py").read_text()
    with Opened(chromium, folder / "one.html") as page:
        row = page.locator("li[data-node='0/7']")
        row.click()
        assert row.get_attribute("aria-selected") == "true"
        assert page.locator(".detail h3").first.inner_text().startswith("7 ")
        shown = tab(page, "train.py").locator("pre").nth(1).text_content()
        assert shown == source
        assert page.locator(".detail .k").count() > 20
        assert "Improve this." in tab(page, "prompt").inner_text()
        assert "I will" in tab(page, "answer").inner_text()
        assert "step 00042 | loss" in tab(page, "log").inner_text()
        assert "4,096 search rows" in tab(page, "evidence").inner_text()
        parent = int(page.locator(".detail dd").first.inner_text())
        before = (folder / f"a-honest/nodes/{parent:04d}/train.py").read_text().split("\n")
        changed = tab(page, "diff to")
        added = [t[2:] for t in changed.locator(".add").all_text_contents()]
        removed = [t[2:] for t in changed.locator(".del").all_text_contents()]
        after = source.split("\n")
        page.locator("[role=treeitem]", has_text="best").click()
        assert "4,096 test rows" in tab(page, "hidden test split").inner_text()
        assert added
        assert sorted(set(after) - set(before)) == sorted(set(added) - set(before))
        assert len(after) - len(before) == len(added) - len(removed)


def test_a_click_on_the_map_and_an_address_choose_a_node(chromium, folder):
    with Opened(chromium, folder / "one.html") as page:
        page.locator("circle[data-node='0/3']").dispatch_event("click")
        assert page.locator(".detail h3").first.inner_text().startswith("3 draft")
        assert page.locator("circle.on").get_attribute("data-node") == "0/3"
    with Opened(chromium, folder / "all.html", fragment="#1/4") as page:
        assert page.locator("details.tree").nth(1).get_attribute("open") is not None
        assert page.locator(".detail[data-run='1'] h3").first.inner_text().startswith("4 ")


def test_the_keyboard_reaches_every_node_and_every_tab(chromium, folder):
    with Opened(chromium, folder / "one.html") as page:
        page.locator("[role=treeitem][tabindex='0']").focus()
        page.keyboard.press("Home")
        focused = "document.activeElement.dataset.node"
        seen = [page.evaluate(focused)]
        for _ in range(13):
            page.keyboard.press("ArrowDown")
            seen.append(page.evaluate(focused))
        assert sorted(seen) == sorted(f"0/{n}" for n in range(14))
        page.keyboard.press("End")
        assert page.evaluate(focused) == seen[-1]
        page.keyboard.press("ArrowUp")
        assert page.evaluate(focused) == seen[-2]
        deep = page.locator("[role=treeitem][aria-level='2']").first
        deep.click()
        page.keyboard.press("ArrowLeft")
        assert page.evaluate("document.activeElement.ariaLevel") == "1"
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.ariaLevel") == "2"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.getAttribute('role')") == "tab"
        first = page.evaluate("document.activeElement.textContent")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.textContent") != first
        assert page.evaluate("document.activeElement.ariaSelected") == "true"


@pytest.mark.parametrize("name", ["one.html", "all.html", "hostile.html"])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_overflows_and_the_theme_follows_the_reader(chromium, folder, name, theme, width):
    with Opened(chromium, folder / name, width=width, theme=theme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        back = "getComputedStyle(document.body).backgroundColor"
        before = page.evaluate(back)
        assert (sum(map(int, before[4:-1].split(","))) < 380) == (theme == "dark")
        page.locator("#theme").click()
        assert page.evaluate(back) != before


def test_a_hostile_run_executes_nothing_wherever_its_words_are_shown(chromium, folder):
    with Opened(chromium, folder / "hostile.html") as page:
        for row in page.locator("[role=treeitem]").all()[:6]:
            row.click()
            for button in page.locator(".detail [role=tab]").all():
                button.click()
        assert "window.hit=1" in tab(page, "log").inner_text()
        assert page.evaluate("typeof window.hit") == "undefined"
        assert page.locator("img, iframe, object, embed, form").count() == 0
        assert page.locator("script").count() == 2
        assert "49" not in page.locator("h1").inner_text()
        assert "\u202e" not in page.content()


def test_the_policy_refuses_scripts_styles_and_requests(chromium, folder):
    opened = Opened(chromium, folder / "one.html")
    page = opened.page
    page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.hit=1';"
        "document.body.append(s); const l = document.createElement('style');"
        "l.textContent = 'body{display:none}'; document.body.append(l); }"
    )
    asked = page.evaluate(
        "fetch('https://example.invalid/').then(() => 'sent', (e) => String(e.message))"
    )
    assert page.evaluate("typeof window.hit") == "undefined"
    assert page.evaluate("getComputedStyle(document.body).display") == "block"
    assert asked != "sent"
    assert sum("Content Security Policy" in t for t in opened.trouble) >= 3
    opened.context.close()
