"""Splits the text of grids: rows into words, and lists of values at `|`.

A separator inside quotes or parentheses does not split. Quotes outside parentheses
group, as in a shell, and are removed. Quotes inside parentheses belong to a spec and
stay: `embedding=rq(quantizer='kmeans')`.
"""

from collections.abc import Iterator

from fedpeft_jax.core.errors import InputError, brief

_OPEN, _CLOSE, _QUOTES = "([{", ")]}", "'\""


def split_row(text: str) -> list[str]:
    """Returns the words of a row, which spaces separate.

    Args:
      text: for example `"full=frozen embedding=lora(rank=4)"`.

    Raises:
      InputError: for a quote or a parenthesis that is not closed.

    Example:
      >>> split_row("embedding=rq(quantizer='kmeans')  loss='bpr'")
      ["embedding=rq(quantizer='kmeans')", 'loss=bpr']
      >>> split_row("embedding=lora( rank = 4 ) rounds=3")
      ['embedding=lora( rank = 4 )', 'rounds=3']
    """
    return [word for word in _pieces(text, None) if word]


def split_values(text: str) -> list[str]:
    """Returns the values of a list, which `|` separates, without spaces around them.

    Args:
      text: for example `"lora(rank=2)|lora(rank=4)"`.

    Raises:
      InputError: for an empty value, or a quote or a parenthesis that is not closed.

    Example:
      >>> split_values("lora(rank=2) | rq(quantizer='a|b')")
      ['lora(rank=2)', "rq(quantizer='a|b')"]
    """
    values = [piece.strip() for piece in _pieces(text, "|")]
    if not all(values):
        raise InputError(f"{brief(text)} has an empty value: write one|another")
    return values


def _pieces(text: str, separator: str | None) -> Iterator[str]:
    """Yields what lies between separators; None separates at white space."""
    piece, quote, depth, opened = "", "", 0, ""
    for character in text:
        if quote:
            closes = character == quote
            if depth or not closes:
                piece += character
            quote = "" if closes else quote
        elif character in _QUOTES:
            quote, opened = character, character
            piece += character if depth else ""
        elif not depth and (
            character.isspace() if separator is None else character == separator
        ):
            yield piece
            piece = ""
        else:
            if character in _OPEN:
                depth, opened = depth + 1, character
            elif character in _CLOSE:
                depth -= 1
                if depth < 0:
                    raise InputError(f"{brief(text)} has {character} without its start")
            piece += character
    if quote or depth:
        kind = "a quote" if quote else f"a parenthesis {opened}"
        raise InputError(f"{brief(text)} has {kind} that is not closed: close it")
    yield piece
