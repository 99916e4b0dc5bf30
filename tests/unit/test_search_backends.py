"""Each adapter against a real local server that speaks the documented format."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest
from researcher_tools import Documents
from researcher_tools.web_search import Opening, backend_names, open_backends

from researcher.errors import ToolError, ToolFault, UserError
from researcher.protocols import SearchBackend
from researcher.testing.search_conformance import check_backend, check_failure
from researcher.testing.search_server import Answer, Asked, SearchServer

pytestmark = pytest.mark.anyio

KEY = "sk-very-secret-1234567890"
ENV = {"BRAVE_API_KEY": KEY, "TAVILY_API_KEY": KEY, "EXA_API_KEY": KEY}
QUICK: dict[str, Any] = {"interval": 0.0, "backoff": 0.0, "seconds": 5.0}


class Case(NamedTuple):
    """One service: where it is asked, what it answers, and what its hits then are."""

    name: str
    path: str
    body: Callable[[Asked], Any]
    first: tuple[str, str, str, str]
    empty: Any


def _searxng(asked: Asked) -> Any:
    results = [
        {
            "url": "https://example.org/velar",
            "title": "Velar - an island",
            "content": "Velar is an island in the\nnorth.",
            "publishedDate": "2024-05-01T00:00:00",
            "engine": "duckduckgo",
            "engines": ["duckduckgo", "brave"],
            "positions": [1, 2],
            "score": 4.0,
            "category": "general",
            "template": "default.html",
            "parsed_url": ["https", "example.org", "/velar", "", "", ""],
        },
        {"url": "https://example.org/ferry", "title": "Ferry", "content": "", "engine": "brave", "publishedDate": None},
    ]
    return {
        "query": asked.params["q"],
        "number_of_results": 0,
        "results": results,
        "answers": [],
        "corrections": [],
        "infoboxes": [],
        "suggestions": ["velar ferry"],
        "unresponsive_engines": [["google", "Suspended: CAPTCHA"]],
    }


def _brave(asked: Asked) -> Any:
    results = [
        {
            "type": "search_result",
            "title": "Velar &amp; its ferry",
            "url": "https://example.org/velar",
            "description": "The <strong>ferry</strong> to Velar leaves at nine &mdash; daily.",
            "page_age": "2025-01-15T10:00:00",
            "age": "January 15, 2025",
            "language": "en",
            "meta_url": {"scheme": "https", "netloc": "example.org", "hostname": "example.org", "path": "› velar"},
        },
        {"type": "search_result", "title": "Other", "url": "https://example.net/", "description": "Other."},
    ]
    shown = results[: int(asked.params["count"])]
    return {"type": "search", "query": {"original": asked.params["q"]}, "web": {"type": "search", "results": shown}}


def _tavily(asked: Asked) -> Any:
    results = [
        {
            "title": "Velar",
            "url": "https://example.org/velar",
            "content": "An island.",
            "score": 0.81,
            "raw_content": None,
        },
        {
            "title": "Ferry",
            "url": "https://example.org/ferry",
            "content": "A ferry.",
            "score": 0.7,
            "raw_content": None,
        },
    ]
    shown = results[: asked.body["max_results"]]
    return {"query": asked.body["query"], "answer": None, "images": [], "results": shown, "response_time": "1.67"}


def _exa(asked: Asked) -> Any:
    results = [
        {
            "id": "https://example.org/velar",
            "url": "https://example.org/velar",
            "title": "Velar",
            "publishedDate": "2023-11-16T01:36:32.547Z",
            "author": "A. Writer",
            "highlights": ["Velar is an island.", "It has a ferry."],
            "highlightScores": [0.46, 0.4],
        },
        {"id": "x", "url": "https://example.org/ferry", "title": None, "text": "The whole text of the page."},
    ]
    return {"requestId": "b5947044", "resolvedSearchType": "neural", "results": results[: asked.body["numResults"]]}


def _wikipedia(asked: Asked) -> Any:
    pages = [
        {
            "id": 38930,
            "key": "Velar_(island)",
            "title": "Velar (island)",
            "excerpt": '<span class="searchmatch">Velar</span> is an island &quot;of the north&quot;',
            "matched_title": None,
            "description": "island",
            "thumbnail": None,
        },
        {"id": 2, "key": "Ø_&_co?", "title": "Ø & co?", "excerpt": "", "matched_title": None, "description": None},
    ]
    return {"pages": pages[: int(asked.params["limit"])]}


def _atom(*entries: str) -> bytes:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<feed xmlns="http://www.w3.org/2005/Atom">'
        "<link href='http://arxiv.org/api/query?x' rel='self' type='application/atom+xml'/>"
        '<title type="html">ArXiv Query: search_query=all:velar</title><id>http://arxiv.org/api/cHx</id>'
        '<opensearch:totalResults xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/">2</opensearch:totalResults>'
        f"{''.join(entries)}</feed>"
    ).encode()


def _arxiv(asked: Asked) -> Any:
    entries = [
        """<entry><id>http://arxiv.org/abs/hep-ex/0307015v1</id><updated>2003-07-07T13:46:39-04:00</updated>
        <published>2003-07-07T13:46:39-04:00</published><title>Multi-Electron Production &amp;
          Velar at HERA</title><summary>  Multi-electron production is studied
        at high transverse momentum.</summary><author><name>H1 Collaboration</name></author>
        <arxiv:comment xmlns:arxiv="http://arxiv.org/schemas/atom">23 pages</arxiv:comment>
        <link href="http://arxiv.org/abs/hep-ex/0307015v1" rel="alternate" type="text/html"/></entry>""",
        "<entry><id>http://arxiv.org/abs/2401.00001v2</id><title>Second</title><summary>Two.</summary></entry>",
    ]
    return _atom(*entries[: int(asked.params["max_results"])])


CASES = [
    Case(
        "searxng",
        "/search",
        _searxng,
        ("https://example.org/velar", "Velar - an island", "Velar is an island in the north.", "2024-05-01T00:00:00"),
        {"query": "x", "results": [], "unresponsive_engines": []},
    ),
    Case(
        "brave",
        "/web/search",
        _brave,
        (
            "https://example.org/velar",
            "Velar & its ferry",
            "The ferry to Velar leaves at nine — daily.",
            "2025-01-15T10:00:00",
        ),
        {"type": "search", "query": {"original": "x"}},
    ),
    Case("tavily", "/search", _tavily, ("https://example.org/velar", "Velar", "An island.", ""), {"results": []}),
    Case(
        "exa",
        "/search",
        _exa,
        (
            "https://example.org/velar",
            "Velar",
            "Velar is an island. … It has a ferry.",
            "2023-11-16T01:36:32.547Z",
        ),
        {"requestId": "b", "results": []},
    ),
    Case(
        "wikipedia",
        "/w/rest.php/v1/search/page",
        _wikipedia,
        ("{url}/wiki/Velar_(island)", "Velar (island)", 'island: Velar is an island "of the north"', ""),
        {"pages": []},
    ),
    Case(
        "arxiv",
        "/query",
        _arxiv,
        (
            "https://arxiv.org/abs/hep-ex/0307015v1",
            "Multi-Electron Production & Velar at HERA",
            "Multi-electron production is studied at high transverse momentum.",
            "2003-07-07T13:46:39-04:00",
        ),
        _atom(),
    ),
]
by_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def _open(name: str, url: str, **options: Any) -> SearchBackend:
    table: Mapping[str, Any] = {"url": url, **QUICK, **options}
    return open_backends([name], {name: table}, env=ENV)[0]


@by_case
async def test_an_adapter_keeps_every_rule_of_a_backend(case: Case) -> None:
    async with SearchServer({case.path: lambda asked: Answer(case.body(asked))}) as server:
        hits = await check_backend(_open(case.name, server.url), "ferry to Velar")
    first = hits[0]
    address, *rest = case.first
    assert (first.address, first.title, first.snippet, first.published) == (address.format(url=server.url), *rest)
    assert (first.rank, first.origin, len(hits)) == (1, case.name, 2)


@by_case
async def test_nothing_found_is_an_answer(case: Case) -> None:
    async with SearchServer({case.path: Answer(case.empty)}) as server:
        backend = _open(case.name, server.url)
        assert not await backend.search("Velar", 3)
        await backend.aclose()


async def _asked(name: str, path: str, body: Any, query: str, count: int, **options: Any) -> Asked:
    async with SearchServer({path: Answer(body)}) as server:
        backend = _open(name, server.url, **options)
        await backend.search(query, count)
        await backend.aclose()
        return server.asked[0]


async def test_searxng_is_asked_for_json_with_its_parameters() -> None:
    options = {"language": "de", "safesearch": 0, "time_range": "year", "engines": "brave,bing", "agent": "me (a@b.c)"}
    asked = await _asked("searxng", "/search", {"results": []}, "Fähre  nach\nVelar", 5, **options)
    assert asked.params == {
        "q": "Fähre nach Velar",
        "format": "json",
        "language": "de",
        "engines": "brave,bing",
        "time_range": "year",
        "safesearch": "0",
    }
    assert asked.method == "GET"
    assert asked.headers["User-Agent"] == "me (a@b.c)"


async def test_brave_is_asked_with_its_key_in_a_header_and_at_most_twenty() -> None:
    asked = await _asked("brave", "/web/search", {"type": "search"}, "Velar", 30, country="DE", freshness="py")
    assert asked.headers["X-Subscription-Token"] == KEY
    assert asked.params == {
        "q": "Velar",
        "count": "20",
        "result_filter": "web",
        "text_decorations": "false",
        "country": "DE",
        "freshness": "py",
    }


async def test_tavily_is_asked_with_a_bearer_and_a_body() -> None:
    asked = await _asked("tavily", "/search", {"results": []}, "Velar", 3, include_domains=["example.org"])
    assert asked.headers["Authorization"] == f"Bearer {KEY}"
    assert (asked.method, asked.body) == (
        "POST",
        {"query": "Velar", "max_results": 3, "include_domains": ["example.org"]},
    )


async def test_exa_is_asked_for_highlights() -> None:
    asked = await _asked("exa", "/search", {"results": []}, "Velar", 3, type="auto")
    assert asked.headers["x-api-key"] == KEY
    assert asked.body == {"query": "Velar", "numResults": 3, "contents": {"highlights": True}, "type": "auto"}


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ("electron production", "all:electron AND all:production"),
        ('"quantum error" codes (2024)', 'all:"quantum error" AND all:codes AND all:2024'),
        ("au:del_maestro AND ti:checkerboard", "au:del_maestro AND ti:checkerboard"),
        ("cats AND dogs", "all:cats AND all:dogs"),
        ("self-supervised GPT-4.1", "all:self-supervised AND all:GPT-4.1"),
    ],
)
async def test_arxiv_is_asked_in_its_own_syntax(query: str, sent: str) -> None:
    asked = await _asked("arxiv", "/query", _atom(), query, 3)
    assert asked.params == {"search_query": sent, "start": "0", "max_results": "3", "sortBy": "relevance"}


async def test_wikipedia_is_asked_for_pages_and_their_addresses_are_quoted() -> None:
    async with SearchServer({CASES[4].path: lambda asked: Answer(_wikipedia(asked))}) as server:
        backend = _open("wikipedia", server.url)
        hits = await backend.search("Velar", 2)
        await backend.aclose()
    assert server.asked[0].params == {"q": "Velar", "limit": "2"}
    assert hits[1].address == f"{server.url}/wiki/%C3%98_%26_co%3F"


async def test_searxng_without_json_says_what_to_enable() -> None:
    async with SearchServer({"/search": Answer("<html>403 Forbidden</html>", status=403)}) as server:
        said = await check_failure(_open("searxng", server.url), "Velar")
    assert "add json to search.formats" in said


async def test_searxng_whose_engines_all_failed_found_nothing_out() -> None:
    body = {"results": [], "unresponsive_engines": [["google", "CAPTCHA"], ["bing", "timeout"]]}
    async with SearchServer({"/search": Answer(body)}) as server:
        said = await check_failure(_open("searxng", server.url), "Velar")
    assert said == "searxng had no answer from its engines: google CAPTCHA, bing timeout"


async def test_brave_calls_a_wrong_key_unprocessable() -> None:
    error = {
        "id": "5d",
        "code": "SUBSCRIPTION_TOKEN_INVALID",
        "detail": "The provided token is invalid.",
        "status": 422,
    }
    async with SearchServer({"/web/search": Answer({"type": "ErrorResponse", "error": error}, status=422)}) as server:
        said = await check_failure(_open("brave", server.url), "Velar", secrets=[KEY])
    assert said == "brave refused the key (422); check the environment variable BRAVE_API_KEY"


async def test_an_error_of_arxiv_is_a_feed_and_no_paper() -> None:
    entry = (
        "<entry><id>http://arxiv.org/api/errors#incorrect_id_format_for_1234</id><title>Error</title>"
        "<summary>incorrect id format for 1234</summary></entry>"
    )
    async with SearchServer({"/query": Answer(_atom(entry))}) as server:
        backend = _open("arxiv", server.url)
        with pytest.raises(ToolError, match="incorrect id format for 1234"):
            await backend.search("id:1234", 3)
        await backend.aclose()


@pytest.mark.parametrize(
    "feed",
    [
        b'<?xml version="1.0"?><!DOCTYPE feed [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>'
        b'<feed xmlns="http://www.w3.org/2005/Atom"><entry><id>http://arxiv.org/abs/1</id><title>&b;</title></entry></feed>',
        b'<!DOCTYPE feed SYSTEM "http://127.0.0.1:1/x.dtd"><feed xmlns="http://www.w3.org/2005/Atom"/>',
        _atom()[:-8],
        b"<html><body>Sorry</body></html>",
        b"<feed>not in the namespace</feed>",
        b'<feed xmlns="http://www.w3.org/2005/Atom">' + b"<a>" * 10_000,
        b"",
    ],
    ids=["entities", "external", "breaks off", "html", "no namespace", "nested", "empty"],
)
async def test_a_feed_that_is_none_is_a_failure(feed: bytes) -> None:
    async with SearchServer({"/query": Answer(feed)}) as server:
        said = await check_failure(_open("arxiv", server.url), "Velar")
    assert said == "arxiv sent something else than an Atom feed, or one that breaks off"


@pytest.mark.parametrize("name", ["searxng", "brave", "tavily", "exa", "wikipedia"])
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"results": None},
        {"results": "none"},
        {"results": [1, 2]},
        {"web": [], "pages": {}},
        {"web": {"results": 3}},
    ],
    ids=json.dumps,
)
async def test_a_reply_of_another_form_is_never_nothing_found(name: str, body: Any) -> None:
    case = next(each for each in CASES if each.name == name)
    async with SearchServer({case.path: Answer(body)}) as server:
        await check_failure(_open(name, server.url), "Velar")


async def test_results_without_web_addresses_are_left_out_and_only_those_are_a_failure() -> None:
    bad = [{"url": "javascript:alert(1)", "title": "a"}, {"title": "none"}, {"url": 7}, {"url": "file:///etc/passwd"}]
    good = {"url": "HTTPS://Example.org/x y", "title": "", "content": "c"}
    async with SearchServer({"/search": [Answer({"results": [*bad, good]}), Answer({"results": bad})]}) as server:
        backend = _open("searxng", server.url)
        hits = await backend.search("Velar", 5)
        assert [(hit.rank, hit.address, hit.title) for hit in hits] == [
            (1, "HTTPS://Example.org/x%20y", "HTTPS://Example.org/x%20y")
        ]
        with pytest.raises(ToolFault, match="none has a web address"):
            await backend.search("Velar", 5)
        await backend.aclose()


async def test_the_documents_of_a_run_are_a_backend() -> None:
    documents = Documents.from_texts(
        {"a.md": "The ferry to Velar leaves at nine.\n\nThe ferry again.", "b.md": "Velar is an island with a ferry."}
    )
    backend = open_backends(["documents"], documents=documents)[0]
    hits = await check_backend(backend, "ferry Velar")
    assert {hit.address for hit in hits} == {"a.md", "b.md"}
    assert {hit.origin for hit in hits} == {"documents"}
    assert not await backend.search("zebra", 3)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("brave", {}, "set the environment variable BRAVE_API_KEY"),
        ("tavily", {}, "set the environment variable TAVILY_API_KEY"),
        ("exa", {}, "set the environment variable EXA_API_KEY"),
        ("searxng", {}, "set SEARXNG_URL"),
        ("searxng", {"url": "ftp://x"}, "must be an address"),
        ("searxng", {"url": "http://me:pw@host"}, "holds a user or a password"),
        ("searxng", {"url": "http://[::1"}, "must be an address"),
        ("documents", {}, "--docs FOLDER"),
        ("documents", {"top": 3}, r"search\.documents\.top is not a setting; there are: none"),
        ("wikipedia", {"language": "en.evil.example/"}, r"search\.wikipedia\.language: "),
        ("wikipedia", {"langauge": "de"}, r"search\.wikipedia\.langauge is not a setting"),
        ("arxiv", {"match": "some"}, r"search\.arxiv\.match: "),
        ("arxiv", {"agent": "me\r\nX-Evil: 1"}, r"search\.arxiv\.agent: "),
        ("arxiv", {"tries": 0}, r"search\.arxiv\.tries: "),
        ("arxive", {}, "did you mean arxiv"),
    ],
)
def test_what_is_missing_or_wrong_is_said_before_anything_is_sent(name: str, options: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        open_backends([name], {name: options}, env={})


@pytest.mark.parametrize("value", ["ключ-secret", "two words-secret", "line\nbreak-secret"])
def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(value: str) -> None:
    with pytest.raises(UserError, match="BRAVE_API_KEY") as caught:
        open_backends(["brave"], {}, env={"BRAVE_API_KEY": value})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "host", ["search.example", "127.0.0.1.example", "localhost.example", "10.0.0.1", "[2001:db8::1]"]
)
def test_a_key_is_not_sent_over_plain_http(host: str) -> None:
    with pytest.raises(UserError, match="plain http, which would show the key"):
        open_backends(["brave"], {"brave": {"url": f"http://{host}"}}, env=ENV)
    for near in ("127.0.0.1", "127.8.0.1", "[::1]", "localhost"):
        assert open_backends(["brave"], {"brave": {"url": f"http://{near}:80/res"}}, env=ENV)


def test_all_backends_have_names_and_a_table_must_be_one() -> None:
    names = {"arxiv", "brave", "ddgs", "documents", "exa", "searxng", "tavily", "wikipedia"}
    assert names <= set(backend_names())
    with pytest.raises(UserError, match=r"\[search.arxiv\]"):
        open_backends(["arxiv"], {"arxiv": 3})
    assert Opening("arxiv").options == {}
