// @slack/web-api: a message; `refused` deletes one.
import { WebClient } from "@slack/web-api";

import { fetch } from "./proxied.mjs";

const how = (process.argv[2] ?? "").replace(/^plain, /, "");
const client = new WebClient(process.env.API_KEY, { fetch, retryConfig: { retries: 0 } });
if (how === "refused") {
  console.log(await client.chat.delete({ channel: "C1", ts: "1.1" }));
} else {
  console.log(await client.chat.postMessage({ channel: "C1", text: "hello" }));
}
