"""Messages of each role, as the tests of the data write them, and those of the real data."""

import json


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


def tool(text):
    return {"role": "tool", "content": text}


def real_rows(shared, name):
    """The messages of each row of a file of real data, ShareGPT's or messages."""
    rows = json.loads((shared / "data" / name).read_text(encoding="utf-8"))
    if "messages" in rows[0]:
        return [row["messages"] for row in rows]
    roles = {"human": "user", "gpt": "assistant"}
    return [[{"role": roles[t["from"]], "content": t["value"]} for t in row["conversations"]] for row in rows]
