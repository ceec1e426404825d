"""A report of real runs: its figures, its warnings, and the page in a browser."""

import html
import html.parser
import json
import re
import shutil
import subprocess

import numpy as np
import polars as pl
import pytest
from scipy import stats

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.evaluation.metrics import ndcg
from fedpeft_jax.experiment import configure
from fedpeft_jax.reports.collect import collect
from fedpeft_jax.reports.commands import command, needed_settings
from fedpeft_jax.reports.contents import make_report
from fedpeft_jax.reports.markdown import as_markdown
from fedpeft_jax.reports.page import as_page
from fedpeft_jax.reports.statistics import holm
from tests.small_runs import SETTINGS, TRAINED, finish, run_cli, small_runs

pytest.importorskip("matplotlib", reason="plots need the extra plot")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """The trained table, and LoRA from three scales, one of them with two seeds.

    Runs that differ in the scale share their program.
    """
    folder = tmp_path_factory.mktemp("grid")
    with small_runs():
        finish(folder / "full", **TRAINED)
        for scale, seed in ((1, 0), (1, 1), (2, 0), (3, 0)):
            finish(folder / f"scale{scale}-{seed}", latent_scale=scale, seed=seed)
    return folder


def lora(scale):
    """The label of a row."""
    return f"LoRA 4, latent_scale={scale}"


@pytest.fixture(scope="module")
def report(grid):
    return make_report(collect([grid]))


@pytest.fixture(scope="module")
def page(report):
    return as_page(report)


def table(report, title):
    """The rows of the first table of a section by their first cell, as dictionaries."""
    section = next(s for s in report.sections if s.title.startswith(title))
    part = next(part for part in section.parts if hasattr(part, "head"))
    return {row[0]: dict(zip(part.head, row, strict=True)) for row in part.rows}


def summary(grid, name):
    return json.loads((grid / name / "summary.json").read_text())


def test_the_table_has_the_figures_of_the_summaries(grid, report):
    rows = table(report, "Accuracy")
    full = summary(grid, "full")
    expected = full["metrics"]["test"]["sampled"]["ndcg@10"]
    assert rows["Full"]["NDCG@10"] == f"{expected:.3f}"
    assert rows["Full"]["of Full"] == "100 %" and rows["Full"]["seeds"] == "1"
    two = [
        summary(grid, f"scale1-{seed}")["metrics"]["test"]["full"]["hit_rate@10"]
        for seed in (0, 1)
    ]
    spread = abs(two[0] - two[1]) / np.sqrt(2)
    shown = rows[lora(1)]["HR@10, all"].replace("± .", "± 0.")
    assert shown == f"{np.mean(two):.3f} ± {spread:.3f}"
    popular = full["baselines"]["most_popular"]["test"]["sampled"]["hit_rate@10"]
    assert rows["most popular"]["HR@10"] == f"{popular:.3f}"


def test_differences_are_paired_by_user_and_seed(grid, report):
    """The mean over users of the ranks in the file is the difference of the metrics."""
    rows = table(report, "Differences to Full")
    assert set(rows) == {lora(1), lora(2), lora(3)}  # not the reference itself
    means = []
    for name in ("scale2-0", "full"):
        users = pl.read_parquet(grid / name / "per_user.parquet")
        ranks = (users[f"model_test_sampled_{x}"].to_numpy() for x in ("above", "ties"))
        means.append(ndcg(*ranks, 10).mean())
    shown = rows[lora(2)]
    assert float(shown["difference"]) == pytest.approx(means[0] - means[1], abs=6e-5)
    low, high = map(float, shown["95 % interval"].split(" to "))
    assert low <= float(shown["difference"]) <= high
    assert rows[lora(1)]["seeds"] == "1"  # Full has one seed


def test_p_values_are_corrected_for_the_number_of_rows(grid, report):
    """Three rows have one seed in common with Full."""

    def by_user(name):
        users = pl.read_parquet(grid / name / "per_user.parquet")
        above, ties = (users[f"model_test_sampled_{x}"] for x in ("above", "ties"))
        return ndcg(above.to_numpy(), ties.to_numpy(), 10)

    full = by_user("full")
    alone = [
        stats.ttest_rel(by_user(f"scale{scale}-0"), full).pvalue for scale in (1, 2, 3)
    ]
    expected = ["< .001" if p < 0.001 else f"{p:.3f}".lstrip("0") for p in holm(alone)]
    rows = table(report, "Differences to Full")
    assert [rows[lora(s)]["p, by user"] for s in (1, 2, 3)] == expected


def test_a_sweep_is_found_and_drawn(report):
    (section,) = (s for s in report.sections if s.title == "Settings")
    assert [part.title for part in section.parts] == ["NDCG@10 over latent_scale"]
    assert "= 1, 2, 3" in section.parts[0].description


def test_one_run_is_compared_with_nothing(grid):
    report = make_report(collect([grid / "full"]))
    assert report.title.endswith("1 configuration")
    assert report.summary.endswith("1 configuration, 1 seed.")
    assert not any(s.title.startswith("Differences") for s in report.sections)


def test_the_reference_can_be_chosen(grid):
    assert collect([grid], "scale=2").reference.label == lora(2)
    for against, says in (("LoRA", "several rows"), ("Hash", "no row")):
        with pytest.raises(InputError, match=says):
            collect([grid], against)


def test_warnings_come_first(grid, report, tmp_path):
    first = report.sections[0]
    assert first.warns
    assert any("One seed only" in text for text in first.text)
    (tmp_path / "begun").mkdir()
    shutil.copytree(grid / "full", tmp_path / "full")
    shutil.copy(grid / "full" / "config.json", tmp_path / "begun")
    path = tmp_path / "full" / "summary.json"
    changed = json.loads(path.read_text())
    changed["rounds"]["run"] = 4
    changed["warnings"] = [{"kind": "leak", "message": "it leaks", "try": ["rounds=9"]}]
    path.write_text(json.dumps(changed))
    text = "\n".join(make_report(collect([tmp_path])).sections[0].text)
    assert "begun has not finished" in text
    assert "Full: warning: it leaks: try --rounds=9." in text
    assert "Full, seed 0: stopped early, after 4 of 6 rounds." in text


def test_the_commands_make_the_same_runs(grid):
    config = summary(grid, "scale2-0")["config"]
    again = configure(**needed_settings(config)).flat()
    free = {"out", "resume", "checkpoint_every", "keep_checkpoints", "fetch", "cache"}
    assert {k: v for k, v in again.items() if k not in free} == {
        k: v for k, v in config.items() if k not in free
    }
    line = command(configure(embedding="rq(quantizer='kmeans')").flat(), (3,))
    assert line.endswith("""--embedding="rq(quantizer='kmeans')" --seed=3""")
    assert f"--rounds={SETTINGS['rounds']}" in command(config, (0,))


class Outline(html.parser.HTMLParser):
    """Collects text and checks that elements are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.addresses = [], [], []

    def handle_starttag(self, tag, attributes):
        self.addresses += [
            v for k, v in attributes if k in ("src", "href", "xlink:href")
        ]
        if tag not in ("meta", "path", "use", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("meta", "path", "use", "rect"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_whole_and_needs_nothing_else(page):
    outline = Outline()
    outline.feed(page)
    assert not outline.open
    assert all(address.startswith("#") for address in outline.addresses)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(set(ids)) == len(ids)
    assert set(outline.addresses) <= {f"#{name}" for name in ids}
    assert "url(http" not in page and "@import" not in page


def test_the_same_runs_give_the_same_bytes(grid, page):
    assert as_page(make_report(collect([grid]))) == page


def test_hostile_titles_are_text(grid):
    title = "<script>alert(1)</script> & |x|"
    made = make_report(collect([grid]), title)
    assert "<script>" not in as_page(made)
    assert title in as_markdown(made)


def test_markdown_has_the_same_figures(report):
    text = as_markdown(report)
    for section in report.sections:
        assert f"## {section.title}" in text
    shown = table(report, "Accuracy")[lora(3)]["NDCG@10"]
    lines = text.splitlines()
    (line,) = (x for x in lines if lora(3) in x and " % |" in x)
    assert shown in line


def test_the_command_writes_what_its_file_is_called(grid, tmp_path, capsys):
    out = tmp_path / "a.md"
    assert run_cli(str(grid), f"--out={out}", "--title=Mine", script="report") == 0
    assert out.read_text().startswith("# Mine")
    capsys.readouterr()
    assert run_cli(str(grid), script="report") == 0  # a grid as a table
    shown = capsys.readouterr().out
    assert all(lora(scale) in shown for scale in (1, 2, 3)) and "popular" in shown
    assert run_cli(str(grid / "full"), script="report") == 0
    assert "fedmf: trained + none" in capsys.readouterr().out
    assert run_cli(str(grid), "--against=Full", script="report") == 2
    assert "--against is for a report: set --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--out=a.pdf"], "a.pdf is of no known kind"),
        (["--out=/nowhere/a.html"], "does not exist"),
        (["--out=a.html", "--against=Nobody"], "the rows are 'Full'"),
    ],
)
def test_what_cannot_be_written_is_one_line(
    grid, tmp_path, monkeypatch, capsys, arguments, says
):
    monkeypatch.chdir(tmp_path)
    assert run_cli(str(grid), *arguments, script="report") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says.split("'")[0] in line


@pytest.mark.parametrize("name", ["metrics.jsonl", "per_user.parquet"])
def test_damaged_files_are_named(grid, tmp_path, capsys, name):
    shutil.copytree(grid / "full", tmp_path / "full")
    shutil.copytree(grid / "scale2-0", tmp_path / "scale2-0")
    (tmp_path / "scale2-0" / name).write_text("{\n")
    out = tmp_path / "a.html"
    assert run_cli(str(tmp_path), f"--out={out}", script="report") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"scale2-0/{name}" in line and "run" in line
    assert not out.exists()


_MEASURE = """<script>
window.addEventListener("load", () => {
  const svgs = [...document.querySelectorAll("figure svg")];
  const wide = [...document.querySelectorAll("h1,h2,h3,p,li,figcaption,pre,nav a")];
  parent.document.body.setAttribute("data-found", JSON.stringify({
    errors: window.errors, width: innerWidth,
    page: document.documentElement.scrollWidth,
    figures: svgs.map(x => [x.getBoundingClientRect().width,
                            x.getBoundingClientRect().height]),
    over: wide.filter(x => x.scrollWidth > x.clientWidth + 1 && x.clientWidth > 0)
      .map(x => x.textContent),
  }));
});
</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs chromium or google-chrome")
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_in_a_browser(page, report, tmp_path, width):
    errors = "<script>window.errors = []; onerror = m => errors.push(m);</script>"
    text = page.replace("<head>", f"<head>{errors}").replace("</body>", _MEASURE)
    path = tmp_path / "report.html"
    # A window has a least width, and a frame has none.
    style, text = f"border: 0; width: {width}px", html.escape(text)
    frame = f'<iframe style="{style}" srcdoc="{text}"></iframe>'
    path.write_text(f"<!DOCTYPE html><html><body>{frame}</body></html>")
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         "--window-size=1600,900", f"--user-data-dir={tmp_path / 'user'}",
         path.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    measured = json.loads(found[1].replace("&quot;", '"').replace("&amp;", "&"))
    plots = [p for s in report.sections for p in s.parts if hasattr(p, "svg")]
    assert measured["errors"] == [] and measured["over"] == []
    assert measured["width"] == width and measured["page"] <= width
    assert len(measured["figures"]) == len(plots) >= 3
    assert all(w > 200 and h > 100 for w, h in measured["figures"])
