import sys
library, url = sys.argv[1:3]
try:
    if library == "urllib":
        import platform
        from urllib.error import HTTPError
        from urllib.request import urlopen
        version = platform.python_version()
    else:
        module = __import__(library)
        version = getattr(module, "__version__", None) or getattr(getattr(module, "version", None), "VERSION", "")
except ImportError:
    sys.exit(77)
print("version=%s" % version, flush=True)
if library == "urllib":
    try:
        status = urlopen(url, timeout=60).status
    except HTTPError as error:
        status = error.code
elif library == "stripe":
    module.api_base, module.api_key, module.max_network_retries = url.rstrip("/"), "probe", 0
    try:
        module.Balance.retrieve()
        status = 200
    except module.StripeError as error:
        if error.http_status is None:
            raise
        status = error.http_status
elif library == "aiohttp":
    import asyncio

    async def ask():
        async with module.ClientSession() as session:
            async with session.get(url) as answer:
                return answer.status

    status = asyncio.run(ask())
else:
    status = module.get(url, timeout=60).status_code
print("status=%s" % status)
