// Node's fetch as it comes.
const asked = process.argv[2] ?? "allowed";
const path = asked === "refused" ? "/issues" : "";
const url = asked.startsWith("https:") ? asked : `https://api.github.com/repos/acme/demo${path}`;
const answer = await fetch(url, { headers: { authorization: `Bearer ${process.env.API_KEY}` } });
console.log(answer.status, Object.fromEntries(answer.headers), await answer.text());
process.exitCode = answer.ok ? 0 : 1;
