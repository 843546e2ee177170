"""aiohttp: a repository at GitHub; `refused` asks for its issues; `plain` is as it comes; `around` and `through` a URL
without and with trust_env."""

import asyncio
import os
import sys

import aiohttp


async def main() -> None:
    path = "/issues" if sys.argv[1] == "refused" else ""
    url = sys.argv[2] if len(sys.argv) > 2 else f"https://api.github.com/repos/acme/demo{path}"
    headers = {"Authorization": f"Bearer {os.environ['API_KEY']}"}
    timeout = aiohttp.ClientTimeout(total=30)
    # It reads the variables only where it is told to.
    told = {} if sys.argv[1] in ("around", "plain") else {"trust_env": True}
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, **told) as session:
        async with session.get(url) as answer:
            # Its message has the reason phrase, and nothing of the body.
            answer.raise_for_status()
            print(dict(answer.headers), await answer.text())


asyncio.run(main())
