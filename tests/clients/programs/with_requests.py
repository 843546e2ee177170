"""requests: a repository at GitHub; `refused` asks for its issues; `attached` sends no key."""

import os
import sys

import requests

if sys.argv[1] == "attached":
    answer = requests.get("https://attached.example.com/demo", timeout=30)
else:
    headers = {"Authorization": f"Bearer {os.environ['API_KEY']}"}
    path = "/issues" if sys.argv[1] == "refused" else ""
    answer = requests.get(f"https://api.github.com/repos/acme/demo{path}", headers=headers, timeout=30)
# Its message has the reason phrase, and nothing of the body.
answer.raise_for_status()
print(answer.headers, answer.text)
