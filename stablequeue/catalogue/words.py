"""Words of a text, and queries made of them, the same for FTS5 and PostgreSQL.

We cut texts into words ourselves: the databases' own parsers differ (PostgreSQL takes `a/b.c` for a
file name and `1e5` for a number), know other Unicode tables, and have a query syntax that a user's
text could break. What reaches them is only words, quoted, and facets.

A facet is a filterable value (a model, a server, a kind, a tag) as one more token. It begins with
an underscore, which no word contains, so that no text can match it.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LONGEST_WORD = 64
MOST_WORDS = 16_000  # of one text: PostgreSQL knows positions up to 16383
MOST_BYTES = 500_000  # of the words of one asset: PostgreSQL takes a mebibyte with its own data
MOST_TERMS = 100  # of one query; the rest of a pasted page adds nothing

_ASCII_WORD = re.compile(r"[a-z0-9]+")
_CHUNK = re.compile(r'"([^"]*)"?|([^\s"]+)')
# Scripts written without spaces: every character is a word, and a run of them a phrase.
_UNSPACED = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


def words(text: str) -> list[str]:
    """Return the words of `text` in order: lower case, without accents, at most 64 characters."""
    if text.isascii():
        found = _ASCII_WORD.findall(text.lower())
    else:
        # Taking characters apart gives capitals (of "mathematical" letters), folding case gives
        # composed ones, so there is a second round.
        folded = unicodedata.normalize("NFKD", text).casefold()
        decomposed = unicodedata.normalize("NFKD", folded)
        bare = "".join(char for char in decomposed if not unicodedata.combining(char))
        bare = _UNSPACED.sub(r" \g<0> ", unicodedata.normalize("NFC", bare))
        found = "".join(char if _belongs(char) else " " for char in bare).split()
    return [word[:LONGEST_WORD] for word in found[:MOST_WORDS]]


def _belongs(char: str) -> bool:
    # Vowel signs (category M) are part of words in many scripts.
    return char.isalnum() or unicodedata.category(char).startswith("M")


def limited(found: Iterable[str]) -> list[str]:
    """Return as many of these words as one asset can be indexed by, from the first on."""
    kept: list[str] = []
    size = 0
    for word in found:
        size += len(word.encode())
        if size > MOST_BYTES or len(kept) == MOST_WORDS:
            break
        kept.append(word)
    return kept


@dataclass(frozen=True)
class SearchDocument:
    """What is indexed of one asset."""

    words: Sequence[str]
    facets: Sequence[str]

    def fts5(self) -> str:
        """Return the text FTS5's `ascii` tokenizer cuts into exactly these tokens."""
        return " ".join([*self.words, *self.facets])

    def tsvector(self) -> str:
        """Return PostgreSQL's text form of a tsvector, with the words' positions."""
        positions: dict[str, list[str]] = {}
        for position, word in enumerate(self.words[:MOST_WORDS], start=1):
            positions.setdefault(word, []).append(str(position))
        lexemes = [f"'{word}':{','.join(at[:255])}" for word, at in positions.items()]
        return " ".join([*lexemes, *(f"'{facet}'" for facet in dict.fromkeys(self.facets))])


@dataclass(frozen=True)
class Phrase:
    """Words next to each other; of the last one perhaps only the beginning."""

    words: tuple[str, ...]
    prefix: bool = False

    def fts5(self) -> str:
        """Return an FTS5 phrase."""
        return " + ".join(f'"{word}"' for word in self.words) + (" *" if self.prefix else "")

    def tsquery(self) -> str:
        """Return a tsquery phrase."""
        joined = " <-> ".join(f"'{word}'" for word in self.words)
        return f"({joined}{':*' if self.prefix else ''})"


@dataclass(frozen=True)
class Query:
    """Phrases and facets that must all be there."""

    phrases: tuple[Phrase, ...]
    facets: tuple[str, ...] = ()

    def fts5(self) -> str:
        """Return an FTS5 query."""
        terms = [*(f'"{facet}"' for facet in self.facets), *(p.fts5() for p in self.phrases)]
        return " AND ".join(terms)

    def tsquery(self) -> str:
        """Return a PostgreSQL tsquery."""
        terms = [*(f"'{facet}'" for facet in self.facets), *(p.tsquery() for p in self.phrases)]
        return " & ".join(terms)


def facet_token(facet_id: int) -> str:
    """Return the token of the facet with this id; short, as it is indexed with every asset."""
    return f"_{facet_id:x}"


def parse_query(text: str, facets: Iterable[str] = ()) -> Query | None:
    """Read what somebody typed into a search field.

    Words must all occur, in any order; `"..."` makes a phrase, `cat*` any word that begins so. A
    piece such as `blue_eyes` is the phrase "blue eyes", as that is how it is found in texts. An
    unclosed quote runs to the end; every other character only separates words.

    Returns:
        None when there is text, but no word in it: nothing can match. No phrases at all when the
        text is blank or a lone `*`.
    """
    phrases: list[Phrase] = []
    terms = 0
    for quoted, bare in _CHUNK.findall(text):
        piece: str = quoted or bare
        found = tuple(words(piece))[: MOST_TERMS - terms]
        if found:
            cut = bool(bare) and piece.endswith("*")
            phrases.append(Phrase(found, prefix=cut))
            terms += len(found)
        if terms >= MOST_TERMS:
            break
    if not phrases and text.strip().strip("*"):
        return None
    return Query(tuple(dict.fromkeys(phrases)), tuple(facets))
