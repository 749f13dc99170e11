"""Is there a page beside the model on which people can try it?

Why: Who decides about a model rarely calls it by curl; a page served beside it needs no second server and no account.
How: The page is fetched from the platform and read as a browser would: title, form, labels, addresses.
Pass: It is HTML with a title and a viewport for phones; its form has a labelled input for each of the 12 features and
    an address that answers a golden row rightly; it loads and links nothing from elsewhere.
Fix: Serve one static file from the platform's own process; name each input like its feature, with a <label> around it.
"""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

from exhibit.criteria import Finding, judge
from exhibit.model import TOLERANCE
from exhibit.targets import AnswerError, Deployment

NEEDS = ("web_app",)
ELSEWHERE = re.compile(r"\s*(https?:)?//", re.IGNORECASE)


class Page(HTMLParser):
    """The tags of a page: name, attributes, and in which of form, label and title they stand."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.title, self._open = list[tuple[str, dict[str, str], set[str]]](), "", Counter[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}, set(+self._open)))
        if tag in ("form", "label", "title"):
            self._open[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        self._open[tag] -= 1

    def handle_data(self, data: str) -> None:
        self.title += data.strip() if self._open["title"] > 0 else ""

    def labelled_inputs(self) -> set[str]:
        """Names of the form's inputs that a label names: around them, by its `for`, or as aria-label."""
        named = {values["for"] for tag, values, _ in self.tags if tag == "label" and "for" in values}
        inputs = [tag for tag in self.tags if tag[0] in ("input", "select", "textarea") and "form" in tag[2]]
        return {
            values.get("name", "")
            for _, values, inside in inputs
            if "label" in inside or values.get("id") in named or values.get("aria-label")
        }


def check(deployment: Deployment) -> Finding:
    path = deployment.platform.file.capabilities.web_app.path
    response = deployment.http.get(deployment.address(path), follow_redirects=True)
    page, kind = Page(response.text), response.headers.get("content-type", "")
    unlabelled = [name for name in deployment.model.features if name not in page.labelled_inputs()]
    elsewhere = [v[a] for _, v, _ in page.tags for a in ("src", "href", "action") if ELSEWHERE.match(v.get(a, ""))]
    actions = [values.get("action", "") for tag, values, _ in page.tags if tag == "form"]
    observed = {
        "status": response.status_code,
        "content_type": kind.partition(";")[0],
        "title": bool(page.title),
        "viewport": any(tag == "meta" and values.get("name") == "viewport" for tag, values, _ in page.tags),
        "inputs_without_label": unlabelled,
        "from_elsewhere": elsewhere,
        "form": _answer(deployment, urljoin(str(response.url), actions[0])) if actions else "none",
    }
    expected = {
        "status": 200,
        "content_type": "text/html",
        "title": True,
        "viewport": True,
        "inputs_without_label": [],
        "from_elsewhere": [],
        "form": "answers rightly",
    }
    wrong = [f"{name.replace('_', ' ')}: {found}" for name, found in observed.items() if found != expected[name]]
    fine = f"labels an input for each of the {len(deployment.model.features)} features, and its form answers rightly"
    message = f"The page at {path} {'is not as it should be: ' + '; '.join(wrong) if wrong else fine}."
    return judge(not wrong, message, observed=observed, expected=expected)


def _answer(deployment: Deployment, url: str) -> str:
    golden = deployment.model.golden.take(1)
    try:
        answer = deployment.predict(golden.rows, path=urlsplit(url).path)
    except AnswerError as error:
        return f"{urlsplit(url).path} {error}"
    return "answers rightly" if abs(answer[0] - golden.expected[0]) <= TOLERANCE else "answers wrongly"
