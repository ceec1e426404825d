"""Titles in the prompts that readers write."""

from fedpeft_jax import from_frame, load_dataset
from fedpeft_jax.data.titles import titles_of


def prompts(*titles):
    return [f"Title: {title}. Genres: Drama, War." for title in titles]


def test_a_title_ends_where_the_next_attribute_begins():
    titles = [
        "Toy Story (1995)",
        "Mr. Holland's Opus (1995)",
        "2001: A Space Odyssey (1968)",
        "Professional, The (a.k.a. Leon: The Professional) (1994)",
        "Dr. Strangelove or: How I Learned to Stop Worrying (1963)",
    ]
    assert titles_of(prompts(*titles)) == titles


def test_the_title_is_found_after_another_attribute():
    texts = ["Brand: Ace. Title: Kite.", "Brand: Bee. Title: Red ball."]
    assert titles_of(texts) == ["Kite", "Red ball"]


def test_without_a_title_the_first_attribute_is_one():
    texts = ["Author: A. Best. Year: 1999.", "Author: C. Day. Year: 2001."]
    assert titles_of(texts) == ["A. Best", "C. Day"]


def test_plain_text_is_its_own_title_and_long_text_is_cut():
    assert titles_of(["a red  kite", ""]) == ["a red kite", None]
    (found,) = titles_of(["word " * 100])
    assert len(found) == 200 and found.endswith("...")


def test_titles_of_data_sets():
    table = {"user": [1, 1, 1], "item": [7, 8, 9]}
    items = {"item": [7, 8], "title": ["Up", "Down"], "year": [2009, 2010]}
    assert titles_of(from_frame(table, items).item_text) == ["Up", "Down", None]
    texts = load_dataset("synthetic").item_text
    for text, title in zip(texts, titles_of(texts), strict=True):
        assert text.startswith(f"Title: {title}. Genres: ")
