"""States of checkpoints as one who forges them would write them."""

import hashlib
import json


def sealed(state):
    """Returns a state that names the SHA-256 of its own canonical JSON, where it names any."""
    if not (isinstance(state, dict) and isinstance(state.get("sha256"), dict)):
        return state
    plain = {**state, "sha256": {k: v for k, v in state["sha256"].items() if k != "state"}}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    plain["sha256"]["state"] = hashlib.sha256(text.encode()).hexdigest()
    return plain
