import pytest

from scheduler.simulate import ranges
from scheduler.simulate.reading import built_in


@pytest.mark.parametrize("name", built_in())
def test_the_built_in_scenarios_come_to_what_they_came_to(name: str) -> None:
    kept, found = ranges.kept()[name], ranges.measured(name)

    beyond = {
        figure: (value, kept[figure])
        for figure, value in found.items()
        if not kept[figure][0] <= value <= kept[figure][1]
    }
    assert not beyond, "the policy has changed; if that is meant: simulate --update-ranges"
    assert found.keys() == kept.keys()
