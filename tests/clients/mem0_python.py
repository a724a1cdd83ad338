"""What the unmodified Python client does against the server: `mem0_python.py URL KEY`, with SSL_CERT_FILE set. An AssertionError is a finding."""

import asyncio
import sys
import uuid

import mem0
from mem0 import AsyncMemoryClient, MemoryClient

URL, KEY = sys.argv[1:]
PATIENT, OTHER = f"MRN {uuid.uuid4()}", f"MRN {uuid.uuid4()}"


def refused(call, *arguments, **named):
    """The client's own exception for a refusal."""
    try:
        call(*arguments, **named)
    except Exception as error:  # noqa: BLE001: which one it is, the caller asserts
        return error
    raise AssertionError("it was not refused")


def texts(found):
    return sorted(memory["memory"] for memory in found["results"])


def main():
    client = MemoryClient(api_key=KEY, host=URL)

    added = client.add("Allergic to penicillin", user_id=PATIENT, run_id="round 1", metadata={"ward": "3"})["results"]
    assert [(one["event"], one["memory"]) for one in added] == [("ADD", "Allergic to penicillin")], added
    both = client.add(
        [{"role": "user", "content": "Walks 20 m"}, {"role": "assistant", "content": "With a stick"}], user_id=PATIENT, agent_id="nurse bot", infer=False
    )["results"]
    assert [one["memory"] for one in both] == ["Walks 20 m", "With a stick"], both
    client.add({"role": "user", "content": "Another person"}, user_id=OTHER)

    first = client.get(added[0]["id"])
    assert (first["memory"], first["user_id"], first["run_id"], first["metadata"]) == ("Allergic to penicillin", PATIENT, "round 1", {"ward": "3"}), first

    mine = client.get_all(filters={"user_id": PATIENT})
    assert texts(mine) == ["Allergic to penicillin", "Walks 20 m", "With a stick"] and mine["count"] == 3, mine
    page = client.get_all(filters={"user_id": PATIENT}, page=2, page_size=2)
    assert (page["count"], len(page["results"]), page["next"]) == (3, 1, None), page
    assert texts(client.get_all(filters={"AND": [{"user_id": PATIENT}, {"agent_id": "nurse bot"}]})) == ["Walks 20 m", "With a stick"]

    hits = client.search("is she allergic?", filters={"user_id": PATIENT}, top_k=1)["results"]
    assert [hit["id"] for hit in hits] == [first["id"]] and 0 < hits[0]["score"] <= 1, hits
    assert client.search("penicillin", filters={"user_id": OTHER})["results"] == [] or all(hit["user_id"] == OTHER for hit in client.search("penicillin", filters={"user_id": OTHER})["results"])

    client.update(first["id"], text="Allergic to penicillin: rash", metadata={"ward": "4"})
    assert client.get(first["id"])["memory"] == "Allergic to penicillin: rash"
    history = client.history(first["id"])
    assert [(step["event"], step["old_memory"], step["new_memory"]) for step in history] == [
        ("ADD", None, "Allergic to penicillin"), ("UPDATE", "Allergic to penicillin", "Allergic to penicillin: rash")], history

    client.batch_update([{"memory_id": one["id"], "text": f"{one['memory']} today"} for one in both])
    assert texts(client.get_all(filters={"agent_id": "nurse bot"})) == ["Walks 20 m today", "With a stick today"]
    client.feedback(both[0]["id"], feedback="POSITIVE")
    client.batch_delete([{"memory_id": both[1]["id"]}])
    assert texts(client.get_all(filters={"agent_id": "nurse bot"})) == ["Walks 20 m today"]

    users = {(entity["type"], entity["name"]): entity["total_memories"] for entity in client.users()["results"]}
    assert users[("user", PATIENT)] == 2 and users[("agent", "nurse bot")] == 1 and users[("run", "round 1")] == 1, users

    assert "message" in client.delete(both[0]["id"])
    gone = refused(client.get, both[0]["id"])
    assert type(gone).__name__ == "MemoryNotFoundError", repr(gone)
    assert type(refused(client.get, str(uuid.uuid4()))).__name__ == "MemoryNotFoundError"
    unlawful = refused(client.add, "x", user_id=PATIENT, expiration_date="2030-01-01")
    assert type(unlawful).__name__ == "ValidationError" and "expire" in str(unlawful), repr(unlawful)
    assert "Invalid API key" in str(refused(MemoryClient, api_key="rm_live_" + "0" * 48, host=URL))

    client.delete_all(user_id=PATIENT)
    assert client.get_all(filters={"user_id": PATIENT})["results"] == []
    assert texts(client.get_all(filters={"user_id": OTHER})) == ["Another person"]
    client.delete_users(user_id=OTHER)
    assert client.get_all(filters={"user_id": OTHER})["count"] == 0

    asyncio.run(later())
    print(f"mem0ai {mem0.__version__}: all of it worked")


async def later():
    """The asynchronous client sends the same."""
    async with AsyncMemoryClient(api_key=KEY, host=URL) as client:
        (added,) = (await client.add("Told while awaited", user_id=PATIENT))["results"]
        assert (await client.get(added["id"]))["memory"] == "Told while awaited"
        assert [hit["id"] for hit in (await client.search("awaited", filters={"user_id": PATIENT}))["results"]] == [added["id"]]
        await client.update(added["id"], text="Told and awaited")
        assert len(await client.history(added["id"])) == 2
        await client.delete(added["id"])
        assert (await client.get_all(filters={"user_id": PATIENT}))["results"] == []


main()
