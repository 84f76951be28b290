"""Functions of research practice, field by field."""

from problem import Problem

from practice import dynamics, networks, physics, regression, robotics, statistics


def problems() -> list[Problem]:
    """All of them."""
    modules = (regression, statistics, networks, dynamics, physics, robotics)
    return [problem for module in modules for problem in module.problems()]
