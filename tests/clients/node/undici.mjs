// undici: a repository at GitHub; `refused` asks for its issues.
import { request } from "undici";

import { dispatcher } from "./proxied.mjs";

const path = process.argv[2] === "refused" ? "/issues" : "";
const headers = { authorization: `Bearer ${process.env.API_KEY}` };
const answer = await request(`https://api.github.com/repos/acme/demo${path}`, { dispatcher, headers });
console.log(answer.statusCode, answer.headers, await answer.body.text());
process.exitCode = answer.statusCode === 200 ? 0 : 1;
