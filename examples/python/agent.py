#!/usr/bin/env python3
"""An agent that knows nothing of the sidecar: `requests`, an API key from a variable, two calls.

The first is within what its nonce was minted for, the second is not: it shows what an agent can learn from a refusal.
"""

from __future__ import annotations

import os
import sys

import requests

API = "https://api.stripe.com"
ANSWER_SECONDS_MAX = 30


def main() -> int:
    """Reads the customers, and tries to refund something."""
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {os.environ['STRIPE_API_KEY']}"

    answer = session.get(f"{API}/v1/customers", timeout=ANSWER_SECONDS_MAX)
    answer.raise_for_status()
    for customer in answer.json()["data"]:
        print(f"agent: {customer['id']}: {customer['description']}")

    answer = session.post(f"{API}/v1/refunds", {"charge": "ch_1"}, timeout=ANSWER_SECONDS_MAX)
    if answer.headers.get("Proxy-Status", "").startswith("valetkey"):
        refusal = answer.json()
        print(f"agent: refused by the sidecar ({refusal['code']}): {refusal['detail']}")
        return 0
    print(f"agent: the upstream answered {answer.status_code}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
