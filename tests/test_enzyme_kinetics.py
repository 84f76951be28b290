"""The main job: the estimates and standard errors are the published ones, digit by digit."""

import re

import jax
import pytest

import enzyme_kinetics


@pytest.mark.parametrize("index", [0, 1], ids=["treated", "untreated"])
def test_the_fit_reproduces_the_published_digits(index):
    with jax.enable_x64(True):
        experiment = enzyme_kinetics.load()[index]
        result = enzyme_kinetics.fit(experiment)
        for name, (estimate, error) in experiment.published.items():
            assert f"{float(getattr(result.parameters, name)):.3e}" == estimate
            assert f"{float(getattr(result.stderr, name)):.3e}" == error
        assert f"{result.residual_error:.4g}" == experiment.published_error


def test_a_fit_that_has_too_few_steps_says_so():
    with jax.enable_x64(True), pytest.raises(RuntimeError, match="no convergence in 2 steps"):
        enzyme_kinetics.fit(enzyme_kinetics.load()[0], steps=2)


def test_the_job_prints_plan_blocks_progress_and_table_and_saves_a_figure(tmp_path, capsys):
    figure = tmp_path / "fit.png"
    enzyme_kinetics.main(["--figure", str(figure)])
    printed = capsys.readouterr().out
    assert "Plan of jacobian(residual): forward mode" in printed
    assert re.search(r"output  kinetics.km +float64\[12\]", printed)
    assert re.search(r"step +rss +vmax +km +damping", printed)
    assert re.search(r"kinetics.vmax +2.127e\+02 +2.127e\+02 +6.947e\+00 +6.947e\+00", printed)
    assert figure.read_bytes().startswith(b"\x89PNG")
