"""What holds of all that persons have said of labels."""

from include.registry.label_wishes import ADMIT, MERGE, WITHDRAW, following


def merge(label: str, into: str) -> tuple[str, dict[str, str]]:
    return MERGE, {"label": label, "into": into}


def test_labels_are_admitted_and_withdrawn() -> None:
    said = [(ADMIT, {"label": "parcel"}), (ADMIT, {"label": "letter"}), (ADMIT, {"label": "parcel"})]
    assert following(said).admitted == ("parcel", "letter")
    assert following([*said, (WITHDRAW, {"label": "parcel"})]).admitted == ("letter",)
    assert following([*said, (WITHDRAW, {"label": "never said"})]).admitted == ("parcel", "letter")


def test_a_label_that_others_were_merged_into_takes_them_along_when_it_is_renamed() -> None:
    assert following([merge("a", "b"), merge("b", "c")]).mapping == {"a": "c", "b": "c"}


def test_what_was_said_last_of_a_label_holds_and_can_be_withdrawn() -> None:
    said = [merge("a", "b"), merge("a", "c")]
    assert following(said).mapping == {"a": "c"}
    assert following([*said, (WITHDRAW, {"label": "a"})]).mapping == {}
