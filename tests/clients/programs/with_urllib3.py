"""urllib3: a repository at GitHub; `refused` asks for its issues; `around` and `through` a URL without and with the proxy."""

import os
import sys

import urllib3

roots = os.environ["SSL_CERT_FILE"]
path = "/issues" if sys.argv[1] == "refused" else ""
url = sys.argv[2] if len(sys.argv) > 2 else f"https://api.github.com/repos/acme/demo{path}"
# It reads no variable by itself.
around = sys.argv[1] == "around"
pool = urllib3.PoolManager(ca_certs=roots) if around else urllib3.ProxyManager(os.environ["HTTPS_PROXY"], ca_certs=roots)
headers = {"Authorization": f"Bearer {os.environ['API_KEY']}"}
answer = pool.request("GET", url, headers=headers, timeout=30, retries=False)
print(answer.status, dict(answer.headers), answer.data.decode())
sys.exit(answer.status != 200)
