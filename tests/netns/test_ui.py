"""The page of --ui in Debian's Chromium, beside a daemon under traffic: what it shows, and what it cannot do."""

import http.client
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from bench.lab.daemon import HEALTHZ_PORT
from bench.lab.topology import Host

SHOWN_S = 60
URL = f"http://127.0.0.1:{HEALTHZ_PORT}"
QUIET = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage")  # fmt: skip


@pytest.fixture
def watched(make_overlay):
    """Two hosts with the page, and traffic between them for as long as the test runs."""
    overlay = make_overlay(arguments=("--ui",))
    a, b = overlay.lab.hosts
    traffic = a.pod.start("ping", "-i", "0.02", "-s", "1000", b.pod_address, name="traffic")
    yield overlay
    traffic.send(2)
    traffic.wait(10)


def browse(host: Host, directory: Path, visit, *, dark: bool = False):
    """Runs `visit(browser, wait)` with a browser that lives in the host's network."""

    def inside():
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        for word in (*QUIET, f"--user-data-dir={directory / 'profile'}", "--window-size=1200,1100"):
            options.add_argument(word)
        browser = webdriver.Chrome(options, Service("/usr/bin/chromedriver"))
        try:
            if dark:
                features = [{"name": "prefers-color-scheme", "value": "dark"}]
                browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            browser.get(URL)
            found = visit(browser, WebDriverWait(browser, SHOWN_S))
            assert [it for it in browser.get_log("browser") if "favicon" not in it["message"]] == []
            return found
        finally:
            browser.quit()

    return host.namespace.call(inside)


def text(browser, identifier):
    return browser.find_element(By.ID, identifier).text


def moving(browser):
    """Whether the plot has lines, and the peer a rate."""
    rates = [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "#peers td:nth-child(4)")]
    return len(browser.find_elements(By.CSS_SELECTOR, "#plot polyline")) == 2 and rates[:1] != ["0 b/s"]


def test_it_shows_verdict_peers_traffic_and_losses_as_they_are(watched, tmp_path):
    a, b = watched.lab.hosts
    a.pod.run("ping", "-c", "3", "-i", "0.05", "-W", "1", "10.5.99.9", check=False)

    def visit(browser, wait):
        wait.until(moving)
        wait.until(lambda _: "tx_drop_no_route" in text(browser, "drops"))
        assert text(browser, "verdict").startswith("ready, 1 of 1 peer seen")
        assert browser.title == "ready - udp-backend on a"
        assert f"b {b.address} {b.subnet}" in text(browser, "peers")
        for fact in (a.subnet, "10.5.0.0/16", "udp, UDP port 8285", "flannel0, MTU 1472", "static"):
            assert fact in text(browser, "facts")
        assert "no peer owns the destination" in text(browser, "drops")
        label = browser.find_element(By.ID, "plot").get_attribute("aria-label")
        assert "to peers above the line" in label
        assert "; now 0 b/s to peers" not in label

    browse(a, tmp_path, visit)


def test_it_says_degraded_and_why_and_when_nobody_answers(watched, tmp_path):
    a, _ = watched.lab.hosts
    whole = watched.registry.read_text()

    def visit(browser, wait):
        wait.until(lambda _: text(browser, "verdict").startswith("ready"))
        watched.registry.write_text("{")
        wait.until(lambda _: browser.find_element(By.ID, "verdict").get_attribute("class") == "degraded")
        assert "registry" in text(browser, "reasons")
        watched.registry.write_text(whole)
        wait.until(lambda _: text(browser, "verdict").startswith("ready"))
        watched.stop(a)
        wait.until(lambda _: text(browser, "verdict").startswith("no answer from the daemon"))
        browser.get_log("browser")  # the failed requests stand there, as they should

    browse(a, tmp_path, visit)


def test_it_can_be_read_with_the_keyboard_and_in_the_dark(watched, tmp_path):
    def visit(browser, wait):
        wait.until(moving)
        ground = browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
        ActionChains(browser).send_keys(Keys.TAB).perform()  # the table's region, which may scroll
        assert browser.execute_script("return document.activeElement.getAttribute('role')") == "region"
        ActionChains(browser).send_keys(Keys.TAB).send_keys(Keys.ENTER).perform()  # sorts by the first column
        sort = "return document.querySelector('th[aria-sort]').textContent"
        assert browser.execute_script(sort) == "Peer"
        assert browser.execute_script("return document.activeElement.textContent") == "Peer"
        names = browser.execute_script(
            "return [...document.querySelectorAll('section, [role]')].map(it => it.getAttribute('aria-labelledby') || "
            "it.getAttribute('aria-label') || it.textContent).every(Boolean)"
        )
        assert names is True
        return ground

    a, _ = watched.lab.hosts
    light, dark = (browse(a, tmp_path / str(it), visit, dark=it) for it in (False, True))
    assert light == "rgba(247, 248, 250, 1)"
    assert dark == "rgba(18, 22, 29, 1)"


def test_names_of_a_registry_are_text_and_nothing_else_is_fetched(watched, tmp_path):
    name = "<img src=x onerror=document.title='pwned'>"
    watched.registry.write_text(watched.registry.read_text().replace('"Name": "b"', f'"Name": "{name}"'))

    def visit(browser, wait):
        wait.until(lambda _: name in text(browser, "peers"))
        asked = browser.execute_script(
            "return performance.getEntriesByType('resource').map(it => new URL(it.name).host)"
        )
        assert set(asked) == {f"127.0.0.1:{HEALTHZ_PORT}"}
        assert "pwned" not in browser.title

    browse(watched.lab.hosts[0], tmp_path, visit)


def fetch(host: Host, path: str, method: str = "GET"):
    """Status and headers."""

    def inside():
        connection = http.client.HTTPConnection("127.0.0.1", HEALTHZ_PORT, timeout=10)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, dict(answer.headers)
        finally:
            connection.close()

    return host.namespace.call(inside)


def test_it_can_change_nothing(watched):
    a, _ = watched.lab.hosts
    for path in ("/", "/status"):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert fetch(a, path, method)[0] == 405
    status, headers = fetch(a, "/")
    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; connect-src 'self'; script-src 'sha256-")
    assert "unsafe" not in policy


def test_without_the_flag_there_is_neither_page_nor_document(overlay):
    a, _ = overlay.lab.hosts
    assert fetch(a, "/")[0] == fetch(a, "/status")[0] == 404
    assert fetch(a, "/healthz")[0] == 200
