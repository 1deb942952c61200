"""The mixes at which a family is measured."""

from tureen_train.families.mixes import name_mix, plan_mixes, plan_sweeps


def test_a_sweep_goes_from_one_expert_alone_to_the_other() -> None:
    (sweep,) = plan_sweeps([("a", "b")], 3)
    assert sweep.mixes == [{"a": 1.0}, {"a": 0.5, "b": 0.5}, {"b": 1.0}]
    assert plan_sweeps([("a", "b")], 0) == []


def test_each_mix_is_measured_once() -> None:
    names = ["a", "b", "c"]
    sweeps = plan_sweeps([("a", "b"), ("a", "c"), ("b", "c")], 11)
    mixes = [name_mix(mix) for mix in plan_mixes(names, sweeps)]
    assert len(mixes) == len(set(mixes)) == 1 + 3 + 3 * 9
    assert mixes[:4] == ["base", "a=1", "b=1", "c=1"]
    assert "a=0.9+b=0.1" in mixes
