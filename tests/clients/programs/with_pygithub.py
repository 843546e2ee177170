"""PyGithub: a repository; `refused` asks for its issues."""

import os
import sys

from github import Auth, Github

client = Github(auth=Auth.Token(os.environ["API_KEY"]), timeout=30)
repository = client.get_repo("acme/demo", lazy=sys.argv[1] == "refused")
if sys.argv[1] == "refused":
    print(list(repository.get_issues()))
else:
    print(repository.description)
