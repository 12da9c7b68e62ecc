"""Join tokens, joining and the installer over the API."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from cryptography import x509

from certs.keys import make_key_and_csr
from certs.tokens import decode_token, secret_to_text
from certs.trust import pinned_root
from hub import installer
from hub.agent_wheel import AgentWheel
from hub.authz import Role
from hub.core import Hub
from tests.hub.conftest import URL, ClientFor

CSR = make_key_and_csr()[1].decode()


async def test_from_a_token_to_a_node(client: ClientFor, hub: Hub) -> None:
    admin, stranger = await client(Role.ADMIN), await client(None)
    made = await admin.post("/api/v1/tokens", json={"uses": 2, "labels": {"site": "oslo"}})
    assert made.status_code == 201
    token = decode_token(made.json()["token"])
    assert token.hubs == (URL,)
    assert made.json()["command"].endswith(f"MOORING_JOIN_TOKEN={made.json()['token']} sh")
    ca = await stranger.get("/api/v1/ca")
    root = pinned_root(ca.content, token.pin)
    facts = {"hostname": "shop 7", "field_of_a_newer_agent": 1}
    body = {"secret": secret_to_text(token.secret), "csr_pem": CSR, "facts": facts}
    joined = await stranger.post("/api/v1/join", json=body)
    assert joined.status_code == 201, joined.text
    assert joined.json()["name"] == "shop-7"
    leaf, intermediate = x509.load_pem_x509_certificates(joined.json()["certificate_pem"].encode())
    leaf.verify_directly_issued_by(intermediate)
    intermediate.verify_directly_issued_by(root)
    listed = (await admin.get("/api/v1/tokens")).json()
    assert listed["total"] == 1
    assert listed["items"][0]["uses_left"] == 1
    assert listed["items"][0]["labels"] == {"site": "oslo"}
    assert made.json()["token"] not in str(listed)


async def test_refusals_are_problems_with_their_name(client: ClientFor) -> None:
    admin, stranger = await client(Role.ADMIN), await client(None)
    made = (await admin.post("/api/v1/tokens", json={})).json()
    secret = secret_to_text(decode_token(made["token"]).secret)
    body = {"secret": secret, "csr_pem": CSR, "facts": {"hostname": "web"}}

    async def refusal(**change: object) -> tuple[int, str]:
        answer = await stranger.post("/api/v1/join", json=body | change)
        assert secret not in answer.text
        return answer.status_code, answer.json()["code"]

    assert await refusal(secret="A" * 43) == (403, "token_unknown")
    assert await refusal(csr_pem="nonsense") == (400, "bad_request")
    assert await refusal(name="all") == (400, "bad_request")
    assert await refusal(facts={"hostname": 7}) == (400, "bad_request")
    assert await refusal(facts={"hostname": "x" * 300_000}) == (413, "too_large")
    assert (await stranger.post("/api/v1/join", json=body)).status_code == 201
    assert await refusal() == (403, "token_used")
    assert (await admin.delete(f"/api/v1/tokens/{made['id']}")).status_code == 204
    assert await refusal() == (403, "token_unknown")
    assert (await admin.delete(f"/api/v1/tokens/{made['id']}")).json()["code"] == "not_found"


@pytest.mark.parametrize(
    "body", [{"uses": 0}, {"ttl_s": 90000}, {"labels": {"a b": "c"}}, {"typo": 1}]
)
async def test_a_token_that_cannot_be_is_refused(
    client: ClientFor, body: dict[str, object]
) -> None:
    answer = await (await client(Role.ADMIN)).post("/api/v1/tokens", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


async def test_tokens_come_in_pages(client: ClientFor) -> None:
    admin = await client(Role.ADMIN)
    made = [(await admin.post("/api/v1/tokens", json={})).json()["id"] for _ in range(3)]
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(2):
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await admin.get("/api/v1/tokens", params=query)).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert seen == made[::-1]
    wrong = await admin.get("/api/v1/tokens", params={"cursor": "-1"})
    assert wrong.json()["code"] == "bad_request"


async def test_the_installer_is_public_and_pinned(
    client: ClientFor, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Source:
        version = "1.2.3"

    content = io.BytesIO()
    zipfile.ZipFile(content, "w").close()
    wheel = AgentWheel("mooring-1.2.3-py3-none-any.whl", content.getvalue())
    monkeypatch.setattr(installer, "installed", Source)
    monkeypatch.setattr(installer, "build_agent_wheel", lambda source: wheel)
    stranger = await client(None)
    script = await stranger.get("/install.sh")
    assert script.headers["content-type"].startswith("text/x-shellscript")
    assert f"HUB='{URL}'" in script.text
    assert f"WHEEL='{wheel.name}'" in script.text
    assert (await stranger.get(f"/install/{wheel.name}")).content == wheel.content
    assert (await stranger.get("/install/other.whl")).status_code == 404
