"""Pictures and page of a comparison: what they tell is what the table tells, whatever is in the table."""

import base64
import html
import io
import math
import re
from itertools import chain

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from PIL import Image
from scipy import stats

from pyrovae import plots
from pyrovae.lab.bench import COLUMNS, LENGTHS, WORDS
from pyrovae.lab.report import report, write_table
from pyrovae.lab.slopes import slopes
from pyrovae.plots.quantities import with_error, with_interval

FIGURES = ["bounds", "signal_to_noise", "variance", "cost", "bias"]
COUNTS = (1, 5, 50)


def row(objective, k=5, group="guide", **known):
    """A row of a table, with intervals of a tenth on both sides of what is given."""
    gradient, snr = known.get("gradient", 3.0), known.get("snr", 0.7)
    figures = {"gradient": gradient, "bias": 0.2, "variance": 18.5, "snr": snr, "evidence_bias": 1.5} | known
    figures["relative_bias"] = figures["bias"] / gradient if gradient > 0 else math.nan
    ends = {f"{n}{end}": figures[n] * by for n in LENGTHS for end, by in (("_low", 0.9), ("_high", 1.1))}
    rest = {"draws": 40, "bound": -100 + math.log(k or 1), "bound_error": 0.3, "evidence": -95.0, "evidence_error": 0.1}
    rest |= {"gap": 5.0 - math.log(k or 1), "gap_error": 0.52, "decoder_passes": float(k or 1), "seconds": 0.01}
    rest |= {"lower": True, "peak_memory": 3_000_000, "parameters": 70, "snr_per_second": snr / 0.1}
    rest |= {"snr_per_pass": snr / math.sqrt(k or 1)}
    empty = {c: "" if c in WORDS else math.nan for c in COLUMNS}
    return empty | rest | ends | figures | {"objective": objective, "particles": k, "group": group}


def failed(objective, k=1, reason="the bound of draw 1 is NaN or infinite"):
    empty = {c: "" if c in WORDS else math.nan for c in COLUMNS}
    return empty | {"objective": objective, "particles": k, "failed": reason}


def table_of(rows, **attrs):
    """A table as `compare` returns it."""
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    whole = ["particles", "draws", "peak_memory", "parameters"]
    table[whole] = table[whole].astype("Int64")
    table.attrs |= {"seed": 3, "draws": 40, "data": 16, "reference": "2,000 particles", "interrupted": False} | attrs
    return table


def usual():
    """Three objectives, two of one bound and one of another scale in each figure."""
    rows = []
    for i, (name, bound) in enumerate({"A": 0.0, "A2": 0.0, "B": -3.0}.items()):
        for k in COUNTS:
            for g, group in enumerate(("model", "guide")):
                figures = {"bias": 0.11 * i, "snr": (1 + i + g) * k**-0.3, "variance": (9 + i + g) / k}
                rows.append(row(name, k, group, bound=-100 + bound + math.log(k), **figures))
    return table_of(rows)


def scatters(ax):
    return [c for c in ax.collections if isinstance(c, PathCollection)]


def dots(ax):
    """The points of a scatter chart, by the name on their left: sorted (name, x)."""
    names = [t.get_text() for t in ax.get_yticklabels()]
    points = [(names[round(y)], x) for c in scatters(ax) for x, y in c.get_offsets()]
    return sorted((name.strip(), float(x)) for name, x in points)


def segments(ax, axis):
    """Ends of the intervals along an axis, sorted."""
    drawn = [c for c in ax.collections if hasattr(c, "get_segments")]
    found = [s[:, axis] for c in drawn for s in c.get_segments() if len(s) == 2 and s[0, 1 - axis] == s[1, 1 - axis]]
    return sorted((float(a), float(b)) for a, b in found)


def curves(ax):
    """The lines drawn with markers: sorted lists of points."""
    found = [list(zip(*line.get_data(), strict=True)) for line in ax.lines if line.get_marker() not in ("None", "")]
    return sorted([(float(x), float(y)) for x, y in line] for line in found)


def of(table, group, *columns):
    """Figures of a group, by objective: sorted lists of rows."""
    parts = table[table["group"] == group].groupby("objective")
    return sorted([tuple(float(v) for v in r) for r in part[list(columns)].to_numpy(float)] for _, part in parts)


def cells(page, after):
    """The cells of the first table after a heading."""
    body = page[page.index(f"<h2>{after}</h2>") :]
    body = body[body.index("<table>") : body.index("</table>")]
    found = [re.findall(r"<td[^>]*>(.*?)</td>", line) for line in body.splitlines()]
    return [[html.unescape(c) for c in line] for line in found if line]


def is_a_picture(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=60)
    shown = np.asarray(Image.open(file).convert("RGB"))
    assert shown.std() > 5
    for edge in (shown[0], shown[-1], shown[:, 0], shown[:, -1]):
        assert (edge == 255).all()  # nothing is cut off


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """The usual table, its folder, and the page."""
    folder = tmp_path_factory.mktemp("lab") / "new" / "folder"
    return usual(), folder, report(usual(), folder).read_text(encoding="utf-8")


# Figures


def test_bounds_are_those_of_the_table():
    table = usual()
    ax = plots.bounds(table).axes[0]
    assert curves(ax) == of(table, "model", "particles", "bound")
    model = table[table["group"] == "model"]
    ends = zip(model.bound - model.bound_error, model.bound + model.bound_error, strict=True)
    assert segments(ax, 1) == sorted(ends)
    band = ax.patches[0]
    assert (band.get_y(), band.get_height()) == pytest.approx((-95.1, 0.2))
    texts = [t.get_text() for t in ax.get_legend().get_texts()]
    assert texts == ["A,\nA2", "B", "log p(x), 2,000 particles:\n−95.00 ± 0.10"]


def test_an_objective_with_fewer_particles_shares_the_line_of_its_bound():
    rows = [row("C", 5), row("C", 50), *(row("A", k) for k in COUNTS)]
    texts = [t.get_text() for t in plots.bounds(table_of(rows)).axes[0].get_legend().get_texts()]
    assert texts[0] == "C,\nA"
    texts = [t.get_text() for t in plots.signal_to_noise(table_of(rows)).axes[0].get_legend().get_texts()]
    assert len(texts) == 2  # slopes of other points


def test_signal_to_noise_and_slopes_are_those_of_the_table():
    table = usual()
    axes = plots.signal_to_noise(table).axes
    fitted = slopes(table)
    assert len(axes) == 2
    for ax, group in zip(axes, ("model", "guide"), strict=True):
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        assert curves(ax) == of(table, group, "particles", "snr")
        assert segments(ax, 1) == sorted(chain(*of(table, group, "snr_low", "snr_high")))
        told = [t.get_text() for t in ax.get_legend().get_texts()]
        part = fitted[fitted["group"] == group]
        assert told == [f"{r.objective}, slope {with_error(r.slope, r.error)}" for r in part.itertuples()]
        assert group in ax.get_title("left")


def test_variance_is_that_of_the_table_against_both_costs():
    table = usual()
    table["seconds"] = 0.01 * np.arange(1, len(table) + 1)
    axes = plots.variance(table).axes
    for ax, (group, cost) in zip(
        axes, [(g, c) for g in ("model", "guide") for c in ("decoder_passes", "seconds")], strict=True
    ):
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        assert curves(ax) == of(table, group, cost, "variance")
        products = [s for c in ax.collections if hasattr(c, "get_segments") for s in c.get_segments()]
        products = [s for s in products if s[0, 0] != s[1, 0]]
        assert products
        for (x0, y0), (x1, y1) in products:  # equal variance × cost, a power of ten
            assert x0 * y0 == pytest.approx(x1 * y1)
            assert math.log10(x0 * y0) == pytest.approx(round(math.log10(x0 * y0)), abs=1e-9)
        assert ax.get_ylim()[0] > 0.5 * table[table["group"] == group]["variance_low"].min()  # no empty decades


def test_cost_is_that_of_the_table_and_sorted():
    table = usual()
    axes = plots.cost(table).axes
    panels = [(g, c) for g in ("model", "guide") for c in ("snr_per_pass", "snr_per_second")]
    for i, (ax, (group, column)) in enumerate(zip(axes, panels, strict=True)):
        part = table[table["group"] == group]
        names = [t.get_text() for t in axes[i - i % 2].get_yticklabels()]  # on the left of both
        assert names == list(part.groupby("objective").snr_per_second.max().sort_values().index)
        found = [(names[round(y)], x) for c in scatters(ax) for x, y in c.get_offsets()]
        assert sorted(found) == sorted(zip(part.objective, part[column], strict=True))
        cost = part.decoder_passes if column == "snr_per_pass" else part.seconds
        ends = zip(part.snr_low / np.sqrt(cost), part.snr_high / np.sqrt(cost), strict=True)
        assert np.array(segments(ax, 0)) == pytest.approx(np.array(sorted(ends)))


def test_bias_is_that_of_the_table_at_the_largest_k_and_hollow_where_none_is_seen():
    rows = [row("seen", 5, bias=0.3), row("seen", 50, bias=0.6), row("none", 50, bias=0.0)]
    rows += [row("unseen", 50, bias=0.15) | {"relative_bias_low": 0.0}]
    ax = plots.bias(table_of(rows)).axes[0]
    assert dots(ax) == [("none", 0.0), ("seen", pytest.approx(0.2)), ("unseen", pytest.approx(0.05))]
    faces = scatters(ax)[0].get_facecolors()
    names = [t.get_text() for t in ax.get_yticklabels()]
    hollow = {name for name, face in zip(names, faces, strict=True) if (face == 1).all()}
    assert hollow == {"none", "unseen"}
    told = {t.get_text() for t in ax.texts}
    assert told == {with_interval(0.2, 0.18, 0.22), with_interval(0.05, 0.0, 0.055), "0"}


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize(
    "rows",
    [
        [row("A"), row("B", snr=0.1)],  # a single K
        [row("A", None), row("B", None, "both")],  # particles not told
        [row("A", None), row("B", 1), row("B", 5)],
        [row("A", k, snr=snr, variance=v) for k, snr, v in ((1, math.inf, 0.0), (5, 0.0, math.inf), (50, 0.5, 3.0))],
        [row("A", k) | {f"{n}{e}": math.nan for n in LENGTHS for e in ("_low", "_high")} for k in COUNTS],
        [row("A", k) | {"snr_low": 0.0, "variance_low": 0.0, "bias_high": math.inf} for k in COUNTS],
        [row("A", k) | {"snr_high": math.inf, "variance_high": math.inf, "bound_error": math.nan} for k in COUNTS],
        [row("A", k) | {"snr_low": 0.9, "variance_low": 25.0} for k in COUNTS],  # the value is outside of its interval
        [row("_a $x^$ <b> {y} \\q", k) for k in COUNTS] + [row("$", 5)],
        [row(f"a name that goes on and on ({i})", k, g, snr=1 + i) for i in range(24) for k in (1, 5) for g in "ab"],
        [row("A", k) for k in range(1, 40)],
    ],
    ids=["one K", "no K", "some K", "inf", "no intervals", "to 0", "to inf", "outside", "names", "many", "many K"],
)  # fmt: skip
def test_every_table_is_a_picture(name, rows):
    is_a_picture(getattr(plots, name)(table_of(rows)))


def test_names_are_written_as_they_are():
    rows = [row(name, k, snr=1 + i) for i, name in enumerate(["_first", "$x^$"]) for k in COUNTS]
    texts = [t.get_text() for t in plots.signal_to_noise(table_of(rows)).axes[0].get_legend().get_texts()]
    assert [t.split(",")[0].strip() for t in texts] == ["_first", r"\$x^\$"]  # escaped: no formula


@pytest.mark.parametrize("name", ["signal_to_noise", "variance", "cost"])
def test_what_cannot_be_drawn_is_named(name):
    rows = [*(row("A", k) for k in COUNTS), row("silent", 5, snr=0.0, variance=0.0), row("mute", 5, snr=math.nan)]
    figure = getattr(plots, name)(table_of(rows))
    assert figure.get_supxlabel().startswith("Not shown")
    assert "silent" in figure.get_supxlabel()
    assert ("mute" in figure.get_supxlabel()) == (name != "variance")
    assert not getattr(plots, name)(usual()).get_supxlabel()


@pytest.mark.parametrize("name", FIGURES)
def test_wrong_tables_are_refused_in_one_sentence(name):
    draw = getattr(plots, name)
    nothing = dict.fromkeys([c for c in COLUMNS if c not in (*WORDS, "particles")], math.nan)
    for table, reason in {
        "a list": ([1, 2], "got list"),
        "no column": (usual().drop(columns=["objective"]), "'objective'"),
        "no rows": (table_of([]), "an empty table"),
        "failures": (table_of([failed("A"), failed("B")]), "got 2 that failed"),
        "NaN": (table_of([row("A") | nothing]), "at least one"),
    }.values():
        with pytest.raises(ValueError, match=f"^{name} expects [^\n]*{reason}"):
            draw(table)


# Slopes


@pytest.mark.parametrize("power", [-0.5, 0.0, 0.5, 2.0])
def test_slope_of_a_power_law_is_its_power_with_the_error_of_its_intervals(power):
    rows = [row("A", k, snr=3.0 * k**power) for k in COUNTS]
    found = slopes(table_of(rows)).iloc[0]
    x = np.log(COUNTS)
    s = math.log(1.1 / 0.9) / (2 * 1.96)
    assert found.slope == pytest.approx(power, abs=1e-12)
    assert found.error == pytest.approx(s / math.sqrt(((x - x.mean()) ** 2).sum()))
    assert (found.objective, found.group, found.points) == ("A", "guide", 3)


def test_slopes_of_noisy_power_laws_are_normal_about_the_power():
    """z-test of n slopes, and a χ² test of their spread against the errors; wrong once in 10⁶ each."""
    n, power, s = 800, -0.5, np.array([0.02, 0.05, 0.1, 0.2])
    k = np.array([1, 4, 20, 100])
    noise = np.random.default_rng(0).normal(size=(n, 4)) * s
    values = np.exp(power * np.log(k) + noise)
    low, high = values * np.exp(-1.96 * s), values * np.exp(1.96 * s)
    rows = [(str(i), k[j], "g", values[i, j], low[i, j], high[i, j]) for i in range(n) for j in range(4)]
    table = pd.DataFrame(rows, columns=["objective", "particles", "group", "snr", "snr_low", "snr_high"])
    found = slopes(table)
    w, x = s**-2, np.log(k)
    error = 1 / math.sqrt((w * (x - np.average(x, weights=w)) ** 2).sum())
    z = (found.slope.to_numpy() - power) / error
    limit = stats.norm.isf(1e-6 / 2)
    assert abs(z.mean()) * math.sqrt(n) < limit
    lowest, highest = stats.chi2.ppf([0.5e-6, 1 - 0.5e-6], n)
    assert lowest < (z**2).sum() < highest
    # χ² of the residuals and the slope are independent: the error is made larger as often as χ² of 2 exceeds 2
    larger = (found.error > error * (1 + 1e-9)).sum()
    assert found.error.min() == pytest.approx(error)
    assert abs(larger - n * math.exp(-1)) < limit * math.sqrt(n * math.exp(-1) * (1 - math.exp(-1)))


def test_error_of_what_is_no_power_law_is_larger_by_the_root_of_its_chi_square():
    s = math.log(1.1 / 0.9) / (2 * 1.96)
    logs = np.array([0.0, 5 * s, 0.0])  # at equal distances: slope 0, χ² of one degree of freedom 2/3 · 25
    rows = [row("A", k, snr=math.exp(v)) for k, v in zip((1, 10, 100), logs, strict=True)]
    found = slopes(table_of(rows)).iloc[0]
    assert found.slope == pytest.approx(0, abs=1e-12)
    assert found.error == pytest.approx(math.sqrt(50 / 3) * s / (math.log(10) * math.sqrt(2)))


def test_points_without_a_positive_interval_are_left_out_of_slopes():
    good = [row("A", k, snr=k**0.5) for k in (1, 10)]
    bad = [row("A", 100) | {"snr_low": 0.0}, row("A", 200, snr=math.inf), row("A", 300, snr=math.nan), row("A", None)]
    found = slopes(table_of(good + bad)).iloc[0]
    assert found.points == 2
    assert found.slope == pytest.approx(0.5)
    assert not len(slopes(table_of([row("A", 5), *bad, failed("B")])))
    assert list(slopes(table_of([])).columns) == ["objective", "group", "slope", "error", "points"]
    with pytest.raises(ValueError, match=r"^slopes expects a figure with an interval.*'bound'"):
        slopes(usual(), "bound")
    with pytest.raises(ValueError, match=r"^slopes expects a table with 'snr_low'"):
        slopes(usual().drop(columns="snr_low"))


# The page


def test_page_tells_the_numbers_of_the_table(reported):
    table, folder, page = reported
    for line, (_, r) in zip(cells(page, "Gradients"), table.iterrows(), strict=True):
        own = [with_interval(r[n], r[f"{n}_low"], r[f"{n}_high"]) for n in ("bias", "evidence_bias", "variance", "snr")]
        share = with_interval(*(r[f"bias{e}"] / r.gradient for e in ("", "_low", "_high")))
        assert line[:3] == [r.objective, str(r.particles), r.group]
        assert line[4:9] == [share, *own]
        assert line[9:] == [with_error(r.snr_per_pass), with_error(r.snr_per_second)]
    bounds = table[table["group"] == "model"]
    for line, (_, r) in zip(cells(page, "Bounds"), bounds.iterrows(), strict=True):
        assert line[2:4] == [with_error(r.bound, r.bound_error), with_error(r.gap, r.gap_error)]
        assert line[6] == "3.00"  # MB
    fitted = [[r.objective, r.group, with_error(r.slope, r.error), "3"] for r in slopes(table).itertuples()]
    assert cells(page, "Signal-to-noise") == fitted
    for words in ("16 data", "40 draws", "seed 3", "2,000 particles: −95.00 ± 0.10", "K = 1, 5, 50", "Nothing."):
        assert words in page
    assert "Stopped by hand" not in page
    read = pd.read_csv(folder / "compare.csv")
    np.testing.assert_allclose(read.snr, table.snr, rtol=1e-12)


def test_page_holds_its_pictures_and_needs_nothing_else(reported):
    _, folder, page = reported
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    for name, picture in zip(FIGURES, pictures, strict=True):
        assert base64.b64decode(picture) == (folder / "figures" / f"{name}.png").read_bytes()
    assert not re.search(r"https?:|<script|<link|@import|url\(", re.sub(r"base64,[^\"]+", "", page))
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page
    assert not list(folder.rglob("*.part"))


def test_failures_stand_apart_and_names_and_reasons_are_escaped(tmp_path):
    rows = [row("<b>bold</b>", k) for k in COUNTS] + [failed("<i>", reason='x < 1 & "y" <script>alert(1)</script>')]
    page = report(table_of(rows, reference="<u>"), tmp_path).read_text(encoding="utf-8")
    for tag in ("<b>", "<i>", "<script", "<u>"):
        assert tag not in page
    assert {line[0] for line in cells(page, "Gradients")} == {"<b>bold</b>"}
    assert cells(page, "What failed") == [["<i>", "1", 'x < 1 & "y" <script>alert(1)</script>']]


@pytest.mark.parametrize("rows", [[], [failed("A"), failed("B")]], ids=["empty", "all failed"])
def test_a_page_without_figures_says_why_and_leaves_no_old_ones(tmp_path, rows):
    (tmp_path / "figures").mkdir()
    for name in FIGURES:
        (tmp_path / "figures" / f"{name}.png").write_bytes(b"of another table")
    page = report(table_of(rows, interrupted=True), tmp_path).read_text(encoding="utf-8")
    assert page.count("No figure: ") == len(FIGURES)
    assert not list((tmp_path / "figures").glob("*.png"))
    assert "Stopped by hand" in page
    assert "nan" not in page.lower().replace("nan or infinite", "")


def test_one_figure_that_cannot_be_drawn_leaves_the_others(tmp_path):
    rows = [row("A", k, bias=math.nan) for k in COUNTS]
    page = report(table_of(rows), tmp_path).read_text(encoding="utf-8")
    assert page.count("No figure: bias expects") == page.count("No figure: ") == 1
    assert sorted(p.stem for p in (tmp_path / "figures").glob("*.png")) == sorted(set(FIGURES) - {"bias"})


def test_a_table_read_back_from_its_file_makes_the_same_pictures(tmp_path):
    table = table_of([*(row("A", k) for k in COUNTS), failed("B")])
    write_table(table, tmp_path)
    read = pd.read_csv(tmp_path / "compare.csv")
    assert curves(plots.signal_to_noise(read).axes[0]) == [[(k, pytest.approx(0.7)) for k in COUNTS]]
    page = report(read, tmp_path / "again").read_text(encoding="utf-8")
    assert "<li>log p(x): −95.00 ± 0.10 nats per datum</li>" in page
    assert cells(page, "What failed")[0][1] == "1"


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (with_error(-178.46, 0.189), "−178.46 ± 0.19"),
        (with_error(5.0, 0.096), "5.00 ± 0.10"),
        (with_error(0.0, 0.2), "0 ± 0.2"),
        (with_error(-0.001, 0.3), "0 ± 0.3"),
        (with_error(1234567.0, 20000.0), "(1.23 ± 0.02)·10⁶"),
        (with_error(1.5e-6), "1.50·10⁻⁶"),
        (with_error(math.nan, math.nan), "–"),
        (with_error(math.inf), "∞"),
        (with_interval(0.5, 0.0, math.inf), "0.500"),
        (with_interval(2.0, 2.0, 2.0), "2.00"),
        (with_interval(1223.0, 1164.0, 1239.0), "1220 [1160, 1240]"),
        (with_interval(4e-5, 3e-5, 5e-5), "(4.0 [3.0, 5.0])·10⁻⁵"),
    ],
)
def test_rounding(told, text):
    assert told == text


def test_slopes_of_many_particles_alone_are_fitted_from_where_one_says():
    """A figure that is flat up to K = 8 and falls as K^−1/2 from there on."""
    rows = [("A", k, "guide", v, 0.95 * v, 1.05 * v, "") for k in (1, 2, 4, 8, 32, 128) for v in [max(k, 8) ** -0.5]]
    columns = ["objective", "particles", "group", "snr", "snr_low", "snr_high", "failed"]
    table = pd.DataFrame(rows, columns=columns)
    assert slopes(table, fit_from=8).slope[0] == pytest.approx(-0.5)
    assert slopes(table).slope[0] > -0.45
    figure = plots.signal_to_noise(table, fit_from=8)
    assert figure.axes[0].get_title(loc="left").endswith("; slopes from K = 8 on")
    assert "slope −0.500 ± " in figure.axes[0].get_legend().get_texts()[0].get_text()
