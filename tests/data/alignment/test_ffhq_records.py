"""Reading FFHQ's metadata: whatever a file holds, records or one clear error."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylecli.data.alignment.ffhq_records import Points, read_ffhq_records
from stylecli.errors import DataError

names = st.sampled_from(["0", "1", "category", "metadata", "image", "file_size", "pixel_size"])
values = st.recursive(
    st.none() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a JSON object"),
        ("[1, 2]", "expected a JSON object"),
        ("{}", "holds no record"),
        ('{"0": {"category": "training"}}', "record 0 .* is not as in"),
        ('{"0": []}', "record 0 .* is not as in"),
        ('{"0": {"category": 1, "metadata": [1], "in_the_wild": {}}}', "record 0"),
        ('{"zero": {}}', "'zero'"),
        ('{"-1": {}}', "not the number"),
        ('{"99999999999999999999": {}}', "not the number"),
        ('{"0": ' + "[" * 100_000, "nested deeply|damaged"),
        ('{"0": {"category": "training", "in_the', "cut off after 0 records"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_what_is_not_ffhq_s_metadata_is_a_clear_error(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "ffhq-dataset-v2.json"
    path.write_bytes(text.encode(errors="surrogateescape"))

    with pytest.raises(DataError, match=message):
        read_ffhq_records(path, "in_the_wild")


def test_a_number_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ffhq-dataset-v2.json"
    record = '{"category": "training", "image": {}}'
    path.write_text(f'{{"7": {record}, "07": {record}}}')

    with pytest.raises(DataError, match="record 7 twice"):
        read_ffhq_records(path, "image")


@given(text=st.text(max_size=30) | values.map(json.dumps))
@settings(max_examples=30, deadline=None)
def test_any_text_is_records_or_a_clear_error(text: str, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile.json"
    path.write_bytes(text.encode(errors="surrogatepass"))
    try:
        found = read_ffhq_records(path, "image")
    except DataError:
        return
    assert found.records


def test_points_read_like_a_tuple_of_pairs() -> None:
    pairs = ((1.5, 2.0), (3.0, 4.25))

    points = Points(pairs)

    assert (len(points), points[-1], points[:1]) == (2, (3.0, 4.25), ((1.5, 2.0),))
    assert points == pairs
    assert np.array_equal(np.asarray(points), pairs)
    with pytest.raises(IndexError):
        points[2]
