"""The images a virtual Node lists: what most peer nodes have, bounded, in an order that stays."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from vnode.node.images import MOST, MOST_NAMES, Image, common_images, images_json, read_images


def listed(*sizes: int) -> list[dict[str, Any]]:
    return [{"names": [f"app{size}@sha256:0", f"app{size}:1"], "sizeBytes": size} for size in sizes]


def test_an_image_of_several_nodes_is_one_and_comes_in_by_how_many_have_it() -> None:
    nodes = [read_images(listed(*range(100, 99 + MOST), 1)), read_images(listed(1, 7, 8)), read_images(None)]
    found = common_images(nodes)
    assert len(found) == MOST
    assert found[-1] == Image(("app1:1", "app1@sha256:0"), 1)  # the smallest, but the only one of two nodes
    assert [image.size for image in found] == sorted((image.size for image in found), reverse=True)
    assert {7, 8} & {image.size for image in found} == set()


def test_what_a_node_says_too_much_is_cut() -> None:
    many = [{"names": [f"x{number}" for number in range(30)], "sizeBytes": 1}, {"names": ["y" * 2000], "sizeBytes": 1}]
    assert read_images([*many, {"sizeBytes": 3}, {"names": None}, {"names": ["z"], "sizeBytes": "3"}]) == (
        Image(tuple(f"x{number}" for number in range(MOST_NAMES)), 1),
    )
    assert len(read_images(listed(*range(200)))) == MOST


@given(st.lists(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 3)), max_size=6), max_size=4))
def test_what_is_listed_reads_back_as_it_is(nodes: list[list[tuple[str, int]]]) -> None:
    found = common_images([[Image((name,), size) for name, size in images] for images in nodes])
    assert read_images(images_json(found)) == found
