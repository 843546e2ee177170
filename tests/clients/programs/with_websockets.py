"""websockets: two messages, the second after the answer to the first; `refused` asks for another path."""

import os
import sys

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

path = "private" if sys.argv[1] == "refused" else "echo"
headers = {"Authorization": f"Bearer {os.environ['API_KEY']}"}
try:
    with connect(f"wss://sockets.example.com/{path}", additional_headers=headers, open_timeout=30) as socket:
        for message in ("one", "two"):
            socket.send(message)
            print(socket.recv(timeout=30), flush=True)
except InvalidStatus as refusal:
    sys.exit(f"{refusal}: {refusal.response.body.decode()}")
