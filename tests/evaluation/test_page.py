import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from markupsafe import escape
from PIL import Image

from watkins_ml.core.files import read_csv, write_csv
from watkins_ml.core.text import shown
from watkins_ml.evaluation.controls import WITH_AUDIO
from watkins_ml.evaluation.page import pictures, write_page
from watkins_ml.evaluation.runs import TEST_REPORT, ComparedRun

VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Checks that tags nest, and collects images, headings, ids and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict] = []
        self.headings: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(attributes)
        if tag in ("h1", "h2", "h3"):
            self.headings.append(tag)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "a":
            self.links.append(attributes["href"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def write(runs: list[ComparedRun], path: Path) -> tuple[Page, str]:
    write_page(runs, path)
    text = path.read_text(encoding="utf-8")
    return Page(text), text


@pytest.fixture(scope="module")
def same_data(run_dirs, tmp_path_factory):
    runs = [ComparedRun.from_dir(run_dir, label) for label, run_dir in run_dirs.items()]
    return write(runs, tmp_path_factory.mktemp("page") / "deep" / "compare.html")


@pytest.fixture
def make_page(run_dirs, tmp_path, change_info):
    """A page on which the baseline's run.json is changed."""

    def make(**changes: object) -> tuple[Page, str]:
        changed = shutil.copytree(run_dirs["baseline"], tmp_path / "baseline")
        change_info(changed, **changes)
        other = ComparedRun.from_dir(run_dirs["efficientnet_b0"], "efficientnet_b0")
        return write([ComparedRun.from_dir(changed, "baseline"), other], tmp_path / "compare.html")

    return make


def test_page_is_whole_self_contained_and_small(same_data):
    page, text = same_data
    assert len(text.encode()) < 15_000_000
    assert not re.search(r"https?://|<script |<link|@import|url\(", text)
    assert len(page.images) == 1 + 4 * 2  # curves of both in one figure, four pictures of each run
    for image in page.images:
        assert image["alt"]
        encoded = re.fullmatch(r"data:image/(png|jpeg);base64,(.+)", image["src"])
        Image.open(io.BytesIO(base64.b64decode(encoded[2]))).verify()
    assert page.headings.count("h1") == 1
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert "prefers-color-scheme: dark" in text


def test_page_says_who_leads_and_marks_the_best(same_data):
    _, text = same_data
    assert re.search(
        r'class="headline">efficientnet_b0 is \d+\.\d points of macro F1 above baseline .*: more than noise', text
    )
    row = re.search(r"<tr><th scope=\"row\">accuracy</th>(.*?)</tr>", text)[1]
    assert row.count("(best)") == 1 and row.index("(best)") > row.index("</td>")
    assert "Different data" not in text and "eaky reference" not in text
    assert "Fraser&#39;sDolphin" in text
    assert re.search(r">Walrus</th>[^!]*?not tested: no test cut", text)
    assert '<tr class="differs"><th scope="row"><code>optim.lr' in text
    assert '<tr><th scope="row"><code>train.epochs' in text


def test_the_kept_network_and_its_rule_are_told(same_data, make_page):
    rule = '<th scope="row">Kept network</th><td>epoch 2 of 3, by validation loss</td>'
    assert rule in same_data[1]
    assert "<td>one a fold, by validation loss</td>" in make_page(folds=5)[1]


def test_unknown_counts_show_a_dash(same_data):
    _, text = same_data
    assert "Training cuts" not in text  # what no run says takes no row
    assert '<th scope="row">Parameters</th><td>–</td><td>4,063,000</td>' in text
    assert "MLflow run" in text and "Folds" not in text


def test_a_control_that_no_run_has_takes_no_row(same_data, run_dirs, tmp_path):
    row = '<th scope="row">site: accuracy</th>'
    assert "duration: accuracy" in same_data[1] and row not in same_data[1]
    with_sites = shutil.copytree(run_dirs["baseline"], tmp_path / "b")
    path = with_sites / "reports/metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"control_site_accuracy": 0.25}))
    assert f'<th scope="row">{WITH_AUDIO["spectrum"]}: accuracy</th><td class="number">40.0%</td>' in same_data[1]
    assert "no audio: duration" in same_data[1] and f'scope="row">{WITH_AUDIO["spectrum"]}</th>' in same_data[1]
    runs = [ComparedRun.from_dir(with_sites, "b"), ComparedRun.from_dir(run_dirs["efficientnet_b0"], "e")]
    assert f'{row}<td class="number">25.0%</td><td class="number">–</td>' in write(runs, tmp_path / "x.html")[1]


def test_different_digests_raise_a_banner_and_rank_nothing(make_page):
    _, text = make_page(data_digest="elsewhere")
    assert 'role="alert">Different data.' in text and "elsewhere" in text
    assert "(best)" not in text and " above " not in text


def test_random_split_is_stamped_wherever_its_numbers_show(make_page):
    page, text = make_page(split_protocol="random")
    assert text.count('scope="col" class="number">baseline (leaky reference)</th>') == 1
    for image in page.images:
        assert ("baseline" in image["alt"]) == ("baseline (leaky reference)" in image["alt"])
    assert "Leaky reference: baseline." in text


def test_run_without_a_test_report_shows_dashes(run_dirs, tmp_path):
    run_dir = shutil.copytree(run_dirs["baseline"], tmp_path / "b")
    for name in TEST_REPORT:
        (run_dir / name).unlink()
    path = run_dir / "reports/metrics.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps({key: metrics[key] for key in metrics if not key.startswith("test_")}))
    untested = ComparedRun.from_dir(run_dir, "young")
    tested = ComparedRun.from_dir(run_dirs["efficientnet_b0"], "old")
    page, text = write([untested, tested], tmp_path / "both.html")
    assert len(page.images) == 5
    assert '<th scope="row">accuracy</th><td class="number">–</td>' in text
    assert "old reaches" in text
    page, text = write([untested], tmp_path / "one.html")
    assert len(page.images) == 1 and "No run has a test report yet." in text


def test_labels_are_escaped(run_dirs, tmp_path):
    run = ComparedRun.from_dir(run_dirs["baseline"], "<script>alert(1)</script>")
    _, text = write([run], tmp_path / "x.html")
    assert "<script>alert" not in text


NASTY = "=x\"><script>alert(1)</script></style><img src=x onerror=alert(1)>' onload='{{ 7 * 7 }}\u202e\x1b[31m&lt;b&gt;"


class Elements(HTMLParser):
    """Every element with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_names_in_a_strangers_run_are_text_and_nothing_else(run_dirs, change_info, tmp_path):
    name = NASTY
    run_dir = Path(shutil.copytree(run_dirs["baseline"], tmp_path / "run"))
    for path in run_dir.rglob("*.csv"):
        table = read_csv(path, keep_default_na=False).rename(columns={"p_Walrus": f"p_{name}"})
        texts = table.select_dtypes(exclude="number").columns
        table[texts] = table[texts].replace({"Fraser'sDolphin": name, "Walrus": f"{name}2"})
        write_csv(path, table.rename(columns={"p_Fraser'sDolphin": f"p_{name}"}))
    change_info(run_dir, name=name, mlflow_run_id=name)
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config | {"note": name.replace("\x1b", "")}))
    write_page([ComparedRun.from_dir(run_dir, name)], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    elements = Elements(text).found
    assert [tag for tag, _ in elements if tag in ("script", "b", "iframe")] == ["script"]
    assert not [attribute for _, attributes in elements for attribute in attributes if attribute.startswith("on")]
    addresses = [attributes[key] for _, attributes in elements for key in ("src", "href") if key in attributes]
    assert addresses and all(address.startswith(("data:", "#")) for address in addresses)
    assert "\x1b" not in text and "\u202e" not in text
    assert text.count(str(escape(shown(name)))) > 10


@pytest.mark.parametrize("jpeg", [True, False])
def test_pictures_shrink_to_the_budget_and_keep_their_place(jpeg):
    noise = np.random.default_rng(0).integers(0, 255, (170, 340, 3), dtype=np.uint8)
    picture = pictures.picture(Image.fromarray(noise), "run", "noise", budget=6_000, jpeg=jpeg)
    encoded = base64.b64decode(picture.source.partition(",")[2])
    assert len(encoded) <= 6_000
    assert Image.open(io.BytesIO(encoded)).width < 340
    assert picture.width == 200
