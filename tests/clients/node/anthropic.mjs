// @anthropic-ai/sdk: a message, whole or `streamed`; `refused` lists batches.
import Anthropic from "@anthropic-ai/sdk";

import { fetch } from "./proxied.mjs";

const how = (process.argv[2] ?? "").replace(/^plain, /, "");
const client = new Anthropic({ apiKey: process.env.API_KEY, fetch });
const asked = { model: "m", max_tokens: 9, messages: [{ role: "user", content: "hello" }] };
if (how === "refused") {
  console.log(await client.messages.batches.list());
} else if (how === "streamed") {
  const stream = client.messages.stream(asked);
  stream.on("text", (text) => process.stdout.write(text));
  await stream.finalMessage();
} else {
  console.log((await client.messages.create(asked)).content);
}
