"""Reads `multipart/form-data` bodies: the small part of it that uploads need."""

from dataclasses import dataclass
from email.message import Message


@dataclass(frozen=True, slots=True)
class Part:
    """One field; `filename` None: not a file."""

    name: str
    filename: str | None
    content: bytes

    @property
    def text(self) -> str:
        """The content as text."""
        return self.content.decode()


def parse(content_type: str, body: bytes) -> dict[str, Part]:
    """Return the fields by name; of several with one name the first.

    Raises:
        ValueError: The body is not what the content type says.
    """
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_boundary()
    if not boundary:
        message = "no boundary"
        raise ValueError(message)
    fields: dict[str, Part] = {}
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())
    if len(pieces) < 2:  # noqa: PLR2004 - what is before the first boundary, and the rest
        message = "the boundary is nowhere"
        raise ValueError(message)
    for piece in pieces[1:]:
        if piece.startswith(b"--"):
            break
        head, separator, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        if not separator:
            message = "a part has no end of its headers"
            raise ValueError(message)
        part = _part(head.decode(), content)
        if part is not None:
            fields.setdefault(part.name, part)
    return fields


def _part(head: str, content: bytes) -> Part | None:
    for line in head.split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() != "content-disposition":
            continue
        parameters = _parameters(value)
        if "name" in parameters:
            return Part(parameters["name"], parameters.get("filename"), content)
    return None


def _parameters(disposition: str) -> dict[str, str]:
    """Read `form-data; name="image"; filename="a;b.png"`; quoted texts may hold anything."""
    found: dict[str, str] = {}
    rest = disposition.partition(";")[2]
    while rest.strip():
        name, equals, rest = rest.partition("=")
        if not equals:
            break
        if rest.startswith('"'):
            value, rest = _quoted(rest[1:])
        else:
            value, _, rest = rest.partition(";")
        found[name.strip(" ;").lower()] = value
        rest = rest.lstrip().removeprefix(";")
    return found


def _quoted(text: str) -> tuple[str, str]:
    value: list[str] = []
    letters = iter(range(len(text)))
    for index in letters:
        letter = text[index]
        if letter == '"':
            return "".join(value), text[index + 1 :]
        if letter == "\\" and text[index + 1 : index + 2] in {'"', "\\"}:
            value.append(text[next(letters)])
            continue
        value.append(letter)
    return "".join(value), ""
