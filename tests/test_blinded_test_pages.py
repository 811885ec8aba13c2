"""The assessment's pages: what an assessor can and cannot find out, and what protects the rest."""

import asyncio
import itertools
import re
import sqlite3
import statistics
import time
from contextlib import closing
from dataclasses import replace
from urllib.parse import quote

import httpx
import pytest

from blinded_tests import SIDE, TOKEN, Visitor, kinds_by_picture_id, made_up, made_up_pictures
from described import try_every_operation
from page_client import Page
from phenolens.blinded_test.compute import result_tables
from phenolens.blinded_test.database import AssessmentFile, new_code
from phenolens.cli import main
from phenolens.core.files import sha256
from phenolens.study import Study
from phenolens.web.base import MAX_FORM_BYTES
from phenolens.web.blinded_test import create_app

TRICKS = ["../../study.json", "..\\x", "/etc/passwd", "a\0b", "￾", "é" * 300, "9" * 300, "%2e%2e", "<script>", "'--"]


@pytest.fixture
def study(tmp_path):
    return Study.create(tmp_path / "study")


def codes(file):
    return [person.code for person in file.assessors()]


def test_an_assessor_judges_every_cell_and_comes_to_the_end(study):
    file = made_up(study, "anna", n=3)
    anna = Visitor(study).entered(codes(file)[0])
    assert "You will see 6 cells" in anna.get("/begin").text
    seen = [anna.judge("synthetic") for _ in range(6)]
    assert set(seen) == set(kinds_by_picture_id(file))
    assert anna.get("/cell").headers["location"] == anna.get("/begin").headers["location"] == "/end"
    assert "judged all 6 cells" in anna.get("/end").text
    assert file.answers()["said_synthetic"].tolist() == [True] * 6


def test_a_paused_test_continues_on_another_machine(study):
    file = made_up(study, "anna")
    here, code = Visitor(study), codes(file)[0]
    here.entered(code)
    judged = [here.judge() for _ in range(2)]
    waiting = here.picture_id()
    assert "Kept: 2 answers of 12." in here.post("/pause").text
    assert here.get("/cell").status_code == 403  # the next person at this machine is not anna
    there = Visitor(study).entered(f" {code[:7].lower()}-{code[7:].lower()} ")
    assert "judged 2 of 12" in there.get("/begin").text
    assert there.picture_id() == waiting
    assert waiting not in judged


def test_there_is_no_going_back_and_an_answer_sent_twice_counts_once(study):
    file = made_up(study, "anna")
    anna = Visitor(study).entered(codes(file)[0])
    first = anna.judge("real")
    again = anna.post("/answer", {"picture": first, "said": "synthetic"})
    assert (again.status_code, again.headers["location"]) == (303, "/cell")
    assert anna.get(f"/pictures/{first}").status_code == 404
    assert file.answers()["said_synthetic"].tolist() == [False]


def test_the_own_score_is_shown_only_when_the_owner_allows(study):
    for show_score, words in ((False, None), (True, "4 of your 4 answers are correct, 100\N{NO-BREAK SPACE}%")):
        file = made_up(study, "anna", n=2, name=f"score-{show_score}", show_score=show_score)
        kinds = kinds_by_picture_id(file)
        anna = Visitor(study).entered(codes(file)[0])
        for _ in range(4):
            anna.judge("synthetic" if kinds[anna.picture_id()] else "real")
        html = anna.get("/end").text
        assert ("answers are correct" in html) == show_score
        assert words is None or words in html


def everything_sent(visitor, kinds):
    """Of each picture: its kind, its page and its picture as sent, and how long the picture took."""
    sent = []
    for _ in kinds:
        page = visitor.get("/cell")
        name = re.search(r'src="/pictures/(\w+)"', page.text)[1]
        began = time.perf_counter()
        picture = visitor.get(f"/pictures/{name}")
        sent.append((kinds[name], page, picture, time.perf_counter() - began))
        visitor.post("/answer", {"picture": name, "said": "real"})
    return sent


def test_nothing_that_is_sent_tells_the_kind(study):
    """Sizes, headers, words and time: all that is sent of a real cell could be of a synthetic one."""
    file = made_up(study, "anna", n=30)
    kinds = kinds_by_picture_id(file)
    sent = everything_sent(Visitor(study).entered(codes(file)[0]), kinds)
    lengths = {kind: {len(picture.content) for of, _, picture, _ in sent if of == kind} for kind in (True, False)}
    assert lengths[True] == lengths[False]
    assert len(lengths[True]) == 1
    headers = {kind: {str(sorted(p.headers.items())) for of, _, p, _ in sent if of == kind} for kind in (True, False)}
    assert headers[True] == headers[False]
    assert len(headers[True]) == 1
    # the page is the same for every cell, but for the picture's random name and its place in the order
    bare = {re.sub(r"[0-9a-f]{32}", "NAME", page.text) for _, page, _, _ in sent}
    assert len({re.sub(r'Cell \d+|value="\d+"', "N", page) for page in bare}) == 1
    times = {kind: [seconds for of, _, _, seconds in sent if of == kind] for kind in (True, False)}
    slower = statistics.mean(real < synthetic for real in times[False] for synthetic in times[True])
    assert abs(slower - 0.5) < 0.3  # of 30 against 30 by chance: beyond 0.3 once in 10,000


def test_neither_names_nor_orders_sort_the_kinds(study):
    file = made_up(study, "anna", "ben", n=200)
    kinds = kinds_by_picture_id(file)
    with closing(sqlite3.connect(file.path)) as database:
        question = "SELECT is_synthetic FROM places JOIN key USING (item) WHERE assessor = ? ORDER BY place"
        orders = [[bool(kind) for (kind,) in database.execute(question, (number,))] for number in (1, 2)]
    by_name = [kind for _, kind in sorted(kinds.items())]
    assert orders[0] != orders[1]
    for order in (by_name, *orders):
        assert sum(order) == 200
        changes = sum(before != after for before, after in itertools.pairwise(order))
        assert abs(changes - 200) < 50  # by chance 200 with a deviation of 10


def test_pages_of_assessors_hold_no_name_of_a_cell_treatment_or_model(study):
    file = made_up(study, "anna")
    anna = Visitor(study).entered(codes(file)[0])
    anna.judge()
    for path in ("/", "/begin", "/cell", "/end", "/static/assessment.css", "/static/assessment.js"):
        html = anna.get(path).text
        assert re.findall(r"DMSO|taxol|cell-\d|VAE|vaeplus|seed0|round-1", html) == [], path


def test_pages_have_no_script_of_their_own_and_their_picture_has_words_that_tell_nothing(study):
    file = made_up(study, "anna")
    anna = Visitor(study).entered(codes(file)[0])
    tags = Page(anna.get("/cell").text).tags
    (script,) = (named for tag, named in tags if tag == "script")
    assert script["src"] == "/static/assessment.js"
    assert [named for _, named in tags if any(key.startswith(("on", "style")) for key in named)] == []
    (image,) = (named for tag, named in tags if tag == "img")
    assert image["alt"] == "Cell 1, to be judged by eye"


def test_nobody_sees_without_code_or_token_and_an_assessor_sees_nothing_of_the_owners(study):
    file = made_up(study, "anna", "ben")
    picture = Visitor(study).entered(codes(file)[0]).picture_id()
    of_owner = ["/owner", "/owner/assessments/round-1", "/owner/assessments/round-1/results"]
    of_owner += ["/owner/assessments/round-1/results/answers.csv", "/owner/assessments/round-1/pictures/0.png"]
    for path in ["/begin", "/cell", f"/pictures/{picture}", "/end", *of_owner]:
        assert Visitor(study).get(path).status_code == 403, path
    anna = Visitor(study).entered(codes(file)[0])
    for path in of_owner:
        answer = anna.get(path)
        assert answer.status_code == 403, path
        assert "is_synthetic" not in answer.text
        assert codes(file)[1] not in answer.text
    assert anna.post("/owner/assessments/round-1/assessors", {"assessor": "x"}).status_code == 403
    assert len(file.assessors()) == 2
    assert anna.get("/owner?token=" + "x" * 24).status_code == 403
    ben = Visitor(study).entered(codes(file)[1])
    if ben.picture_id() != picture:
        assert ben.get(f"/pictures/{picture}").status_code == 404  # not ben's turn


def test_the_owner_sees_results_and_tables(study):
    file = made_up(study, "anna", "<b>ben", n=4)
    kinds = kinds_by_picture_id(file)
    for code in codes(file):
        visitor = Visitor(study).entered(code)
        for _ in range(8):
            picture = visitor.picture_id()
            visitor.judge("real" if not kinds[picture] or visitor.picture_id() == min(kinds) else "synthetic")
    owner = Visitor(study).as_owner()
    html = owner.get("/owner/assessments/round-1/results").text
    share = sum(kinds[picture] for picture in [min(kinds)]) / 4
    assert f"VAE+ passed as real {100 * share:.0f}\N{NO-BREAK SPACE}% of the time" in html
    assert "Real cells were called synthetic 0\N{NO-BREAK SPACE}% of the time" in html
    assert "By mechanism" in html
    assert "By channel" not in html  # all pictures show the same
    assert "&lt;b&gt;ben" in html
    assert "<b>ben" not in html
    for name, table in result_tables(file).items():
        answer = owner.get(f"/owner/assessments/round-1/results/{name}.csv")
        assert answer.text.splitlines()[0] == ",".join(table.columns)
        assert len(answer.text.splitlines()) == len(table) + 1
    assert owner.get("/owner/assessments/round-1/pictures/0.png").content == file.pictures([0])[0].png
    assert owner.get("/owner/assessments/round-1/pictures/8.png").status_code == 404


def test_while_nobody_has_finished_the_results_page_says_so(study):
    file = made_up(study, "anna")
    owner = Visitor(study).as_owner()
    assert "No answers yet" in owner.get("/owner/assessments/round-1/results").text
    Visitor(study).entered(codes(file)[0]).judge()
    html = owner.get("/owner/assessments/round-1/results").text
    assert "Nobody has judged all 12 pictures yet" in html
    assert "1 of 12, not counted" in html


def test_from_a_problem_the_owner_finds_back(study):
    answer = Visitor(study).as_owner().get("/owner/assessments/nothing")
    assert answer.status_code == 404
    assert 'href="/owner"' in answer.text


def test_tricks_are_refused_and_change_nothing(study):
    file = made_up(study, "anna")
    anna, owner = Visitor(study).entered(codes(file)[0]), Visitor(study).as_owner()
    before = {path: sha256(path) for path in study.folder.rglob("*.json")}
    for trick in TRICKS:
        path = quote(trick, safe="")
        for visitor, where in (
            (anna, f"/pictures/{path}"),
            (anna, f"/{path}"),
            (owner, f"/owner/assessments/{path}"),
            (owner, f"/owner/assessments/{path}/results"),
            (owner, f"/owner/assessments/round-1/results/{path}.csv"),
            (owner, f"/owner/assessments/round-1/pictures/{path}.png"),
        ):
            answer = visitor.get(where)
            assert answer.status_code in (404, 422), (where, answer.status_code)
            assert "root:" not in answer.text
            assert "<script>" not in answer.text
        assert anna.post("/answer", {"picture": trick, "said": "real"}).status_code in (303, 422)
        assert anna.post("/answer", {"picture": "0" * 32, "said": trick}).status_code == 422
    assert len(file.answers()) == 0
    assert {path: sha256(path) for path in study.folder.rglob("*.json")} == before


def test_a_wrong_code_or_token_opens_nothing_and_a_session_cannot_be_forged(study):
    file, app = made_up(study, "anna"), create_app(study, token=TOKEN)
    for code in (new_code(), codes(file)[0][:-1], codes(file)[0] + "0", "' OR 1=1 --"):
        visitor = Visitor(study, app=app)
        assert visitor.post("/begin", {"code": code}).status_code == 403
        assert "set-cookie" not in visitor.get("/begin").headers
    for cookie in ("eyJvd25lciI6IHRydWV9", "eyJvd25lciI6IHRydWV9.aaaaaa.bbbbbbbb", "null"):  # {"owner": true}
        forged = Visitor(study, app=app)
        forged.cookies.set("phenolens", cookie)
        assert forged.get("/owner").status_code == 403
    other = Visitor(study, app=create_app(study, token="another-token-of-a-test")).as_owner_of(
        "another-token-of-a-test"
    )
    elsewhere = Visitor(study, app=app)
    elsewhere.cookies = other.cookies
    assert elsewhere.get("/owner").status_code == 403  # the token signs the session


def test_forms_have_a_largest_size(study):
    visitor = Visitor(study)
    assert visitor.post("/begin", {"code": "x" * MAX_FORM_BYTES}).status_code == 413
    chunked = visitor.post("/begin", content=_chunks())
    assert chunked.status_code == 411
    for length in ("-1", "1e9", "9" * 5000, "x"):
        assert visitor.post("/begin", headers={"Content-Length": length}).status_code in (411, 413)


async def _chunks():
    yield b"code="
    yield b"x" * 100


def test_a_form_of_another_site_does_nothing(study):
    file = made_up(study, "anna")
    anna, owner = Visitor(study).entered(codes(file)[0]), Visitor(study).as_owner()
    picture = anna.picture_id()
    for origin in ("https://evil.example", "http://127.0.0.1:8001", "null", "http://127.0.0.1.evil.example"):
        answer = anna.post("/answer", {"picture": picture, "said": "real"}, headers={"Origin": origin})
        assert answer.status_code == 403
        added = owner.post("/owner/assessments/round-1/assessors", {"assessor": "eve"}, headers={"Origin": origin})
        assert added.status_code == 403
    assert (len(file.answers()), len(file.assessors())) == (0, 1)
    own = anna.post("/answer", {"picture": picture, "said": "real"}, headers={"Origin": "http://127.0.0.1"})
    assert own.status_code == 303
    assert len(file.answers()) == 1


def test_every_answer_is_protected_and_cookies_are_out_of_reach_of_scripts(study):
    file = made_up(study, "anna")
    visitor = Visitor(study)
    for path in ("/", "/nowhere", "/cell", "/owner", "/static/assessment.js", "/pictures/x"):
        headers = visitor.get(path).headers
        sources = headers["content-security-policy"]
        assert sources.startswith("default-src 'none'; ")
        assert "script-src 'self'" in sources
        assert "frame-ancestors 'none'" in sources
        assert "unsafe" not in sources
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
        assert headers["cache-control"] == ("private, max-age=600" if "static" in path else "no-store")
    for answer in (visitor.post("/begin", {"code": codes(file)[0]}), visitor.get(f"/owner?token={TOKEN}")):
        kept = answer.headers["set-cookie"].lower()
        assert "httponly" in kept
        assert "samesite=lax" in kept


def test_under_another_hosts_name_nobody_is_let_in_unless_others_are_served(study):
    for host, status in (("evil.example", 400), ("localhost:8000", 200)):
        assert Visitor(study).get("/", headers={"Host": host}).status_code == status
    open_to_all = create_app(study, token=TOKEN, hosts=("*",))
    assert Visitor(study, app=open_to_all, base="http://lab-7").get("/").status_code == 200
    assert Visitor(study, app=open_to_all, base="http://lab-7").get("/owner").status_code == 403


def test_a_damaged_assessment_is_told_in_words(study):
    file = made_up(study, "anna")
    owner = Visitor(study).as_owner()
    file.path.write_bytes(b"no database" * 100)
    answer = owner.get("/owner")
    assert answer.status_code == 500
    assert "not a database" in answer.text


def test_a_file_that_cannot_be_read_stops_nobody_of_another_assessment(study):
    file = made_up(study, "anna", name="round-2")
    foreign = made_up(study, "ben", name="round-1")
    visitor, without = Visitor(study).entered(codes(file)[0]), Visitor(study)
    foreign.path.write_bytes(b"no database" * 100)
    visitor.judge("real")
    assert file.assessors()[0].n_answers == 1
    answer = without.post("/begin", {"code": "0" * 20})
    assert answer.status_code == 500
    assert "not a database" in answer.text  # this may be where the code is


@pytest.mark.slow
def test_whatever_its_description_allows_is_answered_without_an_error(study):
    """Schemathesis makes requests from the OpenAPI description: a server error is a bug."""
    file = made_up(study, "anna", n=2)
    app = create_app(study, token=TOKEN, hosts=("*",))
    visitor = Visitor(study, app=app).entered(codes(file)[0]).as_owner()
    asked, statuses = set(), set()

    def check(case):
        case.cookies = dict(visitor.cookies)
        answer = case.call(base_url="http://127.0.0.1")
        assert answer.status_code < 500, (case.method, case.path, answer.text)
        asked.add((case.method, case.path))
        statuses.add(answer.status_code)

    try_every_operation(app, check, max_examples=6)
    assert len(asked) == len(app.openapi()["paths"]) + 1  # /begin has two
    assert statuses >= {200, 303, 404}  # with access


def test_fifty_assessors_click_at_once_without_an_error_or_a_lost_answer(study):
    file = made_up(study, *(f"assessor {number}" for number in range(50)), n=1)
    app = create_app(study, token=TOKEN)

    async def one(code):
        through = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=through, base_url="http://127.0.0.1") as client:
            statuses = [(await client.post("/begin", data={"code": code})).status_code]
            for _ in range(2):
                page = await client.get("/cell")
                picture = re.search(r'src="/pictures/(\w+)"', page.text)[1]
                statuses.append((await client.get(f"/pictures/{picture}")).status_code)
                answer = await client.post("/answer", data={"picture": picture, "said": "real"})
                statuses.append(answer.status_code)
            return statuses

    async def all_at_once():
        return await asyncio.gather(*map(one, codes(file)))

    assert asyncio.run(all_at_once()) == [[303, 200, 303, 200, 303]] * 50
    assert file.answers().groupby("assessor").size().to_dict() == {f"assessor {number}": 2 for number in range(50)}


def test_a_test_of_each_channel_says_so_and_has_its_results_by_channel(study, capsys):
    about = dict(run="vaeplus-seed0", model="vaeplus", title="VAE+", n=4, seed=0, channels=["DNA", "actin"])
    about |= {"show_score": False, "each_channel": True, "crop_px": SIDE}
    views = ["DNA, actin", "DNA", "actin", "actin"]
    pictures = [replace(one, shown=views[number // 2]) for number, one in enumerate(made_up_pictures(4))]
    file = AssessmentFile.create(study.assessments_folder / "each.sqlite", pictures, about)
    file.add_assessors(["anna"])
    visitor = Visitor(study).entered(codes(file)[0])
    assert "others show one channel in grey" in visitor.get("/begin").text
    for _ in range(8):
        visitor.judge("real")
    html = Visitor(study).as_owner().get("/owner/assessments/each/results").text
    rows = re.search(r"By channel.*?<tbody>(.*?)</tbody>", html, re.S)[1]
    counted = re.findall(r'<th scope="row">(.*?)</th><td>(\d+)</td>', rows)
    assert counted == [("DNA, actin", "1"), ("actin", "2"), ("DNA", "1")]
    assert re.findall(r"<span>taxol@0.3<br>(.*?)<br>1 of 1</span>", html) == ["DNA", "actin"]  # which one a grey one is
    assert "over pictures in colour and pictures of one channel" in html  # which no published number is of
    assert '<section id="showns">' in html
    assert main(["assess", str(study.folder), "--results", "--name", "each"]) == 0
    said = capsys.readouterr().out
    assert "shown actin: passed as real 100.0 % (95 % interval 34.2 to 100.0), false alarms 0.0 %" in said
    made_up(study, "anna")
    other = Visitor(study).as_owner().get("/owner/assessments/round-1/results").text
    assert "<td>DNA actin, and each alone</td>" in other
    assert "pictures of one channel" not in other
