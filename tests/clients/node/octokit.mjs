// @octokit/rest: a repository; `refused` asks for its issues.
import { Octokit } from "@octokit/rest";

import { fetch } from "./proxied.mjs";

const how = (process.argv[2] ?? "").replace(/^plain, /, "");
const client = new Octokit({ auth: process.env.API_KEY, request: { fetch } });
const demo = { owner: "acme", repo: "demo" };
if (how === "refused") {
  console.log((await client.issues.listForRepo(demo)).data);
} else {
  const answer = await client.repos.get(demo);
  console.log(answer.headers, answer.data.description);
}
