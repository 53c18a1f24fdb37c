"""Words of texts, and queries of words."""

from hypothesis import given
from hypothesis import strategies as st

from stablequeue.catalogue.words import (
    LONGEST_WORD,
    MOST_TERMS,
    Phrase,
    SearchDocument,
    parse_query,
    words,
)


def test_words_are_cut_folded_and_freed_of_accents() -> None:
    assert words("A (masterpiece:1.2), Crème_brûlée!") == [
        *("a", "masterpiece", "1", "2", "creme", "brulee"),
    ]
    assert words("Straße \uff21\uff22\uff23 \uff11\uff12 \ufb01ne") == [
        "strasse",
        "abc",
        "12",
        "fine",
    ]
    assert words("黒い猫 cat猫") == ["黒", "い", "猫", "cat", "猫"]
    assert words("हिन्दी") == words("हिन्दी".upper())
    assert len(words("हिन्दी")) == 1
    assert words("") == words(" _-\0\ud800🐈") == []


@given(st.text())
def test_words_hold_nothing_a_query_could_mistake(text: str) -> None:
    for word in words(text):
        assert 0 < len(word) <= LONGEST_WORD
        assert not set(word) & set(" _'\"\\*:&|!()<>+^-.\0")
        assert word == word.strip()


@given(st.text())
def test_cutting_words_again_changes_nothing(text: str) -> None:
    once = words(text)
    assert words(" ".join(once)) == once


def test_queries_are_phrases_of_words() -> None:
    assert parse_query('black "a cat" blue_eyes dog*') == parse_query(
        '  black\t"A  CAT!" (blue-eyes) dog* black '
    )
    query = parse_query('black "a cat" ey*', ["_1"])
    assert query is not None
    assert query.phrases == (Phrase(("black",)), Phrase(("a", "cat")), Phrase(("ey",), prefix=True))
    assert query.fts5() == '"_1" AND "black" AND "a" + "cat" AND "ey" *'
    assert query.tsquery() == "'_1' & ('black') & ('a' <-> 'cat') & ('ey':*)"


def test_a_query_without_words_cannot_match() -> None:
    assert parse_query("!!!") is None
    blank = parse_query(" * ")
    assert blank is not None
    assert blank.phrases == ()


@given(st.text())
def test_any_text_is_a_query_of_bounded_size(text: str) -> None:
    query = parse_query(text * 3)
    if query is not None:
        assert sum(len(phrase.words) for phrase in query.phrases) <= MOST_TERMS


def test_a_document_lists_positions_and_facets() -> None:
    document = SearchDocument(["a", "cat", "a"], ["_1", "_2", "_1"])
    assert document.fts5() == "a cat a _1 _2 _1"
    assert document.tsvector() == "'a':1,3 'cat':2 '_1' '_2'"
