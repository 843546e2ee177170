"""urllib: a repository at GitHub; `refused` asks for its issues."""

import os
import sys
from urllib.request import Request, urlopen

path = "/issues" if sys.argv[1] == "refused" else ""
headers = {"Authorization": f"Bearer {os.environ['API_KEY']}"}
# Its error has the reason phrase, and nothing of the body.
with urlopen(Request(f"https://api.github.com/repos/acme/demo{path}", headers=headers), timeout=30) as answer:
    print(answer.headers, answer.read().decode())
