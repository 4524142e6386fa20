"""Style, deterministic files of bounded size, and the copula experiment's figures."""

from __future__ import annotations

import io
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from repro.papers.gmrf_mcvae.copula.figures import joint_scatter, marginals, mvae_seeds, overview_panels
from repro.report.cells import Cell
from repro.report.plotting import GENERATED, PALETTE, TRUE, draw_points, new_figure, render, use_style


def samples(seed: int, n: int = 60) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {f"m{i}": generator.random((n, 2)) for i in range(3)}


def image_of(size: int, layers: list, **options: float) -> np.ndarray:
    """The picture that draw_points makes, row 0 at the bottom."""
    axes = new_figure(1, 1).add_subplot()
    draw_points(axes, layers, (0.0, 1.0), size=size / 200, **options)
    return np.asarray(axes.images[0].get_array())


def pixel(colour: str) -> list[int]:
    return [round(255 * v) for v in to_rgb(colour)]


def test_style_is_applied_and_put_back() -> None:
    # Reading the backend chooses one, so it is left out.
    names = [name for name in mpl.rcParams if name != "backend"]
    before = [mpl.rcParams[name] for name in names]
    with use_style():
        assert mpl.rcParams["font.family"] == ["STIXGeneral"]
        assert tuple(entry["color"] for entry in mpl.rcParams["axes.prop_cycle"]) == PALETTE
        assert [mpl.rcParams[name] for name in names] != before
    assert [mpl.rcParams[name] for name in names] == before


def test_pyplot_is_not_imported() -> None:
    code = "import sys, repro.papers.gmrf_mcvae.copula.figures as f; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_files_are_deterministic_and_carry_no_date() -> None:
    figures = [mvae_seeds(samples(0), {0: samples(1)}) for _ in range(2)]
    (pdf, png), second = ([render(f, suffix) for suffix in ("pdf", "png")] for f in figures)
    assert [pdf, png] == second
    assert pdf.startswith(b"%PDF")
    assert b"CreationDate" not in pdf
    assert "Software" not in Image.open(io.BytesIO(png)).info


@pytest.mark.slow
def test_resolution_falls_until_the_file_fits() -> None:
    figure = new_figure(2, 2)
    generator = np.random.default_rng(0)
    figure.add_axes((0, 0, 1, 1)).imshow(generator.random((400, 400, 3)), interpolation="none")
    large, small = (Image.open(io.BytesIO(render(figure, "png", max_bytes=n))) for n in (10**6, 60_000))
    assert large.size == (400, 400)
    assert large.mode == "RGBA"
    assert small.size[0] < 400
    assert small.mode == "P"
    with pytest.raises(ValueError, match="bytes as png at 72 dots an inch, more than 1,000"):
        render(figure, "png", max_bytes=1000)


def test_bad_figures_are_named() -> None:
    with pytest.raises(ValueError, match="'jpg'; one of pdf, png"):
        render(new_figure(1, 1), "jpg")
    with pytest.raises(ValueError, match="0 x 1 inches"):
        new_figure(0, 1)
    with pytest.raises(ValueError, match="must increase"):
        draw_points(new_figure(1, 1).add_subplot(), [], (1.0, 0.0), size=1)
    with pytest.raises(ValueError, match="expected \\(N,\\) twice"):
        image_of(11, [([0.5], [0.5, 0.6], TRUE)])


def test_points_lie_where_their_values_are() -> None:
    # Eleven pixels over [0, 1]: a tenth a pixel; a point of one pixel, and one outside that is left out.
    image = image_of(11, [([0.2, 1.5], [0.7, 0.5], TRUE)], diameter=0.36)
    painted = np.argwhere((image != 255).any(-1))
    assert painted.tolist() == [[7, 2]]
    assert image[7, 2].tolist() == pixel(TRUE)


def test_points_of_two_layers_blend_and_those_of_one_do_not() -> None:
    x = [0.5, 0.5]
    assert image_of(11, [(x, x, TRUE)], diameter=0.36)[5, 5].tolist() == pixel(TRUE)
    both = image_of(11, [(x, x, TRUE), (x, x, GENERATED)], diameter=0.36, opacity=0.7)[5, 5]
    expected = 0.3 * np.array(to_rgb(TRUE)) + 0.7 * np.array(to_rgb(GENERATED))
    assert both.tolist() == (255 * expected).round().tolist()
    assert {tuple(c) for c in image_of(40, [(x, x, GENERATED)]).reshape(-1, 3)} == {
        (255, 255, 255),
        tuple(pixel(GENERATED)),
    }


def test_joint_scatter_has_a_panel_a_pair_coordinate_and_model() -> None:
    figure = joint_scatter(samples(0), {"A": samples(1), "B": samples(2)})
    assert len(figure.axes) == 2 * 3 * 2
    assert [axes.get_title() for axes in figure.axes[:3]] == [
        rf"$(\mathbf{{x}}_{i},\, \mathbf{{x}}_{j})$" for i, j in ((1, 2), (1, 3), (2, 3))
    ]
    assert {"A", "B"} <= {text.get_text() for text in figure.texts}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["true", "generated"]
    # Panel of the first model, second coordinate, last pair: the picture holds exactly those points.
    drawn = np.asarray(figure.axes[5].images[0].get_array())
    axes = new_figure(1, 1).add_subplot()
    layers = [(s["m1"][:, 1], s["m2"][:, 1], c) for s, c in ((samples(0), TRUE), (samples(1), GENERATED))]
    draw_points(axes, layers, (-0.1, 1.1), size=drawn.shape[0] / 200)
    assert np.array_equal(drawn, np.asarray(axes.images[0].get_array()))


def test_joint_scatter_notes_what_is_off_the_axes() -> None:
    generated = samples(1)
    generated["m0"] = generated["m0"].copy()
    generated["m0"][:15, 0] = 3.0  # a quarter of the first coordinate
    figure = joint_scatter(samples(0), {"A": generated}, max_points=10)
    notes = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert notes == [["25% off"], ["25% off"], [], [], [], []]


def test_marginals_are_densities_with_the_share_outside() -> None:
    true, generated = samples(0), samples(1)
    generated["m2"] = generated["m2"] + 0.5
    figure = marginals(true, {"A": generated})
    assert len(figure.axes) == 3 * 2
    outside = np.mean(generated["m2"][:, 1] > 1)
    last = figure.axes[5]
    assert [text.get_text() for text in last.texts] == [f"{outside:.0%} out"]
    values, edges, _ = last.patches[-1].get_data()
    assert edges == pytest.approx(np.linspace(-0.1, 1.1, 25))
    assert np.sum(values * np.diff(edges)) == pytest.approx(np.mean(generated["m2"][:, 1] <= 1.1))
    assert [text.get_text() for text in figure.axes[0].texts] == ["0% out"]


def test_mvae_seeds_labels_blocks_by_seed() -> None:
    figure = mvae_seeds(samples(0), {0: samples(1), 2: samples(2)})
    assert {"MVAE, seed 0", "MVAE, seed 2"} <= {text.get_text() for text in figure.texts}


def test_overview_has_a_panel_a_model_with_its_distances() -> None:
    cells = {"A": Cell(0.86, (0.7, 0.9)), "B": Cell(4.8, (), "not run")}
    figure = overview_panels(samples(0), {"A": samples(1), "B": samples(2)}, cells)
    assert [axes.get_title() for axes in figure.axes] == ["A", "B"]
    said = [[text.get_text() for text in axes.texts][-2:] for axes in figure.axes]
    assert said == [["obtained 0.80 ± 0.14", "published 0.86"], ["not run", "published 4.8"]]
    one = {"m0": samples(0)["m0"]}
    with pytest.raises(ValueError, match="a pair of modalities"):
        overview_panels(one, {"A": one}, cells)


@pytest.mark.parametrize("draw", [joint_scatter, marginals])
def test_bad_samples_are_named(draw) -> None:
    good = samples(0)
    with pytest.raises(ValueError, match="no generated samples"):
        draw(good, {})
    with pytest.raises(ValueError, match="samples of 'A' have modalities \\['m0', 'm1'\\]"):
        draw(good, {"A": {m: good[m] for m in ("m0", "m1")}})
    with pytest.raises(ValueError, match="samples of 'A': modality 'm1' has shape \\(60,\\)"):
        draw(good, {"A": {**good, "m1": good["m1"][:, 0]}})
    with pytest.raises(ValueError, match="'A': modality 'm2' has values that are not finite"):
        draw(good, {"A": {**good, "m2": np.full((60, 2), np.nan)}})
    with pytest.raises(ValueError, match="unequal lengths"):
        draw(good, {"A": {**good, "m2": good["m2"][:50]}})
