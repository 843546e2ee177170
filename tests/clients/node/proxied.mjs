// What sends undici, and with it Node's fetch, through the proxy. Node 20 reads no proxy variable by itself.
import { EnvHttpProxyAgent, fetch as undiciFetch } from "undici";

export const dispatcher = new EnvHttpProxyAgent();
const proxied = (url, options) => undiciFetch(url, { ...options, dispatcher });
// With `plain`, clients have Node's own.
export const fetch = (process.argv[2] ?? "").startsWith("plain") ? globalThis.fetch : proxied;
