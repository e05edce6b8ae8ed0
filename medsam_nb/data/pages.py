"""Words where a file is meant: a page that asks to log in, or a message, sent as if all were well."""

# What words begin with, what servers call them, and the names of files that are such words.
WORDS = {
    "a web page": (
        (b"<!doctype html", b"<html", b"<head", b"<body", b"<script"),
        "html",
        (".html", ".htm", ".xhtml"),
    ),
    "a message in XML": ((b"<?xml", b"<error"), "xml", (".xml", ".svg", ".mrml", ".vtp", ".vtu", ".xhtml")),
    "a message in JSON": ((b'{"error', b'{"message', b'{"detail'), "json", (".json", ".geojson", ".ipynb")),
}


def page_of_type(content_type: str, suffix: str) -> str:
    """Return what kind of words a server says that it sends, where a file of another kind is meant, else "".

    Examples
    --------
    >>> page_of_type("text/html; charset=utf-8", ".zip"), page_of_type("text/html", ".html")
    ('a web page', '')
    """
    kind = content_type.partition(";")[0].strip().lower()
    for words, (_, ending, suffixes) in WORDS.items():
        if kind.endswith(ending) and suffix.lower() not in suffixes:
            return words
    return ""


def page_of_beginning(beginning: bytes, suffix: str) -> str:
    """Return what kind of words a file begins with, where a file of another kind is meant, else "".

    Examples
    --------
    >>> page_of_beginning(b' <!DOCTYPE html><html>', ".zip"), page_of_beginning(b"PK", ".zip")
    ('a web page', '')
    """
    plain = beginning[:1000].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for words, (beginnings, _, suffixes) in WORDS.items():
        if plain.startswith(beginnings) and suffix.lower() not in suffixes:
            return words
    return ""
