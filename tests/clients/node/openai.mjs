// openai for Node: a completion, whole or `streamed`; `refused` lists files.
import OpenAI from "openai";

import { fetch } from "./proxied.mjs";

const how = (process.argv[2] ?? "").replace(/^plain, /, "");
const client = new OpenAI({ apiKey: process.env.API_KEY, fetch });
const messages = [{ role: "user", content: "hello" }];
if (how === "refused") {
  console.log(await client.files.list());
} else if (how === "streamed") {
  for await (const event of await client.chat.completions.create({ model: "m", messages, stream: true })) {
    process.stdout.write(event.choices[0].delta.content ?? "");
  }
} else {
  console.log((await client.chat.completions.create({ model: "m", messages })).choices[0].message.content);
}
