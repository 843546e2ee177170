// What sends undici, and with it Node's fetch, through the proxy. Node 20 reads no proxy variable by itself.
import { EnvHttpProxyAgent, fetch as undiciFetch } from "undici";

export const dispatcher = new EnvHttpProxyAgent();
export const fetch = (url, options) => undiciFetch(url, { ...options, dispatcher });
