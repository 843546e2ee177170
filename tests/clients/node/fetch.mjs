// Node's fetch: a repository at GitHub; `refused` asks for its issues. Node 20 reads no proxy variable by itself.
import { EnvHttpProxyAgent, fetch } from "undici";

const path = process.argv[2] === "refused" ? "/issues" : "";
const answer = await fetch(`https://api.github.com/repos/acme/demo${path}`, {
  dispatcher: new EnvHttpProxyAgent(),
  headers: { authorization: `Bearer ${process.env.API_KEY}` },
});
console.log(answer.status, Object.fromEntries(answer.headers), await answer.text());
process.exitCode = answer.ok ? 0 : 1;
