"""Written by valetkey: makes Python clients that ignore the environment use the proxy and its CA.

stripe ships its own CA file and reads no variable; aiohttp reads the proxy variables only when asked to. Both are
told so when they are imported. Nothing else is touched, nothing is printed, and a failure in here changes nothing.
"""


def _valetkey():
    import os
    import sys

    def trust_bundle(stripe):
        bundle = os.environ.get("SSL_CERT_FILE") or os.environ.get("REQUESTS_CA_BUNDLE")
        if bundle and os.path.isfile(bundle):
            stripe.ca_bundle_path = bundle

    def trust_env(client):
        session = client.ClientSession
        made = session.__init__

        import functools

        @functools.wraps(made)
        def __init__(self, *args, **kwargs):
            kwargs.setdefault("trust_env", True)
            made(self, *args, **kwargs)

        session.__init__ = __init__

    # What to do once a module is there.
    after = {"stripe": trust_bundle, "aiohttp.client": trust_env}

    class Hook:
        """Finds nothing by itself: it asks the other finders and adds a step to what they found."""

        def find_spec(self, name, path=None, target=None):
            if name not in after:
                return None
            for finder in sys.meta_path:
                find = getattr(finder, "find_spec", None)
                if finder is self or isinstance(finder, Hook) or find is None:
                    continue
                spec = find(name, path, target)
                if spec is not None:
                    add_step(name, spec.loader)
                    return spec
            return None

    def add_step(name, loader):
        run = getattr(loader, "exec_module", None)
        if run is None or "exec_module" in getattr(loader, "__dict__", {}):
            return

        def exec_module(module):
            run(module)
            try:
                if getattr(module, "__name__", None) == name:
                    after[name](module)
            except Exception:
                pass

        try:
            loader.exec_module = exec_module
        except Exception:
            pass

    sys.meta_path.insert(0, Hook())


def _valetkey_next():
    """Runs the sitecustomize that this one hides, as Python would have; what it raises is its own affair."""
    import os
    import sys
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    # Several of ours may stand one behind the other; each is left out once it has run.
    here = os.path.dirname(os.path.abspath(__file__))
    seen = sys.__dict__.setdefault("_valetkey_shims", [])
    if here in seen:
        return
    seen.append(here)
    rest = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) not in seen]
    spec = PathFinder.find_spec("sitecustomize", rest)
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


try:
    import sys as _sys

    if not hasattr(_sys, "_valetkey_shims"):
        _valetkey()
except Exception:
    pass
_valetkey_next()
