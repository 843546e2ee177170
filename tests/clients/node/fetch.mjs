// Node's fetch: a repository at GitHub; `refused` asks for its issues; or the URL that it is given.
import { EnvHttpProxyAgent, setGlobalDispatcher } from "undici";

setGlobalDispatcher(new EnvHttpProxyAgent());
await import("./fetch_plain.mjs");
