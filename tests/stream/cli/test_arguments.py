"""What an argument names is there, or the command ends with a sentence that says so."""

from __future__ import annotations

import pytest

from stream.cli.arguments import see_population, see_segments
from stream.config import ConfigError
from tests.stream.test_partition import models


def test_segments_that_are_there_pass_and_the_first_other_is_named() -> None:
    model = models()[-1]
    see_segments(model, ())
    see_segments(model, model.ids.tolist())
    with pytest.raises(ConfigError, match=r"^--segment 901: segstream segments lists them"):
        see_segments(model, (int(model.ids[0]), 901, 902))


def test_a_population_that_is_not_there_is_told_those_that_are() -> None:
    model = models()[-1]
    see_population(model, None)
    for name in model.populations.names:
        see_population(model, name)
    with pytest.raises(ConfigError, match=f"but {', '.join(model.populations.names)}$"):
        see_population(model, "nowhere")
