"""What sources of rewards count: texts that were not read as they were sent."""

from tureen_train.policies.rollouts.valuing import count_normalised


def test_texts_that_were_read_otherwise_are_counted_by_what_was_changed() -> None:
    texts = [("end_marks",), (), ("control_marks", "end_marks", "end_marks"), ("refusal",)]
    counts = {
        "texts whose end marks were removed": 2,
        "texts whose control marks were read as plain text": 1,
        "texts whose field refusal is not read": 1,
    }
    assert count_normalised(["kind", "brief"], texts) == {"kind": counts, "brief": counts}
    assert count_normalised(["kind"], [(), ()]) == {}
